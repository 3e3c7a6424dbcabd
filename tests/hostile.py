"""Processes that behave badly on purpose, and how to find what is left of them.

Run as a program (`python -I -S hostile.py KIND MARK`) it is such a process; imported, it is how
tests look for the mark. Every process ends by itself after a minute or two.
"""

import ctypes
import os
import platform
import random
import signal
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

LIFE_S = 120


# --- for the tests -------------------------------------------------------------------------------


def hostile(kind: str, mark: str) -> tuple[str, ...]:
    """The argv of a hostile process of this kind."""
    return (sys.executable, "-I", "-S", __file__, kind, mark)


def new_mark() -> str:
    """A number that is an argument of each process that a hostile one starts."""
    return f"0.{random.randrange(10**11, 10**12)}"


def living(mark: str) -> list[int]:
    """The processes, zombies aside, that bear the mark."""
    return [
        int(folder.name)
        for folder in Path("/proc").iterdir()
        if folder.name.isdigit()
        and mark.encode() in read(folder / "cmdline")
        and state(int(folder.name)) not in {None, "Z"}
    ]


def state(pid: int) -> str | None:
    """The state letter of a process, None when there is none."""
    fields = read(Path(f"/proc/{pid}/stat")).rpartition(b")")[2].split()
    if not fields:
        return None
    threads = int(fields[17])
    return "R" if fields[0] == b"Z" and threads > 1 else fields[0].decode()


def children(pid: int) -> list[int]:
    return [int(word) for word in read(Path(f"/proc/{pid}/task/{pid}/children")).split()]


def read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError:
        return b""


def until(condition: Callable[[], object], seconds: float = 10) -> None:
    """Wait for what no event tells; what does not come soon is looked for less often."""
    end = time.monotonic() + seconds
    pause = 0.005
    while not condition():
        assert time.monotonic() < end, "it did not happen in time"
        time.sleep(pause)
        pause = min(2 * pause, 0.1)


# --- as a program --------------------------------------------------------------------------------


def start(mark: str, *, env: dict[str, str] | None = None, session: bool, daemon: bool) -> None:
    """Start a sleeper that bears the mark; returns when it is executing.

    `daemon`: its parent ends at once, so that it is an orphan.
    """
    ours, theirs = os.pipe2(os.O_CLOEXEC)
    child = os.fork()
    if child == 0:
        if session:
            os.setsid()
        if daemon and os.fork():
            os._exit(0)
        argv = ["sleep", str(LIFE_S), mark]
        os.execve("/bin/sleep", argv, dict(os.environ) if env is None else env)  # noqa: S606
    os.close(theirs)
    os.read(ours, 1)
    os.close(ours)
    if daemon:
        os.waitpid(child, 0)


def say(word: str) -> None:
    os.write(1, word.encode() + b"\n")


def pause() -> None:
    end = time.monotonic() + LIFE_S
    while time.monotonic() < end:
        time.sleep(1)


def tree(mark: str) -> None:
    """Children in and out of the session, and daemons; all ignore SIGTERM and SIGHUP."""
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    start(mark, session=False, daemon=False)
    start(mark, session=True, daemon=False)
    start(mark, session=True, env={}, daemon=False)
    start(mark, session=True, daemon=True)
    say("ready")
    pause()


def bare(mark: str) -> None:
    """A daemon of which nothing tells whose it is: own session, no environment, parent gone."""
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    start(mark, session=True, env={}, daemon=True)
    say("ready")
    pause()


def crash(mark: str) -> None:
    """Dies when told to, and leaves a child with its own session and no environment."""
    start(mark, session=True, env={}, daemon=False)
    say("ready")
    sys.stdin.read()
    os.kill(os.getpid(), signal.SIGKILL)


def signals(_: str) -> None:
    """Says which signals come, and ends only by SIGKILL."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGCONT):
        signal.signal(number, lambda number, _: say(signal.Signals(number).name))
    say("ready")
    pause()


def stopped(_: str) -> None:
    """Is stopped; a SIGTERM would make it exit with status 42."""
    signal.signal(signal.SIGTERM, lambda *_: os._exit(42))
    say("ready")
    os.kill(os.getpid(), signal.SIGSTOP)
    pause()


def headless(mark: str) -> None:
    """Its first thread has ended, so that it looks like a zombie; another thread goes on."""
    child = os.fork()
    if child == 0:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        os.setsid()
        threading.Thread(target=pause).start()
        say("ready")
        number = {"x86_64": 60, "aarch64": 93}[platform.machine()]
        ctypes.CDLL(None).syscall(number, 0)  # exit of this thread alone
    os.waitpid(child, 0)


def hop(mark: str) -> None:
    """Forks into a new session and ends, for ever. Only for a namespace that can be thrown away."""
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    end = time.monotonic() + LIFE_S
    for _ in range(3):
        if os.fork() == 0:
            while time.monotonic() < end:
                if os.fork():
                    os._exit(0)
                os.setsid()
    say("ready")
    pause()


KINDS = (tree, bare, crash, signals, stopped, headless, hop)

if __name__ == "__main__":
    {kind.__name__: kind for kind in KINDS}[sys.argv[1]](sys.argv[2])
