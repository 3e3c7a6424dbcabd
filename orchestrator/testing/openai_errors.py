"""OpenAI's error bodies, which chat completions and Responses share."""

from __future__ import annotations

from http import HTTPStatus

from orchestrator.testing.dialect import Json, Problem

# status -> (message, type, code)
_BY_STATUS: dict[int, tuple[str, str, str | None]] = {
    400: ("Invalid request.", "invalid_request_error", None),
    401: (
        "Incorrect API key provided: sk-fake****. You can find your API key at"
        " https://platform.openai.com/account/api-keys.",
        "invalid_request_error",
        "invalid_api_key",
    ),
    403: (
        "Country, region, or territory not supported",
        "request_forbidden",
        "unsupported_country_region_territory",
    ),
    404: ("Invalid URL (POST /v1)", "invalid_request_error", None),
    429: (
        "Rate limit reached for {model} in organization org-scripted on tokens per min (TPM): Limit 30000,"
        " Used 29500, Requested 1200. Please try again in 1.4s."
        " Visit https://platform.openai.com/account/rate-limits to learn more.",
        "tokens",
        "rate_limit_exceeded",
    ),
    500: (
        "The server had an error while processing your request. Sorry about that!",
        "server_error",
        None,
    ),
    503: (
        "That model is currently overloaded with other requests. You can retry your request.",
        "server_error",
        "server_is_overloaded",
    ),
}


def error(problem: Problem, overflow_param: str) -> tuple[int, Json]:
    """Status and body. `overflow_param` is the request's key that a context overflow names."""
    return _status(problem), {"error": error_object(problem, overflow_param)}


def error_object(problem: Problem, overflow_param: str) -> Json:
    """The inner object: message, type, param, code."""
    message, type_, param, code = _words(problem, overflow_param)
    said = problem.said
    return {
        "message": said.message or message,
        "type": said.type or type_,
        "param": param,
        "code": said.code or code,
    }


def _status(problem: Problem) -> int:
    match problem.kind:
        case "status":
            return problem.status
        case "context_overflow":
            return 400
        case "model_not_found":
            return 404
        case "quota_exceeded":
            return 429


def _words(problem: Problem, overflow_param: str) -> tuple[str, str, str | None, str | None]:
    match problem.kind:
        case "status":
            message, type_, code = _BY_STATUS.get(problem.status) or _unlisted(problem.status)
            return message.format(model=problem.model), type_, None, code
        case "context_overflow":
            return *_overflow(overflow_param), overflow_param, "context_length_exceeded"
        case "model_not_found":
            message = f"The model `{problem.model}` does not exist or you do not have access to it."
            return message, "invalid_request_error", None, "model_not_found"
        case "quota_exceeded":
            message = (
                "You exceeded your current quota, please check your plan and billing details. For more information"
                " on this error, read the docs: https://platform.openai.com/docs/guides/error-codes/api-errors."
            )
            return message, "insufficient_quota", None, "insufficient_quota"


def _overflow(param: str) -> tuple[str, str]:
    if param == "input":
        message = (
            "Your input exceeds the context window of this model. Please adjust your input and try"
            " again."
        )
    else:
        message = (
            "This model's maximum context length is 8192 tokens. However, your messages resulted in"
            " 9216 tokens. Please reduce the length of the messages."
        )
    return message, "invalid_request_error"


def _unlisted(status: int) -> tuple[str, str, str | None]:
    known = {known.value: known.phrase for known in HTTPStatus}
    type_ = "server_error" if status >= 500 else "invalid_request_error"  # noqa: PLR2004
    return known.get(status, "Overloaded"), type_, None
