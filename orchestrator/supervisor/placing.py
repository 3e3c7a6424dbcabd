"""Where a task works: what it stands on, the work tree made for it, and where its commit goes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from orchestrator.config import Config
from orchestrator.errors import InputError
from orchestrator.events import Outcome
from orchestrator.graph import before
from orchestrator.journal import make_private
from orchestrator.redaction import REDACTED, known, pattern
from orchestrator.run.attempt import Reaper
from orchestrator.run.plan import Deliver, Plan
from orchestrator.supervisor.checking import check_workspace
from orchestrator.supervisor.means import Means
from orchestrator.task import Source, Task, TaskFile
from orchestrator.workspace.deliver import Parcel
from orchestrator.workspace.place import Ground, Place, Want, ground, place
from orchestrator.workspace.snapshot import make_scratch
from orchestrator.workspace.source import fetched


def ended_as(task: Task, outcome: Outcome, means: Means) -> tuple[str, ...]:
    """The commits that whoever needs this task starts from: its own, else those that it needed."""
    if outcome.changes is not None and outcome.changes.commit is not None:
        return (outcome.changes.commit,)
    return needed_by(task, means)


def commits_of(file: TaskFile, ended: Mapping[str, Outcome]) -> dict[str, tuple[str, ...]]:
    """The same of tasks that were over before the job went on."""
    found: dict[str, tuple[str, ...]] = {}
    earlier = before(file.needs)
    for id_ in sorted(ended, key=lambda id_: len(earlier[id_])):
        changes = ended[id_].changes
        own = changes.commit if changes is not None else None
        needed = (commit for need in file.needs[id_] for commit in found.get(need, ()))
        found[id_] = (own,) if own is not None else tuple(dict.fromkeys(needed))
    return found


def needed_by(task: Task, means: Means) -> tuple[str, ...]:
    every = (commit for need in task.needs for commit in means.commits.get(need, ()))
    return tuple(dict.fromkeys(every))


@dataclass(frozen=True, kw_only=True)
class Handed:
    """A task as an attempt gets it, with the commit that the one before left for it."""

    task: Task
    commit: str | None = None


async def grounds(
    tasks: Sequence[Task], config: Config, reaper: Reaper, *, exclude: Sequence[str] = ()
) -> Mapping[str, Ground]:
    """What each task stands on that is to work in a work tree of its own. `exclude`: patterns of
    files that are not taken along. Raises InputError.
    """
    found: dict[str, Ground] = {}
    known: dict[tuple[Path, bool], Ground | None] = {}
    sources: dict[Source, Ground] = {}
    for task in tasks:
        if task.source is not None:
            if task.source not in sources:
                sources[task.source] = await _fetched(task.source, config, reaper)
            found[task.id] = sources[task.source]
        elif task.isolation != "none" and task.template is None:
            key = (task.workspace.resolve(), task.include_uncommitted)
            if key not in known:
                known[key] = await _ground(*key, config, reaper, exclude)
            if (where := known[key]) is not None:
                found[task.id] = where
            elif task.isolation == "worktree":
                raise _unversioned(task.workspace)
    return found


async def _fetched(source: Source, config: Config, reaper: Reaper) -> Ground:
    state, environ = config.state.resolve(), config.environ
    return await fetched(reaper, source, state=state, environ=environ)


async def _ground(
    workspace: Path, uncommitted: bool, config: Config, reaper: Reaper, exclude: Sequence[str]
) -> Ground | None:
    return await ground(
        reaper,
        workspace,
        state=config.state.resolve(),
        environ=config.environ,
        include_uncommitted=uncommitted,
        exclude=exclude,
    )


def _unversioned(workspace: Path) -> InputError:
    return InputError(
        f"isolation: {workspace} is in no git repository, or ignored by it",
        hint="Leave `isolation` out, and the task works in the folder itself.",
    )


@dataclass(frozen=True, kw_only=True)
class Placed:
    """A task with its workspace in place, and the work tree that was made for it, if one was."""

    task: Task
    made: Place | None = None


async def placed_for(handed: Handed, run_id: str, means: Means, stack: AsyncExitStack) -> Placed:
    """Raises ConflictError if what the task needs cannot be merged, GitError, InputError."""
    task = handed.task
    if task.template is not None:
        name = f"{task.name or task.template.name}-{run_id[-8:]}"
        target = means.config.state / "scratch" / name
        make_private(target.parent)
        await make_scratch(means.reaper, task.template, target)
        return Placed(task=replace(task, workspace=target, template=None))
    where = means.grounds.get(task.id)
    if task.source is not None and where is not None:
        task = replace(task, workspace=where.workspace)
    check_workspace(task.workspace)
    if where is None:
        return Placed(task=replace(task, workspace=task.workspace.resolve()))
    made = await stack.enter_async_context(
        place(means.reaper, where, _wanted(handed, run_id, means))
    )
    return Placed(task=replace(task, workspace=made.tree.workspace), made=made)


def _wanted(handed: Handed, run_id: str, means: Means) -> Want:
    task, before = handed.task, means.continued
    commit = handed.commit or (before.commit if before else None)
    resumed = before.tree if before else None
    return Want(
        run_id=run_id,
        name=task.name or "task",
        task=task.id,
        prompt=_without_keys(task, means.config),
        needs=(commit,) if commit else needed_by(task, means),
        copy=task.copy,
        path=resumed.path if resumed else None,
        upon=resumed.upon if resumed else None,
    )


def _without_keys(task: Task, config: Config) -> str:
    """The prompt as the message of a commit may have it, which goes where the branch goes."""
    secret = pattern(known(task.env_from, config.environ))
    return task.prompt if secret is None else secret.sub(REDACTED, task.prompt)


def in_place(plan: Plan, made: Place | None, means: Means) -> Plan:
    """The plan with its work tree, and what is to become of its commit."""
    if made is None:
        return plan
    deliver = _deliverer(plan, made, means) if plan.task.id in means.leaves else None
    return replace(plan, place=made, notes=(*plan.notes, *made.notes), deliver=deliver)


def _deliverer(plan: Plan, made: Place, means: Means) -> Deliver | None:
    task, environ = plan.task, means.config.environ
    match task.deliver:
        case "apply" if task.source is None:
            return partial(means.delivery.deliver, made, plan.run_id)
        case "push" if task.source is not None:
            return Parcel(place=made, form="push", environ=environ, source=task.source).deliver
        case "bundle" | "patch" as form:
            return Parcel(place=made, form=form, environ=environ).deliver
        case _:
            return None  # the branch is the result
