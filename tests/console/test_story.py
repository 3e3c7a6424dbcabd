"""The story of a run: every step that matters, in order, short, and nothing that steers."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from orchestrator.console.paint import painted
from orchestrator.console.story import Asked, course, per_file, story
from orchestrator.events import (
    Changes,
    Check,
    Considered,
    Error,
    Event,
    JobFinished,
    JobOutcome,
    Limit,
    Message,
    Notice,
    Outcome,
    Output,
    Permission,
    Plan,
    PlanEntry,
    ProcessExited,
    ProcessReaped,
    RateLimit,
    Retry,
    RouteEscalated,
    RouteSelected,
    RouteVerified,
    RunFinished,
    RunStarted,
    SessionStarted,
    Stall,
    Subagent,
    TaskFinished,
    TaskStarted,
    Thought,
    ToolCall,
    TurnFinished,
    Unparsed,
    Update,
    Usage,
    WorkspaceChanged,
)
from tests import strategies
from tests.console.words import TEXT, at, steers
from tests.examples import examples

ASKED = Asked(run_id="01a21df4-49b60752", started="today", prompt="do it\nnow", workspace="/w")


def told(*events: Event, full: bool = False, asked: Asked = ASKED) -> str:
    return "\n".join(painted(line, colour=False) for line in story(asked, events, full=full))


def steps(*updates: Update, full: bool = False) -> list[str]:
    """The lines between what was asked and how it ended, without their times."""
    events = [at(number, update) for number, update in enumerate(updates)]
    lines = told(*events, full=full).split("\n")
    return [line[9:].rstrip() for line in lines[lines.index("") + 1 : -2]]


@settings(max_examples=examples(100))
@given(st.lists(strategies.events(TEXT), max_size=6), st.booleans(), TEXT)
def test_no_story_steers_the_terminal(events, full, prompt):
    asked = Asked(run_id=prompt, started=prompt, prompt=prompt, workspace=prompt)
    for line in story(asked, events, full=full):
        assert steers(painted(line, colour=False)) == []
        assert "\n" not in painted(line, colour=False)


def test_a_story_begins_with_what_was_asked():
    assert told().split("\n")[:6] == [
        "run        01a21df4-49b60752",
        "started    today",
        "workspace  /w",
        "asked      do it",
        "           now",
        "",
    ]


def test_a_tool_call_is_told_when_it_is_over_with_its_time_and_result():
    lines = told(
        at(0, ToolCall(id="a", status="in_progress", kind="execute", title="pytest -q")),
        at(5, ToolCall(id="a", output="1\n2\n3\n4\n5\n6\n7\n")),
        at(65, ToolCall(id="a", status="completed", exit_code=1)),
        at(66, ToolCall(id="a", status="completed")),
    ).split("\n")[6:]
    assert lines[:9] == [
        "  1m05s  execute   pytest -q  (exit 1, 1m05s)",
        *(f"                   {line}" for line in ("... 1 line before", *"234567")),
        "",
    ]


def test_a_call_that_never_ended_is_told_as_such():
    assert "execute   make  (never ended)" in told(
        at(0, ToolCall(id="a", status="in_progress", kind="execute", title="make"))
    )


@pytest.mark.parametrize(
    ("update", "lines"),
    [
        (
            RunStarted(adapter="codex", model="m", tier="cloud", auth="key", cli_version="1.2"),
            ["run       codex: m (cloud, key), codex 1.2"],
        ),
        (RunStarted(adapter="x"), ["run       codex: its own default model"]),
        (
            RouteSelected(
                model="m",
                reason="first usable",
                considered=[
                    Considered(agent="codex", chosen=True, reason="r"),
                    Considered(agent="claude", chosen=False, reason="not installed"),
                ],
            ),
            ["chosen    codex (first usable)", "          not claude: not installed"],
        ),
        (SessionStarted(session_id="s\n1"), [r"session   s\n1"]),
        (Message(text="\nOne\ntwo\n"), ["says      One", "          two"]),
        (
            Message(text="\n".join("abcdefghijklmn")),
            [
                "says      a",
                *(f"          {c}" for c in "bcdefghijkl"),
                "          ... 2 more lines",
            ],
        ),
        (Message(text="go on", role="user"), ["is told   go on"]),
        (Message(text=" "), []),
        (Thought(text="hm\nhm"), ["thinks    hm"]),
        (ToolCall(id="a", status="completed", kind="read", title="f", output="x"), ["read      f"]),
        (
            ToolCall(id="a", status="failed", kind="edit", output="no such file"),
            ["edit      a  (failed)", "          no such file"],
        ),
        (
            ToolCall(id="a", status="completed", kind="execute", output="x" * 300),
            ["execute   a", f"          {'x' * 197}..."],
        ),
        (Notice(text="n"), ["note      n"]),
        (Permission(id="p", status="denied", tool="rm", reason="no"), ["denied    rm: no"]),
        (Permission(id="p", status="granted"), ["granted   p"]),
        (Retry(reason="429", attempt=1, of=3), ["retry     1/3 429"]),
        (RateLimit(status="low", resets_at="noon"), ["limits    low, until noon"]),
        (RateLimit(status="low"), ["limits    low"]),
        (Error(kind="unknown", text="x"), ["error     unknown: x"]),
        (
            Plan(entries=[PlanEntry(text="a", status="completed")]),
            ["plan      1 step", "          [x] a"],
        ),
        (Subagent(id="s", status="started", child_agent="x"), ["subagent  started x"]),
        (Output(stream="stderr", text="w"), ["stderr    w"]),
        (Output(stream="stderr", text=" "), []),
        (
            Unparsed(stream="stdout", text="{}", reason="no rule"),
            ["line      not understood (no rule): {}"],
        ),
        (RouteVerified(method="claimed", model="m"), ["served by m (the agent's own word)"]),
        (
            RouteEscalated(from_agent="a", to_agent="b", why="w"),
            ["moves on  from a to b: w"],
        ),
        (
            Stall(budget="b", seconds=9.0, action="stop"),
            ["stalled   no sign of life for 9 s: stop"],
        ),
        (Limit(limit="wall", value=5.0, action="stop"), ["limit     wall (5)"]),
        (ProcessExited(pid=1, status=3), ["ended     exit 3"]),
        (ProcessExited(pid=1, signal=9), ["ended     signal 9"]),
        (ProcessReaped(survivors=2), ["left over 2 process(es) were ended"]),
        (ProcessReaped(survivors=0), []),
        (
            WorkspaceChanged(changes=Changes(files=[], insertions=0, deletions=0)),
            ["changed   nothing"],
        ),
        (
            Check(command="c", passed=False, exit=1, output="a\n\nb\n"),
            ["check     FAILED (exit 1): c", "          a", "          b"],
        ),
        (Check(command="c", passed=True, exit=0), ["check     passed (exit 0): c"]),
        (Check(command="c", passed=False), ["check     FAILED (did not end): c"]),
        (TaskStarted(id="t", needs=["a", "b"]), ["task      t begins after a, b"]),
        (TurnFinished(stop_reason="end_turn"), []),
        (TurnFinished(stop_reason="refusal"), ["turn      ended: refusal"]),
        (Usage(input_tokens=1), []),
    ],
)
def test_a_step_is_told(update, lines):
    assert steps(update) == lines


def test_everything_is_told_when_everything_is_wanted():
    long = "x" * 500
    call = ToolCall(
        id="a", status="completed", kind="read", title=long, input={"k": 1}, output="o", diff="+d"
    )
    assert steps(call, full=True) == [
        f"read      {long}",
        *(f"          {line}" for line in ('{"k":1}', "o", "+d")),
    ]
    assert steps(Thought(text="a\nb"), full=True) == ["thinks    a", "          b"]
    assert steps(Usage(input_tokens=1), full=True)[0].startswith("usage     Usage(")
    assert steps(Message(text="\n".join("abcdefghijklmn")), full=True)[-1] == "          n"
    assert steps(TurnFinished(stop_reason="end_turn"), full=True) == ["turn      ended: end_turn"]
    tail = "\n".join(str(number) for number in range(40))
    assert len(steps(Check(command="c", passed=False, exit=1, output=tail), full=True)) == 41


def test_noise_of_one_kind_is_counted_after_three_lines():
    noise = [Output(stream="stderr", text=f"w{number}") for number in range(100)]
    assert steps(*noise, Notice(text="n")) == [
        "stderr    w0",
        "stderr    w1",
        "stderr    w2",
        "          ... 97 more like this (--full shows them)",
        "note      n",
    ]
    assert len(steps(*noise, full=True)) == 100


DIFF = """diff --git a/a b/a
index 1..2 100644
--- a/a
+++ b/a
@@ -1,2 +1,2 @@
-old
+new
+--- b
 same
diff --git a/b.png b/b.png
Binary files a/b.png and b/b.png differ
"""


def test_each_changed_file_is_told_with_its_lines():
    assert per_file(DIFF) == {"a": (2, 1), "b.png": (0, 0)}
    changes = Changes(files=["a", "b.png", "c"], insertions=2, deletions=1, diff=DIFF)
    assert steps(WorkspaceChanged(changes=changes)) == [
        "changed   3 files (+2 -1)",
        "          a      +2 -1",
        "          b.png  +0 -0",
        "          c",
    ]
    changes.truncated = True  # then nobody knows
    assert steps(WorkspaceChanged(changes=changes))[1] == "          a"


def test_the_end_says_why_and_what_next():
    outcome = Outcome(
        status="failed", evidence=["exit: 1"], session_id="s", run_id="01a21df4-49b60752"
    )
    shown = told(at(0, RunFinished(outcome=outcome)))
    assert "why\n  - exit: 1\n\noutcome    failed\n" in shown
    assert shown.endswith('next       orchestrate runs resume 49b60752 -p "..."')


def test_a_run_that_goes_on_or_was_cut_off_says_so():
    assert told().endswith("The record ends here: orchestrate was stopped before the run was over.")
    running = Asked(run_id="r-12345678", started="t", prompt="p", workspace="w", running=True)
    assert told(asked=running).endswith("It is still running.  orchestrate runs tail 12345678")


def test_a_resumed_run_names_the_one_before():
    asked = Asked(run_id="r", started="t", prompt="p", workspace="w", resumed="older")
    assert "resumes    older" in told(asked=asked)


def test_a_job_is_told_by_its_tasks():
    shown = told(
        at(0, TaskStarted(id="fix"), "fix", run=None),
        at(1, TaskFinished(outcome=Outcome(status="succeeded")), "fix", run=None),
        at(2, JobFinished(outcome=JobOutcome(status="succeeded")), "fix", run=None),
    )
    assert "task      fix: fix begins" in shown
    assert "task      fix: ended: succeeded" in shown
    assert "outcome    succeeded" in shown


def test_the_course_of_a_job_is_its_steps_alone():
    lines = course([at(0, TaskStarted(id="fix", needs=["a"]), "fix", run=None)])
    assert [painted(line, colour=False) for line in lines] == [
        "     0s  task      fix: fix begins after a"
    ]


def test_ten_thousand_events_are_told_as_they_come():
    told_lines = story(ASKED, (at(n, Message(text="x")) for n in range(10_000)))
    assert sum(1 for _ in told_lines) > 10_000


def test_a_line_comes_before_the_last_event_is_there():
    def events():
        yield at(0, Message(text="first"))
        yield at(1, Notice(text="second"))
        raise AssertionError("read ahead")

    lines = story(ASKED, events())
    seen = [painted(next(lines), colour=False) for _ in range(7)]
    assert seen[-1].endswith("says      first")
