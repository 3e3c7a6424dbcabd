"""scripts/bench delegation: a tree that is killed in each of its stages, and what became of all.

The parent, or the supervisor, gets SIGKILL while sub-tasks wait for their turn, are being started,
run, end, or are taken over. Afterwards, with records recovered, no process may be left, every task
that was started must be over in an order without gaps, and no work tree may be where none is kept.
"""

import argparse
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import anyio

from orchestrator.config import Config
from orchestrator.events import TaskFinished, TaskStarted
from orchestrator.journal import list_runs, read_events, read_outcome, read_record
from orchestrator.process import open_reaper
from orchestrator.run.recovery import recover
from orchestrator.supervisor import Supervisor
from orchestrator.supervisor.recovery import recover_job
from orchestrator.task import Limits, Task
from orchestrator.workspace.remains import Desk, prune
from tests.delegation.scene import hands_on, shell_config
from tests.workspace.scene import repository

LIMIT_S = 60.0
WRITES = "i=0; while [ $i -lt 2000 ]; do echo $i > f$i; i=$((i + 1)); done"
SLEEPS = "setsid sleep 300 & wait"
READY = 'touch "$SEEN/ready"'
TAKE = """P=$(sed -n 's/.*"take": "\\(.*\\)",*/\\1/p' "$SEEN/one.json")"""
ONE = hands_on("one", "x --agent child --kind fix")
MANY = "\n".join(f"orchestrate delegate x{number} --agent child --no-wait" for number in range(5))

STAGES: Mapping[str, tuple[str, str]] = {
    "queued": (f"{MANY}\n{READY}\nsleep 300", SLEEPS),
    "starting": (f"{READY}\n{ONE}", SLEEPS),
    "running": (ONE, f"{READY}\n{SLEEPS}"),
    "ending": (ONE, f"{WRITES}\n{READY}"),
    "taking": (f"{ONE}\n{TAKE}\n{READY}\n$P\nsleep 300", WRITES),
}
"""What parent and child do; the moment is a little after they say that they are ready."""
VICTIMS = ("parent", "supervisor")


@dataclass(frozen=True, kw_only=True)
class Found:
    """What became of a tree: processes that are left, each run's status, what is wrong."""

    left: int
    statuses: Mapping[str, str]
    wrong: Sequence[str]

    @property
    def good(self) -> bool:
        return not self.left and not self.wrong


def config_of(place: Path, stage: str) -> Config:
    parent, child = STAGES[stage]
    pid = 'echo $$ > "$SEEN/.pid" && mv "$SEEN/.pid" "$SEEN/pid"'
    return shell_config(place, {"parent": f"{pid}\n{parent}", "child": child})


async def host(place: Path, stage: str) -> None:
    """The supervisor that is killed, in a process of its own."""
    task = Task(
        prompt="Begin",
        workspace=place / "user",
        agent="parent",
        kind="explain",
        delegation=True,
        limits=Limits(depth=1),
    )
    async with Supervisor(config_of(place, stage)) as supervisor:
        await supervisor.run(task)


def killed(place: Path, stage: str, victim: str, delay_s: float) -> Found:
    """Start a tree, kill it there, recover what is left to recover."""
    repository(place / "user", {"a.txt": "one\n"})
    argv = [sys.executable, "-m", "scripts.benches.delegation", "--host", str(place), stage]
    with subprocess.Popen(argv) as supervisor:
        until(lambda: (place / "seen/ready").exists() or supervisor.poll() is not None)
        time.sleep(delay_s)
        pid = supervisor.pid if victim == "supervisor" else int((place / "seen/pid").read_text())
        os.kill(pid, signal.SIGKILL)
        supervisor.wait(LIMIT_S)
    mark = str(place).encode()
    until(lambda: not bearing(mark))
    return recovered(config_of(place, stage), len(bearing(mark)))


def recovered(config: Config, left: int) -> Found:
    folders = list_runs(config.state / "runs")
    for folder in folders:
        if read_outcome(folder) is None:
            recover(folder, config)
    (job,) = (config.state / "jobs").iterdir()
    if read_outcome(job) is None:
        recover_job(job, config.state / "runs")
    statuses: dict[str, str] = {}
    wrong = [f"{folder.name} is out of order" for folder in (job, *folders) if not whole(folder)]
    for folder in folders:
        outcome = read_outcome(folder)
        statuses[read_record(folder).task.id] = outcome.status if outcome else "none"
    updates = [event.update for event in read_events(job)]
    begun = sum(isinstance(update, TaskStarted) for update in updates)
    over = sum(isinstance(update, TaskFinished) for update in updates)
    if begun != over:
        wrong.append(f"{begun} tasks began, {over} are over")
    wrong += [f"{one} stays" for one in anyio.run(pruned, config)]
    return Found(left=left, statuses=statuses, wrong=wrong)


def whole(folder: Path) -> bool:
    numbers = [event.seq for event in read_events(folder)]
    return numbers == list(range(1, len(numbers) + 1))


async def pruned(config: Config) -> list[str]:
    """What `runs prune` cannot bring to safety."""
    async with open_reaper() as reaper:
        desk = Desk(reaper=reaper, state=config.state.resolve(), environ=config.environ)
        return [one.what for one in await prune(desk) if not one.removed]


def until(condition: Callable[[], bool]) -> None:
    end = time.monotonic() + LIMIT_S
    while not condition() and time.monotonic() < end:
        time.sleep(0.01)


def bearing(mark: bytes) -> list[str]:
    """Processes, zombies and this one aside, that have the mark in their environment."""
    found: list[str] = []
    for path in Path("/proc").glob("[0-9]*"):
        try:
            if path.name != str(os.getpid()) and mark in (path / "environ").read_bytes():
                found.append(path.name)
        except OSError:
            continue
    return found


def main(arguments: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(prog="scripts/bench delegation", description=__doc__)
    parser.add_argument("--delay", type=float, default=0.1, metavar="S", help="after that (0.1)")
    parser.add_argument("--host", nargs=2, help=argparse.SUPPRESS)
    parser.add_argument("only", nargs="*", choices=[*STAGES, []], help="stages; all, if none")
    asked = parser.parse_args(arguments)
    if asked.host is not None:
        anyio.run(host, Path(asked.host[0]), asked.host[1])
        return 0
    good = True
    for stage in asked.only or STAGES:
        for victim in VICTIMS:
            with tempfile.TemporaryDirectory(prefix="delegation-") as place:
                found = killed(Path(place), stage, victim, asked.delay)
            good = good and found.good
            told = ", ".join(f"{id_} {status}" for id_, status in found.statuses.items())
            verdict = "; ".join(found.wrong) or ("ok" if found.good else "wrong")
            print(f"{stage}, {victim} killed: {found.left} left; {told}: {verdict}", flush=True)
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
