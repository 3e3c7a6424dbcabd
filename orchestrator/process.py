"""All that starts, signals and ends processes, through the guard and the reaper (reaper.py).

`open_reaper` lends a `Reaper`; `Reaper.spawn` lends a `Process`. Leaving either block, by whatever
way, kills all that was started in it. The host's own children, signal handlers and attributes are
not touched. Linux 5.4 or newer. Does not read what agents say: that is in their spool files.
"""

from __future__ import annotations

import asyncio
import errno
import fcntl
import itertools
import math
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from contextlib import ExitStack, asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

import anyio

from orchestrator import reaper as _reaper
from orchestrator.adapter import Command
from orchestrator.errors import SpawnError, SupervisionError
from orchestrator.reaper import TOKEN

START_S = 10.0
"""Guard and reaper must be ready in this time (measured: 30 ms)."""
SPAWN_S = 10.0
"""A program must be executing in this time; a folder on a dead network drive is not."""
ANSWER_S = 10.0
"""The reaper must have answered in this time beyond what was asked for."""
END_S = 30.0
"""Guard and reaper must have killed all and ended in this time."""
DRAIN_S = 0.25
"""What an agent leaves behind may end by itself in this time after it."""
TERM_S = 2.0
"""`run_to_end`: time between SIGTERM and SIGKILL. git removes its lock files in it."""
FLOOD = 256 * 1024 * 1024
"""`run_to_end`: a command that prints more bytes than this is ended."""

UNREAD = 64 * 1024 * 1024
"""`Process.send`: more bytes than this do not wait for an agent that does not read."""

_SPAWNING = 16
# Requests on their way hold four descriptors each, which count against the user's limit.


@dataclass(frozen=True, kw_only=True)
class Ended:
    """How a process ended: exit status or signal; CPU seconds with its children's; peak bytes.

    All None: it could not be killed (stuck in the kernel).
    """

    status: int | None = None
    signal: int | None = None
    cpu_s: float | None = None
    max_rss: int | None = None


@dataclass(frozen=True, kw_only=True)
class Completed:
    """What `run_to_end` saw. `stdout` and `stderr` hold their ends if they were longer."""

    exit: int | None
    signal: int | None
    stdout: bytes
    stderr: bytes
    timed_out: bool = False
    flooded: bool = False


@dataclass(frozen=True, kw_only=True)
class _Start:
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
class _Stdio:
    stdin: int
    stdout: int
    stderr: int
    write_end: int | None = None


class _Pipe:
    """The write end of a stdin. Writes what the pipe takes, and the rest when it takes more."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor: int | None = descriptor
        self._waiting = bytearray()
        self._ending = False
        self._watched = False
        self._loop = asyncio.get_running_loop()

    def write(self, data: bytes) -> bool:
        """Take the bytes. False: nobody reads any more, or too much waits to be read."""
        if self._ending or len(self._waiting) > UNREAD:
            return False
        self._waiting += data
        return self._flush()

    def end(self) -> None:
        """Close it when all is written."""
        self._ending = True
        self._flush()

    def close(self) -> None:
        """Close it now."""
        if self._descriptor is not None:
            descriptor, self._descriptor = self._descriptor, None
            self._watch(descriptor, on=False)
            os.close(descriptor)

    def _flush(self) -> bool:
        if self._descriptor is None:
            return False
        try:
            while self._waiting:
                del self._waiting[: _write(self._descriptor, self._waiting)]
        except BlockingIOError:
            self._watch(self._descriptor, on=True)
            return True
        except BrokenPipeError:
            self.close()
            return False
        self._watch(self._descriptor, on=False)
        if self._ending:
            self.close()
        return True

    def _watch(self, descriptor: int, *, on: bool) -> None:
        if on and not self._watched:
            self._loop.add_writer(descriptor, self._flush)
        elif self._watched and not on:
            self._loop.remove_writer(descriptor)
        self._watched = on


class _Child:
    """What the reaper has told of one process, and its stdin."""

    def __init__(self, handle: int) -> None:
        self.handle = handle
        self.pid = 0
        self.started = anyio.Event()
        self.settled = anyio.Event()
        self.failure: tuple[str, int] | None = None
        self.ended: Ended | None = None
        self.swept = anyio.Event()
        self.killed: int | None = None
        self.left = 0
        self.stdin: _Pipe | None = None

    def hear(self, words: list[str]) -> bool:
        """Take a notice of the reaper. False: not understood."""
        match words:
            case ["started", _, pid]:
                self.pid = int(pid)
                self.started.set()
            case ["failed", _, stage, number]:
                self.failure = (stage, int(number))
                self.settle(None)
            case ["exited", _, code, cpu_s, max_rss]:
                status = int(code)
                self.settle(
                    Ended(
                        status=status if status >= 0 else None,
                        signal=-status if status < 0 else None,
                        cpu_s=float(cpu_s),
                        max_rss=int(max_rss),
                    )
                )
            case ["swept", _, killed, left]:
                self.sweep(int(killed), int(left))
            case _:
                return False
        return True

    def settle(self, ended: Ended | None) -> None:
        """It has ended; None: it never started, or the reaper that knew of it is gone."""
        if not self.settled.is_set():
            self.ended = ended
            self.close_stdin()
            self.started.set()
            self.settled.set()

    def sweep(self, killed: int | None, left: int) -> None:
        """Its tree is gone; None: the reaper is gone, and how many it killed is not known."""
        if not self.swept.is_set():
            self.settle(None if killed is None else Ended())  # not settled yet: it is unkillable
            self.killed, self.left = killed, left
            self.swept.set()

    def close_stdin(self) -> None:
        if self.stdin is not None:
            self.stdin.close()


class Process:
    """A running agent or command: its leader (`pid`) and the tree of what descends from it."""

    def __init__(self, reaper: Reaper, child: _Child) -> None:
        self._reaper = reaper
        self._child = child
        self.pid = child.pid

    @property
    def ended(self) -> Ended | None:
        """How the leader ended; None while it runs."""
        return self._child.ended

    @property
    def left(self) -> int:
        """Processes of the tree that cannot be killed: another user's, or stuck in the kernel."""
        return self._child.left

    async def wait(self) -> Ended:
        """Until the leader has ended. Raises SupervisionError if the reaper died before."""
        await self._child.settled.wait()
        if self._child.ended is None:
            raise self._reaper.lost()
        return self._child.ended

    async def send(self, data: bytes) -> bool:
        """Write to stdin. False: nobody reads it any more, or nobody has read UNREAD bytes.

        Does not wait for the reader: what the pipe does not take at once is written when it does.
        """
        return self._child.stdin is not None and self._child.stdin.write(data)

    async def close_stdin(self) -> None:
        """End of input, after what was sent. Closed already: fine."""
        if self._child.stdin is not None:
            self._child.stdin.end()

    async def signal(self, number: int) -> None:
        """Signal the whole tree, by process group. Gone already: fine."""
        await self._reaper.signal(self._child, "tree", number)

    async def stop(self, *, interrupt: int | None, grace_s: float) -> int:
        """End the tree: `interrupt`, then SIGTERM, then SIGKILL, until none is left.

        `interrupt` goes to the leader's process group, as Ctrl-C would. The leader has `grace_s`
        after each, the rest of the tree DRAIN_S after the leader. Returns the number as `reap`
        does. A second call with a shorter time overtakes the first.
        """
        if interrupt is not None and self.ended is None:
            await self._reaper.signal(self._child, "group", interrupt)
            await self._wait_for(grace_s)
        until = time.monotonic() + grace_s
        # A stopped process takes SIGTERM only when it goes on.
        await self._reaper.signal(self._child, "tree", signal.SIGTERM, signal.SIGCONT)
        await self._wait_for(grace_s)
        return await self.reap(drain_s=min(DRAIN_S, max(0.0, until - time.monotonic())))

    async def reap(self, *, drain_s: float = DRAIN_S) -> int:
        """Kill what is left of the tree, the leader too if it runs. With nothing left: at once.

        What ends by itself within `drain_s` is not killed. Returns how many processes beside the
        leader had to be killed, by this call or an earlier one.
        """
        return await self._reaper.sweep(self._child, drain_s)

    async def _wait_for(self, seconds: float) -> None:
        with anyio.move_on_after(seconds):
            await self.wait()


class Reaper:
    """The parent of every agent, in a process of its own. Made by `open_reaper`."""

    def __init__(self, control: socket.socket, guard: subprocess.Popen[bytes], log: int) -> None:
        self._control = control
        self._guard = guard
        self._guard_end = _pidfd(guard.pid)
        self._log = log
        self._process: int | None = None  # the reaper's pidfd
        self._ready = anyio.Event()
        self._gone = anyio.Event()
        self._sending = anyio.Lock()
        self._spawning = anyio.Semaphore(_SPAWNING)
        self._handles = itertools.count(1)
        self._children: dict[int, _Child] = {}
        self._leaders: dict[int, bytes] = {}
        self._loop = asyncio.get_running_loop()
        self._overdue: asyncio.TimerHandle | None = None
        # A callback rather than a task: a task group would wrap what the caller's block raises.
        self._loop.add_reader(control, self._readable)

    @asynccontextmanager
    async def spawn(
        self, command: Command, *, env: Mapping[str, str], stdout: Path, stderr: Path, token: str
    ) -> AsyncGenerator[Process]:
        """Start the command; its tree is killed at the end of the block.

        `stdout` and `stderr` must not exist; they become files that only grow (mode 0400). `env` is
        the whole environment, to which `token` (the run's id, unique) is added as
        ORCHESTRATE_RUN_ID. Raises SpawnError when it cannot start, SupervisionError when the reaper
        is gone.
        """
        start = _Start(argv=command.argv, cwd=command.cwd, env=env, token=token)

        def stdio(files: ExitStack) -> _Stdio:
            for path, content in command.files.items():
                _write_private(Path(path), content)
            out, err = _spool(stdout, files), _spool(stderr, files)
            read_end, write_end = _stdin(command.stdin, files)
            return _Stdio(read_end, out, err, write_end)

        async with self.start(start, stdio) as process:
            yield process

    @asynccontextmanager
    async def start(
        self, start: _Start, stdio: Callable[[ExitStack], _Stdio]
    ) -> AsyncGenerator[Process]:
        """Spawn with the descriptors that `stdio` opens; they are closed when they were sent."""
        child = _Child(next(self._handles))
        self._children[child.handle] = child
        try:
            async with self._spawning:
                await self._send_spawn(start, stdio, child)
                with anyio.move_on_after(SPAWN_S):
                    await child.started.wait()
            if child.pid == 0:
                raise self._not_started(start, child)
            self._leaders[child.pid] = start.token.encode()
            yield Process(self, child)
        finally:
            child.close_stdin()
            with anyio.CancelScope(shield=True), suppress(SupervisionError):
                # A lost reaper is told by wait(); its agents are killed, and that is wanted here.
                await self.sweep(child, 0)
            self._leaders.pop(child.pid, None)
            del self._children[child.handle]

    async def signal(self, child: _Child, scope: str, *numbers: int) -> None:
        """Have signals sent to the tree of a process, or to the process group of its leader."""
        if not signal.valid_signals() >= set(numbers):
            raise ValueError(f"not a signal: {numbers}")
        words = ",".join(str(int(number)) for number in numbers)
        await self._send(f"signal {child.handle} {scope} {words}".encode(), [])

    async def sweep(self, child: _Child, delay_s: float) -> int:
        """Kill the tree of a process after `delay_s`, unless none is left before."""
        limit_s = delay_s + _reaper.STUCK_S + ANSWER_S
        with anyio.move_on_after(limit_s):
            if not child.swept.is_set():
                await self._send(f"sweep {child.handle} {math.ceil(delay_s * 1000)}".encode(), [])
            await child.swept.wait()
        if child.killed is not None:
            return child.killed
        if self._gone.is_set():
            raise self.lost()
        self._kill_reaper()
        with anyio.move_on_after(END_S):
            await self._gone.wait()
        raise SupervisionError(f"the reaper did not answer within {limit_s:.0f} s")

    def lost(self) -> SupervisionError:
        """The error to raise when the reaper has ended; with its last words, if it had any."""
        words = b""
        with suppress(OSError):
            size = os.fstat(self._log).st_size
            words = os.pread(self._log, 2000, max(0, size - 2000)).strip()
        last = words.decode("utf-8", "backslashreplace").rpartition("\n")[2]
        return SupervisionError(
            "the reaper ended; what it supervised has been killed" + (f": {last}" if last else "")
        )

    async def wait_ready(self) -> None:
        """Until guard and reaper are there."""
        with anyio.move_on_after(START_S):
            await self._ready.wait()
        if self._gone.is_set():
            raise self.lost()
        if not self._ready.is_set():
            raise SupervisionError(f"the reaper did not start within {START_S:.0f} s")

    async def close(self) -> None:
        """End guard and reaper, which kill all that is left. Bounded."""
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
        self, start: _Start, stdio: Callable[[ExitStack], _Stdio], child: _Child
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
                    child.stdin = _Pipe(opened.write_end)
                memory = _memory("spawn", payload, files)
                request = f"spawn {child.handle}".encode()
                await self._send(request, [opened.stdin, opened.stdout, opened.stderr, memory])
        except OSError as error:
            raise _spawn_error(start, error) from error

    def _not_started(self, start: _Start, child: _Child) -> Exception:
        if child.failure is None:
            if self._gone.is_set():
                return self.lost()
            return SpawnError(f"{start}: it was not executing after {SPAWN_S:.0f} s")
        return _failed(start, *child.failure)

    # --- the socket ------------------------------------------------------------------------------

    async def _send(self, message: bytes, descriptors: list[int]) -> None:
        async with self._sending:
            while True:
                if self._gone.is_set():
                    raise self.lost()
                try:
                    _reaper.send(self._control, message, descriptors)
                except BlockingIOError:
                    await anyio.wait_writable(self._control)
                except ConnectionError:
                    with anyio.move_on_after(END_S):  # raised when all is killed, not before
                        await self._gone.wait()
                    raise self.lost() from None
                else:
                    return

    def _readable(self) -> None:
        while True:
            try:
                text, descriptors = _reaper.receive(self._control)
            except BlockingIOError:
                return
            if not text:
                self._reaper_ended()
                return
            self._notice(text.decode().split(), descriptors)

    def _notice(self, words: list[str], descriptors: list[int]) -> None:
        match words:
            case ["ready"]:
                self._process = descriptors[0] if descriptors else None
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
            self._guard.wait(0)
        try:
            if self._leaders:
                _sweep_by_token(self._leaders)
        finally:
            self._tell_all()

    def _tell_all(self) -> None:
        self._gone.set()
        self._ready.set()
        for child in self._children.values():
            child.sweep(None, 0)


@asynccontextmanager
async def open_reaper() -> AsyncGenerator[Reaper]:
    """Start guard and reaper. At the end of the block they kill what is left, and end.

    Raises SupervisionError if they cannot start.
    """
    reaper = _launch()
    try:
        await reaper.wait_ready()
        yield reaper
    finally:
        with anyio.CancelScope(shield=True):
            await reaper.close()


def _launch() -> Reaper:
    if sys.platform != "linux":
        raise SupervisionError(f"agents can be supervised on Linux only, not on {sys.platform}")
    try:
        with ExitStack() as sent, ExitStack() as kept:
            ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
            kept.callback(ours.close)
            sent.callback(theirs.close)
            ours.setblocking(False)  # noqa: FBT003
            log = os.memfd_create("log", os.MFD_CLOEXEC)
            kept.callback(os.close, log)
            own = os.pidfd_open(os.getpid())
            sent.callback(os.close, own)
            guard = _start_guard(
                [_above_stdio(theirs.fileno(), sent), _above_stdio(own, sent)], log
            )
            kept.callback(guard.wait)
            kept.callback(guard.kill)
            reaper = Reaper(ours, guard, log)
            kept.pop_all()
            return reaper
    except OSError as error:
        raise SupervisionError(f"cannot start the reaper: {error}") from error


def _start_guard(descriptors: Sequence[int], log: int) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [sys.executable, "-I", "-S", "-E", _reaper.__file__, *map(str, descriptors)],
        pass_fds=descriptors,
        start_new_session=True,  # out of reach of a Ctrl-C in the terminal
        cwd="/",
        env=_interpreter_environment(os.environ),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=log,
    )


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
        processes = _reaper.look()
        ours = [
            seen
            for seen in processes.values()
            if seen.session in leaders or _reaper.token_of(seen.pid) in tokens
        ]
        found = [seen for seen in _reaper.trees(ours, processes) if seen.alive]
        if not found:
            return
        for seen in found:
            _reaper.kill_one(seen, signal.SIGKILL)
        time.sleep(0.001)  # blocks the loop for a moment; nothing that it serves is alive any more


# --- a command that is run to its end ------------------------------------------------------------


async def run_to_end(
    reaper: Reaper,
    argv: Sequence[str],
    *,
    cwd: Path,
    env: Mapping[str, str],
    limit_s: float,
    output_limit: int = 1024 * 1024,
    merge: bool = False,
    stdin: bytes | None = None,
) -> Completed:
    """Run a command and collect its output: git, a check, a version probe.

    Of each stream the last `output_limit` bytes are kept; `merge` sends stderr to stdout. At
    `limit_s` it gets SIGTERM, then SIGKILL. What it leaves behind is killed. Raises SpawnError.
    """
    start = _Start(argv=tuple(argv), cwd=str(cwd), env=env, token=f"command-{os.urandom(8).hex()}")
    with ExitStack() as outputs:
        try:
            out = _output(outputs)
            err = out if merge else _output(outputs)
        except OSError as error:
            raise _spawn_error(start, error) from error

        def stdio(files: ExitStack) -> _Stdio:
            read_end, _ = _stdin(stdin, files)
            return _Stdio(read_end, out, err)

        async with reaper.start(start, stdio) as process:
            flooded = await _wait_for_end(process, (out, err), limit_s)
            timed_out = process.ended is None and not flooded
            if process.ended is None:
                await process.stop(interrupt=None, grace_s=TERM_S)
            else:
                await process.reap()
            ended = await process.wait()
        return Completed(
            exit=ended.status,
            signal=ended.signal,
            stdout=_end_of(out, output_limit),
            stderr=b"" if merge else _end_of(err, output_limit),
            timed_out=timed_out,
            flooded=flooded,
        )


async def _wait_for_end(process: Process, outputs: tuple[int, ...], limit_s: float) -> bool:
    """Until the end, the time limit, or a flood (True)."""
    with anyio.move_on_after(limit_s):
        while process.ended is None:
            with anyio.move_on_after(0.1):
                await process.wait()
            if sum(os.fstat(output).st_size for output in outputs) > FLOOD:
                return True
    return False


def _output(files: ExitStack) -> int:
    """An unlinked file to append to. Not a pipe: a grandchild would hold it open."""
    file = tempfile.TemporaryFile(buffering=0)  # noqa: SIM115
    output = files.enter_context(file).fileno()
    fcntl.fcntl(output, fcntl.F_SETFL, fcntl.fcntl(output, fcntl.F_GETFL) | os.O_APPEND)
    return output


def _end_of(output: int, limit: int) -> bytes:
    size = os.fstat(output).st_size
    return os.pread(output, limit, max(0, size - limit))


# --- files and descriptors -----------------------------------------------------------------------


def _spool(path: Path, files: ExitStack) -> int:
    """A new file that only grows; 0400 afterwards, so that nobody opens it to truncate it."""
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_APPEND | os.O_CLOEXEC
    descriptor = os.open(path, flags, 0o600)
    files.callback(os.close, descriptor)
    os.fchmod(descriptor, 0o400)
    return descriptor


def _write_private(path: Path, content: bytes) -> None:
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


def _stdin(stdin: bytes | str | None, files: ExitStack) -> tuple[int, int | None]:
    """The descriptor to read from and, for "open", the one to write to (closed by the process)."""
    match stdin:
        case None:
            read_end = os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC)
        case bytes():
            return _memory("stdin", stdin, files), None
        case _:
            # A pipe and not a socket: bash takes a socket for a remote login and reads ~/.bashrc.
            read_end, write_end = os.pipe2(os.O_CLOEXEC)
            files.callback(os.close, read_end)
            os.set_blocking(write_end, False)
            return read_end, write_end
    files.callback(os.close, read_end)
    return read_end, None


def _memory(name: str, content: bytes, files: ExitStack) -> int:
    """A file in memory that has no name, to be read from its start."""
    descriptor = os.memfd_create(name, os.MFD_CLOEXEC)
    files.callback(os.close, descriptor)
    view = memoryview(content)
    while view:
        view = view[os.write(descriptor, view) :]
    os.lseek(descriptor, 0, os.SEEK_SET)
    return descriptor


def _write(descriptor: int, data: bytearray) -> int:
    """os.write that raises BrokenPipeError also in a host where SIGPIPE ends the process."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGPIPE})
    try:
        return os.write(descriptor, data)
    except BrokenPipeError:
        if signal.SIGPIPE not in before:
            signal.sigtimedwait({signal.SIGPIPE}, 0)
        raise
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


# --- errors that say what to do ------------------------------------------------------------------

_TOO_MANY_FILES = "raise the limit of open files (`ulimit -n`) or run fewer agents at once"


def _spawn_error(start: _Start, error: OSError) -> SpawnError:
    """What failed on our side, before the request was sent."""
    hint = _TOO_MANY_FILES if error.errno in {errno.EMFILE, errno.ENFILE} else None
    return SpawnError(f"{start}: {error}", errno=error.errno, hint=hint)


def _failed(start: _Start, stage: str, number: int) -> SpawnError:
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


# --- the environment -----------------------------------------------------------------------------

_BASE = frozenset(
    {
        "PATH",
        "HOME",  # a CLI's own login is there; an adapter with a private home sets it in Command.env
        "USER",
        "LOGNAME",
        "SHELL",
        "LANG",
        "LANGUAGE",
        "TZ",
        "TERM",  # a check may test a terminal program; nothing is a terminal here anyway
        "TMPDIR",
        # Behind a company's proxy no TLS connection can be made without its certificates.
        "SSL_CERT_FILE",
        "SSL_CERT_DIR",
        "REQUESTS_CA_BUNDLE",
        "CURL_CA_BUNDLE",
        "NODE_EXTRA_CA_CERTS",
        "GIT_SSL_CAINFO",
    }
)
# Not here, and why: keys (each agent gets only its own, by env_from); SSH_AUTH_SOCK, DBUS_*, XDG_*
# and other ways to the user's sockets and settings; proxies, which decide where the requests for a
# local model go; LD_*, NODE_OPTIONS, PYTHON*, GIT_*, which change what runs.


def base_environment(environ: Mapping[str, str]) -> dict[str, str]:
    """What every child may know of the supervisor's environment: an allow-list."""
    return {
        name: value for name, value in environ.items() if name in _BASE or name.startswith("LC_")
    }


def environment(
    command: Command,
    environ: Mapping[str, str],
    *,
    env: Mapping[str, str] | None = None,
    env_from: Sequence[str] = (),
) -> dict[str, str]:
    """The whole environment of a command. Later ones win: base, the task's `env_from` and `env`,
    the command's own. Names that `environ` does not have are left out.
    """
    return {
        **base_environment(environ),
        **{name: environ[name] for name in env_from if name in environ},
        **(env or {}),
        **{name: environ[source] for name, source in command.env_from.items() if source in environ},
        **command.env,
    }
