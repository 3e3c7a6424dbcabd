"""What the model is asked, and whether its answer ends the turn or cannot be used."""

from __future__ import annotations

import re

from adapters.programs.litellm_agent.settings import Settings

_UNMADE_CALL = re.compile(r'"arguments"\s*:|<tool_call|<function|```(?:bash|sh|mswea)')


def request_text(settings: Settings) -> str:
    """The task as the model reads it: the user's words and what it cannot know otherwise."""
    parts = [settings.prompt]
    if settings.files:
        parts.append("Files that matter: " + ", ".join(settings.files))
    if settings.access == "read":
        parts.append(
            "You may read here but change nothing. Scratch files belong in $TMPDIR; modes,"
            " owners and times cannot be set there either."
        )
    elif settings.access == "edit":
        parts.append("You may change files in the working folder. Scratch files belong in $TMPDIR.")
    parts.append(
        "The person who asked reads only the text of your last message: say there, next to the"
        " command that submits, what you found or did."
    )
    return "\n\n".join(parts)


def is_answer(message: object, finish_reason: object, *, worked: bool) -> bool:
    """Whether a text without a tool call ends the turn, as it does for every other agent.

    Not a text that was meant as a call (weak models write it out), nor an announcement before any
    work: of those mini-swe-agent tells the model how a call is made.
    """
    text = getattr(message, "content", None) or ""
    calls = getattr(message, "tool_calls", None)
    said = finish_reason == "stop" and text.strip() and not calls
    return bool(said and worked and not _UNMADE_CALL.search(text))


def why_unusable(choice: object) -> str:
    """What is wrong with an answer that mini-swe-agent sends back to the model."""
    if choice.finish_reason == "length":  # type: ignore[attr-defined]
        return "the model's answer was cut at its token limit"
    calls = choice.message.tool_calls or ()  # type: ignore[attr-defined]
    made = ", ".join(f"{call.function.name}({call.function.arguments})"[:200] for call in calls)
    return (
        f"the model's tool call cannot be used: {made}" if made else "the model made no tool call"
    )
