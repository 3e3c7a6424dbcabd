"""The work tree: a scratch one made from a template, and what a run changed in one.

A snapshot is a git tree, written by a repository of our own in the run's folder, whose work tree is
the user's. So the user's repository is neither written nor is its configuration (hooks, filters,
fsmonitor: an agent can plant them) ever read, and a folder without git works the same.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path

from anyio import to_thread

from orchestrator import private
from orchestrator.errors import InputError, JournalError
from orchestrator.events import Changes
from orchestrator.process import Reaper
from orchestrator.workspace.git import (
    LINK,
    Git,
    GitError,
    entries,
    environment,
    quoted,
    run_git,
    write_tree,
)

DIFF_LIMIT = 64 * 1024
"""How much of a diff an event carries, in bytes; the run's folder has it whole, in `diff.patch`."""

NESTING, REPOSITORIES = 3, 50
# How deep, and how many in one, repositories inside of a work tree are looked into.
BY_PRODUCTS = """\
__pycache__/
*.py[cod]
.pytest_cache/
.mypy_cache/
.ruff_cache/
.coverage
node_modules/.cache/
"""
# What running code leaves behind: an agent that only ran the tests has changed nothing.
PLAIN_FILES, PLAIN_BYTES = 20_000, 512 * 1024**2
# Beyond this a folder without git is not looked at: somebody may start a task in their home.


class UnseenError(GitError):
    """Nobody can say what changed here; `str()` says why."""


@dataclass(frozen=True, kw_only=True)
class Snapshot:
    """The state of a work tree: `tree` is the id of a git tree in our repository `store`.

    `nested` are the repositories inside of it, by their path in it: git itself does not look into
    them. `links` are what git keeps in their place, with the ids of their commits. `ours` (a path
    in it, or None) is where we write ourselves. `stamps` are size and time of change of files that
    matter whatever git ignores.
    """

    root: Path
    store: Path
    tree: str
    ours: str | None = None
    nested: Mapping[str, Snapshot] = field(default_factory=dict[str, "Snapshot"])
    links: Mapping[str, str] = field(default_factory=dict[str, str])
    stamps: Mapping[Path, tuple[int, int]] = field(default_factory=dict[Path, tuple[int, int]])


async def root_of(reaper: Reaper, workspace: Path, store: Path) -> Path:
    """What is to be looked at for a workspace: the top of the user's repository, or the workspace
    itself if it is in none or ignored there. Raises GitError.
    """
    root = await to_thread.run_sync(_top, workspace)
    if root is not None and root != workspace:
        await to_thread.run_sync(_make_store, store, root)
        asked = ("check-ignore", "-q", "--no-index", str(workspace))
        done = await _git(reaper, root, store).run(*asked, accept=(0, 1))
        root = workspace if done.exit == 0 else root
    if root is None:
        root = workspace
        await to_thread.run_sync(_refuse_huge, root)
    return root


async def snapshot(
    reaper: Reaper,
    root: Path,
    store: Path,
    *,
    ours: Path,
    before: Snapshot | None = None,
    depth: int = 0,
) -> Snapshot:
    """The work tree as it is now, without what is below `ours`; `store` is the folder of our
    repository, which nobody else may use meanwhile. `before` is the last one that was written to
    it; the repositories that there were then are looked into again. Raises GitError.
    """
    own = str(ours.relative_to(root)) if ours.is_relative_to(root) else None
    if before is None:
        await to_thread.run_sync(_make_store, store, root)
    (store / "index.lock").unlink(missing_ok=True)  # of a look that was cancelled
    git = _git(reaper, root, store)
    links: Mapping[str, str] = before.links if before is not None else {}
    tree = await _write_tree(git, own, links)
    if before is None or tree != before.tree:
        links = await entries(git, LINK)
    known = dict(before.nested) if before is not None else {}
    for path in _inside(root, links, known) if depth < NESTING else ():
        last = known.get(path)
        if last is not None and not last.root.is_dir():
            continue  # gone: that its link is, is told
        inner = last.store if last is not None else store / "nested" / str(len(known))
        known[path] = await snapshot(
            reaper, root / path, inner, ours=ours, before=last, depth=depth + 1
        )
    return Snapshot(root=root, store=store, tree=tree, ours=own, nested=known, links=links)


def _inside(root: Path, links: Iterable[str], known: Iterable[str]) -> list[str]:
    """The repositories in a work tree that are looked into: those known, and the links of git's
    that are there.
    """
    there = (path for path in links if (root / path / ".git").exists())
    return list(dict.fromkeys((*known, *there)))[:REPOSITORIES]


def with_files(found: Snapshot, workspace: Path, files: Sequence[str]) -> Snapshot:
    """The snapshot with those files of the workspace that are to be seen even if git ignores
    them.
    """
    return replace(found, stamps=_stamps(workspace / file for file in files))


async def changes(reaper: Reaper, before: Snapshot, now: Snapshot, patch: Path) -> Changes:
    """What changed from one to the other; the whole diff goes to `patch` (0600). Raises
    GitError.
    """
    found = await _changes(reaper, before, now, patch)
    others = [
        str(path.relative_to(before.root) if path.is_relative_to(before.root) else path)
        for path, stamp in before.stamps.items()
        if _stamp(path) != stamp
    ]
    found.files += [path for path in others if path not in found.files]
    return found


async def _changes(reaper: Reaper, before: Snapshot, now: Snapshot, patch: Path) -> Changes:
    git = _git(reaper, before.root, before.store)
    found = await compare(git, before.tree, now.tree, patch)
    for number, (path, inner) in enumerate(before.nested.items()):
        if not inner.root.is_dir():
            continue  # and with it the objects that a diff would be made of
        part = patch.with_name(f"{patch.stem}-{number}{patch.suffix}")
        more = await _changes(reaper, inner, now.nested[path], part)
        if more.files:
            # That the link moved is told by the files behind it.
            inside = [f"{path}/{file}" for file in more.files]
            found.files = [*(file for file in found.files if file != path), *inside]
            found.insertions += more.insertions
            found.deletions += more.deletions
            found.diff = f"{found.diff or ''}{more.diff or ''}"[:DIFF_LIMIT]
            found.truncated = found.truncated or more.truncated
    return found


async def compare(git: Git, before: str, now: str, patch: Path | None) -> Changes:
    """What changed between two trees; the whole diff goes to `patch` (0600), if given."""
    if now == before:
        return Changes(files=[], insertions=0, deletions=0)
    plain = ("--no-ext-diff", "--no-textconv", "--no-color", "--no-renames")
    diff = ("diff", *plain, "--submodule=short")
    files, insertions, deletions = _numstat(await git(*diff, "--numstat", "-z", before, now))
    found = Changes(files=files, insertions=insertions, deletions=deletions)
    if patch is not None:
        await git(*diff, f"--output={patch}", before, now)
        head = await to_thread.run_sync(_head, patch)
        found.diff = head[:DIFF_LIMIT].decode("utf-8", "replace")
        found.truncated = len(head) > DIFF_LIMIT
    return found


def _stamps(paths: Iterable[Path]) -> dict[Path, tuple[int, int]]:
    return {path: _stamp(path) for path in paths}


def _stamp(path: Path) -> tuple[int, int]:
    """Size and time of change; zeros if it is not there."""
    try:
        status = path.stat()
    except OSError:
        return (0, 0)
    return (status.st_size, status.st_mtime_ns)


async def make_scratch(reaper: Reaper, template: Path, target: Path) -> None:
    """Copy the folder `template` to `target` (which must not exist) as a git repository of one
    commit.

    Raises InputError if the template is not a folder, JournalError if it cannot be copied.
    """
    if not template.is_dir():
        raise InputError(f"workspace.scratch: no folder {template}")
    try:
        await to_thread.run_sync(_copy, template, target, abandon_on_cancel=True)
    except OSError as error:
        await to_thread.run_sync(shutil.rmtree, target, True)  # noqa: FBT003 (ignore_errors)
        raise JournalError(f"cannot copy {template} to {target}: {_first(error)}") from error
    await _in(reaper, target, "init", "-q", "-b", "main")
    await _in(reaper, target, "add", "-A")
    await _in(reaper, target, "commit", "-q", "--allow-empty", "-m", "The task's starting point")


def _copy(template: Path, target: Path) -> None:
    shutil.copytree(template, target, symlinks=True)


def _first(error: OSError) -> str:
    """The first reason: copying a tree collects one for each file."""
    match error:
        case shutil.Error(args=([(_, _, str(why)), *_],)):
            return why
        case _:
            return error.strerror or str(error)


# --- git -----------------------------------------------------------------------------------------


def _git(reaper: Reaper, root: Path, store: Path) -> Git:
    """Git with our repository on the user's work tree."""
    exclude = quoted(str(root / ".git" / "info" / "exclude"))
    core = f"autocrlf = false\ncompression = 0\nexcludesFile = {exclude}\n"
    return Git(reaper=reaper, folder=store, root=root, config=f"[core]\n{core}")


async def _in(reaper: Reaper, folder: Path, *arguments: str) -> None:
    """Git in a repository of our own making."""
    try:
        await run_git(reaper, folder, environment(), *arguments)
    except GitError as error:
        raise InputError(f"workspace.scratch: {error}") from error


async def _write_tree(git: Git, ours: str | None, links: Mapping[str, str]) -> str:
    return await write_tree(git, *(() if ours is None else (ours,)), links=links)


def _top(workspace: Path) -> Path | None:
    for folder in (workspace, *workspace.parents):
        git = folder / ".git"
        if git.is_file() or (git / "HEAD").exists():
            return folder
    return None


def _make_store(store: Path, root: Path) -> None:
    """An empty bare repository, made by hand: one process less, and no template of the user's."""
    private.folder(store)
    (store / "objects" / "info").mkdir(parents=True, exist_ok=True)
    (store / "refs").mkdir(exist_ok=True)
    (store / "HEAD").write_text("ref: refs/heads/main\n")
    (store / "info").mkdir(exist_ok=True)
    (store / "info" / "exclude").write_text(BY_PRODUCTS)
    objects = root / ".git" / "objects"
    if objects.is_dir():
        # What the user's repository has already need not be written again.
        (store / "objects" / "info" / "alternates").write_text(f"{quoted(str(objects))}\n")


def _refuse_huge(root: Path) -> None:
    files = size = 0
    for folder, _, names in os.walk(root):
        files += len(names)
        for name in names:
            with suppress(FileNotFoundError):  # it went away while we looked
                size += os.lstat(os.path.join(folder, name)).st_size  # noqa: PTH118 (hot)
        if files > PLAIN_FILES or size > PLAIN_BYTES:
            raise UnseenError(f"{root} is no git repository and too large to look through")


def _numstat(text: bytes) -> tuple[list[str], int, int]:
    r"""Files, insertions and deletions of `git diff --numstat -z`: `ADDED\tDELETED\tPATH\0`, `-`
    if binary.
    """
    files: list[str] = []
    insertions = deletions = 0
    for entry in text.split(b"\0"):
        if not entry:
            continue
        added, deleted, path = entry.split(b"\t", 2)
        files.append(path.decode("utf-8", "backslashreplace"))
        insertions += 0 if added == b"-" else int(added)
        deletions += 0 if deleted == b"-" else int(deleted)
    return files, insertions, deletions


def _head(patch: Path) -> bytes:
    patch.chmod(0o600)
    with os.fdopen(private.opened(patch), "rb") as file:
        return file.read(DIFF_LIMIT + 1)
