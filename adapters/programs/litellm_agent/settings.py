"""What a run is asked for, and its exit statuses."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, field
from typing import Literal

FINISHED, FAILED, BAD_SETTINGS, MISSING, LIMIT = 0, 1, 2, 3, 4

Json = dict[str, object]


@dataclass(frozen=True, kw_only=True)
class Settings:
    """What stdin says.

    `hidden` names the variables that no command of the model may see, `secrets` those whose values
    stand in no line. `api_key_env` holds the key, which the user calls `api_key_name`.
    `may_only_answer`: a text without any work before it can be all that was asked for.
    """

    prompt: str
    model: str
    workspace: str
    access: Literal["read", "edit", "full"]
    files: list[str] = field(default_factory=list[str])
    home: str | None = None
    session_id: str | None = None
    api_base: str | None = None
    api_key_env: str | None = None
    api_key_name: str | None = None
    may_only_answer: bool = False
    local: bool = False
    hidden: list[str] = field(default_factory=list[str])
    secrets: list[str] = field(default_factory=list[str])
    writable: list[str] = field(default_factory=list[str])
    model_kwargs: Json = field(default_factory=dict[str, object])
    steps: int | None = None
    cost_usd: float | None = None
    stream: bool = True
    request_timeout_s: float = 600.0
    command_timeout_s: float = 120.0


class SettingsError(Exception):
    """The settings cannot be used: exit status 2."""


def read_settings(text: bytes) -> Settings:
    """The settings. Raises SettingsError."""
    try:
        values = json.loads(text)
        settings = Settings(**values)
    except (ValueError, TypeError) as error:
        raise SettingsError(f"stdin is no settings: {error}") from None
    if settings.session_id and not re.fullmatch(r"[A-Za-z0-9_-]{1,64}", settings.session_id):
        raise SettingsError(f"not a session's id: {settings.session_id[:80]!r}")
    return settings
