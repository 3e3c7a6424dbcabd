"""`run`: a task from a file or from flags, supervised until its outcome; `validate`, `schema`."""

from __future__ import annotations

import gc
from collections.abc import Callable
from enum import StrEnum
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NoReturn

import typer

from orchestrator.cli.completing import agents_there
from orchestrator.cli.frame import (
    ConfigOption,
    OutputForm,
    OutputOption,
    configured,
    errors,
    fail,
    put,
    put_json,
    status,
)
from orchestrator.cli.showing import print_outcome, showing

if TYPE_CHECKING:
    from anyio import CancelScope
    from anyio.abc import TaskStatus

    from orchestrator.config import Config
    from orchestrator.console.state import Board
    from orchestrator.events import Event, Outcome
    from orchestrator.supervisor import Continued, Supervisor
    from orchestrator.task import Task, TaskFile


class SchemaName(StrEnum):
    """What `schema` can print."""

    TASK = "task"
    CONFIG = "config"
    EVENTS = "events"


TaskFileArgument = Annotated[
    Path | None, typer.Argument(metavar="TASK.yaml", help="The task file; or use --prompt.")
]


def run(  # noqa: PLR0913, PLR0917 (a flag is a parameter)
    file: TaskFileArgument = None,
    prompt: Annotated[str | None, typer.Option("--prompt", "-p", help="What to do.")] = None,
    check: Annotated[str | None, typer.Option(help="Command that verifies the work.")] = None,
    agent: Annotated[
        str | None, typer.Option(help="The agent, by name.", autocompletion=agents_there)
    ] = None,
    model: Annotated[str | None, typer.Option(help="The model, as the agent names it.")] = None,
    base_url: Annotated[str | None, typer.Option(help="Where the model is served.")] = None,
    api_key_env: Annotated[
        str | None, typer.Option(help="Name of the variable that holds the key.")
    ] = None,
    kind: Annotated[str | None, typer.Option(help="Class of the work, such as fix.")] = None,
    access: Annotated[str | None, typer.Option(help="read, edit or full.")] = None,
    privacy: Annotated[str | None, typer.Option(help="any or local.")] = None,
    workspace: Annotated[
        Path | None, typer.Option("--workspace", "-C", help="The folder to work in.")
    ] = None,
    wall: Annotated[str | None, typer.Option(help="Time limit, such as 10m.")] = None,
    concurrency: Annotated[
        int | None, typer.Option(min=1, help="How many tasks may run side by side.")
    ] = None,
    isolation: Annotated[
        str | None, typer.Option(help="worktree (default in a git repository) or none.")
    ] = None,
    deliver: Annotated[
        str | None, typer.Option(help="branch, apply (into your files), push, bundle or patch.")
    ] = None,
    strategy: Annotated[
        str | None, typer.Option(help="auto (by kind), local, cloud, or cascade: local first.")
    ] = None,
    fallback: Annotated[
        str | None, typer.Option(help="cloud: what fails at home may go on there. Default: none.")
    ] = None,
    delegation: Annotated[
        str | None, typer.Option(help="on: the agent may hand sub-tasks on to other agents.")
    ] = None,
    include_uncommitted: Annotated[
        bool, typer.Option("--include-uncommitted", help="Your uncommitted files go along.")
    ] = False,
    force: Annotated[
        bool, typer.Option("--force", help="No warning of an agent too heavy for its model.")
    ] = False,
    output: OutputOption = OutputForm.TEXT,
    config: ConfigOption = None,
) -> None:
    """Run TASK.yaml (a task, or several with what they need), or --prompt.

    Flags win over the file and hold for each of its tasks; limits, privacy and, with several
    tasks, access only tighten.

    \b
    orchestrate run task.yaml
    orchestrate run -p "fix the failing test" --check "pytest -q" --agent codex
    orchestrate run -p "explain this" --agent litellm --model ollama_chat/qwen3
    """  # noqa: D301 (click takes \b for: leave these lines alone)
    flags = {
        "prompt": prompt,
        "check": check,
        "agent": agent,
        "model": model,
        "base_url": base_url,
        "api_key_env": api_key_env,
        "kind": kind,
        "access": access,
        "privacy": privacy,
        "isolation": isolation,
        "deliver": deliver,
        "strategy": strategy,
        "fallback": fallback,
        "delegation": delegation,
    }
    with errors():
        stated = {name: value for name, value in flags.items() if value is not None}
        task = asked(file, stated, workspace=workspace, wall=wall, concurrency=concurrency)
        task = _flagged(task, include_uncommitted=include_uncommitted, force=force)
        run_and_leave(configured(config), task, None, output)


def validate(file: Annotated[Path, typer.Argument(metavar="TASK.yaml")]) -> None:
    """Check a task file without running it: every problem with its line and column, else the order
    of its tasks and what each would do.

    \b
    orchestrate validate task.yaml
    """  # noqa: D301 (click takes \b for: leave these lines alone)
    from orchestrator.cli.planning import planned

    with errors():
        tasks = read_tasks(file)
        for at, task in enumerate(tasks.tasks):
            where = f"{file}:{_workspace_line(file, at)}: "
            where += "" if tasks.single else f"tasks.{at}."
            if task.template is None and task.source is None and not task.workspace.is_dir():
                fail(f"{where}workspace: no folder {task.workspace}")
            if task.template is not None and not task.template.is_dir():
                fail(f"{where}workspace.scratch: no folder {task.template}")
        put(f"{file}: valid\n{planned(tasks)}")


def schema(name: Annotated[SchemaName, typer.Argument(help="Which one.")]) -> None:
    """Print the JSON Schema of a task file, of a configuration file or of an event.

    \b
    orchestrate schema task > task.schema.json
    orchestrate schema config
    orchestrate schema events
    """  # noqa: D301 (click takes \b for: leave these lines alone)
    put_json(_schema(name), indented=True)


def _schema(name: SchemaName) -> dict[str, object]:
    from orchestrator import config, events, task

    match name:
        case SchemaName.TASK:
            return task.task_schema()
        case SchemaName.CONFIG:
            return config.config_schema()
        case SchemaName.EVENTS:
            return events.schema()


# --- running -------------------------------------------------------------------------------------


def run_and_leave(
    config: Config, task: Task | TaskFile, continued: Continued | None, output: OutputForm
) -> NoReturn:
    import anyio

    from orchestrator.telemetry import log_to_stderr

    log_to_stderr()
    outcome, board = anyio.run(_supervise, config, task, continued, output)
    print_outcome(outcome, output, config, board)
    raise typer.Exit(status(outcome))


async def _supervise(
    config: Config, task: Task | TaskFile, continued: Continued | None, output: OutputForm
) -> tuple[Outcome, Board]:
    import anyio

    from orchestrator.cli.permitting import asker, keyboard
    from orchestrator.errors import lone_error
    from orchestrator.events import Outcome
    from orchestrator.supervisor import Supervisor
    from orchestrator.task import Task

    gc.enable()
    outcome = Outcome(status="interrupted")  # stays so if the second Ctrl-C ends it all at once
    tasks = (task,) if isinstance(task, Task) else task.tasks
    keys = keyboard(output)  # before stderr is what is drawn on
    with lone_error(), showing(output, [one.id for one in tasks]) as show:
        async with (
            anyio.create_task_group() as group,
            Supervisor(config, ask=asker(keys, show)) as supervisor,
        ):
            await group.start(_interrupts, supervisor, group.cancel_scope, show.say)
            group.start_soon(show.animate, partial(_gone, supervisor))
            group.start_soon(show.suspend)
            outcome = await supervisor.run(
                task, _or_stop(show.event, supervisor), continued=continued
            )
            group.cancel_scope.cancel()
    return outcome, show.board


def _gone(supervisor: Supervisor, error: OSError) -> None:
    supervisor.interrupt(f"the output cannot be written: {error.strerror}")


def _or_stop(show: Callable[[Event], None], supervisor: Supervisor) -> Callable[[Event], None]:
    """Stop the run if its events cannot be shown: the disk is full, or whoever read them is
    gone.
    """
    failed = False

    def show_or_stop(event: Event) -> None:
        nonlocal failed
        try:
            if not failed:
                show(event)
        except OSError as error:
            failed = True
            _gone(supervisor, error)

    return show_or_stop


async def _interrupts(
    supervisor: Supervisor,
    scope: CancelScope,
    tell: Callable[[str], None],
    *,
    task_status: TaskStatus[None],
) -> None:
    """The first Ctrl-C (or SIGTERM) stops the agent cleanly, the second one at once."""
    import signal

    import anyio

    with anyio.open_signal_receiver(signal.SIGINT, signal.SIGTERM) as received:
        task_status.started()
        async for _ in received:
            tell("stopping the agent; once more to stop at once")
            supervisor.interrupt()
            break
        async for _ in received:
            scope.cancel()


# --- input ---------------------------------------------------------------------------------------


def asked(
    file: Path | None,
    flags: dict[str, str],
    *,
    workspace: Path | None = None,
    wall: str | None = None,
    concurrency: int | None = None,
) -> Task | TaskFile:
    """The task of the flags alone, or what is in a file with the flags on top."""
    from dataclasses import replace

    if file is None:
        return _tightened(_task(None, flags), workspace, wall)
    tasks = read_tasks(file)
    if tasks.single:
        return _tightened(_task(tasks.tasks[0], flags), workspace, wall)
    for name in ("prompt", "kind", "check"):
        if name in flags:
            fail(f"--{name}: {file} has several tasks; say it there, in the one that is meant")
    each = tuple(
        _no_looser(task, _tightened(_task(task, flags), workspace, wall)) for task in tasks.tasks
    )
    side_by_side = min(filter(None, (tasks.concurrency, concurrency)), default=None)
    return replace(tasks, tasks=each, concurrency=side_by_side)


def _task(task: Task | None, flags: dict[str, str]) -> Task:
    """The task of a file with flags on top, or of the flags alone."""
    from dataclasses import replace

    if task is None and "prompt" not in flags:
        fail("no task: name a TASK.yaml, or say what to do with --prompt")
    if task is not None and not flags:
        return task
    from orchestrator.task import parse_flags

    flagged = parse_flags({"prompt": "-", **flags}, folder=Path.cwd())
    if task is None:
        return flagged
    stated = {name: getattr(flagged, name) for name in flags if name != "privacy"}
    if "base_url" in flags:
        stated.setdefault("api_key_env", None)  # the file's key is not for another address
    elif "api_key_env" in flags and task.base_url is not None:
        fail("--api-key-env: the address is the task file's; name it, too: --base-url")
    task = replace(task, **stated)
    return replace(task, privacy="local") if flagged.privacy == "local" else task


def _no_looser(task: Task, flagged: Task) -> Task:
    """What the flags made of one of several tasks, with no more access than it had before."""
    from dataclasses import replace

    levels = ("read", "edit", "full")
    access = min(task.allowed, flagged.allowed, key=levels.index)
    return flagged if access == flagged.allowed else replace(flagged, access=access)


def _tightened(task: Task, workspace: Path | None, wall: str | None) -> Task:
    from dataclasses import replace

    if workspace is not None:
        task = replace(task, workspace=workspace.absolute(), template=None, source=None)
    if wall is not None:
        from orchestrator.task import parse_flags

        flags = {"prompt": "-", "limits": {"wall": wall}}
        limits = parse_flags(flags, folder=Path.cwd()).limits
        task = replace(task, limits=task.limits.meet(limits))
    return task


def _flagged(asked: Task | TaskFile, *, include_uncommitted: bool, force: bool) -> Task | TaskFile:
    """The task, or each of a file's, with flags that only the command line has."""
    from dataclasses import replace

    from orchestrator.task import Task

    if isinstance(asked, Task):
        along = include_uncommitted or asked.include_uncommitted
        return replace(asked, include_uncommitted=along, force=force or asked.force)
    each = tuple(
        replace(
            task,
            include_uncommitted=include_uncommitted or task.include_uncommitted,
            force=force or task.force,
        )
        for task in asked.tasks
    )
    return replace(asked, tasks=each)


def read_task(file: Path) -> Task:
    """The one task of a file."""
    from orchestrator.task import parse_task

    return parse_task(read_bytes(file), file=str(file), folder=file.absolute().parent)


def read_tasks(file: Path) -> TaskFile:
    from orchestrator.task import parse_task_file

    return parse_task_file(read_bytes(file), file=str(file), folder=file.absolute().parent)


def _workspace_line(file: Path, at: int) -> int:
    """Where the workspace stands of the file's task number `at`: in it, or for all at the top."""
    from orchestrator.task import written_in

    _, line = written_in(read_bytes(file), file=str(file))
    first, own = line(()), line(("tasks", at, "workspace"))
    return own if own != first else line(("workspace",))


def read_bytes(file: Path) -> bytes:
    from orchestrator.document import SIZE_LIMIT

    try:
        with file.open("rb") as opened:
            return opened.read(SIZE_LIMIT + 1)
    except OSError as error:
        fail(f"cannot read {file}: {error.strerror}")
