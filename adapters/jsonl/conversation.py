"""The conversation: rules over lines, and what must be remembered from one line to the next."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace

from adapters.jsonl.options import Options
from adapters.jsonl.paths import Scope
from adapters.jsonl.rules import BaseRule, IgnoreRule, UsageRule
from adapters.reading import Pieces, complaint
from orchestrator.adapter import Exit, Monologue, Send, json_line, unparsed, usage_since
from orchestrator.events import (
    Error,
    Message,
    MessageDelta,
    Permission,
    SessionStarted,
    ToolCall,
    TurnFinished,
    TurnStarted,
    Update,
    Usage,
)
from orchestrator.model_errors import error_kind


class Mapped(Monologue):
    """The conversation: rules over lines, and what must be remembered between lines."""

    def __init__(self, options: Options, before: Usage | None, note: str | None) -> None:
        super().__init__(note=note)
        self._rules: Sequence[BaseRule] = options.events
        self._exits = options.exits
        self._before = before
        self._counted: dict[int, Usage] = {}
        self._apart = any(
            isinstance(rule, UsageRule) and rule.cost_usd is not None and not rule.counts_tokens
            for rule in self._rules
        )
        self._session: SessionStarted | None = None
        self._pieces = Pieces()
        self._denied: str | None = None
        self._ended = False
        self._failed = False
        self._spoke = False

    def feed(self, line: bytes) -> Iterable[Update | Send]:
        """What the rules say; what they do not know, and ignore, stays as it is."""
        value = json_line(line)
        if value is None:
            return (unparsed(line),)
        self._spoke = True
        whole = Scope(value, value)
        said: list[Update] = []
        for number, rule in enumerate(self._rules, start=1):
            for found in rule.read(whole):
                said += self._remembered(found, rule, number)
        return said or (self._kept(line, whole),)

    def _kept(self, line: bytes, whole: Scope) -> Update:
        matching = [
            (number, rule)
            for number, rule in enumerate(self._rules, start=1)
            if any(rule.scopes(whole))
        ]
        for number, rule in matching:
            if isinstance(rule, IgnoreRule):
                return unparsed(line, f"known, and ignored by rule {number}")
        if matching:
            return unparsed(line, f"rule {matching[0][0]} matches, but says nothing new")
        return unparsed(line, "no rule matches")

    def _remembered(self, update: Update, rule: BaseRule, number: int) -> Iterator[Update]:
        """The update in the light of what came before: often itself, sometimes more, or nothing."""
        match update:
            case Message():
                self._pieces.drop()
            case SessionStarted():
                if update == self._session:
                    return
                self._session = update
            case Usage() if isinstance(rule, UsageRule):
                if rule.counts != "delta":
                    update = self._counted_since(update, rule, number)
                update = self._told_apart(update, rule)
            case MessageDelta():
                yield from self._pieces.add(update)
            case TurnStarted():
                yield from self._pieces.take()
                self._ended = self._failed = False
                self._denied = None
            case TurnFinished():
                yield from self._pieces.take()
                self._ended = True
            case Error():
                yield from self._pieces.take()
                self._failed = True
            case ToolCall():
                yield from self._pieces.take()
            case Permission(status="denied"):
                self._denied = update.tool or update.reason or update.id
            case _:
                pass
        yield update

    def _told_apart(self, usage: Usage, rule: UsageRule) -> Usage:
        """Where the cost has a line of its own: tokens are owed theirs, and that line settles what
        is owed until then.
        """
        if not self._apart:
            return usage
        if rule.cost_usd is None:
            return replace(usage, cost_source="agent")
        return usage if rule.counts_tokens else replace(usage, scope="turn")

    def _counted_since(self, now: Usage, rule: UsageRule, number: int) -> Usage:
        """The delta to what the rule counted before; a session's goes on from an earlier run."""
        before = self._counted.get(number)
        if before is None and rule.counts == "session":
            before = self._before
        self._counted[number] = now if before is None else _latest(now, before)
        return usage_since(now, before)

    def close(self, exit: Exit) -> Iterable[Update]:
        """The reason where the lines gave none: the exit status, a denial, words on stderr."""
        yield from self._pieces.take()
        if self._failed or exit.signal is not None:
            return
        error = self._last_word(exit)
        if error is not None:
            yield error
            yield TurnFinished(stop_reason="error")

    def _last_word(self, exit: Exit) -> Error | None:
        words = complaint(exit.stderr)
        if (kind := self._exits.get(str(exit.status))) is not None:
            return Error(kind=kind, text=words or f"exit status {exit.status}")
        if self._ended:
            return None
        if self._denied is not None and exit.status == 0:
            return Error(kind="denied", text=f"it ended when it was denied: {self._denied}")
        if words and (not self._spoke or exit.status != 0):
            kind = error_kind(exit.stderr)
            if kind == "unknown" and not self._spoke:
                kind = "bad_usage"
            return Error(kind=kind, text=words)
        return None


def _latest(now: Usage, before: Usage) -> Usage:
    """What has been counted so far: a field that a line leaves out stands where it stood."""
    stated = {name: value for name, value in vars(now).items() if value is not None}
    return replace(before, **stated)
