"""The end of a run: its outcome decided, without secrets and on record, also on a full disk."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import anyio
from anyio import to_thread

from orchestrator.adapter import Agent
from orchestrator.config import Config
from orchestrator.errors import DiskFullError
from orchestrator.events import Outcome
from orchestrator.journal import STDERR, STDOUT, TAILS, scrub, write_outcome
from orchestrator.outcome import Facts, decide
from orchestrator.remedy import remedy
from orchestrator.run.run import Run
from orchestrator.telemetry import warn

_SHORT = 1000


async def finish(run: Run) -> Outcome:
    """Decide, and put the outcome on record. Is not cancelled. Raises JournalError."""
    duration_s = time.monotonic() - run.began
    outcome = outcome_of(run.facts(), run.plan.run_id, run.plan.recorded, run.config)
    outcome.duration_s = round(duration_s, 3)
    with anyio.CancelScope(shield=True):
        await to_thread.run_sync(scrub_all, run.folder, run.secrets)
        outcome = _recorded(run, outcome)
        await to_thread.run_sync(_write, run, outcome)
    return outcome


def outcome_of(facts: Facts, run_id: str, agent: Agent, config: Config) -> Outcome:
    """What the facts of a run amount to, with what to do next. `agent` as the record names it."""
    outcome = decide(facts)
    if outcome.error is not None:
        server = config.servers.get(agent.server or "")
        outcome.error.hint = remedy(outcome.error, agent, server)
    outcome.agent, outcome.run_id = agent.name, run_id
    outcome.model = outcome.model or agent.model
    return outcome


def scrub_all(folder: Path, secrets: Sequence[str]) -> None:
    """No secret stays in what the agent of a run wrote itself."""
    raw = (folder / name for name in (STDOUT, STDERR, TAILS))
    for path in (*raw, *folder.glob("*.patch")):
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
