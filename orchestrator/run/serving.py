"""The agent's turn at its model's server: a slot for it, and what really served it."""

from __future__ import annotations

import anyio

from orchestrator.discovery import Use, use_of
from orchestrator.events import Error, Notice, RouteVerified
from orchestrator.run.agent import run_agent
from orchestrator.run.run import Run


async def served(run: Run) -> None:
    """The agent, as soon as its model's server has a slot for it. Raises as `run_agent` does."""
    held, limit_s = run.plan.held, run.plan.limits.wall_s
    if held is None:
        await _seen_to_be_served(run)
        return

    def waits(text: str) -> None:
        run.say(Notice(text=text))

    try:
        with anyio.move_on_after(limit_s):
            await run.control.until(held.take, waits)
        if held.full:
            await _seen_to_be_served(run)
        elif run.control.stopped is None:
            why = f"no slot was free within the time limit of {limit_s:g} s"
            run.stop_at("wall", limit_s or 0.0, "timed_out", why)
    finally:
        held.give()


async def _seen_to_be_served(run: Run) -> None:
    """The agent; then what really served it, by the server's own word where that says it."""
    before = await _used(run)
    await _with_children(run)
    after = await _used(run) if before is not None else None
    if (told := _verified(run, before, after)) is not None:
        run.say(told)


async def _with_children(run: Run) -> None:
    """The agent; when it has ended, nobody is left who could want what it handed on."""
    if run.plan.handing is None:
        await run_agent(run)
        return
    async with run.plan.handing.open(run.plan, run.say):
        await run_agent(run)


async def _used(run: Run) -> Use | None:
    """What the gateway, or else the server itself, says of the model's use until now."""
    if run.plan.used is not None:
        return run.plan.used()
    return await use_of(run.plan.agent, run.config)


def _verified(run: Run, before: Use | None, after: Use | None) -> RouteVerified | Error | None:
    """What is known of who served the agent; an error where it was served elsewhere."""
    digest = run.recorder.digest
    answered = _answered(before, after)
    if after is not None and answered:
        model = run.plan.agent.model
        return RouteVerified(method=after.method, model=model, server=after.server)
    if after is not None and answered is False:
        # Who failed may have had no answer: only of work that is said to be done there is one.
        done = digest.terminal == "end_turn" and digest.error is None
        return _went_elsewhere(after) if done and not run.control.stopped else None
    if digest.model is not None:
        return RouteVerified(method="claimed", model=digest.model)
    return None


def _answered(before: Use | None, after: Use | None) -> bool | None:
    """Whether the server answered in between; None: it does not tell."""
    if before is None or after is None or after.mark is None:
        return None
    return after.mark != before.mark or (None if not after.counts else False)


def _went_elsewhere(use: Use) -> Error:
    text = f"the agent says that it is done, and {use.server} answered nothing meanwhile"
    hint = "It was served by another model or place: see its own settings, and what left the house."
    return Error(kind="route_mismatch", text=text, hint=hint)
