"""The wire of a front: JSON lines on what was standard output, and signals that end it cleanly.

Shared by the programs of this folder. Run by the agent's own interpreter: standard library only.
"""

from __future__ import annotations

import json
import os
import select
import signal
import threading
from collections.abc import Callable, Mapping, Sequence

END_S = 2.0
"""So long a program that ends waits for a reader that is there but does not read."""
_PIECE = 4096  # a pipe that can be written to takes so much without waiting


def take_stdout() -> int:
    """The descriptor for the lines: what was standard output. Whatever a library prints goes to
    stderr from now on, and does not stand among them.
    """
    descriptor = os.dup(1)
    os.dup2(2, 1)
    return descriptor


class Lines:
    """The JSON lines. After `seize` only the thread that ends the program is heard."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._lock = threading.Lock()
        self._ending = threading.Lock()
        self._owner: int | None = None
        self._stuck = False
        self._secrets: tuple[str, ...] = ()

    def hide(self, secrets: Sequence[str]) -> None:
        """Blots these values out of every line from now on."""
        self._secrets = tuple(
            json.dumps(value, ensure_ascii=False)[1:-1] for value in secrets if len(value) > 7
        )

    def say(self, type_: str, **fields: object) -> None:
        """One line. Fields that are None are left out. If nobody reads any more, the program ends:
        what it goes on with would be unseen, and cost money.
        """
        if self._stuck and self._owner == threading.get_ident():
            return
        with self._lock:
            heard = self._owner in {None, threading.get_ident()}
            try:
                if heard:
                    self._write(type_, fields)
            except BrokenPipeError:
                if self._owner is not None:
                    raise  # it ends already
                os.kill(os.getpid(), signal.SIGHUP)
                heard = False
        if not heard:
            threading.Event().wait()  # for the end, which is near; nothing more must be begun

    def seize(self) -> None:
        """From now on other threads that speak stop there. A second one that ends does, too.

        One that is stuck in its line, because nobody reads, is not waited for long; nothing more is
        said then.
        """
        if not self._ending.acquire(blocking=False):
            threading.Event().wait()
        self._owner = threading.get_ident()
        self._stuck = not self._lock.acquire(timeout=END_S)
        if not self._stuck:
            self._lock.release()

    def _write(self, type_: str, fields: Mapping[str, object]) -> None:
        stated = {key: value for key, value in fields.items() if value is not None}
        line = json.dumps({"type": type_, **stated}, default=str, ensure_ascii=False)
        for secret in self._secrets:
            line = line.replace(secret, "[redacted]")
        rest = line.encode("utf-8", "replace") + b"\n"
        while rest:
            rest = rest[self._take(rest) :]

    def _take(self, rest: bytes) -> int:
        """How much of it was written. Raises TimeoutError in the thread that ends the program."""
        if self._owner != threading.get_ident():
            return os.write(self._descriptor, rest)
        if not select.select([], [self._descriptor], [], END_S)[1]:
            raise TimeoutError
        return os.write(self._descriptor, rest[:_PIECE])


def watch_signals(stop: Callable[[int], object]) -> None:
    """Calls `stop` from a thread of its own: the main one may be deep in a library."""

    def wake(number: int, frame: object) -> None:
        """Nothing: that there is a handler makes the number arrive at the pipe."""

    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, wake)
    signal.set_wakeup_fd(writer, warn_on_full_buffer=False)
    threading.Thread(target=lambda: stop(os.read(reader, 1)[0]), daemon=True).start()
