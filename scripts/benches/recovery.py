"""scripts/bench recovery: kill -9 of a real supervisor of several agents at random moments, then
recovery: 0 events lost, 0 twice, in order.

What is on record is compared with what the agents wrote: their raw output, and a tally that each
keeps for itself. Agents end by themselves, too, and the next ones begin, so that a kill meets every
part of a run. Exits with 1 if anything is missing, double or out of order.
"""

import argparse
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path

import anyio
import orjson

from adapters.jsonl import adapter
from orchestrator.adapter import Agent
from orchestrator.config import Config
from orchestrator.events import Event, Message, Output, ProcessSpawned, RunFinished
from orchestrator.journal import STDERR, STDOUT, list_runs, read_events, read_outcome, runs_by_job
from orchestrator.run.recovery import recover
from orchestrator.supervisor import Supervisor
from orchestrator.supervisor.recovery import recover_job
from orchestrator.task import Limits, Task
from scripts.benches.faults import living, new_mark, told, until_none

ROOT = Path(__file__).parent.parent.parent
# Lines in one piece and in two, some to stderr; the tally is written after the line.
AGENT = (
    "use Time::HiRes 'time'; my ($tallies, $lines, $pause) = @ARGV; "
    "open(my $tally, '>', qq($tallies/$ENV{ORCHESTRATE_RUN_ID})) or die; srand($$); "
    "my $last = $lines eq 'endless' ? 1e5 : int(rand($lines)); my $until = time + 300; "
    "for my $n (1..$last) { "
    '  my $line = qq({"say": "$n"}\\n); my $cut = $n % 3 ? 0 : 7; '
    "  syswrite(STDOUT, substr($line, 0, $cut)) if $cut; syswrite(STDOUT, substr($line, $cut)); "
    "  syswrite(STDERR, qq(note $n\\n)) unless $n % 10; "
    "  sysseek($tally, 0, 0); syswrite($tally, $n); "
    "  select(undef, undef, undef, rand(2 * $pause)); last if time > $until } "
    'syswrite(STDOUT, qq({"end": 1}\\n))'
)
RULES = [
    {"emit": "message", "when": {"say": {"exists": True}}, "text": "$.say"},
    {"emit": "turn.finished", "when": {"end": 1}, "stop_reason": "end_turn"},
]


def configuration(place: Path, mark: str, lines: str, pause: float) -> Config:
    argv = ["perl", "-e", AGENT, str(place / "tallies"), lines, str(pause), mark]
    return Config(
        agents=(Agent(name="small", adapter="jsonl", options={"argv": argv, "events": RULES}),),
        adapters={"jsonl": adapter},
        state=place / "state",
        limits=Limits(wall_s=3600, stall_s=3600),
        environ={"PATH": "/usr/bin:/bin"},
    )


# --- the supervisor that is killed ---------------------------------------------------------------


async def host(config: Config, agents: int, work: Path) -> None:
    """As a program: so many agents at any time; says when it begins and when all have started."""
    started = 0

    def seen(event: Event) -> None:
        nonlocal started
        if isinstance(event.update, ProcessSpawned):
            started += 1
            if started == agents:
                print("all started", flush=True)

    async def one_after_another(supervisor: Supervisor) -> None:
        while True:
            await supervisor.run(Task(prompt="p", workspace=work, kind="search"), seen)

    async with Supervisor(config) as supervisor, anyio.create_task_group() as group:
        print("begins", flush=True)
        for _ in range(agents):
            group.start_soon(one_after_another, supervisor)


def killed(place: Path, mark: str, agents: int, pause: float, moment: Callable[[], float]) -> int:
    """Kill a supervisor some time after it began, or, if it is to have started all agents, after
    that; how many processes of agents there were.
    """
    all_of_them = moment() < 0
    argv = [sys.executable, "-m", __spec__.name, "--host", mark, str(place)]
    argv += ["--agents", str(agents), "--pause", str(pause)]
    argv += ["--together"] if all_of_them else []
    with subprocess.Popen(
        argv, stdout=subprocess.PIPE, cwd=ROOT, env=with_our_modules()
    ) as started:
        wanted = b"all started\n" if all_of_them else b"begins\n"
        if started.stdout is None or wanted not in iter(started.stdout.readline, b""):
            raise RuntimeError("the supervisor did not get as far as to be killed")
        time.sleep(abs(moment()))
        there = len(living(mark)) - 1  # the host itself names the mark, too
        os.kill(started.pid, signal.SIGKILL)
    return there


def with_our_modules() -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}


# --- what is on record ---------------------------------------------------------------------------


def recovered(config: Config) -> None:
    """As `orchestrate runs recover --all` does."""
    runs = config.state / "runs"
    for folder in list_runs(runs):
        recover(folder, config)
    made = runs_by_job(runs)
    for job in (config.state / "jobs").iterdir():
        if (job / "job.json").exists():
            recover_job(job, runs, made.get(job.name, ()))


def wrong(place: Path, folder: Path) -> list[str]:
    """What is not as it should be with the record of a run."""
    events = list(read_events(folder))
    found: list[str] = []
    if [event.seq for event in events] != list(range(1, len(events) + 1)):
        found.append("out of order")
    ends = [event for event in events if isinstance(event.update, RunFinished)]
    if ends != events[-1:] or read_outcome(folder) is None:
        found.append(f"{len(ends)} ends")
    said = [event.update.text or "" for event in events if isinstance(event.update, Message)]
    found += compared("line", said, written(folder))
    notes = [
        event.update.text
        for event in events
        if isinstance(event.update, Output) and event.update.stream == STDERR
    ]
    raw = (folder / STDERR).read_text() if (folder / STDERR).exists() else ""
    found += compared("note", notes, raw.splitlines())
    tally = place / "tallies" / folder.name
    kept = int(tally.read_text() or 0) if tally.exists() else 0
    if len(said) not in {kept, kept + 1}:
        found.append(f"the agent counted {kept} lines, {len(said)} are on record")
    return found


def written(folder: Path) -> list[str]:
    """What the agent said, by its raw output: numbers from 1."""
    found: list[str] = []
    lines = (folder / STDOUT).read_bytes().split(b"\n") if (folder / STDOUT).exists() else []
    for line in lines:
        try:
            found.append(orjson.loads(line)["say"])
        except (ValueError, KeyError):  # a torn last line, or the end
            continue
    return found


def compared(what: str, ours: Sequence[str], theirs: Sequence[str]) -> list[str]:
    lost = Counter(theirs) - Counter(ours)
    double = Counter(ours) - Counter(theirs)
    if lost or double:
        return [f"{lost.total()} {what}(s) lost, {double.total()} twice"]
    return [] if list(ours) == list(theirs) else [f"{what}s out of order"]


def once(agents: int, pause: float, moment: Callable[[], float]) -> tuple[Counter[str], float]:
    """Kill one supervisor and recover: what there was, and how long recovery took."""
    mark = new_mark()
    with tempfile.TemporaryDirectory() as name:
        place = Path(name)
        (place / "tallies").mkdir()
        (place / "work").mkdir()
        config = configuration(place, mark, "0", pause)
        seen = Counter(processes=killed(place, mark, agents, pause, moment))
        left, _ = until_none(mark, 30)
        seen["left"] = left
        began = time.monotonic()
        recovered(config)
        seconds = time.monotonic() - began
        for folder in list_runs(config.state / "runs"):
            outcome = read_outcome(folder)
            seen["runs"] += 1
            seen["cut off"] += outcome is not None and outcome.status == "interrupted"
            seen["lines"] += len(written(folder))
            for text in wrong(place, folder):
                seen["wrong"] += 1
                print(f"  {folder.name}: {text}", flush=True)
    return seen, seconds


def killed_and_recovered(kills: int, agents: int, *, pause: float, span: float) -> bool:
    """So many supervisors, each killed at a random moment of its first `span` seconds."""
    total, slowest = Counter[str](), 0.0
    for _ in range(kills):
        seen, seconds = once(agents, pause, lambda: random.uniform(0, span))
        total += seen
        slowest = max(slowest, seconds)
    return result(f"{kills} kills of a supervisor of {agents} agents", total, slowest)


def all_together(agents: int, pause: float) -> bool:
    """One supervisor, killed a second after the last of its agents has started."""
    seen, seconds = once(agents, pause, lambda: -1.0)
    met = seen["cut off"] >= agents
    return result(f"kill of a supervisor of {agents} agents", seen, seconds) and met


def result(name: str, seen: Counter[str], seconds: float) -> bool:
    figures = (
        f"{seen['runs']} runs ({seen['cut off']} cut off), {seen['lines']} lines, "
        f"{seen['wrong']} records wrong (bar 0), {seen['left']} processes left (bar 0), "
        f"slowest recovery {seconds:.2f} s"
    )
    good = (seen["wrong"], seen["left"]) == (0, 0) and seen["cut off"] > 0
    return told(f"{name}: {figures}", good=good)


def main(arguments: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(prog="scripts/bench recovery", description=__doc__)
    parser.add_argument("--kills", type=int, default=100, metavar="N", help="how many (100)")
    parser.add_argument("--agents", type=int, default=6, metavar="N", help="at any time (6)")
    parser.add_argument("--span", type=float, default=1.5, metavar="S", help="of moments (1.5)")
    parser.add_argument("--pause", type=float, metavar="S", help="between lines (0.002)")
    parser.add_argument(
        "--together",
        action="store_true",
        help="kill once, when all have started: for --agents 1000",
    )
    parser.add_argument("--host", nargs=2, help=argparse.SUPPRESS)
    asked = parser.parse_args(arguments)
    pause = asked.pause or (0.2 if asked.together else 0.002)
    if asked.host:
        mark, place = asked.host[0], Path(asked.host[1])
        lines = "endless" if asked.together else "400"
        anyio.run(host, configuration(place, mark, lines, pause), asked.agents, place / "work")
    if asked.together:
        return 0 if all_together(asked.agents, pause) else 1
    return 0 if killed_and_recovered(asked.kills, asked.agents, pause=pause, span=asked.span) else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
