"""A job, as it is put into the queue and as it stands there; and what the engine calls things."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, TypeAlias

from dbos import WorkflowStatus

from orchestrator.errors import OrchestrateError

NAME = "orchestrate"
JOBS, CHILDREN = "jobs", "children"
"""The queues: what somebody submitted, and what a running job did. Only the first has a limit:
whoever waits for a child must not keep it from its place."""

QUEUES = (JOBS, CHILDREN)

WORKERS, WORKER = "workers", "worker"
# Where each worker's own entry stands: nobody takes it, it says which labels the worker has.
ONCE, RECOVERABLE = "job", "recoverable-job"
EVENTS = "events"
VERSION = "1"
# Constant: the engine's own would be another for each release, and leave its jobs to nobody.
MIDDLE = 1_000_000
# The engine takes the lowest number first, from 1; ours is the higher the sooner, around 0.

State: TypeAlias = Literal["delayed", "waiting", "running", "succeeded", "failed", "cancelled"]
_STATES: Mapping[str, State] = {
    "DELAYED": "delayed",
    "ENQUEUED": "waiting",
    "PENDING": "running",
    "SUCCESS": "succeeded",
    "CANCELLED": "cancelled",
}


@dataclass(frozen=True, kw_only=True)
class Entry:
    """A job as the engine knows it. Times are seconds since 1970. `state` "succeeded" says that the
    job was done, however it came out: that is in `output`. `needs`: the labels that its worker must
    have (labels.py). `notes` are ours to write.
    """

    job_id: str
    state: State
    needs: str = ""
    priority: int = 0
    submitted: float | None = None
    started: float | None = None
    ended: float | None = None
    delayed_until: float | None = None
    worker: str | None = None
    attempts: int = 0
    recoverable: bool = False
    input: str | None = None
    output: str | None = None
    error: str | None = None
    notes: Mapping[str, object] | None = None

    @property
    def over(self) -> bool:
        return self.state in {"succeeded", "failed", "cancelled"}


@dataclass(frozen=True, kw_only=True)
class Order:
    """What is said of a job when it is enqueued."""

    job_id: str
    input: str
    queue: str = JOBS
    needs: str = ""
    recoverable: bool = False
    priority: int = 0
    delay_s: float | None = None
    dedup: str | None = None
    notes: Mapping[str, object] | None = None


def entry_of(status: WorkflowStatus) -> Entry:
    found = status.input["args"] if status.input else ()
    return Entry(
        job_id=status.workflow_id,
        state=_STATES.get(status.status, "failed"),
        needs=status.queue_partition_key or "",
        priority=MIDDLE - (status.priority or MIDDLE),
        submitted=_seconds(status.created_at),
        started=_seconds(status.dequeued_at),
        ended=_seconds(status.completed_at),
        delayed_until=_seconds(status.delay_until_epoch_ms),
        worker=status.executor_id,
        attempts=status.recovery_attempts or 0,
        recoverable=status.name == RECOVERABLE,
        input=next((one for one in found if isinstance(one, str)), None),
        output=status.output if isinstance(status.output, str) else None,
        error=None if status.error is None else str(status.error),
        notes=status.attributes,
    )


def _seconds(milliseconds: int | None) -> float | None:
    return None if milliseconds is None else milliseconds / 1000


class NotOursError(OrchestrateError):
    """A job that runs here is somebody else's now, or nobody's: the engine takes nothing of it."""
