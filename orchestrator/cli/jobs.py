"""A recorded job, told: its tasks, how each ended, and its runs."""

from __future__ import annotations

from pathlib import Path

from orchestrator.console import one_line, safe, table
from orchestrator.events import Outcome, TaskFinished
from orchestrator.journal import Record, read_events, read_job, read_outcome, running, runs_of


def job_told(folder: Path, runs: Path) -> str:
    """What a job was, task by task. Raises JournalError."""
    job, outcome = read_job(folder), read_outcome(folder)
    state = outcome.status if outcome else "running" if running(folder) else "cut off"
    named = f" ({safe(job.name)})" if job.name else ""
    made = runs_of(runs, job.job_id)
    ended = {
        event.task_id: event.update.outcome
        for event in read_events(folder)
        if isinstance(event.update, TaskFinished)
    }
    rows = [["TASK", "OUTCOME", "RUNS", "WHY"]]
    for task in job.tasks:
        own = [record for record in made if record.task.id == task.id]
        rows.append([task.id, *_cells(ended.get(task.id), own, state)])
    head = f"job {job.job_id}{named}, started {job.started}\noutcome: {state}"
    return f"{head}\n\n{table(rows)}\n\nrecord: {folder}"


def _cells(outcome: Outcome | None, runs: list[Record], state: str) -> list[str]:
    waiting = "waiting" if state == "running" else "never begun"
    status = outcome.status if outcome else state if runs else waiting
    why = one_line(outcome.error.text, 80) if outcome and outcome.error else "-"
    return [status, ", ".join(record.run_id for record in runs) or "-", why]
