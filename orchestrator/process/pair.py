"""Guard and reaper (orchestrator/reaper) as the supervisor sees them: two processes, one socket."""

from __future__ import annotations

import asyncio
import fcntl
import itertools
import math
import os
import select
import signal
import socket
import subprocess
import sys
import time
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from contextlib import ExitStack, asynccontextmanager, suppress
from types import ModuleType

import anyio

from orchestrator import groups as _groups
from orchestrator import reaper as _reaper
from orchestrator.errors import ReaperLostError, SpawnError, SupervisionError
from orchestrator.groups.ending import end_all
from orchestrator.groups.frames import Frames
from orchestrator.process.child import Child, Pipe, Process
from orchestrator.process.means import lacking, nameless, ps
from orchestrator.process.start import Start, Stdio, failed, memory, spawn_error
from orchestrator.reaper import STUCK_S
from orchestrator.reaper.table import kill_one, look, token_of, trees
from orchestrator.reaper.wire import Packets, received

START_S = 10.0
"""Guard and reaper must be ready in this time (measured: 30 ms)."""
SPAWN_S = 10.0
"""A program must be executing in this time; a folder on a dead network drive is not."""
ANSWER_S = 10.0
"""The reaper must have answered in this time beyond what was asked for."""
END_S = 30.0
"""Guard and reaper must have killed all and ended in this time."""

_SPAWNING = 16
# Requests on their way hold four descriptors each, which count against the user's limit.


class UnheardError(ReaperLostError):
    """The reaper died before it took a request: what was asked for has not been started."""


class Pair:
    """A guard and its reaper, and what they supervise. Ended once it is `gone`."""

    def __init__(
        self,
        link: Packets | Frames,
        guard: subprocess.Popen[bytes],
        guard_end: int | None,
        log: int,
    ) -> None:
        self._link = link
        self._control = link.socket
        self._guard = guard
        self._guard_end = guard_end  # becomes readable; None: it has ended already
        self._log = log
        self._process: int | None = None  # the reaper's pidfd, where there are such
        self._number: int | None = None  # the reaper's pid, where there are not
        self._ready = anyio.Event()
        self._gone = anyio.Event()
        self._sending = anyio.Lock()
        self._spawning = anyio.Semaphore(_SPAWNING)
        self._handles = itertools.count(1)
        self._children: dict[int, Child] = {}
        self._leaders: dict[int, bytes] = {}
        self._loop = asyncio.get_running_loop()
        self._overdue: asyncio.TimerHandle | None = None
        self._began = time.monotonic()
        self.lived_s: float | None = None
        """How long it lasted, once it is gone."""
        # A callback rather than a task: a task group would wrap what the caller's block raises.
        self._loop.add_reader(self._control, self._readable)

    @asynccontextmanager
    async def start(
        self, start: Start, stdio: Callable[[ExitStack], Stdio]
    ) -> AsyncGenerator[Process]:
        """Spawn with the descriptors that `stdio` opens; they are closed when they were sent.

        Raises UnheardError if the reaper died before it took the request: nothing was started.
        """
        child = Child(next(self._handles))
        self._children[child.handle] = child
        try:
            try:
                await self._request(start, stdio, child)
            except ReaperLostError as error:
                if child.taken:
                    raise
                raise UnheardError(str(error)) from None
            self._leaders[child.pid] = start.token.encode()
            yield Process(self, child)
        finally:
            child.close_stdin()
            with anyio.CancelScope(shield=True), suppress(SupervisionError):
                # A lost reaper is told by wait(); its agents are killed, and that is wanted here.
                await self.sweep(child, 0)
            self._leaders.pop(child.pid, None)
            del self._children[child.handle]

    async def signal(self, child: Child, scope: str, *numbers: int) -> None:
        """Have signals sent to the tree of a process, or to the process group of its leader."""
        if not signal.valid_signals() >= set(numbers):
            raise ValueError(f"not a signal: {numbers}")
        words = ",".join(str(int(number)) for number in numbers)
        await self._send(f"signal {child.handle} {scope} {words}".encode(), [])

    async def sweep(self, child: Child, delay_s: float) -> int:
        """Kill the tree of a process after `delay_s`, unless none is left before."""
        request = f"sweep {child.handle} {math.ceil(delay_s * 1000)}"
        return await self._answered(child, request, delay_s + STUCK_S + ANSWER_S)

    async def keep(self, child: Child) -> int:
        """Let go of the tree of a process whose leader has ended; how many they are."""
        await self._answered(child, f"keep {child.handle}", ANSWER_S)
        return child.kept

    async def _answered(self, child: Child, request: str, limit_s: float) -> int:
        """Ask for the end of a tree, unless it has come; how many were killed."""
        with anyio.move_on_after(limit_s):
            if not child.swept.is_set():
                await self._send(request.encode(), [])
        await _within(limit_s, child.swept)
        if child.killed is not None:
            return child.killed
        if self._gone.is_set():
            raise self.lost()
        self._kill_reaper()
        with anyio.move_on_after(END_S):
            await self._gone.wait()
        raise ReaperLostError(f"the reaper did not answer within {limit_s:.0f} s; it was killed")

    def lost(self) -> ReaperLostError:
        """The error to raise when the reaper has ended; with its last words, if it had any."""
        last = self.last_words()
        return ReaperLostError(
            "the reaper ended; what it supervised has been killed" + (f": {last}" if last else "")
        )

    def last_words(self) -> str:
        """The last line that guard or reaper wrote; empty if there is none."""
        words = b""
        with suppress(OSError):
            size = os.fstat(self._log).st_size
            words = os.pread(self._log, 2000, max(0, size - 2000)).strip()
        return words.decode("utf-8", "backslashreplace").rpartition("\n")[2]

    async def is_gone(self) -> bool:
        """Whether guard and reaper have ended; one that is just ending is waited for."""
        if not self._gone.is_set() and self._is_dead():  # and the loop has not told us yet
            with anyio.move_on_after(END_S):
                await self._gone.wait()
        return self._gone.is_set()

    def _is_dead(self) -> bool:
        poll = select.poll()
        if self._process is not None:
            poll.register(self._process, select.POLLIN)
        elif self._number is not None:
            poll.register(self._control, 0)  # told without being asked for: that it was hung up
        return bool(poll.poll(0))

    async def wait_ready(self) -> None:
        """Until guard and reaper are there."""
        await _within(START_S, self._ready)
        if self._gone.is_set():
            raise self.lost()
        if not self._ready.is_set():
            raise SupervisionError(f"the reaper did not start within {START_S:.0f} s")

    async def close(self) -> None:
        """End guard and reaper, which kill all that is left. Bounded. Again: nothing happens."""
        if self._log == -1:
            return
        self._loop.remove_reader(self._control)
        if self._guard_end is not None:
            self._loop.remove_reader(self._guard_end)
        with suppress(OSError):
            # Shut down and not only closed: a forked worker of the host may hold it open.
            self._control.shutdown(socket.SHUT_RDWR)
        if not await self._guard_ended(END_S):
            self._kill_reaper()
            if not await self._guard_ended(END_S):
                self._guard.kill()
                await self._guard_ended(END_S)
        self._finish()
        self._control.close()
        for descriptor in (self._guard_end, self._process, self._log):
            if descriptor is not None:
                os.close(descriptor)
        self._guard_end = self._process = None
        self._log = -1

    async def _guard_ended(self, seconds: float) -> bool:
        if self._guard_end is None or self._gone.is_set():
            return True
        with anyio.move_on_after(seconds):
            await anyio.wait_readable(self._guard_end)
            return True
        return False

    # --- spawning --------------------------------------------------------------------------------

    async def _send_spawn(
        self, start: Start, stdio: Callable[[ExitStack], Stdio], child: Child
    ) -> None:
        payload = start.encode()
        if not start.argv:
            raise SpawnError("cannot start nothing: argv is empty")
        if "/" in start.argv[0] and not start.argv[0].startswith("/"):
            raise SpawnError(f"{start}: neither a name nor an absolute path")
        try:
            with ExitStack() as files:
                opened = stdio(files)
                if opened.write_end is not None:
                    child.stdin = Pipe(opened.write_end)
                asked = memory("spawn", payload, files)
                request = f"spawn {child.handle}".encode()
                await self._send(request, [opened.stdin, opened.stdout, opened.stderr, asked])
        except OSError as error:
            raise spawn_error(start, error) from error

    async def _request(
        self, start: Start, stdio: Callable[[ExitStack], Stdio], child: Child
    ) -> None:
        async with self._spawning:
            await self._send_spawn(start, stdio, child)
            await _within(SPAWN_S, child.started)
        if child.pid == 0:
            raise self._not_started(start, child)

    def _not_started(self, start: Start, child: Child) -> Exception:
        if child.failure is None:
            if self._gone.is_set():
                return self.lost()
            return SpawnError(f"{start}: it was not executing after {SPAWN_S:.0f} s")
        return failed(start, *child.failure)

    # --- the socket ------------------------------------------------------------------------------

    async def _send(self, message: bytes, descriptors: list[int]) -> None:
        async with self._sending:
            await self._written(lambda: self._link.send(message, descriptors))
            while self._link.torn:
                await self._written(self._link.flush)

    async def _written(self, write: Callable[[], None]) -> None:
        while True:
            if self._gone.is_set():
                raise self.lost()
            try:
                write()
            except BlockingIOError:
                await anyio.wait_writable(self._control)
            except ConnectionError:
                with anyio.move_on_after(END_S):  # raised when all is killed, not before
                    await self._gone.wait()
                raise self.lost() from None
            else:
                return

    def _readable(self) -> None:
        for text, descriptors in received(self._link):
            if text:
                self._notice(text.decode().split(), descriptors)
            else:
                self._reaper_ended()

    def _notice(self, words: list[str], descriptors: list[int]) -> None:
        match words:
            case ["ready"]:
                self._process = descriptors[0] if descriptors else None
                self._ready.set()
            case ["ready", pid]:
                self._number = int(pid)
                self._ready.set()
            case [_, handle, *_]:
                child = self._children.get(int(handle))
                if child is not None and not child.hear(words):
                    self._kill_reaper()
            case _:
                self._kill_reaper()

    # --- the end ---------------------------------------------------------------------------------

    def _kill_reaper(self) -> None:
        if self._process is not None:
            with suppress(ProcessLookupError):
                signal.pidfd_send_signal(self._process, signal.SIGKILL)
        elif self._number is not None and not self._is_dead():  # so the number is still its own
            with suppress(ProcessLookupError):
                os.kill(self._number, signal.SIGKILL)

    def _reaper_ended(self) -> None:
        """Its socket has closed. The guard sweeps now; only then is anybody told."""
        self._loop.remove_reader(self._control)
        if self._guard_end is None:
            self._finish()
            return
        self._loop.add_reader(self._guard_end, self._finish)
        self._overdue = self._loop.call_later(END_S, self._guard.kill)

    def _finish(self) -> None:
        """Guard and reaper are gone: sweep what both left behind, then tell everybody."""
        if self._gone.is_set():
            return
        if self._overdue is not None:
            self._overdue.cancel()
        if self._guard_end is not None:
            self._loop.remove_reader(self._guard_end)
        with suppress(subprocess.TimeoutExpired):
            self._guard.wait(1)  # it is just ending: its descriptors are closed first
        try:
            if self._leaders and self._number is None:
                _sweep_by_token(self._leaders)
            elif self._leaders:
                end_all(set(self._leaders), ps(), reap=False)
        finally:
            self._tell_all()

    def _tell_all(self) -> None:
        self.lived_s = time.monotonic() - self._began
        self._gone.set()
        self._ready.set()
        for child in self._children.values():
            child.sweep(None, 0)


async def _within(limit_s: float, event: anyio.Event) -> None:
    """Wait for it, in ten parts: when everybody is stopped for a while (a paused container), only
    the part in which it happens is lost. Else an answer that is just coming would be overdue.
    """
    for _ in range(10):
        if not event.is_set():
            with anyio.move_on_after(limit_s / 10):
                await event.wait()


def launch() -> Pair:
    """Start guard and reaper, such as this system has. Raises SupervisionError if they cannot be
    started.
    """
    try:
        asyncio.get_running_loop()
    except RuntimeError as error:
        raise SupervisionError(
            "there is no running asyncio event loop", hint="asyncio.run or anyio.run, not trio."
        ) from error
    try:
        with ExitStack() as sent, ExitStack() as kept:
            pair = (_launch if lacking() is None else _launch_groups)(sent, kept)
            kept.pop_all()
            return pair
    except OSError as error:
        raise SupervisionError(f"cannot start the reaper: {error}") from error


def _launch(sent: ExitStack, kept: ExitStack) -> Pair:
    ours, theirs = _sockets(socket.SOCK_SEQPACKET, sent, kept)
    own = os.pidfd_open(os.getpid())
    sent.callback(os.close, own)
    descriptors = [_above_stdio(theirs.fileno(), sent), _above_stdio(own, sent)]
    program = [_main(_reaper), *map(str, descriptors)]
    guard, log = _start_guard(program, descriptors, kept)
    return Pair(Packets(ours), guard, _pidfd(guard.pid), log)


def _main(package: ModuleType) -> str:
    """What is run of a package, by its path: no `-m`, for which the interpreter knows no folder."""
    return os.path.join(os.path.dirname(str(package.__file__)), "__main__.py")  # noqa: PTH118, PTH120


def _launch_groups(sent: ExitStack, kept: ExitStack) -> Pair:
    """Its end is told by that of a pipe that only the guard holds."""
    ours, theirs = _sockets(socket.SOCK_STREAM, sent, kept)
    guard_end, life = os.pipe()
    kept.callback(os.close, guard_end)
    sent.callback(os.close, life)
    descriptors = [_above_stdio(theirs.fileno(), sent), _above_stdio(life, sent)]
    program = [_main(_groups), *map(str, (*descriptors, os.getpid())), ps()]
    guard, log = _start_guard(program, descriptors, kept)
    return Pair(Frames(ours), guard, guard_end, log)


def _sockets(
    kind: socket.SocketKind, sent: ExitStack, kept: ExitStack
) -> tuple[socket.socket, socket.socket]:
    ours, theirs = socket.socketpair(socket.AF_UNIX, kind)
    kept.callback(ours.close)
    sent.callback(theirs.close)
    ours.setblocking(False)  # noqa: FBT003
    return ours, theirs


def _start_guard(
    program: Sequence[str], descriptors: Sequence[int], kept: ExitStack
) -> tuple[subprocess.Popen[bytes], int]:
    """The guard and its log, which are ended and closed with `kept`."""
    log = nameless("log")
    kept.callback(os.close, log)
    guard = subprocess.Popen(
        [*_interpreter(), *program],
        pass_fds=descriptors,
        start_new_session=True,  # out of reach of a Ctrl-C in the terminal
        cwd="/",
        env=_interpreter_environment(os.environ),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=log,
    )
    kept.callback(guard.wait)
    kept.callback(guard.kill)
    return guard, log


def _interpreter() -> list[str]:
    """Ours, with the standard library alone; it leaves bytecode where we do, if we do."""
    where = f"pycache_prefix={sys.pycache_prefix}"
    return [
        *(sys.executable, "-I", "-S", "-E"),
        *(("-B",) if sys.dont_write_bytecode else ()),
        *(("-X", where) if sys.pycache_prefix else ()),
    ]


def _above_stdio(descriptor: int, files: ExitStack) -> int:
    """A copy that stdin, stdout and stderr do not overwrite, in a host that has closed its own."""
    copy = fcntl.fcntl(descriptor, fcntl.F_DUPFD_CLOEXEC, 3)
    files.callback(os.close, copy)
    return copy


def _interpreter_environment(environ: Mapping[str, str]) -> dict[str, str]:
    # Nothing for agents to find; only what an interpreter outside the usual folders starts with.
    return {name: environ[name] for name in ("LD_LIBRARY_PATH",) if name in environ}


def _pidfd(pid: int) -> int | None:
    try:
        return os.pidfd_open(pid)
    except ProcessLookupError:  # ended at once, and a host that waits for every child took it
        return None


def _sweep_by_token(leaders: Mapping[int, bytes]) -> None:
    """Kill what names one of our runs in its environment, is in one of our sessions, or below such.

    The last resort, for when guard and reaper were both killed at once: it misses an orphan that
    has cleared its environment and made a session of its own.
    """
    tokens = set(leaders.values())
    for _ in range(100):
        processes = look()
        ours = [
            seen
            for seen in processes.values()
            if seen.session in leaders or token_of(seen.pid) in tokens
        ]
        found = [seen for seen in trees(ours, processes) if seen.alive]
        if not found:
            return
        for seen in found:
            kill_one(seen, signal.SIGKILL)
        time.sleep(0.001)  # blocks the loop for a moment; nothing that it serves is alive any more
