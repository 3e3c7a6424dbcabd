"""Ends process groups, and what descends from them, until none is left."""

from __future__ import annotations

import os
import signal
import time

from orchestrator.groups.table import below, look
from orchestrator.reaper import STUCK_S
from orchestrator.reaper.signals import reap_any, signalled

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable


def kill_groups(groups: Iterable[int], number: int) -> int:
    """Signal them; how many were there."""
    return sum(signalled(os.killpg, group, number) for group in groups if group > 1)


def end_all(groups: set[int], ps: str, *, reap: bool) -> None:
    """Kill the groups and what descends from them, until none is left or only unkillable ones.

    `reap`: whether this process has no children but those, so that it may wait for any.
    """
    until, pause = time.monotonic() + STUCK_S, 0.001
    spared = frozenset({os.getpgrp()})
    while groups and time.monotonic() < until:
        if reap:
            reap_any()
        shown = look(ps)  # before they are killed: what descends from them is known by its parent
        if shown is None:
            groups = {group for group in groups if signalled(os.killpg, group, 0)}
        elif not below(groups, shown, spared):
            return
        kill_groups(groups, signal.SIGKILL)
        time.sleep(pause)
        pause = min(pause * 2, 0.05)
