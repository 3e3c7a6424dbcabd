"""The end of a run: its outcome decided, without secrets and on record, also on a full disk."""

from __future__ import annotations

import time
from dataclasses import replace

import anyio
from anyio import to_thread

from orchestrator.errors import DiskFullError
from orchestrator.events import Outcome
from orchestrator.journal import STDERR, STDOUT, TAILS, scrub, write_outcome
from orchestrator.outcome import decide, remedy
from orchestrator.run.run import Run
from orchestrator.telemetry import warn

_SHORT = 1000


async def finish(run: Run) -> Outcome:
    """Decide, and put the outcome on record. Is not cancelled. Raises JournalError."""
    outcome = _decided(run, time.monotonic() - run.began)
    with anyio.CancelScope(shield=True):
        await to_thread.run_sync(_scrub, run)
        outcome = _recorded(run, outcome)
        await to_thread.run_sync(_write, run, outcome)
    return outcome


def _decided(run: Run, duration_s: float) -> Outcome:
    outcome = decide(run.facts())
    agent = run.plan.recorded
    if outcome.error is not None:
        server = run.config.servers.get(agent.server or "")
        outcome.error.hint = remedy(outcome.error, agent, server)
    outcome.agent = agent.name
    outcome.model = outcome.model or agent.model
    outcome.run_id = run.plan.run_id
    outcome.duration_s = round(duration_s, 3)
    return outcome


def _scrub(run: Run) -> None:
    """No secret stays in what the agent wrote itself."""
    raw = (run.folder / name for name in (STDOUT, STDERR, TAILS))
    secrets = run.secrets
    for path in (*raw, *run.folder.glob("*.patch")):
        scrub(path, secrets)


def _recorded(run: Run, outcome: Outcome) -> Outcome:
    """The outcome, as the last event."""
    if run.full:
        return run.recorder.finish(_short(outcome))
    try:
        return run.recorder.finish(outcome)
    except DiskFullError as error:
        run.fill(error)
        return run.recorder.finish(_short(outcome))


def _short(outcome: Outcome) -> Outcome:
    """The outcome, small enough for the room that a full disk has for it."""
    text = outcome.text and outcome.text[:_SHORT]
    changes = outcome.changes and replace(outcome.changes, diff=None, truncated=True)
    if changes and sum(map(len, changes.files)) > _SHORT:
        changes = None
    return replace(outcome, text=text, changes=changes)


def _write(run: Run, outcome: Outcome) -> None:
    """The outcome in a file of its own, when the journal is safe."""
    run.journal.sync()
    try:
        write_outcome(run.folder, outcome)
    except DiskFullError as error:  # the journal's last event says it, too
        warn("the outcome stands only in the journal", error=str(error))
