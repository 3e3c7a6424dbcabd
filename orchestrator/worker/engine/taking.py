"""Takes jobs out of the queue: which are next, and whether there is room for them here."""

from __future__ import annotations

import logging
import threading
import time
from collections import Counter
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import contextmanager
from functools import cache
from typing import NamedTuple
from uuid import uuid4

import sqlalchemy as sa
from dbos import DBOS
from dbos import _dbos as launching
from dbos._core import execute_dequeued_workflow
from dbos._sys_db import WorkflowStatusInternal
from dbos._utils import GlobalParams
from sqlalchemy.exc import DBAPIError

from orchestrator.telemetry import warn
from orchestrator.worker.engine.jobs import CHILDREN, JOBS, QUEUES, VERSION

POLL_S = 0.75
_SETTLED_S = 2.0


class Taker:
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
            queue, GlobalParams.executor_id, VERSION, kind.needs, 0, owner_xid=claim
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
