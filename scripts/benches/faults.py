"""scripts/bench faults: what is left of hundreds of hostile agents after each kind of end.

An agent is three processes that ignore SIGTERM: a shell's sleeper, one in a session of its own, and
a daemon. All that a bench starts bears a mark in its command line and ends by itself in minutes.
Exits with 1 if a bar is missed.
"""

import argparse
import os
import random
import resource
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from pathlib import Path

import anyio

from orchestrator.adapter import Command
from orchestrator.errors import JournalError
from orchestrator.journal import EVENTS, Journal, read_lines
from orchestrator.process import Process, Reaper, base_environment, open_reaper, run_to_end

ROOT = Path(__file__).parent.parent.parent
LIFE_S = 300
GRACE_S = 0.5
ENV = base_environment(os.environ)
NOBODY = 65534


# --- processes that bear a mark ------------------------------------------------------------------


def new_mark() -> str:
    return f"0.{random.randrange(10**11, 10**12)}"


def hostile(mark: str) -> tuple[str, ...]:
    sleeper = f"sleep {LIFE_S} {mark}"
    script = (
        f"trap '' TERM HUP INT; (setsid {sleeper} &); setsid {sleeper} & echo ready; exec {sleeper}"
    )
    return ("sh", "-c", script)


def living(mark: str) -> list[int]:
    """Processes, zombies aside, that bear the mark."""
    found: list[int] = []
    for name in filter(str.isdigit, os.listdir("/proc")):  # noqa: PTH208 (thousands of them)
        try:
            if mark.encode() in Path(f"/proc/{name}/cmdline").read_bytes():
                found.append(int(name))
        except OSError:
            continue
    return found


def until_none(mark: str, limit_s: float) -> tuple[int, float]:
    """How many are left, and after how many seconds there were none (or the limit was reached)."""
    began = time.monotonic()
    while True:
        left = len(living(mark))
        seconds = time.monotonic() - began
        if not left or seconds > limit_s:
            return left, seconds
        time.sleep(0.01)


def open_files(pid: int | str = "self") -> int:
    return len(os.listdir(f"/proc/{pid}/fd"))  # noqa: PTH208 (as above)


def resident(pid: int | str = "self") -> int:
    """Resident bytes."""
    text = Path(f"/proc/{pid}/statm").read_text()
    return int(text.split()[1]) * resource.getpagesize()


def children(pid: int) -> list[int]:
    return [int(word) for word in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def command_line(pid: int) -> bytes:
    return Path(f"/proc/{pid}/cmdline").read_bytes()


def guard_and_reaper() -> tuple[int, int]:
    (guard,) = [pid for pid in children(os.getpid()) if b"/reaper/" in command_line(pid)]
    (reaper,) = children(guard)
    return guard, reaper


def told(what: str, *, good: bool) -> bool:
    print(what + ("" if good else "  MISSED"), flush=True)
    return good


# --- many agents in one supervisor ---------------------------------------------------------------


@asynccontextmanager
async def many(reaper: Reaper, folder: Path, marks: Sequence[str]) -> AsyncGenerator[list[Process]]:
    """An agent for each mark, all of them ready."""
    async with AsyncExitStack() as stack:
        started: list[Process] = []

        async def start(number: int, mark: str) -> None:
            started.append(
                await stack.enter_async_context(
                    reaper.spawn(
                        Command(argv=hostile(mark), cwd="/"),
                        env=ENV,
                        stdout=folder / f"{number}.out",
                        stderr=folder / f"{number}.err",
                        token=f"{number}-{mark}",
                    )
                )
            )

        for number, mark in enumerate(marks):
            await start(number, mark)
        for number in range(len(marks)):
            while not (folder / f"{number}.out").stat().st_size:  # noqa: ASYNC110 (nothing tells it)
                await anyio.sleep(0.01)
        yield started


async def _host(count: int, mark: str, folder: Path) -> None:
    """As a program: a supervisor that waits to be killed."""
    async with open_reaper() as reaper, many(reaper, folder, [mark] * count):
        print("ready", flush=True)
        await anyio.sleep(LIFE_S)


def killed_supervisor(
    count: int, *, files: int | None = None, nobody: bool = False, timed: bool = True
) -> bool:
    """(a) and (b): kill -9 of the supervisor of all. Not `timed`: how long it takes is no bar.

    Raises LookupError if it cannot be done as nobody here.
    """
    mark = new_mark()
    interpreter, env = interpreter_of(NOBODY if nobody else None)
    limit = () if files is None else ("prlimit", f"--nofile={files}:{files}")
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o777)
        argv = [*limit, *interpreter, "-m", __spec__.name, "--host", mark, folder]
        argv += ["--agents", str(count)]
        with subprocess.Popen(argv, stdout=subprocess.PIPE, cwd=ROOT, env=env) as host:
            if host.stdout is None or host.stdout.readline() != b"ready\n":
                return told("the supervisor did not get as far as to be killed", good=False)
            pid = next((one for one in [host.pid, *children(host.pid)] if is_host(one)), host.pid)
            processes = len(living(mark)) - 1  # the host itself names the mark, too
            os.kill(pid, signal.SIGKILL)
            left, seconds = until_none(mark, 30)
    how = [f"RLIMIT_NOFILE={files}"] * (files is not None) + ["as nobody"] * nobody
    name = f"kill -9 of the supervisor of {count} agents ({', '.join(how) or 'no limits'})"
    bar = 2.0 if timed and not how else 30.0  # slower is fine, wrong is not
    figures = f"{processes} processes, {left} left after {seconds:.2f} s (bar {bar:g})"
    good = left == 0 and seconds <= bar and processes == 3 * count
    return told(f"{name}: {figures}", good=good)


def is_host(pid: int) -> bool:
    return b"--host" in Path(f"/proc/{pid}/cmdline").read_bytes()


def interpreter_of(uid: int | None) -> tuple[list[str], dict[str, str]]:
    """An interpreter, and what it needs to find us. With a user's number, one that they may run."""
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    if uid is None or os.getuid() != 0:
        return [sys.executable], env
    user = ("setpriv", f"--reuid={uid}", f"--regid={uid}", "--clear-groups")
    version = f"python{sys.version_info.major}.{sys.version_info.minor}"
    for candidate in (sys.executable, f"/usr/bin/{version}", f"/usr/local/bin/{version}"):
        argv = [*user, candidate]
        # The guard is started as sys.executable: that must be runnable, too.
        probe = (
            "import subprocess as s, sys, pydantic; s.run([sys.executable, '-c', ''], check=True)"
        )
        try:
            if not subprocess.run(
                [*argv, "-c", probe], env=env, capture_output=True, check=False
            ).returncode:
                return argv, env
        except OSError:
            continue
    raise LookupError(f"no {version} that another user may run, or no setpriv")


async def stopped_one(count: int, *, timed: bool = True) -> bool:
    """(c): one agent of many is stopped; the others do not notice."""
    marks = [new_mark(), *[new_mark()] * (count - 1)]
    with tempfile.TemporaryDirectory() as folder:
        async with open_reaper() as reaper, many(reaper, Path(folder), marks) as agents:
            before = len(living(marks[1]))
            began = time.monotonic()
            killed = await agents[0].stop(interrupt=None, grace_s=GRACE_S)
            seconds = time.monotonic() - began
            left, others = len(living(marks[0])), len(living(marks[1]))
            ended = sum(agent.ended is not None for agent in agents[1:])
    bar = GRACE_S + 0.25
    name = f"one of {count} agents stopped"
    figures = f"{left} of 3 left after {seconds:.3f} s (bar {bar:g}), others {others} of {before}"
    good = (left, ended, others, killed) == (0, 0, before, 2) and (seconds <= bar or not timed)
    return told(f"{name}: {figures}", good=good)


async def cancelled(count: int = 400) -> bool:
    """(d): cancellations during spawn."""
    mark = new_mark()
    with tempfile.TemporaryDirectory() as folder:
        async with open_reaper() as reaper:
            before = open_files()
            for number in range(count):
                Path(folder, str(number)).mkdir()
                with anyio.move_on_after(number % 100 * 0.0001):
                    async with many(reaper, Path(folder, str(number)), [mark]):
                        pass
            left, files = len(living(mark)), open_files() - before
    figures = f"{left} processes and {files} descriptors left (bar 0)"
    return told(f"{count} cancellations during spawn: {figures}", good=(left, files) == (0, 0))


async def spawned(count: int = 10_000) -> bool:
    """(e): many spawns, one after another and 8 at once."""
    async with open_reaper() as reaper:
        pids = {"supervisor": os.getpid(), "guard": guard_and_reaper()[0]}
        pids["reaper"] = guard_and_reaper()[1]

        async def some(number: int) -> None:
            for _ in range(number):
                await run_to_end(reaper, ("true",), cwd=Path("/"), env=ENV, limit_s=30)

        await some(200)  # until caches are warm
        before = {name: (open_files(pid), resident(pid)) for name, pid in pids.items()}
        began = time.monotonic()
        async with anyio.create_task_group() as group:
            for _ in range(8):
                group.start_soon(some, count // 8)
        seconds = time.monotonic() - began
        good = True
        for name, pid in pids.items():
            files = open_files(pid) - before[name][0]
            grown = (resident(pid) - before[name][1]) / 1e6
            figures = f"descriptors {files:+d} (bar 1), RSS {grown:+.1f} MB (bar 5)"
            good &= told(f"{count} spawns, {name}: {figures}", good=files <= 1 and grown <= 5)
        zombies = len(children(pids["reaper"]))
    return told(f"{count} spawns: {zombies} zombies, {seconds:.0f} s", good=zombies == 0) and good


async def idle(seconds: float = 40.0) -> bool:
    """(g): agents older than idle worker threads. (Bound to a thread they died with it.)"""
    mark = new_mark()
    with tempfile.TemporaryDirectory() as folder:
        async with open_reaper() as reaper:
            await anyio.to_thread.run_sync(time.sleep, 0)
            async with many(reaper, Path(folder), [mark] * 5) as agents:
                await anyio.to_thread.run_sync(time.sleep, 0)
                await anyio.sleep(seconds)
                await anyio.to_thread.run_sync(time.sleep, 0)
                ended = sum(agent.ended is not None for agent in agents)
    return told(f"5 agents idle for {seconds:g} s: {ended} ended (bar 0)", good=ended == 0)


def fills_up(count: int = 400) -> bool:
    """(h): a disk that is full at any byte of a journal; a file that may not grow at any byte."""
    with tempfile.TemporaryDirectory() as name:
        place = Path(name, "disk")
        place.mkdir()
        mount = ("mount", "-t", "tmpfs", "-o", "size=384k", "tmpfs", str(place))
        if subprocess.run(mount, capture_output=True, check=False).returncode:
            return told("a full disk: needs the right to mount", good=False)
        try:
            disk = sum(not whole(place / str(number), None) for number in range(count))
        finally:
            subprocess.run(["umount", "--lazy", str(place)], check=True)
        file = sum(not whole(Path(name, str(limit)), limit) for limit in range(5000, 5000 + count))
    figures = f"{disk} journals of {count} on a full disk and {file} of {count} files cut at a byte"
    return told(f"no room: {figures} are not whole (bar 0)", good=(disk, file) == (0, 0))


def whole(folder: Path, limit: int | None) -> bool:
    """Write events until there is no room (`limit`: of the file, in bytes) and then, on a disk, the
    last words; whether the journal holds just what was written, and can be gone on with.
    """
    folder.mkdir()
    (folder / "filler").write_bytes(bytes(random.randrange(200_000) if limit is None else 0))
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    if limit is not None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, hard))
    lines: list[bytes] = []
    try:
        with Journal(folder) as journal, suppress(JournalError):
            lines += written_until_full(journal)
            if limit is None:
                journal.append_last(b'{"type":"journal.full"}\n')
                lines.append(b'{"type":"journal.full"}')
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    good = (folder / EVENTS).read_bytes() == b"".join(line + b"\n" for line in lines)
    (folder / "filler").unlink()
    again = Journal.reopen(folder)
    if again is not None:
        with again:
            again.append(b"{}\n")
    good = good and [*read_lines(folder)] == [*lines, b"{}"]
    (folder / EVENTS).unlink()
    return good


def written_until_full(journal: Journal) -> list[bytes]:
    lines: list[bytes] = []
    while True:
        line = b'{"n":%d,"text":"%b"}' % (len(lines), b"x" * random.randrange(3000))
        try:
            journal.append(line + b"\n")
        except JournalError:
            return lines
        lines.append(line)


def real() -> bool:
    """(f): real CLIs in the middle of a tool: each of four, by each of four deaths."""
    argv = [sys.executable, "-m", "pytest", "-q", "--thorough", "tests/real/test_faults_real.py"]
    done = subprocess.run(argv, cwd=ROOT, check=False)
    return told("real agents in the middle of `setsid sleep`", good=done.returncode == 0)


def main(arguments: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(prog="scripts/bench faults", description=__doc__)
    parser.add_argument("--agents", type=int, default=300, metavar="N", help="how many (300)")
    parser.add_argument("--spawns", type=int, default=10_000, metavar="N", help="for e (10,000)")
    parser.add_argument("--cancels", type=int, default=400, metavar="N", help="for d (400)")
    parser.add_argument("--idle", type=float, default=40.0, metavar="S", help="for g (40)")
    parser.add_argument("--journals", type=int, default=400, metavar="N", help="for h (400)")
    parser.add_argument("--host", nargs=2, help=argparse.SUPPRESS)
    parser.add_argument("only", nargs="*", help="of a b c d e f g h; all, if none is named")
    asked = parser.parse_args(arguments)
    count = asked.agents
    if asked.host:
        anyio.run(_host, count, asked.host[0], Path(asked.host[1]))
        return 0
    benches: dict[str, Callable[[], bool]] = {
        "a": lambda: killed_supervisor(count),
        "b": lambda: all(
            [
                killed_supervisor(count, files=1024),
                killed_supervisor(count, files=1024, nobody=True),
            ]
        ),
        "c": lambda: anyio.run(stopped_one, count),
        "d": lambda: anyio.run(cancelled, asked.cancels),
        "e": lambda: anyio.run(spawned, asked.spawns),
        "f": real,
        "g": lambda: anyio.run(idle, asked.idle),
        "h": lambda: fills_up(asked.journals),
    }
    if unknown := [name for name in asked.only if name not in benches]:
        parser.error(f"no part {unknown[0]!r} (known: {' '.join(benches)})")
    results = [benches[name]() for name in asked.only or benches]  # all of them, also after a miss
    return 0 if all(results) else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
