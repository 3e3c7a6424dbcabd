"""What every front is asked for in the same words, and what its exit statuses mean.

Shared by the programs of this folder. Run by the agent's own interpreter: standard library only.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, field
from typing import TypeVar

FINISHED, FAILED, BAD_SETTINGS, MISSING, LIMIT = 0, 1, 2, 3, 4

Json = dict[str, object]


class SettingsError(Exception):
    """The settings cannot be used: exit status 2."""


@dataclass(frozen=True, kw_only=True)
class Asked:
    """The settings of every front.

    `hidden` names the variables that no command may see, `secrets` those whose values stand in no
    line. `api_key_env` holds the key, which the user calls `api_key_name`.
    """

    files: list[str] = field(default_factory=list[str])
    home: str | None = None
    session_id: str | None = None
    api_base: str | None = None
    api_key_env: str | None = None
    api_key_name: str | None = None
    local: bool = False
    hidden: list[str] = field(default_factory=list[str])
    secrets: list[str] = field(default_factory=list[str])
    writable: list[str] = field(default_factory=list[str])
    model_kwargs: Json = field(default_factory=dict[str, object])
    steps: int | None = None
    cost_usd: float | None = None


Settings = TypeVar("Settings", bound=Asked)


def read(text: bytes, kind: type[Settings]) -> Settings:
    """The settings, one JSON object. Raises SettingsError."""
    try:
        settings = kind(**json.loads(text))
    except (ValueError, TypeError) as error:
        raise SettingsError(f"stdin is no settings: {error}") from None
    if settings.session_id and not re.fullmatch(r"[A-Za-z0-9_-]{1,64}", settings.session_id):
        raise SettingsError(f"not a session's id: {settings.session_id[:80]!r}")
    return settings
