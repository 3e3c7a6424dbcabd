"""What is asked for on a command line: a task file, flags, or flags on top of a file."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Annotated, NamedTuple

import typer

from orchestrator.cli.completing import agents_there
from orchestrator.cli.frame import fail

if TYPE_CHECKING:
    from orchestrator.task import Limits, Task, TaskFile

TaskFileArgument = Annotated[
    Path | None, typer.Argument(metavar="TASK.yaml", help="The task file; or use --prompt.")
]
PromptOption = Annotated[str | None, typer.Option("--prompt", "-p", help="What to do.")]
CheckOption = Annotated[str | None, typer.Option(help="Command that verifies the work.")]
AgentOption = Annotated[
    str | None, typer.Option(help="The agent, by name.", autocompletion=agents_there)
]
ModelOption = Annotated[str | None, typer.Option(help="The model, as the agent names it.")]
BaseUrlOption = Annotated[str | None, typer.Option(help="Where the model is served.")]
ApiKeyEnvOption = Annotated[
    str | None, typer.Option(help="Name of the variable that holds the key.")
]
KindOption = Annotated[str | None, typer.Option(help="Class of the work, such as fix.")]
AccessOption = Annotated[str | None, typer.Option(help="read, edit or full.")]
PrivacyOption = Annotated[str | None, typer.Option(help="any or local.")]
WorkspaceOption = Annotated[
    Path | None, typer.Option("--workspace", "-C", help="The folder to work in.")
]
WallOption = Annotated[str | None, typer.Option(help="Time limit, such as 10m.")]
StepsOption = Annotated[int | None, typer.Option(help="The most tool calls.")]
TokensOption = Annotated[int | None, typer.Option(help="The most that its model may use.")]
CostOption = Annotated[float | None, typer.Option(help="The most that it may cost, in US dollars.")]
ConcurrencyOption = Annotated[
    int | None, typer.Option(min=1, help="How many tasks may run side by side.")
]
IsolationOption = Annotated[
    str | None, typer.Option(help="worktree (default in a git repository) or none.")
]
DeliverOption = Annotated[
    str | None, typer.Option(help="branch, apply (into your files), push, bundle or patch.")
]
StrategyOption = Annotated[
    str | None, typer.Option(help="auto (by kind), local, cloud, or cascade: local first.")
]
FallbackOption = Annotated[
    str | None, typer.Option(help="cloud: what fails at home may go on there. Default: none.")
]
DelegationOption = Annotated[
    str | None, typer.Option(help="on: the agent may hand sub-tasks on to other agents.")
]
UncommittedOption = Annotated[
    bool, typer.Option("--include-uncommitted", help="Your uncommitted files go along.")
]
ForceOption = Annotated[
    bool, typer.Option("--force", help="No warning of an agent too heavy for its model.")
]


class Flags(NamedTuple):
    """What flags say of a task. `keys` and `limits` are those of a task file; None: nothing was
    said. A `workspace` takes the place of the file's; `limits` and `concurrency` only tighten.
    """

    keys: Mapping[str, str | None] = MappingProxyType({})
    workspace: Path | None = None
    limits: Mapping[str, str | float | None] = MappingProxyType({})
    concurrency: int | None = None
    include_uncommitted: bool = False
    force: bool = False

    @property
    def stated(self) -> dict[str, str]:
        """The keys of which something was said."""
        return {name: value for name, value in self.keys.items() if value is not None}

    def tightened(self, limits: Limits, *but: str) -> Limits:
        """The limits with those of the flags, `but` some. Raises InputError."""
        stated = {
            name: value
            for name, value in self.limits.items()
            if value is not None and name not in but
        }
        if not stated:
            return limits
        from orchestrator.task import parse_flags

        wanted = {"prompt": "-", "limits": stated}
        return limits.meet(parse_flags(wanted, folder=Path.cwd()).limits)


def asked(file: Path | None, flags: Flags = Flags()) -> Task | TaskFile:  # noqa: B008 (a value)
    """The task of the flags alone, or what is in a file with the flags on top. Raises
    InputError.
    """
    from dataclasses import replace

    stated = flags.stated
    if file is None:
        return _tightened(_task(None, stated), flags)
    tasks = read_tasks(file)
    if tasks.single:
        return _tightened(_task(tasks.tasks[0], stated), flags)
    for name in ("prompt", "kind", "check"):
        if name in stated:
            fail(f"--{name}: {file} has several tasks; say it there, in the one that is meant")
    each = tuple(_no_looser(task, _tightened(_task(task, stated), flags)) for task in tasks.tasks)
    side_by_side = min(filter(None, (tasks.concurrency, flags.concurrency)), default=None)
    limits = flags.tightened(tasks.limits, "wall")  # what adds up holds over all of them, too
    return replace(tasks, tasks=each, concurrency=side_by_side, limits=limits)


def _tightened(task: Task, flags: Flags) -> Task:
    """The task with what flags say of it that is no key of a file."""
    from dataclasses import replace

    if flags.workspace is not None:
        workspace = flags.workspace.absolute()
        task = replace(task, workspace=workspace, template=None, source=None)
    return replace(
        task,
        limits=flags.tightened(task.limits),
        include_uncommitted=flags.include_uncommitted or task.include_uncommitted,
        force=flags.force or task.force,
    )


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


def read_task(file: Path) -> Task:
    """The one task of a file."""
    from orchestrator.task import parse_task

    return parse_task(read_bytes(file), file=str(file), folder=file.absolute().parent)


def read_tasks(file: Path) -> TaskFile:
    from orchestrator.task import parse_task_file

    return parse_task_file(read_bytes(file), file=str(file), folder=file.absolute().parent)


def read_bytes(file: Path) -> bytes:
    from orchestrator.document import SIZE_LIMIT

    try:
        with file.open("rb") as opened:
            return opened.read(SIZE_LIMIT + 1)
    except OSError as error:
        fail(f"cannot read {file}: {error.strerror}")
