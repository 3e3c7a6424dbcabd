"""The choice with what is really there: servers, keys, slots; and `route` tells it."""

import json
import os
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest

from adapters.servers.ollama import server as ollama
from orchestrator.adapter import About, Agent, Program
from orchestrator.config import Bounds, Config
from orchestrator.discovery import room_of, routes_of
from orchestrator.route import Route
from orchestrator.server import Place
from orchestrator.slots import Room, Slots
from orchestrator.task import Task
from orchestrator.testing import model_server
from tests import commands
from tests.scripted_adapter import Scripted

pytestmark = pytest.mark.anyio

KEYED = About(name="scripted", title="S", program=None, key_env="A_KEY", prompt_tokens=1000)
ABSENT = replace(KEYED, program=Program(name="no-such-program"))
HOME = Agent(name="home", adapter="scripted", server="ollama", model="m", tier="local")
PAID = Agent(name="paid", adapter="scripted", model="large", tier="cloud")


def config(tmp_path: Path, *agents: Agent, **environ: str) -> Config:
    return Config(
        agents=agents,
        adapters={"scripted": Scripted(about=KEYED), "absent": Scripted(about=ABSENT)},
        servers={"ollama": ollama},
        state=tmp_path / "state",
        environ={"PATH": "/usr/bin", "HOME": str(tmp_path), **environ},
    )


def told(routes: tuple[Route, ...]) -> dict[str, tuple[int | None, str]]:
    return {route.agent.name: (route.rank, route.reason) for route in routes}


async def found(task: Task, settings: Config) -> dict[str, tuple[int | None, str]]:
    return told(await routes_of(task, settings, Slots(settings.state / "slots")))


@pytest.mark.parametrize(
    ("script", "model", "why"),
    [
        ({}, "other", "has no model 'other'. It has: m:latest. Get it: `ollama pull other`."),
        ({"tools": False}, "m", "it needs a model that calls tools, and m does not"),
        ({"context": 2048}, "m", "its model is configured for 2,048 tokens, and the task needs"),
    ],
)
async def test_a_server_that_cannot_do_it_is_out_and_the_next_one_is_chosen(
    tmp_path: Path, script: dict[str, object], model: str, why: str
) -> None:
    turns = {"server": "ollama", "model": "m", "turns": [{"text": "hi"}]}
    async with model_server({**turns, **script}) as small, model_server(turns) as large:
        agents = (
            replace(HOME, name="small", model=model, base_url=small.base_url),
            replace(HOME, name="large", base_url=large.base_url),
        )
        routes = await found(Task(prompt="p", kind="search"), config(tmp_path, *agents))
    assert routes["large"][0] == 0
    assert routes["small"][0] is None
    assert why in routes["small"][1]


async def test_a_server_that_is_down_is_out_and_the_one_that_is_left_is_not_asked(
    tmp_path: Path,
) -> None:
    down = replace(HOME, base_url="http://127.0.0.1:9")
    other = replace(HOME, name="other", base_url="http://127.0.0.1:10")
    routes = await found(Task(prompt="p", kind="search"), config(tmp_path, down, other))
    assert {rank for rank, _ in routes.values()} == {None}
    assert "Cannot reach Ollama at http://127.0.0.1:9 (connection refused)" in routes["home"][1]
    alone = await found(Task(prompt="p", kind="search"), config(tmp_path, down))
    assert alone["home"][0] == 0  # what is wrong with it, its own run tells


async def test_a_key_that_is_there_is_seen(tmp_path: Path) -> None:
    without = await found(Task(prompt="p"), config(tmp_path, PAID))
    assert without["paid"][1].endswith("neither a key nor a login was seen")
    having = await found(Task(prompt="p"), config(tmp_path, PAID, A_KEY="secret"))
    assert "seen" not in having["paid"][1]


async def test_what_a_model_in_the_cloud_is_expected_to_cost_is_told_and_held_to_the_budget(
    tmp_path: Path,
) -> None:
    settings = config(tmp_path, replace(PAID, model="gpt-5-mini"), A_KEY="secret")
    slots = Slots(settings.state / "slots")
    [route] = await routes_of(Task(prompt="p"), settings, slots, agents=settings.agents, left_usd=5)
    assert route.rank == 0
    assert 0 < (route.cost_usd or 0) < 1
    [route] = await routes_of(
        Task(prompt="p"), settings, slots, agents=settings.agents, left_usd=0.000_1
    )
    assert route.rank is None
    assert route.reason.startswith("one call costs about $0.00")
    [route] = await routes_of(
        Task(prompt="p", model="new"), settings, slots, agents=settings.agents
    )
    assert route.cost_usd is None  # the price is that of the model which the task names


async def test_a_model_of_the_task_that_a_server_passes_on_to_a_cloud_is_not_free(
    tmp_path: Path,
) -> None:
    home = replace(HOME, base_url="http://127.0.0.1:9")
    settings = config(tmp_path, home)
    task = Task(prompt="p", model="gpt-oss:120b-cloud")
    slots = Slots(settings.state / "slots")
    [route] = await routes_of(task, settings, slots, agents=settings.agents)
    assert (route.agent.tier, route.cost_usd) == ("cloud", None)


@pytest.mark.parametrize("environ", [{}, {"OLLAMA_MODEL": "a"}])
async def test_an_agent_for_which_nobody_names_a_model_is_out_where_its_server_has_several(
    tmp_path: Path, environ: dict[str, str]
) -> None:
    script = {"server": "ollama", "model": ["a", "b"], "turns": [{"text": "hi"}]}
    async with model_server(script) as server:
        open_ = replace(HOME, model=None, base_url=server.base_url)
        settings = config(tmp_path, open_, replace(open_, name="named", model="a"), **environ)
        routes = await found(Task(prompt="p", kind="search"), settings)
    assert routes["named"][0] == len(environ)
    if not environ:
        assert "No model is named, and Ollama at" in routes["home"][1]


async def test_a_server_whose_slots_are_taken_stands_behind_its_twin(tmp_path: Path) -> None:
    turns = {"server": "ollama", "model": "m", "turns": [{"text": "hi"}]}
    async with model_server(turns) as one, model_server(turns) as other:
        agents = (
            replace(HOME, name="one", base_url=one.base_url),
            replace(HOME, name="other", base_url=other.base_url),
        )
        settings = config(tmp_path, *agents)
        task = Task(prompt="p", kind="search")
        assert (await found(task, settings))["one"][0] == 0
        room = room_of(agents[0], KEYED, settings)
        assert room is not None
        assert room == Room(name=one.base_url, slots=1)
        async with Slots(settings.state / "slots").hold(room):
            routes = await found(task, settings)
    assert routes["other"][0] == 0
    assert routes["one"] == (1, "usable (local), but a later choice; 1 of 1 slots taken")


def test_where_slots_are(tmp_path: Path) -> None:
    desk = Place(name="desk", kind="ollama", base_url="http://desk:1/v1", local=True, slots=4)
    settings = replace(config(tmp_path), places=(desk,))
    nobody = About(name="x", title="X", program=None)
    url = replace(HOME, base_url="http://desk:1")
    assert room_of(url, KEYED, settings) == Room(name="http://desk:1", slots=4)
    gateway = replace(PAID, base_url="https://gateway.example")
    assert room_of(gateway, KEYED, settings) == Room(name="https://gateway.example", slots=20)
    assert room_of(PAID, KEYED, settings) == Room(name="scripted", slots=20)
    assert room_of(replace(PAID, api_key_env="K"), nobody, settings) == Room(name="K", slots=20)
    assert room_of(PAID, nobody, settings) is None
    fewer = replace(settings, bounds=Bounds(cloud_slots=3))
    assert room_of(gateway, KEYED, fewer) == Room(name="https://gateway.example", slots=3)
    assert room_of(PAID, KEYED, fewer) == Room(name="scripted", slots=3)
    assert room_of(replace(HOME, base_url="scripted:a.yaml"), KEYED, settings) is None


async def test_a_local_agent_that_was_written_down_and_is_broken_is_not_replaced_by_a_cloud(
    tmp_path: Path,
) -> None:
    broken = replace(HOME, adapter="absent")
    settings = config(tmp_path, broken, PAID, A_KEY="secret")
    routes = await found(Task(prompt="p", kind="search"), settings)
    assert {rank for rank, _ in routes.values()} == {None}
    moved = await found(Task(prompt="p", kind="search", fallback="cloud"), settings)
    assert moved["paid"][0] == 0
    forbidden = replace(settings, bounds=Bounds(agents=frozenset({"paid"})))
    assert (await found(Task(prompt="p", kind="search"), forbidden))["paid"][0] == 0


# --- the command ----------------------------------------------------------------------------------

CONFIG = """
[agents.home]
adapter = "jsonl"
argv = ["/bin/true"]
tier = "local"
[[agents.home.events]]
emit = "message"
when = {type = "x"}
text = "y"
[[agents.home.events]]
emit = "turn.finished"
when = {type = "x"}
stop_reason = "end_turn"
[agents.paid]
adapter = "jsonl"
argv = ["/bin/true"]
tier = "cloud"
[[agents.paid.events]]
emit = "usage"
when = {type = "u"}
input_tokens = "n"
[[agents.paid.events]]
emit = "message"
when = {type = "x"}
text = "y"
[[agents.paid.events]]
emit = "turn.finished"
when = {type = "x"}
stop_reason = "end_turn"
"""


def route(folder: Path, *arguments: str, more: str = "") -> "subprocess.CompletedProcess[str]":
    (folder / "o.toml").write_text(CONFIG + more)
    home = {"HOME": str(folder), "XDG_STATE_HOME": str(folder / "state")}
    env = {"PATH": os.environ["PATH"], **home}
    return commands.run("route", *arguments, "--config", "o.toml", cwd=folder, env=env)


def test_route_tells_each_agent_the_plan_and_what_to_write(tmp_path: Path) -> None:
    done = route(tmp_path, "-p", "find it", "--kind", "search")
    assert (done.returncode, done.stderr) == (0, "")
    lines = done.stdout.splitlines()
    assert lines[0] == "task: find it"
    row = "1 home its own default local $0.00 search is cheap: local first"
    assert lines[3].split() == row.split()
    assert "unknown  search is cheap: local first, and nothing lets the work move on" in lines[4]
    assert lines[-2:] == [
        "plan: home",
        "Set `fallback: cloud`, and what fails at home may go on in the cloud.",
    ]
    assert not (tmp_path / "state").exists()


def test_route_explains_every_task_of_a_file_for_programs(tmp_path: Path) -> None:
    (tmp_path / "t.yaml").write_text(
        "strategy: cascade\ncheck: 'true'\ntasks:\n"
        "  - {id: a, kind: fix, prompt: x}\n"
        "  - {id: b, privacy: local, prompt: x}\n"
    )
    done = route(tmp_path, "t.yaml", "-o", "json")
    told_ = json.loads(done.stdout)
    assert [(one["task"], one["plan"], one["enforced"]) for one in told_] == [
        ("a", ["home", "paid"], None),
        ("b", ["home"], "routing"),
    ]
    assert {one["cost_usd"] for one in told_[0]["considered"]} == {0.0, None}
    text = route(tmp_path, "t.yaml").stdout
    assert "plan: home; if the check fails or the run does: paid (unknown)" in text
    assert "privacy: routing only" in text


def test_route_states_by_how_much_a_budget_may_be_passed(tmp_path: Path) -> None:
    (tmp_path / "t.yaml").write_text(
        "strategy: cascade\ncheck: 'true'\nkind: fix\nprompt: x\n"
        "limits: {tokens: 20000, cost_usd: 1.5, steps: 8}\n"
    )
    assert (
        "limits: cost_usd 1.5, tokens 20000, steps 8; passed by at most:"
        " home what a whole run uses; paid one call of the model"
    ) in route(tmp_path, "t.yaml").stdout.splitlines()
    [told_] = json.loads(route(tmp_path, "t.yaml", "-o", "json").stdout)
    units = {one["agent"]: one["overshoot"] for one in told_["considered"]}
    assert (units["home"], units["paid"]) == ("run", "call")
    assert (units["codex"], units["gemini"]) == ("call", "turn")


def test_an_agent_that_is_written_wrongly_is_out_and_says_why(tmp_path: Path) -> None:
    wrong = '[agents.mistyped]\nadapter = "codex"\nmodle = "m"\n[defaults]\nagent = "mistyped"\n'
    done = route(tmp_path, "-p", "x", "--strategy", "cascade", more=wrong)
    assert "plan: home" in done.stdout
    [row] = [line for line in done.stdout.splitlines() if " mistyped " in line]
    assert row.lstrip().startswith("- mistyped")
    assert "agent 'mistyped': codex has no option 'modle' (known: " in row
    named = route(tmp_path, "-p", "x", "--agent", "mistyped", more=wrong)
    assert (named.returncode, named.stdout) == (2, "")
    assert "codex has no option 'modle'" in named.stderr


def test_route_says_with_its_status_that_nobody_can_do_it(tmp_path: Path) -> None:
    done = route(tmp_path, "-p", "x", "--agent", "paid", "--privacy", "local")
    assert done.returncode == 1
    assert "plan: nobody can do it" in done.stdout
    assert route(tmp_path, "-p", "x", "--agent", "none").returncode == 2
