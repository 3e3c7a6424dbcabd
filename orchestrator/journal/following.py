"""The lines of a run, or of a job with its runs, as they are written."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import orjson

from orchestrator import private
from orchestrator.errors import JournalError
from orchestrator.journal.finding import list_runs
from orchestrator.journal.names import EVENTS
from orchestrator.journal.reading import running
from orchestrator.journal.records import read_record

_FOLLOW_S = 0.1


def follow_lines(folder: Path) -> Iterator[bytes]:
    r"""The lines of a journal as they are written, without `\n`, until its run is over. Blocks."""
    path = folder / EVENTS
    try:
        with os.fdopen(private.opened(path), "rb") as file:
            torn = b""
            while True:
                # Asked before reading: what was written until then is read below.
                over = not running(folder)
                for line in file:
                    torn += line
                    if torn.endswith(b"\n"):
                        yield torn[:-1]
                        torn = b""
                if over:
                    return
                time.sleep(_FOLLOW_S)
    except OSError as error:
        raise JournalError(f"cannot read {path}: {error.strerror}") from error


def follow_job(state: Path, job_id: str) -> Iterator[bytes]:
    r"""The lines of a job and of its runs as they are written, in the order of their times, until
    it is over. Blocks.
    """
    job, runs = state / "jobs" / job_id, state / "runs"
    read: dict[Path, int] = {}
    others: set[Path] = set()
    while True:
        over = not running(job)  # asked before reading: what was written until then is read below
        for folder in list_runs(runs):
            if folder.name >= job_id and folder not in read and folder not in others:
                with suppress(JournalError):
                    mine = read_record(folder).job_id == job_id
                    read.update({folder: 0} if mine else {})
                    others.update(() if mine else {folder})
        read.setdefault(job, 0)
        lines = [line for folder in read for line in _since(folder, read)]
        yield from sorted(lines, key=_time_of)
        if over:
            return
        time.sleep(_FOLLOW_S)


def _since(folder: Path, read: dict[Path, int]) -> list[bytes]:
    """The whole lines after the byte up to which a journal was read; that is moved on."""
    try:
        with os.fdopen(private.opened(folder / EVENTS), "rb") as file:
            file.seek(read[folder])
            block = file.read()
    except FileNotFoundError:
        return []
    except OSError as error:
        raise JournalError(f"cannot read {folder / EVENTS}: {error.strerror}") from error
    whole = block[: block.rfind(b"\n") + 1]
    read[folder] += len(whole)
    return whole.split(b"\n")[:-1]


def _time_of(line: bytes) -> str:
    match orjson.loads(line):
        case {"time": str(time_)}:
            return time_
        case _:
            return ""
