"""A workspace that is fetched: a repository of ours for each address, in the state directory, that
work trees are made from as from the user's own; and pushing to where it came from.

Fetching and pushing are the only commands that read the user's own git configuration, for their
credentials. What stands in our repository's is never read, hooks are off, and no other transport
than https, ssh and file is spoken, whatever a configuration says.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from contextlib import suppress
from hashlib import sha256
from pathlib import Path

from orchestrator.errors import InputError
from orchestrator.journal import make_private
from orchestrator.process import Reaper
from orchestrator.slots import Room, Slots
from orchestrator.task import Source
from orchestrator.workspace.git import Git, GitError, environment, pin, run_git
from orchestrator.workspace.place import Ground
from orchestrator.workspace.repository import Repository

FETCH_S = 1800.0
"""A large repository that is fetched for the first time takes minutes."""

_USERS = (
    "PATH",
    "HOME",
    "USER",
    "LOGNAME",
    "XDG_CONFIG_HOME",
    "XDG_RUNTIME_DIR",
    "DBUS_SESSION_BUS_ADDRESS",
    "SSH_AUTH_SOCK",
    "GIT_SSH",
    "GIT_SSH_COMMAND",
    "GIT_ASKPASS",
    "GIT_SSL_CAINFO",
    "SSL_CERT_FILE",
    "SSL_CERT_DIR",
    "http_proxy",
    "https_proxy",
    "HTTPS_PROXY",
    "ALL_PROXY",
    "all_proxy",
    "NO_PROXY",
    "no_proxy",
)
# What the user's git, ssh and credential helpers find their way by.


async def fetched(
    reaper: Reaper, source: Source, *, state: Path, environ: Mapping[str, str]
) -> Ground:
    """The commit that a source names now, in a repository that work trees can be made from.

    One at a time for each address, over all processes of the machine. Raises InputError if it
    cannot be fetched.
    """
    repository = _repository(source, state)
    git = Git(reaper=reaper, folder=repository.own, root=repository.top)
    slots = Slots(state / "slots")
    async with slots.hold(Room(name=f"fetch {source.url}", slots=1)):
        _make(repository)
        (repository.own / _ADDRESS).write_text(source.url, encoding="utf-8")
        os.utime(repository.top)  # used now: it does not go as one that nobody needs (cleaning.py)
        commit = await _there(git, source.ref) or await _fetch(git, source, environ)
    where = f"{source.ref or 'HEAD'} of {source.url}"
    return Ground(
        repository=repository,
        workspace=repository.top,
        base=commit,
        trees=state / "trees",
        notes=(f"the workspace is {where}, commit {commit[:12]}",),
    )


async def push(git: Git, source: Source, branch: str, environ: Mapping[str, str]) -> None:
    """Push a branch to where the repository was fetched from, under its own name.

    Raises GitError, also if another one is there by that name.
    """
    spec = f"refs/heads/{branch}:refs/heads/{branch}"
    asked = ("push", "--quiet", "--no-verify", "--recurse-submodules=no", "--")
    await _as_user(git, environ, *asked, source.url, spec)


def caches(state: Path) -> list[Path]:
    """Every repository of ours for an address."""
    try:
        return sorted((state / "repositories").iterdir())
    except FileNotFoundError:
        return []


def addresses(state: Path) -> list[str]:
    """The addresses that were fetched from here."""
    found: list[str] = []
    for folder in caches(state):
        with suppress(OSError, UnicodeDecodeError):
            found.append((folder / ".git" / _ADDRESS).read_text(encoding="utf-8"))
    return found


_ADDRESS = "description"
# A file that git itself has for people to read.


def cache_of(source: Source, state: Path) -> Path:
    """Where our repository for an address is, or would be."""
    return state / "repositories" / sha256(source.url.encode()).hexdigest()[:24]


def _repository(source: Source, state: Path) -> Repository:
    top = cache_of(source, state)
    return Repository(top=top, own=top / ".git", common=top / ".git")


def _make(repository: Repository) -> None:
    """An empty repository, made by hand: nothing of a template of the user's is in it."""
    make_private(repository.top.parent)
    for folder in ("objects/info", "objects/pack", "refs/heads", "info"):
        (repository.own / folder).mkdir(parents=True, exist_ok=True, mode=0o700)
    if not (repository.own / "HEAD").exists():
        (repository.own / "HEAD").write_text("ref: refs/heads/none\n")


async def _there(git: Git, ref: str | None) -> str | None:
    """The commit, if that is what the ref is, and it is here already: it will not change."""
    if ref is None or len(ref) not in {40, 64} or set(ref) - set("0123456789abcdef"):
        return None
    done = await git.run("rev-parse", "--verify", "-q", f"{ref}^{{commit}}", accept=(0, 1, 128))
    return done.stdout.decode().strip() if done.exit == 0 else None


async def _fetch(git: Git, source: Source, environ: Mapping[str, str]) -> str:
    wanted = source.ref or "HEAD"
    kept = f"refs/orchestrate/sources/{sha256(wanted.encode()).hexdigest()[:16]}"
    try:
        await _fetch_as_user(git, source, f"+{wanted}:{kept}", environ)
        return await git.word("rev-parse", "--verify", f"{kept}^{{commit}}")
    except GitError as error:
        # Not every server gives a commit by its id; it may be in one of the branches.
        refused = error
    if len(wanted) in {40, 64}:
        every = "+refs/heads/*:refs/orchestrate/heads/*"
        try:
            await _fetch_as_user(git, source, every, environ)
        except GitError as error:
            refused = error
        if (commit := await _there(git, wanted)) is not None:
            return commit
    raise InputError(
        f"workspace: cannot fetch {wanted} of {source.url}: {refused}",
        hint="Try `git ls-remote` there, as the user who runs this: its credentials are used.",
    ) from refused


async def _fetch_as_user(git: Git, source: Source, spec: str, environ: Mapping[str, str]) -> None:
    quiet = ("--quiet", "--no-tags", "--no-write-fetch-head", "--no-recurse-submodules")
    asked = ("fetch", *quiet, "--no-auto-maintenance", "--", source.url, spec)
    await _as_user(git, environ, *asked)


async def _as_user(git: Git, environ: Mapping[str, str], *arguments: str) -> None:
    """Git with the user's own configuration and ways to their keys, and none of the repository's.
    Raises GitError, with all that git said.
    """
    pin(git.folder, git.config)
    own = environment()
    for name in ("GIT_CONFIG_NOSYSTEM", "GIT_CONFIG_GLOBAL", "HOME", "PATH"):
        del own[name]
    users = {name: environ[name] for name in _USERS if name in environ}
    places = {"GIT_DIR": str(git.folder), "GIT_ALLOW_PROTOCOL": "https:ssh:file"}
    await run_git(
        git.reaper, git.folder, {**own, **users, **places}, *arguments, limit_s=FETCH_S, whole=True
    )
