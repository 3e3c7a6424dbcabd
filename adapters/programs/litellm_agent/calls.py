"""Calls of the model: at most two retries, everything it says and costs as lines."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping

from adapters.programs.asked import Json
from adapters.programs.json_lines import Lines
from adapters.programs.litellm_agent.settings import Settings
from adapters.programs.model_calls import (
    BACKOFF_S,
    LONGEST_WAIT_S,
    Growing,
    ModelError,
    judge,
    pause,
    price,
    retries,
    tokens,
    unreachable,
)


def missing_key(settings: Settings) -> str | None:
    """The variable that holds no key, where one is surely needed."""
    if settings.api_key_env is not None:
        return None if os.environ.get(settings.api_key_env) else settings.api_key_name
    known = settings.local or settings.api_base or any(map(os.environ.get, settings.secrets))
    if known or settings.model.startswith("azure"):  # which has logins besides keys
        return None
    import litellm

    missing: list[str] = litellm.validate_environment(settings.model)["missing_keys"]
    return next((name for name in missing if name.endswith("_API_KEY")), None)


def model_kwargs(settings: Settings, packaged: Mapping[str, object]) -> Json:
    """What goes to LiteLLM with every call. The key is in no file and in no message."""
    kwargs: Json = {
        **packaged,
        "num_retries": 0,
        "max_retries": 0,
        "timeout": settings.request_timeout_s,
        **settings.model_kwargs,
    }
    if settings.api_base is not None:
        kwargs["api_base"] = settings.api_base
    if settings.api_key_env is not None:
        kwargs["api_key"] = os.environ.get(settings.api_key_env)
    elif settings.api_base is not None and settings.model.startswith("openai/"):
        kwargs["api_key"] = "none"  # the client insists on one; a server without keys ignores it
    return kwargs


class Caller:
    """Calls the model: at most two retries, everything it says and costs as lines."""

    def __init__(self, settings: Settings, lines: Lines) -> None:
        self._settings = settings
        self._lines = lines
        self.calls = 0
        self.cost: float | None = None
        self.cost_known = True

    def complete(self, **request: object) -> object:
        """The whole answer, as LiteLLM's ModelResponse. Raises ModelError."""
        self.calls += 1
        attempt = 0
        while True:
            attempt += 1
            try:
                self._preflight()
                response = self._call(request)
            except ModelError as failure:
                self._wait(failure, failure, attempt)
            except Exception as error:
                self._wait(error, judge(error, self._settings.api_base), attempt)
            else:
                self._tell(response)
                return response

    def _preflight(self) -> None:
        if why := unreachable(self._settings.api_base):
            # At the first call nothing is lost yet: the supervisor shall hear of it at once.
            raise ModelError(why, kind="unavailable", retryable=self.calls > 1)

    def _wait(self, error: Exception, failure: ModelError, attempt: int) -> None:
        delay = pause(error, min(attempt, len(BACKOFF_S)))
        most = retries(local=self._settings.local)
        if attempt > most or not failure.retryable or delay > LONGEST_WAIT_S:
            raise failure from error
        self._lines.say("retry", attempt=attempt, of=most, delay_s=delay, reason=str(failure))
        time.sleep(delay)

    def _call(self, request: Mapping[str, object]) -> object:
        import litellm

        settings = self._settings
        if not settings.stream:
            return litellm.completion(**request)
        stream = litellm.completion(**request, stream=True, stream_options={"include_usage": True})
        chunks: list[object] = []
        growing = Growing(self._lines, self.calls)
        for chunk in stream:
            chunks.append(chunk)
            growing.add(chunk)
        if stream.received_finish_reason is None and stream.intermittent_finish_reason is None:
            # LiteLLM calls this finished ("stop"): half an answer would pass for a whole one.
            text = "the answer broke off: a broken connection, or no model server"
            raise ModelError(text, kind="unavailable", retryable=True)
        response = litellm.stream_chunk_builder(chunks, messages=request["messages"])
        if not any(getattr(chunk, "usage", None) for chunk in stream.chunks):
            response.usage = None  # the server said nothing: LiteLLM's figures are estimates
        return response

    def _tell(self, response: object) -> None:
        message = response.choices[0].message  # type: ignore[attr-defined]
        if thought := getattr(message, "reasoning_content", None):
            self._lines.say("thought", id=f"thought-{self.calls}", text=thought)
        if message.content and message.content.strip():
            self._lines.say("message", id=f"message-{self.calls}", text=message.content)
        self.cost = None
        if usage := getattr(response, "usage", None):
            local, model = self._settings.local, self._settings.model
            self.cost = price(response, model, local=local)
            self._lines.say(
                "usage",
                **tokens(usage, model),
                cost_usd=self.cost,
                cost_source=None if self.cost is None else "local" if local else "prices",
                context_size=self._window(),
            )
        if self.cost is None and self.cost_known:
            self.cost_known = False
            if self._settings.cost_usd is not None:
                self._lines.say(
                    "notice", text="the cost of this model is unknown: the cost limit cannot hold"
                )

    def _window(self) -> int | None:
        import litellm

        if isinstance(size := self._settings.model_kwargs.get("num_ctx"), int):
            return size
        name = self._settings.model
        known = litellm.model_cost.get(name) or litellm.model_cost.get(name.partition("/")[2])
        return known.get("max_input_tokens") if known else None
