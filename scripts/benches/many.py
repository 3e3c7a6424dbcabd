"""scripts/bench many: a thousand agents that say five lines a second, through the real Supervisor.

Measured while all of them run: the loop's lag, the time from an agent's `write` to the journalled
event, the supervisor's memory; and afterwards that no line was lost. Exits with 1 if a bar is
missed.
"""

import argparse
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
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
        self.started = 0
        self.latencies: list[float] = []
        self.lags: list[float] = []
        self.lines: Counter[str] = Counter()

    def told(self, event: Event) -> None:
        """A sink: the journal has the event already."""
        match event.update:
            case Message(text=str(text)):
                self.latencies.append(time.time() - float(text))
                self.lines[event.run_id or ""] += 1
            case ProcessSpawned():
                self.started += 1
            case _:
                pass

    async def clock(self) -> None:
        while True:
            before = time.perf_counter()
            await anyio.sleep(0.01)
            self.lags.append(time.perf_counter() - before - 0.01)


def percentile(values: Sequence[float], share: float) -> float:
    return sorted(values)[min(len(values) - 1, int(len(values) * share))] if values else 0.0


async def run(count: int, lines: int, pause: float) -> bool:
    seen = Seen()
    statuses: Counter[str] = Counter()
    with tempfile.TemporaryDirectory() as folder:
        go, work = Path(folder, "go"), Path(folder, "work")
        work.mkdir()
        argv = ["perl", "-e", AGENT, str(go), str(lines), str(pause)]
        agent = Agent(name="many", adapter="jsonl", options={"argv": argv, "events": RULES})
        config = Config(
            agents=(agent,),
            adapters={"jsonl": adapter},
            state=Path(folder, "state"),
            limits=Limits(wall_s=1800, stall_s=1800),
            environ={"PATH": "/usr/bin:/bin"},
        )
        began = time.monotonic()
        async with Supervisor(config) as supervisor, anyio.create_task_group() as group:

            async def one() -> None:
                task = Task(prompt="p", workspace=work, kind="search")
                statuses[(await supervisor.run(task, seen.told)).status] += 1

            for _ in range(count):
                group.start_soon(one)
            while seen.started < count:  # noqa: ASYNC110 (a sink cannot await)
                await anyio.sleep(0.1)
            print(f"{count} agents started in {time.monotonic() - began:.0f} s", flush=True)
            go.touch()
            await anyio.sleep(0.5)
            seen.lags.clear()
            cpu = time.process_time()
            began = time.monotonic()
            with anyio.CancelScope() as clock:
                async with anyio.create_task_group() as clocks:
                    clocks.start_soon(seen.clock)
                    await anyio.sleep(lines * pause - 1)
                    clocks.cancel_scope.cancel()
            del clock
            share = (time.process_time() - cpu) / (time.monotonic() - began)
            resident = int(Path("/proc/self/statm").read_text().split()[1]) * 4096 / 1e6
            latencies = list(seen.latencies)
    lost = count * lines - sum(seen.lines.values())
    lag, late = percentile(seen.lags, 0.99) * 1000, percentile(latencies, 0.99) * 1000
    rows = [
        (f"loop lag p99: {lag:.0f} ms", lag, 50),
        (
            f"event to journal p99: {late:.0f} ms, median {percentile(latencies, 0.5) * 1000:.0f}",
            late,
            100,
        ),
        (f"RSS: {resident:.0f} MB", resident, 150),
        (f"lost: {lost} of {count * lines}", lost, 0),
        (f"not succeeded: {dict(statuses)}", count - statuses["succeeded"], 0),
    ]
    print(f"supervisor's CPU: {share:.2f} of one core")
    for text, value, bar in rows:
        print(f"{text} (bar {bar:g})" + ("" if value <= bar else "  MISSED"), flush=True)
    return all(value <= bar for _, value, bar in rows)


def main(arguments: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(prog="scripts/bench many", description=__doc__)
    parser.add_argument("--agents", type=int, default=1000, metavar="N")
    parser.add_argument("--lines", type=int, default=100, metavar="N", help="of each agent (100)")
    asked = parser.parse_args(arguments)
    return 0 if anyio.run(run, asked.agents, asked.lines, 0.2) else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
