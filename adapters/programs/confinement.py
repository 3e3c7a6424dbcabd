"""Which files a front, or a thread of it and what that starts, may change: Landlock and seccomp.

Shared by the programs of this folder. Run by the agent's own interpreter: standard library only.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import re
import stat
import struct
import sys
import uuid
from collections.abc import Sequence
from pathlib import Path

from adapters.programs.attributes import keep_attributes

_CREATE_RULESET, _ADD_RULE, _RESTRICT_SELF = 444, 445, 446
_PR_CAPBSET_DROP, _PR_SET_CHILD_SUBREAPER, _PR_SET_NO_NEW_PRIVS = 24, 36, 38
_WRITE_FILE, _TRUNCATE = 1 << 1, 1 << 14
# remove_dir, remove_file, make_{dir,reg,sock,fifo,sym}, refer; granted where one may write.
_CHANGE_TREE = sum(1 << bit for bit in (4, 5, 7, 8, 9, 10, 12, 13))
# A device made in the scratch folder would be a way around all this for root: granted nowhere.
_MAKE_DEVICE = 1 << 6 | 1 << 11
_SCOPE_SIGNAL, _SCOPE_ABI = 1 << 1, 6  # no signal leaves the domain: not to us, not to the reaper
# sys_module, sys_rawio, sys_ptrace, sys_admin, sys_boot, mknod, perfmon, bpf. With sys_admin root
# could read our environment, and the key in it: mm_access asks for perfmon_capable after Landlock.
_CAPABILITIES = (16, 17, 19, 21, 22, 27, 38, 39)
_TRUNCATE_ABI = 3  # before it, truncate(2) was free: not worth the name of enforcement
_DEVICES = ("/dev/null", "/dev/zero", "/dev/full", "/dev/tty", "/dev/ptmx", "/dev/pts")


def adopt_orphans() -> None:
    """What a child leaves behind becomes a child of this program, which can end it."""
    if sys.platform.startswith("linux"):
        ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def confine(writable: Sequence[str], workspace: str) -> str | None:
    """Lets this thread, and all that it starts, write only below `writable`. None, or why not.

    Where the workspace is not among it, modes, owners and times of all files stay, too.
    """
    if not sys.platform.startswith("linux"):
        return "only Linux has Landlock"
    libc = ctypes.CDLL(None, use_errno=True)
    abi = libc.syscall(_CREATE_RULESET, None, ctypes.c_size_t(0), 1)
    if abi < _TRUNCATE_ABI:
        return "this kernel has no Landlock" if abi < 1 else f"Landlock ABI {abi} is too old"
    rights = _WRITE_FILE | _TRUNCATE | _CHANGE_TREE | _MAKE_DEVICE
    scoped = struct.pack("=QQ", 0, _SCOPE_SIGNAL) if abi >= _SCOPE_ABI else b""
    handled = struct.pack("=Q", rights) + scoped
    ruleset = libc.syscall(_CREATE_RULESET, handled, ctypes.c_size_t(len(handled)), 0)
    if ruleset < 0:
        return f"Landlock refused: {os.strerror(ctypes.get_errno())}"
    try:
        for path in (*writable, *_DEVICES):
            _allow(libc, ruleset, path)
        for capability in _CAPABILITIES:
            libc.prctl(_PR_CAPBSET_DROP, capability, 0, 0, 0)  # only root has any to lose
        libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
        if libc.syscall(_RESTRICT_SELF, ruleset, 0) != 0:
            return f"Landlock refused: {os.strerror(ctypes.get_errno())}"
    finally:
        os.close(ruleset)
    return None if workspace in writable else keep_attributes() or _probe(workspace)


def _allow(libc: ctypes.CDLL, ruleset: int, path: str) -> None:
    try:
        descriptor = os.open(path, os.O_PATH | os.O_CLOEXEC)
    except OSError:  # what is not there cannot be written to either
        return
    try:
        folder = stat.S_ISDIR(os.fstat(descriptor).st_mode)
        rights = _WRITE_FILE | _TRUNCATE | (_CHANGE_TREE if folder else 0)
        libc.syscall(_ADD_RULE, ruleset, 1, struct.pack("=Qi", rights, descriptor), 0)
    finally:
        os.close(descriptor)


def _probe(workspace: str) -> str | None:
    """Trust, but verify: a file that must not come into being."""
    path = Path(workspace, f".orchestrate-{uuid.uuid4().hex}")
    try:
        os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY))
    except OSError:
        return None
    # This thread may create but not remove it where the kernel does half of what it promised.
    with contextlib.suppress(OSError):
        path.unlink()
    return "a file could be made in spite of Landlock"


_WHY = "(?:Permission denied|Read-only file system|Operation not permitted)"
_QUOTES = "'\"`\u2018\u2019"
_DENIED = re.compile(
    rf"(?im)(?:^|[\s:{_QUOTES}])(?P<path>[^\s:{_QUOTES}]+)[{_QUOTES}]?: {_WHY}"
    rf"|{_WHY}: [{_QUOTES}](?P<quoted>[^{_QUOTES}]+)[{_QUOTES}]"
)


def denied_path(output: str, workspace: str, scratch: str) -> str | None:
    """A path that a command was refused and this program is not: our doing.

    A mode that could not be changed below `scratch` is no loss.
    """
    for found in _DENIED.finditer(output):
        path = Path(workspace, found["quoted"] or found["path"])
        if path.is_relative_to(scratch):
            continue
        if os.access(path if path.exists() else path.parent, os.W_OK):
            return str(path)
    return None
