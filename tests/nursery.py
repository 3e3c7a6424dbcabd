"""A process that has imported orchestrate and forks itself for each command that is asked for.

What it forks is the asker's own child, with its own arguments, environment, folder, streams and
signals: it is orchestrate, only without the second that importing takes. `tests.commands` asks.
"""

import array
import ctypes
import fcntl
import gc
import importlib
import json
import os
import pkgutil
import platform
import signal
import socket
import sys
import tempfile
import termios
import time
import traceback
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Literal, NoReturn, TextIO, TypedDict

if TYPE_CHECKING:
    from pydantic import BaseModel

REQUEST = 1 << 20
"""More than a request ever has, in bytes."""

_CLONE_PARENT = 0x8000
_SYS_CLONE = {"x86_64": 56, "aarch64": 220}


class Request(TypedDict):
    """What a command is started with. Its three streams come with it."""

    argv: list[str]
    env: dict[str, str]
    cwd: str
    session: bool  # of its own; a terminal that it reads from then controls it
    imports: list[str]  # further ones: what takes long and few commands need


def serve(asking: socket.socket) -> None:
    """Fork for each request, until nobody can ask any more."""
    _prepare()
    while told := _received(asking):
        request, streams = told
        for name in request["imports"]:
            importlib.import_module(name)
        pid = _sibling()
        if not pid:
            asking.close()
            _become(request, streams)
        for stream in streams:
            os.close(stream)
        asking.send(str(pid).encode())


def _received(asking: socket.socket) -> tuple[Request, list[int]] | None:
    streams = array.array("i")
    told, ancillary, _, _ = asking.recvmsg(REQUEST, socket.CMSG_SPACE(3 * streams.itemsize))
    for _, _, numbers in ancillary:
        streams.frombytes(numbers)
    return (json.loads(told), list(streams)) if told else None


def _prepare() -> None:
    """Import, and make what each command would make again: nothing that the environment decides."""
    for name in _modules("orchestrator", "adapters"):
        if not name.startswith(("orchestrator.worker.", "orchestrator.mcp", "adapters.programs")):
            importlib.import_module(name)
    for name in ("anyio._backends._asyncio", "anyio._core._signals", "typer._adapters"):
        importlib.import_module(name)
    import typer
    from pydantic import BaseModel

    from orchestrator import cli, document
    from orchestrator.events import wire
    from orchestrator.journal import records

    # What calling an application begins with.
    cli.app = typer.main.get_command(cli.app)  # type: ignore[assignment]
    list(cli.app.commands.values())  # type: ignore[attr-defined]  # each is made when it is asked for
    for model in _below(BaseModel):
        model.model_rebuild(raise_errors=False)
    for made in (document._loader, document._location, wire._reader):
        made()
    for reader in (records._of_runs, records._of_jobs, records._of_outcomes):
        reader()
    gc.collect()
    gc.freeze()


def _modules(*packages: str) -> Iterator[str]:
    for package in packages:
        path = importlib.import_module(package).__path__
        for module in pkgutil.walk_packages(path, f"{package}."):
            if not module.name.endswith("__main__"):
                yield module.name


def _below(model: "type[BaseModel]") -> "Iterator[type[BaseModel]]":
    for each in model.__subclasses__():
        yield each
        yield from _below(each)


def _sibling() -> int:
    """As fork, but the child is our parent's. It has no other thread to take over: we have one."""
    libc = ctypes.PyDLL(None, use_errno=True)
    libc.PyOS_BeforeFork()
    flags = _CLONE_PARENT | signal.SIGCHLD
    pid: int = libc.syscall(_SYS_CLONE[platform.machine()], flags, None, None, None, None)
    if pid == 0:
        libc.PyOS_AfterFork_Child()
        return 0
    libc.PyOS_AfterFork_Parent()
    if pid < 0:
        raise OSError(ctypes.get_errno(), "clone")
    return pid


def _become(request: Request, streams: list[int]) -> NoReturn:
    """The command, as if it had been started like this. Never returns."""
    try:
        for number, stream in enumerate(streams):
            os.dup2(stream, number)
        os.closerange(3, 256)
        if request["session"]:
            os.setsid()
            if os.isatty(0):
                fcntl.ioctl(0, termios.TIOCSCTTY, 0)
        signal.signal(signal.SIGHUP, signal.SIG_DFL)  # also where the tests run under nohup
        os.chdir(request["cwd"])
        sys.argv[:] = request["argv"]
        _environ(request["env"])
        _streams()
        gc.unfreeze()
        from orchestrator.cli import main

        main()
    except BaseException:  # noqa: BLE001 (as an interpreter ends whose program raises)
        traceback.print_exc()
        sys.stderr.flush()
    os._exit(1)


def _environ(env: Mapping[str, str]) -> None:
    os.environ.clear()
    os.environ.update(env)
    if not {"LC_ALL", "LC_CTYPE", "LANG"} & env.keys():
        os.environ["LC_CTYPE"] = "C.UTF-8"  # so does the interpreter (PEP 538)
    places = [str(Path(sys.argv[0]).parent), *filter(None, env.get("PYTHONPATH", "").split(":"))]
    sys.path[:0] = [each for each in places if each not in sys.path]
    time.tzset()
    tempfile.tempdir = None


def _streams() -> None:
    sys.stdin = _stream(0, "r")
    sys.stdout = _stream(1, "w", 1 if os.isatty(1) else -1)
    sys.stderr = _stream(2, "w", 1, "backslashreplace")


def _stream(
    number: int, mode: Literal["r", "w"], buffering: int = -1, errors: str = "surrogateescape"
) -> TextIO:
    return os.fdopen(number, mode, buffering, "utf-8", errors, closefd=False)


if __name__ == "__main__":
    serve(socket.socket(fileno=int(sys.argv[1])))
