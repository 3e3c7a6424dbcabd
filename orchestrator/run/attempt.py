"""One attempt of a task by an agent: the steps from the first event to the last.

What a line means is the adapter's; what starts and ends processes is `process`; what it all amounts
to is `outcome`. Here they are put together, and every event goes to the journal before anyone sees
it.
"""

from __future__ import annotations

import errno
import shutil
from collections.abc import AsyncGenerator, Iterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import anyio
from anyio import to_thread

from orchestrator.config import Config
from orchestrator.discovery import preflight, version
from orchestrator.errors import JournalError, ReaperLostError, SpawnError
from orchestrator.events import Error, Notice, Outcome, RouteSelected, RunStarted
from orchestrator.journal import Journal, Record, make_folder, no_room, write_record
from orchestrator.process import Reaper, open_reaper
from orchestrator.route import considered
from orchestrator.run.control import Control
from orchestrator.run.ending import finish
from orchestrator.run.limits import see_to_room, see_to_usage, unbounded
from orchestrator.run.plan import Plan, record, secrets_of
from orchestrator.run.recorder import Publish, recorder_of
from orchestrator.run.run import Run
from orchestrator.run.serving import served
from orchestrator.run.work import deliver, leave, look, see_changes, set_up, verify

__all__ = ["Reaper", "open_reaper", "perform"]
# The first two are of `process`, which the layers above a run do not import: the supervisor holds a
# reaper open.


async def perform(
    plan: Plan, *, config: Config, reaper: Reaper, control: Control, publish: Publish
) -> Outcome:
    """Run an agent on a task, from the first event to the last. The run's folder must not exist
    yet.

    Raises JournalError if the record cannot be written, SupervisionError if there is no reaper to
    be had. Cancellation kills the agent at once, and the outcome is still written.
    """
    told, secrets = record(plan), secrets_of(plan, config)
    async with (
        _journal(config.state / "runs", told, secrets) as journal,
        AsyncExitStack() as stack,
    ):
        run = Run(
            plan=plan,
            config=config,
            reaper=reaper,
            control=control,
            journal=journal,
            recorder=recorder_of(told, plan.auth, journal.append, publish, secrets),
            stack=stack,
        )
        try:
            await _attempt(run)
            await deliver(run)
        except ReaperLostError as error:
            run.lose(error)
        except Exception as error:
            if (full := no_room(error)) is None:
                # A failure of our own: what is known is still put on record.
                run.say(Error(kind="crashed", text=f"orchestrate failed: {error}"))
                await _end(run)
                raise
            control.stop("disk_full", str(full))
            run.fill(full)
        except BaseException:
            control.stop("cancelled", "the run was cancelled")
            await _end(run)
            raise
        return await _end(run)


async def _end(run: Run) -> Outcome:
    await leave(run)
    return await finish(run)


@asynccontextmanager
async def _journal(runs: Path, record: Record, secrets: Sequence[str]) -> AsyncGenerator[Journal]:
    """The journal of a run, in a folder of its own."""
    # A disk that is busy with others' work takes its time to make and to sync files (measured: 45
    # ms a run). A thread waits for that; this one serves the other agents meanwhile.
    journal = await to_thread.run_sync(_begun, runs, record, secrets)
    try:
        yield journal
    finally:
        with anyio.CancelScope(shield=True):
            await to_thread.run_sync(journal.close)


def _begun(runs: Path, record: Record, secrets: Sequence[str]) -> Journal:
    """A run is one as soon as its record stands beside its journal, not before."""
    folder = make_folder(runs, record.run_id)
    try:
        journal = Journal(folder)
        write_record(folder, record, secrets)
    except JournalError:
        shutil.rmtree(folder, ignore_errors=True)
        raise
    return journal


async def _attempt(run: Run) -> None:
    """Everything up to the outcome."""
    plan, control = run.plan, run.control
    await _announce(run)
    if (error := await _refusal(run)) is not None:
        run.say(error)
        return
    if not await set_up(run):
        return
    before = await control.until(look, run) if plan.place is None else None
    if (passed := plan.ledger.passed) is not None:
        control.stop(passed.stop, passed.text, passed.limit)
    if control.requested.is_set() or not await _started(run):
        return
    see_to_room(run)
    see_to_usage(run)
    await see_changes(run, before)
    await verify(run)


async def _announce(run: Run) -> None:
    """The first events: why this agent, what it is, and what there is to know of it."""
    plan, agent = run.plan, run.plan.agent
    cli_version = await run.control.until(version, agent, run.config, run.reaper)
    run.say(
        RouteSelected(
            model=agent.model,
            reason=plan.route.reason if plan.route else "named",
            considered=considered(plan.routes, agent.name),
            enforced="routing" if plan.task.privacy == "local" else None,
        ),
        RunStarted(
            adapter=agent.adapter,
            attempt=plan.attempt,
            cli_version=cli_version,
            model=agent.model,
            server=plan.recorded.base_url or agent.server,
            tier=agent.tier,
            auth=plan.auth,
            argv=list(plan.command.argv),
            cwd=plan.command.cwd,
        ),
        *(Notice(text=note) for note in (*plan.notes, *_untested(run, cli_version))),
    )


def _untested(run: Run, version: str | None) -> Iterator[str]:
    """That nobody has tried this version: what it says may be read wrongly."""
    about = run.about
    if version is not None and about.tested and version not in about.tested:
        yield f"{about.title} {version} is untested (tested: {', '.join(about.tested)})"


async def _refusal(run: Run) -> Error | None:
    """Why the agent is not started at all, if it is not."""
    if (error := unbounded(run) or run.plan.refused) is not None:
        return error
    return await run.control.until(preflight, run.plan.agent, run.config)


async def _started(run: Run) -> bool:
    """Have the agent do its work; False: it could not be started."""
    try:
        await served(run)
    except SpawnError as failure:
        hint = failure.hint
        if failure.errno == errno.ENOEXEC:  # half installed, such as npm's stub of a binary
            hint = run.about.install_hint or None
        run.say(Error(kind="spawn", text=str(failure), hint=hint))
        return False
    except ReaperLostError as gone:
        run.lose(gone)  # what the agent had changed until then, the next reaper can tell
    return True
