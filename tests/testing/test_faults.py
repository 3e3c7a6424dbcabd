"""Faults: each is what a client of the real server would meet, in the words of its provider."""

import socket
import time
from collections.abc import Callable
from typing import Any

import anyio
import anyio.to_thread
import pytest

from orchestrator.testing import ModelServer, Script, model_server

LONG = "one two three four five six seven eight nine ten " * 8


def error_of(dialect: str, body: Any) -> tuple[str, str]:
    """Message, and code or type, of an error body."""
    match dialect:
        case "ollama":
            return body["error"], ""
        case "messages":
            assert body["type"] == "error"
            return body["error"]["message"], body["error"]["type"]
        case _:
            return body["error"]["message"], body["error"]["code"] or body["error"]["type"]


AUTHENTIC = [
    ("chat", {"status": 401}, 401, "Incorrect API key provided", "invalid_api_key"),
    ("chat", {"status": 403}, 403, "Country, region", "unsupported_country_region_territory"),
    ("chat", {"status": 429}, 429, "Rate limit reached for scripted", "rate_limit_exceeded"),
    ("chat", {"status": 500}, 500, "The server had an error", "server_error"),
    ("chat", {"status": 503}, 503, "currently overloaded", "server_is_overloaded"),
    ("chat", {"status": 529}, 529, "Overloaded", "server_error"),
    ("chat", {"status": 400}, 400, "Bad Request", "invalid_request_error"),
    (
        "chat",
        {"fault": "context_overflow"},
        400,
        "maximum context length is 8192 tokens",
        "context_length_exceeded",
    ),
    ("chat", {"fault": "model_not_found"}, 404, "`scripted` does not exist", "model_not_found"),
    ("chat", {"fault": "quota_exceeded"}, 429, "exceeded your current quota", "insufficient_quota"),
    ("chat", {"fault": "stream_error"}, 500, "The server had an error", "server_error"),
    ("responses", {"status": 401}, 401, "Incorrect API key provided", "invalid_api_key"),
    (
        "responses",
        {"fault": "context_overflow"},
        400,
        "Your input exceeds the context window",
        "context_length_exceeded",
    ),
    ("messages", {"status": 401}, 401, "invalid x-api-key", "authentication_error"),
    ("messages", {"status": 403}, 403, "does not have permission", "permission_error"),
    ("messages", {"status": 404}, 404, "Not found", "not_found_error"),
    ("messages", {"status": 429}, 429, "rate limit of 40,000 input tokens", "rate_limit_error"),
    ("messages", {"status": 500}, 500, "Internal server error", "api_error"),
    ("messages", {"status": 502}, 502, "Bad Gateway", "api_error"),
    ("messages", {"status": 529}, 529, "Overloaded", "overloaded_error"),
    (
        "messages",
        {"fault": "context_overflow"},
        400,
        "prompt is too long: 210034 tokens > 200000 maximum",
        "invalid_request_error",
    ),
    ("messages", {"fault": "model_not_found"}, 404, "model: scripted", "not_found_error"),
    ("messages", {"fault": "quota_exceeded"}, 400, "credit balance", "invalid_request_error"),
    ("ollama", {"status": 401}, 401, "unauthorized", ""),
    ("ollama", {"status": 500}, 500, "internal server error", ""),
    ("ollama", {"status": 529}, 529, "overloaded", ""),
    ("ollama", {"fault": "context_overflow"}, 400, "input length exceeds", ""),
    ("ollama", {"fault": "model_not_found"}, 404, "model 'scripted' not found", ""),
    ("ollama", {"fault": "quota_exceeded"}, 429, "usage limit", ""),
]


@pytest.mark.parametrize(("dialect", "turn", "status", "message", "code"), AUTHENTIC)
async def test_an_error_has_the_providers_own_words(
    dialect: str,
    turn: object,
    status: int,
    message: str,
    code: str,
    generate: Any,
    script_of: Callable[..., Script],
) -> None:
    async with model_server(script_of(turn)) as server:
        reply = await generate(server, dialect)
    found, kind = error_of(dialect, reply.json)
    assert (reply.status, kind) == (status, code)
    assert message in found


async def test_an_error_can_be_told_in_other_words(
    dialect: str, generate: Any, script_of: Callable[..., Script]
) -> None:
    turn = {"status": 400, "error": {"message": "context {too} long", "code": "c", "type": "c"}}
    async with model_server(script_of(turn)) as server:
        message, kind = error_of(dialect, (await generate(server, dialect)).json)
    assert message == "context {too} long"
    assert kind in {"c", ""}


async def test_headers_of_a_turn_are_sent(
    dialect: str, generate: Any, script_of: Callable[..., Script]
) -> None:
    turn = {"status": 429, "headers": {"Retry-After": 7, "Content-Type": "text/plain"}}
    async with model_server(script_of(turn)) as server:
        reply = await generate(server, dialect)
    assert reply.headers["retry-after"] == "7"
    assert reply.headers["content-type"] == "text/plain"
    assert reply.headers["x-request-id"] == "req_1"


async def test_a_streaming_responses_request_learns_of_its_overflow_inside_the_stream(
    generate: Any, script_of: Callable[..., Script]
) -> None:
    async with model_server(script_of({"fault": "context_overflow"})) as server:
        reply = await generate(server, "responses", stream=True)
    [event] = reply.events
    assert (reply.status, event["type"]) == (200, "response.failed")
    assert event["response"]["error"]["code"] == "context_length_exceeded"


@pytest.mark.parametrize("dialect", ["chat", "messages", "ollama"])
async def test_elsewhere_an_overflow_is_a_400_even_for_a_stream(
    dialect: str, generate: Any, script_of: Callable[..., Script]
) -> None:
    async with model_server(script_of({"fault": "context_overflow"})) as server:
        assert (await generate(server, dialect, stream=True)).status == 400


async def test_a_stream_error_comes_after_half_of_the_answer(
    dialect: str, generate: Any, script_of: Callable[..., Script]
) -> None:
    turn = {"fault": "stream_error", "text": LONG, "error": {"message": "went wrong"}}
    async with model_server(script_of(turn)) as server:
        reply = await generate(server, dialect, stream=True)
    assert (reply.status, reply.error) == (200, None)
    last = reply.lines[-1] if dialect == "ollama" else reply.events[-1]
    assert "one two" in reply.content.decode()
    assert "nine ten " * 2 not in reply.content.decode()
    match dialect:
        case "responses":
            assert last["type"] == "response.failed"
            assert last["response"]["error"] == {"code": "server_error", "message": "went wrong"}
        case _:
            assert error_of(dialect, last)[0] == "went wrong"


async def test_a_stream_error_without_an_answer_is_all_there_is(
    dialect: str, generate: Any, script_of: Callable[..., Script]
) -> None:
    turn = {"fault": "stream_error", "error": {"code": "rate_limit_exceeded"}}
    async with model_server(script_of(turn)) as server:
        reply = await generate(server, dialect, stream=True)
    assert len(reply.lines if dialect == "ollama" else reply.events) == 1
    if dialect == "responses":
        assert reply.events[0]["response"]["error"]["code"] == "rate_limit_exceeded"


@pytest.mark.parametrize("stream", [False, True])
async def test_a_cut_answer_lacks_its_end_on_the_wire(
    dialect: str, stream: bool, generate: Any, script_of: Callable[..., Script]
) -> None:
    async with model_server(script_of({"fault": "cut", "text": LONG})) as server:
        reply = await generate(server, dialect, stream=stream)
    assert (reply.status, reply.error) == (200, "IncompleteRead")
    assert b"one two" in reply.content or not stream


@pytest.mark.parametrize("stream", [False, True])
async def test_a_truncated_answer_ends_well_on_the_wire_but_says_no_end(
    dialect: str, stream: bool, generate: Any, script_of: Callable[..., Script]
) -> None:
    async with model_server(script_of({"fault": "truncate", "text": LONG})) as server:
        reply = await generate(server, dialect, stream=stream)
    assert (reply.status, reply.error) == (200, None)
    for end in (b"[DONE]", b"response.completed", b"message_stop", b'"done":true'):
        assert end not in reply.content
    if not stream:
        with pytest.raises(ValueError, match="Unterminated"):
            _ = reply.json


async def test_a_truncation_before_the_first_byte_is_an_empty_200(
    dialect: str, generate: Any, script_of: Callable[..., Script]
) -> None:
    async with model_server(script_of({"fault": "truncate"})) as server:
        reply = await generate(server, dialect, stream=True)
    assert (reply.status, reply.content, reply.error) == (200, b"", None)


def converse(server: ModelServer, seconds: float = 5) -> tuple[bytes, str]:
    """What a plain socket receives for a streaming chat request, and how that ended."""
    host, port = server.base_url.removeprefix("http://").split(":")
    body = b'{"model": "scripted", "stream": true, "messages": []}'
    head = f"POST /v1/chat/completions HTTP/1.1\r\nHost: {host}\r\nContent-Length: {len(body)}\r\n"
    received = b""
    with socket.create_connection((host, int(port)), timeout=seconds) as client:
        client.sendall(head.encode() + b"\r\n" + body)
        try:
            while content := client.recv(65536):
                received += content
        except TimeoutError:
            return received, "silence"
        except ConnectionResetError:
            return received, "reset"
    return received, "end"


@pytest.mark.parametrize("text", ["", LONG])
@pytest.mark.parametrize(("fault", "ending"), [("reset", "reset"), ("cut", "end")])
async def test_a_reset_is_a_reset_and_a_cut_is_an_end(
    fault: str, ending: str, text: str, script_of: Callable[..., Script]
) -> None:
    async with model_server(script_of({"fault": fault, "text": text})) as server:
        received, how = await anyio.to_thread.run_sync(converse, server)
    assert how == ending
    if not text:
        assert received == b""
    assert not received.endswith(b"0\r\n\r\n")


@pytest.mark.parametrize("text", ["", LONG])
async def test_a_hang_keeps_the_connection_open_and_silent(
    text: str, script_of: Callable[..., Script]
) -> None:
    async with model_server(script_of({"fault": "hang", "text": text})) as server:
        received, how = await anyio.to_thread.run_sync(converse, server, 0.5)
    assert how == "silence"
    assert bool(received) is bool(text)


async def test_the_server_ends_although_an_answer_hangs(script_of: Callable[..., Script]) -> None:
    """The client of the hanging answer is let go too: else its thread would not end here."""
    with anyio.fail_after(5):
        async with (
            anyio.create_task_group() as tasks,
            model_server(script_of({"fault": "hang"})) as server,
        ):
            tasks.start_soon(anyio.to_thread.run_sync, converse, server, 15)
            while not server.requests:
                await anyio.sleep(0.01)
            assert server.requests[0].status is None


async def test_garbage_is_a_200_whose_events_do_not_parse(
    dialect: str, generate: Any, script_of: Callable[..., Script]
) -> None:
    async with model_server(script_of({"fault": "garbage"})) as server:
        reply = await generate(server, dialect, stream=True)
    assert reply.status == 200
    with pytest.raises(ValueError, match=r"Unterminated|codec|Expecting|Extra"):
        _ = reply.lines if dialect == "ollama" else reply.events


async def test_a_captive_portal_answers_200_with_a_web_page(
    dialect: str, generate: Any, script_of: Callable[..., Script]
) -> None:
    async with model_server(script_of({"fault": "html"})) as server:
        reply = await generate(server, dialect, stream=True)
    assert (reply.status, reply.headers["content-type"]) == (200, "text/html")
    assert reply.content.startswith(b"<!doctype html>")


async def test_a_delay_comes_before_the_first_byte(
    generate: Any, script_of: Callable[..., Script]
) -> None:
    async with model_server(script_of({"text": "hi", "delay": 0.3})) as server:
        before = time.monotonic()
        reply = await generate(server, "chat")
    assert reply.status == 200
    assert time.monotonic() - before >= 0.3


async def test_a_drip_is_slow_and_loses_nothing(
    generate: Any, script_of: Callable[..., Script]
) -> None:
    plain, slow = {"text": "hello"}, {"text": "hello", "drip": {"bytes": 200, "seconds": 0.02}}
    async with model_server(script_of(plain, slow)) as server:
        first = await generate(server, "messages", stream=True)
        before = time.monotonic()
        second = await generate(server, "messages", stream=True)
    assert time.monotonic() - before >= 0.02 * (len(first.content) // 200)
    assert second.content.replace(b"msg_2", b"msg_1") == first.content
