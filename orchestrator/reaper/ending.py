"""Ends trees of processes: by process group, until none is left."""

from __future__ import annotations

import os
import signal
import time

from orchestrator.reaper import STUCK_S
from orchestrator.reaper.signals import drain, reap_any, signalled, wait_readable
from orchestrator.reaper.table import children_of, families, kill_one, look, look_at_child, tree

TYPE_CHECKING = False
if TYPE_CHECKING:
    from orchestrator.reaper.kept import Kept
    from orchestrator.reaper.table import Seen

CATCH_S = 0.02
# How long a round goes on after orphans that come and go. Measured on 3 that fork for ever: < 5 ms.


def signal_groups(members: list[Seen], number: int, spared: frozenset[int]) -> None:
    """Signal each distinct process group of the members.

    By group, because a tree that keeps forking escapes a kill by pid (measured: 29-69 rounds
    against one). Groups never reach beyond their session, and each agent has its own. A group's
    number is not given away while it has a member, and that is asked right before the signal.
    """
    groups: dict[int, list[Seen]] = {}
    for seen in members:
        groups.setdefault(seen.group, []).append(seen)
    for group, some in groups.items():
        if group <= 1 or group in spared:
            for seen in some:
                kill_one(seen, number)
        else:
            _signal_group(group, some, number)


def _signal_group(group: int, members: list[Seen], number: int) -> None:
    for seen in members:
        try:
            is_member = os.getpgid(seen.pid) == group
        except ProcessLookupError:
            continue
        if is_member and signalled(os.killpg, group, number):
            return


def kill_all(alarm: int, spared: frozenset[int], kept: Kept) -> None:
    """Kill every descendant of this process that is not kept; return when there is none, or only
    unkillable ones.
    """
    wait_s = 0.001
    before: set[tuple[int, int]] = set()
    since = time.monotonic()
    while True:
        drain(alarm)
        if not reap_any():
            return
        living = _descendants(kept)
        signal_groups(living, signal.SIGKILL, spared)
        left = {(seen.pid, seen.start) for seen in living}
        if left != before:
            before, since, wait_s = left, time.monotonic(), 0.001
        elif time.monotonic() - since > (STUCK_S if living else CATCH_S):
            return
        wait_readable([alarm], wait_s)
        wait_s = min(wait_s * 2, 0.05)


def _descendants(kept: Kept) -> list[Seen]:
    """The living ones of this process that are not kept."""
    me, processes = os.getpid(), look()
    for pid in children_of(me) - processes.keys():
        hidden = look_at_child(pid)
        if hidden is not None:
            processes[pid] = hidden
    children = families(processes)
    members = [seen for top in children.get(me, ()) for seen in tree(top, children)]
    return [seen for seen in kept.others(members, children) if seen.alive]
