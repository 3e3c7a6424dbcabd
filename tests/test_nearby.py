"""Agents that nobody wrote down: from model servers that run here, and from nothing else."""

import json
from collections.abc import AsyncGenerator, Mapping
from contextlib import asynccontextmanager
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from urllib.parse import urlsplit

import pytest

from adapters.gateway import gateway
from adapters.servers import llamacpp, lmstudio, ollama, openai, vllm
from orchestrator.adapter import About, Agent, Program
from orchestrator.config import Config
from orchestrator.discovery import find_servers, routes_of, with_nearby
from orchestrator.discovery.nearby import with_found
from orchestrator.server import ModelServer
from orchestrator.slots import Slots
from orchestrator.supervisor import Supervisor
from orchestrator.task import Task
from orchestrator.testing import model_server
from tests.scripted_adapter import PerTask

pytestmark = pytest.mark.anyio

KINDS: dict[str, ModelServer] = {
    "ollama": ollama.server,
    "lmstudio": lmstudio.server,
    "vllm": vllm.server,
    "llamacpp": llamacpp.server,
}
CLI = About(name="cli", title="CLI", program=Program(name="sh"), dialects=("chat",), tools=False)
CLOSED = 9  # nothing listens at the port of `discard`


def settings(tmp_path: Path, **at: str) -> Config:
    """As if nothing were configured, with each kind's usual port where the test has it."""
    ports = {name: urlsplit(at[name]).port if name in at else CLOSED for name in KINDS}
    kinds = {name: replace(kind, port=ports[name]) for name, kind in KINDS.items()}
    talks = replace(CLI, name="talks", dialects=("messages",))
    return Config(
        adapters={"cli": PerTask(about=CLI), "talks": PerTask(about=talks)},
        servers={**kinds, "openai-compatible": openai.compatible},
        state=tmp_path / "state",
        environ={"PATH": "/usr/bin:/bin", "HOME": str(tmp_path)},
    )


def script(make: str, **more: object) -> Mapping[str, object]:
    turns = [{"text": "hi", "repeat": "forever"}]
    return {"server": make, "model": "m", "turns": turns, **more}


@asynccontextmanager
async def answering(replies: Mapping[str, object] | str) -> AsyncGenerator[str]:
    """A web server that is no model server: JSON by path, or one page for every path."""

    class Page(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            known = isinstance(replies, str) or self.path in replies
            body = replies if isinstance(replies, str) else json.dumps(replies.get(self.path))
            self.send_response(200 if known else 404)
            self.end_headers()
            self.wfile.write(body.encode())

        do_POST = do_GET  # noqa: N815 (the library's name)

        def log_message(self, format: str, *args: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Page) as server:
        Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()


@pytest.mark.parametrize("make", sorted(KINDS))
async def test_each_cli_that_speaks_with_a_server_that_runs_is_an_agent(
    tmp_path: Path, make: str
) -> None:
    async with model_server(script(make)) as server:
        config = await with_nearby(settings(tmp_path, **{make: server.base_url}))
    names = {agent.name: agent for agent in config.nearby}
    assert names[f"cli-{make}"] == Agent(
        name=f"cli-{make}",
        adapter="cli",
        model=config.nearby[0].model,
        server=make,
        base_url=server.base_url,
        tier="local",
    )
    assert config.nearby[0].model in {"m", "m:latest"}


async def test_through_a_gateway_others_are_agents_too(tmp_path: Path) -> None:
    async with answering(ONLY_CHAT) as url:
        alone = settings(tmp_path, vllm=url)
        found = await with_nearby(replace(alone, gateway=gateway))
        without = await with_nearby(alone)
    names = [agent.name for agent in found.nearby]
    assert names == ["cli-openai-compatible", "talks-openai-compatible"]
    assert [agent.name for agent in without.nearby] == names[:1]


ONLY_CHAT = {"/v1/models": {"object": "list", "data": [{"id": "m", "object": "model"}]}}
PAGES: dict[str, Mapping[str, object] | str] = {
    "a page for every path": "<!doctype html><title>my app</title>",
    "an API of something else": {"/v1/models": {"data": [{"id": "Roadster", "doors": 2}]}},
    "an empty list": {"/v1/models": {"object": "list", "data": []}},
    "one object for every path": '{"status": "ok"}',
    "an empty object": "{}",
    "a list": "[]",
}


@pytest.mark.parametrize("kind", sorted(KINDS))
@pytest.mark.parametrize("page", sorted(PAGES))
async def test_what_only_answers_at_a_usual_port_is_neither_a_server_nor_an_agent(
    tmp_path: Path, kind: str, page: str
) -> None:
    async with answering(PAGES[page]) as url:
        config = settings(tmp_path, **{kind: url})
        found = await find_servers(config)
        assert found == ()
        assert with_found(config, found).nearby == ()


async def test_another_server_at_a_usual_port_is_what_it_says(tmp_path: Path) -> None:
    async with answering(ONLY_CHAT) as url:
        (agent, *_) = (await with_nearby(settings(tmp_path, vllm=url))).nearby
    assert (agent.name, agent.server) == ("cli-openai-compatible", "openai-compatible")


async def test_nobody_is_asked_where_somebody_wrote_an_agent_down_or_names_one(
    tmp_path: Path,
) -> None:
    async with model_server(script("ollama")) as server:
        config = settings(tmp_path, ollama=server.base_url)
        own = replace(config, agents=(Agent(name="own", adapter="cli"),))
        assert (await with_nearby(own)).nearby == ()
        assert (await with_nearby(config, ["cli"])).nearby == ()
        named = await with_nearby(config, ["cli", "cli-ollama"])
    assert "cli-ollama" in {agent.name for agent in named.nearby}


async def test_a_model_that_a_cloud_serves_or_one_of_several_makes_no_agent(tmp_path: Path) -> None:
    async with model_server(script("ollama", model="gpt-oss:120b-cloud")) as server:
        config = settings(tmp_path, ollama=server.base_url)
        assert (await with_nearby(config)).nearby == ()


async def test_cheap_work_goes_to_the_server_that_was_found_and_the_run_says_so(
    tmp_path: Path,
) -> None:
    (tmp_path / "work").mkdir()
    async with model_server(script("ollama")) as server:
        config = settings(tmp_path, ollama=server.base_url)
        task = Task(prompt="p", kind="search", workspace=tmp_path / "work")
        nearby = await with_nearby(config)
        routes = await routes_of(task, nearby, Slots(config.state / "slots"))
        assert (routes[0].agent.name, routes[0].agent.tier) == ("cli-ollama", "local")
        async with Supervisor(config) as supervisor:
            outcome = await supervisor.run(task)
    # The double asks no model, and that is found out; who was chosen is what matters here.
    assert (outcome.agent, outcome.model) == ("cli-ollama", "m:latest")
    assert outcome.error is not None
    assert outcome.error.kind == "route_mismatch"
