"""All that could do a task on this machine: every adapter with its program, and every agent."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import anyio

from orchestrator.adapter import About, Agent, about_of
from orchestrator.config import Config, agents_for
from orchestrator.discovery.credentials import auth_of, is_logged_in
from orchestrator.discovery.nearby import with_nearby
from orchestrator.discovery.programs import VERSION_S, locate, look, version
from orchestrator.discovery.servers import place_of
from orchestrator.errors import ConfigError, lone_error
from orchestrator.events import Auth, Tier
from orchestrator.process import Reaper, open_reaper
from orchestrator.route import pinned
from orchestrator.task import Task


@dataclass(frozen=True, kw_only=True)
class FoundAdapter:
    """An adapter and its program on this machine. `untested`: this version was never tried."""

    name: str
    title: str
    path: str | None
    version: str | None
    tested: tuple[str, ...]
    untested: bool | None
    auth: Auth
    dialects: tuple[str, ...]
    access: tuple[str, ...]
    install: str
    problem: str | None = None


@dataclass(frozen=True, kw_only=True)
class FoundAgent:
    """An agent as it would run. `access` are the levels that it can be held to."""

    name: str
    adapter: str
    model: str | None
    server: str | None
    tier: Tier
    profile: str
    access: tuple[str, ...]
    auth: Auth | None
    default: bool
    configured: bool
    problem: str | None = None


@dataclass(frozen=True, kw_only=True)
class Survey:
    """All that could do a task, agents in the order of preference."""

    adapters: tuple[FoundAdapter, ...]
    agents: tuple[FoundAgent, ...]


async def survey(config: Config) -> Survey:
    """Every adapter with its program and version, and every agent. Starts the programs."""
    with lone_error():
        async with open_reaper() as reaper:
            return await survey_with(await with_nearby(config), reaper)


async def survey_with(config: Config, reaper: Reaper, *, limit_s: float = VERSION_S) -> Survey:
    """The same with a reaper that is there. A program that does not tell its version within
    `limit_s` has none.
    """
    found: dict[str, FoundAdapter] = {}
    async with anyio.create_task_group() as group:

        async def look_at(name: str) -> None:
            found[name] = await _adapter(name, config, reaper, limit_s)

        for name in config.adapters:
            group.start_soon(look_at, name)
    adapters = tuple(found[name] for name in sorted(found))
    return Survey(adapters=adapters, agents=agents_there(config))


def agents_there(config: Config) -> tuple[FoundAgent, ...]:
    """Every agent, in the order of preference."""
    placed, state = look(agents_for(None, config), config)
    any_ = Task(prompt="-", workspace=Path("/"))
    found = (pinned(any_, agent, state) for agent in placed)
    return tuple(_agent(agent, state.problems.get(agent.name), config) for agent in found)


async def _adapter(name: str, config: Config, reaper: Reaper, limit_s: float) -> FoundAdapter:
    problem: str | None = None
    try:
        about = config.adapters[name].about
    except ConfigError as error:
        about, problem = About(name=name, title=name, program=None), str(error)
    path = locate(about.program, config) if about.program is not None else None
    agent = Agent(name=name, adapter=name, program=path)
    stated = await version(agent, config, reaper, limit_s) if path is not None else None
    if path is not None and stated is None and about.tested and limit_s == VERSION_S:
        problem = f"{path} states no version; does it run? ({about.install_hint})"
    keys = {*about.keys, about.key_env} - {None}
    key = any(config.environ.get(key) for key in keys if key is not None)
    return FoundAdapter(
        name=name,
        title=about.title,
        path=path,
        version=stated,
        tested=about.tested,
        untested=stated not in about.tested if stated is not None and about.tested else None,
        auth="key" if key else "login" if is_logged_in(about, config) else "none",
        dialects=about.dialects,
        access=about.enforces,
        install=about.install_hint,
        problem=problem,
    )


def _agent(agent: Agent, problem: str | None, config: Config) -> FoundAgent:
    access: tuple[str, ...] = ()
    auth: Auth | None = None
    try:
        access = about_of(config.adapters[agent.adapter], agent).enforces
        home = None if agent.profile == "user" else "/"
        task = Task(prompt="-", workspace=Path("/"))
        command = config.adapters[agent.adapter].command(task, replace(agent, home=home))
        auth = auth_of(agent, command, config)
    except ConfigError as error:
        to_be_named = agent.model is None and place_of(agent, config) is not None
        problem = problem or (None if to_be_named else str(error))
    name = agent.api_key_env
    if name is not None and not config.environ.get(name):
        problem = problem or f"its key is not there: {name} is not set"
    return FoundAgent(
        name=agent.name,
        adapter=agent.adapter,
        model=agent.model,
        server=agent.base_url or agent.server,
        tier=agent.tier,
        profile=agent.profile,
        access=access,
        auth=auth,
        default=agent.name == config.default_agent,
        configured=agent.name in {one.name for one in config.agents},
        problem=problem,
    )
