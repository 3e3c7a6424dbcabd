"""The events of a job as async iterators, read from its journals: nobody has to hold them."""

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
from orchestrator.errors import JournalError
from orchestrator.events import Event, Outcome, RunFinished
from orchestrator.events.wire import decode
from orchestrator.journal import EVENTS

_FINISHED = b'"type":"run.finished"'
_BLOCK = 128
# After so many events others have their turn: whoever reads may never wait for anything.


class EventStream:
    """The events of one job, in the order in which they came: the job's own and its runs'.

    Any number of readers, each at its own pace, from any event on: events are counted from 1, and
    what is held of each is the number of its journal, four bytes. `outcome` is set when the job is
    over. As a sink of a run of your own:

        log = EventStream(config.state)
        log.outcome = await supervisor.run(task, log.told)  # and log.end(), whatever came of it
    """

    def __init__(self, state: Path) -> None:
        self.outcome: Outcome | None = None
        self._state = state
        self._journals: list[Path] = []
        self._numbers: dict[Path, int] = {}
        self._order = array("I")
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

    @property
    def count(self) -> int:
        """How many events there are by now."""
        return len(self._order)

    def __aiter__(self) -> AsyncIterator[Event]:
        return self._from(0)

    async def after(self, read: int) -> AsyncIterator[tuple[int, Event]]:
        """The events after the first `read` ones, each with its number, to the last of the job.

        May be given up at any place. Raises JournalError if a journal is not there any more.
        """
        number = max(0, read)
        async for event in self._from(read):
            number += 1
            yield number, event

    async def _from(self, read: int) -> AsyncIterator[Event]:
        at = 0
        with ExitStack() as stack:
            journals = _Journals(stack)
            while True:
                while at < len(self._order):
                    path = self._journals[self._order[at]]
                    at += 1
                    if at <= read:
                        journals.skip(path)
                    else:
                        yield journals.next(path)
                    if at % _BLOCK == 0:
                        await anyio.lowlevel.checkpoint()
                if self._ended:
                    return
                if self._wake.is_set():  # another reader may wait for the same one
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
        event = decode(self._line(path).removesuffix(b"\n"))
        if isinstance(event.update, RunFinished):
            self._open.pop(path).close()
        return event

    def skip(self, path: Path) -> None:
        """Over one event, which somebody has read before."""
        line = self._line(path)
        if _FINISHED in line and isinstance(decode(line.removesuffix(b"\n")).update, RunFinished):
            self._open.pop(path).close()

    def _line(self, path: Path) -> bytes:
        try:
            if path not in self._open:
                opened = os.fdopen(private.opened(path), "rb")
                self._open[path] = self._stack.enter_context(opened)
            return self._open[path].readline()
        except OSError as error:
            raise JournalError(f"cannot read {path}: {error.strerror}") from error
