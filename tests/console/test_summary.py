"""What a person sees: nothing hostile, one line where one is meant, the outcome in plain words."""

import re
import unicodedata
from typing import get_args

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from orchestrator.console import one_line, safe, step, summary, table, told
from orchestrator.events import (
    Changes,
    Check,
    Considered,
    Error,
    Event,
    Failure,
    Limit,
    Message,
    Notice,
    Outcome,
    Output,
    Permission,
    ProcessExited,
    ProcessReaped,
    Retry,
    RouteSelected,
    RunFinished,
    RunStarted,
    SessionStarted,
    Stall,
    Status,
    TaskFinished,
    Thought,
    ToolCall,
    TurnStarted,
    Unparsed,
    Update,
    Usage,
    WorkspaceChanged,
)
from tests import strategies

HOSTILE = (
    "\x1b[2J", "\x1b]0;title\x07", "\x9b31m", "\r", "\x08", "\x7f", "\0", "\u202e", "\u2066",
    "\u200b", "\ufeff", "\u2028", "\x85", "\U000e0041", "\udc80", "\xad",
)  # fmt: skip
TEXT = st.text(max_size=20) | st.lists(st.sampled_from(["a", "\n", *HOSTILE]), max_size=6).map(
    "".join
)
ANY = st.characters()
VISIBLE_FORMATS = re.compile(
    "[\u0600-\u0605\u06dd\u070f\u0890\u0891\u08e2\U000110bd\U000110cd\U00013430-\U0001343f]"
)


def steers(text: str) -> list[str]:
    """The characters that must not reach a terminal: controls, formats, surrogates, line ends."""
    return [
        hex(ord(character))
        for character in VISIBLE_FORMATS.sub("", text)
        if character not in "\n\t"
        and unicodedata.category(character) in {"Cc", "Cf", "Cs", "Zl", "Zp"}
    ]


def event(update: Update, agent: str | None = "codex") -> Event:
    return Event(
        seq=1, time="t", run_id="run-1", task_id="t", agent=agent, source="agent", update=update
    )


# --- nothing hostile ------------------------------------------------------------------------------


def test_of_all_unicode_nothing_hostile_is_left_by_safe():
    everything = "".join(map(chr, range(0x110000)))
    assert steers(everything)
    assert steers(safe(everything)) == []


@given(st.text(ANY))
def test_safe_text_can_be_written_and_keeps_its_lines(text):
    shown = safe(text)
    assert shown.encode() is not None
    assert steers(shown) == []
    assert shown.count("\n") == text.count("\n")
    assert shown.count("\t") == text.count("\t")


@settings(max_examples=1_000)  # there are some three dozen kinds of update
@given(strategies.events(TEXT))
def test_no_event_steers_the_terminal(one):
    for shown in (told(one), step(one)):
        assert shown is None or (shown.encode() and not steers(shown))


@given(strategies.whole(Outcome, TEXT), st.none() | TEXT)
def test_no_outcome_steers_the_terminal_or_breaks_its_rows(outcome, workspace):
    shown = summary(outcome, workspace=workspace)
    assert steers(shown) == []
    names = [line[:10].strip() for line in shown.splitlines()]
    assert set(names) <= {
        "outcome", "cause", "remedy", "agent", "changes", "tokens", "cost", "time", "workspace",
        "run",
    }  # fmt: skip
    assert len(set(names)) == len(names)


@given(st.lists(st.lists(TEXT, min_size=3, max_size=3), min_size=1, max_size=5))
def test_a_table_has_a_line_for_each_row(rows):
    shown = table(rows)
    assert steers(shown) == []
    assert shown.count("\n") == len(rows) - 1


@given(TEXT, st.integers(4, 120))
def test_one_line_is_one_line_and_no_longer(text, width):
    line = one_line(text, width)
    assert len(line) <= width
    assert len(line.splitlines()) <= 1
    assert steers(line) == []


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("", ""),
        ("\n\n  first \nsecond", "first"),
        ("a\tb", r"a\tb"),
        ("x" * 101, "x" * 97 + "..."),
        ("x" * 100, "x" * 100),
        ("\x1b[31mred", r"\x1b[31mred"),
    ],
)
def test_one_line_is_the_first_that_says_something(text, line):
    assert one_line(text) == line


# --- as it happens --------------------------------------------------------------------------------


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
        (Permission(id="p", status="denied", reason="read-only"), "  denied: read-only"),
        (Permission(id="p", status="denied"), "  denied: p"),
        (Permission(id="p", status="granted"), None),
        (Retry(reason="429", attempt=2, of=5), "  retry 2/5: 429"),
        (Retry(reason="429", attempt=2), "  retry: 429"),
        (Error(kind="unavailable", text="refused"), "  error (unavailable): refused"),
        (Stall(budget="b", seconds=300.0, action="stop"), "  stalled: no sign of life for 300 s"),
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
        (TurnStarted(), None),
        (Usage(input_tokens=1), None),
    ],
)
def test_an_event_is_told_in_a_line(update, line):
    assert told(event(update)) == line


def test_a_run_without_an_agent_is_named_by_its_adapter():
    line = told(event(RunStarted(adapter="codex"), agent=None))
    assert line == "codex: its own default model, run run-1"


# --- afterwards -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("update", "line"),
    [
        (
            RouteSelected(
                model="m",
                reason="first usable (local)",
                considered=[
                    Considered(agent="codex", chosen=True, reason="r"),
                    Considered(agent="claude", chosen=False, reason="not installed"),
                    Considered(agent="x", chosen=False, reason="later"),
                ],
            ),
            "chosen: codex (first usable (local)); not claude: not installed; not x: later",
        ),
        (RouteSelected(model=None, reason="r", considered=[]), "chosen: codex (r)"),
        (SessionStarted(session_id="s\n1"), r"session s\n1"),
        (Thought(text="hm\nhm"), "  thinks: hm"),
        (
            ToolCall(id="a", status="completed", title="ls", exit_code=0),
            "  done (exit 0): ls",
        ),
        (ToolCall(id="a", status="completed"), "  done: a"),
        (ToolCall(id="a", status="failed", title="ls"), "  failed: ls"),
        (Output(stream="stderr", text="warning"), "  stderr: warning"),
        (Output(stream="stderr", text=" "), None),
        (Output(stream="stdout", text="x"), None),
        (
            Unparsed(stream="stdout", text='{"new": 1}', reason="no rule"),
            '  not understood (no rule): {"new": 1}',
        ),
        (
            WorkspaceChanged(changes=Changes(files=["a\nb", "c"], insertions=1, deletions=0)),
            r"  changed: a\nb, c",
        ),
        (
            WorkspaceChanged(changes=Changes(files=[], insertions=0, deletions=0)),
            "  changed: nothing",
        ),
        (ProcessExited(pid=1, status=3), "  ended: exit 3"),
        (ProcessExited(pid=1, signal=9), "  ended: signal 9"),
        (Notice(text="x"), "  note: x"),
    ],
)
def test_a_step_is_told_in_a_line(update, line):
    assert step(event(update)) == line


def test_the_story_ends_with_the_evidence():
    outcome = Outcome(status="failed", evidence=["exit: 1", "incomplete: silent\nand more"])
    for update in (RunFinished(outcome=outcome), TaskFinished(outcome=outcome)):
        shown = step(event(update))
        assert shown is not None
        assert shown.startswith(
            "evidence:\n  - exit: 1\n  - incomplete: silent\n\noutcome    failed\n"
        )


# --- the outcome ----------------------------------------------------------------------------------


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
        "time       12.3 s\n"
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


def test_a_table_has_columns_as_wide_as_they_must_be():
    assert table([["RUN", "STATUS"], ["0", "failed"], ["long id", ""]]) == (
        "RUN      STATUS\n0        failed\nlong id"
    )
