"""The reaper: the parent of every agent, and of every orphan that an agent leaves."""

from __future__ import annotations

import errno
import math
import os
import select
import signal
import socket
import time

from orchestrator.reaper import STUCK_S
from orchestrator.reaper.ending import CATCH_S, kill_all, signal_groups
from orchestrator.reaper.signals import child_alarm, drain, signalled
from orchestrator.reaper.starting import start
from orchestrator.reaper.table import (
    Seen,
    children_of,
    command_of,
    families,
    is_dying,
    look,
    look_at,
    token_of,
    tree,
)
from orchestrator.reaper.wire import Packets, SupervisorGone, Talk, send

TYPE_CHECKING = False
if TYPE_CHECKING:
    import resource

    from orchestrator.reaper.kept import Kept

_CENSUS_S, _CENSUS_SHARE = 1.0, 50
# While agents live their trees are looked at once a second, so that who is orphaned later is known,
# also with a cleared environment (codex strips that of its MCP servers). At most 2 % of one core.
_SHARED_LOOK = 3
# When many are stopped at once: a look is good for three times as long as it took.
_FEW = 8
# So many trees are looked at one by one before all of /proc is: with a thousand agents that takes
# a hundred times as long as one tree.
_TOMBSTONES = 4096
_LISTED = 20
# So many of a run's survivors are told one by one.


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
        "swept",
        "token",
    )

    def __init__(self, handle: int, token: bytes, pid: int, start: int, pipe: int) -> None:
        self.handle = handle
        self.token = token
        self.pid = pid
        self.start = start
        self.pipe = pipe  # reports what failed before exec; -1 when that is settled
        self.running = True
        self.swept = False
        self.kept = False  # what is left of it may stay
        self.kill_at = math.inf
        self.killed: set[tuple[int, int]] = set()


class Reaper:
    def __init__(self, control: socket.socket, supervisor: int, guard: int, kept: Kept) -> None:
        self._control = control
        self._kept = kept
        self._alarm = child_alarm()
        self._ends = {supervisor, guard}
        self._runs: dict[int, Run] = {}  # not swept yet, by handle
        self._sweeping: dict[int, Run] = {}  # those of them that are to end
        self._leaders: dict[int, Run] = {}  # not reaped yet, by pid
        self._pipes: dict[int, Run] = {}  # not known to have started yet
        self._tokens: dict[bytes, Run] = {}  # with those swept lately
        self._keepers: set[Run] = set()  # of which something was kept and lives
        self._owners: dict[int, tuple[int, Run, str]] = {}
        # start and run of each process last seen, and how it was found
        self._adopted: dict[int, Run] = {}
        # whose each orphan is, by pid, which is its own until it is reaped here
        self._sessions: dict[int, Run] = {}
        self._trees: dict[Run, list[Seen]] = {}  # as last seen
        self._orphaned = 0  # how many orphans are children of ours
        self._children = os.open(f"/proc/self/task/{os.getpid()}/children", os.O_RDONLY)
        self._looked = 0.0
        self._look_took = 0.0
        self._near_looks = 0  # at single trees, since all of /proc was looked at
        self._near_looked = self._near_took = 0.0
        self._pause = 0.0
        self._due: float | None = None
        self._poll = select.poll()
        for descriptor in (self._alarm, supervisor, guard):
            self._poll.register(descriptor, select.POLLIN)
        self._talk = Talk(Packets(control), self._poll)
        # Their groups are never signalled, only single processes in them.
        self._spared = frozenset({os.getpgrp(), os.getpgid(os.getppid())})

    def serve(self) -> None:
        """Until the supervisor or the guard is gone; then nothing is left."""
        if look_at(os.getpid()) is None:
            raise OSError(errno.ENOENT, "/proc is not there, or hides processes")
        own = os.pidfd_open(os.getpid())
        try:
            send(self._control, b"ready", [own])
            os.close(own)
            while True:
                self._turn()
        except SupervisorGone:
            pass
        # The socket stays open until then: its end tells the supervisor that nothing is left.
        signal.set_wakeup_fd(-1)
        kill_all(child_alarm(), self._spared, self._kept)

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

    # What is asked ---------------------------------------------------------------------------

    def _request(self, words: list[bytes], descriptors: list[int]) -> None:
        if words[0] == b"spawn":
            handle = int(words[1])
            self._spawn(handle, descriptors)
            return
        handle = int(words[1])
        run = self._runs.get(handle)
        if words[0] == b"signal" and run is not None:
            self._signal(run, words[2], [int(word) for word in words[3].split(b",")])
        elif words[0] == b"sweep" and run is not None:
            self._sweep(run, int(words[2]) / 1000)
        elif words[0] == b"keep" and run is not None and not run.running:
            self._keep(run)
        elif words[0] in {b"sweep", b"keep"}:
            self._tell(f"swept {handle} 0 0")

    def _spawn(self, handle: int, descriptors: list[int]) -> None:
        started = start(handle, descriptors, self._tell)
        if started is None:
            return
        pid, token, ours = started
        seen = look_at(pid)
        run = Run(handle, token, pid, 0 if seen is None else seen.start, ours)
        self._runs[handle] = self._leaders[pid] = self._pipes[ours] = run
        self._tokens[token] = self._sessions[pid] = run
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
        if run.handle in self._sweeping:
            self._tell(f"swept {run.handle} 0 0")
        self._forget(run)

    def _signal(self, run: Run, scope: bytes, signals: list[int]) -> None:
        members = self._members(run)  # also to know them when their parents are gone
        if scope == b"tree":
            for number in signals:
                signal_groups(members, number, self._spared)
        elif run.running:
            # The leader is not reaped yet, so its number is its own. Before its setsid: no group.
            for number in signals:
                if not signalled(os.killpg, run.pid, number):
                    signalled(os.kill, run.pid, number)

    def _members(self, run: Run) -> list[Seen]:
        """The tree as it is, or, when many ask at once, as it was a moment ago."""
        age = time.monotonic() - self._looked
        if age > self._look_took * _SHARED_LOOK or run not in self._trees:
            if self._near_looks < _FEW:
                return self._tree_of(run)
            self._trees = self._look()
        return self._trees.get(run, [])

    def _tree_of(self, run: Run) -> list[Seen]:
        """The living members of one run's tree, by its leader and its orphans."""
        began = time.monotonic()
        tops = [run.pid] if run.running else []
        tops += [pid for pid in self._child_pids() if pid not in self._leaders]
        members: dict[int, Seen] = {}
        for pid in tops:
            seen = look_at(pid) if self._adopted.get(pid, run) is run else None
            if seen is None:
                continue
            owner, how = (run, "descent") if pid == run.pid else self._owner(seen)
            if owner is run:
                self._adopt(seen, run)
                self._walk(seen, run, how, members)
        self._near_looks += 1
        self._near_looked = time.monotonic()
        self._near_took = self._near_looked - began
        return [seen for seen in members.values() if seen.alive]

    def _walk(self, top: Seen, run: Run, how: str, members: dict[int, Seen]) -> None:
        """Add a process and all that descends from it, and remember whose they are."""
        own_session = os.getsid(0)
        waiting = [top]
        for seen in waiting:  # grows while it is walked
            if seen.pid in members:
                continue
            members[seen.pid] = seen
            self._owners[seen.pid] = (seen.start, run, how)
            if seen.session != own_session:
                self._sessions[seen.session] = run
            below = [look_at(pid) for pid in children_of(seen.pid)]
            waiting += [one for one in below if one is not None and one.parent == seen.pid]

    def _adopt(self, seen: Seen, run: Run) -> None:
        if seen.pid not in self._leaders and seen.parent == os.getpid():
            self._adopted[seen.pid] = run

    def _sweep(self, run: Run, delay_s: float) -> None:
        now = time.monotonic()
        run.kill_at = min(run.kill_at, now + delay_s)
        self._sweeping[run.handle] = run
        self._due = now
        self._pause = 0.0

    def _keep(self, run: Run) -> None:
        """Let what is left of the run live on, and its supervisor know who that is."""
        self._trees = self._look()
        members = self._trees.get(run, [])
        if members:
            run.kept = True
            self._keepers.add(run)
            self._kept.note(run.token, members)
        for seen in members[:_LISTED]:
            self._list("kept", run, seen)
        self._tell(f"keeps {run.handle} {len(members)}")
        self._answer(run, 0)

    def _list(self, fate: str, run: Run, seen: Seen) -> None:
        _, _, how = self._owners.get(seen.pid, (0, None, "descent"))
        self._tell(f"{fate} {run.handle} {seen.pid} {how} {command_of(seen.pid).hex()}")

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
            self._owners.pop(pid, None)
            self._adopted.pop(pid, None)
            run = self._leaders.pop(pid, None)
            if run is not None:
                self._ended(run, status, usage)

    def _ended(self, run: Run, status: int, usage: resource.struct_rusage) -> None:
        run.running = False
        if run.pipe >= 0:
            self._settle(run)
        if not run.swept:
            code = os.waitstatus_to_exitcode(status)
            cpu_s = usage.ru_utime + usage.ru_stime
            self._tell(f"exited {run.handle} {code} {cpu_s:.6f} {usage.ru_maxrss * 1024}")

    def _look(self) -> dict[Run, list[Seen]]:
        """The living members of each run's tree."""
        began = time.monotonic()
        children = families(look())
        trees: dict[Run, list[Seen]] = {}
        owners: dict[int, tuple[int, Run, str]] = {}
        sessions = dict(self._leaders)
        own_session = os.getsid(0)  # where a new process is until its setsid
        for top in children.get(os.getpid(), ()):
            leads = self._leaders.get(top.pid)
            run, how = (leads, "descent") if leads is not None else self._owner(top)
            if run is None:
                continue
            self._adopt(top, run)
            members = [seen for seen in tree(top, children) if seen.alive]
            trees.setdefault(run, []).extend(members)
            for seen in members:
                owners[seen.pid] = (seen.start, run, how)
                if seen.session != own_session:
                    sessions[seen.session] = run
        self._owners, self._sessions = owners, sessions
        self._looked = time.monotonic()
        self._look_took = self._looked - began
        self._near_looks = 0
        for run in list(self._keepers):
            self._kept.note(run.token, trees.get(run, []))
            if run not in trees:
                self._keepers.discard(run)
        return trees

    def _owner(self, orphan: Seen) -> tuple[Run | None, str]:
        """The run of an orphan, and how that is known: it was seen before, or by session, token,
        or span of life.

        None: several may be. NOBODY: none that still runs can be.
        """
        start, run, how = self._owners.get(orphan.pid, (0, None, ""))
        if run is not None and start == orphan.start:
            return run, how
        found = self._sessions.get(orphan.session)
        if found is not None:
            return found, "session"
        token = token_of(orphan.pid)
        found = None if token is None else self._tokens.get(token)
        if found is not None:
            return found, "environment"
        possible = [run for run in self._runs.values() if run.start <= orphan.start]
        if len(possible) > 1:
            return None, ""
        return (possible[0] if possible else NOBODY), "alone"

    def _round(self) -> None:
        """Kill what is to be killed, say which trees are gone, and plan the next round."""
        holders = self._orphans()
        before = len(self._runs)
        for run in list(self._sweeping.values()):
            if holders is not None and not run.running and run not in holders:
                self._answer(run, 0)
        now = time.monotonic()
        due = [run for run in self._sweeping.values() if now >= run.kill_at]
        # At most half of the time is for looking.
        rested = now - self._looked >= self._look_took
        if (due and len(due) > _FEW and rested) or now - self._looked >= self._census():
            self._trees = self._look()
            for run in due:
                self._end(run, self._trees.get(run, []), now)
        elif len(due) <= _FEW and now - self._near_looked >= self._near_took:
            for run in due:
                self._end(run, self._tree_of(run), now)
        late = holders is None or NOBODY in holders or any(run.swept for run in holders)
        self._plan(soon=self._orphaned > 0 and (late or len(self._runs) < before))

    def _end(self, run: Run, members: list[Seen], now: float) -> None:
        if now >= run.kill_at + STUCK_S:
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
            orphans = [pid for pid in self._child_pids() if pid not in self._leaders]
            self._orphaned = len(orphans)
            settled = True
            for pid in orphans:
                run = self._adopted.get(pid)
                if (
                    run is not None
                    and run.handle in self._runs
                    and run.handle not in self._sweeping
                ):
                    holders.add(run)  # and nobody asks for its end
                else:
                    settled = self._settle_orphan(pid, holders) and settled
            if settled:
                return holders
            if time.monotonic() > until:
                return None

    def _settle_orphan(self, pid: int, holders: set[Run]) -> bool:
        """False: it is gone, or killed just now, so that there may be a next one."""
        seen = look_at(pid)
        run, how = self._owner(seen) if seen is not None and seen.alive else (None, "")
        if seen is None or run is None:
            return not is_dying(pid)
        self._adopt(seen, run)
        if run.kept:
            return True
        holders.add(run)
        due = run.swept or (run.handle in self._sweeping and time.monotonic() >= run.kill_at)
        if not due or (pid, seen.start) in run.killed:
            return True
        self._owners[pid] = (seen.start, run, how)
        self._kill(run, [seen])
        signalled(os.kill, pid, signal.SIGKILL)  # should it have left that group just now
        return False

    def _kill(self, run: Run, members: list[Seen]) -> None:
        for seen in members:
            if seen.pid != run.pid and (seen.pid, seen.start) not in run.killed:
                if len(run.killed) < _LISTED and not run.swept:
                    self._list("killed", run, seen)
                run.killed.add((seen.pid, seen.start))
        signal_groups(members, signal.SIGKILL, self._spared)

    def _child_pids(self) -> list[int]:
        text = part = os.pread(self._children, 1 << 16, 0)
        while part:
            part = os.pread(self._children, 1 << 16, len(text))
            text += part
        return [int(word) for word in text.split()]

    def _census(self) -> float:
        """How often, in seconds, the trees of living agents are looked at."""
        return max(_CENSUS_S, self._look_took * _CENSUS_SHARE)

    def _plan(self, *, soon: bool) -> None:
        now = time.monotonic()
        if self._sweeping:
            # A child that ends calls for a look at once; this is for those with another parent.
            self._pause = min(max(self._pause * 2, 0.001), 0.05)
            self._due = now + self._pause
        elif soon:
            self._pause = min(max(self._pause * 2, 0.01), _CENSUS_S)
            self._due = now + self._pause
        else:
            self._pause = 0.0
            watched = self._runs or self._keepers
            self._due = max(now, self._looked + self._census()) if watched else None

    def _answer(self, run: Run, left: int) -> None:
        self._tell(f"swept {run.handle} {len(run.killed)} {left}")
        self._forget(run)

    def _forget(self, run: Run) -> None:
        run.swept = True
        run.killed = set()
        self._runs.pop(run.handle, None)
        self._sweeping.pop(run.handle, None)
        if len(self._tokens) > len(self._runs) + _TOMBSTONES:
            swept = [token for token, old in self._tokens.items() if old.swept and not old.kept]
            for token in swept[: _TOMBSTONES // 2]:  # the oldest
                del self._tokens[token]

    def _tell(self, text: str) -> None:
        self._talk.tell(text)


NOBODY = Run(-1, b"", -1, 0, -1)
NOBODY.swept = True
