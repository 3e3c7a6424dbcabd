"""The queue as its clients see it: order, keys, delays, pauses, events, and what goes again."""

import errno
import math
import sqlite3
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import anyio
import orjson
import pytest

from orchestrator.cli.queue import _waits
from orchestrator.errors import ConfigError, InputError, QueueError
from orchestrator.events import Event, Notice
from orchestrator.events.wire import decode
from orchestrator.run.recorder import new_run_id
from orchestrator.task import McpServer, Task, TaskFile
from orchestrator.worker import wire, worker
from orchestrator.worker.client import Client
from orchestrator.worker.engine import Access, Order, sqlite_file
from orchestrator.worker.feed import BATCH_S, Feed
from orchestrator.worker.worker import Post, Shift, work
from tests.worker.scene import Scene

pytestmark = [pytest.mark.anyio, pytest.mark.timeout(100)]


LEFT_OUT = "1 event is only in the journal: the queue's database did not take them"
TOLD = Event(
    seq=1,
    time="2026-01-02T03:04:05Z",
    run_id=None,
    task_id=None,
    agent=None,
    source="supervisor",
    update=Notice(text=""),
)


@pytest.fixture
def at_work(here: Scene, monkeypatch: pytest.MonkeyPatch) -> Post:
    """A worker in this process: leaner than one of its own, and as safe."""
    for name, value in here.environ.items():
        monkeypatch.setenv(name, value)
    monkeypatch.chdir(here.folder)
    return Post(url=here.url, concurrency=1, state=here.state)


def noted(here: Scene, word: str) -> Task:
    return here.task(f"echo {word} >>{here.work}/order")


async def test_the_higher_priority_goes_first_and_a_delayed_job_waits(
    here: Scene, client: Client, at_work: Post
) -> None:
    low = await client.submit(noted(here, "low"), priority=-5)
    high = await client.submit(noted(here, "high"), priority=5)
    later = await client.submit(noted(here, "later"), priority=9, delay_s=600)
    await work(at_work, Shift(idle_ends=True))
    assert [(await client.wait(job)).status for job in (low, high)] == ["succeeded"] * 2
    assert (here.work / "order").read_text() == "high\nlow\n"
    assert (await client.entry(later)).state == "delayed"


async def test_of_two_jobs_with_one_key_the_first_is_done(here: Scene, client: Client) -> None:
    first = await client.submit(noted(here, "one"), dedup="nightly")
    assert await client.submit(noted(here, "two"), dedup="nightly") == first
    assert await client.submit(noted(here, "three"), dedup="other") != first
    await client.cancel(first)
    assert await client.submit(noted(here, "four"), dedup="nightly") != first


async def test_a_paused_queue_keeps_its_jobs_until_it_goes_on(
    here: Scene, client: Client, at_work: Post
) -> None:
    job = await client.submit(noted(here, "one"))
    await client.pause(paused=True)
    await work(at_work, Shift(idle_ends=True))
    assert (await client.entry(job)).state == "waiting"
    await client.pause(paused=False)
    await work(at_work, Shift(idle_ends=True))
    assert (await client.wait(job)).ok


async def test_who_follows_late_or_goes_on_has_every_event_once(
    here: Scene, client: Client, at_work: Post
) -> None:
    script = 'for i in 1 2 3 4 5; do echo "{\\"type\\":\\"said\\",\\"text\\":\\"$i\\"}"; done'
    job = await client.submit(here.task(script))
    early: list[str] = []

    async def follow() -> None:
        early.extend([one.event.type async for one in client.follow(job)])

    async with anyio.create_task_group() as group:
        group.start_soon(follow)
        await work(at_work, Shift(idle_ends=True))
    late = [one async for one in client.follow(job)]
    assert [one.event.type for one in late] == early
    assert early[0] == "task.started"
    assert early[-1] == "job.finished"
    assert early.count("job.finished") == 1
    middle = late[len(late) // 2]
    rest = [one async for one in client.follow(job, middle.offset)]
    assert [one.offset for one in rest] == [one.offset for one in late[len(late) // 2 + 1 :]]


async def test_a_database_that_takes_no_events_ends_no_job() -> None:
    blocks: list[list[str]] = []

    async def write(block: str) -> None:
        lines = block.splitlines()
        if not blocks and "lost" in lines[0]:
            raise OSError(errno.ENOSPC, "full")
        blocks.append([decode(line.encode()).update.text for line in lines])  # type: ignore[union-attr]

    feed = Feed(write)
    async with anyio.create_task_group() as group:
        group.start_soon(feed.run)
        for text in ("lost", "kept"):
            feed.told(replace(TOLD, update=Notice(text=text)))
            await anyio.sleep(2 * BATCH_S)
        await feed.end()
    assert blocks == [["kept", LEFT_OUT]]


@pytest.mark.parametrize("url", ["sqlite"], indirect=True)
async def test_the_end_of_a_job_is_written_when_the_database_takes_it_again(
    here: Scene, client: Client, at_work: Post, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(worker, "UNWRITTEN", 2)
    job, shift = await client.submit(noted(here, "one")), Shift()
    refused = "WHEN NEW.status != 'PENDING' BEGIN SELECT RAISE(FAIL, 'full'); END"
    with closing(sqlite3.connect(sqlite_file(here.url), isolation_level=None)) as database:
        database.execute(f"CREATE TRIGGER full BEFORE UPDATE ON workflow_status {refused}")
        async with anyio.create_task_group() as group:
            group.start_soon(work, at_work, shift)
            while not list((here.state / "jobs").glob("*/outcome.json")):
                await anyio.sleep(0.05)
            await anyio.sleep(2 * worker.SWEEP_S)
            assert (await client.entry(job)).state == "running"
            database.execute("DROP TRIGGER full")
            assert (await client.wait(job)).status == "succeeded"
            shift.drain()


async def test_jobs_that_are_over_go_and_others_stay(here: Scene, client: Client) -> None:
    gone = await client.submit(noted(here, "one"))
    await client.cancel(gone)
    waits = await client.submit(noted(here, "two"))
    assert await client.remove(older_s=3600) == []
    assert [one.job_id for one in await client.remove(older_s=-60, dry_run=True)] == [gone]
    assert [one.job_id for one in await client.remove(older_s=-60)] == [gone]
    assert [one.job_id for one in await client.entries()] == [waits]
    with pytest.raises(InputError, match="no job"):
        await client.wait(gone)


async def test_what_cannot_be_meant_is_refused_when_it_is_submitted(
    here: Scene, client: Client
) -> None:
    with pytest.raises(InputError, match="no task"):
        await client.submit(TaskFile(tasks=()))
    with pytest.raises(InputError, match="priority"):
        await client.submit(noted(here, "one"), priority=5000)
    with pytest.raises(InputError, match="the key is empty"):
        await client.submit(noted(here, "one"), dedup=" ")
    for delay in (-1.0, math.nan):
        with pytest.raises(InputError, match="delay_s"):
            await client.submit(noted(here, "one"), delay_s=delay)
    with pytest.raises(InputError, match="cannot be written into the queue"):
        await client.submit(replace(noted(here, "one"), workspace=Path("/\udcff")))
    server = McpServer(name="x", command=("true",))
    with pytest.raises(InputError, match="mcp_servers"):
        await client.submit(Task(prompt="x", mcp_servers=(server,)))
    job = await client.submit(noted(here, "one"))
    with pytest.raises(InputError, match="not over"):
        await client.retry(job)
    with pytest.raises(InputError, match="offset"):
        await anext(client.follow(job, -1))


async def test_a_folder_is_the_one_of_who_submitted_it(
    here: Scene, client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(here.folder)
    task = replace(here.task("echo \0"), workspace=Path("work"), template=Path("like"))
    job = await client.submit(task, folder=Path(), config=Path("its.toml"))
    wanted = wire.loads((await client.entry(job)).input or "")
    assert wanted.file.tasks[0].workspace == here.work
    assert wanted.file.tasks[0].template == here.folder / "like"
    assert (wanted.folder, wanted.config) == (here.folder, here.folder / "its.toml")


def test_of_many_jobs_each_cause_is_told_once() -> None:
    assert _waits({"one": "no worker has 'gpu'"}) == ["one waits: no worker has 'gpu'"]
    many = {str(number): "no worker is running" for number in range(1000)}
    assert _waits(many) == ["1000 jobs wait: no worker is running"]


@pytest.mark.parametrize("url", ["sqlite"], indirect=True)
async def test_a_worker_whose_queue_was_removed_ends_and_says_so(
    here: Scene, client: Client, at_work: Post
) -> None:
    job = await client.submit(noted(here, "one"))

    async def removed() -> None:
        while not (await client.entry(job)).over:
            await anyio.sleep(0.05)
        sqlite_file(here.url).unlink()

    async with anyio.create_task_group() as group:
        group.start_soon(removed)
        with pytest.raises(QueueError, match="was removed"):
            await work(at_work, Shift())


def test_without_asyncio_s_loop_the_client_says_so(here: Scene) -> None:
    opening = Client(here.url).__aenter__()
    with pytest.raises(ConfigError, match="asyncio"):
        opening.send(None)


async def test_a_job_that_cannot_be_done_here_fails_with_its_cause(
    here: Scene, client: Client, at_work: Post
) -> None:
    job = await client.submit(Task(prompt="x", agent="nobody", workspace=here.work))
    well = await client.submit(noted(here, "one"))
    newer = Order(job_id=new_run_id(), input='{"v": 2, "file": {}}')
    with closing(Access(here.url)) as access:
        access.enqueue(newer)
    await work(at_work, Shift(idle_ends=True))
    unread = (await client.wait(newer.job_id)).error
    assert unread is not None
    assert "cannot be read here" in unread.text
    assert "newer version" in (unread.hint or "")
    outcome = await client.wait(job)
    assert (outcome.status, outcome.error and outcome.error.kind) == ("failed", "invalid_request")
    assert outcome.error is not None
    assert "nobody" in outcome.error.text
    told = orjson.loads(here.said("queue", "list", "--all", "-o", "json"))
    states = {one["job_id"]: one["state"] for one in told["jobs"]}
    assert (states[job], states[newer.job_id], states[well]) == ("failed", "failed", "succeeded")
    more = "Only the latest 2 jobs, and there are more: such as `--limit 20`."
    for limit, last in ((2, more), (3, "")):
        done = here.run("queue", "list", "--all", "--limit", str(limit))
        assert len(done.stdout.splitlines()) == 1 + limit
        assert done.stderr.strip() == last
