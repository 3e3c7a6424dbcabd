"""Words with a style, and how a terminal is told to show it. Eight colours, so that the user's own
theme decides what they look like; without colour every word still says it all.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Literal, NamedTuple, TypeAlias

from orchestrator.console.text import cells, fit, safe
from orchestrator.events import Outcome

Style: TypeAlias = Literal["plain", "bold", "dim", "good", "bad", "doubtful"]
_CODES = {"bold": "1", "dim": "2", "good": "32", "bad": "31", "doubtful": "33"}


class Span(NamedTuple):
    """A piece of a line."""

    text: str
    style: Style = "plain"


Line: TypeAlias = tuple[Span, ...]


def painted(line: Iterable[Span], *, colour: bool) -> str:
    """The line as it is written: only we steer the terminal, not what stands in the line."""
    return "".join(_painted(span) if colour else safe(span.text) for span in line)


def _painted(span: Span) -> str:
    text = safe(span.text)
    if span.style == "plain" or not text:
        return text
    return f"\x1b[{_CODES[span.style]}m{text}\x1b[0m"


def length(line: Iterable[Span]) -> int:
    """The cells that the line takes."""
    return sum(cells(span.text) for span in line)


def cut(line: Iterable[Span], width: int) -> Line:
    """The line in at most `width` cells, escaped."""
    kept: list[Span] = []
    for span in line:
        room = width - length(kept)
        if room <= 0:
            break
        kept.append(Span(fit(span.text, room), span.style))
    return tuple(kept)


def style_of(outcome: Outcome) -> Style:
    """Good, bad, or neither: skipped and interrupted are nobody's fault."""
    if outcome.ok:
        return "good"
    return "doubtful" if outcome.status in {"skipped", "cancelled", "interrupted"} else "bad"


def lively(environ: Mapping[str, str], *, terminal: bool) -> bool:
    """Whether there may be colour and motion: a person looks, at a terminal that can, and did not
    say no (https://no-color.org).
    """
    dumb = environ.get("TERM", "dumb") == "dumb"
    return terminal and not dumb and not environ.get("NO_COLOR") and not environ.get("CI")
