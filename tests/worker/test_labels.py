"""Labels: what a job needs, and why it waits."""

from pathlib import Path

import anyio
import pytest

from orchestrator.task import Source, Task, TaskFile
from orchestrator.worker import engine
from orchestrator.worker.client import Client
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


@pytest.mark.anyio
async def test_only_who_listens_to_it_takes_from_a_queue_with_labels_and_a_pause_holds_there_too(
    tmp_path: Path,
) -> None:
    url = f"sqlite:///{tmp_path}/queue.sqlite"
    done: list[str] = []

    async def body(job_id: str, text: str, write: engine.Write) -> str:
        done.append(job_id)
        return job_id

    async with Client(url) as client:
        await client.pause(paused=True)
        plain = await client.submit(Task(prompt="p"))
        special = await client.submit(Task(prompt="p", requires=("gpu", "x y")))
        assert (await client.entry(special)).queue == "jobs@gpu,x%20y"
        had = ["jobs", "jobs@gpu,x%20y"]
        async with engine.employed(url, "one", body, room=lambda: 1, fits=lambda name: name in had):
            await anyio.sleep(4 * engine.POLL_S)
            assert done == []
            had.pop()
            await client.pause(paused=False)
            while plain not in done:
                await anyio.sleep(0.05)
            await anyio.sleep(4 * engine.POLL_S)
            assert done == [plain]
            assert await client.why_waiting([await client.entry(special)]) == {
                special: "no worker is running"
            }
            had.append("jobs@gpu,x%20y")
            while not (await client.entry(special)).over:
                await anyio.sleep(0.05)
        await client.remove(older_s=0)
        async with Client(url) as other:
            assert sorted(await other.queues()) == sorted(engine.QUEUES)
