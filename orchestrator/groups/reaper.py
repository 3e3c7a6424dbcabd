"""The reaper where it ends agents by the process groups that were seen below them."""

from __future__ import annotations

import os
import signal
import time

from orchestrator.groups.ending import end_all, kill_groups
from orchestrator.groups.table import Shown, below, look
from orchestrator.reaper import SHOWN
from orchestrator.reaper.serving import LISTED, Serving, census_s
from orchestrator.reaper.signals import signalled

TYPE_CHECKING = False
if TYPE_CHECKING:
    from orchestrator.groups.frames import Frames
    from orchestrator.groups.noted import Groups
    from orchestrator.reaper.serving import Run


class Reaper(Serving):
    """`tie`: what becomes readable when supervisor or guard is gone."""

    def __init__(self, frames: Frames, tie: int, noted: Groups, ps: str) -> None:
        super().__init__(frames, (tie,))
        self._noted = noted
        self._ps = ps
        self._groups: dict[Run, set[int]] = {}  # that were seen below each run that is not swept
        self._members: dict[Run, list[Shown]] = {}
        self._looked = self._look_took = 0.0

    def _say_ready(self) -> None:
        self._tell(f"ready {os.getpid()}")

    def _begun(self, run: Run) -> None:
        self._groups[run] = {run.pid}
        self._members[run] = []
        self._note()

    def _end_all(self) -> None:
        end_all(self._all_groups(), self._ps, reap=True)
        for pid in self._leaders:
            signalled(os.kill, pid, signal.SIGKILL)  # one may not have come to its setsid

    # What is asked ---------------------------------------------------------------------------

    def _signal(self, run: Run, scope: bytes, signals: list[int]) -> None:
        if scope == b"tree":
            self._look()
        leads = {run.pid} if run.running else set[int]()
        groups = self._groups[run] if scope == b"tree" else leads
        for number in signals:
            if not kill_groups(groups, number) and run.running:
                signalled(os.kill, run.pid, number)  # before its setsid

    def _keep(self, run: Run) -> None:
        self._look()
        members = self._members[run]
        for one in members[:LISTED]:
            self._list_shown("kept", run, one)
        self._tell(f"keeps {run.handle} {len(members)}")
        self._answer(run, 0)

    def _list_shown(self, fate: str, run: Run, one: Shown) -> None:
        # Whole words only, for half a key could not be redacted.
        words = one.command if len(one.command) < SHOWN else one.command[:SHOWN].rpartition(b" ")[0]
        how = "session" if one.group == run.pid else "descent"
        self._list(fate, run, one.pid, how, b"\0".join(words.split(b" ")) + b"\0")

    # What is seen ----------------------------------------------------------------------------

    def _reap(self) -> None:
        for pid in list(self._leaders):  # each by its number: `ps` is a child, too
            ended, status, usage = os.wait4(pid, os.WNOHANG)
            if ended:
                run = self._leaders.pop(pid)
                self._ended(run, status, usage)
                if run.handle in self._sweeping:
                    self._due = time.monotonic()

    def _look(self) -> None:
        """Who lives of each run: without `ps`, one that stands for all of a group."""
        began = time.monotonic()
        shown = look(self._ps)
        for run, groups in self._groups.items():
            if shown is None:
                left = [group for group in groups if signalled(os.killpg, group, 0)]
                self._members[run] = [Shown(group, 0, group, b"") for group in left]
                continue
            self._members[run] = below(groups, shown, self._spared)
            if run.running:
                groups.add(run.pid)  # it may not have come to its setsid
        self._looked = time.monotonic()
        self._look_took = self._looked - began
        self._note()

    def _note(self) -> None:
        self._noted.note(self._all_groups())

    def _all_groups(self) -> set[int]:
        return {group for groups in self._groups.values() for group in groups}

    def _round(self) -> None:
        self._look()
        now = time.monotonic()
        for run in list(self._sweeping.values()):
            members = self._members[run]
            if not run.running and not members:
                self._answer(run, 0)
            elif now < run.kill_at:
                continue
            elif self._is_stuck(run, now):
                self._answer(run, len(members))
            else:
                self._kill(run, members)
        self._plan()

    def _kill(self, run: Run, members: list[Shown]) -> None:
        for one in members:
            if one.pid != run.pid and (one.pid, 0) not in run.killed:
                if len(run.killed) < LISTED and one.command:
                    self._list_shown("killed", run, one)
                run.killed.add((one.pid, 0))
        kill_groups(self._groups[run], signal.SIGKILL)
        if run.running:
            signalled(os.kill, run.pid, signal.SIGKILL)

    def _plan(self) -> None:
        now = time.monotonic()
        if self._sweeping:
            self._pause = min(max(self._pause * 2, 0.001, self._look_took), 0.1)
            self._due = now + self._pause
        else:
            self._pause = 0.0
            census = census_s(self._look_took)
            self._due = max(now, self._looked + census) if self._runs else None

    def _forget(self, run: Run) -> None:
        super()._forget(run)
        self._groups.pop(run, None)
        self._members.pop(run, None)
        self._note()
