"""A run on a real terminal (a pty): drawn while it lasts, left as it was found."""

import fcntl
import os
import pty
import re
import select
import signal
import struct
import subprocess
import sys
import termios
import time
from collections.abc import Callable, Generator, Mapping
from contextlib import contextmanager
from pathlib import Path

import anyio
import pyte
import pyte.modes
import pytest

from orchestrator.cli.terminal import FRAME_S, terminal
from orchestrator.events import (
    MessageDelta,
    Notice,
    Outcome,
    RunStarted,
    TaskFinished,
    TaskStarted,
)
from orchestrator.journal import list_runs, read_outcome
from tests.commands import PROGRAM, Command
from tests.console.words import at
from tests.test_cli import DONE, configured, environment, place, said

__all__ = ["place"]

HANG = {"hang": True}
WAIT_S = 60


class Tty:
    """A pty with what a terminal would show of it."""

    def __init__(self, columns: int = 80, lines: int = 24) -> None:
        self.master, self.slave = pty.openpty()
        self.screen = pyte.Screen(columns, lines)
        self.stream = pyte.ByteStream(self.screen)
        self.seen = b""
        self.resize(columns, lines)

    def resize(self, columns: int, lines: int) -> None:
        fcntl.ioctl(self.slave, termios.TIOCSWINSZ, struct.pack("HHHH", lines, columns, 0, 0))
        self.screen.resize(lines, columns)

    def read(self, seconds: float = 0.0) -> None:
        while select.select([self.master], [], [], seconds)[0]:
            try:
                block = os.read(self.master, 65536)
            except OSError:  # the other end is closed
                return
            self.seen += block
            self.stream.feed(block)
            seconds = 0.0

    def until(self, condition: Callable[[], bool]) -> None:
        end = time.monotonic() + WAIT_S
        while not condition():
            assert time.monotonic() < end, self.text()
            self.read(0.05)

    def type(self, keys: bytes) -> None:
        os.write(self.master, keys)

    def text(self) -> str:
        return "\n".join(line.rstrip() for line in self.screen.display).rstrip()


@contextmanager
def opened(columns: int = 80, lines: int = 24) -> Generator[Tty]:
    tty = Tty(columns, lines)
    try:
        yield tty
    finally:
        os.close(tty.master)
        os.close(tty.slave)


@contextmanager
def started(tty: Tty, place: Path, *words: str, **env: str) -> Generator["subprocess.Popen[bytes]"]:
    """A command with the pty as its controlling terminal."""
    env = {**environment(place), "TERM": "xterm-256color", **env}
    its = tty.slave
    process = Command[bytes](
        words, cwd=place, env=env, stdin=its, stdout=its, stderr=its, start_new_session=True
    )
    with killed(process):
        yield process


@contextmanager
def killed(process: "subprocess.Popen[bytes]") -> Generator["subprocess.Popen[bytes]"]:
    try:
        yield process
    finally:
        process.kill()
        process.wait()


def run(place: Path, *steps: Mapping[str, object]) -> list[str]:
    config = configured(place, *steps)
    return ["run", "-p", "do it", "--config", config, "--agent", "scripted"]


def ended(tty: Tty, process: "subprocess.Popen[bytes]") -> int:
    tty.until(lambda: process.poll() is not None)
    tty.read()
    assert process.returncode is not None
    return process.returncode


def left_as_found(tty: Tty) -> bool:
    return not tty.screen.cursor.hidden and pyte.modes.DECAWM in tty.screen.mode


@pytest.mark.timeout(120)
def test_a_run_is_drawn_live_and_ends_with_its_summary(place):
    with opened() as tty, started(tty, place, *run(place, said("looking"), DONE)) as process:
        assert ended(tty, process) == 0
        assert b"\x1b[?25l" in tty.seen  # it was drawn
        assert "  looking" in tty.text()
        assert "outcome    succeeded" in tty.text()
        assert left_as_found(tty)


@pytest.mark.timeout(120)
@pytest.mark.parametrize("stop", ["ctrl-c", "sigterm"])
def test_a_run_that_is_stopped_says_so_and_leaves_the_terminal_whole(place, stop):
    with opened() as tty, started(tty, place, *run(place, said("looking"), HANG)) as process:
        tty.until(lambda: "scripted" in tty.text() and "  looking" in tty.text())
        assert tty.screen.cursor.hidden
        if stop == "ctrl-c":
            tty.type(b"\x03")
        else:
            process.send_signal(signal.SIGTERM)
        assert ended(tty, process) == 130
        assert "stopping the agent; once more to stop at once" in tty.text()
        assert "outcome    interrupted" in tty.text()
        assert left_as_found(tty)


DEAF = {"ignore": ["SIGINT", "SIGTERM"]}


@pytest.mark.timeout(120)
def test_the_second_ctrl_c_ends_an_agent_that_hears_none_at_once(place):
    with opened() as tty, started(tty, place, *run(place, DEAF, said("looking"), HANG)) as process:
        tty.until(lambda: "  looking" in tty.text() and tty.screen.cursor.hidden)
        tty.type(b"\x03")
        tty.until(lambda: "once more to stop at once" in tty.text())
        tty.type(b"\x03")
        assert ended(tty, process) == 130
        assert "outcome    interrupted" in tty.text()
        assert left_as_found(tty)


@pytest.mark.timeout(120)
def test_kill_9_leaves_no_more_than_a_cursor_that_the_next_run_shows_again(place):
    with opened() as tty:
        with started(tty, place, *run(place, said("looking"), HANG)) as process:
            tty.until(lambda: "  looking" in tty.text() and tty.screen.cursor.hidden)
            process.send_signal(signal.SIGKILL)
            assert ended(tty, process) == -signal.SIGKILL
        assert (
            termios.tcgetattr(tty.slave)[3] & termios.ECHO
        )  # it was never anybody's but the shell's
        with started(tty, place, *run(place, said("again"), DONE)) as process:
            assert ended(tty, process) == 0
        assert left_as_found(tty)


@pytest.mark.timeout(120)
def test_ctrl_z_gives_the_terminal_back_until_it_goes_on(place):
    with opened() as tty, started(tty, place, *run(place, said("looking"), HANG)) as process:
        tty.until(lambda: "  looking" in tty.text() and tty.screen.cursor.hidden)
        tty.type(b"\x1a")
        tty.until(lambda: os.waitpid(process.pid, os.WUNTRACED | os.WNOHANG) != (0, 0))
        tty.read()
        assert left_as_found(tty)
        process.send_signal(signal.SIGCONT)
        tty.until(lambda: tty.screen.cursor.hidden)
        tty.type(b"\x03")
        assert ended(tty, process) == 130


def outcome_of(place: Path) -> Outcome:
    (folder,) = list_runs(place.parent / "state/runs")
    outcome = read_outcome(folder)
    assert outcome is not None
    return outcome


@pytest.mark.timeout(120)
def test_a_closed_terminal_stops_a_run_cleanly_and_its_outcome_is_kept(place):
    tty = Tty()
    with started(tty, place, *run(place, said("looking"), HANG)) as process:
        tty.until(lambda: "  looking" in tty.text() and tty.screen.cursor.hidden)
        os.close(tty.slave)
        os.close(tty.master)
        process.wait(WAIT_S)
    outcome = outcome_of(place)
    assert outcome.error is not None
    assert outcome.status == "interrupted"
    # The signal tells it, or a line that cannot be written any more: whichever comes first.
    gone = ("the terminal was closed", "the output cannot be written: Input/output error")
    assert outcome.error.text in gone


@pytest.mark.timeout(120)
def test_under_nohup_a_closed_terminal_stops_nothing(place):
    steps = (said("looking"), {"sleep": 1}, DONE)
    words = ["/bin/sh", "-c", "trap '' HUP; exec \"$@\"", "sh", PROGRAM, *run(place, *steps)]
    piped = subprocess.PIPE
    with (
        subprocess.Popen(
            words, cwd=place, env=environment(place), stdin=piped, stdout=piped, stderr=piped
        ) as process,
        killed(process),
    ):
        assert process.stderr is not None
        for line in process.stderr:
            if b"looking" in line:
                break
        process.send_signal(signal.SIGHUP)
        process.wait(WAIT_S)
    assert outcome_of(place).status == "succeeded"


@pytest.mark.timeout(120)
def test_a_window_that_changes_its_size_is_drawn_anew(place):
    with opened() as tty, started(tty, place, *run(place, said("looking"), HANG)) as process:
        tty.until(lambda: "  looking" in tty.text() and tty.screen.cursor.hidden)
        tty.resize(40, 10)
        count = len(tty.seen)
        tty.until(lambda: b"\x1b[J" in tty.seen[count:])
        process.send_signal(signal.SIGTERM)
        assert ended(tty, process) == 130


@pytest.mark.timeout(120)
def test_without_colour_there_is_no_motion_either(place):
    argv = run(place, said("looking"), DONE)
    with opened() as tty, started(tty, place, *argv, NO_COLOR="1") as process:
        assert ended(tty, process) == 0
        assert b"\x1b" not in tty.seen
        assert "  looking" in tty.text()


BROKEN = """
import sys
from orchestrator.cli.terminal import terminal
from tests.console.words import at
from orchestrator.events import RunStarted
with terminal(sys.stderr, ["fix"]) as shown:
    shown.event(at(0, RunStarted(adapter="codex")))
    shown.draw()
    print("a warning", file=sys.stderr)
    raise RuntimeError("a mistake of ours")
"""


def test_a_mistake_of_ours_leaves_the_terminal_whole_and_is_seen(place):
    argv = [sys.executable, "-c", BROKEN]
    env = {**environment(place), "TERM": "xterm-256color"}
    with opened() as tty:
        its = tty.slave
        process = subprocess.Popen(argv, env=env, stdin=its, stdout=its, stderr=its)
        with killed(process):
            assert ended(tty, process) == 1
        assert b"\x1b[?25l" in tty.seen
        assert left_as_found(tty)
        assert "a warning\n" in tty.text()
        assert "RuntimeError: a mistake of ours" in tty.text()


async def test_a_thousand_events_a_second_are_drawn_eight_times_a_second():
    with opened() as tty, os.fdopen(os.dup(tty.slave), "w") as stream:
        frames = 0
        began = time.monotonic()
        with terminal(stream, ["fix"]) as shown:
            shown.event(at(0, RunStarted(adapter="codex")))
            async with anyio.create_task_group() as group:
                group.start_soon(shown.animate, print)
                for number in range(600):
                    shown.event(at(number / 1000, MessageDelta(text="x")))
                    shown.event(at(number / 1000, Notice(text=f"note {number}")))
                    await anyio.sleep(0.001)
                    tty.read()
                group.cancel_scope.cancel()
            took = time.monotonic() - began
        tty.read()
        frames = tty.seen.count(b"\x1b[?7l")
        assert 0 < frames <= took / FRAME_S + 1
        assert tty.seen.count(b"note: note") == 600


@pytest.mark.parametrize(("columns", "lines"), [(80, 24), (40, 12)])
def test_fifty_tasks_fit_the_window_and_each_stays_told_once_when_it_is_over(columns, lines):
    ids = [f"task{number}" for number in range(50)]
    with (
        opened(columns, lines) as tty,
        os.fdopen(os.dup(tty.slave), "w") as stream,
        terminal(stream, ids) as shown,
    ):
        for number, id_ in enumerate(ids):
            shown.event(at(number, TaskStarted(id=id_), id_, run=None))
            shown.event(at(number, RunStarted(adapter="codex"), id_))
        shown.draw()
        for left, id_ in zip(range(50, 0, -1), ids, strict=True):
            tty.read()
            heads = re.findall(r"^\d+ running", tty.text(), re.MULTILINE)
            assert heads == [f"{left} running"]
            outcome = Outcome(status="succeeded", run_id="r", agent="codex")
            shown.event(at(60, TaskFinished(outcome=outcome), id_, run=None))
            shown.draw()
        shown.close()
        tty.read()
        for id_ in ids:
            assert tty.seen.count(f"{id_}: succeeded".encode()) == 1
        assert " running" not in tty.text()
        assert left_as_found(tty)


def test_a_terminal_that_was_stopped_does_not_hold_up_the_run():
    with (
        opened() as tty,
        os.fdopen(os.dup(tty.slave), "w") as stream,
        terminal(stream, ["fix"]) as shown,
    ):
        tty.type(b"\x13")  # Ctrl-S
        for number in range(2_000):
            shown.event(at(0, Notice(text=f"note {number}")))
            shown.draw()  # would block for ever
        tty.read(0.1)
        assert b"note" not in tty.seen
        tty.type(b"\x11")
        tty.until(lambda: bool(select.select([], [tty.slave], [], 0)[1]))
        shown._above = shown._above[-20:]  # what a pty holds without a reader
        shown.draw()
        tty.until(lambda: b"note 1999" in tty.seen)


async def test_a_terminal_that_is_gone_is_told_to_the_run():
    errors: list[OSError] = []
    tty = Tty()
    with os.fdopen(tty.slave, "w") as stream, terminal(stream, ["fix"]) as shown:
        os.close(tty.master)
        await shown.animate(errors.append)
    assert errors
