"""`delegate`: what an agent with a shell hands on to another, from inside of its own run."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated

import typer

from orchestrator.cli.frame import (
    NOT_SUCCEEDED,
    SUCCEEDED,
    ListForm,
    ListOption,
    errors,
    fail,
    put,
    put_json,
    say,
)

if TYPE_CHECKING:
    from pydantic import JsonValue

    from orchestrator.asking import Answer

_FIRST = ("status", "verified", "agent", "branch", "take", "cost_usd", "error", "hint")


def delegate(  # noqa: PLR0913, PLR0917 (a flag is a parameter)
    prompt: Annotated[str, typer.Argument(help="What the other agent shall do.")] = "",
    kind: Annotated[
        str | None, typer.Option(help="Class of the work: search, summary, review, fix, ...")
    ] = None,
    agent: Annotated[str | None, typer.Option(help="The agent, by name; see --agents.")] = None,
    model: Annotated[str | None, typer.Option(help="The model, as the agent names it.")] = None,
    tier: Annotated[str | None, typer.Option(help="local or cloud.")] = None,
    file: Annotated[
        list[str] | None, typer.Option("--file", help="A file that matters; may be repeated.")
    ] = None,
    check: Annotated[str | None, typer.Option(help="Command that verifies the work.")] = None,
    access: Annotated[
        str | None, typer.Option(help="read, edit or full; never more than this task has.")
    ] = None,
    privacy: Annotated[str | None, typer.Option(help="local: no cloud sees it.")] = None,
    workspace: Annotated[
        str | None, typer.Option("--workspace", "-C", help="A folder inside of this task's.")
    ] = None,
    wall: Annotated[str | None, typer.Option(help="Time limit, such as 10m.")] = None,
    cost_usd: Annotated[float | None, typer.Option(help="The most that it may cost.")] = None,
    tokens: Annotated[int | None, typer.Option(help="The most that its model may use.")] = None,
    steps: Annotated[int | None, typer.Option(help="The most tool calls.")] = None,
    depth: Annotated[
        int | None, typer.Option(help="How often it may hand work on in its turn; 0: not.")
    ] = None,
    wait: Annotated[
        bool, typer.Option("--wait/--no-wait", help="Wait for the result, or print its id at once.")
    ] = True,
    result: Annotated[
        str | None, typer.Option(metavar="ID", help="The result of one that was not waited for.")
    ] = None,
    offset: Annotated[
        int, typer.Option(min=0, help="With --result: where in its text to begin.")
    ] = 0,
    status: Annotated[bool, typer.Option("--status", help="How all of yours stand.")] = False,
    cancel: Annotated[str | None, typer.Option(metavar="ID", help="End one of yours.")] = None,
    agents: Annotated[
        bool, typer.Option("--agents", help="The agents that there are now, and their prices.")
    ] = False,
    output: ListOption = ListForm.TEXT,
) -> None:
    """Hand a sub-task to another agent: only for agents that run under `orchestrate`.

    It works in a copy of the folder as it is now; the result names the command that takes its
    changes over. Exit status 0: it succeeded; 1: it did not; 2: refused, and why.

    \b
    orchestrate delegate "Which files implement retries?" --kind search
    orchestrate delegate "Review the change in src/" --kind review --agent claude
    orchestrate delegate --result task-1 --offset 8000
    """  # noqa: D301 (click takes \b for: leave these lines alone)
    wanted: dict[str, JsonValue] = {
        "prompt": prompt,
        "kind": kind,
        "agent": agent,
        "model": model,
        "tier": tier,
        "check": check,
        "access": access,
        "privacy": privacy,
        "workspace": workspace,
    }
    limits: dict[str, JsonValue] = {
        "wall": wall,
        "cost_usd": cost_usd,
        "tokens": tokens,
        "steps": steps,
        "depth": depth,
    }
    with errors():
        match status, agents, cancel, result:
            case True, _, _, _:
                answer = _asked("status", {})
            case _, True, _, _:
                answer = _asked("list_agents", {})
            case _, _, str(), _:
                answer = _asked("cancel", {"id": cancel})
            case _, _, _, str():
                answer = _asked("result", {"id": result, "wait": wait, "offset": offset})
            case _:
                wanted |= {"files": list(file) if file else None, "wait": wait}
                answer = _asked("delegate", _request(wanted, limits))
        if output is ListForm.JSON:
            put_json(answer, indented=True)
        else:
            put("\n".join(_told(answer)))
        ended = answer.get("status", "succeeded") in {"succeeded", "running"}
        raise typer.Exit(SUCCEEDED if ended else NOT_SUCCEEDED)


def _request(
    wanted: Mapping[str, JsonValue], limits: Mapping[str, JsonValue]
) -> dict[str, JsonValue]:
    """What was said of the sub-task. Raises InputError where that is nothing to ask for."""
    match wanted["prompt"], limits["cost_usd"]:
        case str(prompt), _ if not prompt.strip():
            fail("no prompt: say what the other agent shall do")
        case _, float(cost_usd) if not math.isfinite(cost_usd):
            fail(f"--cost-usd {cost_usd}: not a number of dollars")
        case _:
            pass
    return _stated({**wanted, "limits": _stated(limits) or None})


def _stated(values: Mapping[str, JsonValue]) -> dict[str, JsonValue]:
    return {name: value for name, value in values.items() if value is not None}


def _asked(word: str, parameters: Mapping[str, JsonValue]) -> Answer:
    import anyio

    from orchestrator.asking import ask, desk_of

    desk = desk_of(os.environ)
    if desk is None:
        fail(
            "there is no run to hand on work from: this is for agents that were started with"
            " `delegation: on`; `orchestrate run` is for people"
        )
    return anyio.run(ask, desk, word, parameters, _progress)


async def _progress(told: Mapping[str, JsonValue]) -> None:
    say(f"{told.get('id')}: {told.get('doing')}")


def _told(answer: Answer) -> list[str]:
    """For a model: the text first, then what there is to know, a line each."""
    match answer:
        case {"tasks": list(rows)} | {"agents": list(rows)}:
            return [_line(row) for row in rows] or ["none"]
        case {"text": str(text)}:
            known = [f"{name}: {answer[name]}" for name in _FIRST if answer.get(name) is not None]
            more = answer.get("next_offset")
            rest = f"orchestrate delegate --result {answer['id']} --offset {more}"
            return [text, "---", *([f"the rest: {rest}"] if more else []), *known]
        case _:
            return [_line(answer)]


def _line(row: JsonValue) -> str:
    if not isinstance(row, dict):
        return str(row)
    return "  ".join(f"{name}: {value}" for name, value in row.items() if value is not None)
