"""A small HTTP/1.1 client for model servers: one request a connection, bounded in time and size.

No proxy is ever used, no redirect followed and no cookie kept: a key goes where it was sent and
nowhere else. h11 speaks, anyio waits.
"""

from __future__ import annotations

import errno
import socket
import ssl
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from urllib.parse import urlsplit

import anyio
import anyio.abc
import h11
import orjson

from orchestrator.errors import AskError, shown
from orchestrator.lines import LineSplitter
from orchestrator.server import Ask, Reply

BODY_LIMIT = 16 * 1024 * 1024
"""The most that is read of a reply: a list of models is small."""

_LINE_LIMIT = 1024 * 1024
_READ_BYTES = 65536
_PORTS = {"http": 80, "https": 443}


async def ask(address: str, request: Ask, *, key: str | None = None, limit_s: float) -> Reply:
    """The server's reply, whatever its status. Raises AskError if there is none within `limit_s`.

    `address` is one of `address_of`'s form; `key` goes along as a bearer token.
    """
    try:
        with anyio.fail_after(limit_s):
            async with _exchange(address, request, key) as exchange:
                body = bytearray()
                async for block in exchange.blocks():
                    body += block
                    if len(body) > BODY_LIMIT:
                        text = f"the reply has more than {BODY_LIMIT} bytes"
                        raise AskError(text, why="too_large")
                read = _json(bytes(body))
                text = "" if read is not None else bytes(body).decode("utf-8", "replace")
                return Reply(status=exchange.status, body=read, text=text)
    except TimeoutError:
        raise AskError(f"no answer within {limit_s:g} s", why="timed_out") from None


async def connect(address: str, *, limit_s: float) -> None:
    """Returns if somebody listens at the address, and asks nothing. Raises AskError if not."""
    try:
        with anyio.fail_after(limit_s):
            stream = await _connect(address, None)
        await stream.aclose()
    except TimeoutError:
        raise AskError(f"no answer within {limit_s:g} s", why="timed_out") from None


@dataclass(kw_only=True)
class Lines:
    """A reply that is read line by line. `status` is its HTTP status."""

    status: int
    _exchange: _Exchange

    async def __aiter__(self) -> AsyncIterator[bytes]:
        splitter = LineSplitter(_LINE_LIMIT)
        async for block in self._exchange.blocks():
            for line in splitter.feed(block):
                yield line.data
        for line in splitter.close():
            yield line.data


@asynccontextmanager
async def lines_of(
    address: str, request: Ask, *, key: str | None = None, silence_s: float
) -> AsyncGenerator[Lines]:
    """A streamed reply, for as long as the block runs. Raises AskError when nothing comes for
    `silence_s`.
    """
    async with _exchange(address, request, key, silence_s=silence_s) as exchange:
        yield Lines(status=exchange.status, _exchange=exchange)


def _json(body: bytes) -> object:
    try:
        value: object = orjson.loads(body)
    except orjson.JSONDecodeError:
        return None
    return value


# --- one request on one connection ---------------------------------------------------------------


@dataclass(kw_only=True)
class _Exchange:
    stream: anyio.abc.ByteStream
    http: h11.Connection
    silence_s: float | None
    status: int = 0
    ended: bool = False

    async def send(self, address: str, request: Ask, key: str | None) -> None:
        body = orjson.dumps(dict(request.body)) if request.method != "GET" else b""
        await self._write(self.http.send(_head(address, request, key, len(body))))
        await self._write(self.http.send(h11.Data(data=body)))
        await self._write(self.http.send(h11.EndOfMessage()))

    async def _write(self, content: bytes | None) -> None:
        if content:
            await self.stream.send(content)

    async def head(self) -> None:
        while True:
            match await self._event():
                case h11.Response(status_code=status):
                    self.status = status
                    return
                case h11.InformationalResponse():
                    pass
                case _:
                    raise AskError("the connection was closed without an answer", why="closed")

    async def blocks(self) -> AsyncIterator[bytes]:
        while True:
            match await self._event():
                case h11.Data(data=block):
                    yield bytes(block)
                case h11.EndOfMessage():
                    return
                case _:
                    raise AskError("the answer was cut", why="closed")

    async def _event(self) -> object:
        try:
            while (event := self.http.next_event()) is h11.NEED_DATA:
                self.http.receive_data(await self._read())
        except h11.RemoteProtocolError as error:
            if self.ended:
                raise AskError(
                    "the connection was closed without an answer", why="closed"
                ) from None
            text = shown(f"what answers does not speak HTTP ({error})")
            raise AskError(text, why="not_http") from None
        return event

    async def _read(self) -> bytes:
        try:
            with anyio.fail_after(self.silence_s):
                return await self.stream.receive(_READ_BYTES)
        except anyio.EndOfStream:
            self.ended = True
            return b""


def _head(address: str, request: Ask, key: str | None, length: int) -> h11.Request:
    parts = urlsplit(address)
    headers = [
        ("host", parts.netloc.rpartition("@")[2]),
        ("user-agent", "orchestrate"),
        ("accept", "application/json, text/event-stream, */*"),
        ("accept-encoding", "identity"),
        ("connection", "close"),
    ]
    if request.method != "GET":
        headers += [("content-type", "application/json"), ("content-length", str(length))]
    if key:
        headers.append(("authorization", f"Bearer {key}"))
    try:
        return h11.Request(
            method=request.method, target=f"{parts.path}{request.path}", headers=headers
        )
    except h11.LocalProtocolError:  # a key with a newline, a path with a blank
        raise AskError("the address or the key cannot be sent", why="no_way") from None


@asynccontextmanager
async def _exchange(
    address: str, request: Ask, key: str | None, *, silence_s: float | None = None
) -> AsyncGenerator[_Exchange]:
    """A request that was sent, and its reply from the first line on."""
    try:
        stream = await _connect(address, silence_s)
        async with stream:
            http = h11.Connection(h11.CLIENT, max_incomplete_event_size=_READ_BYTES)
            exchange = _Exchange(stream=stream, http=http, silence_s=silence_s)
            await exchange.send(address, request, key)
            await exchange.head()
            yield exchange
    except TimeoutError:
        if silence_s is None:
            raise  # the caller's own limit
        raise AskError(f"silent for {silence_s:g} s", why="timed_out") from None
    except (anyio.BrokenResourceError, anyio.ClosedResourceError, ConnectionError):
        raise AskError("the connection was closed", why="closed") from None


async def _connect(address: str, limit_s: float | None) -> anyio.abc.ByteStream:
    parts = urlsplit(address)
    port = parts.port or _PORTS[parts.scheme]
    error: AskError | None = None
    for host in _hosts(parts.hostname or ""):
        try:
            with anyio.fail_after(limit_s):
                if parts.scheme == "http":
                    return await anyio.connect_tcp(host, port)
                return await anyio.connect_tcp(host, port, tls=True, tls_standard_compatible=False)
        except ssl.SSLError as failure:
            raise AskError(shown(f"TLS failed ({failure.reason})"), why="insecure") from None
        except OSError as failure:
            if isinstance(failure, TimeoutError) and failure.errno is None:
                raise  # a limit of ours
            error = error or _connect_error(failure, host)
    raise error or AskError("no address", why="no_way")


def _hosts(name: str) -> tuple[str, ...]:
    """`localhost` is loopback: no resolver is asked about it."""
    local = name == "localhost" or name.endswith(".localhost")
    return ("127.0.0.1", "::1") if local else (name,)


def _connect_error(failure: OSError, host: str) -> AskError:
    for cause in _causes(failure):
        match cause:
            case socket.gaierror():
                return AskError(shown(f"there is no host {host!r}"), why="unknown_host")
            case ConnectionRefusedError():
                return AskError("connection refused", why="refused")
            case OSError(errno=int(number)) if number != errno.ETIMEDOUT:
                return AskError((cause.strerror or str(cause)).lower(), why="no_way")
            case _:
                pass
    return AskError("no answer", why="timed_out")


def _causes(error: BaseException | None) -> list[BaseException]:
    """The error with what is behind it; anyio wraps what each address of a host brought."""
    match error:
        case None:
            return []
        case BaseExceptionGroup(exceptions=inner):
            return [cause for each in inner for cause in _causes(each)]
        case _:
            return [error, *_causes(error.__cause__)]
