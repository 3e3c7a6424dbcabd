"""How it ended, in plain words: a single task in rows, a job as a table."""

from typing import Any, get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.console.state import Board, Row
from orchestrator.console.summary import job_summary, summary, summary_lines
from orchestrator.console.text import cells
from orchestrator.events import Changes, Failure, Outcome, Status, Usage
from tests import strategies
from tests.console.words import TEXT, steers


@given(strategies.whole(Outcome, TEXT), st.none() | TEXT)
def test_no_outcome_steers_the_terminal_or_breaks_its_rows(outcome, workspace):
    shown = summary(outcome, workspace=workspace)
    assert steers(shown) == []
    names = [line[:10].strip() for line in shown.splitlines()]
    assert set(names) <= {
        "outcome", "cause", "remedy", "agent", "changes", "tokens", "cost", "time", "workspace",
        "run", "branch", "next",
    }  # fmt: skip
    assert sorted({*names} - {"next"}) == sorted(name for name in names if name != "next")


def rows(outcome: Outcome, workspace: str | None = None) -> dict[str, str]:
    lines = summary(outcome, workspace=workspace).splitlines()
    return {line[:11].strip(): line[11:] for line in lines}


def test_a_success_is_told_whole():
    outcome = Outcome(
        status="succeeded",
        verified=True,
        usage=Usage(
            input_tokens=12_345,
            cache_read_tokens=1_000,
            output_tokens=67,
            cost_usd=0.0123,
            cost_source="agent",
        ),
        changes=Changes(files=["a.py"], insertions=2, deletions=1),
        agent="codex",
        model="gpt-x",
        run_id="01a1",
        duration_s=12.34,
    )
    assert summary(outcome, workspace="/work/x") == (
        "outcome    succeeded, verified by the check\n"
        "agent      codex (gpt-x)\n"
        "changes    a.py (+2 -1)\n"
        "tokens     12,345 in, 1,000 cached, 67 out\n"
        "cost       $0.0123 (agent)\n"
        "time       12s\n"
        "workspace  /work/x\n"
        "run        01a1"
    )


@pytest.mark.parametrize("status", get_args(Status))
def test_every_outcome_has_its_status_cause_and_remedy(status):
    failure = Failure(kind="unknown", text="why\nmore", hint="what next")
    told_rows = rows(Outcome(status=status, error=failure))
    assert told_rows["outcome"] == status
    assert (told_rows["cause"], told_rows["remedy"]) == ("why", "what next")


def test_a_cause_without_a_remedy_has_no_such_row():
    assert "remedy" not in rows(Outcome(status="failed", error=Failure(kind="unknown", text="w")))


@pytest.mark.parametrize(
    ("status", "verified", "line"),
    [
        ("succeeded", True, "succeeded, verified by the check"),
        ("succeeded", None, "succeeded"),
        ("failed", False, "failed, the check failed"),
        ("failed", True, "failed, though the check passed"),
        ("denied", None, "denied"),
    ],
)
def test_the_check_is_told_beside_the_status(status, verified, line):
    assert rows(Outcome(status=status, verified=verified))["outcome"] == line


def test_what_is_not_known_is_called_unknown():
    told_rows = rows(Outcome(status="failed", agent="codex"))
    assert told_rows == {
        "outcome": "failed",
        "agent": "codex (its own default model)",
        "changes": "unknown",
        "tokens": "unknown",
        "cost": "unknown",
    }
    assert rows(Outcome(status="failed", usage=Usage()))["tokens"] == "unknown"


@pytest.mark.parametrize(
    ("usage", "line"),
    [
        (Usage(cost_usd=0.0, cost_source="local"), "$0.0000 (local)"),
        (Usage(cost_usd=1.5), "$1.5000"),
        (Usage(cost_usd=0.00004, cost_source="agent"), "below $0.0001 (agent)"),
        (Usage(cost_usd=None, cost_source="subscription"), "unknown"),
    ],
)
def test_a_cost_that_is_not_zero_never_looks_like_zero(usage, line):
    assert rows(Outcome(status="succeeded", usage=usage))["cost"] == line


def test_zero_tokens_are_zero_and_not_unknown():
    assert rows(Outcome(status="succeeded", usage=Usage(input_tokens=0)))["tokens"] == "0 in"


@pytest.mark.parametrize(
    ("files", "line"),
    [
        ([], "none"),
        (["a"], "a (+3 -2)"),
        (list("abcde"), "a, b, c, d, e (+3 -2)"),
        (list("abcdefg"), "a, b, c, d, e and 2 more (+3 -2)"),
        (["a\nb\x1b[2J"], r"a\nb\x1b[2J (+3 -2)"),
    ],
)
def test_changed_files_are_named_as_far_as_they_fit(files, line):
    changes = Changes(files=files, insertions=3, deletions=2)
    assert rows(Outcome(status="succeeded", changes=changes))["changes"] == line


# --- many tasks -----------------------------------------------------------------------------------


def row(id_: str, status: Status | None, needs: tuple[str, ...] = (), **outcome) -> Row:
    """A task that ended so, or is still going on."""
    started = "2026-01-01T10:00:00Z"
    if status is None:
        return Row(id=id_, needs=needs, started=started, agent="codex", model="m")
    run: dict[str, Any] = {"run_id": f"run-{id_}-12345678", "agent": "codex", "model": "m"}
    ended = Outcome(status=status, **run | outcome)
    return Row(id=id_, needs=needs, started=started, ended="2026-01-01T10:01:05Z", outcome=ended)


def shown_job(*rows: Row, width: int | None = None, outcome: Outcome | None = None) -> str:
    return job_summary(Board(rows={row.id: row for row in rows}, outcome=outcome), width=width)


GOOD: dict[str, Any] = {
    "verified": True,
    "usage": Usage(input_tokens=12_000, output_tokens=345, cost_usd=0.0123),
    "changes": Changes(files=["a", "b"], insertions=3, deletions=1, branch="orchestrate/x/fix-1"),
    "duration_s": 65.0,
}


def on_branch(name: str) -> dict[str, Any]:
    changes = Changes(files=["a"], insertions=1, deletions=0, branch=name)
    return {**GOOD, "changes": changes}


def test_a_job_is_a_table_a_line_for_all_and_what_next():
    assert shown_job(row("locate", "succeeded"), row("fix", "succeeded", ("locate",), **GOOD)) == (
        "TASK    OUTCOME    VERIFIED  AGENT  MODEL  TOKENS   COST     TIME   FILES    BRANCH\n"
        "locate  succeeded  -         codex  m      unknown  unknown  -      unknown  -\n"
        "fix     succeeded  yes       codex  m      12.3k    $0.0123  1m05s  2"
        "        orchestrate/x/fix-1\n"
        "\n"
        "2 of 2 tasks succeeded  12.3k tokens  cost at least $0.0123, unknown for 1  1m05s\n"
        "\n"
        "next       git merge orchestrate/x/fix-1"
    )


def test_every_failure_of_a_job_has_its_cause_remedy_and_where_to_look():
    failure = Failure(kind="check_failed", text="the check failed", hint="Look at it.")
    shown = shown_job(
        row("fix", "failed", verified=False, error=failure),
        row("review", "skipped", ("fix",), run_id=None),
        row("docs", None),
    )
    assert "fix     failed   no        codex" in shown
    table = {line.split()[0]: line.split()[1:] for line in shown.split("\n")[:4]}
    assert table["review"] == ["skipped", "-", "codex", "m", "-", "-", "-", "-", "-"]
    assert "docs    running  -         codex" in shown
    assert "0 of 3 tasks succeeded, 1 failed, 1 skipped" in shown
    assert (
        "fix: failed\n"
        "  cause    the check failed\n"
        "  remedy   Look at it.\n"
        "  look     orchestrate runs show 12345678"
    ) in shown
    assert "next" not in shown


def test_only_the_last_branches_are_to_be_merged():
    one = on_branch("one")
    two = on_branch("two")
    shown = shown_job(row("a", "succeeded", **one), row("b", "succeeded", ("a",), **two))
    assert "git merge two" in shown
    assert "git merge one" not in shown


def test_a_window_without_room_for_the_branches_has_them_below_the_table():
    table = shown_job(row("fix", "succeeded", **GOOD), width=78).split("\n\n")
    assert table[0].startswith("TASK  OUTCOME    VERIFIED")
    assert "BRANCH" not in table[0]
    assert table[1] == "fix: orchestrate/x/fix-1"


def test_a_branch_is_to_be_merged_though_later_tasks_changed_nothing():
    one = on_branch("one")
    shown = shown_job(
        row("a", "succeeded", **one), row("b", "succeeded", ("a",)), row("c", "failed", ("b", "x"))
    )
    assert "git merge one" in shown


def test_the_work_of_a_task_that_failed_can_be_looked_at():
    shown = shown_job(row("a", "failed", **GOOD))
    assert "look     orchestrate runs diff 12345678" in shown


def test_a_job_whose_costs_are_all_known_is_summed():
    assert "cost $0.0246 " in shown_job(row("a", "succeeded", **GOOD), row("b", "failed", **GOOD))


def test_a_job_s_own_time_is_told_where_it_is_known():
    outcome = Outcome(status="succeeded", duration_s=3.0)
    assert "cost unknown  3.0s" in shown_job(row("a", "succeeded"), outcome=outcome)


@given(
    st.lists(strategies.whole(Outcome, TEXT), max_size=4), st.none() | st.integers(20, 200), TEXT
)
def test_no_job_steers_the_terminal_and_a_narrow_window_has_no_wide_table(outcomes, width, name):
    made = {f"{name}{n}": Row(id=f"{name}{n}", outcome=one) for n, one in enumerate(outcomes)}
    shown = job_summary(Board(rows=made), width=width)
    assert steers(shown) == []
    table = shown.split("\n\n")[0].split("\n")
    if width is not None and table[0].startswith("TASK"):
        assert all(cells(line) <= width for line in table)


def test_a_narrow_window_has_paragraphs():
    assert shown_job(row("fix", "succeeded", **GOOD), width=40).split("\n\n")[0] == (
        "fix  succeeded  verified  codex m\n"
        "  12.3k tokens  cost $0.0123  1m05s\n"
        "  2 files  orchestrate/x/fix-1"
    )


def test_the_branch_of_a_lone_success_can_be_looked_at():
    shown = summary(Outcome(status="succeeded", run_id="run-12345678", **GOOD))
    assert "next       orchestrate runs diff 12345678" in shown


def test_a_task_that_is_needed_twice_is_found_once():
    made = [row("a", "succeeded", **GOOD), row("b", "succeeded", ("a",), **GOOD)]
    shown = shown_job(*made, row("c", "succeeded", ("a", "b"), **GOOD))
    assert shown.count("git merge") == 1


def test_a_limit_of_all_tasks_is_told_with_its_remedy_beside_them():
    skipped = Outcome(status="skipped", error=Failure(kind="skipped", text="not started"))
    why = Failure(
        kind="budget_exceeded", text="more than 9 tokens", hint="Raise it.", limit="tokens"
    )
    rows = {
        "a": Row(id="a", outcome=Outcome(status="succeeded")),
        "b": Row(id="b", outcome=skipped),
    }
    told = job_summary(Board(rows=rows, outcome=Outcome(status="budget_exceeded", error=why)))
    assert "all tasks: budget_exceeded\n" in told
    assert "more than 9 tokens" in told
    assert "Raise it." in told
    alone = {"a": Row(id="a", outcome=Outcome(status="budget_exceeded", error=why))}
    same = Board(rows=alone, outcome=Outcome(status="budget_exceeded", error=why))
    assert "all tasks" not in job_summary(same)


def test_a_failed_run_with_a_session_can_be_gone_on_with():
    outcome = Outcome(status="failed", session_id="s", run_id="01a1-abcdefgh")
    [*_, last] = summary_lines(outcome, told=True)
    assert "".join(span.text for span in last) == (
        'next       orchestrate runs resume abcdefgh -p "..."'
    )
