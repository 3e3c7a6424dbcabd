"""Gateways as the supervisor keeps them: a stand-in for the proxy, real processes and sockets."""

import json
import os
import signal
import stat
import sys
from collections.abc import AsyncGenerator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import anyio
import pytest

from orchestrator.adapter import About, Agent, Command, Program, Upstream
from orchestrator.client import ask
from orchestrator.config import Config, load_config
from orchestrator.discovery import FoundServer
from orchestrator.events import Error, Event, Notice
from orchestrator.gateway import KEY, Gateways, Passage, needs_gateway, open_gateways
from orchestrator.process import open_reaper
from orchestrator.server import Ask, Model
from orchestrator.supervisor import Supervisor
from orchestrator.task import Dialect, Task
from orchestrator.testing import model_server
from tests.scripted_adapter import DONE, Scripted, say, scripted_config

pytestmark = pytest.mark.anyio

# Answers every request with its own process id, on the socket that is its stdin.
STAND_IN = """
import http.server, json, os, socket, sys
class Answers(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        said = json.dumps({"pid": os.getpid(), "key": os.environ["GATEWAY_KEY"]}).encode()
        self.send_response(200); self.end_headers(); self.wfile.write(said)
    def log_message(self, *_): pass
server = http.server.HTTPServer(("127.0.0.1", 0), Answers, bind_and_activate=False)
server.socket.close()
server.socket = socket.socket(fileno=os.dup(0))
server.serve_forever()
"""
BROKEN = "import sys; sys.exit('no module named litellm')"


@dataclass(frozen=True)
class StandIn:
    """A gateway whose program is a few lines of Python."""

    code: str = STAND_IN
    program: str = "python3"
    upstream: Dialect = "chat"
    health: str = "/health/readiness"

    @property
    def about(self) -> About:
        return About(
            name="stand-in",
            title="Stand-in",
            program=Program(name=self.program),
            install="install stand-in",
            dialects=("messages", "responses"),
        )

    def command(self, program: str, upstream: Upstream, *, folder: str, key_from: str) -> Command:
        config = f"{folder}/config.json"
        return Command(
            argv=(sys.executable, "-I", "-S", "-c", self.code),
            cwd=folder,
            env_from={"GATEWAY_KEY": key_from},
            files={config: json.dumps(upstream.models).encode()},
        )


ABOUT = About(name="scripted", title="Scripted", program=None, dialects=("messages",))


def found(url: str = "http://127.0.0.1:9", **fields: object) -> FoundServer:
    known: dict[str, object] = {
        "name": "here",
        "kind": "openai-compatible",
        "title": "the server",
        "base_url": url,
        "tier": "local",
        "stated": True,
        "up": True,
        "dialects": ("chat",),
        "models": (Model(name="m"), Model(name="cloudy", remote=True), Model(name="*")),
        **fields,
    }
    return FoundServer(**known)  # type: ignore[arg-type]


AGENT = Agent(name="a", adapter="scripted", model="m", base_url="http://127.0.0.1:9", tier="local")


@asynccontextmanager
async def gateways(tmp_path: Path, gateway: StandIn | None = None) -> AsyncGenerator[Gateways]:
    config = Config(
        gateway=gateway or StandIn(), state=tmp_path / "state", environ={"PATH": os.environ["PATH"]}
    )
    async with open_reaper() as reaper, open_gateways(config, reaper) as made:
        yield made


async def passage(made: Gateways, agent: Agent = AGENT, **fields: object) -> Passage:
    way = await made.through(agent, ABOUT, found(**fields))  # type: ignore[arg-type]
    assert isinstance(way, Passage)
    return way


async def health(way: Passage) -> Mapping[str, object]:
    reply = await ask(way.agent.base_url or "", Ask(path="/health/readiness"), limit_s=15)
    assert isinstance(reply.body, dict)
    return reply.body


async def gone(pid: int) -> None:
    with anyio.fail_after(10):
        while Path(f"/proc/{pid}").exists():
            await anyio.sleep(0.01)


async def test_it_is_started_once_shared_and_ended_with_the_supervisor(tmp_path):
    async with gateways(tmp_path) as made:
        assert made._running == []
        ways: list[Passage] = []

        async def go() -> None:
            ways.append(await passage(made))

        async with anyio.create_task_group() as group:
            for _ in range(3):
                group.start_soon(go)
        (pid,) = made.pids
        assert {way.agent.base_url for way in ways} == {ways[0].agent.base_url}
        said = await health(ways[0])
        assert (said["pid"], said["key"]) == (pid, ways[0].environ[KEY])
        assert ways[0].agent.api_key_env == KEY
        assert str(ways[0].environ[KEY]) not in repr(ways[0])
    await gone(pid)


async def test_each_server_and_key_has_a_gateway_of_its_own(tmp_path):
    async with gateways(tmp_path) as made:
        first = await passage(made)
        other = await passage(made, url="http://127.0.0.1:10")
        keyed = await passage(made, replace(AGENT, api_key_env="DESK_KEY"))
        assert len({way.agent.base_url for way in (first, other, keyed)}) == 3
        assert len({way.environ[KEY] for way in (first, other, keyed)}) == 3


async def test_who_asks_while_it_is_dead_waits_until_it_is_started_anew(tmp_path):
    async with gateways(tmp_path) as made:
        way = await passage(made)
        (pid,) = made.pids
        os.kill(pid, signal.SIGKILL)
        await gone(pid)
        said = await health(way)  # the same address, the same key, another process
        assert said["pid"] != pid
        assert said["key"] == way.environ[KEY]


async def test_it_knows_the_models_that_are_really_there_and_its_files_are_private(tmp_path):
    async with gateways(tmp_path) as made:
        await passage(made)
        (config,) = (tmp_path / "state/gateways").glob("*/config.json")
        assert json.loads(config.read_bytes()) == ["m"]
        assert stat.S_IMODE(config.stat().st_mode) == 0o600
        assert stat.S_IMODE(config.parent.stat().st_mode) == 0o700


async def test_one_that_never_answers_is_given_up_with_its_last_words(tmp_path):
    async with gateways(tmp_path, StandIn(code=BROKEN)) as made:
        error = await made.through(AGENT, ABOUT, found())
        assert isinstance(error, Error)
        assert error.kind == "unavailable"
        assert error.text == (
            "the Stand-in before http://127.0.0.1:9 does not work:"
            " it does not start: no module named litellm"
        )
        assert "`install stand-in --force` installs it anew" in (error.hint or "")
        again = await made.through(AGENT, ABOUT, found())  # the next agent may have more luck
        assert isinstance(again, Error)


@pytest.mark.parametrize("model", ["gpt-oss:120b-cloud", "cloudy"])
async def test_nothing_is_passed_on_to_a_cloud(tmp_path, model):
    async with gateways(tmp_path) as made:
        error = await made.through(replace(AGENT, model=model), ABOUT, found())
        assert made.pids == ()
    assert isinstance(error, Error)
    assert error.kind == "unroutable"


async def test_one_that_is_not_installed_is_named_with_how_to_get_it(tmp_path):
    async with gateways(tmp_path, StandIn(program="no-such-program")) as made:
        error = await made.through(AGENT, ABOUT, found())
    assert isinstance(error, Error)
    assert error.text == (
        "the server at http://127.0.0.1:9 speaks only chat, Scripted needs messages:"
        " that takes the Stand-in, which is not installed"
    )
    assert error.hint == "`install stand-in` brings it."


async def test_without_a_gateway_that_helps_there_is_no_way(tmp_path):
    async with gateways(tmp_path) as made:
        error = await made.through(AGENT, ABOUT, found(dialects=("ollama",)))
    assert isinstance(error, Error)
    assert error.kind == "invalid_request"


@pytest.mark.parametrize(
    ("speaks", "offers", "needed"),
    [
        (("messages",), ("chat",), True),
        (("responses",), ("chat", "messages"), True),
        (("messages",), ("chat", "messages"), False),
        (("chat", "ollama"), ("chat",), False),
        ((), ("chat",), False),
        (("messages",), (), False),
    ],
)
def test_only_a_server_without_an_endpoint_of_its_own_is_behind_one(speaks, offers, needed):
    assert needs_gateway(replace(ABOUT, dialects=speaks), found(dialects=offers)) == needed


@pytest.mark.parametrize("make", ["openai-compatible", "any"])
async def test_a_run_goes_through_it_where_the_server_speaks_only_chat(tmp_path, make):
    """The agent says what its address and key are; the record names the server itself."""
    events: list[Event] = []
    made = scripted_config(tmp_path / "state", say("Hello."), DONE, adapter=Scripted(about=ABOUT))
    async with model_server({"model": "m", "server": make, "turns": [{"text": "x"}]}) as server:
        agent = replace(
            made.agents[0],
            model="m",
            base_url=server.base_url,
            server="openai-compatible",
            tier="local",
        )
        config = replace(
            made,
            agents=(agent,),
            servers=load_config(environ={}, folder=tmp_path).servers,
            gateway=StandIn(),
        )
        async with Supervisor(config) as supervisor:
            outcome = await supervisor.run(
                Task(prompt="x", workspace=tmp_path, isolation="none"), events.append
            )
    assert outcome.status == "succeeded"
    notes = [one.update.text for one in events if isinstance(one.update, Notice)]
    told = f"gateway: Stand-in between Scripted (messages) and {server.base_url} (chat)"
    assert (told in notes) == (make == "openai-compatible")
    (record,) = (tmp_path / "state/runs").glob("*/task.json")
    assert json.loads(record.read_bytes())["agent"]["base_url"] == server.base_url
