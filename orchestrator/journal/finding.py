"""Which runs and jobs there are, found by their ids or by one another; and a run packed to be
handed on.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from orchestrator import private
from orchestrator.errors import InputError, JournalError
from orchestrator.journal.disk import created
from orchestrator.journal.names import JOB, TASK
from orchestrator.journal.records import Record, read_record

if TYPE_CHECKING:
    import tarfile

_MIN_PREFIX = 4


def export_run(folder: Path, target: Path) -> None:
    """Pack a run's files into a new .tar.gz, 0600, without the agent's home. Raises
    JournalError.
    """
    import tarfile

    try:
        with (
            os.fdopen(created(target), "wb") as file,
            tarfile.open(fileobj=file, mode="w:gz") as archive,
        ):
            for path in sorted(folder.iterdir()):
                if path.is_file() and not path.is_symlink():
                    archive.add(path, arcname=f"{folder.name}/{path.name}", filter=_nobodys)
    except OSError as error:
        target.unlink(missing_ok=True)  # half an archive is of no use to anybody
        raise JournalError(f"cannot write {target}: {error.strerror}") from error


def _nobodys(member: tarfile.TarInfo) -> tarfile.TarInfo:
    # What is handed on with a bug report need not say who made it.
    member.uid = member.gid = 0
    member.uname = member.gname = ""
    return member


def list_runs(runs: Path) -> list[Path]:
    """The folders of all runs, oldest first (run ids sort by time). Raises JournalError."""
    try:
        private.checked(runs)
        found = (path for path in runs.iterdir() if not path.is_symlink())
        return sorted(path for path in found if (path / TASK).exists())
    except FileNotFoundError:
        return []
    except OSError as error:
        raise JournalError(f"cannot read {runs}: {error.strerror}") from error


def find_run(runs: Path, name: str) -> Path:
    """The run's folder, by its id, by a unique beginning or end of it, or by `last`: the last one
    that no other run handed on. Raises InputError.
    """
    known = list_runs(runs)
    if not known:
        raise InputError(f"no run {name!r}: there are none yet in {runs}")
    if name == "last":
        return next(filter(_by_itself, reversed(known)), known[-1])
    match _named(known, name):
        case [path]:
            return path
        case []:
            raise InputError(f"no run {name!r}", hint="`orchestrate runs list` shows them.")
        case several:
            text = f"{name!r} could be any of {len(several)} runs"
            raise InputError(text, hint="Give more of the id; `orchestrate runs list` shows them.")


def _by_itself(folder: Path) -> bool:
    try:
        return read_record(folder).task.parent_run_id is None
    except JournalError:
        return True


def find_job(jobs: Path, name: str) -> Path | None:
    """The job's folder, by its id or by a unique beginning or end of it; None if there is none."""
    try:
        known = [path for path in jobs.iterdir() if (path / JOB).exists()]
    except OSError:
        return None
    found = _named(known, name)
    return found[0] if len(found) == 1 else None


def _named(known: Sequence[Path], name: str) -> list[Path]:
    return [
        path
        for path in known
        if len(name) >= _MIN_PREFIX and (path.name.startswith(name) or path.name.endswith(name))
    ]


def runs_of(runs: Path, job_id: str) -> list[Record]:
    """The records of a job's runs, oldest first; those that cannot be read are left out."""
    found: list[Record] = []
    for folder in list_runs(runs):
        if folder.name >= job_id:  # ids sort by time, and a run begins after its job
            with suppress(JournalError):
                found.append(read_record(folder))
    return [record for record in found if record.job_id == job_id]


def runs_by_job(runs: Path) -> dict[str, list[Record]]:
    """The records of all runs by their job, oldest first; those that cannot be read are left
    out.
    """
    found: dict[str, list[Record]] = {}
    for folder in list_runs(runs):
        with suppress(JournalError):
            record = read_record(folder)
            if record.job_id is not None:
                found.setdefault(record.job_id, []).append(record)
    return found
