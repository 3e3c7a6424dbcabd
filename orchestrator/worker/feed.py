"""The events of a job on their way from the worker that does it to the queue's database."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import anyio

from orchestrator.errors import counted
from orchestrator.events import (
    Event,
    JobFinished,
    JobOutcome,
    MessageDelta,
    Notice,
    ThoughtDelta,
)
from orchestrator.telemetry import warn
from orchestrator.worker import wire
from orchestrator.worker.engine import NotOursError, Write

BATCH_S = 0.06
"""How long events are gathered before they are written together."""
BATCH = 200
"""How many events are written at once at the most."""
MOST = 20_000
"""How many events may wait for the database; further ones are in the journal alone."""


class Feed:
    """The events of a job on their way to its followers, in blocks. Its journal has them all; what
    comes here may be merged or shortened, and is never waited for.
    """

    def __init__(self, write: Write) -> None:
        self._write = write
        self._waiting: list[Event] = []
        self._left_out = 0
        self._wake = anyio.Event()
        self._ended = False
        self._done = anyio.Event()
        self.outcome: JobOutcome | None = None

    def told(self, event: Event) -> None:
        """A sink."""
        if isinstance(event.update, JobFinished):
            self.outcome = event.update.outcome
        if self._waiting and (whole := merged(self._waiting[-1], event)) is not None:
            self._waiting[-1] = whole
        elif len(self._waiting) < MOST:
            self._waiting.append(event)
        else:
            self._left_out += 1
        self._wake.set()

    async def run(self) -> None:
        """Hand them on until there are no more."""
        while not self._ended or self._waiting:
            await self._wake.wait()
            self._wake = anyio.Event()
            if self._ended:
                self._wake.set()
            waiting, self._waiting = self._waiting, []
            if self._left_out and waiting:
                waiting.append(_left_out(self._left_out, waiting[-1]))
                self._left_out = 0
            for at in range(0, len(waiting), BATCH):
                await self._hand_on(waiting[at : at + BATCH])
            if not self._ended:  # what comes first goes at once, what follows soon goes together
                await anyio.sleep(BATCH_S)
        self._done.set()

    async def _hand_on(self, events: Sequence[Event]) -> None:
        try:
            await self._write(b"\n".join(map(wire.line, events)).decode())
        except NotOursError:
            raise
        except Exception as error:  # noqa: BLE001 (a full disk, say: no reason to end an agent)
            self._left_out += len(events)
            warn("events are in the journal alone", error=repr(error))

    async def end(self) -> None:
        """Wait until all are handed on."""
        self._ended = True
        self._wake.set()
        await self._done.wait()


def merged(before: Event, event: Event) -> Event | None:
    """Two pieces of one text as one; None if they are not."""
    if event.run_id != before.run_id:
        return None
    match before.update, event.update:
        case (MessageDelta(id=one, text=text), MessageDelta(id=other) as piece) if one == other:
            return replace(event, update=replace(piece, text=text + piece.text))
        case (ThoughtDelta(id=one, text=text), ThoughtDelta(id=other) as piece) if one == other:
            return replace(event, update=replace(piece, text=text + piece.text))
        case _:
            return None


def _left_out(count: int, last: Event) -> Event:
    events = f"{counted(count, 'event')} {'is' if count == 1 else 'are'}"
    text = f"{events} only in the journal: the queue's database did not take them"
    return replace(last, source="supervisor", raw=None, update=Notice(text=text))
