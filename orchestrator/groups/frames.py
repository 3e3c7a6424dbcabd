"""Messages as those of the reaper, on a stream, which keeps nothing apart."""

from __future__ import annotations

import os
import socket
import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

_RIGHTS, _BLOCK = 4, 64 * 1024
_NO_SIGPIPE = getattr(socket, "MSG_NOSIGNAL", 0)


class Frames:
    """Messages with descriptors on a stream: their length, whether descriptors come with them,
    their bytes.
    """

    def __init__(self, control: socket.socket) -> None:
        self.socket = control
        self._rest = b""  # of a message that the socket took a part of
        self._buffer = b""
        self._batches: list[list[int]] = []

    def send(self, text: bytes, descriptors: Iterable[int] = ()) -> None:
        """Send a message. Raises BlockingIOError if it must wait, ConnectionError without a
        reader.
        """
        self.flush()
        rights = b"".join(number.to_bytes(4, sys.byteorder) for number in descriptors)
        ancillary = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, rights)] if rights else []
        frame = len(text).to_bytes(3, "big") + bytes([bool(rights)]) + text
        sent = self.socket.sendmsg([frame], ancillary, _NO_SIGPIPE)
        self._rest = frame[sent:]

    def flush(self) -> None:
        """Send what is left of the last message. Raises as `send` does."""
        while self._rest:
            self._rest = self._rest[self.socket.send(self._rest, _NO_SIGPIPE) :]

    @property
    def torn(self) -> bool:
        """Whether a part of the last message is not sent."""
        return bool(self._rest)

    def receive(self) -> tuple[bytes, list[int]]:
        """A message and its descriptors, not inheritable; b"" at the end. Raises
        BlockingIOError.
        """
        while True:
            size = 4 + int.from_bytes(self._buffer[:3], "big")
            if len(self._buffer) >= max(size, 4):
                text, with_rights = self._buffer[4:size], self._buffer[3]
                self._buffer = self._buffer[size:]
                return text, self._batches.pop(0) if with_rights and self._batches else []
            if not self._fill():
                return b"", []

    def _fill(self) -> bool:
        try:
            block, ancillary, flags, _ = self.socket.recvmsg(_BLOCK, socket.CMSG_SPACE(4 * _RIGHTS))
        except ConnectionError:
            return False
        rights = b"".join(some for _, _, some in ancillary)
        numbers = [
            int.from_bytes(rights[at : at + 4], sys.byteorder)
            for at in range(0, len(rights) - 3, 4)
        ]
        for number in numbers:
            os.set_inheritable(number, False)  # noqa: FBT003
        if numbers or flags & socket.MSG_CTRUNC:  # cut: they did not fit into our table
            self._batches.append(numbers)
        self._buffer += block
        return bool(block)
