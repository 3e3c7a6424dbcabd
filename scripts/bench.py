"""Measures what the issues put bars on: scripts/bench NAME... (without a name: all).

A ratio is the median of the ratios of interleaved pairs, so that a slow moment of the machine hits
both sides. Exits with 1 if a bar is missed.
"""

import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

PYTHON = sys.executable
ORCHESTRATE = str(Path(PYTHON).with_name("orchestrate"))
PAIRS = 7


# An agent that costs nothing: it reads its prompt, may say much, and says that it is done.
TRIVIAL = """
[agents.trivial]
adapter = "jsonl"
argv = ["/bin/sh", "-c", 'cat >/dev/null; sleep $0; yes "$2" | head -n $1; echo "$3"', SAYS]
[[agents.trivial.events]]
emit = "message"
when = {type = {exists = true}}
text = "type"
[[agents.trivial.events]]
emit = "turn.finished"
when = {type = "done"}
stop_reason = "end_turn"
"""
NOTE = json.dumps({"type": "note", "text": "x" * 970})  # a line of 1,000 bytes
DONE = json.dumps({"type": "done"})
CORE = "import anyio, h11, orjson, platformdirs, pydantic, structlog, typer, yaml"


def start(argv: Sequence[str], env: Mapping[str, str] | None = None) -> "subprocess.Popen[bytes]":
    return subprocess.Popen(
        argv,
        env={**os.environ, **(env or {})},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
    )


def end(process: "subprocess.Popen[bytes]") -> None:
    _, said = process.communicate()
    if process.returncode != 0:
        sys.exit(f"exit status {process.returncode} of {process.args!r}\n{said.decode()}")


def seconds(argv: Sequence[str], env: Mapping[str, str] | None = None) -> float:
    began = time.perf_counter()
    end(start(argv, env))
    return time.perf_counter() - began


def compare(
    name: str,
    ours: Sequence[str],
    other: Sequence[str],
    *,
    at_most: float,
    env: Mapping[str, str] | None = None,
) -> bool:
    """Prints both medians and the ratio; true if the ratio is within the bar."""
    for argv in (ours, other):
        seconds(argv, env)  # bytecode and page cache: the first run is another thing
    pairs = [(seconds(ours, env), seconds(other, env)) for _ in range(PAIRS)]
    ratio = statistics.median(a / b for a, b in pairs)
    a, b = (statistics.median(side) * 1000 for side in zip(*pairs, strict=True))
    return told(f"{name}: {a:.0f} ms against {b:.0f} ms, ratio {ratio:.2f}", ratio, at_most)


def told(text: str, value: float, at_most: float) -> bool:
    kept = value <= at_most
    print(f"{text} (bar {at_most:g})" + ("" if kept else "  MISSED"), flush=True)
    return kept


def startup() -> bool:
    with tempfile.TemporaryDirectory() as folder:
        quick, env = trivial_run(Path(folder), sleep="0")
        return all(
            [
                compare(
                    "orchestrate --help / import typer",
                    [ORCHESTRATE, "--help"],
                    [PYTHON, "-c", "import typer"],
                    at_most=3.0,
                ),
                compare(
                    "orchestrate run, trivial agent / import of the core's dependencies",
                    quick,
                    [PYTHON, "-c", CORE],
                    at_most=2.5,
                    env=env,
                ),
                doctor(Path(folder)),
            ]
        )


def doctor(folder: Path) -> bool:
    """With no key, no server and nothing kept from an earlier time, whatever is installed."""

    def command(number: int) -> list[str]:
        (home := folder / f"home-{number}").mkdir()
        bare = [f"PATH={os.environ['PATH']}", f"HOME={home}"]
        return ["/usr/bin/env", "-i", *bare, ORCHESTRATE, "doctor"]

    last = subprocess.check_output(command(0), text=True).rstrip().split("\n\n")[-1].splitlines()
    ends = [line.partition(":")[0] for line in last] == WAYS
    if not ends:
        print(f"orchestrate doctor ends otherwise: {last}  MISSED")
    took = statistics.median(seconds(command(number)) for number in range(1, PAIRS + 1))
    text = f"orchestrate doctor, nothing there, ends with three ways: {took:.2f} s"
    return told(text, took, 2.0) and ends


WAYS = ["No agent works yet. The shortest ways to one", "1. at home", "2. by key", "3. by login"]


def memory() -> bool:
    """The supervisor's own high-water mark: while its agent sleeps, and after two streams."""
    idle, short, long = (peak_mb(sleep="2"), peak_mb(says_mb=16), peak_mb(says_mb=1000))
    text = f"1 GB that an agent says, above 16 MB of it: {short:.1f} and {long:.1f} MB"
    return all(
        [
            told(f"supervisor RSS while an agent runs: {idle:.1f} MB", idle, 60),
            told(text, long - short, 4),
        ]
    )


def peak_mb(*, sleep: str = "0", says_mb: int = 0) -> float:
    """Peak resident size of `orchestrate run`, in MB, while its agent says this much and sleeps."""
    with tempfile.TemporaryDirectory() as folder:
        argv, env = trivial_run(Path(folder), sleep=sleep, says_mb=says_mb)
        process = start(argv, env)
        peak = 0
        while process.poll() is None:
            peak = max(peak, high_water(process.pid))
            time.sleep(0.05)
        end(process)
    return peak / 1024


def high_water(pid: int) -> int:
    """Peak resident size in KiB; 0 if the process is gone."""
    try:
        status = Path(f"/proc/{pid}/status").read_text()
    except ProcessLookupError:
        return 0
    return next((int(line.split()[1]) for line in status.splitlines() if "VmHWM" in line), 0)


def trivial_run(folder: Path, *, sleep: str, says_mb: int = 0) -> tuple[list[str], dict[str, str]]:
    """The command of a run with the trivial agent in an empty folder, and its environment."""
    config = folder / "config.toml"
    says = [sleep, str(says_mb * 1000), NOTE, DONE]
    config.write_text(TRIVIAL.replace("SAYS", json.dumps(says)[1:-1]))
    workspace = folder / "workspace"
    workspace.mkdir()
    asked = ["--prompt", "say done", "--kind", "search", "--agent", "trivial"]
    where = ["--config", str(config), "--workspace", str(workspace), "--output", "quiet"]
    return [ORCHESTRATE, "run", *asked, *where], {"XDG_STATE_HOME": str(folder / "state")}


def aider() -> bool:
    """A task with one edit: aider behind our front against aider alone, on a scripted model."""
    from adapters.aider import front

    program = Path(PYTHON).parent.parent / "agents/aider/bin/aider"
    if not program.exists():
        sys.exit("aider is not installed: scripts/setup aider")
    edit = "hello.py\n```\nprint('hello')\n```\n"
    script = {"turns": [{"text": edit, "repeat": "forever"}]}
    flags = ["--model", "openai/scripted", "--no-auto-commits", "--message", "Fix it.", "hello.py"]
    # What it would do besides the task: ask, and look things up in the network.
    quiet = ["--yes-always", "--no-gitignore", "--no-check-update", "--analytics-disable"]
    quiet += ["--no-show-model-warnings", "--no-show-release-notes", "--no-pretty"]
    with tempfile.TemporaryDirectory() as folder:
        work, file = Path(folder, "work"), Path(folder, "script.json")
        file.write_text(json.dumps(script))
        work.mkdir()
        serve = [PYTHON, "-m", "orchestrator.testing", "serve", str(file)]
        with subprocess.Popen([*serve, "--until-stdin-closes"], stdin=-1, stdout=-1) as server:
            if server.stdin is None or server.stdout is None:
                sys.exit("no pipe")
            base_url = json.loads(server.stdout.readline())["base_url"]
            env = {"HOME": folder, "OPENAI_API_BASE": f"{base_url}/v1", "OPENAI_API_KEY": "none"}
            kept = compare(
                "one edit: aider behind our front / aider alone",
                ["/bin/sh", "-c", ONE_EDIT, str(work), *front(str(program), flags)],
                ["/bin/sh", "-c", ONE_EDIT, str(work), str(program), *quiet, *flags],
                at_most=1.0,
                env=env,
            )
            server.stdin.close()
    return kept


ONE_EDIT = (
    """cd "$0" && echo "print('helo')" >hello.py && "$@" && test "$(python3 hello.py)" = hello"""
)

BENCHES: dict[str, Callable[[], bool]] = {"startup": startup, "memory": memory, "aider": aider}


def main(names: Sequence[str]) -> int:
    unknown = [name for name in names if name not in BENCHES]
    if unknown:
        print(f"no bench {unknown[0]!r} (known: {', '.join(BENCHES)})", file=sys.stderr)
        return 2
    print(f"{PAIRS} interleaved pairs each, {os.cpu_count()} cores")
    results = [BENCHES[name]() for name in names or BENCHES]
    return 0 if all(results) else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
