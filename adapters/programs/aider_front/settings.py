"""What a run is asked for, by the adapter or on the command line, and its exit statuses."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

FINISHED, FAILED, BAD_SETTINGS, MISSING, LIMIT = 0, 1, 2, 3, 4

Json = dict[str, object]


@dataclass(frozen=True, kw_only=True)
class Settings:
    """What stdin says, or the command line: then only `argv`.

    `argv` are aider's flags. `prompt` None: it is somewhere in them. `hidden` names the variables
    that no command may see, `secrets` those whose values stand in no line. `project_config` False:
    configuration files of the work tree are not read. `api_key_env` holds the key, which the user
    calls `api_key_name`.
    """

    argv: list[str] = field(default_factory=list[str])
    prompt: str | None = None
    model: str | None = None
    files: list[str] = field(default_factory=list[str])
    workspace: str = "."
    access: Literal["read", "edit", "full"] = "full"
    home: str | None = None
    session_id: str | None = None
    api_base: str | None = None
    api_key_env: str | None = None
    api_key_name: str | None = None
    local: bool = False
    project_config: bool = True
    hidden: list[str] = field(default_factory=list[str])
    secrets: list[str] = field(default_factory=list[str])
    writable: list[str] = field(default_factory=list[str])
    model_kwargs: Json = field(default_factory=dict[str, object])
    steps: int | None = None
    cost_usd: float | None = None


class SettingsError(Exception):
    """The settings cannot be used: exit status 2."""


def read_settings(arguments: Sequence[str]) -> Settings:
    """What is to be done. Raises SettingsError."""
    match arguments:
        case ["--settings"]:
            try:
                settings = Settings(**json.loads(sys.stdin.buffer.read()))
            except (ValueError, TypeError) as error:
                raise SettingsError(f"stdin is no settings: {error}") from None
        case ["--", *argv]:
            settings = Settings(argv=argv, workspace=str(Path.cwd()))
        case _:
            raise SettingsError("usage: aider_front -- AIDER FLAGS")
    if settings.session_id and not re.fullmatch(r"[A-Za-z0-9_-]{1,64}", settings.session_id):
        raise SettingsError(f"not a session's id: {settings.session_id[:80]!r}")
    return settings
