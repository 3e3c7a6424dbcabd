"""What this system has for supervision, and what stands in for it where it has not.

Subreapers, handles for processes and /proc are had together or not at all: where one is missing,
agents are ended by process group (orchestrator/groups).
"""

from __future__ import annotations

import errno
import os
import sys
import tempfile
from pathlib import Path

ASKED = "_ORCHESTRATE_SUPERVISION"
"""Set to `groups` it has this system treated like one without subreapers: for tests."""

_NEVER = {errno.ENOSYS, errno.EPERM, errno.EACCES, errno.EINVAL}


def lacking() -> str | None:
    """Why agents can be ended by process group only; None: all that descends from them is found."""
    if _asked():
        return f"{ASKED}=groups asks for it"
    if sys.platform != "linux":
        return f"{sys.platform} has no subreapers"
    if not Path(f"/proc/self/task/{os.getpid()}/children").exists():
        return "/proc is not mounted, or does not list children"
    try:
        os.close(os.pidfd_open(os.getpid()))
    except OSError as error:
        # A shortage of descriptors passes, and is told by whoever needs one.
        if error.errno in _NEVER:
            return f"there are no handles for processes: {error.strerror}"
    return None


def remedy() -> str:
    """What to do for `lacking` to be None."""
    if sys.platform != "linux":
        return "run orchestrate on Linux: a virtual machine or a container"
    return "mount /proc; Linux 5.4 or newer, with a seccomp profile that allows pidfd_open"


def ps() -> str:
    """The program that lists processes; empty if there is none where the system has its own."""
    return next((path for path in ("/bin/ps", "/usr/bin/ps") if os.access(path, os.X_OK)), "")


def nameless(name: str) -> int:
    """A new file that no folder holds, to write and to read."""
    if sys.platform == "linux" and not _asked():
        return os.memfd_create(name, os.MFD_CLOEXEC)
    descriptor, path = tempfile.mkstemp(prefix=f"orchestrate-{name}-")
    Path(path).unlink()
    return descriptor


def _asked() -> bool:
    return os.environ.get(ASKED) == "groups"
