"""How a run is asked to stop, and what waits is cut short by that."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TypeVar

import anyio

from orchestrator.errors import lone_error
from orchestrator.outcome import Stopped

Found = TypeVar("Found")


class Control:
    """How a run is asked to stop, by the user, a limit or a signal. The first reason holds."""

    def __init__(self) -> None:
        self.requested = anyio.Event()
        self.stopped: Stopped | None = None
        self.why: str | None = None
        self.limit: str | None = None

    def stop(self, stopped: Stopped, why: str, limit: str | None = None) -> None:
        """Ask for a clean stop; `limit` names the limit that was passed. Returns at once."""
        if self.stopped is None:
            self.stopped, self.why, self.limit = stopped, why, limit
            self.requested.set()

    async def until(
        self, work: Callable[..., Awaitable[Found]], *arguments: object
    ) -> Found | None:
        """What `work` gives, or None if it was cancelled because a stop was asked for."""
        found: Found | None = None
        with lone_error():
            async with anyio.create_task_group() as group:
                group.start_soon(_cancel_when, self.requested, group.cancel_scope)
                found = await work(*arguments)
                group.cancel_scope.cancel()
        return found


async def _cancel_when(asked: anyio.Event, scope: anyio.CancelScope) -> None:
    await asked.wait()
    scope.cancel()
