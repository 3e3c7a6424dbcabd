"""Starts what a request asks for: a process that becomes the agent, or says why it cannot."""

from __future__ import annotations

import errno
import os
import signal

from orchestrator.reaper.signals import default_signals

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

_DENIED = {errno.EACCES, errno.EPERM}
_NOT_THERE = {
    errno.ENOENT,
    errno.ENOTDIR,
    errno.ELOOP,
    errno.ENAMETOOLONG,
    errno.ENODEV,
    errno.ESTALE,
    errno.ETIMEDOUT,
}
# So a folder of PATH may be: broken, or on a drive that is gone. The next one is looked at.
_DEFAULT_PATH = b"/usr/local/bin:/usr/bin:/bin"


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
    *stdio, payload = descriptors
    cwd, token, argv, env = _asked(payload)
    stage = "reaper"
    ends: tuple[int, ...] = ()
    try:
        ours, theirs = ends = os.pipe()
        stage = "fork"
        pid = os.fork()
    except OSError as error:
        for end in ends:
            os.close(end)
        tell(f"failed {handle} {stage} {error.errno}")
        return None
    if pid == 0:
        become(argv, env, cwd, stdio, theirs)
    os.close(theirs)
    return pid, token, ours


def _asked(payload: int) -> tuple[bytes, bytes, list[bytes], dict[bytes, bytes]]:
    """Folder, token, arguments and environment."""
    fields = os.pread(payload, os.fstat(payload).st_size, 0).split(b"\0")
    cwd, token, count = fields[0], fields[1], int(fields[2])
    pairs = (item.partition(b"=") for item in fields[3 + count :])
    return cwd, token, fields[3 : 3 + count], {name: value for name, _, value in pairs}


def become(
    argv: list[bytes], env: dict[bytes, bytes], cwd: bytes, stdio: list[int], report: int
) -> None:
    """In the new process: become the agent, or report what failed and end. Does not return."""
    stage = b"reaper"
    try:
        os.setsid()
        signal.set_wakeup_fd(-1)
        default_signals()
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
        except OSError as error:
            if error.errno in _DENIED and os.path.exists(path):  # and not its folder is closed
                denied = error
            elif error.errno not in _DENIED | _NOT_THERE:
                raise
    raise denied or FileNotFoundError(errno.ENOENT, "not found on PATH")
