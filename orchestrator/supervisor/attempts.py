"""One task, from the choice of an agent to its outcome: attempt after attempt, each a run.

route -> place (a workspace) -> perform -> what follows (`following`), until nothing does.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from contextlib import AsyncExitStack
from dataclasses import replace
from datetime import UTC, datetime

import anyio

from orchestrator.adapter import about_of
from orchestrator.discovery import Ready, ready, routes_of, with_model
from orchestrator.errors import ReaperLostError
from orchestrator.events import Error, Failure, Outcome, Retry, RouteEscalated, Update
from orchestrator.gateway import Passage
from orchestrator.outcome import STATUS
from orchestrator.route import Route
from orchestrator.run.attempt import perform
from orchestrator.run.control import Control
from orchestrator.run.plan import Plan
from orchestrator.run.recorder import new_run_id
from orchestrator.supervisor.following import (
    EARLY_FAILURES,
    Clock,
    Done,
    Next,
    continued,
    following,
    summed,
)
from orchestrator.supervisor.means import Means
from orchestrator.supervisor.placing import Handed, ended_as, in_place, placed_for
from orchestrator.supervisor.planning import plan_of
from orchestrator.task import DEFAULT_LIMITS, Task
from orchestrator.workspace.git import GitError
from orchestrator.workspace.worktree import ConflictError


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
    means.commits[task.id] = ended_as(task, outcome, means)
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
            placed = await control.until(placed_for, handed, run_id, means, stack)
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
        plan = await plan_of(placed[0], (route, prepared, way), routes, run_id, means, stack)
        plan = _in_order(plan, step, done, made=placed[1] is not None or task.template is not None)
        outcome = await perform(
            in_place(plan, placed[1], means),
            config=means.config,
            reaper=means.reaper,
            control=control,
            publish=means.publish,
        )
        refused = prepared.error is not None
        return Done(route=route, outcome=outcome, workspace=placed[0].workspace, refused=refused)


def _handed(task: Task, step: Next, done: Sequence[Done]) -> Handed:
    """The task for this attempt: afresh, or with what the agent before it left."""
    before = _last_begun(done)
    if before is None or step.again or task.handoff == "clean" or before.workspace is None:
        return Handed(task=task)
    task = replace(task, prompt=continued(task, before.outcome, before.route.agent.name))
    if task.template is not None:
        return Handed(task=replace(task, template=None, workspace=before.workspace))
    changes = before.outcome.changes
    return Handed(task=task, commit=changes.commit if changes else None)


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
