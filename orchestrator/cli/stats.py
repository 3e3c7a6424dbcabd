"""`stats`: what all recorded runs say together."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from orchestrator.cli.frame import (
    ConfigOption,
    configured,
    errors,
    fail,
    put,
    put_line,
    width,
)

if TYPE_CHECKING:
    from orchestrator.stats.shown import Report
    from orchestrator.stats.sums import Axis


class StatsForm(StrEnum):
    """What `--output` may be."""

    TEXT = "text"
    JSON = "json"
    CSV = "csv"


class By(StrEnum):
    """What `--by` may be."""

    AGENT = "agent"
    MODEL = "model"
    SERVER = "server"
    KIND = "kind"
    DAY = "day"
    REPOSITORY = "repository"
    TIER = "tier"


_UNITS = {"m": "minutes", "h": "hours", "d": "days", "w": "weeks"}


def stats(  # noqa: PLR0913, PLR0917 (each is a flag)
    by: Annotated[
        list[By] | None, typer.Option("--by", help="A line for each of these; may be repeated.")
    ] = None,
    since: Annotated[
        str | None, typer.Option(help="Runs that began since then: 7d, 12h, 2026-11-01.")
    ] = None,
    agent: Annotated[str | None, typer.Option(help="Only this agent's runs.")] = None,
    model: Annotated[str | None, typer.Option(help="Only runs on this model.")] = None,
    server: Annotated[str | None, typer.Option(help="Only runs on this server (address).")] = None,
    kind: Annotated[str | None, typer.Option(help="Only tasks of this kind.")] = None,
    repository: Annotated[
        str | None, typer.Option(help="Only runs in this repository: a folder in it.")
    ] = None,
    against: Annotated[
        str | None,
        typer.Option(help="Model to reckon savings with; default: the usual one in the cloud."),
    ] = None,
    output: Annotated[
        StatsForm, typer.Option("--output", "-o", help="text, json or csv.")
    ] = StatsForm.TEXT,
    config: ConfigOption = None,
) -> None:
    """Success, verification, escalations, tokens, cost, savings and speed of recorded runs.

    \b
    orchestrate stats --by agent --by kind --since 7d
    orchestrate stats --repository . --output csv
    """  # noqa: D301 (click takes \b for: leave these lines alone)
    from orchestrator.stats import shown

    with errors():
        state = configured(config).state
        wanted: dict[Axis, str | None] = {
            "agent": agent,
            "model": model,
            "server": server,
            "kind": kind,
            "repository": None if repository is None else _repository(repository, state),
        }
        report = _report(
            state,
            by=[one.value for one in by or [By.AGENT]],
            since=None if since is None else moment(since, datetime.now(UTC)),
            wanted={axis: word for axis, word in wanted.items() if word is not None},
            against=against,
        )
        match output:
            case StatsForm.TEXT:
                put(shown.as_text(report, width()))
            case StatsForm.JSON:
                put_line(shown.as_json(report))
            case StatsForm.CSV:
                put(shown.as_csv(report), end=False)


def moment(text: str, now: datetime) -> datetime:
    """`7d` before now, or a date or time (UTC unless it says otherwise). Raises InputError."""
    if (found := re.fullmatch(r"(\d{1,4})([mhdw])", text)) is not None:
        return now - timedelta(**{_UNITS[found[2]]: int(found[1])})
    try:
        at = datetime.fromisoformat(text)
    except ValueError:
        fail(f"--since {text!r}: neither an age (30m, 12h, 7d, 2w) nor a date (2026-11-01)")
    return at if at.tzinfo else at.replace(tzinfo=UTC)


def _repository(folder: str, state: Path) -> str:
    from orchestrator.stats.reading import repository_of

    if folder.startswith("scratch:"):
        return folder
    return repository_of(str(Path(folder).resolve()), str(state / "scratch"))


def _report(
    state: Path,
    *,
    by: Sequence[Axis],
    since: datetime | None,
    wanted: Mapping[Axis, str],
    against: str | None,
) -> Report:
    from orchestrator.prices import find_price, snapshot
    from orchestrator.stats.reading import read_jobs, read_runs
    from orchestrator.stats.shown import Report
    from orchestrator.stats.sums import grouped, matching, total, usual_cloud_model

    runs = matching(read_runs(state / "runs", since), wanted)
    cloud = against or usual_cloud_model(runs)
    price = find_price(cloud, snapshot()) if cloud is not None else None
    if against is not None and price is None:
        fail(f"--against {against!r}: no list price is known (prices of {snapshot().date})")
    return Report(
        by=tuple(by),
        groups=grouped(runs, by, price),
        total=total(runs, price),
        jobs=read_jobs(state / "jobs", since),
        broken=tuple(run for run in runs if run.problem is not None),
        since=None if since is None else since.isoformat(timespec="seconds"),
        cloud=cloud,
        prices=None if price is None else snapshot().date,
    )
