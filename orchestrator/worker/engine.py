"""The queue's engine, DBOS Transact: all of its names stand here and nowhere else.

`Access` is what a client needs: enqueue, look, cancel, follow. `employed` runs jobs. Importing this
takes over a second: whoever needs it imports it late. SQLite and PostgreSQL are told apart here.
"""

from __future__ import annotations

import asyncio  # noqa: TID251 (its executor is given back, nothing else)
import logging
import os
import re
import sqlite3
import threading
import time
from collections import Counter
from collections.abc import AsyncGenerator, Awaitable, Callable, Generator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Literal, NamedTuple, TypeAlias
from uuid import uuid4

import sqlalchemy as sa
from dbos import (
    DBOS,
    DBOSClient,
    DBOSConfig,
    DBOSPortableJSONSerializer,
    EnqueueOptions,
    Queue,
    WorkflowStatus,
)
from dbos import _dbos as launching
from dbos._core import execute_dequeued_workflow
from dbos._error import (  # not exported; the first fences us off
    DBOSBaseException,
    DBOSException,
    DBOSWorkflowIDInUseError,
)
from dbos._sys_db import WorkflowStatusInternal
from dbos._utils import GlobalParams, retriable_postgres_exception
from sqlalchemy import event
from sqlalchemy.exc import ArgumentError, DBAPIError, OperationalError, SQLAlchemyError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError

from orchestrator.errors import ConfigError, OrchestrateError, QueueError
from orchestrator.telemetry import warn

NAME = "orchestrate"
JOBS, CHILDREN = "jobs", "children"
"""The queues: what somebody submitted, and what a running job did. Only the first has a limit:
whoever waits for a child must not keep it from its place."""

QUEUES = (JOBS, CHILDREN)

_WORKERS, _WORKER = "workers", "worker"
# Where each worker's own entry stands: nobody takes it, it says which labels the worker has.
_ONCE, _RECOVERABLE = "job", "recoverable-job"
_EVENTS = "events"
_VERSION = "1"
# Constant: the engine's own would be another for each release, and leave its jobs to nobody.

POLL_S, FOLLOW_S = 0.75, 0.1
_SETTLED_S = 2.0
_BUSY_MS = 30_000
_CONNECT_S = 10
_MIDDLE = 1_000_000
# The engine takes the lowest number first, from 1; ours is the higher the sooner, around 0.

State: TypeAlias = Literal["delayed", "waiting", "running", "succeeded", "failed", "cancelled"]
_STATES: Mapping[str, State] = {
    "DELAYED": "delayed",
    "ENQUEUED": "waiting",
    "PENDING": "running",
    "SUCCESS": "succeeded",
    "CANCELLED": "cancelled",
}


@dataclass(frozen=True, kw_only=True)
class Entry:
    """A job as the engine knows it. Times are seconds since 1970. `state` "succeeded" says that the
    job was done, however it came out: that is in `output`. `needs`: the labels that its worker must
    have (labels.py). `notes` are ours to write.
    """

    job_id: str
    state: State
    needs: str = ""
    priority: int = 0
    submitted: float | None = None
    started: float | None = None
    ended: float | None = None
    delayed_until: float | None = None
    worker: str | None = None
    attempts: int = 0
    recoverable: bool = False
    input: str | None = None
    output: str | None = None
    error: str | None = None
    notes: Mapping[str, object] | None = None

    @property
    def over(self) -> bool:
        return self.state in {"succeeded", "failed", "cancelled"}


@dataclass(frozen=True, kw_only=True)
class Order:
    """What is said of a job when it is enqueued."""

    job_id: str
    input: str
    queue: str = JOBS
    needs: str = ""
    recoverable: bool = False
    priority: int = 0
    delay_s: float | None = None
    dedup: str | None = None
    notes: Mapping[str, object] | None = None


# --- databases -----------------------------------------------------------------------------------


def is_postgres(url: str) -> bool:
    return url.startswith("postgres")


def sqlite_file(url: str) -> Path:
    """The file of a SQLite database. Raises ConfigError if the address names none."""
    try:
        made = sa.make_url(url)
    except ArgumentError:
        made = None
    if made is None or made.drivername != "sqlite" or made.database in {None, "", ":memory:"}:
        raise ConfigError(
            "queue.database: a SQLite queue is a file: sqlite:///PATH",
            hint="Or postgresql://USER@HOST/NAME, for many machines.",
        )
    file = str(made.database)
    return Path(file).absolute()


def _engine(url: str) -> sa.Engine:
    """SQLite as the engine needs it: many readers beside one writer who waits for his turn."""
    file = sqlite_file(url)
    if not file.exists():
        file.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        os.close(os.open(file, os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600))
    engine = sa.create_engine(f"sqlite:///{file}", pool_timeout=30)

    @event.listens_for(engine, "connect")  # pyright: ignore[reportUntypedFunctionDecorator, reportUnknownMemberType]
    def connected(connection: sqlite3.Connection, _: object) -> None:
        connection.isolation_level = "IMMEDIATE"
        connection.execute(f"PRAGMA busy_timeout={_BUSY_MS}")
        connection.execute("PRAGMA journal_mode=WAL")
        connection.execute("PRAGMA synchronous=NORMAL")
        connection.execute("PRAGMA foreign_keys=ON")
        if sqlite3.sqlite_version_info < (3, 42):
            # The engine asks for parts of seconds by Python's version, not by SQLite's.
            connection.create_function("unixepoch", -1, _unixepoch)

    return engine


def _unixepoch(*arguments: object) -> float | int:
    now = time.time()
    return now if "subsec" in arguments or "subsecond" in arguments else int(now)


def _postgres(url: str) -> str:
    """As the engine wants it; a host that does not answer is given up after a while."""
    told = "postgresql://" + url.partition("://")[2]
    if "connect_timeout=" in told:
        return told
    return f"{told}{'&' if '?' in told else '?'}connect_timeout={_CONNECT_S}"


def _migrated(url: str) -> None:
    """Make the engine's tables, if they are not there."""
    if is_postgres(url):
        DBOS.migrate(_postgres(url))
        return
    engine = _engine(url)
    with engine.connect():  # the journal's mode stays with the file
        pass
    engine.dispose()
    DBOS.migrate(f"sqlite:///{sqlite_file(url)}")


def _unreachable(url: str, error: Exception) -> ConfigError:
    from orchestrator.worker.wire import shown_url

    hint = f"See `queue.database` in `orchestrate config`; {_look(url, error)}"
    return ConfigError(f"the queue cannot be opened: {shown_url(url)}: {_cause(error)}", hint=hint)


def failed(url: str, error: Exception) -> QueueError | None:
    """What the database said, as an error of ours; None: it is no error of the database."""
    from orchestrator.worker.wire import shown_url

    if not isinstance(error, SQLAlchemyError | DBOSException):
        return None
    return QueueError(f"the queue at {shown_url(url)}: {_cause(error)}", hint=_look(url, error))


def away(error: Exception) -> bool:
    """Whether the database server could not be asked: it may be there again soon."""
    if _refused(error):
        return False
    # Without a state of SQL's nobody answered: that is not always called a failed connection.
    unheard = isinstance(error, OperationalError) and getattr(error.orig, "sqlstate", "") is None
    return unheard or isinstance(error, PoolTimeoutError) or retriable_postgres_exception(error)


_REFUSES = ("does not exist", "authentication failed", "pg_hba.conf", "permission denied")


def _refused(error: Exception) -> bool:
    return any(words in str(getattr(error, "orig", error)) for words in _REFUSES)


def _cause(error: Exception) -> str:
    from orchestrator.worker.wire import shown_url

    cause = str(getattr(error, "orig", None) or error).strip().splitlines() or [repr(error)]
    return shown_url(cause[0])


def _look(url: str, error: Exception) -> str:
    if not is_postgres(url):
        return "is there room on its disk, and may you write there?"
    if _refused(error):
        return "the server answers: name a user, a password and a database that it knows."
    return "is the database server running?"


# --- clients -------------------------------------------------------------------------------------


class Access:
    """The queue from outside of any worker. Its calls block: run them in a thread. They raise when
    the database is away (`away`), so that whoever called may stop waiting. `listens`: on PostgreSQL
    a connection of its own wakes up who follows.
    """

    def __init__(self, url: str, *, listens: bool = False) -> None:
        """Raises ConfigError if the database cannot be reached."""
        quiet()
        self.url = url
        self._engine: sa.Engine | None = None
        try:
            self._engine = None if is_postgres(url) else _engine(url)
            self._client = self._opened(listens=listens)
            if not self._ready():
                _migrated(url)
        except ConfigError:
            raise
        except Exception as error:
            if self._engine is not None:
                self._engine.dispose()
            raise _unreachable(url, error) from error

    def _opened(self, *, listens: bool) -> DBOSClient:
        return DBOSClient(
            system_database_url=_postgres(self.url) if is_postgres(self.url) else None,
            system_database_engine=self._engine,
            serializer=DBOSPortableJSONSerializer(),
            use_listen_notify=listens and is_postgres(self.url),
            application_name=NAME,
            retry_connection_errors=False,  # it would block the thread until the database is there
        )

    def _ready(self) -> bool:
        """Whether the tables are there, as this version needs them or newer."""
        try:
            self._client._sys_db.verify_migrations()  # noqa: SLF001
        except (DBAPIError, DBOSException):
            return False
        return True

    def close(self) -> None:
        self._client.destroy()
        if self._engine is not None:
            self._engine.dispose()

    def enqueue(self, order: Order) -> str:
        """The job's id; that of another one if it has the same `dedup` and is not over. It may be
        called again when it is not known whether the database took it.
        """
        options: EnqueueOptions = {
            "workflow_name": _RECOVERABLE if order.recoverable else _ONCE,
            "queue_name": order.queue,
            "workflow_id": order.job_id,
            "workflow_id_reuse_policy": "reject",
            "queue_partition_key": order.needs,
            "priority": _MIDDLE - order.priority,
        }
        if order.delay_s is not None:
            options["delay_seconds"] = order.delay_s
        if order.dedup is not None:
            options["deduplication_id"] = order.dedup
            options["duplication_policy"] = "return-existing"
        if order.notes is not None:
            options["attributes"] = dict(order.notes)
        try:
            return self._client.enqueue(options, order.input).get_workflow_id()
        except DBOSWorkflowIDInUseError:  # ids are never given twice: it is this job
            return order.job_id

    def entry(self, job_id: str, *, whole: bool = True) -> Entry | None:
        found = self._client.list_workflows(
            workflow_ids=[job_id], load_input=whole, load_output=whole
        )
        return _entry(found[0]) if found else None

    def named(self, part: str) -> list[Entry]:
        """The jobs whose id begins or ends with this."""
        begun = self._client.list_workflows(
            name=[_ONCE, _RECOVERABLE],
            workflow_id_prefix=part,
            load_input=False,
            load_output=False,
        )
        if begun:
            return [_entry(one) for one in begun]
        return [one for one in self.entries() if one.job_id.endswith(part)]

    def entries(
        self, *, states: Sequence[str] | None = None, limit: int | None = None, whole: bool = False
    ) -> list[Entry]:
        """Jobs, the oldest first; of many the latest. `states` are the engine's words."""
        found = self._client.list_workflows(
            name=[_ONCE, _RECOVERABLE],
            status=list(states) if states is not None else None,
            limit=limit,
            sort_desc=True,
            load_input=whole,
            load_output=whole,
        )
        return [_entry(one) for one in reversed(found)]

    def of_worker(self, worker: str, *, running: bool = False) -> list[Entry]:
        """The jobs that a worker took last, or those of them that are not over."""
        found = self._client.list_workflows(
            name=[_ONCE, _RECOVERABLE],
            executor_id=worker,
            status="PENDING" if running else None,
            load_input=False,
            load_output=False,
        )
        return [_entry(one) for one in found]

    def cancel(self, job_id: str) -> None:
        self._client.cancel_workflow(job_id, cancel_children=True)

    def note(self, job_id: str, notes: Mapping[str, object]) -> None:
        """Write down something of a job, beside what is there."""
        self._client.update_workflow_attributes(job_id, dict(notes), merge=True)

    def delete(self, job_ids: Sequence[str]) -> None:
        self._client.delete_workflows(list(job_ids))

    async def blocks(self, job_id: str, offset: int = 0) -> AsyncGenerator[str]:
        """What the job wrote into its stream, block by block, until it is over."""
        stream = self._client.read_stream_async(
            job_id, _EVENTS, offset=offset, polling_interval_sec=FOLLOW_S
        )
        try:
            async for block in stream:
                if isinstance(block, str):
                    yield block
        finally:
            await stream.aclose()

    def pause(self, *, paused: bool) -> None:
        """No worker takes a job, or they do again. What is running goes on."""
        for name in QUEUES:
            self._queue(name).set_worker_concurrency(0 if paused else None)

    def paused(self) -> bool:
        return self._queue(JOBS).worker_concurrency == 0

    def prepare(self) -> None:
        """Make the queues, if they are not there."""
        for name in QUEUES:
            self._queue(name)

    def _queue(self, name: str) -> Queue:
        found = self._client.retrieve_queue(name)
        return found or self._client.register_queue(name)

    # --- who is there

    def announce(self, worker: str, notes: Mapping[str, object]) -> None:
        """Put a worker's own entry there, or write it anew."""
        if not self._client.list_workflows(workflow_ids=[worker], load_input=False):
            options: EnqueueOptions = {
                "workflow_name": _WORKER,
                "queue_name": _WORKERS,
                "workflow_id": worker,
                "attributes": dict(notes),
            }
            self._client.enqueue(options)
            return
        self._client.update_workflow_attributes(worker, dict(notes))

    def announced(self) -> dict[str, Mapping[str, object]]:
        """The entries of all workers, also of those that died since."""
        found = self._client.list_workflows(name=_WORKER, load_input=False, load_output=False)
        return {one.workflow_id: one.attributes or {} for one in found}


def _entry(status: WorkflowStatus) -> Entry:
    found = status.input["args"] if status.input else ()
    return Entry(
        job_id=status.workflow_id,
        state=_STATES.get(status.status, "failed"),
        needs=status.queue_partition_key or "",
        priority=_MIDDLE - (status.priority or _MIDDLE),
        submitted=_seconds(status.created_at),
        started=_seconds(status.dequeued_at),
        ended=_seconds(status.completed_at),
        delayed_until=_seconds(status.delay_until_epoch_ms),
        worker=status.executor_id,
        attempts=status.recovery_attempts or 0,
        recoverable=status.name == _RECOVERABLE,
        input=next((one for one in found if isinstance(one, str)), None),
        output=status.output if isinstance(status.output, str) else None,
        error=None if status.error is None else str(status.error),
        notes=status.attributes,
    )


def _seconds(milliseconds: int | None) -> float | None:
    return None if milliseconds is None else milliseconds / 1000


# --- workers -------------------------------------------------------------------------------------

Write: TypeAlias = Callable[[str], Awaitable[None]]
Body: TypeAlias = Callable[[str, str, Write], Awaitable[str]]
"""Does a job: gets its id, its input and where its events go; gives its output."""


class NotOursError(OrchestrateError):
    """A job that runs here is somebody else's now, or nobody's: the engine takes nothing of it."""


class App:
    """The engine while it runs jobs in this process."""

    def __init__(self, dbos: DBOS, taker: _Taker) -> None:
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
    engine = None if is_postgres(url) else _engine(url)
    config: DBOSConfig = {
        "name": NAME,
        "executor_id": worker,
        "application_version": _VERSION,
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
        config["system_database_url"] = _postgres(url)
    dbos, taker = DBOS(config=config), _Taker(room, fits)
    try:
        _register(body, taker.done)
        try:
            with taker.in_place():
                DBOS.launch()
            for name in QUEUES:
                await DBOS.register_queue_async(name, on_conflict="never_update")
        except Exception as error:
            raise _unreachable(url, error) from error
        taker.begin()
        yield App(dbos, taker)
    finally:
        taker.end()
        DBOS.destroy(destroy_registry=True)
        # The engine took the place of the loop's own executor, and its own is shut down now.
        asyncio.get_running_loop().set_default_executor(ThreadPoolExecutor())
        if engine is not None:
            engine.dispose()


def _register(body: Body, done: Callable[[str], None]) -> None:
    async def write(block: str) -> None:
        try:
            await DBOS.write_stream_async(_EVENTS, block)
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

    DBOS.workflow(name=_ONCE, max_recovery_attempts=0)(job)
    DBOS.workflow(name=_RECOVERABLE, max_recovery_attempts=1)(recoverable)


class _Taker:
    """Takes jobs, in place of the engine's own threads. Those are one for each queue, each with
    several questions a second, and know neither an order over queues nor a limit of one worker;
    and others for delays, time limits and schedules. This asks one question every POLL_S.

    What it calls to claim and to begin a job is the engine's own, private, and held by tests.
    """

    def __init__(self, room: Callable[[], int], fits: Callable[[str], bool]) -> None:
        self._room, self._fits = room, fits
        self._ready, self._woken, self._over = (threading.Event() for _ in range(3))
        self._places: dict[str, float] = {}
        # Of jobs that count, since when they have a place here.
        self._claims: dict[str, set[str]] = {}
        # Of claims that may have been made, the jobs of it that were begun.

    @contextmanager
    def in_place(self) -> Generator[None]:
        """An engine that is launched in this block has this in place of its threads."""
        ours: dict[str, object] = {"queue_thread": self._run}
        ours |= dict.fromkeys(_NEEDLESS, _nothing)
        theirs: dict[str, object] = {name: getattr(launching, name) for name in ours}
        try:
            _put(ours)
            yield
        finally:
            _put(theirs)

    def begin(self) -> None:
        self._ready.set()

    def look(self) -> None:
        """Look for jobs now, and not only at the next turn."""
        self._woken.set()

    def done(self, job: str) -> None:
        """Somebody else may have its place."""
        if self._places.pop(job, None) is not None:
            self.look()

    def end(self) -> None:
        self._over.set()
        self._ready.set()
        self._woken.set()

    def _run(self, stop: threading.Event, dbos: DBOS) -> None:
        """The body of the thread."""
        self._ready.wait()
        well = True
        while not (stop.is_set() or self._over.is_set()):
            try:
                self._begin(dbos)  # what a database that went away kept us from
                self._take(dbos)
                well = True
            except Exception as error:  # noqa: BLE001 (of the database: tried again)
                if well and not self._over.is_set():
                    warn("no jobs can be taken now", error=repr(error))
                well = False
            self._woken.wait(POLL_S)
            self._woken.clear()

    def _take(self, dbos: DBOS) -> None:
        room = self._room()
        if not room:
            return
        waiting = [one for one in _waiting(dbos) if self._fits(one.needs)]
        for one in waiting:
            if one.queue == CHILDREN:  # who waits for them keeps them from no place
                self._claim(dbos, one, None)
        others = [one.needs for one in waiting if one.queue == JOBS]
        free = room - self._taken(dbos)
        if others and free > 0:
            for needs, count in _next(dbos, others, free).items():
                self._claim(dbos, _Kind(JOBS, needs), count)

    def _claim(self, dbos: DBOS, kind: _Kind, count: int | None) -> None:
        """Claim so many jobs of a kind, those that are next, and begin them."""
        system = dbos._sys_db  # noqa: SLF001
        queue = system.get_queue(kind.queue)
        if queue is None or queue._worker_concurrency == 0:  # noqa: SLF001 (paused since)
            return
        queue._worker_concurrency = count  # noqa: SLF001
        claim = uuid4().hex
        self._claims[claim] = set()
        system.start_queued_workflows(
            queue, GlobalParams.executor_id, _VERSION, kind.needs, 0, owner_xid=claim
        )
        self._begin(dbos)

    def _begin(self, dbos: DBOS) -> None:
        """Begin what was claimed. That is asked for anew: whoever lost the database in the middle
        of it does not know whether it was.
        """
        for claim, begun in list(self._claims.items()):
            jobs = _claimed(dbos, claim) - begun
            for status in dbos._sys_db.get_workflow_statuses(sorted(jobs)):  # noqa: SLF001
                self._begin_one(dbos, status, claim)
                begun.add(status["workflow_uuid"])
            del self._claims[claim]

    def _begin_one(self, dbos: DBOS, status: WorkflowStatusInternal, claim: str) -> None:
        job = status["workflow_uuid"]
        if status["queue_name"] != CHILDREN:
            self._places[job] = time.monotonic()
        try:
            execute_dequeued_workflow(dbos, status, claim)
        except DBAPIError:
            self._places.pop(job, None)
            raise
        except Exception as error:  # noqa: BLE001 (the engine has written down that it failed)
            self._places.pop(job, None)
            logging.getLogger("dbos").warning("job %s: %s", job, error)

    def _taken(self, dbos: DBOS) -> int:
        """How many jobs have a place here."""
        active, now = set(dbos._active_workflows_set.activeList()), time.monotonic()  # noqa: SLF001
        for job, since in list(self._places.items()):
            # The engine knows of a job that was just taken only a moment later.
            if job not in active and now - since > _SETTLED_S:
                self._places.pop(job, None)
        return len(self._places)


_NEEDLESS = ("background_jobs_thread", "dynamic_scheduler_loop")


def _nothing(stop: threading.Event, _: object) -> None:
    """In place of a thread that is not needed."""


def _put(bodies: Mapping[str, object]) -> None:
    for name, body in bodies.items():
        setattr(launching, name, body)


class _Kind(NamedTuple):
    """Jobs of one queue that need the same. In the engine's words that is a partition of it; but a
    job's key for `dedup` is the queue's, and so is the order.
    """

    queue: str
    needs: str


_DUE = _Kind("", "")


def _waiting(dbos: DBOS) -> list[_Kind]:
    """What waits, unless it is paused."""
    found = _looked(dbos)
    if _DUE not in found:
        return found
    dbos._sys_db.transition_delayed_workflows()  # noqa: SLF001
    return [one for one in _looked(dbos) if one != _DUE]


def _looked(dbos: DBOS) -> list[_Kind]:
    """The same as it stands, and whether there is a job whose delay is over. One question: it is
    asked again and again when nothing goes on.
    """
    system = dbos._sys_db  # noqa: SLF001
    engine = system.engine
    if engine.dialect.name == "postgresql":  # a transaction is two questions more
        engine = engine.execution_options(isolation_level="AUTOCOMMIT")
    asked = _question(system.tables.queues, system.tables.workflow_status)
    with engine.connect() as connection:
        rows = connection.execute(asked, {"now": int(time.time() * 1000)})
        return [_Kind(row[0], row[1]) for row in rows]


@cache
def _question(queues: sa.Table, jobs: sa.Table) -> sa.CompoundSelect[str, str]:
    queue, job = queues.c, jobs.c
    going = sa.func.coalesce(queue.worker_concurrency, 1) > 0
    waits = (
        sa.select(job.queue_name, job.queue_partition_key)
        .distinct()
        .join_from(queues, jobs, job.queue_name == queue.name)
        .where(queue.name.in_(QUEUES), going)
        .where(job.status == _ENQUEUED, job.queue_partition_key.is_not(None))
    )
    over = job.delay_until_epoch_ms <= sa.bindparam("now", type_=sa.BigInteger)
    late = sa.exists().where(job.status == _DELAYED, over)
    return sa.union_all(waits, sa.select(*map(sa.literal, _DUE)).where(late))


def _next(dbos: DBOS, needs: Sequence[str], count: int) -> Counter[str]:
    """Of the jobs that need one of these and are next, how many need each."""
    system = dbos._sys_db  # noqa: SLF001
    job = system.tables.workflow_status.c
    asked = (
        sa.select(job.queue_partition_key)
        .where(job.queue_name == JOBS, job.status == _ENQUEUED)
        .where(job.queue_partition_key.in_(needs))
        .order_by(job.priority, job.created_at)
        .limit(count)
    )
    with system.engine.connect() as connection:
        return Counter(connection.scalars(asked))


def _claimed(dbos: DBOS, claim: str) -> set[str]:
    """The jobs of a claim that are not over."""
    system = dbos._sys_db  # noqa: SLF001
    job = system.tables.workflow_status.c
    asked = sa.select(job.workflow_uuid).where(job.owner_xid == claim, job.status == _PENDING)
    with system.engine.connect() as connection:
        return set(connection.scalars(asked))


# Written out, the database sees that its index of what is not over will do.
_ENQUEUED: sa.ColumnClause[str] = sa.literal_column("'ENQUEUED'")
_DELAYED: sa.ColumnClause[str] = sa.literal_column("'DELAYED'")
_PENDING: sa.ColumnClause[str] = sa.literal_column("'PENDING'")


# --- its log -------------------------------------------------------------------------------------


_ONCE_IN_S = 60.0
_REST = re.compile(r"\n(?:\[SQL: |\(Background on).*?(?=\. Retrying in |\Z)", re.DOTALL)
_TRIES = re.compile(r"\. Retrying in .*", re.DOTALL)


class _Log(logging.Handler):
    """The engine's warnings as ours; with a handler there, it adds none of its own. While the
    database is away it says the same twice a second: that is told once a minute.
    """

    def __init__(self, level: int) -> None:
        super().__init__(level)
        self._told: dict[str, float] = {}

    def emit(self, record: logging.LogRecord) -> None:
        text, now = said(record.getMessage()), time.monotonic()
        self._told = {told: at for told, at in self._told.items() if now - at < _ONCE_IN_S}
        if self._told.setdefault(_TRIES.sub("", text), now) == now:
            warn("the queue's engine", said=text)


def said(text: str) -> str:
    """A message of the engine, without the statement and its values: prompts are among them."""
    from orchestrator.worker.wire import shown_url

    return shown_url(_REST.sub("", text))


class _Expected(logging.Filter):
    """Not the traceback of each job that was cancelled: that is its outcome."""

    def filter(self, record: logging.LogRecord) -> bool:
        error = record.exc_info[1] if record.exc_info else None
        told = record.getMessage()
        return not (
            "Cancelled" in type(error).__name__
            or isinstance(error, NotOursError)
            or "cancelled" in told
            or "MaxRecoveryAttempts" in told
            or told.startswith("Error connecting to the DBOS system database")  # and raises it
        )


def quiet() -> None:
    """Keep the engine from setting up logging: its warnings go where ours go."""
    log = logging.getLogger("dbos")
    if not any(isinstance(handler, _Log) for handler in log.handlers):
        handler = _Log(level=logging.WARNING)
        handler.addFilter(_Expected())
        log.addHandler(handler)
        log.propagate = False
        log.setLevel(logging.WARNING)
