"""Model servers as discovery sees them: who is there, what is wrong, what a run does about it."""

import socket
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path

import anyio
import pytest

from orchestrator.adapter import About, Agent
from orchestrator.config import Config, LocalMode, at_home, load_config, places_of
from orchestrator.discovery import find_servers, preflight, see, servers, with_model
from orchestrator.discovery.pulling import pull, remove
from orchestrator.discovery.trial import trials
from orchestrator.errors import InputError, OrchestrateError
from orchestrator.events import Error, Event, Notice, RunStarted
from orchestrator.server import ModelServer, Place, Progress
from orchestrator.supervisor import Supervisor
from orchestrator.task import Task
from orchestrator.testing import model_server
from orchestrator.testing.script import Make
from tests.resolver import knows_nobody
from tests.scripted_adapter import DONE, Scripted, scripted_config

pytestmark = pytest.mark.anyio

MAKES: tuple[Make, ...] = ("ollama", "lmstudio", "vllm", "llamacpp", "openai-compatible")
SAYS = {"text": "pong", "repeat": "forever"}
CALLS = {"tool_calls": [{"name": "report", "arguments": {"ok": True}}], "repeat": "forever"}


def script(
    make: Make = "ollama", *turns: Mapping[str, object], **keys: object
) -> dict[str, object]:
    return {"model": "qwen:14b", "server": make, "turns": list(turns or (SAYS,)), **keys}


@pytest.fixture
def closed() -> Iterator[str]:
    """An address at which nobody listens, and nobody else can."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        yield f"http://127.0.0.1:{taken.getsockname()[1]}"


@pytest.fixture
def config(tmp_path: Path, closed: str) -> Config:
    """All the kinds, each at an address where nobody listens, so that no real server matters."""
    loaded = load_config(environ={}, folder=tmp_path)
    port = int(closed.rpartition(":")[2])
    kinds = {name: replace(kind, port=kind.port and port) for name, kind in loaded.servers.items()}
    return replace(loaded, servers=kinds, places=(), state=tmp_path / "state", local=LocalMode)


def at(url: str, kind: str = "ollama", **keys: object) -> Agent:
    named: dict[str, object] = {"model": "qwen:14b", "server": kind, "tier": "local", **keys}
    return Agent(name="a", adapter="a", base_url=url, **named)  # type: ignore[arg-type]


# --- finding --------------------------------------------------------------------------------------


@pytest.mark.parametrize("make", MAKES)
async def test_whatever_answers_at_a_usual_port_is_known_for_what_it_is(config, make):
    """The port says Ollama; what answers says otherwise."""
    async with model_server(script(make)) as server:
        port = int(server.base_url.rpartition(":")[2])
        kinds = {**config.servers, "ollama": replace(config.servers["ollama"], port=port)}
        found = await find_servers(replace(config, servers=kinds))
    assert [(one.name, one.kind, one.up, one.problem) for one in found] == [
        (make, make, True, None)
    ]
    [model] = found[0].models
    assert model.name.removesuffix(":latest") == "qwen:14b"


@pytest.mark.parametrize("make", MAKES)
async def test_what_each_make_tells_of_its_model(config, make):
    async with model_server(script(make, context=4096, tools=False)) as server:
        place = Place(name="x", kind=make, base_url=server.base_url, stated=True)
        [model] = (await see(place, config)).models
    told = {
        "ollama": (4096, 131072, False, True),
        "lmstudio": (4096, 131072, False, True),
        "vllm": (4096, 4096, None, True),
        "llamacpp": (4096, 131072, False, True),
        "openai-compatible": (None, None, None, None),
    }
    assert (model.context, model.context_possible, model.tools, model.loaded) == told[make]


async def test_nobody_there_is_no_server_and_no_problem(config):
    assert await find_servers(config) == ()


async def test_one_that_was_named_and_is_not_there_is_missed(config, closed):
    named = replace(config, environ={"VLLM_BASE_URL": f"{closed}/v1"})
    [found] = await find_servers(named)
    assert (found.name, found.up) == ("vllm", False)
    assert found.problem is not None
    assert found.problem.kind == "unavailable"


async def test_only_configured_addresses_and_loopback_are_asked(config):
    """Never a provider's own cloud, though its key is there."""
    named = replace(config, environ={"OPENAI_API_KEY": "k", "OLLAMA_HOST": "0.0.0.0"})
    assert {
        place.base_url.partition(":")[2][2:].partition(":")[0] for place in places_of(named)
    } <= {
        "127.0.0.1",
        "",
    }


async def test_a_configured_server_is_asked_with_its_key(config):
    async with model_server(script("vllm")) as server:
        place = Place(
            name="desk", kind="vllm", base_url=server.base_url, api_key_env="DESK_KEY", stated=True
        )
        named = replace(config, places=(place,), environ={"DESK_KEY": "secret"})
        [found] = await find_servers(named)
        assert found.name == "desk"
        assert all(request.has_key("secret") for request in server.requests)


async def test_a_server_that_says_nothing_costs_a_second_and_no_more(config):
    """What was asked is bounded: it is `timed_out`, not for ever."""
    listener = await anyio.create_tcp_listener(local_host="127.0.0.1")
    port = listener.extra(anyio.abc.SocketAttribute.local_port)  # noqa: S610 (not Django's)
    async with listener:
        place = Place(name="x", kind="ollama", base_url=f"127.0.0.1:{port}", stated=True)
        found = await see(place, config, limit_s=0.1)
    assert found.problem is not None
    assert found.problem.kind == "timed_out"


async def test_what_was_seen_is_kept_for_a_moment_and_says_its_age(config):
    async with model_server(script()) as server:
        agent = at(server.base_url)
        assert await preflight(agent, config) is None
        asked = len(server.requests)
        assert await preflight(agent, config) is None
        assert len(server.requests) == asked
        kept = servers._kept(Place(name="x", kind="ollama", base_url=server.base_url), config)
        assert kept is not None
        assert 0 <= kept.age_s < servers.FRESH_S
        assert kept.models[0].context == 131072
        assert await preflight(replace(agent, model="other"), config) is not None
        assert len(server.requests) > asked  # a no is never from memory


def test_who_listens_beyond_loopback_is_told():
    table = (
        "  sl  local_address rem_address   st\n"
        "   0: 0100007F:2CAA 00000000:0000 0A x\n"
        "   1: 00000000:2CAA 00000000:0000 0A x\n"
        "   2: 0A01A8C0:2CAA 00000000:0000 0A x\n"
        "   3: 00000000:2CAA 00000000:0000 01 x\n"
        "   4: 00000000:1F90 00000000:0000 0A x\n"
    )
    assert servers._listening(table, 11434) == ["0.0.0.0:11434", "a network address:11434"]
    with socket.create_server(("0.0.0.0", 0)) as open_:
        port = open_.getsockname()[1]
        assert servers._beyond_loopback(f"http://127.0.0.1:{port}") == (f"0.0.0.0:{port}",)
    with socket.create_server(("127.0.0.1", 0)) as closed_:
        port = closed_.getsockname()[1]
        assert servers._beyond_loopback(f"http://127.0.0.1:{port}") == ()


# --- what is wrong --------------------------------------------------------------------------------


async def error_of(agent: Agent, config: Config) -> tuple[str, str, str | None]:
    error = await preflight(agent, config)
    assert error is not None
    return error.kind, error.text, error.hint


async def test_a_model_that_is_down(config, closed):
    assert await error_of(at(closed), config) == (
        "unavailable",
        f"Cannot reach Ollama at {closed} (connection refused).",
        "Is it running (`ollama serve`)? Is the model there (`ollama list`)?",
    )


async def test_a_host_that_nobody_knows(config, monkeypatch):
    knows_nobody(monkeypatch)
    url = "http://no-such-host.invalid:11434"
    assert await error_of(at(url), config) == (
        "unavailable",
        f"Cannot reach Ollama at {url}: there is no host 'no-such-host.invalid'.",
        "Is the host's name spelled right? Can this machine resolve it?",
    )


async def test_a_wrong_address(config):
    async with model_server(script("vllm")) as server:
        port = config.servers["ollama"].port
        assert await error_of(at(server.base_url), config) == (
            "unavailable",
            f"Something answers at {server.base_url}, but it is not Ollama.",
            (
                "Is the address right, host, port and path?"
                f" Ollama usually is at http://127.0.0.1:{port}."
            ),
        )


async def test_an_address_that_is_none(config):
    kind, text, hint = await error_of(at("http://127.0.0.1:99999"), config)
    assert (kind, text) == (
        "unavailable",
        "Cannot reach Ollama: not an address: http://127.0.0.1:99999.",
    )
    assert hint == "An address is a URL or HOST:PORT, such as http://127.0.0.1:11434."


async def test_a_model_that_was_not_pulled(config):
    async with model_server(script()) as server:
        assert await error_of(at(server.base_url, model="devstral:24b"), config) == (
            "model_not_found",
            f"Ollama at {server.base_url} has no model 'devstral:24b'. It has: qwen:14b.",
            "Get it: `ollama pull devstral:24b`.",
        )


async def test_a_server_that_does_not_answer_in_time(config, monkeypatch):
    monkeypatch.setattr(servers, "PATIENT_S", 0.1)
    listener = await anyio.create_tcp_listener(local_host="127.0.0.1")
    port = listener.extra(anyio.abc.SocketAttribute.local_port)  # noqa: S610 (not Django's)
    async with listener:
        assert await error_of(at(f"http://127.0.0.1:{port}"), config) == (
            "timed_out",
            f"Ollama at http://127.0.0.1:{port} does not answer (no answer within 0.1 s).",
            "It may be loading a model or be busy: try again, or restart it.",
        )


async def test_a_server_that_wants_a_key(config):
    refusal = b"HTTP/1.1 401 X\r\ncontent-length: 2\r\n\r\n{}"

    async def refuse(stream: anyio.abc.SocketStream) -> None:
        async with stream:
            await stream.receive()
            await stream.send(refusal)

    listener = await anyio.create_tcp_listener(local_host="127.0.0.1")
    port = listener.extra(anyio.abc.SocketAttribute.local_port)  # noqa: S610 (not Django's)
    async with listener, anyio.create_task_group() as group:
        group.start_soon(listener.serve, refuse)
        assert await error_of(at(f"http://127.0.0.1:{port}", "vllm"), config) == (
            "auth_failed",
            f"vLLM at http://127.0.0.1:{port} wants a key, or refuses the one it got.",
            "Name the variable that holds it: api_key_env = 'VLLM_API_KEY'.",
        )
        group.cancel_scope.cancel()


@pytest.mark.parametrize("model", ["qwen:14b", "ollama_chat/qwen:14b", "gpt-oss:120b-cloud", None])
async def test_what_is_there_passes(config, model):
    async with model_server(script()) as server:
        assert await preflight(at(f"{server.base_url}/v1", model=model), config) is None


async def test_an_agent_of_a_cloud_is_nobodys_business(config):
    cloud = at("https://api.example", tier="cloud")
    assert await preflight(cloud, config) is None
    assert await preflight(replace(cloud, base_url=None), config) is None


async def test_a_server_of_unknown_kind_only_has_to_be_there(config, closed):
    async with model_server(script()) as server:
        assert await preflight(at(server.base_url, kind="", model="x"), config) is None
        assert server.requests == []
    assert (await error_of(at(closed, kind=""), config))[1] == (
        f"Cannot reach the model server at {closed} (connection refused)."
    )


# --- no model named -------------------------------------------------------------------------------


async def test_the_servers_variable_names_the_model(config, closed):
    named = replace(config, environ={"OLLAMA_MODEL": "mine"})
    agent = await with_model(at(closed, model=None), named)
    assert isinstance(agent, Agent)
    assert agent.model == "mine"


@pytest.mark.parametrize("make", MAKES)
async def test_else_its_only_loaded_model_is_taken(config, make):
    async with model_server(script(make)) as server:
        agent = await with_model(at(server.base_url, make, model=None), config)
    assert isinstance(agent, Agent)
    assert agent.model == "qwen:14b"


async def test_else_it_is_an_error_that_lists_what_the_server_has(config):
    async with model_server({**script(), "model": ["a:1", "b:2"]}) as server:
        error = await with_model(at(server.base_url, model=None), config)
    assert isinstance(error, Error)
    assert error.kind == "model_not_found"
    assert error.text == (
        f"No model is named, and Ollama at {server.base_url} has 2 models loaded. It has: a:1, b:2."
    )
    assert error.hint == "Name one, or set OLLAMA_MODEL."


async def test_a_gateway_with_several_models_may_know_what_the_agent_asks_for_by_itself(config):
    async with model_server({**script("openai-compatible"), "model": ["a", "b"]}) as server:
        agent = at(server.base_url, "openai-compatible", model=None)
        assert await with_model(agent, config) == agent


async def test_a_server_that_is_down_names_no_model(config, closed):
    error = await with_model(at(closed, model=None), config)
    assert isinstance(error, Error)
    assert error.kind == "unavailable"


async def test_a_run_without_a_model_takes_the_one_that_is_loaded(config, tmp_path):
    work = folder(tmp_path)
    async with model_server(script()) as server:
        own = scripted_config(tmp_path / "state", DONE)
        agent = replace(own.agents[0], base_url=server.base_url, server="ollama", tier="local")
        whole = replace(own, agents=(agent,), servers=config.servers)
        events: list[Event] = []
        async with Supervisor(whole) as supervisor:
            await supervisor.run(Task(prompt="x", workspace=work), events.append)
            started = [one.update for one in events if isinstance(one.update, RunStarted)]
            assert [run.model for run in started] == ["qwen:14b"]


async def test_a_run_whose_server_has_no_model_is_told_without_starting_anything(config, tmp_path):
    async with model_server({**script(), "model": ["a:1", "b:2"]}) as server:
        own = scripted_config(tmp_path / "state", DONE)
        agent = replace(own.agents[0], base_url=server.base_url, server="ollama", tier="local")
        whole = replace(own, agents=(agent,), servers=config.servers)
        async with Supervisor(whole) as supervisor:
            outcome = await supervisor.run(Task(prompt="x", workspace=folder(tmp_path)))
    assert (outcome.status, outcome.run_id) == ("model_not_found", None)
    assert outcome.error is not None
    assert "It has: a:1, b:2." in outcome.error.text


def folder(tmp_path: Path) -> Path:
    work = tmp_path / "work"
    work.mkdir()
    return work


# --- local mode -----------------------------------------------------------------------------------

HOME = LocalMode(on=True, base_url="http://127.0.0.1:9", kind="ollama", model="qwen:14b")
CLOUD = Agent(name="c", adapter="c", api_key_env="KEY", profile="user")
ABOUT = About(name="c", title="C", program=None, dialects=("chat",))
OLLAMA = ModelServer(name="ollama", title="Ollama", port=1, dialects=("chat",))


def test_local_mode_moves_an_agent_and_its_key_stays_behind():
    moved = at_home(CLOUD, ABOUT, HOME, OLLAMA, None)
    assert moved.agent == Agent(
        name="c",
        adapter="c",
        model="qwen:14b",
        server="ollama",
        base_url="http://127.0.0.1:9",
        tier="local",
        profile="clean",
    )
    text = "local mode: qwen:14b at http://127.0.0.1:9 (Ollama) instead of the cloud"
    assert (moved.note, moved.problem) == (text, None)


def test_local_mode_takes_the_key_of_the_server_that_it_goes_to():
    place = Place(name="d", kind="ollama", base_url="http://127.0.0.1:9", api_key_env="DESK")
    assert at_home(CLOUD, ABOUT, HOME, OLLAMA, place).agent.api_key_env == "DESK"


def test_what_a_user_wrote_on_an_agent_wins_over_local_mode_and_is_said():
    explicit = replace(CLOUD, explicit=True)
    stays = at_home(explicit, ABOUT, HOME, OLLAMA, None)
    assert stays.agent == explicit
    assert stays.note == "local mode is on, but c keeps what its configuration says: a cloud"


def test_local_mode_that_is_off_changes_nothing():
    assert at_home(CLOUD, ABOUT, LocalMode(), OLLAMA, None).agent == CLOUD
    there = replace(CLOUD, tier="local")
    assert at_home(there, ABOUT, HOME, OLLAMA, None).note is None


def test_an_agent_that_cannot_speak_to_the_server_is_ruled_out_and_never_sent_out():
    about = replace(ABOUT, dialects=("messages",))
    stays = at_home(CLOUD, about, HOME, OLLAMA, None)
    assert stays.problem == "local mode: it speaks messages, Ollama does not"
    stays = at_home(CLOUD, replace(ABOUT, dialects=()), HOME, OLLAMA, None)
    assert stays.problem == "local mode: it speaks nothing that is known, Ollama does not"
    assert (
        at_home(CLOUD, ABOUT, HOME, None, None).problem == "local mode: no kind of server 'ollama'"
    )


async def test_a_running_worker_obeys_the_switch_from_its_next_task_on(config, tmp_path):
    work = folder(tmp_path)
    async with model_server(script()) as server:
        switch = [LocalMode()]
        about = About(name="scripted", title="S", program=None, dialects=("chat",))
        own = scripted_config(tmp_path / "state", DONE, adapter=Scripted(about=about))
        agent = replace(own.agents[0], explicit=False, tier="cloud")
        whole = replace(own, agents=(agent,), servers=config.servers, local=lambda: switch[0])
        ran: list[tuple[str | None, str | None, list[str]]] = []
        async with Supervisor(whole) as supervisor:
            for mode in (
                LocalMode(),
                LocalMode(on=True, base_url=server.base_url, kind="ollama"),
                LocalMode(),
            ):
                switch[0] = mode
                events: list[Event] = []
                await supervisor.run(Task(prompt="x", workspace=work), events.append)
                [run] = [one.update for one in events if isinstance(one.update, RunStarted)]
                notes = [one.update.text for one in events if isinstance(one.update, Notice)]
                ran.append((run.tier, run.model, [text for text in notes if "local mode" in text]))
    note = f"local mode: the server's own model at {server.base_url} (Ollama) instead of the cloud"
    assert ran == [("cloud", None, []), ("local", "qwen:14b", [note]), ("cloud", None, [])]


# --- getting, deleting, trying --------------------------------------------------------------------


async def seen(server: str, kind: str, config: Config):
    return await see(Place(name=kind, kind=kind, base_url=server, stated=True), config)


@pytest.mark.parametrize("make", ["ollama", "lmstudio"])
async def test_a_model_is_pulled_and_its_progress_told(config, make, monkeypatch):
    monkeypatch.setattr("adapters.servers.lmstudio._AGAIN_S", 0.0)
    steps: list[Progress] = []
    async with model_server(script(make)) as server:
        found = await seen(server.base_url, make, config)
        await pull(found, "qwen:14b", config, steps.append)
        assert any(step.total for step in steps)
        with pytest.raises(OrchestrateError, match="cannot get nothing"):
            await pull(found, "nothing", config, steps.append)


async def test_a_server_that_fetches_none_says_how_to_get_one(config):
    async with model_server(script("vllm")) as server:
        found = await seen(server.base_url, "vllm", config)
        with pytest.raises(InputError, match="vLLM fetches no models by itself") as caught:
            await pull(found, "m", config, lambda _: None)
        assert caught.value.hint == "Start it with the model instead: `vllm serve m`."
        with pytest.raises(InputError, match="deletes no models"):
            await remove(found, "m", config)


async def test_a_model_is_deleted(config):
    async with model_server(script()) as server:
        found = await seen(server.base_url, "ollama", config)
        await remove(found, "qwen:14b", config)
        assert server.requests[-1].method == "DELETE"
        with pytest.raises(OrchestrateError, match="cannot delete nothing: HTTP 404"):
            await remove(found, "nothing", config)


async def tried(config: Config, make: Make, *turns: Mapping[str, object], **keys: object):
    async with model_server(script(make, *turns, **keys)) as server:
        found = await seen(server.base_url, make, config)
        return {one.what: (one.ok, one.text) async for one in trials(found, "qwen:14b", config)}


@pytest.mark.parametrize("make", MAKES)
async def test_a_model_that_does_all_is_tried_in_full(config, make):
    turns = ({"text": "pong", "repeat": 2}, {**CALLS, "repeat": 1}, SAYS)
    results = await tried(config, make, *turns, context=8000)
    known = None if make == "openai-compatible" else True
    assert {what: ok for what, (ok, _) in results.items()} == {
        "chat": True,
        "stream": True,
        "tool call": True,
        "long prompt": known,
    }
    if known:
        assert results["long prompt"][1].endswith(" of 8000 tokens")


async def test_a_model_that_answers_in_words_calls_no_tool(config):
    results = await tried(config, "vllm")
    assert results["tool call"] == (False, "no tool was called: the model answered in words")


async def test_a_window_that_is_smaller_than_what_is_told_is_found_out(config, monkeypatch):
    """Ollama cuts a prompt that is too long, and says nothing."""
    monkeypatch.setattr("orchestrator.discovery.trial._FILL", 2.0)
    results = await tried(config, "ollama", context=4000)
    ok, text = results["long prompt"]
    assert not ok
    assert text.startswith("cut: of 8000 tokens")
    ok, text = (await tried(config, "vllm", context=4000))["long prompt"]
    assert not ok
    assert text.startswith("8000 of 4000 tokens: HTTP 400")


@pytest.mark.parametrize(
    ("turn", "text"),
    [
        ({"status": 500}, "HTTP 500"),
        ({"text": ""}, "the answer is empty"),
        ({"fault": "reset"}, "the connection was closed"),
    ],
)
async def test_a_model_that_does_not_answer_is_tried_no_further(config, turn, text):
    results = await tried(config, "vllm", turn)
    assert list(results) == ["chat"]
    assert not results["chat"][0]
    assert text in results["chat"][1]


async def test_a_stream_that_is_cut_is_not_taken_for_one(config):
    cut = {"text": "one two three", "fault": "truncate"}
    results = await tried(config, "vllm", SAYS | {"repeat": 1}, cut, SAYS)
    assert results["stream"] == (False, "the stream ends without [DONE]")
