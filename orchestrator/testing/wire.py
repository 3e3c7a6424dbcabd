"""HTTP/1.1 on loopback sockets, with a control that web servers do not give: slow, cut, silent and
reset answers.

h11 parses and frames; anyio waits. The sockets are plain non-blocking ones, because a true reset
(RST) and a body cut at an exact byte need the socket itself. What is answered is decided
elsewhere: `Response` is a value.
"""

from __future__ import annotations

import socket
import struct
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Literal

import anyio
import anyio.abc
import h11

MAX_BODY_BYTES = 256 * 1024 * 1024
_READ_BYTES = 65536
# What is kept of a client's early next request while an answer is paused; more than this waits in
# the kernel.
_MAX_AHEAD_BYTES = 1024 * 1024

Headers = tuple[tuple[str, str], ...]
Ending = Literal["complete", "cut", "reset", "hang"]


@dataclass(frozen=True, slots=True)
class Message:
    """A request as it came: `target` is path and query, header names are lower case, `body` is
    still encoded.
    """

    method: str
    target: str
    headers: Headers
    body: bytes

    def header(self, name: str) -> str | None:
        """The first header of that (lower-case) name."""
        return next((value for key, value in self.headers if key == name), None)


@dataclass(frozen=True, slots=True)
class Response:
    """An answer and how it is played. `status` None: not a byte is sent before the ending.

    `length` is the content length to declare; without it the body is chunked. `delay_s` passes
    before the first byte; with `drip` (bytes, seconds) the body leaves in that many bytes at a
    time.
    """

    status: int | None
    body: Iterable[bytes] = ()
    headers: Headers = ()
    length: int | None = None
    delay_s: float = 0.0
    drip: tuple[int, float] | None = None
    ending: Ending = "complete"


Handler = Callable[[Message], Response]


class _GoneError(Exception):
    """The client has closed the connection."""


class _TooLargeError(Exception):
    """The request's body is over MAX_BODY_BYTES."""


@dataclass(slots=True)
class _Wire:
    """A connected non-blocking socket. Closed by `serve`, in the block that accepted it."""

    socket: socket.socket
    ahead: bytearray = field(default_factory=bytearray)

    async def receive(self) -> bytes:
        """The next bytes; empty at the end."""
        if self.ahead:
            early, self.ahead = bytes(self.ahead), bytearray()
            return early
        return await self._read()

    async def send(self, content: bytes) -> None:
        """Sends all of it. Raises OSError when the client is gone."""
        rest = memoryview(content)
        while rest:
            try:
                rest = rest[self.socket.send(rest) :]
            except BlockingIOError:
                await anyio.wait_writable(self.socket)

    async def pause(self, seconds: float) -> None:
        """Waits, but not longer than the client does. Raises _GoneError."""
        if seconds > 0:
            with anyio.move_on_after(seconds):
                await self.until_gone()

    async def until_gone(self) -> None:
        """Waits until the client closes, then raises _GoneError."""
        while len(self.ahead) < _MAX_AHEAD_BYTES:
            content = await self._read()
            if not content:
                raise _GoneError
            self.ahead += content
        await anyio.sleep_forever()

    async def _read(self) -> bytes:
        while True:
            try:
                return self.socket.recv(_READ_BYTES)
            except BlockingIOError:
                await anyio.wait_readable(self.socket)

    def reset_on_close(self) -> None:
        """Makes the kernel answer with RST instead of FIN when the socket is closed."""
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


def listen(port: int = 0) -> socket.socket:
    """A listening socket on loopback. Port 0 lets the kernel choose. Raises OSError when the port
    is taken.
    """
    listener = socket.create_server(("127.0.0.1", port), backlog=512)
    listener.settimeout(0)
    return listener


async def accept(listener: socket.socket, handle: Handler, tasks: anyio.abc.TaskGroup) -> None:
    """Serves every connection in a task of its own, until cancelled."""
    while True:
        await anyio.wait_readable(listener)
        with suppress(BlockingIOError, ConnectionAbortedError):  # it went away again
            client, _ = listener.accept()
            client.settimeout(0)
            client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            tasks.start_soon(serve, client, handle)


async def serve(client: socket.socket, handle: Handler) -> None:
    """Answers the requests of one connection until either side ends it."""
    wire, http = _Wire(client), h11.Connection(h11.SERVER, max_incomplete_event_size=_READ_BYTES)
    with client, suppress(_GoneError, OSError):
        while await _exchange(wire, http, handle):
            http.start_next_cycle()


async def _exchange(wire: _Wire, http: h11.Connection, handle: Handler) -> bool:
    """One request and its answer. Whether the connection can go on."""
    try:
        message = await _read_message(wire, http)
    except h11.RemoteProtocolError as error:
        await _refuse(wire, http, error.error_status_hint, str(error))
        return False
    except _TooLargeError:
        await _refuse(wire, http, 413, f"a request has at most {MAX_BODY_BYTES} bytes")
        return False
    if message is None:
        return False
    await _play(wire, http, message, handle(message))
    return http.our_state is h11.DONE and http.their_state is h11.DONE


async def _read_message(wire: _Wire, http: h11.Connection) -> Message | None:
    """The next request with its whole body, or None when the client has closed."""
    head: h11.Request | None = None
    body = bytearray()
    while True:
        match await _next_event(wire, http):
            case h11.Request() as head:
                pass
            case h11.Data(data=content):
                body += content
                if len(body) > MAX_BODY_BYTES:
                    raise _TooLargeError
            case h11.EndOfMessage() if head is not None:
                return _message(head, bytes(body))
            case _:
                return None


async def _next_event(wire: _Wire, http: h11.Connection) -> object:
    while (event := http.next_event()) is h11.NEED_DATA:
        if http.they_are_waiting_for_100_continue:
            go_on = h11.InformationalResponse(status_code=100, headers=[])
            await wire.send(http.send(go_on) or b"")
        http.receive_data(await wire.receive())
    return event


def _message(head: h11.Request, body: bytes) -> Message:
    headers = tuple(
        (name.decode("latin-1"), value.decode("latin-1")) for name, value in head.headers
    )
    return Message(head.method.decode("ascii"), head.target.decode("latin-1"), headers, body)


async def _refuse(wire: _Wire, http: h11.Connection, status: int, reason: str) -> None:
    if http.our_state in {h11.IDLE, h11.SEND_RESPONSE}:
        content = reason.encode()
        response = Response(status, (content,), (("connection", "close"),), length=len(content))
        await _send_head(wire, http, response)
        await _send_body(wire, http, response)
        await wire.send(http.send(h11.EndOfMessage()) or b"")


async def _play(wire: _Wire, http: h11.Connection, message: Message, response: Response) -> None:
    await wire.pause(response.delay_s)
    if response.status is not None:
        await _send_head(wire, http, response)
        if message.method != "HEAD":
            await _send_body(wire, http, response)
    match response.ending:
        case "complete":
            await wire.send(http.send(h11.EndOfMessage()) or b"")
        case "cut":
            pass  # the caller closes the socket, and the body lacks its end
        case "reset":
            wire.reset_on_close()
        case "hang":
            await wire.until_gone()


async def _send_head(wire: _Wire, http: h11.Connection, response: Response) -> None:
    length = () if response.length is None else (("content-length", str(response.length)),)
    head = h11.Response(
        status_code=response.status or 500,
        headers=[("server", "scripted"), *response.headers, *length],
    )
    await wire.send(http.send(head) or b"")


async def _send_body(wire: _Wire, http: h11.Connection, response: Response) -> None:
    if response.drip is None:
        for frame in response.body:
            await wire.send(http.send(h11.Data(data=frame)) or b"")
        return
    size, seconds = response.drip
    for drop in _sliced(response.body, size):
        await wire.send(http.send(h11.Data(data=drop)) or b"")
        await wire.pause(seconds)


def _sliced(frames: Iterable[bytes], size: int) -> Iterator[bytes]:
    """The same bytes in slices of `size`; only the last one may be shorter."""
    rest = bytearray()
    for frame in frames:
        rest += frame
        while len(rest) >= size:
            yield bytes(rest[:size])
            del rest[:size]
    if rest:
        yield bytes(rest)
