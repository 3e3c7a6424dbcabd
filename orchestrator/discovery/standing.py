"""How agents stand at this moment, for the choice among them: whether their servers answer and have
the model, what it can, who has a key or a login, how many slots are taken.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import anyio

from orchestrator.adapter import About, Agent, about_of
from orchestrator.config import Config, agents_for, not_allowed
from orchestrator.discovery.credentials import credentials
from orchestrator.discovery.programs import check_options, look
from orchestrator.discovery.servers import (
    FoundServer,
    model_at,
    nameless,
    place_of,
    seen,
)
from orchestrator.errors import ConfigError, lone_error
from orchestrator.events import Error
from orchestrator.prices import price_of
from orchestrator.route import Route, Standing, State, choose, estimated_tokens, pinned
from orchestrator.server import address_of
from orchestrator.slots import Room, Slots
from orchestrator.task import Task
from orchestrator.usage import expected

if TYPE_CHECKING:
    from pydantic import JsonValue

LOCAL_SLOTS, CLOUD_SLOTS = 1, 20
"""How many agents a server, or a provider, serves at a time where nobody says: a model at home has
one GPU, and agents that share it only wait for each other inside of it.
"""


async def routes_of(
    task: Task,
    config: Config,
    slots: Slots,
    *,
    agents: Sequence[Agent] | None = None,
    left_usd: float | None = None,
) -> tuple[Route, ...]:
    """A route for every agent that may do the task, or for each of those that are given. `left_usd`
    is what it may still cost. Raises ConfigError for an agent that is named and is none, or is
    configured wrongly.
    """
    named = task.agent is not None or agents is not None
    given = agents_for(task.agent, config) if agents is None else agents
    placed, state = look(given, config, named=named)
    state = replace(state, left_usd=left_usd)
    if named:
        for agent in placed:
            check_options(pinned(task, agent, state), task, config)
    return choose(task, placed, await stand(task, placed, state, config, slots))


async def offers(config: Config, slots: Slots) -> list[JsonValue]:
    """Every agent as it stands now, for whoever chooses one: what it runs, where, whether it can,
    its window in tokens and its price for a million tokens.
    """
    task = Task(prompt="-", workspace=Path("/"))
    placed, state = look(agents_for(None, config), config)
    state = await stand(task, placed, state, config, slots)
    routes = choose(task, placed, state)
    return [_offer(route, state.standing.get(route.agent.name)) for route in routes]


def _offer(route: Route, now: Standing | None) -> JsonValue:
    agent, price = route.agent, price_of(route.agent)
    usd: dict[str, JsonValue] | None = {"input": 0.0, "output": 0.0}
    if agent.tier == "cloud":
        usd = None if price is None else {"input": price.input, "output": price.output}
    window = now.context if now is not None else None
    return {
        "name": agent.name,
        "adapter": agent.adapter,
        "model": agent.model,
        "tier": agent.tier,
        "available": route.rank is not None,
        **({} if route.rank is not None else {"why_not": route.reason}),
        "context": window or (price.window if price is not None else None),
        "usd_per_million_tokens": usd,
        "slots_free": None if now is None or now.slots is None else max(0, now.slots - now.taken),
    }


async def stand(
    task: Task, agents: Sequence[Agent], state: State, config: Config, slots: Slots
) -> State:
    """The state with what is known of every agent.

    Servers are asked only where there is a choice: the one that is left is looked at before it
    starts, and then its failure has a name.
    """
    mode = config.local()
    written, forbidden = {agent.name for agent in config.agents}, not_allowed(agents, config)
    # An agent that the user wrote down and that cannot run keeps its place all the same: if it is
    # a local one, its work is not the next cloud's.
    broken = {
        name: why
        for name, why in state.problems.items()
        if name in written and name not in forbidden
    }
    standing = {
        agent.name: _at_rest(task, pinned(task, agent, state), config, slots) for agent in agents
    }
    state = replace(
        state,
        problems={name: why for name, why in state.problems.items() if name not in broken},
        standing={
            name: replace(now, problem=broken.get(name, now.problem))
            for name, now in standing.items()
        },
        classes=config.kinds,
        default_agent=config.default_agent,
        configured=frozenset(written),
        local_mode=mode.on,
    )
    usable = [route.agent for route in choose(task, agents, state) if route.rank is not None]
    if len(usable) < 2:
        return state
    asked = await _asked(usable, state, config)
    return replace(state, standing={**state.standing, **asked})


def room_of(agent: Agent, about: About, config: Config) -> Room | None:
    """Where the agent's slots are: its server's, else its provider's. None: nobody knows where its
    model is, or it is played from a script.
    """
    url, cloud = agent.base_url, config.bounds.cloud_slots or CLOUD_SLOTS
    if url is None:
        known = agent.api_key_env or about.key_env or about.keys or about.logins
        name = agent.api_key_env or agent.adapter
        return Room(name=name, slots=cloud) if known and agent.tier == "cloud" else None
    if url.startswith("scripted:"):
        return None
    usual = LOCAL_SLOTS if agent.tier == "local" else cloud
    name = _address(url)
    stated = (place.slots for place in config.places if _address(place.base_url) == name)
    return Room(name=name, slots=next((slots for slots in stated if slots), usual))


def _address(url: str) -> str:
    with suppress(ConfigError):
        return address_of(url)
    return url


def _at_rest(task: Task, agent: Agent, config: Config, slots: Slots) -> Standing:
    """What is known without asking anybody."""
    try:
        about = about_of(config.adapters[agent.adapter], agent)
    except ConfigError:
        return Standing()  # it is ruled out by that
    room = room_of(agent, about, config)
    cost, call = _costs(task, agent, about, config)
    return Standing(
        problem=_wrong(agent, task, config),
        own_tokens=about.prompt_tokens,
        calls_tools=about.tools,
        credentials=credentials(agent, about, config),
        slots=room.slots if room else None,
        taken=slots.taken(room) if room else 0,
        cost_usd=cost,
        call_usd=call,
    )


def _wrong(agent: Agent, task: Task, config: Config) -> str | None:
    """Why the agent cannot be started as it is written: an unknown option, no model, ..."""
    try:
        check_options(agent, task, config)
    except ConfigError as error:
        return str(error)
    return None


def _costs(
    task: Task, agent: Agent, about: About, config: Config
) -> tuple[float | None, float | None]:
    """What the task may cost, and its first call; None is unknown, as it is where the CLI's own
    login pays.
    """
    names = (name for name in (agent.api_key_env, about.key_env) if name)
    if agent.tier == "cloud" and not any(config.environ.get(name) for name in names):
        return None, None
    tokens = estimated_tokens(task) + (about.prompt_tokens or 0)
    one = expected(agent, "key", prompt_tokens=tokens, calls=1)
    return expected(agent, "key", prompt_tokens=tokens).cost_usd, one.cost_usd


async def _asked(agents: Sequence[Agent], state: State, config: Config) -> dict[str, Standing]:
    """The same with what the servers say, all asked at once, each address once."""
    found: dict[str, FoundServer] = {}
    standing: dict[str, Standing] = {}

    async def ask(agent: Agent) -> None:
        place = place_of(agent, config)
        if place is not None:
            found[place.base_url] = await seen(place, config)

    distinct = {agent.base_url: agent for agent in agents if place_of(agent, config)}
    with lone_error():
        async with anyio.create_task_group() as group:
            for agent in distinct.values():
                group.start_soon(ask, agent)
    for agent in agents:
        server = found.get(agent.base_url or "")
        if server is not None:
            standing[agent.name] = _served(agent, state.standing[agent.name], server, config)
    return standing


def _served(agent: Agent, now: Standing, server: FoundServer, config: Config) -> Standing:
    now = replace(now, latency_s=server.latency_s)
    if server.loading:
        return replace(now, loaded=False)  # before the run it is waited for
    if server.problem is not None:
        return replace(now, problem=_told(server.problem))
    model = nameless(server, agent, config) or model_at(server, agent, config)
    if isinstance(model, Error):
        return replace(now, problem=_told(model))
    if model is None:
        return now
    return replace(now, context=model.context, tools=model.tools, loaded=model.loaded)


def _told(error: Error) -> str:
    return f"{error.text} {error.hint}" if error.hint else error.text
