"""scripts/bench faults, small: the same code, a few agents, no bar on time."""

import os
import random
import shutil
import subprocess
import tempfile
from pathlib import Path

import pytest

from scripts.benches.faults import (
    cancelled,
    fills_up,
    interpreter_of,
    killed_supervisor,
    spawned,
    stopped_one,
)
from scripts.benches.recovery import Host, killed_and_recovered

pytestmark = pytest.mark.anyio

ROOT = Path(__file__).parent.parent


@pytest.mark.parametrize("files", [64, 1024])
def test_nothing_survives_a_killed_supervisor_that_may_open_few_files(files):
    if shutil.which("prlimit") is None:
        pytest.skip("no prlimit")
    assert killed_supervisor(15, files=files, timed=False)


def test_nothing_survives_a_killed_supervisor_that_is_not_root():
    try:
        assert killed_supervisor(15, nobody=True, timed=False)
    except LookupError as error:
        pytest.skip(str(error))


async def test_the_tree_of_one_stopped_agent_of_many_is_gone_and_the_others_are_not():
    assert await stopped_one(15, timed=False)


async def test_cancellations_during_spawn_leave_neither_processes_nor_descriptors():
    assert await cancelled(60)


def test_a_disk_or_a_file_that_is_full_at_any_byte_leaves_whole_lines():
    if os.geteuid() != 0:
        pytest.skip("needs the right to mount")
    assert fills_up(60)


async def test_many_spawns_leave_descriptors_memory_and_zombies_as_they_were():
    assert await spawned(400)


FEW_PROCESSES = """
import errno, os, resource, sys, anyio
from contextlib import AsyncExitStack
from pathlib import Path
from orchestrator.adapter import Command
from orchestrator.errors import SpawnError
from orchestrator.process import base_environment, open_reaper

def is_mine(pid):
    try:
        return os.stat(f"/proc/{pid}").st_uid == os.getuid()
    except FileNotFoundError:  # others' processes end at any moment
        return False

def mine():
    return sum(is_mine(pid) for pid in os.listdir("/proc") if pid.isdigit())

async def main(folder):
    async with open_reaper() as reaper, AsyncExitStack() as stack:
        limit = mine() + 8
        for pid in (os.getpid(), *map(int, os.popen(f"pgrep -u {os.getuid()} -f tor/reaper"))):
            resource.prlimit(pid, resource.RLIMIT_NPROC, (limit, limit))
        agents = []
        def start(number, *argv):
            return reaper.spawn(Command(argv=argv, cwd="/"), env=base_environment(os.environ),
                                stdout=folder / f"{number}o", stderr=folder / f"{number}e",
                                token=str(number))
        try:
            for number in range(50):
                agents.append(await stack.enter_async_context(start(number, "sleep", "60")))
        except SpawnError as error:
            assert error.errno == errno.EAGAIN, error
            assert "ulimit -u" in error.hint
        assert 0 < len(agents) < 50, len(agents)
        assert not [agent for agent in agents if agent.ended]
        await agents[0].stop(interrupt=None, grace_s=1)
        async with start("again", "true") as process:
            assert (await process.wait()).status == 0
    print("ok")

anyio.run(main, Path(sys.argv[1]))
"""


def test_a_shortage_of_processes_is_a_refusal_that_the_other_agents_do_not_notice():
    if os.geteuid() == 0 and shutil.which("pgrep") is None:
        pytest.skip("no pgrep")
    try:
        # The limit counts all processes of a user: nobody else is this one.
        interpreter, env = interpreter_of(2_000_000_000 + os.getpid())
    except LookupError as error:
        pytest.skip(str(error))
    with tempfile.TemporaryDirectory() as folder:  # pytest's own are for their owner alone
        Path(folder).chmod(0o777)
        argv = [*interpreter, "-c", FEW_PROCESSES, folder]
        done = subprocess.run(argv, env=env, cwd=ROOT, capture_output=True, timeout=50)
    assert done.stdout == b"ok\n", done.stderr.decode()


@pytest.mark.timeout(120)
def test_supervisors_reapers_and_guards_killed_at_random_moments_lose_and_double_nothing():
    host = Host(agents=3, pause=0.002)
    assert killed_and_recovered(6, host, span=0.3, seed=random.randrange(10**6))
