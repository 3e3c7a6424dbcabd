"""A git work tree for one run: made from a commit, kept as a branch, removed.

It is registered in the user's repository by hand (three small files, as gitrepository-layout
documents them), because `git worktree add` runs what the repository's configuration names. Nothing
here touches the user's own files, index, HEAD or branches.
"""

from __future__ import annotations

import os
import re
import shutil
import stat
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath

from anyio import CancelScope, to_thread

from orchestrator.errors import InputError
from orchestrator.events import Changes
from orchestrator.journal import Tree, make_private
from orchestrator.process import Reaper
from orchestrator.workspace.git import GONE, LINK, Git, GitError, add_all, entries, put, write_tree
from orchestrator.workspace.repository import Repository, view
from orchestrator.workspace.snapshot import compare
from orchestrator.workspace.submodules import keep_submodules, submodules

BRANCHES = "orchestrate"
_OBJECT = re.compile(r"[0-9a-f]{40}|[0-9a-f]{64}")
_REF = re.compile(r"ref: (refs/[\x21-\x7e]+)")
_NESTING = 3


class ConflictError(GitError):
    """Commits cannot be merged. `files` are those in conflict."""

    def __init__(self, message: str, files: Sequence[str]) -> None:
        super().__init__(message)
        self.files = tuple(files)


@dataclass(frozen=True, kw_only=True)
class Kept:
    """What became of a work tree's content; `notes` say what is not in the branch, and why.

    `complete`: nothing else is in the work tree that only a person could judge.
    """

    changes: Changes
    notes: tuple[str, ...] = ()
    complete: bool = True


def branch_name(name: str, task: str, run_id: str) -> str:
    """The branch of a run. Names are made fit for git."""
    return f"{BRANCHES}/{_component(name)}/{_component(task)}-{run_id[-8:]}"


def _component(name: str) -> str:
    fit = re.sub(r"[^A-Za-z0-9_.-]|\.(?=\.|$)|^\.|\.lock$", "-", name)
    return fit or "task"


def message(prompt: str, name: str, task: str, run_id: str) -> str:
    """The message of a run's commit."""
    first = next((line.strip() for line in prompt.splitlines() if line.strip()), task)
    subject = first if len(first) <= 72 else f"{first[:69]}..."
    return f"{subject}\n\nTask: {name}/{task}\nRun: {run_id}\n"


# --- commits -------------------------------------------------------------------------------------


async def take_uncommitted(git: Git, head: str, index: Path, *without: str) -> str:
    """A commit on `head` with the user's files as they are now; `head` if they are as committed.

    `index` is a copy of the user's.
    """
    tree = await write_tree(replace(git, index=index), *without)
    if tree == await git.word("rev-parse", f"{head}^{{tree}}"):
        return head
    message = b"Uncommitted changes, taken along\n\nMade by orchestrate for a run to start from.\n"
    return await commit(git, tree, message, head)


async def commit(git: Git, tree: str, message: bytes, *parents: str) -> str:
    """A commit of a tree, by our fixed identity."""
    of = (word for parent in parents for word in ("-p", parent))
    return (await git("commit-tree", tree, *of, "-F", "-", stdin=message)).decode().strip()


async def merged(git: Git, commits: Sequence[str]) -> str:
    """All commits in one, merged in this order without touching a work tree.

    Raises ConflictError with the files of the first conflict.
    """
    one, *others = commits
    for other in others:
        if await descends(git, one, other):
            continue
        if await descends(git, other, one):
            one = other
            continue
        tree = await merge_trees(git, one, other)
        message = f"Merge {other[:12]}\n\nMade by orchestrate for a run to start from.\n"
        one = await commit(git, tree, message.encode(), one, other)
    return one


async def merge_trees(git: Git, one: str, other: str) -> str:
    """The tree that a merge of two commits gives. Raises ConflictError."""
    asked = ("merge-tree", "--write-tree", "--name-only", "--no-messages", "-z")
    done = await git.run(*asked, "--allow-unrelated-histories", one, other, accept=(0, 1, 128, 129))
    tree, *files = (os.fsdecode(part) for part in done.stdout.split(b"\0") if part)
    match done.exit:
        case 0:
            return tree
        case 1:
            names = tuple(dict.fromkeys(files))
            raise ConflictError(f"conflict in {', '.join(names)}", names)
        case 129:
            version = await git.word("version")
            raise GitError(f"merging needs git 2.38 or newer; this is {version}")
        case _:
            raise GitError(f"git: {done.stderr.decode('utf-8', 'replace').strip()}")


async def descends(git: Git, commit: str, ancestor: str) -> bool:
    """Whether a commit has the other among its ancestors, or is it."""
    done = await git.run("merge-base", "--is-ancestor", ancestor, commit, accept=(0, 1))
    return done.exit == 0


# --- making --------------------------------------------------------------------------------------


async def refuse_taken(git: Git, branch: str) -> None:
    """Raise InputError if a branch of the user's stands where ours must go."""
    parents = [f"refs/heads/{parent}" for parent in PurePosixPath(branch).parents if parent.name]
    found = (await git("for-each-ref", "--format=%(refname)", *parents)).decode().split("\n")
    for parent in parents:
        if parent in found:
            name = parent.removeprefix("refs/heads/")
            raise InputError(
                f"the branch {name!r} is in the way of {branch!r}, where the work would go",
                hint=f"Rename it (`git branch -m {name} NEW`), or set `isolation: none`.",
            )


async def make_tree(git: Git, repository: Repository, tree: Tree) -> None:
    """Make the work tree, with the files of its first commit. Raises InputError, GitError."""
    make_private(tree.path.parent)
    try:
        tree.path.mkdir(mode=0o700)
    except FileExistsError:
        raise InputError(
            f"the work tree {tree.path} is there already",
            hint="Another run works in it, or was cut off: see `orchestrate runs prune`.",
        ) from None
    try:
        await to_thread.run_sync(_register, repository, tree)
        await _check_out(git, repository, tree)
        if not tree.workspace.is_dir():
            raise InputError(
                f"workspace: {tree.inside} is not in the commit that the run starts from",
                hint="Commit it, take it along (--include-uncommitted), or set `isolation: none`.",
            )
    except BaseException:
        with CancelScope(shield=True):
            await to_thread.run_sync(_wipe, repository, tree)
        raise


async def _check_out(git: Git, repository: Repository, tree: Tree) -> None:
    index = _index(tree)
    await replace(git, root=tree.path, index=index)("read-tree", "--reset", "-u", tree.start)
    shutil.copy2(index, _admin(repository, tree) / "index")  # with its time, as git needs it


def _register(repository: Repository, tree: Tree) -> None:
    admin = _admin(repository, tree)
    _refuse_link(admin.parent)
    admin.mkdir(parents=True)
    (admin / "HEAD").write_text(f"{tree.start}\n")
    (admin / "commondir").write_text("../..\n")
    (admin / "gitdir").write_bytes(os.fsencode(tree.path / ".git") + b"\n")
    (admin / "locked").write_text("a run of orchestrate works in it\n")
    (tree.path / ".git").write_bytes(b"gitdir: " + os.fsencode(admin) + b"\n")


def _refuse_link(folder: Path) -> None:
    if folder.is_symlink():
        raise GitError(f"{folder} is a link, which git does not make")


def _admin(repository: Repository, tree: Tree) -> Path:
    return repository.common / "worktrees" / tree.path.name


def _index(tree: Tree) -> Path:
    """Our own index of the work tree: the agent has another."""
    return tree.path.with_name(f"{tree.path.name}.index")


def _unlock(tree: Tree) -> None:
    """Nobody else uses our index: a lock that is there was left by a git that was killed."""
    _index(tree).with_suffix(".index.lock").unlink(missing_ok=True)


# --- files taken along ---------------------------------------------------------------------------


async def copy_along(tree: Tree, workspace: Path, paths: Sequence[str]) -> tuple[str, ...]:
    """Copy untracked files and folders of the user's workspace; returns patterns that match them.

    What is there already (because git tracks it) stays. Raises InputError.
    """
    patterns: list[str] = []
    for path in paths:
        patterns += await to_thread.run_sync(_copy_one, workspace, tree, path)
    return tuple(patterns)


def _copy_one(workspace: Path, tree: Tree, path: str) -> list[str]:
    source, target = workspace / path, tree.workspace / path
    if not os.path.lexists(source):
        raise InputError(f"copy: no {path} in {workspace}")
    if not source.resolve().is_relative_to(workspace.resolve()):
        raise InputError(f"copy: {path} leads out of {workspace}")
    _make_parents(tree.path, target.parent, path)
    there = os.path.lexists(target)
    try:
        copied = _copied(source, target, path)
    except OSError as error:
        raise InputError(f"copy: {path}: {error.strerror}") from error
    names = copied if there else [target]
    return [f"/{_literal(str(name.relative_to(tree.path)))}" for name in names]


def _make_parents(root: Path, folder: Path, path: str) -> None:
    for parent in (*reversed(folder.relative_to(root).parents), folder.relative_to(root)):
        if (root / parent).is_symlink():
            raise InputError(f"copy: {path} would be written through a link, {parent}")
        (root / parent).mkdir(exist_ok=True)


def _copied(source: Path, target: Path, path: str) -> list[Path]:
    """Copy what is not there yet; the files that were copied."""
    if source.is_symlink() or source.is_file():
        return [target] if _copied_file(source, target) else []
    made: list[Path] = []
    for folder, _, names in os.walk(source):
        to = target / Path(folder).relative_to(source)
        if to.is_symlink():
            raise InputError(f"copy: {path} would be written through a link, {to}")
        to.mkdir(exist_ok=True)
        links = [entry.name for entry in os.scandir(folder) if entry.is_symlink()]
        every = dict.fromkeys((*names, *links))
        made += [to / name for name in every if _copied_file(Path(folder) / name, to / name)]
    return made


def _copied_file(source: Path, target: Path) -> bool:
    kind = source.lstat().st_mode
    if os.path.lexists(target) or not (stat.S_ISREG(kind) or stat.S_ISLNK(kind)):
        return False
    shutil.copy2(source, target, follow_symlinks=False)
    return True


def _literal(path: str) -> str:
    return re.sub(r"([\\*?\[\]!# ])", r"\\\1", path)


async def after_setup(reaper: Reaper, repository: Repository, tree: Tree) -> Tree:
    """The work tree, knowing what `setup` left in it: that is not the agent's work."""
    async with view(reaper, repository, tree.path.parent, exclude=tree.copied) as git:
        now = await write_tree(replace(git, root=tree.path, index=_index(tree)))
        same = now == await git.word("rev-parse", f"{tree.start}^{{tree}}")
    return tree if same else replace(tree, prepared=now)


# --- keeping -------------------------------------------------------------------------------------


async def keep(
    reaper: Reaper, repository: Repository, tree: Tree, message: str, patch: Path | None
) -> Kept:
    """Make the work tree as it is now a commit on the run's branch; no branch if nothing changed.

    The commit's parent is the agent's own last commit, if it made some. The whole diff goes to
    `patch`. Raises GitError: then the work is only in the work tree.
    """
    if tree.path.is_symlink() or not tree.path.is_dir():
        raise GitError(f"the agent took its work tree {tree.path} away")
    async with view(reaper, repository, tree.path.parent, exclude=tree.copied) as git:
        inside = replace(git, root=tree.path, index=_index(tree))
        _unlock(tree)
        if not _index(tree).exists():  # a crash, or the agent
            await inside("read-tree", tree.start)
        found, notes, complete = await _content(inside, repository, tree, patch)
        before = await git.word("rev-parse", f"{tree.start}^{{tree}}")
        now = await _overlaid(git, before, tree.prepared, found) if tree.prepared else found
        changes = await compare(git, before, now, patch)
        tip = await _tip(git, tree, before, now, message)
        if tip is not None:
            branch, tip = await _branch_for(git, repository, tree.branch, tip, now)
            changes = replace(changes, commit=tip, branch=branch)
    return Kept(changes=changes, notes=notes, complete=complete)


async def held(reaper: Reaper, repository: Repository, tree: Tree) -> Changes:
    """What the work tree holds now, kept nowhere; `branch` if the run's branch is there. Raises
    GitError.
    """
    if tree.path.is_symlink() or not tree.path.is_dir():
        raise GitError(f"there is no work tree {tree.path}")
    async with view(reaper, repository, tree.path.parent, exclude=tree.copied) as git:
        inside = replace(git, root=tree.path, index=git.folder / "held")
        await inside("read-tree", tree.start)
        modules = await submodules(git, tree.start)
        await _flatten(inside, frozenset(module.path for module in modules))
        found = await inside.word("write-tree")
        before = await git.word("rev-parse", f"{tree.start}^{{tree}}")
        now = await _overlaid(git, before, tree.prepared, found) if tree.prepared else found
        changes = await compare(git, before, now, None)
        there = await tip_of(git, tree.branch) is not None
    return replace(changes, branch=tree.branch if there else None)


async def _content(
    git: Git, repository: Repository, tree: Tree, patch: Path | None
) -> tuple[str, tuple[str, ...], bool]:
    """The tree as it is, what is to be said about it, and whether it is all there is."""
    modules = await submodules(git, tree.start)
    made, unread = await _flatten(git, frozenset(module.path for module in modules))
    notes = [
        f"the repository {path} in the work tree is kept as plain files, without its history"
        for path in made
    ]
    if unread:
        notes.append(f"{', '.join(unread[:5])} cannot be read, so it is not in the branch")
    said, all_there = await keep_submodules(git, repository, modules, patch)
    return await git.word("write-tree"), (*notes, *said), all_there and not unread


async def _flatten(git: Git, known: frozenset[str], depth: int = 0) -> tuple[list[str], list[str]]:
    """Fill the index from the work tree, with repositories that the agent made inside as plain
    files: their objects go when the work tree goes. Which these are, and what could not be read.
    """
    await add_all(git)
    links = await entries(git, LINK)
    new = {path: id_ for path, id_ in links.items() if path not in known}
    rest = await _left_out(git)
    bare = [path[:-1] for path in rest if path.endswith("/")]  # without a commit
    made = [*new, *bare] if depth < _NESTING else []
    if not made:
        return made, rest
    await put(git, GONE, new)
    for number, path in enumerate(made):
        index = git.folder / f"index-{depth}-{number}"
        inner = replace(git, root=git.root / path, index=index)
        await _flatten(inner, frozenset(), depth + 1)
        content = await inner.word("write-tree")
        await git("read-tree", f"--prefix={path}/", content)
    return made, await _left_out(git)


async def _left_out(git: Git) -> list[str]:
    """What of the work tree is not in the index, though git does not ignore it."""
    rest = (await git("ls-files", "-z", "--others", "--exclude-standard")).split(b"\0")
    return [os.fsdecode(path) for path in rest if path]


async def _overlaid(git: Git, start: str, before: str, now: str) -> str:
    """The tree `start` with what changed between two others: the agent's work without `setup`'s."""
    raw = (await git("diff-tree", "-r", "-z", "--raw", "--no-renames", before, now)).split(b"\0")
    lines = [
        b"%s %s\t%s" % (head.split(b" ")[1], head.split(b" ")[3], path)
        for head, path in zip(raw[0:-1:2], raw[1::2], strict=True)
    ]
    lines = [b"0" + line[6:] if line.startswith(b"000000") else line for line in lines]
    mixed = replace(git, index=git.folder / "overlay")
    await mixed("read-tree", start)
    await mixed("update-index", "-z", "--index-info", stdin=b"\0".join([*lines, b""]))
    return await mixed.word("write-tree")


async def _tip(git: Git, tree: Tree, before: str, now: str, message: str) -> str | None:
    """The commit that holds the work: a new one, or the agent's own; None if nothing changed."""
    last = await _agents_head(git, tree)
    if last == tree.start and now == before:
        return None
    if last != tree.start and now == await git.word("rev-parse", f"{last}^{{tree}}"):
        return last
    return await commit(git, now, message.encode("utf-8", "replace"), last)


async def _agents_head(git: Git, tree: Tree) -> str:
    """The last commit of the agent's own, if it descends from where it began; else where it
    began.
    """
    admin = (git.folder / "refs").resolve().parent / "worktrees" / tree.path.name
    try:
        text = (admin / "HEAD").read_text(errors="replace").strip()
    except OSError:
        return tree.start
    if found := _REF.fullmatch(text):
        asked = ("rev-parse", "--verify", "-q", f"{found[1]}^{{commit}}")
        text = await git.word(*asked, accept=(0, 1, 128))
    if text == tree.start or not _OBJECT.fullmatch(text):
        return tree.start
    done = await git.run("merge-base", "--is-ancestor", tree.start, text, accept=(0, 1, 128))
    return text if done.exit == 0 else tree.start


async def _branch_for(
    git: Git, repository: Repository, name: str, tip: str, content: str
) -> tuple[str, str]:
    """The branch of this work and its commit: one that has the very same files, or a new one."""
    for number in range(1, 100):
        branch = name if number == 1 else f"{name}-{number}"
        there = await tip_of(git, branch)
        if there is None:
            await _make_branch(git, repository, branch, tip)
            return branch, tip
        if await git.word("rev-parse", f"{there}^{{tree}}") == content:
            return branch, there
    raise GitError(f"there are a hundred branches {name}")


async def tip_of(git: Git, branch: str) -> str | None:
    """The commit of a branch, or None."""
    asked = ("rev-parse", "--verify", "-q", f"refs/heads/{branch}^{{commit}}")
    return await git.word(*asked, accept=(0, 1, 128)) or None


async def _make_branch(git: Git, repository: Repository, branch: str, tip: str) -> None:
    """A new branch in the user's repository."""
    for parent in PurePosixPath(branch).parents:
        _refuse_link(repository.common / "refs" / "heads" / parent)
    await git("update-ref", f"refs/heads/{branch}", tip, "0" * len(tip))


# --- removing ------------------------------------------------------------------------------------


async def remove_tree(repository: Repository, tree: Tree) -> None:
    """Remove the work tree, whatever is in it, and its registration. Raises GitError if it cannot
    be.
    """
    await to_thread.run_sync(_wipe, repository, tree)


def _wipe(repository: Repository, tree: Tree) -> None:
    admin = _admin(repository, tree)
    _index(tree).unlink(missing_ok=True)
    _unlock(tree)
    try:
        _remove(tree.path)
        _refuse_link(admin.parent)
        _remove(admin)
    except OSError as error:
        raise GitError(f"cannot remove {tree.path}: {error.strerror}") from error
    with suppress(OSError):  # another work tree is registered there
        admin.parent.rmdir()


def _remove(path: Path) -> None:
    """A folder and all below it, also what an agent made read-only; links are not followed."""
    if path.is_symlink():
        path.unlink()
    elif path.exists():
        shutil.rmtree(path, onerror=_retry)


def _retry(remove: Callable[..., object], path: str, error: object) -> None:
    if not os.path.lexists(path):
        return
    parent = os.path.dirname(path)  # noqa: PTH120 (rmtree speaks in texts)
    os.chmod(parent, 0o700)  # noqa: PTH101
    if not os.path.islink(path) and os.path.isdir(path):  # noqa: PTH112, PTH114
        os.chmod(path, 0o700)  # noqa: PTH101
        shutil.rmtree(path)
    else:
        os.unlink(path)  # noqa: PTH108
