"""Handing on work for a client that is no run of ours: a supervisor of its own, by the user's
configuration. Each sub-task is a job.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager, nullcontext
from dataclasses import replace
from itertools import count
from pathlib import Path

import anyio

from orchestrator.asking import Ask
from orchestrator.config import Config
from orchestrator.delegation import Parent
from orchestrator.discovery import with_nearby
from orchestrator.errors import OrchestrateError, lone_error
from orchestrator.events import Event, Failure, Outcome
from orchestrator.slots import Slots
from orchestrator.supervisor import Supervisor
from orchestrator.supervisor.checking import check_task
from orchestrator.supervisor.children import Children, Ways
from orchestrator.task import DEFAULT_LIMITS, Limits, Task


@asynccontextmanager
async def alone(config: Config, folder: Path) -> AsyncGenerator[Ask]:
    """What answers, while the block lasts; sub-tasks work on the folder, and end with the block."""
    config = await with_nearby(config)
    with lone_error():
        async with Supervisor(config) as supervisor, anyio.create_task_group() as group:
            yield Children(_ways(config, folder, supervisor), group).ask
            group.cancel_scope.cancel()


def _ways(config: Config, folder: Path, supervisor: Supervisor) -> Ways:
    numbers = count(1)

    async def do(task: Task, heard: Callable[[Event], None]) -> Outcome:
        try:
            return await supervisor.run(task, heard)
        except OrchestrateError as error:
            failure = Failure(kind="crashed", text=str(error), hint=error.hint)
            return Outcome(status="failed", error=failure, evidence=[failure.text])

    return Ways(
        config=config,
        slots=Slots(config.state / "slots"),
        parent=lambda _: _client(config, folder),
        check=lambda task: check_task(task, config, None),
        adopt=lambda task, _: replace(task, id=f"sub-{next(numbers)}"),
        do=do,
        say=lambda _: None,
        lent=nullcontext,
    )


def _client(config: Config, folder: Path) -> Parent:
    """The client as a parent: it may do what it likes, and so may ask for anything but less than
    the user's own limits and privacy. How many sub-tasks it has is its own business.
    """
    task = Task(
        prompt="",
        name="mcp",
        workspace=folder.resolve(),
        access=config.defaults.access or "full",
        privacy=config.bounds.privacy,
        delegation=True,
    )
    left = config.limits.else_(Limits(depth=DEFAULT_LIMITS.depth))
    return Parent(
        run_id=None,
        task=task,
        left=replace(left, children=None),
        ancestors=(),
        confined=False,
    )
