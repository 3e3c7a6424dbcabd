"""With few open files agents wait for one another; none fails for want of a descriptor."""

from __future__ import annotations

import resource
import subprocess
import sys
from pathlib import Path

import anyio
import pytest

from orchestrator.files import FILES_EACH, FILES_OWN, Files, agents_at_once

ROOT = Path(__file__).parent.parent
MANY = """
import resource, sys
import anyio
from pathlib import Path
from orchestrator.supervisor import Supervisor
from orchestrator.task import Task
from tests.scripted_adapter import DONE, say, scripted_config

async def main(folder):
    resource.setrlimit(resource.RLIMIT_NOFILE, (140, 140))
    async with Supervisor(scripted_config(folder / "state", say("hello"), DONE)) as supervisor:
        async def one():
            task = Task(prompt="p", workspace=folder / "work", kind="search")
            print((await supervisor.run(task)).status, flush=True)
        async with anyio.create_task_group() as group:
            for _ in range(25):
                group.start_soon(one)

anyio.run(main, Path(sys.argv[1]))
"""


@pytest.mark.timeout(60)
def test_more_agents_than_there_are_files_for_come_one_after_the_other(tmp_path: Path) -> None:
    (tmp_path / "work").mkdir()
    argv = [sys.executable, "-c", MANY, str(tmp_path)]
    done = subprocess.run(argv, cwd=ROOT, capture_output=True, text=True, timeout=50)
    assert done.stdout.count("succeeded\n") == 25, done.stderr
    assert (done.stdout + done.stderr).count("too few open files") == 1


@pytest.mark.anyio
async def test_no_more_agents_than_there_is_room_for_and_a_larger_job_has_its_turn(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    files = Files()
    limit = FILES_OWN + 60 + 4 * FILES_EACH
    monkeypatch.setattr(files, "_others", 60)
    monkeypatch.setattr(resource, "getrlimit", lambda _: (limit, limit))
    assert agents_at_once(60) == 4
    running, most, told = 0, 0, []

    async def job(agents: int) -> None:
        nonlocal running, most
        async with files.room(agents, lambda: told.append(agents)):
            running += min(agents, 4)
            most = max(most, running)
            await anyio.sleep(0)
            running -= min(agents, 4)

    async with anyio.create_task_group() as group:
        for agents in (1, 3, 2, 9, 1, 4, 1):
            group.start_soon(job, agents)
    assert (running, most, len(told)) == (0, 4, 1)


@pytest.mark.anyio
async def test_one_who_gives_up_waiting_keeps_nobody_waiting(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    files = Files()
    monkeypatch.setattr(resource, "getrlimit", lambda _: (0, 0))
    async with files.room(1, lambda: None):
        with anyio.move_on_after(0.01) as gave_up:
            async with files.room(1, lambda: None):
                pass
        assert gave_up.cancelled_caught
    with anyio.fail_after(5):
        async with files.room(1, lambda: None):
            pass
