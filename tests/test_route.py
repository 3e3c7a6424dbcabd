"""Which agent does a task: pins, order, privacy, problems; and every agent gets its reason."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.adapter import Agent
from orchestrator.events import Considered
from orchestrator.route import Route, State, choose, considered, pinned
from orchestrator.server import Place
from orchestrator.task import Task

CLOUD = Agent(
    name="claude",
    adapter="claude",
    model="opus",
    api_key_env="ANTHROPIC_API_KEY",
    base_url="https://gateway.example",
    tier="cloud",
    profile="user",
)
LOCAL = Agent(
    name="codex-ollama",
    adapter="codex",
    model="qwen2.5-coder:7b",
    server="ollama",
    base_url="http://127.0.0.1:11434",
    tier="local",
)
NOTHING = State()
REASONING = "work of no stated kind is reasoning: cloud first"
TASK = Task(prompt="do it")


def chosen(task: Task, *agents: Agent, state: State = NOTHING) -> list[tuple[str, int | None, str]]:
    return [(each.agent.name, each.rank, each.reason) for each in choose(task, agents, state)]


# --- order ----------------------------------------------------------------------------------------


def test_the_first_that_can_goes_first():
    assert chosen(TASK, CLOUD, LOCAL) == [
        ("claude", 0, "work of no stated kind is reasoning: cloud first"),
        ("codex-ollama", 1, "usable (local), but a later choice"),
    ]


def test_one_that_cannot_run_is_passed_over_with_its_problem():
    state = State(problems={"claude": "claude is not installed (npm install claude)"})
    assert chosen(TASK, CLOUD, LOCAL, state=state) == [
        ("codex-ollama", 0, f"{REASONING}; the best that is usable (local)"),
        ("claude", None, "claude is not installed (npm install claude)"),
    ]


def test_a_pinned_agent_is_the_only_choice():
    assert chosen(replace(TASK, agent="codex-ollama"), CLOUD, LOCAL) == [
        ("codex-ollama", 0, "pinned by the task"),
        ("claude", None, "the task names agent 'codex-ollama'"),
    ]


def test_a_pinned_agent_that_cannot_run_is_not_replaced():
    state = State(problems={"claude": "not installed"})
    assert chosen(replace(TASK, agent="claude"), CLOUD, LOCAL, state=state) == [
        ("claude", None, "not installed"),
        ("codex-ollama", None, "the task names agent 'claude'"),
    ]


def test_without_agents_there_is_no_route():
    assert choose(TASK, (), NOTHING) == ()


# --- privacy --------------------------------------------------------------------------------------

PRIVATE = replace(TASK, privacy="local")
IN_THE_CLOUD = "privacy: local, and this agent's model is in the cloud"


def test_private_work_goes_to_no_cloud():
    assert chosen(PRIVATE, CLOUD, LOCAL) == [
        ("codex-ollama", 0, f"{REASONING}; the best that is usable (local)"),
        ("claude", None, IN_THE_CLOUD),
    ]


def test_private_work_goes_to_no_cloud_by_a_pin_either():
    assert chosen(replace(PRIVATE, agent="claude"), CLOUD) == [("claude", None, IN_THE_CLOUD)]
    elsewhere = replace(PRIVATE, base_url="https://api.example.com")
    assert chosen(elsewhere, LOCAL) == [("codex-ollama", None, IN_THE_CLOUD)]


def test_private_work_goes_to_a_local_address_that_is_pinned():
    assert chosen(replace(PRIVATE, base_url="http://localhost:8000"), CLOUD) == [
        ("claude", 0, "the first that takes the address that the task names (local)")
    ]


def test_private_work_goes_to_no_model_of_which_nobody_says_where_it_runs():
    """An agent without an address is local for the model that its owner gave it, and that alone."""
    word = Agent(name="mine", adapter="litellm", model="ollama_chat/qwen", tier="local")
    (route,) = choose(replace(PRIVATE, model="gpt-5"), [word], NOTHING)
    why = "privacy: local, and nothing says where gpt-5 runs (name its base_url)"
    assert (route.rank, route.reason) == (None, why)
    assert choose(PRIVATE, [word], NOTHING)[0].rank == 0
    assert choose(replace(PRIVATE, model="ollama_chat/qwen"), [word], NOTHING)[0].rank == 0
    assert choose(replace(TASK, model="gpt-5"), [word], NOTHING)[0].rank == 0
    at_desk = replace(PRIVATE, model="gpt-5", base_url="http://localhost:1")
    assert choose(at_desk, [word], NOTHING)[0].rank == 0
    assert choose(replace(PRIVATE, model="other"), [LOCAL], NOTHING)[0].rank == 0
    served = replace(word, server="ollama")
    assert choose(replace(PRIVATE, model="other"), [served], NOTHING)[0].rank == 0


@pytest.mark.parametrize("model", ["gpt-oss:120b-cloud", "qwen3-coder:480b-cloud", "kimi:cloud"])
def test_a_model_that_a_local_server_forwards_is_in_the_cloud(model):
    (route,) = choose(TASK, [replace(LOCAL, model=model)], NOTHING)
    assert (route.agent.tier, route.rank) == ("cloud", 0)
    why = f"privacy: local, and {model} is served by a cloud, whatever the address"
    assert chosen(PRIVATE, replace(LOCAL, model=model)) == [("codex-ollama", None, why)]
    assert chosen(replace(PRIVATE, model=model), LOCAL) == [("codex-ollama", None, why)]


@pytest.mark.parametrize("model", ["cloud", "cloudy:7b", "my-cloud-model", None])
def test_a_model_that_only_sounds_like_it_is_not(model):
    assert chosen(PRIVATE, replace(LOCAL, model=model)) == [
        ("codex-ollama", 0, f"{REASONING}; the best that is usable (local)")
    ]


# --- pins -----------------------------------------------------------------------------------------


def test_without_pins_an_agent_stays_as_it_is():
    assert pinned(TASK, CLOUD, NOTHING) == CLOUD
    assert pinned(TASK, LOCAL, NOTHING) == LOCAL


def test_a_pinned_model_is_asked_at_the_agents_own_place():
    assert pinned(replace(TASK, model="haiku"), CLOUD, NOTHING) == replace(CLOUD, model="haiku")


def test_a_pinned_key_goes_to_no_address_that_the_configuration_says():
    own = replace(CLOUD, base_url=None)
    desk = replace(CLOUD, name="desk", base_url="https://desk.example")
    routes = choose(replace(TASK, api_key_env="OTHER_KEY"), [desk, own], NOTHING)
    assert [(route.agent.name, route.rank) for route in routes] == [("claude", 0), ("desk", None)]
    assert "not the address that it is for" in routes[1].reason


def test_a_pinned_key_is_used_at_the_agents_own_place():
    task = replace(TASK, api_key_env="OTHER_KEY")
    own = replace(CLOUD, base_url=None)
    assert pinned(task, own, NOTHING) == replace(own, api_key_env="OTHER_KEY")


@pytest.mark.parametrize("url", ["http://127.0.0.1:8000", "https://evil.example", "desk:11434"])
@pytest.mark.parametrize("agent", [CLOUD, LOCAL, replace(LOCAL, api_key_env="LOCAL_KEY")])
def test_a_pinned_address_never_takes_the_agents_key(url, agent):
    placed = pinned(replace(TASK, base_url=url), agent, NOTHING)
    assert (placed.base_url, placed.api_key_env) == (url, None)
    assert (placed.profile, placed.server) == ("clean", None)


def test_a_pinned_address_takes_the_key_that_is_pinned_with_it():
    task = replace(TASK, base_url="http://desk:1", api_key_env="DESK_KEY")
    assert pinned(task, CLOUD, NOTHING).api_key_env == "DESK_KEY"


@pytest.mark.parametrize(
    ("url", "tier"),
    [("http://127.0.0.1:1", "local"), ("http://desk:1", "cloud"), ("scripted:/a.yaml", "local")],
)
def test_a_pinned_address_says_where_the_model_is(url, tier):
    assert pinned(replace(TASK, base_url=url), CLOUD, NOTHING).tier == tier
    assert pinned(replace(TASK, base_url=url), LOCAL, NOTHING).tier == tier


def test_the_agents_own_address_pinned_again_keeps_what_its_owner_said_of_it():
    desk = replace(LOCAL, base_url="http://desk:11434", api_key_env="DESK_KEY")
    placed = pinned(replace(TASK, base_url="http://desk:11434"), desk, NOTHING)
    assert placed == replace(desk, api_key_env=None)


@pytest.mark.parametrize(
    ("url", "kind"), [("http://x:11434", "ollama"), ("http://x:1", None), ("http://x", None)]
)
def test_a_well_known_port_tells_the_kind_of_server(url, kind):
    state = State(kinds={11434: "ollama"})
    assert pinned(replace(TASK, base_url=url), CLOUD, state).server == kind


# --- every agent ----------------------------------------------------------------------------------

NAMES = ["a", "b", "c", "d"]
AGENTS = st.lists(
    st.builds(
        Agent,
        name=st.sampled_from(NAMES),
        adapter=st.just("x"),
        model=st.sampled_from([None, "m", "m:cloud"]),
        api_key_env=st.sampled_from([None, "AGENT_KEY"]),
        base_url=st.sampled_from([None, "http://127.0.0.1:1", "http://x.example"]),
        tier=st.sampled_from(["local", "cloud"]),
    ),
    max_size=4,
    unique_by=lambda agent: agent.name,
)
TASKS = st.builds(
    Task,
    prompt=st.just("x"),
    agent=st.sampled_from([None, *NAMES]),
    model=st.sampled_from([None, "m2", "m2-cloud"]),
    base_url=st.sampled_from([None, "http://127.0.0.1:1", "http://y.example", "http://[bad"]),
    api_key_env=st.sampled_from([None, "TASK_KEY"]),
    privacy=st.sampled_from(["any", "local"]),
)
STATES = st.dictionaries(st.sampled_from(NAMES), st.just("broken")).map(
    lambda problems: State(problems=problems)
)


@given(TASKS, AGENTS, STATES)
def test_every_agent_gets_a_rank_or_the_reason_why_not(task, agents, state):
    routes = choose(task, agents, state)
    assert sorted(route.agent.name for route in routes) == sorted(each.name for each in agents)
    ranks = [route.rank for route in routes]
    usable = [rank for rank in ranks if rank is not None]
    assert ranks == [*range(len(usable)), *[None] * (len(ranks) - len(usable))]
    assert all(route.reason for route in routes)


@given(TASKS, AGENTS, STATES)
def test_no_usable_route_breaks_a_pin_a_problem_or_privacy(task, agents, state):
    for route in choose(task, agents, state):
        if route.rank is None:
            continue
        assert task.agent in {None, route.agent.name}
        assert route.agent.name not in state.problems
        if task.privacy == "local":
            assert route.agent.tier == "local"
            assert not (route.agent.model or "").endswith("cloud")


@given(TASKS, AGENTS, STATES)
def test_no_key_goes_to_an_address_that_it_was_not_written_for(task, agents, state):
    for route in choose(task, agents, state):
        if task.base_url is not None:
            assert route.agent.api_key_env == task.api_key_env
            assert route.agent.base_url == task.base_url
        elif route.rank is not None and task.api_key_env is not None:
            assert route.agent.base_url is None


def test_the_event_shows_every_agent_with_its_reason():
    routes = choose(PRIVATE, [CLOUD, LOCAL], NOTHING)
    assert considered(routes) == [
        Considered(
            agent="codex-ollama",
            chosen=True,
            reason=f"{REASONING}; the best that is usable (local)",
        ),
        Considered(agent="claude", chosen=False, reason=IN_THE_CLOUD),
    ]
    assert considered([Route(agent=CLOUD, rank=1, reason="later")])[0].chosen is False


# --- SERVER/MODEL ---------------------------------------------------------------------------------

DESK = Place(
    name="desk", kind="ollama", base_url="http://desk.example:1", api_key_env="DESK", local=True
)
AT_DESK = State(places={"desk": DESK})


@pytest.mark.parametrize("model", ["lmstudio-community/Meta-Llama-3-8B", "mistral:7b", "desk/"])
def test_a_model_with_a_slash_is_a_name_where_no_server_is_called_so(model):
    agent = pinned(replace(TASK, model=model), LOCAL, AT_DESK)
    assert agent == replace(LOCAL, model=model)


def test_a_model_that_names_its_server_goes_there_with_the_servers_key():
    agent = pinned(replace(TASK, model="desk/qwen:14b"), CLOUD, AT_DESK)
    assert (agent.model, agent.server, agent.base_url) == (
        "qwen:14b",
        "ollama",
        "http://desk.example:1",
    )
    assert (agent.api_key_env, agent.tier, agent.profile) == ("DESK", "local", "clean")


def test_an_address_of_the_task_wins_over_the_name_of_a_server():
    task = replace(TASK, model="desk/qwen", base_url="http://127.0.0.1:9")
    agent = pinned(task, CLOUD, AT_DESK)
    assert (agent.model, agent.base_url) == ("desk/qwen", "http://127.0.0.1:9")
