"""Google's Gemini API: `POST /v1beta/models/NAME:streamGenerateContent` and `:generateContent`.

The model stands in the path; the server puts it, and whether it is to stream, into the body that is
read here. Error texts are Google's.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
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
    items,
    news,
    pieces,
    sse,
)
from orchestrator.testing.script import Usage

_FINISH = {"end_turn": "STOP", "max_tokens": "MAX_TOKENS", "refusal": "SAFETY"}
_WORDS = {
    400: "INVALID_ARGUMENT",
    401: "UNAUTHENTICATED",
    403: "PERMISSION_DENIED",
    404: "NOT_FOUND",
    429: "RESOURCE_EXHAUSTED",
    500: "INTERNAL",
    503: "UNAVAILABLE",
    504: "DEADLINE_EXCEEDED",
}


def _read(body: Body) -> Ask:
    match body:
        case {"model": str(model), "contents": list(contents)}:
            said = [_message(content) for content in contents]
            return Ask(
                model=model,
                stream=body.get("stream") is True,
                news=news(said),
                tools=tuple(_tools(body.get("tools"))),
            )
        case _:
            raise BadRequestError("contents are not specified")


def _message(content: JsonValue) -> JsonValue:
    """A content as the other dialects have it: a role, and texts in parts."""
    match content:
        case {"role": "model"}:
            return {"role": "assistant"}
        case {"parts": list(parts)}:
            return {"role": "user", "content": [_part(part) for part in parts]}
        case _:
            return None


def _part(part: JsonValue) -> JsonValue:
    match part:
        case {"functionResponse": {"response": {"output": str(text)} | {"error": str(text)}}}:
            return text
        case _:
            return part


def _tools(declared: JsonValue) -> Iterator[Tool]:
    for tool in items(declared):
        match tool:
            case {"functionDeclarations": list(functions)}:
                yield from _functions(functions)
            case _:
                pass


def _functions(functions: list[JsonValue]) -> Iterator[Tool]:
    for function in functions:
        match function:
            case {"name": str(name)}:
                yield Tool(name)
            case _:
                pass


def _stream(ask: Ask, answer: Answer) -> Iterator[bytes]:
    for piece in pieces(answer.thought):
        yield sse(_chunk(ask, answer, [{"text": piece, "thought": True}]))
    for piece in pieces(answer.text):
        yield sse(_chunk(ask, answer, [{"text": piece}]))
    for call in _calls(answer):
        yield sse(_chunk(ask, answer, [call]))
    yield sse({**_chunk(ask, answer, [{"text": ""}], _FINISH[answer.stop_reason]), **_used(answer)})


def _whole(ask: Ask, answer: Answer) -> Json:
    parts: list[Json] = []
    if answer.thought:
        parts.append({"text": answer.thought, "thought": True})
    if answer.text:
        parts.append({"text": answer.text})
    parts += _calls(answer)
    return {**_chunk(ask, answer, parts, _FINISH[answer.stop_reason]), **_used(answer)}


def _calls(answer: Answer) -> Iterator[Json]:
    for index, call in enumerate(answer.tool_calls):
        yield {
            "functionCall": {
                "id": answer.call_id(index),
                "name": call.name,
                "args": arguments_object(call),
            }
        }


def _chunk(ask: Ask, answer: Answer, parts: Iterable[Json], finish: str | None = None) -> Json:
    candidate = {"content": {"role": "model", "parts": list(parts)}, "index": 0}
    ended = {} if finish is None else {"finishReason": finish}
    return {
        "candidates": [{**candidate, **ended}],
        "modelVersion": ask.model,
        "responseId": f"response-{answer.number}",
    }


def _used(answer: Answer) -> Json:
    return {} if answer.usage is None else {"usageMetadata": _usage(answer.usage)}


def _usage(usage: Usage) -> Json:
    prompt = usage.input_tokens + usage.cache_read_tokens + usage.cache_write_tokens
    return {
        "promptTokenCount": prompt,
        "cachedContentTokenCount": usage.cache_read_tokens,
        "candidatesTokenCount": usage.output_tokens - usage.reasoning_tokens,
        "thoughtsTokenCount": usage.reasoning_tokens,
        "totalTokenCount": prompt + usage.output_tokens,
    }


def _error(problem: Problem) -> tuple[int, Json]:
    status, word, message = _words(problem)
    said = problem.said
    details: list[Json] = []
    if status == 400 and word == "INVALID_ARGUMENT" and "API key" in message:
        reason = "type.googleapis.com/google.rpc.ErrorInfo"
        details = [{"@type": reason, "reason": "API_KEY_INVALID"}]
    error = {"code": status, "message": said.message or message, "status": said.type or word}
    return status, {"error": {**error, **({"details": details} if details else {})}}


def _words(problem: Problem) -> tuple[int, str, str]:
    match problem.kind:
        case "status" if problem.status in {401, 403}:
            # What Google says of a key that it does not know.
            return 400, "INVALID_ARGUMENT", "API key not valid. Please pass a valid API key."
        case "status":
            phrases = {known.value: known.phrase for known in HTTPStatus}
            word = _WORDS.get(problem.status, "UNKNOWN")
            return problem.status, word, phrases.get(problem.status, "Error")
        case "context_overflow":
            message = (
                "The input token count (1200000) exceeds the maximum number of tokens"
                " allowed (1048576)."
            )
            return 400, "INVALID_ARGUMENT", message
        case "model_not_found":
            message = (
                f"models/{problem.model} is not found for API version v1beta, or is not supported"
                " for generateContent. Call ListModels to see the list of available models."
            )
            return 404, "NOT_FOUND", message
        case "quota_exceeded":
            message = "You exceeded your current quota, please check your plan and billing details."
            return 429, "RESOURCE_EXHAUSTED", message


def _stream_error(problem: Problem) -> Iterator[bytes]:
    _, body = _error(problem)
    yield sse(body)


GEMINI = Dialect(
    name="gemini",
    stream_type="text/event-stream",
    read=_read,
    stream=_stream,
    whole=_whole,
    error=_error,
    stream_error=_stream_error,
)
