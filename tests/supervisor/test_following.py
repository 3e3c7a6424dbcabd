"""What follows an attempt: tables of what is tried again, where, and when it ends; properties."""

from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime
from itertools import pairwise
from typing import get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.adapter import Agent
from orchestrator.budget import Spent
from orchestrator.events import ErrorKind, Failure, Outcome, Usage
from orchestrator.route import REMEDY, Route, State, choose
from orchestrator.supervisor.following import (
    EARLY_STEPS,
    FINAL,
    TRANSIENT,
    Clock,
    Done,
    Next,
    continued,
    following,
    share,
    summed,
)
from orchestrator.task import Limits, Task

HOME = Agent(name="home", adapter="x", model="q", base_url="http://127.0.0.1:1", tier="local")
DESK = replace(HOME, name="desk", base_url="http://127.0.0.1:2")
PAID = Agent(name="paid", adapter="y", tier="cloud")
NOW = datetime(2026, 1, 1, 12, tzinfo=UTC)
CLOCK = Clock(now=NOW, chance=0.0)
KINDS: tuple[ErrorKind, ...] = get_args(ErrorKind)
CASCADE = Task(prompt="p", strategy="cascade")
AT_HOME = Task(prompt="p", kind="search")


def failed(kind: ErrorKind, **more: object) -> Outcome:
    failure = Failure(kind=kind, text="why", **more)  # type: ignore[arg-type]
    return Outcome(status="failed", error=failure, run_id="r")


def after(
    task: Task,
    *outcomes: Outcome,
    agents: Sequence[Agent] = (HOME, PAID),
    clock: Clock = CLOCK,
    limits: Limits | None = None,
    refused: bool = False,
) -> Next | None:
    """What follows when the best agent ended so, once or several times."""
    routes = choose(task, agents, State())
    done: list[Done] = []
    for outcome in outcomes:
        step = following(task, routes, done, limits or Limits(), clock)
        assert step is not None
        done.append(Done(route=step.route, outcome=outcome, refused=refused))
    return following(task, routes, done, limits or Limits(), clock)


def name(step: Next | None) -> str | None:
    return None if step is None else step.route.agent.name


def test_the_best_route_is_first_and_where_there_is_none_nothing_is():
    assert name(after(CASCADE)) == "home"
    assert after(CASCADE, agents=()) is None


def test_work_that_succeeded_and_was_not_found_wrong_is_the_end():
    assert after(CASCADE, Outcome(status="succeeded", verified=True)) is None
    assert after(replace(CASCADE, retries=3), Outcome(status="succeeded")) is None


# --- again ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
def test_only_a_failure_that_may_pass_is_tried_again(kind: ErrorKind) -> None:
    step = after(replace(AT_HOME, retries=1), failed(kind), agents=[HOME])
    assert (step is not None) == (kind in TRANSIENT)
    if step is not None:
        assert (name(step), step.again, step.why) == ("home", True, f"{kind}: why")


@pytest.mark.parametrize(
    ("kind", "retryable", "expected"),
    [("server_error", False, None), ("unknown", True, "home"), ("interrupted", True, None)],
)
def test_the_word_of_whoever_failed_counts_more_than_the_kind(
    kind: ErrorKind, retryable: bool, expected: str | None
) -> None:
    task = replace(AT_HOME, retries=1)
    assert name(after(task, failed(kind, retryable=retryable), agents=[HOME])) == expected


def test_it_is_tried_again_as_often_as_the_task_says_and_never_unasked():
    crash = failed("crashed")
    assert after(AT_HOME, crash, agents=[HOME]) is None
    task = replace(AT_HOME, retries=2)
    assert name(after(task, crash, crash, agents=[HOME])) == "home"
    assert after(task, crash, crash, crash, agents=[HOME]) is None


def test_what_came_to_no_run_is_not_tried_again():
    outcome = replace(failed("crashed"), run_id=None)
    assert after(replace(AT_HOME, retries=1), outcome, agents=[HOME]) is None


@pytest.mark.parametrize(
    ("failures", "chance", "expected"), [(1, 0, 1), (1, 1, 2), (2, 0, 2), (3, 1, 8), (9, 1, 60)]
)
def test_each_pause_is_twice_as_long_and_half_of_it_is_random(
    failures: int, chance: float, expected: float
) -> None:
    task = replace(AT_HOME, retries=10)
    crashes = [failed("crashed")] * failures
    step = after(task, *crashes, agents=[HOME], clock=replace(CLOCK, chance=chance))
    assert step is not None
    assert step.delay_s == expected


@pytest.mark.parametrize(
    ("resets_at", "expected"),
    [
        ("2026-01-01T12:00:30Z", 31),
        ("2026-01-01T13:00:30+01:00", 31),
        ("2026-01-01T11:00:00Z", 1),
        ("tomorrow", 1),
        ("2026-01-01T12:00:30", 1),
        (None, 1),
    ],
)
def test_a_limit_is_waited_for_until_the_time_that_the_server_said(
    resets_at: str | None, expected: float
) -> None:
    task = replace(AT_HOME, retries=1)
    step = after(task, failed("rate_limited", resets_at=resets_at), agents=[HOME])
    assert step is not None
    assert step.delay_s == expected


def test_a_pause_never_outlasts_the_task():
    limited = failed("rate_limited", resets_at="2026-01-01T12:10:00Z")
    task = replace(AT_HOME, retries=1)
    assert after(task, limited, agents=[HOME], limits=Limits(wall_s=600)) is None
    step = after(task, limited, agents=[HOME], limits=Limits(wall_s=700))
    assert step is not None
    assert step.limits.wall_s == 99
    late = replace(CLOCK, spent=Spent(ran_s=600), paused_s=100)
    assert after(CASCADE, failed("check_failed"), clock=late, limits=Limits(wall_s=700)) is None


# --- elsewhere and onward -------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    ("task", "leaves"),
    [
        (CASCADE, True),
        (replace(AT_HOME, fallback="cloud"), True),
        (AT_HOME, False),
        (replace(AT_HOME, fallback="none", strategy="local"), False),
        (replace(CASCADE, privacy="local"), False),
        (replace(CASCADE, agent="home"), False),
        (replace(CASCADE, model="m"), False),
    ],
)
def test_a_failed_local_run_goes_on_in_the_cloud_only_by_the_users_word(
    kind: ErrorKind, task: Task, leaves: bool
) -> None:
    step = after(task, failed(kind))
    spent = kind in FINAL or kind == "budget_exceeded"  # of the whole task: nothing is left
    expected = "paid" if leaves and not spent else None
    assert name(step) == expected
    if step is not None:
        assert (step.again, step.last, step.why) == (False, True, f"{kind}: why")


def test_after_the_cloud_there_is_nothing():
    bad = failed("check_failed")
    assert after(CASCADE, bad, bad) is None
    assert after(Task(prompt="p", kind="fix", fallback="cloud"), bad) is None


def test_the_same_is_tried_again_before_the_work_moves_on():
    task = replace(CASCADE, retries=1)
    crash = failed("crashed")
    first = after(task, crash)
    assert (name(first), first is not None and first.last) == ("home", False)
    assert name(after(task, crash, crash)) == "paid"
    assert name(after(task, crash, crash, crash)) == "paid"
    assert after(task, crash, crash, crash, crash) is None


def test_a_server_that_cannot_be_reached_leaves_the_work_to_the_next_one_at_home():
    down = failed("unavailable")
    for task in (AT_HOME, replace(AT_HOME, privacy="local"), CASCADE):
        assert name(after(task, down, agents=[HOME, DESK, PAID])) == "desk"
    assert after(AT_HOME, down, down, agents=[HOME, DESK, PAID]) is None
    assert name(after(CASCADE, down, down, agents=[HOME, DESK, PAID])) == "paid"
    assert after(AT_HOME, failed("crashed"), agents=[HOME, DESK]) is None
    assert after(replace(AT_HOME, agent="home"), down, agents=[HOME, DESK]) is None


SAME = replace(HOME, name="same", adapter="y")  # another CLI at the server and model of HOME
OTHER = replace(HOME, name="other", model="r")
NOWHERE = replace(HOME, name="nowhere", base_url=None)
FAR = replace(DESK, options={"own": 1})  # else, as HOME's twin, it would come before the others
AGENTS_AT_HOME = (HOME, SAME, OTHER, FAR, PAID)


@pytest.mark.parametrize(
    ("kind", "expected"),
    [
        ("unavailable", "desk"),
        ("timed_out", "desk"),
        ("auth_failed", "desk"),
        ("model_not_found", "other"),
        ("load_failed", "other"),
        ("context_overflow", "same"),
        ("tools_unsupported", "same"),
    ],
)
@pytest.mark.parametrize(
    "task", [AT_HOME, replace(AT_HOME, privacy="local"), CASCADE, replace(AT_HOME, retries=3)]
)
def test_what_was_refused_before_it_began_goes_to_the_next_route_that_would_not_be(
    kind: ErrorKind, expected: str, task: Task
) -> None:
    step = after(task, failed(kind), agents=AGENTS_AT_HOME, refused=True)
    assert (name(step), step and step.why, step and step.again) == (expected, f"{kind}: why", False)


def test_from_home_what_is_refused_goes_to_the_cloud_only_by_the_users_word():
    no = failed("context_overflow")
    refused = [no] * 4
    assert after(AT_HOME, *refused, agents=AGENTS_AT_HOME, refused=True) is None
    assert name(after(CASCADE, *refused, agents=AGENTS_AT_HOME, refused=True)) == "paid"
    assert after(replace(AT_HOME, agent="home"), no, agents=(HOME, SAME), refused=True) is None
    nowhere = replace(NOWHERE, name="elsewhere")
    down = failed("unavailable")
    assert name(after(AT_HOME, down, agents=(NOWHERE, nowhere), refused=True)) == "elsewhere"


def test_from_the_cloud_what_is_refused_may_go_home_and_not_out_again():
    task, no = Task(prompt="p", kind="fix"), failed("auth_failed")
    other = replace(PAID, name="other-paid")
    assert name(after(task, no, agents=(PAID, HOME), refused=True)) == "home"
    assert name(after(task, no, agents=(PAID, other, HOME), refused=True)) == "other-paid"
    assert name(after(task, no, no, agents=(PAID, other, HOME), refused=True)) == "home"


def test_an_agent_with_a_successor_has_half_of_the_time_and_so_many_steps():
    limits = Limits(wall_s=100, steps=200, cost_usd=1)
    first = after(CASCADE, limits=limits)
    assert first is not None
    assert first.limits == replace(limits, wall_s=50, steps=EARLY_STEPS)
    clock = replace(CLOCK, spent=Spent(ran_s=30, steps=12), paused_s=10)
    onward = after(CASCADE, failed("stalled"), clock=clock, limits=limits)
    assert onward is not None
    assert onward.limits == replace(limits, wall_s=90)
    again = after(replace(CASCADE, retries=1), failed("stalled"), clock=clock, limits=limits)
    assert again is not None
    assert again.limits == replace(limits, wall_s=30 + 59 / 2, steps=12 + EARLY_STEPS)
    alone = after(AT_HOME, limits=limits)
    assert alone is not None
    assert alone.limits == limits
    assert share(Limits(), CLOCK, last=False) == Limits(steps=EARLY_STEPS)
    assert share(Limits(steps=5), CLOCK, last=False).steps == 5


@pytest.mark.parametrize(
    ("limit", "limits", "spent", "expected"),
    [
        ("steps", Limits(), Spent(steps=81), "paid"),
        ("steps", Limits(steps=100), Spent(steps=81), "paid"),
        ("steps", Limits(steps=81), Spent(steps=81), None),
        ("tokens", Limits(tokens=10), Spent(tokens=11), None),
        ("cost_usd", Limits(cost_usd=1), Spent(cost_usd=1.5), None),
    ],
)
def test_early_steps_move_the_work_on_and_a_budget_of_the_task_ends_it(
    limit: str, limits: Limits, spent: Spent, expected: str | None
) -> None:
    clock = replace(CLOCK, spent=spent)
    exceeded = failed("budget_exceeded", limit=limit)
    assert name(after(CASCADE, exceeded, limits=limits, clock=clock)) == expected


def test_a_limit_of_the_whole_job_ends_every_task():
    clock = replace(CLOCK, over=True)
    assert after(replace(CASCADE, retries=3), failed("crashed"), clock=clock) is None


AGENTS = st.lists(
    st.builds(
        Agent,
        name=st.sampled_from(["a", "b", "c"]),
        adapter=st.just("x"),
        model=st.sampled_from([None, "m", "m:cloud"]),
        base_url=st.sampled_from([None, "http://127.0.0.1:1", "http://127.0.0.1:2", "http://x.y"]),
        tier=st.sampled_from(["local", "cloud"]),
    ),
    max_size=3,
    unique_by=lambda agent: agent.name,
)
TASKS = st.builds(
    Task,
    prompt=st.just("p"),
    kind=st.sampled_from([None, "search", "fix"]),
    agent=st.sampled_from([None, None, "a"]),
    model=st.sampled_from([None, None, "m2"]),
    privacy=st.sampled_from(["any", "local"]),
    strategy=st.sampled_from([None, "auto", "local", "cloud", "cascade"]),
    fallback=st.sampled_from([None, "none", "cloud"]),
    retries=st.integers(0, 3),
)
OUTCOMES = st.lists(st.sampled_from([failed(kind) for kind in KINDS]), max_size=12)


@given(TASKS, AGENTS, OUTCOMES, st.floats(0, 1), st.booleans())
def test_the_attempts_of_a_task_end_and_go_only_where_the_user_let_them(
    task, agents, outcomes, chance, refused
):
    routes = choose(task, agents, State())
    clock = replace(CLOCK, chance=chance)
    done: list[Done] = []
    for outcome in outcomes:
        step = following(task, routes, done, Limits(), clock)
        if step is None:
            break
        done.append(Done(route=step.route, outcome=outcome, refused=refused))
    tiers = [each.route.agent.tier for each in done]
    if not refused:
        assert tiers == sorted(tiers, key=lambda tier: tier == "cloud")
    assert all(each.route.rank is not None for each in done)
    if task.privacy == "local":
        assert "cloud" not in tiers
    if len(set(tiers)) > 1:
        assert task.agent is None
    if ("local", "cloud") in pairwise(tiers):
        assert task.strategy == "cascade" or task.fallback == "cloud"
        assert task.model is None
    for agent in agents:
        assert sum(each.route.agent.name == agent.name for each in done) <= 1 + task.retries


# --- what they amount to --------------------------------------------------------------------------


def done(agent: Agent, outcome: Outcome) -> Done:
    return Done(route=Route(agent=agent, rank=0, reason="r"), outcome=outcome)


LOCAL_USE = Usage(input_tokens=10, output_tokens=1, cost_usd=0.0, cost_source="local")
PAID_USE = Usage(input_tokens=20, output_tokens=2, cost_usd=0.5, cost_source="agent")


def test_one_attempt_is_the_outcome_itself():
    outcome = Outcome(status="succeeded", usage=PAID_USE, run_id="r", duration_s=1.0)
    assert summed((), [done(PAID, outcome)], 9.0) == outcome


def test_several_are_summed_and_the_way_is_told():
    first = replace(failed("check_failed"), usage=LOCAL_USE, run_id="r1")
    last = Outcome(status="succeeded", usage=PAID_USE, run_id="r2", evidence=["exit: 0"])
    outcome = summed((), [done(HOME, first), done(PAID, last)], 3.14159)
    assert outcome.usage is not None
    assert (outcome.usage.input_tokens, outcome.usage.cost_usd) == (30, 0.5)
    assert (outcome.status, outcome.run_id, outcome.duration_s) == ("succeeded", "r2", 3.142)
    assert outcome.evidence == [
        "attempt 1: home: failed (check_failed: why), run r1",
        "attempt 2: paid: succeeded, run r2",
        "exit: 0",
    ]


def test_the_cost_of_a_run_that_told_nothing_is_not_nothing():
    last = Outcome(status="succeeded", usage=PAID_USE, run_id="r2")
    silent = summed((), [done(HOME, failed("crashed")), done(PAID, last)], 1)
    assert silent.usage is not None
    assert (silent.usage.input_tokens, silent.usage.cost_usd) == (20, None)
    never = replace(failed("interrupted"), run_id=None)
    ended = summed((), [done(PAID, last), done(PAID, never)], 1)
    assert ended.usage is not None
    assert ended.usage.cost_usd == 0.5
    assert ended.evidence[-1] == "attempt 2: paid: failed (interrupted: why)"
    crash = failed("crashed")
    assert summed((), [done(HOME, crash), done(HOME, crash)], 1).usage is None


@pytest.mark.parametrize("hint", [None, "Look."])
def test_the_key_that_would_have_let_it_go_on_is_named(hint: str | None) -> None:
    routes = choose(AT_HOME, [HOME, PAID], State())
    outcome = failed("check_failed", hint=hint)
    told = summed(routes, [Done(route=routes[0], outcome=outcome)], 1)
    assert told.error is not None
    assert told.error.hint == (f"Look. {REMEDY}" if hint else REMEDY)
    for kind, agent in (("interrupted", HOME), ("check_failed", PAID)):
        outcome = failed(kind, hint=hint)  # type: ignore[arg-type]
        told = summed(routes, [done(agent, outcome)], 1)
        assert told.error is not None
        assert told.error.hint == hint


def test_whoever_goes_on_is_told_what_was_done_before():
    before = replace(failed("check_failed"), text=" I changed a.py \n")
    prompt = continued(CASCADE, before, "home")
    assert prompt.startswith("p\n\nAnother agent (home) worked on this before")
    assert "why" in prompt
    assert prompt.endswith("Its last words:\nI changed a.py")
    bare = continued(CASCADE, Outcome(status="failed"), "home")
    assert "did not finish it: failed." in bare
    assert "last words" not in bare
