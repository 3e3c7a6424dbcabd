"""OpenAI chat completions: `POST /v1/chat/completions`, streamed and not.

Thoughts go in `reasoning_content`, as vLLM, LM Studio and DeepSeek send them. Error texts are
OpenAI's.
"""

from __future__ import annotations

from collections.abc import Iterator

from pydantic import JsonValue

from orchestrator.testing.dialect import (
    Answer,
    Ask,
    BadRequestError,
    Body,
    Dialect,
    Json,
    Problem,
    Tool,
    arguments_text,
    items,
    news,
    pieces,
    sse,
)
from orchestrator.testing.openai_errors import error, error_object
from orchestrator.testing.script import Usage

_DONE = b"data: [DONE]\n\n"


def _read(body: Body) -> Ask:
    match body:
        case {"model": str(model), "messages": list(messages)}:
            return Ask(
                model=model,
                stream=body.get("stream") is True,
                news=news(messages),
                tools=tuple(_tools(body.get("tools"))),
                wants_usage=_wants_usage(body.get("stream_options")),
            )
        case _:
            message = "a chat completion needs `model` and `messages`"
            raise BadRequestError(message)


def _wants_usage(options: JsonValue) -> bool:
    match options:
        case {"include_usage": True}:
            return True
        case _:
            return False


def _tools(declared: JsonValue) -> Iterator[Tool]:
    for tool in items(declared):
        match tool:
            case {"type": "function", "function": {"name": str(name)}}:
                yield Tool(name)
            case {"type": "custom", "custom": {"name": str(name)}}:
                yield Tool(name, "custom")
            case _:
                pass


def _stream(ask: Ask, answer: Answer) -> Iterator[bytes]:
    yield _chunk(ask, answer, {"role": "assistant", "content": ""})
    for piece in pieces(answer.thought):
        yield _chunk(ask, answer, {"reasoning_content": piece})
    for piece in pieces(answer.text):
        yield _chunk(ask, answer, {_text_key(answer): piece})
    for index in range(len(answer.tool_calls)):
        yield from _stream_tool_call(ask, answer, index)
    yield _chunk(ask, answer, {}, _finish_reason(answer))
    if ask.wants_usage and answer.usage is not None:
        yield sse({**_head(ask, answer), "choices": [], "usage": _usage(answer.usage)})
    yield _DONE


def _stream_tool_call(ask: Ask, answer: Answer, index: int) -> Iterator[bytes]:
    call = answer.tool_calls[index]
    start = {
        "index": index,
        "id": answer.call_id(index),
        "type": "function",
        "function": {"name": call.name, "arguments": ""},
    }
    yield _chunk(ask, answer, {"tool_calls": [start]})
    for piece in pieces(arguments_text(call)):
        delta = {"index": index, "function": {"arguments": piece}}
        yield _chunk(ask, answer, {"tool_calls": [delta]})


def _chunk(ask: Ask, answer: Answer, delta: Json, finish_reason: str | None = None) -> bytes:
    choice = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish_reason}
    return sse({**_head(ask, answer), "choices": [choice]})


def _head(ask: Ask, answer: Answer, object_: str = "chat.completion.chunk") -> Json:
    return {
        "id": f"chatcmpl-{answer.number}",
        "object": object_,
        "created": int(answer.time),
        "model": ask.model,
    }


def _whole(ask: Ask, answer: Answer) -> Json:
    choice = {
        "index": 0,
        "message": _message(answer),
        "logprobs": None,
        "finish_reason": _finish_reason(answer),
    }
    usage = {} if answer.usage is None else {"usage": _usage(answer.usage)}
    return {**_head(ask, answer, "chat.completion"), "choices": [choice], **usage}


def _message(answer: Answer) -> Json:
    thought = {"reasoning_content": answer.thought} if answer.thought else {}
    calls = {"tool_calls": _tool_calls(answer)} if answer.tool_calls else {}
    return {
        "role": "assistant",
        "content": None,
        **thought,
        **({_text_key(answer): answer.text} if answer.text or not answer.tool_calls else {}),
        **calls,
    }


def _tool_calls(answer: Answer) -> list[Json]:
    return [
        {
            "id": answer.call_id(index),
            "type": "function",
            "function": {"name": call.name, "arguments": arguments_text(call)},
        }
        for index, call in enumerate(answer.tool_calls)
    ]


def _text_key(answer: Answer) -> str:
    return "refusal" if answer.stop_reason == "refusal" else "content"


def _finish_reason(answer: Answer) -> str:
    match answer.stop_reason:
        case "max_tokens":
            return "length"
        case "refusal":
            return "content_filter"
        case "end_turn":
            return "tool_calls" if answer.tool_calls else "stop"


def _usage(usage: Usage) -> Json:
    prompt = usage.input_tokens + usage.cache_read_tokens + usage.cache_write_tokens
    return {
        "prompt_tokens": prompt,
        "completion_tokens": usage.output_tokens,
        "total_tokens": prompt + usage.output_tokens,
        "prompt_tokens_details": {"cached_tokens": usage.cache_read_tokens, "audio_tokens": 0},
        "completion_tokens_details": {"reasoning_tokens": usage.reasoning_tokens},
    }


def _error(problem: Problem) -> tuple[int, Json]:
    return error(problem, overflow_param="messages")


def _stream_error(problem: Problem) -> Iterator[bytes]:
    yield sse({"error": error_object(problem, overflow_param="messages")})


CHAT = Dialect(
    name="chat",
    stream_type="text/event-stream",
    read=_read,
    stream=_stream,
    whole=_whole,
    error=_error,
    stream_error=_stream_error,
)
