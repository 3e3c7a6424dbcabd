"""Sums as people and programs see them: unknown stays unknown, and what is left out is said."""

import csv
import json
from dataclasses import replace

import pytest

from orchestrator.events import Usage
from orchestrator.stats.reading import Jobs
from orchestrator.stats.shown import Report, as_csv, as_json, as_text
from orchestrator.stats.sums import Ran, grouped, total

NO_JOBS = Jobs(statuses={}, without_run={})
PAID = Ran(
    run_id="1",
    state="ended",
    work=("j", "a"),
    agent="cloud",
    tier="cloud",
    model="gpt-5.5",
    status="succeeded",
    ok=True,
    verified=True,
    usage=Usage(input_tokens=1500, output_tokens=20, cost_usd=0.12, cost_source="agent"),
    duration_s=4.0,
    first_token_s=0.5,
    model_s=2.0,
)
UNKNOWN = replace(PAID, run_id="2", work=("j", "b"), usage=None, ok=False, status="failed")
LOGIN = replace(PAID, run_id="3", work=("j", "c"), usage=Usage(cost_source="subscription"))
BROKEN = Ran(run_id="4", state="unreadable", problem="outcome.json: unexpected end")
RUNNING = Ran(run_id="5", state="running", agent="cloud", tier="cloud")
LOCAL = Ran(
    run_id="6",
    state="ended",
    work=("j", "d"),
    agent="desk",
    tier="local",
    status="succeeded",
    ok=True,
    usage=Usage(input_tokens=2 * 10**9, output_tokens=10**6, cost_usd=0.0, cost_source="local"),
    duration_s=600.0,
)


def report(*runs: Ran, **changes: object) -> Report:
    known = Report(
        by=("agent",),
        groups=grouped(runs, ["agent"]),
        total=total(runs),
        jobs=NO_JOBS,
        broken=tuple(run for run in runs if run.problem),
    )
    return replace(known, **changes)  # type: ignore[arg-type]


def cells(text: str) -> dict[str, str]:
    head, row = (line.split() for line in text.splitlines()[:2])
    return dict(zip(head, row, strict=True))


def test_a_group_is_a_line():
    assert cells(as_text(report(PAID))) == {
        "AGENT": "cloud",
        "RUNS": "1",
        "OK": "1/1",
        "95%": "21%-100%",
        "VERIFIED": "1/1",
        "ESCALATED": "-",
        "IN": "1.5k",
        "CACHED": "-",
        "OUT": "20",
        "COST": "$0.12",
        "SAVED": "-",
        "TIME": "4.0s",
        "FIRST": "0.5s",
        "TOK/S": "10.0",
    }


@pytest.mark.parametrize(
    ("runs", "cell"),
    [
        ([PAID, UNKNOWN], ">=$0.12"),
        ([UNKNOWN], "unknown"),
        ([LOGIN], "login"),
        ([LOGIN, UNKNOWN], "unknown"),
        ([RUNNING], "-"),
    ],
)
def test_a_cost_is_told_as_far_as_it_is_known(runs, cell):
    assert cells(as_text(report(*runs)))["COST"] == cell


def test_a_group_that_nothing_is_known_of_has_dashes():
    row = cells(as_text(report(RUNNING)))
    assert {name for name, cell in row.items() if cell != "-"} == {"AGENT", "RUNS"}


def test_what_local_runs_saved_is_unknown_without_a_price():
    row = cells(as_text(report(LOCAL)))
    assert (row["SAVED"], row["IN"], row["OUT"], row["TIME"]) == (
        "unknown",
        "2.0G",
        "1.0M",
        "10.0m",
    )


def test_two_groups_have_a_total():
    lines = as_text(report(PAID, LOCAL)).splitlines()
    assert [line.split()[:2] for line in lines[1:4]] == [
        ["cloud", "1"],
        ["desk", "1"],
        ["total", "2"],
    ]


def test_what_is_left_out_is_said_below():
    stopped = replace(PAID, run_id="7", status="interrupted", ok=False)
    cut = Ran(run_id="8", state="cut off")
    jobs = Jobs(
        statuses={"failed": 2, "cut off": 1},
        without_run={"skipped": 3},
        problems=(("job", "outcome.json: no"),),
    )
    text = as_text(report(PAID, UNKNOWN, LOGIN, BROKEN, RUNNING, stopped, cut, jobs=jobs))
    assert "runs 3 of unknown cost, 1 by login are not in it" in text
    left = "not in OK: 1 stopped by somebody, 1 running, 1 cut off (by a crash), 1 unreadable"
    assert left in text
    assert "jobs: 2 failed, 1 cut off" in text
    assert "tasks that came to no run: 3 skipped" in text
    assert "broken record 4: outcome.json: unexpected end" in text
    assert "broken record job: outcome.json: no" in text


def test_many_broken_records_are_counted():
    broken = [replace(BROKEN, run_id=f"run-{number}") for number in range(9)]
    text = as_text(report(*broken))
    assert text.count("broken record") == 5
    assert "... and 4 more" in text


def test_the_assumption_behind_savings_is_stated():
    assert "SAVED: unknown; name the cloud's model" in as_text(report(LOCAL))
    assert "as new has no list price" in as_text(report(LOCAL, cloud="new"))
    text = as_text(report(LOCAL, cloud="gpt-5.5", prices="2026-01-02"))
    assert "SAVED: what gpt-5.5 would have cost for the same tokens (prices of 2026-01-02)" in text


def test_no_runs_are_no_table():
    assert as_text(report()) == "no runs"
    assert as_text(report(since="2026-01-02")) == "no runs since 2026-01-02"


def test_no_name_steers_the_terminal():
    hostile = replace(PAID, agent="\x1b[2J", model="\x1b[2J")
    broken = replace(BROKEN, problem="\x1b[2J")
    text = as_text(report(hostile, broken, cloud="\x1b[2J", prices="2026"))
    assert "\x1b" not in text


# --- for programs ---------------------------------------------------------------------------------


def test_json_says_null_for_what_is_unknown():
    said = json.loads(as_json(report(UNKNOWN, BROKEN, cloud="gpt-5.5", prices="2026-01-02")))
    group = next(group for group in said["groups"] if group["agent"] == "cloud")
    assert (group["runs"], group["ok"], group["rate"]) == (1, 0, 0.0)
    assert (group["cost_usd"], group["runs_of_unknown_cost"]) == (None, 1)
    assert (group["input_tokens"], group["tokens_per_s"]) == (None, None)
    assert group["statuses"] == {"failed": 1}
    assert said["total"]["runs"] == 2
    assert (said["saved_against"], said["saved_prices"]) == ("gpt-5.5", "2026-01-02")
    assert said["problems"] == [{"id": "4", "problem": "outcome.json: unexpected end"}]


def test_csv_has_a_line_for_each_group_and_an_empty_cell_for_what_is_unknown():
    rows = list(
        csv.DictReader(as_csv(report(PAID, LOCAL, replace(UNKNOWN, agent="a\nb,"))).splitlines())
    )
    assert len(rows) >= 3
    (local,) = [row for row in rows if row["agent"] == "desk"]
    assert (local["cost_usd"], local["cost_source"], local["saved_usd"]) == ("0.0", "local", "")
    (paid,) = [row for row in rows if row["agent"] == "cloud"]
    assert (paid["cost_usd"], paid["rate"], paid["retried"]) == ("0.12", "1.0", "0")


@pytest.mark.parametrize("name", ["=1+1", "+1", "@x", "\tx"])
def test_no_name_is_a_formula_in_a_spreadsheet(name):
    (row,) = csv.DictReader(as_csv(report(replace(PAID, agent=name))).splitlines())
    assert row["agent"] == f"'{name}"
