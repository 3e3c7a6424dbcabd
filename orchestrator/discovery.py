"""What is there: programs on this machine, and whether a model server answers. All I/O of
choosing.
"""

from __future__ import annotations

import os
import re
import shutil
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from urllib.parse import urlsplit

import anyio

from orchestrator.adapter import Agent, Program
from orchestrator.config import Config
from orchestrator.errors import ConfigError
from orchestrator.events import Error
from orchestrator.process import Reaper, base_environment, run_to_end
from orchestrator.route import State
from orchestrator.server import ModelServer

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


def look(agents: Sequence[Agent], config: Config) -> tuple[list[Agent], State]:
    """The agents with their programs found, and the problems of those that cannot run."""
    placed: list[Agent] = []
    problems: dict[str, str] = {}
    found: dict[str, str | None] = {}
    for agent in agents:
        try:
            about = config.adapters[agent.adapter].about
        except ConfigError as error:
            problems[agent.name] = str(error)
            placed.append(agent)
            continue
        if about.program is None:
            placed.append(agent)
            continue
        if agent.adapter not in found:
            found[agent.adapter] = locate(about.program, config)
        path = found[agent.adapter]
        if path is None:
            problems[agent.name] = f"{about.program.name} is not installed ({about.install_hint})"
        placed.append(replace(agent, program=path))
    return placed, State(problems=problems)


async def version(agent: Agent, config: Config, reaper: Reaper) -> str | None:
    """The version that the agent's program states, or None. Asked once for each build of it."""
    about = config.adapters[agent.adapter].about
    if agent.program is None or not about.version_argv:
        return None
    cache = config.state / "versions" / _fingerprint(agent.program)
    try:
        return cache.read_text("utf-8") or None
    except OSError:
        pass  # not asked yet
    done = await run_to_end(
        reaper,
        (agent.program, *about.version_argv),
        cwd=Path("/"),
        env=base_environment(config.environ),
        limit_s=VERSION_S,
    )
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
    if agent.base_url is None or agent.tier == "cloud":
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
                yield agent / "bin"
                yield agent / "node_modules" / ".bin"


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
    stat = os.stat(path)  # noqa: PTH116 (a path text)
    name = path.strip("/").replace("/", "-")[-80:]
    return f"{name}-{stat.st_size}-{stat.st_mtime_ns}"
