"""examples/embedding/tasks.py in a real Celery worker, with a queue of files: solo and prefork."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.embedding.hosts import (
    DONE,
    EXAMPLES,
    HANG,
    LONG_S,
    WITH_A_CHILD,
    Tree,
    children_of,
    environment,
    events_of,
    host,
    lines_of,
    prompt,
    run_folders,
    said,
    say,
)

WORKS_ON = prompt(WITH_A_CHILD, say("awake"), {"ignore": ["SIGTERM"]}, HANG)

LIMIT_S = 4

pytestmark = pytest.mark.timeout(120)

SUBMIT = """
import json, sys, tasks
folder, options, waits, *prompts = sys.argv[1:]
sent = [
    tasks.agent.apply_async((each, folder, "search"), **json.loads(options)) for each in prompts
]
for each in sent if waits == "wait" else ():
    found = each.get(propagate=False)
    print(json.dumps(found if isinstance(found, dict) else type(found).__name__))
"""


@dataclass
class Worker:
    process: subprocess.Popen[str]
    folder: Path
    env: dict[str, str]

    def submit(self, *prompts: str, wait: bool = False, **options: float) -> list[Any]:
        """Have the agent asked, and wait for what came of it if that is wanted."""
        words = [str(self.folder / "work"), json.dumps(options), "wait" if wait else "go"]
        argv = [sys.executable, "-c", SUBMIT, *words, *prompts]
        done = subprocess.run(
            argv, cwd=EXAMPLES, env=self.env, capture_output=True, text=True, timeout=LONG_S
        )
        assert done.returncode == 0, done.stderr
        return [json.loads(line) for line in done.stdout.splitlines()]

    def tree(self, number: int) -> Tree:
        """The processes of the agent of that run, once it has said that it is awake."""
        pid = 0
        for line in lines_of(self._journal(number), self.process):
            event = json.loads(line)
            pid = event.get("pid", pid)
            if event.get("text") == "awake":
                break
        tree = Tree(pid)
        assert len(tree.pids) == 2
        return tree

    def _journal(self, number: int) -> Path:
        while True:
            found = [run / "events.jsonl" for run in run_folders(self.folder)]
            if len(found) >= number and found[number - 1].exists():
                return found[number - 1]
            assert self.process.poll() is None, self.log()
            time.sleep(0.02)

    def log(self) -> str:
        return (self.folder / "log").read_text()


@contextmanager
def working(folder: Path, *options: str) -> Generator[Worker]:
    (folder / "work").mkdir()
    (folder / "work/file.txt").write_text("one\n")
    env = environment(folder) | {"AGENTS_QUEUE": str(folder / "queue")}
    env["PYTHONPATH"] += f":{EXAMPLES}"
    argv = ["-m", "celery", "--app", "tasks", "worker", "--loglevel", "INFO", "--concurrency", "1"]
    argv += ["--without-mingle", "--without-gossip", "--without-heartbeat", *options]
    log = folder / "log"
    with host(argv, env=env, cwd=folder, log=log) as process:
        said(log, process, " ready.")
        yield Worker(process, folder, env)


@pytest.mark.parametrize("pool", ["solo", "prefork"])
def test_a_worker_runs_agents_and_when_it_stops_at_once_takes_them_along(
    pool: str, tmp_path: Path
) -> None:
    with working(tmp_path, "--pool", pool) as worker:
        well, badly = worker.submit(prompt(say("hello"), DONE), prompt(say("no end")), wait=True)
        assert (well["status"], well["text"]) == ("succeeded", "hello")
        assert [well["run"], badly["run"]] == [run.name for run in run_folders(tmp_path)]
        assert badly["status"] == "failed"
        assert "Traceback" not in worker.log()
        worker.submit(WORKS_ON)
        tree = worker.tree(3)
        worker.process.send_signal(signal.SIGQUIT)  # Celery's "cold" shutdown
        tree.wait_gone()
        # With prefork the master may then wait for ever, as in celery/billiard#104: it ends a child
        # that is saying goodbye and has the lock of the results. The child blocks that signal, in
        # one of its threads only. That its own children come to their end is Celery's to prove.
        if pool == "solo":
            worker.process.wait(LONG_S)


def test_a_child_of_prefork_that_is_killed_takes_its_agents_along(tmp_path: Path) -> None:
    with working(tmp_path, "--pool", "prefork") as worker:
        worker.submit(WORKS_ON)
        tree = worker.tree(1)
        child, *_ = children_of(worker.process.pid)
        os.kill(child, signal.SIGKILL)
        tree.wait_gone()
        (late,) = worker.submit(WORKS_ON, wait=True, time_limit=LIMIT_S)
        (well,) = worker.submit(prompt(say("hello"), DONE), wait=True)
        assert late == "TimeLimitExceeded"
        assert well["status"] == "succeeded"
        pids = [pid for run in run_folders(tmp_path) for pid in pids_of(run)]
        assert not any(Path(f"/proc/{pid}").exists() for pid in pids)


def pids_of(run: Path) -> list[int]:
    return [
        int(str(event["pid"])) for event in events_of(run) if event["type"] == "process.spawned"
    ]
