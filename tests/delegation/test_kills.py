"""Whoever is killed, nobody of the tree is left, and all of it is on record."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import anyio
import pytest

from orchestrator.events import Event, Outcome, ProcessSpawned
from orchestrator.journal import list_runs, read_outcome, read_record
from orchestrator.run.recovery import recover
from orchestrator.supervisor import Supervisor
from orchestrator.supervisor.recovery import recover_job
from orchestrator.task import Limits, Task
from tests.delegation.scene import shell_config
from tests.workspace.scene import repository

pytestmark = [pytest.mark.anyio, pytest.mark.timeout(60)]

PARENT = """
orchestrate delegate left --agent child --no-wait
orchestrate delegate right --agent child --no-wait
touch "$SEEN/both"
sleep 600
"""
CHILD = """
setsid sleep 600 &
echo $$ $! > "$SEEN/$PROMPT.pids.new"
mv "$SEEN/$PROMPT.pids.new" "$SEEN/$PROMPT.pids"
wait
"""
RUN = """
import sys
from pathlib import Path
import anyio
from tests.delegation.test_kills import begun
anyio.run(begun, Path(sys.argv[1]))
"""


def scripts() -> dict[str, str]:
    return {"parent": PARENT, "child": CHILD}


async def begun(tmp_path: Path, *sinks: object) -> Outcome:
    task = Task(
        prompt="Begin",
        workspace=tmp_path / "user",
        agent="parent",
        delegation=True,
        limits=Limits(depth=1),
    )
    async with Supervisor(shell_config(tmp_path, scripts())) as supervisor:
        return await supervisor.run(task, *sinks)  # type: ignore[arg-type]


def pids(tmp_path: Path) -> list[int]:
    files = [tmp_path / f"seen/{name}.pids" for name in ("left", "right")]
    while not all(file.exists() for file in files):
        time.sleep(0.02)
    return [int(word) for file in files for word in file.read_text().split()]


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(") ", 1)[1][0] != "Z"
    except FileNotFoundError:
        return False


def gone(every: list[int]) -> None:
    while any(map(alive, every)):
        time.sleep(0.02)


async def test_a_parent_that_is_killed_takes_its_sub_tasks_with_it(tmp_path: Path) -> None:
    repository(tmp_path / "user", {"a.txt": "one\n"})
    events: list[Event] = []
    outcomes: list[Outcome] = []

    async def run() -> None:
        outcomes.append(await begun(tmp_path, events.append))

    every: list[int] = []
    async with anyio.create_task_group() as group:
        group.start_soon(run)
        every += await anyio.to_thread.run_sync(pids, tmp_path)
        (parent,) = [
            e.update.pid
            for e in events
            if isinstance(e.update, ProcessSpawned) and e.task_id == "task"
        ]
        os.kill(parent, signal.SIGKILL)
    gone(every)
    assert outcomes[0].status == "failed"
    made = {read_record(path).task.id: read_outcome(path) for path in _runs(tmp_path)}
    assert {id_: one and one.status for id_, one in made.items()} == {
        "task": "failed",
        "task-1": "cancelled",
        "task-2": "cancelled",
    }


def test_when_the_supervisor_is_killed_nobody_is_left_and_recovery_tells_how_each_ended(
    tmp_path: Path,
) -> None:
    repository(tmp_path / "user", {"a.txt": "one\n"})
    root = Path(__file__).parent.parent.parent
    supervisor = subprocess.Popen([sys.executable, "-c", RUN, str(tmp_path)], cwd=root)
    try:
        every = pids(tmp_path)
        while not (tmp_path / "seen/both").exists():
            time.sleep(0.02)
    finally:
        supervisor.kill()
        supervisor.wait()
    gone(every)
    config = shell_config(tmp_path, scripts())
    for folder in _runs(tmp_path):
        assert recover(folder, config) is not None
    statuses = {read_record(path).task.id: read_outcome(path) for path in _runs(tmp_path)}
    assert {id_: one and one.status for id_, one in statuses.items()} == dict.fromkeys(
        ("task", "task-1", "task-2"), "interrupted"
    )
    (job,) = (config.state / "jobs").iterdir()
    outcome = recover_job(job, config.state / "runs")
    assert outcome is not None
    assert {id_: one.status for id_, one in outcome.tasks.items()} == {"task": "interrupted"}
    told = (job / "events.jsonl").read_text()
    assert told.count('"task.finished"') == 3  # what was handed on, too


def _runs(tmp_path: Path) -> list[Path]:
    return list_runs(tmp_path / "state/runs")
