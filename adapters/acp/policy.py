"""Whether an agent may do what it asks for: the task's access says it, fail closed. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from posixpath import join, normpath
from typing import Literal, TypeAlias

from adapters.acp.calls import KINDS, places
from adapters.reading import fields, items, text
from orchestrator.task import Task

Permissions: TypeAlias = Literal["access", "allow", "deny", "ask"]
_LOOKS = frozenset({"read", "search", "think", "fetch"})
_QUIETLY = _LOOKS - {"fetch"}
_EDITS = frozenset({"edit", "delete", "move"})


def denial(asked: Mapping[str, object], task: Task, permissions: Permissions) -> str | None:
    """Why a tool call is not allowed, None: it is, unless a person is to be asked."""
    match permissions:
        case "allow":
            return None
        case "deny":
            return "permissions are denied"
        case _:
            return _by_access(asked, task)


def asks(asked: Mapping[str, object], task: Task, permissions: Permissions) -> bool:
    """Whether a person is to be asked for what the access allows: for all but looking."""
    kind = KINDS.get(str(asked.get("kind")), "other")
    return permissions == "ask" and kind not in _QUIETLY and not _is_ours(asked, task)


def lasts(options: object) -> bool:
    """Whether it can be allowed once and for all."""
    return any(fields(option).get("kind") == "allow_always" for option in items(options))


def option_for(options: object, *, allow: bool, always: bool = False) -> str | None:
    """The option that means it: for once rather than for ever, unless that is wanted."""
    kinds = ("allow_once", "allow_always") if allow else ("reject_once", "reject_always")
    if allow and always:
        kinds = ("allow_always", "allow_once")
    known = [fields(option) for option in items(options)]
    for kind in kinds:
        for option in known:
            if option.get("kind") == kind and (id_ := text(option.get("optionId"))):
                return id_
    return None


def _by_access(asked: Mapping[str, object], task: Task) -> str | None:
    kind = KINDS.get(str(asked.get("kind")), "other")
    access = task.allowed
    if access == "full" or kind in _LOOKS or _is_ours(asked, task):
        return None
    if access == "read":
        return "access is `read`"
    return _outside(asked, task, edits=kind in _EDITS)


def _outside(asked: Mapping[str, object], task: Task, *, edits: bool) -> str | None:
    """What names places is held to them, whatever it is; an edit must name them."""
    root = normpath(str(task.workspace))
    named = places(asked) or (_paths(fields(asked.get("rawInput"))) if edits else ())
    if edits and not named:
        return "access is `edit`, and it does not say which file"
    for path in named:
        full = normpath(join(root, path))
        if full != root and not full.startswith(f"{root}/"):
            return f"access is `edit`, and {path} is outside of the workspace"
    return None


def _paths(given: Mapping[str, object]) -> Sequence[str]:
    names = ("filepath", "filePath", "file_path", "absolute_path", "path")
    return [path for name in names if (path := text(given.get(name)))]


def _is_ours(asked: Mapping[str, object], task: Task) -> bool:
    """A tool of an MCP server that the task itself brings. Such a tool has no kind that is known;
    the title of one that has holds words of the model's, a command or a path.
    """
    if KINDS.get(str(asked.get("kind")), "other") != "other" or places(asked):
        return False
    named = text(fields(asked.get("_meta")).get("toolName")) or text(asked.get("title")) or ""
    return any(server.key in named for server in task.mcp_servers)
