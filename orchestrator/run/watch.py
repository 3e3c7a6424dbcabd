"""Holds a running agent to its limits: measures, and asks `budget` what to make of it.

Does not act. Looks at the agent's processes only when they have been silent for a while.
"""

from __future__ import annotations

import math
import time
from dataclasses import dataclass

from orchestrator.budget import (
    Ledger,
    Reading,
    Sign,
    Spent,
    Verdict,
    left_s,
    over,
    patience,
    tokens,
    verdict,
)
from orchestrator.events import Limit, Stall
from orchestrator.pulse import Pulse, feel
from orchestrator.run.intake import Intake
from orchestrator.run.recorder import Recorder
from orchestrator.task import Limits

_LOOKS, _SOONEST_S, _LATEST_S = 8, 0.25, 10.0
# In a silence its processes are looked at eight times before it is too long, within these bounds.
_OFTEN_S, _SELDOM_S = 0.1, 1.0
# The same of its limits while nothing happens that they are about.
_AWAY_S = 2.0
# Longer than that between two looks, we were stopped (Ctrl-Z), and nobody heard a silence.


@dataclass(frozen=True, kw_only=True)
class Watched:
    """Whose limits these are, and where what is spent is written down."""

    task_id: str
    run_id: str
    limits: Limits
    local: bool
    ledger: Ledger


class Watch:
    """The clock readings and counters of one running agent, whose leader is `pid`."""

    def __init__(self, watched: Watched, recorder: Recorder, pid: int) -> None:
        self.unseen: str | None = None
        self.due = math.inf
        # When the next limit of time is passed, if the agent does nothing until then.
        self._watched = watched
        self._recorder = recorder
        self._pid = pid
        self._began = self._lived = self._turn = self._held = time.monotonic()
        self._turns = 0
        self._sign: Sign = "start"
        self._pulse: Pulse | None = None
        self._felt = self._began
        self._next = 0.0
        self._seen: list[object] = []
        self._weighed = 0
        self._output = math.inf if (most := watched.limits.output_bytes) is None else most
        self.every_s = min(max(_shortest_s(watched.limits) / _LOOKS, _OFTEN_S), _SELDOM_S)
        """How often to `hold` it to its limits at least."""
        both = watched.limits, watched.ledger.limits
        self._bounds_steps = any(limits.steps is not None for limits in both)
        self._bounds_tokens = any(limits.tokens is not None for limits in both)
        self._bounds_cost = any(limits.cost_usd is not None for limits in both)

    def grew(self) -> None:
        """The agent has written something."""
        self._live("output")
        self._pulse = None  # what was received before is no sign of life after

    def waits(self, sign: Sign) -> None:
        """The agent waits for a sub-task or a person, which has a limit of its own."""
        self._live(sign)
        self._next = 0.0  # what a sub-task spends is spent of its parent's budget

    def weighs(self, intake: Intake) -> bool:
        """Whether it has said or done something since `hold` that a limit may be about."""
        return self._recorder.counts.weighty != self._weighed or intake.read > self._output

    def hold(self, intake: Intake) -> Verdict | None:
        """The limit for which the agent is to be stopped, the task's own before the job's."""
        watched, now = self._watched, time.monotonic()
        if now - self._held > _AWAY_S:
            self._lived += now - self._held
        self._held = now
        self._weighed = self._recorder.counts.weighty
        if now < self._next and intake.size <= self._output and not self._has_changed():
            return self._passed_with_others()
        self._write_down(now)
        reading = self._reading(now, intake.size)
        if self._feel(now, reading):
            reading = self._reading(now, reading.output_bytes)
        self.due = now + left_s(watched.limits, reading)
        self._next = min(self.due, self._feels(reading, now))
        return verdict(watched.limits, reading) or self._passed_with_others()

    def _has_changed(self) -> bool:
        """Whether, since the last look, the agent has used more of what a limit bounds, or another
        limit bounds it now. Most lines say nothing of that, and to weigh each took as long as to
        read it.
        """
        recorder, counts = self._recorder, self._recorder.counts
        digest = recorder.digest
        seen: list[object] = [counts.turns, counts.in_turn, counts.spoken, bool(digest.open_calls)]
        if self._bounds_steps:
            seen += [digest.steps, counts.model_calls]
        if self._bounds_tokens:
            seen.append(recorder.usage)
        if self._bounds_cost:
            seen.append(recorder.cost_usd)
        changed, self._seen = seen != self._seen, seen
        return changed

    def settle(self) -> Verdict | None:
        """Write down what was spent when all is read. A limit that was passed by it all the same:
        an agent may tell what it has spent when it is done.
        """
        watched = self._watched
        self._write_down(time.monotonic())
        return over(
            watched.limits, watched.ledger.task(watched.task_id), self._recorder.counts.unit
        )

    def _write_down(self, now: float) -> None:
        watched = self._watched
        unit = self._recorder.counts.unit
        watched.ledger.put(watched.task_id, watched.run_id, self._spent(now), unit)

    def _passed_with_others(self) -> Verdict | None:
        """A limit that holds over its whole job, or over what its parent hands on."""
        watched, counts = self._watched, self._recorder.counts
        if not counts.in_turn:
            return None
        return watched.ledger.passed or watched.ledger.passed_above(watched.task_id, counts.unit)

    def _reading(self, now: float, output_bytes: int) -> Reading:
        watched, counts = self._watched, self._recorder.counts
        if counts.turns != self._turns:
            self._turns, self._turn = counts.turns, now
        return Reading(
            quiet_s=now - self._lived,
            sign=self._sign,
            turn_s=now - self._turn if counts.in_turn else None,
            spoken=counts.spoken,
            in_tool=bool(self._recorder.digest.open_calls),
            local=watched.local,
            output_bytes=output_bytes,
            spent=watched.ledger.task(watched.task_id),
            unit=counts.unit,
        )

    # --- signs of life

    def _live(self, sign: Sign) -> None:
        self._lived, self._sign = time.monotonic(), sign

    def _feels(self, reading: Reading, now: float) -> float:
        """When to look for a sign of life, if the agent is silent until then."""
        _, budget_s = patience(self._watched.limits, reading)
        if budget_s is None:
            return math.inf
        every_s = min(max(budget_s / _LOOKS, _SOONEST_S), _LATEST_S)
        at = max(self._lived, self._felt) + every_s
        # In any case before a silence is too long.
        return max(self._lived + every_s, now) if reading.quiet_s > budget_s else at

    def _feel(self, now: float, reading: Reading) -> bool:
        """Look for a sign of life, if it is time. Whether it was."""
        if now < self._feels(reading, now):
            return False
        before, felt = self._pulse, self._felt
        self._pulse, self._felt = feel(self._pid), now
        if self._pulse.unseen is not None:
            self.unseen = self._pulse.unseen
        if before is not None:
            self._compare(before, self._pulse, now - felt)
        return True

    def _compare(self, before: Pulse, pulse: Pulse, seconds: float) -> None:
        if pulse.heard_since(before):
            self._live("bytes")
        elif self._recorder.digest.open_calls and pulse.worked_since(before, seconds):
            self._live("cpu")

    # --- what was spent

    def _spent(self, now: float) -> Spent:
        digest, counts = self._recorder.digest, self._recorder.counts
        return Spent(
            ran_s=now - self._began,
            steps=digest.steps or counts.model_calls,
            tokens=tokens(self._recorder.usage),
            cost_usd=self._recorder.cost_usd,
        )


def _shortest_s(limits: Limits) -> float:
    bounds = limits.wall_s, limits.turn_s, limits.first_s, limits.stall_s, limits.tool_s
    return min((bound for bound in bounds if bound is not None), default=math.inf)


def limit_event(passed: Verdict, action: str = "stop") -> Stall | Limit:
    """What is put on record of a limit that was passed."""
    value = round(passed.value, 3)
    if passed.stop == "stalled":
        return Stall(budget=passed.limit, seconds=value, action=action, last=passed.last)
    return Limit(limit=passed.limit, value=value, action=action, enforced=passed.enforced)
