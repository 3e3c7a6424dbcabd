"""What a task does after an attempt: the same agent again, the next one, or nothing. Pure.

Again: only after a failure that may pass, and as often as the task's `retries` say. The next one:
the next route where this one was not even begun, a server elsewhere where the first cannot be
reached, else the next stage of the route. From home to the cloud leads none of them unless the user
wrote that. Limits of time hold for all attempts of a task together.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path

from orchestrator.adapter import Agent
from orchestrator.budget import Spent
from orchestrator.events import ErrorKind, Failure, Outcome, Usage
from orchestrator.route import Route, stages
from orchestrator.task import Limits, Task
from orchestrator.usage import add

TRANSIENT: frozenset[ErrorKind] = frozenset(
    {"unavailable", "server_error", "rate_limited", "crashed", "stalled"}
)
"""What may have passed when the same is tried again."""

FINAL: frozenset[ErrorKind] = frozenset(
    {
        # somebody's will, or no fault of the agent's
        "interrupted",
        "cancelled",
        "skipped",
        "unroutable",
        "conflict",
        "setup_failed",
        # the work went somewhere else than it was sent: nothing more is sent anywhere
        "route_mismatch",
    }
)
"""What another agent would not mend."""

FIRST_DELAY_S, LONGEST_DELAY_S = 2.0, 60.0

EARLY_STEPS = 80
"""Tool calls after which a local agent that has a successor is ended: on SWE-bench Verified, this
bound kept 90 % of a cloud model's quality for about half of its price."""

EARLY_FAILURES = 8
"""The same for tool calls that fail one after the other: it goes round in circles."""


@dataclass(frozen=True, kw_only=True)
class Done:
    """An attempt that is over. `workspace`: where it worked, None: it came to no place. `refused`:
    a look at its model server said that it cannot work there, so that nothing was started.
    """

    route: Route
    outcome: Outcome
    workspace: Path | None = None
    refused: bool = False


@dataclass(frozen=True, kw_only=True)
class Clock:
    """What the attempts of a task have `spent` together, their pauses apart (`paused_s`); `over`: a
    limit of the whole job was passed. `now` is UTC with its zone, `chance` at random from 0 to 1.
    """

    spent: Spent = Spent()
    paused_s: float = 0.0
    over: bool = False
    now: datetime
    chance: float


@dataclass(frozen=True, kw_only=True)
class Next:
    """The attempt to make: with whom and within which limits, `why` it is another one (None: it is
    the first), after how long. `again`: with the same agent. `last`: no other agent comes after
    this one.
    """

    route: Route
    limits: Limits
    why: str | None = None
    again: bool = False
    delay_s: float = 0.0
    last: bool = True


def following(
    task: Task, routes: Sequence[Route], done: Sequence[Done], limits: Limits, clock: Clock
) -> Next | None:
    """What is next after the attempts that are done; None is the end."""
    plan = stages(task, routes)
    if not done:
        return _next(plan[0], limits, clock, last=len(plan) == 1) if plan else None
    outcome, failure = done[-1].outcome, done[-1].outcome.error
    if outcome.ok or failure is None or failure.kind in FINAL or clock.over:
        return None
    left_s = left(limits, clock)
    if (left_s is not None and left_s <= 0) or _used_up(limits, failure, clock):
        return None
    onward = _onward(plan, done)
    why = f"{failure.kind}: {failure.text}"
    if done[-1].refused and (route := _instead(task, routes, done)) is not None:
        return replace(_next(route, limits, clock, last=onward is None), why=why)
    delay_s = _delay(task, done, failure, clock)
    if delay_s is not None and (left_s is None or delay_s < left_s):
        again = _next(done[-1].route, limits, clock, delay_s=delay_s, last=onward is None)
        return replace(again, why=why, again=True)
    if (route := _elsewhere(task, routes, done, failure)) is not None:
        return replace(_next(route, limits, clock, last=onward is None), why=why)
    return None if onward is None else replace(_next(onward, limits, clock), why=why)


def _next(
    route: Route, limits: Limits, clock: Clock, *, delay_s: float = 0.0, last: bool = True
) -> Next:
    clock = replace(clock, paused_s=clock.paused_s + delay_s)
    shared = share(limits, clock, last=last)
    return Next(route=route, limits=shared, delay_s=delay_s, last=last)


def left(limits: Limits, clock: Clock) -> float | None:
    """How much time is left for a task, in seconds; None is no bound."""
    return None if limits.wall_s is None else limits.wall_s - clock.spent.ran_s - clock.paused_s


def share(limits: Limits, clock: Clock, *, last: bool) -> Limits:
    """The limits of a task while one attempt lasts; what the earlier ones spent counts in them.

    Pauses are taken off its time. Where another agent follows, half of what is left of it and so
    many steps more, so that there is something left for the other.
    """
    ran_s, left_s = clock.spent.ran_s, left(limits, clock)
    part_s = None if left_s is None else left_s if last else left_s / 2
    wall_s = None if part_s is None else max(0.1, round(ran_s + part_s, 1))
    if last:
        return replace(limits, wall_s=wall_s)
    steps = clock.spent.steps + EARLY_STEPS
    return replace(limits, wall_s=wall_s, steps=min(steps, limits.steps or steps))


def _used_up(limits: Limits, failure: Failure, clock: Clock) -> bool:
    """Whether a budget of the whole task is spent: there is nothing left for another attempt."""
    if failure.kind != "budget_exceeded":
        return False
    early = limits.steps is None or clock.spent.steps < limits.steps
    return not (failure.limit == "steps" and early)


def _delay(task: Task, done: Sequence[Done], failure: Failure, clock: Clock) -> float | None:
    """How long to wait before the same agent tries again; None: it does not.

    Twice as long each time, half of it at random; never before the time that the server said.
    """
    last = done[-1]
    tried = sum(each.route.agent.name == last.route.agent.name for each in done)
    if tried > task.retries or last.outcome.run_id is None or not may_pass(failure):
        return None
    backoff = min(LONGEST_DELAY_S, FIRST_DELAY_S * 2.0 ** (tried - 1)) * (0.5 + clock.chance / 2)
    reset = _instant(failure.resets_at)
    wait = 0.0 if reset is None else max(0.0, (reset - clock.now).total_seconds())
    return round(wait + backoff, 3)


def may_pass(failure: Failure) -> bool:
    """Whether the same may work later: by the word of whoever failed, else by the kind."""
    return failure.kind in TRANSIENT if failure.retryable is None else failure.retryable


def _instant(text: str | None) -> datetime | None:
    try:
        instant = datetime.fromisoformat(text) if text is not None else None
    except ValueError:
        return None
    return instant if instant is not None and instant.tzinfo is not None else None


def _instead(task: Task, routes: Sequence[Route], done: Sequence[Done]) -> Route | None:
    """The next route that may do what this agent could not even begin, in their order.

    From home to the cloud is `_onward`'s to say. Where the server itself is the trouble, no other
    agent of it is tried, and where the model is, none that would use the same.
    """
    if task.agent is not None:
        return None
    tried = {each.route.agent.name for each in done}
    at_home = any(each.route.agent.tier == "local" for each in done)
    others = (
        route
        for route in routes
        if route.rank is not None
        and route.agent.name not in tried
        and not (at_home and route.agent.tier == "cloud")
        and not any(_would_be_refused(route.agent, each) for each in done if each.refused)
    )
    return next(others, None)


def _would_be_refused(agent: Agent, before: Done) -> bool:
    failure = before.outcome.error
    same = failure is not None and _blamed(before.route.agent, failure.kind)
    return failure is not None and _blamed(agent, failure.kind) == same


def _blamed(agent: Agent, kind: ErrorKind) -> object:
    """What a refusal of that kind is about: equal for agents that would be refused as well."""
    match kind:
        case "unavailable" | "timed_out" | "auth_failed" if agent.base_url is not None:
            return agent.base_url
        case "model_not_found" | "load_failed" | "out_of_memory" if agent.base_url is not None:
            return agent.base_url, agent.model
        case _:
            return agent.name


def _elsewhere(
    task: Task, routes: Sequence[Route], done: Sequence[Done], failure: Failure
) -> Route | None:
    """The next local agent at another address, where a local server could not be reached."""
    last = done[-1].route.agent
    if failure.kind != "unavailable" or last.tier == "cloud" or task.agent is not None:
        return None
    tried = {each.route.agent.base_url for each in done}
    others = (
        route
        for route in routes
        if route.rank is not None
        and route.agent.tier == "local"
        and route.agent.base_url not in tried
    )
    return next(others, None)


def _onward(plan: Sequence[Route], done: Sequence[Done]) -> Route | None:
    """The stage in the cloud, if there is one that was not reached yet."""
    tried = {each.route.agent.name for each in done}
    stage = plan[-1] if len(plan) > 1 else None
    return stage if stage is not None and stage.agent.name not in tried else None


# --- what they amount to -------------------------------------------------------------------------


def summed(routes: Sequence[Route], done: Sequence[Done], duration_s: float) -> Outcome:
    """The outcome of a task: its last attempt's, with what all of them used and the way to it."""
    last = done[-1].outcome
    error = last.error
    if error is not None and (remedy := _remedy(routes, done)) is not None:
        error = replace(error, hint=f"{error.hint} {remedy}" if error.hint else remedy)
    if len(done) == 1:
        return replace(last, error=error)
    return replace(
        last,
        error=error,
        usage=_used(done),
        duration_s=round(duration_s, 3),
        evidence=[*_path(done), *last.evidence],
    )


def _remedy(routes: Sequence[Route], done: Sequence[Done]) -> str | None:
    """The key that would have let the work go on in the cloud, where there is one that could."""
    error, last = done[-1].outcome.error, done[-1].route.agent
    if error is None or error.kind in FINAL or last.tier == "cloud":
        return None
    return next((route.remedy for route in routes if route.remedy is not None), None)


def _used(done: Sequence[Done]) -> Usage | None:
    """The sum of all runs; the cost of one that told nothing is not 0."""
    total: Usage | None = None
    for each in done:
        total = add(total, each.outcome.usage)
    untold = any(each.outcome.run_id and each.outcome.usage is None for each in done)
    return replace(total, cost_usd=None, cost_source=None) if total and untold else total


def _path(done: Sequence[Done]) -> list[str]:
    lines: list[str] = []
    for number, each in enumerate(done, 1):
        error = each.outcome.error
        why = f" ({error.kind}: {error.text})" if error is not None else ""
        run = f", run {each.outcome.run_id}" if each.outcome.run_id else ""
        lines.append(f"attempt {number}: {each.route.agent.name}: {each.outcome.status}{why}{run}")
    return lines


def continued(task: Task, before: Outcome, agent: str) -> str:
    """The prompt for an agent that goes on with what another one left."""
    why = before.error.text if before.error else before.status
    words = (before.text or "").strip()
    said = f" Its last words:\n{words}" if words else ""
    return (
        f"{task.prompt}\n\nAnother agent ({agent}) worked on this before and did not finish it: "
        f"{why}. What it changed is in the folder; check it and go on from there.{said}"
    )
