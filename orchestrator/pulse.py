"""Signs of life of a tree of processes that says nothing: TCP bytes received, CPU time.

Bytes come from the kernel's sock_diag by netlink, which needs no privilege; they told a slow model
from one that hangs exactly, and CPU did not. Linux; where the kernel does not answer, it says so.
"""

from __future__ import annotations

import os
import socket
import struct
import time
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

BUSY = 0.05
"""The share of one core above which a tool is at work. An agent that waits used 0.007."""

_SOCK_DIAG, _BY_FAMILY, _DUMP = 4, 20, 0x301
_ERROR, _DONE = 2, 3
_INFO = 2  # INET_DIAG_INFO: struct tcp_info
_RECEIVED = 128  # tcpi_bytes_received in it, since Linux 4.1
_OPEN = 1 << 1 | 1 << 4 | 1 << 5 | 1 << 8  # ESTABLISHED, FIN_WAIT1, FIN_WAIT2, CLOSE_WAIT
_ANSWER_S = 1.0
_FRESH_S = 0.5
# The kernel walks its whole table for an answer (measured: 7 ms), so that one serves all who ask.
_MOST = 4096  # processes of one tree
_TICKS = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True, kw_only=True)
class Pulse:
    """What was seen at one look. `received`: bytes by the inode of the socket; None: unseen, and
    `unseen` says why.
    """

    cpu_s: float
    received: Mapping[int, int] | None
    unseen: str | None = None

    def heard_since(self, before: Pulse) -> bool:
        """Whether bytes have arrived."""
        known = before.received or {}
        return any(count > known.get(inode, 0) for inode, count in (self.received or {}).items())

    def worked_since(self, before: Pulse, seconds: float) -> bool:
        """Whether the CPU was used for more than waiting."""
        return self.cpu_s - before.cpu_s > BUSY * seconds


def feel(pid: int) -> Pulse:
    """Look at a process and its descendants. What ends meanwhile is left out."""
    if not Path("/proc/self/fd").is_dir():
        return Pulse(cpu_s=0, received=None, unseen="this system does not tell")
    pids = list(_tree(pid))
    cpu_s = sum(map(_cpu_s, pids))
    if not _same_network(pid):
        why = "the agent has a network of its own"
        return Pulse(cpu_s=cpu_s, received=None, unseen=why)
    inodes = {inode for one in pids for inode in _sockets(one)}
    if not inodes:
        return Pulse(cpu_s=cpu_s, received={})
    try:
        found = _EARS.received()
    except OSError as error:
        return Pulse(cpu_s=cpu_s, received=None, unseen=_untold(error))
    return Pulse(cpu_s=cpu_s, received={i: n for i, n in found.items() if i in inodes})


def blind() -> str | None:
    """Why the bytes that agents receive cannot be seen on this machine; None: they can."""
    try:
        _EARS.received()
    except OSError as error:
        return _untold(error)
    return None


def _untold(error: OSError) -> str:
    return f"the kernel does not tell ({error.strerror or error})"


def received() -> dict[int, int]:
    """Bytes that each TCP connection of this network has received, by its inode. Raises OSError."""
    found: dict[int, int] = {}
    kind = socket.SOCK_RAW | socket.SOCK_CLOEXEC
    with socket.socket(socket.AF_NETLINK, kind, _SOCK_DIAG) as kernel:
        kernel.settimeout(_ANSWER_S)
        for family in (socket.AF_INET, socket.AF_INET6):
            body = struct.pack("=BBBxI48x", family, socket.IPPROTO_TCP, 1 << (_INFO - 1), _OPEN)
            head = struct.pack("=IHHII", 16 + len(body), _BY_FAMILY, _DUMP, 1, 0)
            kernel.sendall(head + body)
            for message in _messages(kernel):
                inode, count = _connection(message)
                if count is not None:
                    found[inode] = count
    return found


def _messages(kernel: socket.socket) -> Iterator[bytes]:
    while True:
        chunk = kernel.recv(1 << 16)
        while chunk:
            length, kind = struct.unpack_from("=IH", chunk)
            if kind == _DONE:
                return
            if kind == _ERROR:
                (number,) = struct.unpack_from("=i", chunk, 16)
                raise OSError(-number, os.strerror(-number))
            yield chunk[16:length]
            chunk = chunk[length + 3 & ~3 :]


def _connection(message: bytes) -> tuple[int, int | None]:
    """The inode and the bytes received, None if the kernel is too old to count them."""
    (inode,) = struct.unpack_from("=I", message, 68)
    at = 72
    while at + 4 <= len(message):
        length, kind = struct.unpack_from("=HH", message, at)
        if kind == _INFO and length >= 4 + _RECEIVED + 8:
            return inode, int.from_bytes(message[at + 4 + _RECEIVED :][:8], "little")
        at += max(4, length + 3 & ~3)
    return inode, None


class _Ears:
    """What was last received, for as long as it is fresh."""

    def __init__(self) -> None:
        self._at = -_FRESH_S
        self._found: dict[int, int] = {}

    def received(self) -> dict[int, int]:
        if time.monotonic() - self._at >= _FRESH_S:
            self._found = received()
            self._at = time.monotonic()
        return self._found


_EARS = _Ears()


# --- what /proc says -----------------------------------------------------------------------------


def _tree(pid: int) -> Iterator[int]:
    waiting, seen = [pid], {pid}
    while waiting and len(seen) < _MOST:
        one = waiting.pop()
        yield one
        new = set(_children(one)) - seen
        seen |= new
        waiting += new


def _children(pid: int) -> Iterator[int]:
    """Children are listed by the thread that started them."""
    with suppress(OSError):
        for thread in Path(f"/proc/{pid}/task").iterdir():
            with suppress(OSError):
                yield from map(int, (thread / "children").read_text().split())


def _cpu_s(pid: int) -> float:
    """With that of children that have ended, or a tool of many short processes would seem idle."""
    with suppress(OSError):
        fields = Path(f"/proc/{pid}/stat").read_bytes().rpartition(b")")[2].split()
        return sum(map(int, fields[11:15])) / _TICKS
    return 0.0


def _sockets(pid: int) -> Iterator[int]:
    with suppress(OSError):
        for descriptor in Path(f"/proc/{pid}/fd").iterdir():
            with suppress(OSError):
                target = str(descriptor.readlink())
                if target.startswith("socket:["):
                    yield int(target[8:-1])


def _same_network(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/ns/net").readlink() == Path("/proc/self/ns/net").readlink()
    except OSError:
        return True  # it is gone, or another user's: its sockets are not to be seen either
