"""The queue's engine, DBOS Transact: all of its names stand in this package and nowhere else.

`Access` is what a client needs: enqueue, look, cancel, follow. `employed` runs jobs. Importing this
takes over a second: whoever needs it imports it late.
"""

from orchestrator.worker.engine.access import Access
from orchestrator.worker.engine.database import away, failed, is_postgres, sqlite_file
from orchestrator.worker.engine.employing import App, Write, employed
from orchestrator.worker.engine.jobs import (
    CHILDREN,
    JOBS,
    Entry,
    NotOursError,
    Order,
)
from orchestrator.worker.engine.taking import POLL_S

__all__ = [
    "CHILDREN",
    "JOBS",
    "POLL_S",
    "Access",
    "App",
    "Entry",
    "NotOursError",
    "Order",
    "Write",
    "away",
    "employed",
    "failed",
    "is_postgres",
    "sqlite_file",
]
