"""What is asked of the engine beyond its documents, and what it must not do to its host."""

import asyncio
import logging
import sqlite3
import subprocess
import sys
from collections.abc import AsyncGenerator
from pathlib import Path

import anyio
import pytest

from orchestrator.errors import ConfigError, QueueError
from orchestrator.task import Task
from orchestrator.worker import engine
from orchestrator.worker.client import Client, default_url
from orchestrator.worker.engine import log
from orchestrator.worker.engine.database import engine_of, unreachable
from tests.worker.scene import ORCHESTRATE

pytestmark = [pytest.mark.anyio, pytest.mark.timeout(60)]


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "queue.sqlite"


@pytest.fixture
async def client(file: Path) -> AsyncGenerator[Client]:
    async with Client(f"sqlite:///{file}") as opened:
        yield opened


async def _echo(job_id: str, text: str, write: engine.Write) -> str:
    await write(text)
    return job_id


async def test_a_job_goes_through_the_engine_and_the_host_keeps_its_executor_and_its_log(
    file: Path, client: Client
) -> None:
    root, before = logging.getLogger(), list(logging.getLogger().handlers)
    level = root.level
    job = await client.submit(Task(prompt="hello"))
    async with engine.employed(client_url(file), "one", _echo, room=lambda: 2):
        while not (await client.entry(job)).over:
            await anyio.sleep(0.05)
    entry = await client.entry(job)
    assert (entry.output, entry.worker, entry.attempts) == (job, "one", 1)
    assert await asyncio.to_thread(len, "to_thread") == 9
    assert (root.handlers, root.level) == (before, level)
    # The engine would add one of its own that writes to stderr.
    assert not any(type(one) is logging.StreamHandler for one in logging.getLogger("dbos").handlers)
    stored = b"".join(path.read_bytes() for path in file.parent.glob("queue.sqlite*"))
    assert b'"prompt":"hello"' in stored.replace(b'\\"', b'"')  # JSON, and no pickle


def client_url(file: Path) -> str:
    return f"sqlite:///{file}"


async def test_a_worker_takes_no_more_than_it_has_room_for_and_nothing_without(
    file: Path, client: Client
) -> None:
    room, most, running = 0, 0, 0
    release = anyio.Event()

    async def body(job_id: str, text: str, write: engine.Write) -> str:
        nonlocal most, running
        running += 1
        most = max(most, running)
        await release.wait()
        running -= 1
        return job_id

    jobs = [await client.submit(Task(prompt=str(at))) for at in range(5)]
    async with engine.employed(client_url(file), "one", body, room=lambda: room):
        await anyio.sleep(3 * engine.POLL_S)
        assert running == 0
        room = 2
        while running < 2:
            await anyio.sleep(0.05)
        await anyio.sleep(3 * engine.POLL_S)
        assert (running, most) == (2, 2)
        release.set()
        for job in jobs:
            while not (await client.entry(job)).over:
                await anyio.sleep(0.05)
    assert most == 2


async def test_children_have_room_where_their_parents_wait_for_them(
    file: Path, client: Client
) -> None:
    """Three levels at a limit of 1: each waits for the next one."""
    async with anyio.create_task_group() as group:
        await group.start(_family, file, client)
        group.cancel_scope.cancel()


async def _family(file: Path, client: Client, *, task_status: anyio.abc.TaskStatus[None]) -> None:
    depth = 0

    async def body(job_id: str, text: str, write: engine.Write) -> str:
        nonlocal depth
        depth += 1
        if depth < 3:
            child = await client.submit(Task(prompt="child"), parent=job_id)
            while not (await client.entry(child)).over:
                await anyio.sleep(0.05)
        return job_id

    first = await client.submit(Task(prompt="parent"))
    async with engine.employed(client_url(file), "one", body, room=lambda: 1):
        while not (await client.entry(first)).over:
            await anyio.sleep(0.05)
    assert depth == 3
    task_status.started()


async def test_what_a_dead_worker_did_goes_on_elsewhere_only_where_that_is_allowed(
    file: Path, client: Client
) -> None:
    """The one private function of the engine that recovery stands on."""
    seen: list[str] = []

    async def body(job_id: str, text: str, write: engine.Write) -> str:
        seen.append(job_id)
        return job_id

    never = await client.submit(Task(prompt="once"))
    again = await client.submit(Task(prompt="again", recovery="restart"))
    with sqlite3.connect(file) as database:  # as it is when a worker was killed
        database.execute(
            "UPDATE workflow_status SET status = 'PENDING', executor_id = 'dead',"
            " recovery_attempts = 1, application_version = '1'"
        )
    database.close()
    async with engine.employed(client_url(file), "one", body, room=lambda: 2) as app:
        await anyio.to_thread.run_sync(app.recover, "dead")
        for job in (never, again):
            while not (await client.entry(job)).over:
                await anyio.sleep(0.05)
    assert seen == [again]
    assert (await client.wait(never)).status == "interrupted"


async def test_a_sqlite_queue_is_private_and_others_read_while_one_writes(
    file: Path, client: Client
) -> None:
    assert file.stat().st_mode & 0o777 == 0o600
    with sqlite3.connect(file) as database:
        assert database.execute("PRAGMA journal_mode").fetchone() == ("wal",)
    database.close()


async def test_an_old_sqlite_is_told_the_time_by_us(
    file: Path, client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Before 3.42 it knows no parts of seconds, which the engine asks for by Python's version."""
    monkeypatch.setattr(sqlite3, "sqlite_version_info", (3, 40, 1))
    made = engine_of(client_url(file))
    with made.connect() as connection:
        row = connection.exec_driver_sql("SELECT unixepoch('subsec'), unixepoch()").one()
    made.dispose()
    assert isinstance(row[0], float)
    assert isinstance(row[1], int)
    assert abs(row[0] - row[1]) < 2


@pytest.mark.parametrize("words", [["--help"], ["submit", "--help"], ["runs", "list"]])
def test_the_engine_is_not_loaded_for_what_needs_none(words: list[str], tmp_path: Path) -> None:
    loaded = (
        "import sys, atexit\n"
        "atexit.register(lambda: print('LOADED', [n for n in sys.modules if n == 'dbos']))\n"
        f"sys.argv = ['orchestrate', *{words!r}]\n"
        "from orchestrator.cli import app\n"
        "app()\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", loaded],
        env={"PATH": "/usr/bin:/bin", "HOME": str(tmp_path), "XDG_STATE_HOME": str(tmp_path)},
        capture_output=True,
        text=True,
    )
    assert done.stdout.endswith("LOADED []\n")


def test_a_queue_that_cannot_be_reached_is_told_without_its_password(tmp_path: Path) -> None:
    done = subprocess.run(
        [ORCHESTRATE, "queue", "list"],
        env={
            "PATH": "/usr/bin:/bin",
            "HOME": str(tmp_path),
            "ORCHESTRATE_QUEUE_DATABASE": "postgresql://me:hidden@127.0.0.1:1/none",
        },
        capture_output=True,
        text=True,
    )
    assert done.returncode == 2
    assert "the queue cannot be opened: postgresql://me:***@127.0.0.1:1/none" in done.stderr
    assert "hidden" not in done.stderr
    assert "Traceback" not in done.stderr


def test_without_the_extra_the_remedy_is_named(tmp_path: Path) -> None:
    code = (
        "import sys; sys.modules['dbos'] = None\n"
        "from orchestrator.worker.client import open_access\n"
        f"open_access({default_url(tmp_path)!r})"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert "the queue needs its engine, which is not installed" in done.stderr


async def test_what_the_database_does_not_do_is_an_error_of_ours(
    file: Path, client: Client
) -> None:
    with sqlite3.connect(file) as database:
        database.execute("ALTER TABLE workflow_status RENAME TO hidden")
    with pytest.raises(QueueError, match=r"queue\.sqlite: no such table") as told:
        await client.submit(Task(prompt="p"))
    assert told.value.hint == "is there room on its disk, and may you write there?"
    with pytest.raises(QueueError):
        await client.entries()
    database.close()


async def test_a_database_of_a_newer_version_is_used(file: Path, client: Client) -> None:
    with sqlite3.connect(file) as database:
        database.execute("UPDATE dbos_migrations SET version = version + 100")
    database.close()
    async with Client(client_url(file)) as other:
        job = await other.submit(Task(prompt="p"))
        async with engine.employed(client_url(file), "one", _echo, room=lambda: 1):
            while not (await other.entry(job)).over:
                await anyio.sleep(0.05)


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("sqlite:///:memory:", "is a file"),
        ("mysql://h/x", "is a file"),
        ("rubbish", "is a file"),
        ("sqlite:////proc/none/queue.sqlite", "cannot be opened: .*No such file"),
    ],
)
async def test_an_address_where_no_queue_can_be_is_refused(url: str, words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        async with Client(url):
            pass


def test_what_the_engine_says_holds_no_statement_no_value_and_no_password() -> None:
    told = (
        "Database connection failed: (sqlite3.OperationalError) database is locked\n"
        "[SQL: INSERT INTO jobs\nVALUES (?)]\n[parameters: ('a secret\nprompt',)]\n"
        "(Background on this error at: https://sqlalche.me/e/e3q8). Retrying in 1.06s (attempt 1)"
    )
    left = (
        "Database connection failed: (sqlite3.OperationalError) database is locked."
        " Retrying in 1.06s (attempt 1)"
    )
    assert log.said(told) == left
    assert log.said("at postgresql://me:hidden@desk/q") == "at postgresql://me:***@desk/q"


def test_what_the_engine_says_again_and_again_is_told_once(
    capsys: pytest.CaptureFixture[str],
) -> None:
    handler = log._Log(level=logging.WARNING)
    for attempt in range(5):
        text = f"it failed. Retrying in {attempt}s (attempt {attempt})"
        handler.emit(logging.LogRecord("dbos", logging.WARNING, "", 0, text, None, None))
    out, err = capsys.readouterr()
    assert (out + err).count("it failed") == 1


def test_who_is_refused_is_not_asked_whether_the_server_runs() -> None:
    error = Exception('FATAL:  database "none" does not exist')
    assert "the server answers" in (unreachable("postgresql://desk/none", error).hint or "")
