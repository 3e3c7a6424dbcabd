"""`route`: who would do a task, and why, without doing it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal

import typer

from orchestrator.cli.flags import (
    AgentOption,
    CostOption,
    FallbackOption,
    Flags,
    KindOption,
    ModelOption,
    PrivacyOption,
    PromptOption,
    StrategyOption,
    TaskFileArgument,
    asked,
)
from orchestrator.cli.frame import (
    NOT_SUCCEEDED,
    ConfigOption,
    ListForm,
    ListOption,
    configured,
    errors,
    put,
    put_json,
    tabled,
)

if TYPE_CHECKING:
    from orchestrator.adapter import Agent
    from orchestrator.config import Config
    from orchestrator.route import Route
    from orchestrator.task import Task, TaskFile


def route(  # noqa: PLR0913, PLR0917 (a flag is a parameter)
    file: TaskFileArgument = None,
    prompt: PromptOption = None,
    kind: KindOption = None,
    agent: AgentOption = None,
    model: ModelOption = None,
    privacy: PrivacyOption = None,
    strategy: StrategyOption = None,
    fallback: FallbackOption = None,
    cost_usd: CostOption = None,
    output: ListOption = ListForm.TEXT,
    config: ConfigOption = None,
) -> None:
    """Explain who would do TASK.yaml, or --prompt, without running anything.

    Each agent considered, why it was kept or dropped, what it is expected to cost, and where the
    work goes when it fails. Model servers are asked what they have; no model is.

    \b
    orchestrate route task.yaml
    orchestrate route -p "find the tests of the parser" --kind search
    """  # noqa: D301 (click takes \b for: leave these lines alone)
    import anyio

    keys = {
        "prompt": prompt,
        "kind": kind,
        "agent": agent,
        "model": model,
        "privacy": privacy,
        "strategy": strategy,
        "fallback": fallback,
    }
    with errors():
        settings = configured(config)
        tasks = asked(file, Flags(keys=keys, limits={"cost_usd": cost_usd}))
        found = anyio.run(_routes, tasks, settings)
        if output is ListForm.JSON:
            told = [_fields(task, routes, settings) for task, routes in found]
            put_json(told, indented=True)
        else:
            put("\n\n".join(_told(task, routes, settings) for task, routes in found))
        if not all(routes and routes[0].rank is not None for _, routes in found):
            raise typer.Exit(NOT_SUCCEEDED)


async def _routes(asked: Task | TaskFile, config: Config) -> list[tuple[Task, tuple[Route, ...]]]:
    from orchestrator.budget import Ledger
    from orchestrator.config import file_with_defaults
    from orchestrator.discovery import routes_of, with_nearby
    from orchestrator.slots import Slots
    from orchestrator.task import Task, TaskFile

    file = TaskFile(tasks=(asked,)) if isinstance(asked, Task) else asked
    slots = Slots(config.state / "slots")
    file = file_with_defaults(file, config)
    config = await with_nearby(config, [task.agent for task in file.tasks])
    ledger = Ledger(file.limits)
    return [
        (
            task,
            await routes_of(
                task,
                config,
                slots,
                left_usd=ledger.left_usd(task.id, task.limits.meet(config.limits)),
            ),
        )
        for task in file.tasks
    ]


def _told(task: Task, routes: Sequence[Route], config: Config) -> str:
    from orchestrator.console import one_line

    rows = [["AGENT", "MODEL", "TIER", "COST", "WHY"]]
    rows += [_row(route) for route in routes]
    head = f"{task.id}: {one_line(task.prompt, 80)}"
    lines = [head, _class(task), tabled(rows), f"plan: {_plan(task, routes)}"]
    if limits := _limits(task, routes, config):
        lines.append(limits)
    if remedy := next((route.remedy for route in routes if route.remedy), None):
        lines.append(remedy)
    if task.privacy == "local":
        lines.append("privacy: routing only: no sandbox holds an agent's own connections")
    return "\n".join(lines)


def _class(task: Task) -> str:
    strategy = task.strategy or "auto"
    return f"strategy {strategy}, kind {task.kind or 'not stated'}, fallback {_fallback(task)}"


def _fallback(task: Task) -> str:
    return task.fallback or "none"


def _row(route: Route) -> list[str]:
    place = "-" if route.rank is None else str(route.rank + 1)
    return [
        f"{place:>2} {route.agent.name}",
        route.agent.model or _unnamed(route.agent),
        route.agent.tier,
        _cost(route),
        route.reason,
    ]


def _unnamed(agent: Agent) -> str:
    return "its own default" if agent.base_url is None else "its server's"


def _cost(route: Route) -> str:
    return "unknown" if route.cost_usd is None else f"${route.cost_usd:.2f}"


def _plan(task: Task, routes: Sequence[Route]) -> str:
    """Where the work goes, one agent after the other."""
    from orchestrator.errors import counted
    from orchestrator.route import stages

    plan = stages(task, routes)
    if not plan:
        return "nobody can do it"
    what = "the check fails or the run does" if task.check else "the run fails"
    steps = [plan[0].agent.name]
    steps += [f"if {what}: {each.agent.name} ({_cost(each)})" for each in plan[1:]]
    again = (
        f" (again up to {counted(task.retries, 'time')} where the failure may pass)"
        if task.retries
        else ""
    )
    return f"{'; '.join(steps)}{again}"


def _limits(task: Task, routes: Sequence[Route], config: Config) -> str | None:
    """The budgets that were written, and by how much each agent may pass them."""
    from orchestrator.route import stages

    limits = task.limits.meet(config.limits)
    stated = {"cost_usd": limits.cost_usd, "tokens": limits.tokens, "steps": limits.steps}
    budgets = [f"{name} {value:g}" for name, value in stated.items() if value is not None]
    if not budgets:
        return None
    overshoot = {
        each.agent.name: _OVERSHOOT[_counts(each, config)] for each in stages(task, routes)
    }
    passed = "; ".join(f"{name} {what}" for name, what in overshoot.items())
    return f"limits: {', '.join(budgets)}; passed by at most: {passed or 'nobody does it'}"


_OVERSHOOT = {
    "call": "one call of the model",
    "turn": "one turn",
    None: "what a whole run uses",
}


def _counts(route: Route, config: Config) -> Literal["call", "turn"] | None:
    """After what the agent tells its tokens."""
    from orchestrator.adapter import about_of
    from orchestrator.errors import ConfigError

    try:
        return about_of(config.adapters[route.agent.adapter], route.agent).counts
    except ConfigError:  # it is ruled out by that
        return None


def _fields(task: Task, routes: Sequence[Route], config: Config) -> dict[str, object]:
    from orchestrator.route import stages

    return {
        "task": task.id,
        "kind": task.kind,
        "strategy": task.strategy or "auto",
        "fallback": _fallback(task),
        "privacy": task.privacy,
        "enforced": "routing" if task.privacy == "local" else None,
        "plan": [stage.agent.name for stage in stages(task, routes)],
        "considered": [
            {
                "agent": route.agent.name,
                "adapter": route.agent.adapter,
                "model": route.agent.model,
                "server": route.agent.base_url or route.agent.server,
                "tier": route.agent.tier,
                "rank": route.rank,
                "reason": route.reason,
                "remedy": route.remedy,
                "cost_usd": route.cost_usd,
                "overshoot": _counts(route, config) or "run",
            }
            for route in routes
        ],
    }
