"""Which worker a job may go to: the labels that it needs, and those that a worker has. Pure.

What a job needs stands beside it in the queue as one word: by that a worker sees what waits, and
takes only what it has the labels for.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from urllib.parse import quote, unquote

from orchestrator.discovery import FoundAgent
from orchestrator.discovery.diagnosis import Diagnosis
from orchestrator.task import Task, TaskFile

_PLAIN = ":/@+-._="
HOST = "host:"
"""How the label of a machine begins."""


def needed(file: TaskFile, machine: str, *, bound: bool = False) -> frozenset[str]:
    """What a worker must have for these tasks, submitted on the machine with that label.

    A folder is where it is, and so is what its project configures: then nothing but that machine
    will do. `bound`: it is so for another reason. Of other tasks, the agent that is named, and
    where its model must be.
    """
    asked = {label for task in file.tasks for label in task.requires}
    if bound or any(_is_here(task) for task in file.tasks):
        return frozenset({machine, *asked})
    return frozenset({label for task in file.tasks for label in _of_task(task)} | asked)


def _is_here(task: Task) -> bool:
    scripted = (task.base_url or "").startswith("scripted:")
    return task.source is None or scripted or task.session_id is not None


def _of_task(task: Task) -> Iterable[str]:
    if task.agent is not None:
        yield f"agent:{task.agent}"
    match task.privacy, task.strategy:
        case ("local", _) | (_, "local"):
            yield "tier:local"
        case (_, "cloud"):
            yield "tier:cloud"
        case _:
            pass


def of_agents(agents: Iterable[FoundAgent]) -> frozenset[str]:
    """The labels of agents that could be started."""
    usable = [agent for agent in agents if agent.problem is None]
    named = {f"agent:{agent.name}" for agent in usable}
    return frozenset(named | {f"tier:{agent.tier}" for agent in usable})


def of_machine(found: Diagnosis) -> frozenset[str]:
    """The labels of what was found on a machine: agents, the versions of their programs, model
    servers that answer, and their models.
    """
    versions = {
        f"program:{adapter.name}@{adapter.version}"
        for adapter in found.adapters
        if adapter.version is not None
    }
    up = [server for server in found.servers if server.up and server.problem is None]
    servers = {f"server:{server.name}" for server in up}
    models = {f"model:{server.name}/{model.name}" for server in up for model in server.models}
    return of_agents(found.agents) | frozenset(versions | servers | models)


def written(needs: Collection[str]) -> str:
    """What a job needs, as it stands in the queue: the same needs are the same word."""
    return ",".join(quote(label, safe=_PLAIN) for label in sorted(needs))


def read(needs: str) -> frozenset[str]:
    """The same as it was."""
    return frozenset(unquote(label) for label in needs.split(",")) if needs else frozenset()


def waits_for(needs: Collection[str], workers: Mapping[str, Collection[str]]) -> str | None:
    """Why no worker takes a job; None: there is one that may. `workers` are the living ones."""
    if not workers:
        return "no worker is running"
    if any(set(needs) <= set(labels) for labels in workers.values()):
        return None
    nobody = sorted(set(needs).difference(*workers.values()))
    if nobody:
        return f"no worker has {_words(nobody)}"
    return f"no worker has all of {_words(sorted(needs))} together"


def _words(labels: Iterable[str]) -> str:
    return ", ".join(repr(label) for label in labels)
