"""The guard, which has no handle for its supervisor: it looks who its parent is."""

from __future__ import annotations

import math
import os
import signal
import socket
import sys
import time

from orchestrator.groups.ending import end_all
from orchestrator.groups.frames import Frames
from orchestrator.groups.noted import Groups
from orchestrator.groups.reaper import Reaper
from orchestrator.reaper import REAPER_ENDS_S
from orchestrator.reaper.signals import child_alarm, drain, ignore_signals, wait_readable

_WATCH_S = 0.25
# How often the guard looks whether its parent is still the supervisor: a worker that this has
# forked may hold the socket open.


def guard(control: int, life: int, supervisor: int, ps: str) -> None:
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
            Reaper(Frames(socket.socket(fileno=control)), tie, groups, ps).serve()
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
