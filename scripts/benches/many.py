"""scripts/bench many: a thousand agents that say five lines a second, through the real Supervisor.

Measured while all of them run: the loop's lag, the time from an agent's `write` to the journalled
event, the supervisor's memory; and afterwards that no line was lost. Exits with 1 if a bar is
missed. On a machine that others use, too, --before-others (as root) gives supervisor and agents
their turn first while it measures, and TMPDIR=/dev/shm keeps others' disk out of it.
"""

import argparse
import os
import resource
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import anyio

from adapters.jsonl import adapter
from orchestrator.adapter import Agent
from orchestrator.config import Config
from orchestrator.events import Event, Message, ProcessSpawned
from orchestrator.supervisor import Supervisor
from orchestrator.task import Limits, Task

# perl: a thousand of them fit everywhere, and all start in seconds.
AGENT = (
    "use Time::HiRes 'time'; $| = 1; my ($go, $lines, $pause) = @ARGV; "
    "select(undef, undef, undef, 0.1) until -e $go; "
    "select(undef, undef, undef, rand($pause)); "
    'for (1..$lines) { printf qq({"say": "%.6f"}\\n), time; select(undef, undef, undef, $pause) } '
    'print qq({"end": 1}\\n)'
)
RULES = [
    {"emit": "message", "when": {"say": {"exists": True}}, "text": "$.say"},
    {"emit": "turn.finished", "when": {"end": 1}, "stop_reason": "end_turn"},
]


class Seen:
    """What a sink and a clock in the loop have noted."""

    def __init__(self) -> None:
        self.pids: list[int] = []
        self.latencies: list[float] = []
        self.lags: list[float] = []
        self.lines: Counter[str] = Counter()

    def told(self, event: Event) -> None:
        """A sink: the journal has the event already."""
        match event.update:
            case Message(text=str(text)):
                self.latencies.append(time.time() - float(text))
                self.lines[event.run_id or ""] += 1
            case ProcessSpawned(pid=pid):
                self.pids.append(pid)
            case _:
                pass

    async def clock(self) -> None:
        while True:
            before = time.perf_counter()
            await anyio.sleep(0.01)
            self.lags.append(time.perf_counter() - before - 0.01)


def percentile(values: Sequence[float], share: float) -> float:
    return sorted(values)[min(len(values) - 1, int(len(values) * share))] if values else 0.0


def configuration(folder: Path, lines: int, pause: float) -> Config:
    argv = ["perl", "-e", AGENT, str(folder / "go"), str(lines), str(pause)]
    return Config(
        agents=(Agent(name="many", adapter="jsonl", options={"argv": argv, "events": RULES}),),
        adapters={"jsonl": adapter},
        state=folder / "state",
        limits=Limits(wall_s=3600, stall_s=3600),
        environ={"PATH": "/usr/bin:/bin"},
    )


@dataclass(kw_only=True)
class Steady:
    """What was measured while all agents talked: seconds, bytes."""

    lag: float
    late: float
    late_median: float
    resident: int
    cpu: float
    system: float
    events: float
    speed: float


def before_others(pids: Sequence[int], *, first: bool) -> None:
    """Have the processes scheduled before all others, or like all others again."""
    policy, priority = (os.SCHED_RR, 1) if first else (os.SCHED_OTHER, 0)
    for pid in pids:
        with suppress(ProcessLookupError):
            os.sched_setscheduler(pid, policy, os.sched_param(priority))


def speed() -> float:
    """Millions of additions in a second of CPU: how fast the machine is at this moment."""
    began, total = time.process_time(), 0
    for number in range(10**6):
        total += number
    return 1 / (time.process_time() - began)


async def steady(seen: Seen, seconds: float) -> Steady:
    seen.lags.clear()
    seen.latencies.clear()
    before, began = os.times(), time.monotonic()
    async with anyio.create_task_group() as clocks:
        clocks.start_soon(seen.clock)
        await anyio.sleep(seconds)
        clocks.cancel_scope.cancel()
    user, system = (now - then for now, then in zip(os.times()[:2], before[:2], strict=True))
    return Steady(
        lag=percentile(seen.lags, 0.99),
        late=percentile(seen.latencies, 0.99),
        late_median=percentile(seen.latencies, 0.5),
        resident=int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize(),
        cpu=(user + system) / (time.monotonic() - began),
        system=system / (user + system),
        events=len(seen.latencies) / (time.monotonic() - began),
        speed=speed(),
    )


async def run(count: int, lines: int, pause: float, first: bool = False) -> bool:
    seen = Seen()
    statuses: Counter[str] = Counter()
    found: list[Steady] = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        task = Task(prompt="p", workspace=folder / "work", kind="search")
        task.workspace.mkdir()
        began = time.monotonic()
        async with (
            Supervisor(configuration(folder, lines, pause)) as supervisor,
            anyio.create_task_group() as group,
        ):

            async def one() -> None:
                statuses[(await supervisor.run(task, seen.told)).status] += 1

            for _ in range(count):
                group.start_soon(one)
            while len(seen.pids) < count:  # noqa: ASYNC110 (a sink cannot await)
                await anyio.sleep(0.1)
            print(f"{count} agents started in {time.monotonic() - began:.0f} s", flush=True)
            if first:
                before_others([os.getpid(), *seen.pids], first=True)
            (folder / "go").touch()
            await anyio.sleep(1)
            found.append(await steady(seen, lines * pause - 2))
            before_others([os.getpid(), *seen.pids], first=False)
    lost = count * lines - sum(seen.lines.values())
    return told(found[0], count / pause, lost, count - statuses["succeeded"])


def told(found: Steady, said: float, lost: int, failed: int) -> bool:
    each = found.cpu / found.events * 1e6 if found.events else 0.0
    print(f"supervisor's CPU: {found.cpu:.2f} of one core; load {os.getloadavg()[0]:.1f}")
    print(f"CPU an event: {each:.0f} us, of which {found.system:.0%} in the kernel")
    print(f"the machine's speed meanwhile: {found.speed:.0f} million additions a second of CPU")
    print(f"events a second: {found.events:.0f} of {said:.0f} that the agents say at most")
    print(f"event to journal, median: {found.late_median * 1000:.0f} ms")
    rows = [
        ("loop lag p99, ms", found.lag * 1000, 50),
        ("event to journal p99, ms", found.late * 1000, 100),
        ("RSS, MB", found.resident / 1e6, 150),
        ("lines lost", lost, 0),
        ("runs that did not succeed", failed, 0),
    ]
    for text, value, bar in rows:
        print(f"{text}: {value:.0f} (bar {bar})" + ("" if value <= bar else "  MISSED"), flush=True)
    # Agents that do not come to speak make everything look quick.
    return all(value <= bar for _, value, bar in rows) and found.events > said * 0.8


def main(arguments: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(prog="scripts/bench many", description=__doc__)
    parser.add_argument("--agents", type=int, default=1000, metavar="N")
    parser.add_argument("--lines", type=int, default=100, metavar="N", help="of each agent (100)")
    parser.add_argument("--before-others", action="store_true", help="on a busy machine, as root")
    asked = parser.parse_args(arguments)
    return 0 if anyio.run(run, asked.agents, asked.lines, 0.2, asked.before_others) else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
