"""What was asked, of whom, and how it ended: task.json, job.json and outcome.json."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, TypeVar

import orjson

from orchestrator import private
from orchestrator.adapter import Agent
from orchestrator.errors import JournalError, first_problem
from orchestrator.events import JobOutcome, Outcome, Usage
from orchestrator.journal.disk import refused
from orchestrator.journal.names import CANCEL, JOB, OUTCOME, TASK
from orchestrator.journal.reading import last_outcome
from orchestrator.redaction import pattern, without
from orchestrator.task import Limits, Task

if TYPE_CHECKING:
    from pydantic import TypeAdapter

Found = TypeVar("Found", "Record", "JobRecord")


@dataclass(frozen=True, kw_only=True)
class Tree:
    """A run's work tree, as its record holds it: enough to go on with it, or to save it after a
    crash.

    `repository` is the user's work tree that it was made from, `inside` the sub-folder in both that
    is the workspace. `start` is the commit it began as; `upon` the one of the user's that the whole
    line of work stands on. `branch` is where its work goes. `copied` are patterns of files that
    were taken along and are never committed; `prepared` is the tree that `setup` left, if another.
    """

    path: Path
    repository: Path
    inside: str
    start: str
    upon: str
    branch: str
    copied: tuple[str, ...] = ()
    prepared: str | None = None

    @property
    def workspace(self) -> Path:
        """Where the agent works."""
        return self.path / self.inside


@dataclass(frozen=True, kw_only=True)
class Record:
    """What task.json holds: the task, the agent that was chosen, and what the run went on from.

    `tree` is the work tree that the run had to itself; the task's workspace is still the user's.
    `before` is the usage of the session before this run; `resumed` the run that it continues.
    """

    run_id: str
    started: str
    task: Task
    agent: Agent
    before: Usage | None = None
    resumed: str | None = None
    secrets: tuple[str, ...] = ()
    job_id: str | None = None
    tree: Tree | None = None


@dataclass(frozen=True, kw_only=True)
class JobRecord:
    """What job.json holds: one invocation and its tasks; `queued` if a worker took it from the
    queue. What is said at the top of a file is there as far as it is needed to do it again.
    """

    job_id: str
    started: str
    tasks: tuple[Task, ...]
    name: str | None = None
    queued: bool = False
    concurrency: int | None = None
    limits: Limits = Limits()
    single: bool = False


def now() -> str:
    """The time in a record: RFC 3339, UTC, seconds."""
    return datetime.now(UTC).isoformat(timespec="seconds").replace("+00:00", "Z")


def write_record(folder: Path, record: Record, secrets: Sequence[str] = ()) -> None:
    """Write task.json, without the secrets. Raises JournalError."""
    _write(folder / TASK, record, secrets)


def write_job(folder: Path, record: JobRecord, secrets: Sequence[str] = ()) -> None:
    """Write job.json, without the secrets. Raises JournalError."""
    _write(folder / JOB, record, secrets)


def write_outcome(folder: Path, outcome: Outcome) -> None:
    """Write outcome.json. Raises JournalError."""
    _write(folder / OUTCOME, outcome)


def read_record(folder: Path) -> Record:
    """The record of a run. Raises JournalError."""
    return _read(folder / TASK, _of_runs)


def read_job(folder: Path) -> JobRecord:
    """The record of a job. Raises JournalError."""
    return _read(folder / JOB, _of_jobs)


# Each is made once: making one takes longer than reading a thousand records.


@cache
def _of_runs() -> TypeAdapter[Record]:
    from pydantic import TypeAdapter

    return TypeAdapter(Record)


@cache
def _of_jobs() -> TypeAdapter[JobRecord]:
    from pydantic import TypeAdapter

    return TypeAdapter(JobRecord)


@cache
def job_outcomes() -> TypeAdapter[JobOutcome]:
    """What reads how a job ended."""
    from pydantic import TypeAdapter

    return TypeAdapter(JobOutcome)


@cache
def _of_outcomes() -> TypeAdapter[Outcome]:
    from pydantic import TypeAdapter

    return TypeAdapter(Outcome)


def _read(path: Path, reader: Callable[[], TypeAdapter[Found]]) -> Found:
    from pydantic import ValidationError

    try:
        return reader().validate_json(private.read(path))
    except OSError as error:
        raise JournalError(f"cannot read {path}: {error.strerror}") from error
    except ValidationError as error:
        raise JournalError(f"{path}: not a record of a run: {first_problem(error)}") from error


def read_outcome(folder: Path) -> Outcome | None:
    """How the run ended, or None while it goes on (or if it was cut off by a crash).

    Where outcome.json could not be written, the journal's last event says it.
    """
    from pydantic import ValidationError

    path = folder / OUTCOME
    try:
        return _of_outcomes().validate_json(private.read(path))
    except FileNotFoundError:
        return last_outcome(folder)
    except OSError as error:
        raise JournalError(f"cannot read {path}: {error.strerror}") from error
    except ValidationError as error:
        raise JournalError(f"{path}: not an outcome: {first_problem(error)}") from error


def read_job_outcome(folder: Path) -> JobOutcome | None:
    """How a job ended, with its tasks; None while it goes on, or if it was cut off. Raises
    JournalError.
    """
    from pydantic import ValidationError

    path = folder / OUTCOME
    try:
        return job_outcomes().validate_json(private.read(path))
    except FileNotFoundError:
        return None
    except OSError as error:
        raise JournalError(f"cannot read {path}: {error.strerror}") from error
    except ValidationError as error:
        raise JournalError(f"{path}: not an outcome: {first_problem(error)}") from error


def ask_to_cancel(folder: Path) -> None:
    """Ask whoever runs a job to end it now. Raises JournalError."""
    try:
        private.replace(folder / CANCEL, b"")
    except OSError as error:
        raise refused(f"cannot write {folder / CANCEL}", error) from error


def _write(path: Path, value: Record | JobRecord | Outcome, secrets: Sequence[str] = ()) -> None:
    """As JSON, whole or not at all."""
    try:
        content = orjson.dumps(value, default=plain, option=orjson.OPT_INDENT_2)
        if (secret := pattern(secrets)) is not None and secret.search(content.decode()):
            clean = without(orjson.loads(content), secret)
            content = orjson.dumps(clean, option=orjson.OPT_INDENT_2)
        private.replace(path, content + b"\n")
    except TypeError as error:
        raise JournalError(f"cannot write {path}: {error}") from error
    except OSError as error:
        raise refused(f"cannot write {path}", error) from error


def plain(value: object) -> object:
    """What orjson does not know of a record, as what it knows. Raises TypeError."""
    match value:
        case Path():
            return str(value)
        case MappingProxyType():
            return value.copy()  # pyright: ignore[reportUnknownVariableType] (of anything)
        case _:
            raise TypeError(type(value).__name__)
