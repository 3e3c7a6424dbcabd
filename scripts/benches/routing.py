"""scripts/bench routing: what routing would have cost and brought.

Outcomes of agents, item by item, are replayed through the real `choose` and `following`, beside
always-cloud, always-local, random, prompt length and an oracle, each with a bootstrap interval. And
how long a decision takes. A table is JSON lines: {"task", "agent", "ok", "cost", "calls",
"prompt"}, an agent named in `--local` and one in `--cloud`; `prompt` is a text or its length.
What is by chance (a check that errs, a draw) is weighed by how likely it is, not drawn.
"""

from __future__ import annotations

import argparse
import json
import random
import statistics
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from orchestrator.adapter import Agent
from orchestrator.events import Failure, Outcome
from orchestrator.route import Standing, State, choose
from orchestrator.supervisor.following import Clock, Done, following
from orchestrator.task import Limits, Task

RESAMPLES, SEED = 1000, 7
DECISION_BAR_MS = 1.0
HOME = Agent(name="home", adapter="home", tier="local")
PAID = Agent(name="paid", adapter="paid", tier="cloud")
CASCADE = Task(prompt="-", strategy="cascade", check="the verifier")
CLOCK = Clock(now=datetime(2026, 1, 1, tzinfo=UTC), chance=0.5)


@dataclass(frozen=True, kw_only=True)
class Tried:
    """What came of an item with one agent."""

    ok: bool
    cost: float
    calls: int


@dataclass(frozen=True, kw_only=True)
class Item:
    """An item with what came of it at home and in the cloud. `length`: of its prompt, if known."""

    name: str
    length: int | None
    home: Tried
    paid: Tried


@dataclass(frozen=True, kw_only=True)
class Verifier:
    """How often a check finds wrong work wrong, and right work wrong."""

    finds: float
    errs: float

    def __call__(self, item: Item) -> float:
        """How likely it finds wrong what was done at home."""
        return self.errs if item.home.ok else self.finds


@dataclass(frozen=True, kw_only=True)
class Score:
    """Quality and spend of a policy, as shares of always-cloud."""

    quality: float
    spend: float


Result = tuple[float, float]
"""How likely an item is solved, and what it is expected to cost."""

Policy = Callable[[Item], Result]


# --- policies ------------------------------------------------------------------------------------


def cascade(item: Item, verifier: Verifier) -> Result:
    """What is expected of the item: the check of what was done at home finds it wrong, or not."""
    return mixed(
        _cascade(item, found_wrong=True), _cascade(item, found_wrong=False), verifier(item)
    )


def _cascade(item: Item, *, found_wrong: bool) -> Result:
    """The item by the product's own code: who is first, and what follows what came of that."""
    routes = choose(CASCADE, (HOME, PAID), State())
    done: list[Done] = []
    cost, ok = 0.0, False
    while (step := following(CASCADE, routes, done, Limits(), CLOCK)) is not None:
        local = step.route.agent.tier == "local"
        tried = item.home if local else item.paid
        cost, ok = cost + tried.cost, tried.ok
        done.append(Done(route=step.route, outcome=_ended(found_wrong=local and found_wrong)))
    return ok, cost


def mixed(one: Result, other: Result, share: float) -> Result:
    """The one in so many cases, in the rest the other."""
    return (
        share * one[0] + (1 - share) * other[0],
        share * one[1] + (1 - share) * other[1],
    )


def _ended(*, found_wrong: bool) -> Outcome:
    if not found_wrong:
        return Outcome(status="succeeded", verified=True, run_id="r")
    failure = Failure(kind="check_failed", text="the check failed")
    return Outcome(status="failed", verified=False, error=failure, run_id="r")


def always(where: str) -> Policy:
    def result(item: Item) -> Result:
        tried = item.home if where == "home" else item.paid
        return tried.ok, tried.cost

    return result


def by(goes_out: Callable[[Item], bool]) -> Policy:
    return lambda item: always("paid" if goes_out(item) else "home")(item)


def longest(items: Sequence[Item], share: float) -> Callable[[Item], bool]:
    """The longest prompts go to the cloud, so many of them."""
    order = sorted(items, key=lambda item: (-(item.length or 0), item.name))
    names = {item.name for item in order[: round(share * len(items))]}
    return lambda item: item.name in names


def policies(items: Sequence[Item], verifier: Verifier) -> dict[str, Policy]:
    """Random and length send as many to the cloud as the cascade does. Length is left out where no
    prompt is known.
    """
    share = sum(map(verifier, items)) / len(items)
    cloud, home = always("paid"), always("home")
    found: dict[str, Policy] = {
        "cascade": lambda item: cascade(item, verifier),
        "always cloud": cloud,
        "always local": home,
        f"random ({share:.0%} to the cloud)": lambda item: mixed(cloud(item), home(item), share),
        "oracle": by(lambda item: not item.home.ok and item.paid.ok),
    }
    if any(item.length for item in items):
        found[f"prompt length ({share:.0%})"] = by(longest(items, share))
    return found


# --- figures -------------------------------------------------------------------------------------


def score(results: Sequence[Result], cloud: Sequence[Result]) -> Score:
    solved, spent = sum(ok for ok, _ in cloud), sum(cost for _, cost in cloud)
    return Score(
        quality=sum(ok for ok, _ in results) / solved if solved else float("nan"),
        spend=sum(cost for _, cost in results) / spent if spent else float("nan"),
    )


def interval(
    results: Sequence[Result], cloud: Sequence[Result], resamples: int
) -> tuple[tuple[float, float], tuple[float, float]]:
    """95 % of the scores of resampled items: quality, spend."""
    draw, scores = random.Random(SEED), list[Score]()
    size = len(results)
    for _ in range(resamples):
        at = [draw.randrange(size) for _ in range(size)]
        scores.append(score([results[i] for i in at], [cloud[i] for i in at]))
    quality = sorted(each.quality for each in scores)
    spend = sorted(each.spend for each in scores)
    low, high = int(resamples * 0.025), int(resamples * 0.975)
    return (quality[low], quality[high]), (spend[low], spend[high])


def replayed(items: Sequence[Item], verifier: Verifier) -> dict[str, list[Result]]:
    named = policies(items, verifier)
    return {name: [policy(item) for item in items] for name, policy in named.items()}


def report(items: Sequence[Item], verifier: Verifier, resamples: int = RESAMPLES) -> list[str]:
    results = replayed(items, verifier)
    cloud = results["always cloud"]
    rates = f"{verifier.finds:.0%} of wrong and {verifier.errs:.0%} of right work wrong"
    lines = [f"{len(items)} items; the check finds {rates}; shares of always cloud, 95 % intervals"]
    for name, each in results.items():
        found = score(each, cloud)
        quality, spend = interval(each, cloud, resamples)
        lines.append(
            f"{name:<32} quality {found.quality:6.1%} [{quality[0]:.1%}, {quality[1]:.1%}]"
            f"  spend {found.spend:6.1%} [{spend[0]:.1%}, {spend[1]:.1%}]"
        )
    return lines


# --- tables --------------------------------------------------------------------------------------


def made(size: int = 500) -> list[Mapping[str, object]]:
    """A table of the shape of SWE-bench Verified with a small local and a large cloud model: hard
    items fail on both sides, and the length of the prompt says nothing.
    """
    draw, rows = random.Random(SEED), list[Mapping[str, object]]()
    for number in range(size):
        hard, length = draw.random(), draw.randint(200, 6000)
        for agent, skill, price in (("home", 0.56, 0.02), ("paid", 0.74, 0.6)):
            ok = hard + draw.gauss(0, 0.12) < skill
            calls = round(30 + 60 * hard + draw.random() * 20)
            cost = 0.0 if agent == "home" else price * calls / 60
            row = {"task": f"t{number}", "agent": agent, "ok": ok, "cost": cost, "calls": calls}
            rows.append({**row, "prompt": length})
    return rows


def items_of(rows: Sequence[Mapping[str, object]], home: str, paid: str) -> list[Item]:
    """The items that both agents tried. Raises ValueError for a row that is none."""
    tried: dict[str, dict[str, Tried]] = {}
    lengths: dict[str, int | None] = {}
    for at, row in enumerate(rows, 1):
        match row:
            case {"task": str(task), "agent": str(agent), "ok": bool(ok), "cost": int() | float()}:
                calls, prompt = row.get("calls"), row.get("prompt")
                length = len(prompt) if isinstance(prompt, str) else _whole(prompt)
                lengths[task] = length or lengths.get(task)
                cost = float(str(row["cost"]))
                tried.setdefault(task, {})[agent] = Tried(ok=ok, cost=cost, calls=_whole(calls))
            case _:
                raise ValueError(f"row {at} has not all of task, agent, ok, cost: {row!r:.200}")
    return [
        Item(name=name, length=lengths[name], home=by[home], paid=by[paid])
        for name, by in sorted(tried.items())
        if home in by and paid in by
    ]


def _whole(value: object) -> int:
    return value if isinstance(value, int) else 0


# --- decisions -----------------------------------------------------------------------------------


def decision_ms(times: int = 2000) -> float:
    """The 99th percentile of a choice among 30 agents for a prompt of 10,000 characters."""
    agents = [
        Agent(
            name=f"agent-{number}",
            adapter=f"adapter-{number % 4}",
            model=f"model-{number % 7}",
            base_url=f"http://127.0.0.1:{number}",
            tier="local" if number % 2 else "cloud",
        )
        for number in range(30)
    ]
    known = Standing(context=32_768, tools=True, slots=4, taken=1, own_tokens=6_300, cost_usd=0.2)
    state = State(standing={agent.name: known for agent in agents}, left_usd=5.0)
    task = Task(prompt="x" * 10_000, kind="fix", strategy="cascade")
    took: list[float] = []
    for _ in range(times):
        began = time.thread_time()  # its own: what else the machine does is not the choice's
        choose(task, agents, state)
        took.append((time.thread_time() - began) * 1000)
    return statistics.quantiles(took, n=100)[98]


def decisions() -> bool:
    took = decision_ms()
    kept = took <= DECISION_BAR_MS
    text = f"decision among 30 agents, prompt of 10,000 characters, p99: {took:.3f} ms"
    print(f"{text} (bar {DECISION_BAR_MS:g})" + ("" if kept else "  MISSED"), flush=True)
    return kept


def main(argv: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("table", nargs="?", type=Path, help="JSON lines; default: one that is made")
    parser.add_argument("--local", default="home", help="the local agent's name in the table")
    parser.add_argument("--cloud", default="paid", help="the cloud agent's name in the table")
    options = parser.parse_args(argv)
    try:
        rows = _rows(options.table) if options.table else made()
        items = items_of(rows, options.local, options.cloud)
    except (OSError, ValueError) as error:
        print(f"{options.table}: {error}", file=sys.stderr)
        return 2
    if not items:
        print(f"no item has {options.local!r} and {options.cloud!r}", file=sys.stderr)
        return 2
    for verifier in (
        Verifier(finds=1.0, errs=0.0),
        Verifier(finds=0.8, errs=0.2),
        Verifier(finds=0.5, errs=0.1),
    ):
        print("\n".join(report(items, verifier)), flush=True)
    return 0 if decisions() else 1


def _rows(path: Path) -> list[Mapping[str, object]]:
    return [json.loads(line) for line in path.read_bytes().split(b"\n") if line.strip()]


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
