"""Turns, and how a prompt with all its reflections ends."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from adapters.programs.aider_front.run import Run
from adapters.programs.model_calls import count


def send_message(original: Callable[..., object], run: Run) -> Callable[..., object]:
    """A turn: a question, its answer, and what aider does with that."""

    def send_message(self: object, inp: str) -> Iterator[object]:
        run.turns += 1
        number = run.turns
        reflections = count(self, "num_reflections") or 0
        model = getattr(getattr(self, "main_model", None), "name", None)
        mode = getattr(self, "edit_format", None)
        if reflections:
            most = count(self, "max_reflections")
            run.lines.say("reflection", number=reflections, of=most, reason=inp[:2000])
        run.lines.say("turn", status="started", number=number, mode=mode, model=model)
        edits = run.edits
        yield from original(self, inp)  # type: ignore[misc]
        run.lines.say("turn", status="ended", number=number, edits=run.edits - edits)

    return send_message


def run_one(original: Callable[..., object], run: Run) -> Callable[..., object]:
    """A prompt with all its reflections. aider ends well however they end."""

    def run_one(self: object, user_message: object, preproc: object) -> object:
        result = original(self, user_message, preproc)
        reflections = count(self, "num_reflections") or 0
        after = f" after {reflections} reflection(s)" if reflections else ""
        if getattr(self, "test_outcome", None) is False:
            run.blame("check_failed", f"the tests still fail{after}")
        elif getattr(self, "lint_outcome", None) is False:
            run.blame("check_failed", f"the linter still complains{after}")
        elif cause := getattr(self, "reflected_message", None):
            told = str(cause).strip().splitlines() or [""]
            run.blame("incomplete", f"aider gave up{after}: {told[0][:300]}")
        return result

    return run_one


def exhausted(original: Callable[..., object], run: Run) -> Callable[..., object]:
    def show_exhausted_error(self: object) -> None:
        run.blame("incomplete", "the model's answer was cut at its token limit", "max_tokens")

    return show_exhausted_error
