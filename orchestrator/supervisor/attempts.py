"""One task, from the choice of an agent to its outcome: attempt after attempt, each a run.

route -> place (a workspace) -> perform -> what follows. Today that is one attempt.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, AsyncExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from orchestrator.adapter import Agent
from orchestrator.answer import asked
from orchestrator.config import Config, agents_for
from orchestrator.discovery import auth_of, look
from orchestrator.errors import InputError
from orchestrator.events import Failure, Outcome, Usage
from orchestrator.journal import make_private
from orchestrator.route import Route, choose
from orchestrator.run.attempt import Control, Plan, Reaper, new_run_id, perform, until
from orchestrator.run.recorder import Publish
from orchestrator.task import DEFAULT_LIMITS, Task
from orchestrator.workspace.snapshot import make_scratch

if TYPE_CHECKING:
    from orchestrator.testing.script import Script


@dataclass(frozen=True, kw_only=True)
class Continued:
    """What a resumed run goes on from: the run, its agent as it was, and the session's usage so
    far.
    """

    run_id: str
    agent: Agent
    before: Usage | None


@dataclass(frozen=True, kw_only=True)
class Means:
    """What the attempts of a job are made with. `control` opens one for each attempt."""

    config: Config
    reaper: Reaper
    control: Callable[[], AbstractContextManager[Control]]
    publish: Publish
    job_id: str
    continued: Continued | None = None


async def attempts(task: Task, means: Means) -> Outcome:
    """Do a task. A failed agent is an outcome; raises as `Supervisor.run` does."""
    routes = _routes(task, means)
    done: list[Outcome] = []
    while (route := following(routes, done)) is not None:
        done.append(await _attempt(task, route, routes, means))
    return done[-1] if done else _unroutable(task, routes)


def following(routes: Sequence[Route], done: Sequence[Outcome]) -> Route | None:
    """The route of the next attempt after those that are done; None is the end. Pure.

    The best usable one, once: nothing is tried again or elsewhere.
    """
    if done or not routes or routes[0].rank is None:
        return None
    return routes[0]


def check_task(task: Task, config: Config, continued: Continued | None) -> None:
    """Raises InputError if the task cannot be meant: before anything of its job is started."""
    if continued is None:
        agents_for(task.agent, config)
    if task.base_url is not None and task.base_url.startswith("scripted:"):
        _script(task.base_url)
    if task.template is None:
        _check_workspace(task.workspace)
    elif not task.template.is_dir():
        raise InputError(f"workspace.scratch: no folder {task.template}")


async def _attempt(task: Task, route: Route, routes: tuple[Route, ...], means: Means) -> Outcome:
    """One run, in its place, from spawn to outcome; or how it came to none."""
    run_id = new_run_id()
    async with AsyncExitStack() as stack:
        control = stack.enter_context(means.control())
        placed = await until(control.requested, _placed, task, run_id, means)
        if placed is None:
            failure = Failure(kind="interrupted", text=control.why or "interrupted")
            return Outcome(status="interrupted", error=failure)
        plan = await _plan(placed, route, routes, run_id, means, stack)
        return await perform(
            plan,
            config=means.config,
            reaper=means.reaper,
            control=control,
            publish=means.publish,
        )


# --- route ---------------------------------------------------------------------------------------


def _routes(task: Task, means: Means) -> tuple[Route, ...]:
    continued, config = means.continued, means.config
    agents = (continued.agent,) if continued else agents_for(task.agent, config)
    named = task.agent is not None or continued is not None
    placed, state = look(agents, config, named=named)
    return choose(task, placed, state)


def _unroutable(task: Task, routes: Sequence[Route]) -> Outcome:
    """No agent could be chosen: an outcome without a run, with every agent's reason."""
    relevant = [route for route in routes if task.agent in {None, route.agent.name}]
    reasons = "; ".join(f"{route.agent.name}: {route.reason}" for route in relevant)
    failure = Failure(
        kind="unroutable",
        text=f"no agent can do this task: {reasons or 'none is configured or installed'}",
        hint="Install an agent, or name one that fits with --agent.",
    )
    return Outcome(status="unroutable", error=failure, evidence=[failure.text])


# --- place ---------------------------------------------------------------------------------------


async def _placed(task: Task, run_id: str, means: Means) -> Task:
    """The task with its workspace in place."""
    if task.template is not None:
        name = f"{task.name or task.template.name}-{run_id[-8:]}"
        target = means.config.state / "scratch" / name
        make_private(target.parent)
        await make_scratch(means.reaper, task.template, target)
        return replace(task, workspace=target, template=None)
    _check_workspace(task.workspace)
    return replace(task, workspace=task.workspace.resolve())


def _check_workspace(folder: Path) -> None:
    if not folder.is_dir():
        raise InputError(f"workspace: no folder {folder}")
    if not os.access(folder, os.R_OK | os.X_OK):
        raise InputError(f"workspace: no permission to read {folder}")


# --- perform -------------------------------------------------------------------------------------


async def _plan(
    task: Task,
    route: Route,
    routes: tuple[Route, ...],
    run_id: str,
    means: Means,
    stack: AsyncExitStack,
) -> Plan:
    config, continued = means.config, means.continued
    adapter = config.adapters[route.agent.adapter]
    agent = replace(route.agent, home=_home(task, route.agent, run_id, config))
    notes: tuple[str, ...] = ()
    if route.agent.base_url is not None and route.agent.base_url.startswith("scripted:"):
        agent, notes = await _scripted(agent, stack)
    if task.expect is not None:
        task = replace(task, prompt=f"{task.prompt}\n\n{asked(task.expect)}")
    command = adapter.command(task, agent)
    return Plan(
        job_id=means.job_id,
        run_id=run_id,
        task=task,
        agent=agent,
        recorded=replace(agent, base_url=route.agent.base_url),
        adapter=adapter,
        command=command,
        limits=task.limits.meet(config.limits).else_(DEFAULT_LIMITS),
        routes=routes,
        before=continued.before if continued else None,
        resumed=continued.run_id if continued else None,
        auth=auth_of(agent, command, config),
        notes=notes,
    )


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

    file, script = _script(agent.base_url or "")
    server = await stack.enter_async_context(model_server(script))
    note = f"the model is scripted: {file.name} is played, no model is asked"
    return replace(agent, base_url=server.base_url, api_key_env=None, tier="local"), (note,)


def _script(base_url: str) -> tuple[Path, Script]:
    from orchestrator.testing import ScriptError, load_script

    file = Path(base_url.removeprefix("scripted:"))
    try:
        return file, load_script(file)
    except (OSError, ScriptError) as error:
        raise InputError(f"base_url: {error}") from error
