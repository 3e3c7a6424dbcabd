"""Where models are served: by the configuration, by the variables, and at the usual ports."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from orchestrator.config.address import default_url, tier_of
from orchestrator.config.file import ServerModel
from orchestrator.config.value import Config
from orchestrator.errors import ConfigError
from orchestrator.events import Tier
from orchestrator.server import ModelServer, Place, address_of


def configured_places(
    entries: Mapping[str, ServerModel], kinds: Mapping[str, ModelServer]
) -> tuple[Place, ...]:
    """The `[servers.NAME]` of the files. Raises ConfigError for a kind that is none, or that has no
    usual address and was given none.
    """
    return tuple(_configured(name, entry, kinds) for name, entry in entries.items())


def _configured(name: str, entry: ServerModel, kinds: Mapping[str, ModelServer]) -> Place:
    kind = kinds.get(entry.kind)
    if kind is None:
        known = ", ".join(sorted(kinds)) or "none"
        raise ConfigError(f"server {name!r}: no kind of server {entry.kind!r} (known: {known})")
    base_url = entry.base_url or default_url(kind)
    if base_url is None:
        raise ConfigError(f"server {name!r}: {kind.name} has no usual address: give its base_url")
    return Place(
        name=name,
        kind=kind.name,
        base_url=base_url,
        api_key_env=entry.api_key_env,
        local=entry.local,
        stated=True,
        slots=entry.slots,
    )


def places_of(config: Config) -> tuple[Place, ...]:
    """Every server that may be asked: the configured ones, then those of the variables, then the
    usual ports of loopback. An address is named once; a cloud only if somebody gave its address.
    """
    places: list[Place] = []
    seen: set[str] = set()
    usual = sorted(_usual(config), key=lambda place: not place.stated)
    for place in (*config.places, *usual):
        address = _address(place, config)
        if address is not None and address not in seen and _may_be_asked(place, config):
            seen.add(address)
            places.append(place)
    return tuple(places)


def _usual(config: Config) -> Iterator[Place]:
    taken = {place.name for place in config.places}
    for kind in config.servers.values():
        url = variable(kind.url_env, config.environ)
        base_url = url or (default_url(kind) if kind.local else None)
        if kind.name in taken or base_url is None:
            continue
        key = kind.key_env if kind.local or tier_of(base_url) == "cloud" else None
        named = key is not None and config.environ.get(key)
        yield Place(
            name=kind.name,
            kind=kind.name,
            base_url=base_url,
            api_key_env=key if named else None,
            stated=url is not None,
        )


def _may_be_asked(place: Place, config: Config) -> bool:
    """Not a provider's own cloud: there is nothing to find out, and a key would leave the house."""
    return place.base_url != config.servers[place.kind].base_url


def _address(place: Place, config: Config) -> str | None:
    try:
        return address_of(place.base_url, config.servers[place.kind].port)
    except ConfigError:
        return place.base_url if place.stated else None  # whoever asks is told what is wrong


def tier_of_place(place: Place) -> Tier:
    """Where a server is: as its owner says, else by its address."""
    if place.local is not None:
        return "local" if place.local else "cloud"
    return tier_of(place.base_url)


def variable(names: tuple[str, ...], environ: Mapping[str, str]) -> str | None:
    """The first of the variables that is set to something."""
    return next((environ[name] for name in names if environ.get(name)), None)
