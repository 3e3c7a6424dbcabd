"""After a crash of ours: the record of a job is completed, when those of its runs are."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from orchestrator.events import Failure, JobFinished, JobOutcome, Outcome, TaskFinished, TaskStarted
from orchestrator.journal import (
    OUTCOME,
    Journal,
    Record,
    read_events,
    read_job,
    read_outcome,
    runs_of,
    write_outcome,
)
from orchestrator.outcome import together
from orchestrator.run.recorder import Recorder


@dataclass(kw_only=True)
class _Told:
    """What a job's journal tells: the tasks that were begun, with the run that handed each on, and
    those that ended; the job's own end. `seq` is that of its last event.
    """

    begun: dict[str, str | None] = field(default_factory=dict[str, str | None])
    ended: dict[str, Outcome] = field(default_factory=dict[str, Outcome])
    outcome: JobOutcome | None = None
    seq: int = 0


def recover_job(
    folder: Path, runs: Path, made: Sequence[Record] | None = None
) -> JobOutcome | None:
    """Complete the record of a job that was cut off. None: it is going on. `made` are the records
    of its runs, if they are known.

    Every task ends as its last run did; one that had none, or of which a run is left to recover, as
    interrupted. Raises JournalError.
    """
    record = read_job(folder)
    journal = Journal.reopen(folder)
    if journal is None:
        return None
    with journal:
        made = runs_of(runs, record.job_id) if made is None else made
        told = _told(folder)
        asked = {task.id: task.parent_run_id for task in record.tasks}
        for task_id, parent in (told.begun | asked).items():  # those that were handed on, too
            if task_id not in told.ended:
                told.ended[task_id] = _of_runs(runs, made, task_id)
                head = _head(record.job_id, task_id, parent)
                told.seq = _say(journal, head, told.seq, TaskFinished(outcome=told.ended[task_id]))
        outcome = told.outcome
        if outcome is None:
            outcome = together({task.id: told.ended[task.id] for task in record.tasks})
            head = _head(record.job_id, None, None)
            _say(journal, head, told.seq, JobFinished(outcome=outcome))
        journal.sync()
        if not (folder / OUTCOME).exists():
            write_outcome(folder, outcome)
        return outcome


def _told(folder: Path) -> _Told:
    told = _Told()
    for event in read_events(folder):
        told.seq = event.seq
        match event.update:
            case TaskStarted(id=id_):
                told.begun[id_] = event.parent_run_id
            case TaskFinished(outcome=of_task) if event.task_id is not None:
                told.ended[event.task_id] = of_task
            case JobFinished(outcome=of_job):
                told.outcome = of_job
            case _:
                pass
    return told


def _of_runs(runs: Path, made: Sequence[Record], task_id: str) -> Outcome:
    found = [read_outcome(runs / run.run_id) for run in made if run.task.id == task_id]
    if found and found[-1] is not None:
        return found[-1]
    failure = Failure(kind="interrupted", text="orchestrate was ended before the task was")
    return Outcome(status="interrupted", error=failure, evidence=[failure.text])


def _head(job_id: str, task_id: str | None, parent: str | None) -> dict[str, str | None]:
    return {
        "job_id": job_id,
        "run_id": None,
        "task_id": task_id,
        "parent_run_id": parent,
        "agent": None,
    }


def _say(
    journal: Journal, head: dict[str, str | None], seq: int, update: TaskFinished | JobFinished
) -> int:
    recorder = Recorder(head=head, write=journal.append, publish=lambda _: None, seq=seq)
    recorder.say(update)
    return recorder.seq
