"""Guard and reaper: the two processes that stand between the supervisor and its agents.

Run by path as `python -I -S -E reaper.py CONTROL SUPERVISOR` (a socket and a pidfd); imports only
light modules of the standard library, starts no threads and never imports the package. The guard
only waits, and sweeps when the reaper dies; its child, the reaper, is the parent of every agent.
When the supervisor dies both kill all that is left and end. Owns no policy: what to kill, and when,
the supervisor says (process.py); only what nobody is left to answer for is killed unasked.
"""

from __future__ import annotations

import errno
import math
import os
import resource
import select
import signal
import socket
import sys
import time

TYPE_CHECKING = False  # type checkers take it for true; importing typing for it would cost 7 ms
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from socket import socket as Socket  # noqa: N812 (`Link` has a member of its name)
    from typing import Protocol, TypeVar

    T = TypeVar("T")

    class Link(Protocol):
        """Messages on a socket, such as `Packets`; `torn`: one is sent only in part."""

        @property
        def socket(self) -> Socket: ...
        @property
        def torn(self) -> bool: ...
        def send(self, text: bytes) -> None: ...
        def flush(self) -> None: ...
        def receive(self) -> tuple[bytes, list[int]]: ...


TOKEN = "ORCHESTRATE_RUN_ID"  # noqa: S105 (a name)
"""The variable in each agent's environment that names its run. Orphans are told apart by it."""

REAPER_ENDS_S = 20.0
"""The reaper's time to kill all after the supervisor's death; then the guard kills it too."""
STUCK_S = 5.0
"""What has survived SIGKILL this long belongs to another user, or is stuck in the kernel."""

_CENSUS_S, _CENSUS_SHARE = 1.0, 50
# While agents live their trees are looked at once a second, so that who is orphaned later is known,
# also with a cleared environment (codex strips that of its MCP servers). At most 2 % of one core.
_SHARED_LOOK = 3
# When many are stopped at once: a look is good for three times as long as it took.
_FEW = 8
# So many trees are looked at one by one before all of /proc is: with a thousand agents that takes
# a hundred times as long as one tree.
_CATCH_S = 0.02
# How long a round goes on after orphans that come and go. Measured on 3 that fork for ever: < 5 ms.

_SIGNALS = [
    int(number)
    for number in signal.valid_signals() - {signal.SIGKILL, signal.SIGSTOP, signal.SIGCHLD}
]
_SHORTAGE = {errno.EMFILE, errno.ENFILE, errno.ENOMEM}
_PR_SET_DUMPABLE, _PR_SET_NAME, _PR_SET_CHILD_SUBREAPER = 4, 15, 36
_MESSAGE, _RIGHTS = 4096, 4
_DEFAULT_PATH = b"/usr/local/bin:/usr/bin:/bin"
_TOMBSTONES = 4096
_LISTED, _SHOWN = 20, 1024
# So many of a run's survivors are told one by one, with so many bytes of their command line.


# --- what /proc says -----------------------------------------------------------------------------


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
    shown = text[: text.rfind(b"\0", 0, _SHOWN) + 1]
    return shown or b"[" + _read(f"/proc/{pid}/comm", 64).strip() + b"]"


def _is_dying(pid: int) -> bool:
    """Whether no environment was found because it is gone already; it may leave a child behind."""
    seen = look_at(pid)
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
    children = _families(processes)
    members = {seen.pid: seen for root in roots for seen in _tree(root, children)}
    return list(members.values())


def _families(processes: dict[int, Seen]) -> dict[int, list[Seen]]:
    children: dict[int, list[Seen]] = {}
    for seen in processes.values():
        children.setdefault(seen.parent, []).append(seen)
    return children


def _tree(root: Seen, children: dict[int, list[Seen]]) -> list[Seen]:
    members = [root]
    for seen in members:  # grows while it is walked
        members.extend(children.get(seen.pid, ()))
    return members


def _signal_groups(members: list[Seen], number: int, spared: frozenset[int]) -> None:
    """Signal each distinct process group of the members.

    By group, because a tree that keeps forking escapes a kill by pid (measured: 29-69 rounds
    against one). Groups never reach beyond their session, and each agent has its own. A group's
    number is not given away while it has a member, and that is asked right before the signal.
    """
    groups: dict[int, list[Seen]] = {}
    for seen in members:
        groups.setdefault(seen.group, []).append(seen)
    for group, some in groups.items():
        if group <= 1 or group in spared:
            for seen in some:
                kill_one(seen, number)
        else:
            _signal_group(group, some, number)


def _signal_group(group: int, members: list[Seen], number: int) -> None:
    for seen in members:
        try:
            is_member = os.getpgid(seen.pid) == group
        except ProcessLookupError:
            continue
        if is_member and signalled(os.killpg, group, number):
            return


def signalled(kill: Callable[[int, int], None], target: int, number: int) -> bool:
    """False: it is gone, or another user's."""
    try:
        kill(target, number)
    except (ProcessLookupError, PermissionError):
        return False
    return True


# --- messages ------------------------------------------------------------------------------------


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


# --- what both processes do ----------------------------------------------------------------------


def _prepare(name: bytes) -> None:
    import ctypes  # not at the top: process.py imports this module too, and has no use for it

    prctl = ctypes.CDLL(None, use_errno=True).prctl
    if prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "prctl(PR_SET_CHILD_SUBREAPER)")
    prctl(_PR_SET_NAME, name, 0, 0, 0)
    # Agents' keys pass through this memory: no agent shall read it or trace this process.
    prctl(_PR_SET_DUMPABLE, 0, 0, 0, 0)


def ignore_signals() -> None:
    # They end when the supervisor ends, and not by a signal that was meant for others
    # (`pkill python`, a shutdown that signals everybody at once).
    for number in _SIGNALS:
        signal.signal(number, signal.SIG_IGN)


def _default_signals() -> None:
    for number in (*_SIGNALS, signal.SIGCHLD):
        signal.signal(number, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_SETMASK, ())


def _nothing(number: int, frame: object) -> None:
    del number, frame


def child_alarm() -> int:
    """A descriptor that becomes readable when a child ends or stops."""
    ours, theirs = os.pipe()
    for end in (ours, theirs):
        os.set_blocking(end, False)
    signal.set_wakeup_fd(theirs, warn_on_full_buffer=False)
    signal.signal(signal.SIGCHLD, _nothing)
    signal.pthread_sigmask(signal.SIG_SETMASK, ())
    return ours


def drain(alarm: int) -> None:
    try:
        while os.read(alarm, 4096):
            pass
    except BlockingIOError:
        return


def wait_readable(descriptors: list[int], seconds: float | None) -> list[int]:
    poll = select.poll()
    for descriptor in descriptors:
        poll.register(descriptor, select.POLLIN)
    return [found for found, _ in poll.poll(None if seconds is None else max(0.0, seconds * 1000))]


def _kill_all(alarm: int, spared: frozenset[int], kept: _Kept) -> None:
    """Kill every descendant of this process that is not kept; return when there is none, or only
    unkillable ones.
    """
    me, wait_s = os.getpid(), 0.001
    before: set[tuple[int, int]] = set()
    since = time.monotonic()
    while True:
        drain(alarm)
        if not _reap_any():
            return
        children = _families(look())
        members = [seen for top in children.get(me, ()) for seen in _tree(top, children)]
        living = [seen for seen in kept.others(members, children) if seen.alive]
        _signal_groups(living, signal.SIGKILL, spared)
        left = {(seen.pid, seen.start) for seen in living}
        if left != before:
            before, since, wait_s = left, time.monotonic(), 0.001
        elif time.monotonic() - since > (STUCK_S if living else _CATCH_S):
            return
        wait_readable([alarm], wait_s)
        wait_s = min(wait_s * 2, 0.05)


def _reap_any() -> bool:
    """Reap what has ended. False: no child is left, hence no descendant, for orphans come here."""
    try:
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass
    except ChildProcessError:
        return False
    return True


class _Kept:
    """Processes that may outlive everything, in a file that guard and reaper share: the guard must
    know them when the reaper was killed.
    """

    def __init__(self) -> None:
        self._file = os.memfd_create("kept", os.MFD_CLOEXEC)
        self._runs: dict[bytes, set[tuple[int, int, int]]] = {}

    def note(self, token: bytes, members: list[Seen]) -> None:
        """These are left of the run's tree now; none: it is forgotten."""
        self._runs[token] = {(seen.pid, seen.start, seen.session) for seen in members}
        if not members:
            del self._runs[token]
        lines = [
            b"%d %d %d %s" % (*one, token) for token, some in self._runs.items() for one in some
        ]
        text = b"\n".join(lines)
        os.pwrite(self._file, b"%-16d" % len(text) + text, 0)  # in one go: never half of it

    def others(self, members: list[Seen], children: dict[int, list[Seen]]) -> list[Seen]:
        """Those of the members that are not kept: neither noted, nor below such a one, nor in its
        session, nor of its run by their environment.
        """
        noted = [line.split(b" ", 3) for line in self._lines()]
        if not noted:
            return members
        known = {(int(pid), int(start)) for pid, start, _, _ in noted}
        sessions = {int(session) for _, _, session, _ in noted}
        tokens = {token for _, _, _, token in noted}
        roots = [
            seen
            for seen in members
            if (seen.pid, seen.start) in known
            or seen.session in sessions
            or token_of(seen.pid) in tokens
        ]
        spared = {seen.pid for root in roots for seen in _tree(root, children)}
        return [seen for seen in members if seen.pid not in spared]

    def _lines(self) -> list[bytes]:
        size = int(os.pread(self._file, 16, 0) or b"0")
        return os.pread(self._file, size, 16).split(b"\n") if size else []


# --- the reaper ----------------------------------------------------------------------------------


class _Run:
    """One agent: its leader (the process that was spawned) and all that descends from it."""

    __slots__ = (
        "handle",
        "kept",
        "kill_at",
        "killed",
        "pid",
        "pipe",
        "running",
        "start",
        "swept",
        "token",
    )

    def __init__(self, handle: int, token: bytes, pid: int, start: int, pipe: int) -> None:
        self.handle = handle
        self.token = token
        self.pid = pid
        self.start = start
        self.pipe = pipe  # reports what failed before exec; -1 when that is settled
        self.running = True
        self.swept = False
        self.kept = False  # what is left of it may stay
        self.kill_at = math.inf
        self.killed: set[tuple[int, int]] = set()


class _Reaper:
    def __init__(self, control: socket.socket, supervisor: int, guard: int, kept: _Kept) -> None:
        self._control = control
        self._kept = kept
        self._alarm = child_alarm()
        self._ends = {supervisor, guard}
        self._runs: dict[int, _Run] = {}  # not swept yet, by handle
        self._sweeping: dict[int, _Run] = {}  # those of them that are to end
        self._leaders: dict[int, _Run] = {}  # not reaped yet, by pid
        self._pipes: dict[int, _Run] = {}  # not known to have started yet
        self._tokens: dict[bytes, _Run] = {}  # with those swept lately
        self._keepers: set[_Run] = set()  # of which something was kept and lives
        self._owners: dict[int, tuple[int, _Run, str]] = {}
        # start and run of each process last seen, and how it was found
        self._adopted: dict[int, _Run] = {}
        # whose each orphan is, by pid, which is its own until it is reaped here
        self._sessions: dict[int, _Run] = {}
        self._trees: dict[_Run, list[Seen]] = {}  # as last seen
        self._orphaned = 0  # how many orphans are children of ours
        self._children = os.open(f"/proc/self/task/{os.getpid()}/children", os.O_RDONLY)
        self._looked = 0.0
        self._look_took = 0.0
        self._near_looks = 0  # at single trees, since all of /proc was looked at
        self._near_looked = self._near_took = 0.0
        self._pause = 0.0
        self._due: float | None = None
        self._poll = select.poll()
        for descriptor in (self._alarm, supervisor, guard):
            self._poll.register(descriptor, select.POLLIN)
        self._talk = Talk(Packets(control), self._poll)
        # Their groups are never signalled, only single processes in them.
        self._spared = frozenset({os.getpgrp(), os.getpgid(os.getppid())})

    def serve(self) -> None:
        """Until the supervisor or the guard is gone; then nothing is left."""
        if look_at(os.getpid()) is None:
            raise OSError(errno.ENOENT, "/proc is not there, or hides processes")
        own = os.pidfd_open(os.getpid())
        try:
            send(self._control, b"ready", [own])
            os.close(own)
            while True:
                self._turn()
        except SupervisorGone:
            pass
        # The socket stays open until then: its end tells the supervisor that nothing is left.
        signal.set_wakeup_fd(-1)
        _kill_all(child_alarm(), self._spared, self._kept)

    def _turn(self) -> None:
        wait_ms = None if self._due is None else max(0.0, (self._due - time.monotonic()) * 1000)
        found = self._poll.poll(wait_ms)
        if any(descriptor in self._ends for descriptor, _ in found):
            raise SupervisorGone  # before a request is taken that came at the same time
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
        if words[0] == b"spawn":
            handle = int(words[1])
            self._spawn(handle, descriptors)
            return
        handle = int(words[1])
        run = self._runs.get(handle)
        if words[0] == b"signal" and run is not None:
            self._signal(run, words[2], [int(word) for word in words[3].split(b",")])
        elif words[0] == b"sweep" and run is not None:
            self._sweep(run, int(words[2]) / 1000)
        elif words[0] == b"keep" and run is not None and not run.running:
            self._keep(run)
        elif words[0] in {b"sweep", b"keep"}:
            self._tell(f"swept {handle} 0 0")

    def _spawn(self, handle: int, descriptors: list[int]) -> None:
        started = start(handle, descriptors, self._tell)
        if started is None:
            return
        pid, token, ours = started
        seen = look_at(pid)
        run = _Run(handle, token, pid, 0 if seen is None else seen.start, ours)
        self._runs[handle] = self._leaders[pid] = self._pipes[ours] = run
        self._tokens[token] = self._sessions[pid] = run
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
        if run.handle in self._sweeping:
            self._tell(f"swept {run.handle} 0 0")
        self._forget(run)

    def _signal(self, run: _Run, scope: bytes, signals: list[int]) -> None:
        members = self._members(run)  # also to know them when their parents are gone
        if scope == b"tree":
            for number in signals:
                _signal_groups(members, number, self._spared)
        elif run.running:
            # The leader is not reaped yet, so its number is its own. Before its setsid: no group.
            for number in signals:
                if not signalled(os.killpg, run.pid, number):
                    signalled(os.kill, run.pid, number)

    def _members(self, run: _Run) -> list[Seen]:
        """The tree as it is, or, when many ask at once, as it was a moment ago."""
        age = time.monotonic() - self._looked
        if age > self._look_took * _SHARED_LOOK or run not in self._trees:
            if self._near_looks < _FEW:
                return self._tree_of(run)
            self._trees = self._look()
        return self._trees.get(run, [])

    def _tree_of(self, run: _Run) -> list[Seen]:
        """The living members of one run's tree, by its leader and its orphans."""
        began = time.monotonic()
        tops = [run.pid] if run.running else []
        tops += [pid for pid in self._child_pids() if pid not in self._leaders]
        members: dict[int, Seen] = {}
        for pid in tops:
            seen = look_at(pid) if self._adopted.get(pid, run) is run else None
            if seen is None:
                continue
            owner, how = (run, "descent") if pid == run.pid else self._owner(seen)
            if owner is run:
                self._adopt(seen, run)
                self._walk(seen, run, how, members)
        self._near_looks += 1
        self._near_looked = time.monotonic()
        self._near_took = self._near_looked - began
        return [seen for seen in members.values() if seen.alive]

    def _walk(self, top: Seen, run: _Run, how: str, members: dict[int, Seen]) -> None:
        """Add a process and all that descends from it, and remember whose they are."""
        own_session = os.getsid(0)
        waiting = [top]
        for seen in waiting:  # grows while it is walked
            if seen.pid in members:
                continue
            members[seen.pid] = seen
            self._owners[seen.pid] = (seen.start, run, how)
            if seen.session != own_session:
                self._sessions[seen.session] = run
            below = [look_at(pid) for pid in children_of(seen.pid)]
            waiting += [one for one in below if one is not None and one.parent == seen.pid]

    def _adopt(self, seen: Seen, run: _Run) -> None:
        if seen.pid not in self._leaders and seen.parent == os.getpid():
            self._adopted[seen.pid] = run

    def _sweep(self, run: _Run, delay_s: float) -> None:
        now = time.monotonic()
        run.kill_at = min(run.kill_at, now + delay_s)
        self._sweeping[run.handle] = run
        self._due = now
        self._pause = 0.0

    def _keep(self, run: _Run) -> None:
        """Let what is left of the run live on, and its supervisor know who that is."""
        self._trees = self._look()
        members = self._trees.get(run, [])
        if members:
            run.kept = True
            self._keepers.add(run)
            self._kept.note(run.token, members)
        for seen in members[:_LISTED]:
            self._list("kept", run, seen)
        self._tell(f"keeps {run.handle} {len(members)}")
        self._answer(run, 0)

    def _list(self, fate: str, run: _Run, seen: Seen) -> None:
        _, _, how = self._owners.get(seen.pid, (0, None, "descent"))
        self._tell(f"{fate} {run.handle} {seen.pid} {how} {command_of(seen.pid).hex()}")

    # What is seen ----------------------------------------------------------------------------

    def _reap(self) -> None:
        while True:
            try:
                pid, status, usage = os.wait4(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if pid == 0:
                return
            if self._sweeping:
                self._due = time.monotonic()
            self._owners.pop(pid, None)
            self._adopted.pop(pid, None)
            run = self._leaders.pop(pid, None)
            if run is not None:
                self._ended(run, status, usage)

    def _ended(self, run: _Run, status: int, usage: resource.struct_rusage) -> None:
        run.running = False
        if run.pipe >= 0:
            self._settle(run)
        if not run.swept:
            code = os.waitstatus_to_exitcode(status)
            cpu_s = usage.ru_utime + usage.ru_stime
            self._tell(f"exited {run.handle} {code} {cpu_s:.6f} {usage.ru_maxrss * 1024}")

    def _look(self) -> dict[_Run, list[Seen]]:
        """The living members of each run's tree."""
        began = time.monotonic()
        children = _families(look())
        trees: dict[_Run, list[Seen]] = {}
        owners: dict[int, tuple[int, _Run, str]] = {}
        sessions = dict(self._leaders)
        own_session = os.getsid(0)  # where a new process is until its setsid
        for top in children.get(os.getpid(), ()):
            leads = self._leaders.get(top.pid)
            run, how = (leads, "descent") if leads is not None else self._owner(top)
            if run is None:
                continue
            self._adopt(top, run)
            members = [seen for seen in _tree(top, children) if seen.alive]
            trees.setdefault(run, []).extend(members)
            for seen in members:
                owners[seen.pid] = (seen.start, run, how)
                if seen.session != own_session:
                    sessions[seen.session] = run
        self._owners, self._sessions = owners, sessions
        self._looked = time.monotonic()
        self._look_took = self._looked - began
        self._near_looks = 0
        for run in list(self._keepers):
            self._kept.note(run.token, trees.get(run, []))
            if run not in trees:
                self._keepers.discard(run)
        return trees

    def _owner(self, orphan: Seen) -> tuple[_Run | None, str]:
        """The run of an orphan, and how that is known: it was seen before, or by session, token,
        or span of life.

        None: several may be. _NOBODY: none that still runs can be.
        """
        start, run, how = self._owners.get(orphan.pid, (0, None, ""))
        if run is not None and start == orphan.start:
            return run, how
        found = self._sessions.get(orphan.session)
        if found is not None:
            return found, "session"
        token = token_of(orphan.pid)
        found = None if token is None else self._tokens.get(token)
        if found is not None:
            return found, "environment"
        possible = [run for run in self._runs.values() if run.start <= orphan.start]
        if len(possible) > 1:
            return None, ""
        return (possible[0] if possible else _NOBODY), "alone"

    def _round(self) -> None:
        """Kill what is to be killed, say which trees are gone, and plan the next round."""
        holders = self._orphans()
        before = len(self._runs)
        for run in list(self._sweeping.values()):
            if holders is not None and not run.running and run not in holders:
                self._answer(run, 0)
        now = time.monotonic()
        due = [run for run in self._sweeping.values() if now >= run.kill_at]
        # At most half of the time is for looking.
        rested = now - self._looked >= self._look_took
        if (due and len(due) > _FEW and rested) or now - self._looked >= self._census():
            self._trees = self._look()
            for run in due:
                self._end(run, self._trees.get(run, []), now)
        elif len(due) <= _FEW and now - self._near_looked >= self._near_took:
            for run in due:
                self._end(run, self._tree_of(run), now)
        late = holders is None or _NOBODY in holders or any(run.swept for run in holders)
        self._plan(soon=self._orphaned > 0 and (late or len(self._runs) < before))

    def _end(self, run: _Run, members: list[Seen], now: float) -> None:
        if now >= run.kill_at + STUCK_S:
            self._answer(run, len(members))
        else:
            self._kill(run, members)

    def _orphans(self) -> set[_Run] | None:
        """The runs that have orphans, once those are killed that are to be. None: it is not known.

        When its leader has ended, all that is left of a tree descends from such a child of ours. A
        process that forks, leaves its group and ends, for ever, is never where `look` looks; but it
        or its zombie is always a child of ours, and one is looked up faster than it forks.
        """
        until = time.monotonic() + _CATCH_S
        while True:
            self._reap()
            holders: set[_Run] = set()
            orphans = [pid for pid in self._child_pids() if pid not in self._leaders]
            self._orphaned = len(orphans)
            settled = True
            for pid in orphans:
                run = self._adopted.get(pid)
                if (
                    run is not None
                    and run.handle in self._runs
                    and run.handle not in self._sweeping
                ):
                    holders.add(run)  # and nobody asks for its end
                else:
                    settled = self._settle_orphan(pid, holders) and settled
            if settled:
                return holders
            if time.monotonic() > until:
                return None

    def _settle_orphan(self, pid: int, holders: set[_Run]) -> bool:
        """False: it is gone, or killed just now, so that there may be a next one."""
        seen = look_at(pid)
        run, how = self._owner(seen) if seen is not None and seen.alive else (None, "")
        if seen is None or run is None:
            return not _is_dying(pid)
        self._adopt(seen, run)
        if run.kept:
            return True
        holders.add(run)
        due = run.swept or (run.handle in self._sweeping and time.monotonic() >= run.kill_at)
        if not due or (pid, seen.start) in run.killed:
            return True
        self._owners[pid] = (seen.start, run, how)
        self._kill(run, [seen])
        signalled(os.kill, pid, signal.SIGKILL)  # should it have left that group just now
        return False

    def _kill(self, run: _Run, members: list[Seen]) -> None:
        for seen in members:
            if seen.pid != run.pid and (seen.pid, seen.start) not in run.killed:
                if len(run.killed) < _LISTED and not run.swept:
                    self._list("killed", run, seen)
                run.killed.add((seen.pid, seen.start))
        _signal_groups(members, signal.SIGKILL, self._spared)

    def _child_pids(self) -> list[int]:
        text = part = os.pread(self._children, 1 << 16, 0)
        while part:
            part = os.pread(self._children, 1 << 16, len(text))
            text += part
        return [int(word) for word in text.split()]

    def _census(self) -> float:
        """How often, in seconds, the trees of living agents are looked at."""
        return max(_CENSUS_S, self._look_took * _CENSUS_SHARE)

    def _plan(self, *, soon: bool) -> None:
        now = time.monotonic()
        if self._sweeping:
            # A child that ends calls for a look at once; this is for those with another parent.
            self._pause = min(max(self._pause * 2, 0.001), 0.05)
            self._due = now + self._pause
        elif soon:
            self._pause = min(max(self._pause * 2, 0.01), _CENSUS_S)
            self._due = now + self._pause
        else:
            self._pause = 0.0
            watched = self._runs or self._keepers
            self._due = max(now, self._looked + self._census()) if watched else None

    def _answer(self, run: _Run, left: int) -> None:
        self._tell(f"swept {run.handle} {len(run.killed)} {left}")
        self._forget(run)

    def _forget(self, run: _Run) -> None:
        run.swept = True
        run.killed = set()
        self._runs.pop(run.handle, None)
        self._sweeping.pop(run.handle, None)
        if len(self._tokens) > len(self._runs) + _TOMBSTONES:
            swept = [token for token, old in self._tokens.items() if old.swept and not old.kept]
            for token in swept[: _TOMBSTONES // 2]:  # the oldest
                del self._tokens[token]

    def _tell(self, text: str) -> None:
        self._talk.tell(text)


_NOBODY = _Run(-1, b"", -1, 0, -1)
_NOBODY.swept = True


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
        while True:
            try:
                text, descriptors = self._link.receive()
            except BlockingIOError:
                return
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


def start(
    handle: int, descriptors: list[int], tell: Callable[[str], None]
) -> tuple[int, bytes, int] | None:
    """Start what a request asks for: its pid, its token, and a pipe that reports what fails before
    exec. None: it was told why it cannot be.
    """
    tell(f"taken {handle}")  # before the fork: without it, nothing was started
    if len(descriptors) != 4:  # the rest did not fit into our table
        tell(f"failed {handle} reaper {errno.EMFILE}")
        return None
    payload = descriptors[3]
    fields = os.pread(payload, os.fstat(payload).st_size, 0).split(b"\0")
    cwd, token, count = fields[0], fields[1], int(fields[2])
    argv = fields[3 : 3 + count]
    pairs = (item.partition(b"=") for item in fields[3 + count :])
    env = {name: value for name, _, value in pairs}
    try:
        ours, theirs = os.pipe()
    except OSError as error:
        tell(f"failed {handle} reaper {error.errno}")
        return None
    try:
        pid = os.fork()
    except OSError as error:
        os.close(ours)
        os.close(theirs)
        tell(f"failed {handle} fork {error.errno}")
        return None
    if pid == 0:
        become(argv, env, cwd, descriptors[:3], theirs)
    os.close(theirs)
    return pid, token, ours


def become(
    argv: list[bytes], env: dict[bytes, bytes], cwd: bytes, stdio: list[int], report: int
) -> None:
    """In the new process: become the agent, or report what failed and end. Does not return."""
    stage = b"reaper"
    try:
        os.setsid()
        signal.set_wakeup_fd(-1)
        _default_signals()
        for target, descriptor in enumerate(stdio):
            os.dup2(descriptor, target)
        stage = b"cwd"
        os.chdir(cwd)
        stage = b"program"
        _execute(argv, env)
    except Exception as error:  # noqa: BLE001 (whatever it is, the agent has not started)
        number = error.errno if isinstance(error, OSError) else None
        os.write(report, b"%s %d" % (stage, number or errno.EINVAL))
    finally:
        os._exit(127)


def _execute(argv: list[bytes], env: dict[bytes, bytes]) -> None:
    program = argv[0]
    if b"/" in program:
        os.execve(program, argv, env)  # noqa: S606
    denied: OSError | None = None
    for folder in env.get(b"PATH", _DEFAULT_PATH).split(b":"):
        # A relative folder would be one of the work tree, which others have filled.
        if not folder.startswith(b"/"):
            continue
        path = folder + b"/" + program
        try:
            os.execve(path, argv, env)  # noqa: S606
        except (FileNotFoundError, NotADirectoryError):
            continue
        except PermissionError as error:
            if os.path.exists(path):  # and not a folder of PATH that is closed to this user
                denied = error
    raise denied or FileNotFoundError(errno.ENOENT, "not found on PATH")


# --- the guard -----------------------------------------------------------------------------------


def _guard(control: socket.socket, supervisor: int) -> None:
    for descriptor in (control.fileno(), supervisor):
        os.set_inheritable(descriptor, False)  # noqa: FBT003
    _prepare(b"orch-guard")
    ignore_signals()
    alarm = child_alarm()  # before there is a child: a host may have had SIGCHLD ignored
    kept = _Kept()
    me = os.pidfd_open(os.getpid())
    child = os.fork()
    if child == 0:
        status = 1
        try:
            os.close(alarm)
            os.setsid()
            _prepare(b"orch-reaper")
            _Reaper(control, supervisor, me, kept).serve()
            status = 0
        except BaseException as error:  # noqa: BLE001 (into the log that the supervisor reads)
            sys.excepthook(type(error), error, error.__traceback__)
        finally:
            os._exit(status)
    control.close()
    os.close(me)
    reaper = os.pidfd_open(child)
    ended = _watch(child, reaper, supervisor, alarm)
    if not ended:
        signal.pidfd_send_signal(reaper, signal.SIGKILL)
    _kill_all(alarm, frozenset({os.getpgrp()}), kept)


def _watch(child: int, reaper: int, supervisor: int, alarm: int) -> bool:
    """Wait for the reaper's end, waking it when somebody stops it. False: it is overdue."""
    deadline: float | None = None
    while True:
        left = None if deadline is None else deadline - time.monotonic()
        if left is not None and left <= 0:
            return False
        watched = [reaper, alarm] if deadline is not None else [reaper, alarm, supervisor]
        found = wait_readable(watched, left)
        if reaper in found:
            return True
        if supervisor in found:
            deadline = time.monotonic() + REAPER_ENDS_S
        if alarm in found:
            drain(alarm)
            if os.waitid(os.P_PID, child, os.WSTOPPED | os.WNOHANG) is not None:
                os.kill(child, signal.SIGCONT)


if __name__ == "__main__":
    _guard(socket.socket(fileno=int(sys.argv[1])), int(sys.argv[2]))
