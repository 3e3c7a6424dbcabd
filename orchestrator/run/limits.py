"""The limits of a run: before its agent is started, while it runs, and when it is over."""

from __future__ import annotations

import time

from orchestrator.budget import uncounted
from orchestrator.errors import counted
from orchestrator.events import Error, Notice
from orchestrator.journal import scarce
from orchestrator.outcome import finished, not_held
from orchestrator.prices import price_of
from orchestrator.run.live import Live
from orchestrator.run.run import Run
from orchestrator.run.watch import Watched, limit_event

FREE_S = 1.0
# How often is looked what is free on the disk.


def unbounded(run: Run) -> Error | None:
    """That the run would be without the limit of its cost that the user wrote, if it would."""
    plan, agent = run.plan, run.plan.agent
    tells = run.about.tells_cost or price_of(plan.recorded) is not None
    known = agent.tier == "local" or (tells and plan.auth != "login")
    why = uncounted(plan.task.limits.meet(run.config.limits), cost_known=known)
    if why is None:
        return None
    hint = "Set `limits.tokens` or `limits.steps`, too, or name an agent that tells its cost."
    return Error(kind="unroutable", text=f"{agent.name}: {why}", hint=hint)


def watched(run: Run) -> Watched:
    """Whose limits its agent is held to."""
    plan = run.plan
    return Watched(
        task_id=plan.task.id,
        run_id=plan.run_id,
        limits=plan.limits,
        local=plan.agent.tier == "local",
        ledger=plan.ledger,
    )


def hold(run: Run, live: Live) -> None:
    """Have the run stopped if its agent has passed a limit."""
    plan, control = run.plan, run.control
    if control.stopped is not None:
        return
    if live.asking:
        live.watch.waits("person")
    elif plan.handing is not None and plan.handing.waiting:
        live.watch.waits("child")
    passed = live.watch.hold(live.intake)
    failures = run.recorder.digest.failures
    _tell_what_is_unseen(run, live)
    if passed is not None:
        run.say(limit_event(passed))
        control.stop(passed.stop, passed.text, passed.limit)
    elif (free := _free(run, live, time.monotonic())) is not None:
        _stop_for_room(run, free)
    elif plan.failures is not None and failures >= plan.failures:
        run.stop_at(
            "failures", failures, "stalled", f"{counted(failures, 'tool call')} in a row failed"
        )


def _tell_what_is_unseen(run: Run, live: Live) -> None:
    if live.watch.unseen is not None and not live.blind:
        live.blind = True
        text = f"what the agent receives is not seen, only what it writes: {live.watch.unseen}"
        run.say(Notice(text=text))


def _free(run: Run, live: Live, now: float) -> int | None:
    """What is free on the disk, if that is too little. Looked at once a second."""
    if now - live.looked < FREE_S:
        return None
    live.looked = now
    return scarce(run.folder)


def _stop_for_room(run: Run, free: int) -> None:
    run.stop_at("disk", free, "disk_full", f"only {free} bytes are free at {run.folder}")


def see_to_room(run: Run) -> None:
    """An agent that failed on a full disk failed for that reason, whatever it says."""
    failed = run.control.stopped is None and not finished(run.facts())
    if failed and (free := scarce(run.folder)) is not None:
        _stop_for_room(run, free)


def see_to_usage(run: Run) -> None:
    """A limit that nothing was counted against was none: that is told."""
    plan, recorder = run.plan, run.recorder
    stated = plan.task.limits.meet(run.config.limits).meet(plan.ledger.limits)
    silent = recorder.counts.spoken and recorder.usage is None
    if silent and stated.tokens is not None:
        run.unheld = "tokens"
        run.say(Notice(text=not_held(run.unheld)))
