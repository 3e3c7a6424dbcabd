"""The model server around its dialects: turns, sessions, records, probes, and HTTP itself."""

import gzip
import http.client
import json
import socket
import zlib
from collections.abc import Callable
from typing import Any

import anyio
import anyio.to_thread
import pytest

from orchestrator.testing import ModelServer, Request, Script, ScriptError, model_server


async def said(generate: Any, server: ModelServer, session: str = "", **extra: object) -> str:
    reply = await generate(server, "chat", session, **extra)
    if reply.status != 200:
        return f"{reply.status} {reply.json['error']['code']}: {reply.json['error']['message']}"
    return str(reply.json["choices"][0]["message"]["content"])


# ---------------------------------------------------------------- which turn


async def test_each_request_consumes_one_turn_in_order(
    generate: Any, script_of: Callable[..., Script]
) -> None:
    async with model_server(script_of({"text": "a"}, {"text": "b"})) as server:
        assert [await said(generate, server) for _ in range(2)] == ["a", "b"]
        assert [request.turn for request in server.requests] == [1, 2]
        assert server.remaining() == 0


async def test_a_request_after_the_last_turn_is_told_so_and_counted(
    generate: Any, script_of: Callable[..., Script]
) -> None:
    """With a 400: clients try again on 500, some of them for minutes."""
    async with model_server(script_of({"text": "a"})) as server:
        await said(generate, server)
        answer = await said(generate, server)
        assert answer.startswith("400 script_exhausted: scripted model server: script exhausted")
        assert (server.exhausted, server.requests[-1].turn) == (1, None)


async def test_a_turn_can_be_repeated(generate: Any, script_of: Callable[..., Script]) -> None:
    script = script_of({"text": "a", "repeat": 2}, {"text": "b", "repeat": "forever"})
    async with model_server(script) as server:
        assert [await said(generate, server) for _ in range(5)] == ["a", "a", "b", "b", "b"]
        assert server.remaining() == 1


async def test_a_turn_that_expects_something_else_says_what_and_is_not_consumed(
    generate: Any, script_of: Callable[..., Script]
) -> None:
    turn = {"text": "a", "expect": {"contains": "1 failed", "tool": "bash", "model": "other"}}
    async with model_server(script_of(turn, model="*")) as server:
        answer = await said(generate, server)
        assert "400 script_mismatch" in answer
        assert "turn 1 expects a message that contains '1 failed'" in answer
        assert "a tool named 'bash' and the model 'other'" in answer
        assert "asked were model 'scripted', tools none, message 'say hi'" in answer
        assert len(server.mismatches) == 1
        assert server.remaining() == 1


async def test_an_expectation_looks_at_what_came_since_the_models_last_answer(
    generate: Any, script_of: Callable[..., Script]
) -> None:
    messages = [
        {"role": "user", "content": "old words"},
        {"role": "assistant", "content": "own words"},
        {"role": "tool", "content": [{"type": "text", "text": "first result"}]},
        {"role": "tool", "content": "second result"},
    ]
    tools = [{"type": "function", "function": {"name": "bash"}}]
    script = script_of(
        {"text": "no", "when": {"contains": "old words"}},
        {"text": "no", "when": {"contains": "own words"}},
        {"text": "yes", "when": {"contains": "first result", "tool": "bash"}},
    )
    async with model_server(script) as server:
        assert await said(generate, server, messages=messages, tools=tools) == "yes"


@pytest.mark.parametrize(
    "items",
    [
        [{"type": "function_call_output", "output": "the result"}],
        [{"type": "custom_tool_call_output", "output": [{"type": "text", "text": "the result"}]}],
        [{"role": "user", "content": [{"type": "input_text", "text": "the result"}]}],
        "the result",
    ],
)
async def test_an_expectation_reads_every_form_of_a_responses_input(
    items: object, generate: Any, script_of: Callable[..., Script]
) -> None:
    before = [{"role": "user", "content": "x"}, {"type": "function_call", "name": "f"}]
    given = items if isinstance(items, str) else [*before, *items]  # type: ignore[misc]
    async with model_server(script_of({"expect": {"contains": "the result"}})) as server:
        assert (await generate(server, "responses", input=given)).status == 200


async def test_a_turn_with_a_condition_waits_for_its_request(
    generate: Any, script_of: Callable[..., Script]
) -> None:
    script = script_of({"text": "title", "when": {"model": "small"}}, {"text": "a"}, model="*")
    async with model_server(script) as server:
        assert await said(generate, server) == "a"
        assert "no turn's `when` holds" in await said(generate, server)
        assert await said(generate, server, model="small") == "title"


async def test_a_session_plays_the_script_from_its_start(
    generate: Any, script_of: Callable[..., Script]
) -> None:
    async with model_server(script_of({"text": "a"}, {"text": "b"})) as server:
        assert await said(generate, server) == "a"
        assert await said(generate, server, "x") == "a"
        assert await said(generate, server, "team/y") == "a"
        assert await said(generate, server, "x") == "b"
        assert [request.session for request in server.requests] == ["", "x", "team/y", "x"]
        assert [server.remaining(session) for session in ("", "x", "team/y")] == [1, 0, 1]


async def test_a_hundred_agents_at_once_get_a_turn_each(
    generate: Any, script_of: Callable[..., Script]
) -> None:
    turns = [{"text": f"turn {number}", "delay": 0.05} for number in range(100)]
    texts: list[str] = []

    async def one() -> None:
        texts.append(await said(generate, server))

    async with model_server(script_of(*turns)) as server:
        async with anyio.create_task_group() as tasks:
            for _ in range(100):
                tasks.start_soon(one)
        assert sorted(texts) == sorted(str(turn["text"]) for turn in turns)
        assert server.exhausted == 0


# ---------------------------------------------------------------- which model


async def test_a_model_that_is_not_served_is_not_found_and_consumes_no_turn(
    dialect: str, generate: Any, script_of: Callable[..., Script]
) -> None:
    async with model_server(script_of({"text": "a"})) as server:
        reply = await generate(server, dialect, model="gpt-9")
        assert reply.status == 404
        assert "gpt-9" in reply.content.decode()
        assert server.remaining() == 1


async def test_a_body_that_is_no_request_is_told_what_it_lacks(
    dialect: str, generate: Any, script_of: Callable[..., Script], get: Any
) -> None:
    async with model_server(script_of({"text": "a"})) as server:
        for body in (b"{", b"[]", b"{}"):
            path = {"ollama": "/api/chat", "chat": "/v1/chat/completions"}.get(
                dialect, f"/v1/{dialect}"
            )
            reply = await get(server.base_url + path, "POST", body)
            assert reply.status == 400
            assert "scripted model server: " in reply.content.decode()
        assert server.remaining() == 1


# ---------------------------------------------------------------- what else is asked


async def test_the_models_are_listed_for_every_kind_of_client(
    get: Any, script_of: Callable[..., Script]
) -> None:
    async with model_server(script_of(model=["a", "b:7b"])) as server:
        url = server.base_url
        assert [m["id"] for m in (await get(f"{url}/v1/models")).json["data"]] == ["a", "b:7b"]
        assert (await get(f"{url}/v1/models/a")).json["id"] == "a"
        assert (await get(f"{url}/v1/models/c")).status == 404
        tags = (await get(f"{url}/api/tags")).json["models"]
        assert [m["name"] for m in tags] == ["a:latest", "b:7b"]
        running = (await get(f"{url}/api/ps")).json["models"]
        assert all(m["context_length"] == 131072 for m in running)


async def test_it_passes_for_an_ollama_that_codex_accepts(
    get: Any, script_of: Callable[..., Script]
) -> None:
    async with model_server(script_of()) as server:
        url = server.base_url
        version = (await get(f"{url}/api/version")).json["version"]
        assert tuple(map(int, version.split("."))) >= (0, 13, 4)
        shown = await get(f"{url}/api/show", "POST", {"model": "scripted"})
        assert "tools" in shown.json["capabilities"]
        assert (await get(f"{url}/api/show", "POST", {"model": "other"})).status == 404
        pulled = await get(f"{url}/api/pull", "POST", {"model": "scripted"})
        assert pulled.lines[-1] == {"status": "success"}
        failed = await get(f"{url}/api/pull", "POST", {"model": "other"})
        assert "file does not exist" in failed.lines[-1]["error"]
        assert (await get(url)).status == 200
        assert (await get(f"{url}/health", "HEAD")).content == b""


async def test_tokens_are_counted(get: Any, script_of: Callable[..., Script]) -> None:
    async with model_server(script_of()) as server:
        url = f"{server.base_url}/v1/messages/count_tokens"
        body = {"model": "scripted", "messages": [{"role": "user", "content": "x" * 400}]}
        assert 100 < (await get(url, "POST", body)).json["input_tokens"] < 200


@pytest.mark.parametrize(
    ("dialect", "extra"),
    [("responses", {"input": ""}), ("responses", {"input": []}), ("ollama", {"messages": []})],
)
async def test_a_warm_up_consumes_no_turn(
    dialect: str, extra: dict[str, object], generate: Any, script_of: Callable[..., Script]
) -> None:
    async with model_server(script_of({"text": "a"})) as server:
        assert (await generate(server, dialect, **extra)).status == 200
        assert server.remaining() == 1


async def test_an_unknown_path_is_a_404_that_names_it(
    get: Any, script_of: Callable[..., Script]
) -> None:
    async with model_server(script_of()) as server:
        for method, path in (("GET", "/v2/nothing"), ("GET", "/v1/responses"), ("PUT", "/health")):
            reply = await get(server.base_url + path, method)
            assert reply.status == 404
            assert f"no {method} {path}" in reply.json["error"]["message"]


async def test_a_websocket_is_refused_so_that_the_client_falls_back(
    get: Any, script_of: Callable[..., Script]
) -> None:
    headers = {
        "Connection": "Upgrade",
        "Upgrade": "websocket",
        "Sec-WebSocket-Version": "13",
        "Sec-WebSocket-Key": "AAAAAAAAAAAAAAAAAAAAAA==",
    }
    async with model_server(script_of()) as server:
        reply = await get(f"{server.base_url}/v1/responses", headers=headers)
        assert reply.status == 426


# ---------------------------------------------------------------- what is recorded


async def test_a_request_is_recorded_with_its_body_and_its_turn(
    generate: Any, script_of: Callable[..., Script]
) -> None:
    async with model_server(script_of({"text": "a"})) as server:
        await generate(server, "messages", headers={"X-Mine": "1"})
        [request] = server.requests
    assert (request.number, request.method, request.path) == (1, "POST", "/v1/messages")
    assert (request.dialect, request.turn, request.status) == ("messages", 1, 200)
    assert request.headers["x-mine"] == "1"
    match request.body:
        case {"model": "scripted", "messages": [{"content": "say hi"}]}:
            pass
        case other:
            pytest.fail(f"{other!r}")


@pytest.mark.parametrize(
    ("headers", "query"),
    [
        ({"Authorization": "Bearer sk-secret"}, ""),
        ({"authorization": "bearer sk-secret"}, ""),
        ({"Authorization": "sk-secret"}, ""),
        ({"X-Api-Key": "sk-secret"}, ""),
        ({"x-goog-api-key": "sk-secret"}, ""),
        ({}, "?key=sk-secret&beta=true"),
    ],
)
async def test_a_key_is_never_kept_but_can_be_recognised(
    headers: dict[str, str], query: str, get: Any, script_of: Callable[..., Script]
) -> None:
    lines: list[bytes] = []

    def keep(request: Request) -> None:
        lines.append(request.json_line())

    async with model_server(script_of(), on_request=keep) as server:
        await get(f"{server.base_url}/v1/models{query}", headers=headers)
        [request] = server.requests
    assert request.had_key
    assert request.has_key("sk-secret")
    assert not request.has_key("sk-other")
    assert b"sk-secret" not in lines[0]
    assert "sk-secret" not in repr(request)
    if query:
        assert "beta=true" in request.path


async def test_a_request_without_a_key_had_none(get: Any, script_of: Callable[..., Script]) -> None:
    async with model_server(script_of()) as server:
        headers = {"Cookie": "session=1", "Authorization": "Bearer "}
        await get(f"{server.base_url}/v1/models?beta=true", headers=headers)
        [request] = server.requests
    assert not request.had_key
    assert not request.has_key("")
    assert request.headers["cookie"] == "<redacted>"
    assert request.path == "/v1/models?beta=true"


# ---------------------------------------------------------------- the life of the server


async def test_a_mapping_is_a_script_too_and_its_errors_are_told() -> None:
    async with model_server({"turns": []}) as server:
        assert server.base_url.startswith("http://127.0.0.1:")
    with pytest.raises(ScriptError, match="script: turns: Field required"):
        async with model_server({}):
            pass


async def test_a_failure_in_the_block_comes_out_as_it_was(script_of: Callable[..., Script]) -> None:
    with pytest.raises(ZeroDivisionError):
        async with model_server(script_of()):
            _ = 1 / 0


async def test_a_port_can_be_chosen_and_is_free_again_afterwards(
    get: Any, script_of: Callable[..., Script]
) -> None:
    async with model_server(script_of()) as server:
        port = int(server.base_url.rpartition(":")[2])
        await get(server.base_url)
        with pytest.raises(OSError, match="in use"):
            async with model_server(script_of(), port=port):
                pass
    async with model_server(script_of(), port=port) as server:
        assert server.base_url.endswith(f":{port}")


# ---------------------------------------------------------------- HTTP itself


def address(server: ModelServer) -> tuple[str, int]:
    host, port = server.base_url.removeprefix("http://").split(":")
    return host, int(port)


def raw(server: ModelServer, content: bytes) -> bytes:
    """Everything that comes back for these bytes until the server has no more to say."""
    received = b""
    with socket.create_connection(address(server), timeout=5) as client:
        client.sendall(content)
        client.shutdown(socket.SHUT_WR)
        while part := client.recv(65536):
            received += part
    return received


async def test_a_connection_serves_many_requests(script_of: Callable[..., Script]) -> None:
    def three() -> list[bytes]:
        connection = http.client.HTTPConnection(server.base_url.removeprefix("http://"), timeout=5)
        bodies: list[bytes] = []
        for body in ('{"model": "scripted", "messages": [], "stream": true}',) * 2:
            connection.request("POST", "/v1/chat/completions", body)
            first = connection.sock
            bodies.append(connection.getresponse().read())
            assert connection.sock is first
        connection.request("HEAD", "/v1/models")
        bodies.append(connection.getresponse().read())
        connection.request("GET", "/api/version")
        bodies.append(connection.getresponse().read())
        connection.close()
        return bodies

    async with model_server(script_of({"text": "a"}, {"text": "b"})) as server:
        bodies = await anyio.to_thread.run_sync(three)
    assert bodies[2] == b""
    assert b"version" in bodies[3]


async def test_pipelined_requests_are_answered_in_order(script_of: Callable[..., Script]) -> None:
    async with model_server(script_of()) as server:
        two = b"GET /health HTTP/1.1\r\nHost: x\r\n\r\nGET /api/version HTTP/1.1\r\nHost: x\r\n\r\n"
        received = await anyio.to_thread.run_sync(raw, server, two)
    assert received.count(b"HTTP/1.1 200") == 2
    assert received.index(b"status") < received.index(b"version")


async def test_a_client_that_waits_for_100_continue_gets_it(
    script_of: Callable[..., Script],
) -> None:
    body = b'{"model": "scripted", "messages": []}'
    head = (
        b"POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\n"
        b"Content-Length: %d\r\n\r\n" % len(body)
    )

    def converse() -> tuple[bytes, bytes]:
        with socket.create_connection(address(server), timeout=5) as client:
            client.sendall(head)
            first = client.recv(65536)
            client.sendall(body)
            return first, client.recv(65536)

    async with model_server(script_of({"text": "a"})) as server:
        first, second = await anyio.to_thread.run_sync(converse)
    assert first.startswith(b"HTTP/1.1 100")
    assert second.startswith(b"HTTP/1.1 200")


@pytest.mark.parametrize(
    ("encoding", "encode"),
    [("gzip", gzip.compress), ("deflate", zlib.compress), ("identity", bytes)],
)
async def test_a_compressed_body_is_read(
    encoding: str, encode: Callable[[bytes], bytes], get: Any, script_of: Callable[..., Script]
) -> None:
    body = json.dumps({"model": "scripted", "messages": [{"role": "user", "content": "hi"}]})
    async with model_server(script_of({"expect": {"contains": "hi"}})) as server:
        url = f"{server.base_url}/v1/messages"
        headers = {"Content-Encoding": encoding}
        assert (await get(url, "POST", encode(body.encode()), headers)).status == 200


@pytest.mark.parametrize(
    ("encoding", "content", "message"),
    [
        ("gzip", b"no gzip", "a body that is not gzip"),
        ("gzip", gzip.compress(b"{}" * 100, mtime=0)[:-9], "cut short"),
        ("br", b"x", "content-encoding 'br' (known: gzip, deflate, zstd)"),
    ],
)
async def test_a_body_that_cannot_be_read_is_a_415_that_says_why(
    encoding: str, content: bytes, message: str, get: Any, script_of: Callable[..., Script]
) -> None:
    async with model_server(script_of()) as server:
        url = f"{server.base_url}/v1/messages"
        reply = await get(url, "POST", content, {"Content-Encoding": encoding})
    assert reply.status == 415
    assert message in reply.json["error"]["message"]
    assert (server.requests[0].status, server.requests[0].body) == (415, None)
    assert message in (server.requests[0].problem or "")


async def test_a_body_of_ten_megabytes_is_read_whole(
    generate: Any, script_of: Callable[..., Script]
) -> None:
    content = "x" * 10_000_000 + "the end"
    said = [{"role": "user", "content": content}]
    async with model_server(script_of({"expect": {"contains": "the end"}})) as server:
        assert (await generate(server, "chat", messages=said)).status == 200


async def test_a_body_in_chunks_is_read_whole(script_of: Callable[..., Script]) -> None:
    head = b"POST /api/chat HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"
    chunks = (b'{"model": "scripted", "stream": false,', b' "messages": [{"content": "hi"}]}', b"")
    body = b"".join(b"%x\r\n%s\r\n" % (len(chunk), chunk) for chunk in chunks)
    async with model_server(script_of({"expect": {"contains": "hi"}})) as server:
        received = await anyio.to_thread.run_sync(raw, server, head + body)
    assert received.startswith(b"HTTP/1.1 200")


async def test_what_is_no_http_is_refused_with_a_400(script_of: Callable[..., Script]) -> None:
    async with model_server(script_of()) as server:
        received = await anyio.to_thread.run_sync(raw, server, b"\x16\x03\x01 hello\r\n\r\n")
        assert received.startswith(b"HTTP/1.1 400")
        assert (await anyio.to_thread.run_sync(raw, server, b"")) == b""


async def test_a_client_that_leaves_does_not_disturb_the_others(
    generate: Any, script_of: Callable[..., Script]
) -> None:
    def leave(after: int) -> None:
        body = b'{"model": "scripted", "messages": [], "stream": true}'
        with socket.create_connection(address(server), timeout=5) as client:
            head = b"POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n"
            client.sendall(head % len(body) + body)
            client.recv(after)

    large = {"text": {"repeat": "x", "times": 20_000_000}}
    slow = {"text": "a", "delay": 60}
    dripping = {"text": "abc", "drip": {"bytes": 1, "seconds": 60}}
    async with model_server(script_of(large, dripping, slow, {"text": "b"})) as server:
        for after in (10, 10, 0):
            await anyio.to_thread.run_sync(leave, after)
        while len(server.requests) < 3:
            await anyio.sleep(0.01)
        assert (await generate(server, "chat")).json["choices"][0]["message"]["content"] == "b"
