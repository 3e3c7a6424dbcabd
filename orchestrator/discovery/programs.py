"""Programs on this machine: where they are, which version, and which key is theirs."""

from __future__ import annotations

import os
import re
import shutil
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

from orchestrator import private
from orchestrator.adapter import About, Agent, Program, about_of, json_line
from orchestrator.config import Config, LocalMode, at_home, not_allowed, places_of
from orchestrator.discovery.servers import place_of
from orchestrator.errors import ConfigError, SpawnError
from orchestrator.process import Reaper, base_environment, run_to_end
from orchestrator.route import State
from orchestrator.server import ModelServer, Place
from orchestrator.task import Task

VERSION_S = 30.0
FRESH_S = 1.0
# Where a program was found it is looked for again after this time: looking through all folders
# takes milliseconds, and many runs that start together each want to know.
_PLAIN = re.compile(r"\d+(\.\d+)+")
_VERSION = re.compile(rb"\d+\.\d+[0-9A-Za-z.+-]*")


def locate(program: Program, config: Config) -> str | None:
    """The program's absolute path, a native binary rather than its wrapper; None if it is not here.

    Looked for in the environments of our own first (they hold the tested versions), then on PATH.
    """
    key = program, config.environ.get("PATH", os.defpath), config.agents_folder
    at, found = config.located.get(key, (-FRESH_S, None))
    if found is None or time.monotonic() - at >= FRESH_S or not os.access(found, os.X_OK):
        found = _located(program, config)
        config.located[key] = time.monotonic(), found
    return found


def _located(program: Program, config: Config) -> str | None:
    for folder in _folders(config):
        if (found := shutil.which(program.name, path=str(folder))) is not None:
            return _native(Path(found), program)
    found = shutil.which(program.name, path=config.environ.get("PATH", os.defpath))
    return None if found is None else _native(Path(found), program)


def locate_in(program: Program, folder: Path) -> str | None:
    """The program's absolute path in an environment of our own, or None."""
    path = os.pathsep.join(str(bin_) for bin_ in _programs(folder))
    found = shutil.which(program.name, path=path)
    return None if found is None else _native(Path(found), program)


def look(
    agents: Sequence[Agent], config: Config, *, named: bool = False
) -> tuple[list[Agent], State]:
    """The agents with their programs found, and the problems of those that cannot run.

    Wrong options of an agent that was `named` are wrong input: raises ConfigError. Those of one
    among many only rule it out.
    """
    placed: list[Agent] = []
    problems: dict[str, str] = {}
    notes: dict[str, str] = {}
    mode = config.local()
    found: dict[Program, str | None] = {}
    for agent in agents:
        try:
            about = about_of(config.adapters[agent.adapter], agent)
        except ConfigError as error:
            if named:
                raise
            problems[agent.name] = str(error)
            placed.append(agent)
            continue
        home = at_home(agent, about, mode, *_home(mode, config))
        agent = home.agent  # noqa: PLW2901 (the same agent, where local mode sends it)
        if home.note is not None:
            notes[agent.name] = home.note
        if home.problem is not None:
            problems[agent.name] = home.problem
        if about.program is None:
            placed.append(agent)
            continue
        if about.program not in found:
            found[about.program] = locate(about.program, config)
        path = found[about.program]
        if path is None:
            problems[agent.name] = f"{about.program.name} is not installed ({about.install_hint})"
        placed.append(replace(agent, program=path, api_key_env=_key(agent, about, config)))
    kinds = {
        kind.port: kind.name for kind in config.servers.values() if kind.owns_port and kind.port
    }
    if mode.on:
        placed.sort(key=lambda agent: agent.tier == "cloud")  # stable: else the order stays
    places = {place.name: place for place in places_of(config)}
    problems = {**problems, **not_allowed(agents, config)}
    return placed, State(problems=problems, kinds=kinds, notes=notes, places=places)


def check_options(agent: Agent, task: Task, config: Config) -> None:
    """Raises ConfigError if the adapter cannot make a command of the agent as it is written. A
    model that its server is still to name is no fault.
    """
    if agent.model is None and place_of(agent, config) is not None:
        return
    home = None if agent.profile == "user" else "/"
    config.adapters[agent.adapter].command(task, replace(agent, home=home))


def _home(mode: LocalMode, config: Config) -> tuple[ModelServer | None, Place | None]:
    """Local mode's kind of server, and the configured server at its address."""
    same = (place for place in config.places if place.base_url == mode.base_url)
    return config.servers.get(mode.kind or ""), next(same, None)


def _key(agent: Agent, about: About, config: Config) -> str | None:
    """The variable with the agent's key: the one that it names, else its provider's usual one.

    The usual one goes to the provider's own address only.
    """
    if agent.api_key_env is not None or agent.login or agent.tier == "local":
        return agent.api_key_env
    name = about.key_env if agent.base_url is None else None
    if agent.server is not None:
        kind = config.servers.get(agent.server)
        own = kind is not None and agent.base_url is not None and agent.base_url == kind.base_url
        name = kind.key_env if kind is not None and own else None
    return name if name is not None and config.environ.get(name) else None


async def version(
    agent: Agent, config: Config, reaper: Reaper, limit_s: float = VERSION_S
) -> str | None:
    """The version that the agent's program states, or None. Asked once for each build of it. With
    less time than VERSION_S its npm package's word will do: some take seconds to say it themselves.
    """
    about = about_of(config.adapters[agent.adapter], agent)
    if agent.program is None or not about.version_argv:
        return None
    cache = config.state / "versions" / _fingerprint(agent.program)
    try:
        return private.read(cache).decode("utf-8", "replace") or None
    except OSError:
        pass  # not asked yet
    if limit_s < VERSION_S and (stated := _packaged(agent.program)) is not None:
        return stated
    try:
        done = await run_to_end(
            reaper,
            (agent.program, *about.version_argv),
            cwd=Path("/"),
            env=base_environment(config.environ),
            limit_s=limit_s,
            grace_s=0,
        )
    except SpawnError:
        return None  # whoever starts the agent itself is told
    found = _VERSION.search(done.stdout) or _VERSION.search(done.stderr)
    text = found[0].decode() if found and done.exit == 0 else ""
    if text:
        with suppress(OSError):  # it is asked again, that is all
            private.folder(cache.parent)
            private.replace(cache, text.encode())
    return text or None


def _packaged(program: str) -> str | None:
    """The version of the npm package that a program is part of, if it is a plain one."""
    for folder in Path(program).resolve().parents:
        if "node_modules" in {folder.parent.name, folder.parent.parent.name}:
            with suppress(OSError):
                package = json_line((folder / "package.json").read_bytes()) or {}
                stated = package.get("version")
                return stated if isinstance(stated, str) and _PLAIN.fullmatch(stated) else None
    return None


def _folders(config: Config) -> Iterator[Path]:
    prefix = Path(sys.prefix)
    yield prefix / "bin"
    for agents in (prefix / "agents", config.agents_folder):
        if agents.is_dir():
            for agent in sorted(agents.iterdir()):
                yield from _programs(agent)


def _programs(folder: Path) -> tuple[Path, Path]:
    return folder / "bin", folder / "node_modules" / ".bin"


def _native(found: Path, program: Program) -> str:
    """The real binary behind a wrapper, or the wrapper (which may outlive it and leak) as it is."""
    home = found.resolve().parent
    for pattern in program.natives:
        base = home
        rest = pattern
        while rest.startswith("../"):
            base, rest = base.parent, rest[3:]
        for path in sorted(base.glob(rest)):
            if os.access(path, os.X_OK):
                return str(path)
    return str(found.absolute())


def _fingerprint(path: str) -> str:
    """Another text for another build: for the folder that a link leads to, and for a link."""
    program = Path(path)
    stat, link = program.stat(), program.lstat()
    name = str(program.parent.resolve() / program.name).strip("/").replace("/", "-")[-120:]
    return f"{name}-{stat.st_size}-{stat.st_mtime_ns}-{link.st_mtime_ns}"
