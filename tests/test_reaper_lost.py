"""A reaper that dies under running agents, in a host that has children of its own."""

import asyncio
import os
import signal
import subprocess
import sys
from pathlib import Path

import anyio
import pytest

from orchestrator.adapter import Agent, Command
from orchestrator.events import Error, Event, Message, Outcome, ProcessSpawned
from orchestrator.process import run_to_end
from orchestrator.supervisor import Supervisor
from orchestrator.task import Task
from tests.hostile import children, read, until
from tests.scripted_adapter import DONE, Scripted, Step, say, scripted_config
from tests.workspace.scene import repository

pytestmark = pytest.mark.anyio

ROOT = Path(__file__).parent.parent


def guard_and_reaper() -> tuple[int, int]:
    def ours(pid: int) -> bool:
        return b"/reaper/" in read(Path(f"/proc/{pid}/cmdline"))

    (guard,) = filter(ours, children(os.getpid()))
    (reaper,) = filter(ours, children(guard))
    return guard, reaper


@pytest.mark.parametrize("victim", [0, 1], ids=["guard", "reaper"])
async def test_the_runs_that_a_dead_reaper_took_down_are_interrupted_and_the_next_ones_succeed(
    tmp_path, victim
):
    (tmp_path / "file.txt").write_text("one\n")
    steps: list[Step] = [{"write": "file.txt", "text": "two"}, say("up"), {"hang": True}]
    config = scripted_config(tmp_path / "state", *steps)
    events: list[Event] = []
    outcomes: list[Outcome] = []
    async with Supervisor(config) as supervisor:
        async with anyio.create_task_group() as group:

            async def run() -> None:
                task = Task(prompt="p", workspace=tmp_path, kind="edit")
                outcomes.append(await supervisor.run(task, events.append))

            for _ in range(2):
                group.start_soon(run)
            while sum(isinstance(one.update, Message) for one in events) < 2:
                await anyio.sleep(0.01)
            os.kill(guard_and_reaper()[victim], signal.SIGKILL)
        assert [outcome.status for outcome in outcomes] == ["interrupted"] * 2
        lost = "the reaper ended; what it supervised has been killed"
        errors = [outcome.error for outcome in outcomes if outcome.error is not None]
        assert [(error.kind, error.text) for error in errors] == [("interrupted", lost)] * 2
        assert any(outcome.changes and outcome.changes.files for outcome in outcomes)
        assert [one.update.kind for one in events if isinstance(one.update, Error)] == [
            "interrupted"
        ] * 2
        pids = [one.update.pid for one in events if isinstance(one.update, ProcessSpawned)]
        assert not [pid for pid in pids if Path(f"/proc/{pid}").exists()]
        supervisor._config = scripted_config(tmp_path / "state", say("well"), DONE)
        outcome = await supervisor.run(Task(prompt="p", workspace=tmp_path, kind="search"))
        assert (outcome.status, outcome.text) == ("succeeded", "well")


async def test_a_reaper_that_dies_while_a_job_is_prepared_costs_the_job_nothing(
    tmp_path, monkeypatch
):
    repository(tmp_path / "work")
    hit = list[int]()

    async def hit_once(reaper, argv, **more):
        if not hit:
            hit.append(guard_and_reaper()[1])
            asyncio.get_running_loop().call_later(0.1, os.kill, hit[0], signal.SIGKILL)
            argv = ("sleep", "60")  # in place of git: the blow comes in the middle of it
        return await run_to_end(reaper, argv, **more)

    monkeypatch.setattr("orchestrator.workspace.git.run_to_end", hit_once)
    config = scripted_config(tmp_path / "state", say("well"), DONE)
    async with Supervisor(config) as supervisor:
        task = Task(prompt="p", workspace=tmp_path / "work", kind="search")
        outcome = await supervisor.run(task)
    assert (outcome.status, outcome.text, len(hit)) == ("succeeded", "well", 1)


class Kills(Scripted):
    """An agent that stops its reaper and then kills it, or its guard."""

    def command(self, task: Task, agent: Agent) -> Command:
        script = (
            "reaper=$PPID; guard=$(ps -o ppid= -p $reaper); supervisor=$(ps -o ppid= -p $guard); "
            f"setsid sleep 100 & kill -STOP ${task.prompt}; kill -KILL ${task.prompt}; sleep 100"
        )
        return Command(argv=("sh", "-c", script), cwd="/", stdin=None)


@pytest.mark.parametrize("victim", ["guard", "reaper"])
async def test_an_agent_that_kills_its_own_reaper_or_guard_is_interrupted(tmp_path, victim):
    config = scripted_config(tmp_path / "state", adapter=Kills())
    async with Supervisor(config) as supervisor:
        task = Task(prompt=victim, workspace=tmp_path, kind="search")
        events: list[Event] = []
        outcome = await supervisor.run(task, events.append)
    assert outcome.status == "interrupted"
    assert not tokens(outcome.run_id)


def tokens(run_id: str | None) -> list[Path]:
    """The processes whose environment names the run."""
    token = f"ORCHESTRATE_RUN_ID={run_id}".encode()
    return [path for path in Path("/proc").glob("[0-9]*/environ") if token in read(path)]


def test_an_agent_that_kills_its_supervisor_does_not_outlive_it(tmp_path):
    program = """
import sys, anyio
from pathlib import Path
from orchestrator.supervisor import Supervisor
from orchestrator.task import Task
from tests.scripted_adapter import scripted_config
from tests.test_reaper_lost import Kills

async def main(folder):
    async with Supervisor(scripted_config(folder / "state", adapter=Kills())) as supervisor:
        await supervisor.run(Task(prompt="supervisor", workspace=folder, kind="search"))

anyio.run(main, Path(sys.argv[1]))
"""
    done = subprocess.run([sys.executable, "-c", program, str(tmp_path)], cwd=ROOT, timeout=18)
    assert done.returncode == -signal.SIGKILL
    (run,) = (tmp_path / "state/runs").iterdir()
    until(lambda: not tokens(run.name))


HOST = """
import asyncio, os, signal, subprocess, sys, anyio
from contextlib import suppress
from pathlib import Path
from orchestrator.adapter import Command
from orchestrator.errors import ReaperLostError
from orchestrator.process import open_reaper, run_to_end, base_environment
from tests.hostile import children, read, until

ENV = base_environment(os.environ)
how, victim = sys.argv[1], int(sys.argv[2])
heard = []
if how == "handler":
    signal.signal(signal.SIGCHLD, lambda number, _: heard.append(number))
elif how == "ignored":
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)

def pair():
    guard = next(pid for pid in children(os.getpid())
                 if b"/reaper/" in read(Path(f"/proc/{pid}/cmdline")))
    return guard, children(guard)[0]

async def main(folder):
    handlers = {number: signal.getsignal(number) for number in signal.valid_signals()}
    old = subprocess.Popen(["sh", "-c", "read _; exit 7"], stdin=subprocess.PIPE)
    modern = await asyncio.create_subprocess_exec("sh", "-c", "read _; exit 5", stdin=-1)
    files = set(os.listdir("/proc/self/fd"))
    async with open_reaper() as reaper:
        for number in range(2):
            try:
                async with reaper.spawn(Command(argv=("sleep", "100"), cwd="/"), env=ENV,
                                        stdout=folder / f"{number}o", stderr=folder / f"{number}e",
                                        token=str(number)) as process:
                    os.kill(pair()[victim], signal.SIGKILL)
                    await process.wait()
                raise SystemExit("it was not lost")
            except ReaperLostError:
                pass
        done = await run_to_end(reaper, ["sh", "-c", "exit 3"], cwd=Path("/"), env=ENV, limit_s=5)
        assert done.exit == 3, done
    new = set(os.listdir("/proc/self/fd")) - files
    assert len(new) <= 1, new  # the listing's own
    old.communicate(b"go")
    await modern.communicate(b"go")
    # The system discards the statuses of children of a host that ignores SIGCHLD: not our doing.
    expected = (0, 255) if how == "ignored" else (7, 5)
    assert (old.returncode, modern.returncode) == expected, (old.returncode, modern.returncode)
    assert {number: signal.getsignal(number) for number in signal.valid_signals()} == handlers
    assert signal.pthread_sigmask(signal.SIG_BLOCK, ()) == set()
    assert how != "handler" or heard
    with suppress(ChildProcessError):
        raise SystemExit(f"a child is left: {os.waitpid(-1, os.WNOHANG)}")
    print("untouched")

anyio.run(main, Path(sys.argv[3]))
"""


@pytest.mark.parametrize("victim", [0, 1], ids=["guard", "reaper"])
@pytest.mark.parametrize("how", ["plain", "handler", "ignored"])
def test_a_host_keeps_its_children_signals_and_descriptors_when_a_reaper_dies_in_it(
    tmp_path, how, victim
):
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", HOST, how, str(victim), str(tmp_path)],
        capture_output=True,
        cwd=ROOT,
        timeout=18,
    )
    assert done.stdout.endswith(b"untouched\n"), done.stderr.decode()
