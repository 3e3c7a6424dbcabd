"""Updates to stamped events, the journal first; lines to updates, whatever the adapter does."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from typing import TypeAlias
from uuid import UUID

from orchestrator import events
from orchestrator.adapter import Conversation, Exit, Send, unparsed
from orchestrator.budget import Counts
from orchestrator.events import (
    Error,
    Event,
    Message,
    MessageDelta,
    Outcome,
    Raw,
    RunFinished,
    SessionStarted,
    Source,
    Thought,
    ThoughtDelta,
    Unparsed,
    Update,
    Usage,
)
from orchestrator.journal import STDOUT
from orchestrator.lines import Line
from orchestrator.outcome import Digest
from orchestrator.redaction import Pieces, pattern, spellings
from orchestrator.telemetry import warn
from orchestrator.usage import add

Publish = Callable[[Event], None]
_Waiting: TypeAlias = tuple[Update, Source, Raw | None]


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
        # How many events there are, and what they say.
        self.digest = Digest()
        self.counts = Counts()
        self.usage: Usage | None = None
        self.cost_usd = 0.0
        # A lower bound, where some costs are unknown: what a budget is held against.
        self._job_id = head.get("job_id")
        self._run_id, self._task_id = head["run_id"], head["task_id"]
        self._parent_run_id, self._agent = head["parent_run_id"], head["agent"]
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
        self._served: str | None = None
        self._forms = sorted({form for value in secret_values for form in spellings(value)})
        self._secret = pattern(secret_values)
        self._pieces = Pieces(secret_values)
        self.seq = seq
        self._waiting: list[_Waiting] = []

    def add(self, update: Update, source: Source, raw: Raw | None = None) -> None:
        """Take an update, usage with its cost; it is stamped, recorded and seen by `flush`."""
        match update:
            case SessionStarted(model=str(model)):
                self._served = model
            case Usage():
                update = self._price(update, self._served or self.digest.model)
            case _:
                pass
        if self._secret is not None:
            update = self._whole(update)
        self._waiting.append((update, source, raw))

    def _whole(self, update: Update) -> Update:
        """No piece of a text that ends in the middle of a secret."""
        match update:
            case MessageDelta(id=id_, text=text) | ThoughtDelta(id=id_, text=text):
                cut = self._pieces.cut(id_ or "", text)
                return update if cut == text else replace(update, text=cut)
            case Message(id=id_) | Thought(id=id_):
                self._pieces.end(id_ or "")
            case _:
                pass
        return update

    def say(self, *updates: Update) -> None:
        """Put the supervisor's own updates on record."""
        for update in updates:
            self.add(update, "supervisor")
        self.flush()

    def flush(self) -> list[Event]:
        """Write what waits to the journal, without secrets, then publish it. What was written.

        Raises JournalError; then nothing of it counts.
        """
        waiting, self._waiting = self._waiting, []
        if not waiting:
            return []
        stamped = self._stamped(waiting)
        if self._write is not None:
            self._write([line for _, line in stamped])
        self.seq += len(stamped)
        events_ = [event for event, _ in stamped]
        for event in events_:
            self._fold(event.update)
            self._publish(event)
        return events_

    def resume(self, event: Event) -> None:
        """Go on after an event that is on record already."""
        self.seq = event.seq
        self._fold(event.update)

    @property
    def waiting(self) -> int:
        """How many updates are not on record yet."""
        return len(self._waiting)

    def finish(self, outcome: Outcome) -> Outcome:
        """Put the run's last event on record. The outcome as it stands there: without secrets."""
        self.add(RunFinished(outcome=outcome), "supervisor")
        for event in self.flush():
            if isinstance(event.update, RunFinished):
                return event.update.outcome
        return outcome

    def write_with(self, write: Callable[[Sequence[bytes]], None]) -> None:
        """Write what comes by other means; what waits is given up."""
        self._write, self._waiting = write, []

    def _fold(self, update: Update) -> None:
        self.digest.add(update)
        self.counts.add(update)
        if isinstance(update, Usage):
            self.usage = add(self.usage, update)
            self.cost_usd += update.cost_usd or 0.0

    def _stamped(self, waiting: Sequence[_Waiting]) -> list[tuple[Event, bytes]]:
        # What was read together has one time; `seq` is the order.
        now = datetime.now(UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")
        stamped = [
            self._encoded(self._event(seq, now, *one))
            for seq, one in enumerate(waiting, self.seq + 1)
        ]
        if self._secret is not None:
            # One look at all of it: a search of each line took as long as its encoding.
            block = b"\n".join([line for _, line in stamped])
            if any(form in block for form in self._forms):
                return [self._clean(event, line) for event, line in stamped]
        return stamped

    def _clean(self, event: Event, line: bytes) -> tuple[Event, bytes]:
        if self._secret is None or not self._secret.search(line.decode()):
            return event, line
        return self._encoded(replace(event, update=events.redacted(event.update, self._secret)))

    def _encoded(self, event: Event) -> tuple[Event, bytes]:
        try:
            return event, events.encode(event, self._prefix)
        except (TypeError, ValueError) as error:
            # An adapter made an update that JSON cannot hold: the spool still has the line.
            reason = f"cannot be written as JSON: {error}"
            kept = replace(event, update=Unparsed(stream=STDOUT, text="", reason=reason))
            return kept, events.encode(kept, self._prefix)

    def _event(self, seq: int, time: str, update: Update, source: Source, raw: Raw | None) -> Event:
        return Event(
            seq=seq,
            time=time,
            job_id=self._job_id,
            run_id=self._run_id,
            task_id=self._task_id,
            parent_run_id=self._parent_run_id,
            agent=self._agent,
            source=source,
            update=update,
            raw=raw,
        )


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
        # Only its name for the log: the words may hold what the agent said, keys and all.
        warn("adapter failed on a line", error=type(error).__name__, offset=line.offset)
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
