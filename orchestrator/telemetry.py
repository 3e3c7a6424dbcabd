"""The library's log: structlog, loaded when there is something to say. The library never
configures it.
"""

from __future__ import annotations

import sys

_prefer_stderr = False


def warn(text: str, **facts: object) -> None:
    """Log a warning with its facts."""
    import structlog

    if _prefer_stderr and not structlog.is_configured():
        structlog.configure(logger_factory=structlog.PrintLoggerFactory(sys.stderr))
    structlog.get_logger("orchestrate").warning(text, **facts)


def log_to_stderr() -> None:
    """For programs whose stdout is their result: the log goes to stderr, unless it is
    configured.
    """
    global _prefer_stderr  # noqa: PLW0603 (structlog's own configuration is the process's, too)
    _prefer_stderr = True
