"""Signals to others, and those that come: only that a child has ended wakes anybody here."""

from __future__ import annotations

import os
import select
import signal

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

_SIGNALS = [
    int(number)
    for number in signal.valid_signals() - {signal.SIGKILL, signal.SIGSTOP, signal.SIGCHLD}
]


def signalled(kill: Callable[[int, int], None], target: int, number: int) -> bool:
    """False: it is gone, or another user's."""
    try:
        kill(target, number)
    except (ProcessLookupError, PermissionError):
        return False
    return True


def ignore_signals() -> None:
    # They end when the supervisor ends, and not by a signal that was meant for others
    # (`pkill python`, a shutdown that signals everybody at once).
    for number in _SIGNALS:
        signal.signal(number, signal.SIG_IGN)


def default_signals() -> None:
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


def reap_any() -> bool:
    """Reap what has ended. False: no child is left, hence no descendant, for orphans come here."""
    try:
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass
    except ChildProcessError:
        return False
    return True
