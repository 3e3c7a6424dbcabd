"""Ollama's native chat: `POST /api/chat`, lines of JSON when streamed (the default there). Error
texts are Ollama's.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from http import HTTPStatus

import orjson
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
)

# A plausible pace, so that clients which divide by a duration do not divide by zero.
_NS_PER_TOKEN = 20_000_000


def _read(body: Body) -> Ask:
    match body:
        case {"model": str(model)}:
            said = items(body.get("messages"))
            return Ask(
                model=model,
                stream=body.get("stream") is not False,
                news=news(said),
                tools=tuple(_tools(body.get("tools"))),
                is_probe=not said,  # Ollama loads the model and answers nothing
            )
        case _:
            message = "model is required"
            raise BadRequestError(message)


def _tools(declared: JsonValue) -> Iterator[Tool]:
    for tool in items(declared):
        match tool:
            case {"function": {"name": str(name)}}:
                yield Tool(name)
            case _:
                pass


def _stream(ask: Ask, answer: Answer) -> Iterator[bytes]:
    for piece in pieces(answer.thought):
        yield _line(ask, answer, {"content": "", "thinking": piece})
    for piece in pieces(answer.text):
        yield _line(ask, answer, {"content": piece})
    if answer.tool_calls:
        yield _line(ask, answer, {"content": "", "tool_calls": _tool_calls(answer)})
    yield _ndjson({**_head(ask, answer, {"content": ""}), **_end(answer)})


def _line(ask: Ask, answer: Answer, message: Json) -> bytes:
    return _ndjson({**_head(ask, answer, message), "done": False})


def _ndjson(line: Json) -> bytes:
    return orjson.dumps(line) + b"\n"


def _head(ask: Ask, answer: Answer, message: Json) -> Json:
    return {
        "model": ask.model,
        "created_at": datetime.fromtimestamp(answer.time, UTC).isoformat().replace("+00:00", "Z"),
        "message": {"role": "assistant", **message},
    }


def _tool_calls(answer: Answer) -> list[Json]:
    return [
        {
            "id": answer.call_id(index),
            "function": {"index": index, "name": call.name, "arguments": arguments_object(call)},
        }
        for index, call in enumerate(answer.tool_calls)
    ]


def _end(answer: Answer) -> Json:
    done: Json = {
        "done": True,
        "done_reason": "length" if answer.stop_reason == "max_tokens" else "stop",
    }
    if answer.usage is None:
        return done
    usage = answer.usage
    prompt = usage.input_tokens + usage.cache_read_tokens + usage.cache_write_tokens
    durations = (prompt * _NS_PER_TOKEN, usage.output_tokens * _NS_PER_TOKEN)
    return {
        **done,
        "total_duration": sum(durations),
        "load_duration": 0,
        "prompt_eval_count": prompt,
        "prompt_eval_duration": durations[0],
        "eval_count": usage.output_tokens,
        "eval_duration": durations[1],
    }


def _whole(ask: Ask, answer: Answer) -> Json:
    thought = {"thinking": answer.thought} if answer.thought else {}
    calls = {"tool_calls": _tool_calls(answer)} if answer.tool_calls else {}
    message = {"content": answer.text, **thought, **calls}
    return {**_head(ask, answer, message), **_end(answer)}


def _error(problem: Problem) -> tuple[int, Json]:
    status, message = _words(problem)
    return status, {"error": problem.said.message or message}


def _words(problem: Problem) -> tuple[int, str]:
    match problem.kind:
        case "status":
            return problem.status, _phrase(problem.status)
        case "context_overflow":
            return 400, "the input length exceeds the context length"
        case "model_not_found":
            return 404, f"model '{problem.model}' not found"
        case "quota_exceeded":
            return 429, "you've reached your hourly usage limit, please upgrade to continue"


def _phrase(status: int) -> str:
    known = {known.value: known.phrase.lower() for known in HTTPStatus}
    return known.get(status, "overloaded")


def _stream_error(problem: Problem) -> Iterator[bytes]:
    _, body = _error(problem)
    yield _ndjson(body)


OLLAMA = Dialect(
    name="ollama",
    stream_type="application/x-ndjson",
    read=_read,
    stream=_stream,
    whole=_whole,
    error=_error,
    stream_error=_stream_error,
)
