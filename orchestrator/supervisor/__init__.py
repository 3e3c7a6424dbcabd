"""The embedder's one object: `run(task)` and `stream(task)`, for one task or a file of them.

Below it, `job` decides when each task begins, `attempts` does one task (`placing` finds its work
tree, `planning` makes its plan), and `stream` reads the events back from their journals.

async with Supervisor(load_config()) as supervisor:
    outcome = await supervisor.run(Task(prompt="rename foo to bar", workspace=repo))
outcome.check()
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Generator, Iterable, Mapping, Sequence
from contextlib import (
    AbstractAsyncContextManager,
    AsyncExitStack,
    asynccontextmanager,
    contextmanager,
    nullcontext,
)
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Self

import anyio

from orchestrator.adapter import about_of
from orchestrator.budget import Ledger, Verdict
from orchestrator.config import Config, file_with_defaults
from orchestrator.discovery import with_nearby
from orchestrator.errors import InputError, ReaperLostError, SupervisionError, lone_error
from orchestrator.events import JobOutcome, Outcome
from orchestrator.files import Files
from orchestrator.gateway import Gateways, open_gateways
from orchestrator.journal import Record, read_outcome, read_record
from orchestrator.redaction import known
from orchestrator.run.attempt import Reaper, open_reaper
from orchestrator.run.control import Control
from orchestrator.run.questions import Answer, Ask, Asked, Person
from orchestrator.run.recorder import Publish, new_run_id
from orchestrator.slots import Slots
from orchestrator.supervisor.attempts import attempts
from orchestrator.supervisor.checking import check_task
from orchestrator.supervisor.desk import Desk, open_desk
from orchestrator.supervisor.job import (
    CONCURRENCY,
    Also,
    Job,
    Say,
    Sink,
    ended_before,
    fan_out,
    run_job,
)
from orchestrator.supervisor.lifetime import Lifetime
from orchestrator.supervisor.means import Continued, Means
from orchestrator.supervisor.placing import commits_of, grounds
from orchestrator.supervisor.stream import EventStream
from orchestrator.task import Task, TaskFile, check_tasks
from orchestrator.telemetry import warn
from orchestrator.usage import add
from orchestrator.workspace.git import GitError
from orchestrator.workspace.looks import Looks
from orchestrator.workspace.place import Ground
from orchestrator.workspace.repository import locate

if TYPE_CHECKING:
    from types import TracebackType

__all__ = ["Answer", "Ask", "Asked", "Continued", "EventStream", "Sink", "Supervisor"]

LEFT = "the supervisor's block was left"
WIND_UP_S = 60.0
"""How long runs may take for a clean end when the block is left: an agent's own interrupt, SIGINT
and SIGTERM have 5 s each, then its work is saved."""
END_S = 30.0
"""How long they may take when their agents were killed."""


class Supervisor:
    """Runs tasks. An async context manager: what it started is ended when the block is left.

    Runs that other tasks have going on then are interrupted cleanly, and waited for; when leaving
    is cancelled, they are killed. It may be left in another task than it was entered in. Raises
    SupervisionError on entering if the reaper cannot be started, and wherever it is used outside
    its block, in another thread, event loop or process.
    """

    def __init__(
        self, config: Config, *, slots: Slots | None = None, ask: Ask | None = None
    ) -> None:
        """`slots` limits how many agents run at once; the default counts those of this machine.
        `ask` answers agents with `permissions = "ask"`; without it every question is denied.
        """
        self._config = config
        self._stack = AsyncExitStack()
        self._reaper: Reaper | None = None
        self._gateways: Gateways | None = None
        self._controls: set[Control] = set()
        self._slots = slots or Slots(config.state / "slots")
        self._looks = Looks()
        self._person = Person(ask=ask)
        self._files = Files()
        self._interrupted: str | None = None
        self._lifetime = Lifetime()

    async def __aenter__(self) -> Self:
        self._lifetime.begin()
        try:
            async with AsyncExitStack() as stack:
                self._reaper = await stack.enter_async_context(open_reaper())
                gateways = open_gateways(self._config, self._reaper)
                self._gateways = await stack.enter_async_context(gateways)
                self._stack = stack.pop_all()
        except BaseException:
            self._lifetime.forget()
            raise
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> bool | None:
        if self._lifetime.forked:
            return None  # what it started is its first process' to end
        self._lifetime.check_place()
        self._lifetime.end()
        try:
            self.interrupt(LEFT)
            await self._lifetime.idle(WIND_UP_S)
        finally:
            # What is not over by now loses its agent, and comes to its end by that.
            suppressed = await self._stack.__aexit__(kind, error, trace)
            with anyio.CancelScope(shield=True):
                await self._lifetime.idle(END_S)
        return suppressed

    async def run(
        self,
        task: Task | TaskFile,
        *sinks: Sink,
        continued: Continued | Mapping[str, Continued] | None = None,
        job_id: str | None = None,
    ) -> Outcome:
        """Do a task, or the tasks of a file; `sinks` are called with each event. A failed agent is
        an outcome, not an exception.

        The outcome is the task's own, or for a file a `JobOutcome` with those of its tasks. Raises
        InputError if a task cannot be done as written (unknown agent, no workspace), JournalError
        and SupervisionError if our own work failed. Cancelling it kills the agents at once. When
        the reaper is lost, its runs end as `interrupted`; later runs get a new reaper.

        `continued`: the earlier run that the task goes on from; for several tasks, by task id.
        `job_id`: a UUIDv7 that the job was given before, as by a queue. If that job has a record
        that was cut off, it goes on there, with the tasks that had not ended.
        """
        with self._lifetime.job():
            outcome = await self._job(_file(task), sinks, continued, job_id)
        return outcome.tasks[task.id] if isinstance(task, Task) else outcome

    async def _job(
        self,
        file: TaskFile,
        sinks: tuple[Sink, ...],
        continued: Continued | Mapping[str, Continued] | None,
        job_id: str | None,
    ) -> JobOutcome:
        check_tasks(file)  # before anything is made of its values: a wrong one must not be lost
        file = file_with_defaults(file, self._config)
        of = _by_task(file, continued)
        config = await self._config_of(file, of)
        job = self._prepared(file, job_id)
        publish, controls = fan_out(sinks), set[Control]()
        means = await self._means(job, config, publish, controls)
        async with (
            self._files.room(_at_once(file), _few_files),
            _desk(file.tasks, config) as desk,
        ):
            return await run_job(
                replace(job, apart=frozenset(means.grounds)),
                work=partial(_work, replace(means, desk=desk), of),
                publish=publish,
                stop=lambda passed: _stop(controls, passed),
                looking=means.reaper.ticks.looking,
            )

    async def _config_of(self, file: TaskFile, of: Mapping[str, Continued]) -> Config:
        """The configuration, with the agents found on this machine. Raises InputError if a task
        cannot be done as written with that.
        """
        named = [each.agent for each in file.tasks if each.id not in of]
        named += [None for each in file.tasks if each.delegation]  # to any agent that there is
        config = await with_nearby(self._config, named)
        for each in file.tasks:
            check_task(each, config, of.get(each.id))
        return config

    def _prepared(self, file: TaskFile, job_id: str | None) -> Job:
        """The job, new or going on; which of its tasks work apart is not known yet."""
        id_ = job_id or new_run_id()
        folder = self._config.state / "jobs" / id_
        return Job(
            id=id_,
            file=file,
            folder=folder,
            ledger=Ledger(file.limits),
            secrets=known((), self._config.environ),
            queued=job_id is not None,
            ended={name: one for name, one in ended_before(folder).items() if name in file.needs},
        )

    async def _means(
        self, job: Job, config: Config, publish: Publish, controls: set[Control]
    ) -> Means:
        file, reaper = job.file, self._running()
        return Means(
            config=config,
            reaper=reaper,
            gateways=self._gateways,
            control=partial(self._control, controls),
            publish=publish,
            job_id=job.id,
            slots=self._slots,
            commits=commits_of(file, job.ended),
            grounds=await _grounds(file.tasks, config, reaper),
            leaves=file.leaves,
            ledger=job.ledger,
            looks=self._looks,
            person=self._person,
        )

    @asynccontextmanager
    async def _stream(self, task: Task | TaskFile) -> AsyncGenerator[EventStream]:
        stream = EventStream(self._config.state)
        with lone_error():
            async with anyio.create_task_group() as group:
                group.start_soon(self._feed, task, stream)
                yield stream
                group.cancel_scope.cancel()

    def stream(self, task: Task | TaskFile) -> AbstractAsyncContextManager[EventStream]:
        """Do a task, or those of a file, and iterate over the events; `.outcome` afterwards.
        Leaving early kills the agents.
        """
        return self._stream(task)

    async def _feed(self, task: Task | TaskFile, stream: EventStream) -> None:
        try:
            stream.outcome = await self.run(task, stream.told)
        finally:
            stream.end()

    def interrupt(self, why: str = "interrupted by the user") -> None:
        """Stop all runs cleanly; their outcomes are `interrupted`. Returns at once.

        To stop at once instead, cancel `run`. Raises SupervisionError in another thread than the
        event loop's.
        """
        self._lifetime.check_place()
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
            needs=(),
            include_uncommitted=False,  # what was taken along is in the commit that it goes on from
            kind=None,  # what is asked for now may be something else; the access stays as it was
            access=record.task.allowed,
            agent=record.agent.name,
            session_id=outcome.session_id,
            home=Path(home) if home else None,
        )
        before = add(record.before, outcome.usage)
        return task, Continued(
            run_id=record.run_id,
            agent=record.agent,
            before=before,
            tree=record.tree,
            commit=_ended_as(record, outcome),
        )

    # --- preparing

    @contextmanager
    def _control(self, of_the_job: set[Control]) -> Generator[Control]:
        control = Control()
        if self._interrupted is not None:
            control.stop("interrupted", self._interrupted)
        self._controls.add(control)
        of_the_job.add(control)
        try:
            yield control
        finally:
            self._controls.discard(control)
            of_the_job.discard(control)

    def _running(self) -> Reaper:
        if self._reaper is None:
            raise SupervisionError("the supervisor has no reaper")
        return self._reaper


async def _work(
    means: Means,
    continued: Mapping[str, Continued],
    task: Task,
    told: Publish,
    say: Say,
    also: Also,
) -> Outcome:
    """Do a task of the job, or one that another of them hands on."""
    desk, of = means.desk, continued.get(task.id)
    means = replace(means, publish=told, say=say, also=also, continued=of)
    if desk is None or (above := desk.above.get(task.id)) is None:
        return await attempts(task, means)
    if above.repository is not None:
        _check_same(task.workspace, above.repository)
    where = await grounds((task,), means.config, means.reaper, exclude=above.copied)
    means = replace(means, grounds=where, leaves=frozenset())
    # Without a work tree of its own it is in its parent's folder: others must not be there, too.
    async with desk.alone if not where and task.allowed != "read" else nullcontext():
        return await attempts(task, means)


def _check_same(workspace: Path, common: Path) -> None:
    """Raises GitError: an agent can make its work tree another repository's, or nobody's."""
    found = locate(workspace.resolve())
    if found is None or found.common != common:
        raise GitError(f"{workspace} is not a work tree of {common} any more")


@asynccontextmanager
async def _desk(tasks: Sequence[Task], config: Config) -> AsyncGenerator[Desk | None]:
    """The desk of a job in which work may be handed on. Raises SupervisionError."""
    if not any(task.delegation for task in tasks):
        yield None
        return
    async with AsyncExitStack() as stack:
        try:
            opened = open_desk(config.state, (task.id for task in tasks))
            desk = await stack.enter_async_context(opened)
        except OSError as error:
            raise SupervisionError(f"no socket for sub-tasks: {error}") from error
        yield desk


def _ended_as(record: Record, outcome: Outcome) -> str | None:
    """The commit that a run's work tree ended as."""
    kept = outcome.changes.commit if outcome.changes else None
    return kept or (record.tree.start if record.tree else None)


def _by_task(
    file: TaskFile, continued: Continued | Mapping[str, Continued] | None
) -> Mapping[str, Continued]:
    match continued:
        case None:
            return {}
        case Continued():
            return {task.id: continued for task in file.tasks}
        case _:
            return continued


def _at_once(file: TaskFile) -> int:
    """How many agents a job may have at once: each may delegate to another."""
    tasks = min(len(file.tasks), file.concurrency or CONCURRENCY)
    return tasks * (2 if any(task.delegation for task in file.tasks) else 1)


async def _grounds(tasks: Sequence[Task], config: Config, reaper: Reaper) -> Mapping[str, Ground]:
    try:
        return await grounds(tasks, config, reaper)
    except ReaperLostError:  # nothing has begun yet, and the next reaper can look as well
        return await grounds(tasks, config, reaper)


def _few_files() -> None:
    warn("too few open files: a job waits for others to end (raise `ulimit -n`)")


def _stop(controls: Iterable[Control], passed: Verdict) -> None:
    for control in tuple(controls):
        control.stop(passed.stop, passed.text, passed.limit)


def _file(task: Task | TaskFile) -> TaskFile:
    """The task as a file of one. Raises InputError for what cannot be done alone, or is nothing."""
    match task:
        case Task(needs=()):
            return TaskFile(tasks=(task,), name=task.name, single=True)
        case Task(id=id_, needs=needs):
            raise InputError(
                f"task {id_!r} needs {', '.join(needs)}",
                hint="Run them together: Supervisor.run(TaskFile(tasks=(...)))",
            )
        case TaskFile(tasks=()):
            raise InputError("no task: the file has none")
        case TaskFile():
            return task
