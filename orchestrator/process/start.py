"""What a process is started with: its arguments as the reaper reads them, files and descriptors;
and why it could not be started, in words that say what to do.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

from orchestrator.errors import SpawnError
from orchestrator.process.means import nameless
from orchestrator.reaper import TOKEN


@dataclass(frozen=True, kw_only=True)
class Start:
    argv: tuple[str, ...]
    cwd: str
    env: Mapping[str, str] = field(repr=False)  # holds keys
    token: str

    def encode(self) -> bytes:
        """As the reaper reads it: fields between NUL bytes."""
        env = {TOKEN: self.token} | {
            name: value for name, value in self.env.items() if name != TOKEN
        }
        pairs = [f"{name}={value}" for name, value in env.items()]
        fields = [self.cwd, self.token, str(len(self.argv)), *self.argv, *pairs]
        try:
            encoded = [os.fsencode(field) for field in fields]
        except UnicodeEncodeError as error:
            raise SpawnError(f"{self}: not a text for the system: {error.reason}") from None
        if any(b"\0" in field for field in encoded):
            raise SpawnError(f"{self}: an argument or variable holds a NUL byte")
        if any(not name or "=" in name for name in env):
            raise SpawnError(f"{self}: a variable's name is empty or holds '='")
        return b"\0".join(encoded)

    def __str__(self) -> str:
        return f"cannot start {self.argv[0]!r}" if self.argv else "cannot start nothing"


@dataclass(frozen=True)
class Stdio:
    stdin: int
    stdout: int
    stderr: int
    write_end: int | None = None


def spool(path: Path, files: ExitStack, made: list[Path]) -> int:
    """A new file that only grows; 0400 afterwards, so that nobody opens it to truncate it."""
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_APPEND | os.O_CLOEXEC
    descriptor = os.open(path, flags, 0o600)
    made.append(path)
    files.callback(os.close, descriptor)
    os.fchmod(descriptor, 0o400)
    return descriptor


def write_private(path: Path, content: bytes) -> None:
    """Write a file, 0600 in folders of 0700, whole or not at all; a link is replaced."""
    missing = [folder for folder in (path.parent, *path.parent.parents) if not folder.exists()]
    for folder in reversed(missing):
        folder.mkdir(mode=0o700, exist_ok=True)
    fresh = path.with_name(f".{path.name}.{os.urandom(4).hex()}")
    descriptor = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)
        fresh.replace(path)
    except BaseException:
        fresh.unlink(missing_ok=True)
        raise


def stdin_of(stdin: bytes | str | None, files: ExitStack) -> tuple[int, int | None]:
    """The descriptor to read from and, for "open", the one to write to (closed by the process)."""
    match stdin:
        case None:
            read_end = os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC)
        case bytes():
            return memory("stdin", stdin, files), None
        case _:
            # A pipe and not a socket: bash takes a socket for a remote login and reads ~/.bashrc.
            read_end, write_end = os.pipe()
            files.callback(os.close, read_end)
            os.set_blocking(write_end, False)
            return read_end, write_end
    files.callback(os.close, read_end)
    return read_end, None


def memory(name: str, content: bytes, files: ExitStack) -> int:
    """A file that has no name, where there is such a thing in memory, to be read from its start."""
    descriptor = nameless(name)
    files.callback(os.close, descriptor)
    view = memoryview(content)
    while view:
        view = view[os.write(descriptor, view) :]
    os.lseek(descriptor, 0, os.SEEK_SET)
    return descriptor


# --- errors that say what to do ------------------------------------------------------------------

_TOO_MANY_FILES = "raise the limit of open files (`ulimit -n`) or run fewer agents at once"


def spawn_error(start: Start, error: OSError) -> SpawnError:
    """What failed on our side, before the request was sent."""
    hint = _TOO_MANY_FILES if error.errno in {errno.EMFILE, errno.ENFILE} else None
    return SpawnError(f"{start}: {error}", errno=error.errno, hint=hint)


def too_many_files(error: OSError) -> SpawnError:
    """That there is no descriptor left."""
    return SpawnError(str(error), errno=error.errno, hint=_TOO_MANY_FILES)


def failed(start: Start, stage: str, number: int) -> SpawnError:
    """What failed in the reaper or in the new process."""
    program, hint = start.argv[0], None
    match stage, number:
        case "cwd", _:
            text = f"its folder {start.cwd!r}: {os.strerror(number)}"
        case "program", errno.ENOENT if "/" in program:
            text = "the file, or the interpreter that its first line names, does not exist"
        case "program", errno.ENOENT:
            path = start.env.get("PATH", "")
            text = f"there is no such program on PATH ({path})"
            hint = f"install {program}, or name it by its absolute path"
        case "program", errno.EACCES:
            text = "it is not executable, or a folder on the way to it may not be entered"
        case "program", errno.ENOEXEC:
            text = "neither a program for this machine nor a script with a #! line"
        case "program", errno.E2BIG:
            text = "its arguments and environment are too large together, or one of them is"
            hint = "pass a long prompt by stdin or in a file"
        case _, errno.EMFILE | errno.ENFILE:
            text, hint = os.strerror(number), _TOO_MANY_FILES
        case "fork", _:
            text = f"no process can be made: {os.strerror(number)}"
            hint = "raise the limit of processes (`ulimit -u`) or run fewer agents at once"
        case _:
            text = os.strerror(number)
    return SpawnError(f"{start}: {text}", errno=number, hint=hint)
