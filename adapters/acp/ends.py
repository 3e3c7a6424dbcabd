"""What the end of a turn, an error of the agent's and its last words mean. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import get_args

import orjson

from adapters.reading import complaint, fields, first_line, text, whole
from orchestrator.adapter import Exit
from orchestrator.events import Error, ErrorKind, StopReason
from orchestrator.model_errors import error_kind

STOP_REASONS: Mapping[str, StopReason] = MappingProxyType(
    {word: word for word in get_args(StopReason) if word != "error"}
)
RETRYABLE: frozenset[ErrorKind] = frozenset({"unavailable", "server_error", "rate_limited"})
_BY_CODE: Mapping[int, ErrorKind] = MappingProxyType(
    {-32000: "auth_failed", -32601: "bad_usage", -32602: "bad_usage", -32800: "cancelled"}
)
_SHORT = 1000
_BROKEN_OFF = "terminated"
# Node's word for an answer of which the connection broke off (qwen tells no more of it).


def failure(error: object, doing: str) -> Error:
    """An error that the agent answered with while it was asked to do something."""
    known = fields(error)
    said = _said(known)
    code = whole(known.get("code"))
    status = _status(known, code)
    kind = error_kind(f"{said} {_dumped(known.get('data'))}", status)
    if kind == "unknown" and code is not None:
        kind = _BY_CODE.get(code, "unknown")
    if kind == "unknown" and said.rpartition(": ")[2] == _BROKEN_OFF:
        kind = "unavailable"
    told = said or f"error {code}"
    return Error(kind=kind, text=f"{doing}: {told}", retryable=kind in RETRYABLE)


def without_end(exit: Exit, title: str) -> Error:
    """Why it ended, where no answer said so."""
    words = complaint(exit.stderr)
    if words is None or exit.status == 0:
        said = f"{title} ended (exit {exit.status}) before its turn was over"
        return Error(kind="incomplete", text=said)
    kind = error_kind(exit.stderr)
    return Error(kind="incomplete" if kind == "unknown" else kind, text=words)


def _said(error: Mapping[str, object]) -> str:
    """The message, and what is under `data`, each once: a message is often `Internal error`."""
    message, data = text(error.get("message")), error.get("data")
    details = text(data) or text(fields(data).get("details")) or text(fields(data).get("message"))
    if details is None and data and message in {None, "Internal error"}:
        details = _dumped(data)
    parts = [part for part in (message, details) if part]
    if len(parts) == 2 and parts[0] in parts[1]:
        del parts[0]
    return ": ".join(first_line(part) if len(part) > _SHORT else part for part in parts)[:_SHORT]


def _dumped(data: object) -> str:
    return orjson.dumps(data).decode()


def _status(error: Mapping[str, object], code: int | None) -> int | None:
    """The HTTP status, where one is told: as the code, or below `data`."""
    data = fields(error.get("data"))
    for name in ("status", "statusCode", "code"):
        if (status := whole(data.get(name))) is not None and 400 <= status < 600:
            return status
    return code if code is not None and 400 <= code < 600 else None
