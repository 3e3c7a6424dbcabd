"""What outlives an agent: who is found, how, and what becomes of it."""

import os
import signal
import sys
from collections.abc import AsyncGenerator
from pathlib import Path

import anyio
import pytest

from orchestrator.adapter import Command
from orchestrator.events import Event, Message, ProcessReaped
from orchestrator.process import Process, Reaper, base_environment, open_reaper
from orchestrator.supervisor import Supervisor
from orchestrator.task import Detached, Task
from tests.hostile import children, hostile, living, new_mark, read, until
from tests.scripted_adapter import DONE, Step, say, scripted_config

pytestmark = pytest.mark.anyio

ENV = base_environment(os.environ)


@pytest.fixture
async def reaper() -> AsyncGenerator[Reaper]:
    async with open_reaper() as reaper:
        yield reaper


def start(reaper: Reaper, folder: Path, *argv: str, token: str):
    return reaper.spawn(
        Command(argv=argv, cwd="/"),
        env=ENV,
        stdout=folder / f"{token}.out",
        stderr=folder / f"{token}.err",
        token=token,
    )


async def ended(process: Process, folder: Path, token: str) -> None:
    """Ready, then killed by somebody else: what is left is left by the agent."""
    with anyio.fail_after(10):
        while b"ready" not in read(folder / f"{token}.out"):
            await anyio.sleep(0.005)
    os.kill(process.pid, signal.SIGKILL)
    await process.wait()


async def test_each_survivor_is_told_with_its_command_and_how_it_was_found(reaper, tmp_path, mark):
    async with start(reaper, tmp_path, *hostile("tree", mark), token="tree") as process:
        await ended(process, tmp_path, "tree")
        left = living(mark)
        assert await process.reap(drain_s=0) == 4
    assert sorted(one.pid for one in process.survivors) == sorted(left)
    assert {one.command for one in process.survivors} == {f"sleep 120 {mark}"}
    assert {one.fate for one in process.survivors} == {"killed"}
    # One is in the agent's session, two name the run; one has neither. If the reaper looked while
    # the agent lived, it saw some of them below it.
    found = {one.found for one in process.survivors}
    assert found <= {"descent", "session", "environment", "alone"}
    assert len(found) > 1


async def test_an_orphan_without_any_trace_is_found_by_being_alone(reaper, tmp_path, mark):
    async with start(reaper, tmp_path, *hostile("bare", mark), token="bare") as process:
        await ended(process, tmp_path, "bare")
        assert await process.reap(drain_s=0) == 1
    assert [one.found for one in process.survivors] == ["alone"]


async def test_of_many_survivors_all_are_killed_and_twenty_are_told(reaper, tmp_path, mark):
    script = f"for i in $(seq 30); do setsid sleep 100 {mark} & done; sleep 0.2; echo ready; wait"
    async with start(reaper, tmp_path, "sh", "-c", script, token="many") as process:
        await ended(process, tmp_path, "many")
        assert await process.reap(drain_s=0) == 30
    assert len(process.survivors) == 20
    assert not living(mark)


async def test_a_long_command_line_is_told_by_whole_arguments(reaper, tmp_path, mark):
    secret = "s" * 2000
    code = "import os, sys, time; os.fork() and os._exit(0); print('ready'); time.sleep(100)"
    argv = (sys.executable, "-u", "-c", code, mark, secret, "after")
    async with start(reaper, tmp_path, *argv, token="long") as process:
        await process.wait()
        until(lambda: read(tmp_path / "long.out"))
        assert await process.reap(drain_s=0) == 1
    (survivor,) = process.survivors
    assert survivor.command == f"{sys.executable} -u -c {code} {mark}"


# --- kept ----------------------------------------------------------------------------------------


async def test_what_is_kept_outlives_the_agent_the_reaper_and_the_guard(tmp_path, mark):
    other = new_mark()
    async with open_reaper() as reaper:
        (guard,) = [pid for pid in children(os.getpid()) if b"/reaper/" in cmdline(pid)]
        script = f"nohup sleep 100 {mark} & setsid sh -c 'sleep 100 {mark}; :' & echo ready"
        async with start(reaper, tmp_path, "sh", "-c", script, token="kept") as process:
            await process.wait()
            until(lambda: len(living(mark)) == 3)
            kept = living(mark)
            assert await process.keep() == 3
            assert await process.reap() == 0
        assert sorted(one.pid for one in process.survivors) == sorted(kept)
        assert {one.fate for one in process.survivors} == {"kept"}
        async with start(reaper, tmp_path, *hostile("tree", other), token="tree") as process:
            await ended(process, tmp_path, "tree")
            assert await process.reap(drain_s=0) == 4, "the next agent's are its own"
        (pid,) = [child for child in children(guard) if child not in kept]
        os.kill(pid, signal.SIGKILL)  # the guard sweeps, and knows them
        async with start(reaper, tmp_path, "true", token="next") as process:
            assert (await process.wait()).status == 0
        assert living(mark) == kept
    assert living(mark) == kept
    assert b"ORCHESTRATE_RUN_ID=kept" in read(Path(f"/proc/{kept[0]}/environ"))


async def test_what_a_kept_process_starts_later_is_kept_too(reaper, tmp_path, mark):
    go = tmp_path / "go"
    later = f"while ! test -e {go}; do sleep 0.01; done; setsid sleep 100 {mark} & sleep 0.3"
    script = f'nohup sh -c "{later}" & echo ready'
    async with start(reaper, tmp_path, "sh", "-c", script, token="kept") as process:
        await process.wait()
        assert await process.keep() >= 1
    go.touch()
    until(lambda: living(mark))
    async with start(reaper, tmp_path, "sleep", "0.5", token="next") as process:
        await process.wait()
    assert living(mark)


def cmdline(pid: int) -> bytes:
    return read(Path(f"/proc/{pid}/cmdline"))


# --- through the supervisor ----------------------------------------------------------------------


async def performed(folder: Path, mark: str, end: Step, detached: Detached) -> ProcessReaped:
    """What is said of a server that outlives its agent."""
    server: Step = {
        "spawn": [{"hang": True}, {"print": mark}],
        "double_fork": True,
        "quiet": True,
        "clear_env": True,
    }
    config = scripted_config(folder / "state", {"ignore": ["SIGTERM"]}, server, say("up"), end)
    events: list[Event] = []
    task = Task(prompt="p", workspace=folder, kind="search", detached=detached)
    async with Supervisor(config) as supervisor:

        def stop(event: Event) -> None:
            events.append(event)
            if end != DONE and isinstance(event.update, Message):
                supervisor.interrupt()

        await supervisor.run(task, stop)
    (reaped,) = [one.update for one in events if isinstance(one.update, ProcessReaped)]
    return reaped


@pytest.mark.parametrize("detached", ["kill", "keep"])
async def test_a_server_that_outlives_an_agent_is_killed_unless_the_task_keeps_it(
    tmp_path, mark, detached
):
    reaped = await performed(tmp_path, mark, DONE, detached)
    (server,) = reaped.processes
    assert mark in server.command
    if detached == "keep":
        assert (reaped.survivors, reaped.kept, server.fate) == (0, 1, "kept")
        assert living(mark) == [server.pid]
    else:
        assert (reaped.survivors, reaped.kept, server.fate) == (1, 0, "killed")
        assert not living(mark)


async def test_a_key_in_a_survivors_command_line_is_told_without_it(tmp_path, mark):
    key = "sk-in-a-command-line-0123456789"
    server: Step = {"spawn": [{"hang": True}, {"print": f"{mark} {key}"}], "clear_env": True}
    config = scripted_config(tmp_path / "state", server, DONE, environ={"PATH": "/bin", "KEY": key})
    events: list[Event] = []
    task = Task(prompt="p", workspace=tmp_path, kind="search", env_from=("KEY",))
    async with Supervisor(config) as supervisor:
        await supervisor.run(task, events.append)
    (reaped,) = [one.update for one in events if isinstance(one.update, ProcessReaped)]
    (survivor,) = reaped.processes
    assert key not in survivor.command
    assert "[redacted]" in survivor.command


async def test_what_a_stopped_agent_leaves_is_killed_even_if_the_task_keeps_such(tmp_path, mark):
    reaped = await performed(tmp_path, mark, {"hang": True}, "keep")
    assert (reaped.survivors, reaped.kept) == (1, 0)
    assert not living(mark)


async def test_what_may_stay_and_writes_for_ever_does_not_hold_the_run(tmp_path, mark):
    server: Step = {"spawn": [{"print": mark, "times": 10**9}]}  # faster than anybody reads
    config = scripted_config(tmp_path / "state", server, say("up"), DONE)
    task = Task(prompt="p", workspace=tmp_path, kind="search", detached="keep")
    events: list[Event] = []
    async with Supervisor(config) as supervisor:
        outcome = await supervisor.run(task, events.append)
    assert outcome.status == "succeeded"
    (reaped,) = [one.update for one in events if isinstance(one.update, ProcessReaped)]
    (server_,) = reaped.processes
    os.kill(server_.pid, signal.SIGKILL)  # it was alive until now
