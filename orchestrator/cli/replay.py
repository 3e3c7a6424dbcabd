"""`replay`: a raw recording as events and an outcome, without running anything."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, BinaryIO

import typer

from orchestrator.cli.flags import read_task
from orchestrator.cli.frame import (
    ConfigOption,
    OutputForm,
    OutputOption,
    errors,
    fail,
    looked_at,
    put,
    put_json,
    status,
)
from orchestrator.cli.showing import printer

if TYPE_CHECKING:
    from orchestrator.adapter import Exit
    from orchestrator.config import Config
    from orchestrator.events import Outcome


def replay(  # noqa: PLR0917 (a flag is a parameter)
    adapter: Annotated[
        str, typer.Argument(help="The adapter's name, or an agent's with --config.")
    ],
    stdout_file: Annotated[Path, typer.Argument(help="The raw stdout of the CLI.")],
    stderr: Annotated[Path | None, typer.Option(help="Its raw stderr.")] = None,
    exit_: Annotated[
        int, typer.Option("--exit", help="Its exit status; -N for signal N.", show_default=True)
    ] = 0,
    task: Annotated[Path | None, typer.Option(help="The task file that it was given.")] = None,
    output: OutputOption = OutputForm.TEXT,
    config: ConfigOption = None,
) -> None:
    """Turn a raw recording into events; the last one is run.finished with the outcome.

    \b
    orchestrate replay codex stdout.jsonl --exit=1 --output jsonl
    """  # noqa: D301 (click takes \b for: leave these lines alone)
    with errors():
        outcome = _replay(
            adapter, stdout_file, _exit(exit_, stderr), task, output, looked_at(config)
        )
        raise typer.Exit(status(outcome))


def _replay(
    name: str,
    stdout_file: Path,
    exit_: Exit,
    task_file: Path | None,
    output: OutputForm,
    config: Config,
) -> Outcome:
    from orchestrator.adapter import Agent
    from orchestrator.config import check_adapter
    from orchestrator.redaction import known
    from orchestrator.run.replay import replay as replayed
    from orchestrator.task import Task

    chunks = _chunks(stdout_file)
    task = read_task(task_file) if task_file else Task(prompt="(a recording)")
    agent = next((one for one in config.agents if one.name == name), None)
    if agent is None:
        check_adapter(name, config.adapters, "replay")
        agent = Agent(name=name, adapter=name)
    outcome = replayed(
        config.adapters[agent.adapter],
        task=task,
        agent=agent,
        stdout=chunks,
        exit_=exit_,
        publish=printer(output),
        secrets=known((), config.environ),
    )
    if output is not OutputForm.JSONL:
        from orchestrator.console import summary

        if output is OutputForm.TEXT:
            put(summary(outcome))
        elif output is OutputForm.JSON:
            put_json(outcome)
    return outcome


def _chunks(path: Path) -> Iterator[bytes]:
    """What is in the file. One that cannot be opened is told before the first event."""
    try:
        file = path.open("rb")
    except OSError as error:
        fail(f"cannot read {path}: {error.strerror}")
    return _read(file, path)


def _read(file: BinaryIO, path: Path) -> Iterator[bytes]:
    try:
        with file:
            while chunk := file.read(64 * 1024):
                yield chunk
    except OSError as error:
        fail(f"cannot read {path}: {error.strerror}")


def _exit(number: int, stderr: Path | None) -> Exit:
    from orchestrator.adapter import Exit

    try:
        text = stderr.read_bytes().decode("utf-8", "replace") if stderr else ""
    except OSError as error:
        fail(f"cannot read {stderr}: {error.strerror}")
    if number < 0:
        return Exit(signal=-number, stderr=text)
    return Exit(status=number, stderr=text)
