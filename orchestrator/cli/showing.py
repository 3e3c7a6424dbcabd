"""Events and outcomes on standard output and standard error, in the form that was asked for."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import TYPE_CHECKING

import typer

from orchestrator.cli.frame import OutputForm, say

if TYPE_CHECKING:
    from orchestrator.config import Config
    from orchestrator.events import Event, Outcome


def printer(output: OutputForm) -> Callable[[Event], None]:
    from orchestrator.console import told
    from orchestrator.events import encode

    def jsonl(event: Event) -> None:
        sys.stdout.buffer.write(encode(event) + b"\n")
        sys.stdout.buffer.flush()

    def text(event: Event) -> None:
        if (line := told(event)) is not None:
            say(line)

    match output:
        case OutputForm.JSONL:
            return jsonl
        case OutputForm.TEXT:
            return text
        case OutputForm.JSON | OutputForm.QUIET:
            return _silent


def _silent(event: Event) -> None:
    del event


def print_outcome(outcome: Outcome, output: OutputForm, config: Config) -> None:
    import orjson

    from orchestrator.console import summary

    match output:
        case OutputForm.TEXT:
            say("")
            typer.echo(summary(outcome, workspace=_workspace(outcome, config)))
        case OutputForm.JSON:
            typer.echo(orjson.dumps(outcome))
        case OutputForm.JSONL | OutputForm.QUIET:
            if outcome.error is not None:
                from orchestrator.console import one_line

                say(f"{outcome.status}: {one_line(outcome.error.text, 400)}")
                if outcome.error.hint:
                    say(f"remedy: {one_line(outcome.error.hint, 400)}")


def _workspace(outcome: Outcome, config: Config) -> str | None:
    from orchestrator.journal import read_record

    if outcome.run_id is None:
        return None
    return str(read_record(config.state / "runs" / outcome.run_id).task.workspace)


def line_printer(output: OutputForm) -> Callable[[bytes], None]:
    """What `tail` does with a journal's line."""
    from orchestrator.events import decode

    show_event = printer(output)

    def print_line(line: bytes) -> None:
        if output is OutputForm.JSONL:
            sys.stdout.buffer.write(line + b"\n")
            sys.stdout.buffer.flush()
        else:
            show_event(decode(line))

    return print_line
