"""Looks at the folders that runs work in: before a run, and after it, to see what it changed.

Git has to read all that changed since the last look, and takes some processes for it. So the runs
that work in one folder at the same time share the repository that is written to, and a look serves
all who asked for one before it began.
"""

from __future__ import annotations

import shutil
from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import anyio
from anyio import to_thread

from orchestrator.events import Changes
from orchestrator.process import Reaper
from orchestrator.workspace.snapshot import Snapshot, changes, root_of, snapshot, with_files


class Look:
    """A folder that is looked at, by as many as work in it."""

    def __init__(self, workspace: Path, store: Path, ours: Path) -> None:
        self.workspace = workspace
        self.store = store
        self.users = 0
        self._ours = ours
        self._root: Path | None = None
        self._last: Snapshot | None = None
        self._looking = anyio.Lock()
        self._asked = self._served = 0

    async def before(self, reaper: Reaper, files: Sequence[str] = ()) -> Before:
        """How the folder is now. `files` of it are seen even if git ignores them. Raises
        GitError.
        """
        found = await self.now(reaper)
        return Before(look=self, found=with_files(found, self.workspace, files))

    async def now(self, reaper: Reaper) -> Snapshot:
        """How the folder is at some moment after this was called. Raises GitError."""
        self._asked += 1
        mine = self._asked
        async with self._looking:
            if self._last is None or self._served < mine:
                serves = self._asked
                if self._root is None:
                    self._root = await root_of(reaper, self.workspace, self.store)
                self._last = await snapshot(
                    reaper, self._root, self.store, ours=self._ours, before=self._last
                )
                self._served = serves
            return self._last


@dataclass(frozen=True, kw_only=True)
class Before:
    """How a folder was before a run."""

    look: Look
    found: Snapshot

    async def changes(self, reaper: Reaper, patch: Path) -> Changes:
        """What changed since; the whole diff goes to `patch` (0600). Raises GitError."""
        return await changes(reaper, self.found, await self.look.now(reaper), patch)


class Looks:
    """The folders that are looked at now."""

    def __init__(self) -> None:
        self._folders: dict[Path, Look] = {}

    @asynccontextmanager
    async def at(self, workspace: Path, store: Path, *, ours: Path) -> AsyncGenerator[Look]:
        """What looks at a folder, as long as the block lasts. `store` is where our repository is
        made, if nobody has one; what is below `ours` is not seen.
        """
        look = self._folders.setdefault(workspace, Look(workspace, store, ours))
        look.users += 1
        try:
            yield look
        finally:
            look.users -= 1
            if not look.users:
                del self._folders[workspace]
                with anyio.CancelScope(shield=True):
                    await to_thread.run_sync(shutil.rmtree, look.store, True)  # noqa: FBT003
