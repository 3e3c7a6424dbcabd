"""A run on a terminal while it lasts: drawn at most eight times a second, however much happens.

Whatever ends the run, the terminal is left as it was found. What others write to stderr meanwhile
(the log, a warning) goes above the moving part.
"""

from __future__ import annotations

import io
import os
import select
import signal
import time
from collections.abc import Callable, Generator, Iterable
from contextlib import contextmanager, redirect_stderr, suppress
from datetime import UTC, datetime
from typing import TYPE_CHECKING, TextIO

from orchestrator.console.live import Live
from orchestrator.console.paint import Line, Span, cut, painted
from orchestrator.console.question import prompt, question
from orchestrator.console.screen import ended, frame
from orchestrator.console.state import Board, Row, board, fold, titled
from orchestrator.console.text import one_line, wrapped
from orchestrator.console.told import stays, told, tone
from orchestrator.errors import shown
from orchestrator.events import Event, Notice

if TYPE_CHECKING:
    from orchestrator.cli.permitting import Keys
    from orchestrator.supervisor import Asked

FRAME_S = 0.125


class Terminal:
    """How a run is shown on a terminal. `board` is where it stands."""

    def __init__(self, stream: TextIO, ids: Iterable[str]) -> None:
        self.board = board(ids)
        self._stream = stream
        self._live = Live(stream.write)
        self._above: list[str] = []
        self._noticed: set[str] = set()
        self._seen: tuple[Board, int, os.terminal_size, Asked | None] | None = None
        self._open = True
        self._asked: Asked | None = None
        self._until = 0.0
        self._keys: Keys | None = None

    def event(self, event: Event) -> None:
        before, self.board = self.board, fold(self.board, event)
        width = os.get_terminal_size(self._stream.fileno()).columns
        lines = [*self._news(event, width), *_above(before, self.board, event, width)]
        self._above.extend(painted(line, colour=True) for line in lines)

    def _news(self, event: Event, width: int) -> list[Line]:
        """A notice of ours, once, however many tasks have it."""
        if len(self.board.rows) < 2 or event.source != "supervisor":
            return []
        match event.update:
            case Notice(text=text) if text not in self._noticed:
                self._noticed.add(text)
                parts = wrapped(f"note: {one_line(text, 300)}", width)
                return [(Span(part, "dim"),) for part in parts]
            case _:
                return []

    def say(self, text: str) -> None:
        """A word of ours, at once."""
        self._above.extend(text.splitlines())
        self.draw()

    def draw(self) -> None:
        """Draw what is new. Raises OSError if the terminal is gone."""
        if not self._open:
            self._finish()
            return
        size = os.get_terminal_size(self._stream.fileno())
        seen = (self.board, int(time.monotonic()), size, self._asked)
        if not self._above and seen == self._seen:
            return
        if not select.select([], [self._stream], [], 0)[1]:
            return  # stopped by Ctrl-S: that must not hold up the supervision
        self._seen = seen
        now = datetime.now(UTC).isoformat()
        below = self._prompt(size.columns - 1)
        room = size.lines - 2 - len(below)
        lines = [*frame(self.board, now, columns=size.columns - 1, lines=room), *below]
        above, self._above = self._above, []
        self._live.draw([painted(line, colour=True) for line in lines], above, size)
        self._stream.flush()

    @contextmanager
    def question(self, asked: Asked, keys: Keys) -> Generator[None]:
        """A block in which a question is to be answered; what it is about stays there."""
        width = os.get_terminal_size(self._stream.fileno()).columns - 1
        asker = named(asked, many=len(self.board.rows) > 1)
        lines = question(asker, asked.question, width)
        self._above.extend(painted(line, colour=True) for line in lines)
        self._asked, self._keys = asked, keys
        self._until = time.monotonic() + asked.limit_s
        try:
            yield
        finally:
            self._asked = self._keys = None

    def _prompt(self, columns: int) -> list[Line]:
        if self._asked is None:
            return []
        left_s = self._until - time.monotonic()
        known = None if left_s == float("inf") else left_s
        return [cut(prompt(self._asked.question, known), columns)]

    async def animate(self, gone: Callable[[OSError], None]) -> None:
        """Draw until cancelled; `gone` is told if the terminal is."""
        import anyio

        while True:
            await anyio.sleep(FRAME_S)
            try:
                self.draw()
            except OSError as error:
                gone(error)
                return

    async def suspend(self) -> None:
        """Ctrl-Z gives the terminal back before we are stopped."""
        import anyio

        with anyio.open_signal_receiver(signal.SIGTSTP) as received:
            async for _ in received:
                self._finish()
                if self._keys is not None:
                    self._keys.give_back()
                os.kill(os.getpid(), signal.SIGSTOP)
                self._seen = None
                if self._keys is not None:
                    self._keys.take()

    def close(self) -> None:
        self._open = False
        with suppress(OSError):  # the terminal is gone, and so is what was on it
            self._finish()

    def _finish(self) -> None:
        above, self._above = self._above, []
        self._live.close(above)
        self._stream.flush()


@contextmanager
def terminal(stream: TextIO, ids: Iterable[str]) -> Generator[Terminal]:
    shown = Terminal(stream, ids)
    with redirect_stderr(_Above(shown)):
        try:
            yield shown
        finally:
            shown.close()


def named(asked: Asked, *, many: bool) -> str:
    """Who asks."""
    return shown(f"{asked.task_id}: {asked.agent}" if many else asked.agent)


class _Above(io.TextIOBase):
    """What is written here stands above the moving part, line by line."""

    def __init__(self, shown: Terminal) -> None:
        self._shown = shown
        self._begun = ""

    def write(self, text: str) -> int:
        *whole, self._begun = (self._begun + text).split("\n")
        for line in whole:
            self._shown.say(line)
        return len(text)


def _above(before: Board, after: Board, event: Event, width: int) -> list[Line]:
    """What of an event stays on the terminal."""
    many = len(after.rows) > 1
    event = titled(before, event)
    lines: list[Line] = []
    if (not many or stays(event)) and (text := told(event)) is not None:
        name = f"{shown(event.task_id or 'job')}: " if many else ""
        whole = [text.strip()] if many else text.split("\n")
        parts = [part for line in whole for part in wrapped(f"{name}{line}", width)]
        lines.extend((Span(part, tone(event)),) for part in parts)
    if many:
        lines.extend(line for row in _newly_ended(before, after) for line in ended(row, width))
    return lines


def _newly_ended(before: Board, after: Board) -> list[Row]:
    return [
        row
        for id_, row in after.rows.items()
        if row.outcome is not None
        and row is not before.rows.get(id_)
        and ((old := before.rows.get(id_)) is None or old.outcome is None)
    ]
