"""How many agents use a model server or a provider at the same time, over all processes of this
machine: files that are locked while they are in use.

The kernel frees the lock of whoever dies. Who waits has a locked ticket that says since when; a
slot goes to the oldest. `flock` has no queue of its own and a thread that blocks in it cannot be
cancelled, so tickets are looked at: at once when this process frees a slot, else every 50 ms to 1 s
- agents hold slots for minutes.
"""

from __future__ import annotations

import fcntl
import os
import re
import time
from collections.abc import AsyncGenerator, Callable, Generator
from contextlib import asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

import anyio

FIRST_POLL_S, LAST_POLL_S = 0.05, 1.0


def _silent(text: str) -> None:
    del text


@dataclass(frozen=True, kw_only=True)
class Room:
    """Where slots are: the name of a server or provider, and how many agents it serves at a
    time.
    """

    name: str
    slots: int


class Slots:
    """The slots of this user's machine, in a folder of the state. Holds nothing by itself."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._freed = anyio.Event()
        self._tickets = 0

    @asynccontextmanager
    async def hold(
        self, room: Room, waits: Callable[[str], None] = _silent
    ) -> AsyncGenerator[Held]:
        """A slot, as long as the block lasts. `waits` is told once if there is none free."""
        held = self.at(room)
        try:
            await held.take(waits)
            yield held
        finally:
            held.give()

    def at(self, room: Room) -> Held:
        """Hands for a slot there, empty."""
        return Held(self, room)

    def taken(self, room: Room) -> int:
        """How many of the slots are in use now. Whoever only asks leaves nothing behind."""
        if not (self._folder / _file_name(room.name)).is_dir():
            return 0
        with self._alone(room) as folder:
            if folder is None:
                return 0  # somebody is just looking: it is only asked to spread the load
            free = _free(folder, room.slots, most=room.slots)
            _close(*free)
            return room.slots - len(free)

    async def _one(self, room: Room, since_ns: int, waits: Callable[[str], None]) -> int:
        """A locked slot, in the order of the tickets. Cancelling it leaves nothing behind."""
        delay = FIRST_POLL_S
        ticket = _Ticket()
        try:
            while (slot := self._try(room, ticket, since_ns)) is None:
                if delay == FIRST_POLL_S:
                    waits(f"waits for a free slot at {room.name} ({room.slots} in use)")
                with anyio.move_on_after(delay):
                    await self._freed.wait()
                delay = min(LAST_POLL_S, delay * 1.5)
            return slot
        finally:
            ticket.end()

    def _try(self, room: Room, ticket: _Ticket, since_ns: int) -> int | None:
        with self._alone(room) as folder:
            if folder is None:
                return None
            if ticket.path is None:
                self._tickets += 1
                name = f"{since_ns:020d}-{os.getpid()}-{id(self)}-{self._tickets}"
                ticket.begin(folder / "queue" / name)
            before = _waiting_before(ticket, room.slots)
            free = _free(folder, room.slots, most=before + 1) if before < room.slots else []
            if len(free) <= before:
                _close(*free)
                return None
            _close(*free[1:])
            ticket.end()
            return free[0]

    def _free(self, slot: int) -> None:
        _close(slot)
        self._freed.set()
        self._freed = anyio.Event()

    @contextmanager
    def _alone(self, room: Room) -> Generator[Path | None]:
        """The place's folder, with nobody else looking; None if somebody is."""
        folder = self._folder / _file_name(room.name)
        self._folder.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        for each in (self._folder, folder, folder / "queue"):
            each.mkdir(exist_ok=True, mode=0o700)
        guard = _open(folder / "guard")
        try:
            yield folder if _locked(guard) else None
        finally:
            _close(guard)


class Held:
    """A slot in somebody's hands."""

    def __init__(self, slots: Slots, room: Room) -> None:
        self._slots = slots
        self._room = room
        self._since_ns = time.time_ns()
        self._slot: int | None = None

    @property
    def full(self) -> bool:
        """Whether there is a slot in them."""
        return self._slot is not None

    async def take(self, waits: Callable[[str], None] = _silent) -> None:
        """Wait for a slot. Whoever gave one up keeps its age, and so goes before newcomers."""
        self._slot = await self._slots._one(self._room, self._since_ns, waits)  # noqa: SLF001

    def give(self) -> None:
        """Let others have it."""
        slot, self._slot = self._slot, None
        if slot is not None:
            self._slots._free(slot)  # noqa: SLF001

    @asynccontextmanager
    async def lent(self) -> AsyncGenerator[None]:
        """Without the slot while the block lasts: who waits for a child must not keep it from
        one.
        """
        self.give()
        yield
        await self.take()


class _Ticket:
    """A place in the queue: a file that is locked while its owner lives."""

    def __init__(self) -> None:
        self.path: Path | None = None
        self._opened: int | None = None

    def begin(self, path: Path) -> None:
        self.path, self._opened = path, _open(path)
        _locked(self._opened)

    def end(self) -> None:
        if self.path is not None and self._opened is not None:
            self.path.unlink(missing_ok=True)
            _close(self._opened)
            self._opened = None


def _waiting_before(ticket: _Ticket, enough: int) -> int:
    """How many older tickets have a living owner, counted up to `enough`. Dead ones go."""
    path = ticket.path
    if path is None:
        return 0
    count = 0
    for name in sorted(os.listdir(path.parent)):  # noqa: PTH208 (names are all that is wanted)
        if name >= path.name or count >= enough:
            break
        with suppress(FileNotFoundError):
            other = os.open(path.with_name(name), os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW)
            if _locked(other):
                path.with_name(name).unlink(missing_ok=True)
            else:
                count += 1
            _close(other)
    return count


def _free(folder: Path, slots: int, *, most: int) -> list[int]:
    """Slots that nobody has, locked and open, as many as are wanted."""
    free: list[int] = []
    for number in range(slots):
        if len(free) == most:
            break
        opened = _open(folder / str(number))
        if _locked(opened):
            free.append(opened)
        else:
            _close(opened)
    return free


def _open(path: Path) -> int:
    return os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)


def _locked(opened: int) -> bool:
    try:
        fcntl.flock(opened, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _close(*opened: int) -> None:
    for one in opened:
        os.close(one)


def _file_name(name: str) -> str:
    """A folder's name for any text; equal only for equal texts."""
    plain = re.sub(r"[^A-Za-z0-9.]+", "-", name).strip("-.")[:40]
    return f"{plain}-{sha256(name.encode('utf-8', 'replace')).hexdigest()[:12]}"
