"""What guard and reaper guarantee, shown on processes that do not want to end."""

import os
import signal
import subprocess
import sys
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import anyio
import pytest

from orchestrator.adapter import Command
from orchestrator.errors import ReaperLostError, SupervisionError
from orchestrator.process import Process, Reaper, base_environment, open_reaper
from orchestrator.process.parent import YOUNG_DEATHS
from orchestrator.reaper.table import kill_one, look_at
from tests.hostile import children, hostile, living, new_mark, read, state, until

pytestmark = pytest.mark.anyio

ROOT = Path(__file__).parent.parent
ENV = base_environment(os.environ)


@asynccontextmanager
async def agent(
    reaper: Reaper, folder: Path, kind: str, mark: str, name: str = "agent"
) -> AsyncGenerator[Process]:
    """A hostile agent that has got as far as to say that it is ready."""
    command = Command(argv=hostile(kind, mark), cwd="/", stdin="open")
    out = folder / f"{name}.out"
    async with reaper.spawn(
        command, env=ENV, stdout=out, stderr=folder / f"{name}.err", token=f"{name}-{mark}"
    ) as process:
        await ready(out)
        yield process


async def ready(out: Path, word: bytes = b"ready\n") -> None:
    with anyio.fail_after(10):
        while word not in read(out):
            await anyio.sleep(0.005)


async def gone(*marks: str) -> None:
    with anyio.fail_after(5):
        while any(living(mark) for mark in marks):
            await anyio.sleep(0.005)


def guard_and_reaper() -> tuple[int, int]:
    """The two processes of the one reaper that this process has opened."""
    (guard,) = [pid for pid in children(os.getpid()) if b"/reaper/" in cmdline(pid)]
    (reaper,) = children(guard)
    return guard, reaper


def cmdline(pid: int) -> bytes:
    return read(Path(f"/proc/{pid}/cmdline"))


# --- trees ---------------------------------------------------------------------------------------


async def test_a_tree_of_daemons_that_ignore_sigterm_is_gone_after_stop(tmp_path, mark):
    async with open_reaper() as reaper, agent(reaper, tmp_path, "tree", mark) as process:
        assert len(living(mark)) == 5
        assert await process.stop(interrupt=None, grace_s=0.1) == 4
        assert not living(mark)
        ended = await process.wait()
        assert ended.signal == signal.SIGKILL


async def test_what_outlives_its_agent_is_killed_and_counted(tmp_path, mark):
    async with open_reaper() as reaper, agent(reaper, tmp_path, "tree", mark) as process:
        os.kill(process.pid, signal.SIGKILL)
        ended = await process.wait()
        assert (ended.status, ended.signal) == (None, signal.SIGKILL)
        assert len(living(mark)) == 4
        assert await process.reap(drain_s=0) == 4
        assert not living(mark)
        assert await process.reap() == 4, "asked again it says the same"


@pytest.mark.parametrize("how", ["end", "error", "cancellation"])
async def test_leaving_the_block_kills_the_tree(tmp_path, mark, how):
    async with open_reaper() as reaper:
        with anyio.CancelScope() as scope, suppress(KeyError):
            async with agent(reaper, tmp_path, "tree", mark):
                if how == "error":
                    raise KeyError(mark)
                if how == "cancellation":
                    scope.cancel()
                    await anyio.sleep_forever()
        assert not living(mark)
        assert scope.cancelled_caught is (how == "cancellation")


async def test_closing_the_reaper_kills_what_is_not_known_to_be_anybodys(tmp_path, mark):
    async with open_reaper() as reaper, agent(reaper, tmp_path, "signals", "other", "other"):
        async with agent(reaper, tmp_path, "bare", mark):
            pass
        assert living(mark)
    assert not living(mark)


async def test_stopping_one_agent_leaves_the_others_alone(tmp_path, mark):
    other = new_mark()
    async with (
        open_reaper() as reaper,
        agent(reaper, tmp_path, "tree", other, "other") as one,
        agent(reaper, tmp_path, "tree", mark) as process,
    ):
        # One of the four is in the leader's process group: the interrupt is for it too.
        assert await process.stop(interrupt=signal.SIGINT, grace_s=0.05) == 3
        assert not living(mark)
        assert len(living(other)) == 5
        assert one.ended is None
    assert not living(other)


async def test_an_orphan_of_unknown_origin_lives_until_no_agent_is_left_that_may_own_it(
    tmp_path, mark
):
    async with open_reaper() as reaper:
        async with (
            agent(reaper, tmp_path, "signals", "other", "older"),
            agent(reaper, tmp_path, "bare", mark) as process,
        ):
            (orphan,) = [pid for pid in living(mark) if pid != process.pid]
            assert await process.stop(interrupt=None, grace_s=0) == 0
            assert living(mark) == [orphan], "it may be the older agent's"
            async with agent(reaper, tmp_path, "signals", "other", "younger"):
                pass
            assert living(mark) == [orphan]
        await gone(mark)
        # An agent that starts afterwards cannot own what was there before it.
        async with agent(reaper, tmp_path, "signals", "other", "last"):
            assert not living(mark)


async def test_with_one_agent_every_orphan_is_its_own(tmp_path, mark):
    async with open_reaper() as reaper, agent(reaper, tmp_path, "bare", mark) as process:
        assert await process.stop(interrupt=None, grace_s=0) == 1
        assert not living(mark)


async def test_a_child_that_was_seen_before_its_agent_crashed_is_known_without_any_trace(
    tmp_path, mark
):
    async with (
        open_reaper() as reaper,
        agent(reaper, tmp_path, "signals", "other", "other"),
        agent(reaper, tmp_path, "crash", mark) as process,
    ):
        await anyio.sleep(1.3)  # the reaper looks once a second
        await process.close_stdin()
        assert (await process.wait()).signal == signal.SIGKILL
        assert len(living(mark)) == 1
        assert await process.reap(drain_s=0) == 1
        assert not living(mark)


async def test_a_process_whose_first_thread_has_ended_is_not_taken_for_a_zombie(tmp_path, mark):
    async with open_reaper() as reaper, agent(reaper, tmp_path, "headless", mark) as process:
        (child,) = children(process.pid)
        with anyio.fail_after(5):
            while b") Z" not in read(Path(f"/proc/{child}/stat")):
                await anyio.sleep(0.005)
        assert await process.stop(interrupt=None, grace_s=0.05) == 1
        assert state(child) is None


async def test_a_misleading_name_does_not_hide_a_process(tmp_path, mark):
    liar = tmp_path / "a) Z 1 (b"
    liar.symlink_to("/bin/sleep")
    script = f"setsid '{liar}' 100 {mark} & setsid '{liar}' 100 {mark} & wait"
    async with (
        open_reaper() as reaper,
        reaper.spawn(
            Command(argv=("sh", "-c", script), cwd="/"),
            env=ENV,
            stdout=tmp_path / "out",
            stderr=tmp_path / "err",
            token=mark,
        ) as process,
    ):
        with anyio.fail_after(5):
            while sum(b"(a) Z 1 (b)" in read(stat(pid)) for pid in living(mark)) < 2:
                await anyio.sleep(0.005)
        assert await process.reap(drain_s=0) == 2
        assert not living(mark)


def stat(pid: int) -> Path:
    return Path(f"/proc/{pid}/stat")


async def test_a_later_process_with_the_same_number_is_not_signalled(tmp_path, mark):
    async with open_reaper() as reaper, agent(reaper, tmp_path, "signals", mark) as process:
        seen = look_at(process.pid)
        assert seen is not None
        seen.start -= 1
        kill_one(seen, signal.SIGKILL)
        await process.signal(signal.SIGINT)
        await ready(tmp_path / "agent.out", b"SIGINT\n")
        seen.start += 1
        kill_one(seen, signal.SIGKILL)
        assert (await process.wait()).signal == signal.SIGKILL
    kill_one(seen, signal.SIGKILL)  # gone: fine


async def test_the_reaper_leaves_no_zombies(tmp_path, mark):
    async with open_reaper() as reaper:
        _, pid = guard_and_reaper()
        script = "for i in 1 2 3 4 5 6 7 8 9; do (sleep 0.01 & sleep 0.01 &) ; done; echo ready"
        command = Command(argv=("sh", "-c", script), cwd="/")
        out = tmp_path / "out"
        async with reaper.spawn(
            command, env=ENV, stdout=out, stderr=tmp_path / "err", token=mark
        ) as process:
            await process.wait()
            assert await process.reap(drain_s=5) == 0, "they end by themselves"
            assert children(pid) == []


# --- stopping ------------------------------------------------------------------------------------


async def test_stop_goes_from_the_interrupt_over_sigterm_to_sigkill(tmp_path, mark):
    async with open_reaper() as reaper, agent(reaper, tmp_path, "signals", mark) as process:
        assert await process.stop(interrupt=signal.SIGINT, grace_s=0.2) == 0
        assert (await process.wait()).signal == signal.SIGKILL
    said = (tmp_path / "agent.out").read_text().split()
    assert said[:2] == ["ready", "SIGINT"]
    assert sorted(said[2:]) == ["SIGCONT", "SIGTERM"]


async def test_stop_without_an_interrupt_begins_with_sigterm(tmp_path, mark):
    async with open_reaper() as reaper, agent(reaper, tmp_path, "signals", mark) as process:
        await process.stop(interrupt=None, grace_s=0.1)
    assert "SIGINT" not in (tmp_path / "agent.out").read_text()


async def test_a_second_stop_with_no_grace_overtakes_the_first(tmp_path, mark):
    async with open_reaper() as reaper, agent(reaper, tmp_path, "signals", mark) as process:
        with anyio.fail_after(10):
            async with anyio.create_task_group() as group:

                async def patient() -> None:
                    await process.stop(interrupt=signal.SIGINT, grace_s=60)

                group.start_soon(patient)
                await ready(tmp_path / "agent.out", b"SIGINT\n")
                await process.stop(interrupt=None, grace_s=0)
        assert not living(mark)


async def test_a_stopped_process_is_woken_to_take_its_sigterm(tmp_path, mark):
    async with open_reaper() as reaper, agent(reaper, tmp_path, "stopped", mark) as process:
        with anyio.fail_after(5):
            while state(process.pid) != "T":
                await anyio.sleep(0.005)
        await process.stop(interrupt=None, grace_s=5)
        assert (await process.wait()).status == 42


async def test_signal_reaches_daemons_too_and_a_process_that_is_gone_is_fine(tmp_path, mark):
    async with open_reaper() as reaper, agent(reaper, tmp_path, "tree", mark) as process:
        await process.signal(signal.SIGKILL)
        await process.wait()
        await gone(mark)
        await process.signal(signal.SIGTERM)
        assert await process.stop(interrupt=signal.SIGINT, grace_s=1) == 0


# --- deaths --------------------------------------------------------------------------------------

SUPERVISOR = """
import os, sys, anyio
from pathlib import Path
from contextlib import AsyncExitStack
from orchestrator.adapter import Command
from orchestrator.process import open_reaper, base_environment
from tests.hostile import hostile, read

async def main(count, kind, mark, folder):
    async with open_reaper() as reaper, AsyncExitStack() as stack:
        if "--fork" in sys.argv and os.fork() == 0:
            os.execvp("sleep", ["sleep", "120", mark]) if "--exec" in sys.argv else worker(mark)
        for number in range(count):
            await stack.enter_async_context(reaper.spawn(
                Command(argv=hostile(kind, mark), cwd="/"),
                env=base_environment(os.environ),
                stdout=folder / f"{number}.out",
                stderr=folder / f"{number}.err",
                token=f"{number}-{mark}",
            ))
        while any(b"ready" not in read(folder / f"{n}.out") for n in range(count)):
            await anyio.sleep(0.01)
        print("ready", flush=True)
        await anyio.sleep(100)

def worker(mark):
    # Of a host that forks: it holds the supervisor's sockets open.
    import time
    time.sleep(15)
    os._exit(0)

anyio.run(main, int(sys.argv[1]), sys.argv[2], sys.argv[3], Path(sys.argv[4]))
"""


@pytest.mark.parametrize("more", [[], ["--fork"]], ids=["alone", "a forked worker lives on"])
def test_nothing_survives_a_supervisor_that_is_killed(tmp_path, mark, more):
    with subprocess.Popen(
        [sys.executable, "-c", SUPERVISOR, "8", "tree", mark, str(tmp_path), *more],
        stdout=subprocess.PIPE,
        cwd=ROOT,
    ) as supervisor:
        assert supervisor.stdout is not None
        assert supervisor.stdout.read(6) == b"ready\n"
        (guard,) = [pid for pid in children(supervisor.pid) if b"/reaper/" in cmdline(pid)]
        workers = [pid for pid in children(supervisor.pid) if pid != guard]
        (reaper,) = children(guard)
        agents = [pid for pid in living(mark) if pid not in {supervisor.pid, *workers}]
        assert len(agents) == 8 * 5
        supervisor.kill()
        until(lambda: all(state(pid) in {None, "Z"} for pid in (*agents, guard, reaper)), 5)
        for worker in workers:
            assert state(worker) is not None
            os.kill(worker, signal.SIGKILL)


@pytest.mark.parametrize("kind", ["tree", "bare"])
async def test_when_the_reaper_is_killed_the_guard_kills_all_and_the_next_agent_has_a_new_one(
    tmp_path, mark, kind
):
    async with open_reaper() as reaper:
        guard, pid = guard_and_reaper()
        async with agent(reaper, tmp_path, kind, mark) as process:
            os.kill(pid, signal.SIGKILL)
            with pytest.raises(SupervisionError, match="what it supervised has been killed"):
                await process.wait()
            assert not living(mark)
            assert state(guard) is None
            with pytest.raises(SupervisionError):
                await process.reap()
            with pytest.raises(SupervisionError):
                await process.stop(interrupt=None, grace_s=1)
        async with agent(reaper, tmp_path, "tree", mark, "next") as process:
            assert guard_and_reaper()[0] != guard
            assert await process.stop(interrupt=None, grace_s=0) == 4


@pytest.mark.parametrize("kind", ["tree", "bare"])
async def test_when_the_guard_is_killed_the_reaper_kills_all_and_the_next_agent_has_a_new_one(
    tmp_path, mark, kind
):
    async with open_reaper() as reaper:
        guard, pid = guard_and_reaper()
        async with agent(reaper, tmp_path, kind, mark) as process:
            os.kill(guard, signal.SIGKILL)
            with pytest.raises(SupervisionError):
                await process.wait()
            assert not living(mark)
            with anyio.fail_after(5):  # it has told all and is about to end
                while state(pid) not in {None, "Z"}:
                    await anyio.sleep(0.005)
        async with agent(reaper, tmp_path, "tree", mark, "next") as process:
            assert await process.stop(interrupt=None, grace_s=0) == 4


@pytest.mark.parametrize("victims", [[0], [1], [0, 1]], ids=["guard", "reaper", "both"])
async def test_a_reaper_that_dies_while_nobody_needs_it_is_replaced_without_a_trace(
    tmp_path, mark, victims
):
    before = 0
    async with open_reaper() as reaper:
        for number in range(3):
            async with agent(reaper, tmp_path, "signals", mark, f"{number}"):
                pass
            pair = guard_and_reaper()
            if number == 0:
                before = files_open()
            for victim in victims:
                os.kill(pair[victim], signal.SIGKILL)
                await dead(pair[victim])
        async with agent(reaper, tmp_path, "signals", mark, "last"):
            assert files_open() <= before + 3, "only the agent's own"
    assert not living(mark)


async def dead(pid: int) -> None:
    with anyio.fail_after(5):
        while state(pid) not in {None, "Z"}:
            await anyio.sleep(0.005)


def files_open() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


async def test_a_reaper_that_always_dies_at_once_is_not_replaced_for_ever(tmp_path, mark):
    async with open_reaper() as reaper:
        for number in range(YOUNG_DEATHS - 1):
            os.kill(guard_and_reaper()[1], signal.SIGKILL)
            async with agent(reaper, tmp_path, "signals", mark, f"{number}"):
                pass
        os.kill(guard_and_reaper()[1], signal.SIGKILL)
        for _ in range(2):
            with pytest.raises(SupervisionError, match="5 times in a row") as caught:
                async with agent(reaper, tmp_path, "signals", mark, "last"):
                    pytest.fail("it was started")
            assert not isinstance(caught.value, ReaperLostError)
            assert caught.value.hint is not None


async def test_when_both_are_killed_at_once_the_supervisor_kills_what_it_can_tell(tmp_path, mark):
    async with open_reaper() as reaper:
        guard, pid = guard_and_reaper()
        async with agent(reaper, tmp_path, "tree", mark) as process:
            for number in (signal.SIGSTOP, signal.SIGKILL):  # neither sees the other's end
                os.kill(guard, number)
                os.kill(pid, number)
            with pytest.raises(SupervisionError):
                await process.wait()
            assert not living(mark)


def environ(pid: int) -> bytes:
    return read(Path(f"/proc/{pid}/environ"))


async def test_guard_and_reaper_take_no_notice_of_signals_that_can_be_ignored(tmp_path, mark):
    async with open_reaper() as reaper:
        for pid in guard_and_reaper():
            for number in signal.valid_signals() - {signal.SIGKILL, signal.SIGSTOP}:
                os.kill(pid, number)
        async with agent(reaper, tmp_path, "tree", mark) as process:
            assert await process.stop(interrupt=None, grace_s=0) == 4


async def test_a_stopped_reaper_is_woken_by_its_guard(tmp_path, mark):
    async with open_reaper() as reaper, agent(reaper, tmp_path, "tree", mark) as process:
        os.kill(guard_and_reaper()[1], signal.SIGSTOP)
        with anyio.fail_after(5):
            assert await process.stop(interrupt=None, grace_s=0) == 4


# --- what is not touched, and what is not shown --------------------------------------------------

HOST = """
import ctypes, os, signal, subprocess, sys, anyio
from pathlib import Path
from orchestrator.process import open_reaper, run_to_end, base_environment

handler = lambda *_: None
signal.signal(signal.SIGCHLD, handler)
prctl = ctypes.CDLL(None).prctl

def is_subreaper():
    value = ctypes.c_int()
    prctl(37, ctypes.byref(value), 0, 0, 0)
    return value.value

def handlers():
    return {number: signal.getsignal(number) for number in signal.valid_signals()}

async def main():
    before = handlers()
    child = subprocess.Popen(["sh", "-c", "read _; (sleep 0.1 &) ; exit 7"], stdin=subprocess.PIPE)
    async with open_reaper() as reaper:
        done = await run_to_end(reaper, ["sh", "-c", "exit 3"], cwd=Path("/"),
                                env=base_environment(os.environ), limit_s=5)
        assert done.exit == 3
        child.communicate(b"go")
        assert child.returncode == 7, child.returncode
        assert not is_subreaper()
        quick = subprocess.Popen(["sh", "-c", "exit 9"])
        if sys.argv[1] == "greedy":  # a host that waits for whatever child ends
            assert os.waitpid(-1, 0) == (quick.pid, 9 << 8)
        else:
            assert quick.wait() == 9
    assert handlers() == before
    assert signal.pthread_sigmask(signal.SIG_BLOCK, ()) == set()
    try:
        raise SystemExit(f"a child is left: {os.waitpid(-1, os.WNOHANG)}")
    except ChildProcessError:
        print("untouched")

anyio.run(main)
"""


@pytest.mark.parametrize("host", ["careful", "greedy"])
def test_the_hosts_own_children_and_signal_handlers_are_untouched(host):
    done = subprocess.run(
        [sys.executable, "-c", HOST, host], capture_output=True, cwd=ROOT, timeout=15
    )
    assert (done.stdout, done.stderr) == (b"untouched\n", b"")


async def test_ctrl_c_in_the_terminal_reaches_neither_guard_nor_reaper_nor_agent(tmp_path, mark):
    async with open_reaper() as reaper, agent(reaper, tmp_path, "signals", mark) as process:
        guard, pid = guard_and_reaper()
        sessions = {os.getsid(one) for one in (os.getpid(), guard, pid, process.pid)}
        groups = {os.getpgid(one) for one in (os.getpid(), guard, pid, process.pid)}
        assert len(sessions) == len(groups) == 4


async def test_secrets_are_in_no_command_line_and_not_in_guard_or_reaper(tmp_path, mark):
    secret = f"secret-{mark}"
    command = Command(argv=("sh", "-c", "cat; sleep 100"), cwd="/", stdin=secret.encode())
    async with (
        open_reaper() as reaper,
        reaper.spawn(
            command,
            env=ENV | {"API_KEY": secret},
            stdout=tmp_path / "out",
            stderr=tmp_path / "err",
            token=mark,
        ) as process,
    ):
        await ready(tmp_path / "out", secret.encode())
        assert secret.encode() in environ(process.pid)
        assert not [
            folder
            for folder in Path("/proc").iterdir()
            if secret.encode() in read(folder / "cmdline")
        ]
        for pid in guard_and_reaper():
            assert secret.encode() not in environ(pid)
            assert os.environ["PATH"].encode() not in environ(pid)


async def test_a_failure_of_the_reaper_is_told_in_its_own_words(monkeypatch):
    monkeypatch.setattr(sys, "executable", "/bin/cat")
    with pytest.raises(SupervisionError, match=r"the reaper ended.*--help"):
        async with open_reaper():
            pass
    monkeypatch.setattr(sys, "executable", "/nowhere/python")
    with pytest.raises(SupervisionError, match=r"cannot start the reaper.*/nowhere/python"):
        async with open_reaper():
            pass


# --- storms --------------------------------------------------------------------------------------

STORM = """
import os, sys, anyio
from pathlib import Path
from orchestrator.adapter import Command
from orchestrator.process import base_environment, open_reaper
from tests.hostile import hostile, living, read

async def main(folder, mark):
    env = base_environment(os.environ)
    async with open_reaper() as reaper:
        other = reaper.spawn(Command(argv=("sleep", "100"), cwd="/"), env=env, token="other",
                             stdout=folder / "o", stderr=folder / "p")
        storm = reaper.spawn(Command(argv=hostile("hop", mark), cwd="/"), env=env, token="storm",
                             stdout=folder / "q", stderr=folder / "r")
        async with other as calm, storm as process:
            while b"ready" not in read(folder / "q"):
                await anyio.sleep(0.01)
            await anyio.sleep(0.1)
            await process.stop(interrupt=None, grace_s=0)
            print(living(mark), calm.ended, process.left)

anyio.run(main, Path(sys.argv[1]), sys.argv[2])
"""


def test_a_tree_that_forks_into_new_sessions_for_ever_is_caught(tmp_path):
    namespace = ["unshare", "-pf", "--mount-proc", "--kill-child"]
    try:
        subprocess.run([*namespace, "true"], check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError) as error:
        pytest.skip(f"a PID namespace is not permitted here: {error}")
    # The storm's own mark is not on this command line, which the namespace shows too.
    script = STORM.replace("sys.argv[2]", "'0.' + sys.argv[2]")
    done = subprocess.run(
        [*namespace, sys.executable, "-c", script, str(tmp_path), new_mark()[2:]],
        capture_output=True,
        cwd=ROOT,
        timeout=18,
        text=True,
    )
    assert (done.stdout, done.stderr) == ("[] None 0\n", "")
