"""Which agent does a task. Pure: each agent considered gets a rank, or the reason why it has
none.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from types import MappingProxyType

from orchestrator.adapter import Agent
from orchestrator.config import port_of, tier_of, tier_of_place
from orchestrator.events import Considered
from orchestrator.server import Place, is_remote
from orchestrator.task import Task


def _no_problems() -> Mapping[str, str]:
    return MappingProxyType({})


def _no_places() -> Mapping[str, Place]:
    return MappingProxyType({})


def _no_kinds() -> Mapping[int, str]:
    return MappingProxyType({})


@dataclass(frozen=True, kw_only=True)
class State:
    """What is known of the world.

    `problems`: agents by name that cannot run now, and why. `kinds`: the kind of model server that
    is taken to answer at a port. `places`: the model servers by name. `notes`: agents by name, and
    what was changed for them before they came here.
    """

    problems: Mapping[str, str] = field(default_factory=_no_problems)
    kinds: Mapping[int, str] = field(default_factory=_no_kinds)
    places: Mapping[str, Place] = field(default_factory=_no_places)
    notes: Mapping[str, str] = field(default_factory=_no_problems)


@dataclass(frozen=True, kw_only=True)
class Route:
    """One agent with the task's pins applied. `rank` 0 goes first; None: ruled out, by `reason`.

    `note` is what was changed for it, such as by local mode.
    """

    agent: Agent
    rank: int | None
    reason: str
    note: str | None = None


def choose(task: Task, agents: Sequence[Agent], state: State) -> tuple[Route, ...]:
    """A route for every agent: the usable ones first, by rank, then the others.

    For now: a pinned agent, else the order given (configured ones in file order, before the
    discovered, which come local before cloud, then by name).
    """
    usable: list[Route] = []
    refused: list[Route] = []
    for agent in agents:
        placed = pinned(task, agent, state)
        note = state.notes.get(agent.name)
        reason = _against(task, placed, state)
        if reason is not None:
            refused.append(Route(agent=placed, rank=None, reason=reason, note=note))
        else:
            why = "pinned by the task" if task.agent else f"first usable ({placed.tier})"
            why = why if not usable else f"usable ({placed.tier}), but a later choice"
            usable.append(Route(agent=placed, rank=len(usable), reason=why, note=note))
    return (*usable, *refused)


def considered(routes: Sequence[Route]) -> list[Considered]:
    """The routes as the event shows them."""
    return [
        Considered(agent=route.agent.name, chosen=route.rank == 0, reason=route.reason)
        for route in routes
    ]


def pinned(task: Task, agent: Agent, state: State) -> Agent:
    """The agent with the task's model, base_url and key. A URL brings its own key or none."""
    if task.model is not None:
        agent = _with_model(task.model, agent, state, at_place=task.base_url is None)
    if task.base_url is not None:
        agent = replace(
            agent,
            base_url=task.base_url,
            api_key_env=task.api_key_env,
            server=_kind_at(task.base_url, agent, state),
            tier=agent.tier if task.base_url == agent.base_url else tier_of(task.base_url),
            profile="clean",
        )
    elif task.api_key_env is not None:
        agent = replace(agent, api_key_env=task.api_key_env)
    return replace(agent, tier="cloud") if _forwarded(agent) else agent


def _with_model(model: str, agent: Agent, state: State, *, at_place: bool) -> Agent:
    """The agent with a model of that name: SERVER/MODEL where there is such a server."""
    first, slash, rest = model.partition("/")
    place = state.places.get(first) if at_place and slash and rest else None
    if place is None:
        return replace(agent, model=model)
    return replace(
        agent,
        model=rest,
        server=place.kind,
        base_url=place.base_url,
        api_key_env=place.api_key_env,
        tier=tier_of_place(place),
        profile="clean",
    )


def _against(task: Task, agent: Agent, state: State) -> str | None:
    """Why this agent cannot do the task, or None."""
    if task.agent is not None and agent.name != task.agent:
        return f"the task names agent {task.agent!r}"
    if task.privacy == "local" and _forwarded(agent):
        return f"privacy: local, and {agent.model} is served by a cloud, whatever the address"
    if task.privacy == "local" and agent.tier == "cloud":
        return "privacy: local, and this agent's model is in the cloud"
    return state.problems.get(agent.name) or _stray_key(task, agent)


def _stray_key(task: Task, agent: Agent) -> str | None:
    """Why the task's key must not go to this agent's address: it was not written for that."""
    if task.api_key_env is None or task.base_url is not None or agent.base_url is None:
        return None
    return "the task names a key (api_key_env), and not the address that it is for (base_url)"


def _forwarded(agent: Agent) -> bool:
    # Ollama forwards such models (`gpt-oss:120b-cloud`) to its own cloud: a local address is not
    # enough, and their tokens are not free.
    return agent.model is not None and is_remote(agent.model)


def _kind_at(base_url: str, agent: Agent, state: State) -> str | None:
    if base_url == agent.base_url:
        return agent.server
    port = port_of(base_url)
    return None if port is None else state.kinds.get(port)
