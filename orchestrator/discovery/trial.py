"""Trying a model for real: an answer, a stream, a tool call, a prompt that nearly fills its window.

All through `/v1/chat/completions`, which every kind of server speaks.
"""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Awaitable, Mapping
from dataclasses import dataclass
from typing import Literal, TypeAlias

import orjson

from orchestrator.client import ask, lines_of
from orchestrator.config import Config
from orchestrator.discovery.pulling import key_of
from orchestrator.discovery.servers import FoundServer, see
from orchestrator.errors import AskError
from orchestrator.model_errors import error_kind
from orchestrator.server import Ask, Place, Reply, count_of, find_model, inner, items, text_of

LOAD_S = 600.0
"""How long an answer may take: the first one loads the model from disk."""

_PATH = "/v1/chat/completions"
_SAMPLE_CHARS = 4000
_FILL = 0.85
_ARRIVED = 0.8
_TOOL: Mapping[str, object] = {
    "type": "function",
    "function": {
        "name": "report",
        "description": "Reports a result.",
        "parameters": {
            "type": "object",
            "properties": {"ok": {"type": "boolean"}},
            "required": ["ok"],
        },
    },
}

What: TypeAlias = Literal["chat", "stream", "tool call", "long prompt"]


@dataclass(frozen=True, kw_only=True)
class Trial:
    """One thing that was tried. `ok` None: it could not be tried, and `text` says why."""

    what: What
    ok: bool | None
    text: str
    seconds: float


async def trials(
    found: FoundServer, model: str, config: Config, *, long: bool = True
) -> AsyncIterator[Trial]:
    """Each trial as it ends. When the model does not answer at all, the others are left out."""
    first = await _timed("chat", _chat(found, model, config))
    yield first
    if not first.ok:
        return
    yield await _timed("stream", _stream(found, model, config))
    yield await _timed("tool call", _calls_tool(found, model, config))
    if long:
        yield await _timed("long prompt", _long_prompt(found, model, config))


_Result: TypeAlias = tuple[bool | None, str]
_Doing: TypeAlias = Awaitable[_Result]


async def _timed(what: What, doing: _Doing) -> Trial:
    began = time.monotonic()
    try:
        ok, text = await doing
    except AskError as error:
        ok, text = False, str(error)
    return Trial(what=what, ok=ok, text=text, seconds=time.monotonic() - began)


async def _chat(found: FoundServer, model: str, config: Config) -> _Result:
    reply = await _asked(found, config, _body(model, "Answer with the one word: pong", 256))
    message = _message(reply)
    if message is None:
        return False, _said(reply)
    text = text_of(inner(message, "content")) or text_of(inner(message, "reasoning_content"))
    return (True, f"answers: {text[:40]!r}") if text else (False, "the answer is empty")


async def _stream(found: FoundServer, model: str, config: Config) -> _Result:
    body = {**_body(model, "Count from one to ten.", 256), "stream": True}
    request = Ask(path=_PATH, method="POST", body=body, stream=True)
    began, first, pieces, last = time.monotonic(), 0.0, 0, b""
    async with lines_of(
        found.base_url, request, key=key_of(found, config), silence_s=LOAD_S
    ) as lines:
        async for line in lines:
            if line.startswith(b"data:"):
                last = line
                if _has_text(line):
                    first = first or time.monotonic() - began
                    pieces += 1
        if lines.status != 200:
            return False, f"HTTP {lines.status}"
    if last.removeprefix(b"data:").strip() != b"[DONE]":
        return False, "the stream ends without [DONE]"
    rest = time.monotonic() - began - first
    pace = f", {pieces / rest:.0f} pieces/s after it" if pieces > 1 and rest > 0 else ""
    return (pieces > 0), f"{pieces} pieces, the first after {first:.2f} s{pace}"


def _has_text(line: bytes) -> bool:
    try:
        value: object = orjson.loads(line.removeprefix(b"data:"))
    except orjson.JSONDecodeError:
        return False
    deltas = [inner(choice, "delta") for choice in items(inner(value, "choices"))]
    return any(
        text_of(inner(delta, key)) for delta in deltas for key in ("content", "reasoning_content")
    )


async def _calls_tool(found: FoundServer, model: str, config: Config) -> _Result:
    body = {**_body(model, "Call the tool `report` with ok = true.", 512), "tools": [_TOOL]}
    reply = await _asked(found, config, body)
    message = _message(reply)
    if message is None:
        return False, _said(reply)
    calls = items(inner(message, "tool_calls"))
    if not calls:
        return False, "no tool was called: the model answered in words"
    name = text_of(inner(calls[0], "function", "name"))
    if name != "report" or not _is_json(inner(calls[0], "function", "arguments")):
        return False, f"a call that cannot be used: {name!r}"
    return True, "the tool was called with arguments that can be read"


PROBE_S = 120.0


async def calls_tool(found: FoundServer, model: str, config: Config) -> bool | None:
    """Whether the model calls a tool when it is asked to. None: that could not be found out."""
    body = {**_body(model, "Call the tool `report` with ok = true.", 512), "tools": [_TOOL]}
    request = Ask(path=_PATH, method="POST", body=body)
    try:
        reply = await ask(found.base_url, request, key=key_of(found, config), limit_s=PROBE_S)
    except AskError:
        return None
    choice = next(iter(items(inner(reply.body, "choices"))), None) if reply.ok else None
    if choice is None:  # a server that is ill says nothing about its model
        return False if error_kind(_said(reply), reply.status) == "tools_unsupported" else None
    if items(inner(choice, "message", "tool_calls")):
        return True
    return None if inner(choice, "finish_reason") == "length" else False


def _is_json(arguments: object) -> bool:
    try:
        return isinstance(arguments, str) and isinstance(orjson.loads(arguments), dict)
    except orjson.JSONDecodeError:
        return False


async def _long_prompt(found: FoundServer, model: str, config: Config) -> _Result:
    """A prompt of most of the window, measured first with a short one: did all of it arrive?"""
    window = await _window(found, model, config)
    if window is None:
        return None, "the server does not tell how large the window is"
    chars = min(_SAMPLE_CHARS, window // 2)  # a tokenizer of bytes makes a token of each
    sample = await _prompt_tokens(found, model, config, chars)
    small = await _prompt_tokens(found, model, config, chars // 2)
    if isinstance(sample, str) or isinstance(small, str) or sample <= small:
        return None, f"the server does not count tokens ({sample})"
    per_char = (sample - small) / (chars - chars // 2)
    wanted = int(window * _FILL)
    arrived = await _prompt_tokens(found, model, config, int(wanted / per_char))
    if isinstance(arrived, str):
        return False, f"{wanted} of {window} tokens: {arrived}"
    if arrived < wanted * _ARRIVED:
        return False, f"cut: of {wanted} tokens {arrived} arrived, without a word"
    return True, f"{arrived} of {window} tokens"


async def _window(found: FoundServer, model: str, config: Config) -> int | None:
    """The window, asked again: by now the model is loaded."""
    place = Place(
        name=found.name,
        kind=found.kind,
        base_url=found.base_url,
        api_key_env=found.api_key_env,
        stated=True,
    )
    known = find_model((await see(place, config)).models, model)
    return known.context if known else None


async def _prompt_tokens(found: FoundServer, model: str, config: Config, chars: int) -> int | str:
    """How many tokens of a prompt of that many characters the server counted, or what it said."""
    text = ("the quick brown fox " * (chars // 20 + 1))[:chars]
    reply = await _asked(found, config, _body(model, text, 4))
    count = count_of(inner(reply.body, "usage", "prompt_tokens"))
    if not reply.ok:
        return _said(reply)
    return count if count is not None else "no usage"


def _body(model: str, prompt: str, most: int) -> dict[str, object]:
    messages = [{"role": "user", "content": prompt}]
    return {"model": model, "messages": messages, "max_tokens": most, "temperature": 0}


async def _asked(found: FoundServer, config: Config, body: Mapping[str, object]) -> Reply:
    request = Ask(path=_PATH, method="POST", body=body)
    return await ask(found.base_url, request, key=key_of(found, config), limit_s=LOAD_S)


def _message(reply: Reply) -> object:
    choices = items(inner(reply.body, "choices"))
    return inner(choices[0], "message") if reply.ok and choices else None


def _said(reply: Reply) -> str:
    error = inner(reply.body, "error")
    text = text_of(inner(error, "message")) or text_of(error) or "no reason given"
    return f"HTTP {reply.status}: {text[:300]}"
