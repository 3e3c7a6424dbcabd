"""The queue from outside of any worker: enqueue, look, cancel, follow."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Mapping, Sequence

import sqlalchemy as sa
from dbos import DBOSClient, DBOSPortableJSONSerializer, EnqueueOptions, Queue
from dbos._error import DBOSException, DBOSWorkflowIDInUseError  # not exported
from sqlalchemy.exc import DBAPIError

from orchestrator.errors import ConfigError
from orchestrator.worker.engine.database import (
    engine_of,
    is_postgres,
    migrate,
    postgres,
    unreachable,
)
from orchestrator.worker.engine.jobs import (
    EVENTS,
    JOBS,
    MIDDLE,
    NAME,
    ONCE,
    QUEUES,
    RECOVERABLE,
    WORKER,
    WORKERS,
    Entry,
    Order,
    entry_of,
)
from orchestrator.worker.engine.log import quiet

FOLLOW_S = 0.1


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
            self._engine = None if is_postgres(url) else engine_of(url)
            self._client = self._opened(listens=listens)
            if not self._ready():
                migrate(url)
        except ConfigError:
            raise
        except Exception as error:
            if self._engine is not None:
                self._engine.dispose()
            raise unreachable(url, error) from error

    def _opened(self, *, listens: bool) -> DBOSClient:
        return DBOSClient(
            system_database_url=postgres(self.url) if is_postgres(self.url) else None,
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
            "workflow_name": RECOVERABLE if order.recoverable else ONCE,
            "queue_name": order.queue,
            "workflow_id": order.job_id,
            "workflow_id_reuse_policy": "reject",
            "queue_partition_key": order.needs,
            "priority": MIDDLE - order.priority,
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
        return entry_of(found[0]) if found else None

    def named(self, part: str) -> list[Entry]:
        """The jobs whose id begins or ends with this."""
        begun = self._client.list_workflows(
            name=[ONCE, RECOVERABLE],
            workflow_id_prefix=part,
            load_input=False,
            load_output=False,
        )
        if begun:
            return [entry_of(one) for one in begun]
        return [one for one in self.entries() if one.job_id.endswith(part)]

    def entries(
        self, *, states: Sequence[str] | None = None, limit: int | None = None
    ) -> list[Entry]:
        """Jobs, the oldest first; of many the latest. `states` are the engine's words."""
        found = self._client.list_workflows(
            name=[ONCE, RECOVERABLE],
            status=list(states) if states is not None else None,
            limit=limit,
            sort_desc=True,
            load_input=False,
            load_output=False,
        )
        return [entry_of(one) for one in reversed(found)]

    def of_worker(self, worker: str, *, running: bool = False) -> list[Entry]:
        """The jobs that a worker took last, or those of them that are not over."""
        found = self._client.list_workflows(
            name=[ONCE, RECOVERABLE],
            executor_id=worker,
            status="PENDING" if running else None,
            load_input=False,
            load_output=False,
        )
        return [entry_of(one) for one in found]

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
            job_id, EVENTS, offset=offset, polling_interval_sec=FOLLOW_S
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
                "workflow_name": WORKER,
                "queue_name": WORKERS,
                "workflow_id": worker,
                "attributes": dict(notes),
            }
            self._client.enqueue(options)
            return
        self._client.update_workflow_attributes(worker, dict(notes))

    def announced(self) -> dict[str, Mapping[str, object]]:
        """The entries of all workers, also of those that died since."""
        found = self._client.list_workflows(name=WORKER, load_input=False, load_output=False)
        return {one.workflow_id: one.attributes or {} for one in found}
