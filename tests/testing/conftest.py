"""A plain HTTP client for the scripted server: the standard library's, in a thread."""

import http.client
import json
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

import anyio
import anyio.to_thread
import pytest

from orchestrator.testing import Script
from orchestrator.testing.script import parse_script

PATHS = {
    "chat": "/v1/chat/completions",
    "responses": "/v1/responses",
    "messages": "/v1/messages",
    "ollama": "/api/chat",
}


@dataclass
class Reply:
    """What came back. `error` says how the body ended when it did not end well."""

    status: int
    headers: Mapping[str, str]
    content: bytes
    error: str | None = None

    @property
    def json(self) -> Any:
        return json.loads(self.content)

    @property
    def lines(self) -> list[Any]:
        return [json.loads(line) for line in self.content.splitlines()]

    @property
    def events(self) -> list[Any]:
        """The data of server-sent events, without the `[DONE]`."""
        blocks = self.content.decode().split("\n\n")
        datas = [line[6:] for block in blocks for line in block.split("\n") if line[:6] == "data: "]
        return [json.loads(data) for data in datas if data != "[DONE]"]


def request_body(dialect: str, **extra: object) -> dict[str, object]:
    """The smallest generation request of a dialect."""
    said = [{"role": "user", "content": "say hi"}]
    key = "input" if dialect == "responses" else "messages"
    return {"model": "scripted", key: said, "stream": False, **extra}


def exchange(
    method: str, url: str, body: bytes | None = None, headers: Mapping[str, str] | None = None
) -> Reply:
    parts = urlsplit(url)
    connection = http.client.HTTPConnection(parts.hostname or "", parts.port, timeout=15)
    try:
        target = f"{parts.path or '/'}{'?' + parts.query if parts.query else ''}"
        connection.request(method, target, body, dict(headers or {}))
        response = connection.getresponse()
        head = {name.lower(): value for name, value in response.getheaders()}
        try:
            return Reply(response.status, head, response.read())
        except http.client.IncompleteRead as error:
            return Reply(response.status, head, error.partial, type(error).__name__)
        except ConnectionResetError as error:
            return Reply(response.status, head, b"", type(error).__name__)
    finally:
        connection.close()


async def fetch(
    method: str, url: str, body: object = None, headers: Mapping[str, str] | None = None
) -> Reply:
    content = body if isinstance(body, bytes) or body is None else json.dumps(body).encode()
    return await anyio.to_thread.run_sync(exchange, method, url, content, headers)


Generate = Callable[..., Awaitable[Reply]]


@pytest.fixture
def generate() -> Generate:
    """`await generate(server, dialect, **body)`: one generation request, and its reply."""

    async def generate(
        server: Any,
        dialect: str,
        session: str = "",
        headers: Mapping[str, str] | None = None,
        **extra: object,
    ) -> Reply:
        body = request_body(dialect, **extra)
        return await fetch("POST", server.url(session) + PATHS[dialect], body, headers)

    return generate


@pytest.fixture
def get() -> Callable[..., Awaitable[Reply]]:
    """`await get(url, method="GET", body=None, headers=None)`."""

    async def get(
        url: str,
        method: str = "GET",
        body: object = None,
        headers: Mapping[str, str] | None = None,
    ) -> Reply:
        return await fetch(method, url, body, headers)

    return get


@pytest.fixture
def script_of() -> Callable[..., Script]:
    """`script_of(turn, turn, model=...)`: a script in few words."""

    def script_of(*turns: Mapping[str, object], **rest: object) -> Script:
        return parse_script({"turns": list(turns), **rest})

    return script_of


@pytest.fixture(params=PATHS)
def dialect(request: pytest.FixtureRequest) -> str:
    """Each of the four wire dialects."""
    return str(request.param)
