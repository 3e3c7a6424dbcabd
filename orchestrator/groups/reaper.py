"""The reaper where it ends agents by process group."""

from __future__ import annotations

import math
import os
import select
import signal
import sys
import time

from orchestrator.groups.ending import end_all, kill_groups
from orchestrator.groups.table import Shown, below, look
from orchestrator.reaper import STUCK_S
from orchestrator.reaper.signals import child_alarm, drain, signalled
from orchestrator.reaper.starting import start
from orchestrator.reaper.wire import SupervisorGone, Talk

TYPE_CHECKING = False
if TYPE_CHECKING:
    import resource

    from orchestrator.groups.frames import Frames
    from orchestrator.groups.noted import Groups

_CENSUS_S, _CENSUS_SHARE = 1.0, 50
_LISTED, _SHOWN = 20, 1024


class Run:
    """One agent: its leader, and the process groups that were seen below it."""

    def __init__(self, handle: int, pid: int, pipe: int) -> None:
        self.handle = handle
        self.pid = pid
        self.pipe = pipe  # reports what failed before exec; -1 when that is settled
        self.running = True
        self.groups = {pid}
        self.members: list[Shown] = []
        self.kill_at = math.inf
        self.killed: set[int] = set()


class Reaper:
    def __init__(self, frames: Frames, tie: int, groups: Groups, ps: str) -> None:
        self._tie = tie
        self._groups = groups
        self._ps = ps
        self._alarm = child_alarm()
        self._runs: dict[int, Run] = {}
        self._leaders: dict[int, Run] = {}
        self._pipes: dict[int, Run] = {}
        self._looked = self._look_took = self._pause = 0.0
        self._due: float | None = None
        self._spared = frozenset({os.getpgrp(), os.getpgid(os.getppid())})
        self._poll = select.poll()
        for descriptor in (self._alarm, tie):
            self._poll.register(descriptor, select.POLLIN)
        self._talk = Talk(frames, self._poll)

    def serve(self) -> None:
        """Until the supervisor or the guard is gone; then nothing is left."""
        try:
            self._tell(f"ready {os.getpid()}")
            while True:
                self._turn()
        except SupervisorGone:
            pass
        # The socket stays open until then: its end tells the supervisor that nothing is left.
        end_all({group for run in self._runs.values() for group in run.groups}, self._ps, reap=True)
        for pid in self._leaders:
            signalled(os.kill, pid, signal.SIGKILL)  # one may not have come to its setsid

    def _turn(self) -> None:
        wait_ms = None if self._due is None else max(0.0, (self._due - time.monotonic()) * 1000)
        found = self._poll.poll(wait_ms)
        if any(descriptor == self._tie for descriptor, _ in found):
            raise SupervisorGone
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

    # What is asked ---------------------------------------------------------------------------

    def _request(self, words: list[bytes], descriptors: list[int]) -> None:
        handle = int(words[1])
        run = self._runs.get(handle)
        match words[0], run:
            case b"spawn", _:
                self._spawn(handle, descriptors)
            case b"signal", Run():
                self._signal(run, words[2], [int(word) for word in words[3].split(b",")])
            case b"sweep", Run():
                now = time.monotonic()
                run.kill_at = min(run.kill_at, now + int(words[2]) / 1000)
                self._due, self._pause = now, 0.0
            case b"keep", Run(running=False):
                self._keep(run)
            case ((b"sweep" | b"keep"), _):
                self._tell(f"swept {handle} 0 0")
            case _:
                pass

    def _spawn(self, handle: int, descriptors: list[int]) -> None:
        started = start(handle, descriptors, self._tell)
        if started is None:
            return
        pid, _, ours = started
        run = Run(handle, pid, ours)
        self._runs[handle] = self._leaders[pid] = self._pipes[ours] = run
        self._note()
        self._poll.register(ours, select.POLLIN)
        if self._due is None:
            self._due = time.monotonic() + _CENSUS_S

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
        if run.kill_at < math.inf:
            self._answer(run, 0)
        else:
            self._forget(run)

    def _signal(self, run: Run, scope: bytes, signals: list[int]) -> None:
        if scope == b"tree":
            self._look()
        groups = run.groups if scope == b"tree" else {run.pid} if run.running else set[int]()
        for number in signals:
            if not kill_groups(groups, number) and run.running:
                signalled(os.kill, run.pid, number)  # before its setsid

    def _keep(self, run: Run) -> None:
        """Let what is left of the run live on."""
        self._look()
        for one in run.members[:_LISTED]:
            self._list("kept", run, one)
        self._tell(f"keeps {run.handle} {len(run.members)}")
        self._answer(run, 0)

    def _list(self, fate: str, run: Run, one: Shown) -> None:
        # Whole words only, for half a key could not be redacted.
        words = (
            one.command if len(one.command) < _SHOWN else one.command[:_SHOWN].rpartition(b" ")[0]
        )
        how = "session" if one.group == run.pid else "descent"
        text = b"\0".join(words.split(b" ")) + b"\0"
        self._tell(f"{fate} {run.handle} {one.pid} {how} {text.hex()}")

    # What is seen ----------------------------------------------------------------------------

    def _reap(self) -> None:
        for pid in list(self._leaders):  # each by its number: `ps` is a child, too
            ended, status, usage = os.wait4(pid, os.WNOHANG)
            if ended:
                self._ended(self._leaders.pop(pid), status, usage)

    def _ended(self, run: Run, status: int, usage: resource.struct_rusage) -> None:
        run.running = False
        if run.pipe >= 0:
            self._settle(run)
        if run.handle in self._runs:
            code = os.waitstatus_to_exitcode(status)
            cpu_s = usage.ru_utime + usage.ru_stime
            unit = 1 if sys.platform == "darwin" else 1024  # of ru_maxrss
            self._tell(f"exited {run.handle} {code} {cpu_s:.6f} {usage.ru_maxrss * unit}")
            if run.kill_at < math.inf:
                self._due = time.monotonic()

    def _look(self) -> None:
        """Who lives of each run: without `ps`, one that stands for all of a group."""
        began = time.monotonic()
        shown = look(self._ps)
        for run in self._runs.values():
            if shown is None:
                groups = [group for group in run.groups if signalled(os.killpg, group, 0)]
                run.members = [Shown(group, 0, group, b"") for group in groups]
                continue
            run.members = below(run.groups, shown, self._spared)
            if run.running:
                run.groups.add(run.pid)  # it may not have come to its setsid
        self._looked = time.monotonic()
        self._look_took = self._looked - began
        self._note()

    def _note(self) -> None:
        self._groups.note({group for run in self._runs.values() for group in run.groups})

    def _round(self) -> None:
        """Kill what is to be killed, say which trees are gone, and plan the next round."""
        self._look()
        now = time.monotonic()
        for run in list(self._runs.values()):
            if run.kill_at == math.inf:
                continue
            if not run.running and not run.members:
                self._answer(run, 0)
            elif now >= run.kill_at + STUCK_S:
                self._answer(run, len(run.members))
            elif now >= run.kill_at:
                self._kill(run)
        self._plan()

    def _kill(self, run: Run) -> None:
        for one in run.members:
            if one.pid != run.pid and one.pid not in run.killed:
                if len(run.killed) < _LISTED and one.command:
                    self._list("killed", run, one)
                run.killed.add(one.pid)
        kill_groups(run.groups, signal.SIGKILL)
        if run.running:
            signalled(os.kill, run.pid, signal.SIGKILL)

    def _plan(self) -> None:
        now = time.monotonic()
        if any(run.kill_at < math.inf for run in self._runs.values()):
            self._pause = min(max(self._pause * 2, 0.001, self._look_took), 0.1)
            self._due = now + self._pause
        else:
            self._pause = 0.0
            census = max(_CENSUS_S, self._look_took * _CENSUS_SHARE)
            self._due = max(now, self._looked + census) if self._runs else None

    def _answer(self, run: Run, left: int) -> None:
        self._tell(f"swept {run.handle} {len(run.killed)} {left}")
        self._forget(run)

    def _forget(self, run: Run) -> None:
        self._runs.pop(run.handle, None)
        self._note()

    def _tell(self, text: str) -> None:
        self._talk.tell(text)
