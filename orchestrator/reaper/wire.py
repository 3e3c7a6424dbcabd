"""What supervisor and reaper say to each other: messages on a socket, some with descriptors."""

from __future__ import annotations

import os
import select
import socket
import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from socket import socket as Socket  # noqa: N812 (`Link` has a member of its name)
    from typing import Protocol

    class Link(Protocol):
        """Messages on a socket, such as `Packets`; `torn`: one is sent only in part."""

        @property
        def socket(self) -> Socket: ...
        @property
        def torn(self) -> bool: ...
        def send(self, text: bytes) -> None: ...
        def flush(self) -> None: ...
        def receive(self) -> tuple[bytes, list[int]]: ...


_MESSAGE, _RIGHTS = 4096, 4


def send(control: socket.socket, text: bytes, descriptors: Iterable[int] = ()) -> None:
    """Send a message. Raises BlockingIOError if it must wait, ConnectionError without a reader."""
    rights = b"".join(number.to_bytes(4, sys.byteorder) for number in descriptors)
    ancillary = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, rights)] if rights else []
    control.sendmsg([text], ancillary, socket.MSG_NOSIGNAL)


def receive(control: socket.socket) -> tuple[bytes, list[int]]:
    """A message and its descriptors, not inheritable; b"" at the end. Raises BlockingIOError.

    Not socket.recv_fds: it drops its flags, so that every child would inherit what it receives.
    """
    try:
        text, ancillary, _, _ = control.recvmsg(
            _MESSAGE, socket.CMSG_SPACE(4 * _RIGHTS), socket.MSG_CMSG_CLOEXEC
        )
    except ConnectionError:
        return b"", []
    numbers = b"".join(rights for _, _, rights in ancillary)
    return text, [
        int.from_bytes(numbers[at : at + 4], sys.byteorder) for at in range(0, len(numbers) - 3, 4)
    ]


class Packets:
    """Messages on a socket that keeps them apart: as `send` and `receive`."""

    torn = False

    def __init__(self, control: socket.socket) -> None:
        self.socket = control

    def send(self, text: bytes, descriptors: Iterable[int] = ()) -> None:
        """Send a message, whole."""
        send(self.socket, text, descriptors)

    def flush(self) -> None:
        """Nothing is ever left."""

    def receive(self) -> tuple[bytes, list[int]]:
        """A message and its descriptors; b"" at the end."""
        return receive(self.socket)


def received(link: Link) -> Iterator[tuple[bytes, list[int]]]:
    """The messages that are there, with their descriptors; b"" is the end, and the last one."""
    text = b"any"
    while text:
        try:
            text, descriptors = link.receive()
        except BlockingIOError:
            return
        yield text, descriptors


class SupervisorGone(Exception):  # noqa: N818 (an event, not an error)
    """There is nobody any more for whom anything is to live."""


class Talk:
    """What is asked and what is told on a link, such as `Packets`, that is watched by `poll`."""

    def __init__(self, link: Link, poll: select.poll) -> None:
        self._link = link
        self._poll = poll
        self._outbox: list[bytes] = []
        link.socket.setblocking(False)  # noqa: FBT003
        poll.register(link.socket.fileno(), select.POLLIN)

    def turn(self, event: int) -> Iterator[tuple[list[bytes], list[int]]]:
        """What is to be done on an event of the link: the requests, by words, with descriptors that
        are closed after each. Raises SupervisorGone.
        """
        if event & select.POLLOUT:
            self._flush()
        if event & ~select.POLLOUT:
            yield from self._requests()

    def tell(self, text: str) -> None:
        """Send this, as soon as it can be sent. Raises SupervisorGone."""
        self._outbox.append(text.encode())
        if len(self._outbox) == 1:
            self._flush()

    def _requests(self) -> Iterator[tuple[list[bytes], list[int]]]:
        for text, descriptors in received(self._link):
            if not text:
                raise SupervisorGone
            try:
                yield text.split(), descriptors
            finally:
                for descriptor in descriptors:
                    os.close(descriptor)

    def _flush(self) -> None:
        """Send what can be sent: a supervisor that does not read must not keep us from killing."""
        sent = 0
        try:
            for text in self._outbox:
                self._link.send(text)
                sent += 1
            self._link.flush()
        except BlockingIOError:
            pass
        except ConnectionError:
            raise SupervisorGone from None
        del self._outbox[:sent]
        waiting = self._outbox or self._link.torn
        wanted = select.POLLIN | select.POLLOUT if waiting else select.POLLIN
        self._poll.modify(self._link.socket.fileno(), wanted)
