"""Followers of a run that goes on by itself: from any event on, each at its own pace."""

import shutil
from pathlib import Path

import anyio
import pytest

from orchestrator.errors import JournalError
from orchestrator.events import Event
from orchestrator.supervisor import EventStream, Supervisor
from orchestrator.task import Task, TaskFile
from tests.scripted_adapter import DONE, say, scripted_config

pytestmark = pytest.mark.anyio


@pytest.fixture
def work(tmp_path: Path) -> Path:
    (tmp_path / "work").mkdir()
    return tmp_path / "work"


@pytest.fixture
def state(tmp_path: Path) -> Path:
    return tmp_path / "state"


async def fed(log: EventStream, supervisor: Supervisor, task: Task | TaskFile) -> None:
    try:
        log.outcome = await supervisor.run(task, log.told)
    finally:
        log.end()


async def test_two_followers_and_a_late_one_get_every_event_once(work: Path, state: Path) -> None:
    log, every, from_five = EventStream(state), list[tuple[int, Event]](), list[tuple[int, Event]]()

    async def follow(into: list[tuple[int, Event]], read: int) -> None:
        into.extend([each async for each in log.after(read)])

    file = TaskFile(
        tasks=tuple(Task(id=f"t{n}", prompt="p", workspace=work, kind="search") for n in range(3))
    )
    steps = say("a"), {"sleep": 0.05}, say("b"), DONE
    async with (
        Supervisor(scripted_config(state, *steps)) as supervisor,
        anyio.create_task_group() as group,
    ):
        group.start_soon(follow, every, 0)
        group.start_soon(follow, from_five, 5)
        group.start_soon(fed, log, supervisor, file)
    late = [each async for each in log.after(0)]
    assert [number for number, _ in every] == list(range(1, log.count + 1))
    assert late == every
    assert from_five == every[5:]
    assert [event async for event in log] == [event for _, event in every]
    assert [each async for each in log.after(log.count)] == []
    assert log.outcome is not None
    # Somebody may come back with any number, also with one in the middle of another run.
    for read in range(log.count):
        async for number, event in log.after(read):
            assert (number, event) == every[read]
            break


async def test_a_follower_of_records_that_were_removed_is_told(work: Path, state: Path) -> None:
    log = EventStream(state)
    async with Supervisor(scripted_config(state, say("a"), DONE)) as supervisor:
        await fed(log, supervisor, Task(prompt="p", workspace=work))
    shutil.rmtree(state / "runs")
    with pytest.raises(JournalError, match=r"events\.jsonl"):
        _ = [event async for event in log]
