"""Real agents that are killed in the middle of a tool, or whose supervisor is: nothing is left."""

import os
import signal
import subprocess
import sys
from itertools import product
from pathlib import Path

import pytest

from tests.hostile import living, new_mark, read, until

pytestmark = pytest.mark.real

ROOT = Path(__file__).resolve().parent.parent.parent


AGENTS = ("codex", "claude", "aider", "litellm")
DEATHS = (
    ("agent", signal.SIGINT),
    ("agent", signal.SIGTERM),
    ("agent", signal.SIGKILL),
    ("supervisor", signal.SIGKILL),
)
# Each agent and each death once; `scripts/bench faults f` goes through all of them.
USUAL = tuple(zip(AGENTS, DEATHS, strict=True))


@pytest.mark.parametrize(
    ("agent", "victim", "number"),
    [
        pytest.param(
            *(agent, victim, number),
            id=f"{agent}-{victim}-{number.name}",
            marks=() if (agent, (victim, number)) in USUAL else pytest.mark.thorough,
        )
        for agent, (victim, number) in product(AGENTS, DEATHS)
    ],
)
def test_nothing_is_left_of_an_agent_that_is_killed_in_the_middle_of_a_tool(
    tmp_path, agent, victim, number
):
    mark = new_mark()
    argv = [sys.executable, "-m", "tests.real.host", agent, mark, str(tmp_path)]
    with subprocess.Popen(argv, stdout=subprocess.PIPE, cwd=ROOT) as host:
        assert host.stdout is not None
        pid = int(host.stdout.readline())
        # The two sleepers; beside them the shell that waits, the front, and the host name the mark.
        until(lambda: sum(is_sleeper(one) for one in living(mark)) == 2, 60)
        os.kill(pid if victim == "agent" else host.pid, number)
        if victim == "agent":
            status = host.stdout.readline().decode().strip()
            assert status not in {"", "succeeded"}
            assert host.wait() == 0
        else:
            assert host.wait() == -number
    until(lambda: not living(mark))
    (run,) = (tmp_path / "state/runs").iterdir()
    until(lambda: not bearing(f"ORCHESTRATE_RUN_ID={run.name}".encode()))


def is_sleeper(pid: int) -> bool:
    return read(Path(f"/proc/{pid}/cmdline")).startswith(b"sleep\0")


def bearing(token: bytes) -> list[Path]:
    return [path for path in Path("/proc").glob("[0-9]*/environ") if token in read(path)]
