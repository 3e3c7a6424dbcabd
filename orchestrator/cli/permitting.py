"""A question of an agent's, put to whoever sits at the terminal and answered by one key."""

from __future__ import annotations

import os
import sys
import termios
import tty
from collections.abc import Generator
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any

from orchestrator.cli.frame import OutputForm

if TYPE_CHECKING:
    from orchestrator.cli.showing import Showing
    from orchestrator.supervisor import Answer, Ask, Asked

_LOOK_S = 0.2


def keyboard(output: OutputForm) -> Keys | None:
    """None where nobody reads what is shown and has keys."""
    attended = output is OutputForm.TEXT and sys.stdin.isatty() and sys.stderr.isatty()
    return Keys(sys.stdin.fileno()) if attended else None


def asker(keys: Keys | None, show: Showing) -> Ask | None:
    """Who answers here."""
    if keys is None:
        return None

    async def ask(asked: Asked) -> Answer:
        with show.question(asked, keys), keys.taken():
            return await _answer(asked, keys)

    return ask


async def _answer(asked: Asked, keys: Keys) -> Answer:
    while True:
        match await keys.key():
            case "y":
                return "allow"
            case "a" if asked.question.always:
                return "always"
            case "n" | None:
                return "deny"
            case _:
                pass


class Keys:
    """A terminal that gives single keys, without echo, while a question stands there; Ctrl-C and
    Ctrl-Z stay what they are.
    """

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._found: list[Any] | None = None

    @contextmanager
    def taken(self) -> Generator[None]:
        """A block in which keys are read; whatever was typed before it is no answer."""
        self.take()
        try:
            yield
        finally:
            self.give_back()

    async def key(self) -> str | None:
        """The next key, "" for anything that is not one; None: there will be none any more."""
        import anyio

        while not self._ours():  # noqa: ASYNC110 (no event tells of it)
            await anyio.sleep(_LOOK_S)  # in the background: the keys are somebody else's
        self.take()
        await anyio.wait_readable(self._descriptor)
        if not self._ours():
            return ""
        try:
            typed = os.read(self._descriptor, 64)
        except OSError:
            return None
        text = typed.decode("ascii", "replace").lower()
        return text if len(text) == 1 else None if not typed else ""

    def take(self) -> None:
        if self._found is None and self._ours():
            with suppress(termios.error):
                self._found = termios.tcgetattr(self._descriptor)
                tty.setcbreak(self._descriptor, termios.TCSAFLUSH)

    def give_back(self) -> None:
        """Leave the terminal as it was found. In the background it is not ours to change."""
        found, self._found = self._found, None
        if found is not None and self._ours():
            with suppress(termios.error):
                termios.tcsetattr(self._descriptor, termios.TCSADRAIN, found)

    def _ours(self) -> bool:
        try:
            return os.tcgetpgrp(self._descriptor) == os.getpgrp()
        except OSError:
            return True  # it is gone, which reading tells
