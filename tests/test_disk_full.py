"""A full disk ends a run cleanly: no corrupt line, the last words on record, the cause named."""

import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from orchestrator.adapter import Agent, Command
from orchestrator.errors import DiskFullError
from orchestrator.events import Event, JournalFull, Limit, RunFinished
from orchestrator.journal import (
    EVENTS,
    OUTCOME,
    RESERVE,
    STDOUT,
    Journal,
    list_runs,
    make_folder,
    read_events,
    read_lines,
    read_outcome,
)
from orchestrator.run import limits
from orchestrator.supervisor import Supervisor
from orchestrator.task import Limits, Task
from tests.scripted_adapter import DONE, Scripted, scripted_config
from tests.test_cli import call, configured, environment

KIB = 1024


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    place = tmp_path / "disk"
    place.mkdir()
    argv = ["mount", "-t", "tmpfs", "-o", "size=384k", "tmpfs", str(place)]
    done = subprocess.run(argv, capture_output=True, text=True)
    if done.returncode != 0:
        pytest.skip(f"needs the right to mount: {done.stderr.strip()}")
    try:
        yield place
    finally:
        subprocess.run(["umount", "--lazy", str(place)], check=True)


FLOOD = """
import json, time
for _ in range(400):
    print(json.dumps({"type": "message", "text": "x" * 900}), flush=True)
    time.sleep(0.002)
"""


class Flooding(Scripted):
    def command(self, task: Task, agent: Agent) -> Command:
        return Command(argv=(sys.executable, "-c", FLOOD), cwd=str(task.workspace))


@pytest.fixture
def any_room(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the disk fill up, where otherwise too little free room ends a run before."""
    monkeypatch.setattr("orchestrator.journal.disk.FREE", 1)


def free(disk: Path) -> int:
    import os

    stat = os.statvfs(disk)
    return stat.f_bavail * stat.f_frsize


@pytest.mark.anyio
@pytest.mark.parametrize("room", [136, 152, 184, 200, 264])
async def test_a_run_on_a_disk_that_fills_up_ends_with_its_last_words(
    tmp_path, disk, any_room, room
):
    work = tmp_path / "work"
    work.mkdir()
    (disk / "filler").write_bytes(b"x" * (free(disk) - room * KIB))
    config = scripted_config(disk, adapter=Flooding())
    events: list[Event] = []
    async with Supervisor(config) as supervisor:
        outcome = await supervisor.run(Task(prompt="p", workspace=work), events.append)
    assert outcome.status == "failed"
    assert outcome.error is not None
    assert outcome.error.kind == "disk_full"
    assert "ORCHESTRATE_STATE_DIR" in (outcome.error.hint or "")
    (folder,) = list_runs(disk / "runs")
    kept = list(read_events(folder))
    assert kept == [event for event in events if event.run_id is not None]
    assert (folder / EVENTS).read_bytes().endswith(b"\n")
    assert [event.seq for event in kept] == list(range(1, len(kept) + 1))
    told = [event for event in kept if isinstance(event.update, JournalFull | Limit)]
    assert told  # whichever came first: no room for the journal, or none at all
    assert isinstance(kept[-1].update, RunFinished)
    assert read_outcome(folder) == outcome
    stdout = (folder / STDOUT).read_bytes() if (folder / STDOUT).exists() else b""
    for event in kept:
        if event.raw is not None and event.raw.stream == STDOUT:
            assert b"xxx" in stdout[event.raw.offset :][: event.raw.length]


@pytest.mark.anyio
async def test_how_its_agent_ended_is_known_though_there_is_no_room_for_what_it_said(
    tmp_path, disk, any_room
):
    (disk / "filler").write_bytes(b"x" * (free(disk) - 300 * KIB))
    said = {"print": '{"type": "message", "text": "a"}', "times": 3000}
    config = scripted_config(disk, said, {"hang": True})
    async with Supervisor(config) as supervisor:
        outcome = await supervisor.run(Task(prompt="p", workspace=tmp_path, kind="search"))
    assert outcome.error is not None
    assert outcome.error.kind == "disk_full"
    # By the disk, which was full for it as well, or by us.
    ends = {"exit: 120", "exit: SIGTERM", "exit: SIGKILL"}
    assert ends.intersection(outcome.evidence)


@pytest.mark.anyio
@pytest.mark.parametrize("room", [0, 4, 64, 80])
async def test_a_run_that_there_is_no_room_for_does_not_begin(tmp_path, disk, any_room, room):
    (disk / "filler").write_bytes(b"x" * max(0, free(disk) - room * KIB))
    async with Supervisor(scripted_config(disk, DONE)) as supervisor:
        with pytest.raises(DiskFullError, match="No space left on device"):
            await supervisor.run(Task(prompt="p", workspace=tmp_path))
    assert list_runs(disk / "runs") == []


@pytest.mark.anyio
async def test_too_little_free_room_ends_a_run_before_the_disk_is_full(tmp_path, monkeypatch):
    monkeypatch.setattr(limits, "scarce", lambda _: 4711)
    events: list[Event] = []
    config = scripted_config(tmp_path / "state", {"sleep": 30}, DONE)
    async with Supervisor(config) as supervisor:
        outcome = await supervisor.run(Task(prompt="p", workspace=tmp_path), events.append)
    assert outcome.error is not None
    assert (outcome.status, outcome.error.kind) == ("failed", "disk_full")
    assert "only 4711 bytes are free" in outcome.error.text
    assert "limit" in [event.type for event in events]


def use_up(written: Journal) -> None:
    """Bit by bit, so that no room is left by chance. Raises DiskFullError."""
    while True:
        written.append(b"{}" * 500 + b"\n")


def test_an_outcome_without_room_stands_in_the_journal(disk, any_room):
    folder = make_folder(disk / "runs", "one")
    with Journal(folder) as written:
        (disk / "filler").write_bytes(b"x" * (free(disk) - 4 * KIB))
        with pytest.raises(DiskFullError):
            use_up(written)
        whole = list(read_lines(folder))
        last = b"{}" * 8 * KIB
        written.append_last(last + b"\n")
        assert list(read_lines(folder)) == [*whole, last]
    assert not (folder / OUTCOME).exists()


def test_what_a_journal_reserved_it_gives_back(disk):
    folder = make_folder(disk / "runs", "one")
    before = free(disk)
    with Journal(folder) as written:
        written.append(b"{}\n")
        assert before - free(disk) >= RESERVE
        assert (folder / EVENTS).stat().st_size == 3
    assert before - free(disk) <= 4 * KIB


@pytest.mark.anyio
async def test_more_output_than_the_limit_ends_the_run(tmp_path):
    work = tmp_path / "work"
    work.mkdir()
    task = Task(prompt="p", workspace=work, limits=Limits(output_bytes=20_000))
    events: list[Event] = []
    async with Supervisor(scripted_config(tmp_path, adapter=Flooding())) as supervisor:
        outcome = await supervisor.run(task, events.append)
    assert outcome.error is not None
    assert outcome.error.text == "more than 20000 bytes of output"
    (limit,) = [event.update for event in events if isinstance(event.update, Limit)]
    assert limit.limit == "output"
    (folder,) = list_runs(tmp_path / "runs")
    assert 20_000 < (folder / STDOUT).stat().st_size < 300_000
    assert list(read_events(folder))[-1].type == "run.finished"


def test_on_the_command_line_a_full_disk_has_the_status_of_our_failures(tmp_path, disk):
    place = tmp_path / "work"
    place.mkdir()
    flood = [{"print": '{"type": "text", "text": "' + "x" * 900 + '"}'}] * 400
    where = {**environment(place), "ORCHESTRATE_STATE_DIR": str(disk)}
    config = configured(place, *flood, {"print": '{"type": "end"}'})
    flags = ("--prompt", "p", "--kind", "search", "--agent", "scripted", "--config", config)

    def run() -> "subprocess.CompletedProcess[str]":
        return call(place, "run", *flags, "--workspace", str(place), env=where)

    (disk / "filler").write_bytes(b"x" * (free(disk) - 200 * KIB))
    filled = run()
    assert filled.returncode == 3, filled.stderr
    assert "No space left on device" in filled.stdout
    assert "ORCHESTRATE_STATE_DIR" in filled.stdout
    (disk / "more").write_bytes(b"x" * free(disk))
    refused = run()
    assert refused.returncode == 3
    assert "No space left on device" in refused.stderr


def test_a_configuration_on_a_full_disk_stays_as_it_was(tmp_path, disk):
    mine = disk / "orchestrate.toml"
    mine.write_text("# mine\n")
    (disk / "empty").mkdir()
    fill = disk / "fill"
    with suppress(OSError), fill.open("wb", buffering=0) as file:
        while file.write(bytes(KIB)):
            pass
    environ = {"ORCHESTRATE_CONFIG": str(mine), "ORCHESTRATE_STATE_DIR": str(tmp_path / "state")}
    for folder, argv in ((tmp_path, ("agents", "use", "codex")), (disk / "empty", ("init",))):
        done = call(folder, *argv, env=environ)
        assert done.returncode == 3, done.stderr
        assert "orchestrate.toml: No space left on device" in done.stderr
    assert mine.read_text() == "# mine\n"
    assert sorted(path.name for path in disk.rglob("*")) == ["empty", "fill", "orchestrate.toml"]
