"""The events of a job as an async iterator, read from its journals: nobody has to hold them."""

from __future__ import annotations

import os
from array import array
from collections.abc import AsyncIterator
from contextlib import ExitStack
from pathlib import Path
from typing import BinaryIO

import anyio
import anyio.lowlevel

from orchestrator import private
from orchestrator.events import Event, Outcome, RunFinished, decode
from orchestrator.journal import EVENTS

_DROPPED = 4096
# Places that were read are dropped in blocks: one by one, each would move all that follow.
_BLOCK = 128
# After so many events others have their turn: whoever reads may never wait for anything.


class EventStream:
    """The events of one job, in the order in which they came: the job's own and its runs'.

    What is held is the number of an event's journal, four bytes for each that is not read yet.
    `outcome` is set when the iterator has ended.
    """

    def __init__(self, state: Path) -> None:
        self.outcome: Outcome | None = None
        self._state = state
        self._journals: list[Path] = []
        self._numbers: dict[Path, int] = {}
        self._order = array("L")
        self._wake = anyio.Event()
        self._ended = False

    def told(self, event: Event) -> None:
        """A sink: there is something new to read."""
        path = self._journal(event)
        if path not in self._numbers:
            self._numbers[path] = len(self._journals)
            self._journals.append(path)
        self._order.append(self._numbers[path])
        self._wake.set()

    def end(self) -> None:
        """There will be no more events."""
        self._ended = True
        self._wake.set()

    async def __aiter__(self) -> AsyncIterator[Event]:
        read = 0
        with ExitStack() as stack:
            journals = _Journals(stack)
            while True:
                while read < len(self._order):
                    event = journals.next(self._journals[self._order[read]])
                    read += 1
                    if read == _DROPPED:
                        del self._order[:read]
                        read = 0
                    yield event
                    if read % _BLOCK == 0:
                        await anyio.lowlevel.checkpoint()
                if self._ended:
                    return
                self._wake = anyio.Event()
                await self._wake.wait()

    def _journal(self, event: Event) -> Path:
        if event.run_id is not None:
            return self._state / "runs" / event.run_id / EVENTS
        return self._state / "jobs" / (event.job_id or "") / EVENTS


class _Journals:
    """Journals that are being read, each open from its first event to its last."""

    def __init__(self, stack: ExitStack) -> None:
        self._stack = stack
        self._open: dict[Path, BinaryIO] = {}

    def next(self, path: Path) -> Event:
        if path not in self._open:
            self._open[path] = self._stack.enter_context(os.fdopen(private.opened(path), "rb"))
        event = decode(self._open[path].readline().removesuffix(b"\n"))
        if isinstance(event.update, RunFinished):
            self._open.pop(path).close()
        return event
