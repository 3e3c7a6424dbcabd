"""Labels: what a job needs, and why it waits."""

from pathlib import Path

import pytest

from orchestrator.task import Source, Task, TaskFile
from orchestrator.worker.labels import needed, parted, queue_of, waits_for

GIT = Source(url="https://h/r.git")
HERE = "host:desk"


def file(*tasks: Task) -> TaskFile:
    return TaskFile(tasks=tasks)


@pytest.mark.parametrize(
    ("task", "needs"),
    [
        (Task(prompt="p", workspace=Path("/w"), agent="codex"), {HERE}),
        (Task(prompt="p", template=Path("/t")), {HERE}),
        (Task(prompt="p", source=GIT), set[str]()),
        (Task(prompt="p", source=GIT, base_url="scripted:/x"), {HERE}),
        (Task(prompt="p", source=GIT, agent="codex"), {"agent:codex"}),
        (Task(prompt="p", source=GIT, privacy="local"), {"tier:local"}),
        (Task(prompt="p", source=GIT, strategy="local", requires=("gpu",)), {"tier:local", "gpu"}),
        (Task(prompt="p", source=GIT, strategy="cloud"), {"tier:cloud"}),
        (Task(prompt="p", workspace=Path("/w"), requires=("gpu",)), {HERE, "gpu"}),
    ],
)
def test_what_a_task_needs_of_a_worker(task: Task, needs: set[str]) -> None:
    assert needed(file(task), HERE) == needs
    assert HERE in needed(file(task), HERE, bound=True)


def test_a_job_needs_what_all_of_its_tasks_need() -> None:
    tasks = (
        Task(id="a", prompt="p", source=GIT, agent="codex"),
        Task(id="b", prompt="p", source=GIT, requires=("gpu",)),
    )
    assert needed(file(*tasks), HERE) == {"agent:codex", "gpu"}


@pytest.mark.parametrize(
    "needs", [set[str](), {"gpu"}, {"host:desk-1", "a, b", "model:x/y:7b", "ü@%41"}]
)
def test_a_queue_s_name_says_what_its_jobs_need(needs: set[str]) -> None:
    assert parted(queue_of("jobs", needs)) == ("jobs", frozenset(needs))


@pytest.mark.parametrize(
    ("needs", "workers", "why"),
    [
        ({"gpu"}, {}, "no worker is running"),
        ({"gpu"}, {"a": {"gpu", "x"}}, None),
        (set[str](), {"a": set[str]()}, None),
        ({"gpu", "x"}, {"a": {"x"}}, "no worker has 'gpu'"),
        ({"gpu", "x"}, {"a": set[str]()}, "no worker has 'gpu', 'x'"),
        ({"gpu", "x"}, {"a": {"x"}, "b": {"gpu"}}, "no worker has all of 'gpu', 'x' together"),
    ],
)
def test_a_job_says_what_it_waits_for(
    needs: set[str], workers: dict[str, set[str]], why: str | None
) -> None:
    assert waits_for(needs, workers) == why
