"""The agent's process, from its spawn until nothing of it is left and all that it wrote is read."""

from __future__ import annotations

import errno
from contextlib import ExitStack, suppress
from pathlib import Path

import anyio

from orchestrator.adapter import Exit, Question
from orchestrator.errors import SpawnError, SupervisionError, lone_error
from orchestrator.events import Notice, ProcessExited, ProcessReaped, ProcessSpawned
from orchestrator.journal import STDERR, STDOUT, TAILS
from orchestrator.process import Ended, Process, environment, too_many_files
from orchestrator.run.intake import Intake
from orchestrator.run.limits import hold, watched
from orchestrator.run.live import Live
from orchestrator.run.questions import Asked
from orchestrator.run.run import Run
from orchestrator.run.spool import Spool, Tails
from orchestrator.run.watch import Watch, limit_event

DRAIN_S = 5.0
# How long a run that was stopped still reads what its agent had written until then.
GRACE_S = 5.0


async def run_agent(run: Run) -> None:
    """Start the agent, follow it until it ends, and put all that it wrote on record; `run.exit` is
    set.

    Raises SpawnError if it cannot be started, ReaperLostError if it is nobody's any more.
    """
    plan, command = run.plan, run.plan.command
    if plan.agent.home is not None:
        Path(plan.agent.home).mkdir(parents=True, exist_ok=True, mode=0o700)
    env = environment(command, run.config.environ, env=plan.task.env, env_from=plan.task.env_from)
    stdout, stderr = run.folder / STDOUT, run.folder / STDERR
    with ExitStack() as stack:
        tails = Tails(command.tails, env, run.folder / TAILS, stack)
        async with run.reaper.spawn(
            command, env=env, stdout=stdout, stderr=stderr, token=plan.run_id
        ) as process:
            run.say(ProcessSpawned(pid=process.pid))
            live = _live(run, process, tails, stack)
            try:
                await _follow(run, live)
                await _bury(run, live)
            finally:
                with anyio.CancelScope(shield=True):
                    await _silence(live)
                    run.exit = _exit(live)  # known, also if there is no room for the rest
                    await _drain(run, live)
                _close(run, live)


def _live(run: Run, process: Process, tails: Tails, stack: ExitStack) -> Live:
    plan = run.plan
    intake = Intake(
        plan.adapter.conversation(plan.task, plan.agent, plan.before),
        run.recorder,
        stdout=_opened(run.folder / STDOUT, stack),
        stderr=_opened(run.folder / STDERR, stack),
        tails=tails,
    )
    live = Live(
        process=process,
        intake=intake,
        watch=Watch(watched(run), run.recorder, process.pid),
        step=lambda whole: _step(run, live, whole=whole),
    )
    return live


def _opened(path: Path, stack: ExitStack) -> Spool:
    """Raises SpawnError: an agent that takes its own output away cannot be supervised."""
    try:
        return stack.enter_context(Spool(path, path.name))
    except OSError as error:
        if error.errno in {errno.EMFILE, errno.ENFILE}:
            raise too_many_files(error) from error
        text = f"the agent put something else in the place of its own {path.name}: {error.strerror}"
        raise SpawnError(text) from error


# --- while it runs -------------------------------------------------------------------------------


async def _follow(run: Run, live: Live) -> None:
    """Read until the process has ended; stop it when that is asked for."""
    live.intake.start()
    with lone_error(), live.followed(run.reaper.ticks):
        await _follow_until_end(run, live)
    if live.lost is not None:
        raise live.lost


async def _follow_until_end(run: Run, live: Live) -> None:
    async with anyio.create_task_group() as group:
        group.start_soon(live.wait)
        group.start_soon(_stop_when_asked, run, live)
        while not live.over:
            _step(run, live, whole=True)
            sends = live.intake.taken()
            await live.send(sends)
            for question in (send.question for send in sends if send.question is not None):
                group.start_soon(_ask, run, live, question)
            if live.leave_s is not None:
                group.start_soon(_dismiss, run, live, live.leave_s)
                live.leave_s = None
            await live.sleep()
        group.cancel_scope.cancel()


def _step(run: Run, live: Live, *, whole: bool) -> None:
    if live.intake.pump() if whole else live.intake.hear():
        live.watch.grew()
    if whole or live.watch.weighs(live.intake):
        hold(run, live)
        live.rest()
    if live.intake.sends or live.intake.more:
        live.wake()


async def _ask(run: Run, live: Live, question: Question) -> None:
    """Have a person answer. When a stop is asked for, the agent does not wait any more."""
    plan = run.plan
    asked = Asked(
        task_id=plan.task.id,
        run_id=plan.run_id,
        agent=plan.agent.name,
        question=question,
        limit_s=plan.limits.ask_s or float("inf"),
    )
    live.asking += 1
    try:
        answer = await run.control.until(plan.person.decide, asked)
    finally:
        live.asking -= 1
    if answer is not None:
        live.watch.waits("person")  # the silence until now was not the agent's
        live.intake.decide(answer)
        live.wake()


async def _stop_when_asked(run: Run, live: Live) -> None:
    await run.control.requested.wait()
    sends = list(live.intake.conversation.interrupt())
    if sends and await live.send(sends):
        with anyio.move_on_after(GRACE_S):
            await live.process.wait()
    await live.process.stop(interrupt=run.plan.command.interrupt, grace_s=GRACE_S)


async def _dismiss(run: Run, live: Live, leave_s: float) -> None:
    """End an agent that stays although there is nothing more for it to do."""
    with anyio.move_on_after(leave_s):
        await live.process.wait()
    if live.ended is None and run.control.stopped is None:
        live.dismissed = True
        await live.process.stop(interrupt=None, grace_s=GRACE_S)


# --- when it has ended ---------------------------------------------------------------------------


async def _bury(run: Run, live: Live) -> None:
    """The process has ended: kill what it left, so that nothing writes any more."""
    ended, process = live.ended, live.process
    assert ended is not None  # noqa: S101 (by `_follow`)
    kept = await process.keep() if _may_stay(run, ended) else 0
    survivors = await process.reap()
    run.say(
        ProcessExited(
            pid=process.pid,
            status=ended.status,
            signal=ended.signal,
            cpu_s=ended.cpu_s,
            max_rss=ended.max_rss,
        ),
        ProcessReaped(survivors=survivors, kept=kept, processes=list(process.survivors)),
    )
    if left := process.left:
        text = f"{left} process(es) of the agent could not be ended: they are another user's"
        run.say(Notice(text=text))


def _may_stay(run: Run, ended: Ended) -> bool:
    """Whether the task lets what an agent started outlive it, and it ended by itself."""
    by_itself = run.control.stopped is None and ended.status is not None
    return run.plan.task.detached == "keep" and by_itself


async def _silence(live: Live) -> None:
    """Whatever went wrong, the agent writes no more when the rest is read."""
    if live.ended is None and live.lost is None:
        with suppress(SupervisionError):  # then it was killed together with the reaper
            await live.process.stop(interrupt=None, grace_s=0)


async def _drain(run: Run, live: Live) -> None:
    """Read what the agent left, in turns with others. After a stop there is no time for all."""
    for spool in live.intake.spools:
        spool.bound()  # what the task lets outlive the agent may write for ever
        if spool.replaced():
            text = (
                f"the agent took its own {spool.stream} away: what it wrote is in the events alone"
            )
            run.say(Notice(text=text))
    end = anyio.current_time() + DRAIN_S
    while live.intake.pump(last=True):
        await anyio.lowlevel.checkpoint()
        stopping = run.control.stopped is not None or live.ended is None
        if stopping and anyio.current_time() > end:
            live.intake.leave()


def _exit(live: Live) -> Exit:
    """How the process ended, as far as it is known."""
    ended = live.ended or live.process.ended
    return Exit(
        status=ended.status if ended else None,
        signal=ended.signal if ended else None,
        dismissed=live.dismissed,
    )


def _close(run: Run, live: Live) -> None:
    """Read what is left, and let the conversation have its last word."""
    run.exit = live.intake.close(run.exit or Exit())
    passed = live.watch.settle()
    if passed is not None and run.control.stopped is None:
        run.say(limit_event(passed, "none"))  # it had already done what it was to do
