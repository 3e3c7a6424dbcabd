"""Submodules and Git LFS in a run's work tree: what can be had without a network is put in, the
rest is said.

A submodule is filled from the user's own clone of it (`.git/modules/NAME`) by the same views. What
an agent changes in one cannot be in a branch of the repository around it: it becomes a patch.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath

from orchestrator.workspace.git import LINK, Git, put, write_tree
from orchestrator.workspace.repository import Repository, view
from orchestrator.workspace.snapshot import compare


@dataclass(frozen=True, kw_only=True)
class Submodule:
    """A submodule at a commit: where it lies, and its name in .gitmodules if it has one."""

    path: str
    commit: str
    name: str | None


async def submodules(git: Git, commit: str) -> tuple[Submodule, ...]:
    """The submodules of a commit, read from its objects."""
    listed = (await git("ls-tree", "-r", "-z", commit)).split(b"\0")
    links = [entry.split(b"\t", 1) for entry in listed if entry.startswith(LINK + b" ")]
    if not links:
        return ()
    names = await _names(git, commit)
    return tuple(
        Submodule(path=path, commit=head.split(b" ")[2].decode(), name=names.get(path))
        for head, path in ((head, os.fsdecode(raw)) for head, raw in links)
    )


async def _names(git: Git, commit: str) -> Mapping[str, str]:
    asked = ("config", "--blob", f"{commit}:.gitmodules", "-z", "--get-regexp", r"\.path$")
    done = await git.run(*asked, accept=(0, 1, 128))  # 128: there is no such file
    lines = (line.split("\n", 1) for line in os.fsdecode(done.stdout).split("\0") if "\n" in line)
    pairs = ((key.removeprefix("submodule.").removesuffix(".path"), path) for key, path in lines)
    return {path: name for name, path in pairs if _safe(name)}


def _safe(name: str) -> bool:
    parts = PurePosixPath(name)
    return bool(name) and not parts.is_absolute() and ".." not in parts.parts


async def fill(git: Git, repository: Repository, root: Path, commit: str) -> tuple[str, ...]:
    """Put the submodules of a commit into the work tree `root`; what is to be said about those that
    are not there.
    """
    missing: list[str] = []
    for module in await submodules(git, commit):
        clone = await _clone_of(git, repository, root, module)
        if clone is None or not _inside(root, module.path):
            missing.append(module.path)
            continue
        async with view(git.reaper, clone, git.folder.parent, private=True) as inner:
            here = replace(inner, root=root / module.path)
            await here("read-tree", "--reset", "-u", module.commit)
    if not missing:
        return ()
    names = ", ".join(missing[:5])
    remedy = "`setup: git submodule update --init` fetches them"
    return (f"submodules without a clone in the repository stay empty: {names} ({remedy})",)


def _inside(root: Path, path: str) -> bool:
    return (root / path).resolve().is_relative_to(root.resolve())


async def _clone_of(
    git: Git, repository: Repository, root: Path, module: Submodule
) -> Repository | None:
    """Our own description of the clone of a submodule that has its commit."""
    if module.name is None:
        return None
    shared = repository.common / "modules" / module.name
    linked = repository.common / "worktrees" / root.name / "modules" / module.name
    for folder in (shared, linked):
        if not (folder / "objects").is_dir() or folder.is_symlink():
            continue
        clone = replace(repository, top=root / module.path, own=folder, common=folder)
        async with view(git.reaper, clone, git.folder.parent, private=True) as inner:
            asked = ("cat-file", "-e", f"{module.commit}^{{tree}}")
            if (await inner.run(*asked, accept=(0, 1, 128))).exit == 0:
                return clone
    return None


async def keep_submodules(
    git: Git, repository: Repository, modules: Sequence[Submodule], patch: Path | None
) -> tuple[tuple[str, ...], bool]:
    """Put what changed in submodules into patches beside `patch`, and their links back in the index
    where they name a commit that only the work tree has.

    What is to be said, and whether that is all there is.
    """
    notes: list[str] = []
    complete = True
    for number, module in enumerate(modules):
        folder = git.root / module.path
        if folder.is_symlink() or not folder.is_dir() or not any(folder.iterdir()):
            continue
        clone = await _clone_of(git, repository, git.root, module)
        if clone is None:
            notes.append(f"nobody can say whether the submodule {module.path} was changed")
            complete = False
            continue
        await put(git, LINK, {module.path: module.commit})
        part = None if patch is None else patch.with_name(f"{patch.stem}-{number}{patch.suffix}")
        async with view(git.reaper, clone, git.folder.parent, private=True) as inner:
            here = replace(inner, root=folder)
            await here("read-tree", module.commit)
            before = await here.word("rev-parse", f"{module.commit}^{{tree}}")
            changes = await compare(here, before, await write_tree(here), part)
        if changes.files:
            where = f"they are in {part}" if part else "nowhere else"
            notes.append(f"changes in the submodule {module.path} are not in the branch: {where}")
            complete = complete and part is not None
    return tuple(notes), complete


async def pointers(git: Git, commit: str) -> tuple[str, ...]:
    """What is to be said if a commit keeps files in Git LFS."""
    asked = ("grep", "-q", "-e", "filter=lfs", commit, "--", ":(glob)**/.gitattributes")
    if (await git.run(*asked, accept=(0, 1))).exit:
        return ()
    text = "files kept in Git LFS are pointers in the agent's work tree"
    return (f"{text} (`setup: git lfs pull` fetches them)",)
