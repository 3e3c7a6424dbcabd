"""What a run is asked for."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from adapters.programs.asked import Asked


@dataclass(frozen=True, kw_only=True)
class Settings(Asked):
    """What stdin says.

    `may_only_answer`: a text without any work before it can be all that was asked for.
    """

    prompt: str
    model: str
    workspace: str
    access: Literal["read", "edit", "full"]
    may_only_answer: bool = False
    stream: bool = True
    request_timeout_s: float = 600.0
    command_timeout_s: float = 120.0
