"""One job: its tasks in the order of their needs, side by side where they may be, and its record.

When a task has its turn is `graph.step`'s to say; how it is done is `work`'s. Every task is told
in the job's journal, and the job's last event is `job.finished`.
"""

from __future__ import annotations

import os
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Collection, Mapping, Sequence
from contextlib import AbstractContextManager, asynccontextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import TypeAlias

import anyio
import anyio.abc
from anyio import to_thread

from orchestrator.budget import Ledger, Verdict
from orchestrator.errors import InputError, JournalError, OrchestrateError, lone_error
from orchestrator.events import (
    Event,
    Failure,
    JobFinished,
    JobOutcome,
    Outcome,
    RunFinished,
    TaskFinished,
    TaskStarted,
    Update,
    Usage,
)
from orchestrator.graph import Claim, step
from orchestrator.journal import (
    CANCEL,
    EVENTS,
    JOB,
    OUTCOME,
    JobRecord,
    Journal,
    make_folder,
    make_private,
    now,
    read_events,
    write_job,
    write_outcome,
)
from orchestrator.outcome import STATUS, together
from orchestrator.run.recorder import Publish, Recorder
from orchestrator.run.watch import limit_event
from orchestrator.task import Task, TaskFile, recorded
from orchestrator.telemetry import warn
from orchestrator.template import Reference, rendered
from orchestrator.usage import add

Sink: TypeAlias = Callable[[Event], None]
Say: TypeAlias = Callable[[Update], None]
Also: TypeAlias = Callable[[Task, Sink], Awaitable[Outcome]]
"""Does a task that another one hands on; the sink hears its events."""
Work: TypeAlias = Callable[[Task, Publish, Say, Also], Awaitable[Outcome]]
"""Does a task: gets where its runs' events go, what says something of the task itself, and what
does a task that this one hands on.
"""

Looking: TypeAlias = Callable[[Callable[[], float]], AbstractContextManager[None]]
"""Has a look taken while the block lasts, each time when the one before it said."""

ASKED_S = 0.5
CONCURRENCY = 4
"""How many tasks run side by side where the file does not say."""


@dataclass(frozen=True, kw_only=True)
class Job:
    """A job, prepared: its tasks, which were checked, and where its record goes.

    The tasks that are `apart` work where nobody else does. All of them write down in `ledger` what
    they spend. The record has none of the `secrets`. `ended` are those that were over already, in a
    job that goes on after it was cut off.
    """

    id: str
    file: TaskFile
    folder: Path
    ledger: Ledger
    apart: Collection[str] = ()
    secrets: Sequence[str] = ()
    queued: bool = False
    ended: Mapping[str, Outcome] = field(default_factory=dict[str, Outcome])


async def run_job(
    job: Job, *, work: Work, publish: Publish, stop: Callable[[Verdict], None], looking: Looking
) -> JobOutcome:
    """Do its tasks. Cancelling it ends them all; what is known then is still put on record.

    When a limit that holds over all of them is passed, the rest is skipped; `stop` ends those that
    run when their time is up.
    """
    async with _journal(job) as journal:
        course = _Course(
            job, journal=journal, work=work, publish=publish, stop=stop, looking=looking
        )
        try:
            with lone_error():
                await course.run()
            course.cut_off(None)  # somebody asked for its end
        except BaseException as error:
            course.cut_off(error)
            await course.finish()
            raise
        return await course.finish()


@asynccontextmanager
async def _journal(job: Job) -> AsyncGenerator[Journal]:
    """The journal of a job. Threads wait for the disk, as they do for those of runs."""
    journal = await to_thread.run_sync(_begun, job)
    try:
        yield journal
    finally:
        with anyio.CancelScope(shield=True):
            await to_thread.run_sync(journal.close)


def ended_before(folder: Path) -> dict[str, Outcome]:
    """The tasks of a job that was cut off which were over by then; nothing, if there is no record.

    What was interrupted with it is not over. Raises JournalError.
    """
    if not (folder / EVENTS).exists():
        return {}
    return {
        event.task_id: event.update.outcome
        for event in read_events(folder)
        if isinstance(event.update, TaskFinished)
        and event.task_id is not None
        and event.update.outcome.status != "interrupted"
    }


def _begun(job: Job) -> Journal:
    """A new one, or that of the job that goes on. Raises JournalError, also if it is running."""
    file = job.file
    record = JobRecord(
        job_id=job.id,
        started=now(),
        tasks=tuple(map(recorded, file.tasks)),
        name=file.name,
        queued=job.queued,
        concurrency=file.concurrency,
        limits=file.limits,
        single=file.single,
    )
    if not job.folder.exists():
        write_job(make_folder(job.folder.parent, job.folder.name), record, job.secrets)
        return Journal(job.folder)
    make_private(job.folder)
    journal = Journal.reopen(job.folder)
    if journal is None:
        raise JournalError(f"job {job.id} is running already")
    if not (job.folder / JOB).exists():
        write_job(job.folder, record, job.secrets)
    (job.folder / OUTCOME).unlink(missing_ok=True)
    return journal


def _last_seq(folder: Path) -> int:
    return max((event.seq for event in read_events(folder)), default=0)


class _Course:
    """The state of a job while `run_job` lasts."""

    def __init__(
        self,
        job: Job,
        *,
        journal: Journal,
        work: Work,
        publish: Publish,
        stop: Callable[[Verdict], None],
        looking: Looking,
    ) -> None:
        self._job = job
        self._looking = looking
        self._asked_by = str(job.folder / CANCEL)
        self._tasks = {task.id: task for task in job.file.tasks}
        self._journal = journal
        self._work = work
        self._publish = publish
        self._claims = {
            task.id: claim
            for task in job.file.tasks
            if task.id not in job.apart and (claim := claimed(task))
        }
        self._running: set[str] = set()
        self._outcomes: dict[str, Outcome] = dict(job.ended)
        self._of_runs: dict[str, Outcome] = {}
        self._handed_on: dict[str, Task] = {}
        self._of_handed_on: dict[str, Outcome] = {}
        self._stop = stop
        self._stopped = False
        self._seq = _last_seq(journal.folder)
        self._began = time.monotonic()

    async def run(self) -> None:
        """Until no task is left."""
        async with anyio.create_task_group() as clock:
            clock.start_soon(self._deadline)
            with self._looking(partial(self._asked, clock.cancel_scope)):
                async with anyio.create_task_group() as group:
                    self._go_on(group)
            clock.cancel_scope.cancel()

    async def _deadline(self) -> None:
        wall_s = self._job.ledger.limits.wall_s
        if wall_s is not None:
            await anyio.sleep(wall_s)
            self._job.ledger.late(time.monotonic() - self._began)
            self._hold()

    def _asked(self, scope: anyio.CancelScope) -> float:
        """End it all if another process asks for that; when to look again."""
        # A thousand jobs ask for it: a Path and a task for each took a fifth of a core.
        if os.access(self._asked_by, os.F_OK):
            scope.cancel()
        return time.monotonic() + ASKED_S

    def _hold(self) -> Verdict | None:
        """The limit of all that was passed, if one was; then nothing goes on."""
        passed = self._job.ledger.passed
        if passed is not None and not self._stopped:
            self._stopped = True
            self._say(None, limit_event(passed))
            if passed.stop == "timed_out":
                # Who has spent too much together is stopped by its own watch: whose agent has ended
                # its turn spends no more, and may still be checked.
                self._stop(passed)
        return passed

    def _go_on(self, group: anyio.abc.TaskGroup) -> None:
        """Start and skip what is to be started and skipped now."""
        if (passed := self._hold()) is not None:
            for id_ in self._tasks:
                if id_ not in self._running and id_ not in self._outcomes:
                    self._end(id_, _unaffordable(passed))
            return
        following = step(
            self._job.file.needs,
            ended={id_: outcome.ok for id_, outcome in self._outcomes.items()},
            running=self._running,
            room=self._job.file.concurrency or CONCURRENCY,
            claims=self._claims,
        )
        for id_, need in following.skip.items():
            self._end(id_, _skipped(need, self._outcomes[need]))
        for id_ in following.start:
            self._running.add(id_)
            group.start_soon(self._do, self._tasks[id_], group)

    async def _do(self, task: Task, group: anyio.abc.TaskGroup) -> None:
        self._say(task.id, TaskStarted(id=task.id, kind=task.kind, needs=list(task.needs)))
        if not self._job.file.single:
            task = replace(task, prompt=rendered(task.prompt, self._value))
        try:
            say = partial(self._say, task.id)
            outcome = await self._work(task, self._told, say, self.also)
        except InputError as error:
            if self._job.file.single:
                raise  # whoever asked for this task alone is told at once
            outcome = _failed(error)
        self._end(task.id, outcome)
        self._go_on(group)

    async def also(self, task: Task, heard: Sink) -> Outcome:
        """Do a task that one of them hands on. The job's outcome is not its own, its usage is."""

        def told(event: Event) -> None:
            heard(event)
            self._told(event)

        self._handed_on[task.id] = task
        self._say(task.id, TaskStarted(id=task.id, kind=task.kind, needs=[]))
        outcome: Outcome | None = None
        try:
            outcome = await self._work(task, told, partial(self._say, task.id), self.also)
        except JournalError:
            raise
        except OrchestrateError as error:  # such as a work tree that its parent has broken
            outcome = _failed(error)
        finally:
            if outcome is None:
                outcome = self._of_runs.get(task.id) or _failed(None)
            self._of_handed_on[task.id] = outcome
            self._say(task.id, TaskFinished(outcome=outcome))
        return outcome

    def _end(self, id_: str, outcome: Outcome) -> None:
        self._running.discard(id_)
        self._outcomes[id_] = outcome
        self._say(id_, TaskFinished(outcome=outcome))

    def cut_off(self, error: BaseException | None) -> None:
        """Every task that is not over ends with the job."""
        for id_ in self._tasks:
            if id_ not in self._outcomes:
                why = error if id_ in self._running else None
                self._end(id_, self._of_runs.get(id_) or _failed(why))

    async def finish(self) -> JobOutcome:
        """Put the outcome on record. Is not cancelled. Raises JournalError."""
        outcome = together({id_: self._outcomes[id_] for id_ in self._tasks})
        if self._job.ledger.passed is not None:
            outcome = _cut_short(outcome, self._job.ledger.passed)
        outcome.usage = _usage([*outcome.tasks.values(), *self._of_handed_on.values()])
        outcome.duration_s = round(time.monotonic() - self._began, 3)
        short = replace(outcome, tasks={id_: _short(one) for id_, one in outcome.tasks.items()})
        self._say(None, JobFinished(outcome=short))
        with anyio.CancelScope(shield=True):
            await to_thread.run_sync(self._last, short)
        return outcome

    def _last(self, outcome: JobOutcome) -> None:
        """The outcome in a file of its own, when the journal is safe."""
        self._journal.sync()
        write_outcome(self._journal.folder, outcome)

    def _value(self, reference: Reference) -> str:
        """What a template's reference stands for; the task that it names is over."""
        return value(reference, self._outcomes[reference.task])

    def _told(self, event: Event) -> None:
        if isinstance(event.update, RunFinished) and event.task_id is not None:
            self._of_runs[event.task_id] = event.update.outcome
        self._publish(event)
        self._hold()

    def _say(self, task_id: str | None, update: Update) -> None:
        task = self._tasks.get(task_id or "") or self._handed_on.get(task_id or "")
        head = {
            "job_id": self._job.id,
            "run_id": None,
            "task_id": task_id,
            "parent_run_id": task.parent_run_id if task else None,
            "agent": None,
        }
        recorder = Recorder(
            head=head,
            write=self._journal.append,
            publish=self._publish,
            seq=self._seq,
            secret_values=self._job.secrets,
        )
        recorder.say(update)
        self._seq += 1


def claimed(task: Task) -> Claim | None:
    """The folder that a task works in, if others may work there, too."""
    if task.template is not None or task.source is not None:
        return None
    return Claim(folder=str(task.workspace.resolve()), alone=task.allowed != "read")


def value(reference: Reference, outcome: Outcome) -> str:
    """What a reference to a task stands for: empty where there is nothing."""
    match reference.field:
        case "text":
            return outcome.text or ""
        case "diff":
            return (outcome.changes and outcome.changes.diff) or ""
        case "branch":
            return (outcome.changes and outcome.changes.branch) or ""
        case "status":
            return outcome.status
        case "verified":
            return {True: "true", False: "false", None: "not checked"}[outcome.verified]


def _skipped(need: str, outcome: Outcome) -> Outcome:
    how = outcome.error.text if outcome.error else outcome.status
    if outcome.status == "skipped":
        text = f"it needs {need!r}, which was skipped: {how}"
    else:
        text = f"it needs {need!r}, which did not succeed ({outcome.status})"
    return Outcome(status="skipped", error=Failure(kind="skipped", text=text), evidence=[text])


def _unaffordable(passed: Verdict) -> Outcome:
    text = f"not started: {passed.text}"
    failure = Failure(kind="skipped", text=text, limit=passed.limit)
    return Outcome(status="skipped", error=failure, evidence=[text])


def _cut_short(outcome: JobOutcome, passed: Verdict) -> JobOutcome:
    """A job that a limit of all ended says so, whatever became of each task."""
    if outcome.ok:
        return outcome
    failure = Failure(
        kind=passed.stop,
        text=passed.text,
        hint=f"Raise `limits.{passed.limit}` at the top of the file, or split it.",
        limit=passed.limit,
    )
    return replace(outcome, status=STATUS[passed.stop], error=failure)


def _failed(error: BaseException | None) -> Outcome:
    """A task that came to no run, or to none that could be recorded."""
    match error:
        case InputError():
            failure = Failure(kind="invalid_request", text=str(error), hint=error.hint)
        case OrchestrateError():
            failure = Failure(kind="crashed", text=str(error), hint=error.hint)
        case Exception():
            failure = Failure(kind="crashed", text=f"orchestrate failed: {error!r}")
        case _:
            failure = Failure(kind="cancelled", text="the job was cut off")
    return Outcome(
        status="cancelled" if failure.kind == "cancelled" else "failed",
        error=failure,
        evidence=[failure.text],
    )


def _usage(outcomes: Sequence[Outcome]) -> Usage | None:
    """What the tasks used together; the cost of a run that told nothing is not 0."""
    total: Usage | None = None
    for outcome in outcomes:
        total = add(total, outcome.usage)
    if total is not None and any(one.run_id and one.usage is None for one in outcomes):
        return replace(total, cost_usd=None, cost_source=None)
    return total


def _short(outcome: Outcome) -> Outcome:
    """Without the diff, and what was delivered, which the task's own event has."""
    if outcome.changes is None:
        return outcome
    delivered = outcome.changes.delivered
    if delivered is not None:
        delivered = replace(delivered, content=None)
    return replace(outcome, changes=replace(outcome.changes, diff=None, delivered=delivered))


def fan_out(sinks: Sequence[Sink]) -> Publish:
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
