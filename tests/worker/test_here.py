"""`runs follow`, `wait`, `cancel` and `retry` of jobs that are run here, beside those submitted."""

import json
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from orchestrator.config import load_config
from orchestrator.events import wire
from orchestrator.worker import records
from tests.commands import WORKER, Command
from tests.worker.scene import Scene, scene, until

pytestmark = [pytest.mark.anyio, pytest.mark.timeout(100)]

TASK = """\
agent: shell
kind: search
workspace: work
prompt: |
  SCRIPT
"""


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Scene]:
    with scene(tmp_path) as made:
        yield made


def begun(place: Scene, out: Path, *words: str) -> "subprocess.Popen[bytes]":
    """A command that goes on; what it prints is in the file."""
    with out.open("wb") as file:
        process = Command[bytes](
            words,
            imports=WORKER,
            env=place.environ,
            cwd=place.folder,
            stdin=subprocess.DEVNULL,
            stdout=file,
            stderr=file.fileno() if out.suffix == ".all" else subprocess.DEVNULL,
        )
    place.started.append(process)
    return process


async def test_a_job_that_runs_here_is_followed_waited_for_and_done_again(place: Scene) -> None:
    free, ran = place.work / "free", place.work / "ran"
    waited, followed = place.folder / "waited", place.folder / "followed"
    script = f"echo ran >>{ran}; while ! test -e {free}; do sleep 0.1; done"
    (place.folder / "task.yaml").write_text(TASK.replace("SCRIPT", script))
    running = begun(place, place.folder / "run", "run", "task.yaml", "--output", "quiet")
    await until(ran.exists)
    waits = begun(place, waited, "runs", "wait", "last", "--output", "json")
    follows = begun(place, followed, "runs", "follow", "last", "--output", "jsonl")
    early = place.run("runs", "retry", "last")
    assert early.returncode == 2
    assert "is not over" in early.stderr
    free.touch()
    assert running.wait() == waits.wait() == follows.wait() == 0
    assert json.loads(waited.read_text())["status"] == "succeeded"
    events = [json.loads(line) for line in followed.read_text().splitlines()]
    assert events[-1]["type"] == "job.finished"
    [first] = (place.state / "jobs").iterdir()
    assert {event["job_id"] for event in events} == {first.name}
    again = json.loads(place.said("runs", "retry", "last", "--output", "json"))
    assert again["status"] == "succeeded"
    assert ran.read_text() == "ran\nran\n"
    assert len(list((place.state / "jobs").iterdir())) == 2


async def test_a_job_that_runs_here_is_cancelled_from_elsewhere(place: Scene) -> None:
    mark = "620.25"
    (place.folder / "task.yaml").write_text(TASK.replace("SCRIPT", f"sleep {mark} & sleep {mark}"))
    running = begun(place, place.folder / "run", "run", "task.yaml")
    await until(lambda: place.alive(mark))
    job = place.said("runs", "cancel", "last")
    ended = running.wait()
    assert ended == 1
    assert not place.alive(mark)
    told = place.run("runs", "wait", job)
    assert (told.returncode, told.stdout) == (ended, "cancelled\n")
    late = place.run("runs", "cancel", job)
    assert (late.returncode, late.stderr) == (2, f"orchestrate: job {job} is over\n")


async def test_who_follows_a_job_may_go_and_one_that_was_cut_off_says_so(place: Scene) -> None:
    mark = "621.25"
    (place.folder / "task.yaml").write_text(TASK.replace("SCRIPT", f"sleep {mark}"))
    running = begun(place, place.folder / "run", "run", "task.yaml")
    await until(lambda: place.alive(mark))
    out = place.folder / "follow.all"
    follows = begun(place, out, "runs", "follow", "last", "--output", "jsonl")
    await until(lambda: b"session.started" in out.read_bytes())
    follows.send_signal(signal.SIGINT)
    assert follows.wait() == 130
    assert "Traceback" not in out.read_text()
    assert place.alive(mark)
    running.kill()
    running.wait()
    told = place.run("runs", "wait", "last")
    assert told.returncode == 2
    assert "runs recover" in told.stderr
    await until(lambda: not place.alive(mark))


def test_what_a_takeover_needs_is_loaded_before_it(place: Scene) -> None:
    wire._reader.cache_clear()
    records.prepared(load_config(place.config, environ=place.environ, folder=place.folder))
    assert wire._reader.cache_info().currsize == 1
