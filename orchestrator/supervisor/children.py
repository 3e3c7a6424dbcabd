"""The sub-tasks that one agent has handed on: started, waited for, looked at, cancelled.

What may be handed on at all is `delegation`'s to say, how it is done the supervisor's.
"""

from __future__ import annotations

import os
import shlex
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Literal, TypeAlias

import anyio
import anyio.abc

from orchestrator.asking import Answer, Progress
from orchestrator.budget import tokens
from orchestrator.config import Config, agents_for
from orchestrator.console.state import Board, board, fold
from orchestrator.delegation import Asked, Parent, Refused, narrowed
from orchestrator.discovery import offers
from orchestrator.errors import InputError
from orchestrator.events import (
    Event,
    Outcome,
    RunFinished,
    RunStarted,
    Subagent,
    Update,
)
from orchestrator.slots import Slots
from orchestrator.supervisor.requests import (
    Cancel,
    Delegate,
    DelegateMany,
    Result,
    Status,
    meant,
)
from orchestrator.task import Task

if TYPE_CHECKING:
    from pydantic import JsonValue

SIDE_BY_SIDE = 4
"""How many sub-tasks of one agent run at the same time; the others wait for their turn."""

TEXT_MOST = 8000
"""How much of an answer's text is handed back at once, in characters."""

PROGRESS_S, HEARTBEAT_S = 0.5, 10.0
_FILES = 20

_Stage: TypeAlias = Literal["requested", "started", "completed", "failed"]
Do: TypeAlias = Callable[[Task, Callable[[Event], None]], Awaitable[Outcome]]


# --- who hands on --------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class Ways:
    """What delegating is done with. `parent(asked)` is the asking side as it stands now, after
    `asked` sub-tasks. `check` raises InputError for a task that is not valid, `adopt` gives a
    sub-task its id, `do` runs it. `lent` is the block in which the parent waits.
    """

    config: Config
    slots: Slots
    parent: Callable[[int], Parent]
    check: Callable[[Task], None]
    adopt: Callable[[Task, Parent], Task]
    do: Do
    say: Callable[[Update], None]
    lent: Callable[[], AbstractAsyncContextManager[None]]


@dataclass(kw_only=True)
class Child:
    """A sub-task from the moment it was asked for."""

    task: Task
    board: Board
    outcome: Outcome | None = None
    run_id: str | None = None
    last: Outcome | None = None
    scope: anyio.CancelScope = field(default_factory=anyio.CancelScope)
    done: anyio.Event = field(default_factory=anyio.Event)
    changed: anyio.Event = field(default_factory=anyio.Event)
    began: float = field(default_factory=time.monotonic)

    @property
    def doing(self) -> str:
        """What it does now, in a few words."""
        row = self.board.rows[self.task.id]
        who = f"{row.agent}: " if row.agent else ""
        return f"{who}{row.doing}" if row.started else "waiting for its turn"

    def heard(self, event: Event) -> None:
        """Something happened in it."""
        before, self.board = self.doing, fold(self.board, event)
        if self.doing != before:
            self.changed.set()


class Children:
    """The sub-tasks of one agent, as long as that lives: they end with the group."""

    def __init__(self, ways: Ways, group: anyio.abc.TaskGroup) -> None:
        self._ways = ways
        self._group = group
        self._children: dict[str, Child] = {}
        self._turns = anyio.Semaphore(SIDE_BY_SIDE)

    async def ask(
        self, word: str, parameters: Mapping[str, JsonValue], progress: Progress
    ) -> Answer:
        """Answer what an agent asks. Raises InputError: refused, or not to be understood."""
        match meant(word, parameters):
            case Delegate() as wanted:
                child = self._start(wanted.asked())
                if wanted.wait:
                    await self._wait_or_cancel([child], progress)
                return self._told(child)
            case DelegateMany() as many:
                return await self._delegate_many(many, progress)
            case Status(id=id_):
                return self._status(id_)
            case Result(id=id_, wait=wait, offset=offset):
                child = self._known(id_)
                if wait:
                    await self._wait([child], progress)
                return self._told(child, offset)
            case Cancel(id=id_):
                return await self._cancel(self._known(id_))
            case _:
                return {"agents": await offers(self._ways.config, self._ways.slots)}

    async def _delegate_many(self, many: DelegateMany, progress: Progress) -> Answer:
        started: list[Child | Answer] = []
        for wanted in many.tasks:
            try:
                started.append(self._start(wanted.asked()))
            except InputError as error:
                started.append({"status": "refused", "error": str(error), "hint": error.hint})
        if many.wait:
            children = [one for one in started if isinstance(one, Child)]
            await self._wait_or_cancel(children, progress)
        return {"results": [self._told(x) if isinstance(x, Child) else x for x in started]}

    def _status(self, id_: str | None) -> Answer:
        children = self._children.values() if id_ is None else [self._known(id_)]
        return {"tasks": [self._told_shortly(child) for child in children]}

    async def _cancel(self, child: Child) -> Answer:
        child.scope.cancel()
        await child.done.wait()
        return self._told(child)

    def _known(self, id_: str) -> Child:
        for child in self._children.values():
            if id_ in {child.task.id, child.run_id}:
                return child
        known = ", ".join(self._children) or "none was handed on"
        raise InputError(f"no sub-task {id_[:100]!r} of yours", hint=f"Known: {known}.")

    # --- starting and waiting

    def _start(self, asked: Asked) -> Child:
        """Raises InputError if it is refused."""
        ways = self._ways
        parent = ways.parent(len(self._children))
        found = narrowed(parent, asked, agents_for(None, ways.config))
        if isinstance(found, Refused):
            raise InputError(f"refused: {found.text}", hint=found.hint)
        try:
            _refuse_links(parent.task, found)
            ways.check(found)
        except OSError as error:  # a name that is too long, a folder that is closed
            raise InputError(f"refused: {error}", hint="Name what is there.") from error
        task = ways.adopt(found, parent)
        child = Child(task=task, board=board([task.id]))
        self._children[task.id] = child
        self._say(child, "requested", task.agent)
        self._group.start_soon(self._run, child)
        return child

    async def _run(self, child: Child) -> None:
        def heard(event: Event) -> None:
            child.heard(event)
            match event.update:
                case RunStarted():
                    child.run_id = event.run_id
                    self._say(child, "started", event.agent)
                case RunFinished(outcome=outcome):
                    child.last = outcome
                case _:
                    pass

        try:
            with child.scope:
                async with self._turns:
                    child.outcome = await self._ways.do(child.task, heard)
        finally:
            child.outcome = child.outcome or child.last or Outcome(status="cancelled")
            child.run_id = child.outcome.run_id or child.run_id
            self._say(child, "completed" if child.outcome.ok else "failed", child.outcome.agent)
            child.done.set()

    def _say(self, child: Child, status: _Stage, agent: str | None) -> None:
        self._ways.say(
            Subagent(
                id=child.task.id,
                status=status,
                child_agent=agent,
                child_run_id=child.run_id,
                child_task_id=child.task.id,
            )
        )

    async def _wait_or_cancel(self, children: Sequence[Child], progress: Progress) -> None:
        """Who takes the request back does not want the work either."""
        try:
            await self._wait(children, progress)
        except anyio.get_cancelled_exc_class():
            for child in children:
                child.scope.cancel()
            raise

    async def _wait(self, children: Sequence[Child], progress: Progress) -> None:
        async with self._ways.lent(), anyio.create_task_group() as group:
            for child in children:
                group.start_soon(_tell, child, progress)
            for child in children:
                await child.done.wait()
            group.cancel_scope.cancel()

    # --- telling

    def _told_shortly(self, child: Child) -> dict[str, JsonValue]:
        outcome = child.outcome
        return {
            "id": child.task.id,
            "run_id": child.run_id,
            "status": outcome.status if outcome is not None else "running",
            **({} if outcome is not None else {"doing": child.doing}),
            "seconds": round(time.monotonic() - child.began, 1),
        }

    def _told(self, child: Child, offset: int = 0) -> Answer:
        outcome = child.outcome
        if outcome is None:
            return self._told_shortly(child)
        text = outcome.text or ""
        end = offset + TEXT_MOST
        usage = outcome.usage
        answer: Answer = {
            "id": child.task.id,
            "run_id": child.run_id,
            "status": outcome.status,
            "verified": outcome.verified,
            "agent": outcome.agent,
            "model": outcome.model,
            "text": text[offset:end],
            **({"next_offset": end, "text_length": len(text)} if len(text) > end else {}),
            **self._work(outcome, child.task.workspace),
            "cost_usd": None if usage is None else usage.cost_usd,
            "tokens": None if usage is None else tokens(usage),
            "seconds": outcome.duration_s,
        }
        if outcome.error is not None:
            answer |= {"error": outcome.error.text, "hint": outcome.error.hint}
        return answer

    def _work(self, outcome: Outcome, workspace: Path) -> dict[str, JsonValue]:
        """What it changed, and how its parent takes that over."""
        changes = outcome.changes
        if changes is None or not changes.files or outcome.run_id is None:
            return {}
        more = len(changes.files) - _FILES
        told: dict[str, JsonValue] = {
            "files": [*changes.files[:_FILES], *([f"and {more} more"] if more > 0 else [])],
            "insertions": changes.insertions,
            "deletions": changes.deletions,
        }
        if changes.branch is None:
            return told  # it worked in the folder itself
        patch = self._ways.config.state.absolute() / "runs" / outcome.run_id / "diff.patch"
        return {**told, "branch": changes.branch, "take": _take(patch, workspace)}


def _take(patch: Path, workspace: Path) -> str:
    """The command that applies it, at the top: below that, git leaves out what lies beside."""
    tops = (each for each in (workspace, *workspace.parents) if (each / ".git").exists())
    return shlex.join(("git", "-C", str(next(tops, workspace)), "apply", str(patch)))


async def _tell(child: Child, progress: Progress) -> None:
    """What it does, whenever that changes, and that it is alive."""
    while True:
        doing = child.doing
        seconds = round(time.monotonic() - child.began, 1)
        await progress({"id": child.task.id, "doing": doing, "seconds": seconds})
        child.changed = anyio.Event()
        with anyio.move_on_after(HEARTBEAT_S):
            await child.changed.wait()
            await anyio.sleep(PROGRESS_S)


def _refuse_links(parent: Task, child: Task) -> None:
    """What lies inside by its letters must not lead out by a link."""
    root = Path(os.path.realpath(parent.workspace))  # `resolve` raises for links in a circle
    for path in (child.workspace, *(child.workspace / file for file in child.files)):
        if not Path(os.path.realpath(path)).is_relative_to(root):
            raise InputError(
                f"refused: {path} leads out of this task's folder",
                hint=f"Name what is in {root}.",
            )
