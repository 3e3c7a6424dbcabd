"""OpenAI's errors, in OpenAI's words: what chat completions and Responses share."""

from __future__ import annotations

from http import HTTPStatus
from typing import NamedTuple

from orchestrator.testing.dialect import Json, Problem


class _Words(NamedTuple):
    status: int
    message: str
    type: str = "invalid_request_error"
    code: str | None = None
    param: str | None = None


_BAD_KEY = (
    "Incorrect API key provided: sk-fake****. "
    "You can find your API key at https://platform.openai.com/account/api-keys."
)
_BAD_COUNTRY = "Country, region, or territory not supported"
_RATE_LIMIT = (
    "Rate limit reached for {model} in organization org-scripted on tokens per min (TPM): "
    "Limit 30000, Used 29500, Requested 1200. Please try again in 1.4s. "
    "Visit https://platform.openai.com/account/rate-limits to learn more."
)
_QUOTA = (
    "You exceeded your current quota, please check your plan and billing details. For more "
    "information on this error, read the docs: "
    "https://platform.openai.com/docs/guides/error-codes/api-errors."
)
_NO_MODEL = "The model `{model}` does not exist or you do not have access to it."
_OUR_FAULT = "The server had an error while processing your request. Sorry about that!"
_OVERLOADED = "That model is currently overloaded with other requests. You can retry your request."
_TOO_LONG = {
    "input": (
        "Your input exceeds the context window of this model. "
        "Please adjust your input and try again."
    ),
    "messages": (
        "This model's maximum context length is 8192 tokens. However, your messages resulted in "
        "9216 tokens. Please reduce the length of the messages."
    ),
}


def error(problem: Problem, overflow_param: str) -> tuple[int, Json]:
    """Status and body. `overflow_param`, the key that a context overflow names: input, messages."""
    return _words(problem, overflow_param).status, {"error": error_object(problem, overflow_param)}


def error_object(problem: Problem, overflow_param: str) -> Json:
    """The inner object: message, type, param, code."""
    words, said = _words(problem, overflow_param), problem.said
    return {
        "message": said.message or words.message.format(model=problem.model),
        "type": said.type or words.type,
        "param": words.param,
        "code": said.code or words.code,
    }


def _words(problem: Problem, overflow_param: str) -> _Words:
    match problem.kind:
        case "status":
            return _by_status(problem.status)
        case "context_overflow":
            return _Words(
                400, _TOO_LONG[overflow_param], code="context_length_exceeded", param=overflow_param
            )
        case "model_not_found":
            return _Words(404, _NO_MODEL, code="model_not_found")
        case "quota_exceeded":
            return _Words(429, _QUOTA, "insufficient_quota", "insufficient_quota")


def _by_status(status: int) -> _Words:
    match status:
        case 401:
            return _Words(status, _BAD_KEY, code="invalid_api_key")
        case 403:
            code = "unsupported_country_region_territory"
            return _Words(status, _BAD_COUNTRY, "request_forbidden", code)
        case 429:
            return _Words(status, _RATE_LIMIT, "tokens", "rate_limit_exceeded")
        case 500:
            return _Words(status, _OUR_FAULT, "server_error")
        case 503:
            return _Words(status, _OVERLOADED, "server_error", "server_is_overloaded")
        case _:
            return _Words(status, _phrase(status), _type(status))


def _phrase(status: int) -> str:
    """The standard words for a status; 529 has none, and is Anthropic's for overloaded."""
    return {known.value: known.phrase for known in HTTPStatus}.get(status, "Overloaded")


def _type(status: int) -> str:
    return "server_error" if status >= 500 else "invalid_request_error"
