"""A job as it stands in the queue: JSON, with all that a worker elsewhere needs to know. Pure.

What was written by a newer version than this one is refused, never read halfway.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import orjson

from orchestrator.errors import InputError, first_problem
from orchestrator.events import Event, JobOutcome, Outcome
from orchestrator.events.wire import encode
from orchestrator.journal.records import job_outcomes, plain
from orchestrator.redaction import is_dict, is_list
from orchestrator.task import Task, TaskFile

if TYPE_CHECKING:
    from pydantic import TypeAdapter

_LONG, _TEXT = 32 * 1024, 8 * 1024
_PASSWORD = re.compile(r"(?<=//)([^:/@\s]*):[^/@\s]*@|(?<=[?&\s])(?:ssl)?password=[^&\s]*")


@dataclass(frozen=True, kw_only=True)
class Wanted:
    """What was submitted: the tasks, the folder in which that was (its project's configuration
    counts) and the configuration file that was named.
    """

    file: TaskFile
    folder: Path | None = None
    config: Path | None = None
    v: Literal[1] = 1


def dumps(wanted: Wanted) -> str:
    """Raises InputError for texts and paths that are not UTF-8."""
    try:
        return orjson.dumps(wanted, default=plain).decode()
    except orjson.JSONEncodeError as error:
        raise InputError(
            f"the task cannot be written into the queue: {error}",
            hint="Its texts and the paths of its folders must be UTF-8.",
        ) from None


def loads(text: str) -> Wanted:
    """Raises InputError for what is no job, or one of a newer version."""
    from pydantic import ValidationError

    try:
        return _reader().validate_json(text)
    except ValidationError as error:
        raise InputError(
            f"the job in the queue cannot be read here: {first_problem(error)}",
            hint="Was it submitted by a newer version? Update this worker, then retry the job.",
        ) from None


def recoverable(file: TaskFile) -> bool:
    """Whether another worker may go on with it: all of its tasks say so."""
    return all(task.recovery != "none" or task.retry_safe for task in file.tasks)


def as_file(task: Task | TaskFile) -> TaskFile:
    if isinstance(task, TaskFile):
        return task
    return TaskFile(tasks=(task,), name=task.name, single=True)


def outcome_text(outcome: Outcome) -> str:
    return orjson.dumps(outcome, default=plain).decode()


def outcome_json(outcome: Outcome) -> object:
    """The same as a value that every database takes."""
    return _each_text(orjson.loads(outcome_text(outcome)), without_nul)


def without_nul(text: str) -> str:
    """PostgreSQL's JSON has no NUL; an agent may print one."""
    return text.replace("\0", "\N{REPLACEMENT CHARACTER}")


def line(event: Event) -> bytes:
    """An event for followers: very long texts are cut, the journal has them."""
    encoded = encode(event)
    if len(encoded) <= _LONG:
        return encoded
    return orjson.dumps(_each_text(orjson.loads(encoded), _cut))


def _cut(text: str) -> str:
    return text if len(text) <= _TEXT else f"{text[:_TEXT]}[... cut here, not in the journal]"


def _each_text(value: object, changed: Callable[[str], str]) -> object:
    """The same with each text in it changed; keys stay."""
    if isinstance(value, str):
        return changed(value)
    if is_list(value):
        return [_each_text(one, changed) for one in value]
    if is_dict(value):
        return {key: _each_text(one, changed) for key, one in value.items()}
    return value


def read_outcome(text: str | bytes) -> JobOutcome:
    """Raises InputError."""
    from pydantic import ValidationError

    try:
        return job_outcomes().validate_json(text)
    except ValidationError as error:
        raise InputError(f"not a job's outcome: {first_problem(error)}") from None


def shown_url(text: str) -> str:
    """A text without the passwords of addresses in it."""
    return _PASSWORD.sub(
        lambda found: f"{found[1]}:***@" if found[1] is not None else "password=***", text
    )


@cache
def _reader() -> TypeAdapter[Wanted]:
    from pydantic import TypeAdapter

    return TypeAdapter(Wanted)
