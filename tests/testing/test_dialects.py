"""The four wire dialects: the shape of an answer, streamed and not, from a real socket."""

from collections.abc import Callable, Iterable
from typing import Any

import orjson
import pytest

from orchestrator.testing import Script, model_server

TURN = {
    "thought": "I should look.",
    "text": "Looking at the file now.",
    "tool_calls": [
        {"name": "bash", "arguments": {"command": "ls"}},
        {"name": "bash", "arguments": {"command": "pwd"}},
    ],
    "usage": {
        "input_tokens": 100,
        "cache_read_tokens": 50,
        "cache_write_tokens": 20,
        "output_tokens": 30,
        "reasoning_tokens": 7,
    },
}
ONE_CALL = {"name": "bash", "arguments": {"command": "ls"}}


def joined(parts: Iterable[str | None]) -> str:
    return "".join(part or "" for part in parts)


# ---------------------------------------------------------------- chat completions


async def test_chat_answers_with_thought_text_and_parallel_tool_calls(
    generate: Any, script_of: Callable[..., Script]
) -> None:
    async with model_server(script_of(TURN)) as server:
        reply = await generate(server, "chat")
    [choice] = reply.json["choices"]
    assert choice["finish_reason"] == "tool_calls"
    assert choice["message"]["content"] == TURN["text"]
    assert choice["message"]["reasoning_content"] == TURN["thought"]
    calls = choice["message"]["tool_calls"]
    assert [call["function"]["name"] for call in calls] == ["bash", "bash"]
    assert [orjson.loads(call["function"]["arguments"])["command"] for call in calls] == [
        "ls",
        "pwd",
    ]
    assert len({call["id"] for call in calls}) == 2


async def test_chat_states_cached_tokens_within_the_prompts(
    generate: Any, script_of: Callable[..., Script]
) -> None:
    async with model_server(script_of(TURN)) as server:
        usage = (await generate(server, "chat")).json["usage"]
    assert (usage["prompt_tokens"], usage["completion_tokens"], usage["total_tokens"]) == (
        170,
        30,
        200,
    )
    assert usage["prompt_tokens_details"]["cached_tokens"] == 50
    assert usage["completion_tokens_details"]["reasoning_tokens"] == 7


async def test_chat_streams_deltas_that_add_up_to_the_answer(
    generate: Any, script_of: Callable[..., Script]
) -> None:
    async with model_server(script_of(TURN)) as server:
        reply = await generate(server, "chat", stream=True, stream_options={"include_usage": True})
    assert reply.headers["content-type"] == "text/event-stream"
    assert reply.content.endswith(b"data: [DONE]\n\n")
    *chunks, last = reply.events
    assert last["choices"] == []
    assert last["usage"]["total_tokens"] == 200
    deltas = [chunk["choices"][0]["delta"] for chunk in chunks]
    assert deltas[0]["role"] == "assistant"
    assert joined(delta.get("content") for delta in deltas) == TURN["text"]
    assert joined(delta.get("reasoning_content") for delta in deltas) == TURN["thought"]
    pwd = [call for delta in deltas for call in delta.get("tool_calls", []) if call["index"] == 1]
    assert pwd[0]["function"]["name"] == "bash"
    assert orjson.loads(joined(call["function"]["arguments"] for call in pwd)) == {"command": "pwd"}
    assert [chunk["choices"][0]["finish_reason"] for chunk in chunks[-2:]] == [None, "tool_calls"]


async def test_chat_streams_usage_only_to_those_who_ask(
    generate: Any, script_of: Callable[..., Script]
) -> None:
    async with model_server(script_of(TURN)) as server:
        reply = await generate(server, "chat", stream=True)
    assert not any("usage" in event for event in reply.events)


async def test_chat_refuses_in_a_field_of_its_own(
    generate: Any, script_of: Callable[..., Script]
) -> None:
    turn = {"text": "I cannot do that.", "stop_reason": "refusal", "repeat": 2}
    async with model_server(script_of(turn)) as server:
        [choice] = (await generate(server, "chat")).json["choices"]
        chunks = (await generate(server, "chat", stream=True)).events
    assert choice["message"]["refusal"] == "I cannot do that."
    assert choice["message"]["content"] is None
    assert choice["finish_reason"] == chunks[-1]["choices"][0]["finish_reason"] == "content_filter"
    assert joined(c["choices"][0]["delta"].get("refusal") for c in chunks) == "I cannot do that."


# ---------------------------------------------------------------- responses


async def test_responses_answers_with_one_item_for_each_thing_said(
    generate: Any, script_of: Callable[..., Script]
) -> None:
    async with model_server(script_of(TURN)) as server:
        response = (await generate(server, "responses")).json
    assert response["status"] == "completed"
    assert [item["type"] for item in response["output"]] == [
        "reasoning",
        "message",
        "function_call",
        "function_call",
    ]
    assert response["output"][0]["summary"][0]["text"] == TURN["thought"]
    assert response["output"][1]["content"][0]["text"] == TURN["text"]
    usage = response["usage"]
    assert (usage["input_tokens"], usage["output_tokens"]) == (170, 30)
    assert usage["input_tokens_details"]["cached_tokens"] == 50
    assert usage["output_tokens_details"]["reasoning_tokens"] == 7


async def test_responses_streams_each_item_from_added_to_done(
    generate: Any, script_of: Callable[..., Script]
) -> None:
    async with model_server(script_of(TURN)) as server:
        events = (await generate(server, "responses", stream=True)).events
    assert [event["sequence_number"] for event in events] == list(range(len(events)))
    types = [event["type"] for event in events]
    assert types[:2] == ["response.created", "response.in_progress"]
    assert types[-1] == "response.completed"
    assert types.count("response.output_item.added") == types.count("response.output_item.done")
    text = [e["delta"] for e in events if e["type"] == "response.output_text.delta"]
    assert joined(text) == TURN["text"]
    done = [e["item"] for e in events if e["type"] == "response.output_item.done"]
    assert done == events[-1]["response"]["output"]
    summary = [e["delta"] for e in events if e["type"] == "response.reasoning_summary_text.delta"]
    assert joined(summary) == TURN["thought"]


async def test_responses_names_its_events_on_the_wire_too(
    generate: Any, script_of: Callable[..., Script]
) -> None:
    async with model_server(script_of({"text": "hi"})) as server:
        reply = await generate(server, "responses", stream=True)
    names = [line[7:] for line in reply.content.decode().split("\n") if line[:7] == "event: "]
    assert names == [event["type"] for event in reply.events]


PATCH = "*** Begin Patch\n*** Add File: a\n+x\n*** End Patch"


@pytest.mark.parametrize(
    ("tools", "call", "item"),
    [
        (
            [{"type": "function", "name": "f"}],
            {"name": "f", "arguments": {"a": 1}},
            {"type": "function_call", "name": "f", "arguments": '{"a":1}'},
        ),
        (
            [{"type": "custom", "name": "apply_patch"}],
            {"name": "apply_patch", "arguments": PATCH},
            {"type": "custom_tool_call", "name": "apply_patch", "input": PATCH},
        ),
        (
            [{"type": "custom", "name": "apply_patch"}],
            {"name": "apply_patch", "arguments": {"input": PATCH}},
            {"type": "custom_tool_call", "name": "apply_patch", "input": PATCH},
        ),
        (
            [{"type": "local_shell"}],
            {"name": "local_shell", "arguments": {"command": "ls"}},
            {"type": "local_shell_call", "action": {"command": ["bash", "-lc", "ls"]}},
        ),
        (
            [{"type": "local_shell"}],
            {"name": "local_shell", "arguments": {"command": ["ls"]}},
            {"type": "local_shell_call", "action": {"command": ["ls"]}},
        ),
        (
            [{"type": "local_shell"}],
            {"name": "local_shell"},
            {"type": "local_shell_call", "action": {"command": []}},
        ),
        (
            [{"type": "namespace", "name": "mcp__m", "tools": [{"type": "function", "name": "f"}]}],
            {"name": "f"},
            {"type": "function_call", "name": "f", "namespace": "mcp__m", "arguments": "{}"},
        ),
        ([], {"name": "unknown"}, {"type": "function_call", "name": "unknown"}),
        ([], {"name": "f", "arguments": "{broken"}, {"arguments": "{broken"}),
        ([], {"name": "f", "id": "call_mine"}, {"call_id": "call_mine"}),
    ],
)
async def test_responses_makes_of_a_call_what_the_declared_tool_asks_for(
    tools: object,
    call: object,
    item: dict[str, Any],
    generate: Any,
    script_of: Callable[..., Script],
) -> None:
    async with model_server(script_of({"tool_calls": [call], "repeat": 2})) as server:
        [whole] = (await generate(server, "responses", tools=tools)).json["output"]
        events = (await generate(server, "responses", tools=tools, stream=True)).events
    [streamed] = events[-1]["response"]["output"]
    for found in (whole, streamed):
        action = item.get("action", {})
        assert {key: found[key] for key in item if key != "action"} == {
            key: value for key, value in item.items() if key != "action"
        }
        assert {key: found["action"][key] for key in action} == action


async def test_responses_finds_tools_that_are_declared_in_the_input(
    generate: Any, script_of: Callable[..., Script]
) -> None:
    said = [
        {"type": "additional_tools", "tools": [{"type": "custom", "name": "exec"}]},
        {"role": "user", "content": "hi"},
    ]
    async with model_server(
        script_of({"tool_calls": [{"name": "exec", "arguments": "text(1)"}]})
    ) as server:
        [item] = (await generate(server, "responses", input=said)).json["output"]
    assert (item["type"], item["input"]) == ("custom_tool_call", "text(1)")


async def test_responses_that_hit_the_token_limit_are_incomplete(
    generate: Any, script_of: Callable[..., Script]
) -> None:
    async with model_server(script_of({"text": "ab", "stop_reason": "max_tokens"})) as server:
        last = (await generate(server, "responses", stream=True)).events[-1]
    assert last["type"] == "response.incomplete"
    assert last["response"]["incomplete_details"] == {"reason": "max_output_tokens"}


async def test_responses_refuses_in_a_part_of_its_own(
    generate: Any, script_of: Callable[..., Script]
) -> None:
    async with model_server(script_of({"text": "No.", "stop_reason": "refusal"})) as server:
        events = (await generate(server, "responses", stream=True)).events
    [item] = events[-1]["response"]["output"]
    assert item["content"] == [{"type": "refusal", "refusal": "No."}]
    assert "response.refusal.delta" in {event["type"] for event in events}


# ---------------------------------------------------------------- messages


async def test_messages_answers_with_one_block_for_each_thing_said(
    generate: Any, script_of: Callable[..., Script]
) -> None:
    async with model_server(script_of(TURN)) as server:
        message = (await generate(server, "messages")).json
    assert [block["type"] for block in message["content"]] == [
        "thinking",
        "text",
        "tool_use",
        "tool_use",
    ]
    assert message["content"][2]["input"] == {"command": "ls"}
    assert message["stop_reason"] == "tool_use"
    usage = message["usage"]
    assert (usage["input_tokens"], usage["output_tokens"]) == (100, 30)
    assert (usage["cache_read_input_tokens"], usage["cache_creation_input_tokens"]) == (50, 20)


async def test_messages_streams_blocks_that_add_up_to_the_answer(
    generate: Any, script_of: Callable[..., Script]
) -> None:
    async with model_server(script_of(TURN)) as server:
        events = (await generate(server, "messages", stream=True)).events
    assert events[0]["type"] == "message_start"
    assert events[0]["message"]["content"] == []
    assert events[0]["message"]["usage"]["output_tokens"] == 1
    assert events[-1] == {"type": "message_stop"}
    assert events[-2]["delta"]["stop_reason"] == "tool_use"
    assert events[-2]["usage"]["output_tokens"] == 30
    deltas = [event for event in events if event["type"] == "content_block_delta"]
    assert joined(d["delta"].get("thinking") for d in deltas) == TURN["thought"]
    assert joined(d["delta"].get("text") for d in deltas) == TURN["text"]
    last = [d["delta"]["partial_json"] for d in deltas if d["index"] == 3]
    assert orjson.loads(joined(last)) == {"command": "pwd"}
    starts = [event["index"] for event in events if event["type"] == "content_block_start"]
    assert starts == [0, 1, 2, 3]


@pytest.mark.parametrize(
    ("said", "told"),
    [(None, "end_turn"), ("max_tokens", "max_tokens"), ("refusal", "refusal")],
)
async def test_messages_tells_the_stop_reason(
    said: str | None, told: str, generate: Any, script_of: Callable[..., Script]
) -> None:
    async with model_server(script_of({"text": "hi", "stop_reason": said})) as server:
        assert (await generate(server, "messages")).json["stop_reason"] == told


# ---------------------------------------------------------------- ollama


async def test_ollama_answers_with_arguments_as_an_object(
    generate: Any, script_of: Callable[..., Script]
) -> None:
    async with model_server(script_of(TURN)) as server:
        reply = (await generate(server, "ollama")).json
    assert reply["message"]["content"] == TURN["text"]
    assert reply["message"]["thinking"] == TURN["thought"]
    assert [c["function"]["arguments"] for c in reply["message"]["tool_calls"]] == [
        {"command": "ls"},
        {"command": "pwd"},
    ]
    assert (reply["prompt_eval_count"], reply["eval_count"]) == (170, 30)
    assert reply["done"] is True
    assert reply["done_reason"] == "stop"


async def test_ollama_streams_lines_of_json_unless_told_not_to(
    generate: Any, script_of: Callable[..., Script]
) -> None:
    async with model_server(script_of(TURN)) as server:
        reply = await generate(server, "ollama", stream=None)
    assert reply.headers["content-type"] == "application/x-ndjson"
    *lines, last = reply.lines
    assert [line["done"] for line in lines] == [False] * len(lines)
    assert last["done"] is True
    assert joined(line["message"]["content"] for line in lines) == TURN["text"]
    assert joined(line["message"].get("thinking") for line in lines) == TURN["thought"]
    assert len(lines[-1]["message"]["tool_calls"]) == 2


async def test_ollama_tells_the_token_limit_by_its_done_reason(
    generate: Any, script_of: Callable[..., Script]
) -> None:
    async with model_server(script_of({"text": "a", "stop_reason": "max_tokens"})) as server:
        assert (await generate(server, "ollama")).json["done_reason"] == "length"


# ---------------------------------------------------------------- all of them


@pytest.mark.parametrize("stream", [False, True])
async def test_an_answer_can_come_without_usage(
    dialect: str, stream: bool, generate: Any, script_of: Callable[..., Script]
) -> None:
    async with model_server(script_of({"text": "hi", "usage": "none"})) as server:
        reply = await generate(
            server, dialect, stream=stream, stream_options={"include_usage": True}
        )
    assert reply.status == 200
    assert b"prompt_eval_count" not in reply.content
    assert b'"total_tokens"' not in reply.content


async def test_usage_is_estimated_where_the_script_has_none(
    generate: Any, script_of: Callable[..., Script]
) -> None:
    async with model_server(script_of({"text": "x" * 40, "thought": "y" * 8})) as server:
        usage = (await generate(server, "messages")).json["usage"]
    assert usage["output_tokens"] == 12
    assert usage["input_tokens"] > 10


@pytest.mark.parametrize("stream", [False, True])
async def test_a_text_of_a_million_characters_arrives_whole(
    dialect: str, stream: bool, generate: Any, script_of: Callable[..., Script]
) -> None:
    turn = {"text": {"repeat": "0123456789", "times": 100_000}}
    async with model_server(script_of(turn)) as server:
        reply = await generate(server, dialect, stream=stream)
    assert reply.content.count(b"0123456789") >= 99_000
    assert reply.error is None
    if stream:
        assert reply.content.count(b"\n") < 1500


@pytest.mark.parametrize("stream", [False, True])
async def test_a_turn_that_says_nothing_is_an_empty_answer(
    dialect: str, stream: bool, generate: Any, script_of: Callable[..., Script]
) -> None:
    async with model_server(script_of({})) as server:
        reply = await generate(server, dialect, stream=stream)
        assert (reply.status, reply.error, server.exhausted) == (200, None, 0)


@pytest.mark.parametrize("stream", [False, True])
async def test_arguments_that_are_no_json_reach_the_client_or_become_empty(
    dialect: str, stream: bool, generate: Any, script_of: Callable[..., Script]
) -> None:
    """Ollama and unstreamed Messages send an object, so a broken text cannot be sent there."""
    turn = {"tool_calls": [{"name": "bash", "arguments": "{broken"}]}
    async with model_server(script_of(turn)) as server:
        reply = await generate(server, dialect, stream=stream)
    as_text = dialect in {"chat", "responses"} or (dialect == "messages" and stream)
    assert (b"{broken" in reply.content) is as_text
