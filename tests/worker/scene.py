"""A queue, its workers as processes of their own, and an agent that is a shell script."""

import os
import signal
import subprocess
from collections.abc import Callable, Generator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypedDict, Unpack

import anyio
from anyio import to_thread

from orchestrator.task import Recovery, Task
from tests import commands

ORCHESTRATE = commands.PROGRAM

AGENTS = """
[agents.shell]
adapter = "jsonl"
argv = ["/bin/sh", "-c", '''
read -r first || true
pwd >>"$HOME/places"
if [ "$1" = --resume ]; then (echo "$2"; ls) >>"$HOME/resumed"
else echo '{"type": "begun", "id": "s-1"}'; eval "$first"; fi
echo '{"type": "said", "text": "ok"}'
echo '{"type": "done"}'
''', "sh", ["--resume", "{session_id}"]]
[[agents.shell.events]]
emit = "session.started"
when = {type = "begun"}
session_id = ".id"
[[agents.shell.events]]
emit = "message"
when = {type = "said"}
text = ".text"
[[agents.shell.events]]
emit = "turn.finished"
when = {type = "done"}
stop_reason = "end_turn"
"""
"""An agent that does the first line of its prompt, then says that it is done."""


async def until(true: Callable[[], bool]) -> None:
    """Wait until something is so: what another process does is seen by looking. The test's own
    time-out is the end of it.
    """
    while not true():
        await anyio.sleep(0.05)


class Keys(TypedDict, total=False):
    """What may be said of a task."""

    id: str
    needs: tuple[str, ...]
    recovery: Recovery
    retry_safe: bool


@dataclass
class Scene:
    """A folder with a configuration, a state and a work space; what was started ends with it."""

    folder: Path
    url: str
    started: list["subprocess.Popen[bytes]"] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.work.mkdir(exist_ok=True)
        self.config.write_text(AGENTS)

    @property
    def config(self) -> Path:
        return self.folder / "orchestrate.toml"

    @property
    def work(self) -> Path:
        return self.folder / "work"

    @property
    def state(self) -> Path:
        return self.folder / "state"

    @property
    def environ(self) -> Mapping[str, str]:
        return {
            "PATH": os.environ["PATH"],
            "HOME": str(self.folder),
            "ORCHESTRATE_STATE_DIR": str(self.state),
            "ORCHESTRATE_CONFIG": str(self.config),
            "ORCHESTRATE_QUEUE_DATABASE": self.url,
        }

    def task(self, script: str, **keys: Unpack[Keys]) -> Task:
        """A task whose agent does the script, which is one line of shell."""
        return Task(
            prompt=f"{script}\n",
            agent="shell",
            kind="search",
            access="edit",
            workspace=self.work,
            isolation="none",
            **keys,
        )

    def run(self, *words: str) -> "subprocess.CompletedProcess[str]":
        return commands.run(
            *words, env=self.environ, cwd=self.folder, imports=commands.WORKER, timeout=100
        )

    def said(self, *words: str) -> str:
        done = self.run(*words)
        assert done.returncode == 0, done.stderr
        return done.stdout.strip()

    async def ask(self, *words: str) -> str:
        """As `said`, while something in this process goes on, such as a server that it asks."""
        return await to_thread.run_sync(self.said, *words)

    async def worker(self, *flags: str) -> "subprocess.Popen[bytes]":
        """A worker that is ready for jobs."""
        log = self.folder / f"worker-{len(self.started)}.log"
        with log.open("wb") as out:
            process = commands.Command[bytes](
                ["worker", *flags],
                imports=commands.WORKER,
                env=self.environ,
                cwd=self.folder,
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=out,
            )
        self.started.append(process)
        await until(lambda: b"takes jobs" in log.read_bytes() or process.poll() is not None)
        assert process.poll() is None, log.read_text()
        return process

    def alive(self, mark: str) -> bool:
        """Whether a process lives that has this among its words."""
        for entry in Path("/proc").iterdir():
            if entry.name.isdigit():
                try:
                    if mark.encode() in (entry / "cmdline").read_bytes():
                        return True
                except OSError:
                    continue
        return False


@contextmanager
def scene(folder: Path, url: str | None = None) -> Generator[Scene]:
    made = Scene(folder, url or f"sqlite:///{folder}/state/queue/queue.sqlite")
    try:
        yield made
    finally:
        for process in made.started:
            if process.poll() is None:
                process.send_signal(signal.SIGCONT)
                process.kill()
            process.wait()
