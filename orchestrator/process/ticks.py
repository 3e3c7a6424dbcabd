"""A look at many things, often, by one timer for all: a task and a timer of its own for each agent
cost 70 us a look, which a thousand agents and 50 looks a second cannot pay.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Generator
from contextlib import contextmanager

TICK_S = 0.02
# inotify was worse under load.
SLICE_S = 0.01
# A thousand agents that all have something to say take longer than others should have to wait.


class Ticks:
    """Calls what is registered every `TICK_S`; nothing runs while nothing is registered."""

    def __init__(self) -> None:
        self._calls: dict[int, Callable[[], None]] = {}
        self._round: list[int] = []
        self._next = 0.0
        self._timer: asyncio.Handle | None = None
        self._loop = asyncio.get_running_loop()

    @contextmanager
    def calling(self, call: Callable[[], None]) -> Generator[None]:
        """Have `call` called while the block lasts. It must be quick and must not raise."""
        self._calls[id(call)] = call
        if self._timer is None:
            self._timer = self._loop.call_later(TICK_S, self._tick)
        try:
            yield
        finally:
            del self._calls[id(call)]

    def _tick(self) -> None:
        """Call them all; after `SLICE_S` others have their turn in the loop before the rest."""
        began = self._loop.time()
        if not self._round:
            self._round = list(self._calls)
            self._next = began + TICK_S
        while self._round:
            call = self._calls.get(self._round.pop())
            if call is not None:  # it may have left since the round began
                call()
            if self._round and self._loop.time() - began > SLICE_S:
                self._timer = self._loop.call_soon(self._tick)
                return
        self._timer = self._loop.call_at(self._next, self._tick) if self._calls else None
