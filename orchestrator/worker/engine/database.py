"""The queue's database, SQLite or PostgreSQL: these are told apart here."""

from __future__ import annotations

import os
import sqlite3
import time
from pathlib import Path

import sqlalchemy as sa
from dbos import DBOS
from dbos._error import DBOSException  # not exported
from dbos._utils import retriable_postgres_exception
from sqlalchemy import event
from sqlalchemy.exc import ArgumentError, OperationalError, SQLAlchemyError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError

from orchestrator.errors import ConfigError, QueueError

_BUSY_MS = 30_000
_CONNECT_S = 10


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


def engine_of(url: str) -> sa.Engine:
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


def postgres(url: str) -> str:
    """As the engine wants it; a host that does not answer is given up after a while."""
    told = "postgresql://" + url.partition("://")[2]
    if "connect_timeout=" in told:
        return told
    return f"{told}{'&' if '?' in told else '?'}connect_timeout={_CONNECT_S}"


def migrate(url: str) -> None:
    """Make the engine's tables, if they are not there."""
    if is_postgres(url):
        DBOS.migrate(postgres(url))
        return
    engine = engine_of(url)
    with engine.connect():  # the journal's mode stays with the file
        pass
    engine.dispose()
    DBOS.migrate(f"sqlite:///{sqlite_file(url)}")


def unreachable(url: str, error: Exception) -> ConfigError:
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
