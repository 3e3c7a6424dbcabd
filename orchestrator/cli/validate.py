"""`validate` and `schema`: what is wrong with a task file, and what may stand in one."""

from __future__ import annotations

from collections.abc import Callable
from enum import StrEnum
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from orchestrator.cli.flags import read_bytes
from orchestrator.cli.frame import ConfigOption, errors, fail, looked_at, put, put_json

if TYPE_CHECKING:
    from orchestrator.config import Config
    from orchestrator.task import TaskFile


class SchemaName(StrEnum):
    """What `schema` can print."""

    TASK = "task"
    CONFIG = "config"
    EVENTS = "events"


def validate(
    file: Annotated[Path, typer.Argument(metavar="TASK.yaml")], config: ConfigOption = None
) -> None:
    """Check a task file without running it: every problem with its line and column, else the order
    of its tasks and what each would do.

    \b
    orchestrate validate task.yaml
    """  # noqa: D301 (click takes \b for: leave these lines alone)
    from orchestrator.cli.planning import planned
    from orchestrator.task import parse_task_file

    with errors():
        text = read_bytes(file)
        tasks = parse_task_file(text, file=str(file), folder=file.absolute().parent)
        for at, task in enumerate(tasks.tasks):
            key = "workspace" if tasks.single else f"tasks.{at}.workspace"
            where = partial(_line, text, file, at, "workspace")
            if task.template is None and task.source is None and not task.workspace.is_dir():
                fail(f"{file}:{where()}: {key}: no folder {task.workspace}")
            if task.template is not None and not task.template.is_dir():
                fail(f"{file}:{where()}: {key}.scratch: no folder {task.template}")
        if any(task.agent is not None for task in tasks.tasks):
            _check_agents(tasks, looked_at(config), file, partial(_line, text, file))
        put(f"{file}: valid\n{planned(tasks)}")


def _check_agents(
    tasks: TaskFile, config: Config, file: Path, where: Callable[[int, str], int]
) -> None:
    """Raises InputError for names that no agent has. `where`: the line of a task's key."""
    from orchestrator.config import check_named
    from orchestrator.errors import ConfigError, InputError

    problems: list[str] = []
    hint: str | None = None
    for at, task in enumerate(tasks.tasks):
        try:
            if task.agent is not None:
                check_named(task.agent, config)
        except ConfigError as error:
            key = "agent" if tasks.single else f"tasks.{at}.agent"
            problems.append(f"{file}:{where(at, 'agent')}: {key}: {error}")
            hint = error.hint
    if problems:
        raise InputError("\n".join(problems), hint=hint)


def _line(text: bytes, file: Path, at: int, key: str) -> int:
    """Where a key stands of the file's task number `at`: in it, or for all at the top."""
    from orchestrator.task import written_in

    _, line = written_in(text, file=str(file))
    first, own = line(()), line(("tasks", at, key))
    return own if own != first else line((key,))


def schema(name: Annotated[SchemaName, typer.Argument(help="Which one.")]) -> None:
    """Print the JSON Schema of a task file, of a configuration file or of an event.

    \b
    orchestrate schema task > task.schema.json
    orchestrate schema config
    orchestrate schema events
    """  # noqa: D301 (click takes \b for: leave these lines alone)
    put_json(_schema(name), indented=True)


def _schema(name: SchemaName) -> dict[str, object]:
    from orchestrator import config, task
    from orchestrator.events import wire

    match name:
        case SchemaName.TASK:
            return task.task_schema()
        case SchemaName.CONFIG:
            return config.config_schema()
        case SchemaName.EVENTS:
            return wire.schema()
