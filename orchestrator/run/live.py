"""An agent while it runs: its process, what is read of it, and when there is something to do."""

from __future__ import annotations

import time
from collections.abc import Callable, Generator, Iterable
from contextlib import contextmanager
from contextvars import Context, copy_context
from dataclasses import dataclass, field
from functools import partial

import anyio

from orchestrator.adapter import Send
from orchestrator.errors import ReaperLostError
from orchestrator.process import Ended, Process, Ticks
from orchestrator.run.intake import Intake
from orchestrator.run.watch import Watch

TAILS_S = 0.08
# How often is looked whether an agent's own logs have grown.


@dataclass(kw_only=True)
class Live:
    """What a running agent is made of. `step` takes in what it wrote and holds it to its limits,
    all of it or only what stdout has grown by; it runs in the `context` of the run's task, for
    sinks are called by it. `asking`: how many answers of a person's the agent waits for.
    `dismissed`: it was ended when its work was over. `blind`: that its processes cannot be looked
    into was said. `due` is when the next step is, `looked` when the disk was looked at.
    """

    process: Process
    intake: Intake
    watch: Watch
    ended: Ended | None = None
    lost: ReaperLostError | None = None
    step: Callable[[bool], None]
    context: Context = field(default_factory=copy_context)
    failure: Exception | None = None
    woken: bool = False
    leave_s: float | None = None
    asking: int = 0
    dismissed: bool = False
    blind: bool = False
    due: float = 0.0
    looked: float = 0.0

    def __post_init__(self) -> None:
        self._wake = anyio.Event()

    @property
    def over(self) -> bool:
        """Whether its process has ended, or is nobody's any more."""
        return self.ended is not None or self.lost is not None

    @contextmanager
    def followed(self, ticks: Ticks) -> Generator[None]:
        """Have what there is to do done while the block lasts: when it writes, or it is time."""
        stdout, stderr = self.intake.spools
        with (
            ticks.hearing(stdout, partial(self._do, whole=False)),
            ticks.hearing(stderr, partial(self._do, whole=True)),
            ticks.looking(self._look),
        ):
            yield

    def _look(self) -> float:
        """Do what there is to do if it is time; when the next look is due."""
        now, tails = time.monotonic(), self.intake.tails
        if now >= self.due or (tails.any and tails.grown()):
            self._do(whole=True)
        return min(self.due, now + TAILS_S) if tails.any else self.due

    def _do(self, *, whole: bool) -> None:
        """A step, unless the task that follows the agent is about to do it. It is woken only for
        what a task is needed for.
        """
        if self.woken:
            return
        try:
            self.context.run(self.step, whole)
        except Exception as error:  # noqa: BLE001 (raised again by the task, see `sleep`)
            self.failure = error
            self.wake()

    def wake(self) -> None:
        """Have the task that follows the agent do what a task is needed for."""
        self.woken = True
        self._wake.set()

    async def sleep(self) -> None:
        """Until the task is needed. Raises what a step failed with."""
        await self._wake.wait()
        self.woken, self._wake = False, anyio.Event()
        if self.failure is not None:
            raise self.failure

    def rest(self) -> None:
        """Until the next look at the limits, or the moment at which one is passed."""
        now = time.monotonic()
        self.due = now + self.watch.every_s
        if now < self.watch.due:
            self.due = min(self.due, self.watch.due)

    async def send(self, sends: Iterable[Send]) -> bool:
        """Write to the agent. False: it does not read any more."""
        read = True
        for one in sends:
            read = await self.process.send(one.data) and read
            if one.end:
                await self.process.close_stdin()
            if one.leave_s is not None:
                self.leave_s = one.leave_s
        return read

    async def wait(self) -> None:
        """Until its process has ended, or is nobody's any more."""
        try:
            self.ended = await self.process.wait()
        except ReaperLostError as error:
            self.lost = error
        self.wake()
