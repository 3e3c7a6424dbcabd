"""Addresses of model servers: where they usually are, what is this machine, what a path means."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from urllib.parse import urlsplit

from orchestrator.events import Tier
from orchestrator.server import ModelServer


def default_url(kind: ModelServer) -> str | None:
    """Where a server of this kind usually is: on loopback at its port, or the provider's URL."""
    return kind.base_url if kind.port is None else f"http://127.0.0.1:{kind.port}"


def tier_of(base_url: str) -> Tier:
    """`local` for a loopback address (or a scripted server), else `cloud`."""
    from ipaddress import ip_address

    if base_url.startswith("scripted:"):
        return "local"
    if "\\" in base_url:
        return "cloud"  # a slash to some clients, a part of the host's name to others
    try:
        host = urlsplit(base_url if "://" in base_url else f"//{base_url}").hostname or ""
        if host == "localhost" or host.endswith(".localhost"):
            return "local"
        address = ip_address(host)
    except ValueError:
        return "cloud"
    # 0.0.0.0 is where a server listens (OLLAMA_HOST); who connects to it gets to this machine.
    return "local" if address.is_loopback or address.is_unspecified else "cloud"


def port_of(base_url: str) -> int | None:
    """The port that a URL names, or None."""
    try:
        return urlsplit(base_url if "://" in base_url else f"//{base_url}").port
    except ValueError:
        return None


def expanded(path: str, environ: Mapping[str, str]) -> Path | None:
    """The path with a leading `~` or `$NAME` replaced as the agent would; None: that is not set."""
    first, _, rest = path.partition("/")
    if first == "~" or first.startswith("$"):
        start = environ.get("HOME" if first == "~" else first[1:])
        return Path(start, rest) if start else None
    return Path(path)
