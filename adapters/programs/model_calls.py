"""Calls of a model through LiteLLM: what its exceptions mean, and its answers while they grow.

Shared by the programs of this folder. Run by the agent's own interpreter: standard library only.
"""

from __future__ import annotations

import contextlib
import json
import math
import os
import re
import socket
import time
from urllib.parse import urlsplit

from adapters.programs.json_lines import Lines

RETRIES = 2
"""How often a call is tried again at most; on a server at home, which is not busy for others, 1."""


def retries(*, local: bool) -> int:
    """How often a call is tried again at most."""
    return 1 if local else RETRIES


BACKOFF_S = (1.0, 4.0)
LONGEST_WAIT_S = 30.0  # a server that asks for a longer pause is left to the supervisor
CONNECT_S = 5.0
DELTA_S = 0.25  # how often a growing answer is shown
TELL_S = 10.0  # how often it is told that a tool call, which is shown only whole, grows


class ModelError(Exception):
    """A call of the model failed for good. `kind` None: the adapter judges by status and text.

    `resets_at`: when it may work again (RFC 3339, UTC), where the server asked for a pause.
    """

    def __init__(
        self,
        text: str,
        *,
        kind: str | None,
        status: int | None = None,
        retryable: bool = False,
        resets_at: str | None = None,
    ) -> None:
        super().__init__(text)
        self.kind = kind
        self.status = status
        self.retryable = retryable
        self.resets_at = resets_at

    @property
    def said(self) -> dict[str, object]:
        """What a line tells of it, beside its text."""
        told: dict[str, object] = {
            "kind": self.kind,
            "status": self.status,
            "retryable": self.retryable,
        }
        return told | ({} if self.resets_at is None else {"resets_at": self.resets_at})


# --- what went wrong ------------------------------------------------------------------------------

_KINDS = {
    "ContextWindowExceededError": "context_overflow",
    "ContentPolicyViolationError": "refused",
    "AuthenticationError": "auth_failed",
    "PermissionDeniedError": "auth_failed",
    "NotFoundError": "model_not_found",
    "RateLimitError": "rate_limited",
    "Timeout": "timed_out",
    "MidStreamFallbackError": "unavailable",
}
_FINAL_STATUSES = frozenset({400, 401, 402, 403, 404, 413, 422})
_NO_MORE_MONEY = re.compile(r"(?i)quota|billing|credit balance")
_CONNECTION = re.compile(r"(?i)connection error|connect(ion)? (failed|refused)|cannot connect")
_PREFIXES = re.compile(r"^(?:(?:litellm\.)?\w+Error: |\w+(?:Exception|Error)(?: [\w ]+)? - )+")
_AFTER = re.compile(r" Original exception: |\nTraceback \(|\. Handle with `litellm")
_NOT_INSTALLED = re.compile(r"No module named '|ith: pip install")
_NO_LOGIN = re.compile(
    r"RefreshError|DefaultCredentialsError|(?i:unable to locate|missing) credentials"
)
_TEXT_CHARS = 2000


def unreachable(api_base: str | None) -> str | None:
    """Why nothing answers at this address, or None. LiteLLM shows a refused connection as a 500."""
    url = urlsplit(api_base or "")
    if not url.hostname or (url.scheme == "https" and os.environ.get("HTTPS_PROXY")):
        return None
    port = url.port or (443 if url.scheme == "https" else 80)
    try:
        socket.create_connection((url.hostname, port), CONNECT_S).close()
    except OSError as error:
        return f"cannot connect to {api_base}: {error.strerror or error}"
    return None


def judge(error: Exception, api_base: str | None) -> ModelError:
    """What an exception of LiteLLM means: by its class, by its text where the class lies."""
    text = plain(str(error)) or type(error).__name__
    code = getattr(error, "status_code", None)
    status = code if isinstance(code, int) else None
    names = [class_.__name__ for class_ in type(error).__mro__]
    kind = next((_KINDS[name] for name in names if name in _KINDS), None)
    if kind is None and _CONNECTION.search(text):
        kind, status, text = "unavailable", None, unreachable(api_base) or text
    if _NOT_INSTALLED.search(str(error)):
        return ModelError(text, kind="spawn")
    if _NO_LOGIN.search(str(error)):
        return ModelError(text, kind="auth_failed")
    retryable = status not in _FINAL_STATUSES and not _NO_MORE_MONEY.search(text)
    asked = asked_pause(error)
    resets_at = None if asked is None or not retryable else _instant(time.time() + asked)
    return ModelError(text, kind=kind, status=status, retryable=retryable, resets_at=resets_at)


def _instant(seconds: float) -> str | None:
    with contextlib.suppress(OverflowError, ValueError, OSError):  # a pause of millions of years
        return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(math.ceil(seconds)))
    return None


def plain(text: str) -> str:
    """A provider's own words, without LiteLLM's around them and without the JSON they came in."""
    text = _PREFIXES.sub("", _AFTER.split(text)[0])
    with contextlib.suppress(ValueError):
        found: object = json.loads(re.sub(r"^b(['\"])(.*)\1$", r"\2", text))
        while isinstance(found, dict):
            found = found.get("error") or found.get("message")
        text = found if isinstance(found, str) else text
    return text.strip()[:_TEXT_CHARS]


def pause(error: Exception, attempt: int) -> float:
    """Seconds to wait: what the server asked for, else our own."""
    asked = asked_pause(error)
    return BACKOFF_S[attempt - 1] if asked is None else asked


def asked_pause(error: Exception) -> float | None:
    """Seconds that the server asks to wait; None if it did not, or by a date."""
    response = getattr(error, "response", None)
    for holder, name in (
        (response, "headers"),
        (error, "headers"),
        (error, "litellm_response_headers"),
    ):
        headers = getattr(holder, name, None) or {}
        with contextlib.suppress(KeyError, ValueError):  # not asked; asked by date
            asked = float(headers["retry-after"])
            return asked if math.isfinite(asked) and asked >= 0 else None
    return None


# --- what was said and used ----------------------------------------------------------------------


def count(holder: object, name: str) -> int | None:
    value = getattr(holder, name, None)
    return value if isinstance(value, int) else None


def tokens(usage: object, model: str) -> dict[str, object]:
    """What the server counted, in a line's own words."""
    prompt, completion = count(usage, "prompt_tokens"), count(usage, "completion_tokens")
    cached = count(getattr(usage, "prompt_tokens_details", None), "cached_tokens")
    written = count(usage, "cache_creation_input_tokens")
    reasoning = count(getattr(usage, "completion_tokens_details", None), "reasoning_tokens")
    if model.startswith("ollama"):
        reasoning = None  # estimated by LiteLLM: Ollama does not say
    fresh = None if prompt is None else max(0, prompt - (cached or 0) - (written or 0))
    return {
        "input_tokens": fresh,
        "cache_read_tokens": cached,
        "cache_write_tokens": written,
        "output_tokens": completion,
        "reasoning_tokens": reasoning,
        "context_used": None if prompt is None else prompt + (completion or 0),
    }


def price(response: object, model: str, *, local: bool) -> float | None:
    """Dollars; None if the model has no price."""
    if local:
        return 0.0
    import litellm

    try:
        cost = litellm.completion_cost(response, model=model)
    except Exception:  # one of LiteLLM's own: the model has no price
        return None
    return float(cost) or None  # LiteLLM's 0 is "no price known"


class Growing:
    """An answer while it grows, shown a few times a second: what is slow must not look dead."""

    def __init__(self, lines: Lines, call: int) -> None:
        self._lines = lines
        self._ids = {"message": f"message-{call}", "thought": f"thought-{call}"}
        self._pending = dict.fromkeys(self._ids, "")
        self._arguments = 0
        self._shown = self._told = time.monotonic()

    def add(self, chunk: object) -> None:
        for choice in getattr(chunk, "choices", None) or ():
            delta = choice.delta
            self._pending["message"] += getattr(delta, "content", None) or ""
            self._pending["thought"] += getattr(delta, "reasoning_content", None) or ""
            for call in getattr(delta, "tool_calls", None) or ():
                self._arguments += len(call.function.arguments or "")
        # An answer that is there at once is told once, whole.
        if time.monotonic() - self._shown > DELTA_S:
            self._show()

    def _show(self) -> None:
        self._shown = now = time.monotonic()
        for of, text in self._pending.items():
            if text:
                self._lines.say("delta", of=of, id=self._ids[of], text=text)
                self._pending[of], self._told = "", now
        if now - self._told > TELL_S:
            self._told = now
            text = f"the model is writing a tool call ({self._arguments} characters so far)"
            self._lines.say("notice", text=text)
