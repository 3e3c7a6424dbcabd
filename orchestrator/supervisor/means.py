"""What the attempts of a job are made with."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from orchestrator.adapter import Agent
from orchestrator.budget import Ledger
from orchestrator.config import Config
from orchestrator.events import Update, Usage
from orchestrator.gateway import Gateways
from orchestrator.journal import Tree
from orchestrator.run.attempt import Reaper
from orchestrator.run.control import Control
from orchestrator.run.questions import Person
from orchestrator.run.recorder import Publish
from orchestrator.slots import Slots
from orchestrator.supervisor.desk import Desk
from orchestrator.task import DEFAULT_LIMITS, Limits, Task
from orchestrator.workspace.deliver import Delivery
from orchestrator.workspace.looks import Looks
from orchestrator.workspace.place import Ground

if TYPE_CHECKING:
    from orchestrator.supervisor.children import Do


@dataclass(frozen=True, kw_only=True)
class Continued:
    """What a resumed run goes on from: the run, its agent as it was, the session's usage so far,
    and where it had a work tree to itself that tree and the commit that it ended as.
    """

    run_id: str
    agent: Agent
    before: Usage | None
    tree: Tree | None = None
    commit: str | None = None


def _unheard(update: Update) -> None:
    del update


@dataclass(frozen=True, kw_only=True)
class Means:
    """What the attempts of a job are made with. `control` opens one for each attempt.

    `say` tells what is not of one attempt. `also` does a task that one of them hands on, which it
    asks for at the `desk`. `grounds` are what the tasks stand on that work in work
    trees of their own, `commits` what they came to, `leaves` the tasks that nobody needs. `ledger`
    is where all runs write down what they spend, `looks` sees folders that several may work in,
    `person` answers what agents ask for.
    """

    config: Config
    reaper: Reaper
    control: Callable[[], AbstractContextManager[Control]]
    publish: Publish
    job_id: str
    slots: Slots
    say: Callable[[Update], None] = field(default=_unheard)
    also: Do | None = None
    desk: Desk | None = None
    gateways: Gateways | None = None
    continued: Continued | None = None
    grounds: Mapping[str, Ground] = field(default_factory=dict[str, Ground])
    commits: dict[str, tuple[str, ...]] = field(default_factory=dict[str, tuple[str, ...]])
    leaves: frozenset[str] = frozenset()
    delivery: Delivery = field(default_factory=Delivery)
    ledger: Ledger = field(default_factory=Ledger)
    looks: Looks = field(default_factory=Looks)
    person: Person = field(default_factory=Person)

    def limits_of(self, task: Task) -> Limits:
        """What a task may use: the strictest of all that is said, else what is usual."""
        return task.limits.meet(self.config.limits).else_(DEFAULT_LIMITS)
