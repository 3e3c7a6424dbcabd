"""Gateways between agents and model servers that do not speak the same: processes of the
supervisor's, started when the first agent needs one and shared until it ends.

A gateway knows one server. Its socket is held here, on loopback: no port is guessed, and when the
process dies, whoever asks it something waits until it is started anew. Its key is made anew each
time that there is a supervisor, and given to the agents that go through it.
"""

from __future__ import annotations

import os
import secrets
import socket
from collections.abc import AsyncGenerator, Mapping
from contextlib import ExitStack, asynccontextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

import anyio

from orchestrator.adapter import About, Agent, Command, Gateway, Upstream, json_line
from orchestrator.config import Config
from orchestrator.discovery import FoundServer, Use, locate
from orchestrator.errors import AskError, OrchestrateError, lone_error
from orchestrator.events import Error
from orchestrator.journal import make_private
from orchestrator.process import Reaper, environment
from orchestrator.process.background import Background
from orchestrator.process.start import Start, Stdio, spool, write_private
from orchestrator.server import Ask, find_model, is_remote
from orchestrator.telemetry import warn

KEY = "ORCHESTRATE_GATEWAY_KEY"
"""The variable in which agents find the key of their gateway."""

START_S = 180.0
"""How long a gateway may take to answer: 7 s on an idle machine, a minute on a busy one."""

SERVED = "served.jsonl"
"""The file in a gateway's folder in which it writes down which model of its server answered."""

ANSWER_S = 10.0
_DEATHS = 3
"""A gateway that ends soon so many times, without an agent that came to it, is given up."""

_TAIL = 2_000


@dataclass(frozen=True, kw_only=True)
class Passage:
    """An agent as it goes through a gateway: its address and key are the gateway's, and `environ`
    holds that key. `server` is where the gateway goes, `served` the file in which it says so.
    """

    agent: Agent
    environ: Mapping[str, str] = field(repr=False)
    note: str
    server: str
    served: Path


@dataclass(kw_only=True)
class _Running:
    """A gateway from its first start on. `failed` is why there is none any more."""

    upstream: Upstream
    folder: Path
    listening: socket.socket
    address: str
    key: str = field(repr=False)
    starts: int = 0
    deaths: int = 0
    answered: bool = False
    ended_by_itself: bool = False
    pid: int = 0
    failed: str | None = None
    changed: anyio.Event = field(default_factory=anyio.Event)

    @property
    def stderr(self) -> Path:
        return self.folder / f"stderr-{self.starts}"


class Gateways:
    """The gateways of one supervisor. Made by `open_gateways`."""

    def __init__(self, config: Config, reaper: Reaper, background: Background) -> None:
        self._config = config
        self._reaper = reaper
        self._background = background
        self._running: list[_Running] = []
        self._opening = anyio.Lock()

    @property
    def pids(self) -> tuple[int, ...]:
        """The processes of those that run."""
        return tuple(one.pid for one in self._running if one.failed is None and one.pid)

    async def through(
        self, agent: Agent, about: About, found: FoundServer
    ) -> Passage | Error | None:
        """The way of an agent to its server, where it needs one; else None, or why there is none.

        A server that speaks what the agent speaks is never behind a gateway.
        """
        gateway = self._config.gateway
        if not needs_gateway(about, found):
            return None
        speaks = gateway is not None and gateway.upstream in found.dialects
        if gateway is None or not speaks or not set(gateway.about.dialects) & set(about.dialects):
            return _speechless(about, found)
        model = find_model(found.models, agent.model or "")
        if is_remote(agent.model or "") or (model is not None and model.remote):
            return _remote(agent)
        program = locate(gateway.about.program, self._config) if gateway.about.program else None
        if program is None:
            return _not_installed(about, found, gateway)
        async with self._opening:  # a second agent waits for the first one's gateway
            one = self._known(agent, found) or self._open(agent, found, gateway, program)
            if error := await self._answers(one, gateway):
                return _broken(one, gateway, error)
        return Passage(
            agent=replace(agent, base_url=one.address, api_key_env=KEY, server=None),
            environ={**self._config.environ, KEY: one.key},
            note=f"gateway: {gateway.about.title} between {about.title}"
            f" ({'/'.join(about.dialects)}) and {found.base_url} ({gateway.upstream})",
            server=found.base_url,
            served=one.folder / SERVED,
        )

    def _known(self, agent: Agent, found: FoundServer) -> _Running | None:
        for one in self._running:
            same = (one.upstream.base_url, one.upstream.key_from) == (
                found.base_url,
                agent.api_key_env,
            )
            if same and one.failed is None and agent.model in one.upstream.models:
                return one
        return None

    def _open(self, agent: Agent, found: FoundServer, gateway: Gateway, program: str) -> _Running:
        listed = (model.name for model in found.models if not model.remote and model.name != "*")
        upstream = Upstream(
            kind=found.kind,
            base_url=found.base_url,
            models=tuple(dict.fromkeys((agent.model or "", *listed))),
            key_from=agent.api_key_env,
        )
        name = f"{os.getpid()}-{secrets.token_hex(4)}"
        folder = make_private(self._config.state / "gateways" / name, fresh=True)
        listening = _listen()
        one = _Running(
            upstream=upstream,
            folder=folder,
            listening=listening,
            address=f"http://127.0.0.1:{listening.getsockname()[1]}",
            key=f"sk-{secrets.token_hex(24)}",
        )
        command = gateway.command(program, upstream, folder=str(folder), key_from=KEY)
        self._running.append(one)
        self._background.start(self._keep, one, command)
        return one

    async def _keep(self, one: _Running, command: Command) -> None:
        """Run the gateway, and run it again when it ends, until the supervisor does."""
        try:
            with one.listening:
                while one.deaths < _DEATHS:
                    began = anyio.current_time()
                    await self._once(one, command)
                    if not one.answered and one.ended_by_itself:
                        one.failed = f"it does not start: {_last_words(one.stderr)}"
                        return
                    young = anyio.current_time() - began < START_S
                    one.deaths = one.deaths + 1 if young else 1
                    warn("a gateway has ended", address=one.address, deaths=one.deaths)
                one.failed = f"it ended {_DEATHS} times in a row: {_last_words(one.stderr)}"
        except (OrchestrateError, OSError) as error:
            one.failed = str(error)
        except Exception as error:  # noqa: BLE001 (nobody awaits it: whoever waits for it is told)
            one.failed = f"orchestrate failed: {error!r}"
        finally:
            one.changed.set()

    async def _once(self, one: _Running, command: Command) -> None:
        environ = {**self._config.environ, KEY: one.key}
        one.starts += 1
        start = Start(
            argv=command.argv,
            cwd=command.cwd,
            env=environment(command, environ),
            token=f"gateway-{secrets.token_hex(8)}",
        )

        def stdio(files: ExitStack) -> Stdio:
            for path, content in command.files.items():
                write_private(Path(path), content)
            made: list[Path] = []
            out = spool(one.folder / f"stdout-{one.starts}", files, made)
            err = spool(one.stderr, files, made)
            return Stdio(one.listening.fileno(), out, err)

        async with self._reaper.start(start, stdio) as process:
            one.pid = process.pid
            one.ended_by_itself = (await process.wait()).status is not None

    async def _answers(self, one: _Running, gateway: Gateway) -> str | None:
        """Waits until it says that it is well; or why it does not."""
        from orchestrator.client import ask  # HTTP: a run without a gateway starts without it

        why: list[str] = []

        async def asked(scope: anyio.CancelScope) -> None:
            health = Ask(path=gateway.health)
            while not why:
                try:
                    reply = await ask(one.address, health, limit_s=START_S)
                except AskError as error:  # it died while it was asked, and is started anew
                    if error.why == "timed_out":
                        why.append(str(error))
                    await anyio.sleep(0.05)
                    continue
                if not reply.ok:
                    why.append(f"HTTP {reply.status}")
                break
            scope.cancel()

        with lone_error():
            async with anyio.create_task_group() as group:
                group.start_soon(asked, group.cancel_scope)
                await one.changed.wait()  # it is given up
                group.cancel_scope.cancel()
        if one.failed is None and not why:
            one.deaths, one.answered = 0, True
        return one.failed or (why[0] if why else None)


@asynccontextmanager
async def open_gateways(config: Config, reaper: Reaper) -> AsyncGenerator[Gateways]:
    """Nothing is started before it is needed; at the end of the block all are ended."""
    background = Background()
    try:
        yield Gateways(config, reaper, background)
    finally:
        await background.end()


def use_through(passage: Passage) -> Use:
    """How often the gateway had an answer of the agent's model from its server until now."""
    try:
        lines = passage.served.read_bytes().splitlines()
    except OSError:
        lines = []  # nothing yet
    said = (json_line(line) or {} for line in lines)
    count = sum(one.get("model") == passage.agent.model for one in said)
    return Use(server=passage.server, mark=str(count) if count else None, method="gateway")


def needs_gateway(about: About, found: FoundServer) -> bool:
    """Whether the agent and the server have no dialect in common, as far as is known."""
    if not about.dialects or not found.dialects:
        return False
    return not set(about.dialects) & set(found.dialects)


def _listen() -> socket.socket:
    listening = socket.create_server(("127.0.0.1", 0), backlog=128)
    listening.set_inheritable(False)
    return listening


# --- why there is no way -------------------------------------------------------------------------


def _speechless(about: About, found: FoundServer) -> Error:
    text = (
        f"{found.title} at {found.base_url} speaks {', '.join(found.dialects)};"
        f" {about.title} needs {' or '.join(about.dialects)}"
    )
    return Error(kind="invalid_request", text=text, retryable=False, hint="Use another agent.")


def _remote(agent: Agent) -> Error:
    text = f"{agent.model} is served by a cloud: no gateway passes anything on to it"
    return Error(kind="unroutable", text=text, retryable=False, hint="Take a model that is here.")


def _not_installed(about: About, found: FoundServer, gateway: Gateway) -> Error:
    text = (
        f"{found.title} at {found.base_url} speaks only {', '.join(found.dialects)},"
        f" {about.title} needs {' or '.join(about.dialects)}: that takes the"
        f" {gateway.about.title}, which is not installed"
    )
    hint = f"`{gateway.about.install_hint}` brings it."
    return Error(kind="spawn", text=text, retryable=False, hint=hint)


def _broken(one: _Running, gateway: Gateway, why: str) -> Error:
    text = f"the {gateway.about.title} before {one.upstream.base_url} does not work: {why}"
    hint = f"See {one.stderr}; `{gateway.about.install_hint} --force` installs it anew."
    return Error(kind="unavailable", text=text, retryable=True, hint=hint)


def _last_words(path: Path) -> str:
    try:
        said = path.read_bytes()[-_TAIL:].decode("utf-8", "replace").strip()
    except OSError as error:
        return str(error)
    return said.splitlines()[-1] if said else "without a word"
