"""How a run ended: every known trap, every kind of failure, and no success without its evidence."""

import signal
from dataclasses import replace
from typing import get_args

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from orchestrator.adapter import Agent, Exit
from orchestrator.events import (
    Changes,
    Check,
    Error,
    ErrorKind,
    Failure,
    Message,
    Notice,
    Outcome,
    Permission,
    RateLimit,
    Retry,
    SessionStarted,
    Status,
    StopReason,
    Subagent,
    ToolCall,
    ToolCallStatus,
    ToolKind,
    TurnFinished,
    TurnStarted,
    Update,
    Usage,
)
from orchestrator.outcome import (
    MOST_CALLS,
    SEVERITY,
    STATUS,
    Digest,
    Facts,
    Stopped,
    decide,
    finished,
    signal_name,
    together,
)
from orchestrator.remedy import remedy
from orchestrator.server import ModelServer
from orchestrator.task import EDITING_KINDS, KINDS, READING_KINDS, Kind, Task
from tests.examples import examples

DONE = TurnFinished(stop_reason="end_turn")
ANSWER = Message(text="Fixed it.")
EDIT = ToolCall(id="edit", kind="edit", status="completed")
DENIED = Permission(id="p", status="denied", tool="write")
DEAD = Subagent(id="a", status="failed")
SOME = Changes(files=["a.py"], insertions=1, deletions=0)
NOTHING = Changes(files=[], insertions=0, deletions=0)
PASSED = Check(command="pytest -q", passed=True, exit=0)
FAILED = Check(command="pytest -q", passed=False, exit=1)
CLEAN = Exit(status=0)


def digest(*updates: Update) -> Digest:
    folded = Digest()
    for update in updates:
        folded.add(update)
    return folded


def facts(*updates: Update, kind: Kind | None = None, exit: Exit | None = CLEAN, **more) -> Facts:
    task = Task(prompt="do it", kind=kind)
    return Facts(task=task, digest=digest(*updates), exit=exit, **more)


# --- the traps ------------------------------------------------------------------------------------

TRAPS: dict[str, tuple[Facts, Status, ErrorKind | None]] = {
    "a success": (facts(ANSWER, DONE, changes=SOME), "succeeded", None),
    "exit 0 and an error in the last event (claude: subtype success, is_error true)": (
        facts(ANSWER, Error(kind="server_error", text="api_error"), DONE, changes=SOME),
        "unavailable",
        "server_error",
    ),
    "exit 0 after a fatal connection error (aider)": (
        facts(Error(kind="unavailable", text="refused")),
        "unavailable",
        "unavailable",
    ),
    "exit 0 without a terminal event": (facts(ANSWER, EDIT, changes=SOME), "failed", "incomplete"),
    "nothing at all but exit 0 (gemini after SIGTERM)": (facts(), "failed", "incomplete"),
    "an empty stdout, exit 1 and a usage error on stderr (codex)": (
        facts(exit=Exit(status=1, stderr="error: unexpected argument\n")),
        "failed",
        "incomplete",
    ),
    "a terminal event with a command still running (codex)": (
        facts(ANSWER, ToolCall(id="c", status="in_progress"), DONE, changes=SOME),
        "failed",
        "incomplete",
    ),
    "the same, and the check passed": (
        facts(ANSWER, ToolCall(id="c", status="pending"), DONE, changes=SOME, check=PASSED),
        "succeeded",
        None,
    ),
    "the same, and the check failed": (
        facts(ANSWER, ToolCall(id="c", status="pending"), DONE, changes=SOME, check=FAILED),
        "failed",
        "incomplete",
    ),
    "a denial, exit 0 and success (claude)": (
        facts(ANSWER, DENIED, DONE, changes=SOME),
        "denied",
        "denied",
    ),
    "a denial, and the check passed": (
        facts(ANSWER, DENIED, DONE, changes=SOME, check=PASSED),
        "succeeded",
        None,
    ),
    "a denial, and the check failed": (
        facts(ANSWER, DENIED, DONE, changes=SOME, check=FAILED),
        "denied",
        "denied",
    ),
    "a denial that was granted later": (
        facts(ANSWER, DENIED, Permission(id="p", status="granted"), DONE, changes=SOME),
        "succeeded",
        None,
    ),
    "without --yolo: success, exit 0 and no file (qwen)": (
        facts(ANSWER, DONE, kind="edit", changes=NOTHING),
        "failed",
        "no_change",
    ),
    "nothing changed, though the check passes": (
        facts(ANSWER, EDIT, DONE, kind="fix", changes=NOTHING, check=PASSED),
        "failed",
        "no_change",
    ),
    "nobody looked, and an edit was completed (a replay)": (
        facts(ANSWER, EDIT, DONE, kind="fix"),
        "succeeded",
        None,
    ),
    "nobody looked, and it only read (a replay)": (
        facts(ANSWER, ToolCall(id="r", kind="read", status="completed"), DONE, kind="fix"),
        "failed",
        "no_change",
    ),
    "nobody looked, and the edit failed (a replay)": (
        facts(ANSWER, ToolCall(id="e", kind="edit", status="failed"), DONE, kind="fix"),
        "failed",
        "no_change",
    ),
    "nobody could look, and a command was completed": (
        facts(
            ANSWER,
            ToolCall(id="x", kind="execute", status="completed"),
            DONE,
            kind="fix",
            unseen=True,
        ),
        "failed",
        "no_change",
    ),
    "nobody could look, and an edit was completed": (
        facts(ANSWER, EDIT, DONE, kind="fix", unseen=True),
        "succeeded",
        None,
    ),
    "nobody could look, and the check passed": (
        facts(ANSWER, DONE, kind="fix", unseen=True, check=PASSED),
        "succeeded",
        None,
    ),
    "nothing to be seen of a command that it ran": (
        facts(ToolCall(id="x", kind="execute", status="completed"), DONE, changes=NOTHING),
        "succeeded",
        None,
    ),
    "a question without an answer": (
        facts(Message(text=" \n"), DONE, kind="search", changes=NOTHING),
        "failed",
        "incomplete",
    ),
    "neither an answer nor a change": (facts(DONE, changes=NOTHING), "failed", "incomplete"),
    "neither, but the check passes": (
        facts(DONE, changes=NOTHING, check=PASSED),
        "succeeded",
        None,
    ),
    "an answer alone": (facts(ANSWER, DONE, changes=NOTHING), "succeeded", None),
    "only the user's words": (
        facts(Message(text="do it", role="user"), DONE, changes=NOTHING),
        "failed",
        "incomplete",
    ),
    "the answer was cut (max_tokens)": (
        facts(ANSWER, TurnFinished(stop_reason="max_tokens"), changes=SOME),
        "failed",
        "incomplete",
    ),
    "too many steps": (
        facts(ANSWER, TurnFinished(stop_reason="max_turn_requests"), changes=SOME),
        "budget_exceeded",
        "max_turns",
    ),
    "a refusal": (facts(ANSWER, TurnFinished(stop_reason="refusal")), "refused", "refused"),
    "its turn was cancelled": (
        facts(ANSWER, TurnFinished(stop_reason="cancelled")),
        "interrupted",
        "interrupted",
    ),
    "its turn failed without a reason": (
        facts(ANSWER, TurnFinished(stop_reason="error")),
        "failed",
        "unknown",
    ),
    "done, but exit 1": (
        facts(ANSWER, DONE, exit=Exit(status=1), changes=SOME),
        "failed",
        "crashed",
    ),
    "done, but nobody knows how it ended": (
        facts(ANSWER, DONE, exit=Exit(), changes=SOME),
        "failed",
        "crashed",
    ),
    "never started": (facts(exit=None), "failed", "incomplete"),
    "never started, and it is known why": (
        facts(Error(kind="spawn", text="no such file"), exit=None),
        "failed",
        "spawn",
    ),
    "SIGINT from outside": (
        facts(ANSWER, exit=Exit(signal=signal.SIGINT)),
        "interrupted",
        "interrupted",
    ),
    "SIGTERM from outside, after it was done": (
        facts(ANSWER, DONE, exit=Exit(signal=signal.SIGTERM), changes=SOME),
        "interrupted",
        "interrupted",
    ),
    "SIGHUP": (facts(exit=Exit(signal=signal.SIGHUP)), "interrupted", "interrupted"),
    "SIGKILL (out of memory)": (
        facts(ANSWER, DONE, exit=Exit(signal=signal.SIGKILL), changes=SOME),
        "failed",
        "crashed",
    ),
    "SIGSEGV": (facts(exit=Exit(signal=signal.SIGSEGV)), "failed", "crashed"),
    "the supervisor's stop, though the agent said it is done": (
        facts(ANSWER, DONE, changes=SOME, stopped="timed_out", stopped_why="30 min are over"),
        "timed_out",
        "timed_out",
    ),
    "the check failed": (
        facts(ANSWER, DONE, changes=SOME, check=FAILED),
        "failed",
        "check_failed",
    ),
    "the check did not end": (
        facts(ANSWER, DONE, changes=SOME, check=Check(command="x", passed=False)),
        "failed",
        "check_failed",
    ),
    "an error in a turn before the last one": (
        facts(Error(kind="timed_out", text="slow"), TurnStarted(), ANSWER, DONE, changes=SOME),
        "succeeded",
        None,
    ),
    "a terminal event of a turn before the last one": (
        facts(TurnStarted(), ANSWER, DONE, TurnStarted(), changes=SOME),
        "failed",
        "incomplete",
    ),
    "every sub-agent dead, and the agent says that it is done (claude)": (
        facts(ANSWER, DEAD, ToolCall(id="a", status="failed"), DONE, changes=NOTHING),
        "failed",
        "incomplete",
    ),
    "the same, but it did something itself": (
        facts(ANSWER, DEAD, ToolCall(id="b", kind="read", status="completed"), DONE),
        "succeeded",
        None,
    ),
    "one sub-agent of two dead": (
        facts(ANSWER, DEAD, Subagent(id="b", status="completed"), DONE),
        "succeeded",
        None,
    ),
    "a sub-agent of which no end was told": (
        facts(ANSWER, Subagent(id="a", status="started"), DONE),
        "succeeded",
        None,
    ),
    "every sub-agent dead, and the check passed": (
        facts(ANSWER, DEAD, DONE, changes=NOTHING, check=PASSED),
        "succeeded",
        None,
    ),
    "a provider's word on its limits, nothing of them hit": (
        facts(ANSWER, RateLimit(status="allowed", exhausted=False), DONE),
        "succeeded",
        None,
    ),
    "a limit used up, and the agent went on all the same (another one, or paid by use)": (
        facts(ANSWER, RateLimit(status="rejected", exhausted=True), DONE),
        "succeeded",
        None,
    ),
    "requests that were tried again, with success": (
        facts(Retry(reason="500", attempt=1, of=2), ANSWER, DONE),
        "succeeded",
        None,
    ),
    "a warning": (facts(Notice(text="error: no metadata"), ANSWER, DONE), "succeeded", None),
    "a tool that failed and was left behind": (
        facts(ANSWER, ToolCall(id="t", status="failed"), DONE, changes=SOME),
        "succeeded",
        None,
    ),
}


@pytest.mark.parametrize(("trap", "status", "kind"), TRAPS.values(), ids=TRAPS)
def test_no_trap_hides_how_it_ended(trap, status, kind):
    outcome = decide(trap)
    assert outcome.status == status
    assert (outcome.error.kind if outcome.error else None) == kind


@pytest.mark.parametrize(
    ("last", "shown"),
    [
        ("", "the agent ended (exit 1) without saying that it is done"),
        (
            "warning\nerror: no such flag\n\n",
            "the agent ended (exit 1) without saying that it is done: error: no such flag",
        ),
    ],
)
def test_a_silent_end_is_explained_by_the_last_line_of_stderr(last, shown):
    outcome = decide(facts(exit=Exit(status=1, stderr=last)))
    assert outcome.error == Failure(kind="incomplete", text=shown)


@pytest.mark.parametrize("how", [{"signal": 15}, {"status": 143}, {"status": 0}])
def test_how_it_ended_says_nothing_where_it_was_ended_after_its_work(how):
    dismissed = Exit(**how, dismissed=True)
    assert finished(facts(DONE, ANSWER, exit=dismissed))
    assert decide(facts(DONE, ANSWER, exit=dismissed)).status == "succeeded"
    assert decide(facts(ANSWER, exit=dismissed)).status == "failed"


def test_a_long_last_line_of_stderr_is_cut():
    outcome = decide(facts(exit=Exit(status=1, stderr="x" * 10_000)))
    assert outcome.error is not None
    assert len(outcome.error.text) < 400


AT, LATER = "2026-11-27T05:00:00Z", "2026-11-27T06:00:00Z"
USED_UP = RateLimit(status="rejected", resets_at=AT, exhausted=True)


@pytest.mark.parametrize(
    ("updates", "resets_at"),
    [
        ([Error(kind="rate_limited", text="429", resets_at=AT)], AT),
        ([USED_UP, Error(kind="rate_limited", text="429")], AT),
        ([USED_UP, Error(kind="rate_limited", text="429", resets_at=LATER)], LATER),
        ([USED_UP, Error(kind="server_error", text="500")], None),
        ([replace(USED_UP, exhausted=False), Error(kind="rate_limited", text="429")], None),
        ([Error(kind="rate_limited", text="429")], None),
    ],
)
def test_a_rate_limit_ends_with_the_time_when_it_is_lifted(updates, resets_at):
    outcome = decide(facts(*updates, TurnFinished(stop_reason="error")))
    assert outcome.error is not None
    assert outcome.error.resets_at == resets_at
    if resets_at is not None and outcome.error.kind == "rate_limited":
        assert f"Wait until {resets_at}" in remedy(
            outcome.error, Agent(name="a", adapter="b"), None
        )


def test_evidence_names_a_limit_used_up_and_dead_subagents():
    evidence = decide(facts(ANSWER, DEAD, replace(USED_UP, resets_at=None), DONE)).evidence
    assert "sub-agents: all 1 failed" in evidence
    assert "limit: used up, resets: it is not told when" in evidence


def test_whether_the_same_may_work_later_is_told_as_the_agent_said_it():
    for retryable in (None, True, False):
        error = Error(kind="unavailable", text="down", retryable=retryable)
        outcome = decide(facts(error, TurnFinished(stop_reason="error")))
        assert outcome.error is not None
        assert outcome.error.retryable is retryable


@pytest.mark.parametrize("kind", get_args(ErrorKind))
def test_every_kind_of_error_leads_to_its_status(kind):
    outcome = decide(facts(ANSWER, Error(kind=kind, text="why", hint="what next"), DONE))
    expected = kind if kind in get_args(Status) else STATUS.get(kind, "failed")
    assert outcome.status == expected != "succeeded"
    assert outcome.error == Failure(kind=kind, text="why", hint="what next")


def test_all_kinds_named_like_a_status_lead_to_it():
    assert {kind: STATUS[kind] for kind in get_args(ErrorKind) if kind in get_args(Status)} == {
        kind: kind for kind in get_args(ErrorKind) if kind in get_args(Status)
    }


@pytest.mark.parametrize("stopped", get_args(Stopped))
def test_what_the_supervisor_ended_says_so(stopped):
    outcome = decide(facts(ANSWER, DONE, changes=SOME, stopped=stopped))
    assert outcome.status == STATUS.get(stopped, "failed")
    may_pass = True if stopped == "stalled" else None
    assert outcome.error == Failure(kind=stopped, text=f"stopped: {stopped}", retryable=may_pass)


@pytest.mark.parametrize("unseen", [True, False])
def test_a_change_that_nobody_saw_is_not_called_none(unseen):
    outcome = decide(facts(ANSWER, DONE, kind="fix", unseen=unseen))
    assert outcome.error == Failure(
        kind="no_change", text="nobody could see a change, and a fix task must change something"
    )


@pytest.mark.parametrize("kind", get_args(ToolKind))
def test_only_an_edit_of_its_own_counts_where_nobody_could_look(kind):
    assert digest(ToolCall(id="a", status="completed", kind=kind)).edited == (
        kind in {"edit", "delete", "move"}
    )
    assert not digest(ToolCall(id="a", status="failed", kind=kind)).edited


@pytest.mark.parametrize("kind", sorted(EDITING_KINDS))
def test_a_kind_that_must_change_something_names_itself(kind):
    outcome = decide(facts(ANSWER, DONE, kind=kind, changes=NOTHING))
    a = "an" if kind == "edit" else "a"
    assert outcome.error == Failure(
        kind="no_change",
        text=f"nothing that git sees changed, and {a} {kind} task must change something",
    )


# --- no false success -----------------------------------------------------------------------------

UPDATES = st.lists(
    st.one_of(
        st.builds(TurnFinished, stop_reason=st.sampled_from(get_args(StopReason))),
        st.just(DONE),
        st.just(TurnStarted()),
        st.builds(Message, text=st.sampled_from(["", " ", "done"]), role=st.just("assistant")),
        st.builds(Error, kind=st.sampled_from(get_args(ErrorKind)), text=st.just("why")),
        st.builds(
            ToolCall,
            id=st.sampled_from("ab"),
            status=st.none() | st.sampled_from(get_args(ToolCallStatus)),
            kind=st.none() | st.sampled_from(get_args(ToolKind)),
        ),
        st.builds(
            Permission,
            id=st.sampled_from("ab"),
            status=st.sampled_from(["requested", "granted", "denied"]),
        ),
        st.builds(
            Subagent,
            id=st.sampled_from("ab"),
            status=st.sampled_from(["started", "completed", "failed"]),
        ),
        st.just(USED_UP),
        st.just(Notice(text="note")),
        st.just(SessionStarted(session_id="s")),
    ),
    max_size=6,
)
EXITS = st.one_of(
    st.none(),
    st.builds(Exit, status=st.sampled_from([None, 0, 1, 143])),
    st.builds(Exit, signal=st.sampled_from([1, 2, 9, 15])),
)


def mostly(usual: object, others: st.SearchStrategy) -> st.SearchStrategy:
    """So that successes are met as often as failures."""
    return st.one_of(st.just(usual), st.just(usual), st.just(usual), st.just(usual), others)


FACTS = st.builds(
    Facts,
    task=st.builds(Task, prompt=st.just("do it"), kind=st.none() | st.sampled_from(KINDS)),
    digest=st.builds(
        lambda updates, rest: digest(*updates, *rest),
        UPDATES,
        mostly([ANSWER, EDIT, DONE], st.sampled_from([[], [DONE], [ANSWER, DONE], [EDIT, DONE]])),
    ),
    exit=mostly(CLEAN, EXITS),
    stopped=mostly(None, st.sampled_from(get_args(Stopped))),
    changes=st.sampled_from([None, SOME, NOTHING]),
    unseen=st.booleans(),
    check=st.sampled_from([None, None, PASSED, PASSED, FAILED]),
)


def only_dead_subagents(seen: Digest) -> bool:
    ends = set(seen.subagents.values())
    return "failed" in ends and "completed" not in {*ends, *seen.calls.values()}


def proved(seen: Facts) -> bool:
    """All that the module's docstring asks of a success."""
    kind, check = seen.task.kind, seen.check
    passed = check is not None and check.passed
    if seen.changes is not None:
        changed = bool(seen.changes.files)
    elif seen.unseen:
        changed = seen.digest.edited or passed
    else:
        changed = seen.digest.wrote
    answered = bool((seen.digest.text or "").strip())
    return (
        seen.stopped is None
        and seen.exit is not None
        and (seen.exit.status, seen.exit.signal) == (0, None)
        and seen.digest.terminal == "end_turn"
        and seen.digest.error is None
        and (passed or not seen.digest.denied)
        and (passed or not seen.digest.open_calls)
        and (passed or not only_dead_subagents(seen.digest))
        and (kind not in EDITING_KINDS or changed)
        and (kind not in READING_KINDS or answered)
        and (changed or answered or passed or seen.digest.wrote)
        and (check is None or passed)
    )


@pytest.mark.no_cover
@settings(max_examples=examples(500))
@given(FACTS)
def test_success_needs_all_of_the_evidence_and_all_of_it_is_enough(seen):
    outcome = decide(seen)
    assert (outcome.status == "succeeded") == proved(seen)
    assert (outcome.error is None) == (outcome.status == "succeeded")


@given(FACTS)
def test_the_evidence_ends_with_what_decided(seen):
    outcome = decide(seen)
    assert all(outcome.evidence)
    if outcome.error is not None:
        assert outcome.evidence[-1] == f"{outcome.error.kind}: {outcome.error.text}"
        assert "None" not in outcome.error.text
        assert outcome.error.text


@given(FACTS)
def test_the_outcome_holds_what_is_known_and_nothing_else(seen):
    usage = Usage(input_tokens=1)
    outcome = decide(replace(seen, usage=usage))
    assert outcome.verified == (None if seen.check is None else seen.check.passed)
    assert (outcome.text, outcome.session_id) == (seen.digest.text, seen.digest.session_id)
    assert (outcome.changes, outcome.usage) == (seen.changes, usage)


@given(FACTS)
def test_a_check_is_worth_its_time_only_after_a_clean_end(seen):
    without = replace(seen, check=None)
    if decide(without).status == "succeeded":
        assert finished(without)
    if finished(seen):
        assert seen.exit == Exit(status=0)
        assert seen.stopped is None
        assert seen.digest.error is None


@pytest.mark.parametrize(
    ("seen", "over"),
    [
        (facts(ANSWER, DONE), True),
        (facts(DONE, kind="fix", changes=NOTHING), True),
        (facts(ANSWER, DENIED, ToolCall(id="c"), DONE), True),
        (facts(ANSWER), False),
        (facts(ANSWER, DONE, exit=None), False),
        (facts(ANSWER, DONE, exit=Exit()), False),
        (facts(ANSWER, DONE, exit=Exit(status=1)), False),
        (facts(ANSWER, DONE, exit=Exit(signal=15)), False),
        (facts(Error(kind="unknown", text="why"), DONE), False),
        (facts(TurnFinished(stop_reason="max_tokens")), False),
        (facts(ANSWER, DONE, stopped="stalled"), False),
    ],
)
def test_work_is_looked_at_once_the_agent_says_that_it_is_done(seen, over):
    assert finished(seen) is over


@pytest.mark.parametrize(
    ("check", "text"),
    [
        (FAILED, "the check `pytest -q` exited 1"),
        (Check(command="x", passed=False), "the check `x` did not end in time"),
    ],
)
def test_a_failed_check_says_how(check, text):
    error = decide(facts(ANSWER, DONE, changes=SOME, check=check)).error
    assert error == Failure(kind="check_failed", text=text)


@pytest.mark.parametrize("kind", [None, *KINDS])
@pytest.mark.parametrize("lost", ["terminal", "exit", "error", "answer"])
def test_a_success_that_loses_one_fact_is_none(kind, lost):
    whole = facts(ANSWER, EDIT, DONE, kind=kind, changes=SOME)
    assert decide(whole).status == "succeeded"
    match lost:
        case "terminal":
            less = facts(ANSWER, EDIT, kind=kind, changes=SOME)
        case "exit":
            less = replace(whole, exit=Exit(status=1))
        case "error":
            error = Error(kind="unknown", text="why")
            less = facts(ANSWER, EDIT, error, DONE, kind=kind, changes=SOME)
        case _:
            less = facts(DONE, kind=kind, changes=NOTHING)
    assert decide(less).status != "succeeded"


# --- the digest -----------------------------------------------------------------------------------


def test_the_last_words_of_the_assistant_are_the_text():
    folded = digest(
        Message(text="first"), Message(text="last"), Message(text="not mine", role="user")
    )
    assert folded.text == "last"


def test_a_model_once_named_stays_named():
    folded = digest(
        SessionStarted(session_id="one", model="m"), SessionStarted(session_id="two", model=None)
    )
    assert (folded.session_id, folded.model) == ("two", "m")


def test_a_tool_call_that_says_no_status_stays_as_it_was():
    folded = digest(ToolCall(id="a", status="completed", kind="edit"), ToolCall(id="a", title="t"))
    assert folded.open_calls == []
    assert folded.wrote
    assert digest(ToolCall(id="b")).open_calls == ["b"]


def test_a_tool_call_is_judged_by_what_was_said_of_it_in_all():
    assert not digest(ToolCall(id="a", status="completed"), ToolCall(id="a", kind="read")).wrote
    assert not digest(
        ToolCall(id="a", status="completed", kind="edit"), ToolCall(id="a", status="failed")
    ).wrote


@pytest.mark.parametrize("kind", get_args(ToolKind))
def test_only_a_tool_that_may_change_something_counts_as_work(kind):
    wrote = digest(ToolCall(id="a", status="completed", kind=kind)).wrote
    assert wrote == (kind in {"edit", "delete", "move", "execute", "other"})


# --- evidence -------------------------------------------------------------------------------------


def test_the_evidence_of_a_success_is_told_too():
    assert decide(facts(ANSWER, DONE, changes=SOME, check=PASSED)).evidence == [
        "terminal event: end_turn",
        "exit: 0",
        "changes: 1 file(s), +1 -0",
        "check: passed",
    ]


def test_the_evidence_of_a_failure_names_all_that_was_wrong():
    seen = facts(ANSWER, DENIED, ToolCall(id="c"), DONE, check=FAILED)
    assert decide(seen).evidence == [
        "terminal event: end_turn",
        "exit: 0",
        "tool calls left open: 1",
        "denied: 1",
        "changes: not looked at",
        "check: failed",
        "denied: 1 action(s) denied, the last: write",
    ]


def test_the_evidence_names_a_limit_that_nothing_was_counted_against():
    told = decide(facts(ANSWER, DONE, changes=SOME, unheld="tokens")).evidence
    assert told[-1] == "limits.tokens could not be held: the agent does not tell what it uses"


@pytest.mark.parametrize(
    ("exit_", "fact"),
    [
        (None, "exit: never started"),
        (Exit(), "exit: unknown"),
        (Exit(status=3), "exit: 3"),
        (Exit(signal=9), "exit: SIGKILL"),
        (Exit(signal=99), "exit: signal 99"),
    ],
)
def test_the_evidence_says_how_the_process_ended(exit_, fact):
    evidence = decide(facts(exit=exit_)).evidence
    assert evidence[:2] == ["terminal event: none", fact]


@pytest.mark.parametrize(
    ("permission", "named"),
    [
        (Permission(id="p", status="denied", tool="write", reason="r"), "write (r)"),
        (Permission(id="p", status="denied", tool="write"), "write"),
        (Permission(id="p", status="denied", reason="read-only"), "read-only"),
        (Permission(id="p", status="denied"), "p"),
    ],
)
def test_a_denial_names_what_was_denied(permission, named):
    error = decide(facts(ANSWER, permission, DONE)).error
    assert error == Failure(kind="denied", text=f"1 action(s) denied, the last: {named}")


def test_signals_have_names():
    assert [signal_name(2), signal_name(15), signal_name(0)] == ["SIGINT", "SIGTERM", "signal 0"]


# --- remedies -------------------------------------------------------------------------------------

CLOUD = Agent(name="codex", adapter="codex", model="gpt-x", api_key_env="OPENAI_API_KEY")
LOGIN = Agent(name="codex", adapter="codex")
DESK = Agent(
    name="codex-ollama",
    adapter="codex",
    model="qwen2.5-coder:7b",
    server="ollama",
    base_url="http://127.0.0.1:11434",
    tier="local",
)
OLLAMA = ModelServer(
    name="ollama", title="Ollama", port=11434, start="ollama serve", list_models="ollama list"
)
BARE = ModelServer(name="own", title="the own server", port=1)


@pytest.mark.parametrize("kind", get_args(ErrorKind))
@pytest.mark.parametrize(
    ("agent", "server"), [(CLOUD, None), (LOGIN, None), (DESK, OLLAMA), (LOGIN, BARE)]
)
def test_every_kind_of_failure_has_a_remedy_of_one_line(kind, agent, server):
    text = remedy(Failure(kind=kind, text="why"), agent, server)
    assert text.endswith((".", "?"))
    assert "None" not in text
    assert text.isprintable()


@pytest.mark.parametrize("kind", get_args(ErrorKind))
def test_the_agents_own_hint_comes_first(kind):
    assert remedy(Failure(kind=kind, text="why", hint="mine"), CLOUD, OLLAMA) == "mine"


@pytest.mark.parametrize(
    ("kind", "agent", "server", "words"),
    [
        ("unavailable", DESK, OLLAMA, ["Ollama", "`ollama serve`", "http://127.0.0.1:11434"]),
        ("unavailable", replace(DESK, base_url=None), OLLAMA, ["Ollama", "its address"]),
        ("unavailable", DESK, None, ["the model's provider", "http://127.0.0.1:11434"]),
        ("unavailable", LOGIN, None, ["network"]),
        ("server_error", DESK, OLLAMA, ["Ollama", "log"]),
        ("auth_failed", CLOUD, None, ["OPENAI_API_KEY", "--api-key-env"]),
        ("auth_failed", LOGIN, None, ["key or login", "--api-key-env"]),
        ("model_not_found", DESK, OLLAMA, ["qwen2.5-coder:7b", "`ollama list`", "--model"]),
        ("model_not_found", LOGIN, None, ["Name a model", "--model"]),
        ("context_overflow", DESK, OLLAMA, ["`files:`"]),
        ("denied", CLOUD, None, ["`access: edit`"]),
        ("timed_out", CLOUD, None, ["`limits:`"]),
        ("check_failed", CLOUD, None, ["orchestrate runs resume last"]),
        ("no_change", CLOUD, None, ["orchestrate runs show last"]),
        ("crashed", CLOUD, None, ["orchestrate runs show last"]),
    ],
)
def test_a_remedy_names_what_to_do(kind, agent, server, words):
    text = remedy(Failure(kind=kind, text="why"), agent, server)
    assert [word for word in words if word not in text] == []


def test_of_any_number_of_calls_only_the_latest_are_held_and_all_are_counted():
    seen = Digest()
    seen.add(ToolCall(id="open", status="in_progress"))
    seen.add(ToolCall(id="edit", status="completed", kind="edit"))
    for number in range(MOST_CALLS + 10):
        seen.add(ToolCall(id=str(number), status="completed", kind="read"))
    assert len(seen.calls) == MOST_CALLS
    assert seen.steps == MOST_CALLS + 12
    assert (seen.open_calls, seen.wrote, seen.edited) == (["open"], True, True)


def test_of_calls_that_never_end_the_last_are_held_and_all_are_counted():
    seen = Digest()
    for number in range(3 * MOST_CALLS):
        seen.add(ToolCall(id=str(number), status="pending"))
    assert len(seen.open_calls) == len(seen.calls) == MOST_CALLS
    assert (seen.steps, seen.open_calls[0]) == (3 * MOST_CALLS, str(2 * MOST_CALLS))
    assert (seen.acted, seen.wrote) == (False, False)
    seen.add(ToolCall(id="done", status="completed", kind="edit"))
    seen.add(ToolCall(id="last", status="pending"))  # and the one that ended is not held any more
    assert "done" not in seen.calls
    assert (seen.acted, seen.edited) == (True, True)


def test_of_many_denials_the_last_are_held_and_all_are_counted():
    seen = Digest(terminal="end_turn")
    for number in range(3 * MOST_CALLS):
        seen.add(Permission(id=str(number), status="requested"))
        seen.add(Permission(id=str(number), status="denied", tool=f"tool {number}"))
    seen.add(Permission(id=str(3 * MOST_CALLS - 2), status="granted"))  # after all
    assert len(seen.denials) == MOST_CALLS - 1
    told = decide(Facts(task=Task(prompt="p", kind="search"), digest=seen, exit=Exit(status=0)))
    count, last = 3 * MOST_CALLS - 1, 3 * MOST_CALLS - 1
    assert told.error is not None
    assert told.error.text == f"{count} action(s) denied, the last: tool {last}"
    assert f"denied: {count}" in told.evidence


@pytest.mark.parametrize(("first", "dead"), [("failed", MOST_CALLS + 3), ("completed", 0)])
def test_of_many_sub_agents_the_last_are_held_and_all_that_died_are_counted(first, dead):
    seen = Digest()
    seen.add(Subagent(id="first", status=first))
    for number in range(MOST_CALLS + 2):
        seen.add(Subagent(id=str(number), status="started"))
        seen.add(Subagent(id=str(number), status="failed"))
    assert len(seen.subagents) == MOST_CALLS
    assert seen.dead_subagents == dead


# --- the answer that is expected ------------------------------------------------------------------

SCHEMA = {"type": "array", "items": {"type": "string"}}


def answered(text: str | None) -> Outcome:
    task = Task(prompt="p", kind="search", expect=SCHEMA)
    digest = Digest(terminal="end_turn", text=text)
    return decide(Facts(task=task, digest=digest, exit=Exit(status=0)))


def test_an_answer_as_expected_is_parsed_and_a_success():
    outcome = answered('Here:\n```json\n["a.py"]\n```')
    assert (outcome.status, outcome.answer) == ("succeeded", ["a.py"])
    assert "answer: as expected" in outcome.evidence


def test_an_answer_that_is_not_as_expected_failed_with_the_path():
    outcome = answered('["a.py", 3]')
    assert outcome.error is not None
    assert (outcome.status, outcome.error.kind) == ("failed", "invalid_answer")
    assert outcome.answer == ["a.py", 3]
    problem = "not the answer that was expected: $[1]: 3 is not of type 'string'"
    assert outcome.evidence[-1] == f"invalid_answer: {problem}"


def test_no_json_is_not_the_answer():
    outcome = answered("a.py")
    assert (outcome.status, outcome.answer) == ("failed", None)


# --- a job ----------------------------------------------------------------------------------------


def test_every_status_has_its_place_among_the_bad_ones():
    assert sorted(SEVERITY) == sorted(get_args(Status))
    assert SEVERITY[0] == "succeeded"


def test_a_job_is_as_bad_as_its_worst_task_and_names_it():
    failure = Failure(kind="stalled", text="silent", hint="wait")
    skipped = Failure(kind="skipped", text="it needs 'b'")
    job = together(
        {
            "a": Outcome(status="succeeded", verified=True),
            "b": Outcome(status="stalled", error=failure),
            "c": Outcome(status="skipped", error=skipped),
        }
    )
    assert (job.status, job.verified, job.ok) == ("stalled", True, False)
    assert job.error == Failure(kind="stalled", text="task 'b': silent", hint="wait")
    assert job.evidence == [
        "a: succeeded, verified",
        "b: stalled (stalled)",
        "c: skipped (skipped)",
    ]


def test_a_job_of_one_task_speaks_of_it_alone():
    failure = Failure(kind="check_failed", text="it exited 1")
    job = together({"a": Outcome(status="failed", verified=False, error=failure)})
    assert (job.verified, job.error) == (False, failure)
    assert job.evidence == ["a: failed, the check failed (check_failed)"]
    assert together({"a": Outcome(status="succeeded")}).verified is None
