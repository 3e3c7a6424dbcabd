"""Updates to stamped events, the journal first; lines to updates, whatever the adapter does."""

from __future__ import annotations

import os
import re
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from uuid import UUID

from orchestrator import events
from orchestrator.adapter import Conversation, Exit, Send, unparsed
from orchestrator.events import (
    Error,
    Event,
    Raw,
    Source,
    Unparsed,
    Update,
    Usage,
)
from orchestrator.journal import (
    STDOUT,
    spellings,
)
from orchestrator.lines import Line
from orchestrator.outcome import Digest
from orchestrator.telemetry import warn
from orchestrator.usage import add

Publish = Callable[[Event], None]


def new_run_id() -> str:
    """A UUIDv7: sorts by time."""
    value = (time.time_ns() // 1_000_000) << 80 | int.from_bytes(os.urandom(10))
    value = value & ~(0xF << 76) | 0x7 << 76
    value = value & ~(0x3 << 62) | 0x2 << 62
    return str(UUID(int=value))


def _as_stated(usage: Usage, served: str | None) -> Usage:
    del served
    return usage


class Recorder:
    """Stamps updates and hands them on: journal first, then whoever listens."""

    def __init__(
        self,
        *,
        head: Mapping[str, str | None],
        write: Callable[[Sequence[bytes]], None] | None,
        publish: Publish,
        price: Callable[[Usage, str | None], Usage] = _as_stated,
        secret_values: Sequence[str] = (),
        seq: int = 0,
    ) -> None:
        self.digest = Digest()
        self.usage: Usage | None = None
        self.cost_usd = 0.0
        # A lower bound, where some costs are unknown: what a budget is held against.
        self._head = head
        self._prefix = events.prefix(
            job_id=head.get("job_id"),
            run_id=head["run_id"],
            task_id=head["task_id"],
            parent_run_id=head["parent_run_id"],
            agent=head["agent"],
        )
        self._write = write
        self._publish = publish
        self._price = price
        self._secret = _secret_pattern(secret_values)
        self._seq = seq
        self._waiting: list[tuple[Event, bytes]] = []

    def add(self, update: Update, source: Source, raw: Raw | None = None) -> Update:
        """Stamp an update, without secrets, usage with its cost; it is seen after `flush`. Returns
        what will be seen.
        """
        if isinstance(update, Usage):
            update = self._price(update, self.digest.model)
        event, line = self._stamp(update, source, raw)
        if self._secret is not None and self._secret.search(line.decode()):
            event = replace(event, update=events.redacted(event.update, self._secret))
            line = events.encode(event, self._prefix)
        self.digest.add(event.update)
        if isinstance(event.update, Usage):
            self.usage = add(self.usage, event.update)
            self.cost_usd += event.update.cost_usd or 0.0
        self._waiting.append((event, line))
        return event.update

    def say(self, *updates: Update) -> None:
        """Stamp the supervisor's own updates and flush."""
        for update in updates:
            self.add(update, "supervisor")
        self.flush()

    def flush(self) -> None:
        """Write what waits to the journal, then publish it. Raises JournalError."""
        waiting, self._waiting = self._waiting, []
        if not waiting:
            return
        if self._write is not None:
            self._write([line for _, line in waiting])
        for event, _ in waiting:
            self._publish(event)

    def _stamp(self, update: Update, source: Source, raw: Raw | None) -> tuple[Event, bytes]:
        event = self._event(update, source, raw)
        try:
            line = events.encode(event, self._prefix)
        except (TypeError, ValueError) as error:
            # An adapter made an update that JSON cannot hold: the spool still has the line.
            reason = f"cannot be written as JSON: {error}"
            event = self._event(Unparsed(stream=STDOUT, text="", reason=reason), source, raw)
            line = events.encode(event, self._prefix)
        self._seq += 1
        return event, line

    def _event(self, update: Update, source: Source, raw: Raw | None) -> Event:
        now = datetime.now(UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")
        return Event(
            seq=self._seq + 1,
            time=now,
            job_id=self._head.get("job_id"),
            run_id=self._head["run_id"],
            task_id=self._head["task_id"],
            parent_run_id=self._head["parent_run_id"],
            agent=self._head["agent"],
            source=source,
            update=update,
            raw=raw,
        )


def _secret_pattern(values: Sequence[str]) -> re.Pattern[str] | None:
    found = {form.decode() for value in values for form in spellings(value)}
    forms = sorted(found, key=len, reverse=True)
    return re.compile("|".join(map(re.escape, forms))) if forms else None


def translate(conversation: Conversation, line: Line) -> list[Update | Send]:
    """What one line of stdout means; at least one update, whatever the line and the adapter do."""
    if line.oversize:
        reason = f"a line of {line.length} bytes is too long to parse"
        return [_kept(line, reason)]
    return fed(conversation, line) or [unparsed(line.data, "the adapter said nothing")]


def fed(conversation: Conversation, line: Line) -> list[Update | Send]:
    try:
        return list(conversation.feed(line.data))
    except Exception as error:  # noqa: BLE001
        # An adapter is anybody's code: its mistake must cost neither the line nor the run.
        warn("adapter failed on a line", error=repr(error), offset=line.offset)
        return [_kept(line, f"the adapter failed: {error!r}")]


def _kept(line: Line, reason: str) -> Update:
    text = line.data.decode("utf-8", "backslashreplace")
    return Unparsed(stream=STDOUT, text=text, reason=reason)


def last_words(conversation: Conversation, exit_: Exit) -> list[Update]:
    try:
        return list(conversation.close(exit_))
    except Exception as error:  # noqa: BLE001
        # As above; and it is no success if the end could not be understood.
        return [Error(kind="unknown", text=f"the adapter failed at the end: {error!r}")]
