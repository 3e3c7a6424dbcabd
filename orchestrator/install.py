"""Installs the tested version of an agent, from the lock that its adapter ships, into a folder of
our own.

`FOLDER/NAME` is a link to the version in use, below `FOLDER/.versions`: a new one is made beside it
and takes its place when it is whole, so whatever ends an installation leaves the old one or none.
"""

from __future__ import annotations

import fcntl
import os
import re
import secrets
import shutil
import sys
from collections.abc import AsyncGenerator, Callable, Generator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import anyio
import anyio.to_thread

from orchestrator.adapter import About, Agent, Install
from orchestrator.config import Config, check_adapter
from orchestrator.discovery import locate, locate_in, version
from orchestrator.errors import ConfigError, OrchestrateError, lone_error
from orchestrator.process import Reaper, base_environment, open_reaper, run_to_end

Say = Callable[[str], None]
OLDEST = (3, 11)
"""The locks for pip are made for this version of Python and newer ones."""
SLOWEST = 15
"""An installation may take so many times as long as its adapter says."""
PROGRESS_S = 5.0
_SETTINGS = re.compile(
    r"(?i)(pip_(?!user$|target$|prefix$|root$)|npm_config_)\w+|(https?|no|all)_proxy"
    r"|ssl_cert_(file|dir)|requests_ca_bundle|curl_ca_bundle|node_extra_ca_certs"
    r"|xdg_(config|cache)_home"
)
# What the user has set for pip and npm, a mirror or a proxy; no key of any model provider.


@dataclass(frozen=True, kw_only=True)
class Installed:
    """What is there now. `fresh`: it was not before."""

    path: str
    version: str
    fresh: bool


async def install(name: str, config: Config, say: Say, *, force: bool = False) -> Installed:
    """Install the tested version of an adapter's program; one that is there is left alone.

    `say` is told size and time first, then how far it is. Raises ConfigError where nothing can be
    installed (unknown name, no pip or npm), OrchestrateError where it failed.
    """
    check_adapter(name, config.adapters, "agents install")
    about = config.adapters[name].about
    how = about.install
    if isinstance(how, str) or about.program is None:
        hint = how if isinstance(how, str) and how else None
        raise ConfigError(f"{name} is not installed by orchestrate", hint=hint)
    if not Path(how.lock).is_file():
        raise ConfigError(f"{name}: its lock is not there: {how.lock}")
    _make(config.agents_folder / ".versions")
    async with open_reaper() as reaper:
        if not force and (there := await _there(about, config, reaper)) is not None:
            return there
        tool = _python(how, config) if how.kind == "pip" else _npm(config)
        async with _alone(name, config, say):
            # Whoever was at it before has done the work.
            if not force and (there := await _there(about, config, reaper)) is not None:
                return there
            return await _install(_Job(about, how, tool, config, reaper), say)


async def _there(about: About, config: Config, reaper: Reaper) -> Installed | None:
    """The tested version, if it is on this machine, wherever."""
    path = locate(about.program, config) if about.program is not None else None
    agent = Agent(name=about.name, adapter=about.name, program=path)
    stated = await version(agent, config, reaper) if path is not None else None
    if path is None or stated is None or stated not in about.tested:
        return None
    return Installed(path=path, version=stated, fresh=False)


@dataclass(frozen=True)
class _Job:
    about: About
    how: Install
    tool: str
    config: Config
    reaper: Reaper

    @property
    def name(self) -> str:
        return self.about.name

    @property
    def tested(self) -> str:
        return self.about.tested[0] if self.about.tested else ""


async def _install(job: _Job, say: Say) -> Installed:
    versions, link = job.config.agents_folder / ".versions", job.config.agents_folder / job.name
    _sweep(job.name, versions, link)
    minutes = "a minute" if job.how.minutes == 1 else f"{job.how.minutes} minutes"
    say(
        f"{job.about.title} {job.tested} takes about {job.how.megabytes} MB on disk and"
        f" {minutes}; installing it into {link}"
    )
    _room(job.how.megabytes, versions)
    with _folder(versions / f"{job.name}-{job.tested}-{secrets.token_hex(4)}") as folder:
        async with _progress(folder, job.how.megabytes, say):
            for argv in _commands(job, folder):
                await _do(job, argv)
        stated = await _proved(job, folder)
        _switch(link, folder)
    _sweep(job.name, versions, link)
    return Installed(path=_program(job, link) or str(link), version=stated, fresh=True)


def _commands(job: _Job, folder: Path) -> Sequence[tuple[str, ...]]:
    lock = Path(job.how.lock)
    if job.how.kind == "pip":
        quiet = ("-q", "--no-input", "--disable-pip-version-check", "--no-deps")
        pip = (str(folder / "bin" / "python"), "-m", "pip", "install", *quiet)
        return (
            (job.tool, "-m", "venv", str(folder)),
            (*pip, "--require-hashes", "-r", str(lock)),
        )
    for file in (lock, lock.with_name("package.json")):
        shutil.copyfile(file, folder / file.name)
    flags = ("--no-audit", "--no-fund", "--no-update-notifier", "--loglevel=error")
    # Scripts of packages are not run: what they would do is the adapter's to find (`natives`).
    npm = (job.tool, "ci", "--prefix", str(folder), "--ignore-scripts", "--include=optional")
    return ((*npm, *flags),)


async def _do(job: _Job, argv: tuple[str, ...]) -> None:
    done = await run_to_end(
        job.reaper,
        argv,
        cwd=Path("/"),
        env=_environment(job.config.environ),
        limit_s=60.0 * SLOWEST * job.how.minutes,
        merge=True,
        output_limit=16 * 1024,
    )
    if done.exit == 0 and not done.timed_out:
        return
    said = done.stdout.decode("utf-8", "replace").strip()
    how = "took too long" if done.timed_out else f"failed ({done.exit or done.signal})"
    text = f"{job.name} is not installed: {Path(argv[0]).name} {how}"
    raise OrchestrateError(f"{text}:\n{said}" if said else text)


async def _proved(job: _Job, folder: Path) -> str:
    """The version of what is in the new folder, by its own word. Raises OrchestrateError."""
    path = _program(job, folder)
    agent = Agent(name=job.name, adapter=job.name, program=path)
    stated = await version(agent, job.config, job.reaper) if path is not None else None
    if stated is None or stated not in job.about.tested:
        found = f"it is {stated}" if stated else "it does not run"
        text = f"{job.name} is not installed: {found}, {job.tested} was expected"
        raise OrchestrateError(text)
    return stated


def _program(job: _Job, folder: Path) -> str | None:
    program = job.about.program
    return locate_in(program, folder) if program is not None else None


# --- files ---------------------------------------------------------------------------------------


def _make(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    except OSError as error:
        raise OrchestrateError(f"cannot make {folder}: {error.strerror}") from error


def _room(megabytes: int, folder: Path) -> None:
    free = shutil.disk_usage(folder).free // 2**20
    if free < megabytes:
        raise OrchestrateError(f"{folder}: {free} MB are free, about {megabytes} MB are needed")


@contextmanager
def _folder(path: Path) -> Generator[Path]:
    """A new folder, which does not stay if the block raises."""
    _make(path)
    try:
        yield path
    except BaseException:
        shutil.rmtree(path, ignore_errors=True)
        raise


def _switch(link: Path, folder: Path) -> None:
    """Let the link point to the folder, in one step."""
    fresh = link.with_name(f".{folder.name}.link")
    fresh.symlink_to(folder.relative_to(link.parent))
    if link.is_dir() and not link.is_symlink():  # not of our making; swept when nobody uses it
        link.rename(folder.with_name(f"{link.name}-before-{folder.name[-8:]}"))
    fresh.replace(link)


def _sweep(name: str, versions: Path, link: Path) -> None:
    """Remove what an interrupted installation left, and old versions that nobody runs any more."""
    kept = link.resolve()
    for folder in versions.iterdir():
        mine = re.fullmatch(rf"{re.escape(name)}-[^-]*-[0-9a-f]{{8}}", folder.name)
        if mine and folder != kept and not _used(folder):
            shutil.rmtree(folder, ignore_errors=True)
    for left in versions.parent.glob(f".{name}-*.link"):
        left.unlink(missing_ok=True)


def _used(folder: Path) -> bool:
    """Whether a process runs out of this folder."""
    wanted = os.fsencode(f"{folder}/")
    for process in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):  # it has ended, or is not ours
            if wanted in (process / "cmdline").read_bytes():
                return True
            if str(process.joinpath("exe").readlink()).startswith(f"{folder}/"):
                return True
    return False


@asynccontextmanager
async def _alone(name: str, config: Config, say: Say) -> AsyncGenerator[None]:
    """One installation of this name at a time, on the whole machine."""
    lock = config.agents_folder / ".versions" / f"{name}.lock"
    told = False
    with lock.open("w") as file:
        while True:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if not told:
                    say(f"{name} is being installed already; waiting for that")
                told = True
            await anyio.sleep(0.2)
        yield


@asynccontextmanager
async def _progress(folder: Path, megabytes: int, say: Say) -> AsyncGenerator[None]:
    async def tell() -> None:
        began = anyio.current_time()
        while True:
            await anyio.sleep(PROGRESS_S)
            size = await anyio.to_thread.run_sync(_megabytes, folder)
            say(f"{size} of about {megabytes} MB, {anyio.current_time() - began:.0f} s")

    with lone_error():
        async with anyio.create_task_group() as group:
            group.start_soon(tell)
            yield
            group.cancel_scope.cancel()


def _megabytes(folder: Path) -> int:
    """What is in the folder, by its blocks on disk."""
    blocks = 0
    for place, _, names in os.walk(folder):
        for name in names:
            with suppress(OSError):  # it was there a moment ago
                blocks += os.lstat(os.path.join(place, name)).st_blocks  # noqa: PTH118
    return blocks * 512 // 2**20


# --- tools ---------------------------------------------------------------------------------------


def _environment(environ: Mapping[str, str]) -> dict[str, str]:
    settings = {name: value for name, value in environ.items() if _SETTINGS.fullmatch(name)}
    return {**base_environment(environ), **settings}


def _npm(config: Config) -> str:
    if (npm := shutil.which("npm", path=config.environ.get("PATH", os.defpath))) is None:
        raise ConfigError("npm is not installed", hint="Install Node 20 or newer, which brings it.")
    return npm


def _python(how: Install, config: Config) -> str:
    """An interpreter that the packages run on: ours, else one on PATH."""
    ours = (sys.version_info.major, sys.version_info.minor)
    below = how.python_below
    if below is None or ours < below:
        return sys.executable
    for minor in range(below[1] - 1, OLDEST[1] - 1, -1):
        found = shutil.which(f"python3.{minor}", path=config.environ.get("PATH", os.defpath))
        if found is not None:
            return found
    text = f"it needs Python 3.{OLDEST[1]} to 3.{below[1] - 1}, and none is on PATH"
    raise ConfigError(text, hint=f"Install python3.{below[1] - 1} (with its venv), then try again.")
