"""Labels: what a job needs, and why it waits."""

from pathlib import Path

import anyio
import pytest

from orchestrator.task import Source, Task, TaskFile
from orchestrator.worker import engine
from orchestrator.worker.client import Client
from orchestrator.worker.labels import needed, read, waits_for, written
from orchestrator.worker.machine import gpus

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
def test_what_a_job_needs_is_read_as_it_was_written(needs: set[str]) -> None:
    assert read(written(needs)) == needs


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


def test_a_gpu_is_seen_where_the_kernel_has_one(tmp_path: Path) -> None:
    assert gpus(tmp_path) == frozenset()
    (tmp_path / "proc/driver/nvidia/gpus/0000:01:00.0").mkdir(parents=True)
    assert gpus(tmp_path) == {"gpu", "gpu:nvidia"}
    (tmp_path / "dev/dri").mkdir(parents=True)
    (tmp_path / "dev/kfd").touch()
    assert "gpu:amd" not in gpus(tmp_path)
    (tmp_path / "dev/dri/renderD128").touch()
    assert gpus(tmp_path) == {"gpu", "gpu:nvidia", "gpu:amd"}


@pytest.mark.anyio
async def test_only_who_has_its_labels_takes_a_job_and_a_pause_holds_for_all(
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
        assert (await client.entry(special)).needs == "gpu,x%20y"
        had = ["", "gpu,x%20y"]
        fits = had.__contains__
        async with engine.employed(url, "one", body, room=lambda: 1, fits=fits):
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
            had.append("gpu,x%20y")
            while not (await client.entry(special)).over:
                await anyio.sleep(0.05)


@pytest.mark.anyio
@pytest.mark.parametrize("url", ["sqlite", "postgresql"], indirect=True)
async def test_priorities_and_keys_hold_over_jobs_that_need_different_things(url: str) -> None:
    done: list[str] = []

    async def body(job_id: str, text: str, write: engine.Write) -> str:
        done.append(job_id)
        return job_id

    async with Client(url) as client:
        at = [("gpu", 1), ("", 9), ("gpu", 5), ("x", 7), ("", 3), ("mars", 10)]
        needs = [frozenset({name} if name else ()) for name, _ in at]
        jobs = [
            await client.submit(Task(prompt="p"), priority=priority, needs=wants)
            for (_, priority), wants in zip(at, needs, strict=True)
        ]
        first = await client.submit(Task(prompt="p"), dedup="k", needs=needs[0], delay_s=600)
        assert await client.submit(Task(prompt="p"), dedup="k", needs=needs[1]) == first
        here = {"", "gpu", "x"}
        async with engine.employed(url, "one", body, room=lambda: 1, fits=here.__contains__):
            while len(done) < 5:
                await anyio.sleep(0.02)
    assert done == [jobs[number] for number in (1, 3, 2, 4, 0)]
