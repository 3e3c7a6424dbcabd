"""Budgets over a whole task file: what one task spends counts against all, with real processes."""

from dataclasses import replace
from pathlib import Path

import pytest

from orchestrator.adapter import Agent, Conversation
from orchestrator.events import (
    Event,
    JobFinished,
    JobOutcome,
    Limit,
    Notice,
    ProcessSpawned,
    TaskFinished,
    TaskStarted,
    Usage,
)
from orchestrator.journal import list_runs, read_outcome
from orchestrator.supervisor import Supervisor
from orchestrator.task import Limits, Task, TaskFile, parse_task_file
from tests.recordings import ADAPTERS
from tests.scripted_adapter import DONE, PerTask, Scripted, Step, said, say, scripted_config

pytestmark = pytest.mark.anyio

spent, *done = (str(step["print"]) for step in (said(type="usage", cost=0.4), say("x"), DONE))
SPENDS: Step = said(type="usage", cost=0.4)  # and two tokens
CALL: Step = said(type="tool", id="a", status="completed")


@pytest.fixture
def place(tmp_path: Path) -> Path:
    (tmp_path / "work").mkdir()
    return tmp_path


async def play(
    place: Path, limits: Limits, concurrency: int, **steps: list[Step]
) -> tuple[JobOutcome, list[Event]]:
    """The tasks of these names, each doing its steps."""
    tasks = tuple(
        Task(id=id_, prompt="p", workspace=place / "work", access="read") for id_ in steps
    )
    file = TaskFile(tasks=tasks, limits=limits, concurrency=concurrency)
    config = scripted_config(place / "state", adapter=PerTask(steps=steps))
    events: list[Event] = []
    async with Supervisor(config) as supervisor:
        outcome = await supervisor.run(file, events.append)
    assert isinstance(outcome, JobOutcome)
    return outcome, events


def jobs_own(events: list[Event]) -> list[Limit]:
    return [
        event.update for event in events if event.run_id is None and isinstance(event.update, Limit)
    ]


async def test_what_a_task_spends_stops_it_in_the_middle_and_skips_the_rest(place: Path) -> None:
    endless = [SPENDS, SPENDS, SPENDS, {"hang": True}]
    outcome, events = await play(place, Limits(cost_usd=1), 1, a=endless, b=[say("x"), DONE])
    assert {id_: one.status for id_, one in outcome.tasks.items()} == {
        "a": "budget_exceeded",
        "b": "skipped",
    }
    skipped = outcome.tasks["b"].error
    assert skipped is not None
    assert skipped.text == "not started: more than $1 spent by the tasks together: $1.2"
    assert outcome.status == "budget_exceeded"
    assert outcome.error is not None
    assert outcome.error.limit == "cost_usd"
    (limit,) = jobs_own(events)
    assert (limit.limit, round(limit.value, 1), limit.enforced) == ("cost_usd", 1.2, "call")
    assert len(list_runs(place / "state" / "runs")) == 1


async def test_tasks_side_by_side_spend_from_one_purse(place: Path) -> None:
    spends = [SPENDS, SPENDS, {"hang": True}]
    outcome, _ = await play(place, Limits(tokens=7), 2, a=spends, b=spends)
    assert [one.status for one in outcome.tasks.values()] == ["budget_exceeded"] * 2
    assert outcome.usage is not None
    assert (outcome.usage.input_tokens, outcome.usage.output_tokens) == (4, 4)


async def test_a_limit_of_tokens_that_nothing_counts_against_is_told(place: Path) -> None:
    outcome, events = await play(
        place, Limits(tokens=7), 1, a=[say("x"), DONE], b=[SPENDS, say("x"), DONE]
    )
    assert outcome.status == "succeeded"
    told = [
        event.task_id
        for event in events
        if isinstance(event.update, Notice)
        and "limits.tokens could not be held" in event.update.text
    ]
    assert told == ["a"]
    said = "limits.tokens could not be held: the agent does not tell what it uses"
    assert [said in outcome.tasks[name].evidence for name in "ab"] == [True, False]


class AsClaude(Scripted):
    """Says its lines in claude's words."""

    def conversation(self, task: Task, agent: Agent, before: Usage | None) -> Conversation:
        return ADAPTERS["claude"].conversation(task, replace(agent, options={}), before)


def call(number: int) -> list[Step]:
    """A model call of 30 tokens, as claude tells it."""
    usage = {"input_tokens": 10, "cache_read_input_tokens": 15, "output_tokens": 1}
    begun = {"type": "message_start", "message": {"id": f"m{number}", "usage": usage}}
    over = {"type": "message_delta", "usage": {"output_tokens": 5}}
    return [said(type="stream_event", event=event) for event in (begun, over)]


async def test_a_claude_is_stopped_by_the_call_that_passes_a_limit_not_by_its_turn(
    place: Path,
) -> None:
    begun = said(type="system", subtype="init", session_id="s", model="m")
    steps: list[Step] = [begun, *call(1), *call(2), *call(3), {"hang": True}]
    limits = Limits(tokens=70)
    config = scripted_config(place / "state", *steps, adapter=AsClaude(), limits=limits)
    events: list[Event] = []
    async with Supervisor(config) as supervisor:
        outcome = await supervisor.run(Task(prompt="p", workspace=place / "work"), events.append)
    assert outcome.status == "budget_exceeded"
    assert outcome.usage is not None
    assert (outcome.usage.input_tokens, outcome.usage.cache_read_tokens) == (30, 45)
    limits_ = [event.update for event in events if isinstance(event.update, Limit)]
    assert [(one.limit, one.value, one.enforced) for one in limits_] == [("tokens", 90, "call")]


async def test_what_a_task_spent_counts_when_it_is_over(place: Path) -> None:
    at_its_end: list[Step] = [{"raw": "\n".join([*[spent] * 9, *done]) + "\n"}]
    outcome, events = await play(place, Limits(tokens=3), 1, a=at_its_end, b=at_its_end)
    # What it spent was told when it was done, as codex does: it is not failed for that.
    assert [one.status for one in outcome.tasks.values()] == ["succeeded", "skipped"]
    assert outcome.status == "budget_exceeded"
    assert [limit.value for limit in jobs_own(events)] == [18]


async def test_a_run_that_told_too_late_what_it_spent_has_it_on_record(place: Path) -> None:
    at_its_end: list[Step] = [{"raw": "\n".join([*[spent] * 9, *done]) + "\n"}]
    config = scripted_config(place / "state", *at_its_end, limits=Limits(tokens=3))
    events: list[Event] = []
    async with Supervisor(config) as supervisor:
        outcome = await supervisor.run(Task(prompt="p", workspace=place / "work"), events.append)
    assert outcome.status == "succeeded"
    limits = [event.update for event in events if isinstance(event.update, Limit)]
    assert [(one.limit, one.value, one.action) for one in limits] == [("tokens", 18, "none")]


async def test_steps_of_all_tasks_add_up(place: Path) -> None:
    step = [CALL, say("x"), DONE]
    outcome, _ = await play(place, Limits(steps=1), 1, a=step, b=[CALL, {"hang": True}], c=step)
    statuses = [one.status for one in outcome.tasks.values()]
    assert statuses == ["succeeded", "budget_exceeded", "skipped"]


async def test_the_time_of_a_file_ends_all_that_runs_and_all_that_waits(place: Path) -> None:
    hangs: list[Step] = [{"hang": True}]
    outcome, events = await play(place, Limits(wall_s=1.5), 2, a=hangs, b=hangs, c=hangs)
    assert [one.status for one in outcome.tasks.values()] == ["timed_out", "timed_out", "skipped"]
    assert outcome.status == "timed_out"
    assert [limit.limit for limit in jobs_own(events)] == ["wall"]
    spawned = [event for event in events if isinstance(event.update, ProcessSpawned)]
    assert len(spawned) == 2


async def test_a_job_within_its_budget_succeeds_and_a_task_keeps_its_own(place: Path) -> None:
    spends = [SPENDS, say("x"), DONE]
    limits = Limits(cost_usd=5, tokens=100, steps=9, wall_s=600)
    outcome, events = await play(place, limits, 2, a=spends, b=spends)
    assert outcome.status == "succeeded"
    assert jobs_own(events) == []


async def test_a_job_that_ran_out_is_on_record_as_that(place: Path) -> None:
    endless = [SPENDS, SPENDS, {"hang": True}]
    _, events = await play(place, Limits(tokens=1), 1, a=endless, b=endless)
    (folder,) = (place / "state" / "jobs").iterdir()
    kept = read_outcome(folder)
    assert kept is not None
    assert kept.status == "budget_exceeded"
    told = [type(event.update) for event in events if event.run_id is None]
    assert told == [TaskStarted, Limit, TaskFinished, TaskFinished, JobFinished]


def test_what_stands_at_the_top_of_a_file_holds_over_all_of_it(place: Path) -> None:
    text = b"""
limits: {cost_usd: 2, tokens: 1000, steps: 9, wall: 1h}
tasks:
  - {id: a, prompt: x, limits: {steps: 3}}
  - {id: b, prompt: x}
"""
    file = parse_task_file(text, file="t.yaml", folder=place)
    assert file.limits == Limits(cost_usd=2, tokens=1000, steps=9, wall_s=3600)
    assert [task.limits.steps for task in file.tasks] == [3, 9]
