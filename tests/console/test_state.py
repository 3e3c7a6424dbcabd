"""The board: who does what now, what it has used, how it ended."""

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from orchestrator.console.state import Board, Row, board, family, fold, nested, titled
from orchestrator.events import Changes as Changed
from orchestrator.events import (
    Check,
    Event,
    JobFinished,
    JobOutcome,
    Limit,
    Message,
    MessageDelta,
    Notice,
    Outcome,
    Permission,
    ProcessExited,
    Retry,
    RouteEscalated,
    RouteSelected,
    RunFinished,
    RunStarted,
    SessionStarted,
    Stall,
    TaskFinished,
    TaskStarted,
    ToolCall,
    Usage,
    WorkspaceChanged,
)
from tests import strategies
from tests.console.words import TEXT, at
from tests.examples import examples

STARTED = RunStarted(adapter="codex", model="gpt-x", tier="cloud", auth="key")


def after(*events: Event, before: Board | None = None) -> Board:
    now = before or board()
    for event in events:
        now = fold(now, event)
    return now


def row(*events: Event) -> Row:
    return after(*events).rows["fix"]


def handed_on(task: str, run: str, by: str | None) -> tuple[Event, Event]:
    began = replace(at(0, TaskStarted(id=task), task, None), parent_run_id=by)
    return began, replace(at(1, STARTED, task, run), parent_run_id=by)


def test_what_was_handed_on_is_drawn_below_whoever_did():
    events = (
        *handed_on("plan", "r1", None),
        *handed_on("find", "r2", "r1"),
        *handed_on("other", "r3", None),
        *handed_on("deep", "r4", "r2"),
        at(2, STARTED, "plan", "r5"),  # another attempt of the first
        *handed_on("fix", "r6", "r5"),
    )
    now = after(*events)
    assert [one.id for one in nested(now.rows.values())] == [
        "plan",
        "├ find",
        "│ └ deep",
        "└ fix",
        "other",
    ]
    assert list(family(now, "r2").rows) == ["find", "deep"]
    assert list(family(now, "r3").rows) == ["other"]
    assert [one.id for one in nested(family(now, "r2").rows.values())] == ["find", "└ deep"]


def test_who_is_said_to_be_above_itself_is_drawn_all_the_same():
    now = after(*handed_on("odd", "r1", "r1"))
    assert [one.id for one in nested(now.rows.values())] == ["odd"]


@settings(max_examples=examples(60))
@given(st.lists(strategies.events(TEXT), max_size=8))
def test_any_events_make_a_board(events):
    rows = after(*events).rows
    assert all(key == one.id for key, one in rows.items())


def test_a_run_that_starts_says_who_does_it():
    one = row(at(0, RouteSelected(model="m", reason="r", considered=[])), at(1, STARTED))
    assert (one.agent, one.model, one.doing, one.running) == ("codex", "gpt-x", "starting", True)


def test_a_task_that_was_named_waits_until_its_first_event():
    before = board(["locate", "fix"])
    assert [(one.doing, one.running) for one in before.rows.values()] == [("waiting", False)] * 2
    now = after(at(0, TaskStarted(id="fix", needs=["locate"])), before=before)
    assert list(now.rows) == ["locate", "fix"]
    assert now.rows["fix"].running
    assert now.rows["fix"].needs == ("locate",)


def test_a_task_may_start_without_a_run():
    now = after(replace(at(0, TaskStarted(id="fix"), run=None), task_id=None))
    assert list(now.rows) == ["fix"]


@pytest.mark.parametrize(
    ("update", "doing"),
    [
        (SessionStarted(session_id="s"), "thinking"),
        (MessageDelta(text="a"), "writing"),
        (Message(text="\nI will\nlook"), "I will"),
        (Message(text=" "), "starting"),
        (Message(text="do it", role="user"), "starting"),
        (Permission(id="p", status="requested", tool="rm"), "asks for permission: rm"),
        (Permission(id="p", status="requested"), "asks for permission: p"),
        (Retry(reason="429"), "tries again: 429"),
        (Retry(reason="429", attempt=2), "tries again 2: 429"),
        (Retry(reason="429", attempt=2, of=5), "tries again 2/5: 429"),
        (RouteEscalated(from_agent="a", to_agent="b", why="w"), "moves on to b"),
        (Stall(budget="b", seconds=1.0, action="stop"), "is being stopped"),
        (ProcessExited(pid=1, status=0), "ended; looking at what changed"),
        (
            WorkspaceChanged(changes=Changed(files=[], insertions=0, deletions=0)),
            "checking",
        ),
        (Check(command="c", passed=True), "the check passed"),
        (Check(command="c", passed=False), "the check failed"),
        (Notice(text="x"), "starting"),
        (ToolCall(id="a", status="in_progress", title="ls"), "ls"),
        (ToolCall(id="a", status="pending", kind="read"), "read"),
        (ToolCall(id="a", status="pending"), "a tool"),
        (ToolCall(id="a", status="completed"), "thinking"),
        (ToolCall(id="a"), "thinking"),
    ],
)
def test_what_is_done_now_is_told(update, doing):
    assert row(at(0, STARTED), at(1, update)).doing == doing


def test_of_open_tool_calls_the_latest_is_shown_until_it_is_over():
    calls = [
        at(0, ToolCall(id="a", status="in_progress", title="one")),
        at(1, ToolCall(id="b", status="in_progress", title="two")),
        at(2, ToolCall(id="b", output="late")),
    ]
    assert (row(*calls).doing, row(*calls).since) == ("two", at(1, STARTED).time)
    ended = at(3, ToolCall(id="b", status="failed"))
    assert row(*calls, ended).doing == "one"
    assert titled(after(*calls), ended).update == ToolCall(id="b", status="failed", title="two")


def test_only_a_late_word_on_a_call_is_given_its_title():
    call = at(0, ToolCall(id="a", status="failed"))
    assert titled(board(), call) is call
    assert titled(board(["fix"]), call) is call
    assert titled(board(), at(0, Notice(text="x"))).update == Notice(text="x")


def test_nothing_new_is_the_same_board():
    now = after(at(0, STARTED), at(1, MessageDelta(text="a")))
    assert fold(now, at(2, MessageDelta(text="b"))) is now


def test_usage_is_summed_and_an_unknown_cost_stays_unknown():
    free = Usage(input_tokens=5, cost_usd=0.0, cost_source="local")
    local = row(at(0, STARTED), at(1, free), at(2, free)).usage
    assert local is not None
    assert (local.input_tokens, local.cost_usd) == (10, 0.0)
    cloud = row(at(0, STARTED), at(1, free), at(2, Usage(input_tokens=7))).usage
    assert cloud is not None
    assert (cloud.input_tokens, cloud.cost_usd) == (12, None)


def test_a_lone_run_ends_its_task_with_the_outcome_s_own_figures():
    outcome = Outcome(status="failed", agent="claude", model="m", usage=Usage(input_tokens=1))
    one = row(at(0, STARTED), at(5, RunFinished(outcome=outcome)))
    assert (one.running, one.agent, one.model, one.doing) == (False, "claude", "m", "failed")
    assert one.usage is outcome.usage


def test_an_announced_task_ends_only_when_it_says_so():
    events = [
        at(0, TaskStarted(id="fix")),
        at(1, STARTED),
        at(2, RunFinished(outcome=Outcome(status="failed"))),
    ]
    assert row(*events).running
    assert row(*events).doing == "the run ended: failed"
    ended = at(3, TaskFinished(outcome=Outcome(status="succeeded")))
    assert not row(*events, ended).running


def test_a_job_ends_with_its_outcome():
    outcome = JobOutcome(status="failed")
    assert after(at(0, JobFinished(outcome=outcome), run=None)).outcome is outcome


def test_a_limit_of_all_tasks_is_no_task_of_its_own():
    told = at(1, Limit(limit="tokens", value=9.0, action="stop"))
    of_the_job = replace(told, task_id=None, run_id=None)
    assert after(of_the_job, before=board(["fix"])).rows.keys() == {"fix"}
    assert row(at(0, STARTED), told).doing == "is being stopped"
    assert row(at(0, STARTED), at(1, Limit(limit="tokens", value=9.0, action="none"))).doing == (
        "starting"
    )
