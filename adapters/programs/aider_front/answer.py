"""An answer of the model, told while it grows and as a whole."""

from __future__ import annotations

from collections.abc import Iterator

from adapters.programs.aider_front.run import Run
from adapters.programs.asked import Json
from adapters.programs.model_calls import Growing, ModelError, price, tokens


class Answer:
    """An answer of the model: told while it grows and as a whole, with what it used."""

    def __init__(
        self, run: Run, call: int, model: str, messages: list[Json], *, aside: bool
    ) -> None:
        self._run = run
        self._call = call
        self._model = model
        self._messages = messages
        self._aside = aside or None
        self._text = ""
        self._thought = ""
        self._called = False
        self._finish: str | None = None

    def follow(self, stream: object) -> Iterator[object]:
        """The chunks. Raises ModelError at the end of an answer that is no answer."""
        chunks: list[object] = []
        growing = Growing(self._run.lines, self._call)
        last: list[object] = []
        for chunk in stream:  # type: ignore[attr-defined]
            chunks.append(chunk)
            growing.add(chunk)
            self._add(chunk)
            if last or self._finish == "length":
                last.append(chunk)  # aider leaves at this one, and the usage comes behind it
            else:
                yield chunk
        received = getattr(stream, "received_finish_reason", None)
        if received is None and getattr(stream, "intermittent_finish_reason", None) is None:
            # LiteLLM calls this finished ("stop"): half an answer would pass for a whole one.
            text = "the answer broke off: a broken connection, or no model server"
            raise ModelError(text, kind="unavailable", retryable=True)
        if any(getattr(chunk, "usage", None) for chunk in getattr(stream, "chunks", ())):
            import litellm

            self._tell_usage(litellm.stream_chunk_builder(chunks, messages=self._messages))
        self._tell()
        yield from last

    def whole(self, response: object) -> None:
        """An answer that came as one."""
        for choice in getattr(response, "choices", ())[:1]:
            self._finish = getattr(choice, "finish_reason", None)
            self._take(choice.message)
        self._tell_usage(response)
        self._tell()

    def _add(self, chunk: object) -> None:
        for choice in getattr(chunk, "choices", ())[:1]:
            self._finish = getattr(choice, "finish_reason", None) or self._finish
            self._take(choice.delta)

    def _take(self, part: object) -> None:
        self._text += getattr(part, "content", None) or ""
        self._thought += getattr(part, "reasoning_content", None) or ""
        asked = getattr(part, "tool_calls", None) or getattr(part, "function_call", None)
        self._called = self._called or bool(asked)

    def _tell(self) -> None:
        if self._thought:
            self._run.lines.say("thought", id=f"thought-{self._call}", text=self._thought)
        if self._text.strip():
            self._run.lines.say(
                "message", id=f"message-{self._call}", text=self._text, aside=self._aside
            )
        if self._finish == "content_filter":
            raise ModelError("the model refused to answer", kind="refused")
        if self._finish != "length" and not self._text.strip() and not self._called:
            raise ModelError("the model's answer was empty", kind="incomplete", retryable=True)

    def _tell_usage(self, response: object) -> None:
        usage = getattr(response, "usage", None)
        if usage is None:
            return
        local = self._run.settings.local
        cost = price(response, self._model, local=local)
        if cost is not None:
            self._run.cost = (self._run.cost or 0.0) + cost
        self._run.lines.say(
            "usage",
            call=self._call,
            model=self._model,
            **tokens(usage, self._model),
            cost_usd=cost,
            cost_source=None if cost is None else "local" if local else "prices",
        )
