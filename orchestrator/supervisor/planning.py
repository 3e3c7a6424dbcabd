"""The plan of a run, for a chosen agent in its place: its home, its command, what it hands on."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AsyncExitStack
from dataclasses import replace
from functools import cache, partial
from importlib.util import find_spec

from orchestrator.adapter import Agent, about_of
from orchestrator.answer import asked
from orchestrator.config import Config
from orchestrator.discovery import Ready, auth_of, room_of
from orchestrator.events import Error
from orchestrator.gateway import Passage, use_through
from orchestrator.journal import now
from orchestrator.route import Route
from orchestrator.run.plan import Plan
from orchestrator.supervisor.checking import check_task, script_of
from orchestrator.supervisor.desk import TOLD, Handing
from orchestrator.supervisor.means import Means
from orchestrator.task import DEFAULT_LIMITS, Task


async def plan_of(
    task: Task,
    chosen: tuple[Route, Ready, Passage | Error | None],
    routes: tuple[Route, ...],
    run_id: str,
    means: Means,
    stack: AsyncExitStack,
) -> Plan:
    config, continued = means.config, means.continued
    route, prepared, way = chosen
    adapter = config.adapters[route.agent.adapter]
    recorded = replace(prepared.agent, home=_home(task, route.agent, run_id, config))
    agent = recorded
    notes = (*((route.note,) if route.note else ()), *prepared.notes)
    if isinstance(way, Passage):
        agent, notes = replace(way.agent, home=recorded.home), (*notes, way.note)
    if agent.base_url is not None and agent.base_url.startswith("scripted:"):
        agent, scripted = await _scripted(agent, stack)
        notes = (*notes, *scripted)
        recorded = replace(agent, base_url=recorded.base_url)
    if task.expect is not None:
        task = replace(task, prompt=f"{task.prompt}\n\n{asked(task.expect)}")
    about = about_of(adapter, agent)
    option = about.trust_option
    if option is not None and agent.options.get(option):
        agent, recorded = _trusting(agent, option, task), _trusting(recorded, option, task)
        about, notes = about_of(adapter, agent), (*notes, _trust_told(agent, option))
    if task.mcp_servers and not about.mcp:
        names = ", ".join(server.name for server in task.mcp_servers)
        notes = (*notes, f"{agent.name} takes no MCP servers: it is without {names}")
    handing = _handing(task, means)
    env: Mapping[str, str] = {}
    if handing is not None and about.mcp and _has_mcp():
        task = replace(task, mcp_servers=(*task.mcp_servers, handing.server()))
    elif handing is not None:
        task = replace(task, prompt=f"{task.prompt}\n\n{TOLD}")
        env = handing.variables(config.environ.get("PATH"))
        if about.mcp:
            notes = (*notes, "delegation by the command alone: pip install 'orchestrate[mcp]'")
    command = adapter.command(task, agent)
    command = replace(command, env={**command.env, **env})
    room = room_of(route.agent, about, config)
    return Plan(
        job_id=means.job_id,
        run_id=run_id,
        started=now(),
        task=task,
        agent=agent,
        recorded=recorded,
        refused=prepared.error,
        adapter=adapter,
        command=command,
        limits=task.limits.meet(config.limits).else_(DEFAULT_LIMITS),
        routes=routes,
        route=route,
        held=None if room is None else means.slots.at(room),
        before=continued.before if continued else None,
        resumed=continued.run_id if continued else None,
        auth=auth_of(agent, command, config),
        notes=notes,
        ledger=means.ledger,
        looks=means.looks,
        person=means.person,
        handing=handing,
        hidden=() if handing is None else (handing.token,),
        used=partial(use_through, way) if isinstance(way, Passage) else None,
    )


def _trusting(agent: Agent, option: str, task: Task) -> Agent:
    """The agent, told to trust the folder or not: what a repository's settings name, another model
    server for one, is not known to stay at home.
    """
    if task.privacy != "local":
        return agent
    rest = {name: value for name, value in agent.options.items() if name != option}
    return replace(agent, options=rest)


def _trust_told(agent: Agent, option: str) -> str:
    if option in agent.options:
        what = "what the repository brings for it counts, and may loosen its access"
        return f"{agent.name} trusts the folder ({option}): {what}"
    return f"privacy: local: {agent.name} does not trust the folder; {option} is left out"


def _handing(task: Task, means: Means) -> Handing | None:
    """What the task's agent hands on work with, if it may."""
    depth = task.limits.meet(means.config.limits).else_(DEFAULT_LIMITS).depth
    if not task.delegation or depth == 0 or means.desk is None or means.also is None:
        return None
    return Handing(
        desk=means.desk,
        config=means.config,
        slots=means.slots,
        ledger=means.ledger,
        do=means.also,
        check=lambda child: check_task(child, means.config, None),
        prompt=task.prompt,
    )


@cache
def _has_mcp() -> bool:
    """Whether the MCP server can be started."""
    return find_spec("mcp") is not None


def _home(task: Task, agent: Agent, run_id: str, config: Config) -> str | None:
    """The agent's private home: a resumed session stays in the one that it was made in."""
    if task.home is not None:
        return str(task.home)
    if agent.profile == "user":
        return None
    return str(config.state / "runs" / run_id / "home")


async def _scripted(agent: Agent, stack: AsyncExitStack) -> tuple[Agent, tuple[str, ...]]:
    """Start the scripted model server that the agent's URL names; the agent then speaks to it."""
    from orchestrator.testing import model_server

    file, script = script_of(agent.base_url or "")
    server = await stack.enter_async_context(model_server(script))
    note = f"the model is scripted: {file.name} is played, no model is asked"
    return replace(agent, base_url=server.base_url, api_key_env=None, tier="local"), (note,)
