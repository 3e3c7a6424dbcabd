"""The groups that are to be ended, also when the reaper is gone."""

from __future__ import annotations

import mmap

_SLOTS = 16 * 1024


class Groups:
    """The groups that are to be ended, in memory that guard and reaper share: the guard must know
    them when the reaper was killed. One slot each, so that none is ever half written.
    """

    def __init__(self) -> None:
        self._slots = memoryview(mmap.mmap(-1, 4 * _SLOTS)).cast("i")
        self._free = list(range(_SLOTS))
        self._taken: dict[int, int] = {}

    def note(self, groups: set[int]) -> None:
        """These are to be ended, and no others."""
        for group in self._taken.keys() - groups:
            slot = self._taken.pop(group)
            self._slots[slot] = 0
            self._free.append(slot)
        for group in groups - self._taken.keys():
            if self._free:
                self._taken[group] = slot = self._free.pop()
                self._slots[slot] = group

    def noted(self) -> set[int]:
        """What stands there now."""
        return set(self._slots.tolist()) - {0}
