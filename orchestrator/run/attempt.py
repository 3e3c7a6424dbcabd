"""One attempt of a task by an agent: its process from spawn to outcome.

What a line means is the adapter's; what starts and ends processes is `process`; what it all amounts
to is `outcome`. Here they are put together, and every event goes to the journal before anyone sees
it.
"""

from __future__ import annotations

import errno
import shutil
import time
from collections.abc import (
    AsyncGenerator,
    Awaitable,
    Callable,
    Generator,
    Iterable,
    Iterator,
    Sequence,
)
from contextlib import (
    AbstractAsyncContextManager,
    AsyncExitStack,
    ExitStack,
    asynccontextmanager,
    contextmanager,
    suppress,
)
from contextvars import Context, copy_context
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Protocol, TypeAlias, TypeVar

import anyio
from anyio import to_thread

from orchestrator import events
from orchestrator.adapter import Adapter, Agent, Command, Exit, Question, Send, about_of
from orchestrator.budget import Ledger, uncounted
from orchestrator.config import Config
from orchestrator.discovery import Use, preflight, use_of, version
from orchestrator.errors import (
    DiskFullError,
    JournalError,
    ReaperLostError,
    SpawnError,
    SupervisionError,
    lone_error,
)
from orchestrator.events import (
    Auth,
    Check,
    Error,
    JournalFull,
    Limit,
    Notice,
    Outcome,
    Output,
    ProcessExited,
    ProcessReaped,
    ProcessSpawned,
    RouteSelected,
    RouteVerified,
    RunStarted,
    Usage,
    WorkspaceChanged,
)
from orchestrator.journal import (
    STDERR,
    STDOUT,
    STORES,
    TAILS,
    Journal,
    Record,
    make_folder,
    no_room,
    scarce,
    scrub,
    write_outcome,
    write_record,
)
from orchestrator.outcome import Facts, Stopped, decide, finished, not_held, remedy
from orchestrator.prices import price_of
from orchestrator.process import (
    Ended,
    Process,
    Reaper,
    Ticks,
    base_environment,
    environment,
    open_reaper,
    run_to_end,
    too_many_files,
)
from orchestrator.redaction import known
from orchestrator.route import Route, considered
from orchestrator.run.intake import Intake
from orchestrator.run.questions import Asked, Person
from orchestrator.run.recorder import Publish, Recorder, new_run_id
from orchestrator.run.spool import Spool, Tails
from orchestrator.run.watch import Watch, Watched, limit_event
from orchestrator.slots import Held
from orchestrator.task import Limits, Task, recorded
from orchestrator.telemetry import warn
from orchestrator.usage import priced
from orchestrator.workspace.deliver import NotDeliveredError
from orchestrator.workspace.git import GitError
from orchestrator.workspace.looks import Before, Looks
from orchestrator.workspace.place import Place
from orchestrator.workspace.worktree import ConflictError, Kept

__all__ = [
    "Control",
    "Plan",
    "Reaper",
    "Recorder",
    "new_run_id",
    "open_reaper",
    "perform",
    "until",
]
# Reaper and open_reaper are not ours: the supervisor holds one open, but

DRAIN_S = 5.0
# How long a run that was stopped still reads what its agent had written until then.
TAILS_S = 0.08
# How often is looked whether an agent's own logs have grown.
GRACE_S = 5.0
CHECK_TAIL = 64 * 1024
_PATCH = "diff.patch"
_SHORT = 1000
FREE_S = 1.0

Found = TypeVar("Found")
Deliver: TypeAlias = Callable[
    [events.Changes, Sequence[str]], Awaitable[tuple[events.Changes, str]]
]
"""Brings what was changed to where it is wanted, and none of the secrets: gives the changes with
what is to be known of that, and what is to be said.
"""


@dataclass(frozen=True, kw_only=True)
class Plan:
    """A run, prepared: everything decided that can be decided without starting anything.

    `command` was made by the adapter for exactly this task and agent. `recorded` is the agent as
    the record names it (a scripted model server has another address each time). `notes` become
    notices. `auth` is what the agent comes to its model with. `refused`: why it
    is not started at all. `place` is the work tree made for the
    run, if one was; `deliver` brings its commit to where it is wanted.
    `attempt` counts from 1 in the task. `held` are hands for a slot of the model's server, None: it
    has any number. `failures`: how many tool calls in a row may fail.
    `ledger` is where what it spends is written down, with the other runs of its task and job.
    `looks` sees the folders of runs that have no work tree of their own.
    `handing`: its agent may hand on work. `used`: what a gateway says of its model's use. `hidden`
    are more values that no record may hold. `person` answers what its agent asks for.
    """

    job_id: str
    run_id: str
    started: str
    task: Task
    agent: Agent
    recorded: Agent
    adapter: Adapter
    command: Command
    limits: Limits
    routes: tuple[Route, ...] = ()
    before: Usage | None = None
    resumed: str | None = None
    auth: Auth = "none"
    refused: Error | None = None
    notes: tuple[str, ...] = ()
    place: Place | None = None
    deliver: Deliver | None = None
    route: Route | None = None
    attempt: int = 1
    held: Held | None = None
    failures: int | None = None
    ledger: Ledger = field(default_factory=Ledger)
    looks: Looks = field(default_factory=Looks)
    handing: Handing | None = None
    hidden: tuple[str, ...] = ()
    used: Callable[[], Use | None] | None = None
    person: Person = field(default_factory=Person)


class Handing(Protocol):
    """What lets the agent of a run hand on work while it runs."""

    @property
    def waiting(self) -> int:
        """How often the agent waits for sub-tasks now."""
        ...

    def open(
        self, plan: Plan, say: Callable[[events.Update], None]
    ) -> AbstractAsyncContextManager[None]:
        """A block in which it may; all that it handed on ends with it."""
        ...


class Control:
    """How a run is asked to stop, by the user, a limit or a signal. The first reason holds."""

    def __init__(self) -> None:
        self.requested = anyio.Event()
        self.stopped: Stopped | None = None
        self.why: str | None = None
        self.limit: str | None = None

    def stop(self, stopped: Stopped, why: str, limit: str | None = None) -> None:
        """Ask for a clean stop; `limit` names the limit that was passed. Returns at once."""
        if self.stopped is None:
            self.stopped, self.why, self.limit = stopped, why, limit
            self.requested.set()


@dataclass(kw_only=True)
class _Live:
    """What a running agent is made of. `step` takes in what it wrote and holds it to its limits,
    all of it or only what stdout has grown by; it runs in the `context` of the run's task, for
    sinks are called by it. `asking`: how many answers of a person's the agent waits for.
    """

    process: Process
    intake: Intake
    watch: Watch
    ended: Ended | None = None
    lost: ReaperLostError | None = None
    step: Callable[[bool], None]
    context: Context = field(default_factory=copy_context)
    failure: Exception | None = None
    woken: bool = False
    leave_s: float | None = None
    asking: int = 0
    due: float = 0.0

    def __post_init__(self) -> None:
        self._wake = anyio.Event()

    @property
    def over(self) -> bool:
        """Whether its process has ended, or is nobody's any more."""
        return self.ended is not None or self.lost is not None

    @contextmanager
    def followed(self, ticks: Ticks) -> Generator[None]:
        """Have what there is to do done while the block lasts: when it writes, or it is time."""
        stdout, stderr = self.intake.spools
        with (
            ticks.hearing(stdout, partial(self._do, whole=False)),
            ticks.hearing(stderr, partial(self._do, whole=True)),
            ticks.looking(self._look),
        ):
            yield

    def _look(self) -> float:
        """Do what there is to do if it is time; when the next look is due."""
        now, tails = time.monotonic(), self.intake.tails
        if now >= self.due or tails.grown():
            self._do(whole=True)
        return min(self.due, now + TAILS_S) if tails.any else self.due

    def _do(self, *, whole: bool) -> None:
        """A step, unless the task that follows the agent is about to do it. It is woken only for
        what a task is needed for.
        """
        if self.woken:
            return
        try:
            self.context.run(self.step, whole)
        except Exception as error:  # noqa: BLE001 (raised again by the task, see `sleep`)
            self.failure = error
            self.wake()

    def wake(self) -> None:
        """Have the task that follows the agent do what a task is needed for."""
        self.woken = True
        self._wake.set()

    async def sleep(self) -> None:
        """Until the task is needed. Raises what a step failed with."""
        await self._wake.wait()
        self.woken, self._wake = False, anyio.Event()
        if self.failure is not None:
            raise self.failure

    def rest(self) -> None:
        """Until the next look at the limits, or the moment at which one is passed."""
        now = time.monotonic()
        self.due = now + self.watch.every_s
        if now < self.watch.due:
            self.due = min(self.due, self.watch.due)


async def perform(
    plan: Plan, *, config: Config, reaper: Reaper, control: Control, publish: Publish
) -> Outcome:
    """Run an agent on a task, from the first event to the last. The run's folder must not exist
    yet.

    Raises JournalError if the record cannot be written, SupervisionError if there is no reaper to
    be had. Cancellation kills the agent at once, and the outcome is still written.
    """
    async with (
        _journal(config.state / "runs", _record(plan), _secrets(plan, config)) as journal,
        AsyncExitStack() as stack,
    ):
        recorder = Recorder(
            head={
                "job_id": plan.job_id,
                "run_id": plan.run_id,
                "task_id": plan.task.id,
                "parent_run_id": plan.task.parent_run_id,
                "agent": plan.agent.name,
            },
            write=journal.append,
            publish=publish,
            price=lambda usage, served: priced(usage, plan.agent, plan.auth, served),
            secret_values=_secrets(plan, config),
        )
        run = _Run(plan, config, reaper=reaper, control=control, recorder=recorder, stack=stack)
        started = time.monotonic()
        try:
            await run.attempt()
            await run.deliver()
        except ReaperLostError as error:
            run.lost(error)
        except Exception as error:
            if (full := no_room(error)) is None:
                # A failure of our own: what is known is still put on record.
                recorder.say(Error(kind="crashed", text=f"orchestrate failed: {error}"))
                await run.leave()
                await run.finish(time.monotonic() - started, journal)
                raise
            control.stop("disk_full", str(full))
            run.full(full, journal)
        except BaseException:
            control.stop("cancelled", "the run was cancelled")
            await run.leave()
            await run.finish(time.monotonic() - started, journal)
            raise
        await run.leave()
        return await run.finish(time.monotonic() - started, journal)


@asynccontextmanager
async def _journal(runs: Path, record: Record, secrets: Sequence[str]) -> AsyncGenerator[Journal]:
    """The journal of a run, in a folder of its own."""
    # A disk that is busy with others' work takes its time to make and to sync files (measured: 45
    # ms a run). A thread waits for that; this one serves the other agents meanwhile.
    journal = await to_thread.run_sync(_begun, runs, record, secrets)
    try:
        yield journal
    finally:
        with anyio.CancelScope(shield=True):
            await to_thread.run_sync(journal.close)


def _begun(runs: Path, record: Record, secrets: Sequence[str]) -> Journal:
    """A run is one as soon as its record stands beside its journal, not before."""
    folder = make_folder(runs, record.run_id)
    try:
        journal = Journal(folder)
        write_record(folder, record, secrets)
    except JournalError:
        shutil.rmtree(folder, ignore_errors=True)
        raise
    return journal


class _Run:
    """The state of one run while `perform` lasts."""

    def __init__(
        self,
        plan: Plan,
        config: Config,
        *,
        reaper: Reaper,
        control: Control,
        recorder: Recorder,
        stack: AsyncExitStack,
    ) -> None:
        self.plan = plan
        self.recorder = recorder
        self.folder = config.state / "runs" / plan.run_id
        self.config = config
        self.reaper = reaper
        self.control = control
        self.stack = stack
        self.exit: Exit | None = None
        self.changes: events.Changes | None = None
        self.check: Check | None = None
        self._unheld: str | None = None
        self._blind = False
        self._dismissed = False
        self._looked = 0.0
        self._full = False

    async def attempt(self) -> None:
        """Everything up to the outcome."""
        plan = self.plan
        agent = plan.agent
        cli_version = await until(self.control.requested, version, agent, self.config, self.reaper)
        self.recorder.say(
            RouteSelected(
                model=agent.model,
                reason=plan.route.reason if plan.route else "named",
                considered=considered(plan.routes, plan.agent.name),
                enforced="routing" if plan.task.privacy == "local" else None,
            ),
            RunStarted(
                adapter=agent.adapter,
                attempt=plan.attempt,
                cli_version=cli_version,
                model=agent.model,
                server=plan.recorded.base_url or agent.server,
                tier=agent.tier,
                auth=plan.auth,
                argv=list(plan.command.argv),
                cwd=plan.command.cwd,
            ),
            *(Notice(text=note) for note in (*plan.notes, *self._untested(cli_version))),
        )
        if (unbounded := self._unbounded()) is not None:
            self.recorder.say(unbounded)
            return
        asked = self.control.requested
        error = plan.refused or await until(asked, preflight, agent, self.config)
        if error is not None:
            self.recorder.say(error)
            return
        if not await self._set_up():
            return
        before = await until(asked, self._look) if plan.place is None else None
        if (passed := plan.ledger.passed) is not None:
            self.control.stop(passed.stop, passed.text, passed.limit)
        if asked.is_set():
            return
        try:
            await self._in_turn()
        except SpawnError as failure:
            hint = failure.hint
            if failure.errno == errno.ENOEXEC:  # half installed, such as npm's stub of a binary
                hint = about_of(self.config.adapters[agent.adapter], agent).install_hint or None
            self.recorder.say(Error(kind="spawn", text=str(failure), hint=hint))
            return
        except ReaperLostError as gone:
            self.lost(gone)  # what the agent had changed until then, the next reaper can tell
        self._see_to_room()
        self._see_to_usage()
        if plan.place is not None:
            await self._keep(plan.place)
        elif before is not None:
            await self._compare(before)
        if plan.task.check is not None and finished(self._facts()):
            await self._verify(plan.task.check)

    def lost(self, error: ReaperLostError) -> None:
        """The reaper is gone, and with it the agent: nobody's fault in this run."""
        self.control.stop("interrupted", str(error))
        self.recorder.say(Error(kind="interrupted", text=str(error)))

    async def deliver(self) -> None:
        """Bring work that succeeded to the user's files, if that is wanted."""
        if self.plan.deliver is None or self.changes is None or self.changes.commit is None:
            return
        if not decide(self._facts()).ok:
            return
        try:
            secrets = _secrets(self.plan, self.config)
            self.changes, said = await self.plan.deliver(self.changes, secrets)
        except NotDeliveredError as error:
            self.recorder.say(Error(kind="conflict", text=str(error), hint=error.hint))
        except ConflictError as error:
            text = f"{error} with the work tree's own commits: nothing was applied"
            hint = f"Merge it yourself: git merge {self.changes.branch}"
            self.recorder.say(Error(kind="conflict", text=text, hint=hint))
        else:
            self.recorder.say(Notice(text=said))

    async def leave(self) -> None:
        """Save what is not saved yet and remove the work tree, whatever became of the run."""
        place = self.plan.place
        if place is None:
            return
        try:
            why = await place.end(self.folder / _PATCH)
        except ReaperLostError as error:
            self.lost(error)  # the tree stays where it is
            return
        if self.changes is None and place.kept is not None:
            self._told(place.kept)
        if why is not None:
            self.recorder.say(Notice(text=why))

    def _untested(self, version: str | None) -> Iterator[str]:
        """That nobody has tried this version: what it says may be read wrongly."""
        agent = self.plan.agent
        about = about_of(self.config.adapters[agent.adapter], agent)
        if version is not None and about.tested and version not in about.tested:
            yield f"{about.title} {version} is untested (tested: {', '.join(about.tested)})"

    async def finish(self, duration_s: float, journal: Journal) -> Outcome:
        """Decide, and put the outcome on record. Is not cancelled. Raises JournalError."""
        outcome = self._decided(duration_s)
        with anyio.CancelScope(shield=True):
            await to_thread.run_sync(self._scrub)
            outcome = self._recorded(outcome, journal)
            await to_thread.run_sync(self._last, outcome, journal)
        return outcome

    def _decided(self, duration_s: float) -> Outcome:
        outcome = decide(self._facts())
        agent = self.plan.recorded
        if outcome.error is not None:
            server = self.config.servers.get(agent.server or "")
            outcome.error.hint = remedy(outcome.error, agent, server)
        outcome.agent = agent.name
        outcome.model = outcome.model or agent.model
        outcome.run_id = self.plan.run_id
        outcome.duration_s = round(duration_s, 3)
        return outcome

    def _scrub(self) -> None:
        """No secret stays in what the agent wrote itself."""
        raw = (self.folder / name for name in (STDOUT, STDERR, TAILS))
        for path in (*raw, *self.folder.glob("*.patch")):
            scrub(path, _secrets(self.plan, self.config))

    def _recorded(self, outcome: Outcome, journal: Journal) -> Outcome:
        """The outcome, as the last event."""
        if self._full:
            return self.recorder.finish(_short(outcome))
        try:
            return self.recorder.finish(outcome)
        except DiskFullError as error:
            self.full(error, journal)
            return self.recorder.finish(_short(outcome))

    def _last(self, outcome: Outcome, journal: Journal) -> None:
        """The outcome in a file of its own, when the journal is safe."""
        journal.sync()
        try:
            write_outcome(self.folder, outcome)
        except DiskFullError as error:  # the journal's last event says it, too
            warn("the outcome stands only in the journal", error=str(error))

    def full(self, error: DiskFullError, journal: Journal) -> None:
        """From here on only the last words are written, with the room that was kept for them.

        Raises JournalError if there is none.
        """
        self._full = True
        self.recorder.write_with(journal.append_last)
        self.recorder.say(JournalFull(text=str(error), hint=error.hint))

    def _facts(self) -> Facts:
        return Facts(
            task=self.plan.task,
            digest=self.recorder.digest,
            exit=self.exit,
            stopped=self.control.stopped,
            stopped_why=self.control.why,
            stopped_limit=self.control.limit,
            changes=self.changes,
            unseen=self.changes is None,
            check=self.check,
            usage=self.recorder.usage,
            unheld=self._unheld,
        )

    # --- the agent's process

    async def _in_turn(self) -> None:
        """The agent, as soon as its model's server has a slot for it."""
        held, limit_s = self.plan.held, self.plan.limits.wall_s
        if held is None:
            await self._seen_to_be_served()
            return
        try:
            with anyio.move_on_after(limit_s):
                await until(self.control.requested, held.take, self._waits)
            if held.full:
                await self._seen_to_be_served()
            elif self.control.stopped is None:
                why = f"no slot was free within the time limit of {limit_s:g} s"
                self._limit("wall", limit_s or 0.0, "timed_out", why)
        finally:
            held.give()

    async def _seen_to_be_served(self) -> None:
        """The agent; then what really served it, by the server's own word where that says it."""
        model, digest = self.plan.agent.model, self.recorder.digest
        before = await self._used()
        await self._agent_and_its_children()
        after = await self._used() if before is not None else None
        if before is None or after is None or after.mark is None:
            answered = None
        else:
            answered = after.mark != before.mark or (None if not after.counts else False)
        if after is not None and answered:
            told = RouteVerified(method=after.method, model=model, server=after.server)
            self.recorder.say(told)
        elif after is not None and answered is False:
            # Who failed may have had no answer: only of work that is said to be done there is one.
            if digest.terminal == "end_turn" and digest.error is None and not self.control.stopped:
                self.recorder.say(_went_elsewhere(after))
        elif digest.model is not None:
            self.recorder.say(RouteVerified(method="claimed", model=digest.model))

    async def _used(self) -> Use | None:
        """What the gateway, or else the server itself, says of the model's use until now."""
        if self.plan.used is not None:
            return self.plan.used()
        return await use_of(self.plan.agent, self.config)

    def _waits(self, text: str) -> None:
        self.recorder.say(Notice(text=text))

    async def _agent_and_its_children(self) -> None:
        """The agent; when it has ended, nobody is left who could want what it handed on."""
        if self.plan.handing is None:
            await self._agent()
            return
        async with self.plan.handing.open(self.plan, self.recorder.say):
            await self._agent()

    async def _agent(self) -> None:
        plan, command = self.plan, self.plan.command
        stdout, stderr = self.folder / STDOUT, self.folder / STDERR
        if plan.agent.home is not None:
            Path(plan.agent.home).mkdir(parents=True, exist_ok=True, mode=0o700)
        env = environment(
            command, self.config.environ, env=plan.task.env, env_from=plan.task.env_from
        )
        with ExitStack() as stack:
            tails = Tails(command.tails, env, self.folder / TAILS, stack)
            async with self.reaper.spawn(
                command, env=env, stdout=stdout, stderr=stderr, token=plan.run_id
            ) as process:
                self.recorder.say(ProcessSpawned(pid=process.pid))
                intake = Intake(
                    plan.adapter.conversation(plan.task, plan.agent, plan.before),
                    self.recorder,
                    stdout=_opened(stdout, stack),
                    stderr=_opened(stderr, stack),
                    tails=tails,
                )
                watch = Watch(self._watched(), self.recorder, process.pid)
                live = _Live(
                    process=process,
                    intake=intake,
                    watch=watch,
                    step=lambda whole: self._step(live, whole=whole),
                )
                try:
                    await self._follow(live)
                    await self._bury(live)
                finally:
                    with anyio.CancelScope(shield=True):
                        await self._silence(live)
                        self._exited(live)
                        await self._drain(live)
                    self._close(live)

    async def _follow(self, live: _Live) -> None:
        """Read until the process has ended; stop it when that is asked for."""
        live.intake.start()
        with lone_error(), live.followed(self.reaper.ticks):
            await self._follow_until_end(live)
        if live.lost is not None:
            raise live.lost

    async def _follow_until_end(self, live: _Live) -> None:
        async with anyio.create_task_group() as group:
            group.start_soon(_watch, live)
            group.start_soon(self._stop_when_asked, live)
            while not live.over:
                self._step(live, whole=True)
                sends = live.intake.taken()
                await _send(live, sends)
                for question in (send.question for send in sends if send.question is not None):
                    group.start_soon(self._ask, live, question)
                if live.leave_s is not None:
                    group.start_soon(self._dismiss, live, live.leave_s)
                    live.leave_s = None
                await live.sleep()
            group.cancel_scope.cancel()

    async def _ask(self, live: _Live, question: Question) -> None:
        """Have a person answer. When a stop is asked for, the agent does not wait any more."""
        plan = self.plan
        asked = Asked(
            task_id=plan.task.id,
            run_id=plan.run_id,
            agent=plan.agent.name,
            question=question,
            limit_s=plan.limits.ask_s or float("inf"),
        )
        live.asking += 1
        try:
            answer = await until(self.control.requested, plan.person.decide, asked)
        finally:
            live.asking -= 1
        if answer is not None:
            live.watch.waits("person")  # the silence until now was not the agent's
            live.intake.decide(answer)
            live.wake()

    def _step(self, live: _Live, *, whole: bool) -> None:
        if live.intake.pump() if whole else live.intake.hear():
            live.watch.grew()
        if whole or live.watch.weighs(live.intake):
            self._hold_to_limits(live)
            live.rest()
        if live.intake.sends or live.intake.more:
            live.wake()

    async def _stop_when_asked(self, live: _Live) -> None:
        await self.control.requested.wait()
        sends = list(live.intake.conversation.interrupt())
        if sends and await _send(live, sends):
            with anyio.move_on_after(GRACE_S):
                await live.process.wait()
        await live.process.stop(interrupt=self.plan.command.interrupt, grace_s=GRACE_S)

    async def _dismiss(self, live: _Live, leave_s: float) -> None:
        """End an agent that stays although there is nothing more for it to do."""
        with anyio.move_on_after(leave_s):
            await live.process.wait()
        if live.ended is None and self.control.stopped is None:
            self._dismissed = True
            await live.process.stop(interrupt=None, grace_s=GRACE_S)

    async def _bury(self, live: _Live) -> None:
        """The process has ended: kill what it left, so that nothing writes any more."""
        ended = live.ended
        assert ended is not None  # noqa: S101 (by `_follow`)
        kept = await live.process.keep() if self._may_stay(ended) else 0
        survivors = await live.process.reap()
        self.recorder.say(
            ProcessExited(
                pid=live.process.pid,
                status=ended.status,
                signal=ended.signal,
                cpu_s=ended.cpu_s,
                max_rss=ended.max_rss,
            ),
            ProcessReaped(survivors=survivors, kept=kept, processes=list(live.process.survivors)),
        )
        if left := live.process.left:
            text = f"{left} process(es) of the agent could not be ended: they are another user's"
            self.recorder.say(Notice(text=text))

    def _may_stay(self, ended: Ended) -> bool:
        """Whether the task lets what an agent started outlive it, and it ended by itself."""
        by_itself = self.control.stopped is None and ended.status is not None
        return self.plan.task.detached == "keep" and by_itself

    async def _silence(self, live: _Live) -> None:
        """Whatever went wrong, the agent writes no more when the rest is read."""
        if live.ended is None and live.lost is None:
            with suppress(SupervisionError):  # then it was killed together with the reaper
                await live.process.stop(interrupt=None, grace_s=0)

    async def _drain(self, live: _Live) -> None:
        """Read what the agent left, in turns with others. After a stop there is no time for all."""
        for spool in live.intake.spools:
            spool.bound()  # what the task lets outlive the agent may write for ever
        end = anyio.current_time() + DRAIN_S
        while live.intake.pump(last=True):
            await anyio.lowlevel.checkpoint()
            if self._stopping(live) and anyio.current_time() > end:
                live.intake.leave()

    def _stopping(self, live: _Live) -> bool:
        return self.control.stopped is not None or live.ended is None

    def _exited(self, live: _Live) -> None:
        """Note how it ended before the rest is read, for which there may be no room."""
        ended = live.ended or live.process.ended
        self.exit = Exit(
            status=ended.status if ended else None,
            signal=ended.signal if ended else None,
            dismissed=self._dismissed,
        )

    def _close(self, live: _Live) -> None:
        """Read what is left, and let the conversation have its last word."""
        self.exit = live.intake.close(self.exit or Exit())
        passed = live.watch.settle()
        if passed is not None and self.control.stopped is None:
            self.recorder.say(limit_event(passed, "none"))  # it had already done what it was to do

    # --- limits

    def _watched(self) -> Watched:
        plan = self.plan
        return Watched(
            task_id=plan.task.id,
            run_id=plan.run_id,
            limits=plan.limits,
            local=plan.agent.tier == "local",
            ledger=plan.ledger,
        )

    def _unbounded(self) -> Error | None:
        """That the run would be without the limit of its cost that the user wrote, if it would."""
        plan, agent = self.plan, self.plan.agent
        about = about_of(self.config.adapters[agent.adapter], agent)
        tells = about.tells_cost or price_of(agent) is not None
        known = agent.tier == "local" or (tells and plan.auth != "login")
        why = uncounted(plan.task.limits.meet(self.config.limits), cost_known=known)
        if why is None:
            return None
        hint = "Set `limits.tokens` or `limits.steps`, too, or name an agent that tells its cost."
        return Error(kind="unroutable", text=f"{agent.name}: {why}", hint=hint)

    def _hold_to_limits(self, live: _Live) -> None:
        if self.control.stopped is not None:
            return
        if live.asking:
            live.watch.waits("person")
        elif self.plan.handing is not None and self.plan.handing.waiting:
            live.watch.waits("child")
        passed = live.watch.hold(live.intake)
        failures = self.recorder.digest.failures
        if live.watch.unseen is not None and not self._blind:
            self._blind = True
            text = f"what the agent receives is not seen, only what it writes: {live.watch.unseen}"
            self.recorder.say(Notice(text=text))
        if passed is not None:
            self.recorder.say(limit_event(passed))
            self.control.stop(passed.stop, passed.text, passed.limit)
        elif (free := self._free(time.monotonic())) is not None:
            self._limit("disk", free, "disk_full", f"only {free} bytes are free at {self.folder}")
        elif self.plan.failures is not None and failures >= self.plan.failures:
            why = f"{failures} tool calls in a row failed"
            self._limit("failures", failures, "stalled", why)

    def _see_to_room(self) -> None:
        """An agent that failed on a full disk failed for that reason, whatever it says."""
        failed = self.control.stopped is None and not finished(self._facts())
        if failed and (free := scarce(self.folder)) is not None:
            self._limit("disk", free, "disk_full", f"only {free} bytes are free at {self.folder}")

    def _see_to_usage(self) -> None:
        """A limit that nothing was counted against was none: that is told."""
        stated = self.plan.task.limits.meet(self.config.limits).meet(self.plan.ledger.limits)
        silent = self.recorder.counts.spoken and self.recorder.usage is None
        if silent and stated.tokens is not None:
            self._unheld = "tokens"
            self.recorder.say(Notice(text=not_held(self._unheld)))

    def _free(self, now: float) -> int | None:
        """What is free on the disk, if that is too little. Looked at once a second."""
        if now - self._looked < FREE_S:
            return None
        self._looked = now
        return scarce(self.folder)

    def _limit(self, limit: str, value: float, stopped: Stopped, why: str) -> None:
        self.recorder.say(Limit(limit=limit, value=round(value, 3), action="stop"))
        self.control.stop(stopped, why)

    # --- the work

    async def _set_up(self) -> bool:
        """Make a fresh work tree usable; whether the agent can start."""
        place, command = self.plan.place, self.plan.task.setup
        if command is None:
            return True
        if place is None:
            text = "setup was not run: the task works in the folder itself"
            self.recorder.say(Notice(text=text))
            return True
        limit_s = self.plan.limits.setup_s
        done = await until(self.control.requested, self._shell, command, limit_s)
        if done is None:
            return False
        for line in done.output.splitlines() if done.output else ():
            self.recorder.say(Output(stream="setup", text=line))
        if not done.passed:
            how = "did not end in time" if done.exit is None else f"failed (exit {done.exit})"
            text, hint = f"setup {how}: {command}", "Its output is above, as lines of `setup`."
            self.recorder.say(Error(kind="setup_failed", text=text, hint=hint))
            return False
        await place.prepared()
        write_record(self.folder, _record(self.plan), _secrets(self.plan, self.config))
        return True

    async def _keep(self, place: Place) -> None:
        """Make the work a commit, before the check litters."""
        try:
            self._told(await place.keep(self.folder / _PATCH))
        except (GitError, SpawnError) as why:
            self.recorder.say(Notice(text=f"changes cannot be told: {why}"))

    def _told(self, kept: Kept) -> None:
        self.changes = kept.changes
        self.recorder.say(*(Notice(text=note) for note in kept.notes))
        if self.changes.files:
            self.recorder.say(WorkspaceChanged(changes=self.changes))

    async def _look(self) -> Before | None:
        task, ours = self.plan.task, self.config.state
        store = ours / STORES / self.plan.run_id
        look = await self.stack.enter_async_context(
            self.plan.looks.at(task.workspace, store, ours=ours)
        )
        try:
            return await look.before(self.reaper, task.files)
        except (GitError, SpawnError) as why:
            self.recorder.say(Notice(text=f"changes cannot be told: {why}"))
            return None

    async def _compare(self, before: Before) -> None:
        try:
            self.changes = await before.changes(self.reaper, self.folder / _PATCH)
        except (GitError, SpawnError) as why:
            self.recorder.say(Notice(text=f"changes cannot be told: {why}"))
            return
        if self.changes.files:
            self.recorder.say(WorkspaceChanged(changes=self.changes))

    async def _verify(self, command: str) -> None:
        """Run the check. One that is interrupted says nothing."""
        limit_s = self.plan.limits.check_s
        self.check = await until(self.control.requested, self._shell, command, limit_s)
        if self.check is not None:
            self.recorder.say(self.check)

    async def _shell(self, command: str, limit_s: float | None) -> Check:
        """What came of a command of the user's own, in the workspace."""
        task = self.plan.task
        try:
            done = await run_to_end(
                self.reaper,
                ("/bin/sh", "-c", command),
                cwd=task.workspace,
                env=_check_environment(task, self.config),
                limit_s=limit_s or float("inf"),
                output_limit=CHECK_TAIL,
                merge=True,
            )
        except SpawnError as error:
            return Check(command=command, passed=False, output=str(error))
        output = done.stdout.decode("utf-8", "backslashreplace")
        return Check(command=command, passed=done.exit == 0, exit=done.exit, output=output)


def _went_elsewhere(use: Use) -> Error:
    text = f"the agent says that it is done, and {use.server} answered nothing meanwhile"
    hint = "It was served by another model or place: see its own settings, and what left the house."
    return Error(kind="route_mismatch", text=text, hint=hint)


async def _send(live: _Live, sends: Iterable[Send]) -> bool:
    """Write to the agent. False: it does not read any more."""
    read = True
    for send in sends:
        read = await live.process.send(send.data) and read
        if send.end:
            await live.process.close_stdin()
        if send.leave_s is not None:
            live.leave_s = send.leave_s
    return read


async def _watch(live: _Live) -> None:
    try:
        live.ended = await live.process.wait()
    except ReaperLostError as error:
        live.lost = error
    live.wake()


async def until(
    asked: anyio.Event, work: Callable[..., Awaitable[Found]], *arguments: object
) -> Found | None:
    """What `work` gives, or None if it was cancelled because a stop was asked for."""
    found: Found | None = None
    with lone_error():
        async with anyio.create_task_group() as group:
            group.start_soon(_cancel_when, asked, group.cancel_scope)
            found = await work(*arguments)
            group.cancel_scope.cancel()
    return found


async def _cancel_when(asked: anyio.Event, scope: anyio.CancelScope) -> None:
    await asked.wait()
    scope.cancel()


def _opened(path: Path, stack: ExitStack) -> Spool:
    """Raises SpawnError: an agent that takes its own output away cannot be supervised."""
    try:
        return stack.enter_context(Spool(path, path.name))
    except OSError as error:
        if error.errno in {errno.EMFILE, errno.ENFILE}:
            raise too_many_files(error) from error
        text = f"the agent put something else in the place of its own {path.name}: {error.strerror}"
        raise SpawnError(text) from error


def _short(outcome: Outcome) -> Outcome:
    """The outcome, small enough for the room that a full disk has for it."""
    text = outcome.text and outcome.text[:_SHORT]
    changes = outcome.changes and replace(outcome.changes, diff=None, truncated=True)
    if changes and sum(map(len, changes.files)) > _SHORT:
        changes = None
    return replace(outcome, text=text, changes=changes)


def _record(plan: Plan) -> Record:
    tree = plan.place.tree if plan.place else None
    users = tree.repository / tree.inside if tree else plan.task.workspace
    return Record(
        run_id=plan.run_id,
        job_id=plan.job_id,
        started=plan.started,
        task=replace(recorded(plan.task), workspace=users),
        tree=tree,
        agent=plan.recorded,
        before=plan.before,
        resumed=plan.resumed,
        secrets=_secret_names(plan),
    )


def _check_environment(task: Task, config: Config) -> dict[str, str]:
    """The usual variables and those that the task asks for; none of the agent's own."""
    named = {name: config.environ[name] for name in task.env_from if name in config.environ}
    return {**base_environment(config.environ), **named, **task.env}


def _secret_names(plan: Plan) -> tuple[str, ...]:
    """Variables whose values no record may hold: the agent's keys, and whatever came by
    `env_from`.
    """
    command = plan.command
    keys = {command.env_from.get(name, name) for name in command.secrets}
    return tuple(sorted(keys.union(plan.task.env_from)))


def _secrets(plan: Plan, config: Config) -> tuple[str, ...]:
    """Their values, and whatever else in the environment is called a key."""
    return (*known(_secret_names(plan), config.environ), *plan.hidden)
