"""Whose each process is: found by descent, session, environment, or by who else could own it."""

from __future__ import annotations

import os
import time

from orchestrator.reaper.serving import Run, census_s
from orchestrator.reaper.table import (
    children_of,
    families,
    look,
    look_at,
    look_at_child,
    token_of,
    tree,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from orchestrator.reaper.kept import Kept
    from orchestrator.reaper.table import Seen

FEW = 8
"""So many trees are looked at one by one before all of /proc is: with a thousand agents that takes
a hundred times as long as one tree.
"""
_SHARED_LOOK = 3
# When many are stopped at once: a look is good for three times as long as it took.
_TOMBSTONES = 4096

NOBODY = Run(-1, b"", -1, -1)
"""Whose an orphan is that none which still runs can own."""
NOBODY.swept = True


class Trees:
    """The trees of a reaper's runs. `runs` and `leaders` are its own: by handle, by pid."""

    def __init__(self, runs: dict[int, Run], leaders: dict[int, Run], kept: Kept) -> None:
        self._runs = runs
        self._leaders = leaders
        self._kept = kept
        self.keepers: set[Run] = set()  # of which something was kept and lives
        self.seen: dict[Run, list[Seen]] = {}  # the living members, when all were looked at
        self._tokens: dict[bytes, Run] = {}  # with those swept lately
        self._owners: dict[int, tuple[int, Run, str]] = {}
        # start and run of each process last seen, and how it was found
        self._adopted: dict[int, Run] = {}
        # whose each orphan is, by pid, which is its own until it is reaped here
        self._sessions: dict[int, Run] = {}
        self._children = os.open(f"/proc/self/task/{os.getpid()}/children", os.O_RDONLY)
        self.looked = self._look_took = 0.0
        self._near_looks = 0  # at single trees, since all of /proc was looked at
        self._near_looked = self._near_took = 0.0

    # What happens ----------------------------------------------------------------------------

    def begin(self, run: Run) -> None:
        """Its leader was started just now."""
        seen = look_at(run.pid)
        run.start = 0 if seen is None else seen.start
        self._tokens[run.token] = self._sessions[run.pid] = run

    def reaped(self, pid: int) -> None:
        """This child of ours is no more."""
        self._owners.pop(pid, None)
        self._adopted.pop(pid, None)

    def keep(self, run: Run) -> list[Seen]:
        """What is left of the run may live on."""
        self.look()
        members = self.seen.get(run, [])
        if members:
            run.kept = True
            self.keepers.add(run)
            self._kept.note(run.token, members)
        return members

    def forget_swept(self) -> None:
        """Half of those that were swept, when they have become many."""
        if len(self._tokens) > len(self._runs) + _TOMBSTONES:
            swept = [token for token, old in self._tokens.items() if old.swept and not old.kept]
            for token in swept[: _TOMBSTONES // 2]:  # the oldest
                del self._tokens[token]

    # What is known ---------------------------------------------------------------------------

    def orphans(self) -> list[int]:
        """The children of ours that no request has started."""
        return [pid for pid in self._child_pids() if pid not in self._leaders]

    def adopted_by(self, pid: int) -> Run | None:
        """Whose orphan it is, if that was found out."""
        return self._adopted.get(pid)

    def owner(self, orphan: Seen) -> tuple[Run | None, str]:
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

    def own(self, seen: Seen, run: Run, how: str) -> None:
        """Remember whose it is."""
        self._owners[seen.pid] = (seen.start, run, how)

    def adopt(self, seen: Seen, run: Run) -> None:
        """Remember whose orphan it is, if it is one."""
        if seen.pid not in self._leaders and seen.parent == os.getpid():
            self._adopted[seen.pid] = run

    def how(self, seen: Seen) -> str:
        """How it was found whose it is."""
        return self._owners.get(seen.pid, (0, None, "descent"))[2]

    # Looking ---------------------------------------------------------------------------------

    def next_census(self) -> float:
        """When all of them are to be looked at again, because of those that may be orphaned."""
        return self.looked + census_s(self._look_took)

    def may_look(self, now: float) -> bool:
        """Whether at most half of the time is spent by looking at all of /proc."""
        return now - self.looked >= self._look_took

    def may_look_near(self, now: float) -> bool:
        """The same, for single trees."""
        return now - self._near_looked >= self._near_took

    def members(self, run: Run) -> list[Seen]:
        """The tree as it is, or, when many ask at once, as it was a moment ago."""
        age = time.monotonic() - self.looked
        if age > self._look_took * _SHARED_LOOK or run not in self.seen:
            if self._near_looks < FEW:
                return self.tree_of(run)
            self.look()
        return self.seen.get(run, [])

    def look(self) -> None:
        """See the living members of each run's tree."""
        began = time.monotonic()
        children = families(look())
        seen: dict[Run, list[Seen]] = {}
        owners: dict[int, tuple[int, Run, str]] = {}
        sessions = dict(self._leaders)
        own_session = os.getsid(0)  # where a new process is until its setsid
        for top in children.get(os.getpid(), ()):
            leads = self._leaders.get(top.pid)
            run, how = (leads, "descent") if leads is not None else self.owner(top)
            if run is None:
                continue
            self.adopt(top, run)
            members = [one for one in tree(top, children) if one.alive]
            seen.setdefault(run, []).extend(members)
            owners.update({one.pid: (one.start, run, how) for one in members})
            sessions.update({one.session: run for one in members if one.session != own_session})
        self.seen, self._owners, self._sessions = seen, owners, sessions
        self.looked = time.monotonic()
        self._look_took = self.looked - began
        self._near_looks = 0
        self._note_kept()

    def _note_kept(self) -> None:
        for run in list(self.keepers):
            self._kept.note(run.token, self.seen.get(run, []))
            if run not in self.seen:
                self.keepers.discard(run)

    def tree_of(self, run: Run) -> list[Seen]:
        """The living members of one run's tree, by its leader and its orphans."""
        began = time.monotonic()
        tops = [run.pid] if run.running else []
        members: dict[int, Seen] = {}
        for pid in tops + self.orphans():
            seen = look_at_child(pid) if self._adopted.get(pid, run) is run else None
            if seen is None:
                continue
            owner, how = (run, "descent") if pid == run.pid else self.owner(seen)
            if owner is run:
                self.adopt(seen, run)
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
            self.own(seen, run, how)
            if seen.session != own_session:
                self._sessions[seen.session] = run
            below = [look_at(pid) for pid in children_of(seen.pid)]
            waiting += [one for one in below if one is not None and one.parent == seen.pid]

    def _child_pids(self) -> list[int]:
        text = part = os.pread(self._children, 1 << 16, 0)
        while part:
            part = os.pread(self._children, 1 << 16, len(text))
            text += part
        return [int(word) for word in text.split()]
