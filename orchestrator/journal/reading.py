"""Reads the events of a run or job."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from pathlib import Path

from orchestrator import private
from orchestrator.errors import JournalError
from orchestrator.events import Event, Outcome, RunFinished
from orchestrator.events.wire import decode
from orchestrator.journal.names import EVENTS

_LAST = (64 * 1024, 2 * 1024 * 1024, 32 * 1024 * 1024)


def read_events(folder: Path) -> Iterator[Event]:
    """The events of a run in order; a torn last line (a crash) is left out. Raises JournalError."""
    for number, line in enumerate(read_lines(folder), start=1):
        try:
            event = decode(line)
        except JournalError as error:
            where = f"{folder / EVENTS}:{number}"
            raise JournalError(f"{where}: {error}", hint=error.hint) from error
        yield event


def read_lines(folder: Path) -> Iterator[bytes]:
    r"""The whole lines of a journal, without `\n`."""
    try:
        with os.fdopen(private.opened(folder / EVENTS), "rb") as file:
            for line in file:
                if line.endswith(b"\n"):
                    yield line[:-1]
    except OSError as error:
        raise JournalError(f"cannot read {folder / EVENTS}: {error.strerror}") from error


def running(folder: Path) -> bool:
    """Whether somebody is writing this run's journal now."""
    try:
        with os.fdopen(private.opened(folder / EVENTS), "rb") as file:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:
        return False
    return False


def last_outcome(folder: Path) -> Outcome | None:
    """The outcome in a journal's last event, if that is one."""
    line = _last_line(folder)
    if b'"type":"run.finished"' not in line:
        return None
    match decode(line).update:
        case RunFinished(outcome=outcome):
            return outcome
        case _:
            return None


def _last_line(folder: Path) -> bytes:
    """The last whole line of a journal; nothing if that is longer than the end of any run."""
    try:
        with os.fdopen(private.opened(folder / EVENTS), "rb") as file:
            size = file.seek(0, os.SEEK_END)
            for length in _LAST:
                file.seek(max(0, size - length))
                *before, line, _ = b"", *file.read().split(b"\n")
                if len(before) > 1 or length >= size:
                    return line
    except OSError:
        pass
    return b""
