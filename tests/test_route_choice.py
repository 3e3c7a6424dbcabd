"""Strategies, kinds, fitness, load and the way out of the house: tables, then properties."""

from collections.abc import Sequence
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.adapter import Agent
from orchestrator.route import (
    CHEAP,
    REMEDY,
    Route,
    Standing,
    State,
    choose,
    class_of,
    estimated_tokens,
    may_escalate,
    stages,
)
from orchestrator.task import KINDS, Kind, Strategy, Task

HOME = Agent(
    name="home", adapter="aider", model="qwen", base_url="http://127.0.0.1:11434", tier="local"
)
DESK = replace(HOME, name="desk", base_url="http://desk:11434")
PAID = Agent(name="paid", adapter="claude", model="opus", tier="cloud")
OTHER = Agent(name="other", adapter="codex", model="gpt", tier="cloud")
BOTH = (PAID, HOME)
NOTHING = State()
TASK = Task(prompt="do it")
DOWN = State(standing={"home": Standing(problem="cannot reach it (connection refused)")})


def names(routes: Sequence[Route]) -> list[str]:
    return [route.agent.name for route in routes if route.rank is not None]


def reason(name: str, routes: Sequence[Route]) -> str:
    return next(route.reason for route in routes if route.agent.name == name)


# --- strategy and kind ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("strategy", "kind", "expected"),
    [
        (None, "search", ["home"]),
        (None, "fix", ["paid", "home"]),
        (None, None, ["paid", "home"]),
        ("auto", "commit_message", ["home"]),
        ("auto", "review", ["paid", "home"]),
        ("local", "fix", ["home"]),
        ("cloud", "search", ["paid"]),
        ("cascade", "fix", ["home", "paid"]),
        ("cascade", "search", ["home", "paid"]),
    ],
)
@pytest.mark.parametrize("agents", [BOTH, BOTH[::-1]])
def test_strategy_and_kind_say_what_goes_first(
    strategy: Strategy | None, kind: Kind | None, expected: list[str], agents: tuple[Agent, ...]
) -> None:
    task = replace(TASK, strategy=strategy, kind=kind)
    assert names(choose(task, agents, NOTHING)) == expected


def test_every_kind_has_a_class_and_the_user_may_say_another():
    assert {kind for kind in KINDS if class_of(replace(TASK, kind=kind), NOTHING) == "cheap"} == (
        set(CHEAP)
    )
    assert class_of(TASK, NOTHING) == "reasoning"
    own = State(classes={"search": "reasoning", "fix": "cheap"})
    assert names(choose(replace(TASK, kind="search"), BOTH, own)) == ["paid", "home"]
    assert names(choose(replace(TASK, kind="fix"), BOTH, own)) == ["home"]


def test_a_kind_may_be_given_to_an_agent():
    own = State(classes={"search": "other", "review": "home"})
    agents = (*BOTH, OTHER)
    routes = choose(replace(TASK, kind="search"), agents, own)
    assert names(routes) == ["other", "paid", "home"]
    assert routes[0].reason == "[kinds] gives search to it (cloud)"
    assert names(choose(replace(TASK, kind="review"), agents, own)) == ["home"]


def test_an_agent_of_a_kind_that_cannot_run_leaves_the_work_to_the_kinds_usual_class():
    own = State(classes={"search": "other"}, problems={"other": "not installed"})
    assert names(choose(replace(TASK, kind="search"), (*BOTH, OTHER), own)) == ["home"]


def test_the_default_agent_goes_first_where_no_strategy_and_no_kind_of_the_user_says_otherwise():
    state = State(default_agent="other", classes={"docs": "cheap"})
    agents = (*BOTH, OTHER)
    routes = choose(replace(TASK, kind="search"), agents, state)
    assert (names(routes), routes[0].reason) == (
        ["other", "paid", "home"],
        "the default agent (cloud)",
    )
    assert names(choose(replace(TASK, kind="docs"), agents, state)) == ["home"]
    assert names(choose(replace(TASK, kind="search", strategy="auto"), agents, state)) == ["home"]


@pytest.mark.parametrize("strategy", ["auto", "local", "cloud", "cascade", None])
@pytest.mark.parametrize("name", ["home", "paid"])
def test_a_named_agent_wins_over_every_strategy_and_kind(
    strategy: Strategy | None, name: str
) -> None:
    task = replace(TASK, agent=name, strategy=strategy, kind="search")
    routes = choose(task, BOTH, State(classes={"search": "paid"}))
    assert (names(routes), routes[0].reason) == ([name], "pinned by the task")
    assert [stage.agent.name for stage in stages(task, routes)] == [name]


def test_a_named_model_is_taken_by_the_first_that_can_and_by_no_other_afterwards():
    task = replace(TASK, model="m", strategy="cascade", kind="search")
    routes = choose(task, BOTH, NOTHING)
    assert routes[0].reason == "the first that takes the model that the task names (cloud)"
    assert len(stages(task, routes)) == 1
    assert len(stages(task, choose(task, BOTH[::-1], NOTHING))) == 1


def test_a_cloud_that_nobody_wrote_down_stands_behind_an_agent_that_somebody_did():
    state = State(configured=frozenset({"home"}))
    routes = choose(replace(TASK, kind="fix"), BOTH, state)
    assert names(routes) == ["home"]
    assert routes[0].reason == "fix is reasoning: cloud first; the best that is usable (local)"
    assert reason("paid", routes) == (
        "home (local) goes first, and nothing lets the work move on to the cloud"
    )
    assert names(choose(TASK, BOTH, State(configured=frozenset({"paid"})))) == ["paid", "home"]


def test_a_cloud_without_key_and_login_is_the_last_choice():
    state = State(standing={"paid": Standing(credentials=False)})
    assert names(choose(replace(TASK, kind="fix"), (*BOTH, OTHER), state)) == [
        "other",
        "home",
        "paid",
    ]
    alone = choose(TASK, [PAID], state)
    assert alone[0].reason.endswith("; neither a key nor a login was seen")


# --- fit ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("standing", "why"),
    [
        (Standing(problem="the model is not there"), "the model is not there"),
        (Standing(tools=False), "it needs a model that calls tools, and qwen does not"),
        (
            Standing(context=4096, own_tokens=6300),
            (
                "its model is configured for 4,096 tokens, and the task needs about 10,398 "
                "(prompt, the agent's own prompt, answer)"
            ),
        ),
    ],
)
def test_an_agent_whose_model_does_not_fit_is_out_with_the_reason(
    standing: Standing, why: str
) -> None:
    state = State(standing={"home": standing})
    (route,) = choose(TASK, [HOME], state)
    assert (route.rank, route.reason) == (None, why)


@pytest.mark.parametrize(
    "standing",
    [
        Standing(context=None),
        Standing(tools=None),
        Standing(tools=False, calls_tools=False),
        Standing(context=4096 + 6300 + estimated_tokens(TASK), own_tokens=6300),
    ],
)
def test_what_fits_and_what_is_not_known_is_not_refused(standing: Standing) -> None:
    assert names(choose(TASK, [HOME], State(standing={"home": standing}))) == ["home"]


def test_the_prompt_is_estimated_by_its_bytes():
    assert estimated_tokens(replace(TASK, prompt="x" * 10_000)) == 3334
    assert estimated_tokens(replace(TASK, prompt="日" * 100)) == 101
    assert estimated_tokens(replace(TASK, prompt="\ud800")) == 1


def test_what_cannot_be_paid_is_out_and_what_may_not_be_is_put_back():
    dear = Standing(cost_usd=0.5, call_usd=0.05)
    task = replace(TASK, fallback="cloud")

    def left(dollars: float) -> tuple[Route, ...]:
        return choose(task, BOTH, State(standing={"paid": dear}, left_usd=dollars))

    assert [(one.agent.name, one.rank, one.cost_usd) for one in left(0.04)] == [
        ("home", 0, 0.0),
        ("paid", None, 0.5),
    ]
    assert left(0.04)[1].reason == "one call costs about $0.0500, and $0.0400 of the budget is left"
    assert names(left(0.1)) == ["home", "paid"]  # that it costs so much is an assumption
    said = "expected to cost $0.50, more than the $0.10 that is left"
    assert left(0.1)[1].reason.endswith(said)
    assert names(left(0.5)) == ["paid", "home"]
    alone = choose(TASK, [PAID], State(standing={"paid": dear}, left_usd=0.1))
    assert (names(alone), alone[0].reason.endswith(said)) == (["paid"], True)


# --- load -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("home", "desk", "first"),
    [
        (Standing(), Standing(), "home"),
        (Standing(slots=1, taken=1), Standing(slots=1), "desk"),
        (Standing(slots=4, taken=3), Standing(slots=4, taken=1), "desk"),
        (Standing(slots=4, taken=2), Standing(slots=1, taken=1), "home"),
        (Standing(slots=2, taken=1, loaded=True), Standing(slots=2, loaded=False), "desk"),
        (Standing(loaded=False), Standing(loaded=True), "desk"),
        (Standing(latency_s=0.2), Standing(latency_s=0.1), "desk"),
        (Standing(latency_s=0.03), Standing(latency_s=0.001), "home"),
        (Standing(latency_s=0.9, loaded=True), Standing(latency_s=0.1, loaded=False), "home"),
        (Standing(), Standing(latency_s=0.1), "desk"),
    ],
)
def test_servers_with_one_model_share_the_load(home: Standing, desk: Standing, first: str) -> None:
    state = State(standing={"home": home, "desk": desk})
    routes = choose(replace(TASK, kind="search"), [HOME, DESK], state)
    assert routes[0].agent.name == first


def test_the_load_says_nothing_between_agents_that_are_not_alike():
    busy = State(standing={"home": Standing(slots=1, taken=1), "desk": Standing(slots=1)})
    for other in (
        replace(DESK, model="other"),
        replace(DESK, adapter="codex"),
        replace(DESK, options={"map_tokens": 0}),
        replace(DESK, model=None),
    ):
        assert choose(replace(TASK, kind="search"), [HOME, other], busy)[0].agent is HOME
    assert choose(TASK, [HOME], busy)[0].reason.endswith("; 1 of 1 slots taken")


# --- the way out of the house ---------------------------------------------------------------------


@pytest.mark.parametrize("strategy", ["auto", "local", None])
def test_a_local_agent_that_is_down_is_not_replaced_by_a_cloud(strategy: Strategy | None) -> None:
    task = replace(TASK, kind="search", strategy=strategy)
    routes = choose(task, BOTH, DOWN)
    assert names(routes) == []
    assert stages(task, routes) == ()
    assert reason("home", routes) == "cannot reach it (connection refused)"
    assert "cloud" in reason("paid", routes)
    allowed = replace(task, fallback="cloud")
    assert names(choose(allowed, BOTH, DOWN)) == ["paid"]


def test_what_would_let_the_work_move_on_is_named():
    routes = choose(replace(TASK, kind="search"), BOTH, NOTHING)
    assert [(route.rank, route.remedy) for route in routes] == [(0, None), (None, REMEDY)]
    assert routes[1].reason == (
        "search is cheap: local first, and nothing lets the work move on to the cloud"
    )


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"kind": "search"}, ["home"]),
        ({"kind": "search", "fallback": "cloud"}, ["home", "paid"]),
        ({"kind": "fix", "fallback": "cloud"}, ["paid"]),
        ({"strategy": "local"}, ["home"]),
        ({"strategy": "local", "fallback": "cloud"}, ["home", "paid"]),
        ({"strategy": "cascade"}, ["home", "paid"]),
        ({"strategy": "cascade", "privacy": "local"}, ["home"]),
        ({"strategy": "cascade", "agent": "home"}, ["home"]),
        ({"strategy": "cloud"}, ["paid"]),
    ],
)
def test_a_task_goes_through_these_agents(change: dict[str, object], expected: list[str]) -> None:
    task = replace(TASK, **change)  # type: ignore[arg-type]
    routes = choose(task, (*BOTH, OTHER), NOTHING)
    assert [stage.agent.name for stage in stages(task, routes)] == expected


NAMES = ["a", "b", "c", "d"]
AGENTS = st.lists(
    st.builds(
        Agent,
        name=st.sampled_from(NAMES),
        adapter=st.just("x"),
        model=st.sampled_from([None, "m", "m:cloud", "m-cloud"]),
        base_url=st.sampled_from([None, "http://127.0.0.1:1", "http://x.example"]),
        tier=st.sampled_from(["local", "cloud"]),
    ),
    max_size=4,
    unique_by=lambda agent: agent.name,
)
TASKS = st.builds(
    Task,
    prompt=st.text(max_size=20),
    kind=st.sampled_from([None, *KINDS]),
    agent=st.sampled_from([None, None, *NAMES]),
    model=st.sampled_from([None, None, "m2", "m2-cloud"]),
    base_url=st.sampled_from([None, None, "http://127.0.0.1:1", "http://y.example"]),
    privacy=st.sampled_from(["any", "local"]),
    strategy=st.sampled_from([None, "auto", "local", "cloud", "cascade"]),
    fallback=st.sampled_from([None, "none", "cloud"]),
)
STANDING = st.builds(
    Standing,
    problem=st.sampled_from([None, None, "down"]),
    context=st.sampled_from([None, 2048, 128_000]),
    tools=st.sampled_from([None, True, False]),
    loaded=st.sampled_from([None, True, False]),
    credentials=st.sampled_from([None, True, False]),
    slots=st.sampled_from([None, 1, 20]),
    taken=st.integers(0, 20),
    latency_s=st.sampled_from([None, 0.1, 2.0]),
    cost_usd=st.sampled_from([None, 0.0, 0.5]),
    call_usd=st.sampled_from([None, 0.0, 0.2]),
)
STATES = st.builds(
    State,
    problems=st.dictionaries(st.sampled_from(NAMES), st.just("not installed"), max_size=2),
    standing=st.dictionaries(st.sampled_from(NAMES), STANDING),
    classes=st.dictionaries(
        st.sampled_from(KINDS), st.sampled_from(["cheap", "reasoning", *NAMES]), max_size=3
    ),
    default_agent=st.sampled_from([None, *NAMES]),
    configured=st.frozensets(st.sampled_from(NAMES)),
    left_usd=st.sampled_from([None, 0.1, 5.0]),
)


@given(TASKS, AGENTS, STATES)
def test_every_agent_is_there_once_with_a_rank_or_a_reason(task, agents, state):
    routes = choose(task, agents, state)
    assert sorted(route.agent.name for route in routes) == sorted(agent.name for agent in agents)
    usable = [route.rank for route in routes if route.rank is not None]
    assert [route.rank for route in routes] == [
        *range(len(usable)),
        *[None] * (len(routes) - len(usable)),
    ]
    assert all(route.reason for route in routes)


@given(TASKS, AGENTS, STATES)
def test_private_work_has_no_way_into_a_cloud_whatever_else_is_said(task, agents, state):
    task = replace(task, privacy="local")
    assert not may_escalate(task)
    routes = choose(task, agents, state)
    for route in (*stages(task, routes), *(route for route in routes if route.rank is not None)):
        assert route.agent.tier == "local"
        assert not (route.agent.model or "").endswith("cloud")


@given(TASKS, AGENTS, STATES)
def test_nothing_goes_from_local_to_cloud_without_the_users_word(task, agents, state):
    routes = choose(task, agents, state)
    tiers = [stage.agent.tier for stage in stages(task, routes)]
    assert tiers in ([], ["local"], ["cloud"], ["local", "cloud"])
    if tiers == ["local", "cloud"]:
        assert task.strategy == "cascade" or task.fallback == "cloud"


@given(TASKS, AGENTS, STATES)
def test_a_local_model_that_is_lost_sends_nothing_to_a_cloud_without_the_users_word(
    task, agents, state
):
    """What was to be done at home is done at home or not at all: on the same agents, with the
    models of the local ones gone, no cloud is chosen."""
    before = [route for route in choose(task, agents, state) if route.rank == 0]
    if not before or before[0].agent.tier == "cloud":
        return
    gone = {
        agent.name: replace(state.standing.get(agent.name, Standing()), problem="down")
        for agent in agents
        if agent.tier == "local"
    }
    routes = choose(task, agents, replace(state, standing={**state.standing, **gone}))
    if task.strategy != "cascade" and task.fallback != "cloud":
        assert not [
            route for route in routes if route.rank is not None and route.agent.tier == "cloud"
        ]


def test_local_mode_keeps_at_home_what_no_strategy_and_no_pin_sends_away():
    mode = State(local_mode=True)
    task = replace(TASK, kind="fix")
    routes = choose(task, BOTH, mode)
    assert (names(routes), routes[0].reason) == (["home"], "local mode is on")
    assert names(choose(replace(task, strategy="cloud"), BOTH, mode)) == ["paid"]
    assert names(choose(replace(task, agent="paid"), BOTH, mode)) == ["paid"]
