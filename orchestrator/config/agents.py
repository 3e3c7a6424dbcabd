"""Agents: the configured ones with their servers looked up, and the discovered; which go first."""

from __future__ import annotations

from collections.abc import Container, Iterator, Mapping
from dataclasses import replace
from types import MappingProxyType

from orchestrator.adapter import Adapter, Agent
from orchestrator.config.address import default_url, tier_of
from orchestrator.config.file import AgentModel, ServerModel, nearest
from orchestrator.config.places import variable
from orchestrator.config.plugins import check_adapter
from orchestrator.config.value import Config
from orchestrator.errors import ConfigError, shown
from orchestrator.events import Tier
from orchestrator.server import ModelServer, address_of

_WHERE = frozenset({"model", "server", "base_url", "api_key_env", "tier", "login"})
# Who writes one of these has said where the agent's model is; local mode leaves it alone.


def configured_agent(
    name: str,
    entry: AgentModel,
    places: Mapping[str, ServerModel],
    kinds: Mapping[str, ModelServer],
    adapters: Mapping[str, Adapter],
) -> Agent:
    """One agent as configured, with its server looked up."""
    where = f"agent {name!r}"
    check_adapter(entry.adapter, adapters, where)
    if entry.login and entry.api_key_env is not None:
        raise ConfigError(f"{where}: `login = true` and `api_key_env` exclude each other")
    agent = Agent(
        name=name,
        adapter=entry.adapter,
        model=entry.model,
        base_url=entry.base_url,
        api_key_env=entry.api_key_env,
        login=entry.login,
        options=MappingProxyType(dict(entry.model_extra or {})),
        explicit=bool(entry.model_fields_set & _WHERE),
    )
    place_name, model = place_of(entry, places)
    local: bool | None = None
    if place_name is not None:
        agent, local = _at(agent, place_name, model, places, kinds, where)
    tier = entry.tier or _tier(agent, kinds, local)
    profile = entry.profile or ("clean" if tier == "local" or agent.base_url else "user")
    return replace(agent, tier=tier, profile=profile)


def place_of(entry: AgentModel, places: Container[str]) -> tuple[str | None, str | None]:
    """The server's name, stated or as the first part of the model's (only if one is named so)."""
    if entry.server is not None or entry.model is None:
        return entry.server, entry.model
    first, slash, rest = entry.model.partition("/")
    return (first, rest) if slash and first in places else (None, entry.model)


def _at(
    agent: Agent,
    place_name: str,
    model: str | None,
    places: Mapping[str, ServerModel],
    kinds: Mapping[str, ModelServer],
    where: str,
) -> tuple[Agent, bool | None]:
    """The agent at a server: a configured one, or a kind at its usual address."""
    place = places.get(place_name) or ServerModel(kind=place_name)
    kind = kinds.get(place.kind)
    if kind is None:
        known = ", ".join(sorted({*places, *kinds}))
        raise ConfigError(f"{where}: no server {place.kind!r} (known: {known})")
    agent = replace(agent, server=place.kind, model=model)
    if agent.base_url is not None:
        # What the server's owner says of its address, and its key, are not for another address.
        return agent, None
    base_url = place.base_url or default_url(kind)
    if base_url is None:
        raise ConfigError(f"{where}: {kind.name} has no usual address: give the server's base_url")
    key = agent.api_key_env or place.api_key_env
    return replace(agent, base_url=base_url, api_key_env=key), place.local


def with_variables(
    entry: AgentModel,
    places: Mapping[str, ServerModel],
    kinds: Mapping[str, ModelServer],
    environ: Mapping[str, str],
) -> Mapping[str, ServerModel]:
    """The servers, the agent's one at the address that its kind's usual variable says.

    Only where nothing written depends on the address: no other address, no key for it, and no word
    that it is local.
    """
    name, _ = place_of(entry, places)
    place = places.get(name or "") or ServerModel(kind=name or "-")
    kind = kinds.get(place.kind)
    url = _cleaned(variable(kind.url_env, environ), kind) if kind is not None else None
    written = (
        *(entry.base_url, entry.api_key_env, entry.tier),
        *(place.base_url, place.api_key_env, place.local),
    )
    if name is None or kind is None or url is None or any(one is not None for one in written):
        return places
    key = _set(kind.key_env, environ) if kind.local or tier_of(url) == "cloud" else None
    return {**places, name: place.model_copy(update={"base_url": url, "api_key_env": key})}


def _tier(agent: Agent, kinds: Mapping[str, ModelServer], local: bool | None) -> Tier:
    if local is not None:
        return "local" if local else "cloud"
    if agent.base_url is not None:
        return tier_of(agent.base_url)
    return "local" if agent.server is not None and kinds[agent.server].local else "cloud"


def agents_for(name: str | None, config: Config) -> tuple[Agent, ...]:
    """The agents that may do a task: the one that is named, or all, in the order of preference.

    All are the configured ones in file order (a default one first), then the discovered.
    Discovering loads every adapter, so it is done only where it matters. Raises ConfigError for an
    unknown name.
    """
    named = name or config.default_agent
    configured = [agent for agent in config.agents if agent.name == named]
    if name is not None and configured:
        return tuple(configured)
    agents = (*config.agents, *_discovered(config))
    first = [agent for agent in agents if agent.name == named]
    if named is not None and not first:
        where = "no agent" if name else f"{_default_stated(config)}: no agent"
        known = ", ".join(agent.name for agent in agents) or "none"
        raise ConfigError(f"{where} {named!r} (known: {known})")
    if name is not None:
        return tuple(first)
    return (*first, *(agent for agent in agents if agent.name != named))


def check_named(name: str, config: Config) -> None:
    """Raises ConfigError unless an agent has this name, or would have it once what it needs is
    there: its program, or its server.
    """
    found = [agent.name for agent in (*config.agents, *_discovered(config))]
    of_servers = {f"{adapter}-{server}" for adapter in config.adapters for server in config.servers}
    if name not in {*found, *config.adapters, *of_servers}:
        near = nearest(name, [*found, *config.adapters])
        hint = "`orchestrate agents` describes them all; docs/configuration.md, how one is added."
        raise ConfigError(shown(f"no agent {name!r}; {near}"), hint=hint)


def _default_stated(config: Config) -> str:
    """Where somebody said which agent is the default one."""
    origins = [one.holds.origin for one in config.settings if one.key == "defaults.agent"]
    return ": ".join([*(one.where for one in origins if one.where), "defaults.agent"])


def _discovered(config: Config) -> list[Agent]:
    """An agent for each adapter with a program, and one for each server that the environment names
    or that was found running.

    Those with a local model come first, then by name.
    """
    taken = {agent.name for agent in config.agents}
    named = [agent for name in config.adapters for agent in _agents_of(name, config)]
    names = {agent.name for agent in named}
    found = [
        agent
        for agent in (*named, *(one for one in config.nearby if one.name not in names))
        if agent.name not in taken
    ]
    return sorted(found, key=lambda agent: (agent.tier == "cloud", agent.name))


def _agents_of(name: str, config: Config) -> Iterator[Agent]:
    try:
        about = config.adapters[name].about
    except ConfigError:
        yield Agent(name=name, adapter=name)  # it cannot run, and whoever looks is told why
        return
    if about.program is None:
        return
    key = _set(about.key_env, config.environ)
    yield Agent(name=name, adapter=name, api_key_env=key, profile="user")
    for kind in config.servers.values():
        url = variable(kind.url_env, config.environ)
        model = variable(kind.model_env, config.environ)
        if (url or model) and set(kind.dialects) & set(about.dialects):
            base_url = _cleaned(url, kind) or default_url(kind)
            tier = tier_of(base_url) if base_url else "local" if kind.local else "cloud"
            # Address and key both from the environment; but no cloud's key for a local server.
            key = _set(kind.key_env, config.environ) if kind.local or tier == "cloud" else None
            yield Agent(
                name=f"{name}-{kind.name}",
                adapter=name,
                model=model,
                server=kind.name,
                base_url=base_url,
                api_key_env=key,
                tier=tier,
                profile="clean",
            )


def _set(name: str | None, environ: Mapping[str, str]) -> str | None:
    """The variable's name, if it is set to something."""
    return name if name is not None and environ.get(name) else None


def _cleaned(url: str | None, kind: ModelServer) -> str | None:
    """The address in a variable as an agent can use it: OLLAMA_HOST may be `0.0.0.0`."""
    if url is None or kind.port is None:
        return url
    try:
        address = address_of(url, kind.port)
    except ConfigError:
        return url  # whoever goes there is told what is wrong with it
    written = url.rstrip("/").removesuffix("/v1")
    return url if "://" in url and address == written else address
