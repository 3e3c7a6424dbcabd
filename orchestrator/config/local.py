"""Local mode: one switch of the user's that sends every agent to a model server at home.

It is a file beside the user's configuration, read anew for each task, so that running workers obey
it from their next task on. It fills gaps: what is written on an agent wins.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, replace
from pathlib import Path

import orjson
from platformdirs import user_config_path

from orchestrator.adapter import About, Agent
from orchestrator.errors import ConfigError, shown, unwritable
from orchestrator.server import ModelServer, Place

_FILE = "local.json"


@dataclass(frozen=True, kw_only=True)
class LocalMode:
    """The switch as it stands. `base_url` and `kind` say which server; no `model`: the server's."""

    on: bool = False
    base_url: str | None = None
    kind: str | None = None
    model: str | None = None


def local_file() -> Path:
    """Where the switch is kept."""
    return user_config_path("orchestrate") / _FILE


def read_local() -> LocalMode:
    """The switch; off if there is none. Raises ConfigError for a file that is none of ours: what
    should be kept at home must not go out because of a typing mistake.
    """
    path = local_file()
    try:
        value: object = orjson.loads(path.read_bytes())
    except FileNotFoundError:
        return LocalMode()
    except (OSError, orjson.JSONDecodeError) as error:
        raise _unreadable(path, str(error)) from error
    match value:
        case {
            "on": bool(on),
            "base_url": str() | None as base_url,
            "kind": str() | None as kind,
            "model": str() | None as model,
        } if not on or (base_url and kind):
            return LocalMode(on=on, base_url=base_url, kind=kind, model=model)
        case _:
            raise _unreadable(path, "it is not what `orchestrate local` writes")


def _unreadable(path: Path, why: str) -> ConfigError:
    hint = "`orchestrate local off` writes it anew, then `orchestrate local on`."
    return ConfigError(shown(f"cannot read {path}: {why}"), hint=hint)


def write_local(mode: LocalMode) -> Path:
    """Set the switch, whole or not at all. Returns the file. Raises ConfigError."""
    path = local_file()
    fresh = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        fresh.write_bytes(
            orjson.dumps(mode, option=orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE)
        )
        fresh.chmod(0o600)
        fresh.replace(path)
    except OSError as error:
        raise unwritable(path, error) from error
    finally:
        fresh.unlink(missing_ok=True)
    return path


@dataclass(frozen=True, kw_only=True)
class AtHome:
    """An agent under local mode: where it goes, what is said of it, why it cannot."""

    agent: Agent
    note: str | None = None
    problem: str | None = None


def at_home(
    agent: Agent, about: About, mode: LocalMode, kind: ModelServer | None, place: Place | None
) -> AtHome:
    """What local mode makes of an agent.

    One whose server, model or key the user wrote down keeps them, and that is said where it is in
    a cloud. `place` is the server of the configuration at that address, if there is one.
    """
    if not mode.on or agent.tier == "local":
        return AtHome(agent=agent)
    if agent.explicit:
        text = f"local mode is on, but {agent.name} keeps what its configuration says: a cloud"
        return AtHome(agent=agent, note=text)
    if kind is None:
        return AtHome(agent=agent, problem=f"local mode: no kind of server {mode.kind!r}")
    if not set(about.dialects) & set(kind.dialects):
        # Without a dialect nobody knows how to send it anywhere but to its own cloud.
        wants = " or ".join(about.dialects) or "nothing that is known"
        return AtHome(agent=agent, problem=f"local mode: it speaks {wants}, {kind.title} does not")
    moved = replace(
        agent,
        model=mode.model,
        server=kind.name,
        base_url=mode.base_url,
        api_key_env=place.api_key_env if place else None,
        tier="local",
        profile="clean",
        login=False,
    )
    model = mode.model or "the server's own model"
    note = f"local mode: {model} at {mode.base_url} ({kind.title}) instead of the cloud"
    return AtHome(agent=moved, note=note)
