"""One process as the supervisor sees it: how it ended, what it left behind, and its stdin."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

import anyio

from orchestrator.events import Survivor

if TYPE_CHECKING:
    from orchestrator.process.pair import Pair

DRAIN_S = 0.25
"""What an agent leaves behind may end by itself in this time after it."""

UNREAD = 64 * 1024 * 1024
"""`Process.send`: more bytes than this do not wait for an agent that does not read."""


@dataclass(frozen=True, kw_only=True)
class Ended:
    """How a process ended: exit status or signal; CPU seconds with its children's; peak bytes.

    All None: it could not be killed (stuck in the kernel).
    """

    status: int | None = None
    signal: int | None = None
    cpu_s: float | None = None
    max_rss: int | None = None


class Pipe:
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


class Child:
    """What the reaper has told of one process, and its stdin."""

    def __init__(self, handle: int) -> None:
        self.handle = handle
        self.pid = 0
        self.taken = False
        self.started = anyio.Event()
        self.settled = anyio.Event()
        self.failure: tuple[str, int] | None = None
        self.ended: Ended | None = None
        self.swept = anyio.Event()
        self.killed: int | None = None
        self.kept = 0
        self.survivors: list[Survivor] = []
        self.left = 0
        self.stdin: Pipe | None = None

    def hear(self, words: list[str]) -> bool:
        """Take a notice of the reaper. False: not understood."""
        match words:
            case ["taken", _]:
                self.taken = True
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
            case ["killed" | "kept" as fate, _, pid, how, command]:
                self.survivors.append(
                    Survivor(pid=int(pid), command=_shown(command), found=how, fate=fate)
                )
            case ["keeps", _, count]:
                self.kept = int(count)
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

    def __init__(self, pair: Pair, child: Child) -> None:
        self._pair = pair
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

    @property
    def survivors(self) -> tuple[Survivor, ...]:
        """Who was found when the tree was killed or kept; the first 20."""
        return tuple(self._child.survivors)

    async def wait(self) -> Ended:
        """Until the leader has ended. Raises ReaperLostError if the reaper died before."""
        await self._child.settled.wait()
        if self._child.ended is None:
            raise self._pair.lost()
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
        await self._pair.signal(self._child, "tree", number)

    async def stop(self, *, interrupt: int | None, grace_s: float) -> int:
        """End the tree: `interrupt`, then SIGTERM, then SIGKILL, until none is left.

        `interrupt` goes to the leader's process group, as Ctrl-C would. The leader has `grace_s`
        after each, the rest of the tree DRAIN_S after the leader. Returns the number as `reap`
        does. A second call with a shorter time overtakes the first.
        """
        if interrupt is not None and self.ended is None:
            await self._pair.signal(self._child, "group", interrupt)
            await self._wait_for(grace_s)
        until = time.monotonic() + grace_s
        # A stopped process takes SIGTERM only when it goes on.
        await self._pair.signal(self._child, "tree", signal.SIGTERM, signal.SIGCONT)
        await self._wait_for(grace_s)
        return await self.reap(drain_s=min(DRAIN_S, max(0.0, until - time.monotonic())))

    async def reap(self, *, drain_s: float = DRAIN_S) -> int:
        """Kill what is left of the tree, the leader too if it runs. With nothing left: at once.

        What ends by itself within `drain_s` is not killed. Returns how many processes beside the
        leader had to be killed, by this call or an earlier one.
        """
        return await self._pair.sweep(self._child, drain_s)

    async def keep(self) -> int:
        """Let go of what is left of the tree; the leader must have ended. Returns how many.

        Nobody kills them any more: not at the end of the block, nor when the supervisor ends.
        """
        return await self._pair.keep(self._child)

    async def _wait_for(self, seconds: float) -> None:
        with anyio.move_on_after(seconds):
            await self.wait()


def _write(descriptor: int, data: bytearray) -> int:
    """os.write that raises BrokenPipeError also in a host where SIGPIPE ends the process."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGPIPE})
    try:
        return os.write(descriptor, data)
    except BrokenPipeError:
        if signal.SIGPIPE not in before and signal.SIGPIPE in signal.sigpending():
            signal.sigwait({signal.SIGPIPE})
        raise
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _shown(text: str) -> str:
    """A command line as the reaper tells it: hexadecimal, each argument ended by a NUL byte."""
    words = bytes.fromhex(text).removesuffix(b"\0").split(b"\0")
    return b" ".join(words).decode("utf-8", "backslashreplace")
