"""The user's repository, and a view of it: a folder of ours that git takes for it.

A view has the user's refs and objects by links, and of their configuration only named settings that
say how files are written (line ends, modes, what is ignored). So commits and branches are made in
the user's repository without git ever reading a configuration that an agent could have planted.
"""

from __future__ import annotations

import os
import re
import shutil
import stat
import tempfile
from collections.abc import AsyncGenerator, Iterable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import MappingProxyType

from anyio import to_thread

from orchestrator.errors import InputError
from orchestrator.journal import make_private
from orchestrator.process import Reaper
from orchestrator.workspace.git import Git, GitError, environment, quoted, run_git
from orchestrator.workspace.snapshot import BY_PRODUCTS

_WORDS = (
    "autocrlf",
    "eol",
    "filemode",
    "symlinks",
    "ignorecase",
    "precomposeunicode",
    "sharedrepository",
    "sparsecheckout",
    "sparsecheckoutcone",
)
# Settings of [core] that decide how files and objects are written, and can execute nothing.
_WORD = re.compile(r"[A-Za-z0-9]{0,16}")
_SMALL = 1024 * 1024


@dataclass(frozen=True, kw_only=True)
class Repository:
    """Where a work tree's repository is: its top folder, its own git folder (HEAD, index), and the
    common one (refs, objects), which is another if this is a linked work tree.
    """

    top: Path
    own: Path
    common: Path
    settings: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))


def locate(workspace: Path) -> Repository | None:
    """The repository that a folder lies in, found without asking git; None if in none.

    Raises InputError if it is a bare one, or of a kind that cannot be worked with.
    """
    for folder in (workspace, *workspace.parents):
        git = folder / ".git"
        if git.is_file():
            return _usable(_linked(folder, git))
        if (git / "HEAD").exists():
            return _usable(Repository(top=folder, own=git, common=git))
        if all((folder / part).exists() for part in ("HEAD", "objects", "refs")):
            raise InputError(
                f"workspace: {workspace} is in a bare repository, which has no files to work on",
                hint="Name a clone or a work tree of it (`git worktree add`).",
            )
    return None


def _linked(top: Path, file: Path) -> Repository:
    own = top / os.fsdecode(_bytes_of(file).removeprefix(b"gitdir: ").rstrip(b"\n"))
    common = _bytes_of(own / "commondir").rstrip(b"\n")
    if not (own / "HEAD").exists():
        raise InputError(
            f"workspace: {file} names {own}, where there is no repository",
            hint="`git worktree repair` mends a work tree that was moved.",
        )
    shared = own / os.fsdecode(common) if common else own
    return Repository(top=top, own=own.resolve(), common=shared.resolve())


def _usable(repository: Repository) -> Repository:
    common = repository.common
    if (common / "reftable").is_dir():
        raise _unfit(repository, "it keeps its refs as reftable, which is not supported yet")
    for folder in (common, common / "objects", common / "refs"):
        if not os.access(folder, os.R_OK | os.W_OK | os.X_OK):
            raise _unfit(repository, f"no permission to write to {folder}")
    return repository


def _unfit(repository: Repository, why: str) -> InputError:
    return InputError(
        f"workspace: no work tree can be made from {repository.top}: {why}",
        hint="Set `isolation: none` to work in the folder itself.",
    )


async def with_settings(
    reaper: Reaper, repository: Repository, place: Path, environ: Mapping[str, str]
) -> Repository:
    """The repository with its settings, as the user's own git has them.

    Raises InputError if their configuration cannot be read.
    """
    env = environment() | {name: environ[name] for name in _HOMES if name in environ}
    env = {name: text for name, text in env.items() if not name.startswith("GIT_CONFIG")}
    files = (repository.common / "config", repository.own / "config.worktree")
    named = (word for file in files for word in ("-c", f"include.path={file}"))
    async with _folder(place) as folder:
        _furnish(folder, repository)
        env["GIT_DIR"] = str(folder)
        try:  # this reads a configuration and executes nothing that stands in it
            asked = (*named, "config", "--list", "--includes", "-z")
            done = await run_git(reaper, folder, env, *asked)
        except GitError as error:
            raise _unfit(repository, str(error)) from error
    listed = os.fsdecode(done.stdout).split("\0")
    found = dict(line.split("\n", 1) for line in listed if "\n" in line)
    if found.get("core.bare") == "true" and repository.own == repository.common:
        raise _unfit(repository, "it is bare (core.bare)")
    return replace(repository, settings=_picked(found, environ))


_HOMES = ("HOME", "XDG_CONFIG_HOME")


def _picked(found: Mapping[str, str], environ: Mapping[str, str]) -> Mapping[str, str]:
    named = {name: found.get(f"core.{name}", "") for name in _WORDS}
    settings = {name: word for name, word in named.items() if word and _WORD.fullmatch(word)}
    home = environ.get("HOME", "/nonexistent")
    usual = f"{environ.get('XDG_CONFIG_HOME') or f'{home}/.config'}/git/ignore"
    ignore = found.get("core.excludesfile", usual)
    settings["ignore"] = home + ignore[1:] if ignore.startswith("~/") else ignore
    settings["format"] = found.get("extensions.objectformat", "sha1").lower()
    settings["partial"] = found.get("extensions.partialclone", "")
    return MappingProxyType(settings)


@asynccontextmanager
async def view(
    reaper: Reaper,
    repository: Repository,
    place: Path,
    *,
    private: bool = False,
    exclude: Iterable[str] = (),
) -> AsyncGenerator[Git]:
    """Git on a repository by a view of it, which lies in the folder `place` as long as it lasts.

    `private`: new objects stay in the view, and go with it. `exclude`: more patterns to ignore.
    """
    async with _folder(place) as folder:
        await to_thread.run_sync(_furnish, folder, repository, private, tuple(exclude))
        yield Git(reaper=reaper, folder=folder, root=repository.top, config=_config(repository))


@asynccontextmanager
async def _folder(place: Path) -> AsyncGenerator[Path]:
    make_private(place)
    folder = Path(tempfile.mkdtemp(prefix=VIEW, dir=place))
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)  # links are removed, not followed


VIEW = ".view-"
"""How the folder of a view begins: what a crash left of one can go."""


def _furnish(
    folder: Path, repository: Repository, private: bool = False, exclude: tuple[str, ...] = ()
) -> None:
    own, common = repository.own, repository.common
    (folder / "HEAD").write_bytes(_bytes_of(own / "HEAD") or b"ref: refs/heads/none\n")
    for name in ("refs", "packed-refs", "shallow"):
        (folder / name).symlink_to(common / name)
    if private:
        (folder / "objects" / "info").mkdir(parents=True)
        alternates = folder / "objects" / "info" / "alternates"
        alternates.write_bytes(os.fsencode(quoted(str(common / "objects"))) + b"\n")
    else:
        (folder / "objects").symlink_to(common / "objects")
    (folder / "info").mkdir()
    ignored = [_bytes_of(Path(repository.settings.get("ignore", "/nonexistent")))]
    ignored += [_bytes_of(common / "info" / "exclude"), os.fsencode("\n".join(exclude))]
    (folder / "info" / "exclude").write_bytes(b"\n".join([BY_PRODUCTS.encode(), *ignored, b""]))
    (folder / "info" / "attributes").write_bytes(_bytes_of(common / "info" / "attributes"))
    sparse = _bytes_of(own / "info" / "sparse-checkout")
    if sparse:
        (folder / "info" / "sparse-checkout").write_bytes(sparse)
    for shared in own.glob("sharedindex.*"):
        shutil.copyfile(shared, folder / shared.name)  # git touches those that it reads


def _config(repository: Repository) -> str:
    settings = repository.settings
    lines = [f"\t{name} = {settings[name]}" for name in _WORDS if name in settings]
    version, extension = 0, ""
    if settings.get("format") == "sha256":
        version, extension = 1, "[extensions]\n\tobjectFormat = sha256\n"
    core = "\n".join(["[core]", f"\trepositoryformatversion = {version}", *lines])
    return f"{core}\n{extension}"


async def head(git: Git, repository: Repository) -> str:
    """The commit that the user's work tree is at. Raises InputError if there is none yet."""
    done = await git.run("rev-parse", "--verify", "-q", "HEAD^{commit}", accept=(0, 1))
    if done.exit:
        text = f"workspace: {repository.top} has no commit yet, so there is nothing to start from"
        hint = "Commit first (`git add -A && git commit`), or set `isolation: none`."
        raise InputError(text, hint=hint)
    return done.stdout.decode().strip()


async def uncommitted(git: Git, repository: Repository, *without: str) -> list[str]:
    """Files that differ from the user's HEAD: changed, staged, in conflict, or new and not ignored.

    Their index is read as a copy.
    """
    index = copied_index(git, repository)
    places = (f":(exclude,top,literal){path}" for path in without)
    listed = await replace(git, index=index)(
        "status",
        "--porcelain=v1",
        "-z",
        "--untracked-files=all",
        "--ignore-submodules=dirty",  # else git asks them, by their own configuration
        "--no-renames",
        "--",
        ".",
        *places,
    )
    return [os.fsdecode(entry[3:]) for entry in listed.split(b"\0") if entry]


def copied_index(git: Git, repository: Repository) -> Path:
    """A copy of the user's index, for git to refresh."""
    copy = git.folder / "index"
    index = repository.own / "index"
    if index.is_file():
        # With its time: by that git knows which files may have changed since, unseen in their own.
        shutil.copy2(index, copy)
    return copy


def _bytes_of(path: Path) -> bytes:
    """A small regular file; nothing if it is not there, or is none (a FIFO would block)."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        return b""
    try:
        return os.read(fd, _SMALL) if stat.S_ISREG(os.fstat(fd).st_mode) else b""
    finally:
        os.close(fd)
