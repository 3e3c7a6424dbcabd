"""Jobs of several tasks with real processes: their order, their skips, their record, their end."""

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import anyio
import pytest

from orchestrator.errors import InputError
from orchestrator.events import (
    Event,
    JobFinished,
    JobOutcome,
    Message,
    ProcessSpawned,
    TaskFinished,
    TaskStarted,
)
from orchestrator.journal import list_runs, read_events, read_outcome, read_record
from orchestrator.supervisor import Supervisor
from orchestrator.task import Limits, Task, TaskFile
from orchestrator.template import TRUNCATED, VALUE_LIMIT
from tests.scripted_adapter import DONE, PerTask, Step, say, scripted_config

pytestmark = pytest.mark.anyio

FAIL: Step = {"exit": 3}


@pytest.fixture
def state(tmp_path: Path) -> Path:
    return tmp_path / "state"


@pytest.fixture
def work(tmp_path: Path) -> Path:
    folder = tmp_path / "work"
    folder.mkdir()
    return folder


def supervisor(state: Path, steps: Mapping[str, list[Step]] | None = None) -> Supervisor:
    return Supervisor(scripted_config(state, adapter=PerTask(steps=steps or {})))


def tasks(work: Path, **needs: tuple[str, ...]) -> tuple[Task, ...]:
    """A graph, each task only reading, so that they may be side by side."""
    return tuple(
        Task(id=id_, needs=wanted, prompt="p", workspace=work, access="read")
        for id_, wanted in needs.items()
    )


def kinds(events: list[Event], task_id: str | None) -> list[str]:
    return [event.type for event in events if event.task_id == task_id]


async def test_a_task_begins_when_all_that_it_needs_succeeded(work: Path, state: Path) -> None:
    graph = TaskFile(tasks=tasks(work, d=("b", "c"), b=("a",), c=("a",), a=()))
    events: list[Event] = []
    async with supervisor(state) as running:
        outcome = await running.run(graph, events.append)
    assert isinstance(outcome, JobOutcome)
    outcome.check()
    assert list(outcome.tasks) == ["d", "b", "c", "a"]
    assert {id_: one.text for id_, one in outcome.tasks.items()} == {
        id_: f"did {id_}" for id_ in "dbca"
    }
    told = [
        (event.type, event.task_id)
        for event in events
        if isinstance(event.update, TaskStarted | TaskFinished | JobFinished)
    ]
    for task in graph.tasks:
        for need in task.needs:
            finished, started = ("task.finished", need), ("task.started", task.id)
            assert told.index(finished) < told.index(started)
    assert told[-1] == ("job.finished", None)


async def test_what_needs_a_failed_task_is_skipped_with_the_cause_and_the_rest_goes_on(
    work: Path, state: Path
) -> None:
    graph = TaskFile(tasks=tasks(work, a=(), b=("a",), c=("b",), alone=()))
    events: list[Event] = []
    async with supervisor(state, {"a": [FAIL]}) as running:
        outcome = await running.run(graph, events.append)
    assert isinstance(outcome, JobOutcome)
    found = {id_: one.status for id_, one in outcome.tasks.items()}
    assert found == {"a": "failed", "b": "skipped", "c": "skipped", "alone": "succeeded"}
    assert outcome.status == "failed"
    texts = {id_: one.error.text for id_, one in outcome.tasks.items() if one.error}
    assert texts["b"] == "it needs 'a', which did not succeed (failed)"
    assert texts["c"] == f"it needs 'b', which was skipped: {texts['b']}"
    assert kinds(events, "c") == ["task.finished"]
    assert len(list_runs(state / "runs")) == 2


async def test_a_job_is_recorded_with_the_outcomes_of_its_tasks(work: Path, state: Path) -> None:
    graph = TaskFile(name="two", tasks=tasks(work, a=(), b=("a",)))
    events: list[Event] = []
    async with supervisor(state) as running:
        outcome = await running.run(graph, events.append)
    (folder,) = (state / "jobs").iterdir()
    assert read_outcome(folder) is not None
    recorded = list(read_events(folder))
    assert recorded == [event for event in events if event.run_id is None]
    assert [event.seq for event in recorded] == list(range(1, len(recorded) + 1))
    last = recorded[-1].update
    assert isinstance(last, JobFinished)
    assert isinstance(outcome, JobOutcome)
    assert last.outcome.tasks.keys() == outcome.tasks.keys()
    assert {event.job_id for event in events} == {folder.name}
    runs = [read_record(run) for run in list_runs(state / "runs")]
    assert [(run.task.id, run.job_id) for run in runs] == [("a", folder.name), ("b", folder.name)]
    for path in folder.iterdir():
        assert path.stat().st_mode & 0o077 == 0


async def test_no_more_tasks_than_allowed_run_side_by_side(work: Path, state: Path) -> None:
    graph = TaskFile(tasks=tasks(work, **{f"t{at}": () for at in range(6)}), concurrency=2)
    running: set[str | None] = set()
    most = 0

    def count(event: Event) -> None:
        nonlocal most
        if isinstance(event.update, TaskStarted):
            running.add(event.task_id)
            most = max(most, len(running))
        if isinstance(event.update, TaskFinished):
            running.discard(event.task_id)

    async with supervisor(state) as supervising:
        outcome = await supervising.run(graph, count)
    assert outcome.ok
    assert most == 2


async def test_independent_tasks_run_at_the_same_time(work: Path, state: Path) -> None:
    """Each waits for the other's file: one after the other, neither would end."""
    steps = {
        id_: [{"write": f"{id_}.begun", "text": ""}, say("begun"), {"hang": True}] for id_ in "ab"
    }
    graph = TaskFile(tasks=tasks(work, a=(), b=()))
    begun: set[str | None] = set()

    async with supervisor(state, steps) as supervising:

        def both(event: Event) -> None:
            if isinstance(event.update, Message):
                begun.add(event.task_id)
                if len(begun) == 2:
                    supervising.interrupt()

        outcome = await supervising.run(graph, both)
    assert begun == {"a", "b"}
    assert outcome.status == "interrupted"


async def test_tasks_that_write_in_one_folder_take_turns(work: Path, state: Path) -> None:
    graph = TaskFile(
        tasks=tuple(replace(task, access="edit") for task in tasks(work, a=(), b=(), c=()))
    )
    events: list[Event] = []
    async with supervisor(state) as running:
        assert (await running.run(graph, events.append)).ok
    order = [
        (event.type, event.task_id)
        for event in events
        if event.type in {"task.started", "task.finished"}
    ]
    assert order == [(f"task.{what}", id_) for id_ in "abc" for what in ("started", "finished")]


async def test_an_interrupt_ends_every_task(work: Path, state: Path) -> None:
    steps: dict[str, list[Step]] = {"a": [say("begun"), {"hang": True}]}
    graph = TaskFile(tasks=tasks(work, a=(), b=("a",), c=()), concurrency=1)
    async with supervisor(state, steps) as running:

        def stop(event: Event) -> None:
            if isinstance(event.update, Message):
                running.interrupt()

        outcome = await running.run(graph, stop)
    assert isinstance(outcome, JobOutcome)
    found = {id_: one.status for id_, one in outcome.tasks.items()}
    assert found == {"a": "interrupted", "b": "skipped", "c": "interrupted"}
    assert outcome.status == "interrupted"


async def test_cancelling_a_job_kills_its_agents_and_still_writes_every_outcome(
    work: Path, state: Path
) -> None:
    steps: dict[str, list[Step]] = {
        id_: [{"ignore": ["SIGTERM", "SIGINT"]}, say("begun"), {"hang": True}] for id_ in "ab"
    }
    graph = TaskFile(tasks=tasks(work, a=(), b=(), c=("a",)))
    pids: list[int] = []
    begun: set[str | None] = set()
    events: list[Event] = []
    async with supervisor(state, steps) as running, anyio.create_task_group() as group:

        def cancel(event: Event) -> None:
            events.append(event)
            if isinstance(event.update, ProcessSpawned):
                pids.append(event.update.pid)
            if isinstance(event.update, Message):
                begun.add(event.task_id)
                if len(begun) == 2:
                    group.cancel_scope.cancel()

        group.start_soon(running.run, graph, cancel)
    (folder,) = (state / "jobs").iterdir()
    last = list(read_events(folder))[-1].update
    assert isinstance(last, JobFinished)
    assert {id_: one.status for id_, one in last.outcome.tasks.items()} == dict.fromkeys(
        "abc", "cancelled"
    )
    assert events[-1].update == last
    assert not any(Path(f"/proc/{pid}").exists() for pid in pids)


async def test_a_prompt_gets_what_its_needs_left_as_data(work: Path, state: Path) -> None:
    steps: dict[str, list[Step]] = {
        "a": [say("{{ tasks.a.status }} & more"), DONE],
        "b": [{"report": ["stdin"]}, say("ok"), DONE],
    }
    first, second = tasks(work, a=(), b=("a",))
    asks = (
        "{{ '{{' }} {{tasks.a.text}}|{{ tasks.a.status }}|{{ tasks.a.verified }}|{{ tasks.a.diff }}"
    )
    graph = TaskFile(tasks=(first, replace(second, prompt=asks)))
    async with supervisor(state, steps) as running:
        (await running.run(graph)).check()
    (run,) = [run for run in list_runs(state / "runs") if read_record(run).task.id == "b"]
    told = json.loads((run / "stdout").read_text().splitlines()[0])["stdin"]
    assert told == "{{ {{ tasks.a.status }} & more|succeeded|not checked|"
    assert read_record(run).task.prompt == told


async def test_a_long_value_is_cut_and_says_so(work: Path, state: Path) -> None:
    steps: dict[str, list[Step]] = {"a": [say("é" * VALUE_LIMIT), DONE]}
    first, second = tasks(work, a=(), b=("a",))
    graph = TaskFile(tasks=(first, replace(second, prompt="<{{ tasks.a.text }}>")))
    async with supervisor(state, steps) as running:
        (await running.run(graph)).check()
    (run,) = [run for run in list_runs(state / "runs") if read_record(run).task.id == "b"]
    assert read_record(run).task.prompt == f"<{'é' * (VALUE_LIMIT // 2)}{TRUNCATED}>"


async def test_the_prompt_of_a_task_alone_is_no_template(work: Path, state: Path) -> None:
    async with supervisor(state) as running:
        await running.run(Task(prompt="{{ x }}", workspace=work))
    (run,) = list_runs(state / "runs")
    assert read_record(run).task.prompt == "{{ x }}"


@pytest.mark.parametrize(
    ("graph", "text"),
    [
        ({"a": ("b",)}, "tasks.0.needs.0: no task 'b'"),
        ({"a": ("b",), "b": ("a",)}, "a cycle, so that none of them can start: a -> b -> a"),
        ({}, "no task: the file has none"),
    ],
)
async def test_a_graph_that_cannot_be_is_wrong_input_before_anything_starts(
    work: Path, state: Path, graph: dict[str, tuple[str, ...]], text: str
) -> None:
    async with supervisor(state) as running:
        with pytest.raises(InputError, match=text):
            await running.run(TaskFile(tasks=tasks(work, **graph)))
    assert not (state / "jobs").exists()


async def test_a_task_that_needs_others_cannot_run_alone(work: Path, state: Path) -> None:
    async with supervisor(state) as running:
        with pytest.raises(InputError, match="task 't' needs a"):
            await running.run(Task(id="t", needs=("a",), prompt="p", workspace=work))


async def test_a_wrong_task_among_many_is_wrong_input_before_anything_starts(
    work: Path, state: Path
) -> None:
    good, bad = tasks(work, a=(), b=())
    async with supervisor(state) as running:
        with pytest.raises(InputError, match="no agent 'codx'"):
            await running.run(TaskFile(tasks=(good, replace(bad, agent="codx"))))
    assert not (state / "runs").exists()


async def test_a_workspace_that_is_gone_later_fails_its_task_alone(work: Path, state: Path) -> None:
    place = work / "sub"
    place.mkdir()
    first, second, other = tasks(work, a=(), b=("a",), c=("a",))
    remove: Step = {"spawn": [{"print": ""}], "wait": True}
    graph = TaskFile(tasks=(first, replace(second, workspace=place), other))

    def when_a_ended(event: Event) -> None:
        if event.type == "run.finished" and event.task_id == "a":
            place.rmdir()

    async with supervisor(state, {"a": [remove, say("x"), DONE]}) as running:
        outcome = await running.run(graph, when_a_ended)
    assert isinstance(outcome, JobOutcome)
    assert outcome.tasks["b"].error is not None
    assert (outcome.tasks["b"].status, outcome.tasks["b"].error.kind) == (
        "failed",
        "invalid_request",
    )
    assert outcome.tasks["c"].ok


async def test_limits_stop_one_task_and_not_its_siblings(work: Path, state: Path) -> None:
    slow, quick = tasks(work, a=(), b=())
    graph = TaskFile(tasks=(replace(slow, limits=Limits(wall_s=0.2)), quick))
    async with supervisor(state, {"a": [{"hang": True}]}) as running:
        outcome = await running.run(graph)
    assert isinstance(outcome, JobOutcome)
    assert (outcome.tasks["a"].status, outcome.tasks["b"].status) == ("timed_out", "succeeded")
    assert outcome.status == "timed_out"
    assert outcome.error is not None
    assert outcome.error.text.startswith("task 'a': ")
