"""What is there: programs on this machine, and whether a model server answers. All I/O of
choosing.
"""

from __future__ import annotations

import os
import re
import shutil
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from urllib.parse import urlsplit

import anyio

from orchestrator.adapter import About, Agent, Command, Program, about_of
from orchestrator.config import Config, agents_for, expanded, not_allowed, tier_of
from orchestrator.errors import ConfigError, SpawnError, lone_error
from orchestrator.events import Auth, Error, Tier
from orchestrator.process import Reaper, base_environment, open_reaper, run_to_end
from orchestrator.route import State
from orchestrator.server import ModelServer
from orchestrator.task import Task

CONNECT_S = 5.0
VERSION_S = 30.0
_VERSION = re.compile(rb"\d+\.\d+[0-9A-Za-z.+-]*")


def locate(program: Program, config: Config) -> str | None:
    """The program's absolute path, a native binary rather than its wrapper; None if it is not here.

    Looked for in the environments of our own first (they hold the tested versions), then on PATH.
    """
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
    return placed, State(problems={**problems, **not_allowed(agents, config)}, kinds=kinds)


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


def auth_of(agent: Agent, command: Command, config: Config) -> Auth:
    """With what the agent comes to its model: a key that its command passes on, or a login.

    A login is one of the CLI's own files in the user's home; whether it is still good, nobody asks.
    """
    sources = (command.env_from.get(name) for name in command.secrets)
    if any(config.environ.get(source) for source in sources if source is not None):
        return "key"
    own = agent.profile == "user" and agent.base_url is None and agent.tier == "cloud"
    return (
        "login"
        if own and _logged_in(about_of(config.adapters[agent.adapter], agent), config)
        else "none"
    )


def _logged_in(about: About, config: Config) -> bool:
    for login in about.logins:
        path = expanded(login, config.environ)
        with suppress(OSError):  # a folder that may not be looked into
            if path is not None and path.exists():
                return True
    return False


# --- a survey ------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class FoundAdapter:
    """An adapter and its program on this machine. `untested`: this version was never tried."""

    name: str
    title: str
    path: str | None
    version: str | None
    tested: tuple[str, ...]
    untested: bool | None
    auth: Auth
    dialects: tuple[str, ...]
    access: tuple[str, ...]
    install: str
    problem: str | None = None


@dataclass(frozen=True, kw_only=True)
class FoundAgent:
    """An agent as it would run. `access` are the levels that it can be held to."""

    name: str
    adapter: str
    model: str | None
    server: str | None
    tier: Tier
    profile: str
    access: tuple[str, ...]
    auth: Auth | None
    default: bool
    configured: bool
    problem: str | None = None


@dataclass(frozen=True, kw_only=True)
class Survey:
    """All that could do a task, agents in the order of preference."""

    adapters: tuple[FoundAdapter, ...]
    agents: tuple[FoundAgent, ...]


async def survey(config: Config) -> Survey:
    """Every adapter with its program and version, and every agent. Starts the programs."""
    found: dict[str, FoundAdapter] = {}
    with lone_error():
        async with open_reaper() as reaper, anyio.create_task_group() as group:

            async def look_at(name: str) -> None:
                found[name] = await _adapter(name, config, reaper)

            for name in config.adapters:
                group.start_soon(look_at, name)
    placed, state = look(agents_for(None, config), config)
    return Survey(
        adapters=tuple(found[name] for name in sorted(found)),
        agents=tuple(_agent(agent, state.problems.get(agent.name), config) for agent in placed),
    )


async def _adapter(name: str, config: Config, reaper: Reaper) -> FoundAdapter:
    problem: str | None = None
    try:
        about = config.adapters[name].about
    except ConfigError as error:
        about, problem = About(name=name, title=name, program=None), str(error)
    path = locate(about.program, config) if about.program is not None else None
    agent = Agent(name=name, adapter=name, program=path)
    stated = await version(agent, config, reaper) if path is not None else None
    if path is not None and stated is None and about.tested:
        problem = f"{path} states no version; does it run? ({about.install_hint})"
    keys = {*about.keys, about.key_env} - {None}
    key = any(config.environ.get(key) for key in keys if key is not None)
    return FoundAdapter(
        name=name,
        title=about.title,
        path=path,
        version=stated,
        tested=about.tested,
        untested=stated not in about.tested if stated is not None and about.tested else None,
        auth="key" if key else "login" if _logged_in(about, config) else "none",
        dialects=about.dialects,
        access=about.enforces,
        install=about.install_hint,
        problem=problem,
    )


def _agent(agent: Agent, problem: str | None, config: Config) -> FoundAgent:
    access: tuple[str, ...] = ()
    auth: Auth | None = None
    try:
        access = about_of(config.adapters[agent.adapter], agent).enforces
        home = None if agent.profile == "user" else "/"
        task = Task(prompt="-", workspace=Path("/"))
        command = config.adapters[agent.adapter].command(task, replace(agent, home=home))
        auth = auth_of(agent, command, config)
    except ConfigError as error:
        problem = problem or str(error)
    name = agent.api_key_env
    if name is not None and not config.environ.get(name):
        problem = problem or f"its key is not there: {name} is not set"
    return FoundAgent(
        name=agent.name,
        adapter=agent.adapter,
        model=agent.model,
        server=agent.base_url or agent.server,
        tier=agent.tier,
        profile=agent.profile,
        access=access,
        auth=auth,
        default=agent.name == config.default_agent,
        configured=agent.name in {one.name for one in config.agents},
        problem=problem,
    )


async def version(agent: Agent, config: Config, reaper: Reaper) -> str | None:
    """The version that the agent's program states, or None. Asked once for each build of it."""
    about = about_of(config.adapters[agent.adapter], agent)
    if agent.program is None or not about.version_argv:
        return None
    cache = config.state / "versions" / _fingerprint(agent.program)
    try:
        return cache.read_text("utf-8") or None
    except OSError:
        pass  # not asked yet
    try:
        done = await run_to_end(
            reaper,
            (agent.program, *about.version_argv),
            cwd=Path("/"),
            env=base_environment(config.environ),
            limit_s=VERSION_S,
        )
    except SpawnError:
        return None  # whoever starts the agent itself is told
    found = _VERSION.search(done.stdout) or _VERSION.search(done.stderr)
    text = found[0].decode() if found and done.exit == 0 else ""
    if text:
        cache.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        cache.write_text(text, "utf-8")
    return text or None


async def preflight(agent: Agent, servers: Mapping[str, ModelServer]) -> Error | None:
    """The reason why the agent's model server cannot be reached, or None.

    Only a local one is asked: CLIs retry a refused port for minutes, and LiteLLM calls it a 500.
    """
    if agent.base_url is None or (agent.tier == tier_of(agent.base_url) == "cloud"):
        return None
    url = agent.base_url if "://" in agent.base_url else f"http://{agent.base_url}"
    parts = urlsplit(url)
    host = parts.hostname or ""
    try:
        port = parts.port or (443 if parts.scheme == "https" else 80)
        with anyio.fail_after(CONNECT_S):
            stream = await anyio.connect_tcp(host, port)
        await stream.aclose()
    except (OSError, TimeoutError, ValueError) as error:
        why = "no answer" if isinstance(error, TimeoutError) else _reason(error)
        kind = servers.get(agent.server or "")
        title = kind.title if kind else "the model server"
        return Error(
            kind="unavailable",
            text=f"Cannot reach {title} at {agent.base_url} ({why}).",
            retryable=True,
            hint=server_hint(kind),
        )
    return None


def server_hint(kind: ModelServer | None) -> str:
    """What to do when a model server does not answer, or has not the model."""
    if kind is None or kind.start is None:
        return "Is it running? Is the address right?"
    models = f" Is the model there (`{kind.list_models}`)?" if kind.list_models else ""
    return f"Is it running (`{kind.start}`)?{models}"


def _reason(error: Exception) -> str:
    if isinstance(error, OSError) and error.strerror:
        return error.strerror.lower()
    text = str(error).lower()
    return "connection refused" if "all connection attempts failed" in text else text


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
