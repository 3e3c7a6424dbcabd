"""Where the agents of a job ask for sub-tasks: a private socket, and a token for each run.

A sub-task is a task of the same job: its runs share the supervisor's slots, journal and ledger. It
works in a work tree of its own, made from its parent's as it is at that moment. While a run waits
for one, its slot is lent.
"""

from __future__ import annotations

import hmac
import os
import secrets
import shlex
import socket
import stat
import sys
import tempfile
import time
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterable, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import anyio
import anyio.abc
import orjson

from orchestrator import private
from orchestrator.adapter import about_of
from orchestrator.asking import SOCKET, TOKEN, lines, message
from orchestrator.budget import Ledger
from orchestrator.config import Config
from orchestrator.delegation import Ancestor, Parent
from orchestrator.errors import NotUnderstoodError, OrchestrateError, lone_error
from orchestrator.events import Update
from orchestrator.lines import LINE_LIMIT
from orchestrator.run.plan import Plan
from orchestrator.slots import Held, Slots
from orchestrator.task import Limits, McpServer, Task

if TYPE_CHECKING:
    from pydantic import JsonValue

    from orchestrator.supervisor.children import Children, Do, Ways

Bound = TypeVar("Bound", int, float)

NAME = "orchestrate"
"""What the MCP server is called, and the command."""

PATH_MOST = 100
# A socket's path has room for 107 bytes (sockaddr_un), on macOS for 103.

_SHORT = Path("/tmp")  # noqa: S108 (what is made there is 0700)
_MAKING_S = 10.0
"""How old a desk must be for its silence to mean something: a socket is bound first, then heard."""

COMMAND = (sys.executable, "-P", "-m", "orchestrator.cli")
# -P: what an agent wrote into the folder that it works in is not imported.

TOLD = (
    'You may hand a sub-task to another agent with the shell command `orchestrate delegate "PROMPT"'
    " --kind KIND` (search, summary, explain, docs, fix, review, ...; or --agent NAME), which waits"
    " for it and prints its result; `orchestrate delegate --help` tells more. Hand on what another"
    " model does cheaper (a wide search) or better (a review), and do the rest yourself."
)


@dataclass(frozen=True, kw_only=True)
class Above:
    """What a sub-task has from its parent: who is above it, what in the parent's work tree is never
    committed, and whose work tree that is (None: it had none to itself).
    """

    ancestors: tuple[Ancestor, ...] = ()
    copied: tuple[str, ...] = ()
    repository: Path | None = None


class Desk:
    """The desk of one job, while it is open."""

    def __init__(self, folder: Path, taken: Iterable[str]) -> None:
        self.socket = folder / "desk"
        self.programs = folder / "bin"
        self.above: dict[str, Above] = {}
        self.alone = anyio.Lock()
        self._taken = set(taken)
        self._asking: dict[str, Children] = {}

    def id_for(self, parent: str) -> str:
        """A new id for a sub-task."""
        number = 1
        while (id_ := f"{parent[:58]}-{number}") in self._taken:
            number += 1
        self._taken.add(id_)
        return id_

    @asynccontextmanager
    async def asked(self, token: str, ways: Ways) -> AsyncGenerator[None]:
        """Answer whoever has the token, as long as the block lasts; its sub-tasks end with it."""
        from orchestrator.supervisor.children import Children

        with lone_error():
            async with anyio.create_task_group() as group:
                self._asking[token] = Children(ways, group)
                try:
                    yield
                finally:
                    del self._asking[token]
                    group.cancel_scope.cancel()

    async def serve(self, stream: anyio.abc.ByteStream) -> None:
        """One request. Closing the connection takes it back."""
        with suppress(anyio.BrokenResourceError, anyio.ClosedResourceError):
            async with stream, anyio.create_task_group() as group:
                requests = lines(stream)
                line = await anext(requests, None)
                if line is not None:
                    group.start_soon(_until_closed, requests, group.cancel_scope)
                    await stream.send(orjson.dumps(await self._reply(line, stream)) + b"\n")
                group.cancel_scope.cancel()

    async def _reply(self, line: bytes, stream: anyio.abc.ByteStream) -> dict[str, JsonValue]:
        async def progress(told: Mapping[str, JsonValue]) -> None:
            await stream.send(orjson.dumps({"progress": dict(told)}) + b"\n")

        if not line:
            return {"error": f"a request has at most {LINE_LIMIT} bytes", "hint": "Ask for less."}
        match message(line):
            case {"token": str(token), "ask": str(word), "with": dict(parameters)}:
                children = self._of(token)
            case _:
                return {"error": "not a request"}
        if children is None:
            return {"error": "no run is at work that has this token", "hint": "Its run is over."}
        try:
            return {"answer": await children.ask(word, parameters, progress)}
        except OrchestrateError as error:
            understood = not isinstance(error, NotUnderstoodError)
            return {"error": str(error), "hint": error.hint, "understood": understood}

    def _of(self, token: str) -> Children | None:
        for known, children in self._asking.items():
            if hmac.compare_digest(known.encode(), token.encode("utf-8", "replace")):
                return children
        return None


async def _until_closed(requests: AsyncIterator[bytes], scope: anyio.CancelScope) -> None:
    async for _ in requests:
        pass
    scope.cancel()


@asynccontextmanager
async def open_desk(state: Path, taken: Iterable[str]) -> AsyncGenerator[Desk]:
    """A desk, in a folder of its own, 0700, that is gone afterwards. Raises OSError."""
    desk = Desk(_folder(state), taken)
    try:
        _write_command(desk.programs / NAME)
        with lone_error():
            listener = await anyio.create_unix_listener(desk.socket, mode=0o600)
            async with listener, anyio.create_task_group() as group:
                group.start_soon(listener.serve, desk.serve)
                yield desk
                group.cancel_scope.cancel()
    finally:
        _remove(desk.socket.parent)


def _folder(state: Path) -> Path:
    """A new folder for a desk: in the state, or where paths are shorter."""
    sweep(state)
    desks = _desks(state)
    if len(os.fsencode(desks)) + len("/12345678/desk") > PATH_MOST:
        return Path(tempfile.mkdtemp(prefix=_prefix(), dir=_SHORT))
    return private.folder(private.folder(desks) / secrets.token_hex(4), fresh=True)


def _desks(state: Path) -> Path:
    return state.absolute() / "desks"


def _prefix() -> str:
    return f"orchestrate-desk-{os.geteuid()}-"


def sweep(state: Path) -> None:
    """Remove what was left by supervisors that were killed: nobody listens there."""
    for folder in (*_desks(state).glob("*"), *_SHORT.glob(f"{_prefix()}*")):
        with suppress(OSError):  # it is just being removed, or is somebody's whom we leave alone
            status = folder.lstat()
            made = stat.S_ISDIR(status.st_mode) and status.st_uid == os.geteuid()
            if made and time.time() - status.st_mtime > _MAKING_S and _deserted(folder / "desk"):
                _remove(folder)


def _deserted(path: Path) -> bool:
    with socket.socket(socket.AF_UNIX) as probe:
        probe.settimeout(0)
        try:
            probe.connect(str(path))
        except (ConnectionRefusedError, FileNotFoundError):
            return True
        return False


def _remove(folder: Path) -> None:
    for path in (folder / "bin" / NAME, folder / "desk"):
        path.unlink(missing_ok=True)
    for made in (folder / "bin", folder):
        with suppress(OSError):
            made.rmdir()


def _write_command(path: Path) -> None:
    path.parent.mkdir(mode=0o700)
    script = f'#!/bin/sh\nexec {shlex.join(COMMAND)} "$@"\n'
    private.replace(path, script.encode(), mode=0o700)


# --- the part of one run -------------------------------------------------------------------------


@dataclass(kw_only=True)
class Handing:
    """What a run needs to hand on work: opened when its agent starts, `equipped` before."""

    desk: Desk
    config: Config
    slots: Slots
    ledger: Ledger
    do: Do
    check: Callable[[Task], None]
    prompt: str
    token: str = field(default_factory=lambda: secrets.token_urlsafe(32), repr=False)
    waiting: int = 0

    @property
    def env(self) -> dict[str, str]:
        """What tells a process of the agent's where to ask."""
        return {SOCKET: str(self.desk.socket), TOKEN: self.token}

    def variables(self, path: str | None) -> dict[str, str]:
        """The environment of an agent that has the command on its PATH, which was `path`."""
        where = os.pathsep.join(filter(None, (str(self.desk.programs), path or os.defpath)))
        return {**self.env, "PATH": where}

    def server(self) -> McpServer:
        """The same for an agent that takes MCP servers."""
        return McpServer(name=NAME, command=(*COMMAND, "mcp"), env=self.env)

    @asynccontextmanager
    async def open(self, plan: Plan, say: Callable[[Update], None]) -> AsyncGenerator[None]:
        """The run may hand on work while the block lasts."""
        from orchestrator.supervisor.children import Ways  # most runs hand on nothing

        lending = _Lending(plan.held)

        @asynccontextmanager
        async def lent() -> AsyncGenerator[None]:
            self.waiting += 1
            try:
                async with lending.lent():
                    yield
            finally:
                self.waiting -= 1

        ways = Ways(
            config=self.config,
            slots=self.slots,
            parent=lambda asked: self._parent(plan, asked),
            check=self.check,
            adopt=lambda task, parent: self._adopt(task, parent, plan),
            do=self.do,
            say=say,
            lent=lent,
        )
        async with self.desk.asked(self.token, ways), anyio.create_task_group() as group:
            group.start_soon(lending.keep)
            yield
            group.cancel_scope.cancel()

    def _parent(self, plan: Plan, asked: int) -> Parent:
        above = self.desk.above.get(plan.task.id, Above())
        about = about_of(self.config.adapters[plan.agent.adapter], plan.agent)
        itself = Ancestor(agent=plan.agent.name, prompt=self.prompt)
        return Parent(
            run_id=plan.run_id,
            task=replace(plan.task, prompt=self.prompt),
            left=_left(plan, self.ledger),
            ancestors=(*above.ancestors, itself),
            confined=plan.task.allowed in about.enforces,
            asked=asked,
        )

    def _adopt(self, task: Task, parent: Parent, plan: Plan) -> Task:
        id_ = self.desk.id_for(parent.task.id)
        place = plan.place
        self.desk.above[id_] = Above(
            ancestors=parent.ancestors,
            copied=place.tree.copied if place is not None else (),
            repository=place.repository.common if place is not None else None,
        )
        self.ledger.hand_on(parent.task.id, id_, plan.limits)
        return replace(task, id=id_)


def _left(plan: Plan, ledger: Ledger) -> Limits:
    """What is left of a run's limits, and of its job's."""
    spent, all_ = ledger.task(plan.task.id), ledger.job
    limits, job = plan.limits, ledger.limits
    return replace(
        limits,
        wall_s=_less(limits.wall_s, spent.ran_s),
        cost_usd=_less(limits.cost_usd, spent.cost_usd),
        tokens=_less(limits.tokens, spent.tokens),
        steps=plan.task.limits.steps,
    ).meet(
        Limits(
            cost_usd=_less(job.cost_usd, all_.cost_usd),
            tokens=_less(job.tokens, all_.tokens),
        )
    )


def _less(limit: Bound | None, spent: Bound) -> Bound | None:
    return None if limit is None else max(limit - spent, 0)


class _Lending:
    """A slot that is lent while somebody waits, and taken back before the agent goes on."""

    def __init__(self, held: Held | None) -> None:
        self._held = held
        self._waiting = 0
        self._changed = anyio.Event()
        self._back = anyio.Event()

    @asynccontextmanager
    async def lent(self) -> AsyncGenerator[None]:
        self._waiting += 1
        if self._held is not None:
            self._held.give()
        try:
            yield
        finally:
            self._waiting -= 1
            self._changed.set()
        # Who was cancelled does not wait for the slot: `keep` takes it all the same.
        while self._held is not None and not self._held.full and not self._waiting:
            await self._back.wait()

    async def keep(self) -> None:
        """Take the slot back whenever nobody waits any more."""
        held = self._held
        while held is not None:
            self._changed = anyio.Event()
            if self._waiting:
                held.give()
            elif not held.full:
                await held.take()
                self._back.set()
                self._back = anyio.Event()
                continue
            await self._changed.wait()
