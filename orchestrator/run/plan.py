"""A run, prepared: what is decided before anything is started, and what is recorded of it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field, replace
from typing import Protocol, TypeAlias

from orchestrator import events
from orchestrator.adapter import Adapter, Agent, Command
from orchestrator.budget import Ledger
from orchestrator.config import Config
from orchestrator.discovery import Use
from orchestrator.events import Auth, Error, Usage
from orchestrator.journal import Record
from orchestrator.redaction import known
from orchestrator.route import Route
from orchestrator.run.questions import Person
from orchestrator.slots import Held
from orchestrator.task import Limits, Task, recorded
from orchestrator.workspace.looks import Looks
from orchestrator.workspace.place import Place

Deliver: TypeAlias = Callable[
    [events.Changes, Sequence[str]], Awaitable[tuple[events.Changes, str]]
]
"""Brings what was changed to where it is wanted, and none of the secrets: gives the changes with
what is to be known of that, and what is to be said.
"""


@dataclass(frozen=True, kw_only=True)
class Plan:
    """A run, prepared: everything decided that can be decided without starting anything.

    `command` was made by the adapter for exactly this task and agent. `recorded` is the agent as
    the record names it (a scripted model server has another address each time). `notes` become
    notices. `auth` is what the agent comes to its model with. `refused`: why it
    is not started at all. `place` is the work tree made for the
    run, if one was; `deliver` brings its commit to where it is wanted.
    `attempt` counts from 1 in the task. `held` are hands for a slot of the model's server, None: it
    has any number. `failures`: how many tool calls in a row may fail.
    `ledger` is where what it spends is written down, with the other runs of its task and job.
    `looks` sees the folders of runs that have no work tree of their own.
    `handing`: its agent may hand on work. `used`: what a gateway says of its model's use. `hidden`
    are more values that no record may hold. `person` answers what its agent asks for.
    """

    job_id: str
    run_id: str
    started: str
    task: Task
    agent: Agent
    recorded: Agent
    adapter: Adapter
    command: Command
    limits: Limits
    routes: tuple[Route, ...] = ()
    before: Usage | None = None
    resumed: str | None = None
    auth: Auth = "none"
    refused: Error | None = None
    notes: tuple[str, ...] = ()
    place: Place | None = None
    deliver: Deliver | None = None
    route: Route | None = None
    attempt: int = 1
    held: Held | None = None
    failures: int | None = None
    ledger: Ledger = field(default_factory=Ledger)
    looks: Looks = field(default_factory=Looks)
    handing: Handing | None = None
    hidden: tuple[str, ...] = ()
    used: Callable[[], Use | None] | None = None
    person: Person = field(default_factory=Person)


class Handing(Protocol):
    """What lets the agent of a run hand on work while it runs."""

    @property
    def waiting(self) -> int:
        """How often the agent waits for sub-tasks now."""
        ...

    def open(
        self, plan: Plan, say: Callable[[events.Update], None]
    ) -> AbstractAsyncContextManager[None]:
        """A block in which it may; all that it handed on ends with it."""
        ...


def record(plan: Plan) -> Record:
    tree = plan.place.tree if plan.place else None
    users = tree.repository / tree.inside if tree else plan.task.workspace
    return Record(
        run_id=plan.run_id,
        job_id=plan.job_id,
        started=plan.started,
        task=replace(recorded(plan.task), workspace=users),
        tree=tree,
        agent=plan.recorded,
        before=plan.before,
        resumed=plan.resumed,
        secrets=_secret_names(plan),
    )


def _secret_names(plan: Plan) -> tuple[str, ...]:
    """Variables whose values no record may hold: the agent's keys, and whatever came by
    `env_from`.
    """
    command = plan.command
    keys = {command.env_from.get(name, name) for name in command.secrets}
    return tuple(sorted(keys.union(plan.task.env_from)))


def secrets_of(plan: Plan, config: Config) -> tuple[str, ...]:
    """Their values, and whatever else in the environment is called a key."""
    return (*known(_secret_names(plan), config.environ), *plan.hidden)
