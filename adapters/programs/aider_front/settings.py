"""What a run is asked for, by the adapter or on the command line."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from adapters.programs.asked import Asked, SettingsError, read


@dataclass(frozen=True, kw_only=True)
class Settings(Asked):
    """What stdin says, or the command line: then only `argv`.

    `argv` are aider's flags. `prompt` None: it is somewhere in them. `project_config` False:
    configuration files of the work tree are not read.
    """

    argv: list[str] = field(default_factory=list[str])
    prompt: str | None = None
    model: str | None = None
    workspace: str = "."
    access: Literal["read", "edit", "full"] = "full"
    project_config: bool = True


def read_settings(arguments: Sequence[str]) -> Settings:
    """What is to be done. Raises SettingsError."""
    match arguments:
        case ["--settings"]:
            return read(sys.stdin.buffer.read(), Settings)
        case ["--", *argv]:
            return Settings(argv=argv, workspace=str(Path.cwd()))
        case _:
            raise SettingsError("usage: aider_front -- AIDER FLAGS")
