"""One task, from the choice of an agent to its outcome: attempt after attempt, each a run.

route -> place (a workspace) -> perform -> what follows (`following`), until nothing does.
"""

from __future__ import annotations

import os
import random
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, AsyncExitStack
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from functools import cache, partial
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

import anyio

from orchestrator.adapter import Agent, about_of
from orchestrator.answer import asked
from orchestrator.budget import Ledger
from orchestrator.config import Config, agents_for
from orchestrator.discovery import Ready, auth_of, ready, room_of, routes_of, with_model
from orchestrator.errors import InputError, ReaperLostError
from orchestrator.events import (
    Error,
    Failure,
    Outcome,
    Retry,
    RouteEscalated,
    Update,
    Usage,
)
from orchestrator.gateway import Gateways, Passage, use_through
from orchestrator.graph import before
from orchestrator.journal import Tree, make_private, now
from orchestrator.outcome import STATUS
from orchestrator.redaction import REDACTED, known, pattern
from orchestrator.route import Route
from orchestrator.run.attempt import Reaper, perform
from orchestrator.run.control import Control
from orchestrator.run.plan import Deliver, Plan
from orchestrator.run.questions import Person
from orchestrator.run.recorder import Publish, new_run_id
from orchestrator.slots import Slots
from orchestrator.supervisor.children import Do
from orchestrator.supervisor.desk import TOLD, Desk, Handing
from orchestrator.supervisor.following import (
    EARLY_FAILURES,
    Clock,
    Done,
    Next,
    continued,
    following,
    summed,
)
from orchestrator.task import DEFAULT_LIMITS, Source, Task, TaskFile
from orchestrator.workspace.deliver import Delivery, Parcel
from orchestrator.workspace.git import GitError
from orchestrator.workspace.looks import Looks
from orchestrator.workspace.place import Ground, Place, Want, ground, place
from orchestrator.workspace.snapshot import make_scratch
from orchestrator.workspace.source import fetched
from orchestrator.workspace.worktree import ConflictError

if TYPE_CHECKING:
    from orchestrator.testing.script import Script


@dataclass(frozen=True, kw_only=True)
class Continued:
    """What a resumed run goes on from: the run, its agent as it was, the session's usage so far,
    and where it had a work tree to itself that tree and the commit that it ended as.
    """

    run_id: str
    agent: Agent
    before: Usage | None
    tree: Tree | None = None
    commit: str | None = None


def _unheard(update: Update) -> None:
    del update


@dataclass(frozen=True, kw_only=True)
class Means:
    """What the attempts of a job are made with. `control` opens one for each attempt.

    `say` tells what is not of one attempt. `also` does a task that one of them hands on, which it
    asks for at the `desk`. `grounds` are what the tasks stand on that work in work
    trees of their own, `commits` what they came to, `leaves` the tasks that nobody needs. `ledger`
    is where all runs write down what they spend, `looks` sees folders that several may work in,
    `person` answers what agents ask for.
    """

    config: Config
    reaper: Reaper
    control: Callable[[], AbstractContextManager[Control]]
    publish: Publish
    job_id: str
    slots: Slots
    say: Callable[[Update], None] = field(default=_unheard)
    also: Do | None = None
    desk: Desk | None = None
    gateways: Gateways | None = None
    continued: Continued | None = None
    grounds: Mapping[str, Ground] = field(default_factory=dict[str, Ground])
    commits: dict[str, tuple[str, ...]] = field(default_factory=dict[str, tuple[str, ...]])
    leaves: frozenset[str] = frozenset()
    delivery: Delivery = field(default_factory=Delivery)
    ledger: Ledger = field(default_factory=Ledger)
    looks: Looks = field(default_factory=Looks)
    person: Person = field(default_factory=Person)


async def attempts(task: Task, means: Means) -> Outcome:
    """Do a task. A failed agent is an outcome; raises as `Supervisor.run` does."""
    if means.continued is not None:
        task = replace(task, retries=0)  # a session that went on once is not the same any more
    began, paused_s = anyio.current_time(), 0.0
    routes = await _routes(task, means)
    limits = task.limits.meet(means.config.limits).else_(DEFAULT_LIMITS)
    done: list[Done] = []
    while (
        step := following(task, routes, done, limits, _clock(task, paused_s, means))
    ) is not None:
        if done:
            means.say(_announced(step, done, task))
            paused_s += step.delay_s
            if (stopped := await _pause(step.delay_s, means)) is not None:
                done.append(Done(route=step.route, outcome=stopped))
                break
        done.append(await _attempt(task, step, routes, done, means))
    if not done:
        return _unroutable(task, routes)
    outcome = summed(routes, done, anyio.current_time() - began)
    means.commits[task.id] = _ended_as(task, outcome, means)
    return outcome


def _clock(task: Task, paused_s: float, means: Means) -> Clock:
    return Clock(
        spent=means.ledger.task(task.id),
        over=means.ledger.passed is not None,
        paused_s=paused_s,
        now=datetime.now(UTC),
        chance=random.random(),  # noqa: S311 (jitter)
    )


def _announced(step: Next, done: Sequence[Done], task: Task) -> Update:
    """The event of a further attempt: nothing is tried again or elsewhere in silence."""
    why = step.why or "it failed"
    if step.again:
        tried = sum(each.route.agent.name == step.route.agent.name for each in done)
        return Retry(reason=why, attempt=tried, of=task.retries, delay_s=step.delay_s)
    return RouteEscalated(
        from_agent=done[-1].route.agent.name,
        to_agent=step.route.agent.name,
        why=why,
        cost_usd=step.route.cost_usd,
    )


async def _pause(delay_s: float, means: Means) -> Outcome | None:
    """Wait; or what became of the task, because a stop was asked for."""
    with means.control() as control, anyio.move_on_after(delay_s):
        await control.requested.wait()
        return _stopped(control)
    return None


def _stopped(control: Control) -> Outcome:
    kind = control.stopped or "interrupted"
    failure = Failure(kind=kind, text=control.why or kind, limit=control.limit)
    return Outcome(status=STATUS[kind], error=failure)


def _ended_as(task: Task, outcome: Outcome, means: Means) -> tuple[str, ...]:
    """The commits that whoever needs this task starts from: its own, else those that it needed."""
    if outcome.changes is not None and outcome.changes.commit is not None:
        return (outcome.changes.commit,)
    return _needed(task, means)


def commits_of(file: TaskFile, ended: Mapping[str, Outcome]) -> dict[str, tuple[str, ...]]:
    """The same of tasks that were over before the job went on."""
    found: dict[str, tuple[str, ...]] = {}
    earlier = before(file.needs)
    for id_ in sorted(ended, key=lambda id_: len(earlier[id_])):
        changes = ended[id_].changes
        own = changes.commit if changes is not None else None
        needed = (commit for need in file.needs[id_] for commit in found.get(need, ()))
        found[id_] = (own,) if own is not None else tuple(dict.fromkeys(needed))
    return found


def _needed(task: Task, means: Means) -> tuple[str, ...]:
    every = (commit for need in task.needs for commit in means.commits.get(need, ()))
    return tuple(dict.fromkeys(every))


def check_task(task: Task, config: Config, continued: Continued | None) -> None:
    """Raises InputError if the task cannot be meant: before anything of its job is started."""
    if continued is None:
        agents_for(task.agent, config)
    if task.base_url is not None and task.base_url.startswith("scripted:"):
        _script(task.base_url)
    if task.source is not None:
        return
    if task.template is None:
        _check_workspace(task.workspace)
    elif not task.template.is_dir():
        raise InputError(f"workspace.scratch: no folder {task.template}")


async def _attempt(
    task: Task, step: Next, routes: tuple[Route, ...], done: Sequence[Done], means: Means
) -> Done:
    """One run, in its place, from spawn to outcome; or how it came to none."""
    run_id = new_run_id()
    over = Done(route=step.route, outcome=Outcome(status="interrupted"))
    async with AsyncExitStack() as stack:
        control = stack.enter_context(means.control())
        placed = None
        agent = await control.until(with_model, step.route.agent, means.config)
        if isinstance(agent, Error):
            return replace(over, outcome=_without_model(agent), refused=True)
        prepared = Ready(agent=agent or step.route.agent)
        if agent is not None:
            found = await control.until(ready, agent, task, means.config)
            prepared = found or prepared
        handed = _handed(task, step, done)
        try:
            placed = await control.until(_placed, handed, run_id, means, stack)
        except ReaperLostError as error:
            control.stop("interrupted", str(error))
        except ConflictError as error:
            text = f"what it needs cannot be merged: {error}"
            hint = "Let one of these tasks need the other, or let them change other files."
            failure = Failure(kind="conflict", text=text, hint=hint)
            outcome = Outcome(status="conflict", error=failure, evidence=[text])
            return replace(over, outcome=outcome)
        except GitError as error:
            failure = Failure(kind="crashed", text=f"no work tree: {error}", hint=error.hint)
            outcome = Outcome(status="failed", error=failure, evidence=[failure.text])
            return replace(over, outcome=outcome)
        if placed is None or agent is None:
            return replace(over, outcome=_stopped(control))
        way = await control.until(_way, prepared, means)
        prepared, means = _on_its_way(prepared, way, means)
        route = replace(step.route, agent=agent)
        plan = await _plan(placed[0], (route, prepared, way), routes, run_id, means, stack)
        plan = _in_order(plan, step, done, made=placed[1] is not None or task.template is not None)
        outcome = await perform(
            _in_place(plan, placed[1], means),
            config=means.config,
            reaper=means.reaper,
            control=control,
            publish=means.publish,
        )
        refused = prepared.error is not None
        return Done(route=route, outcome=outcome, workspace=placed[0].workspace, refused=refused)


@dataclass(frozen=True, kw_only=True)
class _Handed:
    """A task as an attempt gets it, with the commit that the one before left for it."""

    task: Task
    commit: str | None = None


def _handed(task: Task, step: Next, done: Sequence[Done]) -> _Handed:
    """The task for this attempt: afresh, or with what the agent before it left."""
    before = _last_begun(done)
    if before is None or step.again or task.handoff == "clean" or before.workspace is None:
        return _Handed(task=task)
    task = replace(task, prompt=continued(task, before.outcome, before.route.agent.name))
    if task.template is not None:
        return _Handed(task=replace(task, template=None, workspace=before.workspace))
    changes = before.outcome.changes
    return _Handed(task=task, commit=changes.commit if changes else None)


def _last_begun(done: Sequence[Done]) -> Done | None:
    """The last attempt in which an agent was started."""
    return next((each for each in reversed(done) if not each.refused), None)


def _in_order(plan: Plan, step: Next, done: Sequence[Done], *, made: bool) -> Plan:
    """The plan as one of several attempts. `made`: it has a place that was made for it."""
    notes = plan.notes
    if _last_begun(done) is not None and not made:
        notes = (*notes, "it begins with what the attempt before left in the folder itself")
    return replace(
        plan,
        limits=step.limits,
        attempt=len(done) + 1,
        failures=None if step.last else EARLY_FAILURES,
        notes=notes,
    )


async def _way(prepared: Ready, means: Means) -> Passage | Error | None:
    """Through a gateway, where the agent needs one."""
    if prepared.error is not None or prepared.found is None or means.gateways is None:
        return None
    agent = prepared.agent
    about = about_of(means.config.adapters[agent.adapter], agent)
    return await means.gateways.through(agent, about, prepared.found)


def _on_its_way(prepared: Ready, way: Passage | Error | None, means: Means) -> tuple[Ready, Means]:
    """What is refused for want of a way, and the environment that holds a gateway's key."""
    match way:
        case Passage(environ=environ):
            return prepared, replace(means, config=replace(means.config, environ=environ))
        case Error():
            return replace(prepared, error=way), means
        case None:
            return prepared, means


# --- route ---------------------------------------------------------------------------------------


async def _routes(task: Task, means: Means) -> tuple[Route, ...]:
    agents = None if means.continued is None else (means.continued.agent,)
    stated = task.limits.meet(means.config.limits)
    left_usd = means.ledger.left_usd(task.id, stated)
    return await routes_of(task, means.config, means.slots, agents=agents, left_usd=left_usd)


def _unroutable(task: Task, routes: Sequence[Route]) -> Outcome:
    """No agent could be chosen: an outcome without a run, with every agent's reason."""
    relevant = [route for route in routes if task.agent in {None, route.agent.name}]
    reasons = "; ".join(f"{route.agent.name}: {route.reason}" for route in relevant)
    remedy = next((route.remedy for route in relevant if route.remedy), None)
    failure = Failure(
        kind="unroutable",
        text=f"no agent can do this task: {reasons or 'none is configured or installed'}",
        hint=remedy or "Install an agent, or name one that fits with --agent.",
    )
    return Outcome(status="unroutable", error=failure, evidence=[failure.text])


def _without_model(error: Error) -> Outcome:
    """The chosen agent's server has no model that could be meant, or is not there to be asked."""
    failure = Failure(kind=error.kind, text=error.text, hint=error.hint)
    status = STATUS.get(error.kind, "failed")
    return Outcome(status=status, error=failure, evidence=[failure.text])


# --- place ---------------------------------------------------------------------------------------


async def grounds(
    tasks: Sequence[Task], config: Config, reaper: Reaper, *, exclude: Sequence[str] = ()
) -> Mapping[str, Ground]:
    """What each task stands on that is to work in a work tree of its own. `exclude`: patterns of
    files that are not taken along. Raises InputError.
    """
    found: dict[str, Ground] = {}
    known: dict[tuple[Path, bool], Ground | None] = {}
    sources: dict[Source, Ground] = {}
    for task in tasks:
        if task.source is not None:
            if task.source not in sources:
                state, environ = config.state.resolve(), config.environ
                sources[task.source] = await fetched(
                    reaper, task.source, state=state, environ=environ
                )
            found[task.id] = sources[task.source]
            continue
        if task.isolation == "none" or task.template is not None:
            continue
        key = (task.workspace.resolve(), task.include_uncommitted)
        if key not in known:
            known[key] = await ground(
                reaper,
                key[0],
                state=config.state.resolve(),
                environ=config.environ,
                include_uncommitted=task.include_uncommitted,
                exclude=exclude,
            )
        where = known[key]
        if where is not None:
            found[task.id] = where
        elif task.isolation == "worktree":
            raise InputError(
                f"isolation: {task.workspace} is in no git repository, or ignored by it",
                hint="Leave `isolation` out, and the task works in the folder itself.",
            )
    return found


async def _placed(
    handed: _Handed, run_id: str, means: Means, stack: AsyncExitStack
) -> tuple[Task, Place | None]:
    """The task with its workspace in place, and the work tree that was made for it."""
    task = handed.task
    if task.template is not None:
        name = f"{task.name or task.template.name}-{run_id[-8:]}"
        target = means.config.state / "scratch" / name
        make_private(target.parent)
        await make_scratch(means.reaper, task.template, target)
        return replace(task, workspace=target, template=None), None
    where = means.grounds.get(task.id)
    if task.source is not None and where is not None:
        task = replace(task, workspace=where.workspace)
    _check_workspace(task.workspace)
    if where is None:
        return replace(task, workspace=task.workspace.resolve()), None
    made = await stack.enter_async_context(
        place(means.reaper, where, _wanted(handed, run_id, means))
    )
    return replace(task, workspace=made.tree.workspace), made


def _wanted(handed: _Handed, run_id: str, means: Means) -> Want:
    task, before = handed.task, means.continued
    commit = handed.commit or (before.commit if before else None)
    resumed = before.tree if before else None
    return Want(
        run_id=run_id,
        name=task.name or "task",
        task=task.id,
        prompt=_without_keys(task, means.config),
        needs=(commit,) if commit else _needed(task, means),
        copy=task.copy,
        path=resumed.path if resumed else None,
        upon=resumed.upon if resumed else None,
    )


def _without_keys(task: Task, config: Config) -> str:
    """The prompt as the message of a commit may have it, which goes where the branch goes."""
    secret = pattern(known(task.env_from, config.environ))
    return task.prompt if secret is None else secret.sub(REDACTED, task.prompt)


def _in_place(plan: Plan, made: Place | None, means: Means) -> Plan:
    """The plan with its work tree, and what is to become of its commit."""
    if made is None:
        return plan
    deliver = _deliverer(plan, made, means) if plan.task.id in means.leaves else None
    return replace(plan, place=made, notes=(*plan.notes, *made.notes), deliver=deliver)


def _deliverer(plan: Plan, made: Place, means: Means) -> Deliver | None:
    task, environ = plan.task, means.config.environ
    match task.deliver:
        case "apply" if task.source is None:
            return partial(means.delivery.deliver, made, plan.run_id)
        case "push" if task.source is not None:
            return Parcel(place=made, form="push", environ=environ, source=task.source).deliver
        case "bundle" | "patch" as form:
            return Parcel(place=made, form=form, environ=environ).deliver
        case _:
            return None  # the branch is the result


def _check_workspace(folder: Path) -> None:
    if not folder.is_dir():
        raise InputError(f"workspace: no folder {folder}")
    if not os.access(folder, os.R_OK | os.X_OK):
        raise InputError(f"workspace: no permission to read {folder}")


# --- perform -------------------------------------------------------------------------------------


async def _plan(
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
