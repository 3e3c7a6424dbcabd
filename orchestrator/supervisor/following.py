"""What a task does after an attempt: the same agent again, the next one, or nothing. Pure.

Again: only after a failure that may pass, and as often as the task's `retries` say. The next one: a
server elsewhere where the first cannot be reached, else the next stage of the route, which leads
from home to the cloud only where the user wrote that. Limits of time hold for all attempts of a
task together.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime

from orchestrator.events import ErrorKind, Failure, Outcome, Usage
from orchestrator.route import REMEDY, Route, stages
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
    """An attempt that is over."""

    route: Route
    outcome: Outcome


@dataclass(frozen=True, kw_only=True)
class Clock:
    """`elapsed_s` since the task began, `now` (UTC, with its zone), `chance` at random from 0 to
    1.
    """

    elapsed_s: float
    now: datetime
    chance: float


@dataclass(frozen=True, kw_only=True)
class Next:
    """The attempt to make: with whom, `why` it is another one (None: it is the first), after how
    long. `again`: with the same agent. `last`: no other agent comes after this one.
    """

    route: Route
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
        return Next(route=plan[0], last=len(plan) == 1) if plan else None
    failure = done[-1].outcome.error
    if done[-1].outcome.ok or failure is None or failure.kind in FINAL:
        return None
    left_s = None if limits.wall_s is None else limits.wall_s - clock.elapsed_s
    if left_s is not None and left_s <= 0:
        return None
    again = _again(task, done, failure, left_s, clock)
    return again or _elsewhere(task, routes, done, failure) or _onward(plan, done, failure)


def _again(
    task: Task, done: Sequence[Done], failure: Failure, left_s: float | None, clock: Clock
) -> Next | None:
    """The same agent, after a pause; not if the pause would outlast the task."""
    last = done[-1]
    tried = sum(each.route.agent.name == last.route.agent.name for each in done)
    if tried > task.retries or last.outcome.run_id is None or not may_pass(failure):
        return None
    delay = _delay(tried, failure, clock)
    if left_s is not None and delay >= left_s:
        return None
    return Next(
        route=last.route, why=_cause(last.outcome), again=True, delay_s=round(delay, 3), last=False
    )


def may_pass(failure: Failure) -> bool:
    """Whether the same may work later: by the word of whoever failed, else by the kind."""
    return failure.kind in TRANSIENT if failure.retryable is None else failure.retryable


def _delay(tried: int, failure: Failure, clock: Clock) -> float:
    """Twice as long each time, half of it at random; never before the time that the server said."""
    backoff = min(LONGEST_DELAY_S, FIRST_DELAY_S * 2.0 ** (tried - 1))
    backoff *= 0.5 + clock.chance / 2
    reset = _instant(failure.resets_at)
    if reset is None:
        return backoff
    return max(0.0, (reset - clock.now).total_seconds()) + backoff


def _instant(text: str | None) -> datetime | None:
    try:
        instant = datetime.fromisoformat(text) if text is not None else None
    except ValueError:
        return None
    return instant if instant is not None and instant.tzinfo is not None else None


def _elsewhere(
    task: Task, routes: Sequence[Route], done: Sequence[Done], failure: Failure
) -> Next | None:
    """The next local agent at another address, where a local server could not be reached."""
    last = done[-1].route.agent
    if failure.kind != "unavailable" or last.tier == "cloud" or task.agent is not None:
        return None
    tried = {each.route.agent.base_url for each in done}
    for route in routes:
        agent = route.agent
        if route.rank is not None and agent.tier == "local" and agent.base_url not in tried:
            return Next(route=route, why=_cause(done[-1].outcome), last=False)
    return None


def _onward(plan: Sequence[Route], done: Sequence[Done], failure: Failure) -> Next | None:
    """The first stage that was not reached yet, which is in the cloud."""
    tried = {each.route.agent.name for each in done}
    for at, route in enumerate(plan):
        if route.agent.name not in tried and route.agent.tier == "cloud":
            return Next(route=route, why=_cause(done[-1].outcome), last=at == len(plan) - 1)
    return None


def _cause(outcome: Outcome) -> str:
    text = outcome.error.text if outcome.error else outcome.status
    kind = outcome.error.kind if outcome.error else outcome.status
    return f"{kind}: {text}"
