"""The exceptions of the library: what is wrong with the input, or what failed in our own work.

A failed agent is a value (`Outcome`), not an exception; only `Outcome.check()` turns one into the
other.

    OrchestrateError
    ├── InputError           what the caller gave is wrong; nothing was started (exit status 2)
    │   ├── TaskFileError    a task file, with every problem's line and column
    │   ├── NotUnderstoodError  what an agent asked of the supervisor has no meaning
    │   └── ConfigError      a configuration file, variable or flag
    ├── SpawnError           a program could not be started
    ├── SupervisionError     the reaper cannot be started
    │   └── ReaperLostError  it ended; what it supervised has been killed, and the next has another
    ├── AskError             a model server could not be asked; `why` says in one word
    ├── QueueError           the queue's database did not do what was asked of it
    ├── DeskError            nobody is there to ask for a sub-task
    ├── JournalError         the record of a run could not be written or read
    │   └── DiskFullError    there is no room for it; what stands in it is whole
    └── OutcomeError         raised by `Outcome.check()`: the run did not succeed
"""

from __future__ import annotations

import errno
import re
from collections.abc import Generator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Literal, TypeAlias

if TYPE_CHECKING:
    from pydantic import ValidationError


class OrchestrateError(Exception):
    """Base of all. `str()` says what and which; `hint` says what to do next, or is None."""

    def __init__(self, message: str, *, hint: str | None = None) -> None:
        super().__init__(message)
        self.hint = hint


class InputError(OrchestrateError):
    """The caller's input is wrong. Nothing was started and nothing was lost."""


class TaskFileError(InputError):
    """A task file is wrong. `problems` has one line for each, as `FILE:LINE:COLUMN: KEY: ...`."""

    def __init__(self, problems: tuple[str, ...]) -> None:
        super().__init__("\n".join(problems))
        self.problems = problems


class NotUnderstoodError(InputError):
    """What an agent asked of the supervisor has no meaning: an unknown word, wrong parameters."""


class ConfigError(InputError):
    """A configuration file, an environment variable or a flag is wrong."""


def unwritable(path: object, error: OSError) -> OrchestrateError:
    """A file of the user's cannot be written: wrong input, unless the disk is full."""
    text = shown(f"cannot write {path}: {error.strerror}")
    if error.errno in {errno.ENOSPC, errno.EDQUOT}:
        return OrchestrateError(text, hint="Free space there. What was in it is as it was.")
    return ConfigError(text)


class SpawnError(OrchestrateError):
    """A program could not be started. `errno` is the system's error number, if it was one."""

    def __init__(self, message: str, *, errno: int | None = None, hint: str | None = None) -> None:
        super().__init__(message, hint=hint)
        self.errno = errno


class SupervisionError(OrchestrateError):
    """The reaper cannot be started, or ends again and again. What it supervised has been killed."""


class ReaperLostError(SupervisionError):
    """The reaper ended or did not answer. What it supervised has been killed; it is replaced."""


Why: TypeAlias = Literal[
    "refused", "unknown_host", "timed_out", "closed", "not_http", "too_large", "insecure", "no_way"
]


class AskError(OrchestrateError):
    """A model server could not be asked: nobody listens, no such host, no answer in time, ..."""

    def __init__(self, message: str, *, why: Why) -> None:
        super().__init__(message)
        self.why: Why = why


class QueueError(OrchestrateError):
    """The queue's database did not do what was asked of it: it is full, read-only, or gone."""


class DeskError(OrchestrateError):
    """There is nobody to ask for a sub-task: the supervisor is gone, or cannot be reached."""


class JournalError(OrchestrateError):
    """The record of a run cannot be written or read."""


class DiskFullError(JournalError):
    """There is no room for the record of a run. What was written before is whole."""


class OutcomeError(OrchestrateError):
    """A run did not succeed. `status` is the outcome's status."""

    def __init__(self, message: str, *, status: str, hint: str | None = None) -> None:
        super().__init__(message, hint=hint)
        self.status = status


HOSTILE = (
    r"\x00-\x08\x0b-\x1f\x7f-\x9f\xad\u034f\u061c\u115f\u1160\u17b4\u17b5\u180e\u200b-\u200f"
    r"\u2028-\u202e\u2060-\u206f\u3164\ud800-\udfff\ufeff\uffa0\ufff0-\ufffb"
    r"\U0001bca0-\U0001bca3\U0001d173-\U0001d17a\U000e0000-\U000e0fff"
)
"""What must not reach a terminal, as the inside of a character class.

C0 without tab and newline, DEL, C1, bidirectional controls, all that is invisible (zero-width
characters, fillers, tags), other line ends, and lone surrogates, which cannot be written at all.
"""


def counted(number: int, what: str, form: str = "") -> str:
    """`1 step`, `2 steps`: how many there are of something, for a person. `form` is the number's,
    such as `,` for `1,000 steps`.
    """
    return f"{number:{form}} {what}{'' if number == 1 else 's'}"


def shown(text: str) -> str:
    r"""Text from outside (a file's name, a key, a value) as a part of one line, escaped as
    `\x1b`.
    """
    return re.sub(rf"[\t\n{HOSTILE}]", _escaped, text)


def escaped_in_json(text: str) -> str:
    """JSON that says the same, with nothing in it that steers a terminal. Raises nothing."""
    return re.sub(rf"(?!\n)[{HOSTILE}]", _json_escaped, text)


def _json_escaped(found: re.Match[str]) -> str:
    units = found[0].encode("utf-16-be", "surrogatepass").hex()
    return "".join(f"\\u{units[at : at + 4]}" for at in range(0, len(units), 4))


def _escaped(found: re.Match[str]) -> str:
    return found[0].encode("unicode_escape").decode()


def first_problem(error: ValidationError) -> str:
    """The first thing that pydantic found, on one line and without the value (it may be secret)."""
    problem = error.errors(include_url=False, include_input=False)[0]
    where = ".".join(str(part) for part in problem["loc"])
    return shown(f"{where}: {problem['msg']}" if where else problem["msg"])


@contextmanager
def lone_error() -> Generator[None]:
    """Let a single exception out of a task group as itself: whoever calls us names it in
    `except`.
    """
    try:
        yield
    except BaseExceptionGroup as group:
        error = _lone(group)
        if error is group:
            raise
        raise error from error.__cause__


def _lone(error: BaseException) -> BaseException:
    match error:
        case BaseExceptionGroup(exceptions=(BaseException() as only,)):
            return _lone(only)
        case _:
            return error
