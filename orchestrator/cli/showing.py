"""Events and outcomes on standard output and standard error, in the form that was asked for."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Generator, Sequence
from contextlib import AbstractContextManager, contextmanager
from typing import TYPE_CHECKING, Protocol, TextIO

from orchestrator.cli.frame import OutputForm, put_json, put_line, put_painted, say, width

if TYPE_CHECKING:
    from orchestrator.cli.permitting import Keys
    from orchestrator.config import Config
    from orchestrator.console.state import Board
    from orchestrator.events import Event, Outcome
    from orchestrator.supervisor import Asked

_COLUMNS = 100


class Showing(Protocol):
    """How a run is shown while it lasts; `board` is where its tasks stand."""

    @property
    def board(self) -> Board: ...
    def event(self, event: Event, /) -> None: ...
    def say(self, text: str, /) -> None: ...
    def question(self, asked: Asked, keys: Keys, /) -> AbstractContextManager[None]: ...
    async def animate(self, gone: Callable[[OSError], None], /) -> None: ...
    async def suspend(self) -> None: ...


class _Lines:
    """Line by line, with nothing that moves."""

    def __init__(self, ids: Sequence[str], show: Callable[[Event, Board], None]) -> None:
        from orchestrator.console.state import board

        self.board = board(ids)
        self._show = show

    def event(self, event: Event) -> None:
        from orchestrator.console.state import fold

        before, self.board = self.board, fold(self.board, event)
        self._show(event, before)

    def say(self, text: str) -> None:
        say(text)

    @contextmanager
    def question(self, asked: Asked, keys: Keys) -> Generator[None]:
        from orchestrator.cli.terminal import named
        from orchestrator.console.paint import painted
        from orchestrator.console.question import prompt, question

        del keys
        asker, columns = named(asked, many=len(self.board.rows) > 1), width() or _COLUMNS
        lines = question(asker, asked.question, columns)
        limit_s = None if asked.limit_s == float("inf") else asked.limit_s
        for line in (*lines, prompt(asked.question, limit_s)):
            say(painted(line, colour=False))
        yield

    async def animate(self, gone: Callable[[OSError], None]) -> None:
        """Nothing moves."""

    async def suspend(self) -> None:
        """Nothing to take away."""


@contextmanager
def showing(output: OutputForm, ids: Sequence[str]) -> Generator[Showing]:
    """Show a run of these tasks: drawn where a person looks at a terminal, else line by line."""
    if output is OutputForm.TEXT and lively(sys.stderr):
        from orchestrator.cli.terminal import terminal

        with terminal(sys.stderr, ids) as shown:
            yield shown
    else:
        yield _Lines(ids, _shower(output))


def lively(stream: TextIO) -> bool:
    from orchestrator.console.paint import lively

    return lively(os.environ, terminal=stream.isatty())


def printer(output: OutputForm) -> Callable[[Event], None]:
    """What is done with each event, line by line."""
    return _Lines((), _shower(output)).event


def _shower(output: OutputForm) -> Callable[[Event, Board], None]:
    """What is done with an event, and the board before it."""
    from orchestrator.console.state import titled
    from orchestrator.console.told import task_told, told
    from orchestrator.events.wire import encode

    def jsonl(event: Event, _: Board) -> None:
        put_line(encode(event))

    def text(event: Event, before: Board) -> None:
        many = len(before.rows) > 1
        line = (many and task_told(event)) or told(titled(before, event))
        if line is not None:
            say(_named(line, event) if many else line)

    match output:
        case OutputForm.JSONL:
            return jsonl
        case OutputForm.TEXT:
            return text
        case OutputForm.JSON | OutputForm.QUIET:
            return _silent


def _named(text: str, event: Event) -> str:
    from orchestrator.errors import shown

    name = shown(event.task_id or "job")
    return "\n".join(f"{name}: {line.strip()}" for line in text.split("\n"))


def _silent(event: Event, before: Board) -> None:
    del event, before


def print_outcome(outcome: Outcome, output: OutputForm, config: Config, board: Board) -> None:

    from orchestrator.console.summary import job_summary, summary

    colour = lively(sys.stdout)
    match output:
        case OutputForm.TEXT if len(board.rows) > 1:
            say("")
            put_painted(job_summary(board, width=width(), colour=colour), colour=colour)
        case OutputForm.TEXT:
            say("")
            outcome = _of_its_task(outcome)
            workspace = _workspace(outcome, config)
            put_painted(
                summary(outcome, workspace=workspace, width=width(), colour=colour), colour=colour
            )
        case OutputForm.JSON:
            put_json(outcome)
        case OutputForm.JSONL | OutputForm.QUIET:
            if outcome.error is not None:
                from orchestrator.console import one_line

                say(f"{outcome.status}: {one_line(outcome.error.text, 400)}")
                if outcome.error.hint:
                    say(f"remedy: {one_line(outcome.error.hint, 400)}")


def _of_its_task(outcome: Outcome) -> Outcome:
    """That of the only task of a job, which says more than the job's own."""
    from orchestrator.events import JobOutcome

    match outcome:
        case JobOutcome(tasks=tasks) if len(tasks) == 1:
            (alone,) = tasks.values()
            return alone if alone.status == outcome.status else outcome
        case _:
            return outcome


def _workspace(outcome: Outcome, config: Config) -> str | None:
    from orchestrator.journal import read_record

    if outcome.run_id is None:
        return None
    return str(read_record(config.state / "runs" / outcome.run_id).task.workspace)


def line_printer(output: OutputForm) -> Callable[[bytes], None]:
    """What `tail` does with a journal's line."""
    from orchestrator.events.wire import decode

    show_event = printer(output)

    def print_line(line: bytes) -> None:
        if output is OutputForm.JSONL:
            put_line(line)
        else:
            show_event(decode(line))

    return print_line
