"""Text for a person: nothing in it that steers a terminal, cut and padded by the cells it takes.

Width is counted as terminals do: two cells for wide characters, none for marks.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator, Sequence
from datetime import datetime
from itertools import zip_longest

from orchestrator.errors import HOSTILE, shown
from orchestrator.events import Usage

_HOSTILE = re.compile(f"[{HOSTILE}]")
_WIDTH = 100
_SMALLEST = 0.0001
_MARKS = 2  # on one character; a tower of them would cover the lines above
_NO_WIDTH = {"Mn", "Me", "Cf"}


def safe(text: str) -> str:
    r"""The text with everything that could steer a terminal escaped, as `\x1b`."""
    return _HOSTILE.sub(lambda found: found[0].encode("unicode_escape").decode(), text)


def one_line(text: str, width: int = _WIDTH) -> str:
    """The first line that says something, escaped and cut to `width`."""
    first = next((line for line in text.splitlines() if line.strip()), "")
    line = shown(first.strip())
    return line if len(line) <= width else f"{line[: width - 3]}..."


# --- cells ---------------------------------------------------------------------------------------


def cells(text: str) -> int:
    """How many cells of a terminal's line the text takes."""
    return len(text) if text.isascii() else sum(map(_cell, text))


def _cell(character: str) -> int:
    if unicodedata.category(character) in _NO_WIDTH:
        return 0
    return 2 if unicodedata.east_asian_width(character) in "WF" else 1


def fit(text: str, width: int) -> str:
    """The text as one escaped line of at most `width` cells; one that is cut ends with `…`."""
    if width <= 0:
        return ""
    enough = width * (_MARKS + 1) + 1
    line = shown(text[:enough])
    kept, whole = _first_cells(line, width)
    if whole and len(text) <= enough:
        return kept
    return f"{_first_cells(line, width - 1)[0]}…"


def _first_cells(line: str, width: int) -> tuple[str, bool]:
    """As much of the line as fits, and whether that is all of it."""
    if line.isascii():
        return line[:width], len(line) <= width
    kept, used, marks = "", 0, 0
    for character in line:
        cell = _cell(character)
        if used + cell > width:
            return kept, False
        used, marks = used + cell, 0 if cell else marks + 1
        if marks <= _MARKS:
            kept += character
    return kept, True


def padded(text: str, width: int) -> str:
    """The text with spaces up to `width` cells."""
    return text + " " * (width - cells(text))


def wrapped(text: str, width: int | None) -> list[str]:
    """The text in lines of at most `width` cells, broken at spaces. A word that is longer is left
    whole: a terminal wraps it, and an id or a path can still be copied.
    """
    if width is None or cells(text) <= width:
        return [text]
    indent = len(text) - len(text.lstrip())
    lines = [" " * indent]
    for word in text.split():
        if lines[-1].strip() and cells(lines[-1]) + 1 + cells(word) > width:
            lines.append(" " * indent)
        lines[-1] += f" {word}" if lines[-1].strip() else word
    return lines


def table(rows: Sequence[Sequence[str]], columns: int | None = None) -> str:
    """Rows of texts in columns; the first row is the head. In a window that is only `columns`
    wide, what is long is folded within its column: nothing is left out.
    """
    safe_rows = [[shown(cell) for cell in row] for row in rows]
    widths = [max(map(cells, column)) for column in zip(*safe_rows, strict=True)]
    if columns is not None:
        widths = _narrowed(widths, columns - len(_GAP) * (len(widths) - 1))
    return "\n".join(line for row in safe_rows for line in _laid(row, widths))


_GAP, _NARROWEST = "  ", 10


def _narrowed(widths: Sequence[int], room: int) -> list[int]:
    """The widest columns made smaller until all have room, or none can be smaller."""
    smaller = list(widths)
    while sum(smaller) > room and max(smaller) > _NARROWEST:
        smaller[smaller.index(max(smaller))] -= 1
    return smaller


def _laid(row: Sequence[str], widths: Sequence[int]) -> Iterator[str]:
    """The lines of one row."""
    folded = (_folded(cell, width) for cell, width in zip(row, widths, strict=True))
    for line in zip_longest(*folded, fillvalue=""):
        texts = (padded(text, width) for text, width in zip(line, widths, strict=True))
        yield _GAP.join(texts).rstrip()


def _folded(cell: str, width: int) -> list[str]:
    """The cell in lines of at most `width` cells, broken at spaces where there are some."""
    lines: list[str] = []
    for line in wrapped(cell, width):
        while cells(line) > width > 1:
            first = _first_cells(line, width)[0]
            lines.append(first)
            line = line[len(first) :]  # noqa: PLW2901 (what is left of it)
        lines.append(line)
    return lines


# --- figures -------------------------------------------------------------------------------------


def tokens(usage: Usage | None) -> str:
    """All that were counted, by what they are."""
    if usage is None:
        return "unknown"
    parts = (
        (usage.input_tokens, "in"),
        (usage.cache_read_tokens, "cached"),
        (usage.output_tokens, "out"),
    )
    return ", ".join(f"{count:,} {name}" for count, name in parts if count is not None) or "unknown"


def short_tokens(usage: Usage | None) -> str:
    """One number for all that the model read and wrote, as `12.3k`."""
    if usage is None:
        return "unknown"
    parts = (
        usage.input_tokens,
        usage.cache_read_tokens,
        usage.cache_write_tokens,
        usage.output_tokens,
    )
    counted = [count for count in parts if count is not None]
    return _short(sum(counted)) if counted else "unknown"


def _short(count: int) -> str:
    for size, letter in ((1_000_000_000, "G"), (1_000_000, "M"), (1_000, "k")):
        if count >= size:
            return (
                f"{count / size:.1f}{letter}" if count < 100 * size else f"{count // size}{letter}"
            )
    return str(count)


def cost(usage: Usage | None) -> str:
    """Dollars and who says so; never 0 when it is not, never a number when it is not known."""
    if usage is None or usage.cost_usd is None:
        return "unknown"
    source = f" ({usage.cost_source})" if usage.cost_source else ""
    return f"{dollars(usage.cost_usd)}{source}"


def dollars(value: float) -> str:
    if 0 < value < _SMALLEST:
        return f"below ${_SMALLEST}"
    return f"${value:.4f}" if value < 10 else f"${value:,.2f}"


def clock(seconds: float, *, tenths: bool = False) -> str:
    """A duration as people read it: 8s (or 8.4s), 42s, 1m05s, 2h03m."""
    if tenths and seconds < 10:
        return f"{max(seconds, 0):.1f}s"
    whole = max(int(seconds), 0)
    if whole < 60:
        return f"{whole}s"
    if whole < 3600:
        return f"{whole // 60}m{whole % 60:02}s"
    return f"{whole // 3600}h{whole % 3600 // 60:02}m"


def between(start: str | None, end: str | None) -> float | None:
    """Seconds between two times of events (RFC 3339), None if one of them is none."""
    if start is None or end is None:
        return None
    try:
        return (datetime.fromisoformat(end) - datetime.fromisoformat(start)).total_seconds()
    except (ValueError, TypeError):  # a record of somebody else's making
        return None
