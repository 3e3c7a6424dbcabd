"""The work tree: a scratch one made from a template, and what a run changed in one.

A snapshot is a git tree, written by a repository of our own in the run's folder, whose work tree is
the user's. So the user's repository is neither written nor is its configuration (hooks, filters,
fsmonitor: an agent can plant them) ever read, and a folder without git works the same.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from anyio import to_thread

from orchestrator.errors import InputError, OrchestrateError
from orchestrator.events import Changes
from orchestrator.process import Completed, Reaper, run_to_end

DIFF_LIMIT = 64 * 1024
"""How much of a diff an event carries, in bytes; the run's folder has it whole, in `diff.patch`."""

GIT_S = 120.0
PLAIN_FILES, PLAIN_BYTES = 20_000, 512 * 1024**2
# Beyond this a folder without git is not looked at: somebody may start a task in their home.


class UnseenError(OrchestrateError):
    """Nobody can say what changed here; `str()` says why."""


@dataclass(frozen=True, kw_only=True)
class Snapshot:
    """The state of a work tree: `tree` is the id of a git tree in our repository `store`."""

    root: Path
    store: Path
    tree: str


async def snapshot(reaper: Reaper, workspace: Path, store: Path) -> Snapshot:
    """The work tree as it is now; `store` is a folder for our repository, made if needed.

    The root is the top of the user's repository, or the workspace if it is in none. Raises
    UnseenError.
    """
    root = await to_thread.run_sync(_top, workspace)
    if root is None:
        root = workspace
        await to_thread.run_sync(_refuse_huge, root)
    await to_thread.run_sync(_make_store, store, root)
    return Snapshot(root=root, store=store, tree=await _write_tree(reaper, root, store))


async def changes(reaper: Reaper, before: Snapshot, patch: Path) -> Changes:
    """What changed since; the whole diff goes to `patch` (0600). Raises UnseenError."""
    now = await _write_tree(reaper, before.root, before.store)
    if now == before.tree:
        return Changes(files=[], insertions=0, deletions=0)
    compare = ("diff", "--no-ext-diff", "--no-textconv", "--no-color", "--no-renames")
    numbers = await _git(
        reaper, before.root, before.store, *compare, "--numstat", "-z", before.tree, now
    )
    await _git(
        reaper,
        before.root,
        before.store,
        *compare,
        f"--output={patch}",
        before.tree,
        now,
    )
    files, insertions, deletions = _numstat(numbers.stdout)
    head = await to_thread.run_sync(_head, patch)
    return Changes(
        files=files,
        insertions=insertions,
        deletions=deletions,
        diff=head[:DIFF_LIMIT].decode("utf-8", "replace"),
        truncated=len(head) > DIFF_LIMIT,
    )


async def make_scratch(reaper: Reaper, template: Path, target: Path) -> None:
    """Copy the folder `template` to `target` (which must not exist) as a git repository of one
    commit.

    Raises InputError if the template is not a folder or cannot be copied.
    """
    if not template.is_dir():
        raise InputError(f"workspace.scratch: no folder {template}")
    try:
        await to_thread.run_sync(lambda: shutil.copytree(template, target, symlinks=True))
    except (OSError, shutil.Error) as error:
        raise InputError(f"workspace.scratch: cannot copy {template}: {error}") from error
    await _in(reaper, target, "init", "-q", "-b", "main")
    await _in(reaper, target, "add", "-A")
    await _in(reaper, target, "commit", "-q", "--allow-empty", "-m", "The task's starting point")


# --- git -----------------------------------------------------------------------------------------

_HARDENED = (
    "-c",
    "core.hooksPath=/dev/null",
    "-c",
    "core.fsmonitor=false",
    "-c",
    "commit.gpgSign=false",
    "-c",
    "core.autocrlf=false",
    "-c",
    "core.safecrlf=false",
    "-c",
    "advice.addEmbeddedRepo=false",
    "-c",
    "gc.auto=0",
    "-c",
    "core.compression=0",
)


def _environment() -> dict[str, str]:
    return {
        "PATH": os.defpath,
        "LC_ALL": "C",
        "HOME": "/nonexistent",
        "GIT_CONFIG_NOSYSTEM": "1",
        "GIT_CONFIG_GLOBAL": "/dev/null",
        "GIT_TERMINAL_PROMPT": "0",
        "GIT_AUTHOR_NAME": "orchestrate",
        "GIT_AUTHOR_EMAIL": "orchestrate@localhost",
        "GIT_COMMITTER_NAME": "orchestrate",
        "GIT_COMMITTER_EMAIL": "orchestrate@localhost",
    }


async def _run(
    reaper: Reaper,
    folder: Path,
    env: Mapping[str, str],
    *arguments: str,
    accept: frozenset[int] = frozenset({0}),
) -> Completed:
    done = await run_to_end(
        reaper, ("git", *_HARDENED, *arguments), cwd=folder, env=env, limit_s=GIT_S
    )
    if done.exit not in accept:
        said = done.stderr.decode("utf-8", "replace").strip().rsplit("\n", 1)[-1]
        raise UnseenError(f"git: {said or f'exit {done.exit}'}")
    return done


async def _git(
    reaper: Reaper,
    root: Path,
    store: Path,
    *arguments: str,
    accept: frozenset[int] = frozenset({0}),
) -> Completed:
    """Git with our repository on the user's work tree."""
    exclude = root / ".git" / "info" / "exclude"
    env = {**_environment(), "GIT_DIR": str(store), "GIT_WORK_TREE": str(root)}
    excluding = ("-c", f"core.excludesFile={exclude}")
    return await _run(reaper, root, env, *excluding, *arguments, accept=accept)


async def _in(reaper: Reaper, folder: Path, *arguments: str) -> None:
    """Git in a repository of our own making."""
    try:
        await _run(reaper, folder, _environment(), *arguments)
    except UnseenError as error:
        raise InputError(f"workspace.scratch: {error}") from error


async def _write_tree(reaper: Reaper, root: Path, store: Path) -> str:
    # What cannot be read (a repository without commits inside, another user's file) is left out of
    # both trees; git says so by exit 1.
    add = ("add", "-A", "--ignore-errors", "--", ".")
    await _git(reaper, root, store, *add, accept=frozenset({0, 1}))
    done = await _git(reaper, root, store, "write-tree")
    return done.stdout.decode().strip()


def _top(workspace: Path) -> Path | None:
    for folder in (workspace, *workspace.parents):
        git = folder / ".git"
        if git.is_file() or (git / "HEAD").exists():
            return folder
    return None


def _make_store(store: Path, root: Path) -> None:
    """An empty bare repository, made by hand: one process less, and no template of the user's."""
    (store / "objects" / "info").mkdir(parents=True, exist_ok=True)
    (store / "refs").mkdir(exist_ok=True)
    (store / "HEAD").write_text("ref: refs/heads/main\n")
    objects = root / ".git" / "objects"
    if objects.is_dir():
        # What the user's repository has already need not be written again.
        (store / "objects" / "info" / "alternates").write_text(f"{objects}\n")


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
    with patch.open("rb") as file:
        return file.read(DIFF_LIMIT + 1)
