"""Processes as `ps` shows them."""

from __future__ import annotations

import os
import signal
import time

from orchestrator.reaper.signals import signalled, wait_readable

_PS_S, _END_S = 5.0, 1.0


class Shown:
    """A process that lives, as `ps` shows it."""

    __slots__ = ("command", "group", "parent", "pid")

    def __init__(self, pid: int, parent: int, group: int, command: bytes) -> None:
        self.pid, self.parent, self.group, self.command = pid, parent, group, command


def look(ps: str) -> dict[int, Shown] | None:
    """Every process that lives, by pid; None if it cannot be told."""
    text = _said(ps) if ps else b""
    found: dict[int, Shown] = {}
    for line in text.splitlines():
        match line.split(None, 4):
            case [pid, parent, group, state, *command] if pid.isdigit() and group.isdigit():
                if not state.startswith(b"Z"):
                    args = command[0] if command else b""
                    found[int(pid)] = Shown(int(pid), int(parent), int(group), args)
            case _:
                continue
    return found or None


def _said(ps: str) -> bytes:
    """What `ps` prints; nothing if it fails or takes too long."""
    ours, theirs = os.pipe()
    argv = [ps, "-A", "-ww", "-o", "pid=,ppid=,pgid=,stat=,args="]
    actions = [
        (os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0),
        (os.POSIX_SPAWN_DUP2, theirs, 1),
        (os.POSIX_SPAWN_OPEN, 2, os.devnull, os.O_WRONLY, 0),
    ]
    try:
        pid = os.posix_spawn(ps, argv, {"LC_ALL": "C"}, file_actions=actions)
    except OSError:
        os.close(ours)
        os.close(theirs)
        return b""
    os.close(theirs)
    text, until = b"", time.monotonic() + _PS_S
    whole = False
    while not whole and wait_readable([ours], until - time.monotonic()):
        part = os.read(ours, 1 << 16)
        whole, text = not part, text + part
    os.close(ours)
    if not whole:
        signalled(os.kill, pid, signal.SIGKILL)
    return text if _ended_well(pid) and whole else b""


def _ended_well(pid: int) -> bool:
    """One that was killed and does not end, stuck in the kernel or held by a tracer, is left."""
    until, pause = time.monotonic() + _END_S, 0.0005
    while time.monotonic() < until:
        try:
            ended, status = os.waitpid(pid, os.WNOHANG)
        except ChildProcessError:  # taken by a host that waits for every child, or ignores SIGCHLD
            return True
        if ended:
            return status == 0
        time.sleep(pause)
        pause = min(pause * 2, 0.05)
    return False


def below(groups: set[int], shown: dict[int, Shown], spared: frozenset[int]) -> list[Shown]:
    """The members of the groups and all that descends from them, each once; `groups` are then
    theirs, without those that have no member any more.
    """
    children: dict[int, list[Shown]] = {}
    for one in shown.values():
        children.setdefault(one.parent, []).append(one)
    members = {one.pid: one for one in shown.values() if one.group in groups}
    for one in (walk := list(members.values())):  # grows while it is walked
        fresh = [child for child in children.get(one.pid, ()) if child.pid not in members]
        members.update({child.pid: child for child in fresh})
        walk.extend(fresh)
    groups.clear()
    groups.update({one.group for one in members.values()} - spared)
    return list(members.values())
