"""What an agent asks a person to allow, in lines for a terminal: who, what, and all of the command.
Pure.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TypeGuard

from orchestrator.adapter import Question
from orchestrator.console.paint import Line, Span, Style, cut
from orchestrator.console.text import clock, one_line, safe
from orchestrator.events import ToolCall, ToolKind

MOST = 20
"""Lines of a command or a diff."""
KEYS: Mapping[str, str] = {"y": "allow", "a": "always", "n": "deny"}
"""The answers by their keys; `a` only where an agent offers it."""
_WORDS: Mapping[ToolKind, str] = {
    "edit": "edit",
    "delete": "delete",
    "move": "move",
    "execute": "run a command",
    "fetch": "fetch",
}


def question(asker: str, asked: Question, width: int) -> list[Line]:
    """Who asks for what; `asker` is an agent, with its task where there are several."""
    call = asked.call
    what = _WORDS.get(call.kind or "other", "use a tool")
    title = asked.permission.tool or call.title or call.id
    head = Span(f"? {asker} asks to {what}: ", "bold"), Span(one_line(title, width))
    return [cut(head, width), *(cut(line, width) for line in _details(call, title, width))]


def prompt(asked: Question, left_s: float | None) -> Line:
    """The keys, and how long they may be waited for."""
    always = "  [a] always in this session" if asked.always else ""
    left = "" if left_s is None else f"  (denied in {clock(left_s)})"
    return Span(f"? [y] allow once{always}  [n] deny  Ctrl-C stops", "bold"), Span(left, "dim")


def _details(call: ToolCall, title: str, width: int) -> Iterator[Line]:
    """The whole command, folded and never cut at its end; the files; the head of a diff."""
    command = _command(call)
    if command is not None and command != title:
        yield from _some([piece for line in command.split("\n") for piece in _folded(line, width)])
    if command is None:
        for place in call.locations or ():
            yield (Span(f"    {place.path}"),)
    if call.diff:
        yield from _some(call.diff.split("\n"))


def _command(call: ToolCall) -> str | None:
    command = call.input.get("command") if _is_object(call.input) else None
    if _is_list(command):
        return " ".join(map(str, command))
    return command if isinstance(command, str) else None


def _is_object(value: object) -> TypeGuard[Mapping[str, object]]:
    return isinstance(value, dict)


def _is_list(value: object) -> TypeGuard[Sequence[object]]:
    return isinstance(value, list)


def _folded(line: str, width: int) -> list[str]:
    """In pieces that fit: what is beyond the edge may be what matters."""
    room, line = max(width - 4, 10), safe(line)
    return [line[at : at + room] for at in range(0, len(line), room)] or [""]


def _some(lines: list[str]) -> Iterator[Line]:
    for line in lines[:MOST]:
        yield (Span(f"    {line}", _style(line)),)
    if len(lines) > MOST:
        yield (Span(f"    ... and {len(lines) - MOST} more lines", "doubtful"),)


def _style(line: str) -> Style:
    match line[:1]:
        case "+":
            return "good"
        case "-":
            return "bad"
        case _:
            return "plain"
