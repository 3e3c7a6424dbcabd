"""How a sub-task is asked for from inside a supervised run: one request a connection, a line of
JSON there, lines of progress and one reply back. Closing the connection takes the request back.

What is asked and answered is the supervisor's to say; here are only the words of the wire.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias

import anyio
import anyio.abc
import orjson

from orchestrator.errors import DeskError, InputError, NotUnderstoodError
from orchestrator.lines import LINE_LIMIT, LineSplitter

if TYPE_CHECKING:
    from pydantic import JsonValue

SOCKET, TOKEN = "ORCHESTRATE_SOCKET", "ORCHESTRATE_TOKEN"
"""Variables of a supervised agent: where its sub-tasks are asked for, and what says whose they
are.
"""

_READ_BYTES = 65536

Progress: TypeAlias = Callable[[Mapping[str, "JsonValue"]], Awaitable[None]]
Answer: TypeAlias = "dict[str, JsonValue]"
Ask: TypeAlias = Callable[[str, Mapping[str, "JsonValue"], Progress], Awaitable[Answer]]
"""Asks one thing: a word, its parameters, where progress goes. Raises InputError if it is refused,
or not valid.
"""


@dataclass(frozen=True, kw_only=True)
class Desk:
    """Where sub-tasks are asked for."""

    socket: str
    token: str


def desk_of(environ: Mapping[str, str]) -> Desk | None:
    """Where this process asks, if it was started inside of a run that may hand on work."""
    socket, token = environ.get(SOCKET), environ.get(TOKEN)
    return Desk(socket=socket, token=token) if socket and token else None


async def ask(
    desk: Desk, word: str, parameters: Mapping[str, JsonValue], progress: Progress
) -> Answer:
    """The answer. Cancelling it takes the request back. Raises InputError with what the other side
    has against it, DeskError if there is no other side.
    """
    request = _packed({"token": desk.token, "ask": word, "with": dict(parameters)})
    try:
        async with await anyio.connect_unix(desk.socket) as stream:
            await stream.send(request)
            async for line in lines(stream):
                reply = message(line)
                match reply:
                    case {"progress": dict(told)}:
                        await progress(told)
                    case {"answer": dict(answer)}:
                        return answer
                    case {"error": str(text)}:
                        raise _against(text, reply)
                    case _:
                        raise DeskError(f"not an answer: {line[:200]!r}")
    except (OSError, anyio.BrokenResourceError) as error:
        raise _nobody(str(error)) from error
    raise _nobody("it closed the connection")


def _packed(request: Mapping[str, JsonValue]) -> bytes:
    try:
        return orjson.dumps(request) + b"\n"
    except orjson.JSONEncodeError as error:  # a command line may hold any bytes
        raise NotUnderstoodError(f"that is no text in UTF-8: {error}") from error


def _against(text: str, reply: Mapping[str, JsonValue]) -> InputError:
    hint = reply.get("hint")
    kind = NotUnderstoodError if reply.get("understood") is False else InputError
    return kind(text, hint=hint if isinstance(hint, str) else None)


def _nobody(why: str) -> DeskError:
    return DeskError(
        f"the supervisor of this run does not answer: {why}",
        hint="Its run is over, or this agent's sandbox does not let it connect.",
    )


async def lines(stream: anyio.abc.ByteReceiveStream) -> AsyncIterator[bytes]:
    """The lines of a connection, until it is closed; one that is too long is empty."""
    splitter = LineSplitter(LINE_LIMIT)
    try:
        while True:
            for line in splitter.feed(await stream.receive(_READ_BYTES)):
                yield b"" if line.oversize else line.data
    except anyio.EndOfStream:
        return


def message(line: bytes) -> dict[str, JsonValue]:
    """The JSON object on a line; nothing if it is none."""
    try:
        value: JsonValue = orjson.loads(line)
    except orjson.JSONDecodeError:
        return {}
    return value if isinstance(value, dict) else {}
