"""The guard: it only waits, and sweeps when the reaper has died."""

from __future__ import annotations

import os
import signal
import socket
import sys
import time

from orchestrator.reaper import REAPER_ENDS_S
from orchestrator.reaper.ending import kill_all
from orchestrator.reaper.kept import Kept
from orchestrator.reaper.reaper import Reaper
from orchestrator.reaper.signals import child_alarm, drain, ignore_signals, wait_readable

_PR_SET_DUMPABLE, _PR_SET_NAME, _PR_SET_CHILD_SUBREAPER = 4, 15, 36


def guard(control: socket.socket, supervisor: int) -> None:
    """Be the guard, and start the reaper. `supervisor`: a handle for that process."""
    for descriptor in (control.fileno(), supervisor):
        os.set_inheritable(descriptor, False)  # noqa: FBT003
    prepare(b"orch-guard")
    ignore_signals()
    alarm = child_alarm()  # before there is a child: a host may have had SIGCHLD ignored
    kept = Kept()
    me = os.pidfd_open(os.getpid())
    child = os.fork()
    if child == 0:
        status = 1
        try:
            os.close(alarm)
            os.setsid()
            prepare(b"orch-reaper")
            Reaper(control, supervisor, me, kept).serve()
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
    kill_all(alarm, frozenset({os.getpgrp()}), kept)


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


def prepare(name: bytes) -> None:
    import ctypes  # not at the top: process.py imports this module too, and has no use for it

    prctl = ctypes.CDLL(None, use_errno=True).prctl
    if prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "prctl(PR_SET_CHILD_SUBREAPER)")
    prctl(_PR_SET_NAME, name, 0, 0, 0)
    # Agents' keys pass through this memory: no agent shall read it or trace this process.
    prctl(_PR_SET_DUMPABLE, 0, 0, 0, 0)
