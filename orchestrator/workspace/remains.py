"""What runs leave in a repository, and what to do with it: their branches, and the work trees of
runs that were cut off.
"""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from anyio import to_thread

from orchestrator import private
from orchestrator.errors import InputError, JournalError, OrchestrateError
from orchestrator.journal import (
    Record,
    Tree,
    list_runs,
    make_private,
    read_outcome,
    read_record,
    running,
)
from orchestrator.process import Reaper
from orchestrator.workspace.deliver import apply
from orchestrator.workspace.git import Git
from orchestrator.workspace.repository import VIEW, Repository, locate, view, with_settings
from orchestrator.workspace.worktree import BRANCHES, held, keep, message, remove_tree, tip_of

_FRESH_S = 600.0
# A work tree without a record, or a view, is perhaps being made by another process.


@dataclass(frozen=True, kw_only=True)
class Remain:
    """Something that was found: what it is, what it holds, and whether it is gone now."""

    what: str
    holds: str
    removed: bool


@dataclass(frozen=True, kw_only=True)
class Desk:
    """What is worked with: processes, the state folder, the user's environment."""

    reaper: Reaper
    state: Path
    environ: Mapping[str, str]

    @property
    def trees(self) -> Path:
        """Where work trees are."""
        return self.state / "trees"


async def _repository(desk: Desk, top: Path) -> Repository:
    """Raises InputError if there is none any more."""
    top = _there(desk, top)
    found = locate(top) if top.is_dir() else None
    if found is None:
        raise InputError(f"the repository {top} is gone")
    return await with_settings(desk.reaper, found, desk.trees, desk.environ)


def _there(desk: Desk, top: Path) -> Path:
    """The work tree that a run's was made from. A sub-task's was made from its parent's: when that
    is gone, what the parent's was made from.
    """
    seen: set[Path] = set()
    while not top.is_dir() and top.parent == desk.trees and top not in seen:
        seen.add(top)
        try:
            tree = read_record(desk.state / "runs" / top.name).tree
        except JournalError:
            break
        top = top if tree is None else tree.repository
    return top


# --- the result of a run -------------------------------------------------------------------------


async def diff(desk: Desk, folder: Path) -> bytes:
    """What a run changed, from its branch; from its record if the branch is gone. Raises
    InputError.
    """
    record = read_record(folder)
    if record.tree is not None:
        repository = await _repository(desk, record.tree.repository)
        async with view(desk.reaper, repository, desk.trees) as git:
            tip = await tip_of(git, _branch(folder, record.tree))
            if tip is not None:
                plain = ("--no-ext-diff", "--no-textconv", "--no-color", "--submodule=short")
                return await git("diff", *plain, record.tree.start, tip)
    try:
        return private.read(folder / "diff.patch")
    except FileNotFoundError:
        raise InputError(f"run {record.run_id} changed nothing that is on record") from None


def _branch(folder: Path, tree: Tree) -> str:
    outcome = read_outcome(folder)
    changes = outcome.changes if outcome else None
    return (changes.branch if changes else None) or tree.branch


async def bring(desk: Desk, folder: Path) -> tuple[Path, list[str]]:
    """Apply a run's work to the user's files: where, and which. Raises InputError, NotAppliedError,
    ConflictError.
    """
    tree = _tree_of(read_record(folder))
    repository = await _repository(desk, tree.repository)
    async with view(desk.reaper, repository, desk.trees) as git:
        tip = await _tip(git, folder, tree)
    files = await apply(desk.reaper, repository, desk.trees, upon=tree.upon, tips=(tip,))
    return repository.top, files


async def discard(desk: Desk, folder: Path) -> str:
    """Delete a run's branch; its name. Raises InputError."""
    tree = _tree_of(read_record(folder))
    if running(folder):
        raise InputError(f"run {folder.name} still goes on")
    repository = await _repository(desk, tree.repository)
    async with view(desk.reaper, repository, desk.trees) as git:
        branch = _branch(folder, tree)
        await _delete(git, repository, branch, await _tip(git, folder, tree))
    return branch


def _tree_of(record: Record) -> Tree:
    if record.tree is None:
        raise InputError(
            f"run {record.run_id} worked in {record.task.workspace} itself: it has no branch"
        )
    return record.tree


async def _tip(git: Git, folder: Path, tree: Tree) -> str:
    branch = _branch(folder, tree)
    tip = await tip_of(git, branch)
    if tip is None:
        text = f"run {folder.name} has no branch {branch}: it changed nothing, or it was deleted"
        raise InputError(text, hint="If it was cut off: `orchestrate runs prune` saves its work.")
    return tip


async def _delete(git: Git, repository: Repository, branch: str, tip: str) -> None:
    heads = (repository.common, *(repository.common / "worktrees").glob("*"))
    for head in heads:
        try:
            at = (head / "HEAD").read_bytes()
        except OSError:
            continue
        if at.strip() == b"ref: refs/heads/" + os.fsencode(branch):
            raise InputError(f"the branch {branch} is checked out in {head}: switch to another")
    await git("update-ref", "-d", f"refs/heads/{branch}", tip)


# --- what a crash left ---------------------------------------------------------------------------


async def look_into(desk: Desk, folder: Path) -> Remain | None:
    """The work tree of a run and what it holds; None if it has none (any more). Raises
    JournalError.
    """
    tree = read_record(folder).tree
    if tree is None or not os.path.lexists(tree.path):
        return None
    try:
        changes = await held(desk.reaper, await _repository(desk, tree.repository), tree)
    except OrchestrateError as error:
        return Remain(what=str(tree.path), holds=f"it cannot be told: {error}", removed=False)
    where = f"in {changes.branch}" if changes.branch else "in no branch yet"
    count, lines = len(changes.files), f"+{changes.insertions} -{changes.deletions}"
    holds = f"{count} changed file(s), {lines}, {where}" if count else "nothing was changed"
    return Remain(what=str(tree.path), holds=holds, removed=False)


async def prune(
    desk: Desk, *, force: bool = False, dry_run: bool = False, here: Path | None = None
) -> list[Remain]:
    """Save the work of runs that were cut off in their branches and remove their work trees; remove
    branches of runs without a record whose work is in HEAD.

    `force` removes also what cannot be saved. `here`: a folder whose repository is looked into,
    too. Runs that go on are left alone.
    """
    make_private(desk.trees)
    records = _records(desk.state / "runs")
    found = [
        remain
        for path in sorted(desk.trees.iterdir())
        if (remain := await _prune_one(desk, path, records, force=force, dry_run=dry_run))
    ]
    tops = {_there(desk, one.tree.repository) for _, one in records if one.tree is not None}
    for top in sorted(tops | ({here} if here else set())):
        found += await _prune_branches(desk, top, records, force=force, dry_run=dry_run)
    return found


async def save(desk: Desk, folder: Path) -> str | None:
    """Save the work of one run that was cut off in its branch, and remove its work tree. The commit
    that the work ended as; None: it had no work tree, or changed nothing. Raises InputError.
    """
    record = read_record(folder)
    if record.tree is None:
        return None
    make_private(desk.trees)
    await _prune_one(desk, record.tree.path, [(folder, record)], force=False, dry_run=False)
    repository = await _repository(desk, record.tree.repository)
    async with view(desk.reaper, repository, desk.trees) as git:
        return await tip_of(git, record.tree.branch)


def _records(runs: Path) -> list[tuple[Path, Record]]:
    found: list[tuple[Path, Record]] = []
    for folder in list_runs(runs):
        try:
            found.append((folder, read_record(folder)))
        except JournalError:
            continue  # `runs list` tells of it
    return found


async def _prune_one(
    desk: Desk,
    path: Path,
    records: Sequence[tuple[Path, Record]],
    *,
    force: bool,
    dry_run: bool,
) -> Remain | None:
    mine = [(folder, one) for folder, one in records if one.tree and one.tree.path == path]
    if not os.path.lexists(path):
        return None  # an index, which went with its work tree
    old = time.time() - path.lstat().st_mtime > _FRESH_S
    if any(running(folder) for folder, _ in mine):
        return None
    if path.name.startswith(VIEW):
        if old and not dry_run:
            await to_thread.run_sync(shutil.rmtree, path, True)  # noqa: FBT003 (ignore_errors)
        return None
    if path.name.endswith((".index", ".index.lock")):
        work = path.with_name(path.name.partition(".")[0])
        if old and not work.exists() and not dry_run:
            path.unlink(missing_ok=True)
        return None
    if not mine and not old and not force:
        return Remain(what=str(path), holds="no run yet; it may be being made", removed=False)
    tree, said = _described(path, mine)
    return await _saved(desk, tree, said, path, force=force, dry_run=dry_run)


def _described(path: Path, mine: Sequence[tuple[Path, Record]]) -> tuple[Tree | None, str]:
    """The work tree and the message of its commit, from its last run's record, else from git's."""
    if mine:
        record = mine[-1][1]
        task = record.task
        said = message(task.prompt, task.name or "task", task.id, record.run_id)
        return record.tree, said
    try:
        admin = Path((path / ".git").read_text().removeprefix("gitdir: ").rstrip("\n"))
        start = (admin / "HEAD").read_text().strip()
    except OSError:
        return None, ""
    branch = f"{BRANCHES}/lost/{path.name[-8:]}"
    tree = Tree(path=path, repository=path, inside="", start=start, upon=start, branch=branch)
    return tree, message("Work of a run without a record", "lost", "task", path.name)


async def _saved(
    desk: Desk, tree: Tree | None, said: str, path: Path, *, force: bool, dry_run: bool
) -> Remain:
    if tree is None:
        return await _forced(path, "nobody knows what it belongs to", force=force)
    try:
        repository = await _repository(desk, tree.repository)
        if dry_run:
            return Remain(what=str(path), holds="work of a run that was cut off", removed=False)
        kept = await keep(desk.reaper, repository, tree, said, None)
        files, branch = len(kept.changes.files), kept.changes.branch
        holds = f"{files} changed file(s), now in {branch}" if branch else "nothing was changed"
        if kept.complete or force:
            await remove_tree(repository, tree)
            return Remain(what=str(path), holds=holds, removed=True)
        return Remain(what=str(path), holds=f"{holds}; {'; '.join(kept.notes)}", removed=False)
    except OrchestrateError as error:
        return await _forced(path, str(error), force=force and not dry_run)


async def _forced(path: Path, why: str, *, force: bool) -> Remain:
    if force:
        await to_thread.run_sync(shutil.rmtree, path, True)  # noqa: FBT003 (ignore_errors)
    return Remain(what=str(path), holds=why, removed=force)


async def _prune_branches(
    desk: Desk,
    top: Path,
    records: Sequence[tuple[Path, Record]],
    *,
    force: bool,
    dry_run: bool,
) -> list[Remain]:
    """Branches of runs of which there is no record."""
    known = {one.tree.branch for _, one in records if one.tree}
    known |= {_branch(folder, one.tree) for folder, one in records if one.tree}
    try:
        repository = await _repository(desk, top)
    except InputError:
        return []
    found: list[Remain] = []
    async with view(desk.reaper, repository, desk.trees) as git:
        asked = ("for-each-ref", "--format=%(refname:lstrip=2) %(objectname)")
        listed = (await git(*asked, f"refs/heads/{BRANCHES}/")).decode().split("\n")
        for line in listed:
            branch, _, tip = line.partition(" ")
            if not branch or branch in known or branch.startswith(f"{BRANCHES}/lost/"):
                continue
            ancestry = ("merge-base", "--is-ancestor", tip, "HEAD")
            merged = (await git.run(*ancestry, accept=(0, 1, 128))).exit == 0
            holds = "its work is in HEAD" if merged else "its work is nowhere else"
            remove = (merged or force) and not dry_run
            try:
                if remove:
                    await _delete(git, repository, branch, tip)
            except InputError as error:
                holds, remove = str(error), False
            found.append(Remain(what=branch, holds=f"no record; {holds}", removed=remove))
    return found
