"""aider's front, as far as it goes without aider: a stand-in that lacks what is wrapped."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from adapters.aider import FRONT
from adapters.programs.aider_front.tables import json_first

MAIN = "def main(argv=None): ...\n"
PARSER = "import argparse\ndef get_parser(files, root): return argparse.ArgumentParser()\n"


def run_front(
    tmp_path: Path, *arguments: str, aider: dict[str, str] | None = None, stdin: str = ""
) -> tuple[int, list[dict[str, object]], str]:
    """Exit status, lines, stderr. `aider`: the files of the package that stands in for it."""
    folder = tmp_path / "packages"
    (folder / "aider").mkdir(parents=True)
    for name, text in (aider or {}).items():
        (folder / "aider" / name).write_text(text)
    if aider is None:
        (folder / "aider").rmdir()
    done = subprocess.run(
        [sys.executable, FRONT, *arguments],
        input=stdin,
        env={"PATH": os.environ["PATH"], "HOME": str(tmp_path), "PYTHONPATH": str(folder)},
        cwd=tmp_path,
        capture_output=True,
        text=True,
    )
    return done.returncode, [json.loads(line) for line in done.stdout.splitlines()], done.stderr


def stand_in(version: str) -> dict[str, str]:
    init = f"__version__ = {version!r}\n"
    return {"__init__.py": init, "main.py": MAIN, "args.py": PARSER}


def test_an_untested_version_is_said_and_a_missing_function_is_named(tmp_path: Path) -> None:
    status, lines, _ = run_front(tmp_path, "--", "--help", aider=stand_in("0.99.0"))
    assert {"type": "notice", "text": "aider 0.99.0 is untested (tested: 0.86.2)"} in lines
    error, result = lines[-2:]
    assert error["kind"] == "spawn"
    assert str(error["text"]).startswith("aider 0.99.0 cannot be wrapped: it has no aider.")
    assert (status, result["status"], result["exit_code"]) == (3, "missing", 3)


def test_a_tested_version_needs_no_word(tmp_path: Path) -> None:
    _, lines, _ = run_front(tmp_path, "--", aider=stand_in("0.86.2"))
    assert not [line for line in lines if "untested" in str(line)]


def test_an_aider_that_prints_json_itself_is_used_as_it_is(tmp_path: Path) -> None:
    package = stand_in("1.0.0")
    package["args.py"] = (
        "import argparse\n"
        "def get_parser(files, root):\n"
        "    parser = argparse.ArgumentParser()\n"
        "    parser.add_argument('--json')\n"
        "    return parser\n"
    )
    package["main.py"] = (
        "import os, sys\n"
        "def main(argv):\n"
        "    os.write(1, (' '.join(argv)).join(('{\"argv\": \"', '\"}\\n')).encode())\n"
        "    return 5\n"
    )
    status, lines, _ = run_front(tmp_path, "--", "--message", "x", aider=package)
    assert lines[-1] == {"argv": "--json --message x"}
    assert status == 5


def test_without_aider_the_missing_package_is_named(tmp_path: Path) -> None:
    status, lines, _ = run_front(tmp_path, "--", "--message", "x")
    assert status == 3
    assert lines[-2]["missing"] == "aider"
    assert lines[-1]["status"] == "missing"


@pytest.mark.parametrize(
    ("arguments", "stdin", "says"),
    [
        ([], "", "usage: aider_front -- AIDER FLAGS"),
        (["--settings"], "{", "stdin is no settings"),
        (["--settings"], '{"promt": "x"}', "stdin is no settings"),
        (["--settings"], '{"session_id": "../x"}', "not a session's id: '../x'"),
        (["--settings"], '{"session_id": "gone"}', "there is no session gone"),
    ],
)
def test_settings_that_cannot_be_used_are_refused(
    tmp_path: Path, arguments: list[str], stdin: str, says: str
) -> None:
    status, lines, _ = run_front(tmp_path, *arguments, stdin=stdin)
    assert status == 2
    assert says in str(lines[-2]["text"])
    assert lines[-1]["exit_code"] == 2


def test_nobody_at_the_address_is_told_at_once(tmp_path: Path) -> None:
    settings = json.dumps({"prompt": "x", "api_base": "http://127.0.0.1:9", "home": str(tmp_path)})
    status, lines, _ = run_front(tmp_path, "--settings", stdin=settings)
    assert status == 1
    assert (lines[-2]["kind"], lines[-2]["retryable"]) == ("unavailable", True)


TABLE = """{
    // a line of comment
    "a": {"url": "https://x, // no comment", "b": [1, 2,
    ],
    },
}"""


@pytest.mark.parametrize(
    ("text", "read"),
    [
        (TABLE, {"a": {"url": "https://x, // no comment", "b": [1, 2]}}),
        ("{'a': 1}", "left to json5"),
        ('{"a": "1\\\n//2"}', "left to json5"),
        ("/*\n// x */ {}", "left to json5"),
    ],
    ids=["json but for comments", "other quotes", "continued string", "long comment"],
)
def test_a_table_in_json5_is_read_as_json_only_where_both_mean_the_same(
    text: str, read: object
) -> None:
    assert json_first(lambda _: "left to json5")(text) == read
