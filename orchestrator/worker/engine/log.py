"""The engine's log: its warnings are ours."""

from __future__ import annotations

import logging
import re
import time

from orchestrator.telemetry import warn
from orchestrator.worker.engine.jobs import NotOursError

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
