"""Help and completion: every command shows how it is called, within 80 columns."""

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

from orchestrator.cli import app
from tests.test_cli import DONE, environment, place, run, said

__all__ = ["place"]


def commands(group: object, path: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    for name, command in vars(group)["commands"].items():
        if "commands" in vars(command):
            yield from commands(command, (*path, name))
            if vars(command).get("invoke_without_command"):
                yield (*path, name)
        else:
            yield (*path, name)


COMMANDS = list(commands(typer.main.get_command(app)))


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_the_help_of_every_command_has_an_example_and_fits_80_columns(command):
    shown = CliRunner(env={"COLUMNS": "80"}).invoke(app, [*command, "--help"]).stdout
    assert f"\n  orchestrate {' '.join(command)}" in shown
    assert [line for line in shown.splitlines() if len(line) > 80] == []


@pytest.mark.parametrize("group", [[], ["runs"], ["models"], ["config"]], ids=" ".join)
def test_the_help_of_a_group_tells_every_command_in_a_whole_sentence(group):
    shown = CliRunner(env={"COLUMNS": "80"}).invoke(app, [*group, "--help"]).stdout
    size = len(group)
    there = {path[size] for path in COMMANDS if list(path[:size]) == group != list(path)}
    for name in there:
        assert f"\n  {name} " in shown
    assert ".." not in shown.replace("[ARGS]...", "")


def completed(place: Path, line: str) -> str:
    words = f"orchestrate {line}"
    env = {
        **environment(place),
        "_ORCHESTRATE_COMPLETE": "complete_bash",
        "COMP_WORDS": words,
        "COMP_CWORD": str(len(words.split(" ")) - 1),
    }
    program = str(Path(sys.executable).with_name("orchestrate"))
    return subprocess.run([program], cwd=place, env=env, capture_output=True, text=True).stdout


def test_a_shell_completes_commands_runs_and_agents(place):
    done = run(place, said("hello"), DONE)
    assert done.returncode == 0, done.stderr
    (folder,) = (place.parent / "state/runs").iterdir()
    assert "show" in completed(place, "runs sh")
    assert completed(place, f"runs show {folder.name[:9]}").split() == [folder.name]
    assert "last" in completed(place, "runs show l")
    (place / "orchestrate.toml").write_text('[agents.mine]\nadapter = "codex"\n')
    assert "mine" in completed(place, "run --agent m")


def test_help_needs_neither_pydantic_nor_a_terminal_s_code():
    script = (
        "import sys\nfrom orchestrator.cli import app\n"
        "try: app(['--help'])\nexcept SystemExit: pass\n"
        "heavy = {'pydantic', 'rich', 'orchestrator.console'}\n"
        "print(*sorted(heavy & set(sys.modules)))"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, env={**os.environ}
    )
    assert done.stdout.splitlines()[-1] == ""
