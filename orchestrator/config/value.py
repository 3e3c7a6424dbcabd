"""What the core knows of its configuration: frozen values, however they came about."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Literal, TypeAlias

from platformdirs import user_data_path, user_state_path

from orchestrator.adapter import Adapter, Agent, Gateway, Program
from orchestrator.config.local import LocalMode
from orchestrator.errors import ConfigError
from orchestrator.server import ModelServer, Place
from orchestrator.task import (
    Access,
    Deliver,
    Fallback,
    Isolation,
    Kind,
    Limits,
    Privacy,
    Strategy,
)

Level: TypeAlias = Literal["default", "provider", "user", "project", "file", "environment", "task"]
"""Who says something, the weakest first; the flags of a task come after all of these."""


@dataclass(frozen=True, kw_only=True)
class Defaults:
    """What holds where a task says nothing; None: nothing is said here either."""

    strategy: Strategy | None = None
    fallback: Fallback | None = None
    isolation: Isolation | None = None
    deliver: Deliver | None = None
    access: Access | None = None
    delegation: bool | None = None


@dataclass(frozen=True, kw_only=True)
class Bounds:
    """Limits that are not of one run: the strictest of all levels holds; None is no bound.

    `agents` are the names of those that may be used, `cloud_slots` how many use one provider at a
    time, over all jobs.
    """

    concurrency: int | None = None
    cloud_slots: int | None = None
    privacy: Privacy = "any"
    agents: frozenset[str] | None = None


@dataclass(frozen=True, kw_only=True)
class Queue:
    """Where the background worker's queue is (None: a file in the state), and how many jobs a
    worker does at the same time, with which labels beside those that are found. The address may
    hold a password: it is not shown.
    """

    database: str | None = field(default=None, repr=False)
    concurrency: int = 4
    labels: frozenset[str] = frozenset()


@dataclass(frozen=True, kw_only=True)
class Origin:
    """Who said it, and where: FILE:LINE or the name of a variable."""

    level: Level
    where: str | None = None


@dataclass(frozen=True, kw_only=True)
class Stated:
    """One level's word, as it was written, but never a secret."""

    value: object
    origin: Origin


@dataclass(frozen=True, kw_only=True)
class Setting:
    """One key: what holds, and what the other levels say, the strongest first."""

    key: str
    holds: Stated
    others: tuple[Stated, ...] = ()


Located: TypeAlias = dict[tuple[Program, str, Path], tuple[float, str | None]]
"""Where a program was found (None: nowhere), by PATH and the folder of our own, and when."""


@dataclass(frozen=True, kw_only=True)
class Config:
    """Everything that the supervisor needs to know; frozen.

    `agents` are the configured ones in file order, `nearby` those of model servers that were found
    running (`discovery.with_nearby`), `default_agent` names the one to prefer. `kinds` says which
    class (`cheap`, `reasoning`) or which agent does work of a kind. `state` is the folder of
    records, `agents_folder` where programs of our own installing are. `environ` is what agents'
    environments are chosen from; it may hold keys and is not shown. `settings` tells where each
    value comes from. `servers` are the kinds of model server that there are, `places` the
    configured ones. `gateway` is for agents that do not speak what a server speaks. `local` tells
    how the switch of local mode stands; it is asked for each task.
    `left_out` is what a project's file may not say, where that was no error; then nothing of it
    counts. `located` is where programs were found, and when (`discovery.locate`): whoever uses this
    configuration finds them once, and nobody else has it.
    """

    agents: tuple[Agent, ...] = ()
    nearby: tuple[Agent, ...] = ()
    default_agent: str | None = None
    defaults: Defaults = Defaults()
    kinds: Mapping[Kind, str] = field(default_factory=lambda: MappingProxyType({}))
    adapters: Mapping[str, Adapter] = field(default_factory=lambda: MappingProxyType({}))
    gateway: Gateway | None = None
    servers: Mapping[str, ModelServer] = field(default_factory=lambda: MappingProxyType({}))
    places: tuple[Place, ...] = ()
    local: Callable[[], LocalMode] = LocalMode
    limits: Limits = Limits()
    bounds: Bounds = Bounds()
    queue: Queue = Queue()
    state: Path = field(default_factory=lambda: user_state_path("orchestrate"))
    agents_folder: Path = field(default_factory=lambda: user_data_path("orchestrate") / "agents")
    environ: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}), repr=False)
    settings: tuple[Setting, ...] = field(default=(), repr=False)
    left_out: ConfigError | None = None
    located: Located = field(default_factory=Located, repr=False, compare=False)
