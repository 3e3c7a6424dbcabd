"""Commands that a front runs for its agent: each in a session of its own, its output bounded.

Shared by the programs of this folder. Run by the agent's own interpreter: standard library only.
"""

from __future__ import annotations

import contextlib
import os
import select
import shutil
import signal
import subprocess
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from adapters.programs.confinement import confine

# Of a command's output, its first and its last.
KEPT_BYTES = 32 * 1024
DRAIN_S = 0.25  # how long a background process may go on holding a command's output


@dataclass(kw_only=True)
class Ran:
    """How a command ended. `exit_code` None: it was killed, and `problem` says why."""

    output: str
    exit_code: int | None
    problem: str = ""


class Shell:
    """Runs commands, each in a session of its own, from a thread that is confined to `writable`.

    Landlock and no_new_privs belong to a thread and are inherited by what it starts: the program
    itself stays free. `writable` None: not confined. `unenforced`: why it could not be.
    """

    def __init__(
        self, *, cwd: str, env: Mapping[str, str], timeout_s: float, writable: Sequence[str] | None
    ) -> None:
        self._cwd = cwd
        self._env = dict(env)
        self._timeout_s = timeout_s
        self._program = shutil.which("bash") or "/bin/sh"
        self._thread = ThreadPoolExecutor(1, "shell")
        self._starting = threading.Lock()
        self._current: int | None = None
        self._stopped = False
        self.unenforced: str | None = None
        if writable is not None:
            self.unenforced = self._thread.submit(confine, writable, cwd).result()

    def run(self, command: str) -> Ran:
        return self._thread.submit(self._run, command).result()

    def stop(self) -> None:
        """Kills every process that came out of a command. No further command is started."""
        with self._starting:
            self._stopped = True
            current = self._current
        if current is not None:
            with contextlib.suppress(OSError):  # it has just ended
                os.killpg(current, signal.SIGKILL)
        for _ in range(50):
            left = descendants()
            for pid in left:
                with contextlib.suppress(OSError):
                    os.kill(pid, signal.SIGKILL)
            if not left:
                return
            time.sleep(0.002)

    def _run(self, command: str) -> Ran:
        with self._starting:
            if self._stopped:
                return Ran(output="", exit_code=None, problem="the agent is being stopped")
            process = subprocess.Popen(
                [self._program, "-c", command],
                cwd=self._cwd,
                env=self._env,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
            self._current = process.pid
        try:
            return self._watch(process)
        finally:
            self._current = None

    def _watch(self, process: subprocess.Popen[bytes]) -> Ran:
        problem = ""
        kept = Kept()
        try:
            for chunk in self._chunks(process):
                kept.add(chunk)
            process.wait(timeout=self._timeout_s)
        except subprocess.TimeoutExpired:
            problem = f"timed out after {self._timeout_s:g} s; it was killed"
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
        exit_code = None if problem else process.returncode
        return Ran(output=kept.text(), exit_code=exit_code, problem=problem)

    def _chunks(self, process: subprocess.Popen[bytes]) -> Iterator[bytes]:
        """The output to its end, or until only a silent background process holds it open."""
        with process.stdout or contextlib.nullcontext() as pipe:
            deadline = time.monotonic() + self._timeout_s
            quiet_since: float | None = None
            while pipe is not None:
                now = time.monotonic()
                if now > deadline:
                    raise subprocess.TimeoutExpired(process.args, self._timeout_s)
                if select.select([pipe], [], [], 0.05)[0]:
                    chunk = os.read(pipe.fileno(), 65536)
                    if not chunk:
                        return
                    quiet_since = None
                    yield chunk
                elif process.poll() is not None:
                    quiet_since = quiet_since or now
                    if now - quiet_since > DRAIN_S:
                        return


class Kept:
    """The first and the last bytes of an output, however long it is."""

    def __init__(self) -> None:
        self._head = bytearray()
        self._tail = bytearray()
        self._dropped = 0

    def add(self, chunk: bytes) -> None:
        room = KEPT_BYTES - len(self._head)
        self._head += chunk[:room]
        self._tail += chunk[room:]
        if len(self._tail) > 4 * KEPT_BYTES:
            self._cut()

    def text(self) -> str:
        self._cut()
        middle = b"\n[... %d bytes left out ...]\n" % self._dropped if self._dropped else b""
        return (self._head + middle + self._tail).decode("utf-8", "replace")

    def _cut(self) -> None:
        surplus = max(0, len(self._tail) - KEPT_BYTES)
        del self._tail[:surplus]
        self._dropped += surplus


def descendants() -> list[int]:
    """Every living process below this one; orphans are, since this one is a subreaper."""
    parents: dict[int, int] = {}
    with contextlib.suppress(OSError):  # no /proc: the process group is all we know
        for folder in Path("/proc").iterdir():
            if not folder.name.isdigit():
                continue
            with contextlib.suppress(OSError):  # it has ended meanwhile
                fields = (folder / "stat").read_bytes().rpartition(b")")[2].split()
                if fields[0] != b"Z":
                    parents[int(folder.name)] = int(fields[1])
    found = {os.getpid()}
    while more := {pid for pid, parent in parents.items() if parent in found} - found:
        found |= more
    return sorted(found - {os.getpid()})
