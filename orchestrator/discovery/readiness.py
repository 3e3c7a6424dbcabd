"""Before a run: whether the chosen agent can do its task on its model server, and as what it runs.

Asks the server, tries a tool call where nobody can say whether the model calls tools, and keeps
that answer. Starts nothing and changes nothing.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from hashlib import sha256
from pathlib import Path

import orjson
from pydantic import TypeAdapter, ValidationError

from orchestrator.adapter import About, Agent, about_of
from orchestrator.config import Config
from orchestrator.discovery.credentials import keyless
from orchestrator.discovery.programs import locate
from orchestrator.discovery.servers import FoundServer, bare, known_server, lacks
from orchestrator.errors import ConfigError, shown
from orchestrator.events import Error
from orchestrator.fit import Fit, estimate, fit
from orchestrator.journal import make_private
from orchestrator.server import ANY, Model, find_model
from orchestrator.task import Task

KEEP_YES_S = 30 * 24 * 3600.0
KEEP_NO_S = 3600.0
"""How long a tried tool call counts; a no for less, as a server may be started anew with tools."""


@dataclass(frozen=True, kw_only=True)
class Ready:
    """An agent as it is to run, or the `error` that keeps it from that. `found` is its model server
    as it was seen, None where the agent goes to no server of a known kind.
    """

    agent: Agent
    found: FoundServer | None = None
    notes: tuple[str, ...] = ()
    error: Error | None = None


async def ready(agent: Agent, task: Task, config: Config) -> Ready:
    """What stands between an agent with a model and its task. A tool call may be tried.

    Facts that nobody knows are no reason against anything. One at a cloud, or at a server of an
    unknown kind, is as it was.
    """
    if error := keyless(agent, task, config):
        return Ready(agent=agent, error=error)
    found = await known_server(agent, config)
    if found is None or agent.model is None:
        return Ready(agent=agent, found=found)
    if error := found.problem or lacks(found, agent, config):
        return Ready(agent=agent, found=found, error=error)
    about = about_of(config.adapters[agent.adapter], agent)
    model, tried = await _model(agent, about, found, config)
    if model.remote and task.privacy == "local":
        text = f"privacy: local, and {model.name} is served by a cloud, whatever the address"
        hint = "Take a model that is really here."
        error = Error(kind="unroutable", text=shown(text), retryable=False, hint=hint)
        return Ready(agent=agent, found=found, error=error)
    fitted = _fit(agent, about, model, found, task, config)
    if isinstance(fitted, Error):
        return Ready(agent=agent, found=found, error=fitted)
    return Ready(agent=fitted.agent, found=found, notes=(*fitted.notes, *tried))


async def _model(
    agent: Agent, about: About, found: FoundServer, config: Config
) -> tuple[Model, tuple[str, ...]]:
    """What is known of the agent's model, tried where that is necessary; and what to say of it."""
    name = bare(agent.model or "", config.servers[found.kind])
    model = find_model(found.models, name)
    if model is None or model.name == ANY:
        model = Model(name=name)
    if model.tools is not None or not (about.tools and about.prompt_tokens):
        return model, ()
    tools, fresh = await _tried(found, model.name, config)
    said = {True: "it was called", False: "it was not called", None: "no answer"}[tools]
    note = f"{found.title} does not tell whether {model.name} calls tools; tried one: {said}"
    return replace(model, tools=tools), (note,) if fresh else ()


def _fit(
    agent: Agent, about: About, model: Model, found: FoundServer, task: Task, config: Config
) -> Fit | Error:
    kind, wanted = config.servers[found.kind], estimate(task, _sizes(task))
    fitted = fit(agent, about, model, kind, wanted=wanted, force=task.force)
    if isinstance(fitted, Fit) and not fitted.notes:
        return fitted
    # Only where there is something to say: who else is there has to be looked for.
    others = _others(agent, found, config)
    return fit(agent, about, model, kind, wanted=wanted, others=others, force=task.force)


def _sizes(task: Task) -> list[int]:
    sizes: list[int] = []
    for file in task.files:
        with suppress(OSError, ValueError):  # a pattern, or not there: nobody knows
            sizes.append((task.workspace / file).stat().st_size)
    return sizes


def _others(agent: Agent, found: FoundServer, config: Config) -> Mapping[str, About]:
    """The other adapters that are installed and speak with this server."""
    others: dict[str, About] = {}
    for name in config.adapters:
        with suppress(ConfigError):
            about = config.adapters[name].about
            speaks = set(about.dialects) & set(found.dialects)
            if name != agent.adapter and speaks and about.program and locate(about.program, config):
                others[name] = about
    return others


# --- a tool call, tried once ---------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class _Tried:
    tools: bool
    at: float


_TRIED = TypeAdapter(_Tried)


async def _tried(found: FoundServer, model: str, config: Config) -> tuple[bool | None, bool]:
    """Whether the model calls tools, and whether that was found out just now."""
    from orchestrator.discovery.trial import calls_tool  # HTTP: most runs try none

    path = _kept_in(found, model, config)
    with suppress(OSError, ValidationError):
        kept = _TRIED.validate_json(path.read_bytes())
        if 0 <= time.time() - kept.at < (KEEP_YES_S if kept.tools else KEEP_NO_S):
            return kept.tools, False
    tools = await calls_tool(found, model, config)
    if tools is not None:
        with suppress(OSError):  # it is tried again, that is all
            fresh = path.with_name(f".{path.stem}.{time.monotonic_ns()}")
            make_private(path.parent)
            fresh.write_bytes(orjson.dumps(_Tried(tools=tools, at=time.time())))
            fresh.replace(path)
    return tools, True


def _kept_in(found: FoundServer, model: str, config: Config) -> Path:
    name = sha256(f"{found.base_url} {found.version} {model}".encode()).hexdigest()[:24]
    return config.state / "servers" / f"tools-{name}.json"
