"""One attempt of a task by an agent: its process from spawn to outcome.

What a line means is the adapter's; what starts and ends processes is `process`; what it all amounts
to is `outcome`. Here they are put together, and every event goes to the journal before anyone sees
it.
"""

from __future__ import annotations

import errno
import shutil
import time
from collections.abc import Awaitable, Callable, Iterable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TypeVar

import anyio
import anyio.lowlevel

from orchestrator import events
from orchestrator.adapter import Adapter, Agent, Command, Conversation, Exit, Send, about_of
from orchestrator.config import Config
from orchestrator.discovery import preflight, version
from orchestrator.errors import SpawnError, SupervisionError, lone_error
from orchestrator.events import (
    Auth,
    Check,
    Error,
    Limit,
    Notice,
    Outcome,
    Output,
    ProcessExited,
    ProcessReaped,
    ProcessSpawned,
    Raw,
    RouteSelected,
    RunFinished,
    RunStarted,
    Stall,
    Update,
    Usage,
    WorkspaceChanged,
)
from orchestrator.journal import (
    STDERR,
    STDOUT,
    Journal,
    Record,
    make_folder,
    scrub,
    write_outcome,
    write_record,
)
from orchestrator.lines import Line
from orchestrator.outcome import Facts, Stopped, decide, finished, remedy
from orchestrator.process import (
    Ended,
    Process,
    Reaper,
    base_environment,
    environment,
    open_reaper,
    run_to_end,
)
from orchestrator.route import Route, considered
from orchestrator.run.recorder import Publish, Recorder, fed, last_words, new_run_id, translate
from orchestrator.run.spool import Spool, Tails
from orchestrator.task import Limits, Task
from orchestrator.usage import priced
from orchestrator.workspace.git import GitError
from orchestrator.workspace.place import Place
from orchestrator.workspace.snapshot import Snapshot, changes, snapshot
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

POLL_S = 0.02
# inotify was worse under load; 20 ms costs 1.65 s CPU for 1,000 agents x 5 lines/s x 60 s.
GRACE_S = 5.0
CHECK_TAIL = 64 * 1024
STDERR_TAIL = 64 * 1024
_STORE, _PATCH = "tree.git", "diff.patch"
SECRET_LENGTH = 8
# A shorter value is no key, and blanking it would tear holes into ordinary text.

Found = TypeVar("Found")


@dataclass(frozen=True, kw_only=True)
class Plan:
    """A run, prepared: everything decided that can be decided without starting anything.

    `command` was made by the adapter for exactly this task and agent. `recorded` is the agent as
    the record names it (a scripted model server has another address each time). `notes` become
    notices. `auth` is what the agent comes to its model with. `place` is the work tree made for the
    run, if one was; `deliver` brings its commit to the user's files, and gives what is to be said.
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
    notes: tuple[str, ...] = ()
    place: Place | None = None
    deliver: Callable[[str], Awaitable[str]] | None = None


class Control:
    """How a run is asked to stop, by the user, a limit or a signal. The first reason holds."""

    def __init__(self) -> None:
        self.requested = anyio.Event()
        self.stopped: Stopped | None = None
        self.why: str | None = None

    def stop(self, stopped: Stopped, why: str) -> None:
        """Ask for a clean stop. Returns at once."""
        if self.stopped is None:
            self.stopped, self.why = stopped, why
            self.requested.set()


@dataclass(kw_only=True)
class _Live:
    """What a running agent is made of."""

    process: Process
    conversation: Conversation
    stdout: Spool
    stderr: Spool
    tails: Tails
    sends: list[Send] = field(default_factory=list[Send])
    ended: Ended | None = None
    lost: SupervisionError | None = None
    wake: anyio.Event = field(default_factory=anyio.Event)
    tail_bytes: bytes = b""


async def perform(
    plan: Plan, *, config: Config, reaper: Reaper, control: Control, publish: Publish
) -> Outcome:
    """Run an agent on a task, from the first event to the last. The run's folder must not exist
    yet.

    Raises JournalError if the record cannot be written, SupervisionError if the reaper is lost;
    then the agent has been killed. Cancellation kills it at once, and the outcome is still written.
    """
    folder = make_folder(config.state / "runs", plan.run_id)
    write_record(folder, _record(plan))
    with Journal(folder) as journal:
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
        run = _Run(plan, config=config, reaper=reaper, control=control, recorder=recorder)
        started = time.monotonic()
        lost: SupervisionError | None = None
        try:
            await run.attempt()
            await run.deliver()
        except SupervisionError as error:
            lost = error
            recorder.say(Error(kind="crashed", text=str(error), hint=error.hint))
        except Exception as error:
            # A failure of our own, such as a full disk: what is known is still put on record.
            recorder.add(Error(kind="crashed", text=f"orchestrate failed: {error}"), "supervisor")
            await run.leave()
            run.finish(time.monotonic() - started, journal)
            raise
        except BaseException:
            control.stop("cancelled", "the run was cancelled")
            await run.leave()
            run.finish(time.monotonic() - started, journal)
            raise
        await run.leave()
        outcome = run.finish(time.monotonic() - started, journal)
    if lost is not None:
        raise lost
    return outcome


class _Run:
    """The state of one run while `perform` lasts."""

    def __init__(
        self, plan: Plan, *, config: Config, reaper: Reaper, control: Control, recorder: Recorder
    ) -> None:
        self.plan = plan
        self.recorder = recorder
        self.folder = config.state / "runs" / plan.run_id
        self.config = config
        self.reaper = reaper
        self.control = control
        self.exit: Exit | None = None
        self.changes: events.Changes | None = None
        self.check: Check | None = None
        self._grown = 0.0
        self._began = 0.0

    async def attempt(self) -> None:
        """Everything up to the outcome."""
        plan = self.plan
        agent = plan.agent
        cli_version = await until(self.control.requested, version, agent, self.config, self.reaper)
        self.recorder.say(
            RouteSelected(
                model=agent.model,
                reason=plan.routes[0].reason if plan.routes else "named",
                considered=considered(plan.routes),
            ),
            RunStarted(
                adapter=agent.adapter,
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
        asked = self.control.requested
        error = await until(asked, preflight, agent, self.config.servers)
        if error is not None:
            self.recorder.say(error)
            return
        if not await self._set_up():
            return
        before = await until(asked, self._look) if plan.place is None else None
        if asked.is_set():
            return
        try:
            await self._agent()
        except SpawnError as failure:
            hint = failure.hint
            if failure.errno == errno.ENOEXEC:  # half installed, such as npm's stub of a binary
                hint = about_of(self.config.adapters[agent.adapter], agent).install_hint or None
            self.recorder.say(Error(kind="spawn", text=str(failure), hint=hint))
            return
        if plan.place is not None:
            await self._keep(plan.place)
        elif before is not None:
            await self._compare(before)
        if plan.task.check is not None and finished(self._facts()):
            await self._verify(plan.task.check)

    async def deliver(self) -> None:
        """Bring work that succeeded to the user's files, if that is wanted."""
        if self.plan.deliver is None or self.changes is None or self.changes.commit is None:
            return
        if not decide(self._facts()).ok:
            return
        try:
            said = await self.plan.deliver(self.changes.commit)
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
        why = await place.end(self.folder / _PATCH)
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

    def finish(self, duration_s: float, journal: Journal) -> Outcome:
        """Decide, and put the outcome on record. Raises JournalError."""
        outcome = decide(self._facts())
        agent = self.plan.recorded
        if outcome.error is not None:
            server = self.config.servers.get(agent.server or "")
            outcome.error.hint = remedy(outcome.error, agent, server)
        outcome.agent = agent.name
        outcome.model = outcome.model or agent.model
        outcome.run_id = self.plan.run_id
        outcome.duration_s = round(duration_s, 3)
        shutil.rmtree(self.folder / _STORE, ignore_errors=True)  # the diff is kept in diff.patch
        for path in (self.folder / STDOUT, self.folder / STDERR, *self.folder.glob("*.patch")):
            scrub(path, _secrets(self.plan, self.config))
        match self.recorder.add(RunFinished(outcome=outcome), "supervisor"):
            case RunFinished(outcome=clean):
                outcome = clean
            case _:
                pass
        self.recorder.flush()
        journal.sync()
        write_outcome(self.folder, outcome)
        return outcome

    def _facts(self) -> Facts:
        return Facts(
            task=self.plan.task,
            digest=self.recorder.digest,
            exit=self.exit,
            stopped=self.control.stopped,
            stopped_why=self.control.why,
            changes=self.changes,
            unseen=self.changes is None,
            check=self.check,
            usage=self.recorder.usage,
        )

    # --- the agent's process

    async def _agent(self) -> None:
        plan, command = self.plan, self.plan.command
        stdout, stderr = self.folder / STDOUT, self.folder / STDERR
        if plan.agent.home is not None:
            Path(plan.agent.home).mkdir(parents=True, exist_ok=True, mode=0o700)
        env = environment(
            command, self.config.environ, env=plan.task.env, env_from=plan.task.env_from
        )
        with ExitStack() as stack:
            tails = Tails(command.tails, env, stack)
            async with self.reaper.spawn(
                command, env=env, stdout=stdout, stderr=stderr, token=plan.run_id
            ) as process:
                self.recorder.say(ProcessSpawned(pid=process.pid))
                live = _Live(
                    process=process,
                    conversation=plan.adapter.conversation(plan.task, plan.agent, plan.before),
                    stdout=stack.enter_context(Spool(stdout, STDOUT)),
                    stderr=stack.enter_context(Spool(stderr, STDERR)),
                    tails=tails,
                )
                try:
                    await self._follow(live)
                    await self._bury(live)
                finally:
                    self._close(live)

    async def _follow(self, live: _Live) -> None:
        """Read until the process has ended; stop it when that is asked for."""
        self._began = self._grown = anyio.current_time()
        self._take(live, live.conversation.start(), None)
        with lone_error():
            await self._follow_until_end(live)
        if live.lost is not None:
            raise live.lost

    async def _follow_until_end(self, live: _Live) -> None:
        async with anyio.create_task_group() as group:
            group.start_soon(_watch, live)
            group.start_soon(self._stop_when_asked, live)
            while live.ended is None and live.lost is None:
                grew = self._pump(live)
                sends, live.sends = live.sends, []
                await _send(live, sends)
                self._hold_to_limits(live)
                if grew:
                    await anyio.lowlevel.checkpoint()
                else:
                    with anyio.move_on_after(POLL_S):
                        await live.wake.wait()
            group.cancel_scope.cancel()

    async def _stop_when_asked(self, live: _Live) -> None:
        await self.control.requested.wait()
        sends = list(live.conversation.interrupt())
        if sends and await _send(live, sends):
            with anyio.move_on_after(GRACE_S):
                await live.process.wait()
        await live.process.stop(interrupt=self.plan.command.interrupt, grace_s=GRACE_S)

    async def _bury(self, live: _Live) -> None:
        """The process has ended: kill what it left, so that nothing writes any more."""
        ended = live.ended
        assert ended is not None  # noqa: S101 (by `_follow`)
        survivors = await live.process.reap()
        self.recorder.say(
            ProcessExited(
                pid=live.process.pid,
                status=ended.status,
                signal=ended.signal,
                cpu_s=ended.cpu_s,
                max_rss=ended.max_rss,
            ),
            ProcessReaped(survivors=survivors),
        )
        if left := live.process.left:
            text = f"{left} process(es) of the agent could not be ended: they are another user's"
            self.recorder.say(Notice(text=text))

    def _close(self, live: _Live) -> None:
        """Read what is left, and let the conversation have its last word."""
        ended = live.ended
        self.exit = Exit(
            status=ended.status if ended else None, signal=ended.signal if ended else None
        )
        while self._pump(live, last=True):
            pass
        for line in live.stdout.rest():
            self._take(live, translate(live.conversation, line), raw_of(live.stdout, line))
        for line in live.stderr.rest():
            self._stderr(live, line)
        self.exit = replace(self.exit, stderr=live.tail_bytes.decode("utf-8", "replace"))
        self._take(live, last_words(live.conversation, self.exit), None)
        self.recorder.flush()

    # --- lines

    def _pump(self, live: _Live, *, last: bool = False) -> bool:
        """Take in what the files have grown by; whether they have."""
        grew = False
        for spool in (live.stdout, live.stderr):
            chunk = spool.read()
            if not chunk:
                if spool.shrunk():
                    text = f"the agent cut its own {spool.stream} file; lines may be lost"
                    self.recorder.say(Error(kind="crashed", text=text))
                continue
            grew = True
            for line in spool.lines(chunk):
                if spool is live.stdout:
                    self._take(live, translate(live.conversation, line), raw_of(spool, line))
                else:
                    self._stderr(live, line)
        lines, tails_grew = live.tails.read(last=last)
        grew = grew or tails_grew
        for line in lines:
            self._take(live, fed(live.conversation, line), None)
        if grew:
            self._grown = anyio.current_time()
            self.recorder.flush()
        return grew

    def _take(self, live: _Live, said: Iterable[Update | Send], raw: Raw | None) -> None:
        for one in said:
            match one:
                case Send():
                    live.sends.append(one)
                case update:
                    self.recorder.add(update, "agent", raw)

    def _stderr(self, live: _Live, line: Line) -> None:
        live.tail_bytes = (live.tail_bytes + line.data + b"\n")[-STDERR_TAIL:]
        text = line.data.decode("utf-8", "backslashreplace")
        self.recorder.add(Output(stream=STDERR, text=text), "agent", raw_of(live.stderr, line))

    # --- limits

    def _hold_to_limits(self, live: _Live) -> None:
        if self.control.stopped is not None:
            return
        limits, now = self.plan.limits, anyio.current_time()
        digest, cost = self.recorder.digest, self.recorder.cost_usd
        open_calls, steps = digest.open_calls, len(digest.calls)
        wall, quiet = now - self._began, now - self._grown
        size = live.stdout.size + live.stderr.size
        if limits.wall_s is not None and wall > limits.wall_s:
            self._limit("wall", wall, "timed_out", f"time limit of {limits.wall_s:g} s reached")
        elif limits.stall_s is not None and quiet > limits.stall_s and not open_calls:
            # A tool may be silent for long and still work: while one is open, `wall` is the bound.
            self.recorder.say(Stall(budget="stall", seconds=round(quiet, 1), action="stop"))
            why = f"no sign of life for {limits.stall_s:g} s"
            self.control.stop("stalled", why)
        elif limits.output_bytes is not None and size > limits.output_bytes:
            why = f"more than {limits.output_bytes} bytes of output"
            self._limit("output", size, "output_limit", why)
        elif limits.steps is not None and steps > limits.steps:
            self._limit("steps", steps, "budget_exceeded", f"more than {limits.steps} steps")
        elif limits.cost_usd is not None and cost > limits.cost_usd:
            why = f"more than ${limits.cost_usd:g} spent"
            self._limit("cost_usd", cost, "budget_exceeded", why)

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
        write_record(self.folder, _record(self.plan))
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

    async def _look(self) -> Snapshot | None:
        task = self.plan.task
        try:
            return await snapshot(
                self.reaper,
                task.workspace,
                self.folder / _STORE,
                ours=self.config.state,
                files=task.files,
            )
        except (GitError, SpawnError) as why:
            self.recorder.say(Notice(text=f"changes cannot be told: {why}"))
            return None

    async def _compare(self, before: Snapshot) -> None:
        try:
            self.changes = await changes(self.reaper, before, self.folder / _PATCH)
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


async def _send(live: _Live, sends: Iterable[Send]) -> bool:
    """Write to the agent. False: it does not read any more."""
    read = True
    for send in sends:
        read = await live.process.send(send.data) and read
        if send.end:
            await live.process.close_stdin()
    return read


async def _watch(live: _Live) -> None:
    try:
        live.ended = await live.process.wait()
    except SupervisionError as error:
        live.lost = error
    live.wake.set()


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


def raw_of(spool: Spool, line: Line) -> Raw:
    return Raw(stream=spool.stream, offset=line.offset, length=line.length)


def _record(plan: Plan) -> Record:
    tree = plan.place.tree if plan.place else None
    users = tree.repository / tree.inside if tree else plan.task.workspace
    return Record(
        run_id=plan.run_id,
        job_id=plan.job_id,
        started=plan.started,
        task=replace(plan.task, workspace=users),
        tree=tree,
        agent=plan.recorded,
        before=plan.before,
        resumed=plan.resumed,
    )


def _check_environment(task: Task, config: Config) -> dict[str, str]:
    """The usual variables and those that the task asks for; none of the agent's own."""
    named = {name: config.environ[name] for name in task.env_from if name in config.environ}
    return {**base_environment(config.environ), **named, **task.env}


def _secrets(plan: Plan, config: Config) -> list[str]:
    """Values that no record may hold: the agent's keys, and whatever came by `env_from`."""
    sources = {plan.command.env_from.get(name, name) for name in plan.command.secrets}
    sources.update(plan.task.env_from)
    values = {config.environ[name] for name in sources if name in config.environ}
    return sorted(value for value in values if len(value) >= SECRET_LENGTH)
