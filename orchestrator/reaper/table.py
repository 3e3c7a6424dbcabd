"""Processes as /proc shows them."""

from __future__ import annotations

import errno
import os
import signal
import time

from orchestrator.reaper import SHOWN, STUCK_S, TOKEN

TYPE_CHECKING = False  # type checkers take it for true; importing typing for it would cost 7 ms
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from typing import TypeVar

    T = TypeVar("T")

_LATE = 1 << 62
# When a process has started of which that is not known: any agent may be whose it is.
_SHORTAGE = {errno.EMFILE, errno.ENFILE, errno.ENOMEM}


class Seen:
    """A process as /proc/PID/stat shows it. `start` (ticks since boot) and `pid` make it unique."""

    __slots__ = ("alive", "dying", "group", "parent", "pid", "session", "start")

    def __init__(self, pid: int, fields: list[bytes]) -> None:
        self.pid = pid
        self.parent, self.group, self.session = int(fields[1]), int(fields[2]), int(fields[3])
        self.start = int(fields[19])
        # A zombie with threads is alive: its first thread has ended and the others run on.
        threads, memory = int(fields[17]), int(fields[20])
        self.alive = fields[0] not in {b"Z", b"X"} or threads > 1
        self.dying = memory == 0 and threads <= 1  # its environment is gone already


def look_at(pid: int) -> Seen | None:
    """The process, or None when it is gone."""
    text = _read(f"/proc/{pid}/stat", 4096)
    return Seen(pid, text.rpartition(b")")[2].split()) if text else None


def look_at_child(pid: int) -> Seen | None:
    """A child of ours, also one that /proc hides: `hidepid` does so with those that let nobody look
    into their memory, such as ssh-agent. None: it is gone, or is to be reaped.
    """
    seen = look_at(pid)
    if seen is not None:
        return seen
    try:
        ended = os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT)
        group, session = os.getpgid(pid), os.getsid(pid)
    except (ChildProcessError, ProcessLookupError):
        return None
    return _hidden(pid, group, session) if ended is None else None


def _hidden(pid: int, group: int, session: int) -> Seen:
    fields = [b"S", *(b"%d" % number for number in (os.getpid(), group, session))]
    fields += [b"1"] * 15 + [b"%d" % _LATE, b"1"]
    return Seen(pid, fields)


def look() -> dict[int, Seen]:
    """Every process that /proc shows, by pid."""
    found: dict[int, Seen] = {}
    for name in _patiently(lambda: os.listdir("/proc")):
        if name.isdigit():
            seen = look_at(int(name))
            if seen is not None:
                found[seen.pid] = seen
    return found


def children_of(pid: int) -> set[int]:
    """The children of all its threads. Asked twice: a list that changes while it is read may leave
    one out.
    """
    found: set[int] = set()
    for _ in range(2):
        try:
            threads = _patiently(lambda: os.listdir(f"/proc/{pid}/task"))
        except (FileNotFoundError, ProcessLookupError, PermissionError):
            break
        for thread in threads:
            words = _read(f"/proc/{pid}/task/{thread}/children", 1 << 20).split()
            found.update(int(word) for word in words)
    return found


def token_of(pid: int) -> bytes | None:
    """The run that the process' environment names, or None if it names none or cannot be read."""
    prefix = TOKEN.encode() + b"="
    for item in _read(f"/proc/{pid}/environ", 1 << 20).split(b"\0"):
        if item.startswith(prefix):
            return item[len(prefix) :]
    return None


def command_of(pid: int) -> bytes:
    """Its arguments, each ended by NUL: whole ones only, for half a key could not be redacted."""
    text = _read(f"/proc/{pid}/cmdline", 1 << 16)
    shown = text[: text.rfind(b"\0", 0, SHOWN) + 1]
    return shown or b"[" + _read(f"/proc/{pid}/comm", 64).strip() + b"]"


def is_dying(pid: int) -> bool:
    """Whether a child of ours has no environment because that is gone; it may leave a child."""
    seen = look_at_child(pid)
    return seen is None or seen.dying


def kill_one(seen: Seen, number: int) -> None:
    """Signal this very process and no later one with its pid."""
    try:
        handle = _patiently(lambda: os.pidfd_open(seen.pid))
    except ProcessLookupError:
        return
    try:
        now = look_at(seen.pid)
        if now is not None and now.start == seen.start:
            signal.pidfd_send_signal(handle, number)
    except (ProcessLookupError, PermissionError):
        pass  # gone, or another user's: the next look tells which
    finally:
        os.close(handle)


def _read(path: str, limit: int) -> bytes:
    """What the file holds; nothing when its process is gone or hidden. Other errors are raised."""
    try:
        file = _patiently(lambda: os.open(path, os.O_RDONLY | os.O_CLOEXEC))
    except (FileNotFoundError, ProcessLookupError, PermissionError):
        return b""
    try:
        text = part = os.read(file, limit)
        while part and len(text) < limit:
            part = os.read(file, limit)
            text += part
    except (ProcessLookupError, PermissionError):
        return b""
    else:
        return text
    finally:
        os.close(file)


def _patiently(call: Callable[[], T]) -> T:
    """Try again while descriptors or memory are short: who is overlooked would live on."""
    until = time.monotonic() + STUCK_S
    while True:
        try:
            return call()
        except OSError as error:
            if error.errno not in _SHORTAGE or time.monotonic() > until:
                raise
        time.sleep(0.01)


def trees(roots: Iterable[Seen], processes: dict[int, Seen]) -> list[Seen]:
    """The roots and all that descends from them, each once."""
    children = families(processes)
    members = {seen.pid: seen for root in roots for seen in tree(root, children)}
    return list(members.values())


def families(processes: dict[int, Seen]) -> dict[int, list[Seen]]:
    children: dict[int, list[Seen]] = {}
    for seen in processes.values():
        children.setdefault(seen.parent, []).append(seen)
    return children


def tree(root: Seen, children: dict[int, list[Seen]]) -> list[Seen]:
    members = [root]
    for seen in members:  # grows while it is walked
        members.extend(children.get(seen.pid, ()))
    return members
