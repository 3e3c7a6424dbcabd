"""Open files: how many agents they suffice for, and waiting until they do.

Whoever has no descriptor left can neither write a record nor say why. So an agent that there are no
files for waits, rather than fail and make others fail.
"""

from __future__ import annotations

import os
import resource
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager

import anyio

FILES_EACH = 6
"""Descriptors that the supervisor holds for each running agent at most, as a rule: its two files,
the journals of run and job, its stdin, a log of its own."""
FILES_OWN = 96
"""Those for itself, and for what is just being started."""


def agents_at_once(others: int = 0) -> int:
    """So many agents can run at once, next to `others`: descriptors that are open already."""
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return max(0, soft - FILES_OWN - others) // FILES_EACH


class Files:
    """The open files that agents of this process have."""

    def __init__(self) -> None:
        self._others = _open_now()
        self._taken = 0
        self._told = False
        self._turn = anyio.Lock()
        self._freed = anyio.Event()

    @asynccontextmanager
    async def room(self, agents: int, waits: Callable[[], None]) -> AsyncGenerator[None]:
        """Room for so many agents, as long as the block lasts; for fewer if there is never as
        much. One always has its turn: then it is seen how far it comes. `waits` is told the first
        time that there is no room.
        """
        async with self._turn:  # or two would wait for each other with half of what they need
            wanted = min(agents, max(1, agents_at_once(self._others)))
            if self._is_full(wanted) and not self._told:
                self._told = True
                waits()
            while self._is_full(wanted):
                await self._freed.wait()
            self._taken += wanted
        try:
            yield
        finally:
            self._taken -= wanted
            self._freed.set()
            self._freed = anyio.Event()

    def _is_full(self, wanted: int) -> bool:
        return bool(self._taken) and self._taken + wanted > agents_at_once(self._others)


def _open_now() -> int:
    """How many descriptors this process has; what is not known is taken for few."""
    for place in ("/proc/self/fd", "/dev/fd"):
        try:
            return len(os.listdir(place))  # noqa: PTH208 (only their number is wanted)
        except OSError:
            continue
    return 0
