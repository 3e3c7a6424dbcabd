"""The reaper: the parent of every agent, and of every orphan that an agent leaves."""

from __future__ import annotations

import errno
import os
import signal
import time

from orchestrator.reaper.ending import CATCH_S, kill_all, signal_groups
from orchestrator.reaper.serving import CENSUS_S, LISTED, Serving
from orchestrator.reaper.signals import child_alarm, signalled
from orchestrator.reaper.table import command_of, is_dying, look_at, look_at_child
from orchestrator.reaper.trees import FEW, NOBODY, Trees
from orchestrator.reaper.wire import Packets, send

TYPE_CHECKING = False
if TYPE_CHECKING:
    import socket

    from orchestrator.reaper.kept import Kept
    from orchestrator.reaper.serving import Run
    from orchestrator.reaper.table import Seen


_DYING_S = 0.5
# Who dies may leave a child behind, so until he is dead no tree is said to be gone. But one can be
# dying for ever: held by a tracer, or closing a file on a drive that is gone.


class Reaper(Serving):
    """`supervisor` and `guard` are handles for these processes."""

    def __init__(self, control: socket.socket, supervisor: int, guard: int, kept: Kept) -> None:
        super().__init__(Packets(control), (supervisor, guard))
        self._control = control
        self._kept = kept
        self._trees = Trees(self._runs, self._leaders, kept)
        self._orphaned = 0  # how many orphans are children of ours
        self._dying: dict[int, float] = {}  # which of them were seen dying, and since when

    def _say_ready(self) -> None:
        if look_at(os.getpid()) is None:
            raise OSError(errno.ENOENT, "/proc is not there, or hides processes")
        own = os.pidfd_open(os.getpid())
        send(self._control, b"ready", [own])
        os.close(own)

    def _begun(self, run: Run) -> None:
        self._trees.begin(run)

    def _end_all(self) -> None:
        signal.set_wakeup_fd(-1)
        kill_all(child_alarm(), self._spared, self._kept)

    # What is asked ---------------------------------------------------------------------------

    def _signal(self, run: Run, scope: bytes, signals: list[int]) -> None:
        members = self._trees.members(run)  # also to know them when their parents are gone
        if scope == b"tree":
            for number in signals:
                signal_groups(members, number, self._spared)
        elif run.running:
            # The leader is not reaped yet, so its number is its own. Before its setsid: no group.
            for number in signals:
                if not signalled(os.killpg, run.pid, number):
                    signalled(os.kill, run.pid, number)

    def _keep(self, run: Run) -> None:
        members = self._trees.keep(run)
        for seen in members[:LISTED]:
            self._list_seen("kept", run, seen)
        self._tell(f"keeps {run.handle} {len(members)}")
        self._answer(run, 0)

    def _list_seen(self, fate: str, run: Run, seen: Seen) -> None:
        self._list(fate, run, seen.pid, self._trees.how(seen), command_of(seen.pid))

    # What is seen ----------------------------------------------------------------------------

    def _reap(self) -> None:
        while True:
            try:
                pid, status, usage = os.wait4(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if pid == 0:
                return
            if self._sweeping:
                self._due = time.monotonic()
            self._trees.reaped(pid)
            self._dying.pop(pid, None)
            run = self._leaders.pop(pid, None)
            if run is not None:
                self._ended(run, status, usage)

    def _round(self) -> None:
        holders = self._orphans()
        before = len(self._runs)
        for run in list(self._sweeping.values()):
            if holders is not None and not run.running and run not in holders:
                self._answer(run, 0)
        self._end_due(time.monotonic())
        late = holders is None or NOBODY in holders or any(run.swept for run in holders)
        self._plan(soon=self._orphaned > 0 and (late or len(self._runs) < before))

    def _end_due(self, now: float) -> None:
        """End those whose time has come, as far as there is time for looking."""
        due = [run for run in self._sweeping.values() if now >= run.kill_at]
        trees = self._trees
        if (len(due) > FEW and trees.may_look(now)) or now >= trees.next_census():
            trees.look()
            for run in due:
                self._end(run, trees.seen.get(run, []), now)
        elif len(due) <= FEW and trees.may_look_near(now):
            for run in due:
                self._end(run, trees.tree_of(run), now)

    def _end(self, run: Run, members: list[Seen], now: float) -> None:
        if self._is_stuck(run, now):
            self._answer(run, len(members))
        else:
            self._kill(run, members)

    def _orphans(self) -> set[Run] | None:
        """The runs that have orphans, once those are killed that are to be. None: it is not known.

        When its leader has ended, all that is left of a tree descends from such a child of ours. A
        process that forks, leaves its group and ends, for ever, is never where `look` looks; but it
        or its zombie is always a child of ours, and one is looked up faster than it forks.
        """
        until = time.monotonic() + CATCH_S
        while True:
            self._reap()
            holders: set[Run] = set()
            orphans = self._trees.orphans()
            self._orphaned = len(orphans)
            settled = True
            for pid in orphans:
                run = self._trees.adopted_by(pid)
                if run is not None and self._is_wanted(run):
                    holders.add(run)
                else:
                    settled = self._settle_orphan(pid, holders) and settled
            if settled:
                return holders
            if time.monotonic() > until:
                return None

    def _is_wanted(self, run: Run) -> bool:
        """It is not to end."""
        return run.handle in self._runs and run.handle not in self._sweeping

    def _settle_orphan(self, pid: int, holders: set[Run]) -> bool:
        """False: it is gone, or killed just now, so that there may be a next one."""
        seen = look_at_child(pid)
        run, how = self._trees.owner(seen) if seen is not None and seen.alive else (None, "")
        if seen is None or run is None:
            return not self._may_leave_a_child(pid)
        self._trees.adopt(seen, run)
        if run.kept:
            return True
        holders.add(run)
        due = run.swept or (run.handle in self._sweeping and time.monotonic() >= run.kill_at)
        if not due or (pid, seen.start) in run.killed:
            return True
        self._trees.own(seen, run, how)
        self._kill(run, [seen])
        signalled(os.kill, pid, signal.SIGKILL)  # should it have left that group just now
        return False

    def _may_leave_a_child(self, pid: int) -> bool:
        if not is_dying(pid):
            return False
        now = time.monotonic()
        return now - self._dying.setdefault(pid, now) < _DYING_S

    def _kill(self, run: Run, members: list[Seen]) -> None:
        for seen in members:
            if seen.pid != run.pid and (seen.pid, seen.start) not in run.killed:
                if len(run.killed) < LISTED and not run.swept:
                    self._list_seen("killed", run, seen)
                run.killed.add((seen.pid, seen.start))
        signal_groups(members, signal.SIGKILL, self._spared)

    def _plan(self, *, soon: bool) -> None:
        now = time.monotonic()
        if self._sweeping:
            # A child that ends calls for a look at once; this is for those with another parent.
            self._pause = min(max(self._pause * 2, 0.001), 0.05)
            self._due = now + self._pause
        elif soon:
            self._pause = min(max(self._pause * 2, 0.01), CENSUS_S)
            self._due = now + self._pause
        else:
            self._pause = 0.0
            watched = self._runs or self._trees.keepers
            self._due = max(now, self._trees.next_census()) if watched else None

    def _forget(self, run: Run) -> None:
        super()._forget(run)
        self._trees.forget_swept()
