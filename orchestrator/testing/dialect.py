"""What a wire dialect is: how a request is read, and how an answer or an error is written.

A dialect is pure: it turns values into values. Each of `chat`, `responses`, `messages`,
`ollama` and `gemini` makes one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

import orjson
from pydantic import JsonValue

from orchestrator.testing.script import ErrorText, StopReason, ToolCall, Usage

# What is sent, and what was got. JsonValue is for reading: a pattern narrows it.
Json = Mapping[str, object]
Body = Mapping[str, JsonValue]

# An answer streams in at most about this many pieces, so that a text of a megabyte is not a
# million events.
_PIECES = 200
_MIN_PIECE_CHARS = 16

ToolKind = Literal["function", "custom", "local_shell"]


@dataclass(frozen=True, slots=True)
class Tool:
    """A tool that a request declares. `namespace` is codex's grouping of MCP tools."""

    name: str
    kind: ToolKind = "function"
    namespace: str | None = None


@dataclass(frozen=True, slots=True)
class Ask:
    """A generation request, whatever its dialect.

    `news` is the text that it adds since the model's last answer. `is_probe`: a warm-up, which
    consumes no turn.
    """

    model: str
    stream: bool
    news: str = ""
    tools: tuple[Tool, ...] = ()
    wants_usage: bool = True
    is_probe: bool = False

    def tool(self, name: str) -> Tool | None:
        """The declared tool of that name, or None: a model may call a tool that does not exist."""
        return next((tool for tool in self.tools if tool.name == name), None)


@dataclass(frozen=True, slots=True)
class Answer:
    """What the model says. `number` is that of the request and makes ids: `call_3_1`. `time` in
    Unix seconds.
    """

    number: int
    time: float
    text: str = ""
    thought: str = ""
    tool_calls: tuple[ToolCall, ...] = ()
    usage: Usage | None = None
    stop_reason: StopReason = "end_turn"

    def call_id(self, index: int) -> str:
        """The id of the tool call at `index`: the script's, else one made from the request's
        number.
        """
        return self.tool_calls[index].id or f"call_{self.number}_{index + 1}"


@dataclass(frozen=True, slots=True)
class Problem:
    """An error to be told in a dialect's own words. `kind` says which, `status` is for
    `kind="status"`.
    """

    kind: Literal["status", "context_overflow", "model_not_found", "quota_exceeded"]
    model: str
    number: int
    status: int = 500
    said: ErrorText = field(default_factory=ErrorText)


@dataclass(frozen=True, slots=True)
class Dialect:
    """One wire format, as functions.

    `stream` yields the frames of a streamed answer, `whole` is the body of one that is not
    streamed. `error` gives status and body. `stream_error` is the frame or frames that tell a
    problem after the stream has begun.
    """

    name: Literal["chat", "responses", "messages", "ollama", "gemini"]
    stream_type: str
    read: Callable[[Body], Ask]
    stream: Callable[[Ask, Answer], Iterator[bytes]]
    whole: Callable[[Ask, Answer], Json]
    error: Callable[[Problem], tuple[int, Json]]
    stream_error: Callable[[Problem], Iterable[bytes]]
    # The Responses API opens the stream with 200 and tells a context overflow inside it.
    overflows_in_stream: bool = False


class BadRequestError(ValueError):
    """A body that is not a request of this dialect. The message says what is missing."""


def pieces(text: str) -> Iterator[str]:
    """The text in pieces, as a model streams it. Nothing for an empty text."""
    size = max(_MIN_PIECE_CHARS, -(-len(text) // _PIECES))
    for start in range(0, len(text), size):
        yield text[start : start + size]


def sse(event: Json, name: str | None = None) -> bytes:
    """One server-sent event."""
    head = f"event: {name}\n".encode() if name else b""
    return head + b"data: " + orjson.dumps(event) + b"\n\n"


def arguments_text(call: ToolCall) -> str:
    """The arguments as the text that goes over the wire."""
    match call.arguments:
        case str(text):
            return text
        case arguments:
            return orjson.dumps(arguments).decode()


def arguments_object(call: ToolCall) -> Body:
    """The arguments as an object, for the dialects that send no text. Text that is no JSON object
    becomes `{}`.
    """
    match call.arguments:
        case str(text):
            return _object_or_empty(text)
        case arguments:
            return arguments


def _object_or_empty(text: str) -> Body:
    try:
        parsed: JsonValue = orjson.loads(text)
    except orjson.JSONDecodeError:
        return {}
    return parsed if isinstance(parsed, dict) else {}


def text_of(content: JsonValue) -> str:
    """All the text in a message's content, whatever the nesting of its parts."""
    match content:
        case str(text):
            return text
        case list(parts):
            return "\n".join(filter(None, (text_of(part) for part in parts)))
        case {"text": str(text)}:
            return text
        case {"content": inner} | {"output": inner}:
            return text_of(inner)
        case _:
            return ""


def items(value: JsonValue) -> list[JsonValue]:
    """The list itself; empty for anything that is no list."""
    match value:
        case list(listed):
            return listed
        case _:
            return []


def is_assistant(message: JsonValue) -> bool:
    """Whether the model itself said this, in the dialects that have roles."""
    match message:
        case {"role": "assistant"}:
            return True
        case _:
            return False


def news(messages: Sequence[JsonValue], is_own: Callable[[JsonValue], bool] = is_assistant) -> str:
    """The text of the messages after the last one that the model itself said."""
    own = [index for index, message in enumerate(messages) if is_own(message)]
    return text_of(list(messages[own[-1] + 1 if own else 0 :]))
