"""Where a supervisor may be used: within its block, in the event loop that entered it.

Everywhere else it says so, instead of waiting for an event that another loop has.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Generator
from contextlib import contextmanager

import anyio
import anyio.lowlevel

from orchestrator.errors import SupervisionError

_ELSEWHERE = (
    "A Supervisor belongs to the event loop that entered it: make one here, or hand the work over "
    "(anyio.from_thread.run, asyncio.run_coroutine_threadsafe, loop.call_soon_threadsafe)."
)


class Lifetime:
    """From entering to leaving a supervisor's block, and the jobs that it has meanwhile."""

    def __init__(self) -> None:
        self._loop: object = None
        self._home: tuple[int, int] | None = None
        self._over = False
        self._jobs = 0
        self._idle = anyio.Event()

    def begin(self) -> None:
        """Raises SupervisionError if it has begun already, or there is no event loop."""
        if self._home is not None:
            raise SupervisionError(
                "the supervisor was entered before: each is for one `async with`",
                hint="Share the one that is entered, or make another.",
            )
        self._loop, self._home = _loop(), _here()
        self._idle = anyio.Event()

    def end(self) -> None:
        """No job begins any more."""
        self._over = True
        if self._jobs == 0:
            self._idle.set()

    def forget(self) -> None:
        """It was entered in vain."""
        self._home, self._loop = None, None

    @property
    def forked(self) -> bool:
        """Whether this is a copy in another process, where nothing of it is ours to end."""
        return self._home is not None and self._home[0] != os.getpid()

    def check_place(self) -> None:
        """Raises SupervisionError in another process or thread than that which entered it."""
        if self.forked:
            raise SupervisionError(
                "the supervisor was entered before this process was forked",
                hint="Enter one in each process, after the fork.",
            )
        if self._home is not None and self._home != _here():
            raise SupervisionError("the supervisor runs in another thread", hint=_ELSEWHERE)

    @contextmanager
    def job(self) -> Generator[None]:
        """A job that is on. Raises SupervisionError outside the block, or in another loop."""
        self._check()
        self._jobs += 1
        try:
            yield
        finally:
            self._jobs -= 1
            if self._over and self._jobs == 0:
                self._idle.set()

    async def idle(self, limit_s: float) -> None:
        """Until no job is on, after the end; `limit_s` at most."""
        with anyio.move_on_after(limit_s):
            await self._idle.wait()

    def _check(self) -> None:
        if self._home is None:
            raise SupervisionError(
                "the supervisor is not running: use `async with Supervisor(...)`"
            )
        self.check_place()
        if self._loop is not _loop():
            raise SupervisionError("the supervisor runs in another event loop", hint=_ELSEWHERE)
        if self._over:
            raise SupervisionError(
                "the supervisor has ended: its `async with` block was left",
                hint="Work within the block, or make another Supervisor.",
            )


def _here() -> tuple[int, int]:
    return os.getpid(), threading.get_ident()


def _loop() -> object:
    try:
        return anyio.lowlevel.current_token().native_token
    except RuntimeError as error:
        raise SupervisionError(
            "there is no running event loop", hint="Use `asyncio.run` or `anyio.run`."
        ) from error
