"""Reads the environment and the files, and makes one `Config` of them. Nothing else reads any."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType

from platformdirs import user_config_path, user_data_path, user_state_path

from orchestrator.adapter import Agent
from orchestrator.config import ladder, origins, trust
from orchestrator.config.agents import configured_agent, place_of, with_variables
from orchestrator.config.file import (
    CLASSES,
    FILE,
    AgentModel,
    Read,
    ServerModel,
    nearest,
    read,
    read_found,
)
from orchestrator.config.ladder import Rung
from orchestrator.config.local import read_local
from orchestrator.config.places import configured_places
from orchestrator.config.plugins import Adapters, installed_gateway, installed_servers
from orchestrator.config.value import Config, Level
from orchestrator.config.variables import of_environment
from orchestrator.errors import ConfigError, shown
from orchestrator.server import ModelServer, Place


def load_config(
    path: Path | None = None,
    *,
    folder: Path | None = None,
    environ: Mapping[str, str] | None = None,
    delegated: bool = False,
    looking: bool = False,
) -> Config:
    """The configuration from the user's file, the project's and the environment. Raises
    ConfigError.

    `path` (else ORCHESTRATE_CONFIG) names a file, which is then trusted and the only one read. Else
    the user's own is read, and the project's: the `orchestrate.toml` in `folder` (default: the
    working directory) or the nearest above it, up to the top of the git repository. That one was
    written by whoever wrote the repository, so what could run a program or move a key is refused
    there by name until the user trusts it (`orchestrate config trust`).

    `delegated`: `path` was passed by an agent; it is treated as a project's file that nobody
    trusts, on top of the user's own. `looking`: nothing will be run, so a project's file that is
    not trusted is left out whole instead, and `Config.left_out` says what is refused.
    """
    environ = dict(os.environ) if environ is None else dict(environ)
    state = state_folder(environ)
    left_out: ConfigError | None = None
    if delegated:
        if path is None:
            raise ConfigError("a delegated configuration has no path")
        rungs = [*_user(), _project(read(path), "unknown")]
    elif named := path or _stated(environ):
        rungs = [_rung("file", read(named))]
    else:
        rungs = _user()
        try:
            if found := find_project(folder or Path.cwd()):
                rungs.append(_project(found, trust.verdict(found, state)))
        except trust.UntrustedError as error:
            if not looking:
                raise
            left_out = error
    made = _config([*rungs, of_environment(environ)], environ, state)
    return replace(made, left_out=left_out)


def state_folder(environ: Mapping[str, str]) -> Path:
    """Where records go. Raises ConfigError if no folder of the user's is known."""
    if stated := environ.get("ORCHESTRATE_STATE_DIR"):
        return Path(stated).absolute()
    return _needed(_of_user(user_state_path), "ORCHESTRATE_STATE_DIR")


def find_project(folder: Path) -> Read | None:
    """The project's file: in the folder or the nearest above, within its git repository.

    The user's own file is none, even where its folder is a repository. Raises ConfigError.
    """
    user = _of_user(user_config_path)
    for place in _places(folder.absolute()):
        file = place / FILE
        if not (user and _same(file, user / FILE)) and (found := read_found(file)):
            return found
    return None


def _same(one: Path, other: Path) -> bool:
    try:
        return one.samefile(other)
    except OSError:
        return False


def _places(folder: Path) -> Iterator[Path]:
    above = [folder, *folder.parents]
    top = next((at for at, place in enumerate(above) if _is_top(place / ".git")), 0)
    yield from above[: top + 1]


def _is_top(git: Path) -> bool:
    """Whether this is a repository's, or the file of a worktree; an empty folder is neither."""
    try:
        return git.is_file() or (git / "HEAD").exists()
    except PermissionError:
        return False


def _stated(environ: Mapping[str, str]) -> Path | None:
    stated = environ.get("ORCHESTRATE_CONFIG")
    return Path(stated) if stated else None


def user_file() -> Path:
    """Where the user's own file is, or would be. Raises ConfigError if that is not known."""
    return _needed(_of_user(user_config_path), "XDG_CONFIG_HOME") / FILE


def _user() -> list[Rung]:
    folder = _of_user(user_config_path)  # nobody's home is known: there is no such file
    found = read_found(folder / FILE) if folder else None
    return [_rung("user", found)] if found else []


def _of_user(kind: Callable[[str], Path]) -> Path | None:
    """A folder of the user's; None if no home is known.

    Nor is a relative one: it would be in whatever folder one is in, which others may have filled.
    """
    try:
        folder = kind("orchestrate")
    except RuntimeError:
        return None
    return folder if folder.is_absolute() else None


def _needed(folder: Path | None, variable: str) -> Path:
    if folder is not None:
        return folder
    hint = f"Set HOME or {variable} to an absolute path."
    raise ConfigError("your home folder is not known", hint=hint)


def _project(file: Read, verdict: trust.Verdict) -> Rung:
    trust.refuse_untrusted(file, verdict)
    return _rung("project", file, trusted=verdict == "trusted")


def _rung(level: Level, file: Read, *, trusted: bool = True) -> Rung:
    return Rung(level=level, model=file.model, raw=file.raw, where=file.at, trusted=trusted)


def _config(rungs: Sequence[Rung], environ: Mapping[str, str], state: Path) -> Config:
    adapters, servers = Adapters(), installed_servers()
    agents = tuple(_agents(rungs, adapters, servers, environ))
    defaults, kinds = ladder.defaults(rungs), ladder.kinds(rungs)
    _check_kinds(rungs, agents, adapters, servers)
    return Config(
        agents=agents,
        default_agent=defaults.agent,
        defaults=defaults.defaults(),
        kinds=MappingProxyType(kinds),
        adapters=adapters,
        gateway=installed_gateway(),
        servers=MappingProxyType(servers),
        places=tuple(_servers(rungs, servers)),
        local=read_local,
        limits=ladder.limits(rungs),
        bounds=ladder.bounds(rungs),
        queue=ladder.queue(rungs),
        state=state,
        agents_folder=(_of_user(user_data_path) or state) / "agents",
        environ=MappingProxyType(dict(environ)),
        settings=origins.settings(rungs, agents, servers, environ, state),
    )


def _servers(rungs: Sequence[Rung], kinds: Mapping[str, ModelServer]) -> Iterator[Place]:
    for name, (entry, rung) in ladder.servers(rungs).items():
        try:
            yield from configured_places({name: entry}, kinds)
        except ConfigError as error:
            where = rung.where(("servers", name))
            raise ConfigError(shown(f"{where}: {error}"), hint=error.hint) from None


def _agents(
    rungs: Sequence[Rung],
    adapters: Adapters,
    kinds: Mapping[str, ModelServer],
    environ: Mapping[str, str],
) -> Iterator[Agent]:
    servers = ladder.servers(rungs)
    usual = {of: ServerModel(kind=of) for of, kind in kinds.items() if kind.port is not None}
    for name, (entry, rung) in ladder.agents(rungs).items():
        # Nor does a server of a file that was only found stand in the way of others' agents.
        seen = {
            of: (server, origin)
            for of, (server, origin) in servers.items()
            if origin.trusted or origin is rung
        }
        places = {of: server for of, (server, _) in seen.items()}
        try:
            _same_origin(name, entry, rung, seen)
            if entry.base_url is None:
                places = {**usual, **places}  # a kind's name is that of its usual place, too
            filled = with_variables(entry, places, kinds, environ)
            yield configured_agent(name, entry, filled, kinds, adapters)
        except ConfigError as error:
            where = rung.where(("agents", name))
            raise ConfigError(shown(f"{where}: {error}"), hint=error.hint) from None


def _same_origin(
    name: str, entry: AgentModel, rung: Rung, servers: Mapping[str, tuple[ServerModel, Rung]]
) -> None:
    """Raises ConfigError if one level's key would go to the address that another level says."""
    place, _ = place_of(entry, servers)
    _, origin = servers.get(place or "", (None, rung))
    if entry.api_key_env is None or entry.base_url is not None or origin is rung:
        return
    where = origin.where(("servers", place or "", "base_url"))
    raise ConfigError(
        f"agent {name!r}: its api_key_env would go to the address in {where}, another file",
        hint=f"State api_key_env on the server {place!r}, or base_url on the agent.",
    )


def _check_kinds(
    rungs: Sequence[Rung],
    agents: Sequence[Agent],
    adapters: Mapping[str, object],
    servers: Mapping[str, ModelServer],
) -> None:
    """Raises ConfigError for a kind that goes to what is neither a class nor an agent.

    An agent that would only be discovered counts: one for each adapter, and for each at a server.
    """
    names = [*CLASSES, *(agent.name for agent in agents), *adapters]
    known = {*names, *(f"{adapter}-{server}" for adapter in adapters for server in servers)}
    for rung in rungs:
        for kind, name in rung.model.kinds.items():
            if name not in known:
                where = rung.where(("kinds", kind))
                text = f"{where}: kinds.{kind}: no class and no agent '{name}'"
                raise ConfigError(shown(f"{text}; {nearest(name, names)}"))
