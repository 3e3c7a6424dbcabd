"""One task, from the choice of an agent to its outcome: attempt after attempt, each a run.

route -> place (a workspace) -> perform -> what follows (`following`), until nothing does.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, replace
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
from orchestrator.supervisor.placing import Handed, Placed, ended_as, in_place, placed_for
from orchestrator.supervisor.planning import Chosen, plan_of
from orchestrator.task import Task
from orchestrator.workspace.git import GitError
from orchestrator.workspace.worktree import ConflictError


@dataclass(frozen=True, kw_only=True)
class _Turn:
    """One attempt at a task: the step that it is, of which routes, after which other attempts."""

    task: Task
    step: Next
    routes: tuple[Route, ...]
    done: Sequence[Done]


async def attempts(task: Task, means: Means) -> Outcome:
    """Do a task. A failed agent is an outcome; raises as `Supervisor.run` does."""
    if means.continued is not None:
        task = replace(task, retries=0)  # a session that went on once is not the same any more
    began, paused_s = anyio.current_time(), 0.0
    routes, limits = await _routes(task, means), means.limits_of(task)
    done: list[Done] = []
    while (
        step := following(task, routes, done, limits, _clock(task, paused_s, means))
    ) is not None:
        turn = _Turn(task=task, step=step, routes=routes, done=tuple(done))
        if done:
            means.say(_announced(turn))
            paused_s += step.delay_s
            if (stopped := await _pause(step.delay_s, means)) is not None:
                done.append(Done(route=step.route, outcome=stopped))
                break
        done.append(await _attempt(turn, means))
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


def _announced(turn: _Turn) -> Update:
    """The event of a further attempt: nothing is tried again or elsewhere in silence."""
    step, done = turn.step, turn.done
    why = step.why or "it failed"
    if step.again:
        tried = sum(each.route.agent.name == step.route.agent.name for each in done)
        return Retry(reason=why, attempt=tried, of=turn.task.retries, delay_s=step.delay_s)
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


async def _attempt(turn: _Turn, means: Means) -> Done:
    """One run, in its place, from spawn to outcome; or how it came to none."""
    run_id, route = new_run_id(), turn.step.route
    async with AsyncExitStack() as stack:
        control = stack.enter_context(means.control())
        agent = await control.until(with_model, route.agent, means.config)
        if isinstance(agent, Error):
            return Done(route=route, outcome=_without_model(agent), refused=True)
        if agent is None:
            return Done(route=route, outcome=_stopped(control))
        found = await control.until(ready, agent, turn.task, means.config)
        placed = await _placed(turn, run_id, control, means, stack)
        if isinstance(placed, Outcome):
            return Done(route=route, outcome=placed)
        chosen = Chosen(route=replace(route, agent=agent), prepared=found or Ready(agent=agent))
        chosen, means = await _on_its_way(chosen, control, means)
        plan = await plan_of(placed.task, chosen, run_id, means, stack)
        outcome = await perform(
            in_place(_in_order(plan, turn, placed), placed.made, means),
            config=means.config,
            reaper=means.reaper,
            control=control,
            publish=means.publish,
        )
        return Done(
            route=chosen.route,
            outcome=outcome,
            workspace=placed.task.workspace,
            refused=chosen.prepared.error is not None,
        )


async def _placed(
    turn: _Turn, run_id: str, control: Control, means: Means, stack: AsyncExitStack
) -> Placed | Outcome:
    """The task in its place; or what became of it, because there is none."""
    placed = None
    try:
        placed = await control.until(placed_for, _handed(turn), run_id, means, stack)
    except ReaperLostError as error:
        control.stop("interrupted", str(error))
    except ConflictError as error:
        text = f"what it needs cannot be merged: {error}"
        hint = "Let one of these tasks need the other, or let them change other files."
        failure = Failure(kind="conflict", text=text, hint=hint)
        return Outcome(status="conflict", error=failure, evidence=[text])
    except GitError as error:
        failure = Failure(kind="crashed", text=f"no work tree: {error}", hint=error.hint)
        return Outcome(status="failed", error=failure, evidence=[failure.text])
    return placed or _stopped(control)


def _handed(turn: _Turn) -> Handed:
    """The task for this attempt: afresh, or with what the agent before it left."""
    task, before = turn.task, _last_begun(turn.done)
    if before is None or turn.step.again or task.handoff == "clean" or before.workspace is None:
        return Handed(task=task)
    task = replace(task, prompt=continued(task, before.outcome, before.route.agent.name))
    if task.template is not None:
        return Handed(task=replace(task, template=None, workspace=before.workspace))
    changes = before.outcome.changes
    return Handed(task=task, commit=changes.commit if changes else None)


def _last_begun(done: Sequence[Done]) -> Done | None:
    """The last attempt in which an agent was started."""
    return next((each for each in reversed(done) if not each.refused), None)


def _in_order(plan: Plan, turn: _Turn, placed: Placed) -> Plan:
    """The plan as one of several attempts."""
    notes, own = plan.notes, placed.made is not None or turn.task.template is not None
    if _last_begun(turn.done) is not None and not own:
        notes = (*notes, "it begins with what the attempt before left in the folder itself")
    return replace(
        plan,
        routes=turn.routes,
        limits=turn.step.limits,
        attempt=len(turn.done) + 1,
        failures=None if turn.step.last else EARLY_FAILURES,
        notes=notes,
    )


async def _on_its_way(chosen: Chosen, control: Control, means: Means) -> tuple[Chosen, Means]:
    """Through a gateway, where the agent needs one, whose key is in the environment then; refused
    where there is none to be had.
    """
    prepared = chosen.prepared
    match await control.until(_way, prepared, means):
        case Passage(environ=environ) as passage:
            config = replace(means.config, environ=environ)
            return replace(chosen, passage=passage), replace(means, config=config)
        case Error() as error:
            return replace(chosen, prepared=replace(prepared, error=error)), means
        case None:
            return chosen, means


async def _way(prepared: Ready, means: Means) -> Passage | Error | None:
    if prepared.error is not None or prepared.found is None or means.gateways is None:
        return None
    agent = prepared.agent
    about = about_of(means.config.adapters[agent.adapter], agent)
    return await means.gateways.through(agent, about, prepared.found)


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
