"""The engine's log: its warnings are ours."""

from __future__ import annotations

import logging

from orchestrator.telemetry import warn
from orchestrator.worker.engine.jobs import NotOursError


class _Log(logging.Handler):
    """The engine's warnings as ours; with a handler there, it adds none of its own."""

    def emit(self, record: logging.LogRecord) -> None:
        warn("the queue's engine", said=record.getMessage())


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
