"""Nothing that comes from outside steers the terminal, whichever command prints it."""

import ast
import json
import os
import pty
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from orchestrator.console.paint import Span, painted
from orchestrator.errors import HOSTILE, escaped_in_json
from tests.commands import Command

ROOT = Path(__file__).parent.parent
CLI = ROOT / "orchestrator" / "cli"
STEERS = re.compile(rf"(?![\r\n])[{HOSTILE}]")
TITLE, CSI, FLIP, TAG = "\x1b]0;pwned\x07", "\x9b2J", "\u202e", "\U000e0041"
HOSTILE_TEXT = f"a{TITLE}b{CSI}c{FLIP}d{TAG}e\u2028f\rg\x7f"

ALLOWED = {
    "frame.py": "the functions through which everything goes",
    "__init__.py": "our own version, and the last flush",
    "runs.py: shutil.copyfileobj": "raw output, and only where stdout is no terminal",
    "trees.py: sys.stdout.buffer.write": "a patch, and only where stdout is no terminal",
    "models.py: typer.echo": "a bar of our own characters, drawn over itself",
    "init.py: file.write": "a file",
    "fronts.py: sys.stdout.flush": "no text",
    "fronts.py: sys.stderr.flush": "no text",
}
PRINTS = re.compile(
    r"(typer\.(echo|secho)|click\.\w*echo|print|sys\.(stdout|stderr)\.[\w.]*|\w+\.write|\w+\.writelines"
    r"|shutil\.copyfileobj)"
)


def prints(path: Path) -> Iterator[tuple[str, int]]:
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Call):
            called = ast.unparse(node.func)
            if PRINTS.fullmatch(called):
                yield called, node.lineno


def test_every_command_prints_through_what_escapes() -> None:
    found = {
        f"{path.name}: {called}"
        for path in CLI.glob("*.py")
        for called, _ in prints(path)
        if path.name not in ALLOWED
        and called not in {"sys.stdout.isatty", "sys.stderr.isatty", "sys.stdout.fileno"}
    }
    assert found == {place for place in ALLOWED if ":" in place}


def test_no_other_module_of_the_core_prints() -> None:
    # The reaper and the test doubles are programs of their own; `live` is given what to write with.
    ours = [
        path
        for path in (ROOT / "orchestrator").rglob("*.py")
        if not {"cli", "testing"} & set(path.relative_to(ROOT).parts)
    ]
    found = {
        f"{path.relative_to(ROOT)}:{line} {called}"
        for path in ours
        for called, line in prints(path)
        if called.startswith(("print", "typer", "click", "sys."))
    }
    assert found == set()


def test_nothing_in_the_project_starts_a_shell_but_for_commands_that_the_user_wrote() -> None:
    shells = re.compile(
        r"shell\s*=\s*True|os\.(system|popen)\(|create_subprocess_shell|/bin/sh\", \"-c\""
    )
    found = {
        (str(path.relative_to(ROOT)), match[0])
        for folder in ("orchestrator", "adapters")
        for path in (ROOT / folder).rglob("*.py")
        for match in shells.finditer(path.read_text())
    }
    assert found == WITH_C


WITH_C = {("orchestrator/run/work.py", '/bin/sh", "-c"')}


@pytest.mark.parametrize("style", ["plain", "bold"])
@pytest.mark.parametrize("colour", [True, False])
def test_what_is_painted_cannot_paint_itself(style: str, colour: bool) -> None:
    line = painted([Span(HOSTILE_TEXT, style)], colour=colour)  # type: ignore[arg-type]
    assert STEERS.search(re.sub(r"\x1b\[\d+m", "", line) if colour else line) is None


def test_json_on_a_terminal_says_the_same_and_steers_nothing() -> None:
    value = {HOSTILE_TEXT: [HOSTILE_TEXT, "ä€😀\n\t"]}
    text = json.dumps(value, ensure_ascii=False, indent=2)
    escaped = escaped_in_json(text)
    assert json.loads(escaped) == value
    assert STEERS.search(escaped) is None
    assert "ä€😀" in escaped


PLANTED = """
[agents."{name}"]
adapter = "jsonl"
model = "{name}"
[agents."{name}".options]
argv = ["{name}"]
"""
COMMANDS = (
    ["agents"],
    ["agents", "--output", "json"],
    ["config"],
    ["config", "--output", "json"],
    ["runs", "list"],
    ["runs", "show", HOSTILE_TEXT],
    ["run", "-p", "x", "--output", "quiet", "--agent", HOSTILE_TEXT],
    ["run", HOSTILE_TEXT],
    ["agents", "use", HOSTILE_TEXT],
    ["runs", "export", "last", "--to", HOSTILE_TEXT],
)


def on_a_terminal(*words: str, env: dict[str, str], folder: Path) -> str:
    ours, theirs = pty.openpty()
    process = Command[bytes](words, stdin=theirs, stdout=theirs, stderr=theirs, env=env, cwd=folder)
    os.close(theirs)
    said = b""
    while True:
        try:
            chunk = os.read(ours, 65536)
        except OSError:  # the last one has closed it
            break
        if not chunk:
            break
        said += chunk
    os.close(ours)
    process.wait()
    return said.decode("utf-8", "replace")


@pytest.mark.timeout(120)
def test_no_command_lets_a_name_steer_the_terminal(tmp_path: Path) -> None:
    """On a real pseudo-terminal, with hostile names in the configuration and as arguments."""
    name = "".join(f"\\U{ord(char):08x}" for char in HOSTILE_TEXT)
    (tmp_path / "hostile.toml").write_text(PLANTED.format(name=name))
    env = {
        "PATH": os.environ["PATH"],
        "HOME": str(tmp_path),
        "TERM": "dumb",
        "ORCHESTRATE_STATE_DIR": str(tmp_path / "state"),
        "COLUMNS": "200",
    }
    for words in COMMANDS:
        config = ["--config", str(tmp_path / "hostile.toml")]
        said = on_a_terminal(*words, *config, env=env, folder=tmp_path)
        assert said.strip(), words
        assert (found := STEERS.search(said)) is None, (words, found, said)
        assert "\rg" not in said
