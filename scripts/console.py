"""What a person sees, captured in a real terminal: writes docs/console.md.

The agents are scripted (orchestrator.testing), so that it needs no key and no model; everything
else is what users get. The captures are text; `--colour` prints them with their colours instead.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from orchestrator.testing import agent

ROOT = Path(__file__).resolve().parent.parent
COLOUR = "--colour" in sys.argv
WAIT_S = 40

Step = Mapping[str, object]

# --- the scene -----------------------------------------------------------------------------------


def said(**line: object) -> Step:
    return {"print": json.dumps(line)}


def tool(title: str, seconds: float, status: str = "completed", **end: object) -> list[Step]:
    """A tool call that takes so long."""
    started = said(type="tool", id=title, status="in_progress", title=title, kind="execute")
    ended = said(type="tool", id=title, status=status, **end)
    return [started, {"sleep": seconds}, ended]


def used(count: int, answer: int, cost: float) -> Step:
    return said(type="usage", input=count, output=answer, cost=cost)


DONE = said(type="end")
SCRIPTS: dict[str, Sequence[Step]] = {
    "locate": [
        said(type="text", text="I will look where retries are made."),
        *tool("rg -n 'Retry-After|retry' src", 1.5, exit=0, output="src/retry.py:12: def wait(n):"),
        used(4_200, 180, 0.0021),
        said(type="text", text="src/retry.py, used by src/http.py"),
        DONE,
    ],
    "survey": [
        *tool("rg -n 'sleep' src tests", 14, exit=0, output="src/retry.py:14: time.sleep(2 ** n)"),
        used(9_800, 240, 0.0048),
        said(type="text", text="One place sleeps: src/retry.py line 14."),
        DONE,
    ],
    "history": [
        said(type="text", text="The log will tell."),
        *tool("git log --stat --follow src/retry.py", 14, exit=0, output="a commit"),
        used(7_300, 120, 0.0037),
        DONE,
    ],
    "fix": [
        said(
            type="text", text="wait() ignores the header. I will read it, in seconds or as a date."
        ),
        *tool("cat src/retry.py", 0.4, exit=0),
        {"write": "src/retry.py", "text": "def wait(n, header=None):\n    return header or 2**n\n"},
        used(12_100, 345, 0.0123),
        *tool("pytest -q tests/test_retry.py", 6, exit=0, output="4 passed in 0.31s"),
        said(type="text", text="Retry-After is honoured, in seconds or as a date."),
        DONE,
    ],
    "slow": [
        said(type="text", text="Let me see the whole history first."),
        *tool("git log --stat --follow src/retry.py", 60),
        DONE,
    ],
    "claims": [used(3_000, 90, 0.0015), said(type="text", text="All tests pass now."), DONE],
    "denied": [
        said(type="denied", tool="rm -rf build", reason="not allowed in this mode"),
        said(type="text", text="I could not remove the folder."),
        DONE,
    ],
    "hostile": [
        said(type="text", text="\x1b[2J\x1b]0;owned\x07[red]done[/red] \u202egnp.exe 日本語 🙂"),
        *tool("printf '\x1b[31m' \r\n", 0.2, exit=0),
        said(type="error", text="connect ECONNREFUSED 127.0.0.1:11434"),
        {"exit": 1},
    ],
}
RULES = """
[[agents.{name}.events]]
when = {{ type = "text" }}
emit = "message"
text = ".text"
[[agents.{name}.events]]
when = {{ type = "tool" }}
emit = "tool_call"
id = ".id"
status = ".status"
title = ".title"
kind = ".kind"
output = ".output"
exit_code = ".exit"
[[agents.{name}.events]]
when = {{ type = "usage" }}
emit = "usage"
input_tokens = ".input"
output_tokens = ".output"
cost_usd = ".cost"
[[agents.{name}.events]]
when = {{ type = "denied" }}
emit = "permission"
id = ".tool"
status = "denied"
tool = ".tool"
reason = ".reason"
[[agents.{name}.events]]
when = {{ type = "error" }}
emit = "error"
kind = "unavailable"
text = ".text"
[[agents.{name}.events]]
when = {{ type = "end" }}
emit = "turn.finished"
stop_reason = "end_turn"
"""
AGENT = """
[agents.{name}]
adapter = "jsonl"
model = "{model}"
argv = ["/bin/sh", "-c", "exec {python} -I -S {agent} {folder}/$STEPS.json"]
interrupt = "SIGINT"
"""
GRAPH = """\
version: 1
name: retry-after
tasks:
  - {id: locate, kind: search, agent: quick, env: {STEPS: locate}, prompt: "Which modules retry?"}
  - {id: survey, kind: search, agent: quick, env: {STEPS: survey}, prompt: "What sleeps?"}
  - {id: history, kind: search, agent: quick, env: {STEPS: history}, prompt: "Since when?"}
  - id: fix
    kind: fix
    needs: [locate]
    agent: deep
    env: {STEPS: fix}
    prompt: Retries ignore Retry-After. Fix it.
    check: grep -q header src/retry.py
  - {id: review, kind: review, needs: [fix], agent: quick, env: {STEPS: claims}, prompt: Review it.}
"""
FAILURES = """\
version: 1
name: three-failures
tasks:
  - id: claims
    kind: fix
    agent: quick
    env: {STEPS: claims}
    prompt: Fix the failing test.
    check: "false"
  - {id: denied, kind: review, agent: deep, env: {STEPS: denied}, prompt: Clean up.}
  - {id: hostile, kind: review, agent: quick, env: {STEPS: hostile}, prompt: Say something.}
  - {id: publish, kind: review, needs: [claims], agent: deep, env: {STEPS: claims}, prompt: Go.}
"""

SLOW = """\
version: 1
kind: debug
agent: deep
env: {STEPS: slow}
prompt: Why is it slow?
"""


def scene(folder: Path) -> None:
    """A small repository, agents that are scripted, and two task files."""
    (folder / "src").mkdir()
    (folder / "src/retry.py").write_text("import time\n\n\ndef wait(n):\n    time.sleep(2**n)\n")
    for name, steps in SCRIPTS.items():
        (folder / f"{name}.json").write_text(json.dumps(steps))
    agents = ""
    for name, model in (("quick", "gpt-5-mini"), ("deep", "gpt-5.5")):
        head = AGENT.format(
            name=name, model=model, python=sys.executable, agent=agent.__file__, folder=folder
        )
        agents += head + RULES.format(name=name)
    (folder / "agents.toml").write_text(agents)
    (folder / "retry.yaml").write_text(GRAPH)
    (folder / "failures.yaml").write_text(FAILURES)
    (folder / "slow.yaml").write_text(SLOW)
    for argv in (("init", "-q", "-b", "main"), ("add", "src"), ("commit", "-qm", "first")):
        identity = ("-c", "user.name=example", "-c", "user.email=example@example.invalid")
        subprocess.run(["git", *identity, *argv], cwd=folder, check=True)
    (folder / ".git/info/exclude").write_text("/*.*\n/.*\n/state\n")


# --- the terminal --------------------------------------------------------------------------------


class Window:
    """A shell in a terminal of its own."""

    def __init__(self, folder: Path, columns: int, lines: int) -> None:
        self._folder = folder
        self._socket = f"{tempfile.mkdtemp(dir=folder, prefix='.tmux-')}/socket"
        size = ("-x", str(columns), "-y", str(lines))
        env = {
            "PATH": f"{Path(sys.executable).parent}:/usr/bin:/bin",
            "ORCHESTRATE_STATE_DIR": str(folder / "state"),
            "HOME": str(folder),
            "PS1": "$ ",
            "LANG": "C.UTF-8",
        }
        named = [f"{name}={value}" for name, value in env.items()]
        shell = ["env", "-i", "TERM=tmux-256color", *named, "/bin/sh"]
        self._tmux("-f", "/dev/null", "new-session", "-d", *size, "-c", str(folder), *shell)
        self._tmux("set-option", "-g", "status", "off")

    def _tmux(self, *arguments: str) -> str:
        argv = ["tmux", "-u", "-S", self._socket, *arguments]
        return subprocess.run(argv, check=True, capture_output=True, text=True).stdout

    def type(self, text: str) -> None:
        self._tmux("send-keys", "-l", text)
        self._tmux("send-keys", "Enter")

    def keys(self, *names: str) -> None:
        self._tmux("send-keys", *names)

    def resize(self, columns: int, lines: int) -> None:
        self._tmux("resize-window", "-x", str(columns), "-y", str(lines))

    def seen(self, *, all_of_it: bool = False) -> str:
        history = ["-S", "-"] if all_of_it else []
        shown = self._tmux("capture-pane", "-p", *(["-e"] if COLOUR else []), *history)
        return shown.rstrip().replace(str(self._folder), "/home/me/project")

    def until(self, condition: Callable[[str], object]) -> str:
        end = time.monotonic() + WAIT_S
        while not condition(shown := re.sub(r"\x1b\[[0-9;]*m", "", self.seen(all_of_it=True))):
            if time.monotonic() > end:
                sys.exit(f"it did not come to this:\n{shown}")
            time.sleep(0.1)
        return self.seen()

    def end(self) -> None:
        self._tmux("kill-server")


def captured(folder: Path, columns: int, lines: int, *scenes: Callable[[Window], str]) -> list[str]:
    window = Window(folder, columns, lines)
    try:
        window.until(lambda shown: "$" in shown)
        return [scene(window) for scene in scenes]
    finally:
        window.end()


RUN = "orchestrate run --config agents.toml"


def prompted(shown: str) -> bool:
    """The shell waits for the next command."""
    return shown.rstrip().endswith("\n$")


def live(window: Window) -> str:
    window.type(f"{RUN} retry.yaml")
    return window.until(lambda shown: re.search(r"pytest.* 5s\b", shown))


def narrower(window: Window) -> str:
    window.resize(40, 24)
    time.sleep(0.5)  # what is drawn when nothing happens but the new size
    return window.seen()


def wider(window: Window) -> str:
    window.resize(100, 40)
    return window.until(prompted)


def whole(command: str) -> Callable[[Window], str]:
    """A command from its beginning to its end."""

    def scene(window: Window) -> str:
        window.type(command)
        return window.until(prompted)

    return scene


def alone(window: Window) -> str:
    window.type(f"{RUN} slow.yaml")
    return window.until(lambda shown: "git log" in shown and "6s" in shown)


def interrupted(window: Window) -> str:
    window.keys("C-c")
    return window.until(prompted)


def run_of(folder: Path, task: str) -> str:
    """The run of a task, as people name it."""
    for record in sorted((folder / "state/runs").glob("*/task.json")):
        if json.loads(record.read_bytes())["task"]["id"] == task:
            return record.parent.name[-8:]
    sys.exit(f"no run of {task}")


DOCUMENT = """\
# What a person sees

Captured in a real terminal by `scripts/console`. The agents are scripted, the terminal
and everything else are real.

## A job while it runs, in 80 columns

{live}

Each running task has a line for who does it and what was used, and one for what it is doing now
and since when. What must stay scrolls above: tasks that ended, denials. At most eight times a
second something is drawn, and nothing while nothing is new.

## The same window, made 40 columns wide while it runs

{narrow}

## The summary

{summary}

A cost that is not known is called unknown, and a sum with such a part is a lower bound. In a
window that is too narrow for the table each task is a paragraph:

{narrow_summary}

## A single task

{alone}

The same after Ctrl-C: the agent is stopped cleanly, the screen is as it was.

{stopped}

## Three failures and what depends on one

{failures}

The task `hostile` prints escape sequences that clear the screen, set the window's title and
turn text around: they are shown, not obeyed (below, and in its story).

## The story of a run

{story}

## Without a terminal

On a pipe, with `NO_COLOR`, with `TERM=dumb` or where `CI` is set there is neither colour nor
motion: a line for each event that a person wants to see on stderr, and the summary on stdout.

{piped}
"""


def block(text: str) -> str:
    return f"```text\n{text}\n```"


def main() -> None:
    with tempfile.TemporaryDirectory() as made:
        folder = Path(made)
        scene(folder)
        running, narrow, summary = captured(folder, 80, 24, live, narrower, wider)
        (story,) = captured(
            folder, 100, 50, whole(f"orchestrate runs show {run_of(folder, 'fix')}")
        )
        lone, stopped = captured(folder, 80, 24, alone, interrupted)
        (failures,) = captured(folder, 100, 50, whole(f"{RUN} failures.yaml"))
        (narrow_summary,) = captured(folder, 40, 60, whole(f"{RUN} failures.yaml 2>/dev/null"))
        (piped,) = captured(folder, 100, 50, whole(f"{RUN} failures.yaml 2>&1 | cat"))
    parts = {
        "live": running,
        "narrow": narrow,
        "summary": summary,
        "alone": lone,
        "stopped": stopped,
        "failures": failures,
        "narrow_summary": narrow_summary,
        "story": story,
        "piped": piped,
    }
    if COLOUR:
        for name, text in parts.items():
            print(f"--- {name}\n{text}")
    else:
        shown = {name: block(text) for name, text in parts.items()}
        (ROOT / "docs/console.md").write_text(DOCUMENT.format(**shown))


if __name__ == "__main__":
    main()
