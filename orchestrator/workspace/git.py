"""Running git so that nothing that an agent planted is ever executed.

Every git process has no configuration but ours, and hooks, fsmonitor and signing are off. `Git`
runs it with a repository folder of ours on somebody's work tree: never with the user's own `.git`,
whose configuration (filters, merge drivers, includes) an agent can write.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

from orchestrator import private
from orchestrator.errors import OrchestrateError
from orchestrator.process import Completed, Reaper, run_to_end

GIT_S = 120.0
OUTPUT = 64 * 1024**2
# What is read of git's output: a list of all files of a large repository fits.
_SAID = 6


class GitError(OrchestrateError):
    """Git failed; `str()` says how."""


_HARDENED = (
    "core.hooksPath=/dev/null",
    "core.fsmonitor=false",
    "core.logAllRefUpdates=false",
    "core.safecrlf=false",
    "commit.gpgSign=false",
    "submodule.recurse=false",
    "protocol.allow=never",
    "advice.addEmbeddedRepo=false",
    "gc.auto=0",
)
HARDENED = tuple(word for setting in _HARDENED for word in ("-c", setting))


def environment() -> dict[str, str]:
    return {
        "PATH": os.defpath,
        "LC_ALL": "C",
        "HOME": "/nonexistent",
        "GIT_CONFIG_NOSYSTEM": "1",
        "GIT_CONFIG_GLOBAL": "/dev/null",
        "GIT_ATTR_NOSYSTEM": "1",
        "GIT_TERMINAL_PROMPT": "0",
        "GIT_NO_REPLACE_OBJECTS": "1",  # an agent can plant those, too
        "GIT_NO_LAZY_FETCH": "1",
        "GIT_AUTHOR_NAME": "orchestrate",
        "GIT_AUTHOR_EMAIL": "orchestrate@localhost",
        "GIT_COMMITTER_NAME": "orchestrate",
        "GIT_COMMITTER_EMAIL": "orchestrate@localhost",
    }


async def run_git(
    reaper: Reaper,
    folder: Path,
    env: Mapping[str, str],
    *arguments: str,
    accept: frozenset[int] = frozenset({0}),
    stdin: bytes | None = None,
    limit_s: float = GIT_S,
    whole: bool = False,
) -> Completed:
    """Run git in a folder. Raises GitError if its exit status is not one to `accept`, or if it does
    not end, with the last line of what it said, or the `whole`; SpawnError.
    """
    done = await run_to_end(
        reaper,
        ("git", *HARDENED, *arguments),
        cwd=folder,
        env=env,
        limit_s=limit_s,
        output_limit=OUTPUT,
        stdin=stdin,
    )
    if done.exit not in accept:
        lines = done.stderr.decode("utf-8", "replace").strip().splitlines()
        said = " / ".join(lines[-_SAID:] if whole else lines[-1:])
        raise GitError(f"git: {said or f'exit {done.exit}'}")
    return done


@dataclass(frozen=True, kw_only=True)
class Git:
    """Git with our repository `folder` (GIT_DIR) on the work tree `root`; `index`: not its own.

    `config` is all the configuration there is. That is seen to before each command: the folder may
    have been in reach of an agent.
    """

    reaper: Reaper
    folder: Path
    root: Path
    config: str = ""
    index: Path | None = None

    async def __call__(
        self,
        *arguments: str,
        accept: Iterable[int] = (0,),
        stdin: bytes | None = None,
        env: Mapping[str, str] = MappingProxyType({}),
    ) -> bytes:
        """What git says. Raises GitError, SpawnError."""
        return (await self.run(*arguments, accept=accept, stdin=stdin, env=env)).stdout

    async def run(
        self,
        *arguments: str,
        accept: Iterable[int],
        stdin: bytes | None = None,
        env: Mapping[str, str] = MappingProxyType({}),
    ) -> Completed:
        """The same, with its exit status. Raises GitError, SpawnError."""
        pin(self.folder, self.config)
        places = {"GIT_DIR": str(self.folder), "GIT_WORK_TREE": str(self.root)}
        if self.index is not None:
            places["GIT_INDEX_FILE"] = str(self.index)
        return await run_git(
            self.reaper,
            self.root if self.root.is_dir() else self.folder,
            {**environment(), **places, **env},
            *arguments,
            accept=frozenset(accept),
            stdin=stdin,
        )

    async def word(self, *arguments: str, accept: Iterable[int] = (0,)) -> str:
        """What git says, when that is one word."""
        return (await self(*arguments, accept=accept)).decode().strip()


def pin(folder: Path, config: str) -> None:
    """See to it that this is all the configuration that a repository folder of ours has."""
    for planted in ("commondir", "config.worktree"):
        (folder / planted).unlink(missing_ok=True)
    file, wanted = folder / "config", os.fsencode(config)
    with suppress(OSError):
        if private.read(file) == wanted:
            return  # also of another command, which may be reading it just now
    private.replace(file, wanted)


def quoted(text: str) -> str:
    """A text as git's own files hold it, whatever is in it: a config, a list of alternates."""
    for plain, escaped in (("\\", "\\\\"), ('"', '\\"'), ("\n", "\\n"), ("\t", "\\t")):
        text = text.replace(plain, escaped)
    return f'"{text}"'


LINK, GONE = b"160000", b"0"
"""The mode of an entry that is another repository (a submodule, or one that lies inside), and the
mode by which an entry is taken out.
"""


async def entries(git: Git, mode: bytes) -> dict[str, str]:
    """Paths of a mode in the index, with their object ids."""
    listed = (await git("ls-files", "-s", "-z")).split(b"\0")
    found = (entry.split(b"\t", 1) for entry in listed if entry.startswith(mode + b" "))
    return {os.fsdecode(path): head.split(b" ")[1].decode() for head, path in found}


async def write_tree(git: Git, *without: str, links: Mapping[str, str] | None = None) -> str:
    """The id of the tree of the work tree as it is now, but for the paths `without`.

    What cannot be read (a repository without commits inside, another user's file) is left out.
    """
    await add_all(git, *without, links=links)
    return await git.word("write-tree")


async def add_all(git: Git, *without: str, links: Mapping[str, str] | None = None) -> None:
    """Bring the index to what the work tree is now. `links` are those that it has, if known."""
    # Git would ask each repository inside whether it is dirty, by a `git status` in there that
    # obeys its configuration (proved: its fsmonitor ran). Untracked ones are not asked.
    links = await entries(git, LINK) if links is None else links
    inside = {path: id_ for path, id_ in links.items() if os.path.lexists(git.root / path / ".git")}
    await put(git, GONE, inside)
    places = (f":(exclude,top,literal){path}" for path in without)
    # Exit 1: something could not be added.
    await git("add", "-A", "--sparse", "--ignore-errors", "--", ".", *places, accept=(0, 1))
    if inside:
        now = await entries(git, LINK)
        lost = {path: id_ for path, id_ in inside.items() if path not in now}
        there = {path: id_ for path, id_ in lost.items() if (git.root / path).is_dir()}
        await put(git, LINK, there)


async def put(git: Git, mode: bytes, ids: Mapping[str, str]) -> None:
    """Set entries of the index; mode 0 takes them out, whatever their ids."""
    if ids:
        lines = (
            mode + b" " + id_.encode() + b"\t" + os.fsencode(path) for path, id_ in ids.items()
        )
        await git("update-index", "-z", "--index-info", stdin=b"\0".join([*lines, b""]))
