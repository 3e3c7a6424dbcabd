"""The queue from any process: submit, follow, wait, cancel, retry, list. No worker code is needed.

async with Client("postgresql://desk/queue") as client:
    job = await client.submit(Task(prompt="...", workspace=repo))
    outcome = await client.wait(job)
"""

from __future__ import annotations

import asyncio  # noqa: TID251 (its loop is asked for, nothing else)
import math
import time
from collections.abc import AsyncGenerator, Callable, Generator, Mapping, Sequence
from contextlib import aclosing, contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, ParamSpec, Self, TypeVar
from urllib.parse import quote

import anyio
import anyio.to_thread
import orjson

from orchestrator.errors import ConfigError, InputError
from orchestrator.events import Event, Failure, JobFinished, JobOutcome, Outcome
from orchestrator.events.wire import decode
from orchestrator.outcome import together
from orchestrator.redaction import is_dict, is_list
from orchestrator.run.recorder import new_run_id
from orchestrator.task import Task, TaskFile, check_tasks
from orchestrator.worker import labels, machine, wire

if TYPE_CHECKING:
    from types import TracebackType

    from orchestrator.config import Config
    from orchestrator.worker.engine import Access, Entry

_POLL_S = 0.1
_AWAY_S = 2.0
_LAST_WORDS_S = 3.0
# How long the outcome of a job that was cancelled is waited for: its worker writes it down then.
_SHIFT = 20
PRIORITIES = range(-1000, 1001)

P = ParamSpec("P")
Result = TypeVar("Result")


@dataclass(frozen=True, kw_only=True)
class Followed:
    """An event of a job, and the offset to go on from after it."""

    offset: int
    event: Event


def default_url(state: Path) -> str:
    """The queue of this machine: a file in the state directory."""
    return f"sqlite:///{quote(str(state / 'queue' / 'queue.sqlite'), safe='/')}"


def url_of(config: Config) -> str:
    """Where the configuration says that the queue is."""
    return config.queue.database or default_url(config.state)


def missing_extra() -> ConfigError:
    """The engine is not installed."""
    return ConfigError(
        "the queue needs its engine, which is not installed",
        hint="pip install 'orchestrate[worker]'",
    )


def open_access(url: str) -> Access:
    """Blocks. Raises ConfigError."""
    try:
        from orchestrator.worker.engine import Access
    except ModuleNotFoundError as error:
        if error.name not in {"dbos", "sqlalchemy"}:
            raise
        raise missing_extra() from error
    return Access(url, listens=True)


async def patient(call: Callable[P, Result], *args: P.args, **kwargs: P.kwargs) -> Result:
    """Do this in a thread; again and again while the database is away. Cancelling it returns at
    once, whatever becomes of the last time.
    """
    from orchestrator.worker.engine import away

    delay = _POLL_S
    while True:
        try:
            return await anyio.to_thread.run_sync(
                partial(call, *args, **kwargs), abandon_on_cancel=True
            )
        except Exception as error:
            if not away(error):
                raise
        await anyio.sleep(delay)
        delay = min(_AWAY_S, delay * 2)


class Client:
    """A queue, opened. An async context manager; raises ConfigError if it cannot be reached. Its
    methods raise QueueError if the database does not do what is asked. While its server is away
    they wait for it: give them a time limit where that is too long.
    """

    def __init__(self, url: str) -> None:
        self._url = url
        self._opened: Access | None = None

    async def __aenter__(self) -> Self:
        try:
            asyncio.get_running_loop()
        except RuntimeError:
            raise ConfigError(
                "the queue needs asyncio's event loop", hint="asyncio.run or anyio.run, not trio."
            ) from None
        self._opened = await anyio.to_thread.run_sync(open_access, self._url)
        await self._in_thread(self._access.prepare)
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        access, self._opened = self._opened, None
        if access is not None:
            with anyio.CancelScope(shield=True):
                await anyio.to_thread.run_sync(access.close)

    async def submit(
        self,
        task: Task | TaskFile,
        *,
        priority: int = 0,
        dedup: str | None = None,
        delay_s: float | None = None,
        parent: str | None = None,
        folder: Path | None = None,
        config: Path | None = None,
        needs: frozenset[str] | None = None,
    ) -> str:
        """Enqueue a task, or a file of them; the id of its job.

        The higher its `priority` (-1000 to 1000) the sooner. While a job with the same `dedup` is
        not over, its id is given and nothing enqueued. `parent` is the job that waits for this one.
        `folder` and `config`: where the configuration of its agents is, else the worker's. `needs`:
        the labels of the worker, else those that the tasks tell. Raises InputError.
        """
        from orchestrator.worker.engine import CHILDREN, JOBS, Order

        file = wire.as_file(task)
        check_tasks(file)
        file = _at_home(file)
        _check(priority, dedup, delay_s)
        if needs is None:
            needs = self._needs(file, bound=config is not None)
        if self._many and not any(label.startswith(labels.HOST) for label in needs):
            folder = None  # it goes to other machines, where that is another folder, or none
        if not file.tasks:
            raise InputError("no task: the file has none")
        if any(task.mcp_servers for task in file.tasks):
            raise InputError(
                "mcp_servers: what they know is in no record, so not in a queue either"
            )
        wanted = wire.Wanted(
            file=file, folder=folder and folder.absolute(), config=config and config.absolute()
        )
        order = Order(
            job_id=new_run_id(),
            input=wire.dumps(wanted),
            queue=JOBS if parent is None else CHILDREN,
            needs=labels.written(needs),
            recoverable=wire.recoverable(file),
            priority=priority,
            delay_s=delay_s,
            dedup=dedup,
            notes=_notes(file, parent),
        )
        return await self._in_thread(self._access.enqueue, order)

    @property
    def _many(self) -> bool:
        """Whether workers on other machines may take the jobs."""
        return self._url.startswith("postgres")

    def _needs(self, file: TaskFile, *, bound: bool) -> frozenset[str]:
        if self._many:
            return labels.needed(file, machine.here(), bound=bound)
        return frozenset(label for task in file.tasks for label in task.requires)

    async def workers(self) -> dict[str, frozenset[str]]:
        """The workers that are there, and the labels of each."""
        found = await self._in_thread(self._access.announced)
        return {
            worker: frozenset(str(label) for label in had)
            for worker, notes in found.items()
            if is_list(had := notes.get("labels")) and alive(notes)
        }

    async def why_waiting(self, entries: Sequence[Entry]) -> dict[str, str]:
        """Of the jobs that no worker can take: what is missing."""
        waiting = [entry for entry in entries if entry.state == "waiting"]
        if not waiting:
            return {}
        workers = await self.workers()
        found = {
            entry.job_id: labels.waits_for(labels.read(entry.needs), workers) for entry in waiting
        }
        return {job_id: why for job_id, why in found.items() if why is not None}

    async def entry(self, job_id: str) -> Entry:
        """What the queue knows of a job. Raises InputError if there is none."""
        found = await self._in_thread(self._access.entry, job_id)
        if found is None:
            raise InputError(f"no job {job_id!r} in the queue")
        return found

    async def find(self, name: str) -> str | None:
        """The id of the job with this id, or with this unique beginning or end of it."""
        found = await self._in_thread(self._access.named, name)
        exact = [one.job_id for one in found if one.job_id == name] or [one.job_id for one in found]
        return exact[0] if len(exact) == 1 else None

    async def entries(self, *, waiting: bool = False, limit: int | None = 1000) -> Sequence[Entry]:
        """Jobs, the oldest first; of many the latest. `waiting`: those that are not over."""
        states = ("ENQUEUED", "DELAYED", "PENDING") if waiting else None
        return await self._in_thread(partial(self._access.entries, states=states, limit=limit))

    async def wait(self, job_id: str) -> JobOutcome:
        """How the job ended, when it has. Raises InputError if there is none."""
        delay, since = _POLL_S / 4, time.monotonic()
        while True:
            entry = await self.entry(job_id)
            outcome = outcome_of(entry)
            if outcome is not None:
                return outcome
            if entry.over:  # cancelled; its worker has yet to say how that was
                if entry.worker is None or time.monotonic() - since > _LAST_WORDS_S:
                    return cancelled(entry)
            else:
                since = time.monotonic()
            await anyio.sleep(delay)
            delay = min(_POLL_S * 5, delay * 1.2)

    async def follow(self, job_id: str, offset: int = 0) -> AsyncGenerator[Followed]:
        """The events of a job as they come, from any offset that was given with one; the last is
        `job.finished`. Raises InputError if there is no such job.
        """
        if offset < 0:
            raise InputError(f"offset: {offset} is none: it is 0, or that of an event")
        await self.entry(job_id)
        block, skipped = offset >> _SHIFT, offset & ((1 << _SHIFT) - 1)
        finished = False
        async with aclosing(self._blocks(job_id, block)) as blocks:
            async for text in blocks:
                for at, line in enumerate(text.split("\n")[skipped:], start=skipped + 1):
                    event = decode(line.encode())
                    finished = isinstance(event.update, JobFinished)
                    yield Followed(offset=block << _SHIFT | at, event=event)
                block, skipped = block + 1, 0
        if not finished:  # it was cancelled, or its worker is gone: nobody could say it
            yield Followed(offset=block << _SHIFT, event=_finished(job_id, await self.wait(job_id)))

    async def _blocks(self, job_id: str, block: int) -> AsyncGenerator[str]:
        """What the job wrote into its stream from there on, also after the database was away."""
        from orchestrator.worker.engine import away

        while True:
            with self._told():
                try:
                    async with aclosing(self._access.blocks(job_id, block)) as blocks:
                        async for text in blocks:
                            block += 1
                            yield text
                    return
                except Exception as error:
                    if not away(error):
                        raise
            await anyio.sleep(_AWAY_S / 2)

    async def cancel(self, job_id: str) -> bool:
        """Cancel a job, whoever runs it; False if it is over already. Its agents are killed."""
        entry = await self.entry(job_id)
        if entry.over:
            return False
        await self._in_thread(self._access.cancel, job_id)
        return True

    async def retry(self, job_id: str) -> str:
        """Submit the same once more; the new job's id. Raises InputError unless it is over."""
        entry = await self.entry(job_id)
        if not entry.over:
            raise InputError(f"job {job_id} is not over: it is {entry.state}")
        if entry.input is None:
            raise InputError(f"job {job_id}: what was asked for is not there any more")
        wanted = wire.loads(entry.input)
        return await self.submit(
            wanted.file,
            priority=entry.priority,
            folder=wanted.folder,
            config=wanted.config,
            # Not anew: whoever asks for it once more may be on another machine than its folder.
            needs=labels.read(entry.needs),
        )

    async def pause(self, *, paused: bool) -> None:
        """Let no worker take a job, or let them again. What is running goes on."""
        await self._in_thread(partial(self._access.pause, paused=paused))

    async def paused(self) -> bool:
        return await self._in_thread(self._access.paused)

    async def remove(self, *, older_s: float, dry_run: bool = False) -> list[Entry]:
        """Forget jobs that were over so long ago, with their events. Their records stay."""
        before = time.time() - older_s
        every = await self._in_thread(partial(self._access.entries, states=ENDED))
        old = [one for one in every if (one.ended or one.submitted or before) < before]
        if old and not dry_run:
            await self._in_thread(self._access.delete, [one.job_id for one in old])
        return old

    @property
    def _access(self) -> Access:
        if self._opened is None:
            raise ConfigError("the queue is not open: use `async with Client(...)`")
        return self._opened

    async def _in_thread(
        self, call: Callable[P, Result], *args: P.args, **kwargs: P.kwargs
    ) -> Result:
        with self._told():
            return await patient(call, *args, **kwargs)

    @contextmanager
    def _told(self) -> Generator[None]:
        """What the database says as an error of ours."""
        from orchestrator.worker.engine import failed

        try:
            yield
        except Exception as error:
            told = failed(self._url, error)
            if told is None:
                raise
            raise told from error


ANNOUNCED_S = 90.0
"""A worker that has not written its entry anew for so long is not there any more."""


def alive(notes: Mapping[str, object]) -> bool:
    """Whether a worker's entry is of one that is there."""
    match notes.get("seen"):
        case int() | float() as seen:
            return time.time() - seen < ANNOUNCED_S
        case _:
            return False


ENDED = ("SUCCESS", "ERROR", "CANCELLED", "MAX_RECOVERY_ATTEMPTS_EXCEEDED")


def _at_home(file: TaskFile) -> TaskFile:
    """The same for a process that is in another folder."""
    tasks = (
        replace(
            task,
            workspace=task.workspace.absolute(),
            template=task.template and task.template.absolute(),
        )
        for task in file.tasks
    )
    return replace(file, tasks=tuple(tasks))


def _check(priority: int, dedup: str | None, delay_s: float | None) -> None:
    """Raises InputError for a value that is not valid."""
    if priority not in PRIORITIES:
        raise InputError(f"priority: {priority} is not between -1000 and 1000")
    if dedup is not None and not dedup.strip():
        raise InputError(
            "dedup: the key is empty: all jobs with it would be one",
            hint="Is the variable that it comes from set?",
        )
    if delay_s is not None and not 0 <= delay_s < math.inf:
        raise InputError(f"delay_s: {delay_s} is no number of seconds from now on")


def _notes(file: TaskFile, parent: str | None) -> dict[str, object]:
    """What lists show of a job without reading it whole."""
    notes: dict[str, object] = {
        "name": file.name and wire.without_nul(file.name),
        "tasks": len(file.tasks),
        "prompt": wire.without_nul(file.tasks[0].prompt[:200]),
    }
    return notes if parent is None else {**notes, "parent": parent}


def outcome_of(entry: Entry) -> JobOutcome | None:
    """How a job ended, as far as somebody said it. Raises InputError if that cannot be read."""
    match entry.state, entry.notes:
        case "succeeded", _:
            return wire.read_outcome(entry.output or "")
        case "cancelled", {"outcome": noted} if is_dict(noted):
            return wire.read_outcome(orjson.dumps(noted))
        case "failed", _:
            return _unsaid(entry)
        case _:
            return None


def shown_state(entry: Entry) -> str:
    """How a job stands or ended, in a word: to the engine, one that failed was done, too."""
    match entry.state, entry.notes:
        case ("succeeded", {"status": str(status)}) | (
            "cancelled",
            {"outcome": {"status": str(status)}},
        ):
            return status
        case "succeeded", _:
            return "ended"  # nobody noted how: its outcome says it
        case state, _:
            return state


def _unsaid(entry: Entry) -> JobOutcome:
    """The engine ended it: it had a worker too often that died, or one that could not run it."""
    if entry.error is None:
        return interrupted(entry, "its worker was ended before it was done")
    text = f"the worker failed: {entry.error}"
    failure = Failure(kind="crashed", text=text)
    return _of_all(entry, Outcome(status="failed", error=failure, evidence=[text]))


def cancelled(entry: Entry) -> JobOutcome:
    """The outcome of a job that was cancelled before anybody worked at it."""
    text = "the job was cancelled"
    failure = Failure(kind="cancelled", text=text)
    return _of_all(entry, Outcome(status="cancelled", error=failure, evidence=[text]))


def interrupted(entry: Entry, why: str) -> JobOutcome:
    failure = Failure(
        kind="interrupted", text=why, hint=f"`orchestrate runs retry {entry.job_id}` does it again."
    )
    return _of_all(entry, Outcome(status="interrupted", error=failure, evidence=[why]))


def _of_all(entry: Entry, outcome: Outcome) -> JobOutcome:
    """The same for each of its tasks."""
    if entry.input is None:
        return together({"task": outcome})
    try:
        tasks = wire.loads(entry.input).file.tasks
    except InputError:
        return together({"task": outcome})
    return together({task.id: replace(outcome) for task in tasks})


def _finished(job_id: str, outcome: JobOutcome) -> Event:
    from datetime import UTC, datetime

    return Event(
        seq=0,
        time=datetime.now(UTC).isoformat(timespec="microseconds").replace("+00:00", "Z"),
        run_id=None,
        task_id=None,
        agent=None,
        source="supervisor",
        job_id=job_id,
        update=JobFinished(outcome=outcome),
    )
