"""What `doctor` tells: everything that could do a task here, what is wrong, and what to do."""

from __future__ import annotations

from collections.abc import Container, Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from urllib.parse import urlsplit

import anyio

from orchestrator.adapter import About, Install
from orchestrator.config import Config, LocalMode, places_of, tier_of
from orchestrator.discovery.nearby import with_found
from orchestrator.discovery.sandbox import Sandbox, sandbox
from orchestrator.discovery.servers import FoundServer, find_servers
from orchestrator.discovery.survey import (
    FoundAdapter,
    FoundAgent,
    Survey,
    agents_there,
    survey_with,
)
from orchestrator.errors import ConfigError, lone_error
from orchestrator.process import Guarantee, guarantees, open_reaper
from orchestrator.server import Model, find_model

VERSIONS_S = 1.0
"""How long programs are waited for to say their versions; `orchestrate agents` waits longer."""

SMALL_CONTEXT = 16_384
"""Below this no agent has room for its own prompt and a task."""


@dataclass(frozen=True, kw_only=True)
class Problem:
    """What is wrong, and one line of remedy."""

    what: str
    remedy: str


@dataclass(frozen=True, kw_only=True)
class Diagnosis:
    """`keys` are names of variables, never values. `ways`: the shortest ways to a first agent,
    where none would work now.
    """

    adapters: tuple[FoundAdapter, ...]
    agents: tuple[FoundAgent, ...]
    servers: tuple[FoundServer, ...]
    keys: tuple[str, ...]
    local: LocalMode
    sandbox: Sandbox
    supervision: tuple[Guarantee, ...]
    problems: tuple[Problem, ...]
    ways: tuple[str, ...]


async def diagnose(config: Config) -> Diagnosis:
    """Looks at everything at once. Sends nothing to any cloud."""
    mode, broken = _local(config)
    config = replace(config, local=lambda: mode)  # one that cannot be read is a problem, told below
    servers: tuple[FoundServer, ...] = ()
    held: list[Sandbox] = []
    surveys: list[Survey] = []

    async def look_at_servers() -> None:
        nonlocal servers
        servers = await find_servers(config)

    with lone_error():
        async with open_reaper() as reaper, anyio.create_task_group() as group:
            group.start_soon(look_at_servers)

            async def look_at_sandbox() -> None:
                held.append(await sandbox(config, reaper))

            group.start_soon(look_at_sandbox)
            surveys.append(await survey_with(config, reaper, limit_s=VERSIONS_S))
    (surveyed,) = surveys
    surveyed = replace(surveyed, agents=agents_there(with_found(config, servers)))
    keys = tuple(sorted(_keys(config)))
    ready = _described(surveyed.agents, config) or _ready(
        surveyed.agents, surveyed.adapters, servers
    )
    problems = (
        *broken,
        *_of_agents(surveyed.adapters, surveyed.agents),
        *_of_servers(servers, config),
        *_of_keys(config),
        *_of_local(mode, servers),
        *_of_sandbox(held[0], _abouts(config)),
    )
    return Diagnosis(
        adapters=surveyed.adapters,
        agents=surveyed.agents,
        servers=servers,
        keys=keys,
        local=mode,
        sandbox=held[0],
        supervision=guarantees(),
        problems=problems,
        ways=() if ready else _ways(surveyed.adapters, servers, config),
    )


def _local(config: Config) -> tuple[LocalMode, list[Problem]]:
    try:
        return config.local(), []
    except ConfigError as error:
        return LocalMode(), [Problem(what=str(error), remedy=error.hint or "")]


def _keys(config: Config) -> Iterator[str]:
    named = {agent.api_key_env for agent in config.agents}
    named |= {place.api_key_env for place in config.places}
    named |= {kind.key_env for kind in config.servers.values()}
    for name in config.adapters:
        try:
            about = config.adapters[name].about
        except ConfigError:
            continue  # it is among the adapters' problems
        named |= {*about.keys, about.key_env}
    return (name for name in named if name is not None and config.environ.get(name))


def _described(agents: Iterable[FoundAgent], config: Config) -> bool:
    """Whether somebody has described an agent whose program is there: with which model, nobody else
    knows.
    """
    programs = {about.name for about in _abouts(config)}
    return any(
        agent.configured and agent.problem is None and agent.adapter not in programs
        for agent in agents
    )


def _ready(
    agents: Iterable[FoundAgent], adapters: Iterable[FoundAdapter], servers: Iterable[FoundServer]
) -> bool:
    """Whether some agent would get an answer now: with a key or a login, or from a server here."""
    there = {adapter.name for adapter in adapters if adapter.path is not None}
    usable = [agent for agent in agents if agent.problem is None and agent.adapter in there]
    if any(agent.tier == "cloud" and agent.auth in {"key", "login"} for agent in usable):
        return True
    return bool(there) and any(server.models and not server.problem for server in servers)


# --- problems ------------------------------------------------------------------------------------


def _of_agents(adapters: Iterable[FoundAdapter], agents: Iterable[FoundAgent]) -> Iterator[Problem]:
    for adapter in adapters:
        if adapter.problem is not None:
            yield Problem(what=f"adapter {adapter.name}: {adapter.problem}", remedy="Reinstall it.")
        elif adapter.untested:
            what = f"{adapter.name} {adapter.version} was never tried (tested: {adapter.tested[0]})"
            remedy = f"`orchestrate agents install {adapter.name}` installs the tested one."
            yield Problem(what=what, remedy=remedy)
    for agent in agents:
        if agent.configured and agent.problem is not None:
            remedy = f"Correct [agents.{agent.name}], or install what it needs."
            yield Problem(what=f"agent {agent.name}: {agent.problem}", remedy=remedy)


def _of_servers(servers: Iterable[FoundServer], config: Config) -> Iterator[Problem]:
    for server in servers:
        if server.problem is not None:
            yield Problem(what=server.problem.text, remedy=server.problem.hint or "")
            continue
        kind = config.servers[server.kind]
        if not server.models:
            get = (kind.get_model or "").format(model="qwen2.5-coder:14b")
            remedy = f"`{get}`" if get else "Load one there."
            yield Problem(what=f"{server.name} has no model", remedy=remedy)
        if server.open_to:
            what = f"{server.name} listens beyond loopback ({', '.join(server.open_to)})"
            yield Problem(what=f"{what}: whoever is in your network can use it", remedy=_BIND)
        for model in server.models:
            if model.loaded and model.context is not None and model.context < SMALL_CONTEXT:
                more = (kind.more_context or "").format(model=model.name, context=32_768)
                yield Problem(what=_small(server, model), remedy=f"`{more}`")


_BIND = "Bind it to 127.0.0.1 (OLLAMA_HOST=127.0.0.1, --host 127.0.0.1), or close the port."


def _small(server: FoundServer, model: Model) -> str:
    name = f"{server.name}/{model.name}"
    return f"{name} has a window of {model.context} tokens: too few for an agent"


def _of_keys(config: Config) -> Iterator[Problem]:
    """Keys that would go unencrypted to another machine."""
    places = [(f"server {one.name}", one.base_url, one.api_key_env) for one in places_of(config)]
    agents = [(f"agent {one.name}", one.base_url, one.api_key_env) for one in config.agents]
    for name, url, key in (*places, *agents):
        if key is None or url is None or not config.environ.get(key):
            continue
        plain = urlsplit(url if "://" in url else f"http://{url}").scheme == "http"
        if plain and tier_of(url) == "cloud":
            what = f"{name}: the key in {key} goes to {url} over plain HTTP"
            yield Problem(what=what, remedy="Use https, or a tunnel that ends on this machine.")


def _of_local(mode: LocalMode, servers: Iterable[FoundServer]) -> Iterator[Problem]:
    if not mode.on:
        return
    if mode.model is None:
        what = "local mode is on without a model: the server's only loaded one is taken"
        yield Problem(what=what, remedy="`orchestrate local model NAME`")
    found = next((one for one in servers if one.base_url == mode.base_url), None)
    if found is None:
        what = f"local mode is on, and nothing answers at {mode.base_url}"
        yield Problem(what=what, remedy="Start the server, or `orchestrate local off`.")
    elif mode.model is not None and find_model(found.models, mode.model) is None:
        what = f"local mode's model {mode.model} is not at {mode.base_url}"
        yield Problem(what=what, remedy=f"`orchestrate models pull {found.name}/{mode.model}`")


def _of_sandbox(held: Sandbox, abouts: Iterable[About]) -> Iterator[Problem]:
    needing = sorted(about.title for about in abouts if about.landlock)
    if held.landlock is None and needing:
        what = f"the kernel offers no Landlock: nothing holds {', '.join(needing)} to `access`"
        yield Problem(what=what, remedy="Linux 5.13 or newer, with `landlock` among its modules.")


# --- the first steps -----------------------------------------------------------------------------


def _ways(
    adapters: Iterable[FoundAdapter], servers: Iterable[FoundServer], config: Config
) -> tuple[str, ...]:
    """The shortest ways to get one agent working, given what is there: a server, a key, a login."""
    there = {adapter.name for adapter in adapters if adapter.path is not None}
    known = sorted(_abouts(config), key=lambda one: (one.name not in there, *_effort(one)))
    ways = (_at_home(known, there, servers), _by_key(known, there), _by_login(known, there))
    return tuple(way for way in ways if way is not None)


def _abouts(config: Config) -> Iterator[About]:
    for name in config.adapters:
        with suppress(ConfigError):  # it is among the adapters' problems
            if config.adapters[name].about.program is not None:
                yield config.adapters[name].about


def _effort(about: About) -> tuple[bool, float]:
    """What it takes to install it: what needs only Python, which is there, is quicker said."""
    if not isinstance(about.install, Install):
        return True, float("inf")
    return about.install.kind != "pip", about.install.megabytes


def _get(about: About, there: Container[str]) -> str:
    return "" if about.name in there else f"`{about.install_hint}`, "


def _at_home(
    known: Iterable[About], there: Container[str], servers: Iterable[FoundServer]
) -> str | None:
    about = next((one for one in known if "chat" in one.dialects or one.name in there), None)
    if about is None:
        return None
    up = next((server for server in servers if server.up), None)
    if up is None:
        serve = "install Ollama (https://ollama.com/download), `ollama pull qwen2.5-coder:14b`"
    elif not up.models:
        serve = f"`orchestrate models pull {up.name}/qwen2.5-coder:14b`"
    else:
        serve = f"{up.title} is there"
    return f"at home: {_get(about, there)}{serve}"


def _by_key(known: Iterable[About], there: Container[str]) -> str | None:
    """For each provider's key, the CLI to use it with: one that is there before one that is not,
    then one that has logins, too. Such a one is its provider's own, and needs no model to be named.
    """
    first: dict[str, About] = {}
    for one in sorted(known, key=lambda one: (one.name not in there, not one.log_in)):
        if one.key_env is not None:
            first.setdefault(one.key_env, one)
    if not first:
        return None
    (key, about), *others = first.items()
    more = "".join(f", or {name} with {one.name}" for name, one in others)
    return f"by key: {_get(about, there)}`export {key}=...`{more}"


def _by_login(known: Sequence[About], there: Container[str]) -> str | None:
    having = [one for one in known if one.log_in]
    if not having:
        return None
    about, *others = having
    more = "".join(f", or with {one.name} {one.log_in}" for one in others)
    return f"by login: {_get(about, there)}{about.log_in}{more}"
