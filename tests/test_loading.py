"""A server that loads its model before a run has the time for it."""

import json
from collections.abc import Iterator
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import pytest

from adapters.servers.llamacpp import server as llamacpp
from orchestrator.adapter import About, Agent
from orchestrator.config import Config
from orchestrator.discovery import ready, servers
from orchestrator.task import Task
from tests.scripted_adapter import Scripted

pytestmark = pytest.mark.anyio

ABOUT = About(name="scripted", title="Scripted", program=None, tools=False)
LOADING = {"error": {"code": 503, "message": "Loading model", "type": "unavailable_error"}}
LISTED = {"object": "list", "data": [{"id": "m", "owned_by": "llamacpp", "meta": {"n_ctx": 32768}}]}


class Loads(ThreadingHTTPServer):
    """A llama.cpp that says that it loads its model the first few times that it is asked."""

    def __init__(self, looks: int) -> None:
        super().__init__(("127.0.0.1", 0), Answers)
        self.looks = looks

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"


class Answers(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        assert isinstance(self.server, Loads)
        if self.path == "/health":
            self.server.looks -= 1
        loading = self.server.looks >= 0
        body = LOADING if loading else LISTED if self.path == "/v1/models" else {"status": "ok"}
        self.send_response(503 if loading else 200)
        self.end_headers()
        self.wfile.write(json.dumps(body).encode())

    do_POST = do_GET  # noqa: N815 (the library's name)

    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture
def config(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Config:
    monkeypatch.setattr(servers, "AGAIN_S", 0.01)
    return Config(
        adapters={"scripted": Scripted(about=ABOUT)},
        servers={"llamacpp": llamacpp},
        state=tmp_path / "state",
        environ={},
    )


@pytest.fixture
def loads() -> Iterator[Loads]:
    with Loads(3) as server:
        Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        yield server
        server.shutdown()


def at(server: Loads) -> Agent:
    agent = Agent(name="a", adapter="scripted", server="llamacpp", model="m", tier="local")
    return replace(agent, base_url=server.url)


async def test_who_loads_its_model_is_waited_for(config: Config, loads: Loads) -> None:
    found = await ready(at(loads), Task(prompt="p"), config)
    assert found.error is None
    assert found.found is not None
    assert [model.name for model in found.found.models] == ["m"]


async def test_who_loads_for_too_long_is_not_there_and_may_be_later(
    config: Config, loads: Loads, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(servers, "LOAD_S", 0.05)
    loads.looks = 1_000_000
    found = await ready(at(loads), Task(prompt="p"), config)
    assert found.error is not None
    assert (found.error.kind, found.error.retryable) == ("unavailable", True)
    assert found.error.text == f"llama.cpp at {loads.url} is still loading its model."
