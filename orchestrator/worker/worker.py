"""A worker: takes jobs from the queue and does each by a Supervisor of its own, until it is told to
stop. It also looks after the jobs of workers that died.

The configuration and the switch of local mode are read anew for each job.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path

import anyio
import anyio.to_thread

from orchestrator.config import Config, load_config
from orchestrator.errors import InputError, OrchestrateError, QueueError, lone_error
from orchestrator.events import (
    ErrorKind,
    Failure,
    JobOutcome,
    Outcome,
)
from orchestrator.journal import OUTCOME
from orchestrator.outcome import together
from orchestrator.supervisor import Supervisor
from orchestrator.task import TaskFile
from orchestrator.telemetry import warn
from orchestrator.worker import records, wire
from orchestrator.worker.client import interrupted, open_access, patient
from orchestrator.worker.engine import (
    Access,
    App,
    Entry,
    NotOursError,
    Write,
    away,
    employed,
    is_postgres,
    sqlite_file,
)
from orchestrator.worker.feed import Feed
from orchestrator.worker.fleet import FleetSlots
from orchestrator.worker.lease import Files, Session, session, worker_id
from orchestrator.worker.sign import Sign

SWEEP_S, SETTLE_S, STOP_S, LOOK_S = 0.25, 0.5, 3.0, 1.0
LAST_WORDS_S, SWEPT_S = 3.0, 10.0
UNWRITTEN = 60
"""After so many sweeps, whether the end of each job that was done here is written is looked at."""


@dataclass(frozen=True, kw_only=True)
class Post:
    """Where a worker works: its queue, how many jobs at a time, its records, the configuration
    file that counts instead of each job's own, and labels beside those that are found.
    """

    url: str
    concurrency: int
    state: Path
    config: Path | None = None
    labels: frozenset[str] = frozenset()


@dataclass
class Shift:
    """A worker's shift, as whoever started it ends it: `drain` lets it take no more jobs, `stop`
    interrupts those that run. `idle_ends`: it is over when nothing is left to do.
    """

    idle_ends: bool = False
    draining: anyio.Event = field(default_factory=anyio.Event)
    stopping: anyio.Event = field(default_factory=anyio.Event)

    def drain(self) -> None:
        self.draining.set()

    def stop(self) -> None:
        self.draining.set()
        self.stopping.set()


class LeaseLostError(OrchestrateError):
    """Others may think that this worker is dead, so it has ended its agents."""


async def work(post: Post, shift: Shift, tell: Callable[[str], None] = lambda _: None) -> None:
    """Do jobs until the shift is over. Cancelling it kills all agents at once.

    Raises ConfigError if the queue cannot be opened, LeaseLostError, QueueError.
    """
    worker = worker_id()
    files = Files(lease_folder(post))
    async with AsyncExitStack() as stack:
        access = await stack.enter_async_context(_opened(post.url))
        stack.enter_context(files.hold(worker))
        stack.push_async_callback(_left, worker, files, access)
        lock = None
        if is_postgres(post.url):
            lock = await stack.enter_async_context(session(post.url, worker))
        desk = Desk(post, shift, access, lock)
        sign = Sign(worker, access, given=post.labels, config=post.config)
        app = await stack.enter_async_context(
            employed(post.url, worker, desk.do, room=desk.room, fits=sign.fits)
        )
        tell(f"worker {worker} takes jobs from {wire.shown_url(post.url)}")
        gone = anyio.Event()
        async with anyio.create_task_group() as group:
            stack.push_async_callback(sign.taken_down)
            group.start_soon(_kept_in_view, post.url, shift, gone)
            group.start_soon(sign.shown)
            group.start_soon(anyio.to_thread.run_sync, _prepared, post)
            swept = anyio.Event()
            group.start_soon(
                partial(_sweeping, worker, files, lock, access, app, post, swept=swept)
            )
            if lock is not None:
                group.start_soon(_given_up, lock, shift, desk)
            await _until_over(shift, desk, access, app, sign, swept)
            group.cancel_scope.cancel()
        if gone.is_set():
            raise QueueError(
                "the queue's file was removed, or another put in its place",
                hint="What ran here was finished; its records are in the state directory."
                " Start the worker again.",
            )


async def _kept_in_view(url: str, shift: Shift, gone: anyio.Event) -> None:
    """Drain when the queue's file is not there any more: jobs go into another one then."""
    if is_postgres(url):
        return
    file = sqlite_file(url)
    at_first = _place(file)
    while _place(file) == at_first:  # noqa: ASYNC110 (the file system tells nobody)
        await anyio.sleep(LOOK_S)
    gone.set()
    shift.drain()


def _place(file: Path) -> tuple[int, int] | None:
    try:
        found = file.stat()
    except FileNotFoundError:
        return None
    return found.st_dev, found.st_ino


def _prepared(post: Post) -> None:
    with suppress(OrchestrateError):  # of a configuration: each job says so itself
        records.prepared(load_config(post.config, looking=True))


async def _left(worker: str, files: Files, access: Access) -> None:
    """Nothing to look after is left behind, or the lease stays for others to find."""
    with suppress(Exception), anyio.CancelScope(shield=True), anyio.fail_after(5):
        jobs = await anyio.to_thread.run_sync(partial(access.of_worker, worker, running=True))
        if not jobs:
            files.forget(worker)


def lease_folder(post: Post) -> Path:
    """Where the leases of this machine are: beside a SQLite queue, else in the state."""
    if is_postgres(post.url):
        return post.state / "queue" / "workers"
    file = sqlite_file(post.url)
    return file.with_name(f"{file.name}.workers")


@asynccontextmanager
async def _opened(url: str) -> AsyncGenerator[Access]:
    access = await anyio.to_thread.run_sync(open_access, url)
    try:
        await anyio.to_thread.run_sync(access.prepare)
        yield access
    finally:
        with anyio.CancelScope(shield=True):
            await anyio.to_thread.run_sync(access.close)


async def _given_up(lock: Session, shift: Shift, desk: Desk) -> None:
    await lock.lost.wait()
    shift.stop()
    with anyio.move_on_after(STOP_S):  # who does not stop is killed
        while not desk.idle():  # noqa: ASYNC110 (the engine runs them, in tasks of its own)
            await anyio.sleep(SETTLE_S / 5)
    raise LeaseLostError(
        "the worker's lease is lost; its agents were ended",
        hint="Start it again when the database can be reached: its jobs are looked after then.",
    )


async def _until_over(
    shift: Shift, desk: Desk, access: Access, app: App, sign: Sign, swept: anyio.Event
) -> None:
    """Until somebody ended the shift and no job runs here, or there is nothing left to do: what
    workers that died left is `swept` before that is said.
    """
    while True:
        if shift.draining.is_set() and await _nothing_runs(desk, app):
            return
        idle = shift.idle_ends and swept.is_set() and desk.idle() and not app.running()
        if idle and await _nothing_waits(access, sign):
            shift.drain()
            continue
        with anyio.move_on_after(SETTLE_S):
            await (shift.stopping if shift.draining.is_set() else shift.draining).wait()
            await anyio.sleep(SETTLE_S / 5)


async def _nothing_waits(access: Access, sign: Sign) -> bool:
    """Whether there is no job that this worker could take; while nobody can say, there may be."""
    try:
        waiting = await anyio.to_thread.run_sync(partial(access.entries, states=("ENQUEUED",)))
        mine = [job for job in waiting if sign.fits(job.needs)]
        return not mine or await anyio.to_thread.run_sync(access.paused)
    except Exception as error:
        if not away(error):
            raise
        return False


async def _nothing_runs(desk: Desk, app: App) -> bool:
    if not desk.idle() or app.running():
        return False
    await anyio.sleep(SETTLE_S)  # what was being taken in that moment is seen by then
    return desk.idle() and not app.running()


# --- jobs ----------------------------------------------------------------------------------------


class Desk:
    """What is done here: jobs, each with its Supervisor."""

    def __init__(self, post: Post, shift: Shift, access: Access, lock: Session | None) -> None:
        self._post = post
        self._slots = None if lock is None else FleetSlots(post.state / "slots", lock)
        self._shift = shift
        self._access = access
        self._busy = 0

    def room(self) -> int:
        """How many jobs may be running here; called from any thread."""
        return 0 if self._shift.draining.is_set() else self._post.concurrency

    async def do(self, job_id: str, text: str, write: Write) -> str:
        """A job, from what was submitted to its outcome."""
        self._busy += 1
        try:
            return wire.outcome_text(await self._done(job_id, text, write))
        finally:
            self._busy -= 1

    def idle(self) -> bool:
        """Whether no job is being done here."""
        return self._busy == 0

    async def _done(self, job_id: str, text: str, write: Write) -> JobOutcome:
        try:
            wanted = wire.loads(text)
        except InputError as error:
            unread = together({"task": _refused(error)})
            await self._noted(job_id, unread)
            return unread
        feed = Feed(write)
        outcome = _interrupted(wanted.file, "the worker was stopped")
        try:
            with lone_error():
                async with anyio.create_task_group() as group:
                    group.start_soon(feed.run)
                    outcome = await self._run(job_id, wanted, feed)
                    await feed.end()
            await self._noted(job_id, outcome)
            return outcome
        except (anyio.get_cancelled_exc_class(), NotOursError):
            await self._last_words(job_id, feed.outcome)
            raise

    async def _noted(self, job_id: str, outcome: JobOutcome) -> None:
        """For lists: to the engine, a job that failed was done as any other."""
        with suppress(Exception):  # a full disk, say: then lists do not say how it ended
            await patient(self._access.note, job_id, {"status": outcome.status})

    async def _run(self, job_id: str, wanted: wire.Wanted, feed: Feed) -> JobOutcome:
        try:
            with lone_error():
                return await self._supervised(job_id, wanted.file, self._config(wanted), feed)
        except OrchestrateError as error:
            return _all(wanted.file, _refused(error))

    async def _supervised(
        self, job_id: str, file: TaskFile, config: Config, feed: Feed
    ) -> JobOutcome:
        outcome: Outcome = _interrupted(file, "the worker was stopped")
        async with (
            Supervisor(config, slots=self._slots) as supervisor,
            anyio.create_task_group() as group,
        ):
            group.start_soon(self._interrupting, supervisor)
            plan = records.GoesOn(file=file)
            if await self._was_begun(job_id, file, config):
                await anyio.to_thread.run_sync(records.completed, job_id, config)
                plan = await records.goes_on(job_id, file, supervisor, config)
            if plan.refused is None:
                outcome = await supervisor.run(
                    plan.file, feed.told, continued=plan.continued, job_id=job_id
                )
            else:
                outcome = _interrupted(file, plan.refused)
            group.cancel_scope.cancel()
        return outcome if isinstance(outcome, JobOutcome) else together({"task": outcome})

    def _config(self, wanted: wire.Wanted) -> Config:
        folder = wanted.folder if wanted.folder and wanted.folder.is_dir() else Path.cwd()
        loaded = load_config(self._post.config or wanted.config, folder=folder)
        return replace(loaded, state=self._post.state)

    async def _was_begun(self, job_id: str, file: TaskFile, config: Config) -> bool:
        """Whether another worker had begun it, here or, as far as that matters, elsewhere."""
        if (config.state / "jobs" / job_id).exists():
            return True
        if all(task.recovery != "resume" for task in file.tasks):
            return False
        entry = await patient(partial(self._access.entry, whole=False), job_id)
        return entry is not None and entry.attempts > 1

    async def _interrupting(self, supervisor: Supervisor) -> None:
        await self._shift.stopping.wait()
        supervisor.interrupt("the worker was stopped")

    async def _last_words(self, job_id: str, outcome: JobOutcome | None) -> None:
        """How a job ended that was cancelled: the engine keeps no output of it."""
        if outcome is None:
            return
        with anyio.CancelScope(shield=True), suppress(Exception), anyio.move_on_after(LAST_WORDS_S):
            entry = await patient(partial(self._access.entry, whole=False), job_id)
            if entry is None or entry.state != "cancelled":
                return  # it was taken over, or we are only ended: it will have another outcome
            noted = {"outcome": wire.outcome_json(outcome)}
            await patient(self._access.note, job_id, noted)


def _refused(error: OrchestrateError) -> Outcome:
    kind: ErrorKind = "invalid_request" if isinstance(error, InputError) else "crashed"
    failure = Failure(kind=kind, text=str(error), hint=error.hint)
    return Outcome(status="failed", error=failure, evidence=[failure.text])


def _interrupted(file: TaskFile, why: str) -> JobOutcome:
    failure = Failure(kind="interrupted", text=why)
    return _all(file, Outcome(status="interrupted", error=failure, evidence=[why]))


def _all(file: TaskFile, outcome: Outcome) -> JobOutcome:
    return together({task.id: replace(outcome) for task in file.tasks})


# --- those that died -----------------------------------------------------------------------------


async def _sweeping(
    worker: str,
    files: Files,
    lock: Session | None,
    access: Access,
    app: App,
    post: Post,
    *,
    swept: anyio.Event,
) -> None:
    """Look after the jobs of workers that died, again and again; those here are found by files,
    and so looked for more often. `swept` is set when nothing is left, or was not to be mended soon.
    """
    began = anyio.current_time()
    sweeps, idle = 0, frozenset[str]()
    while True:
        sweeps += 1
        try:
            for dead in files.dead():  # local files, some microseconds: a thread would cost more
                if await _looked_after(dead, access, app, post):
                    files.forget(dead)
            if sweeps % UNWRITTEN == 0:
                idle = await _unwritten(worker, idle, access, app, post)
            if lock is not None and sweeps % 4 == 1:
                await _elsewhere(worker, files, lock, access, app, post)
        except Exception as error:  # noqa: BLE001 (of the database or of a record: tried again)
            if not away(error):  # then whoever takes jobs has said so
                warn("the jobs of a dead worker were not looked after", error=repr(error))
        else:
            if not files.dead():
                swept.set()
        if anyio.current_time() - began > SWEPT_S:
            swept.set()
        await anyio.sleep(SWEEP_S)


async def _elsewhere(
    worker: str, files: Files, lock: Session, access: Access, app: App, post: Post
) -> None:
    """The same for workers of other machines, as far as the database knows of their death."""
    running = await anyio.to_thread.run_sync(partial(access.entries, states=("PENDING",)))
    owners = {entry.worker for entry in running if entry.worker} - {worker}
    away = [owner for owner in sorted(owners) if not files.here(owner)]
    for dead in await lock.dead(away):
        await _looked_after(dead, access, app, post)


async def _looked_after(dead: str, access: Access, app: App, post: Post) -> bool:
    """Complete the records of a dead worker's jobs, then end them or let them go on elsewhere.

    False if something is left to do: an agent is alive still.
    """
    every = await anyio.to_thread.run_sync(partial(access.of_worker, dead))
    jobs = [job for job in every if job.state == "running" or _cut_off(job, post.state)]
    config = _current(post) if jobs else Config()
    settled: list[bool] = []

    async def settle(job: Entry) -> None:
        settled.append(await _settled(job, access, config))

    with lone_error():
        async with anyio.create_task_group() as group:
            for job in jobs:
                group.start_soon(settle, job)
    if not all(settled):
        return False
    if any(job.state == "running" and _may_go_on(job) for job in jobs):
        await anyio.to_thread.run_sync(app.recover, dead)
    return True


def _current(post: Post) -> Config:
    """The configuration as it is now, to complete records with."""
    return replace(load_config(post.config, looking=True), state=post.state)


def _cut_off(job: Entry, state: Path) -> bool:
    """Whether its record here was never completed."""
    folder = state / "jobs" / job.job_id
    return folder.exists() and not (folder / OUTCOME).exists()


def _may_go_on(job: Entry) -> bool:
    return job.recoverable and job.attempts <= 1


async def _settled(job: Entry, access: Access, config: Config) -> bool:
    """One job of a dead worker: its record, and its end if it may not go on."""
    goes_on = job.state == "running" and _may_go_on(job)
    try:
        outcome = await anyio.to_thread.run_sync(records.completed, job.job_id, config)
    except OrchestrateError as error:
        warn("a job of a dead worker is not settled yet", job=job.job_id, error=str(error))
        return False
    if job.state == "running" and not goes_on:
        whole = await anyio.to_thread.run_sync(access.entry, job.job_id)
        ended = outcome or interrupted(
            whole or job, f"its worker, {job.worker}, was ended before it was done"
        )
        await _ended(job, ended, access)
    return True


async def _ended(job: Entry, outcome: JobOutcome, access: Access) -> None:
    """End a job that nobody runs: the engine takes an output only from who does."""
    noted = {"outcome": wire.outcome_json(outcome)}
    await anyio.to_thread.run_sync(access.note, job.job_id, noted)
    await anyio.to_thread.run_sync(access.cancel, job.job_id)


async def _unwritten(
    worker: str, before: frozenset[str], access: Access, app: App, post: Post
) -> frozenset[str]:
    """Jobs that are over here, but whose end the database did not take: a full disk, say. Those
    that were seen so before are ended now, as their records say.
    """
    jobs = await anyio.to_thread.run_sync(partial(access.of_worker, worker, running=True))
    idle = [job for job in jobs if job.job_id not in app.running()]
    for job in idle:
        if job.job_id in before:
            config = _current(post)
            found = await anyio.to_thread.run_sync(records.completed, job.job_id, config)
            await _ended(job, found or interrupted(job, "its end could not be written"), access)
    return frozenset(job.job_id for job in idle)
