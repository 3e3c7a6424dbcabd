"""How it ended, for a person: a single task in rows, a job as a table; cause and remedy of each
failure; and the next command.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence

from orchestrator.console.paint import Line, Span, Style, length, painted, style_of
from orchestrator.console.screen import changed, standing, total
from orchestrator.console.state import Board, Row, nested
from orchestrator.console.text import (
    between,
    cells,
    clock,
    cost,
    dollars,
    fit,
    one_line,
    padded,
    short_tokens,
    tokens,
    wrapped,
)
from orchestrator.errors import counted, shown
from orchestrator.events import Changes, Outcome, Usage

_LONG = 400
_NAME = 10
_FILES = 5
_HEAD = (
    "TASK", "OUTCOME", "VERIFIED", "AGENT", "MODEL", "TOKENS", "COST", "TIME", "FILES", "BRANCH",
)  # fmt: skip

# --- one task ------------------------------------------------------------------------------------


def summary(
    outcome: Outcome,
    *,
    workspace: str | None = None,
    width: int | None = None,
    colour: bool = False,
) -> str:
    """How a run ended: status, cause, remedy, work, figures, where to look, what next."""
    lines = summary_lines(outcome, workspace=workspace, width=width)
    return "\n".join(painted(line, colour=colour) for line in lines)


def summary_lines(
    outcome: Outcome,
    *,
    workspace: str | None = None,
    width: int | None = None,
    told: bool = False,
) -> list[Line]:
    """The same, in lines; `told`: the story was told already, so that is not what is next."""
    passed = ", verified by the check" if outcome.ok else ", though the check passed"
    verified = {True: passed, False: ", the check failed", None: ""}
    rows = [("outcome", f"{outcome.status}{verified[outcome.verified]}")]
    rows.extend(_why(outcome))
    if outcome.agent:
        rows.append(("agent", f"{outcome.agent} ({outcome.model or 'its own default model'})"))
    rows.extend(("privacy", fact[9:]) for fact in outcome.evidence if fact.startswith("privacy: "))
    rows.append(("changes", files(outcome.changes)))
    if branch := _branch(outcome):
        rows.append(("branch", branch))
    rows.append(("tokens", tokens(outcome.usage)))
    rows.append(("cost", cost(outcome.usage)))
    if outcome.duration_s is not None:
        rows.append(("time", clock(outcome.duration_s, tenths=True)))
    if workspace:
        rows.append(("workspace", workspace))
    if outcome.run_id:
        rows.append(("run", outcome.run_id))
    if outcome.ok and _branch(outcome):
        rows.append(("next", f"orchestrate runs diff {_short(outcome.run_id)}"))
    if outcome.ok or not told:
        rows.extend(("next", command) for command in following([outcome]))
    elif outcome.session_id and outcome.run_id:
        rows.append(("next", f'orchestrate runs resume {_short(outcome.run_id)} -p "..."'))
    styles: dict[str, Style] = {"outcome": style_of(outcome), "cause": "bad", "next": "bold"}
    return [
        line
        for name, text in rows
        for line in _named(
            f"{name:<{_NAME}} ",
            text,
            styles.get(name, "plain"),
            None if name == "next" else width,  # a command is copied whole
        )
    ]


def _named(name: str, text: str, style: Style, width: int | None) -> list[Line]:
    """A name and its text beside it, in as many lines as the width makes of it."""
    room = None if width is None else max(width - len(name), 1)
    first, *rest = wrapped(shown(text), room)
    indent = Span(" " * len(name))
    return [(Span(name, "dim"), Span(first, style)), *((indent, Span(one, style)) for one in rest)]


def _why(outcome: Outcome) -> list[tuple[str, str]]:
    if outcome.error is None:
        return []
    rows = [("cause", one_line(outcome.error.text, _LONG))]
    if outcome.error.hint:
        rows.append(("remedy", one_line(outcome.error.hint, _LONG)))
    return rows


def files(changes: Changes | None) -> str:
    match changes:
        case None:
            return "unknown"
        case changes if not changes.files:
            return "none"
        case changes:
            names = ", ".join(changes.files[:_FILES])
            more = len(changes.files) - _FILES
            rest = f" and {more} more" if more > 0 else ""
            return f"{names}{rest} (+{changes.insertions} -{changes.deletions})"


def following(outcomes: Sequence[Outcome]) -> list[str]:
    """The commands that a person wants next: take the work, or look at what went wrong."""
    good = [outcome for outcome in outcomes if outcome.ok]
    bad = [outcome for outcome in outcomes if not outcome.ok and outcome.run_id]
    commands = [f"git merge {branch}" for one in good if (branch := _branch(one))]
    for one in bad[:3]:
        what = "diff" if _branch(one) else "show"
        commands.append(f"orchestrate runs {what} {_short(one.run_id)}")
    return commands


def _branch(outcome: Outcome) -> str | None:
    return outcome.changes.branch if outcome.changes else None


def _short(run_id: str | None) -> str:
    return (run_id or "")[-8:]


# --- many tasks ----------------------------------------------------------------------------------


def job_summary(board: Board, *, width: int | None = None, colour: bool = False) -> str:
    """How a job ended: a table (or paragraphs, if the window is too narrow for it), a line for
    all, the causes and remedies, what next. `width` None: as wide as it must be.
    """
    rows = list(board.rows.values())
    lines = _overview(nested(rows), width)
    troubled = [*_troubled(rows), *_of_the_job(board)]
    parts = [lines, _all(board, rows, width), *(_problem(row, width) for row in troubled)]
    # What was handed on is its parent's to take.
    own = [row for row in _leaves(rows) if row.parent_run is None]
    good = [row.outcome for row in own if row.outcome and row.outcome.ok]
    if commands := following(good):
        parts.append(
            [line for one in commands for line in _named(f"{'next':<{_NAME}} ", one, "bold", None)]
        )
    return "\n\n".join(
        "\n".join(painted(line, colour=colour).rstrip() for line in part) for part in parts
    )


def tree(board: Board, *, width: int | None = None, colour: bool = False) -> str:
    """Who handed what on to whom, with the cost of each and of all."""
    rows = list(board.rows.values())
    parts = [_overview(nested(rows), width), _all(board, rows, width)]
    return "\n\n".join(
        "\n".join(painted(line, colour=colour).rstrip() for line in part) for part in parts
    )


def _overview(rows: Sequence[Row], width: int | None) -> list[Line]:
    """A table if there is room for it; with the branches below it, if not for them."""
    whole, narrow = _table(rows, len(_HEAD)), _table(rows, len(_HEAD) - 1)
    if width is None or all(length(line) <= width + 2 for line in whole):
        return whole
    if all(length(line) <= width + 2 for line in narrow):
        return [*narrow, *_branches(rows)]
    return [line for row in rows for line in _paragraph(row, width)]


def _branches(rows: Iterable[Row]) -> list[Line]:
    made = [(row.id, branch) for row in rows if row.outcome and (branch := _branch(row.outcome))]
    told = [line for id_, name in made for line in _named(f"{fit(id_, 40)}: ", name, "plain", None)]
    return [(), *told] if told else []


def _cells(row: Row) -> tuple[str, ...]:
    """What the table says of a task, in the order of its head."""
    outcome = row.outcome
    if outcome is None:
        return (row.id, standing(row), "-", row.agent or "-", row.model or "-", *("-",) * 5)
    verified = {True: "yes", False: "no", None: "-"}[outcome.verified]
    ran = outcome.run_id is not None
    unknown = "unknown" if ran else "-"
    changes = changed(outcome.changes).partition("file")[0].strip()
    return (
        row.id,
        outcome.status,
        verified,
        outcome.agent or row.agent or "-",
        outcome.model or row.model or "-",
        short_tokens(outcome.usage) if ran else "-",
        _dollars(outcome.usage) if ran else "-",
        "-" if outcome.duration_s is None else clock(outcome.duration_s, tenths=True),
        (changes or "0") if outcome.changes else unknown,
        _branch(outcome) or "-",
    )


def _dollars(usage: Usage | None) -> str:
    return "unknown" if usage is None or usage.cost_usd is None else dollars(usage.cost_usd)


def _table(rows: Iterable[Row], columns: int) -> list[Line]:
    head_of = _HEAD[:columns]
    told = [(row, tuple(fit(cell, 60) for cell in _cells(row)[:columns])) for row in rows]
    widths = [
        max(map(cells, column)) for column in zip(head_of, *(row for _, row in told), strict=True)
    ]

    def line(texts: Sequence[str], styles: Sequence[Style]) -> Line:
        laid = zip(texts, widths, styles, strict=False)
        return tuple(Span(f"{padded(text, width)}  ", style) for text, width, style in laid)

    dim: list[Style] = ["dim"] * columns
    head = line(head_of, dim)
    return [head, *(line(texts, _styles(row)) for row, texts in told)]


def _styles(row: Row) -> tuple[Style, ...]:
    good = style_of(row.outcome) if row.outcome else "doubtful"
    verified: Style = "plain"
    if row.outcome is not None and row.outcome.verified is not None:
        verified = "good" if row.outcome.verified else "bad"
    rest: list[Style] = ["plain"] * (len(_HEAD) - 3)
    return ("bold", good, verified, *rest)


def _paragraph(row: Row, width: int) -> list[Line]:
    """A task's cells one after another, in as many lines as they need."""
    id_, status, verified, agent, model, used, spent, time, changes, branch = _cells(row)
    facts = [
        f"{'verified' if verified == 'yes' else 'check failed'}" if verified != "-" else "",
        f"{agent} {model}" if agent != "-" else "",
        _of_tokens(used) if used != "-" else "",
        f"cost {spent}" if spent != "-" else "",
        time if time != "-" else "",
        f"{changes} {'file' if changes == '1' else 'files'}" if changes != "-" else "",
        branch if branch != "-" else "",
    ]
    style = style_of(row.outcome) if row.outcome else "doubtful"
    lines: list[list[Span]] = [[Span(fit(id_, width - 14), "bold"), Span(f"  {status}", style)]]
    for fact in filter(None, facts):
        if length(lines[-1]) + 2 + cells(fact) > width:
            lines.append([])
        lines[-1].append(Span(f"  {fit(fact, max(width - 2, 1))}"))
    return [tuple(line) for line in lines]


def _of_tokens(short: str) -> str:
    if short == "unknown":
        return "tokens unknown"
    return f"{short} token" if short == "1" else f"{short} tokens"


def _all(board: Board, rows: Sequence[Row], width: int | None) -> list[Line]:
    """One line for all tasks, or as many as a narrow window makes of it."""
    ended = Counter(map(standing, rows))
    good = ended["succeeded"] == len(rows)
    words = f"{ended['succeeded']} of {counted(len(rows), 'task')} succeeded"
    others = "".join(f", {ended[one]} {one}" for one in ("failed", "skipped") if ended[one])
    start = min((row.started for row in rows if row.started), default=None)
    end = max((row.ended for row in rows if row.ended), default=None)
    seconds = board.outcome.duration_s if board.outcome else None
    seconds = between(start, end) if seconds is None else seconds
    facts = [_of_tokens(short_tokens(total(rows))), f"cost {_sum(rows)}"]
    if seconds is not None:
        facts.append(clock(seconds, tenths=True))
    counts = Span(f"{words}{others}", "good" if good else "bad")
    line = (counts, Span("".join(f"  {fact}" for fact in facts), "dim"))
    if width is None or length(line) <= width:
        return [line]
    return [(counts,), *((Span(f"  {fact}", "dim"),) for fact in facts)]


def _sum(rows: Sequence[Row]) -> str:
    """What it cost; where a part is not known, the rest is a lower bound and says so."""
    ran = [row.usage for row in rows if row.outcome is None or row.outcome.run_id]
    known = [usage.cost_usd for usage in ran if usage is not None and usage.cost_usd is not None]
    if len(known) == len(ran):
        return dollars(sum(known))
    return (
        f"at least {dollars(sum(known))}, unknown for {len(ran) - len(known)}"
        if known
        else "unknown"
    )


def _troubled(rows: Iterable[Row]) -> list[Row]:
    return [row for row in rows if row.outcome is not None and standing(row) == "failed"]


def _of_the_job(board: Board) -> list[Row]:
    """What none of its tasks tells: a limit of all of them was passed."""
    outcome = board.outcome
    if outcome is None or outcome.error is None or outcome.error.limit is None:
        return []
    if any(row.outcome and row.outcome.error == outcome.error for row in board.rows.values()):
        return []
    return [Row(id="all tasks", outcome=outcome)]


def _problem(row: Row, width: int | None) -> list[Line]:
    assert row.outcome is not None  # noqa: S101 (only those that failed)
    name, style = f"{fit(row.id, 40)}: {row.outcome.status}", style_of(row.outcome)
    told: list[tuple[str, str, Style]] = [("", name, style)]
    why: list[tuple[str, str]] = _why(row.outcome)
    told.extend((what, text, "plain") for what, text in why)
    told.extend(("look", command, "plain") for command in following([row.outcome]))
    return [
        line
        for what, text, style in told
        for line in _named(
            f"  {what:<{_NAME - 2}} " if what else "",
            text,
            style,
            None if what == "look" else width,  # a command is copied whole
        )
    ]


def _leaves(rows: Sequence[Row]) -> list[Row]:
    """The tasks whose branch no other task's branch holds already."""
    by_id = {row.id: row for row in rows}
    held: set[str] = set()
    for row in rows:
        if row.outcome is not None and row.outcome.ok and _branch(row.outcome):
            held |= _needed(row, by_id)
    return [row for row in rows if row.id not in held]


def _needed(row: Row, by_id: Mapping[str, Row]) -> set[str]:
    """All that a task needs, and what that needs."""
    found: set[str] = set()
    ahead = list(row.needs)
    while ahead:
        if (id_ := ahead.pop()) not in found:
            found.add(id_)
            ahead.extend(by_id[id_].needs if id_ in by_id else ())
    return found
