"""A recorded job, told: when each task began and ended, how, in which runs."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from functools import reduce
from pathlib import Path

from orchestrator.console.paint import painted
from orchestrator.console.state import Board, board, family, fold
from orchestrator.console.story import course
from orchestrator.console.summary import job_summary, tree
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


def tree_told(
    folder: Path, runs: Path, run_id: str | None, *, width: int | None, colour: bool
) -> str:
    """What was handed on in a job, by whom, at what cost: all, or from a run on. Raises
    JournalError.
    """
    job = read_job(folder)
    board = _board(job, folder, runs_of(runs, job.job_id))
    return tree(board if run_id is None else family(board, run_id), width=width, colour=colour)


def _board(job: JobRecord, folder: Path, made: list[Record]) -> Board:
    """Where its tasks stand; of a run that is not over, what was asked for."""
    now = reduce(fold, read_events(folder), board(task.id for task in job.tasks))
    going = {record.task.id: record.agent for record in made}
    ran: dict[str, tuple[str, ...]] = {}
    for record in made:
        ran[record.task.id] = (*ran.get(record.task.id, ()), record.run_id)
    rows = {
        id_: replace(row, agent=going[id_].name, model=going[id_].model)
        if id_ in going and row.outcome is None
        else row
        for id_, row in now.rows.items()
    }
    rows = {id_: replace(row, runs=ran.get(id_, ())) for id_, row in rows.items()}
    return replace(now, rows=rows)
