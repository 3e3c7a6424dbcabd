"""scripts/bench chaos: jobs with real agents, workers that are killed, and what became of all.

Each agent writes down when it began and ended, and holds a lock of its work tree in between. So it
is seen from outside whether a job was lost, run again without leave, or run by two at once.
"""

import argparse
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import anyio

from orchestrator.task import Task
from orchestrator.worker.client import Client
from scripts.benches.cluster import cluster

ORCHESTRATE = str(Path(sys.executable).with_name("orchestrate"))
LINES = 50
AGENT = """
read -r name
cd "$name" || exit 9
exec 9>>lock
flock -n 9 || echo "$$ two" >>log
echo "$$ begin" >>log
i=0
while [ $i -lt LINES ]; do i=$((i + 1)); echo '{"type": "said", "text": "line"}'; sleep 0.02; done
echo '{"type": "done"}'
echo "$$ end" >>log
"""
CONFIG = """
[agents.chaos]
adapter = "jsonl"
argv = ["/bin/bash", "AGENT"]
[[agents.chaos.events]]
emit = "message"
when = {type = "said"}
text = ".text"
[[agents.chaos.events]]
emit = "turn.finished"
when = {type = "done"}
stop_reason = "end_turn"
"""


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What is to be done, and how often a worker is killed meanwhile."""

    tasks: int = 200
    kills: int = 3
    workers: int = 3
    concurrency: int = 4
    seed: int = 1
    lines: int = LINES


@dataclass(kw_only=True)
class Found:
    """What was seen. `again` are jobs whose agent began more than once."""

    jobs: int = 0
    ended: Counter[str] = field(default_factory=Counter[str])
    killed_running: int = 0
    again: int = 0
    again_unasked: int = 0
    again_without_leave: int = 0
    ended_twice: int = 0
    two_at_once: int = 0
    orphans: int = 0
    unaccounted: int = 0
    seconds: float = 0.0

    @property
    def wrong(self) -> list[str]:
        """What must not be."""
        checks = {
            "jobs are not accounted for": self.unaccounted,
            "ran again without leave": self.again_without_leave,
            "ran again and had not been running on a killed worker": self.again_unasked,
            "ended twice on one work tree": self.ended_twice,
            "ran twice at the same time": self.two_at_once,
            "orphans": self.orphans,
        }
        return [f"{count} {what}" for what, count in checks.items() if count]


class Workers:
    """Workers as processes of their own; one that was killed is replaced."""

    def __init__(self, folder: Path, url: str, plan: Plan) -> None:
        self._folder = folder
        self._url = url
        self._plan = plan
        self._running: list[subprocess.Popen[bytes]] = []
        self._logs: dict[int, Path] = {}

    def start(self) -> int:
        """Start one more; its pid."""
        path = self._folder / f"worker-{len(self._logs)}.log"
        with path.open("wb") as log:
            words = ["worker", "--concurrency", str(self._plan.concurrency)]
            argv = [ORCHESTRATE, *words, "--database", self._url]
            env = {
                "PATH": "/usr/bin:/bin",
                "HOME": str(self._folder),
                "ORCHESTRATE_STATE_DIR": str(self._folder / "state"),
                "ORCHESTRATE_CONFIG": str(self._folder / "orchestrate.toml"),
            }
            process = subprocess.Popen(argv, env=env, stdin=-3, stdout=log, stderr=log)
        self._running.append(process)
        self._logs[process.pid] = path
        return process.pid

    def kill_one(self, chance: random.Random) -> str:
        """The name of the one that was killed; another one takes its place."""
        process = self._running.pop(chance.randrange(len(self._running)))
        process.kill()
        process.wait()
        self.start()
        return self._name(process)

    def kill(self, name: str) -> None:
        """Kill the worker of this name; another one takes its place."""
        for process in self._running:
            if self._name(process) == name:
                self._running.remove(process)
                process.kill()
                process.wait()
                self.start()
                return

    def ready(self) -> bool:
        """Whether all of them take jobs."""
        return all(self._name(process) for process in self._running)

    def _name(self, process: "subprocess.Popen[bytes]") -> str:
        words = self._logs[process.pid].read_text().split()
        return words[1] if len(words) > 1 else ""

    def end(self) -> None:
        for process in self._running:
            process.send_signal(signal.SIGTERM)
        for process in self._running:
            try:
                process.wait(60)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


@contextmanager
def _workers(folder: Path, url: str, plan: Plan) -> Generator[Workers]:
    workers = Workers(folder, url, plan)
    try:
        for _ in range(plan.workers):
            workers.start()
        yield workers
    finally:
        workers.end()


async def chaos(folder: Path, url: str, plan: Plan, tell: Callable[[str], None]) -> Found:
    """Do it all in a folder, and look at what became of it."""
    began, found, chance = time.monotonic(), Found(jobs=plan.tasks), random.Random(plan.seed)
    (folder / "agent.sh").write_text(AGENT.replace("LINES", str(plan.lines)))
    config = folder / "orchestrate.toml"
    config.write_text(CONFIG.replace("AGENT", str(folder / "agent.sh")))
    jobs: dict[str, Path] = {}
    async with Client(url) as client:
        for number in range(plan.tasks):
            work = folder / "work" / str(number)
            work.mkdir(parents=True)
            job = await client.submit(_task(work, recoverable=number % 2 == 0))
            jobs[job] = work
        with _workers(folder, url, plan) as workers:
            victims: set[str] = set()
            for kill in range(plan.kills):
                # Somewhere between what is done already and the end, while agents run.
                part = (kill + chance.random()) / (plan.kills + 1)
                running = await _running(client, max(1, int(plan.tasks * part)))
                dead = workers.kill_one(chance)
                running |= await _running(client, None)
                theirs = {job for job, worker in running if worker == dead}
                tell(f"{dead} was killed, which ran {len(theirs)} of {len(running)} jobs")
                victims |= theirs
            for job in jobs:
                found.ended[(await client.wait(job)).status] += 1
        found.unaccounted = plan.tasks - sum(found.ended.values())
        entries = [await client.entry(job) for job in jobs]
    found.killed_running = len(victims)
    for entry in entries:
        _look(found, jobs[entry.job_id], may=entry.recoverable, asked=entry.job_id in victims)
    found.orphans = alive(str(folder / "agent.sh"))
    found.seconds = time.monotonic() - began
    return found


def _task(work: Path, *, recoverable: bool) -> Task:
    return Task(
        prompt=f"{work}\n",
        agent="chaos",
        kind="search",
        access="edit",
        workspace=work,
        isolation="none",
        recovery="restart" if recoverable else "none",
    )


async def _running(client: Client, done: int | None) -> set[tuple[str, str | None]]:
    """The jobs that run, each with its worker, when so many are over and one does."""
    while True:
        entries = await client.entries()
        running = {(one.job_id, one.worker) for one in entries if one.state == "running"}
        if done is None or (running and sum(one.over for one in entries) >= done):
            return running
        await anyio.sleep(0.05)


def _look(found: Found, work: Path, *, may: bool, asked: bool) -> None:
    log = work / "log"
    lines = [line.split()[1] for line in log.read_text().splitlines()] if log.exists() else []
    count = Counter(lines)
    if count["begin"] > 1:
        found.again += 1
        found.again_without_leave += not may
        found.again_unasked += not asked
    found.ended_twice += count["end"] > 1
    found.two_at_once += count["two"] > 0


def alive(mark: str) -> int:
    count = 0
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                count += mark.encode() in (entry / "cmdline").read_bytes()
            except OSError:
                continue
    return count


def told(backend: str, found: Found) -> str:
    return (
        f"{backend}: {found.jobs} jobs in {found.seconds:.0f} s: {dict(found.ended)}; running on "
        f"killed workers {found.killed_running}, run again {found.again}, ended twice "
        f"{found.ended_twice}, two at once {found.two_at_once}, orphans {found.orphans}"
    )


@contextmanager
def databases(backend: str, folder: Path) -> Generator[str]:
    """The address of an empty queue."""
    if backend == "sqlite":
        yield f"sqlite:///{folder}/queue.sqlite"
    else:
        with cluster() as server:
            yield server.url()


def main(argv: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(prog="scripts/bench chaos", description=__doc__)
    parser.add_argument("--tasks", type=int, default=200)
    parser.add_argument("--kills", type=int, default=3)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--backend", choices=["sqlite", "postgresql"], help="default: both")
    flags = parser.parse_args(argv)
    plan = Plan(tasks=flags.tasks, kills=flags.kills, seed=flags.seed)
    wrong: list[str] = []
    for backend in [flags.backend] if flags.backend else ["sqlite", "postgresql"]:
        with tempfile.TemporaryDirectory() as scratch, databases(backend, Path(scratch)) as url:
            found = anyio.run(chaos, Path(scratch), url, plan, print)
        print(told(backend, found), flush=True)
        wrong += [f"{backend}: {text}" for text in found.wrong]
    print("\n".join(f"WRONG: {text}" for text in wrong) or "nothing is wrong")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
