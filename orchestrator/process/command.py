"""A command that is run to its end and its output collected: git, a check, a version probe."""

from __future__ import annotations

import fcntl
import os
import tempfile
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import anyio

from orchestrator.process.child import Process
from orchestrator.process.parent import Reaper
from orchestrator.process.start import Start, Stdio, spawn_error, stdin_of

TERM_S = 2.0
"""`run_to_end`: time between SIGTERM and SIGKILL. git removes its lock files in it."""
FLOOD = 256 * 1024 * 1024
"""`run_to_end`: a command that prints more bytes than this is ended."""


@dataclass(frozen=True, kw_only=True)
class Completed:
    """What `run_to_end` saw. `stdout` and `stderr` hold their ends if they were longer."""

    exit: int | None
    signal: int | None
    stdout: bytes
    stderr: bytes
    timed_out: bool = False
    flooded: bool = False


async def run_to_end(  # noqa: PLR0913 (all but two have a default)
    reaper: Reaper,
    argv: Sequence[str],
    *,
    cwd: Path,
    env: Mapping[str, str],
    limit_s: float,
    output_limit: int = 1024 * 1024,
    merge: bool = False,
    stdin: bytes | None = None,
    grace_s: float = TERM_S,
) -> Completed:
    """Run a command and collect its output: git, a check, a version probe.

    Of each stream the last `output_limit` bytes are kept; `merge` sends stderr to stdout. At
    `limit_s` it gets SIGTERM, and after `grace_s` SIGKILL. What it leaves behind is killed. Raises
    SpawnError.
    """
    start = Start(argv=tuple(argv), cwd=str(cwd), env=env, token=f"command-{os.urandom(8).hex()}")
    with ExitStack() as outputs:
        try:
            out = _output(outputs)
            err = out if merge else _output(outputs)
        except OSError as error:
            raise spawn_error(start, error) from error

        def stdio(files: ExitStack) -> Stdio:
            read_end, _ = stdin_of(stdin, files)
            return Stdio(read_end, out, err)

        async with reaper.start(start, stdio) as process:
            flooded = await _wait_for_end(process, (out, err), limit_s)
            timed_out = process.ended is None and not flooded
            if process.ended is None:
                await process.stop(interrupt=None, grace_s=grace_s)
            else:
                await process.reap()
            ended = await process.wait()
        return Completed(
            exit=ended.status,
            signal=ended.signal,
            stdout=_end_of(out, output_limit),
            stderr=b"" if merge else _end_of(err, output_limit),
            timed_out=timed_out,
            flooded=flooded,
        )


async def _wait_for_end(process: Process, outputs: tuple[int, ...], limit_s: float) -> bool:
    """Until the end, the time limit, or a flood (True)."""
    with anyio.move_on_after(limit_s):
        while process.ended is None:
            with anyio.move_on_after(0.1):
                await process.wait()
            if sum(os.fstat(output).st_size for output in outputs) > FLOOD:
                return True
    return False


def _output(files: ExitStack) -> int:
    """An unlinked file to append to. Not a pipe: a grandchild would hold it open."""
    file = tempfile.TemporaryFile(buffering=0)  # noqa: SIM115
    output = files.enter_context(file).fileno()
    fcntl.fcntl(output, fcntl.F_SETFL, fcntl.fcntl(output, fcntl.F_GETFL) | os.O_APPEND)
    return output


def _end_of(output: int, limit: int) -> bytes:
    size = os.fstat(output).st_size
    return os.pread(output, limit, max(0, size - limit))
