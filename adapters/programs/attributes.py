"""Keeps a front's commands from changing modes, owners, times and attributes of files: seccomp.

Landlock leaves these alone, and a filter of system calls sees no paths: so no file's can be
changed, not even a scratch file's. Run by the agent's own interpreter: standard library only.
"""

from __future__ import annotations

import ctypes
import errno
import os
import struct
import sys
import uuid
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

_PR_SET_SECCOMP, _MODE_FILTER = 22, 2
_ALLOW, _DENY = 0x7FFF0000, 0x00050000 | errno.EPERM
_LOAD, _AND, _EQUAL, _AT_LEAST, _RETURN = 0x20, 0x54, 0x15, 0x35, 0x06
# Where struct seccomp_data has these; of an argument its lower half, both machines being
# little-endian.
_NUMBER, _ARCH, _SECOND_ARGUMENT = 0, 4, 24
_X32 = 0x40000000  # x86_64's second table has this bit


@dataclass(frozen=True, kw_only=True)
class _Machine:
    """`arch` as the audit system calls it; the numbers of what must not be called, and of ioctl."""

    arch: int
    ioctl: int
    calls: tuple[int, ...]


# The same number everywhere: fchmodat2, setxattrat, removexattrat, file_setattr, io_uring_setup:
# what goes through such a ring passes by every filter, and it can set extended attributes.
_NEWER = (452, 463, 466, 469, 425)
_MACHINES: Mapping[str, _Machine] = {
    "x86_64": _Machine(
        arch=0xC000003E,
        ioctl=16,
        calls=(
            *(90, 91, 268),  # chmod, fchmod, fchmodat
            *(92, 93, 94, 260),  # chown, fchown, lchown, fchownat
            *(132, 235, 261, 280),  # utime, utimes, futimesat, utimensat
            *(188, 189, 190, 197, 198, 199),  # setxattr, removexattr, each with l and f
            *_NEWER,
        ),
    ),
    "aarch64": _Machine(
        arch=0xC00000B7,
        ioctl=29,
        calls=(
            *(52, 53, 54, 55, 88),  # fchmod, fchmodat, fchownat, fchown, utimensat
            *(5, 6, 7, 14, 15, 16),  # setxattr, removexattr, each with l and f
            *_NEWER,
        ),
    ),
}
# Requests that write (bit 30 alone) and are of the file systems' families f, v and X: chattr's, the
# inode's version, a project's id, verity.
_WRITES, _FAMILIES = 0xC000FF00, (0x40006600, 0x40007600, 0x40005800)
_SET_ENCRYPTION = 0x800C6613  # the one of them that says that it reads
# btrfs's family makes subvolumes without asking Landlock; a copy needs a file that may be written.
_BTRFS, _COPIES = 0x9400, (0x40049409, 0x4020940D)


def keep_attributes() -> str | None:
    """From now on this thread, and all that it starts, changes no attribute. None, or why not.

    The thread must have no_new_privs.
    """
    machine = _MACHINES.get(name := os.uname().machine)
    if machine is None or sys.maxsize < 2**32:
        return f"modes and times of files are not held: there is no filter for {name}"
    program = b"".join(_program(machine))
    length = len(program) // 8
    kept = ctypes.create_string_buffer(program, len(program))
    header = ctypes.create_string_buffer(struct.pack("@HP", length, ctypes.addressof(kept)))
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(_PR_SET_SECCOMP, _MODE_FILTER, header, 0, 0) != 0:
        why = os.strerror(ctypes.get_errno())
        return f"modes and times of files are not held: seccomp refused: {why}"
    return _probe()


def _program(machine: _Machine) -> Iterator[bytes]:
    """The filter. Calls of 32-bit programs are all denied: they go by other numbers."""
    yield _step(_LOAD, _ARCH)
    yield from _unless(machine.arch, _DENY)
    yield _step(_LOAD, _NUMBER)
    yield _step(_AT_LEAST, _X32, otherwise=1)
    yield _step(_RETURN, _DENY)
    for call in machine.calls:
        yield from _if(call, _DENY)
    yield from _unless(machine.ioctl, _ALLOW)
    yield _step(_LOAD, _SECOND_ARGUMENT)
    yield from _if(_SET_ENCRYPTION, _DENY)
    for copy in _COPIES:
        yield from _if(copy, _ALLOW)
    yield _step(_AND, _WRITES)
    for family in _FAMILIES:
        yield from _if(family, _DENY)
    yield _step(_AND, 0xFF00)
    yield from _if(_BTRFS, _DENY)
    yield _step(_RETURN, _ALLOW)


def _if(value: int, verdict: int) -> Iterator[bytes]:
    yield _step(_EQUAL, value, otherwise=1)
    yield _step(_RETURN, verdict)


def _unless(value: int, verdict: int) -> Iterator[bytes]:
    yield _step(_EQUAL, value, then=1)
    yield _step(_RETURN, verdict)


def _step(code: int, operand: int, *, then: int = 0, otherwise: int = 0) -> bytes:
    """One instruction; `then` and `otherwise` are how many are jumped over."""
    return struct.pack("=HBBI", code, then, otherwise, operand)


def _probe() -> str | None:
    """Trust, but verify: without a filter, a file that is not there could not be found."""
    try:
        os.chmod(f"/{uuid.uuid4().hex}", 0)  # noqa: PTH101 (no path of ours)
    except PermissionError:
        return None
    except OSError:
        pass
    return "a file's mode could be changed in spite of seccomp"
