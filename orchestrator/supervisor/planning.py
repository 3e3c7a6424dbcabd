"""The plan of a run, for a chosen agent in its place: its home, its command, what it hands on."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AsyncExitStack
from dataclasses import dataclass, field, replace
from functools import cache, partial
from importlib.util import find_spec

from orchestrator.adapter import About, Adapter, Agent, about_of
from orchestrator.answer import asked
from orchestrator.config import Config
from orchestrator.discovery import Ready, auth_of, room_of
from orchestrator.gateway import Passage, use_through
from orchestrator.journal import now
from orchestrator.route import Route
from orchestrator.run.plan import Plan
from orchestrator.supervisor.checking import check_task, script_of
from orchestrator.supervisor.desk import TOLD, Handing
from orchestrator.supervisor.means import Means
from orchestrator.task import Task


@dataclass(frozen=True, kw_only=True)
class Chosen:
    """An agent that was chosen and looked at: by which route, as it is to run, and through which
    gateway, where it goes through one.
    """

    route: Route
    prepared: Ready
    passage: Passage | None = None


@dataclass(frozen=True, kw_only=True)
class _Draft:
    """A plan in the making: task and agent as the adapter gets them. `recorded`, `notes` and
    `handing` are the plan's; `env` is what the command gets besides the adapter's own.
    """

    task: Task
    agent: Agent
    recorded: Agent
    notes: tuple[str, ...] = ()
    handing: Handing | None = None
    env: Mapping[str, str] = field(default_factory=dict[str, str])

    def noting(self, *notes: str) -> _Draft:
        return replace(self, notes=(*self.notes, *notes))


async def plan_of(
    task: Task, chosen: Chosen, run_id: str, means: Means, stack: AsyncExitStack
) -> Plan:
    """The plan of a task's run by this agent, if it is the only one. What `stack` holds open is
    for the run alone. Raises InputError for a script that cannot be played.
    """
    config, route = means.config, chosen.route
    adapter = config.adapters[route.agent.adapter]
    draft = _begun(task, chosen, _home(task, route.agent, run_id, config))
    draft = _trusting(_expecting(await _played(draft, stack)), adapter)
    about = about_of(adapter, draft.agent)
    draft = _handing_on(_with_servers(draft, about), about, means)
    command = adapter.command(draft.task, draft.agent)
    room = room_of(route.agent, about, config)
    return Plan(
        job_id=means.job_id,
        run_id=run_id,
        started=now(),
        task=draft.task,
        agent=draft.agent,
        recorded=draft.recorded,
        refused=chosen.prepared.error,
        adapter=adapter,
        command=replace(command, env={**command.env, **draft.env}),
        limits=means.limits_of(task),
        route=route,
        held=None if room is None else means.slots.at(room),
        before=means.continued.before if means.continued else None,
        resumed=means.continued.run_id if means.continued else None,
        auth=auth_of(draft.agent, command, config),
        notes=draft.notes,
        ledger=means.ledger,
        looks=means.looks,
        person=means.person,
        handing=draft.handing,
        hidden=() if draft.handing is None else (draft.handing.token,),
        used=None if chosen.passage is None else partial(use_through, chosen.passage),
    )


def _begun(task: Task, chosen: Chosen, home: str | None) -> _Draft:
    """The agent with its home, at its gateway if it goes through one."""
    recorded = replace(chosen.prepared.agent, home=home)
    draft = _Draft(task=task, agent=recorded, recorded=recorded)
    draft = draft.noting(*filter(None, [chosen.route.note]), *chosen.prepared.notes)
    if (passage := chosen.passage) is None:
        return draft
    return replace(draft, agent=replace(passage.agent, home=home)).noting(passage.note)


async def _played(draft: _Draft, stack: AsyncExitStack) -> _Draft:
    """With the scripted model server that the agent's URL names, if it does, started: the agent
    speaks to it.
    """
    url = draft.agent.base_url
    if url is None or not url.startswith("scripted:"):
        return draft
    from orchestrator.testing import model_server

    file, script = script_of(url)
    server = await stack.enter_async_context(model_server(script))
    agent = replace(draft.agent, base_url=server.base_url, api_key_env=None, tier="local")
    recorded = replace(agent, base_url=draft.recorded.base_url)
    note = f"the model is scripted: {file.name} is played, no model is asked"
    return replace(draft, agent=agent, recorded=recorded).noting(note)


def _expecting(draft: _Draft) -> _Draft:
    """The prompt says which answer is expected."""
    if (expected := draft.task.expect) is None:
        return draft
    return _prompted(draft, asked(expected))


def _prompted(draft: _Draft, more: str) -> _Draft:
    return replace(draft, task=replace(draft.task, prompt=f"{draft.task.prompt}\n\n{more}"))


def _trusting(draft: _Draft, adapter: Adapter) -> _Draft:
    """The agent, told to trust the folder or not: what a repository's settings name, another model
    server for one, is not known to stay at home.
    """
    agent, recorded = draft.agent, draft.recorded
    option = about_of(adapter, agent).trust_option
    if option is None or not agent.options.get(option):
        return draft
    if draft.task.privacy != "local":
        what = "what the repository brings for it counts, and may loosen its access"
        return draft.noting(f"{agent.name} trusts the folder ({option}): {what}")
    draft = replace(draft, agent=_without(option, agent), recorded=_without(option, recorded))
    why = f"{agent.name} does not trust the folder; {option} is left out"
    return draft.noting(f"privacy: local: {why}")


def _without(option: str, agent: Agent) -> Agent:
    rest = {name: value for name, value in agent.options.items() if name != option}
    return replace(agent, options=rest)


def _with_servers(draft: _Draft, about: About) -> _Draft:
    """Says so where the agent takes none of the task's MCP servers."""
    if not draft.task.mcp_servers or about.mcp:
        return draft
    names = ", ".join(server.name for server in draft.task.mcp_servers)
    return draft.noting(f"{draft.agent.name} takes no MCP servers: it is without {names}")


def _handing_on(draft: _Draft, about: About, means: Means) -> _Draft:
    """With what the agent hands on work by, if it may: an MCP server of ours, else a command."""
    task = draft.task
    handing = _handing(task, means)
    if handing is None:
        return draft
    draft = replace(draft, handing=handing)
    if about.mcp and _has_mcp():
        servers = (*task.mcp_servers, handing.server())
        return replace(draft, task=replace(task, mcp_servers=servers))
    if about.mcp:
        draft = draft.noting("delegation by the command alone: pip install 'orchestrate[mcp]'")
    env = handing.variables(means.config.environ.get("PATH"))
    return replace(_prompted(draft, TOLD), env=env)


def _handing(task: Task, means: Means) -> Handing | None:
    """What the task's agent hands on work with, if it may."""
    depth = means.limits_of(task).depth
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
