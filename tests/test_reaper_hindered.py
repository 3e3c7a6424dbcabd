"""What guard and reaper do when something is in their way: a tracer, a pause, their own death."""

import ctypes
import os
import shutil
import signal
import subprocess
import sys
import time
from contextlib import AbstractAsyncContextManager, suppress
from pathlib import Path

import anyio
import pytest

from orchestrator.adapter import Command
from orchestrator.process import Process, Reaper, base_environment, open_reaper, run_to_end
from orchestrator.reaper.kept import Kept
from orchestrator.reaper.table import Seen
from tests.hostile import children, living, state

pytestmark = pytest.mark.anyio

ROOT = Path(__file__).parent.parent
ENV = base_environment(os.environ)
PTRACE_SEIZE, WALL = 0x4206, 0x40000000


async def test_a_zombie_that_a_tracer_holds_does_not_delay_the_end_of_the_others(tmp_path, mark):
    async with open_reaper() as reaper:

        async def run(script: str) -> None:
            await run_to_end(reaper, ("sh", "-c", script), cwd=tmp_path, env=ENV, limit_s=60)

        async with reaper.spawn(
            Command(argv=("sh", "-c", f"setsid sleep 100 {mark} & echo"), cwd="/"),
            env=ENV,
            stdout=tmp_path / "o",
            stderr=tmp_path / "e",
            token="traced",
        ) as process:
            await process.wait()
            with anyio.fail_after(10):
                while not (orphans := living(mark)):
                    await anyio.sleep(0.005)
            (orphan,) = orphans
            assert seize(orphan) == 0
        assert state(orphan) == "Z", "killed, and nobody but its tracer can take it"
        try:
            with anyio.fail_after(15):  # each took five seconds and more
                for _ in range(4):
                    await run("true")
        finally:
            os.waitpid(orphan, WALL)


def seize(pid: int) -> int:
    ptrace = ctypes.CDLL(None, use_errno=True).ptrace
    ptrace.argtypes = [ctypes.c_long] * 4
    status: int = ptrace(PTRACE_SEIZE, pid, 0, 0)
    return status


def one_of(reaper: Reaper, folder: Path) -> AbstractAsyncContextManager[Process]:
    """An agent that goes on for ever."""
    return reaper.spawn(
        Command(argv=("sleep", "100"), cwd="/"),
        env=ENV,
        stdout=folder / "o",
        stderr=folder / "e",
        token="one",
    )


def guard_and_reaper() -> tuple[int, int]:
    (guard,) = [pid for pid in children(os.getpid()) if children(pid)]
    (reaper,) = children(guard)[:1]
    return guard, reaper


IMPATIENT = f"""
import socket, sys
sys.path.append({str(ROOT)!r})
from orchestrator.reaper import serving
serving.STUCK_S = 0.2
from orchestrator.reaper.guard import guard
guard(socket.socket(fileno=int(sys.argv[1])), int(sys.argv[2]))
"""


async def test_a_reaper_that_was_stopped_when_an_agent_was_to_end_ends_it_afterwards(
    tmp_path, monkeypatch
):
    (tmp_path / "impatient.py").write_text(IMPATIENT)
    monkeypatch.setattr("orchestrator.process.pair._main", lambda _: str(tmp_path / "impatient.py"))
    async with open_reaper() as reaper, one_of(reaper, tmp_path) as process:
        guard, paused = guard_and_reaper()
        async with anyio.create_task_group() as group:
            group.start_soon(reap, process)
            await run_to_end(reaper, ("true",), cwd=tmp_path, env=ENV, limit_s=60)  # it is heard
            await stop(guard)
            await stop(paused)
            await anyio.sleep(0.8)  # until it was to end, and STUCK_S more
            os.kill(guard, signal.SIGCONT)  # which wakes the reaper
        assert process.left == 0
        ended = await process.wait()
        assert ended.signal == signal.SIGKILL


async def test_a_reaper_that_was_stopped_together_with_its_supervisor_is_not_overdue(
    tmp_path, monkeypatch
):
    monkeypatch.setattr("orchestrator.process.pair.ANSWER_S", 1.0)
    monkeypatch.setattr("orchestrator.process.pair.STUCK_S", 0.0)
    async with open_reaper() as reaper, one_of(reaper, tmp_path) as process:
        guard, paused = guard_and_reaper()
        await stop(guard)
        await stop(paused)
        async with anyio.create_task_group() as group:
            group.start_soon(reap, process)
            await anyio.wait_all_tasks_blocked()
            time.sleep(2)  # all three are stopped
            os.kill(guard, signal.SIGCONT)
        assert (await process.wait()).signal == signal.SIGKILL


async def reap(process: Process) -> None:
    await process.reap(drain_s=0.5)


async def stop(pid: int) -> None:
    os.kill(pid, signal.SIGSTOP)
    with anyio.fail_after(10):
        while state(pid) != "T":
            await anyio.sleep(0.005)


HIDING = """
import ctypes, os, time
ours, theirs = os.pipe()
if os.fork():
    os.close(theirs)
    os.read(ours, 1)
    os._exit(0)
os.setsid()
ctypes.CDLL(None).prctl(4, 0, 0, 0, 0)  # PR_SET_DUMPABLE, as ssh-agent does
os.write(1, b"%d" % os.getpid())
os.close(theirs)
time.sleep(100)
"""

HIDDEN = f"""
import os, sys, anyio
from pathlib import Path
from orchestrator.adapter import Command
from orchestrator.process import base_environment, open_reaper
from tests.hostile import read

async def main(folder):
    async with open_reaper() as reaper:
        async with reaper.spawn(
            Command(argv=(sys.executable, "-c", {HIDING!r}), cwd="/"),
            env=base_environment(os.environ), stdout=folder / "o",
            stderr=folder / "e", token="hiding",
        ) as process:
            await process.wait()
            pid = int(read(folder / "o"))
            print(os.path.exists(f"/proc/{{pid}}"), os.getsid(pid) == pid)
            print(await process.reap(drain_s=0), process.left)
            try:
                os.getsid(pid)
            except ProcessLookupError:
                print("gone")

anyio.run(main, Path(sys.argv[1]))
"""


def test_an_orphan_that_proc_hides_is_killed_with_its_agent(tmp_path):
    # As another user's processes would be, so this root's are hidden without that capability.
    mount = "mount -t proc -o hidepid=2,gid=54321 proc /proc && exec setpriv "
    script = mount + '--bounding-set=-sys_ptrace "$@"'
    namespace = ["unshare", "-mpf", "--kill-child", "sh", "-c", script, "sh"]
    try:
        subprocess.run([*namespace, "true"], check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError) as error:
        pytest.skip(f"a /proc of one's own is not permitted here: {error}")
    done = subprocess.run(
        [*namespace, sys.executable, "-c", HIDDEN, str(tmp_path)],
        capture_output=True,
        cwd=ROOT,
        timeout=18,
        text=True,
    )
    assert (done.stdout, done.stderr) == ("False True\n1 0\ngone\n", "")


OPENING = """
import anyio
from orchestrator.process import open_reaper

async def main():
    async with open_reaper():
        pass

anyio.run(main)
"""


def test_guard_and_reaper_leave_no_bytecode_where_their_supervisor_leaves_none(tmp_path):
    package = tmp_path / "orchestrator"
    shutil.copytree(ROOT / "orchestrator", package, ignore=shutil.ignore_patterns("__pycache__"))
    command = [sys.executable, "-B", "-c", OPENING]
    path = os.pathsep.join([str(tmp_path), *filter(None, sys.path)])
    subprocess.run(command, env={"PYTHONPATH": path}, check=True, cwd="/")
    assert not list(package.rglob("__pycache__"))


class KilledError(Exception):
    """The writer was killed."""


def test_a_reaper_killed_at_any_moment_leaves_the_whole_list_of_what_is_kept(monkeypatch):
    # Seen on this system: SIGKILL stops a write between two pages of the file.
    shorter, longer = processes(10**7, 300), processes(2 * 10**7, 500)
    for before, after in ((shorter, longer), (longer, shorter)):
        seen = {kept_of(before, after, pages, monkeypatch) for pages in range(9)}
        assert seen == {"before", "after"}


def processes(first: int, count: int) -> list[Seen]:
    pids = range(first, first + count)  # each a session of its own
    return [Seen(pid, [b"S", b"1", b"1", b"%d" % pid, *[b"1"] * 20]) for pid in pids]


def kept_of(
    before: list[Seen], after: list[Seen], pages: int, monkeypatch: pytest.MonkeyPatch
) -> str:
    """Which of two lists stands there when the writer of the second was killed after some pages."""
    kept, written = Kept(), iter(range(pages))
    kept.note(b"token", before)

    def pwrite(file: int, text: bytes, at: int) -> None:
        while text:
            page = 4096 - at % 4096
            if next(written, None) is None:
                raise KilledError
            os_pwrite(file, text[:page], at)
            text, at = text[page:], at + page

    os_pwrite = os.pwrite
    with monkeypatch.context() as patched:
        patched.setattr(os, "pwrite", pwrite)
        with suppress(KilledError):
            kept.note(b"token", after)
    others = kept.others([*before, *after], {})
    assert others in (before, after)
    return "before" if others == after else "after"
