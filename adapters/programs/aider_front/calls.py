"""Calls of the model: what each costs and says, how often one is tried again."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from contextlib import redirect_stdout
from pathlib import Path

from adapters.programs.aider_front.answer import Answer
from adapters.programs.aider_front.replacing import pair
from adapters.programs.aider_front.run import Run, Stop
from adapters.programs.asked import LIMIT, Json
from adapters.programs.model_calls import (
    LONGEST_WAIT_S,
    ModelError,
    judge,
    pause,
    retries,
    unreachable,
)


def send_completion(original: Callable[..., object], run: Run) -> Callable[..., object]:
    """One call of the model, whichever of aider's models it is and whatever for."""

    def send_completion(
        self: object,
        messages: list[Json],
        functions: object,
        stream: bool,
        temperature: object = None,
    ) -> object:
        name = str(getattr(self, "name", ""))
        call = run.calls + 1
        aside = not getattr(run.asking, "now", False)  # a commit's message, a summary
        check_limits(run)
        run.calls = call
        run.lines.say("model_call", call=call, model=name, stream=stream, aside=aside or None)
        if why := unreachable(run.settings.api_base or environment_base(name)):
            # At the first call nothing is lost yet: the supervisor shall hear of it at once.
            raise ModelError(why, kind="unavailable", retryable=call > 1)
        import litellm

        litellm.disable_hf_tokenizer_download = True
        before = getattr(self, "extra_params", None)
        self.extra_params = {**(before or {}), **call_kwargs(run, name, stream=stream)}  # type: ignore[attr-defined]
        try:
            done = original(self, messages, functions, stream, temperature)
        finally:
            self.extra_params = before  # type: ignore[attr-defined]
        hashed, answer = pair(done)
        told = Answer(run, call, name, messages, aside=aside)
        if stream:
            return hashed, told.follow(answer)
        told.whole(answer)
        return hashed, answer

    return send_completion


def call_kwargs(run: Run, model: str, *, stream: bool) -> Json:
    """What goes to LiteLLM with every call. The key is in no file and in no message."""
    settings = run.settings
    kwargs: Json = {"max_retries": 0, "num_retries": 0, **settings.model_kwargs}
    if stream:
        kwargs["stream_options"] = {"include_usage": True}
    if settings.api_base is not None:
        kwargs["api_base"] = settings.api_base
    if run.key is not None:
        kwargs["api_key"] = run.key
    elif settings.api_base is not None and model.startswith("openai/"):
        kwargs["api_key"] = "none"  # the client insists on one; a server without keys ignores it
    return kwargs


_LOCAL_BASES = {
    "ollama": ("OLLAMA_API_BASE", "http://127.0.0.1:11434"),
    "ollama_chat": ("OLLAMA_API_BASE", "http://127.0.0.1:11434"),
}


def environment_base(model: str) -> str | None:
    """The address that LiteLLM takes from the environment, as far as that is simple to say."""
    provider = model.partition("/")[0]
    name, default = _LOCAL_BASES.get(provider, (f"{provider.upper()}_API_BASE", None))
    return os.environ.get(name, default)


def check_limits(run: Run) -> None:
    """Raises Stop when the next call of the model would be one too many."""
    settings = run.settings
    if settings.steps is not None and run.calls >= settings.steps:
        raise Stop("the limit of steps is reached", code=LIMIT, ended="limit", kind="max_turns")
    if settings.cost_usd is not None and (run.cost or 0.0) >= settings.cost_usd:
        text = "the limit of cost is reached"
        raise Stop(text, code=LIMIT, ended="limit", kind="budget_exceeded")


def send(original: Callable[..., object], run: Run) -> Callable[..., object]:
    """One question to the model: at most two retries, then the run ends. aider's own made 27."""
    from aider.coders.base_coder import FinishReasonLength

    def send(
        self: object, messages: list[Json], model: object = None, functions: object = None
    ) -> Iterator[object]:
        attempt, base = 0, run.settings.api_base
        while True:
            attempt += 1
            run.asking.now = True
            try:
                yield from original(self, messages, model, functions)  # type: ignore[misc]
                return
            except FinishReasonLength:
                raise
            except Exception as error:
                failure = error if isinstance(error, ModelError) else judge(error, base)
                _wait_or_stop(run, failure, error, attempt)
            finally:
                run.asking.now = False

    return send


def aside(original: Callable[..., object], run: Run) -> Callable[..., object]:
    """A commit's message, a summary: aider goes on without, and so do we."""

    def simple_send_with_retries(self: object, messages: list[Json]) -> object:
        try:
            return original(self, messages)
        except Exception as error:
            text = str(judge(error, run.settings.api_base))
            run.lines.say("model_error", call=run.calls, text=text, aside=True)
            return None

    return simple_send_with_retries


_OF_A_CALL = ("litellm", "openai", "httpx", "httpcore", "aiohttp", "model_calls")


def _wait_or_stop(run: Run, failure: ModelError, error: Exception, attempt: int) -> None:
    if type(error).__module__.partition(".")[0] not in _OF_A_CALL and failure.kind is None:
        text = f"{type(error).__name__}: {error}"
        raise Stop(text, kind="crashed", retryable=False) from error
    said: Json = failure.said
    run.lines.say("model_error", call=run.calls, text=str(failure), **said)
    most = retries(local=run.settings.local)
    delay = pause(error, min(attempt, most))
    if attempt > most or not failure.retryable or delay > LONGEST_WAIT_S:
        ended = "refused" if failure.kind == "refused" else "error"
        raise Stop(str(failure), ended=ended, said=said) from error
    run.lines.say("retry", attempt=attempt, of=most, delay_s=delay, reason=str(failure))
    time.sleep(delay)


def silent_stream(original: Callable[..., object]) -> Callable[..., object]:
    """Aider prints the answer as it comes; we have told it already."""

    def show_send_output_stream(self: object, completion: object) -> Iterator[object]:
        with Path(os.devnull).open("w", encoding="utf-8") as nowhere, redirect_stdout(nowhere):
            yield from original(self, completion)  # type: ignore[misc]

    return show_send_output_stream
