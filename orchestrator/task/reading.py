"""Reads the bytes of a task file, or the flags of a command line: every problem is told."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType

from pydantic import ValidationError

from orchestrator.document import Problem, Tree, Where
from orchestrator.errors import TaskFileError, shown
from orchestrator.task.model import GitModel, Keys, ScratchModel, TaskModel, fields_at, keys_of
from orchestrator.task.rules import graph_problems, place_problems, schema_problems
from orchestrator.task.value import Source, Task, TaskFile


def parse_task_file(text: bytes, *, file: str, folder: Path) -> TaskFile:
    """The tasks in the bytes of a task file; `folder` (absolute) is what relative paths start from.

    Raises TaskFileError with every problem found, each with `file`, line, column and key.
    """
    tree = Tree(file, fields_at, keys_of)
    return _task_file(tree.load(text), tree, folder)


def written_in(text: bytes, *, file: str) -> tuple[Mapping[str, object], Callable[[Where], int]]:
    """What a task file says, as it is written, and the line of each of its keys. Raises
    TaskFileError for what is no YAML.
    """
    tree = Tree(file, fields_at, keys_of)
    return tree.load(text), tree.line


def parse_task(text: bytes, *, file: str, folder: Path) -> Task:
    """The one task in the bytes of a task file. Raises TaskFileError, also if there are several."""
    found = parse_task_file(text, file=file, folder=folder)
    if not found.single:
        raise TaskFileError((shown(f"{file}:1:1: tasks: one task is needed here, not a list"),))
    return found.tasks[0]


def parse_flags(flags: Mapping[str, object], *, folder: Path) -> Task:
    """The task of a command line: keys and values as in a task file. Raises TaskFileError."""
    return _task_file(dict(flags), Tree(None, fields_at, keys_of), folder).tasks[0]


def _task_file(value: Mapping[str, object], tree: Tree, folder: Path) -> TaskFile:
    extra = list(_form_problems(value))
    try:
        model = TaskModel.model_validate(value)
    except ValidationError as error:
        raise tree.refusal(error.errors(), extra) from None
    if not extra:
        file = _read(model, folder)
        extra = [*schema_problems(model), *graph_problems(file), *place_problems(file)]
        if not extra:
            return file
    raise tree.refusal([], extra)


def _form_problems(value: Mapping[str, object]) -> Iterator[Problem]:
    if "prompt" in value and "tasks" in value:
        yield Problem(("prompt",), "there are `tasks`, too: a prompt belongs into one of them")
    elif "prompt" not in value and "tasks" not in value:
        yield Problem(("prompt",), "required, but not there (or a list of `tasks`)")


def _read(model: TaskModel, folder: Path) -> TaskFile:
    tasks = [
        replace(_task(model, each, folder), id=each.id, needs=tuple(each.needs), prompt=each.prompt)
        for each in model.tasks
    ]
    if not model.tasks:
        tasks = [replace(_task(model, model, folder), prompt=model.prompt)]
    return TaskFile(
        tasks=tuple(tasks),
        name=model.name,
        concurrency=model.concurrency,
        limits=model.limits.limits(),
        single=not model.tasks,
    )


def _task(top: TaskModel, own: Keys, folder: Path) -> Task:
    """A task without its prompt: what it says itself, else what is said at the top.

    Limits and privacy meet, variables add up.
    """
    common = Keys.model_fields.keys()
    stated = {name: getattr(top, name) for name in common & top.model_fields_set}
    stated |= {name: getattr(own, name) for name in common & own.model_fields_set}
    keys = Keys.model_construct(**stated)
    task = Task(
        prompt="",
        name=top.name,
        kind=keys.kind,
        workspace=folder,
        files=tuple(keys.files),
        agent=keys.agent,
        model=keys.model,
        base_url=_scripted(keys.base_url, folder),
        api_key_env=keys.api_key_env,
        access=keys.access,
        privacy="local" if "local" in {top.privacy, own.privacy} else "any",
        check=keys.check,
        expect=None if keys.expect is None else MappingProxyType(keys.expect),
        limits=own.limits.limits().meet(top.limits.limits()),
        isolation=keys.isolation,
        deliver=keys.deliver,
        setup=keys.setup,
        copy=tuple(keys.copy_),
        strategy=keys.strategy,
        fallback=keys.fallback,
        handoff=keys.handoff,
        detached=keys.detached,
        retries=keys.retries,
        delegation=keys.delegation,
        recovery=keys.recovery,
        retry_safe=keys.retry_safe,
        requires=tuple(keys.requires),
        env=MappingProxyType({**top.env, **own.env}),
        env_from=tuple(keys.env_from),
    )
    match keys.workspace:
        case ScratchModel(scratch=scratch):
            return replace(task, template=folder / Path(scratch).expanduser())
        case GitModel(git=url, ref=ref):
            return replace(task, source=Source(url=url, ref=ref))
        case place:
            return replace(task, workspace=folder / Path(place).expanduser())


def _scripted(base_url: str | None, folder: Path) -> str | None:
    """`scripted:FILE` with the file made absolute; any other URL as it is."""
    if base_url is None or not base_url.startswith("scripted:"):
        return base_url
    return f"scripted:{folder / base_url.removeprefix('scripted:')}"
