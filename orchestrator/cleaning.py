"""Old records go: which runs and jobs may, and how. What runs, was cut off or is needed stays."""

from __future__ import annotations

import os
import shutil
import stat
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from orchestrator.errors import JournalError, counted
from orchestrator.journal import (
    EVENTS,
    JOB,
    OUTCOME,
    STORES,
    TASK,
    Journal,
    Record,
    list_runs,
    read_outcome,
    read_record,
    running,
)
from orchestrator.workspace.source import cache_of, caches

_ABANDONED_S = 86400.0


@dataclass(frozen=True, kw_only=True)
class Old:
    """What may go: its folders and files, and the room that they take on the disk."""

    name: str
    paths: tuple[Path, ...]
    size: int
    why: str


@dataclass(frozen=True, kw_only=True)
class _Run:
    folder: Path
    ended: float
    size: int
    free: bool
    job_id: str | None
    known: bool
    cache: Path | None


def old(state: Path, *, older_s: float, keep_bytes: int, now: float) -> list[Old]:
    """What may go, the oldest first: all that ended more than `older_s` ago, and then as much as is
    needed for what stays to take at most `keep_bytes`. Raises JournalError.
    """
    runs = _runs(state)
    total = sum(run.size for run in runs)
    found: list[Old] = []
    for run in sorted((run for run in runs if run.free), key=lambda run: run.ended):
        if now - run.ended > older_s:
            why = f"ended {_ago(now - run.ended)}"
        elif total > keep_bytes:
            why = f"all runs together take more than {keep_bytes} bytes"
        else:
            continue
        total -= run.size
        paths = (run.folder, *_scratch(state, run.folder.name))
        found.append(Old(name=run.folder.name, paths=paths, size=run.size, why=why))
    gone = {one.name for one in found}
    kept = [run for run in runs if run.folder.name not in gone]
    return [
        *found,
        *_jobs(state, {run.job_id for run in kept}, older_s, now),
        *_caches(state, kept, older_s, now),
        *_left_over(state, older_s, now),
    ]


def remove(one: Old) -> bool:
    """Remove it; False if it is in use after all."""
    folder = one.paths[0]
    for record in (folder / TASK, folder / JOB):
        if record.exists():
            journal = Journal.reopen(folder)
            if journal is None:
                return False
            with journal:
                record.unlink()  # from here on it is no run or job any more, whatever happens
    for path in one.paths:
        _remove(path)
    return True


def size_of(path: Path) -> int:
    """The bytes that a file or a folder takes on the disk; links are not followed."""
    size = 0
    with suppress(OSError):
        size = path.lstat().st_blocks * 512
    for folder, folders, files in os.walk(path):
        for name in (*folders, *files):
            with suppress(OSError):  # it is gone again
                size += os.lstat(os.path.join(folder, name)).st_blocks * 512  # noqa: PTH118
    return size


def _runs(state: Path) -> list[_Run]:
    folders = list_runs(state / "runs")
    records = {folder: _record(folder) for folder in folders}
    # A resumed run goes on in the home of the first one, which has to stay as long as it does.
    homes = (
        Path(record.agent.home)
        for record in records.values()
        if record is not None and record.agent.home is not None
    )
    users = Counter(place for home in homes for place in (home, *home.parents))
    return [
        _Run(
            folder=folder,
            ended=_ended(folder),
            size=size_of(folder) + sum(map(size_of, _scratch(state, folder.name))),
            free=_over(folder)
            and not (state / "trees" / folder.name).exists()
            and not _shared(folder, records[folder], users[folder]),
            job_id=record.job_id if (record := records[folder]) is not None else None,
            known=record is not None,
            cache=cache_of(record.task.source, state)
            if record is not None and record.task.source is not None
            else None,
        )
        for folder in folders
    ]


def _jobs(state: Path, needed: set[str | None], older_s: float, now: float) -> Iterator[Old]:
    """Jobs that ended long ago, of which no run is left."""
    for folder in sorted(path.parent for path in (state / "jobs").glob(f"*/{JOB}")):
        old_enough = now - _ended(folder) > older_s and (folder / OUTCOME).exists()
        if old_enough and folder.name not in needed and not running(folder):
            why = "a job without runs"
            yield Old(name=folder.name, paths=(folder,), size=size_of(folder), why=why)


def _caches(state: Path, kept: Sequence[_Run], older_s: float, now: float) -> Iterator[Old]:
    """Fetched repositories that no run is of any more: the work of those that are may be in there.

    One that was fetched today may be of a run that has yet to begin.
    """
    needed = {run.cache for run in kept}
    for folder in caches(state) if all(run.known for run in kept) else ():
        with suppress(FileNotFoundError):
            idle = now - folder.stat().st_mtime
            if folder not in needed and idle > max(older_s, _ABANDONED_S):
                why = f"a repository that was fetched {_ago(idle)}, of no run"
                yield Old(name=folder.name, paths=(folder,), size=size_of(folder), why=why)


def _shared(folder: Path, own: Record | None, users: int) -> bool:
    """Whether another run has its home in there: `users` are all that have, this one included."""
    home = own.agent.home if own is not None else None
    return users > int(home is not None and Path(home).is_relative_to(folder))


def _record(folder: Path) -> Record | None:
    try:
        return read_record(folder)
    except JournalError:
        return None


def _over(folder: Path) -> bool:
    try:
        return read_outcome(folder) is not None and not running(folder)
    except JournalError:
        return False


def _ended(folder: Path) -> float:
    for name in (OUTCOME, EVENTS, TASK):
        with suppress(OSError):
            return (folder / name).stat().st_mtime
    return time.time()


def _scratch(state: Path, run_id: str) -> tuple[Path, ...]:
    """The workspace that was made for a run."""
    return tuple((state / "scratch").glob(f"*-{run_id[-8:]}"))


def _left_over(state: Path, older_s: float, now: float) -> Iterator[Old]:
    """Runs that never were any (a crash between two files), and what is remembered of programs."""
    places: tuple[tuple[Path, float, str, Callable[[Path], bool]], ...] = (
        (state / "runs", _ABANDONED_S, "it never became a run", _no_run),
        (state / "jobs", _ABANDONED_S, "it never became a job", _no_job),
        (state / STORES, _ABANDONED_S, "no run that looks at a folder has it any more", _any),
        (state / "versions", older_s, "the version of a program, not asked for since", _any),
    )
    for place, age, why, fits in places:
        with suppress(FileNotFoundError):
            for path in sorted(place.iterdir()):
                if now - path.lstat().st_mtime > age and fits(path):
                    yield Old(name=path.name, paths=(path,), size=size_of(path), why=why)


def _no_run(path: Path) -> bool:
    return path.is_dir() and not (path / TASK).exists() and not running(path)


def _no_job(path: Path) -> bool:
    return path.is_dir() and not (path / JOB).exists() and not running(path)


def _any(_: Path) -> bool:
    return True


def _remove(path: Path) -> None:
    """Raises OSError. Folders that their owner made read-only go, too."""
    if not stat.S_ISDIR(path.lstat().st_mode):
        path.unlink()
        return
    for folder, _, _ in os.walk(path):
        with suppress(OSError):
            os.chmod(folder, 0o700)  # noqa: PTH101 (os.walk follows no links, and gives texts)
    shutil.rmtree(path)


def _ago(seconds: float) -> str:
    return f"{counted(round(seconds / 86400), 'day')} ago"
