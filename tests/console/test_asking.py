"""`permissions = "ask"`: a question on a real terminal (a pty), answered by a key."""

import json
import os
import signal
import sys
import termios
from pathlib import Path
from typing import Any

import pytest

from orchestrator.adapter import Question
from orchestrator.cli.permitting import Keys
from orchestrator.console.paint import painted
from orchestrator.console.question import MOST, prompt, question
from orchestrator.console.text import cells
from orchestrator.events import Location, Permission, ToolCall
from tests import asking_agent, commands
from tests.console.test_terminal import Tty, ended, left_as_found, opened, started
from tests.console.words import HOSTILE, steers
from tests.test_cli import environment, place

__all__ = ["place"]

pytestmark = [pytest.mark.timeout(120), pytest.mark.anyio]
PROMPT = "[y] allow once  [a] always in this session  [n] deny"


def run(place: Path, *commands: str, tasks: int = 1, ask: str = "1m") -> list[str]:
    argv = [sys.executable, "-I", "-S", str(asking_agent.__file__), *commands]
    config = place.parent / "agents.toml"
    config.write_text(
        f'[limits]\nask = "{ask}"\nstall = "2s"\n[agents.asker]\nadapter = "acp"\ntier = "local"\n'
        f'profile = "clean"\npermissions = "ask"\ncommand = {json.dumps(argv)}\n'
    )
    if tasks == 1:
        words = ["-p", "do it", "--access", "full"]
    else:
        file = place.parent / "task.yaml"
        for number in range(tasks):  # those who write in one folder would take turns
            (place / f"t{number}").mkdir()
        listed = [
            {"id": f"t{n}", "prompt": "x", "access": "full", "workspace": str(place / f"t{n}")}
            for n in range(tasks)
        ]
        file.write_text(json.dumps({"version": 1, "concurrency": tasks, "tasks": listed}))
        words = [str(file)]
    return ["run", *words, "--config", str(config), "--agent", "asker"]


def answers(place: Path) -> Any:
    return json.loads((place / "answers.txt").read_text())


def modes(tty: Tty) -> Any:
    return termios.tcgetattr(tty.slave)


def asks(tty: Tty, command: str) -> bool:
    return f"asks to run a command: {command}" in tty.text() and PROMPT in tty.text()


def test_a_question_is_shown_whole_and_answered_by_a_key(place: Path) -> None:
    with opened(100) as tty:
        before = modes(tty)
        with started(tty, place, *run(place, "make", "rm")) as process:
            tty.until(lambda: asks(tty, "make"))
            assert "make --with all of it" in tty.text()
            assert "(denied in " in tty.text()
            tty.type(b"y")
            tty.until(lambda: asks(tty, "rm"))
            assert "allowed: make" in tty.text()
            tty.type(b"n")
            assert ended(tty, process) == 1
        assert "denied: rm (denied when asked)" in tty.text()
        assert "outcome    denied" in tty.text()
        assert answers(place) == {"make": "once", "rm": "no"}
        assert PROMPT not in tty.text()
        assert modes(tty) == before
        assert left_as_found(tty)


def test_always_is_asked_once(place: Path) -> None:
    with opened(100) as tty, started(tty, place, *run(place, "make", "rm")) as process:
        tty.until(lambda: asks(tty, "make"))
        tty.type(b"a")
        assert ended(tty, process) == 0
        assert answers(place) == {"make": "always"}


@pytest.mark.parametrize("stop", ["ctrl-c", "sigterm"])
def test_a_stop_while_it_asks_is_a_stop(place: Path, stop: str) -> None:
    with opened(100) as tty:
        before = modes(tty)
        with started(tty, place, *run(place, "make")) as process:
            tty.until(lambda: asks(tty, "make"))
            if stop == "ctrl-c":
                tty.type(b"\x03")
            else:
                process.send_signal(signal.SIGTERM)
            assert ended(tty, process) == 130
        assert "outcome    interrupted" in tty.text()
        assert not (place / "answers.txt").exists()
        assert modes(tty) == before
        assert left_as_found(tty)


def test_a_question_that_nobody_answers_is_denied_in_its_time_and_no_stall(place: Path) -> None:
    # Longer than `stall`, which is two seconds.
    with (
        opened(100) as tty,
        started(tty, place, *run(place, "make", ask="4s")) as process,
    ):
        assert ended(tty, process) == 1
        assert "denied: make (nobody answered within 4 s (limits.ask))" in tty.text()
        assert "outcome    denied" in tty.text()


def test_two_that_ask_at_once_are_asked_one_after_the_other(place: Path) -> None:
    with opened(100) as tty, started(tty, place, *run(place, "make", tasks=2)) as process:
        tty.until(lambda: PROMPT in tty.text() and tty.text().count("asks for permission") == 2)
        assert tty.text().count("asks to run a command") == 1
        tty.type(b"y")
        tty.until(lambda: tty.text().count("asks to run a command") == 2 and PROMPT in tty.text())
        tty.type(b"y")
        assert ended(tty, process) == 0
        for task in ("t0", "t1"):
            assert f"? {task}: asker asks to run a command: make" in tty.text()


def test_without_colour_and_motion_a_person_is_asked_line_by_line(place: Path) -> None:
    with opened(100) as tty:
        with started(tty, place, *run(place, "make"), NO_COLOR="1") as process:
            tty.until(lambda: asks(tty, "make"))
            tty.type(b"y")
            assert ended(tty, process) == 0
        assert "\x1b" not in tty.seen.decode()


@pytest.mark.parametrize("form", ["text", "json"])
def test_where_nobody_can_be_asked_it_is_denied(place: Path, form: str) -> None:
    words = [*run(place, "make"), "--output", form]
    done = commands.run(*words, cwd=place, env=environment(place))
    assert done.returncode == 1
    assert answers(place) == {"make": "no"}
    assert "permissions = ask, and nobody is there to be asked" in done.stdout + done.stderr


def test_a_program_that_reads_the_output_is_not_kept_waiting_for_keys(place: Path) -> None:
    with opened(100) as tty:
        argv = [*run(place, "make"), "--output", "json"]
        with started(tty, place, *argv) as process:
            assert ended(tty, process) == 1
        assert answers(place) == {"make": "no"}


@pytest.mark.parametrize(
    ("typed", "key"),
    [
        (b"y", "y"),
        (b"N", "n"),
        (b"\x1b[A", ""),  # the key Up ends with an A
        (b"yes", ""),
        ("ä".encode(), ""),
    ],
)
async def test_only_a_key_by_itself_is_an_answer(typed: bytes, key: str) -> None:
    with opened() as tty:
        before = modes(tty)
        keys = Keys(tty.slave)
        with keys.taken():
            assert not termios.tcgetattr(tty.slave)[3] & termios.ECHO
            tty.type(typed)
            assert await keys.key() == key
        assert modes(tty) == before


async def test_a_terminal_that_is_gone_has_no_more_keys() -> None:
    master, slave = os.openpty()
    keys = Keys(slave)
    with keys.taken():
        os.close(master)
        assert await keys.key() is None
    os.close(slave)


# --- what is shown -------------------------------------------------------------------------------


def lines(call: ToolCall, width: int = 60) -> list[str]:
    asked = Question(permission=Permission(id="1", status="requested", tool="it"), call=call)
    return [painted(line, colour=False) for line in question("agent", asked, width)]


def test_of_a_command_nothing_is_hidden_beyond_the_edge() -> None:
    command = f"true {'x' * 200} ; rm -rf /\necho second"
    shown = lines(ToolCall(id="1", kind="execute", input={"command": command}))
    assert shown[0] == "? agent asks to run a command: it"
    assert "".join(line.strip() for line in shown[1:]).endswith("; rm -rf /echo second")
    assert all(cells(line) <= 60 for line in shown)


def test_a_command_of_words_is_shown_as_one() -> None:
    assert "    git push" in lines(ToolCall(id="1", input={"command": ["git", "push"]}))


def test_a_command_that_is_its_own_title_is_shown_once() -> None:
    assert lines(ToolCall(id="1", kind="execute", input={"command": "it"})) == [
        "? agent asks to run a command: it"
    ]
    assert len(lines(ToolCall(id="1", input=["no", "names"]))) == 1


def test_an_edit_is_shown_with_its_file_and_the_head_of_its_diff() -> None:
    diff = "\n".join(f"+{number}" for number in range(MOST + 5))
    call = ToolCall(id="1", kind="edit", locations=[Location(path="a.py")], diff=diff)
    shown = lines(call)
    assert shown[:3] == ["? agent asks to edit: it", "    a.py", "    +0"]
    assert shown[-1] == "    ... and 5 more lines"
    assert lines(ToolCall(id="1", diff="-a\n b"))[1:] == ["    -a", "     b"]


@pytest.mark.parametrize("hostile", HOSTILE)
def test_nothing_of_an_agents_steers_the_terminal(hostile: str) -> None:
    text = f"a{hostile}b"
    call = ToolCall(
        id="1", title=text, input={"command": text}, diff=text, locations=[Location(path=text)]
    )
    asked = Question(permission=Permission(id="1", status="requested", tool=text), call=call)
    for line in question("agent", asked, 60):
        assert not steers(painted(line, colour=False))


def test_the_keys_are_told_with_the_time_that_is_left() -> None:
    asked = Question(permission=Permission(id="1", status="requested"), call=ToolCall(id="1"))
    assert painted(prompt(asked, 65), colour=False).endswith(
        "[n] deny  Ctrl-C stops  (denied in 1m05s)"
    )
    assert painted(prompt(asked, None), colour=False).endswith("Ctrl-C stops")
    assert "[a]" not in painted(prompt(asked, None), colour=False)
