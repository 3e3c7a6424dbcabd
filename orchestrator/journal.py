r"""The append-only record of a run and of a job: a folder with the events, what was asked and the
outcome.

    runs/RUN_ID/  stdout stderr    raw, written by the agent itself
                  tails            lines of its own logs, as they were read
                  events.jsonl     one event a line
                  task.json        what was asked, of which agent
                  outcome.json     how it ended
    jobs/JOB_ID/  events.jsonl     the events that belong to no run
                  job.json         what was asked
                  outcome.json     how it ended, with the outcomes of its tasks
                  cancel           there if somebody asked for its end

Files are 0600 in folders 0700. An event is in the journal before anyone sees it.
"""

from __future__ import annotations

import errno
import fcntl
import os
import re
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Self, TypeVar

import orjson

from orchestrator import private
from orchestrator.adapter import Agent
from orchestrator.errors import DiskFullError, InputError, JournalError, first_problem
from orchestrator.events import Event, JobOutcome, Outcome, RunFinished, Usage, decode
from orchestrator.redaction import may_escape, pattern, raw_pattern, spellings, without
from orchestrator.task import Limits, Task

if TYPE_CHECKING:
    import ctypes
    import tarfile
    from types import TracebackType

    from pydantic import TypeAdapter

EVENTS, TASK, JOB, OUTCOME, CANCEL, STDOUT, STDERR, TAILS = (
    "events.jsonl",
    "task.json",
    "job.json",
    "outcome.json",
    "cancel",
    "stdout",
    "stderr",
    "tails",
)
STORES = "looks"
# Beside them: what folders without a work tree of their own are seen by, while runs work in them.
RESERVE, _STEP, _LARGEST_STEP = 32 * 1024, 64 * 1024, 1024 * 1024
# Room on the disk that a journal holds for its last words, and in what steps it takes more: as much
# as an eighth of what it has. In small steps alone that took as long as to write what comes.
FREE = 512 * 1024 * 1024
# Less than this, and than 1 % of the disk, must not be left: others need it, too.
_PROBES, _PROBE_S = 20, 0.01
_NO_ROOM = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})
_MIN_PREFIX = 4
_BLOCK = 1024 * 1024
_LAST = (64 * 1024, 2 * 1024 * 1024, 32 * 1024 * 1024)
_FOLLOW_S = 0.1

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


class Journal:
    """Writes the events of one run or job. Use as a context manager. Raises JournalError."""

    def __init__(self, folder: Path, *, descriptor: int | None = None, size: int = 0) -> None:
        self.folder = folder
        self._fd = _created(folder / EVENTS) if descriptor is None else descriptor
        # Held while the run lasts, and freed by the kernel if we die: so others can tell.
        fcntl.flock(self._fd, fcntl.LOCK_EX)
        self._good = self._allocated = size
        try:
            self._reserve(0)
        except DiskFullError:
            os.close(self._fd)
            raise

    @classmethod
    def reopen(cls, folder: Path) -> Journal | None:
        """The journal of a run that was cut off, to go on with; None: somebody writes it now.

        A line that is not whole is cut off. Raises JournalError.
        """
        flags = os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC | os.O_NOFOLLOW
        try:
            descriptor = os.open(folder / EVENTS, flags, 0o600)
        except OSError as error:
            raise JournalError(f"cannot open {folder / EVENTS}: {error.strerror}") from error
        if not _locked(descriptor):
            os.close(descriptor)
            return None
        size = _whole_lines(descriptor)
        os.ftruncate(descriptor, size)
        return cls(folder, descriptor=descriptor, size=size)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Give back what was reserved, and say that nobody writes any more."""
        with suppress(OSError):
            os.ftruncate(self._fd, self._good)
        os.close(self._fd)

    def append(self, block: bytes) -> None:
        r"""Write events, each with its `\n`, in one go. Raises JournalError, DiskFullError if there
        is no room, also none for the last words; what stood before stays whole.
        """
        self._reserve(len(block))
        self._write(block)

    def append_last(self, block: bytes) -> None:
        """The same, on a full disk: with the room that was reserved for it."""
        self._write(block)

    def _reserve(self, size: int) -> None:
        needed = self._good + size + RESERVE - self._allocated
        if needed <= 0:
            return
        length = max(needed, _STEP, min(self._good // 8, _LARGEST_STEP))
        failed = _allocate(self._fd, self._allocated, length)
        if failed and length > needed:
            length = needed
            failed = _allocate(self._fd, self._allocated, length)
        if failed in {errno.ENOSPC, errno.EDQUOT}:
            raise self._full(OSError(failed, os.strerror(failed)))
        if not failed:  # any other failure: it cannot be done here, and there is no reserve
            self._allocated += length

    def _write(self, block: bytes) -> None:
        written = 0
        try:
            while written < len(block):
                written += os.write(self._fd, block[written:])
        except OSError as error:
            # A torn tail would swallow the next event: cut back to the last whole block.
            os.ftruncate(self._fd, self._good)
            raise self._full(error) from error
        self._good += written

    def sync(self) -> None:
        """Make what was written durable: called at the end of a run. Raises JournalError."""
        try:
            _sync(self._fd)
        except OSError as error:
            raise self._full(error) from error

    def _full(self, error: OSError) -> JournalError:
        text = f"cannot write {self.folder / EVENTS}: {error.strerror}"
        hint = "Free space there, or set ORCHESTRATE_STATE_DIR to another folder."
        return (DiskFullError if error.errno in _NO_ROOM else JournalError)(text, hint=hint)


_sync = getattr(os, "fdatasync", os.fsync)  # macOS has the one alone


def _locked(descriptor: int) -> bool:
    """Whether we hold the lock now. A look whether a run is running holds it for a moment, too."""
    for _ in range(_PROBES):
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            time.sleep(_PROBE_S)
        else:
            return True
    return False


def _whole_lines(descriptor: int) -> int:
    """The size of a file up to the end of its last whole line."""
    end = os.fstat(descriptor).st_size
    while end > 0:
        begin = max(0, end - _BLOCK)
        found = os.pread(descriptor, end - begin, begin).rfind(b"\n")
        if found >= 0:
            return begin + found + 1
        end = begin
    return 0


def _allocate(descriptor: int, offset: int, length: int) -> int:
    """Take room on the disk beyond the end of a file, which keeps its size. The error number."""
    import ctypes  # posix_fallocate, which Python has, would make readers see zeros

    allocate = getattr(_libc(), "fallocate", None)
    if allocate is None:
        return errno.ENOSYS
    done = allocate(descriptor, 1, ctypes.c_longlong(offset), ctypes.c_longlong(length))
    return ctypes.get_errno() if done else 0


@cache
def _libc() -> ctypes.CDLL:
    import ctypes

    return ctypes.CDLL(None, use_errno=True)


def make_folder(runs: Path, run_id: str) -> Path:
    """A new folder for a run or job, 0700. Raises JournalError."""
    make_private(runs)
    return make_private(runs / run_id, fresh=True)


def make_private(folder: Path, *, fresh: bool = False) -> Path:
    """The folder, 0700, with its parents; a `fresh` one must not be there. Raises JournalError."""
    try:
        return private.folder(folder, fresh=fresh)
    except OSError as error:
        text = f"cannot make {folder}: {error.strerror}"
        hint = "Set ORCHESTRATE_STATE_DIR to a folder that you can write to."
        raise JournalError(text, hint=hint) from error


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
def _of_job_outcomes() -> TypeAdapter[JobOutcome]:
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


def export_run(folder: Path, target: Path) -> None:
    """Pack a run's files into a new .tar.gz, 0600, without the agent's home. Raises
    JournalError.
    """
    import tarfile

    try:
        with (
            os.fdopen(_created(target), "wb") as file,
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


def read_outcome(folder: Path) -> Outcome | None:
    """How the run ended, or None while it goes on (or if it was cut off by a crash).

    Where outcome.json could not be written, the journal's last event says it.
    """
    from pydantic import ValidationError

    path = folder / OUTCOME
    try:
        return _of_outcomes().validate_json(private.read(path))
    except FileNotFoundError:
        return _last_outcome(folder)
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
        return _of_job_outcomes().validate_json(private.read(path))
    except FileNotFoundError:
        return None
    except OSError as error:
        raise JournalError(f"cannot read {path}: {error.strerror}") from error
    except ValidationError as error:
        raise JournalError(f"{path}: not an outcome: {first_problem(error)}") from error


def _last_outcome(folder: Path) -> Outcome | None:
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
        with (folder / EVENTS).open("rb") as file:
            size = file.seek(0, os.SEEK_END)
            for length in _LAST:
                file.seek(max(0, size - length))
                *before, line, _ = b"", *file.read().split(b"\n")
                if len(before) > 1 or length >= size:
                    return line
    except OSError:
        pass
    return b""


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


def ask_to_cancel(folder: Path) -> None:
    """Ask whoever runs a job to end it now. Raises JournalError."""
    try:
        private.replace(folder / CANCEL, b"")
    except OSError as error:
        raise _refused(f"cannot write {folder / CANCEL}", error) from error


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


def scrub(path: Path, secrets: Sequence[str]) -> None:
    """Overwrite every secret in a raw file with as many `*`, so that offsets still hold."""
    forms = sorted({form for secret in secrets for form in spellings(secret) if form})
    if not forms:
        return
    find = _finder(forms, secrets)
    overlap = max(*map(len, forms), *(8 * len(secret) for secret in secrets)) - 1
    try:
        descriptor = _open_spool(path)
    except OSError:  # it is not there, or the agent put something else in its place
        return
    with os.fdopen(descriptor, "r+b") as file:
        position = 0
        while chunk := file.read(overlap + _BLOCK):
            for found in find(chunk):
                if found.start() >= _BLOCK:
                    continue  # the next block has it whole: it may be the beginning of a longer one
                file.seek(position + found.start())
                file.write(b"*" * len(found[0]))
            position += _BLOCK
            file.seek(position)
        os.fchmod(file.fileno(), 0o400)


def _finder(
    forms: Sequence[bytes], secrets: Sequence[str]
) -> Callable[[bytes], Iterator[re.Match[bytes]]]:
    """Finds secrets in a block. Plain searches first: they take a tenth of a pattern's time."""
    plain = re.compile(b"|".join(map(re.escape, sorted(forms, key=len, reverse=True))))
    escaped = raw_pattern(secrets)

    def find(block: bytes) -> Iterator[re.Match[bytes]]:
        if any(form in block for form in forms):
            yield from plain.finditer(block)
        if may_escape(block):
            yield from escaped.finditer(block)

    return find


def _open_spool(path: Path) -> int:
    """A plain file of ours, to write to; never what a link leads to. Raises OSError."""
    reading = private.opened(path)
    try:
        os.fchmod(reading, 0o600)
        flags = os.O_RDWR | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOFOLLOW
        writing = os.open(path, flags)
        if not os.path.samestat(os.fstat(writing), os.fstat(reading)):
            os.close(writing)
            raise OSError(errno.EBUSY, "it was replaced", str(path))
        return writing
    finally:
        os.close(reading)


# --- files and JSON ------------------------------------------------------------------------------


def _created(path: Path) -> int:
    try:
        return private.created(path)
    except OSError as error:
        raise _refused(f"cannot make {path}", error) from error


def written_to(path: Path) -> bool:
    """Whether a process has the file open for writing. False where the system cannot tell."""
    if not hasattr(fcntl, "F_SETLEASE"):
        return False
    try:
        with path.open("rb") as file:
            # A lease on reading is given only where nobody writes.
            fcntl.fcntl(file, fcntl.F_SETLEASE, fcntl.F_RDLCK)
            fcntl.fcntl(file, fcntl.F_SETLEASE, fcntl.F_UNLCK)
    except BlockingIOError:
        return True
    except OSError:
        return False
    return False


def scarce(folder: Path) -> int | None:
    """The bytes that are free where a folder is, if that is too little; None if it is not known."""
    try:
        disk = os.statvfs(folder)
    except OSError:
        return None
    free, size = disk.f_bavail * disk.f_frsize, disk.f_blocks * disk.f_frsize
    return free if free < min(FREE, size // 100) else None


def append_private(path: Path, block: bytes, size: int) -> None:
    """Add to a file of ours that is `size` bytes long: a torn end is cut off. Raises
    JournalError.
    """
    flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC | os.O_NOFOLLOW
    try:
        descriptor = os.open(path, flags, 0o600)
        try:
            os.ftruncate(descriptor, size)
            while block:
                block = block[os.write(descriptor, block) :]
        finally:
            os.close(descriptor)
    except OSError as error:
        raise _refused(f"cannot write {path}", error) from error


def no_room(error: Exception) -> DiskFullError | None:
    """The error as one of a full disk, if it is one, whichever of our files it was."""
    match error:
        case DiskFullError():
            return error
        case OSError(errno=number, filename=name) if number in {errno.ENOSPC, errno.EDQUOT}:
            refused = _refused(f"cannot write {name or 'a file'}", error)
            return refused if isinstance(refused, DiskFullError) else None
        case _:
            return None


def _refused(text: str, error: OSError) -> JournalError:
    if error.errno in _NO_ROOM:
        hint = "Free space there, or set ORCHESTRATE_STATE_DIR to another folder."
        return DiskFullError(f"{text}: {error.strerror}", hint=hint)
    return JournalError(f"{text}: {error.strerror}")


def _write(path: Path, value: Record | JobRecord | Outcome, secrets: Sequence[str] = ()) -> None:
    """As JSON, whole or not at all."""
    try:
        content = orjson.dumps(value, default=_plain, option=orjson.OPT_INDENT_2)
        if (secret := pattern(secrets)) is not None and secret.search(content.decode()):
            clean = without(orjson.loads(content), secret)
            content = orjson.dumps(clean, option=orjson.OPT_INDENT_2)
        private.replace(path, content + b"\n")
    except TypeError as error:
        raise JournalError(f"cannot write {path}: {error}") from error
    except OSError as error:
        raise _refused(f"cannot write {path}", error) from error


def _plain(value: object) -> object:
    match value:
        case Path():
            return str(value)
        case MappingProxyType():
            return value.copy()  # pyright: ignore[reportUnknownVariableType] (of anything)
        case _:
            raise TypeError(type(value).__name__)
