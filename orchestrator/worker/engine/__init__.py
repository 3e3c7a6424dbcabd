"""The queue's engine, DBOS Transact: all of its names stand in this package and nowhere else.

`Access` is what a client needs: enqueue, look, cancel, follow. `employed` runs jobs. Importing this
takes over a second: whoever needs it imports it late.
"""

from orchestrator.worker.engine.access import FOLLOW_S, Access
from orchestrator.worker.engine.database import failed, is_postgres, sqlite_file
from orchestrator.worker.engine.employing import App, Body, Write, employed
from orchestrator.worker.engine.jobs import (
    CHILDREN,
    JOBS,
    NAME,
    QUEUES,
    Entry,
    NotOursError,
    Order,
    State,
)
from orchestrator.worker.engine.taking import POLL_S

__all__ = [
    "CHILDREN",
    "FOLLOW_S",
    "JOBS",
    "NAME",
    "POLL_S",
    "QUEUES",
    "Access",
    "App",
    "Body",
    "Entry",
    "NotOursError",
    "Order",
    "State",
    "Write",
    "employed",
    "failed",
    "is_postgres",
    "sqlite_file",
]
