"""A run under way: its plan, what it is carried out with, and what is known of it so far."""

from __future__ import annotations

import time
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from pathlib import Path

from orchestrator.adapter import About, Exit, about_of
from orchestrator.config import Config
from orchestrator.errors import DiskFullError, ReaperLostError
from orchestrator.events import Changes, Check, Error, JournalFull, Limit, Update
from orchestrator.journal import Journal
from orchestrator.outcome import Facts, Stopped
from orchestrator.process import Reaper
from orchestrator.run.control import Control
from orchestrator.run.plan import Plan, secrets_of
from orchestrator.run.recorder import Recorder


@dataclass(kw_only=True)
class Run:
    """One run from its first event to its last.

    What `stack` holds open is closed when the run is over; `began` is of `time.monotonic`. `exit`,
    `changes` and `check` are None until there is one. `unheld` is the limit that nothing was
    counted against. `full`: the disk is, and only the last words are written.
    """

    plan: Plan
    config: Config
    reaper: Reaper
    control: Control
    journal: Journal
    recorder: Recorder
    stack: AsyncExitStack
    began: float = field(default_factory=time.monotonic)
    exit: Exit | None = None
    changes: Changes | None = None
    check: Check | None = None
    unheld: str | None = None
    full: bool = False

    @property
    def folder(self) -> Path:
        """Where it is on record."""
        return self.journal.folder

    @property
    def patch(self) -> Path:
        """Where the whole of its changes goes."""
        return self.folder / "diff.patch"

    @property
    def about(self) -> About:
        """What is known of the agent's program."""
        agent = self.plan.agent
        return about_of(self.config.adapters[agent.adapter], agent)

    @property
    def secrets(self) -> tuple[str, ...]:
        """What no record of it may hold."""
        return secrets_of(self.plan, self.config)

    def say(self, *updates: Update) -> None:
        """Put on record what is ours to say. Raises JournalError."""
        self.recorder.say(*updates)

    def facts(self) -> Facts:
        """What its outcome is decided from, as far as it is known."""
        return Facts(
            task=self.plan.task,
            digest=self.recorder.digest,
            exit=self.exit,
            stopped=self.control.stopped,
            stopped_why=self.control.why,
            stopped_limit=self.control.limit,
            changes=self.changes,
            unseen=self.changes is None,
            check=self.check,
            usage=self.recorder.usage,
            unheld=self.unheld,
        )

    def stop_at(self, limit: str, value: float, stopped: Stopped, why: str) -> None:
        """Have it stopped, because `value` is more than the limit allows."""
        self.say(Limit(limit=limit, value=round(value, 3), action="stop"))
        self.control.stop(stopped, why)

    def lose(self, error: ReaperLostError) -> None:
        """The reaper is gone, and with it the agent: nobody's fault in this run."""
        self.control.stop("interrupted", str(error))
        self.say(Error(kind="interrupted", text=str(error)))

    def fill(self, error: DiskFullError) -> None:
        """From here on only the last words are written, with the room that was kept for them.

        Raises JournalError if there is none.
        """
        self.full = True
        self.recorder.write_with(self.journal.append_last)
        self.say(JournalFull(text=str(error), hint=error.hint))
