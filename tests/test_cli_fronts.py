"""Commands that adapters bring: this process becomes another program, with the words as they are.

The package that brings them here is made of files, as any other package's would be.
"""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

from tests import commands

ENTRIES = """
[orchestrator.adapters]
told = brought:adapter
[orchestrator.commands]
told-json = brought:command
told-broken = brought:no_such_thing
told-wrong = brought:adapter
told-astray = brought:astray
"""
BROUGHT = """
from orchestrator.adapter import About, Front, Program
class Adapter:
    about = About(name="told", title="The Teller", program=Program(name="teller"), install="Ask!")
adapter = Adapter()
def argv(program, words):
    return (program, "first", *words)
command = Front(adapter="told", help="Tells what it is given.", argv=argv)
astray = Front(adapter="told", help="", argv=lambda program, words: ("/no/such/program",))
"""
TELLER = """#!{python}
import json, os, signal, sys
told = {{"argv": sys.argv[1:], "pid": os.getpid(), "environ": dict(os.environ)}}
print(json.dumps(told), flush=True)
if "wait" in sys.argv:
    signal.pause()
sys.exit(7)
"""


@pytest.fixture
def environ(tmp_path: Path) -> dict[str, str]:
    """An environment in which the package is installed, and its program, too."""
    packages, programs = tmp_path / "packages", tmp_path / "programs"
    known = packages / "brought-1.0.dist-info"
    known.mkdir(parents=True)
    (known / "METADATA").write_text("Metadata-Version: 2.1\nName: brought\nVersion: 1.0\n")
    (known / "entry_points.txt").write_text(ENTRIES)
    (packages / "brought.py").write_text(BROUGHT)
    programs.mkdir()
    (programs / "teller").write_text(TELLER.format(python=sys.executable))
    (programs / "teller").chmod(0o755)
    path = f"{programs}:{os.environ['PATH']}"
    return {"PATH": path, "HOME": str(tmp_path), "PYTHONPATH": str(packages), "PLANTED": "1"}


def orchestrate(environ: dict[str, str], *words: str) -> "subprocess.CompletedProcess[str]":
    return commands.run(*words, env=environ, cwd=Path(environ["HOME"]))


@pytest.mark.parametrize(
    ("typed", "arrives"),
    [
        (["--", "--model", "m", "-x", "a b", ""], ["--model", "m", "-x", "a b", ""]),
        (
            ["--model", "m", "--config", "f", "-o", "g"],
            ["--model", "m", "--config", "f", "-o", "g"],
        ),
        (["--message=x", "--", "file", "--help"], ["--message=x", "--", "file", "--help"]),
        (["--no-git", "--help"], ["--no-git", "--help"]),
        (["--", "--help"], ["--help"]),
        (["--", "a", "--", "--b"], ["a", "--", "--b"]),
        (["a\udcff", "--help"], ["a\udcff", "--help"]),
        ([], []),
    ],
)
def test_every_word_arrives_as_it_was_typed(
    environ: dict[str, str], typed: Sequence[str], arrives: Sequence[str]
) -> None:
    done = orchestrate(environ, "told-json", *typed)
    assert (done.returncode, done.stderr) == (7, "")
    told = json.loads(done.stdout)
    assert told["argv"] == ["first", *arrives]
    assert {**environ, **told["environ"]} == told["environ"]
    assert not [name for name in told["environ"] if name.startswith(("PYDANTIC", "ORCHESTRATE"))]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_a_signal_is_the_programs_own(environ: dict[str, str], number: signal.Signals) -> None:
    argv = (sys.executable, "-m", "orchestrator.cli", "told-json", "wait")
    folder = environ["HOME"]
    with subprocess.Popen(argv, env=environ, cwd=folder, stdout=-1, stderr=-1) as process:
        assert process.stdout is not None
        assert json.loads(process.stdout.readline())["pid"] == process.pid
        process.send_signal(number)
        try:
            _, stderr = process.communicate(timeout=10)
        finally:
            process.kill()
    assert process.returncode == -number
    assert (b"KeyboardInterrupt" in stderr) == (number == signal.SIGINT)  # the program's own words


def test_help_lists_the_command_and_tells_what_it_does(environ: dict[str, str]) -> None:
    listed = orchestrate(environ, "--help").stdout
    assert "told-json    A program of brought: see its --help." in listed
    assert "aider-json   A program of aider: see its --help." in listed
    done = orchestrate(environ, "told-json", "--help")
    assert done.returncode == 0
    assert done.stdout.startswith("Usage: orchestrate told-json [--] WORDS...")
    assert "Tells what it is given." in done.stdout


@pytest.mark.parametrize(
    ("command", "status", "says"),
    [
        ("told-broken", 2, "command 'told-broken' cannot be loaded: AttributeError"),
        ("told-wrong", 2, "command 'told-wrong' is none: brought:adapter is no Front"),
        ("told-astray", 3, "cannot start /no/such/program: No such file or directory"),
        ("told-unknown", 2, "No such command 'told-unknown'"),
    ],
)
def test_a_command_that_cannot_be_is_told(
    environ: dict[str, str], command: str, status: int, says: str
) -> None:
    done = orchestrate(environ, command)
    assert (done.returncode, done.stdout) == (status, "")
    assert says in done.stderr
    assert "Traceback" not in done.stderr


def test_a_program_that_is_not_installed_is_told_with_its_remedy(environ: dict[str, str]) -> None:
    done = orchestrate({**environ, "PATH": os.defpath}, "told-json", "x")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == "orchestrate: The Teller is not installed\nAsk!\n"
