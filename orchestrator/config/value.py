"""What the core knows of its configuration: one frozen value, however it came about."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType

from platformdirs import user_data_path, user_state_path

from orchestrator.adapter import Adapter, Agent
from orchestrator.config.local import LocalMode
from orchestrator.server import ModelServer, Place
from orchestrator.task import Limits


@dataclass(frozen=True, kw_only=True)
class Config:
    """Everything that the supervisor needs to know; frozen.

    `agents` are the configured ones in file order, `default_agent` names the one to prefer. `state`
    is the folder of records, `agents_folder` where programs of our own installing are. `environ` is
    what agents' environments are chosen from; it may hold keys and is not shown. `servers` are the
    kinds of model server that there are, `places` the configured ones. `local` tells how the switch
    of local mode stands; it is asked for each task.
    """

    agents: tuple[Agent, ...] = ()
    default_agent: str | None = None
    adapters: Mapping[str, Adapter] = field(default_factory=lambda: MappingProxyType({}))
    servers: Mapping[str, ModelServer] = field(default_factory=lambda: MappingProxyType({}))
    places: tuple[Place, ...] = ()
    local: Callable[[], LocalMode] = LocalMode
    limits: Limits = Limits()
    state: Path = field(default_factory=lambda: user_state_path("orchestrate"))
    agents_folder: Path = field(default_factory=lambda: user_data_path("orchestrate") / "agents")
    environ: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}), repr=False)
