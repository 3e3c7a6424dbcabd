"""Tasks that stand in no block of the caller's.

A task group must be left in the task that entered it. A supervisor may be entered in one cell of a
notebook, or in the set-up of a fixture, and left in another: these are different tasks.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import ParamSpec

import anyio

END_S = 60.0
"""What is cancelled has ended in this time: each wait in it is bounded."""

Given = ParamSpec("Given")


class Background:
    """Tasks that run until they end, or `end` is called. Each says by itself what went wrong."""

    def __init__(self) -> None:
        self._tasks: set[asyncio.Task[None]] = set()

    def start(
        self,
        call: Callable[Given, Coroutine[object, object, None]],
        *arguments: Given.args,
        **named: Given.kwargs,
    ) -> None:
        """Run it beside whoever calls this."""
        task = asyncio.get_running_loop().create_task(call(*arguments, **named))
        self._tasks.add(task)  # a loop alone does not keep its tasks from being collected
        task.add_done_callback(self._tasks.discard)

    async def end(self) -> None:
        """Cancel them and wait for their ends."""
        tasks = tuple(self._tasks)
        for task in tasks:
            task.cancel()
        if tasks:
            with anyio.CancelScope(shield=True):
                await asyncio.wait(tasks, timeout=END_S)
