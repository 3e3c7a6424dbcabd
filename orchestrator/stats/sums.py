"""Runs counted in groups: how many succeeded, with the interval that so few of them allow, what
they used, cost and saved, how long they took. Pure.
"""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from statistics import median
from typing import Literal, TypeAlias

from orchestrator.events import Status, Tier, Usage
from orchestrator.prices import Price, cost
from orchestrator.usage import Bill, bill_of

State: TypeAlias = Literal["ended", "running", "cut off", "unreadable"]
"""How far a record goes: to an outcome; its run goes on; it ends without an outcome, as after a
crash; or nobody can read it.
"""
Axis: TypeAlias = Literal["agent", "model", "server", "kind", "day", "repository", "tier"]
"""What runs can be grouped by."""

STOPPED: frozenset[Status] = frozenset({"interrupted", "cancelled"})
"""Ends that say nothing about the agent: somebody stopped it."""
UNSAID = "-"
Z95 = 1.959963984540054


@dataclass(frozen=True, kw_only=True)
class Ran:
    """One run, as its record tells it. None: the record does not say.

    `ok`: succeeded, and verified where it was checked. `work` is the task it was an attempt of.
    `first_token_s` is from the start of the program to the model's first word or tool call,
    `model_s` all the time in which no tool was at work.
    """

    run_id: str
    state: State
    work: tuple[str, str] | None = None
    agent: str | None = None
    model: str | None = None
    server: str | None = None
    kind: str | None = None
    day: str | None = None
    repository: str | None = None
    tier: Tier | None = None
    status: str | None = None
    ok: bool = False
    verified: bool | None = None
    usage: Usage | None = None
    duration_s: float | None = None
    first_token_s: float | None = None
    model_s: float | None = None
    problem: str | None = None


@dataclass(frozen=True, kw_only=True)
class Sums:
    """What the runs of one group come to.

    `counted` are those that ended and were not stopped by somebody, `ok` of these succeeded, and
    `low` to `high` holds the true rate in 19 of 20 such groups. `checked` had a check that ran,
    `verified` passed it. `left` is how often the task went on with another agent, `again` how often
    with the same one. `saved_usd` is None if nobody can say.
    """

    key: tuple[str, ...]
    runs: int
    running: int
    cut_off: int
    unreadable: int
    stopped: int
    counted: int
    ok: int
    low: float | None
    high: float | None
    checked: int
    verified: int
    left: int
    again: int
    bill: Bill
    saved_usd: float | None
    duration_s: float | None
    first_token_s: float | None
    tokens_per_s: float | None
    statuses: Mapping[str, int]

    @property
    def rate(self) -> float | None:
        """The share of the counted runs that succeeded."""
        return self.ok / self.counted if self.counted else None


def wilson(successes: int, trials: int) -> tuple[float, float] | None:
    """The interval of Wilson's score for a rate; None without a trial."""
    if not trials:
        return None
    z, share = Z95, successes / trials
    middle = share + z * z / (2 * trials)
    reach = z * math.sqrt(share * (1 - share) / trials + z * z / (4 * trials * trials))
    whole = 1 + z * z / trials
    return max(0.0, (middle - reach) / whole), min(1.0, (middle + reach) / whole)


def grouped(
    runs: Sequence[Ran], by: Sequence[Axis], cloud: Price | None = None
) -> tuple[Sums, ...]:
    """The runs in groups, those with the most runs first. `cloud` is what the tokens of local
    models would have cost; see `saved`.
    """
    after, savings = _afterwards(runs), saved(runs, cloud)
    groups: dict[tuple[str, ...], list[Ran]] = defaultdict(list)
    for run in runs:
        groups[tuple(said(run, axis) for axis in by)].append(run)
    sums = [_sums(key, group, after, savings) for key, group in groups.items()]
    return tuple(sorted(sums, key=lambda one: (-one.runs, one.key)))


def total(runs: Sequence[Ran], cloud: Price | None = None) -> Sums:
    """All runs as one group."""
    return _sums(("total",), runs, _afterwards(runs), saved(runs, cloud))


def said(run: Ran, axis: Axis) -> str:
    """The run's word on an axis, or UNSAID."""
    words: Mapping[Axis, str | None] = {
        "agent": run.agent,
        "model": run.model,
        "server": run.server,
        "kind": run.kind,
        "day": run.day,
        "repository": run.repository,
        "tier": run.tier,
    }
    return words[axis] or UNSAID


def saved(runs: Sequence[Ran], cloud: Price | None) -> Mapping[str, float | None]:
    """What local runs saved against doing all in the cloud, in dollars by run id.

    The assumption: the cloud's model would have needed one run with the same tokens, at its list
    price. Only the last run of a task that succeeded without the cloud saved anything: what the
    cloud did in the end, or nobody did, was not saved. None: the price or the tokens are unknown.
    """
    found: dict[str, float | None] = {}
    plain = None if cloud is None else replace(cloud, above=None, longer=None)
    for attempts in _works(runs).values():
        last = attempts[-1]
        if last.ok and all(attempt.tier == "local" for attempt in attempts):
            known = None if plain is None or last.usage is None else cost(plain, last.usage)
            found[last.run_id] = known
    return found


def usual_cloud_model(runs: Iterable[Ran]) -> str | None:
    """The model that most runs in the cloud had; the first by name of several."""
    models = Counter(run.model for run in runs if run.tier == "cloud" and run.model is not None)
    return min(models, key=lambda model: (-models[model], model)) if models else None


# --- one group -----------------------------------------------------------------------------------

Next: TypeAlias = Mapping[str, Literal["left", "again"]]


def _works(runs: Iterable[Ran]) -> Mapping[tuple[str, str], list[Ran]]:
    """The attempts of each task, in their order: ids of runs sort by time."""
    works: dict[tuple[str, str], list[Ran]] = defaultdict(list)
    for run in sorted(runs, key=lambda run: run.run_id):
        if run.work is not None:
            works[run.work].append(run)
    return works


def _afterwards(runs: Iterable[Ran]) -> Next:
    """By run id, how its task went on: with another agent, or again with this one."""
    found: dict[str, Literal["left", "again"]] = {}
    for attempts in _works(runs).values():
        for one, following in pairwise(attempts):
            found[one.run_id] = "again" if one.agent == following.agent else "left"
    return found


def _sums(
    key: tuple[str, ...], runs: Sequence[Ran], after: Next, savings: Mapping[str, float | None]
) -> Sums:
    states = Counter(run.state for run in runs)
    ended = [run for run in runs if run.state == "ended"]
    counted = [run for run in ended if run.status not in STOPPED]
    ok = sum(run.ok for run in counted)
    low, high = wilson(ok, len(counted)) or (None, None)
    verdicts = [run.verified for run in ended if run.verified is not None]
    steps = Counter(after[run.run_id] for run in runs if run.run_id in after)
    return Sums(
        key=key,
        runs=len(runs),
        running=states["running"],
        cut_off=states["cut off"],
        unreadable=states["unreadable"],
        stopped=len(ended) - len(counted),
        counted=len(counted),
        ok=ok,
        low=low,
        high=high,
        checked=len(verdicts),
        verified=sum(verdicts),
        left=steps["left"],
        again=steps["again"],
        bill=bill_of(run.usage for run in runs if run.state != "running"),
        saved_usd=_saved([savings[run.run_id] for run in runs if run.run_id in savings]),
        duration_s=_middle(run.duration_s for run in counted),
        first_token_s=_middle(run.first_token_s for run in runs),
        tokens_per_s=_speed(runs),
        statuses=dict(sorted(Counter(run.status for run in ended if run.status).items())),
    )


def _saved(amounts: Sequence[float | None]) -> float | None:
    known = [amount for amount in amounts if amount is not None]
    return sum(known) if len(known) == len(amounts) else None


def _middle(values: Iterable[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return median(known) if known else None


def _speed(runs: Iterable[Ran]) -> float | None:
    """Output tokens by second of model time, of the runs where both are known."""
    measured: list[tuple[int, float]] = [
        (run.usage.output_tokens, run.model_s)
        for run in runs
        if run.usage is not None and run.usage.output_tokens and run.model_s
    ]
    tokens, seconds = sum(one for one, _ in measured), sum(one for _, one in measured)
    return tokens / seconds if seconds else None


# --- which runs ----------------------------------------------------------------------------------


def matching(runs: Iterable[Ran], wanted: Mapping[Axis, str]) -> list[Ran]:
    """The runs that say these words. A broken record that does not say stays, and is counted."""
    return [run for run in runs if all(_says(run, axis, wanted[axis]) for axis in wanted)]


def _says(run: Ran, axis: Axis, word: str) -> bool:
    told = said(run, axis)
    return told == word or (told == UNSAID and run.problem is not None)
