"""Sums as a table for people, as JSON and as CSV for programs. Pure. None is unknown: `null`, or
an empty cell.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import orjson

from orchestrator.console import one_line, table
from orchestrator.events import Usage
from orchestrator.stats.reading import Jobs
from orchestrator.stats.sums import Axis, Ran, Sums
from orchestrator.usage import Bill, dollars

_PROBLEMS = 5


@dataclass(frozen=True, kw_only=True)
class Report:
    """All there is to show. `cloud` is the model that savings are reckoned against, `prices` the
    day of the list that has its price, None: there is no price.
    """

    by: tuple[Axis, ...]
    groups: tuple[Sums, ...]
    total: Sums
    jobs: Jobs
    broken: tuple[Ran, ...] = ()
    since: str | None = None
    cloud: str | None = None
    prices: str | None = None


# --- for programs --------------------------------------------------------------------------------


def as_json(report: Report) -> bytes:
    """One object."""
    content = {
        "since": report.since,
        "by": report.by,
        "groups": [_flat(report.by, group) for group in report.groups],
        "total": _flat((), report.total),
        "saved_against": report.cloud,
        "saved_prices": report.prices,
        "jobs": {
            "statuses": report.jobs.statuses,
            "tasks_without_run": report.jobs.without_run,
        },
        "problems": [{"id": name, "problem": problem} for name, problem in _problems(report)],
    }
    return orjson.dumps(content, option=orjson.OPT_INDENT_2)


def as_csv(report: Report) -> str:
    """A line for each group, under a line of names."""
    lines = io.StringIO()
    rows = [_flat(report.by, group) for group in report.groups]
    names = [name for name in _flat(report.by, report.total) if name != "statuses"]
    writer = csv.writer(lines, lineterminator="\n")
    writer.writerow(names)
    writer.writerows([_cell(row[name]) for name in names] for row in rows)
    return lines.getvalue()


def _cell(value: object) -> object:
    # A spreadsheet takes such a text for a formula.
    return f"'{value}" if isinstance(value, str) and value[:1] in tuple("=+@\t\r") else value


def _flat(by: Sequence[Axis], sums: Sums) -> dict[str, object]:
    usage = sums.bill.usage or Usage()
    return {
        **dict(zip(by, sums.key, strict=False)),
        "runs": sums.runs,
        "running": sums.running,
        "cut_off": sums.cut_off,
        "unreadable": sums.unreadable,
        "stopped": sums.stopped,
        "counted": sums.counted,
        "ok": sums.ok,
        "rate": _rounded(sums.rate),
        "rate_low": _rounded(sums.low),
        "rate_high": _rounded(sums.high),
        "checked": sums.checked,
        "verified": sums.verified,
        "escalated": sums.left,
        "retried": sums.again,
        "input_tokens": usage.input_tokens,
        "cache_read_tokens": usage.cache_read_tokens,
        "cache_write_tokens": usage.cache_write_tokens,
        "output_tokens": usage.output_tokens,
        "reasoning_tokens": usage.reasoning_tokens,
        "cost_usd": _rounded(sums.bill.cost_usd, 6),
        "cost_at_least_usd": _rounded(sums.bill.at_least_usd, 6),
        "cost_source": usage.cost_source,
        "runs_of_unknown_cost": sums.bill.unknown,
        "runs_under_subscription": sums.bill.subscribed,
        "saved_usd": _rounded(sums.saved_usd, 6),
        "duration_s": _rounded(sums.duration_s, 3),
        "first_token_s": _rounded(sums.first_token_s, 3),
        "tokens_per_s": _rounded(sums.tokens_per_s, 2),
        "statuses": sums.statuses,
    }


def _rounded(value: float | None, digits: int = 4) -> float | None:
    return None if value is None else round(value, digits)


# --- for people ----------------------------------------------------------------------------------

_HEAD = (
    *("RUNS", "OK", "95%", "VERIFIED", "ESCALATED", "IN", "CACHED", "OUT"),
    *("COST", "SAVED", "TIME", "FIRST", "TOK/S"),
)


def as_text(report: Report, columns: int | None = None) -> str:
    """A table with a line for each group, and below it what its numbers mean."""
    if not report.total.runs:
        return "no runs" if report.since is None else f"no runs since {report.since}"
    rows = [[*(axis.upper() for axis in report.by), *_HEAD]]
    rows += [[*(one_line(word, 40) for word in group.key), *_row(group)] for group in report.groups]
    if len(report.groups) > 1:
        rows.append(["total", *[""] * (len(report.by) - 1), *_row(report.total)])
    return "\n".join([table(rows, columns), "", *_notes(report)])


def _row(sums: Sums) -> list[str]:
    usage = sums.bill.usage or Usage()
    return [
        str(sums.runs),
        f"{sums.ok}/{sums.counted}" if sums.counted else "-",
        "-" if sums.low is None or sums.high is None else f"{sums.low:.0%}-{sums.high:.0%}",
        f"{sums.verified}/{sums.checked}" if sums.checked else "-",
        str(sums.left or "-"),
        _short(usage.input_tokens),
        _short(usage.cache_read_tokens),
        _short(usage.output_tokens),
        _cost(sums.bill),
        "unknown" if sums.saved_usd is None else dollars(sums.saved_usd) if sums.saved_usd else "-",
        _seconds(sums.duration_s),
        _seconds(sums.first_token_s),
        "-" if sums.tokens_per_s is None else f"{sums.tokens_per_s:.1f}",
    ]


def _cost(bill: Bill) -> str:
    """The cost in a cell: the words for it are below the table."""
    if bill.cost_usd is not None:
        return dollars(bill.cost_usd)
    if bill.at_least_usd:
        return f">={dollars(bill.at_least_usd)}"
    return "login" if bill.subscribed and not bill.unknown else "unknown" if bill.runs else "-"


def _short(count: int | None) -> str:
    if count is None:
        return "-"
    for unit, size in (("G", 10**9), ("M", 10**6), ("k", 10**3)):
        if count >= size:
            return f"{count / size:.1f}{unit}"
    return str(count)


def _seconds(value: float | None) -> str:
    if value is None:
        return "-"
    return f"{value:.1f}s" if value < 120 else f"{value / 60:.1f}m"


def _notes(report: Report) -> Iterator[str]:
    """What stands below the table: how to read it, and all that it leaves out."""
    sums = report.total
    yield "OK: of the runs that nobody stopped; 95%: where the true rate is (Wilson's interval)."
    yield "TIME, FIRST: medians. FIRST: from the program's start to the model's first word."
    yield "TOK/S: output tokens by the time in which no tool was at work."
    gaps = _counts({"of unknown cost": sums.bill.unknown, "by login": sums.bill.subscribed})
    if gaps:
        yield f"COST: the known part; runs {gaps} are not in it."
    yield _saving(report)
    left = {
        "stopped by somebody": sums.stopped,
        "running": sums.running,
        "cut off (by a crash)": sums.cut_off,
        "unreadable": sums.unreadable,
    }
    if counts := _counts(left):
        yield f"not in OK: {counts}"
    if report.jobs.statuses:
        yield f"jobs: {_counts(report.jobs.statuses)}"
    if report.jobs.without_run:
        yield f"tasks that came to no run: {_counts(report.jobs.without_run)}"
    problems = list(_problems(report))
    for name, problem in problems[:_PROBLEMS]:
        yield f"broken record {name}: {one_line(problem)}"
    if len(problems) > _PROBLEMS:
        yield f"... and {len(problems) - _PROBLEMS} more: see --output json"


def _saving(report: Report) -> str:
    if report.cloud is None:
        return (
            "SAVED: unknown; name the cloud's model that would have done the work: --against MODEL"
        )
    if report.prices is None:
        return f"SAVED: unknown, as {one_line(report.cloud, 60)} has no list price: --against MODEL"
    return (
        f"SAVED: what {one_line(report.cloud, 60)} would have cost for the same tokens (prices of "
        f"{report.prices}), for tasks that succeeded without the cloud."
    )


def _counts(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{count} {what}" for what, count in counts.items() if count)


def _problems(report: Report) -> Iterable[tuple[str, str]]:
    yield from ((run.run_id, run.problem) for run in report.broken if run.problem is not None)
    yield from report.jobs.problems
