"""What a reaper does however it finds its trees: it is asked, starts, tells who has ended and keeps
time. How a tree is found, signalled and ended, the two kinds of reapers add.
"""

from __future__ import annotations

import math
import os
import select
import sys
import time

from orchestrator.reaper import STUCK_S
from orchestrator.reaper.signals import child_alarm, drain
from orchestrator.reaper.starting import start
from orchestrator.reaper.wire import SupervisorGone, Talk

TYPE_CHECKING = False
if TYPE_CHECKING:
    import resource
    from collections.abc import Iterable

    from orchestrator.reaper.wire import Link

LISTED = 20
"""So many of a run's survivors are told one by one."""

CENSUS_S, _CENSUS_SHARE = 1.0, 50
# While agents live their trees are looked at once a second, so that who is orphaned later is known,
# also with a cleared environment (codex strips that of its MCP servers). At most 2 % of one core.

_TRIES = 3


class Run:
    """One agent: its leader (the process that was spawned) and all that descends from it."""

    __slots__ = (
        "handle",
        "kept",
        "kill_at",
        "killed",
        "pid",
        "pipe",
        "running",
        "start",
        "stuck_at",
        "swept",
        "token",
        "tries",
    )

    def __init__(self, handle: int, token: bytes, pid: int, pipe: int) -> None:
        self.handle = handle
        self.token = token
        self.pid = pid
        self.start = 0  # ticks since boot, where that is known
        self.pipe = pipe  # reports what failed before exec; -1 when that is settled
        self.running = True
        self.swept = False
        self.kept = False  # what is left of it may stay
        self.kill_at = math.inf
        self.stuck_at = math.inf  # what lives then cannot be killed
        self.tries = 0
        self.killed: set[tuple[int, int]] = set()  # pid and start


class Serving:
    """What both kinds of reapers are made from. `ends`: what becomes readable when there is nobody
    any more for whom anything is to live.
    """

    def __init__(self, link: Link, ends: Iterable[int]) -> None:
        self._alarm = child_alarm()
        self._ends = frozenset(ends)
        self._runs: dict[int, Run] = {}  # not swept yet, by handle
        self._sweeping: dict[int, Run] = {}  # those of them that are to end
        self._leaders: dict[int, Run] = {}  # not reaped yet, by pid
        self._pipes: dict[int, Run] = {}  # not known to have started yet
        self._pause = 0.0
        self._due: float | None = None
        # Their groups are never signalled, only single processes in them.
        self._spared = frozenset({os.getpgrp(), os.getpgid(os.getppid())})
        self._poll = select.poll()
        for descriptor in (self._alarm, *self._ends):
            self._poll.register(descriptor, select.POLLIN)
        self._talk = Talk(link, self._poll)

    def serve(self) -> None:
        """Until the supervisor or the guard is gone; then nothing is left."""
        try:
            self._say_ready()
            while True:
                self._turn()
        except SupervisorGone:
            pass
        # The socket stays open until then: its end tells the supervisor that nothing is left.
        self._end_all()

    # What is added ---------------------------------------------------------------------------

    def _say_ready(self) -> None:
        raise NotImplementedError

    def _begun(self, run: Run) -> None:
        """A process was made for it."""
        raise NotImplementedError

    def _signal(self, run: Run, scope: bytes, signals: list[int]) -> None:
        raise NotImplementedError

    def _keep(self, run: Run) -> None:
        """Let what is left of the run live on, and its supervisor know who that is."""
        raise NotImplementedError

    def _reap(self) -> None:
        """Take all children that have ended."""
        raise NotImplementedError

    def _round(self) -> None:
        """Kill what is to be killed, say which trees are gone, and plan the next round."""
        raise NotImplementedError

    def _end_all(self) -> None:
        raise NotImplementedError

    # What is asked ---------------------------------------------------------------------------

    def _turn(self) -> None:
        wait_ms = None if self._due is None else max(0.0, (self._due - time.monotonic()) * 1000)
        found = self._poll.poll(wait_ms)
        if any(descriptor in self._ends for descriptor, _ in found):
            raise SupervisorGone  # before a request is taken that came at the same time
        for descriptor, event in found:
            if descriptor == self._alarm:
                drain(self._alarm)
            elif descriptor in self._pipes:
                self._settle(self._pipes[descriptor])
            else:
                for words, descriptors in self._talk.turn(event):
                    self._request(words, descriptors)
        self._reap()
        if self._due is not None and time.monotonic() >= self._due:
            self._round()

    def _request(self, words: list[bytes], descriptors: list[int]) -> None:
        handle = int(words[1])
        match words[0], self._runs.get(handle):
            case b"spawn", _:
                self._spawn(handle, descriptors)
            case b"signal", Run() as run:
                self._signal(run, words[2], [int(word) for word in words[3].split(b",")])
            case b"sweep", Run() as run:
                self._sweep(run, int(words[2]) / 1000)
            case b"keep", Run(running=False) as run:
                self._keep(run)
            case ((b"sweep" | b"keep"), _):
                self._tell(f"swept {handle} 0 0")
            case _:
                pass  # a signal for what is gone

    def _spawn(self, handle: int, descriptors: list[int]) -> None:
        started = start(handle, descriptors, self._tell)
        if started is None:
            return
        pid, token, pipe = started
        run = Run(handle, token, pid, pipe)
        self._runs[handle] = self._leaders[pid] = self._pipes[pipe] = run
        self._begun(run)
        self._poll.register(pipe, select.POLLIN)
        if self._due is None:
            self._due = time.monotonic() + CENSUS_S

    def _sweep(self, run: Run, delay_s: float) -> None:
        now = time.monotonic()
        run.kill_at = min(run.kill_at, now + delay_s)
        self._sweeping[run.handle] = run
        self._due = now
        self._pause = 0.0

    def _is_stuck(self, run: Run, now: float) -> bool:
        """Whether it was tried for long to kill it; asked before each try.

        Counted from the first one, and by their number: when this process itself is stopped (a
        paused container), time goes by in which nothing was tried.
        """
        run.tries += 1
        run.stuck_at = min(run.stuck_at, now + STUCK_S)
        return run.tries > _TRIES and now >= run.stuck_at

    # What is told ----------------------------------------------------------------------------

    def _settle(self, run: Run) -> None:
        """The pipe of a new process has closed at exec, or says what failed before."""
        text = os.read(run.pipe, 64)
        self._poll.unregister(run.pipe)
        del self._pipes[run.pipe]
        os.close(run.pipe)
        run.pipe = -1
        if not text:
            self._tell(f"started {run.handle} {run.pid}")
            return
        self._tell(f"failed {run.handle} {text.decode()}")
        if run.handle in self._sweeping:
            self._answer(run, 0)
        else:
            self._forget(run)

    def _ended(self, run: Run, status: int, usage: resource.struct_rusage) -> None:
        run.running = False
        if run.pipe >= 0:
            self._settle(run)
        if not run.swept:
            code = os.waitstatus_to_exitcode(status)
            cpu_s = usage.ru_utime + usage.ru_stime
            unit = 1 if sys.platform == "darwin" else 1024  # of ru_maxrss
            self._tell(f"exited {run.handle} {code} {cpu_s:.6f} {usage.ru_maxrss * unit}")

    def _list(self, fate: str, run: Run, pid: int, how: str, command: bytes) -> None:
        self._tell(f"{fate} {run.handle} {pid} {how} {command.hex()}")

    def _answer(self, run: Run, left: int) -> None:
        self._tell(f"swept {run.handle} {len(run.killed)} {left}")
        self._forget(run)

    def _forget(self, run: Run) -> None:
        run.swept = True
        run.killed = set()
        self._runs.pop(run.handle, None)
        self._sweeping.pop(run.handle, None)

    def _tell(self, text: str) -> None:
        self._talk.tell(text)


def census_s(look_took: float) -> float:
    """How often, in seconds, the trees of living agents are looked at."""
    return max(CENSUS_S, look_took * _CENSUS_SHARE)
