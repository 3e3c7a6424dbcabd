"""Bringing the work of runs into the user's own files, as uncommitted changes: all or nothing.

Merged from objects alone; the user's files are written only when that gave no conflict, and their
index, HEAD and branches not at all.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import anyio

from orchestrator.process import Reaper
from orchestrator.workspace.git import Git, GitError
from orchestrator.workspace.place import Place
from orchestrator.workspace.repository import Repository, copied_index, head, view
from orchestrator.workspace.worktree import commit, merge_trees, merged


class NotAppliedError(GitError):
    """The user's files are not in a state to be changed; nothing was touched."""


_FIRST = "Commit or stash your changes, then apply again."


@dataclass
class Delivery:
    """What a job has applied so far: its leaves go to the user's files one after the other."""

    lock: anyio.Lock = field(default_factory=anyio.Lock)
    done: list[str] = field(default_factory=list[str])

    async def deliver(self, place: Place, run_id: str, tip: str) -> str:
        """Apply a run's commit; what is to be said of it. Raises ConflictError."""
        async with self.lock:
            try:
                files = await apply(
                    place.reaper,
                    place.repository,
                    place.tree.path.parent,
                    upon=place.tree.upon,
                    tips=(tip,),
                    before=tuple(self.done),
                )
            except NotAppliedError as error:
                then = f"orchestrate runs apply {run_id[-8:]}"
                return f"not applied: {error}. {error.hint} ({then})"
            self.done.append(tip)
        return f"applied to {place.repository.top}: {len(files)} files, not committed"


async def apply(
    reaper: Reaper,
    repository: Repository,
    trees: Path,
    *,
    upon: str,
    tips: Sequence[str],
    before: Sequence[str] = (),
) -> list[str]:
    """Write what the commits `tips` changed since `upon` into the user's files; the files written.

    The files must be as in HEAD, or as applying the commits `before` left them. Untracked ones are
    left alone, unless they are in the way. Raises NotAppliedError, ConflictError.
    """
    async with view(reaper, repository, trees, private=True) as git:
        own = replace(git, index=copied_index(git, repository))
        base = await git.word("rev-parse", f"{upon}^{{tree}}")
        # Commits on the same base, whatever their history: what is merged is the work alone.
        root = await commit(git, base, b"base\n")
        now = await _grafted(git, await head(git, repository), root)
        if before:
            tree = await merge_trees(git, now, await _grafted(git, await merged(git, before), root))
            now = await commit(git, tree, b"before\n", root)
            await own("read-tree", now)
        await _refuse_dirty(own, repository, now)
        theirs = await _grafted(git, await merged(git, (*before, *tips)), root)
        tree = await merge_trees(git, now, theirs)
        asked = ("diff-tree", "-r", "-z", "--name-only", "--no-renames", now, tree)
        files = [os.fsdecode(path) for path in (await git(*asked)).split(b"\0") if path]
        await _refuse_sparse(own, files)
        try:
            # Else git would also take away what the user has beyond the sparse patterns.
            await own("read-tree", "-m", "-u", "--no-sparse-checkout", now, tree)
        except GitError as error:
            raise NotAppliedError(str(error), hint="Move what is in the way.") from error
    return files


async def _grafted(git: Git, one: str, root: str) -> str:
    return await commit(git, await git.word("rev-parse", f"{one}^{{tree}}"), b"x\n", root)


async def _refuse_dirty(git: Git, repository: Repository, commit: str) -> None:
    await git("update-index", "-q", "--refresh", accept=(0, 1))
    asked = ("--name-only", "-z", "--no-renames", "--ignore-submodules=dirty", commit)
    changed = await git("diff-index", *asked) + await git("diff-index", "--cached", *asked)
    dirty = list(dict.fromkeys(os.fsdecode(path) for path in changed.split(b"\0") if path))
    if dirty:
        more = f" and {len(dirty) - 3} more" if len(dirty) > 3 else ""
        names = f"{', '.join(dirty[:3])}{more}"
        text = f"{repository.top} has uncommitted changes ({names})"
        raise NotAppliedError(text, hint=_FIRST)


async def _refuse_sparse(git: Git, files: Sequence[str]) -> None:
    listed = (await git("ls-files", "-t", "-z")).split(b"\0")
    absent = {os.fsdecode(entry[2:]) for entry in listed if entry.startswith(b"S ")}
    if hidden := [path for path in files if path in absent]:
        text = f"{hidden[0]} was changed, which the sparse checkout leaves out"
        raise NotAppliedError(text, hint="Merge the branch instead, or widen the checkout.")
