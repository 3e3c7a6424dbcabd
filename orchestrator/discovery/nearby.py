"""Agents that nobody wrote down: each installed CLI at each model server that answers at a usual
port of this machine.

Looked for only where the user configured no agent: a server that happens to run takes no work from
agents that somebody chose.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace

import anyio

from orchestrator.adapter import Agent
from orchestrator.config import Config, agents_for, places_of
from orchestrator.discovery.servers import FoundServer, only_model, seen
from orchestrator.errors import ConfigError, lone_error
from orchestrator.server import Place


async def with_nearby(config: Config, names: Iterable[str | None] = (None,)) -> Config:
    """The configuration with the agents that the servers of this machine allow. `names` are the
    agents that tasks name, None for a task that names none: the servers are asked only where that
    may matter.
    """
    if config.agents or all(_is_known(name, config) for name in names):
        return config
    found: list[FoundServer] = []

    async def look_at(place: Place) -> None:
        found.append(await seen(place, config))

    with lone_error():
        async with anyio.create_task_group() as group:
            for place in places_of(config):
                if not place.stated:
                    group.start_soon(look_at, place)
    return with_found(config, found)


def with_found(config: Config, servers: Iterable[FoundServer]) -> Config:
    """The same, with servers that were looked at."""
    if config.agents:
        return config
    order = {name: at for at, name in enumerate(config.servers)}
    ready = (one for one in servers if not one.stated and one.up and one.problem is None)
    each = sorted(ready, key=lambda one: order.get(one.kind, len(order)))
    return replace(config, nearby=tuple(agent for one in each for agent in _agents_at(one, config)))


def _is_known(name: str | None, config: Config) -> bool:
    """Whether an agent of that name is there without any server's word."""
    try:
        return name is not None and bool(agents_for(name, config))
    except ConfigError:
        return False


def _agents_at(found: FoundServer, config: Config) -> Iterator[Agent]:
    """An agent for each CLI that can speak to the server, through a gateway if need be; none where
    nobody can say which of its models is meant.
    """
    model = only_model(found, config)
    if model is None:
        return
    for name in config.adapters:
        try:
            about = config.adapters[name].about
        except ConfigError:
            continue  # whoever looks at that adapter is told why
        if about.program is not None and set(about.dialects) & _reachable(found, config):
            yield Agent(
                name=f"{name}-{found.kind}",
                adapter=name,
                model=model,
                server=found.kind,
                base_url=found.base_url,
                api_key_env=found.api_key_env,
                tier=found.tier,
                profile="clean",
            )


def _reachable(found: FoundServer, config: Config) -> set[str]:
    """The dialects that the server speaks, itself or through the gateway."""
    spoken: set[str] = set(found.dialects)
    gateway = config.gateway
    if gateway is not None and gateway.upstream in spoken:
        spoken |= set(gateway.about.dialects)
    return spoken
