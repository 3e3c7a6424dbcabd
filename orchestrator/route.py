"""Which agent does a task. Pure: each agent considered gets a rank, or the reason why it has
none.

Hard constraints first, then pins, then the strategy. Nothing goes from a local agent to the cloud
unless the user wrote it (`strategy: cascade`, `fallback: cloud`): not at the choice either.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import Literal, TypeAlias

from orchestrator.adapter import Agent
from orchestrator.config import port_of, tier_of, tier_of_place
from orchestrator.events import Considered, Tier
from orchestrator.server import Place, is_remote
from orchestrator.task import Kind, Task
from orchestrator.usage import dollars

Class: TypeAlias = Literal["cheap", "reasoning"]
"""How much thinking work takes: `cheap` work is done by local models where there are some."""

CHEAP: frozenset[Kind] = frozenset(
    {"search", "summary", "explain", "docs", "commit_message", "rename", "format"}
)
"""The kinds that are cheap where the configuration says nothing; all others are reasoning."""

ANSWER_TOKENS = 4096
"""Room that is kept in a model's context for what it answers."""

_BYTES_A_TOKEN = 3
# Prose has about 4 bytes a token and code 3 to 3.5; too few rather than too many are assumed.


def _no_problems() -> Mapping[str, str]:
    return MappingProxyType({})


def _no_places() -> Mapping[str, Place]:
    return MappingProxyType({})


def _no_kinds() -> Mapping[int, str]:
    return MappingProxyType({})


def _no_classes() -> Mapping[Kind, str]:
    return MappingProxyType({})


@dataclass(frozen=True, kw_only=True)
class Standing:
    """What is known of an agent, with the task's pins applied, at this moment; None is unknown.

    `problem`: why its model cannot be had. `context` (tokens, as really configured), `tools` and
    `loaded` are the model's; `own_tokens` is the size of the agent's own prompt, `calls_tools`
    whether it needs a model that does. `credentials`: whether a key or a login was seen. `taken` of
    `slots` are in use by all processes of this machine. `latency_s`: how long its server took to
    tell of itself. `cost_usd`: what the task is expected to cost, `call_usd` its first call alone.
    """

    problem: str | None = None
    context: int | None = None
    tools: bool | None = None
    loaded: bool | None = None
    own_tokens: int | None = None
    calls_tools: bool = True
    credentials: bool | None = None
    slots: int | None = None
    taken: int = 0
    latency_s: float | None = None
    cost_usd: float | None = None
    call_usd: float | None = None


def _no_standing() -> Mapping[str, Standing]:
    return MappingProxyType({})


@dataclass(frozen=True, kw_only=True)
class State:
    """What is known of the world.

    `problems`: agents by name that cannot run now, and why. `kinds`: the kind of model server that
    is taken to answer at a port. `places`: the model servers by name. `notes`: agents by name, and
    what was changed for them before they came here. `standing`: agents by name. `classes`: the
    user's own word on which class or agent does work of a kind. `default_agent` goes first where no
    strategy is stated. `configured`: the agents that the user wrote down. `local_mode`: the user's
    switch that keeps work at home. `left_usd`: what may still be spent.
    """

    problems: Mapping[str, str] = field(default_factory=_no_problems)
    kinds: Mapping[int, str] = field(default_factory=_no_kinds)
    places: Mapping[str, Place] = field(default_factory=_no_places)
    notes: Mapping[str, str] = field(default_factory=_no_problems)
    standing: Mapping[str, Standing] = field(default_factory=_no_standing)
    classes: Mapping[Kind, str] = field(default_factory=_no_classes)
    default_agent: str | None = None
    configured: frozenset[str] = frozenset()
    local_mode: bool = False
    left_usd: float | None = None


@dataclass(frozen=True, kw_only=True)
class Route:
    """One agent with the task's pins applied. `rank` 0 goes first; None: ruled out, by `reason`.

    `note` is what was changed for it, such as by local mode. `remedy` is what the user may write to
    have it. `cost_usd`: expected; None is unknown.
    """

    agent: Agent
    rank: int | None
    reason: str
    note: str | None = None
    remedy: str | None = None
    cost_usd: float | None = None


def choose(task: Task, agents: Sequence[Agent], state: State) -> tuple[Route, ...]:
    """A route for every agent: the usable ones first, by rank, then the others."""
    placed = [pinned(task, agent, state) for agent in agents]
    barred = {
        agent.name: why
        for own, agent in zip(agents, placed, strict=True)
        if (why := _barred(task, agent, state) or _nowhere(task, own, agent))
    }
    candidates = [agent for agent in placed if agent.name not in barred]
    wish = _wish(task, candidates, state)
    ordered = _ordered(candidates, wish, state)
    at_home = _stays_home(task, ordered, wish)
    usable: list[Route] = []
    refused: list[Route] = []
    for agent in ordered:
        kept = at_home if agent.tier == "cloud" else None
        why = kept or _unfit(task, agent, state)
        if why is None:
            reason = _reason(task, agent, usable, wish, state)
            usable.append(_route(agent, len(usable), reason, state))
        else:
            remedy = REMEDY if kept else None
            refused.append(replace(_route(agent, None, why, state), remedy=remedy))
    out = (
        _route(agent, None, barred[agent.name], state) for agent in placed if agent.name in barred
    )
    return (*usable, *refused, *out)


def _route(agent: Agent, rank: int | None, reason: str, state: State) -> Route:
    note, cost = state.notes.get(agent.name), _expected(agent, state)
    return Route(agent=agent, rank=rank, reason=reason, note=note, cost_usd=cost)


REMEDY = "Set `fallback: cloud`, and what fails at home may go on in the cloud."


def considered(routes: Sequence[Route], chosen: str | None = None) -> list[Considered]:
    """The routes as the event shows them; `chosen` is the agent that was taken, None: the first."""
    return [
        Considered(
            agent=route.agent.name,
            chosen=route.rank == 0 if chosen is None else route.agent.name == chosen,
            reason=route.reason,
        )
        for route in routes
    ]


def stages(task: Task, routes: Sequence[Route]) -> tuple[Route, ...]:
    """The agents that a task goes through, each after the one before it failed.

    The best; then, if that is a local one and the user wrote that work may move on to the cloud,
    the best there. Who names an agent, a model or an address has named the only one.
    """
    usable = [route for route in routes if route.rank is not None]
    if not usable:
        return ()
    first = usable[0]
    if first.agent.tier == "cloud" or not may_escalate(task):
        return (first,)
    clouds = (route for route in usable if route.agent.tier == "cloud")
    return (first, *tuple(clouds)[:1])


def may_escalate(task: Task) -> bool:
    """Whether the user wrote that this task may go from a local agent to the cloud."""
    named = task.agent is not None or task.model is not None or task.base_url is not None
    return task.privacy != "local" and not named and _may_leave(task)


def class_of(task: Task, state: State) -> str:
    """The class of the task's work, or the agent that the user gives work of its kind to."""
    if task.kind is None:
        return "reasoning"
    own = state.classes.get(task.kind)
    return own if own is not None else "cheap" if task.kind in CHEAP else "reasoning"


def estimated_tokens(task: Task) -> int:
    """About how many tokens the task's own prompt has."""
    return len(task.prompt.encode("utf-8", "replace")) // _BYTES_A_TOKEN + 1


# --- pins ----------------------------------------------------------------------------------------


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


def _forwarded(agent: Agent) -> bool:
    # Ollama forwards such models (`gpt-oss:120b-cloud`) to its own cloud: a local address is not
    # enough, and their tokens are not free.
    return agent.model is not None and is_remote(agent.model)


def _kind_at(base_url: str, agent: Agent, state: State) -> str | None:
    if base_url == agent.base_url:
        return agent.server
    port = port_of(base_url)
    return None if port is None else state.kinds.get(port)


# --- constraints ---------------------------------------------------------------------------------


def _barred(task: Task, agent: Agent, state: State) -> str | None:
    """Why this agent is out of the question for the task, or None."""
    if task.agent is not None and agent.name != task.agent:
        return f"the task names agent {task.agent!r}"
    if task.privacy == "local" and _forwarded(agent):
        return f"privacy: local, and {agent.model} is served by a cloud, whatever the address"
    if task.privacy == "local" and agent.tier == "cloud":
        return "privacy: local, and this agent's model is in the cloud"
    return state.problems.get(agent.name) or _stray_key(task, agent) or _elsewhere(task, agent)


def _nowhere(task: Task, own: Agent, agent: Agent) -> str | None:
    """Why nobody can say that the model stays at home which the task names: an agent without an
    address is local by its owner's word, and that was given for the model that stands there.
    """
    if task.privacy != "local" or agent.model == own.model or agent.base_url or agent.server:
        return None
    return f"privacy: local, and nothing says where {agent.model} runs (name its base_url)"


def _elsewhere(task: Task, agent: Agent) -> str | None:
    """Why the strategy has no place for this agent; a named one needs none."""
    if task.agent is not None:
        return None
    match task.strategy, agent.tier:
        case "cloud", "local":
            return "strategy: cloud, and this agent's model is local"
        case "local", "cloud" if not _may_leave(task):
            return "strategy: local, and this agent's model is in the cloud"
        case _:
            return None


def _stray_key(task: Task, agent: Agent) -> str | None:
    """Why the task's key must not go to this agent's address: it was not written for that."""
    if task.api_key_env is None or task.base_url is not None or agent.base_url is None:
        return None
    return "the task names a key (api_key_env), and not the address that it is for (base_url)"


def _unfit(task: Task, agent: Agent, state: State) -> str | None:
    """Why this agent, which may do the task, cannot do it as things stand, or None."""
    now = _standing(agent, state)
    if now.problem is not None:
        return now.problem
    needed = estimated_tokens(task) + (now.own_tokens or 0) + ANSWER_TOKENS
    if now.context is not None and now.context < needed:
        return (
            f"its model is configured for {now.context:,} tokens, and the task needs about "
            f"{needed:,} (prompt, the agent's own prompt, answer)"
        )
    if now.calls_tools and now.tools is False:
        return f"it needs a model that calls tools, and {agent.model or 'this one'} does not"
    call, left = now.call_usd, state.left_usd
    if agent.tier == "cloud" and call is not None and left is not None and call > left:
        return f"one call costs about {dollars(call)}, and {dollars(left)} of the budget is left"
    return None


def _standing(agent: Agent, state: State) -> Standing:
    return state.standing.get(agent.name, _UNKNOWN)


_UNKNOWN = Standing()


def _expected(agent: Agent, state: State) -> float | None:
    """What the task is expected to cost with this agent. A model of one's own costs nothing."""
    return 0.0 if agent.tier == "local" else _standing(agent, state).cost_usd


# --- preference ----------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class _Wish:
    """What goes first, and why: an agent by name, and a place. None: as they come."""

    why: str
    agent: str | None = None
    tier: Tier | None = None


def _wish(task: Task, candidates: Sequence[Agent], state: State) -> _Wish:
    if task.agent is not None:
        return _Wish(why="pinned by the task")
    if task.model is not None or task.base_url is not None:
        what = "address" if task.base_url is not None else "model"
        return _Wish(why=f"the first that takes the {what} that the task names")
    match task.strategy:
        case None | "auto" if state.local_mode:
            return _Wish(why="local mode is on", tier="local")
        case "local":
            return _Wish(why="strategy: local", tier="local")
        case "cloud":
            return _Wish(why="strategy: cloud", tier="cloud")
        case None if _goes_first(state.default_agent, candidates) and not _told(task, state):
            return _Wish(why="the default agent", agent=state.default_agent)
        case _:  # auto, which is the default, and cascade
            return _by_kind(task, candidates, state)


def _by_kind(task: Task, candidates: Sequence[Agent], state: State) -> _Wish:
    found = class_of(task, state)
    if found not in {"cheap", "reasoning"}:
        if _goes_first(found, candidates):
            return _Wish(why=f"[kinds] gives {task.kind} to it", agent=found)
        found = "cheap" if task.kind in CHEAP else "reasoning"
    if task.strategy == "cascade":
        return _Wish(why="strategy: cascade, local first", tier="local")
    what = "work of no stated kind" if task.kind is None else task.kind
    if found == "cheap":
        return _Wish(why=f"{what} is cheap: local first", tier="local")
    return _Wish(why=f"{what} is reasoning: cloud first", tier="cloud")


def _told(task: Task, state: State) -> bool:
    """Whether the user said who does work of this kind."""
    return task.kind is not None and task.kind in state.classes


def _goes_first(name: str | None, candidates: Sequence[Agent]) -> bool:
    return any(agent.name == name for agent in candidates)


def _ordered(candidates: Sequence[Agent], wish: _Wish, state: State) -> list[Agent]:
    """The candidates in the order of the wish; several servers with one model share the load."""
    written = any(agent.name in state.configured for agent in candidates)
    first: dict[object, int] = {}
    keys: dict[str, tuple[object, ...]] = {}
    for at, agent in enumerate(candidates):
        keys[agent.name] = (
            agent.name != wish.agent,
            _put_back(agent, state, written=written),
            wish.tier is not None and agent.tier != wish.tier,
            first.setdefault(_twin(agent), at),
            *_load(_standing(agent, state)),
            at,
        )
    return sorted(candidates, key=lambda agent: keys[agent.name])


def _put_back(agent: Agent, state: State, *, written: bool) -> int:
    """How far an agent stands behind others, whatever the place: one that can hardly work or that
    the budget will hardly do for, and a cloud that nobody wrote down where somebody wrote down an
    agent.
    """
    if agent.tier == "local":
        return 0
    if _standing(agent, state).credentials is False:
        return 3
    if _too_dear(agent, state):
        return 2
    return 1 if written and agent.name not in state.configured else 0


def _too_dear(agent: Agent, state: State) -> bool:
    """Whether more than what is left is likely to be spent: an assumption, and no reason to refuse
    it.
    """
    cost = _expected(agent, state)
    return cost is not None and state.left_usd is not None and cost > state.left_usd


def _twin(agent: Agent) -> object:
    """Equal for agents that differ only in the server of their model."""
    if agent.model is None or agent.base_url is None:
        return agent.name
    options = frozenset((name, repr(value)) for name, value in agent.options.items())
    return agent.adapter, agent.model, agent.tier, options


def _load(now: Standing) -> tuple[object, ...]:
    """A free slot, then the least busy, then a model that is warm, then the quickest to answer.

    Less than a tenth of a second is no difference: what a model says takes longer.
    """
    slots = now.slots or 1
    latency = round(now.latency_s, 1) if now.latency_s is not None else float("inf")
    return (now.taken >= slots, now.taken / slots, now.loaded is False, latency)


def _stays_home(task: Task, ordered: Sequence[Agent], wish: _Wish) -> str | None:
    """Why no cloud may do it: a local agent goes first, were it only usable, and nothing that the
    user wrote lets the work move on. None: a cloud may.
    """
    if not ordered or ordered[0].tier == "cloud" or _may_leave(task):
        return None
    why = wish.why if wish.tier == "local" else f"{ordered[0].name} (local) goes first"
    return f"{why}, and nothing lets the work move on to the cloud"


def _may_leave(task: Task) -> bool:
    return task.fallback == "cloud" or task.strategy == "cascade"


def _reason(task: Task, agent: Agent, before: Sequence[Route], wish: _Wish, state: State) -> str:
    """Why a usable agent has the place that it has."""
    now = _standing(agent, state)
    if before:
        why = f"usable ({agent.tier}), but a later choice"
    elif wish.tier in {None, agent.tier} and wish.agent in {None, agent.name}:
        told = task.agent is not None or wish.tier is not None
        why = wish.why if told else f"{wish.why} ({agent.tier})"
    else:
        why = f"{wish.why}; the best that is usable ({agent.tier})"
    if now.slots is not None and now.taken:
        why = f"{why}; {now.taken} of {now.slots} slots taken"
    if agent.tier == "cloud" and now.credentials is False:
        why = f"{why}; neither a key nor a login was seen"
    if _too_dear(agent, state):
        cost, left = _expected(agent, state) or 0.0, state.left_usd or 0.0
        why = f"{why}; expected to cost {dollars(cost)}, more than the {dollars(left)} that is left"
    return why
