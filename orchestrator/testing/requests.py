"""The record of a request, for assertions: what was asked, with which turn it was answered, and no
key in it.
"""

from __future__ import annotations

import importlib
import re
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from hashlib import sha256
from hmac import compare_digest
from urllib.parse import parse_qsl, urlencode, urlsplit

import orjson
from pydantic import JsonValue

from orchestrator.testing.wire import Message

REDACTED = "<redacted>"
_KEY_HEADERS = frozenset({"authorization", "x-api-key", "api-key", "x-goog-api-key", "cookie"})
_KEY_PARAMETERS = frozenset({"key", "api_key", "api-key", "token"})
MAX_DECODED_BYTES = 256 * 1024 * 1024


class UnreadableBodyError(ValueError):
    """A body in an encoding that cannot be undone here, or one that is not in the encoding it
    claims.
    """


@dataclass(frozen=True, slots=True)
class Request:
    """One request as the server got it.

    `number` counts from 1 over all requests, `time` is Unix seconds, `headers` have lower-case
    names and no keys, `body` is the parsed JSON (None when it is empty or is not JSON), `problem`
    says why it could not be read. `turn` counts from 1 in the script, None where no turn was
    consumed; `status` is what was answered, None where nothing was.
    """

    number: int
    time: float
    session: str
    dialect: str | None
    method: str
    path: str
    headers: Mapping[str, str]
    body: JsonValue
    key_sha256: str | None
    problem: str | None = None
    turn: int | None = None
    status: int | None = None

    @property
    def had_key(self) -> bool:
        """Whether it came with a key of any kind."""
        return self.key_sha256 is not None

    def has_key(self, key: str) -> bool:
        """Whether it came with this very key."""
        return compare_digest(self.key_sha256 or "", _hash(key))

    def json_line(self) -> bytes:
        """The request as one line of JSON."""
        return orjson.dumps(asdict(self), option=orjson.OPT_APPEND_NEWLINE)


def record(
    message: Message, number: int, time: float, session: str, dialect: str | None
) -> Request:
    """The request without its keys."""
    body, problem = _body(message)
    keys = [*_header_keys(message), *_parameter_keys(message.target)]
    return Request(
        number=number,
        time=time,
        session=session,
        dialect=dialect,
        method=message.method,
        path=_without_keys(message.target),
        headers=dict(_redacted(message)),
        body=body,
        key_sha256=_hash(keys[0]) if keys else None,
        problem=problem,
    )


def _body(message: Message) -> tuple[JsonValue, str | None]:
    """The JSON of the body, and the reason why it could not be read."""
    try:
        return parse(read_body(message)), None
    except UnreadableBodyError as error:
        return None, str(error)


def parse(content: bytes) -> JsonValue:
    """The JSON in a body, or None where there is none."""
    try:
        parsed: JsonValue = orjson.loads(content)
    except orjson.JSONDecodeError:
        return None
    return parsed


def read_body(message: Message) -> bytes:
    """The body with its content encoding undone. Raises UnreadableBodyError."""
    encoding = (message.header("content-encoding") or "identity").strip().lower()
    try:
        return _decode(encoding, message.body)
    except zlib.error as error:
        raise UnreadableBodyError(f"a body that is not {encoding}: {error}") from None


def _decode(encoding: str, body: bytes) -> bytes:
    match encoding:
        case "identity" | "":
            return body
        case "gzip" | "deflate":
            return _inflate(body)
        case "zstd":
            return _unzstd(body)
        case _:
            reason = f"content-encoding {encoding!r} (known: gzip, deflate, zstd)"
            raise UnreadableBodyError(reason)


def _inflate(body: bytes) -> bytes:
    inflater = zlib.decompressobj(wbits=47)  # gzip's header or zlib's, whichever it has
    content = inflater.decompress(body, MAX_DECODED_BYTES)
    if not inflater.eof:
        raise UnreadableBodyError(f"a body cut short, or over {MAX_DECODED_BYTES} bytes")
    return content


def _unzstd(body: bytes) -> bytes:
    for name in ("compression.zstd", "backports.zstd"):  # in Python from 3.14 on
        try:
            module = importlib.import_module(name)
        except ImportError:
            continue
        decompressed: bytes = module.decompress(body)
        return decompressed
    reason = "content-encoding 'zstd' needs Python 3.14 or the package backports.zstd"
    raise UnreadableBodyError(reason)


def _header_keys(message: Message) -> Iterator[str]:
    for name, value in message.headers:
        key = re.sub(r"^bearer\b", "", value.strip(), flags=re.IGNORECASE).strip()
        if key and name in _KEY_HEADERS - {"cookie"}:
            yield key


def _parameter_keys(target: str) -> Iterator[str]:
    for name, value in parse_qsl(urlsplit(target).query):
        if name in _KEY_PARAMETERS:
            yield value


def _without_keys(target: str) -> str:
    parts = urlsplit(target)
    if not any(_parameter_keys(target)):
        return target
    query = [
        (name, REDACTED if name in _KEY_PARAMETERS else value)
        for name, value in parse_qsl(parts.query, keep_blank_values=True)
    ]
    return f"{parts.path}?{urlencode(query)}"


def _redacted(message: Message) -> Iterator[tuple[str, str]]:
    for name, value in message.headers:
        yield name, REDACTED if name in _KEY_HEADERS else value


def _hash(key: str) -> str:
    return sha256(key.encode()).hexdigest()
