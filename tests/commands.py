"""`orchestrate` as a process, started quickly: forked by a process that has imported it before.

A start takes 0.2 s of CPU rather than one second, most of what most commands take. That the
installed program starts by itself is seen where a test runs `PROGRAM`.
"""

import array
import atexit
import json
import os
import socket
import subprocess
import sys
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import AnyStr

from tests.nursery import REQUEST, Request

ROOT = Path(__file__).parent.parent
PROGRAM = str(Path(sys.executable).with_name("orchestrate"))

WORKER = ("orchestrator.worker.engine",)
"""What a command of the queue imports besides."""

MCP = ("orchestrator.mcp",)


class Command(subprocess.Popen[AnyStr]):
    """A child as `subprocess.Popen` starts it; only, it is not the kernel that loads the program.

    Of what may be said to Popen: the streams, `cwd`, `env`, `start_new_session`, and what concerns
    our ends of the pipes.
    """

    def __init__(self, words, *, imports=(), env=None, cwd=None, **said) -> None:
        self._imports = imports
        env = dict(os.environ if env is None else env)
        super().__init__([PROGRAM, *words], env=env, cwd=str(cwd or Path.cwd()), **said)

    def _execute_child(  # what Popen itself calls
        self, args, executable, preexec_fn, close_fds, pass_fds, cwd, env, startupinfo,
        creationflags, shell, p2cread, p2cwrite, c2pread, c2pwrite, errread, errwrite,
        restore_signals, gid, gids, uid, umask, start_new_session, *_: object,
    ) -> None:  # fmt: skip
        assert (preexec_fn, pass_fds, shell) == (None, (), False), "not for one that is forked"
        request = Request(
            argv=args,
            env=env,
            cwd=cwd,
            session=start_new_session,
            imports=list(self._imports),
        )
        streams = [p2cread, c2pwrite, errwrite]
        self.pid = _forked(request, [own if own >= 0 else n for n, own in enumerate(streams)])
        self._child_created = True
        pipes = (p2cread, p2cwrite, c2pread, c2pwrite, errread, errwrite)
        self._close_pipe_fds(*pipes)  # type: ignore[attr-defined]  # as Popen itself does


def run(
    *words: str,
    env: Mapping[str, str] | None = None,
    cwd: Path | None = None,
    imports: tuple[str, ...] = (),
    timeout: float | None = None,
) -> "subprocess.CompletedProcess[str]":
    """What it said, and its exit status. It has nothing to read."""
    nothing, piped = subprocess.DEVNULL, subprocess.PIPE
    with Command[str](
        words, imports=imports, env=env, cwd=cwd, stdin=nothing, stdout=piped, stderr=piped,
        text=True,
    ) as process:  # fmt: skip
        try:
            out, err = process.communicate(timeout=timeout)
        except BaseException:
            process.kill()
            raise
    return subprocess.CompletedProcess(process.args, process.returncode, out, err)


def _forked(request: Request, streams: list[int]) -> int:
    asking = _nursery(os.getpid())
    rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", streams))]
    asking.sendmsg([json.dumps(request).encode()], rights)
    said = asking.recv(REQUEST)
    assert said, "the process that forks commands has ended: see its traceback on stderr"
    return int(said)


@cache
def _nursery(asker: int) -> socket.socket:
    """Where commands are asked for. One for each process: a command is its asker's child."""
    del asker
    ours, its = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    env = {"PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT)}
    env["PYDANTIC_DISABLE_PLUGINS"] = "__all__"  # as orchestrate does before it imports anything
    argv = [sys.executable, "-P", str(ROOT / "tests/nursery.py"), str(its.fileno())]
    process = subprocess.Popen(argv, env=env, pass_fds=[its.fileno()], stdin=subprocess.DEVNULL)
    its.close()
    atexit.register(_ended, process, ours)
    return ours


def _ended(process: "subprocess.Popen[bytes]", asking: socket.socket) -> None:
    asking.close()  # nobody can ask any more, which ends it
    process.wait()
