"""What a worker that died left on this machine: its records are completed, its agents are dead.

Whoever takes a job over calls this first. Then it says how each task goes on.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path

from orchestrator.config import Config
from orchestrator.errors import OrchestrateError
from orchestrator.events import Event, JobOutcome, Notice, TurnFinished, TurnStarted
from orchestrator.events.wire import decode
from orchestrator.journal import JOB, Record, read_events, read_job_outcome, read_outcome, runs_of
from orchestrator.run.attempt import open_reaper
from orchestrator.run.recovery import recover
from orchestrator.supervisor import Continued, Supervisor
from orchestrator.supervisor.job import ended_before
from orchestrator.supervisor.recovery import recover_job
from orchestrator.task import Task, TaskFile
from orchestrator.worker import machine, wire
from orchestrator.workspace.remains import Desk, save

GO_ON = (
    "You were cut off in the middle of this task, by no fault of yours. Look at what is done "
    "already, and finish it."
)


class StillRunningError(OrchestrateError):
    """Somebody is doing the job now."""


def prepared(config: Config) -> None:
    """Load what reading a record or beginning a job needs and loads at its first use: most of a
    second, which the jobs of a worker that died should not wait for.
    """
    machine.at_a_glance(config)
    told = Event(
        seq=0,
        time="",
        run_id=None,
        task_id=None,
        agent=None,
        source="supervisor",
        update=Notice(text=""),
    )
    decode(wire.line(told))


def runs_completed(job_id: str, config: Config) -> list[Record]:
    """Complete the records of a job's runs. When it returns, none of its agents is alive. Blocks.

    Raises JournalError if one is, or a record cannot be read, StillRunningError if a run goes on.
    """
    runs = config.state / "runs"
    made = runs_of(runs, job_id)
    for record in made:
        folder = runs / record.run_id
        if read_outcome(folder) is None and recover(folder, config) is None:
            raise StillRunningError(f"run {record.run_id} of job {job_id} is going on")
    return made


def completed(job_id: str, config: Config) -> JobOutcome | None:
    """Complete a job's whole record here: how it ended. None: there is none. Raises as above."""
    folder = config.state / "jobs" / job_id
    if not (folder / JOB).exists():
        return None
    made = runs_completed(job_id, config)
    if (found := read_job_outcome(folder)) is not None:
        return found
    outcome = recover_job(folder, config.state / "runs", made)
    if outcome is None:
        raise StillRunningError(f"job {job_id} is going on")
    return outcome


@dataclass(frozen=True, kw_only=True)
class GoesOn:
    """How a job goes on that was cut off. `refused` says why it does not."""

    file: TaskFile
    continued: dict[str, Continued] = field(default_factory=dict[str, Continued])
    refused: str | None = None


async def goes_on(job_id: str, file: TaskFile, supervisor: Supervisor, config: Config) -> GoesOn:
    """A job with the tasks that were not over resumed, or begun again, as each of them says."""
    runs, folder = config.state / "runs", config.state / "jobs" / job_id
    over = ended_before(folder) if folder.exists() else {}
    last = {record.task.id: record for record in runs_of(runs, job_id)}
    tasks: list[Task] = []
    continued: dict[str, Continued] = {}
    for task in file.tasks:
        record = last.get(task.id)
        if task.id in over or (record is None and folder.exists()):
            tasks.append(task)  # it is not done again, or was not begun
        elif record is not None and _was_done(runs / record.run_id):
            return GoesOn(file=file, refused=f"task {task.id!r}: {_DONE}")
        elif task.recovery != "resume":
            tasks.append(task)
        elif isinstance(found := await _resumed(task, record, supervisor, config), str):
            if not task.retry_safe:
                return GoesOn(file=file, refused=f"task {task.id!r} cannot be resumed: {found}")
            tasks.append(task)
        else:
            resumed, continued[task.id] = found
            tasks.append(resumed)
    return GoesOn(file=replace(file, tasks=tuple(tasks)), continued=continued)


_DONE = "its agent was done when its worker was ended, but nobody looked at what came of it"


def _was_done(run: Path) -> bool:
    """Whether the agent had ended its turn by itself: then it is not sent there again."""
    last = None
    for event in read_events(run):
        if isinstance(event.update, TurnStarted | TurnFinished):
            last = event.update
    return isinstance(last, TurnFinished) and last.stop_reason == "end_turn"


async def _resumed(
    task: Task, record: Record | None, supervisor: Supervisor, config: Config
) -> tuple[Task, Continued] | str:
    """The task in its agent's session, from what stood in its work tree; or why that cannot be."""
    if record is None:
        return "its record is not on this machine"
    folder = config.state / "runs" / record.run_id
    try:
        resumed, continued = supervisor.resumed(folder, GO_ON)
        if record.tree is not None:
            async with open_reaper() as reaper:
                desk = Desk(reaper=reaper, state=config.state, environ=config.environ)
                saved = await save(desk, folder)
            continued = replace(continued, commit=saved or continued.commit)
    except OrchestrateError as error:
        return str(error)
    whole = replace(resumed, id=task.id, needs=task.needs, kind=task.kind, access=task.access)
    return whole, continued
