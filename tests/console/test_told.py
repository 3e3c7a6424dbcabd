"""What is told of an event as it happens."""

from dataclasses import replace
from typing import get_args

import pytest
from hypothesis import given, settings

from orchestrator.console.paint import Style
from orchestrator.console.told import stays, task_told, told, tone
from orchestrator.events import (
    Check,
    Error,
    Failure,
    Limit,
    Message,
    Notice,
    Outcome,
    Permission,
    ProcessReaped,
    Retry,
    RouteEscalated,
    RunStarted,
    Stall,
    TaskFinished,
    TaskStarted,
    ToolCall,
    TurnStarted,
    Usage,
)
from tests import strategies
from tests.console.words import TEXT, event, steers
from tests.examples import examples


@settings(max_examples=examples(250))  # there are some three dozen kinds of update
@given(strategies.events(TEXT))
def test_no_event_steers_the_terminal(one):
    line = told(one)
    assert line is None or (line.encode() and not steers(line))
    assert tone(one) in get_args(Style)


@pytest.mark.parametrize(
    ("update", "line"),
    [
        (
            RunStarted(adapter="codex", model="gpt-x", server="http://desk:1", tier="local"),
            "codex: gpt-x (local http://desk:1), run run-1",
        ),
        (RunStarted(adapter="codex"), "codex: its own default model, run run-1"),
        (RunStarted(adapter="x", tier="cloud"), "codex: its own default model (cloud), run run-1"),
        (Notice(text="the model is scripted\nmore"), "  note: the model is scripted"),
        (Message(text="\nTwo\n\nlines\n"), "  Two\n  \n  lines"),
        (Message(text=" \n"), None),
        (Message(text="do it", role="user"), None),
        (ToolCall(id="a", status="pending", title="ls"), "  > ls"),
        (ToolCall(id="a", status="in_progress", title="ls\n-l"), "  > ls"),
        (ToolCall(id="a", status="in_progress"), None),
        (ToolCall(id="a", status="completed", title="ls"), None),
        (ToolCall(id="a", status="failed", title="ls", exit_code=2), "  failed (exit 2): ls"),
        (ToolCall(id="a", status="failed", output="no such file"), "  failed: no such file"),
        (ToolCall(id="a", status="failed"), "  failed: a"),
        (Permission(id="p", status="denied", tool="write"), "  denied: write"),
        (Permission(id="p", status="denied", tool="a", reason="b"), "  denied: a (b)"),
        (Permission(id="p", status="denied", reason="read-only"), "  denied: read-only"),
        (Permission(id="p", status="denied"), "  denied: p"),
        (Permission(id="p", status="granted"), None),
        (Retry(reason="429", attempt=2, of=5), "  retry 2/5: 429"),
        (Retry(reason="429", attempt=2), "  retry 2: 429"),
        (Retry(reason="429"), "  retry: 429"),
        (Error(kind="unavailable", text="refused"), "  error (unavailable): refused"),
        (
            Stall(budget="tool", seconds=300.0, action="stop"),
            "  stalled: no sign of life for 300 s (limits.tool)",
        ),
        (
            Limit(limit="tokens", value=9.0, action="none"),
            "  limit passed at its very end: tokens (9)",
        ),
        (
            Limit(limit="output", value=1024.0**3, action="stop"),
            "  limit reached: output (1,073,741,824)",
        ),
        (Limit(limit="cost_usd", value=1.25, action="stop"), "  limit reached: cost_usd (1.25)"),
        (ProcessReaped(survivors=0), None),
        (
            ProcessReaped(survivors=2),
            "  2 process(es) that the agent left behind were ended",
        ),
        (Check(command="pytest -q", passed=True), "  check passed: pytest -q"),
        (Check(command="pytest -q", passed=False), "  check FAILED: pytest -q"),
        (
            RouteEscalated(from_agent="a", to_agent="b", why="w"),
            "  moves on from a to b (expected cost: unknown): w",
        ),
        (TurnStarted(), None),
        (Usage(input_tokens=1), None),
    ],
)
def test_an_event_is_told_in_a_line(update, line):
    assert told(event(update)) == line


def test_a_run_without_an_agent_is_named_by_its_adapter():
    line = told(event(RunStarted(adapter="codex"), agent=None))
    assert line == "codex: its own default model, run run-1"


def test_of_many_tasks_only_what_a_person_must_know_stays():
    assert stays(event(Permission(id="p", status="denied")))
    assert stays(event(Stall(budget="b", seconds=1.0, action="stop")))
    assert stays(event(RouteEscalated(from_agent="a", to_agent="b", why="w")))
    assert stays(event(ProcessReaped(survivors=1)))
    for update in (
        Check(command="c", passed=False),
        Error(kind="unknown", text="x"),
        ProcessReaped(survivors=0),
        Message(text="x"),
        ToolCall(id="a", status="in_progress", title="ls"),
    ):
        assert not stays(event(update))


@pytest.mark.parametrize(
    ("update", "line"),
    [
        (TaskStarted(id="t"), "started"),
        (TaskFinished(outcome=Outcome(status="succeeded")), "succeeded"),
        (
            TaskFinished(
                outcome=Outcome(status="failed", error=Failure(kind="unknown", text="a\nb"))
            ),
            "failed: a",
        ),
        (Message(text="x"), None),
    ],
)
def test_of_many_tasks_it_is_told_when_each_begins_and_how_it_ends(update, line):
    assert task_told(event(update)) == line


def test_processes_that_are_left_running_are_named():
    line = told(event(ProcessReaped(survivors=0, kept=1)))
    assert line is not None
    assert line.startswith("  1 process(es) of the agent are left running (detached: keep)")


def test_each_kind_of_news_has_its_tone():
    assert tone(event(RunStarted(adapter="codex"))) == "bold"
    assert tone(event(Check(command="true", passed=True))) == "good"
    assert tone(event(Check(command="true", passed=False))) == "bad"
    assert tone(event(Notice(text="x"))) == "dim"
    assert tone(event(Message(text="x"))) == "plain"


@pytest.mark.parametrize(("tool", "named"), [("rm", "rm"), (None, "p")])
def test_what_a_person_allowed_is_told_and_what_a_rule_allowed_is_not(tool, named):
    granted = event(Permission(id="p", status="granted", tool=tool))
    assert told(granted) is None
    assert told(replace(granted, source="supervisor")) == f"  allowed: {named}"
