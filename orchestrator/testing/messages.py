"""Anthropic Messages: `POST /v1/messages`, streamed and not. Error texts are Anthropic's."""

from __future__ import annotations

from collections.abc import Iterator
from http import HTTPStatus

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
    arguments_object,
    arguments_text,
    items,
    news,
    pieces,
    sse,
)
from orchestrator.testing.script import Usage

# Anthropic signs thoughts; clients keep the signature and send it back, nobody here checks it.
_SIGNATURE = "c2NyaXB0ZWQ="

# status -> (type, message)
_BY_STATUS: dict[int, tuple[str, str]] = {
    400: ("invalid_request_error", "Invalid request."),
    401: ("authentication_error", "invalid x-api-key"),
    403: (
        "permission_error",
        "Your API key does not have permission to use the specified resource.",
    ),
    404: ("not_found_error", "Not found"),
    413: ("request_too_large", "Request exceeds the maximum size"),
    429: (
        "rate_limit_error",
        "This request would exceed your organization's rate limit of 40,000 input tokens a minute.",
    ),
    500: ("api_error", "Internal server error"),
    529: ("overloaded_error", "Overloaded"),
}


def _read(body: Body) -> Ask:
    match body:
        case {"model": str(model), "messages": list(messages)}:
            return Ask(
                model=model,
                stream=body.get("stream") is True,
                news=news(messages),
                tools=tuple(_tools(body.get("tools"))),
            )
        case _:
            message = "a message needs `model` and `messages`"
            raise BadRequestError(message)


def _tools(declared: JsonValue) -> Iterator[Tool]:
    for tool in items(declared):
        match tool:
            case {"name": str(name)}:
                yield Tool(name)
            case _:
                pass


def _stream(ask: Ask, answer: Answer) -> Iterator[bytes]:
    yield _event("message_start", message={**_head(ask, answer), "usage": _start_usage(answer)})
    yield _event("ping")
    for index, block in enumerate(_blocks(answer)):
        yield from _stream_block(index, block)
    delta = {"stop_reason": _stop_reason(answer), "stop_sequence": None}
    yield _event("message_delta", delta=delta, usage=_end_usage(answer))
    yield _event("message_stop")


def _stream_block(index: int, block: Json) -> Iterator[bytes]:
    start, deltas = _opening(block)
    yield _event("content_block_start", index=index, content_block=start)
    for delta in deltas:
        yield _event("content_block_delta", index=index, delta=delta)
    yield _event("content_block_stop", index=index)


def _opening(block: Json) -> tuple[Json, Iterator[Json]]:
    """How a block starts, empty, and the deltas that fill it."""
    match block:
        case {"type": "thinking", "thinking": str(text)}:
            return {**block, "thinking": "", "signature": ""}, _thinking_deltas(text)
        case {"type": "tool_use", "json": str(text)}:
            start = {key: value for key, value in block.items() if key != "json"}
            return {**start, "input": {}}, _json_deltas(text)
        case _:
            text = str(block["text"])
            return {**block, "text": ""}, (
                {"type": "text_delta", "text": piece} for piece in pieces(text)
            )


def _thinking_deltas(text: str) -> Iterator[Json]:
    for piece in pieces(text):
        yield {"type": "thinking_delta", "thinking": piece}
    yield {"type": "signature_delta", "signature": _SIGNATURE}


def _json_deltas(text: str) -> Iterator[Json]:
    yield {"type": "input_json_delta", "partial_json": ""}
    for piece in pieces(text):
        yield {"type": "input_json_delta", "partial_json": piece}


def _event(type_: str, **fields: object) -> bytes:
    return sse({"type": type_, **fields}, type_)


def _blocks(answer: Answer) -> Iterator[Json]:
    """The content, tool input beside its text (`json`), which only the stream sends as it is."""
    if answer.thought:
        yield {"type": "thinking", "thinking": answer.thought, "signature": _SIGNATURE}
    if answer.text:
        yield {"type": "text", "text": answer.text}
    for index, call in enumerate(answer.tool_calls):
        yield {
            "type": "tool_use",
            "id": answer.call_id(index),
            "name": call.name,
            "input": arguments_object(call),
            "json": arguments_text(call),
        }


def _whole(ask: Ask, answer: Answer) -> Json:
    content = [
        {key: value for key, value in block.items() if key != "json"} for block in _blocks(answer)
    ]
    return {
        **_head(ask, answer),
        "content": content,
        "stop_reason": _stop_reason(answer),
        "usage": {**_start_usage(answer), **_end_usage(answer)},
    }


def _head(ask: Ask, answer: Answer) -> Json:
    return {
        "id": f"msg_{answer.number}",
        "type": "message",
        "role": "assistant",
        "model": ask.model,
        "content": [],
        "stop_reason": None,
        "stop_sequence": None,
    }


def _stop_reason(answer: Answer) -> str:
    match answer.stop_reason:
        case "end_turn" if answer.tool_calls:
            return "tool_use"
        case reason:
            return reason


def _start_usage(answer: Answer) -> Json:
    usage = answer.usage or Usage()
    return {
        "input_tokens": usage.input_tokens,
        "cache_creation_input_tokens": usage.cache_write_tokens,
        "cache_read_input_tokens": usage.cache_read_tokens,
        "output_tokens": min(1, usage.output_tokens),
        "service_tier": "standard",
    }


def _end_usage(answer: Answer) -> Json:
    usage = answer.usage or Usage()
    return {
        "output_tokens": usage.output_tokens,
        "output_tokens_details": {"thinking_tokens": usage.reasoning_tokens},
    }


def _error(problem: Problem) -> tuple[int, Json]:
    status, _, _ = _words(problem)
    return status, _error_body(problem)


def _error_body(problem: Problem) -> Json:
    _, type_, message = _words(problem)
    said = problem.said
    return {
        "type": "error",
        "error": {"type": said.type or type_, "message": said.message or message},
        "request_id": f"req_{problem.number}",
    }


def _words(problem: Problem) -> tuple[int, str, str]:
    match problem.kind:
        case "status":
            return problem.status, *(_BY_STATUS.get(problem.status) or _unlisted(problem.status))
        case "context_overflow":
            return (
                400,
                "invalid_request_error",
                "prompt is too long: 210034 tokens > 200000 maximum",
            )
        case "model_not_found":
            return 404, "not_found_error", f"model: {problem.model}"
        case "quota_exceeded":
            message = (
                "Your credit balance is too low to access the Anthropic API."
                " Please go to Plans & Billing to upgrade or purchase credits."
            )
            return 400, "invalid_request_error", message


def _unlisted(status: int) -> tuple[str, str]:
    known = {known.value: known.phrase for known in HTTPStatus}
    type_ = "api_error" if status >= 500 else "invalid_request_error"
    return type_, known.get(status, "Error")


def _stream_error(problem: Problem) -> Iterator[bytes]:
    yield sse(_error_body(problem), "error")


MESSAGES = Dialect(
    name="messages",
    stream_type="text/event-stream; charset=utf-8",
    read=_read,
    stream=_stream,
    whole=_whole,
    error=_error,
    stream_error=_stream_error,
)
