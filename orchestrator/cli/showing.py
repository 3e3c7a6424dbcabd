"""Events and outcomes on standard output and standard error, in the form that was asked for."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import TYPE_CHECKING

import typer

from orchestrator.cli.frame import OutputForm, say

if TYPE_CHECKING:
    from orchestrator.config import Config
    from orchestrator.events import Event, JobOutcome, Outcome


def printer(output: OutputForm, *, many: bool = False) -> Callable[[Event], None]:
    """What is done with each event; with `many` tasks a line names its own."""
    from orchestrator.console import told
    from orchestrator.events import encode

    def jsonl(event: Event) -> None:
        sys.stdout.buffer.write(encode(event) + b"\n")
        sys.stdout.buffer.flush()

    def text(event: Event) -> None:
        line = _task_told(event) or told(event) if many else told(event)
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
    return "\n".join(f"{event.task_id or 'job'}: {line.strip()}" for line in text.split("\n"))


def _task_told(event: Event) -> str | None:
    from orchestrator.console import one_line
    from orchestrator.events import TaskFinished, TaskStarted

    match event.update:
        case TaskStarted():
            return "started"
        case TaskFinished(outcome=outcome):
            why = f": {one_line(outcome.error.text, 300)}" if outcome.error else ""
            return f"{outcome.status}{why}"
        case _:
            return None


def _silent(event: Event) -> None:
    del event


def print_outcome(outcome: Outcome, output: OutputForm, config: Config) -> None:
    import orjson

    from orchestrator.console import summary
    from orchestrator.events import JobOutcome

    match output:
        case OutputForm.TEXT if isinstance(outcome, JobOutcome):
            say("")
            typer.echo(_job_told(outcome))
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


def _job_told(outcome: JobOutcome) -> str:
    """The tasks of a job in a table, then cause and remedy of each that did not succeed."""
    from orchestrator.console import one_line, table

    rows = [["TASK", "OUTCOME", "VERIFIED", "AGENT", "TIME", "FILES", "RUN"]]
    lines: list[str] = []
    for id_, one in outcome.tasks.items():
        verified = {True: "yes", False: "no", None: "-"}[one.verified]
        time = "-" if one.duration_s is None else f"{one.duration_s:.1f} s"
        files = "-" if one.changes is None else str(len(one.changes.files))
        rows.append(
            [id_, one.status, verified, one.agent or "-", time, files, (one.run_id or "-")[-8:]]
        )
        if one.error is not None:
            lines.append(f"{id_}: {one_line(one.error.text, 400)}")
            lines += [f"  remedy: {one_line(one.error.hint, 400)}"] if one.error.hint else []
    return "\n".join([f"outcome    {outcome.status}", table(rows), *lines])


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
