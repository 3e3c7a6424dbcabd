"""A turn of the script becomes an HTTP response in the dialect of the request. Pure: no socket, no
clock.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from itertools import islice

import orjson

from orchestrator.testing.dialect import Answer, Ask, Dialect, Json, Problem, arguments_text
from orchestrator.testing.script import ErrorText, Turn, Usage, spell
from orchestrator.testing.wire import Headers, Response

_HTML = b"""<!doctype html>
<html><head><title>Sign in to the network</title></head>
<body><h1>Please sign in</h1><p>You must accept the terms to use this network.</p></body></html>
"""
_GARBAGE = (
    b'data: {"id": "scripted-garbage", "choices": [{"del\n\n',
    b"data: \xff\xfe not json, not utf-8\n\n",
    b"}}]]: nonsense\n\n",
)
_CHARS_PER_TOKEN = 4


def play(dialect: Dialect, ask: Ask, turn: Turn, answer: Answer) -> Response:
    """The response of one turn. `answer` is what `answer_of` made of the turn."""
    response = _play(dialect, ask, turn, answer)
    # OpenAI's and Anthropic's names for the same; claude's error text says when it is missing.
    ids = (("x-request-id", f"req_{answer.number}"), ("request-id", f"req_{answer.number}"))
    return replace(
        response,
        headers=_override((*response.headers, *ids), turn.headers),
        delay_s=turn.delay,
        drip=None if turn.drip is None else (turn.drip.bytes, turn.drip.seconds),
    )


def _override(own: Headers, given: Mapping[str, str]) -> Headers:
    """The turn's headers, and those of our own that it does not name."""
    named = {name.lower() for name in given}
    kept = (header for header in own if header[0] not in named)
    return (*kept, *given.items())


def answer_of(turn: Turn, number: int, time: float, request_bytes: int) -> Answer:
    """What a turn says, spelled out. Without usage in the script, a token is four characters."""
    answer = Answer(
        number=number,
        time=time,
        text=spell(turn.text),
        thought=spell(turn.thought),
        tool_calls=turn.tool_calls,
        stop_reason=turn.stop_reason or "end_turn",
    )
    return replace(answer, usage=_usage(turn, answer, request_bytes))


def _usage(turn: Turn, answer: Answer, request_bytes: int) -> Usage | None:
    match turn.usage:
        case "none":
            return None
        case None:
            return _estimate(answer, request_bytes)
        case usage:
            return usage


def _estimate(answer: Answer, request_bytes: int) -> Usage:
    calls = sum(len(arguments_text(call)) for call in answer.tool_calls)
    return Usage(
        input_tokens=_tokens(request_bytes),
        output_tokens=_tokens(len(answer.text) + len(answer.thought) + calls),
        reasoning_tokens=_tokens(len(answer.thought)) if answer.thought else 0,
    )


def _tokens(chars: int) -> int:
    return -(-chars // _CHARS_PER_TOKEN) or 1


def _play(dialect: Dialect, ask: Ask, turn: Turn, answer: Answer) -> Response:
    match turn.fault:
        case None if turn.status is None:
            return _said(dialect, ask, answer)
        case None:
            problem = Problem("status", ask.model, answer.number, turn.status or 500, turn.error)
            return tell(dialect, problem)
        case "context_overflow" | "model_not_found" | "quota_exceeded" as kind:
            problem = Problem(kind, ask.model, answer.number, said=turn.error)
            return _overflow(dialect, ask, problem)
        case "stream_error":
            return _stream_error(dialect, ask, turn, answer)
        case "truncate":
            return _half(dialect, ask, turn, answer)
        case "cut" | "reset" | "hang" as ending:
            return replace(_half(dialect, ask, turn, answer), ending=ending)
        case "garbage":
            return Response(200, _GARBAGE, _type(dialect.stream_type))
        case "html":
            return Response(200, (_HTML,), _type("text/html"), len(_HTML))


def tell(dialect: Dialect, problem: Problem) -> Response:
    """An error as an HTTP response."""
    status, body = dialect.error(problem)
    return json_response(body, status)


def refuse(dialect: Dialect, ask: Ask, number: int, message: str, code: str) -> Response:
    """The script's own complaint. A 400, because clients try again on 500, some for minutes."""
    said = ErrorText(message=f"scripted model server: {message}", code=code, type=code)
    return tell(dialect, Problem("status", ask.model, number, 400, said))


def json_response(body: Json | Sequence[Json], status: int = 200) -> Response:
    """A JSON body with its length."""
    content = orjson.dumps(body)
    return Response(status, (content,), _type("application/json"), len(content))


def text_response(text: str) -> Response:
    """A plain text with its length."""
    content = text.encode()
    return Response(200, (content,), _type("text/plain"), len(content))


def json_lines(lines: Iterable[Json]) -> Response:
    """Lines of JSON, as Ollama streams them."""
    frames = [orjson.dumps(line, option=orjson.OPT_APPEND_NEWLINE) for line in lines]
    return Response(200, frames, _type("application/x-ndjson"))


def _said(dialect: Dialect, ask: Ask, answer: Answer) -> Response:
    if ask.stream:
        return _streamed(dialect, dialect.stream(ask, answer))
    return json_response(dialect.whole(ask, answer))


def _streamed(dialect: Dialect, frames: Iterable[bytes]) -> Response:
    return Response(200, frames, (*_type(dialect.stream_type), ("cache-control", "no-cache")))


def _overflow(dialect: Dialect, ask: Ask, problem: Problem) -> Response:
    if problem.kind == "context_overflow" and ask.stream and dialect.overflows_in_stream:
        return _streamed(dialect, dialect.stream_error(problem))
    return tell(dialect, problem)


def _stream_error(dialect: Dialect, ask: Ask, turn: Turn, answer: Answer) -> Response:
    problem = Problem("status", ask.model, answer.number, 500, turn.error)
    if not ask.stream:
        return tell(dialect, problem)
    begun = _half_of(dialect.stream(ask, answer)) if turn.says_something else []
    return _streamed(dialect, [*begun, *dialect.stream_error(problem)])


def _half(dialect: Dialect, ask: Ask, turn: Turn, answer: Answer) -> Response:
    """The first half of the answer; nothing at all where the turn says nothing."""
    if not turn.says_something:
        return Response(200 if turn.fault == "truncate" else None, (), _type(dialect.stream_type))
    if ask.stream:
        return _streamed(dialect, _half_of(dialect.stream(ask, answer)))
    content = orjson.dumps(dialect.whole(ask, answer))
    half = content[: len(content) // 2]
    length = len(half) if turn.fault == "truncate" else len(content)
    return Response(200, (half,), _type("application/json"), length)


def _half_of(frames: Iterable[bytes]) -> list[bytes]:
    every = list(frames)
    return list(islice(every, (len(every) + 1) // 2))


def _type(content_type: str) -> Headers:
    return (("content-type", content_type),)
