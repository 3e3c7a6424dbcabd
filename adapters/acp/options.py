"""The options that agents of this protocol have in common, of which each has some. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, get_args

from adapters.acp.policy import Permissions
from adapters.reading import fields, is_object
from orchestrator.adapter import Agent
from orchestrator.errors import ConfigError

PERMISSIONS = "access, allow, deny, ask: how it is answered when it asks before a tool"
TRUST_OPTION = "trust_workspace"
TRUST = (
    "true, false: whether it is told to trust the folder; it then takes MCP servers, and what the"
    " repository brings for it counts, too (settings, hooks, MCP servers, .env)"
)
_PERMISSIONS: tuple[Permissions, ...] = get_args(Permissions)


@dataclass(frozen=True, kw_only=True)
class Options:
    """What an agent's options ask for. `settings` are the CLI's own."""

    permissions: Permissions = "access"
    protocol: Literal["acp", "json"] = "acp"
    context_window: int | None = None
    max_output_tokens: int | None = None
    trust_workspace: bool = False
    settings: Mapping[str, object]


def options_of(agent: Agent, title: str, known: Mapping[str, str]) -> Options:
    """The agent's options; `known` says what each is. Raises ConfigError for another one, and for
    an ill-typed one.
    """
    found: dict[str, object] = {}
    for name, value in agent.options.items():
        if name not in known:
            text = f"agent {agent.name!r}: {title} has no option {name!r}"
            raise ConfigError(f"{text} (known: {', '.join(known)})")
        if not _fits(name, value):
            text = f"agent {agent.name!r}: option {name!r} is {known[name]}; found {value!r}"
            raise ConfigError(text)
        found[name] = value
    return _options(found)


def _fits(name: str, value: object) -> bool:
    match name:
        case "permissions":
            return isinstance(value, str) and value in get_args(Permissions)
        case "protocol":
            return value in ("acp", "json")
        case "trust_workspace":
            return isinstance(value, bool)
        case "settings":
            return is_object(value)
        case _:
            return type(value) is int and value > 0


def _options(found: Mapping[str, object]) -> Options:
    wanted = found.get("permissions", "access")
    permissions: Permissions = next(one for one in _PERMISSIONS if one == wanted)
    numbers = {name: value for name, value in found.items() if isinstance(value, int)}
    return Options(
        permissions=permissions,
        protocol="json" if found.get("protocol") == "json" else "acp",
        context_window=numbers.get("context_window"),
        max_output_tokens=numbers.get("max_output_tokens"),
        trust_workspace=found.get("trust_workspace") is True,
        settings=fields(found.get("settings")),
    )


def merged(ours: Mapping[str, object], theirs: Mapping[str, object]) -> dict[str, object]:
    """Two tables of settings as one, table by table; where both say something, `theirs` holds."""
    both = dict(ours)
    for name, value in theirs.items():
        mine = both.get(name)
        both[name] = merged(mine, value) if is_object(mine) and is_object(value) else value
    return both
