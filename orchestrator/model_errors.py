"""What kind of error a model's server means, from its wording and its HTTP status. Pure."""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import cache
from types import MappingProxyType

from orchestrator.events import ErrorKind

_STATUS_KINDS: Mapping[int, ErrorKind] = MappingProxyType(
    {
        400: "invalid_request",
        401: "auth_failed",
        402: "rate_limited",
        403: "auth_failed",
        404: "model_not_found",
        408: "timed_out",
        413: "context_overflow",
        422: "invalid_request",
        429: "rate_limited",
    }
)


def _any(*patterns: str) -> str:
    return "|".join(patterns)


@cache
def _wordings() -> tuple[tuple[ErrorKind, re.Pattern[str]], ...]:
    # Compiled when the first error is looked at: most runs have none, and it takes 8 ms.
    return tuple((kind, re.compile(pattern, re.IGNORECASE)) for kind, pattern in _WORDINGS)


# Wording decides before the status: a context overflow is a 400 like any other, and litellm turns a
# refused connection into a 500.
_WORDINGS: tuple[tuple[ErrorKind, str], ...] = (
    (
        "context_overflow",
        _any(
            r"context[ _]?(length|window|size|limit|overflow)",
            r"maximum context",
            r"prompt is too long",
            r"too many tokens(?!, please wait)",  # Bedrock's way to say: too many a minute
            r"exceeds the (available )?context",
            r"exceeds the maximum number of tokens",
            r"input is too long",
        ),
    ),
    (
        "out_of_memory",
        _any(
            r"out of memory",
            r"requires more (system )?memory",
            r"(insufficient|not enough|unable to allocate|failed to allocate) .{0,40}memory",
            r"(unable|failed) to allocate .{0,40}buffer",
            r"insufficient system resources",
            r"cuda ?malloc failed",
        ),
    ),
    (
        "load_failed",
        _any(
            r"(failed|unable|error) (to load|loading) (the )?model",
            r"model .{0,80}failed to load",
            r"(llama )?runner process has (terminated|no longer)",
            r"could ?n[o']t load (the )?model",
        ),
    ),
    (
        "tools_unsupported",
        _any(
            r"does not support (tools|tool|function)",
            r"(tools?|function calling) (is|are) not supported",
            r"--enable-auto-tool-choice",
            r"tools param requires --jinja",
        ),
    ),
    (
        "unavailable",
        _any(
            r"connection (refused|error|failed|reset|closed)",
            r"connection (was )?closed",
            r"connecterror",
            r"(cannot|could not|unable to|failed to) connect",
            r"econnre(fused|set)",
            r"enotfound",
            r"error sending request",
            r"name or service not known",
            r"name resolution",
            r"connect call failed",
            r"fetch failed",
            r"socket hang up",
            r"no route to host",
            r"dns error",
            r"network is unreachable",
            r"server disconnected",
            r"stream (disconnected|closed)",
            r"connection attempts? failed",
            r"is (the|your) server running",
            r"no running .{0,40}server",
            r"server (not|isn't) running",
        ),
    ),
    (
        "auth_failed",
        _any(
            r"unauthori[sz]ed",
            r"invalid[ _](api|subscription)[ _]?key",
            r"incorrect api key",
            r"authentication",
            r"not logged in",
            r"missing (bearer|api[ _]key)",
            r"no auth credentials",
            r"credentials (were )?not found",
            r"unable to locate credentials",
            r"security token .{0,40}(invalid|expired)",
            r"permission_error",
            r"invalid x-api-key",
            r"api key not valid",
            r"api key .{0,40}(missing|not set|required)",
        ),
    ),
    (
        "model_not_found",
        _any(
            # In one sentence: a point inside a name (qwen2.5) does not end it.
            r"(model|deployment)(?:[^.\n]|\.(?=\S)){0,80}"
            r"(not found|not exist|is not supported|identifier is invalid|decommissioned)",
            r"model_?not_?found",
            r"not_found_error",
            r"(no such|unknown|invalid) model",
            r"not a valid model",
            r"selected model .{0,80}not exist",
            r"no models? (is |are )?loaded",
        ),
    ),
    (
        "rate_limited",
        _any(
            r"rate[ _-]?limit",
            r"too many (requests|tokens)",
            r"tokens per min",
            r"throttl",
            r"quota",
            r"(usage|hit your) limit",
            r"insufficient (balance|credits|funds)",
            r"credit balance",
            r"billing",
        ),
    ),
    ("timed_out", _any(r"timed ?out", r"timeout")),
    (
        "refused",
        _any(r"content[ _]?policy", r"content[ _]?filter", r"safety (system|policy)"),
    ),
    (
        "server_error",
        _any(
            r"internal ?server ?error",
            r"overloaded",
            r"high demand",
            r"server had an error",
            r"bad ?gateway",
            r"service ?unavailable",
            r"server_error",
            r"at capacity",
        ),
    ),
)

_STATUS = re.compile(
    r"(?i)(?:status[ _]?(?:code)?|(?:api )?error(?: code)?|http(?:/[\d.]+)?(?: error)?)"
    r"[ :=\"']*\(?([45]\d\d)\b"
)


def error_kind(text: str, status: int | None = None) -> ErrorKind:
    """The kind of a model error, by the provider's wording first, then by the HTTP status.

    `status` None: one that the text names ("status 429", "HTTP 500") is used. `unknown` if neither
    helps.
    """
    for kind, pattern in _wordings():
        if pattern.search(text):
            return kind
    if status is None and (found := _STATUS.search(text)):
        status = int(found[1])
    if status is None:
        return "unknown"
    return "server_error" if status >= 500 else _STATUS_KINDS.get(status, "invalid_request")
