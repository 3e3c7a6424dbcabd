"""Reads the environment and the files, and makes one `Config` of them. Nothing else reads any."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType

from platformdirs import user_config_path, user_state_path

from orchestrator.config.agents import configured_agent
from orchestrator.config.file import FILE, DefaultsModel, FileModel, read
from orchestrator.config.local import read_local
from orchestrator.config.places import configured_places
from orchestrator.config.plugins import Adapters, installed_servers
from orchestrator.config.trust import refuse_untrusted
from orchestrator.config.value import Config
from orchestrator.task import Limits


def load_config(
    path: Path | None = None,
    *,
    folder: Path | None = None,
    environ: Mapping[str, str] | None = None,
) -> Config:
    """The configuration from the user's file, the project's and the environment. Raises
    ConfigError.

    `path` names a file, which is then trusted and the only one read. Else the user's own and
    `orchestrate.toml` in `folder` (default: the working directory) are read; the latter was written
    by whoever wrote the repository, so what could run a program or move a key is refused there by
    name.
    """
    environ = dict(os.environ) if environ is None else environ
    stated = environ.get("ORCHESTRATE_CONFIG")
    named = path or (Path(stated) if stated else None)
    servers = installed_servers()
    adapters = Adapters()
    files = [read(named)] if named else _found(folder or Path.cwd())
    merged = FileModel(
        defaults=next((file.defaults for file in files if file.defaults.agent), DefaultsModel()),
        # A name that both files have is the user's: else a file that was only found could send the
        # user's agents, with their keys, elsewhere.
        servers={name: server for file in files for name, server in file.servers.items()},
        agents={name: agent for file in files for name, agent in file.agents.items()},
    )
    limits = Limits()
    for file in files:
        limits = limits.meet(file.limits.limits())
    agents = [
        configured_agent(name, entry, merged.servers, servers, adapters)
        for name, entry in merged.agents.items()
    ]
    state = environ.get("ORCHESTRATE_STATE_DIR")
    return Config(
        agents=tuple(agents),
        default_agent=merged.defaults.agent,
        adapters=adapters,
        servers=MappingProxyType(servers),
        places=configured_places(merged.servers, servers),
        local=read_local,
        limits=limits,
        state=Path(state).absolute() if state else user_state_path("orchestrate"),
        environ=MappingProxyType(dict(environ)),
    )


def _found(folder: Path) -> list[FileModel]:
    """The project's file, then the user's; either may be missing."""
    files: list[FileModel] = []
    if (project := folder / FILE).is_file():
        file = read(project)
        refuse_untrusted(file, project)
        files.append(file)
    if (user := user_config_path("orchestrate") / FILE).is_file():
        files.append(read(user))
    return files
