"""Updates to stamped events, the journal first; lines to updates, whatever the adapter does."""

from __future__ import annotations

import os
import reprlib
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import lru_cache
from typing import TypeAlias
from uuid import UUID

import orjson

from orchestrator.adapter import TEXT_LIMIT, Conversation, Exit, Send, unparsed
from orchestrator.budget import Counts
from orchestrator.events import (
    Auth,
    Error,
    Event,
    Message,
    MessageDelta,
    Outcome,
    Place,
    Raw,
    RunFinished,
    SessionStarted,
    Source,
    Thought,
    ThoughtDelta,
    Unparsed,
    Update,
    Usage,
    wire,
)
from orchestrator.events.redaction import redacted
from orchestrator.journal import STDOUT, Record
from orchestrator.lines import Line
from orchestrator.outcome import Digest
from orchestrator.redaction import Pieces, finder, pattern
from orchestrator.telemetry import warn
from orchestrator.usage import Tally, priced

Publish = Callable[[Event], None]
# A third of the time that `Raw(...)` takes.
_new = tuple.__new__  # pyright: ignore[reportUnknownMemberType, reportUnknownVariableType]
Said: TypeAlias = tuple[Update, Source, Place | None]
"""An update, who said it, and where its line stands."""
_INCOMPLETE = frozenset[type[object]]({SessionStarted, Usage, Message, Thought})
_HEAD = ("job_id", "run_id", "task_id", "parent_run_id", "agent")


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
        write: Callable[[bytes], None] | None,
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
        self._tally = Tally()
        self._stated_usd = 0.0
        self._of = tuple(head.get(name) for name in _HEAD)
        self._prefix = wire.prefix(**dict(zip(_HEAD, self._of, strict=True)))
        self._write = write
        self._publish = publish
        self._price = price
        self._served: str | None = None
        self._secret = pattern(secret_values)
        self._holds_secret = finder(secret_values)
        self._pieces = Pieces(secret_values)
        self.seq = seq
        self._waiting: list[Said] = []

    def add(self, update: Update, source: Source, raw: Place | None = None) -> None:
        """Take an update; it is priced, stamped, recorded and seen by `flush`."""
        self._waiting.append((update, source, raw))

    def take(self, told: Sequence[Said]) -> None:
        """The same of many, with their sources and places."""
        self._waiting += told

    def say(self, *updates: Update) -> None:
        """Put the supervisor's own updates on record."""
        for update in updates:
            self.add(update, "supervisor")
        self.flush()

    def flush(self) -> list[Update]:
        """Write what waits to the journal, without secrets, then publish it. What was written.

        Raises JournalError; then nothing of it counts.
        """
        waiting, self._waiting = self._waiting, []
        if not waiting:
            return []
        self._complete(waiting)
        # What was read together has one time; `seq` is the order.
        now = _now()
        block = self._encoded(waiting, now)
        if self._write is not None:
            self._write(block)
        first, self.seq = self.seq + 1, self.seq + len(waiting)
        said = [update for update, _, _ in waiting]
        self._fold(said)
        self._tell(waiting, first, now)
        return said

    def _complete(self, waiting: list[Said]) -> None:
        """What an update alone does not know: what its tokens cost, how its text goes on."""
        cuts = self._pieces.cuts
        for at, (update, source, raw) in enumerate(waiting):
            if type(update) is MessageDelta or type(update) is ThoughtDelta:
                if update.text and cuts(update.text):  # most of them are silence
                    waiting[at] = self._completed(update), source, raw
            elif type(update) in _INCOMPLETE:
                waiting[at] = self._completed(update), source, raw

    def _completed(self, update: Update) -> Update:
        match update:
            case Message(id=id_) | Thought(id=id_):
                self._pieces.end(id_ or "")
            case MessageDelta(id=id_, text=text) | ThoughtDelta(id=id_, text=text):
                # No piece of a text may end in the middle of a secret.
                return replace(update, text=self._pieces.cut(id_ or "", text))
            case SessionStarted(model=model):
                self._served = model or self._served
            case Usage():
                return self._priced(update)
            case _:
                pass
        return update

    def _tell(self, waiting: Sequence[Said], first: int, now: str) -> None:
        publish = self._publish
        job, run, task, parent, agent = self._of
        for seq, (update, source, raw) in enumerate(waiting, first):
            place = None if raw is None else _new(Raw, raw)
            publish(Event(seq, now, run, task, agent, source, update, parent, place, job))

    def resume(self, event: Event) -> None:
        """Go on after an event that is on record already."""
        self.seq = event.seq
        self._fold((event.update,))

    @property
    def waiting(self) -> int:
        """How many updates are not on record yet."""
        return len(self._waiting)

    def finish(self, outcome: Outcome) -> Outcome:
        """Put the run's last event on record. The outcome as it stands there: without secrets."""
        self.add(RunFinished(outcome=outcome), "supervisor")
        for update in self.flush():
            if isinstance(update, RunFinished):
                return update.outcome
        return outcome

    def write_with(self, write: Callable[[bytes], None]) -> None:
        """Write what comes by other means; what waits is given up."""
        self._write, self._waiting = write, []

    def _fold(self, updates: Sequence[Update]) -> None:
        self.digest.add(*updates)
        self.counts.add(*updates)
        if Usage in map(type, updates):
            self._use([update for update in updates if type(update) is Usage])

    def _use(self, used: Sequence[Usage]) -> None:
        for usage in used:
            self._tally = self._tally.plus(usage)
            self._stated_usd += usage.cost_usd or 0.0
        known = self._tally.estimated(self._priced)
        owed_usd = known.owed.cost_usd if known.owed is not None else None
        self.usage, self.cost_usd = known.usage, self._stated_usd + (owed_usd or 0.0)

    def _priced(self, usage: Usage) -> Usage:
        return self._price(usage, self._served or self.digest.model)

    def _encoded(self, waiting: list[Said], now: str) -> bytes:
        """Their lines. What is written otherwise than it was said is replaced in `waiting`."""
        try:
            block = self._lines(waiting, now)
        except (TypeError, ValueError):
            waiting[:] = [(_writable(*one), *one[1:]) for one in waiting]
            block = self._lines(waiting, now)
        secret = self._secret
        # One look at all of it: a search of each line took as long as its encoding.
        if secret is None or not self._holds_secret(block):
            return block
        lines = block.split(b"\n")[:-1]
        waiting[:] = [
            (redacted(update, secret), source, raw)
            if secret.search(line.decode())
            else (update, source, raw)
            for (update, source, raw), line in zip(waiting, lines, strict=True)
        ]
        return self._lines(waiting, now)

    def _lines(self, waiting: Sequence[Said], now: str) -> bytes:
        return wire.encoded(waiting, self._prefix, self.seq + 1, now)


def recorder_of(
    record: Record,
    auth: Auth,
    write: Callable[[bytes], None],
    publish: Publish,
    secret_values: Sequence[str],
) -> Recorder:
    """That of a run, as it goes on or after a crash. What is paid, is paid at the recorded address:
    the one that its agent was given may be a gateway's.
    """
    task, agent = record.task, record.agent
    return Recorder(
        head={
            "job_id": record.job_id,
            "run_id": record.run_id,
            "task_id": task.id,
            "parent_run_id": task.parent_run_id,
            "agent": agent.name,
        },
        write=write,
        publish=publish,
        price=lambda usage, served: priced(usage, agent, auth, served),
        secret_values=secret_values,
    )


def _now() -> str:
    """RFC 3339, UTC, microseconds; `datetime` takes six times as long."""
    second, microsecond = divmod(time.time_ns() // 1000, 1_000_000)
    return f"{_of_second(second)}.{microsecond:06d}Z"


@lru_cache(2)
def _of_second(second: int) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(second))


def _writable(update: Update, source: Source, raw: Place | None) -> Update:
    """The update, or if JSON cannot hold it, its words: nothing is left out silently."""
    try:
        orjson.dumps(update)
    except (TypeError, ValueError) as error:
        reason = f"cannot be written as JSON: {error}"
        stream = STDOUT if raw is None else raw[0]
        return Unparsed(stream=stream, text=_as_python(update), reason=reason)
    return update


def _as_python(update: Update) -> str:
    """An update in Python's own words, which there are for any value."""
    try:
        text = repr(update)
    except RecursionError:
        text = reprlib.repr(update)
    return text.encode("utf-8", "backslashreplace")[:TEXT_LIMIT].decode("utf-8", "ignore")


def translate(conversation: Conversation, line: Line) -> Sequence[Update | Send]:
    """What one line of stdout means; at least one update, whatever the line and the adapter do."""
    # By position: `oversize` and `data`, in half of the time.
    if line[3]:
        reason = f"a line of {line.length} bytes is too long to parse"
        return (_kept(line, reason),)
    try:
        told = conversation.feed(line[0])
        said = told if isinstance(told, tuple) else tuple(told)
    except Exception as error:  # noqa: BLE001
        return (_mistaken(line, error),)
    return said or (_nothing_said(line),)


def fed(conversation: Conversation, line: Line) -> Sequence[Update | Send]:
    """The same of a line of a tail, which may mean nothing."""
    try:
        return tuple(conversation.feed(line.data))
    except Exception as error:  # noqa: BLE001
        return (_mistaken(line, error),)


def _nothing_said(line: Line) -> Update:
    return unparsed(line.data, "the adapter said nothing")


def _mistaken(line: Line, error: Exception) -> Update:
    # An adapter is anybody's code: its mistake must cost neither the line nor the run.
    # Only its name for the log: the words may hold what the agent said, keys and all.
    warn("adapter failed on a line", error=type(error).__name__, offset=line.offset)
    return _kept(line, f"the adapter failed: {error!r}")


def _kept(line: Line, reason: str) -> Update:
    text = line.data.decode("utf-8", "backslashreplace")
    return Unparsed(stream=STDOUT, text=text, reason=reason)


def last_words(conversation: Conversation, exit_: Exit) -> list[Update]:
    try:
        return list(conversation.close(exit_))
    except Exception as error:  # noqa: BLE001
        # As above; and it is no success if the end could not be understood.
        return [Error(kind="unknown", text=f"the adapter failed at the end: {error!r}")]
