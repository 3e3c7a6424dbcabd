"""Without subreapers agents are ended by process group. It is shown here on Linux, which is told to
have none; it has never run on another system.
"""

import os
import signal
import socket
import subprocess
import sys
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import anyio
import pytest

from orchestrator.adapter import Agent, Command
from orchestrator.errors import ReaperLostError
from orchestrator.events import Event, ProcessReaped
from orchestrator.groups.frames import Frames
from orchestrator.groups.noted import Groups
from orchestrator.groups.table import look
from orchestrator.process import (
    Process,
    Reaper,
    base_environment,
    guarantees,
    open_reaper,
    run_to_end,
)
from orchestrator.process.means import ASKED
from orchestrator.supervisor import Supervisor
from orchestrator.task import Task
from tests.hostile import children, hostile, living, new_mark, read, state, until
from tests.scripted_adapter import DONE, Scripted, say, scripted_config

pytestmark = pytest.mark.anyio

ROOT = Path(__file__).parent.parent
ENV = base_environment(os.environ)


@pytest.fixture(autouse=True)
def asked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(ASKED, "groups")


# Children in the group, in one of their own and in a session of their own; none minds SIGTERM.
FAMILY = (
    "trap '' TERM; sleep 100 {mark} & setsid sleep 100 {mark} & "
    "sh -c 'trap \"\" TERM; exec sleep 100 {mark}' & echo ready; exec sleep 100 {mark}"
)


@asynccontextmanager
async def agent(
    reaper: Reaper, folder: Path, mark: str, argv: tuple[str, ...] = (), name: str = "agent"
) -> AsyncGenerator[Process]:
    argv = argv or ("sh", "-c", FAMILY.format(mark=mark))
    out = folder / f"{name}.out"
    async with reaper.spawn(
        Command(argv=argv, cwd="/"),
        env=ENV,
        stdout=out,
        stderr=folder / f"{name}.err",
        token=f"{name}-{mark}",
    ) as process:
        with anyio.fail_after(10):
            while b"ready" not in read(out):
                await anyio.sleep(0.005)
        yield process


async def whole(mark: str, count: int) -> None:
    """All of them are executing."""
    with anyio.fail_after(10):
        while len(living(mark)) < count:
            await anyio.sleep(0.005)


def guard_and_reaper() -> tuple[int, int]:
    (guard,) = [
        pid for pid in children(os.getpid()) if b"/groups/" in read(Path(f"/proc/{pid}/cmdline"))
    ]
    (reaper,) = [
        pid for pid in children(guard) if b"/groups/" in read(Path(f"/proc/{pid}/cmdline"))
    ]
    return guard, reaper


# --- agents --------------------------------------------------------------------------------------


async def test_an_agents_status_or_signal_output_and_input_are_exact():
    async with open_reaper() as reaper:

        async def told(
            script: str, stdin: bytes | None = None
        ) -> tuple[int | None, int | None, bytes]:
            argv = ("sh", "-c", script)
            done = await run_to_end(reaper, argv, cwd=Path("/"), env=ENV, limit_s=10, stdin=stdin)
            return done.exit, done.signal, done.stdout

        assert await told("echo hi; exit 7") == (7, None, b"hi\n")
        assert await told("kill -SEGV $$") == (None, signal.SIGSEGV, b"")
        long = b"x" * 300_000
        assert await told("cat", stdin=long) == (0, None, long)


async def test_an_agent_has_its_own_session_default_signals_and_three_descriptors():
    listing = (
        "import os, signal; print(os.getsid(0) == os.getpid(), "
        "signal.getsignal(signal.SIGPIPE) == signal.SIG_DFL or signal.getsignal(signal.SIGHUP) == "
        "signal.SIG_DFL, len(os.listdir('/proc/self/fd')))"
    )
    async with open_reaper() as reaper:
        argv = (sys.executable, "-I", "-S", "-c", listing)
        done = await run_to_end(reaper, argv, cwd=Path("/"), env=ENV, limit_s=10)
    assert done.stdout == b"True True 4\n", "the fourth is that of the listing"


async def test_a_stopped_agents_groups_are_gone_and_another_agents_are_not(tmp_path, mark):
    other = new_mark()
    async with (
        open_reaper() as reaper,
        agent(reaper, tmp_path, other, name="other") as untouched,
        agent(reaper, tmp_path, mark) as process,
    ):
        await whole(mark, 4)
        await whole(other, 4)
        assert await process.stop(interrupt=None, grace_s=0.1) == 3
        assert not living(mark)
        assert (await process.wait()).signal == signal.SIGKILL
        assert len(living(other)) == 4
        assert untouched.ended is None
    assert not living(other)


async def test_what_outlives_an_agent_in_its_group_is_killed_counted_and_named(tmp_path, mark):
    async with open_reaper() as reaper, agent(reaper, tmp_path, mark) as process:
        await whole(mark, 4)
        os.kill(process.pid, signal.SIGKILL)
        await process.wait()
        assert await process.reap(drain_s=0) >= 2
        found = {one.command for one in process.survivors}
        assert found == {f"sleep 100 {mark}"}


async def test_a_group_of_its_own_that_was_seen_is_found_after_its_parent_is_gone(tmp_path, mark):
    async with open_reaper() as reaper, agent(reaper, tmp_path, mark) as process:
        await whole(mark, 4)
        await process.signal(signal.SIGCONT)  # before a signal, and each second, there is a look
        await _one(reaper, mark, 1)  # asked after it, answered after it
        os.kill(process.pid, signal.SIGKILL)
        await process.wait()
        assert await process.reap(drain_s=0) == 3
        assert not living(mark)


async def test_a_daemon_that_left_its_group_unseen_lives_on_as_the_guarantees_say(tmp_path, mark):
    async with (
        open_reaper() as reaper,
        agent(reaper, tmp_path, mark, hostile("bare", mark)) as process,
    ):
        await process.stop(interrupt=None, grace_s=0)
    assert len(living(mark)) == 1
    assert [one.name for one in guarantees() if not one.holds][:2] == ["trees", "numbers"]


@pytest.mark.parametrize("how", ["end", "cancellation"])
async def test_leaving_the_block_kills_the_groups(tmp_path, mark, how):
    async with open_reaper() as reaper:
        with anyio.CancelScope() as scope:
            async with agent(reaper, tmp_path, mark):
                await whole(mark, 4)
                if how == "cancellation":
                    scope.cancel()
                    await anyio.sleep_forever()
        assert not living(mark)


async def test_what_may_stay_is_kept_and_outlives_guard_and_reaper(tmp_path, mark):
    script = f"setsid sleep 100 {mark} & sleep 100 {mark} & echo ready"
    async with (
        open_reaper() as reaper,
        agent(reaper, tmp_path, mark, ("sh", "-c", script)) as process,
    ):
        await process.wait()
        assert await process.keep() >= 1
        assert process.survivors[0].fate == "kept"
    assert len(living(mark)) >= 1


async def test_without_ps_the_agents_own_group_is_still_ended(tmp_path, mark, monkeypatch):
    monkeypatch.setattr("orchestrator.process.pair.ps", lambda: "")
    script = f"trap '' TERM; sleep 100 {mark} & echo ready; exec sleep 100 {mark}"
    async with (
        open_reaper() as reaper,
        agent(reaper, tmp_path, mark, ("sh", "-c", script)) as process,
    ):
        await whole(mark, 2)
        await process.stop(interrupt=None, grace_s=0.05)
        assert not living(mark)


async def test_many_at_once_leave_neither_processes_nor_descriptors(mark):
    async with open_reaper() as reaper:
        guard, parent = guard_and_reaper()
        places = [Path(f"/proc/{pid}/fd") for pid in (os.getpid(), guard, parent)]
        before = [len(list(place.iterdir())) for place in places]
        async with anyio.create_task_group() as group:
            for number in range(60):
                group.start_soon(_one, reaper, mark, number)
        assert not living(mark)
        assert [len(list(place.iterdir())) for place in places] == before


async def _one(reaper: Reaper, mark: str, number: int) -> None:
    argv = ("sh", "-c", f"exit {number}", mark)
    with anyio.move_on_after(0.001 * number if number % 3 == 0 else 60):  # some are cancelled
        done = await run_to_end(reaper, argv, cwd=Path("/"), env=ENV, limit_s=20)
        assert done.exit == number


class Leaving(Scripted):
    """Says that it is done and leaves a process behind."""

    def __init__(self, mark: str) -> None:
        super().__init__()
        self._mark = mark

    def command(self, task: Task, agent: Agent) -> Command:
        script = f"sleep 100 {self._mark} & echo '{say('a')['print']}'; echo '{DONE['print']}'"
        return Command(argv=("sh", "-c", script), cwd=str(task.workspace))


async def test_a_whole_run_of_a_task_is_as_it_is_with_subreapers(tmp_path, mark):
    work = tmp_path / "work"
    work.mkdir()
    config = scripted_config(tmp_path / "state", adapter=Leaving(mark))
    events: list[Event] = []
    async with Supervisor(config) as supervisor:
        outcome = await supervisor.run(Task(prompt="p", workspace=work), events.append)
    assert outcome.status == "succeeded", outcome
    (reaped,) = [one.update for one in events if isinstance(one.update, ProcessReaped)]
    assert [one.command for one in reaped.processes] == [f"sleep 100 {mark}"]
    assert not living(mark)


# --- those who supervise -------------------------------------------------------------------------

HOST = """
import os, sys, time, anyio
from pathlib import Path
from orchestrator.adapter import Agent, Command
from orchestrator.process import base_environment, open_reaper

async def main(folder, family, more):
    command = Command(argv=("sh", "-c", family), cwd="/")
    files = {"stdout": folder / "o", "stderr": folder / "e"}
    async with open_reaper() as reaper, reaper.spawn(
        command, env=base_environment(os.environ), token="t", **files
    ):
        while not (folder / "o").stat().st_size:
            await anyio.sleep(0.01)
        if more and os.fork() == 0:
            time.sleep(60)
            os._exit(0)
        print("ready", flush=True)
        await anyio.sleep(60)

anyio.run(main, Path(sys.argv[1]), sys.argv[2], sys.argv[3])
"""


@pytest.mark.parametrize("more", ["", "a forked worker that holds the socket"])
def test_nothing_survives_a_supervisor_that_is_killed(tmp_path, mark, more):
    argv = [sys.executable, "-c", HOST, str(tmp_path), FAMILY.format(mark=mark), more]
    with subprocess.Popen(argv, cwd=ROOT, stdout=subprocess.PIPE) as host:
        assert host.stdout is not None
        assert host.stdout.readline() == b"ready\n"
        until(lambda: len(sleepers(mark)) == 4)
        worker = next((pid for pid in children(host.pid) if is_program(pid, host.args)), None)
        assert (worker is None) is (not more)
        try:
            host.kill()
            until(lambda: not sleepers(mark))
        finally:
            if worker is not None:
                os.kill(worker, signal.SIGKILL)


def sleepers(mark: str) -> list[int]:
    return [pid for pid in living(mark) if read(Path(f"/proc/{pid}/cmdline")).startswith(b"sleep")]


def is_program(pid: int, argv: object) -> bool:
    assert isinstance(argv, list)
    return read(Path(f"/proc/{pid}/cmdline")).split(b"\0")[:-1] == [os.fsencode(a) for a in argv]


@pytest.mark.parametrize("victim", ["guard", "reaper", "both"])
async def test_when_guard_or_reaper_is_killed_all_are_ended_and_the_next_agent_has_new_ones(
    tmp_path, mark, victim
):
    guard = parent = 0
    async with open_reaper() as reaper:
        with pytest.raises(ReaperLostError):  # noqa: PT012 (told while the agent is waited for)
            async with agent(reaper, tmp_path, mark) as process:
                await whole(mark, 4)
                await process.signal(signal.SIGCONT)
                guard, parent = guard_and_reaper()
                for pid in {"guard": [guard], "reaper": [parent], "both": [parent, guard]}[victim]:
                    os.kill(pid, signal.SIGKILL)
                with anyio.fail_after(10):
                    await process.wait()
        assert not living(mark)
        done = await run_to_end(reaper, ("true",), cwd=Path("/"), env=ENV, limit_s=10)
        assert done.exit == 0
        assert guard, "it was lost before it was killed"
        assert not {guard, parent} & set(guard_and_reaper())


async def test_a_stopped_reaper_is_woken_and_signals_to_all_do_not_end_it(tmp_path, mark):
    async with open_reaper() as reaper:
        for pid in guard_and_reaper():
            os.kill(pid, signal.SIGTERM)
            os.kill(pid, signal.SIGINT)
        os.kill(guard_and_reaper()[1], signal.SIGSTOP)
        done = await run_to_end(reaper, ("true",), cwd=Path("/"), env=ENV, limit_s=10)
        assert done.exit == 0


# --- frames --------------------------------------------------------------------------------------


def test_a_message_larger_than_the_socket_takes_comes_whole_with_its_descriptors():
    ours, theirs = socket.socketpair()
    with ours, theirs, open(os.devnull) as null:  # noqa: PTH123
        ours.setblocking(False)
        theirs.setblocking(False)
        sender, reader = Frames(ours), Frames(theirs)
        large = bytes(range(256)) * 8000
        sender.send(large, [null.fileno()] * 3)
        assert sender.torn
        with pytest.raises(BlockingIOError):
            sender.send(b"next")
        found: list[tuple[bytes, list[int]]] = []
        while not found:
            with suppress(BlockingIOError):
                sender.flush()
            with suppress(BlockingIOError):
                found.append(reader.receive())
        sender.send(b"next")
        sender.send(b"", [null.fileno()])
        found += [reader.receive(), reader.receive()]
        ours.close()
        assert reader.receive() == (b"", [])
        assert [(text, len(rights)) for text, rights in found] == [
            (large, 3),
            (b"next", 0),
            (b"", 1),
        ]
        for descriptor in [one for _, rights in found for one in rights]:
            assert not os.get_inheritable(descriptor)
            os.close(descriptor)


def test_what_two_processes_share_is_the_groups_that_are_to_be_ended():
    shared = Groups()
    shared.note({5, 6})
    if os.fork() == 0:
        shared.note({6, 7})
        os._exit(0)
    os.wait()
    assert shared.noted() == {6, 7}


def test_a_list_of_processes_that_fails_is_no_list():
    assert look("/bin/false") is None
    assert look("/nowhere/ps") is None
    shown = look("/bin/ps")
    assert shown is not None
    assert shown[os.getpid()].group == os.getpgrp()


def test_a_host_that_ignores_the_end_of_its_children_sees_the_processes_too():
    before = signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    try:
        shown = look("/bin/ps")
    finally:
        signal.signal(signal.SIGCHLD, before)
    assert shown is not None
    assert os.getpid() in shown


HOLDING = """
import ctypes, sys, time
from pathlib import Path
parent, ptrace = sys.argv[1], ctypes.CDLL(None).ptrace
ptrace.argtypes = [ctypes.c_long] * 4
print("ready", flush=True)
while True:
    for pid in Path(f"/proc/{parent}/task/{parent}/children").read_text().split():
        if Path(f"/proc/{pid}/comm").read_text() == "held\\n":
            ptrace(0x4206, int(pid), 0, 0)  # PTRACE_SEIZE
            time.sleep(60)
    time.sleep(0.005)
"""


def test_a_ps_that_does_not_end_when_it_is_killed_is_not_waited_for(tmp_path, monkeypatch):
    held = tmp_path / "held"
    held.write_text(f"#!{sys.executable} -IS\nimport time\ntime.sleep(60)\n")
    held.chmod(0o755)
    monkeypatch.setattr("orchestrator.groups.table._PS_S", 1.5)
    command = [sys.executable, "-c", HOLDING, str(os.getpid())]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as tracer:
        try:
            assert tracer.stdout is not None
            assert tracer.stdout.readline() == b"ready\n"
            assert look(str(held)) is None
            (pid,) = [pid for pid in children(os.getpid()) if pid != tracer.pid]
            assert state(pid) == "Z"
        finally:
            tracer.kill()
    os.waitpid(pid, 0)
