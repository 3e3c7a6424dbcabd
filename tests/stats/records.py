"""Records of runs as the program itself writes them, made up here."""

import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from uuid import UUID

from orchestrator.adapter import Agent
from orchestrator.events import Event, JobOutcome, Outcome, Update
from orchestrator.events.wire import encode
from orchestrator.journal import (
    JobRecord,
    Journal,
    Record,
    make_folder,
    write_job,
    write_outcome,
    write_record,
)
from orchestrator.task import Task

CLOUD = Agent(name="cloud", adapter="any", model="gpt-5.5", tier="cloud")
LOCAL = Agent(
    name="desk",
    adapter="any",
    model="qwen2.5-coder:14b",
    server="ollama",
    base_url="http://127.0.0.1:11434",
    tier="local",
)
START = 1_790_000_000  # 2026-09-21T14:13:20Z


def id_at(second: float, number: int = 0) -> str:
    """A UUIDv7 of that second after START."""
    value = int((START + second) * 1000) << 80 | 0x7 << 76 | 0x2 << 62 | number
    return str(UUID(int=value))


def stamp(second: float) -> str:
    whole = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(START + int(second)))
    return f"{whole}.{round(second % 1 * 1e6):06}Z"


def run(
    state: Path,
    second: float,
    *,
    agent: Agent = CLOUD,
    task: Task | None = None,
    job: str | None = None,
    outcome: Outcome | None = None,
    said: Sequence[tuple[float, Update]] = (),
) -> Path:
    """A run that began then; `said` are updates by the second after its start."""
    run_id = id_at(second, len(job or ""))
    folder = make_folder(state / "runs", run_id)
    task = task or Task(prompt="do it", kind="fix", workspace=state)
    record = Record(run_id=run_id, started=stamp(second), task=task, agent=agent, job_id=job)
    write_record(folder, record)
    with Journal(folder) as journal:
        for seq, (after, update) in enumerate(said, start=1):
            event = Event(
                seq=seq,
                time=stamp(second + after),
                run_id=run_id,
                task_id=task.id,
                agent=agent.name,
                source="supervisor" if update.type.startswith("process.") else "agent",
                update=update,
            )
            journal.append(encode(event) + b"\n")
    if outcome is not None:
        write_outcome(folder, replace(outcome, agent=agent.name, run_id=run_id))
    return folder


def job(state: Path, second: float, tasks: Mapping[str, Outcome] | None, status: str) -> Path:
    """A job; without tasks one that was cut off."""
    folder = make_folder(state / "jobs", id_at(second))
    write_job(folder, JobRecord(job_id=folder.name, started=stamp(second), tasks=()))
    with Journal(folder):
        pass
    if tasks is not None:
        write_outcome(folder, JobOutcome(status=status, tasks=dict(tasks)))  # type: ignore[arg-type]
    return folder
