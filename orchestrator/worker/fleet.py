"""Slots of model servers and providers over all machines, beside those of this one.

A job holds none: only a run of an agent does, while that runs, and a parent lends its own to its
children. So a limit of 1 never makes one wait for itself, however deep they are.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import anyio

from orchestrator.slots import Room, Slots
from orchestrator.worker.lease import Session

POLL_S = 0.25
_HERE = re.compile(r"(localhost|127\.|\[?::1)", re.IGNORECASE)


def shared(room: Room) -> bool:
    """Whether other machines reach the same: what is at a loopback address is each one's own."""
    return _HERE.match(room.name.rpartition("//")[2]) is None


class FleetSlots(Slots):
    """First a slot of this machine, in the order of those who wait here, then one of all."""

    def __init__(self, folder: Path, session: Session) -> None:
        super().__init__(folder)
        self._session = session
        self._keys: dict[int, int] = {}

    async def _one(self, room: Room, since_ns: int, waits: Callable[[str], None]) -> int:
        slot = await super()._one(room, since_ns, waits)
        if not shared(room):
            return slot
        try:
            told = False
            while (key := await self._session.slot(room.name, room.slots)) is None:
                if not told:
                    waits(f"waits for a slot at {room.name} that other machines have")
                    told = True
                await anyio.sleep(POLL_S)
        except BaseException:
            super()._free(slot)
            raise
        self._keys[slot] = key
        return slot

    def _free(self, slot: int) -> None:
        key = self._keys.pop(slot, None)
        if key is not None:
            self._session.give(key)
        super()._free(slot)
