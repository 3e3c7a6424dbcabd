"""The place where a task's runs work: which commit they start from, and the work tree of each, from
making it to removing it when its content is safe.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import anyio

from orchestrator.errors import OrchestrateError
from orchestrator.journal import Tree
from orchestrator.process import Reaper
from orchestrator.workspace.git import Git
from orchestrator.workspace.repository import (
    Repository,
    copied_index,
    head,
    locate,
    uncommitted,
    view,
    with_settings,
)
from orchestrator.workspace.submodules import fill, pointers
from orchestrator.workspace.worktree import (
    Kept,
    after_setup,
    branch_name,
    copy_along,
    keep,
    make_tree,
    merged,
    message,
    refuse_taken,
    remove_tree,
    take_uncommitted,
)

SAVE_S = 120.0
"""How long saving and removing a work tree may take when everything is being ended."""


@dataclass(frozen=True, kw_only=True)
class Ground:
    """What the runs of a job stand on: the user's repository, the commit that tasks without needs
    start from, and what is to be said about it.
    """

    repository: Repository
    workspace: Path
    base: str
    trees: Path
    notes: tuple[str, ...] = ()

    @property
    def inside(self) -> str:
        """The workspace's path in the repository."""
        return str(self.workspace.relative_to(self.repository.top))


async def ground(
    reaper: Reaper,
    workspace: Path,
    *,
    state: Path,
    environ: Mapping[str, str],
    include_uncommitted: bool = False,
    exclude: Sequence[str] = (),
) -> Ground | None:
    """What runs in this folder (absolute, resolved) start from; None if it is in no repository, or
    ignored there. `exclude`: patterns of files that are not taken along.

    Raises InputError if there is a repository that no work tree can be made from.
    """
    found = locate(workspace)
    if found is None:
        return None
    trees = state / "trees"
    repository = await with_settings(reaper, found, trees, environ)
    within = (state,) if state.is_relative_to(repository.top) else ()
    ours = tuple(str(path.relative_to(repository.top)) for path in within)
    private = not include_uncommitted
    async with view(reaper, repository, trees, private=private, exclude=exclude) as git:
        if workspace != repository.top and await _ignored(git, workspace):
            return None
        base = await head(git, repository)
        notes = await pointers(git, base)
        if include_uncommitted:
            base = await take_uncommitted(git, base, copied_index(git, repository), *ours)
        else:
            notes = (*_unseen(await uncommitted(git, repository, *ours)), *notes)
    return Ground(repository=repository, workspace=workspace, base=base, trees=trees, notes=notes)


async def _ignored(git: Git, workspace: Path) -> bool:
    asked = ("check-ignore", "-q", "--no-index", str(workspace))
    return (await git.run(*asked, accept=(0, 1))).exit == 0


def _unseen(files: Sequence[str]) -> tuple[str, ...]:
    if not files:
        return ()
    count = "1 uncommitted file is" if len(files) == 1 else f"{len(files)} uncommitted files are"
    return (f"{count} not visible to the agent (--include-uncommitted takes them along)",)


@dataclass(frozen=True, kw_only=True)
class Want:
    """A run that needs a place: the commits of its `needs` in order, what to `copy` along, and for
    a resumed one the `path` where the first run was and the commit `upon` which it stood.
    """

    run_id: str
    name: str
    task: str
    prompt: str
    needs: tuple[str, ...] = ()
    copy: tuple[str, ...] = ()
    path: Path | None = None
    upon: str | None = None


@dataclass(kw_only=True)
class Place:
    """A run's work tree while the run lasts."""

    reaper: Reaper
    repository: Repository
    tree: Tree
    message: str
    notes: tuple[str, ...] = ()
    kept: Kept | None = None
    ended: bool = False

    async def prepared(self) -> None:
        """`setup` is done: what it left is not the agent's work. Raises GitError."""
        self.tree = await after_setup(self.reaper, self.repository, self.tree)

    async def keep(self, patch: Path | None) -> Kept:
        """Make the content a commit on the run's branch, now. Raises GitError."""
        self.kept = await keep(self.reaper, self.repository, self.tree, self.message, patch)
        return self.kept

    async def end(self, patch: Path | None = None) -> str | None:
        """Save what is not saved, then remove the work tree. If it must stay: why.

        Is not cancelled.
        """
        if self.ended:
            return None
        self.ended = True
        why: str | None = f"its content could not be saved within {SAVE_S:g} s"
        with anyio.move_on_after(SAVE_S, shield=True):
            why = await self._end(patch)
        return why and f"the work tree {self.tree.path} stays, because {why}"

    async def _end(self, patch: Path | None) -> str | None:
        try:
            kept = self.kept or await self.keep(patch)
            if not kept.complete:
                return "; ".join(kept.notes)
            await remove_tree(self.repository, self.tree)
        except OrchestrateError as error:
            return str(error)
        return None


@asynccontextmanager
async def place(reaper: Reaper, where: Ground, want: Want) -> AsyncGenerator[Place]:
    """A work tree for a run, from its needs, else from the ground's commit.

    It is gone at the end of the block, its content in the run's branch, unless it cannot be made
    safe (`Place.end` says why). Raises InputError, ConflictError.
    """
    made = await _made(reaper, where, want)
    try:
        yield made
    finally:
        await made.end()


async def _made(reaper: Reaper, where: Ground, want: Want) -> Place:
    repository = where.repository
    async with view(reaper, repository, where.trees) as git:
        branch = branch_name(want.name, want.task, want.run_id)
        await refuse_taken(git, branch)
        tree = Tree(
            path=want.path or where.trees / want.run_id,
            repository=repository.top,
            inside=where.inside,
            start=await merged(git, want.needs) if want.needs else where.base,
            upon=want.upon or where.base,
            branch=branch,
        )
        await make_tree(git, repository, tree)
        try:
            notes = await fill(git, repository, tree.path, tree.start)
            copied = await copy_along(tree, where.workspace, want.copy)
        except BaseException:
            with anyio.CancelScope(shield=True):
                await remove_tree(repository, tree)
            raise
    return Place(
        reaper=reaper,
        repository=repository,
        tree=replace(tree, copied=copied),
        message=message(want.prompt, want.name, want.task, want.run_id),
        notes=(*where.notes, *notes),
    )
