"""How programs are started, fed, awaited and collected, and what is said when they cannot be."""

import errno
import os
import resource
import signal
import stat
import subprocess
import sys
from collections.abc import AsyncGenerator, Generator, Mapping
from contextlib import AbstractAsyncContextManager, AsyncExitStack, contextmanager
from pathlib import Path
from types import MappingProxyType
from typing import Literal

import anyio
import pytest

from orchestrator.adapter import Command
from orchestrator.errors import SpawnError, SupervisionError
from orchestrator.process import (
    Process,
    Reaper,
    base_environment,
    child,
    command,
    environment,
    open_reaper,
    run_to_end,
)
from tests.hostile import children, hostile, living, read

pytestmark = pytest.mark.anyio

ROOT = Path(__file__).parent.parent
ENV = base_environment(os.environ)


class Desk:
    """A folder and a reaper: spawns with files that are named by number."""

    def __init__(self, reaper: Reaper, folder: Path) -> None:
        self.reaper = reaper
        self.folder = folder
        self.count = 0

    def spawn(
        self,
        *argv: str,
        cwd: str = "/",
        env: Mapping[str, str] = ENV,
        stdin: bytes | Literal["open"] | None = None,
        files: Mapping[str, bytes] = MappingProxyType({}),
    ) -> AbstractAsyncContextManager[Process]:
        self.count += 1
        return self.reaper.spawn(
            Command(argv=argv, cwd=cwd, stdin=stdin, files=files),
            env=env,
            stdout=self.out,
            stderr=self.folder / f"{self.count}.err",
            token=f"token-{self.count}",
        )

    @property
    def out(self) -> Path:
        """Where the last spawned process writes."""
        return self.folder / f"{self.count}.out"

    async def output(self, *argv: str, stdin: bytes | None = None) -> bytes:
        async with self.spawn(*argv, stdin=stdin) as process:
            await process.wait()
        return self.out.read_bytes()

    async def refusal(self, *argv: str, cwd: str = "/", env: Mapping[str, str] = ENV) -> SpawnError:
        with pytest.raises(SpawnError) as caught:
            async with self.spawn(*argv, cwd=cwd, env=env):
                pytest.fail("it was started")
        return caught.value


@pytest.fixture
async def desk(tmp_path: Path) -> AsyncGenerator[Desk]:
    async with open_reaper() as reaper:
        yield Desk(reaper, tmp_path)


async def written(path: Path, text: bytes) -> None:
    with anyio.fail_after(10):
        while text not in read(path):
            await anyio.sleep(0.005)


def descriptors() -> set[str]:
    return {path.name for path in Path("/proc/self/fd").iterdir()}


# --- how it ends ---------------------------------------------------------------------------------


@pytest.mark.parametrize("status", [0, 1, 7, 126, 127, 128, 255])
async def test_the_exit_status_is_exact(desk, status):
    async with desk.spawn("sh", "-c", f"exit {status}") as process:
        ended = await process.wait()
    assert (ended.status, ended.signal) == (status, None)


@pytest.mark.parametrize("name", ["SIGKILL", "SIGTERM", "SIGSEGV", "SIGPIPE", "SIGRTMIN"])
async def test_the_signal_that_ended_it_is_exact(desk, name):
    number = signal.Signals[name]
    async with desk.spawn("sh", "-c", f"ulimit -c 0; kill -{number} $$") as process:
        ended = await process.wait()
    assert (ended.status, ended.signal) == (None, number)


async def test_exit_statuses_are_exact_also_in_a_host_that_ignores_sigchld(tmp_path):
    before = signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    try:
        async with (
            open_reaper() as reaper,
            Desk(reaper, tmp_path).spawn("sh", "-c", "sh -c 'exit 7'; exit $?") as process,
        ):
            assert (await process.wait()).status == 7
    finally:
        signal.signal(signal.SIGCHLD, before)


async def test_several_may_wait_and_again_afterwards(desk):
    seen = []

    async def wait(process: Process) -> None:
        seen.append(await process.wait())

    async with desk.spawn("cat", stdin="open") as process:
        async with anyio.create_task_group() as group:
            for _ in range(3):
                group.start_soon(wait, process)
            await anyio.lowlevel.checkpoint()
            assert process.ended is None
            await process.close_stdin()
        seen.append(await process.wait())
    assert seen == [process.ended] * 4


async def test_cpu_seconds_and_peak_memory_are_told_with_those_of_children(desk):
    busy = "b = bytearray(60_000_000)\nfor _ in range(3_000_000): pass"
    async with desk.spawn("sh", "-c", f"{sys.executable} -I -S -c '{busy}'; true") as process:
        ended = await process.wait()
    assert ended.cpu_s is not None
    assert ended.max_rss is not None
    assert 0.02 < ended.cpu_s < 10
    assert 60e6 < ended.max_rss < 200e6


async def test_what_the_block_raises_comes_out_as_it_is(tmp_path):
    error = KeyError("mine")
    with pytest.raises(KeyError) as caught:
        async with open_reaper() as reaper, Desk(reaper, tmp_path).spawn("sleep", "100"):
            raise error
    assert caught.value is error


# --- what it is given ----------------------------------------------------------------------------


async def test_output_goes_to_files_of_mode_0400_that_only_grow(desk):
    async with desk.spawn("sh", "-c", "echo one; echo two >&2") as process:
        await process.wait()
        assert stat.S_IMODE(desk.out.stat().st_mode) == 0o400
        flags = await desk.output("sh", "-c", "cat /proc/self/fdinfo/1")
    assert (desk.folder / "1.out").read_text() == "one\n"
    assert (desk.folder / "1.err").read_text() == "two\n"
    fields = dict(line.split(":\t") for line in flags.decode().splitlines())
    assert int(fields["flags"], 8) & os.O_APPEND


async def test_a_spool_file_that_exists_or_is_a_link_is_refused_and_nothing_is_started(desk, mark):
    (desk.folder / "1.out").write_text("kept")
    error = await desk.refusal("sleep", "100", mark)
    assert error.errno == errno.EEXIST
    (desk.folder / "2.err").symlink_to(desk.folder / "elsewhere")
    assert (await desk.refusal("sleep", "100", mark)).errno == errno.EEXIST
    assert (desk.folder / "1.out").read_text() == "kept"
    assert not (desk.folder / "elsewhere").exists()
    assert not living(mark)


async def test_the_environment_is_what_was_given_and_the_token(desk):
    async with desk.spawn("/usr/bin/env", "-0", env={"B": "ä\n=", "ORCHESTRATE_RUN_ID": "old"}):
        await written(desk.out, b"B=")
    assert desk.out.read_bytes() == "ORCHESTRATE_RUN_ID=token-1\0B=ä\n=\0".encode()


async def test_arguments_and_folder_arrive_as_they_are(desk):
    folder = desk.folder / "with space\nand é"
    folder.mkdir()
    argv = ("printf", "[%s]", "", "a b", "'\"$(x)\\", "line\nfeed", "é", "\udcff", "*")
    async with desk.spawn(*argv, cwd=str(folder)) as process:
        await process.wait()
    assert desk.out.read_bytes() == "[][a b]['\"$(x)\\][line\nfeed][é][".encode() + b"\xff][*]"
    async with desk.spawn("pwd", cwd=str(folder)) as process:
        await process.wait()
    assert desk.out.read_text() == f"{folder}\n"


async def test_a_process_inherits_nothing_but_its_three_descriptors(desk):
    assert (await desk.output("ls", "/proc/self/fd")).split() == [b"0", b"1", b"2", b"3"]  # 3: ls


async def test_a_process_begins_with_default_signals_none_blocked_in_its_own_session(desk):
    script = "grep -E 'Sig(Blk|Ign)' /proc/self/status; ps -o sid= -p $$; echo $$"
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM, signal.SIGUSR1})
    ignored = signal.signal(signal.SIGUSR2, signal.SIG_IGN)
    try:
        async with open_reaper() as reaper:
            words = (await Desk(reaper, desk.folder).output("sh", "-c", script)).split()
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
        signal.signal(signal.SIGUSR2, ignored)
    assert words[:4] == [b"SigBlk:", b"0000000000000000", b"SigIgn:", b"0000000000000000"]
    assert words[4] == words[5]


async def test_files_are_written_privately_before_the_start_and_links_are_replaced(desk):
    home = desk.folder / "new" / "home"
    target = desk.folder / "target"
    target.write_text("kept")
    link = desk.folder / "link"
    link.symlink_to(target)
    files = {str(home / "config"): b"[mine]\n", str(link): b"not through the link"}
    async with desk.spawn("cat", str(home / "config"), files=files) as process:
        await process.wait()
    assert desk.out.read_bytes() == b"[mine]\n"
    assert target.read_text() == "kept"
    assert link.read_bytes() == b"not through the link"
    modes = [stat.S_IMODE(path.lstat().st_mode) for path in (home.parent, home, home / "config")]
    assert modes == [0o700, 0o700, 0o600]
    assert [path.name for path in home.iterdir()] == ["config"]


# --- stdin ---------------------------------------------------------------------------------------


async def test_without_stdin_there_is_nothing_to_read(desk):
    assert await desk.output("cat") == b""


async def test_bytes_for_stdin_arrive_whole(desk):
    data = bytes(range(256)) * 4096
    assert await desk.output("cat", stdin=data) == data


async def test_an_open_stdin_is_a_conversation(desk):
    async with desk.spawn(
        "sh", "-c", "while read x; do echo got $x; done", stdin="open"
    ) as process:
        assert await process.send(b"one\n")
        await written(desk.out, b"got one\n")
        assert await process.send(b"two\n")
        await process.close_stdin()
        assert (await process.wait()).status == 0
    assert desk.out.read_bytes() == b"got one\ngot two\n"


async def test_sending_does_not_wait_for_a_process_that_does_not_read(desk):
    data = os.urandom(1 << 20)
    async with desk.spawn("sh", "-c", "read x; cat", stdin="open") as process:
        with anyio.fail_after(2):
            for _ in range(4):
                assert await process.send(data)
        assert await process.send(b"")
        await process.close_stdin()
        assert not await process.send(b"late")
        assert (await process.wait()).status == 0
    first = data.index(b"\n") + 1
    assert desk.out.read_bytes() == (data * 4)[first:]


async def test_a_closed_stdin_is_told(desk):
    async with desk.spawn("sh", "-c", "exec <&-; echo closed; sleep 100", stdin="open") as process:
        await written(desk.out, b"closed")
        assert not await process.send(b"nobody reads this")
        assert not await process.send(b"nor this")
        assert process.ended is None
    async with desk.spawn("true", stdin="open") as process:
        await process.wait()
        assert not await process.send(b"gone")
        await process.close_stdin()
    async with desk.spawn("sleep", "100") as process:
        assert not await process.send(b"it has none")
        await process.close_stdin()


async def test_more_than_the_limit_is_not_kept_for_a_process_that_does_not_read(desk, monkeypatch):
    monkeypatch.setattr(child, "UNREAD", 200_000)
    async with desk.spawn("sleep", "100", stdin="open") as process:
        sent = [await process.send(bytes(100_000)) for _ in range(5)]
    assert sent == [True, True, True, False, False]  # the pipe itself holds 65,536


PIPE_HOST = """
import os, signal, sys, anyio
from pathlib import Path
from orchestrator.adapter import Command
from orchestrator.process import open_reaper
signal.signal(signal.SIGPIPE, signal.SIG_DFL)

async def main(folder):
    async with open_reaper() as reaper, reaper.spawn(
        Command(argv=("/bin/sh", "-c", "exec <&-; sleep 100"), cwd="/", stdin="open"),
        env=dict(os.environ), stdout=folder / "out", stderr=folder / "err", token="pipe",
    ) as process:
        while await process.send(b"x"):
            await anyio.sleep(0.01)
        print(signal.getsignal(signal.SIGPIPE) is signal.SIG_DFL, signal.sigpending())

anyio.run(main, Path(sys.argv[1]))
"""


def test_a_host_that_dies_of_sigpipe_does_not_die_of_ours(tmp_path):
    done = subprocess.run(
        [sys.executable, "-c", PIPE_HOST, str(tmp_path)], capture_output=True, cwd=ROOT, timeout=15
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, b"True set()\n", b"")


BARE_HOST = """
import os, sys, anyio
from pathlib import Path
from orchestrator.process import open_reaper, run_to_end

async def main(result):
    for descriptor in range(3):
        os.close(descriptor)
    async with open_reaper() as reaper:
        done = await run_to_end(reaper, ("/bin/sh", "-c", "cat; echo out; echo err >&2"),
                                cwd=Path("/"), env={}, limit_s=10, stdin=b"in ")
    result.write_text(repr((done.exit, done.stdout, done.stderr)))

anyio.run(main, Path(sys.argv[1]))
"""


def test_a_host_without_stdin_stdout_and_stderr_is_served_like_any_other(tmp_path):
    result = tmp_path / "result"
    subprocess.run([sys.executable, "-c", BARE_HOST, str(result)], cwd=ROOT, timeout=15)
    assert result.read_text() == "(0, b'in out\\n', b'err\\n')"


async def test_what_is_no_signal_is_refused_before_it_is_sent(desk):
    async with desk.spawn("sleep", "100") as process:
        with pytest.raises(ValueError, match="not a signal"):
            await process.signal(1000)
        assert process.ended is None


# --- what cannot be started ----------------------------------------------------------------------


async def test_a_program_that_is_missing_is_named_with_the_path_that_was_searched(desk):
    error = await desk.refusal("no-such-agent", env={"PATH": "/usr/bin:/nowhere"})
    assert "'no-such-agent'" in str(error)
    assert "/usr/bin:/nowhere" in str(error)
    assert error.errno == errno.ENOENT
    assert error.hint is not None
    assert "install no-such-agent" in error.hint


async def test_each_reason_not_to_start_is_told(desk):
    folder = desk.folder
    plain, script, orphan = folder / "plain", folder / "script", folder / "orphan"
    plain.write_text("text")
    plain.chmod(0o644)
    script.write_text("echo no first line")
    script.chmod(0o755)
    orphan.write_text("#!/nowhere/python\n")
    orphan.chmod(0o755)
    cases: list[tuple[tuple[str, ...], str, int | None]] = [
        ((str(folder / "absent"),), "does not exist", errno.ENOENT),
        ((str(orphan),), "the interpreter that its first line names", errno.ENOENT),
        ((str(plain),), "not executable", errno.EACCES),
        ((str(script),), "nor a script with a #! line", errno.ENOEXEC),
        (("true", "x" * 200_000), "too large", errno.E2BIG),
        (("true", "a\0b"), "NUL", None),
        (("true", "\ud800"), "not a text for the system", None),
        (("./script",), "neither a name nor an absolute path", None),
        ((), "argv is empty", None),
    ]
    for argv, text, number in cases:
        error = await desk.refusal(*argv)
        assert text in str(error)
        assert error.errno == number
    error = await desk.refusal("true", cwd=str(folder / "gone"))
    assert str(folder / "gone") in str(error)
    assert error.errno == errno.ENOENT
    assert "name is empty" in str(await desk.refusal("true", env={"": "x"}))


async def test_a_program_is_not_looked_for_in_the_folder_it_is_to_work_in(desk):
    trap = desk.folder / "trap"
    trap.write_text("#!/bin/sh\necho trapped\n")
    trap.chmod(0o755)
    for path in (".", "", ":/usr/bin", "/usr/bin:"):
        error = await desk.refusal("trap", cwd=str(desk.folder), env={"PATH": path})
        assert error.errno == errno.ENOENT
    async with desk.spawn("trap", env={"PATH": f"/nowhere:{desk.folder}"}) as process:
        assert (await process.wait()).status == 0
    trap.chmod(0o644)
    denied = await desk.refusal("trap", env={"PATH": f"{desk.folder}:/nowhere"})
    assert denied.errno == errno.EACCES
    assert (await desk.refusal("trap", env={"PATH": f"{trap}:/usr/bin"})).errno == errno.ENOENT


async def test_a_folder_of_path_that_cannot_be_looked_into_hides_no_other(desk):
    loop, long = desk.folder / "loop", desk.folder / ("x" * 300)
    loop.symlink_to("loop")
    for broken in (loop, long):
        async with desk.spawn("true", env={"PATH": f"{broken}:/usr/bin:/bin"}) as process:
            assert (await process.wait()).status == 0
        error = await desk.refusal("no-such-agent", env={"PATH": str(broken)})
        assert error.errno == errno.ENOENT


@contextmanager
def few_descriptors() -> Generator[None]:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    free = next(number for number in range(hard) if str(number) not in descriptors())
    resource.setrlimit(resource.RLIMIT_NOFILE, (free + 8, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


async def test_a_shortage_of_descriptors_is_a_refusal_with_a_hint_and_leaks_none(desk):
    async def many(stack: AsyncExitStack) -> None:
        for _ in range(100):
            await stack.enter_async_context(desk.spawn("sleep", "100", stdin="open"))

    before = descriptors()
    async with AsyncExitStack() as stack:
        with few_descriptors():
            with pytest.raises(SpawnError) as caught:
                await many(stack)
            assert caught.value.errno == errno.EMFILE
            assert caught.value.hint is not None
            assert "ulimit -n" in caught.value.hint
        async with desk.spawn("true") as process:
            assert (await process.wait()).status == 0
    assert descriptors() == before


# --- nothing leaks -------------------------------------------------------------------------------


async def test_a_hundred_cancelled_spawns_leak_neither_process_nor_descriptor(desk, mark):
    before = descriptors()
    for number in range(100):
        with anyio.move_on_after(number * 0.0001):
            async with desk.spawn("sleep", "100", mark, stdin="open"):
                await anyio.sleep(0)
    with anyio.CancelScope() as scope:
        scope.cancel()
        async with desk.spawn("sleep", "100", mark, stdin=b"x"):
            pytest.fail("it was started though it was cancelled before")
    assert not living(mark)
    assert descriptors() == before


async def test_many_agents_at_once_start_and_end_without_a_trace(desk, mark):
    before = descriptors()
    guard = next(pid for pid in children(os.getpid()) if b"/reaper/" in cmdline(pid))
    (reaper,) = children(guard)
    theirs = open_files(reaper)

    async def one() -> None:
        async with desk.spawn("sh", "-c", f"setsid sleep 100 {mark} & exit 5") as process:
            assert (await process.wait()).status == 5

    async with anyio.create_task_group() as group:
        for _ in range(200):
            group.start_soon(one)
    assert not living(mark)
    assert children(reaper) == []
    assert descriptors() == before
    assert open_files(reaper) <= theirs


def open_files(pid: int) -> int:
    """How many; 0 where only root may look (the reaper hides its memory from the agents)."""
    folder = Path(f"/proc/{pid}/fd")
    return len(list(folder.iterdir())) if os.access(folder, os.R_OK) else 0


def cmdline(pid: int) -> bytes:
    return read(Path(f"/proc/{pid}/cmdline"))


async def test_a_reaper_that_was_closed_refuses(tmp_path):
    async with open_reaper() as reaper:
        pass
    with pytest.raises(SupervisionError, match="the reaper ended"):
        async with Desk(reaper, tmp_path).spawn("true"):
            pytest.fail("it was started")


async def test_opening_and_closing_leaves_nothing(tmp_path):
    before = descriptors()
    for _ in range(3):
        async with open_reaper():
            pass
    assert descriptors() == before
    assert not [pid for pid in children(os.getpid()) if b"/reaper/" in cmdline(pid)]


# --- commands that are run to their end ----------------------------------------------------------


async def run(desk: Desk, *argv: str, limit_s: float = 10, merge: bool = False, limit: int = 1000):
    return await run_to_end(
        desk.reaper, argv, cwd=Path("/"), env=ENV, limit_s=limit_s, merge=merge, output_limit=limit
    )


async def test_a_commands_streams_and_status_are_collected(desk):
    done = await run(desk, "sh", "-c", "echo out; echo err >&2; exit 3")
    assert (done.exit, done.signal, done.stdout, done.stderr) == (3, None, b"out\n", b"err\n")
    assert not done.timed_out
    assert not done.flooded
    done = await run(desk, "sh", "-c", "echo 1; echo 2 >&2; echo 3; kill -9 $$", merge=True)
    assert (done.exit, done.signal, done.stdout, done.stderr) == (None, 9, b"1\n2\n3\n", b"")


async def test_of_long_output_the_end_is_kept(desk):
    done = await run(desk, "seq", "100000", limit=12)
    assert done.stdout == b"99999\n100000\n"[-12:]


async def test_a_command_can_be_given_its_stdin(desk):
    done = await run_to_end(
        desk.reaper, ("wc", "-c"), cwd=Path("/"), env=ENV, limit_s=10, stdin=bytes(100_000)
    )
    assert done.stdout == b"100000\n"


async def test_a_grandchild_that_holds_stdout_delays_nothing_and_is_killed(desk, mark):
    with anyio.fail_after(5):
        done = await run(desk, "sh", "-c", f"sleep 100 {mark} & setsid sleep 100 {mark} & echo out")
    assert (done.exit, done.stdout) == (0, b"out\n")
    assert not living(mark)


async def test_at_the_time_limit_a_command_may_clean_up_and_is_then_killed(desk, mark):
    script = "trap 'echo cleaned; exit 4' TERM; echo begun; while :; do sleep 0.01; done"
    done = await run(desk, "sh", "-c", script, limit_s=0.3)
    assert (done.exit, done.stdout, done.timed_out) == (4, b"begun\ncleaned\n", True)
    done = await run(desk, *hostile("tree", mark), limit_s=0.5)
    assert (done.exit, done.signal, done.timed_out) == (None, signal.SIGKILL, True)
    assert not living(mark)


async def test_a_flood_is_ended(desk, monkeypatch):
    monkeypatch.setattr(command, "FLOOD", 1 << 20)
    done = await run(desk, "yes")
    assert done.flooded
    assert not done.timed_out
    assert len(done.stdout) == 1000


async def test_a_command_that_is_cancelled_or_missing_leaves_nothing(desk, mark):
    before = descriptors()
    with anyio.move_on_after(0.3) as scope:
        await run(desk, *hostile("tree", mark))
    assert scope.cancelled_caught
    assert not living(mark)
    with pytest.raises(SpawnError, match="no such program"):
        await run(desk, "no-such-command")
    assert descriptors() == before


# --- the environment -----------------------------------------------------------------------------


def test_the_base_environment_is_an_allow_list():
    kept = {"PATH": "/bin", "HOME": "/h", "LANG": "C", "LC_ALL": "C", "TZ": "UTC", "TMPDIR": "/t"}
    kept |= {"SSL_CERT_FILE": "/c", "NODE_EXTRA_CA_CERTS": "/n"}
    dropped = """
        OPENAI_API_KEY ANTHROPIC_API_KEY AWS_SECRET_ACCESS_KEY GITHUB_TOKEN OPENAI_BASE_URL
        OLLAMA_HOST HTTPS_PROXY http_proxy ALL_PROXY SSH_AUTH_SOCK DBUS_SESSION_BUS_ADDRESS
        XDG_RUNTIME_DIR LD_PRELOAD LD_LIBRARY_PATH NODE_OPTIONS PYTHONPATH PYTHONSTARTUP
        GIT_DIR BASH_ENV ENV ORCHESTRATE_RUN_ID
    """
    assert base_environment(kept | dict.fromkeys(dropped.split(), "x")) == kept


def test_the_commands_own_variables_win_over_the_tasks_and_these_over_the_base():
    environ = {"PATH": "/bin", "HOME": "/h", "KEY": "secret", "A": "environ", "TASKS": "passed on"}
    command = Command(
        argv=("x",),
        cwd="/",
        env={"HOME": "/private", "B": "command"},
        env_from={"OPENAI_API_KEY": "KEY", "ABSENT": "NOT_THERE"},
    )
    assert environment(command, environ) == {
        "PATH": "/bin",
        "HOME": "/private",
        "OPENAI_API_KEY": "secret",
        "B": "command",
    }
    assert environment(
        command, environ, env={"A": "task", "B": "task"}, env_from=("TASKS", "A", "NOWHERE")
    ) == {
        "PATH": "/bin",
        "HOME": "/private",
        "TASKS": "passed on",
        "A": "task",
        "OPENAI_API_KEY": "secret",
        "B": "command",
    }
