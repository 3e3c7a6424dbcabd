"""Which turn answers the next request. One `Cursor` for each session; it only counts."""

from __future__ import annotations

from collections.abc import Iterator

from orchestrator.testing.dialect import Ask
from orchestrator.testing.script import Condition, Script, Turn

_SHOWN_CHARS = 200


class ExhaustedError(Exception):
    """A request came after the last turn. The message says how many turns there were."""


class MismatchError(Exception):
    """A turn's `expect` does not hold, or no turn's `when` does. The message says what was asked
    instead.
    """


class Cursor:
    """The place of one session in the script."""

    def __init__(self, script: Script) -> None:
        self._turns = script.turns
        self._used = [0] * len(script.turns)

    @property
    def remaining(self) -> int:
        """How many turns are not used up."""
        return sum(1 for _ in self._left())

    def take(self, ask: Ask) -> tuple[int, Turn]:
        """Consumes the first turn that is left and whose `when` holds: its index and itself.

        Raises ExhaustedError or MismatchError, and consumes nothing then.
        """
        left = list(self._left())
        if not left:
            message = f"script exhausted: all its turns ({len(self._turns)}) are used up"
            raise ExhaustedError(message)
        for index, turn in left:
            if turn.when is None or not _unmet(turn.when, ask):
                _check(index, turn, ask)
                self._used[index] += 1
                return index, turn
        message = f"no turn's `when` holds: {_shown(ask)}"
        raise MismatchError(message)

    def _left(self) -> Iterator[tuple[int, Turn]]:
        for index, turn in enumerate(self._turns):
            if turn.repeat == "forever" or self._used[index] < turn.repeat:
                yield index, turn


def _check(index: int, turn: Turn, ask: Ask) -> None:
    if turn.expect is not None and (unmet := _unmet(turn.expect, ask)):
        message = f"turn {index + 1} expects {' and '.join(unmet)}: {_shown(ask)}"
        raise MismatchError(message)


def _unmet(condition: Condition, ask: Ask) -> list[str]:
    """The keys of a condition that do not hold, in words."""
    return list(_unmet_keys(condition, ask))


def _unmet_keys(condition: Condition, ask: Ask) -> Iterator[str]:
    if condition.contains is not None and condition.contains not in ask.news:
        yield f"a message that contains {condition.contains!r}"
    if condition.tool is not None and ask.tool(condition.tool) is None:
        yield f"a tool named {condition.tool!r}"
    if condition.model is not None and condition.model != ask.model:
        yield f"the model {condition.model!r}"


def _shown(ask: Ask) -> str:
    tools = ", ".join(tool.name for tool in ask.tools) or "none"
    return f"asked were model {ask.model!r}, tools {tools}, message {ask.news[-_SHOWN_CHARS:]!r}"
