"""Who is alive: a worker holds a lease while it lives, and nobody touches the jobs of one that has.

On its machine that is a locked file, which the kernel frees at its death and at no other time. On
PostgreSQL there is a session's advisory lock beside it, for workers on other machines. A worker
that lost that lock cannot know whether others took over: it must end its agents.
"""

from __future__ import annotations

import fcntl
import os
import re
import socket
import time
from collections.abc import AsyncGenerator, Collection, Generator
from contextlib import asynccontextmanager, contextmanager
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING
from uuid import uuid4

import anyio

from orchestrator.journal import make_private
from orchestrator.telemetry import warn

if TYPE_CHECKING:
    from psycopg import AsyncConnection

BEAT_S, ANSWER_S = 1.0, 4.0
LOST_S = 12.0
"""After so long without an answer from the server, a worker gives its jobs up. The server itself
frees the lock of one that it does not reach after a little longer."""

RESTARTED_S = 15.0
"""So long after a start of the server, free locks say nothing: their owners are coming back."""

_KEEP = (
    "-c tcp_keepalives_idle=5 -c tcp_keepalives_interval=5 -c tcp_keepalives_count=3"
    " -c tcp_user_timeout=20000 -c idle_session_timeout=0"
)


def worker_id() -> str:
    """A name that no other worker ever has, and that says where it is."""
    host = re.sub(r"[^A-Za-z0-9.-]", "-", socket.gethostname())[:40] or "worker"
    return f"{host}-{uuid4().hex[:12]}"


class Files:
    """The leases of this machine."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    @contextmanager
    def hold(self, worker: str) -> Generator[None]:
        """Be alive while the block lasts."""
        make_private(self._folder)
        fresh = self._folder / f".{worker}"
        opened = os.open(fresh, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(opened, fcntl.LOCK_EX)
            fresh.rename(self._folder / worker)  # nobody ever sees it free
            yield
        finally:
            os.close(opened)

    def here(self, worker: str) -> bool:
        """Whether it is, or was, a worker of this machine."""
        return (self._folder / worker).exists()

    def dead(self) -> list[str]:
        """Workers that were killed, and whose jobs nobody has looked after yet."""
        try:
            found = sorted(os.listdir(self._folder))  # noqa: PTH208 (names are all that is wanted)
        except FileNotFoundError:
            return []
        return [name for name in found if not name.startswith(".") and not self._locked(name)]

    def forget(self, worker: str) -> None:
        """Its jobs are looked after."""
        (self._folder / worker).unlink(missing_ok=True)

    def _locked(self, worker: str) -> bool:
        try:
            opened = os.open(self._folder / worker, os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW)
        except FileNotFoundError:
            return True  # it has just ended by itself
        try:
            fcntl.flock(opened, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        finally:
            os.close(opened)
        return False


# --- many machines -------------------------------------------------------------------------------


class Session:
    """A worker's advisory lock, and what it says of the others. `lost` is set when others may think
    that this one is dead. Further locks, of slots, live and die with it.
    """

    def __init__(self, url: str, worker: str) -> None:
        self._url = url
        self._key = _key(worker)
        self._connection: AsyncConnection | None = None
        self._started: object = None
        self._answered = time.monotonic()
        self._slots: dict[int, int] = {}
        self._given: set[int] = set()
        self._wake = anyio.Event()
        self.lost = anyio.Event()

    async def slot(self, room: str, count: int) -> int | None:
        """One of so many slots that all workers share; None: there is none free, or no answer."""
        from psycopg import Error

        connection = self._connection
        if connection is None:
            return None
        for key in (_key(f"{room}/{number}") for number in range(count)):
            if key in self._slots:
                continue  # ours: for the server, who has it may take it again
            self._slots[key] = 1
            try:
                with anyio.fail_after(ANSWER_S):
                    cursor = await connection.execute("SELECT pg_try_advisory_lock(%s)", (key,))
                    row = await cursor.fetchone()
            except (Error, TimeoutError):
                row = None
            except BaseException:
                self.give(key)  # cancelled: whether it was taken is not known
                raise
            if row is not None and row[0]:
                return key
            del self._slots[key]
        return None

    def give(self, key: int) -> None:
        """Let others have a slot. Returns at once."""
        self._given.add(key)
        self._wake.set()

    async def dead(self, workers: Collection[str]) -> list[str]:
        """Those of the workers that hold no lock; nobody, while that cannot be said."""
        connection = self._connection
        if not workers or connection is None:
            return []
        from psycopg import Error

        try:
            with anyio.fail_after(ANSWER_S):
                rows = await (await connection.execute(_LOCKS)).fetchall()
        except (Error, TimeoutError):
            return []
        if not rows or float(str(rows[0][1])) < RESTARTED_S:
            return []
        held = {int(str(row[0])) for row in rows if row[0] is not None}
        return [worker for worker in workers if _key(worker) not in held]

    async def keep(self) -> None:
        """Hold the lock until cancelled, or lost."""
        from psycopg import Error

        while not self.lost.is_set():
            try:
                connection = await self._connected()
                try:
                    if await self._taken(connection):
                        self._connection = connection
                        await self._beat(connection)
                finally:
                    with anyio.CancelScope(shield=True):
                        await connection.close()
            except (Error, OSError, TimeoutError) as error:
                if self._gone(error):
                    self._lose(f"no answer from the queue's database: {error}")
            finally:
                self._connection = None
            await anyio.sleep(BEAT_S / 2)

    async def _connected(self) -> AsyncConnection:
        from psycopg import AsyncConnection

        with anyio.fail_after(ANSWER_S):
            return await AsyncConnection.connect(
                self._url,
                autocommit=True,
                application_name="orchestrate-lease",
                connect_timeout=int(ANSWER_S),
                keepalives_idle=2,
                keepalives_interval=2,
                keepalives_count=3,
                options=_KEEP,
            )

    async def _taken(self, connection: AsyncConnection) -> bool:
        row = await (await connection.execute(_TAKE, (self._key,))).fetchone()
        if row is None or not row[0]:
            return False  # the server has yet to see that our last session is over
        if self._started is not None and row[1] == self._started:
            # The server went on without our lock: somebody may have seen that.
            self._lose("the lease's session was ended by the server")
            return False
        self._started, self._answered = row[1], time.monotonic()
        return True

    async def _beat(self, connection: AsyncConnection) -> None:
        for key in set(self._slots) - self._given:  # a new session has none of them
            await connection.execute("SELECT pg_try_advisory_lock(%s)", (key,))
        while True:
            with anyio.move_on_after(BEAT_S):
                await self._wake.wait()
            self._wake = anyio.Event()
            with anyio.fail_after(ANSWER_S):
                await connection.execute("SELECT 1")
                while self._given:
                    key = self._given.pop()
                    self._slots.pop(key, None)
                    await connection.execute("SELECT pg_advisory_unlock(%s)", (key,))
            self._answered = time.monotonic()

    def _gone(self, error: Exception) -> bool:
        """Whether the lock has to be given up. While there is no server, nobody can see it free."""
        state = getattr(error, "sqlstate", None) or ""
        told = str(error).lower()
        if state.startswith("57P") or "refused" in told or "no such file" in told:
            self._answered = time.monotonic()
        return time.monotonic() - self._answered > LOST_S

    def _lose(self, why: str) -> None:
        warn("the lease is lost: this worker ends its agents", why=why)
        self.lost.set()


@asynccontextmanager
async def session(url: str, worker: str) -> AsyncGenerator[Session]:
    """The lock of a worker on PostgreSQL, while the block lasts."""
    held = Session(url, worker)
    async with anyio.create_task_group() as group:
        group.start_soon(held.keep)
        yield held
        group.cancel_scope.cancel()


_TAKE = "SELECT pg_try_advisory_lock(%s), pg_postmaster_start_time()"
_LOCKS = """
SELECT (lock.classid::bigint << 32) | lock.objid::bigint,
       extract(epoch FROM now() - pg_postmaster_start_time())
  FROM (SELECT 1) AS always LEFT JOIN pg_locks AS lock
       ON lock.locktype = 'advisory' AND lock.objsubid = 1 AND lock.granted
   AND lock.database = (SELECT oid FROM pg_database WHERE datname = current_database())
"""


def _key(worker: str) -> int:
    return int.from_bytes(sha256(worker.encode()).digest()[:8], signed=True)
