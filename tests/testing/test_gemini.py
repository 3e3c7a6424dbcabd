"""Google's dialect of the scripted model: the model in the path, the answer, the errors."""

from collections.abc import Callable
from typing import Any

import pytest

from orchestrator.testing import Script, model_server

pytestmark = pytest.mark.anyio

BODY = {"contents": [{"role": "user", "parts": [{"text": "say hi"}]}]}
STREAM, WHOLE = "streamGenerateContent?alt=sse", "generateContent"
TURN = {
    "thought": "Two.",
    "text": "I look.",
    "tool_calls": [{"name": "glob", "arguments": {"pattern": "*"}}],
    "usage": {
        "input_tokens": 10,
        "cache_read_tokens": 4,
        "output_tokens": 5,
        "reasoning_tokens": 2,
    },
}
TOKENS = {
    "promptTokenCount": 14,
    "cachedContentTokenCount": 4,
    "candidatesTokenCount": 3,
    "thoughtsTokenCount": 2,
    "totalTokenCount": 19,
}
CALL = {"functionCall": {"id": "call_1_1", "name": "glob", "args": {"pattern": "*"}}}


async def asked(get: Any, server: Any, method: str, body: object = BODY, name: str = "m") -> Any:
    return await get(f"{server.base_url}/v1beta/models/{name}:{method}", "POST", body)


async def test_an_answer_comes_whole_and_in_pieces(
    get: Any, script_of: Callable[..., Script]
) -> None:
    async with model_server(script_of(TURN, TURN, model="*")) as server:
        whole = (await asked(get, server, WHOLE)).json
        events = (await asked(get, server, STREAM)).events
    (candidate,) = whole["candidates"]
    assert candidate["content"]["parts"] == [
        {"text": "Two.", "thought": True},
        {"text": "I look."},
        CALL,
    ]
    assert candidate["finishReason"] == "STOP"
    assert whole["usageMetadata"] == events[-1]["usageMetadata"] == TOKENS
    parts = [event["candidates"][0]["content"]["parts"][0] for event in events]
    assert parts[:2] == [{"text": "Two.", "thought": True}, {"text": "I look."}]
    assert parts[2]["functionCall"]["name"] == "glob"
    assert events[-1]["candidates"][0]["finishReason"] == "STOP"
    assert whole["modelVersion"] == "m"


async def test_what_a_tool_gave_back_is_news_and_what_it_declares_is_known(
    get: Any, script_of: Callable[..., Script]
) -> None:
    turns = [{"when": {"contains": "out", "tool": "glob"}, "text": "Seen."}]
    response = {"functionResponse": {"name": "glob", "response": {"output": "out"}}}
    said = [
        *BODY["contents"],
        {"role": "model", "parts": [CALL]},
        {"role": "user", "parts": [response]},
        {"role": "user"},
    ]
    tools = [{"functionDeclarations": [{"name": "glob"}, {}]}, {"googleSearch": {}}]
    async with model_server(script_of(*turns, model="*")) as server:
        reply = await asked(get, server, WHOLE, {"contents": said, "tools": tools})
    assert reply.json["candidates"][0]["content"]["parts"] == [{"text": "Seen."}]


@pytest.mark.parametrize(
    ("turn", "status", "word", "message"),
    [
        ({"status": 401}, 400, "INVALID_ARGUMENT", "API key not valid"),
        ({"status": 429}, 429, "RESOURCE_EXHAUSTED", "Too Many Requests"),
        ({"status": 418}, 418, "UNKNOWN", "Teapot"),
        ({"fault": "context_overflow"}, 400, "INVALID_ARGUMENT", "exceeds the maximum number"),
        ({"fault": "model_not_found"}, 404, "NOT_FOUND", "is not found for API version"),
        ({"fault": "quota_exceeded"}, 429, "RESOURCE_EXHAUSTED", "quota"),
    ],
)
async def test_errors_are_in_googles_words(
    get: Any,
    script_of: Callable[..., Script],
    turn: dict[str, Any],
    status: int,
    word: str,
    message: str,
) -> None:
    async with model_server(script_of(turn, model="*")) as server:
        reply = await asked(get, server, STREAM)
    error = reply.json["error"]
    assert (reply.status, error["status"], error["code"]) == (status, word, status)
    assert message.lower() in error["message"].lower()
    assert ("details" in error) == (turn.get("status") == 401)


async def test_a_body_without_contents_is_refused_and_tokens_are_counted(
    get: Any, script_of: Callable[..., Script]
) -> None:
    async with model_server(script_of({"text": "x"}, {"fault": "stream_error"})) as server:
        assert (await asked(get, server, WHOLE, {})).status == 400
        assert (await asked(get, server, "countTokens")).json["totalTokens"] > 0
        assert (await asked(get, server, WHOLE, name="other")).status == 404
        assert (await asked(get, server, STREAM, name="scripted")).status == 200
        broken = await asked(get, server, STREAM, name="scripted")
    assert broken.events[-1]["error"]["status"] == "INTERNAL"
