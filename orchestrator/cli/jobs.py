"""A recorded job, told: when each task began and ended, how, in which runs."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from functools import reduce
from pathlib import Path

from orchestrator.console.paint import painted
from orchestrator.console.state import Board, board, fold
from orchestrator.console.story import course
from orchestrator.console.summary import job_summary
from orchestrator.errors import shown
from orchestrator.journal import (
    JobRecord,
    Record,
    read_events,
    read_job,
    read_outcome,
    running,
    runs_of,
)


def job_told(folder: Path, runs: Path, *, width: int | None, colour: bool) -> Iterator[str]:
    """What a job was, part by part. Raises JournalError."""
    job, outcome = read_job(folder), read_outcome(folder)
    made = runs_of(runs, job.job_id)
    state = outcome.status if outcome else "running" if running(folder) else "cut off"
    named = f" ({shown(job.name)})" if job.name else ""
    yield f"job        {job.job_id}{named}\nstarted    {job.started}\noutcome    {state}\n"
    for line in course(read_events(folder)):
        yield painted(line, colour=colour)
    yield ""
    yield job_summary(_board(job, folder, made), width=width, colour=colour)
    yield ""
    for record in made:
        yield f"run        {record.run_id}  {shown(record.task.id)}"
    yield f"record     {shown(str(folder))}"


def _board(job: JobRecord, folder: Path, made: list[Record]) -> Board:
    """Where its tasks stand; of a run that is not over, what was asked for."""
    now = reduce(fold, read_events(folder), board(task.id for task in job.tasks))
    going = {record.task.id: record.agent for record in made}
    rows = {
        id_: replace(row, agent=going[id_].name, model=going[id_].model)
        if id_ in going and row.outcome is None
        else row
        for id_, row in now.rows.items()
    }
    return replace(now, rows=rows)
