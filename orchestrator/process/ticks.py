"""What is done over and over for each of many agents, by one timer for all: to hear what they have
written, and to look at their limits.

A task and a timer of its own for each cost 70 us a look, and to ask 1,000 files 50 times a second
whether they have grown took a tenth of a core.
"""

from __future__ import annotations

import asyncio
import heapq
import itertools
import time
from collections import deque
from collections.abc import Callable, Generator
from contextlib import contextmanager
from functools import partial
from typing import Protocol

from orchestrator.process.growth import Growth

TICK_S = 0.02
# How often is looked what has grown: what comes meanwhile is read together.
SLICE_S = 0.005
# A thousand agents that all have something to say take longer than others should have to wait.


class Growing(Protocol):
    """A file that is followed."""

    @property
    def descriptor(self) -> int:
        """It, open for reading."""
        ...

    def grown(self) -> bool:
        """Whether there is more in it than was read."""
        ...


class Ticks:
    """Calls what is registered, in turns with others; nothing runs while nothing is registered.

    What is called must be quick and must not raise.
    """

    def __init__(self) -> None:
        self._calls: dict[int, Callable[[], None]] = {}
        self._numbers = itertools.count()
        self._growth = Growth()
        self._asked: dict[int, Growing] = {}
        self._due: list[tuple[float, int]] = []
        self._round: deque[int] = deque()
        self._next = 0.0
        self._timer: asyncio.Handle | None = None
        self._loop = asyncio.get_running_loop()

    @contextmanager
    def hearing(self, file: Growing, call: Callable[[], None]) -> Generator[None]:
        """Have `call` called when the file has grown, within `TICK_S`, while the block lasts."""
        with self._registered(call) as number:
            watched = self._growth.watch(file.descriptor, number)
            if watched is None:
                self._asked[number] = file
            try:
                yield
            finally:
                self._asked.pop(number, None)
                if watched is not None:
                    self._growth.forget(watched)

    @contextmanager
    def looking(self, look: Callable[[], float]) -> Generator[None]:
        """Have `look` called while the block lasts: soon, and then at the first tick after the
        time (`time.monotonic`) that it returned last.
        """
        number = next(self._numbers)
        with self._registered(partial(self._look, number, look), number):
            heapq.heappush(self._due, (time.monotonic(), number))
            yield

    def close(self) -> None:
        """Give back what the system lent."""
        self._growth.close()

    @contextmanager
    def _registered(self, call: Callable[[], None], number: int | None = None) -> Generator[int]:
        number = next(self._numbers) if number is None else number
        self._calls[number] = call
        if self._timer is None:
            self._timer = self._loop.call_later(TICK_S, self._tick)
        try:
            yield number
        finally:
            del self._calls[number]

    def _look(self, number: int, look: Callable[[], float]) -> None:
        heapq.heappush(self._due, (look(), number))

    def _tick(self) -> None:
        """Call all whose turn it is; after `SLICE_S` others have theirs before the rest."""
        began = time.monotonic()
        if not self._round:
            self._next = began + TICK_S
            self._gather(began)
        round_, calls, end = self._round, self._calls, began + SLICE_S
        while round_:
            call = calls.get(round_.popleft())
            if call is not None:  # it may have left since the round began
                call()
            if time.monotonic() > end and round_:
                self._timer = self._loop.call_soon(self._tick)
                return
        self._timer = self._loop.call_at(self._next, self._tick) if calls else None

    def _gather(self, now: float) -> None:
        """Whose turn it is."""
        due = self._due
        self._round.extend(self._growth.grown())
        self._round.extend(number for number, file in self._asked.items() if file.grown())
        while due and due[0][0] <= now:
            self._round.append(heapq.heappop(due)[1])
