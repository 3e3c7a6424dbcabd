"""Conversations on disk."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from adapters.programs.asked import Json, SettingsError


def user_sessions() -> Path:
    """Where sessions are kept when the agent has no home of its own."""
    base = os.environ.get("XDG_STATE_HOME") or Path("~/.local/state").expanduser()
    return Path(base, "orchestrate", "litellm-sessions")


class Session:
    """The conversation on disk, rewritten after every message: it can go on after any end."""

    def __init__(self, folder: Path, id_: str) -> None:
        self.id = id_
        self._path = folder / f"{id_}.json"

    def load(self) -> list[Json]:
        """The messages, with an answer for each call that has none (the agent was stopped there).

        Raises SettingsError if there is no such session.
        """
        try:
            messages = json.loads(self._path.read_text(encoding="utf-8"))["messages"]
            return list(_answered(messages))
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise SettingsError(f"session {self.id} cannot be read: {error}") from None

    def save(self, messages: Sequence[Mapping[str, object]], model: str) -> None:
        kept = [
            {key: value for key, value in message.items() if key != "extra"}
            for message in messages
            if message.get("role") != "exit"
        ]
        self._path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        draft = self._path.with_suffix(".tmp")
        descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            json.dump({"version": 1, "model": model, "messages": kept}, file, default=str)
        draft.replace(self._path)


def _answered(messages: Sequence[Json]) -> Iterator[Json]:
    answers = {message.get("tool_call_id") for message in messages}
    for message in messages:
        yield message
        calls = message.get("tool_calls")
        for call in calls if isinstance(calls, list) else ():
            if call.get("id") not in answers:
                yield {"role": "tool", "tool_call_id": call.get("id"), "content": "(no output)"}
