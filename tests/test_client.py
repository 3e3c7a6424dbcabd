"""Asking over HTTP: bounded, direct, and never broken by what answers."""

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

import anyio
import anyio.abc
import pytest

from orchestrator import client
from orchestrator.client import ask, connect, lines_of
from orchestrator.errors import AskError
from orchestrator.server import Ask, Reply
from tests.resolver import knows_nobody

pytestmark = pytest.mark.anyio
GET = Ask(path="/x")


class Wire:
    """A server that says fixed bytes and keeps what it was sent."""

    def __init__(self, *blocks: bytes, hold: bool = False) -> None:
        self.blocks, self.hold, self.asked = blocks, hold, b""
        self.connections = 0

    async def serve(self, stream: anyio.abc.SocketStream) -> None:
        self.connections += 1
        async with stream:
            try:
                self.asked += await stream.receive()
                for block in self.blocks:
                    await stream.send(block)
                if self.hold:
                    await stream.receive()
            except (anyio.EndOfStream, anyio.BrokenResourceError):
                pass  # the client has heard enough


@asynccontextmanager
async def serving(*blocks: bytes, hold: bool = False) -> AsyncGenerator[tuple[str, Wire]]:
    wire = Wire(*blocks, hold=hold)
    listener = await anyio.create_tcp_listener(local_host="127.0.0.1")
    port = listener.extra(anyio.abc.SocketAttribute.local_port)  # noqa: S610 (not Django's)
    async with listener, anyio.create_task_group() as group:
        group.start_soon(listener.serve, wire.serve)
        yield f"http://127.0.0.1:{port}", wire
        group.cancel_scope.cancel()


def answer(body: bytes, status: int = 200, *headers: str) -> bytes:
    lines = [f"HTTP/1.1 {status} X", f"content-length: {len(body)}", *headers]
    return "\r\n".join([*lines, "", ""]).encode() + body


async def why(address: str, limit_s: float = 5) -> str:
    with pytest.raises(AskError) as caught:
        await ask(address, GET, limit_s=limit_s)
    return caught.value.why


async def test_a_reply_is_its_status_and_its_json():
    async with serving(answer(b'{"a": [1]}', 404)) as (address, wire):
        assert await ask(address, GET, limit_s=5) == Reply(status=404, body={"a": [1]})
    assert wire.asked.startswith(b"GET /x HTTP/1.1\r\n")
    assert b"authorization" not in wire.asked.lower()


async def test_what_is_no_json_is_no_body():
    async with serving(answer(b"<html>")) as (address, _):
        assert await ask(address, GET, limit_s=5) == Reply(status=200, text="<html>")


async def test_a_body_goes_as_json_with_the_key():
    async with serving(answer(b"{}")) as (address, wire):
        request = Ask(path="/v1/x", method="POST", body={"model": "m"})
        await ask(f"{address}/team", request, key="k", limit_s=5)
    head, _, body = wire.asked.partition(b"\r\n\r\n")
    assert head.startswith(b"POST /team/v1/x HTTP/1.1\r\n")
    assert b"authorization: Bearer k" in head
    assert body == b'{"model":"m"}'


async def test_a_redirect_is_not_followed_so_the_key_stays():
    async with serving(answer(b"{}")) as (other, elsewhere):
        location = f"location: {other}/x"
        async with serving(answer(b"", 302, location)) as (address, _):
            assert (await ask(address, GET, key="k", limit_s=5)).status == 302
        assert elsewhere.connections == 0


async def test_no_proxy_is_used(monkeypatch):
    async with serving(answer(b"{}")) as (proxy, through):
        for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
            monkeypatch.setenv(name, proxy)
        async with serving(answer(b"{}")) as (address, _):
            assert (await ask(address, GET, limit_s=5)).ok
        assert through.connections == 0


async def test_nobody_listens():
    async with serving() as (address, _):
        pass
    assert await why(address) == "refused"
    with pytest.raises(AskError, match="connection refused"):
        await connect(address, limit_s=5)


async def test_who_listens_can_be_connected_to_without_a_question():
    async with serving(hold=True) as (address, wire):
        await connect(address, limit_s=5)
    assert wire.asked == b""


async def test_a_name_that_nobody_knows(monkeypatch):
    asked = knows_nobody(monkeypatch)
    assert await why("http://no-such-host.invalid") == "unknown_host"
    assert asked == ["no-such-host.invalid"]


async def test_localhost_is_loopback_without_asking_a_resolver(monkeypatch):
    async with serving(answer(b"{}")) as (address, _):
        asked = knows_nobody(monkeypatch)
        assert (await ask(address.replace("127.0.0.1", "localhost"), GET, limit_s=5)).ok
    assert asked == []


async def test_a_server_that_says_nothing_is_not_waited_for():
    async with serving(hold=True) as (address, _):
        assert await why(address, 0.1) == "timed_out"


async def test_a_body_without_end_is_bounded(monkeypatch):
    monkeypatch.setattr(client, "BODY_LIMIT", 1000)
    async with serving(b"HTTP/1.1 200 X\r\n\r\n", b"x" * 5000, hold=True) as (address, _):
        assert await why(address) == "too_large"


@pytest.mark.parametrize(
    ("blocks", "reason"),
    [
        ((b"SSH-2.0-OpenSSH_9.9\r\n\r\n",), "not_http"),
        ((b"HTTP/1.1 200 X\r\nx: " + b"y" * 100_000,), "not_http"),
        ((b"HTTP/1.1 200 X\r\ncontent-length: 10\r\n\r\nhalf",), "closed"),
        ((b"",), "closed"),
    ],
)
async def test_what_does_not_speak_http_is_said_so(blocks, reason):
    async with serving(*blocks) as (address, _):
        assert await why(address) == reason


async def test_tls_that_fails_is_said_so():
    async with serving(answer(b"{}")) as (address, _):
        assert await why(address.replace("http:", "https:")) in {"insecure", "closed"}


async def test_an_address_or_a_key_that_cannot_be_sent():
    async with serving(answer(b"{}")) as (address, wire):
        with pytest.raises(AskError) as caught:
            await ask(address, GET, key="a\nb", limit_s=5)
        assert caught.value.why == "no_way"
        assert wire.asked == b""


async def test_a_stream_is_read_line_by_line():
    chunks = (b"HTTP/1.1 200 X\r\n\r\n", b'{"a":', b"1}\n\n{", b"}")
    async with (
        serving(*chunks) as (address, _),
        lines_of(address, GET, silence_s=5) as lines,
    ):
        assert lines.status == 200
        assert [line async for line in lines] == [b'{"a":1}', b"", b"{}"]


async def test_a_stream_that_falls_silent_ends():
    async with serving(b"HTTP/1.1 200 X\r\n\r\n", b"a\n", hold=True) as (address, _):
        with pytest.raises(AskError, match=r"silent for 0\.1 s"):
            await read_all(address, silence_s=0.1)


async def read_all(address: str, silence_s: float) -> list[bytes]:
    async with lines_of(address, GET, silence_s=silence_s) as lines:
        return [line async for line in lines]
