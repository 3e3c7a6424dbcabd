"""The embedder's one object: `run(task)` and `stream(task)`. Chooses an agent, prepares a run,
performs it.

async with Supervisor(load_config()) as supervisor:
    outcome = await supervisor.run(Task(prompt="rename foo to bar", workspace=repo))
outcome.check()
"""

from __future__ import annotations

import os
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Generator, Sequence
from contextlib import (
    AbstractAsyncContextManager,
    AsyncExitStack,
    asynccontextmanager,
    contextmanager,
)
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Self, TypeAlias

import anyio

from orchestrator.adapter import Agent, about_of
from orchestrator.config import Config, agents_for
from orchestrator.discovery import auth_of, look, with_model
from orchestrator.errors import InputError, SupervisionError, lone_error
from orchestrator.events import Error, Event, Failure, Outcome, TaskFinished, Usage, decode
from orchestrator.journal import EVENTS, make_private, read_outcome, read_record
from orchestrator.outcome import STATUS
from orchestrator.route import Route, choose
from orchestrator.run.attempt import (
    Control,
    Plan,
    Reaper,
    Recorder,
    new_run_id,
    open_reaper,
    perform,
    until,
)
from orchestrator.task import DEFAULT_LIMITS, Task
from orchestrator.telemetry import warn
from orchestrator.usage import add
from orchestrator.workspace import make_scratch

if TYPE_CHECKING:
    from types import TracebackType

Sink: TypeAlias = Callable[[Event], None]


@dataclass(frozen=True, kw_only=True)
class Continued:
    """What a resumed run goes on from: the run, its agent as it was, and the session's usage so
    far.
    """

    run_id: str
    agent: Agent
    before: Usage | None


class Supervisor:
    """Runs tasks. An async context manager: what it started is ended when the block is left.

    Raises SupervisionError on entering if the reaper cannot be started.
    """

    def __init__(self, config: Config) -> None:
        self._config = config
        self._stack = AsyncExitStack()
        self._reaper: Reaper | None = None
        self._controls: set[Control] = set()
        self._interrupted: str | None = None

    async def __aenter__(self) -> Self:
        self._reaper = await self._stack.enter_async_context(open_reaper())
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> bool | None:
        self._reaper = None
        return await self._stack.__aexit__(kind, error, trace)

    async def run(self, task: Task, *sinks: Sink, continued: Continued | None = None) -> Outcome:
        """Do a task; `sinks` are called with each event. A failed agent is an outcome, not an
        exception.

        Raises InputError if the task cannot be meant (unknown agent, no workspace), JournalError
        and SupervisionError if our own work failed. Cancelling it kills the agent at once.
        """
        reaper = self._running()
        routes = self._routes(task, continued)
        if not routes or routes[0].rank is None:
            return _unroutable(task, routes, sinks)
        run_id = new_run_id()
        async with AsyncExitStack() as stack:
            control = stack.enter_context(self._control())
            placed = await until(control.requested, self._placed, task, run_id)
            if placed is None:
                return _interrupted(task, control.why, sinks)
            agent = await until(control.requested, with_model, routes[0].agent, self._config)
            if agent is None:
                return _interrupted(task, control.why, sinks)
            if isinstance(agent, Error):
                return _without_model(task, agent, sinks)
            routes = (replace(routes[0], agent=agent), *routes[1:])
            plan = await self._plan(placed, routes, run_id, continued, stack)
            return await perform(
                plan,
                config=self._config,
                reaper=reaper,
                control=control,
                publish=_fan_out(sinks),
            )

    @asynccontextmanager
    async def _stream(self, task: Task) -> AsyncGenerator[EventStream]:
        stream = EventStream(self._config.state / "runs")
        with lone_error():
            async with anyio.create_task_group() as group:
                group.start_soon(self._feed, task, stream)
                yield stream
                group.cancel_scope.cancel()

    def stream(self, task: Task) -> AbstractAsyncContextManager[EventStream]:
        """Do a task and iterate over its events; `.outcome` afterwards. Leaving early kills the
        agent.
        """
        return self._stream(task)

    async def _feed(self, task: Task, stream: EventStream) -> None:
        try:
            stream.outcome = await self.run(task, stream.told)
        finally:
            stream.end()

    def interrupt(self, why: str = "interrupted by the user") -> None:
        """Stop all runs cleanly; their outcomes are `interrupted`. Returns at once.

        To stop at once instead, cancel `run`.
        """
        self._interrupted = why  # a run that is only being prepared is stopped, too
        for control in self._controls:
            control.stop("interrupted", why)

    def resumed(self, folder: Path, prompt: str) -> tuple[Task, Continued]:
        """What to `run` to go on in the session of the run in `folder`.

        Raises InputError if that run has no session or its agent cannot resume.
        """
        record, outcome = read_record(folder), read_outcome(folder)
        adapter = self._config.adapters.get(record.agent.adapter)
        if adapter is None or not about_of(adapter, record.agent).resumes:
            raise InputError(f"agent {record.agent.name!r} cannot resume a session")
        if outcome is None or outcome.session_id is None:
            raise InputError(
                f"run {record.run_id} has no session to resume: "
                + ("it has not ended" if outcome is None else "the agent never began one")
            )
        home = record.agent.home
        task = replace(
            record.task,
            prompt=prompt,
            kind=None,  # what is asked for now may be something else; the access stays as it was
            access=record.task.allowed,
            agent=record.agent.name,
            session_id=outcome.session_id,
            home=Path(home) if home else None,
        )
        before = add(record.before, outcome.usage)
        return task, Continued(run_id=record.run_id, agent=record.agent, before=before)

    # --- preparing

    @contextmanager
    def _control(self) -> Generator[Control]:
        control = Control()
        if self._interrupted is not None:
            control.stop("interrupted", self._interrupted)
        self._controls.add(control)
        try:
            yield control
        finally:
            self._controls.discard(control)

    def _running(self) -> Reaper:
        if self._reaper is None:
            raise SupervisionError(
                "the supervisor is not running: use `async with Supervisor(...)`"
            )
        return self._reaper

    def _routes(self, task: Task, continued: Continued | None) -> tuple[Route, ...]:
        agents = (continued.agent,) if continued else agents_for(task.agent, self._config)
        named = task.agent is not None or continued is not None
        placed, state = look(agents, self._config, named=named)
        return choose(task, placed, state)

    async def _placed(self, task: Task, run_id: str) -> Task:
        """The task with its workspace in place."""
        if task.template is not None:
            target = (
                self._config.state / "scratch" / f"{task.name or task.template.name}-{run_id[-8:]}"
            )
            make_private(target.parent)
            await make_scratch(self._running(), task.template, target)
            return replace(task, workspace=target, template=None)
        if not task.workspace.is_dir():
            raise InputError(f"workspace: no folder {task.workspace}")
        if not os.access(task.workspace, os.R_OK | os.X_OK):
            raise InputError(f"workspace: no permission to read {task.workspace}")
        return replace(task, workspace=task.workspace.resolve())

    async def _plan(
        self,
        task: Task,
        routes: tuple[Route, ...],
        run_id: str,
        continued: Continued | None,
        stack: AsyncExitStack,
    ) -> Plan:
        route = routes[0].agent
        adapter = self._config.adapters[route.adapter]
        agent = replace(route, home=self._home(task, route, run_id))
        notes = (routes[0].note,) if routes[0].note else ()
        if route.base_url is not None and route.base_url.startswith("scripted:"):
            agent, scripted = await _scripted(agent, stack)
            notes = (*notes, *scripted)
        command = adapter.command(task, agent)
        return Plan(
            run_id=run_id,
            task=task,
            agent=agent,
            recorded=replace(agent, base_url=route.base_url),
            adapter=adapter,
            command=command,
            limits=task.limits.meet(self._config.limits).else_(DEFAULT_LIMITS),
            routes=routes,
            before=continued.before if continued else None,
            resumed=continued.run_id if continued else None,
            auth=auth_of(agent, command, self._config),
            notes=notes,
        )

    def _home(self, task: Task, agent: Agent, run_id: str) -> str | None:
        """The agent's private home: a resumed session stays in the one that it was made in."""
        if task.home is not None:
            return str(task.home)
        if agent.profile == "user":
            return None
        return str(self._config.state / "runs" / run_id / "home")


class EventStream:
    """The events of one run, in order, as an async iterator; reads the journal, so holds nothing
    back.

    `outcome` is set when the iterator has ended.
    """

    def __init__(self, runs: Path) -> None:
        self.outcome: Outcome | None = None
        self._runs = runs
        self._run_id: str | None = None
        self._without_run: list[Event] = []
        self._wake = anyio.Event()
        self._ended = False

    def told(self, event: Event) -> None:
        """A sink: there is something new to read."""
        if event.run_id is None:
            self._without_run.append(event)
        self._run_id = event.run_id
        self._wake.set()

    def end(self) -> None:
        """There will be no more events."""
        self._ended = True
        self._wake.set()

    async def __aiter__(self) -> AsyncIterator[Event]:
        offset = 0
        while True:
            ended, self._wake = self._ended, anyio.Event()
            for event in self._without_run:
                yield event
            self._without_run = []
            lines, offset = self._new_lines(offset)
            for line in lines:
                yield decode(line)
            if ended:
                return
            if not self._ended and not lines:
                await self._wake.wait()

    def _new_lines(self, offset: int) -> tuple[list[bytes], int]:
        if self._run_id is None:
            return [], offset
        with (self._runs / self._run_id / EVENTS).open("rb") as file:
            file.seek(offset)
            block = file.read()
        whole = block[: block.rfind(b"\n") + 1]
        return whole.splitlines(), offset + len(whole)


def _fan_out(sinks: Sequence[Sink]) -> Sink:
    """One sink for all. A sink that raises is dropped: it must not end the run of others."""
    listening = list(sinks)

    def publish(event: Event) -> None:
        for sink in tuple(listening):
            try:
                sink(event)
            except Exception as error:  # noqa: BLE001 (a sink is the embedder's code)
                listening.remove(sink)
                warn("a sink raised and is dropped", error=repr(error), seq=event.seq)

    return publish


def _interrupted(task: Task, why: str | None, sinks: Sequence[Sink]) -> Outcome:
    """Stopped before there was a run."""
    failure = Failure(kind="interrupted", text=why or "interrupted")
    return _without_run(task, Outcome(status="interrupted", error=failure), sinks)


def _unroutable(task: Task, routes: Sequence[Route], sinks: Sequence[Sink]) -> Outcome:
    """No agent could be chosen: an outcome without a run, with every agent's reason."""
    relevant = [route for route in routes if task.agent in {None, route.agent.name}]
    reasons = "; ".join(f"{route.agent.name}: {route.reason}" for route in relevant)
    failure = Failure(
        kind="unroutable",
        text=f"no agent can do this task: {reasons or 'none is configured or installed'}",
        hint="Install an agent, or name one that fits with --agent.",
    )
    outcome = Outcome(status="unroutable", error=failure, evidence=[failure.text])
    return _without_run(task, outcome, sinks)


def _without_model(task: Task, error: Error, sinks: Sequence[Sink]) -> Outcome:
    """The chosen agent's server has no model that could be meant."""
    failure = Failure(kind=error.kind, text=error.text, hint=error.hint)
    status = STATUS.get(error.kind, "failed")
    outcome = Outcome(status=status, error=failure, evidence=[failure.text])
    return _without_run(task, outcome, sinks)


def _without_run(task: Task, outcome: Outcome, sinks: Sequence[Sink]) -> Outcome:
    head = {"run_id": None, "task_id": task.id, "parent_run_id": task.parent_run_id, "agent": None}
    recorder = Recorder(head=head, write=None, publish=_fan_out(sinks))
    recorder.say(TaskFinished(outcome=outcome))
    return outcome


async def _scripted(agent: Agent, stack: AsyncExitStack) -> tuple[Agent, tuple[str, ...]]:
    """Start the scripted model server that the agent's URL names; the agent then speaks to it."""
    from orchestrator.testing import ScriptError, load_script, model_server

    file = Path((agent.base_url or "").removeprefix("scripted:"))
    try:
        script = load_script(file)
    except (OSError, ScriptError) as error:
        raise InputError(f"base_url: {error}") from error
    server = await stack.enter_async_context(model_server(script))
    note = f"the model is scripted: {file.name} is played, no model is asked"
    return replace(agent, base_url=server.base_url, api_key_env=None, tier="local"), (note,)
