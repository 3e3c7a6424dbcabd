"""What an agent may hand on: a sub-task as it is asked for, and the task that its parent's limits,
privacy and access make of it, or why not. Pure.

A sub-task can be stricter than its parent, never looser. A refusal is a text that the agent who
asked can act on.
"""

from __future__ import annotations

import math
import posixpath
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path, PurePosixPath

from orchestrator.adapter import Agent
from orchestrator.errors import shown
from orchestrator.events import Tier
from orchestrator.task import EDITING_KINDS, READING_KINDS, Access, Kind, Limits, Privacy, Task

_LEVELS: tuple[Access, ...] = ("read", "edit", "full")
_LONG = 200
_WORDS = {
    "wall_s": "wall (seconds)",
    "cost_usd": "cost_usd",
    "tokens": "tokens",
}


@dataclass(frozen=True, kw_only=True)
class Asked:
    """A sub-task as an agent asks for it; None: it says nothing about that."""

    prompt: str
    kind: Kind | None = None
    agent: str | None = None
    model: str | None = None
    tier: Tier | None = None
    files: tuple[str, ...] = ()
    check: str | None = None
    access: Access | None = None
    privacy: Privacy | None = None
    workspace: str | None = None
    limits: Limits = Limits()


@dataclass(frozen=True, kw_only=True)
class Ancestor:
    """Who is at work above a sub-task, and on what."""

    agent: str
    prompt: str


@dataclass(frozen=True, kw_only=True)
class Parent:
    """Who asks: its run (None: a client that is no run of ours), its task with the folder that it
    works in, what is `left` of its limits, and who is above it, itself the last.

    `confined`: its agent's CLI holds it to its access, so that a command which is run outside of
    that would be a way around it. `asked`: how many sub-tasks it has handed on already.
    """

    run_id: str | None
    task: Task
    left: Limits
    ancestors: tuple[Ancestor, ...]
    confined: bool = True
    asked: int = 0


@dataclass(frozen=True, kw_only=True)
class Refused:
    """Why a sub-task is not started, and what may be asked for instead."""

    text: str
    hint: str


def narrowed(parent: Parent, asked: Asked, agents: Sequence[Agent]) -> Task | Refused:
    """The sub-task, without an id yet, or the first reason why there is none. `agents` are all."""
    refusal = next(_refusals(parent, asked, agents), None)
    return _child(parent, asked) if refusal is None else refusal


def _child(parent: Parent, asked: Asked) -> Task:
    task = parent.task
    left = replace(parent.left, depth=None)
    depth = None if parent.left.depth is None else parent.left.depth - 1
    limits = replace(left, depth=depth).meet(asked.limits)
    at_home = _stays(task) is not None
    return replace(
        task,
        prompt=asked.prompt,
        needs=(),
        kind=asked.kind,
        workspace=_inside(task.workspace, asked.workspace or "."),
        template=None,
        files=asked.files,
        agent=asked.agent,
        model=asked.model,
        base_url=None,
        api_key_env=None,
        access=_access(task, asked),
        privacy="local" if at_home or asked.privacy == "local" else "any",
        check=asked.check,
        expect=None,
        limits=limits,
        isolation=None,
        deliver="branch",
        include_uncommitted=True,
        strategy="local" if at_home else asked.tier,
        fallback="none" if asked.tier == "local" else task.fallback,
        handoff="clean",
        detached="kill",
        retries=0,
        recovery="none",
        session_id=None,
        home=None,
        parent_run_id=parent.run_id,
        mcp_servers=(),
        delegation=limits.depth != 0,
    )


# --- refusals ------------------------------------------------------------------------------------


def _refusals(parent: Parent, asked: Asked, agents: Sequence[Agent]) -> Iterator[Refused]:
    yield from _depth(parent, asked)
    yield from _number(parent)
    yield from _circles(parent, asked)
    yield from _agent(parent, asked, agents)
    yield from _at_home(parent, asked, agents)
    yield from _accesses(parent.task, asked)
    yield from _places(parent.task, asked)
    yield from _checks(parent, asked)
    yield from _budgets(parent.left, asked.limits)


def _depth(parent: Parent, asked: Asked) -> Iterator[Refused]:
    left = parent.left.depth
    if left is not None and left < 1:
        text = "this task is itself as deep a sub-task as is allowed (limits.depth)"
        yield Refused(text=text, hint="Do this part yourself.")
    elif left is not None and (asked.limits.depth or 0) > left - 1:
        text = f"limits.depth {asked.limits.depth} is more than this task can give"
        yield Refused(text=text, hint=f"Leave it out, or ask for at most {left - 1}.")


def _number(parent: Parent) -> Iterator[Refused]:
    most = parent.left.children
    if most is not None and parent.asked >= most:
        text = f"this run has handed on {parent.asked} sub-tasks, which is its limit"
        hint = "Do the rest yourself (limits.children; several questions fit into one prompt)."
        yield Refused(text=text, hint=hint)


def _circles(parent: Parent, asked: Asked) -> Iterator[Refused]:
    """The same work for the same agent, by whoever is above, would never come to an end."""
    for above in parent.ancestors:
        same_agent = asked.agent is None or asked.agent == above.agent
        if same_agent and _plain(above.prompt) == _plain(asked.prompt):
            text = f"a circle: {above.agent} is at work on this very prompt, above this sub-task"
            hint = "Ask for a part of it, in other words, or name another agent."
            yield Refused(text=text, hint=hint)


def _plain(prompt: str) -> str:
    return " ".join(prompt.split()).casefold()


def _agent(parent: Parent, asked: Asked, agents: Iterable[Agent]) -> Iterator[Refused]:
    known = {agent.name: agent for agent in agents}
    if asked.agent is None:
        return
    if asked.agent not in known:
        text = f"no agent {shown(asked.agent[:_LONG])!r}"
        yield Refused(text=text, hint=f"Known: {', '.join(known) or 'none'}.")
    elif asked.tier is not None and known[asked.agent].tier != asked.tier:
        text = f"{asked.agent} is a {known[asked.agent].tier} agent, and tier {asked.tier} is asked"
        yield Refused(text=text, hint="Leave out one of the two.")


def _at_home(parent: Parent, asked: Asked, agents: Iterable[Agent]) -> Iterator[Refused]:
    why = _stays(parent.task)
    if why is None:
        return
    if asked.privacy == "any":
        hint = "Leave `privacy` out: a sub-task has that of its parent, or a stricter one."
        yield Refused(text=f"{why}, and so do its sub-tasks", hint=hint)
    known = {agent.name: agent for agent in agents}
    named = known.get(asked.agent or "")
    if asked.tier == "cloud" or (named is not None and named.tier == "cloud"):
        who = f"agent {named.name} is" if named is not None else "tier: cloud would have it"
        local = ", ".join(agent.name for agent in known.values() if agent.tier == "local")
        hint = f"Local agents: {local or 'none'}. Or leave agent and tier out."
        yield Refused(text=f"{why}, and {who} in the cloud", hint=hint)


def _stays(task: Task) -> str | None:
    """Why nothing of a task goes to the cloud, or None."""
    if task.privacy == "local":
        return "this task stays at home (privacy: local)"
    if task.strategy == "local" and task.fallback != "cloud":
        return "this task stays at home (strategy: local)"
    return None


def _accesses(task: Task, asked: Asked) -> Iterator[Refused]:
    may = task.allowed
    if asked.access is not None and _LEVELS.index(asked.access) > _LEVELS.index(may):
        text = f"access {asked.access} is more than this task has: {may}"
        yield Refused(text=text, hint="Leave `access` out, or ask for less.")
    elif may == "read" and asked.kind in EDITING_KINDS:
        text = f"this task may only read, and {asked.kind} is work that changes files"
        hint = f"Ask for a kind that reads: {', '.join(sorted(READING_KINDS))}, explain."
        yield Refused(text=text, hint=hint)


def _access(task: Task, asked: Asked) -> Access:
    wanted: Access = asked.access or ("read" if asked.kind in READING_KINDS else "edit")
    more = _LEVELS.index(wanted) > _LEVELS.index(task.allowed)
    return task.allowed if more else wanted


def _places(task: Task, asked: Asked) -> Iterator[Refused]:
    root = task.workspace
    folder = _inside(root, asked.workspace or ".")
    for what, path in (
        *([("workspace", asked.workspace)] if asked.workspace is not None else []),
        *(("files", str(folder / file)) for file in asked.files),
    ):
        if not _inside(root, path).is_relative_to(root):
            text = f"{what}: {shown(path[:_LONG])} is outside of this task's folder"
            yield Refused(text=text, hint=f"Name what is in {root}, relative to it.")
    for file in asked.files:
        if PurePosixPath(file).is_absolute():
            text = f"files: {shown(file[:_LONG])} is not relative to the sub-task's folder"
            yield Refused(text=text, hint="Name it as it is seen from there.")


def _inside(root: Path, path: str) -> Path:
    """The path as it is meant from there, by its letters alone."""
    return Path(posixpath.normpath(root / path))


def _checks(parent: Parent, asked: Asked) -> Iterator[Refused]:
    """A check is run by the supervisor, outside of whatever holds the agent."""
    task = parent.task
    if asked.check is None or asked.check == task.check or task.allowed == "full":
        return
    if task.allowed == "read" or parent.confined:
        text = "check: it would be run outside of what this task's agent is held to"
        own = f" This task's own may be asked for: {task.check}" if task.check is not None else ""
        yield Refused(text=text, hint=f"Leave it out, and look at the result yourself.{own}")


def _budgets(left: Limits, asked: Limits) -> Iterator[Refused]:
    for field in fields(Limits):
        have: float | None = getattr(left, field.name)
        want: float | None = getattr(asked, field.name)
        if field.name in _WORDS and have is not None:
            word = _WORDS[field.name]
            if have <= 0:
                text = f"nothing is left of this task's {word}"
                yield Refused(text=text, hint="Finish with what you have.")
            elif want is not None and want > have:
                asks = f"{word}: {_digits(want)} is more than what is left of this task's"
                yield Refused(
                    text=f"{asks}: {_digits(have)}", hint="Ask for less, or leave it out."
                )


def _digits(number: float) -> str:
    """Digits that may be asked for as they stand: no exponent of a count, nothing rounded up."""
    cut = math.floor(number * 10_000) / 10_000 if math.isfinite(number) else number
    return f"{cut:.15g}"
