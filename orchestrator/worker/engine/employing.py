"""The engine in this process, as long as a worker is employed: it does the jobs that are taken."""

from __future__ import annotations

import asyncio  # noqa: TID251 (its executor is given back, nothing else)
from collections.abc import AsyncGenerator, Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from typing import TypeAlias

import sqlalchemy as sa
from dbos import DBOS, DBOSConfig, DBOSPortableJSONSerializer
from dbos._error import DBOSBaseException  # not exported; what fences us off

from orchestrator.worker.engine.database import engine_of, is_postgres, postgres, unreachable
from orchestrator.worker.engine.jobs import (
    EVENTS,
    NAME,
    ONCE,
    QUEUES,
    RECOVERABLE,
    VERSION,
    NotOursError,
)
from orchestrator.worker.engine.log import quiet
from orchestrator.worker.engine.taking import Taker

Write: TypeAlias = Callable[[str], Awaitable[None]]
Body: TypeAlias = Callable[[str, str, Write], Awaitable[str]]
"""Does a job: gets its id, its input and where its events go; gives its output."""


class App:
    """The engine while it runs jobs in this process."""

    def __init__(self, dbos: DBOS, taker: Taker) -> None:
        self._dbos = dbos
        self._taker = taker

    def running(self) -> list[str]:
        """The jobs that run here."""
        return list(self._dbos._active_workflows_set.activeList())  # noqa: SLF001

    def look(self) -> None:
        """Look for jobs now, and not only at the next turn."""
        self._taker.look()

    def recover(self, worker: str) -> None:
        """Put what a worker that is dead was doing back into the queue. Blocks.

        The engine has no public way: the function is private, idempotent, and held by a test.
        """
        self._dbos._recover_pending_workflows([worker])  # noqa: SLF001
        self.look()


@asynccontextmanager
async def employed(
    url: str,
    worker: str,
    body: Body,
    *,
    room: Callable[[], int],
    fits: Callable[[str], bool] = lambda _: True,
) -> AsyncGenerator[App]:
    """Take jobs in this event loop while the block lasts, so many at a time as `room` says, and
    those whose needs `fits` allows. Both are called from another thread.

    There is one engine in a process. What is running when the block is left is cut off. Raises
    ConfigError if the database cannot be reached.
    """
    quiet()
    engine = None if is_postgres(url) else engine_of(url)
    dbos, taker = DBOS(config=_config(url, worker, engine)), Taker(room, fits)
    try:
        _register(body, taker.done)
        try:
            with taker.in_place():
                DBOS.launch()
            for name in QUEUES:
                await DBOS.register_queue_async(name, on_conflict="never_update")
        except Exception as error:
            raise unreachable(url, error) from error
        taker.begin()
        yield App(dbos, taker)
    finally:
        taker.end()
        DBOS.destroy(destroy_registry=True)
        # The engine took the place of the loop's own executor, and its own is shut down now.
        asyncio.get_running_loop().set_default_executor(ThreadPoolExecutor())
        if engine is not None:
            engine.dispose()


def _config(url: str, worker: str, engine: sa.Engine | None) -> DBOSConfig:
    """`engine` is SQLite's; on PostgreSQL DBOS makes its own."""
    config: DBOSConfig = {
        "name": NAME,
        "executor_id": worker,
        "application_version": VERSION,
        "serializer": DBOSPortableJSONSerializer(),
        "system_database_engine": engine,
        "use_listen_notify": is_postgres(url),
        # Nobody follows from here; but it is slept through when the worker ends.
        "notification_listener_polling_interval_sec": 0.5,
        "notification_coalesce_sec": 0.05,  # its own wakes the process 100 times a second
        "scheduler_polling_interval_sec": 3600.0,  # nothing is scheduled
        "max_executor_threads": 16,
        "log_level": "WARNING",
    }
    if is_postgres(url):
        config["system_database_url"] = postgres(url)
    return config


def _register(body: Body, done: Callable[[str], None]) -> None:
    async def write(block: str) -> None:
        try:
            await DBOS.write_stream_async(EVENTS, block)
        except DBOSBaseException as error:
            raise NotOursError("the job was cancelled, or taken over") from error

    # A step that is preemptible is really cancelled when its job is.
    @DBOS.step(name="perform", preemptible=True)
    async def perform(job_id: str, input: str) -> str:
        return await body(job_id, input, write)

    async def job(input: str) -> str:
        job_id = DBOS.workflow_id or ""
        try:
            return await perform(job_id, input)
        finally:
            done(job_id)

    async def recoverable(input: str) -> str:
        return await job(input)

    DBOS.workflow(name=ONCE, max_recovery_attempts=0)(job)
    DBOS.workflow(name=RECOVERABLE, max_recovery_attempts=1)(recoverable)
