"""Guard and reaper where the system has no subreapers, no handles for processes and no /proc.

They say and are told the same as those of reaper.py, in frames on a stream. Each agent is ended by
the process groups that were seen below it: once a second, and before each signal, `ps` is looked
at. What left its group before anybody looked, and lost its parent, is not found. Run as
`main(control, life, supervisor, ps)`; light modules only.

How it is asked and how it starts what is asked for stands in reaper.py, which is run by its path,
alone; here is how a tree is found and ended.
"""

from __future__ import annotations

import math
import mmap
import os
import select
import signal
import socket
import sys
import time

from orchestrator.reaper import REAPER_ENDS_S, STUCK_S
from orchestrator.reaper.signals import (
    child_alarm,
    drain,
    ignore_signals,
    signalled,
    wait_readable,
)
from orchestrator.reaper.starting import start
from orchestrator.reaper.wire import SupervisorGone, Talk

TYPE_CHECKING = False
if TYPE_CHECKING:
    import resource
    from collections.abc import Iterable

_CENSUS_S, _CENSUS_SHARE = 1.0, 50
_WATCH_S = 0.25
# How often the guard looks whether its parent is still the supervisor: a worker that this has
# forked may hold the socket open.
_PS_S = 5.0
_SLOTS = 16 * 1024
_RIGHTS, _BLOCK = 4, 64 * 1024
_LISTED, _SHOWN = 20, 1024
_NO_SIGPIPE = getattr(socket, "MSG_NOSIGNAL", 0)


# --- messages ------------------------------------------------------------------------------------


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


# --- what ps says --------------------------------------------------------------------------------


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
    status = os.waitpid(pid, 0)[1]
    return text if whole and status == 0 else b""


def _below(groups: set[int], shown: dict[int, Shown], spared: frozenset[int]) -> list[Shown]:
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


def _kill_groups(groups: Iterable[int], number: int) -> int:
    """Signal them; how many were there."""
    return sum(signalled(os.killpg, group, number) for group in groups if group > 1)


def end_all(groups: set[int], ps: str, *, reap: bool) -> None:
    """Kill the groups and what descends from them, until none is left or only unkillable ones.

    `reap`: whether this process has no children but those, so that it may wait for any.
    """
    until, pause = time.monotonic() + STUCK_S, 0.001
    spared = frozenset({os.getpgrp()})
    while groups and time.monotonic() < until:
        if reap:
            _reap_all()
        shown = look(ps)  # before they are killed: what descends from them is known by its parent
        if shown is None:
            groups = {group for group in groups if signalled(os.killpg, group, 0)}
        elif not _below(groups, shown, spared):
            return
        _kill_groups(groups, signal.SIGKILL)
        time.sleep(pause)
        pause = min(pause * 2, 0.05)


def _reap_all() -> None:
    try:
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass
    except ChildProcessError:
        return


class Groups:
    """The groups that are to be ended, in memory that guard and reaper share: the guard must know
    them when the reaper was killed. One slot each, so that none is ever half written.
    """

    def __init__(self) -> None:
        self._slots = memoryview(mmap.mmap(-1, 4 * _SLOTS)).cast("i")
        self._free = list(range(_SLOTS))
        self._taken: dict[int, int] = {}

    def note(self, groups: set[int]) -> None:
        """These are to be ended, and no others."""
        for group in self._taken.keys() - groups:
            slot = self._taken.pop(group)
            self._slots[slot] = 0
            self._free.append(slot)
        for group in groups - self._taken.keys():
            if self._free:
                self._taken[group] = slot = self._free.pop()
                self._slots[slot] = group

    def noted(self) -> set[int]:
        """What stands there now."""
        return set(self._slots.tolist()) - {0}


# --- the reaper ----------------------------------------------------------------------------------


class _Run:
    """One agent: its leader, and the process groups that were seen below it."""

    def __init__(self, handle: int, pid: int, pipe: int) -> None:
        self.handle = handle
        self.pid = pid
        self.pipe = pipe  # reports what failed before exec; -1 when that is settled
        self.running = True
        self.groups = {pid}
        self.members: list[Shown] = []
        self.kill_at = math.inf
        self.killed: set[int] = set()


class _Reaper:
    def __init__(self, frames: Frames, tie: int, groups: Groups, ps: str) -> None:
        self._tie = tie
        self._groups = groups
        self._ps = ps
        self._alarm = child_alarm()
        self._runs: dict[int, _Run] = {}
        self._leaders: dict[int, _Run] = {}
        self._pipes: dict[int, _Run] = {}
        self._looked = self._look_took = self._pause = 0.0
        self._due: float | None = None
        self._spared = frozenset({os.getpgrp(), os.getpgid(os.getppid())})
        self._poll = select.poll()
        for descriptor in (self._alarm, tie):
            self._poll.register(descriptor, select.POLLIN)
        self._talk = Talk(frames, self._poll)

    def serve(self) -> None:
        """Until the supervisor or the guard is gone; then nothing is left."""
        try:
            self._tell(f"ready {os.getpid()}")
            while True:
                self._turn()
        except SupervisorGone:
            pass
        # The socket stays open until then: its end tells the supervisor that nothing is left.
        end_all({group for run in self._runs.values() for group in run.groups}, self._ps, reap=True)
        for pid in self._leaders:
            signalled(os.kill, pid, signal.SIGKILL)  # one may not have come to its setsid

    def _turn(self) -> None:
        wait_ms = None if self._due is None else max(0.0, (self._due - time.monotonic()) * 1000)
        found = self._poll.poll(wait_ms)
        if any(descriptor == self._tie for descriptor, _ in found):
            raise SupervisorGone
        for descriptor, event in found:
            if descriptor == self._alarm:
                drain(self._alarm)
            elif descriptor in self._pipes:
                self._settle(self._pipes[descriptor])
            else:
                for words, descriptors in self._talk.turn(event):
                    self._request(words, descriptors)
        self._reap()
        if self._due is not None and time.monotonic() >= self._due:
            self._round()

    # What is asked ---------------------------------------------------------------------------

    def _request(self, words: list[bytes], descriptors: list[int]) -> None:
        handle = int(words[1])
        run = self._runs.get(handle)
        match words[0], run:
            case b"spawn", _:
                self._spawn(handle, descriptors)
            case b"signal", _Run():
                self._signal(run, words[2], [int(word) for word in words[3].split(b",")])
            case b"sweep", _Run():
                now = time.monotonic()
                run.kill_at = min(run.kill_at, now + int(words[2]) / 1000)
                self._due, self._pause = now, 0.0
            case b"keep", _Run(running=False):
                self._keep(run)
            case ((b"sweep" | b"keep"), _):
                self._tell(f"swept {handle} 0 0")
            case _:
                pass

    def _spawn(self, handle: int, descriptors: list[int]) -> None:
        started = start(handle, descriptors, self._tell)
        if started is None:
            return
        pid, _, ours = started
        run = _Run(handle, pid, ours)
        self._runs[handle] = self._leaders[pid] = self._pipes[ours] = run
        self._note()
        self._poll.register(ours, select.POLLIN)
        if self._due is None:
            self._due = time.monotonic() + _CENSUS_S

    def _settle(self, run: _Run) -> None:
        """The pipe of a new process has closed at exec, or says what failed before."""
        text = os.read(run.pipe, 64)
        self._poll.unregister(run.pipe)
        del self._pipes[run.pipe]
        os.close(run.pipe)
        run.pipe = -1
        if not text:
            self._tell(f"started {run.handle} {run.pid}")
            return
        self._tell(f"failed {run.handle} {text.decode()}")
        if run.kill_at < math.inf:
            self._answer(run, 0)
        else:
            self._forget(run)

    def _signal(self, run: _Run, scope: bytes, signals: list[int]) -> None:
        if scope == b"tree":
            self._look()
        groups = run.groups if scope == b"tree" else {run.pid} if run.running else set[int]()
        for number in signals:
            if not _kill_groups(groups, number) and run.running:
                signalled(os.kill, run.pid, number)  # before its setsid

    def _keep(self, run: _Run) -> None:
        """Let what is left of the run live on."""
        self._look()
        for one in run.members[:_LISTED]:
            self._list("kept", run, one)
        self._tell(f"keeps {run.handle} {len(run.members)}")
        self._answer(run, 0)

    def _list(self, fate: str, run: _Run, one: Shown) -> None:
        # Whole words only, for half a key could not be redacted.
        words = (
            one.command if len(one.command) < _SHOWN else one.command[:_SHOWN].rpartition(b" ")[0]
        )
        how = "session" if one.group == run.pid else "descent"
        text = b"\0".join(words.split(b" ")) + b"\0"
        self._tell(f"{fate} {run.handle} {one.pid} {how} {text.hex()}")

    # What is seen ----------------------------------------------------------------------------

    def _reap(self) -> None:
        for pid in list(self._leaders):  # each by its number: `ps` is a child, too
            ended, status, usage = os.wait4(pid, os.WNOHANG)
            if ended:
                self._ended(self._leaders.pop(pid), status, usage)

    def _ended(self, run: _Run, status: int, usage: resource.struct_rusage) -> None:
        run.running = False
        if run.pipe >= 0:
            self._settle(run)
        if run.handle in self._runs:
            code = os.waitstatus_to_exitcode(status)
            cpu_s = usage.ru_utime + usage.ru_stime
            unit = 1 if sys.platform == "darwin" else 1024  # of ru_maxrss
            self._tell(f"exited {run.handle} {code} {cpu_s:.6f} {usage.ru_maxrss * unit}")
            if run.kill_at < math.inf:
                self._due = time.monotonic()

    def _look(self) -> None:
        """Who lives of each run: without `ps`, one that stands for all of a group."""
        began = time.monotonic()
        shown = look(self._ps)
        for run in self._runs.values():
            if shown is None:
                groups = [group for group in run.groups if signalled(os.killpg, group, 0)]
                run.members = [Shown(group, 0, group, b"") for group in groups]
                continue
            run.members = _below(run.groups, shown, self._spared)
            if run.running:
                run.groups.add(run.pid)  # it may not have come to its setsid
        self._looked = time.monotonic()
        self._look_took = self._looked - began
        self._note()

    def _note(self) -> None:
        self._groups.note({group for run in self._runs.values() for group in run.groups})

    def _round(self) -> None:
        """Kill what is to be killed, say which trees are gone, and plan the next round."""
        self._look()
        now = time.monotonic()
        for run in list(self._runs.values()):
            if run.kill_at == math.inf:
                continue
            if not run.running and not run.members:
                self._answer(run, 0)
            elif now >= run.kill_at + STUCK_S:
                self._answer(run, len(run.members))
            elif now >= run.kill_at:
                self._kill(run)
        self._plan()

    def _kill(self, run: _Run) -> None:
        for one in run.members:
            if one.pid != run.pid and one.pid not in run.killed:
                if len(run.killed) < _LISTED and one.command:
                    self._list("killed", run, one)
                run.killed.add(one.pid)
        _kill_groups(run.groups, signal.SIGKILL)
        if run.running:
            signalled(os.kill, run.pid, signal.SIGKILL)

    def _plan(self) -> None:
        now = time.monotonic()
        if any(run.kill_at < math.inf for run in self._runs.values()):
            self._pause = min(max(self._pause * 2, 0.001, self._look_took), 0.1)
            self._due = now + self._pause
        else:
            self._pause = 0.0
            census = max(_CENSUS_S, self._look_took * _CENSUS_SHARE)
            self._due = max(now, self._looked + census) if self._runs else None

    def _answer(self, run: _Run, left: int) -> None:
        self._tell(f"swept {run.handle} {len(run.killed)} {left}")
        self._forget(run)

    def _forget(self, run: _Run) -> None:
        self._runs.pop(run.handle, None)
        self._note()

    def _tell(self, text: str) -> None:
        self._talk.tell(text)


# --- the guard -----------------------------------------------------------------------------------


def main(control: int, life: int, supervisor: int, ps: str) -> None:
    """Be the guard, and start the reaper. `life`: a pipe whose end tells of the guard's."""
    for descriptor in (control, life):
        os.set_inheritable(descriptor, False)  # noqa: FBT003
    ignore_signals()
    alarm = child_alarm()
    groups = Groups()
    tie, tied = os.pipe()  # its end tells the reaper of the guard's, or of the supervisor's
    child = os.fork()
    if child == 0:
        status = 1
        try:
            for descriptor in (alarm, life, tied):
                os.close(descriptor)
            os.setsid()
            _Reaper(Frames(socket.socket(fileno=control)), tie, groups, ps).serve()
            status = 0
        except BaseException as error:  # noqa: BLE001 (into the log that the supervisor reads)
            sys.excepthook(type(error), error, error.__traceback__)
        finally:
            os._exit(status)
    os.close(control)
    os.close(tie)
    _watch(child, tied, alarm, supervisor)
    # In the reaper's own group is what had not come to its setsid.
    end_all(groups.noted() | {child}, ps, reap=True)


def _watch(child: int, tied: int, alarm: int, supervisor: int) -> None:
    """Until the reaper has ended. It is woken when somebody stops it, told when the supervisor has
    ended, and killed when it is overdue then.
    """
    deadline = math.inf
    while True:
        drain(alarm)
        pid, status = os.waitpid(child, os.WNOHANG | os.WUNTRACED)
        if pid and not os.WIFSTOPPED(status):
            return
        if pid:
            os.kill(child, signal.SIGCONT)
        if deadline == math.inf and os.getppid() != supervisor:
            deadline = time.monotonic() + REAPER_ENDS_S
            os.close(tied)
        if time.monotonic() > deadline:
            os.kill(child, signal.SIGKILL)
        wait_readable([alarm], _WATCH_S)
