"""A resolver that knows no name, in place of the system's: tests ask nobody outside."""

import socket

import pytest

WHERE = "anyio._core._sockets.getaddrinfo"


def knows_nobody(monkeypatch: pytest.MonkeyPatch) -> list[object]:
    """Every look-up fails as the system's would. Returns the list that names what was asked."""
    asked: list[object] = []

    async def unknown(host: object, *arguments: object, **named: object) -> object:
        asked.append(host)
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    monkeypatch.setattr(WHERE, unknown)
    return asked
