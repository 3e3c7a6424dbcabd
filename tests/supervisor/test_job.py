"""Jobs of several tasks with real processes: their order, their skips, their record, their end."""

import json
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

import anyio
import pytest

from orchestrator.adapter import Agent, Command
from orchestrator.errors import InputError
from orchestrator.events import (
    Event,
    JobFinished,
    JobOutcome,
    Message,
    Outcome,
    ProcessSpawned,
    RunFinished,
    TaskFinished,
    TaskStarted,
)
from orchestrator.journal import list_runs, read_events, read_outcome, read_record
from orchestrator.supervisor import Supervisor
from orchestrator.task import Limits, Task, TaskFile
from orchestrator.template import TRUNCATED, VALUE_LIMIT
from orchestrator.testing import agent as scripted_agent
from tests.scripted_adapter import DONE, Scripted, Step, say, scripted_config

pytestmark = pytest.mark.anyio

FAIL: Step = {"exit": 3}


@dataclass
class PerTask(Scripted):
    """Does the steps of each task by its id; those of none by default."""

    steps: Mapping[str, list[Step]] = field(default_factory=dict)

    def command(self, task: Task, agent: Agent) -> Command:
        steps = self.steps.get(task.id, [say(f"did {task.id}"), DONE])
        script = f"{agent.home}/script.json"
        return Command(
            argv=(sys.executable, "-I", "-S", scripted_agent.__file__, script),
            cwd=str(task.workspace),
            files={script: json.dumps(steps).encode()},
            stdin=task.prompt.encode(),
        )


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


# --- fifty tasks ----------------------------------------------------------------------------------


def fifty() -> dict[str, tuple[str, ...]]:
    """A fan-out, diamonds one after the other, and tasks that fail at their roots or alone."""
    graph: dict[str, tuple[str, ...]] = {"root": ()}
    graph |= {f"leaf{at}": ("root",) for at in range(10)}
    graph["gather"] = tuple(f"leaf{at}" for at in range(10))
    last = "gather"
    for at in range(6):
        graph |= {f"l{at}": (last,), f"r{at}": (last,), f"join{at}": (f"l{at}", f"r{at}")}
        last = f"join{at}"
    graph |= {"bad": (), "after": ("bad",), "later": ("after", "root")}
    graph |= {f"lost{at}": ("later",) for at in range(7)}
    graph |= {f"alone{at}": () for at in range(8)}
    graph |= {"badleaf": ("root",), "mixed": ("badleaf", "gather")}
    return graph


BAD = {"bad", "badleaf"}


def expected(graph: Mapping[str, tuple[str, ...]]) -> dict[str, str]:
    found: dict[str, str] = {}

    def status(id_: str) -> str:
        if id_ not in found:
            fine = all(status(need) == "succeeded" for need in graph[id_])
            found[id_] = "skipped" if not fine else "failed" if id_ in BAD else "succeeded"
        return found[id_]

    return {id_: status(id_) for id_ in graph}


@pytest.mark.timeout(60)
async def test_fifty_tasks_come_in_order_and_end_as_they_must(work: Path, state: Path) -> None:
    graph = fifty()
    assert len(graph) == 50
    made: list[Task] = []
    for id_, needs in graph.items():
        place = work / id_
        place.mkdir()
        prompt = " ".join(f"{{{{ tasks.{need}.text }}}}" for need in needs) or "begin"
        made.append(Task(id=id_, needs=needs, prompt=prompt, workspace=place, kind="edit"))
    steps: dict[str, list[Step]] = {
        id_: [FAIL] if id_ in BAD else [{"write": "done.txt", "text": id_}, say(f"did {id_}"), DONE]
        for id_ in graph
    }
    async with (
        supervisor(state, steps) as running,
        running.stream(TaskFile(tasks=tuple(made), concurrency=8)) as stream,
    ):
        events = [event async for event in stream]
    outcome = stream.outcome
    assert isinstance(outcome, JobOutcome)
    assert {id_: one.status for id_, one in outcome.tasks.items()} == expected(graph)
    assert_in_order(events, graph)
    for id_, one in outcome.tasks.items():
        assert (work / id_ / "done.txt").exists() == (one.status == "succeeded")
        if one.ok:
            assert prompt_of(state, one) == (
                " ".join(f"did {need}" for need in graph[id_]) or "begin"
            )
    ran = [one for one in outcome.tasks.values() if one.status != "skipped"]
    assert len(list_runs(state / "runs")) == len(ran)


def prompt_of(state: Path, outcome: Outcome) -> str:
    assert outcome.run_id is not None
    return read_record(state / "runs" / outcome.run_id).task.prompt


def assert_in_order(events: list[Event], graph: Mapping[str, tuple[str, ...]]) -> None:
    """A task begins after all that it needs and is skipped after some of it; its run is whole."""
    place = {(event.type, event.task_id): at for at, event in enumerate(events)}
    for id_, needs in graph.items():
        begun = place.get(("task.started", id_))
        ended = place["task.finished", id_]
        before = [
            place["task.finished", need] < (ended if begun is None else begun) for need in needs
        ]
        assert all(before) if begun is not None else any(before)
        of_it = [at for at, event in enumerate(events) if event.task_id == id_ and event.run_id]
        if begun is not None:
            assert begun < of_it[0]
            assert of_it[-1] < ended
            assert isinstance(events[of_it[-1]].update, RunFinished)
            seqs = [events[at].seq for at in of_it]
            assert seqs == list(range(1, len(seqs) + 1))
    assert isinstance(events[-1].update, JobFinished)


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
