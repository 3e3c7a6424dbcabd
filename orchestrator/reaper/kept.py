"""Processes that may outlive everything."""

from __future__ import annotations

import os

from orchestrator.reaper.table import token_of, tree

TYPE_CHECKING = False
if TYPE_CHECKING:
    from orchestrator.reaper.table import Seen

_HEADER = 31


class Kept:
    """Processes that may outlive everything, in a file that guard and reaper share: the guard must
    know them when the reaper was killed.
    """

    def __init__(self) -> None:
        self._file = os.memfd_create("kept", os.MFD_CLOEXEC)
        self._at, self._size = _HEADER, 0  # where the list stands
        self._runs: dict[bytes, set[tuple[int, int, int]]] = {}

    def note(self, token: bytes, members: list[Seen]) -> None:
        """These are left of the run's tree now; none: it is forgotten."""
        self._runs[token] = {(seen.pid, seen.start, seen.session) for seen in members}
        if not members:
            del self._runs[token]
        lines = [
            b"%d %d %d %s" % (*one, token) for token, some in self._runs.items() for one in some
        ]
        text = b"\n".join(lines)
        # Beside the list that stands there, then one short write that says where: whoever is killed
        # in between leaves the old one or the new one. Of writes of two pages, SIGKILL tore 91 of
        # 400.
        fits_before = _HEADER + len(text) <= self._at
        at = _HEADER if fits_before else self._at + self._size
        os.pwrite(self._file, text, at)
        os.pwrite(self._file, b"%15d %15d" % (at, len(text)), 0)
        self._at, self._size = at, len(text)

    def others(self, members: list[Seen], children: dict[int, list[Seen]]) -> list[Seen]:
        """Those of the members that are not kept: neither noted, nor below such a one, nor in its
        session, nor of its run by their environment.
        """
        noted = [line.split(b" ", 3) for line in self._lines()]
        if not noted:
            return members
        known = {(int(pid), int(start)) for pid, start, _, _ in noted}
        sessions = {int(session) for _, _, session, _ in noted}
        tokens = {token for _, _, _, token in noted}
        roots = [
            seen
            for seen in members
            if (seen.pid, seen.start) in known
            or seen.session in sessions
            or token_of(seen.pid) in tokens
        ]
        spared = {seen.pid for root in roots for seen in tree(root, children)}
        return [seen for seen in members if seen.pid not in spared]

    def _lines(self) -> list[bytes]:
        where = os.pread(self._file, _HEADER, 0).split()
        if not where:
            return []
        at, size = map(int, where)
        return os.pread(self._file, size, at).split(b"\n") if size else []
