"""What tasks must keep to beyond the form of each key: ids, needs and templates that belong
together, and a workspace that can give what is wanted of it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Literal, get_args, get_origin, get_type_hints

from orchestrator.answer import schema_problem
from orchestrator.document import Problem, Where
from orchestrator.errors import InputError, shown
from orchestrator.graph import before, cycle
from orchestrator.task.model import Keys, TaskModel
from orchestrator.task.scalars import git_ref, git_url
from orchestrator.task.value import Limits, Source, Task, TaskFile
from orchestrator.template import Mistake, Reference, pieces


def check_tasks(file: TaskFile) -> None:
    """Raises InputError unless the values, ids, needs and templates of the tasks are right."""
    for task in file.tasks:
        _check_values(task)
    problems = [*graph_problems(file), *place_problems(file)]
    if problems:
        told = (f"{'.'.join(map(str, where))}: {why}" for where, why, _ in problems)
        raise InputError("\n".join(map(shown, told)))


def _check_values(task: Task) -> None:
    """Whoever makes a task in code may have its words from anywhere: `privacy` must not be lost by
    a letter.
    """
    for name, allowed in _closed().items():
        value = getattr(task, name)
        if value not in allowed:
            known = ", ".join(word for word in allowed if word is not None)
            raise InputError(f"task {task.id!r}: {name}: {value!r} is none of {known}")
    for name, type_ in {"prompt": str, "workspace": Path, "limits": Limits}.items():
        if not isinstance(getattr(task, name), type_):
            raise InputError(f"task {task.id!r}: {name}: not a {type_.__name__}")


@cache
def _closed() -> Mapping[str, tuple[str | None, ...]]:
    """The fields of a task that hold one of a few words, and which; None where it may be absent."""
    found: dict[str, tuple[str | None, ...]] = {}
    for name, type_ in get_type_hints(Task).items():
        either = (type_, *get_args(type_))
        words = [word for one in either if get_origin(one) is Literal for word in get_args(one)]
        if words:
            found[name] = (*words, *(None for one in either if one is type(None)))
    return found


def schema_problems(model: TaskModel) -> Iterator[Problem]:
    schemas: list[tuple[Where, Keys]] = [((), model)]
    schemas += [(("tasks", at), item) for at, item in enumerate(model.tasks)]
    for where, keys in schemas:
        if keys.expect is not None and (found := schema_problem(keys.expect)) is not None:
            path, why = found
            yield Problem((*where, "expect", *path), f"not a JSON Schema: {why}")


def graph_problems(file: TaskFile) -> Iterator[Problem]:
    """What is wrong with the ids, the needs and the templates of the tasks."""
    if file.single:
        return
    known = [task.id for task in file.tasks]
    wrong = list(_id_problems(file.tasks))
    yield from wrong
    if wrong:
        return
    if round_ := cycle(file.needs):
        at = known.index(round_[0])
        told = " -> ".join(round_)
        yield Problem(("tasks", at, "needs"), f"a cycle, so that none of them can start: {told}")
        return
    needed = before(file.needs)
    for at, task in enumerate(file.tasks):
        for written, why in _template_problems(task, known, needed[task.id]):
            yield Problem(("tasks", at, "prompt"), why, written)


def place_problems(file: TaskFile) -> Iterator[Problem]:
    """What is wanted of a workspace that it cannot give."""
    for at, task in enumerate(file.tasks):
        top: Where = () if file.single else ("tasks", at)
        if task.source is None:
            if task.deliver == "push":
                why = "`push` goes to where the workspace was fetched: `workspace: {git: URL}`"
                yield Problem((*top, "deliver"), why)
        else:
            found = _unfetchable(task, task.source)
            yield from (Problem((*top, *where), why) for where, why in found)


def _unfetchable(task: Task, source: Source) -> Iterator[tuple[Where, str]]:
    try:
        git_url(source.url)
        git_ref(source.ref or "HEAD")
    except ValueError as error:
        yield ("workspace",), f"git: {error}"
    if task.deliver == "apply":
        yield ("deliver",), "a fetched workspace has no files of yours to apply the result to"
    if task.isolation == "none":
        yield ("isolation",), "a fetched workspace is worked on in work trees alone"
    if task.include_uncommitted or task.copy:
        yield ("workspace",), "a fetched workspace has no untracked files to take along"


def _id_problems(tasks: Sequence[Task]) -> Iterator[Problem]:
    known = [task.id for task in tasks]
    for at, task in enumerate(tasks):
        if task.id in known[:at]:
            yield Problem(("tasks", at, "id"), f"{task.id!r} is the id of an earlier task, too")
        for number, need in enumerate(task.needs):
            where = ("tasks", at, "needs", number)
            if need not in known:
                yield Problem(where, f"no task {need!r}; {_nearest(need, known)}")
            elif need in task.needs[:number]:
                yield Problem(where, f"{need!r} is named twice")


def _nearest(name: str, known: Sequence[str]) -> str:
    import difflib

    near = difflib.get_close_matches(name, known, n=1)
    return f"did you mean {near[0]!r}?" if near else f"known: {', '.join(known[:20])}"


def _template_problems(
    task: Task, known: Sequence[str], needed: frozenset[str]
) -> Iterator[tuple[str, str]]:
    for written, meant in pieces(task.prompt):
        match meant:
            case Mistake(why=why):
                yield written, why
            case Reference(task=name) if name not in known:
                yield written, f"{written}: no task {name!r}; {_nearest(name, known)}"
            case Reference(task=name) if name not in needed:
                yield written, f"{written}: add {name!r} to the `needs` of {task.id!r}"
            case _:
                pass
