"""How the levels become one: preferences climb, limits meet. Pure.

A rung is what one level says. The strongest word wins for defaults and kinds, and for a server or
an agent as a whole, so that an address and a key never come from two places.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import reduce
from typing import TypeVar

from orchestrator.adapter import Agent
from orchestrator.config.file import AgentModel, DefaultsModel, FileModel, ServerModel
from orchestrator.config.positions import Key
from orchestrator.config.value import Bounds, Config, Level, Queue
from orchestrator.task import READING_KINDS, Kind, Limits, Privacy, Task, TaskFile

T = TypeVar("T")


@dataclass(frozen=True, kw_only=True)
class Rung:
    """What one level says: checked, as it was written, and where each key stands.

    What is not `trusted` does not replace a server or an agent that another level has.
    """

    level: Level
    model: FileModel
    raw: Mapping[str, object]
    where: Callable[[Key], str]
    trusted: bool = True


def prefer(*stated: T | None) -> T | None:
    """The strongest preference; the weakest level comes first, None says nothing."""
    return next((value for value in reversed(stated) if value is not None), None)


def strictest(*stated: Privacy | None) -> Privacy:
    return "local" if "local" in stated else "any"


def meet(one: Bounds, other: Bounds) -> Bounds:
    """The strictest of both, bound by bound; of two lists of agents what is in both."""
    return Bounds(
        concurrency=_least(one.concurrency, other.concurrency),
        cloud_slots=_least(one.cloud_slots, other.cloud_slots),
        privacy=strictest(one.privacy, other.privacy),
        agents=other.agents
        if one.agents is None
        else one.agents
        if other.agents is None
        else one.agents & other.agents,
    )


def _least(one: int | None, other: int | None) -> int | None:
    return min((each for each in (one, other) if each is not None), default=None)


def defaults(rungs: Sequence[Rung]) -> DefaultsModel:
    """The defaults of all levels, the weakest first, key by key."""
    stated = [rung.model.defaults for rung in rungs]
    fields = DefaultsModel.model_fields
    return DefaultsModel(
        **{name: prefer(*(getattr(one, name) for one in stated)) for name in fields}
    )


def kinds(rungs: Sequence[Rung]) -> dict[Kind, str]:
    return {kind: name for rung in rungs for kind, name in rung.model.kinds.items()}


def limits(rungs: Sequence[Rung]) -> Limits:
    return reduce(Limits.meet, (rung.model.limits.limits() for rung in rungs), Limits())


def bounds(rungs: Sequence[Rung]) -> Bounds:
    return reduce(meet, (rung.model.limits.bounds() for rung in rungs), Bounds())


def queue(rungs: Sequence[Rung]) -> Queue:
    """The queue of all levels, key by key."""
    stated = [rung.model.queue for rung in rungs]
    usual = Queue()
    return Queue(
        database=prefer(*(one.database for one in stated)),
        concurrency=prefer(usual.concurrency, *(one.concurrency for one in stated))
        or usual.concurrency,
        labels=frozenset(prefer(*(one.labels for one in stated)) or ()),
    )


def servers(rungs: Sequence[Rung]) -> dict[str, tuple[ServerModel, Rung]]:
    """Each server with the level that says it."""
    winners = _winners(rungs, lambda rung: rung.model.servers)
    return {name: (rung.model.servers[name], rung) for name, rung in winners.items()}


def agents(rungs: Sequence[Rung]) -> dict[str, tuple[AgentModel, Rung]]:
    """Each agent with the level that says it: the strongest level's first, then in file order."""
    winners = _winners(rungs, lambda rung: rung.model.agents)
    return {name: (rung.model.agents[name], rung) for name, rung in winners.items()}


def _winners(
    rungs: Sequence[Rung], named: Callable[[Rung], Mapping[str, object]]
) -> dict[str, Rung]:
    """The strongest level for each name; one that is not trusted only where no other has it.

    Else a file that was only found could send the user's agents, with their keys, elsewhere.
    """
    found: dict[str, Rung] = {}
    for rung in reversed(rungs):
        for name in named(rung):
            if name not in found or (rung.trusted and not found[name].trusted):
                found[name] = rung
    return found


# --- a task --------------------------------------------------------------------------------------


def with_defaults(task: Task, config: Config) -> Task:
    """The task with the configuration's defaults where it says nothing; privacy only tightens.

    A kind that only reads keeps to `read`: what agents may do in general is no reason to let a
    review write.
    """
    stated = {
        name: value
        for name, value in vars(config.defaults).items()
        if value is not None and getattr(task, name) is None
    }
    if task.kind in READING_KINDS:
        stated.pop("access", None)
    return replace(task, privacy=strictest(task.privacy, config.bounds.privacy), **stated)


def file_with_defaults(file: TaskFile, config: Config) -> TaskFile:
    """The same for each task of a file; and how many run side by side only tightens."""
    return replace(
        file,
        tasks=tuple(with_defaults(task, config) for task in file.tasks),
        concurrency=_least(file.concurrency, config.bounds.concurrency),
    )


def not_allowed(agents: Sequence[Agent], config: Config) -> dict[str, str]:
    """The agents that the limits do not allow, each with the reason."""
    allowed = config.bounds.agents
    if allowed is None:
        return {}
    reason = f"limits.agents allows only {', '.join(sorted(allowed)) or 'agents that no level has'}"
    return {agent.name: reason for agent in agents if agent.name not in allowed}
