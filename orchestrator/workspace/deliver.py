"""Bringing the work of runs to where it is wanted.

Into the user's own files, as uncommitted changes: all or nothing. Merged from objects alone; the
user's files are written only when that gave no conflict, and their index, HEAD and branches not at
all. Or out of the machine: pushed, or as a bundle or patch in the outcome; never with a key in it.
"""

from __future__ import annotations

import os
from base64 import b64encode
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal, TypeAlias

import anyio

from orchestrator.errors import counted
from orchestrator.events import Changes, Delivered
from orchestrator.process import Reaper
from orchestrator.redaction import pattern
from orchestrator.task import Source
from orchestrator.workspace.git import OUTPUT, Git, GitError
from orchestrator.workspace.place import Place
from orchestrator.workspace.repository import Repository, copied_index, head, view
from orchestrator.workspace.source import push
from orchestrator.workspace.worktree import commit, merge_trees, merged


class NotAppliedError(GitError):
    """The user's files are not in a state to be changed; nothing was touched."""


class NotDeliveredError(GitError):
    """The work stays where it is: it could not be brought to where it was wanted."""


RESULT = 1024 * 1024
"""Most bytes of a bundle or a patch in an outcome, which the queue's database holds, too."""

Form: TypeAlias = Literal["push", "bundle", "patch"]

_FIRST = "Commit or stash your changes, then apply again."


@dataclass
class Delivery:
    """What a job has applied so far: its leaves go to the user's files one after the other."""

    lock: anyio.Lock = field(default_factory=anyio.Lock)
    done: list[str] = field(default_factory=list[str])

    async def deliver(
        self, place: Place, run_id: str, changes: Changes, secrets: Sequence[str]
    ) -> tuple[Changes, str]:
        """Apply a run's commit; what is to be said of it. Raises ConflictError."""
        del secrets  # the user's own files may hold them
        return changes, await self._apply(place, run_id, changes.commit or "")

    async def _apply(self, place: Place, run_id: str, tip: str) -> str:
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
        return f"applied to {place.repository.top}: {counted(len(files), 'file')}, not committed"


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


# --- out of the machine --------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class Parcel:
    """How a run's work leaves the machine; `source` is where `push` goes."""

    place: Place
    form: Form
    environ: Mapping[str, str]
    source: Source | None = None

    async def deliver(self, changes: Changes, secrets: Sequence[str]) -> tuple[Changes, str]:
        """Send what the run's commit holds, with all that it stands on. Raises
        NotDeliveredError.
        """
        try:
            delivered = await self._delivered(changes, secrets)
        except NotDeliveredError:
            raise
        except GitError as error:
            raise self._kept(f"not delivered ({self.form}): {error}", changes) from error
        said = f"delivered ({self.form}): {changes.branch}, {(changes.commit or '')[:12]}"
        return replace(changes, delivered=delivered), said

    async def _delivered(self, changes: Changes, secrets: Sequence[str]) -> Delivered:
        place, base, tip = self.place, self.place.tree.upon, changes.commit or ""
        trees = place.tree.path.parent
        async with view(place.reaper, place.repository, trees, private=True) as git:
            if await _holds(git, base, tip, secrets):
                text = "not delivered: the work holds the value of a key"
                raise self._kept(text, changes)
            content: bytes | None = None
            match self.form:
                case "push":
                    assert self.source is not None  # noqa: S101 (by its maker)
                    await push(git, self.source, changes.branch or "", self.environ)
                case "bundle":
                    line = f"refs/heads/{changes.branch}"
                    content = await git("bundle", "create", "-q", "-", line, f"^{base}")
                case "patch":
                    content = await git("diff", *_EXACT, base, tip)
        if content is not None and len(content) > RESULT:
            text = f"not delivered: the {self.form} has {len(content)} bytes, and {RESULT} go"
            raise self._kept(text, changes)
        encoded = None if content is None else b64encode(content).decode()
        return Delivered(form=self.form, base=base, content=encoded)

    def _kept(self, text: str, changes: Changes) -> NotDeliveredError:
        where = f"The work is on the branch {changes.branch} of {self.place.repository.top}"
        return NotDeliveredError(text, hint=f"{where}, on the machine that ran it.")


_EXACT = ("--binary", "--full-index", "--no-color", "--no-ext-diff", "--no-textconv")


async def _holds(git: Git, base: str, tip: str, secrets: Sequence[str]) -> bool:
    """Whether a secret is in anything that was committed since, also if it was removed later."""
    if (secret := pattern(secrets)) is None:
        return False
    every = ("--text", "--diff-merges=separate", "--no-color", "--no-ext-diff", "--no-textconv")
    said = await git("log", "-p", "--format=%an%n%ae%n%B", *every, f"{base}..{tip}")
    if len(said) >= OUTPUT:
        raise GitError("it is too large to be searched for keys")
    return secret.search(said.decode("utf-8", "replace")) is not None
