"""`python -m orchestrator.testing serve SCRIPT`: the scripted model server as a program.

It prints one line `{"base_url": ...}` when it is ready, and ends on SIGTERM, on SIGINT, or with
its stdin.
"""

from __future__ import annotations

import argparse
import os
import signal
import sys
from collections.abc import Callable
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import BinaryIO

import anyio
import orjson

from orchestrator.testing.requests import Request
from orchestrator.testing.script import Script, ScriptError, load_script
from orchestrator.testing.server import model_server

_STDIN = 0
_READ_BYTES = 4096


def main(argv: list[str]) -> int:
    """Serves until told to end. Returns 0, or 2 when the script or the port cannot be used."""
    options = _options(argv)
    try:
        script = load_script(options.script)
    except (ScriptError, OSError) as error:
        sys.stderr.write(f"{error}\n")
        return 2
    try:
        anyio.run(_serve, script, options)
    except OSError as error:
        sys.stderr.write(f"port {options.port}: {error}\n")
        return 2
    return 0


class _Options(argparse.Namespace):
    script: Path
    port: int
    log: Path | None
    until_stdin_closes: bool


def _options(argv: list[str]) -> _Options:
    parser = argparse.ArgumentParser(prog="python -m orchestrator.testing serve")
    parser.add_argument("script", type=Path, help="a YAML or JSON file")
    parser.add_argument("--port", type=int, default=0, help="0 (the default): any free port")
    parser.add_argument("--log", type=Path, help="append each request to this file, as JSON lines")
    parser.add_argument("--until-stdin-closes", action="store_true", help="end at the end of stdin")
    return parser.parse_args(argv, namespace=_Options())


async def _serve(script: Script, options: _Options) -> None:
    with ExitStack() as stack:
        log = stack.enter_context(_open_log(options.log)) if options.log else None
        async with (
            model_server(script, port=options.port, on_request=_logger(log)) as server,
            anyio.create_task_group() as tasks,
        ):
            with anyio.open_signal_receiver(signal.SIGTERM, signal.SIGINT) as signals:
                if options.until_stdin_closes:
                    tasks.start_soon(_cancel_at_end_of_stdin, tasks.cancel_scope)
                sys.stdout.buffer.write(orjson.dumps({"base_url": server.base_url}) + b"\n")
                sys.stdout.buffer.flush()
                async for _ in signals:
                    tasks.cancel_scope.cancel()
                    break


def _open_log(path: Path) -> BinaryIO:
    """The log, only for its owner: prompts are in it."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
    return os.fdopen(descriptor, "wb", buffering=0)


def _logger(log: BinaryIO | None) -> Callable[[Request], None] | None:
    if log is None:
        return None
    sink = log
    return lambda request: _write(sink, request)


def _write(log: BinaryIO, request: Request) -> None:
    log.write(request.json_line())


async def _cancel_at_end_of_stdin(scope: anyio.CancelScope) -> None:
    more = True
    while more:
        with suppress(PermissionError):  # epoll refuses files and /dev/null: always readable
            await anyio.wait_readable(_STDIN)
        more = bool(os.read(_STDIN, _READ_BYTES))
    scope.cancel()
