"""What the tests of embedding share: an agent that does what its prompt says, and hosts of it."""

import json
import os
import select
import signal
import subprocess
import sys
from collections.abc import Generator, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from orchestrator.testing import agent as scripted_agent

ROOT = Path(__file__).parent.parent.parent
EXAMPLES = ROOT / "examples/embedding"
LONG_S = 60

Step = Mapping[str, object]

RULES = """
[[agents.scripted.events]]
when = { type = "text" }
emit = "message"
text = ".text"

[[agents.scripted.events]]
when = { type = "done" }
emit = "turn.finished"
stop_reason = "end_turn"
"""


def say(text: str) -> Step:
    return {"print": json.dumps({"type": "text", "text": text})}


DONE: Step = {"print": json.dumps({"type": "done"})}
HANG: Step = {"hang": True}
WITH_A_CHILD: Step = {"spawn": [{"ignore": ["SIGTERM", "SIGINT"]}, HANG], "setsid": True}


def prompt(*steps: Step) -> str:
    """What the agent is asked for is what it does."""
    return json.dumps(steps)


def write_config(folder: Path) -> Path:
    """A configuration with the scripted agent, whose script is its prompt."""
    argv = json.dumps([sys.executable, "-I", "-S", scripted_agent.__file__, "{prompt}"])
    path = folder / "orchestrate.toml"
    path.write_text(
        f'[agents.scripted]\nadapter = "jsonl"\ntier = "local"\nargv = {argv}\n'
        f'interrupt = "SIGINT"\n{RULES}'
    )
    return path


def environment(folder: Path) -> dict[str, str]:
    """That of a host: its configuration and its state are in the folder."""
    return {
        "PATH": os.environ["PATH"],
        "HOME": str(folder),
        "ORCHESTRATE_CONFIG": str(write_config(folder)),
        "ORCHESTRATE_STATE_DIR": str(folder / "state"),
        "PYTHONPATH": str(ROOT),
        "PYTHONUNBUFFERED": "1",
    }


@contextmanager
def host(
    argv: Sequence[str], *, env: Mapping[str, str], cwd: Path, log: Path
) -> Generator[subprocess.Popen[str]]:
    """A process that embeds the supervisor; what it says is in `log`. Killed at the end."""
    with (
        log.open("w") as file,
        subprocess.Popen(
            [sys.executable, *argv],
            env=dict(env),
            cwd=cwd,
            stdin=subprocess.DEVNULL,
            stdout=file,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        ) as process,
    ):
        try:
            yield process
        finally:
            if process.poll() is None:
                process.kill()


def lines_of(log: Path, process: subprocess.Popen[str]) -> Iterator[str]:
    """What a host says, as it says it; ends with the host. The test's time-out bounds it."""
    ended = os.pidfd_open(process.pid)
    try:
        with log.open() as file:
            torn, over = "", False
            while True:
                torn += file.readline()
                if torn.endswith("\n"):
                    yield torn
                    torn = ""
                elif over:
                    return
                else:
                    over = bool(select.select([ended], [], [], 0.02)[0])
    finally:
        os.close(ended)


def said(log: Path, process: subprocess.Popen[str], words: str) -> str:
    """The first line with the words."""
    for line in lines_of(log, process):
        if words in line:
            return line
    raise AssertionError(f"the host never said {words!r}:\n{log.read_text()}")


class Tree:
    """The processes of an agent, held so that nobody is mistaken for another."""

    def __init__(self, pid: int) -> None:
        self.pids = [pid, *children_of(pid)]
        self._handles = [os.pidfd_open(each) for each in self.pids]

    @property
    def alive(self) -> bool:
        return len(select.select(self._handles, [], [], 0)[0]) < len(self._handles)

    def wait_gone(self) -> None:
        """Until none is left."""
        for handle in self._handles:
            assert select.select([handle], [], [], LONG_S)[0], "a process of the agent is alive"
            os.close(handle)


def children_of(pid: int) -> list[int]:
    words = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return [each for word in words for each in (int(word), *children_of(int(word)))]


def run_folders(folder: Path) -> list[Path]:
    return sorted((folder / "state" / "runs").glob("*"))


def events_of(run: Path) -> list[dict[str, object]]:
    text = (run / "events.jsonl").read_text()
    return [json.loads(line) for line in text.splitlines()]


def terminate(process: subprocess.Popen[str], number: int = signal.SIGTERM) -> int:
    """Signal a host and wait for its end; its exit status."""
    process.send_signal(number)
    return process.wait(LONG_S)
