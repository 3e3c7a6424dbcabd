"""The moving part of a terminal: what is on the board, laid out in lines for a window's size. Pure.

Two lines for each running task (three in a narrow window), one where there are too many of them;
finished ones are a number, and a line that scrolls away above (`ended`).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence

from orchestrator.console.paint import Line, Span, cut, length, style_of
from orchestrator.console.state import Board, Row, nested
from orchestrator.console.text import (
    between,
    cells,
    clock,
    dollars,
    fit,
    one_line,
    padded,
    short_tokens,
)
from orchestrator.events import Changes, Usage
from orchestrator.usage import add

NARROW = 60
_QUIET_S = 5.0  # what is done now shows since when, once that says something
_NAME = 20
_GAP = Span("  ")
_ORDER = ("running", "failed", "succeeded", "skipped", "waiting")


def frame(board: Board, now: str, *, columns: int, lines: int) -> list[Line]:
    """At most `lines` lines, the first one empty, none of them wider than `columns` cells."""
    running = nested(row for row in board.rows.values() if row.running)
    if not running and len(board.rows) < 2:
        return []
    many = len(board.rows) > 1
    head: list[Line] = [(), _head(board, now, columns)] if many else [()]
    room = lines - len(head)
    tall = 3 if columns < NARROW else 2
    if len(running) * tall <= room:
        named = running if many else ()
        made = [line for row in running for line in _tall(row, named, now, columns)]
    else:
        made = _flat(running, now, columns, room)
    return [cut(line, columns) for line in (*head, *made)][: max(lines, 0)]


# --- one task ------------------------------------------------------------------------------------


def _tall(row: Row, beside: Sequence[Row], now: str, columns: int) -> list[Line]:
    name = [Span(padded(fit(row.id, _NAME), _names(beside)), "bold"), _GAP] if beside else []
    who = [*name, *_who(row)]
    elapsed, figures = _elapsed(row, now), _figures(row.usage)
    doing = _doing(row, now, columns)
    if columns < NARROW:
        under = [(Span("  "), Span(figures, "dim"))] if figures else []
        return [_spread(who, [Span(elapsed)], columns), doing, *under]
    told = [_figures(one.usage) for one in beside or (row,)]
    beneath = max(map(cells, told))
    clocks = max(cells(_elapsed(one, now)) for one in beside or (row,))
    right = [Span(f"{elapsed:>{clocks}}")]
    if beneath:
        right.append(Span(f"  {padded(figures, beneath)}", "dim"))
    return [_spread(who, right, columns), doing]


def _flat(running: Sequence[Row], now: str, columns: int, room: int) -> list[Line]:
    """A line for each as far as there is room, and how many more there are."""
    if room <= 0:
        return []
    shown = running if len(running) <= room else running[: room - 1]
    names = _names(shown) if shown else 0
    made = [
        _spread(
            [Span(padded(fit(row.id, _NAME), names), "bold"), _GAP, Span(fit(row.doing, columns))],
            [Span(_elapsed(row, now), "dim")],
            columns,
        )
        for row in shown
    ]
    if len(shown) < len(running):
        made.append((Span(f"and {len(running) - len(shown)} more running", "dim"),))
    return made


def _names(rows: Iterable[Row]) -> int:
    return max(cells(fit(row.id, _NAME)) for row in rows)


def _who(row: Row) -> list[Span]:
    if row.agent is None:
        return []
    return [
        Span(fit(row.agent, 2 * _NAME)),
        Span(f" {fit(row.model, 2 * _NAME)}" if row.model else "", "dim"),
    ]


def _doing(row: Row, now: str, columns: int) -> Line:
    age = between(row.since, now) or 0.0
    since = [Span(clock(age), "dim")] if age >= _QUIET_S else []
    return _spread([_GAP, Span(fit(row.doing, columns))], since, columns)


def _elapsed(row: Row, now: str) -> str:
    return clock(between(row.started, row.ended or now) or 0.0)


def _figures(usage: Usage | None) -> str:
    """Tokens and cost as far as there were any."""
    if usage is None:
        return ""
    cost = "cost unknown" if usage.cost_usd is None else dollars(usage.cost_usd)
    count = short_tokens(usage)
    return f"{f'{count} tokens' if count != 'unknown' else 'tokens unknown'}  {cost}"


def _spread(left: Sequence[Span], right: Sequence[Span], columns: int) -> Line:
    """Left and right on one line; what is left gives way."""
    if not right:
        return cut(left, columns)
    room = columns - length(right) - 2
    kept = cut(left, room)
    return (*kept, Span(" " * (max(room - length(kept), 0) + 2)), *right)


# --- all tasks -----------------------------------------------------------------------------------


def standing(row: Row) -> str:
    """One word for where a task is."""
    if row.outcome is None:
        return "running" if row.running else "waiting"
    if row.outcome.ok:
        return "succeeded"
    return "skipped" if row.outcome.status == "skipped" else "failed"


def _head(board: Board, now: str, columns: int) -> Line:
    rows = list(board.rows.values())
    counted = Counter(map(standing, rows))
    words = [f"{counted[word]} {word}" for word in _ORDER if counted[word]]
    start = min((row.started for row in rows if row.started), default=now)
    right = [clock(between(start, now) or 0.0)]
    if columns >= NARROW:
        right.extend(filter(None, [_figures(total(rows))]))
    return _spread([Span(", ".join(words), "bold")], [Span("  ".join(right), "dim")], columns)


def total(rows: Iterable[Row]) -> Usage | None:
    """The usage of all; its cost is known only if it is known of each."""
    result: Usage | None = None
    for row in rows:
        result = add(result, row.usage)
    return result


def ended(row: Row, columns: int) -> list[Line]:
    """A finished task for above the moving part: how it ended, and the cause if it did not well."""
    outcome = row.outcome
    if outcome is None:
        return []
    mark = "✓" if outcome.ok else "-" if outcome.status == "skipped" else "✗"
    style = style_of(outcome)
    facts = [
        " ".join(filter(None, [row.agent, row.model])),
        clock(outcome.duration_s, tenths=True) if outcome.duration_s is not None else "",
        _figures(outcome.usage),
        changed(outcome.changes),
    ]
    told = "".join(f"  {fit(fact, 60)}" for fact in facts if fact)
    how = f"{mark} {fit(row.id, 2 * _NAME)}: {outcome.status}{verdict(outcome.verified)}"
    lines: list[Line] = [(Span(how, style), Span(told, "dim"))]
    if outcome.error is not None and not outcome.ok:
        lines.append((Span(f"    {one_line(outcome.error.text, columns)}"),))
    return [cut(line, columns) for line in lines]


def verdict(verified: bool | None) -> str:
    return {True: ", verified", False: ", the check failed", None: ""}[verified]


def changed(changes: Changes | None) -> str:
    if changes is None or not changes.files:
        return ""
    count = len(changes.files)
    return f"{count} file{'s' * (count > 1)} +{changes.insertions} -{changes.deletions}"
