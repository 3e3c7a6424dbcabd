"""Adapters and kinds of model server that are installed: from entry points, ours like anybody's."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import cache
from importlib.metadata import EntryPoint, distributions
from typing import Any

from orchestrator.adapter import About, Adapter, Gateway
from orchestrator.errors import ConfigError, shown
from orchestrator.server import ModelServer


class Adapters(Mapping[str, Adapter]):
    """The adapters that are installed, by name; each is loaded when it is first asked for.

    Asking for one that cannot be imported raises ConfigError.
    """

    def __init__(self) -> None:
        self._entries = {entry.name: entry for entry in _entries("orchestrator.adapters")}
        self._loaded: dict[str, Adapter] = {}

    def __getitem__(self, name: str) -> Adapter:
        if name not in self._loaded:
            adapter = _import(self._entries[name], "adapter")
            if not isinstance(getattr(adapter, "about", None), About):
                raise ConfigError(f"adapter {name!r} is none: it has no `about`")
            self._loaded[name] = adapter
        return self._loaded[name]

    def __contains__(self, name: object) -> bool:
        return name in self._entries  # without loading it

    def __iter__(self) -> Iterator[str]:
        return iter(self._entries)

    def __len__(self) -> int:
        return len(self._entries)


def check_adapter(name: str, adapters: Mapping[str, Adapter], where: str) -> None:
    """Raises ConfigError with the known ones if there is no adapter of that name."""
    if name in adapters:
        return
    import difflib

    near = difflib.get_close_matches(name, adapters, n=1)
    hint = f"Did you mean {near[0]!r}?" if near else None
    known = ", ".join(adapters) or "none"
    raise ConfigError(f"{where}: no adapter {name!r} (known: {known})", hint=hint)


@cache
def _all_entries() -> tuple[EntryPoint, ...]:
    # Reads the metadata of every installed package, so once for all groups.
    return tuple(
        entry
        for package in distributions()
        for entry in package.entry_points
        if entry.group.startswith("orchestrator.")
    )


def _entries(group: str) -> list[EntryPoint]:
    """The entry points of a group by name; the first on the path wins."""
    found = {entry.name: entry for entry in reversed(_all_entries()) if entry.group == group}
    return [found[name] for name in sorted(found)]


def installed_servers() -> dict[str, ModelServer]:
    servers: dict[str, ModelServer] = {}
    for entry in _entries("orchestrator.servers"):
        server = _import(entry, "model server")
        if not isinstance(server, ModelServer):
            raise ConfigError(f"model server {entry.name!r} is none: {entry.value} is not one")
        servers[entry.name] = server
    return servers


def installed_gateway() -> Gateway | None:
    """The first by name."""
    for entry in _entries("orchestrator.gateways"):
        gateway: Gateway = _import(entry, "gateway")
        if not isinstance(getattr(gateway, "about", None), About):
            raise ConfigError(f"gateway {entry.name!r} is none: it has no `about`")
        return gateway
    return None


def _import(entry: EntryPoint, what: str) -> Any:
    try:
        return entry.load()
    except Exception as error:  # foreign code: whatever it raises, it is broken
        reason = shown(f"{type(error).__name__}: {error}")
        raise ConfigError(f"{what} {entry.name!r} cannot be loaded: {reason}") from error
