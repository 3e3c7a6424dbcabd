"""The budgets of runs: clock readings and counters in, a verdict out. Pure.

Silence is measured since the last sign of life: output, bytes received by the agent's processes,
and CPU time while a tool call is open. Which budget it is held against: before the model's first
word `first`, while a tool call is open `tool`, else `stall`.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Literal, TypeAlias

from orchestrator.errors import counted
from orchestrator.events import (
    Message,
    MessageDelta,
    Thought,
    ThoughtDelta,
    ToolCall,
    TurnFinished,
    TurnStarted,
    Update,
    Usage,
)
from orchestrator.task import Limits

Sign: TypeAlias = Literal["start", "output", "bytes", "cpu", "child", "person"]
"""A sign of life."""
Unit: TypeAlias = Literal["call", "turn", "run"]
Stop: TypeAlias = Literal["timed_out", "stalled", "budget_exceeded", "output_limit"]

LOAD_S = 5 * 60.0
"""What a local model has for being loaded, beyond `stall`, before its first word: ollama itself
gives up after this time (OLLAMA_LOAD_TIMEOUT)."""

_SIGNS: dict[Sign, str] = {
    "start": "its start",
    "output": "output",
    "bytes": "bytes that it received",
    "cpu": "CPU time of a tool",
    "child": "the wait for a sub-task",
    "person": "the wait for a person's answer",
}
_WAITS = {
    "first": "before the model's first word",
    "stall": "between its events",
    "tool": "while a tool ran",
}


_WORDS = frozenset[type[object]]({MessageDelta, ThoughtDelta, Thought, Message, ToolCall})
# What only a model that has begun to speak can say. Most updates are such.


@dataclass(kw_only=True)
class Counts:
    """What the updates of one run say about its budgets, folded as they come.

    A CLI that tells of no turns has one. `unit`: what usage was last told for. `weighty`: how many
    updates there were that limits may be about.
    """

    spoken: bool = False
    turns: int = 0
    in_turn: bool = True
    model_calls: int = 0
    unit: Unit = "run"
    weighty: int = 0

    def add(self, *updates: Update) -> None:
        """Take updates into account."""
        for update in updates:
            kind = type(update)
            if kind not in _WORDS:
                self._add(update)
            elif kind is ToolCall or not self.spoken:
                self.weighty += 1
                self.spoken = True

    def _add(self, update: Update) -> None:
        self.weighty += 1
        match update:
            case Usage(scope=scope):
                self.spoken, self.unit = True, scope
                self.model_calls += scope == "call"
            case TurnStarted():
                self.turns += 1
                self.in_turn = True
            case TurnFinished():
                self.in_turn = False
            case _:
                pass


@dataclass(frozen=True, kw_only=True)
class Spent:
    """What one or several runs have used. `cost_usd` is what is known of the cost."""

    ran_s: float = 0.0
    steps: int = 0
    tokens: int = 0
    cost_usd: float = 0.0


def total(parts: Iterable[Spent]) -> Spent:
    """All of it together."""
    all_ = list(parts)
    return Spent(
        ran_s=sum(part.ran_s for part in all_),
        steps=sum(part.steps for part in all_),
        tokens=sum(part.tokens for part in all_),
        cost_usd=sum(part.cost_usd for part in all_),
    )


def tokens(usage: Usage | None) -> int:
    """Tokens that the model read and wrote; cached ones are read, too."""
    if usage is None:
        return 0
    counts = (
        usage.input_tokens,
        usage.output_tokens,
        usage.cache_read_tokens,
        usage.cache_write_tokens,
    )
    return sum(count or 0 for count in counts)


@dataclass(frozen=True, kw_only=True)
class Reading:
    """What was measured of a running agent. Seconds: since the last sign of life (`quiet_s`) and
    in the turn, None if it has ended its turn. `spent` is the whole task's, earlier attempts
    included.
    """

    quiet_s: float = 0.0
    sign: Sign = "start"
    turn_s: float | None = None
    spoken: bool = False
    in_tool: bool = False
    local: bool = False
    output_bytes: int = 0
    spent: Spent = Spent()
    unit: Unit = "run"


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """A limit that was passed: its key under `limits:`, what was measured, how the run ends, why.

    `enforced`: after what it could be noticed. `last`: the last sign of life, for a silence.
    """

    limit: str
    value: float
    stop: Stop
    text: str
    enforced: Unit = "run"
    last: Sign | None = None


def patience(limits: Limits, reading: Reading) -> tuple[str, float | None]:
    """The budget that a silence is held against, by its key, and its seconds."""
    if reading.in_tool:
        return "tool", limits.tool_s
    if reading.spoken:
        return "stall", limits.stall_s
    if limits.first_s is not None or limits.stall_s is None:
        return "first", limits.first_s
    return "first", limits.stall_s + (LOAD_S if reading.local else 0.0)


def verdict(limits: Limits, reading: Reading) -> Verdict | None:
    """The first limit that a running agent has passed; None: it may go on.

    Whoever has ended its turn spends no more: to stop it would only make a failure of its work.
    """
    passed = _time(limits, reading) or _output(limits, reading)
    if passed is None and reading.turn_s is not None:
        return over(limits, reading.spent, reading.unit)
    return passed


def left_s(limits: Limits, reading: Reading) -> float:
    """How long nothing must change until the first limit of time is passed; may be infinite."""
    _, patience_s = patience(limits, reading)
    bounds = (
        (limits.wall_s, reading.spent.ran_s),
        (limits.turn_s, reading.turn_s),
        (patience_s, reading.quiet_s),
    )
    return min(
        (bound - gone for bound, gone in bounds if bound is not None and gone is not None),
        default=math.inf,
    )


def over(limits: Limits, spent: Spent, unit: Unit, whose: str = "") -> Verdict | None:
    """The limit that was passed of those that add up over runs. `whose` names them in the text."""
    if limits.steps is not None and spent.steps > limits.steps:
        text = f"more than {counted(limits.steps, 'step')}{whose}"
        return Verdict(
            limit="steps", value=spent.steps, stop="budget_exceeded", text=text, enforced="call"
        )
    if limits.tokens is not None and spent.tokens > limits.tokens:
        text = f"more than {counted(limits.tokens, 'token')}{whose}: {spent.tokens}"
        return Verdict(
            limit="tokens", value=spent.tokens, stop="budget_exceeded", text=text, enforced=unit
        )
    if limits.cost_usd is not None and spent.cost_usd > limits.cost_usd:
        text = f"more than ${limits.cost_usd:g} spent{whose}: ${spent.cost_usd:.4g}"
        return Verdict(
            limit="cost_usd", value=spent.cost_usd, stop="budget_exceeded", text=text, enforced=unit
        )
    return None


def _time(limits: Limits, reading: Reading) -> Verdict | None:
    ran_s, turn_s = reading.spent.ran_s, reading.turn_s
    if limits.wall_s is not None and ran_s > limits.wall_s:
        return _late("wall", ran_s, f"time limit of {limits.wall_s:g} s reached")
    if limits.turn_s is not None and turn_s is not None and turn_s > limits.turn_s:
        return _late("turn", turn_s, f"time limit of {limits.turn_s:g} s for one turn reached")
    limit, patience_s = patience(limits, reading)
    if patience_s is None or reading.quiet_s <= patience_s:
        return None
    text = (
        f"no sign of life for {reading.quiet_s:.3g} s {_WAITS[limit]} (limits.{limit}); "
        f"the last one was {_SIGNS[reading.sign]}"
    )
    return Verdict(limit=limit, value=reading.quiet_s, stop="stalled", text=text, last=reading.sign)


def _late(limit: str, seconds: float, text: str) -> Verdict:
    return Verdict(limit=limit, value=seconds, stop="timed_out", text=text)


def _output(limits: Limits, reading: Reading) -> Verdict | None:
    size = reading.output_bytes
    if limits.output_bytes is None or size <= limits.output_bytes:
        return None
    text = f"more than {counted(limits.output_bytes, 'byte')} of output"
    return Verdict(limit="output", value=size, stop="output_limit", text=text)


# --- over several runs ---------------------------------------------------------------------------


class Ledger:
    """What the runs of a job have used, each as it goes on, and the limits that hold over all."""

    def __init__(self, limits: Limits = Limits()) -> None:
        self.limits = limits
        self.passed: Verdict | None = None
        self._spent: dict[str, dict[str, Spent]] = {}
        self._handed_on: dict[str, list[str]] = {}
        self._above: dict[str, tuple[str, Limits]] = {}

    def hand_on(self, task_id: str, child_id: str, limits: Limits) -> None:
        """What a sub-task costs is spent of the budget of the task that handed it on, whose
        `limits` these are.
        """
        self._handed_on.setdefault(task_id, []).append(child_id)
        self._above[child_id] = task_id, Limits(tokens=limits.tokens, cost_usd=limits.cost_usd)

    def passed_above(self, task_id: str, unit: Unit) -> Verdict | None:
        """The limit that a task has passed together with those that were handed on beside it: its
        own limits are what was left when it began, and they all have that.
        """
        while (above := self._above.get(task_id)) is not None:
            task_id, limits = above
            whose = f" by {task_id} and what it handed on"
            if (passed := over(limits, self.task(task_id), unit, whose)) is not None:
                return passed
        return None

    def put(self, task_id: str, run_id: str, spent: Spent, unit: Unit) -> None:
        """Take what a run has used so far. The first limit that is `passed` remains so."""
        runs = self._spent.setdefault(task_id, {})
        before, runs[run_id] = runs.get(run_id, Spent()), spent
        # Most often only time has passed, and to add up a thousand runs takes a millisecond.
        if self.passed is None and replace(before, ran_s=spent.ran_s) != spent:
            self.passed = over(self.limits, self.job, unit, " by the tasks together")

    def late(self, seconds: float) -> None:
        """The time of all is up, whatever each has left."""
        if self.passed is None:
            text = f"time limit of {self.limits.wall_s:g} s for the tasks together reached"
            self.passed = _late("wall", seconds, text)

    def left_usd(self, task_id: str, limits: Limits) -> float | None:
        """What a task with these limits may still cost, None: nobody bounds it."""
        bounds = ((limits, self.task(task_id)), (self.limits, self.job))
        left = [
            max(0.0, each.cost_usd - spent.cost_usd)
            for each, spent in bounds
            if each.cost_usd is not None
        ]
        return min(left, default=None)

    def task(self, task_id: str) -> Spent:
        """What all runs of a task have used; its sub-tasks' tokens and cost are its own."""
        own = total(self._spent.get(task_id, {}).values())
        for child in map(self.task, self._handed_on.get(task_id, ())):
            tokens, cost = own.tokens + child.tokens, own.cost_usd + child.cost_usd
            own = replace(own, tokens=tokens, cost_usd=cost)
        return own

    @property
    def job(self) -> Spent:
        """What all runs have used."""
        return total(spent for runs in self._spent.values() for spent in runs.values())


def uncounted(stated: Limits, *, cost_known: bool) -> str | None:
    """Why a run would be without the bound that the user wrote; None if it has one."""
    if stated.cost_usd is None or cost_known:
        return None
    if stated.tokens is not None or stated.steps is not None:
        return None
    return f"limits.cost_usd (${stated.cost_usd:g}) cannot be kept: its cost is not known"
