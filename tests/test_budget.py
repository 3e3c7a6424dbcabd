"""Budgets as a table: clock readings and counters in, a verdict out."""

import math
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.budget import (
    LOAD_S,
    Counts,
    Ledger,
    Reading,
    Spent,
    left_s,
    patience,
    tokens,
    total,
    uncounted,
    verdict,
)
from orchestrator.events import (
    Message,
    MessageDelta,
    Notice,
    SessionStarted,
    Thought,
    ThoughtDelta,
    ToolCall,
    TurnFinished,
    TurnStarted,
    Usage,
)
from orchestrator.task import DEFAULT_LIMITS, Limits

BUSY = Reading(spoken=True, in_tool=True, turn_s=1)
SPEAKS = Reading(spoken=True, turn_s=1)


@pytest.mark.parametrize(
    ("limits", "reading", "told"),
    [
        (Limits(wall_s=9), Reading(spent=Spent(ran_s=9.1)), ("wall", "timed_out")),
        (Limits(turn_s=9), replace(SPEAKS, turn_s=9.1), ("turn", "timed_out")),
        (Limits(first_s=9), Reading(quiet_s=9.1), ("first", "stalled")),
        (Limits(stall_s=9), Reading(quiet_s=9.1), ("first", "stalled")),
        (Limits(stall_s=9), replace(SPEAKS, quiet_s=9.1), ("stall", "stalled")),
        (Limits(tool_s=9), replace(BUSY, quiet_s=9.1), ("tool", "stalled")),
        (Limits(output_bytes=9), Reading(output_bytes=10), ("output", "output_limit")),
        (Limits(steps=1), replace(SPEAKS, spent=Spent(steps=2)), ("steps", "budget_exceeded")),
        (Limits(tokens=9), replace(SPEAKS, spent=Spent(tokens=10)), ("tokens", "budget_exceeded")),
        (
            Limits(cost_usd=1),
            replace(SPEAKS, spent=Spent(cost_usd=1.1)),
            ("cost_usd", "budget_exceeded"),
        ),
    ],
)
def test_a_limit_that_was_passed_is_named(limits, reading, told):
    passed = verdict(limits, reading)
    assert passed is not None
    assert (passed.limit, passed.stop) == told


@pytest.mark.parametrize(
    ("limits", "reading"),
    [
        (Limits(), Reading(quiet_s=1e9, spent=Spent(ran_s=1e9, steps=9, tokens=9, cost_usd=9))),
        (Limits(), replace(SPEAKS, quiet_s=1e9, turn_s=1e9)),
        (Limits(), replace(BUSY, quiet_s=1e9)),
        (Limits(stall_s=9), replace(BUSY, quiet_s=1e9)),  # a tool is not the model
        (Limits(first_s=9), replace(SPEAKS, quiet_s=1e9)),
        (Limits(turn_s=9), replace(SPEAKS, turn_s=None)),  # between two turns
        (
            Limits(steps=2, tokens=9, cost_usd=1),
            Reading(spent=Spent(steps=2, tokens=9, cost_usd=1)),
        ),
        (Limits(stall_s=9), Reading(quiet_s=9 + LOAD_S, local=True)),  # a model that is loaded
    ],
)
def test_what_is_within_its_limits_goes_on(limits, reading):
    assert verdict(limits, reading) is None


def test_a_local_model_has_its_load_time_until_its_first_word_and_no_longer():
    limits = Limits(stall_s=9)
    assert patience(limits, Reading(local=True)) == ("first", 9 + LOAD_S)
    assert patience(limits, Reading(local=True, spoken=True)) == ("stall", 9)
    assert patience(limits, Reading(local=False)) == ("first", 9)
    assert patience(Limits(first_s=3, stall_s=9), Reading(local=True)) == ("first", 3)


@pytest.mark.parametrize(
    ("limits", "reading", "left"),
    [
        (Limits(), SPEAKS, math.inf),
        (Limits(wall_s=9), Reading(spent=Spent(ran_s=2), quiet_s=8), 7),
        (Limits(wall_s=9, turn_s=5), replace(SPEAKS, turn_s=4), 1),
        (Limits(turn_s=5), replace(SPEAKS, turn_s=None), math.inf),
        (Limits(wall_s=90, stall_s=5), replace(SPEAKS, quiet_s=2), 3),
        (Limits(tool_s=50, stall_s=5), replace(BUSY, quiet_s=2), 48),
        (Limits(first_s=4, stall_s=5), Reading(quiet_s=5), -1),
    ],
)
def test_the_nearest_limit_of_time_is_known_before_it_is_passed(limits, reading, left):
    assert left_s(limits, reading) == left
    assert (verdict(limits, reading) is not None) == (left < 0)


def test_a_stall_says_which_budget_how_long_and_the_last_sign_of_life():
    passed = verdict(Limits(stall_s=90), replace(SPEAKS, quiet_s=91.26, sign="bytes"))
    assert passed is not None
    assert passed.last == "bytes"
    assert passed.text == (
        "no sign of life for 91.3 s between its events (limits.stall); "
        "the last one was bytes that it received"
    )


@pytest.mark.parametrize("unit", ["call", "turn", "run"])
def test_a_budget_says_after_what_it_could_be_noticed(unit):
    reading = replace(SPEAKS, spent=Spent(tokens=10, cost_usd=2, steps=3), unit=unit)
    for limits, enforced in (
        (Limits(tokens=1), unit),
        (Limits(cost_usd=1), unit),
        (Limits(steps=1), "call"),
    ):
        passed = verdict(limits, reading)
        assert passed is not None
        assert passed.enforced == enforced


def test_the_defaults_leave_a_tool_longer_than_the_clis_themselves_do():
    assert DEFAULT_LIMITS.tool_s is not None
    assert DEFAULT_LIMITS.tool_s > 600


# --- what the updates say ------------------------------------------------------------------------


@pytest.mark.parametrize(
    "update",
    [
        MessageDelta(text="x"),
        Message(text="x"),
        ThoughtDelta(text="x"),
        Thought(text="x"),
        ToolCall(id="a"),
        Usage(output_tokens=1),
    ],
)
def test_the_models_first_word_is_noticed(update):
    counts = Counts()
    counts.add(SessionStarted(session_id="s"))
    counts.add(Notice(text="x"))
    assert not counts.spoken
    counts.add(update)
    assert counts.spoken


def test_turns_and_model_calls_are_counted():
    counts = Counts()
    assert counts.in_turn  # a CLI that tells of no turns has one
    for update in (
        TurnStarted(),
        Usage(output_tokens=1),
        Usage(output_tokens=1),
        Usage(output_tokens=1, scope="turn"),
        TurnFinished(stop_reason="end_turn"),
    ):
        counts.add(update)
    assert (counts.turns, counts.in_turn, counts.model_calls, counts.unit) == (1, False, 2, "turn")
    counts.add(TurnStarted())
    assert (counts.turns, counts.in_turn) == (2, True)


def test_cached_tokens_count_and_reasoning_not_twice():
    usage = Usage(
        input_tokens=1,
        output_tokens=20,
        cache_read_tokens=300,
        cache_write_tokens=4000,
        reasoning_tokens=20,
    )
    assert tokens(usage) == 4321
    assert tokens(Usage(output_tokens=7)) == 7
    assert tokens(None) == 0


# --- over several runs ---------------------------------------------------------------------------


def test_what_a_running_task_spends_counts_at_once_against_all():
    ledger = Ledger(Limits(tokens=100))
    ledger.put("a", "1", Spent(tokens=60), "call")
    ledger.put("b", "2", Spent(tokens=40), "call")
    found = [ledger.passed]
    for used in (41, 400):
        ledger.put("b", "2", Spent(tokens=used), "call")
        found.append(ledger.passed)
    ledger.late(9)
    assert found[0] is None
    assert found[1] is found[2] is ledger.passed
    assert found[1] is not None
    assert found[1].text == "more than 100 tokens by the tasks together: 101"


def test_the_time_of_all_is_up_whatever_each_has_left():
    ledger = Ledger(Limits(wall_s=9))
    ledger.late(9.5)
    assert ledger.passed is not None
    assert (ledger.passed.limit, ledger.passed.stop, ledger.passed.value) == (
        "wall",
        "timed_out",
        9.5,
    )


def test_the_attempts_of_a_task_add_up():
    ledger = Ledger()
    ledger.put("a", "1", Spent(ran_s=3, steps=2, tokens=5, cost_usd=0.5), "call")
    ledger.put("a", "2", Spent(ran_s=4, steps=1, tokens=6, cost_usd=0.25), "call")
    ledger.put("b", "3", Spent(steps=9), "call")
    assert ledger.task("a") == Spent(ran_s=7, steps=3, tokens=11, cost_usd=0.75)
    assert ledger.task("none") == Spent()
    assert ledger.job.steps == 12


def test_what_is_left_is_the_least_of_the_task_and_of_all_together():
    ledger = Ledger(Limits(cost_usd=3))
    assert Ledger().left_usd("a", Limits()) is None
    assert ledger.left_usd("a", Limits()) == 3
    ledger.put("a", "1", Spent(cost_usd=1.5), "call")
    ledger.put("b", "2", Spent(cost_usd=1.0), "call")
    assert ledger.left_usd("a", Limits(cost_usd=1.75)) == 0.25
    assert ledger.left_usd("b", Limits(cost_usd=1.75)) == 0.5
    assert ledger.left_usd("b", Limits(cost_usd=0.5)) == 0


spents = st.builds(Spent, steps=st.integers(0, 50), tokens=st.integers(0, 10**6))


@given(st.dictionaries(st.tuples(st.sampled_from("abc"), st.sampled_from("12345")), spents))
def test_a_job_has_used_what_its_tasks_have(entries):
    ledger = Ledger()
    for (task, run), used in entries.items():
        ledger.put(task, run, Spent(), "call")
        ledger.put(task, run, used, "call")
    assert ledger.job == total(ledger.task(task) for task in "abc")
    assert ledger.job.tokens == sum(used.tokens for used in entries.values())


# --- a bound that cannot be kept -----------------------------------------------------------------


@pytest.mark.parametrize(
    ("stated", "known", "refused"),
    [
        (Limits(cost_usd=2), False, True),
        (Limits(cost_usd=2), True, False),
        (Limits(cost_usd=2, tokens=9), False, False),
        (Limits(cost_usd=2, steps=9), False, False),
        (Limits(), False, False),  # the default of 5 dollars is no word of the user's
    ],
)
def test_a_cost_that_nobody_tells_is_no_bound(stated, known, refused):
    assert (uncounted(stated, cost_known=known) is not None) == refused


def test_what_is_handed_on_is_spent_of_the_parents_budget_and_once_of_the_jobs():
    ledger = Ledger(Limits(cost_usd=3))
    ledger.hand_on("top", "top-1", Limits())
    ledger.hand_on("top-1", "top-1-1", Limits())
    for task, cost in (("top", 1.0), ("top-1", 0.5), ("top-1-1", 0.25), ("other", 1.0)):
        ledger.put(task, task, Spent(ran_s=9, steps=2, tokens=10, cost_usd=cost), "call")
    assert ledger.task("top") == Spent(ran_s=9, steps=2, tokens=30, cost_usd=1.75)
    assert ledger.task("top-1").cost_usd == 0.75
    assert (ledger.job.cost_usd, ledger.job.tokens, ledger.passed) == (2.75, 40, None)


def test_sub_tasks_that_pass_their_parents_limit_together_are_told_at_once_whoever_is_last():
    ledger = Ledger()
    ledger.hand_on("top", "top-1", Limits(cost_usd=2, steps=1))
    ledger.hand_on("top", "top-2", Limits(cost_usd=2, steps=1))
    ledger.hand_on("top-2", "top-2-1", Limits(tokens=100))
    for task, cost in (("top", 0.5), ("top-1", 0.75), ("top-2-1", 0.75)):
        ledger.put(task, task, Spent(steps=9, tokens=60, cost_usd=cost), "call")
        assert ledger.passed_above(task, "call") is None
    ledger.put("top-2-1", "top-2-1", Spent(tokens=60, cost_usd=0.76), "turn")
    passed = ledger.passed_above("top-2-1", "turn")
    assert passed is not None
    assert (passed.limit, passed.stop, passed.enforced) == ("cost_usd", "budget_exceeded", "turn")
    assert passed.text == "more than $2 spent by top and what it handed on: $2.01"
    assert ledger.passed_above("top-1", "call") is not None
    assert ledger.passed_above("top", "call") is None  # its own limit is its own watch's
    assert ledger.passed is None
