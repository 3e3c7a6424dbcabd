"""`runs diff`, `apply`, `discard` and `prune`: what runs left in a repository."""

from __future__ import annotations

import os
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, TypeVar

import typer

from orchestrator.cli.frame import (
    NOT_SUCCEEDED,
    ConfigOption,
    RunArgument,
    errors,
    fail,
    put,
    records,
    say,
)

if TYPE_CHECKING:
    from orchestrator.workspace.remains import Desk

Found = TypeVar("Found")


def diff(run_: RunArgument, config: ConfigOption = None) -> None:
    """Print what a run changed, as a patch.

    \b
    orchestrate runs diff last | git apply --stat
    orchestrate runs diff 4f0c2a1b | less
    """  # noqa: D301 (click takes \b for: leave these lines alone)
    from orchestrator.workspace import remains

    with errors():
        state, folder = _found(config, run_)
        patch = at_desk(state, lambda desk: remains.diff(desk, folder))
        if sys.stdout.isatty():
            put(patch.decode("utf-8", "backslashreplace"), end=False)
        else:
            sys.stdout.buffer.write(patch)


def apply(run_: RunArgument, config: ConfigOption = None) -> None:
    """Write what a run changed into your files, uncommitted. All of it, or nothing.

    Your files must be as committed. Your index and branches are left alone.

    \b
    orchestrate runs apply last
    """  # noqa: D301 (click takes \b for: leave these lines alone)
    from orchestrator.workspace import remains
    from orchestrator.workspace.deliver import NotAppliedError
    from orchestrator.workspace.worktree import ConflictError

    with errors():
        state, folder = _found(config, run_)
        try:
            top, files = at_desk(state, lambda desk: remains.bring(desk, folder))
        except NotAppliedError as error:
            say(f"orchestrate: not applied: {error}")
            say(error.hint or "")
            raise typer.Exit(NOT_SUCCEEDED) from None
        except ConflictError as error:
            say(f"orchestrate: not applied: {error}")
            say("Merge its branch (`orchestrate runs show` names it) and resolve the conflict.")
            raise typer.Exit(NOT_SUCCEEDED) from None
        for file in files:
            put(file)
        say(f"applied to {top}: {len(files)} file(s), not committed")


def discard(
    run_: RunArgument,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
    config: ConfigOption = None,
) -> None:
    """Delete a run's branch, and its claim to it in the record. The diff stays on record.

    \b
    orchestrate runs discard 4f0c2a1b
    orchestrate runs discard last --yes
    """  # noqa: D301 (click takes \b for: leave these lines alone)
    from dataclasses import replace

    from orchestrator.journal import read_outcome, write_outcome
    from orchestrator.workspace import remains

    with errors():
        state, folder = _found(config, run_)
        if not yes and not sys.stdin.isatty():
            fail(f"discard: to delete the work of {folder.name} with nobody to ask, say --yes")
        if not yes and not typer.confirm(f"Delete the branch of run {folder.name}?", err=True):
            raise typer.Exit(NOT_SUCCEEDED)
        branch = at_desk(state, lambda desk: remains.discard(desk, folder))
        outcome = read_outcome(folder)
        if outcome is not None and outcome.changes is not None:
            changes = replace(outcome.changes, branch=None, commit=None)
            write_outcome(folder, replace(outcome, changes=changes))
        put(f"deleted {branch}")


def prune(
    force: Annotated[
        bool, typer.Option("--force", help="Remove also what is saved nowhere else.")
    ] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what is there.")] = False,
    config: ConfigOption = None,
) -> None:
    """Clean up after runs that were cut off: their work is saved in its branch, their work trees
    are removed.

    Also removes branches of runs without a record, if their work is in HEAD.

    \b
    orchestrate runs prune --dry-run
    orchestrate runs prune
    """  # noqa: D301 (click takes \b for: leave these lines alone)
    from orchestrator.errors import shown
    from orchestrator.workspace import remains

    with errors():
        found = at_desk(
            records(config),
            lambda desk: remains.prune(desk, force=force, dry_run=dry_run, here=Path.cwd()),
        )
        for remain in found:
            done = "removed" if remain.removed else "kept"
            put(f"{done:<8} {shown(remain.what)}: {shown(remain.holds)}")
        kept = sum(not remain.removed for remain in found)
        if not found:
            put("nothing is left over")
        elif kept and not dry_run:
            say(f"{kept} kept; --force removes them, with what they hold")


def _found(config: Path | None, run: str) -> tuple[Path, Path]:
    """The state folder and the run's."""
    from orchestrator.journal import find_run

    state = records(config)
    return state, find_run(state / "runs", run)


def at_desk(state: Path, work: Callable[[Desk], Awaitable[Found]]) -> Found:
    """What comes of the work, with processes to do it."""
    import anyio

    from orchestrator.run.attempt import open_reaper
    from orchestrator.workspace.remains import Desk

    async def run() -> Found:
        async with open_reaper() as reaper:
            return await work(Desk(reaper=reaper, state=state.resolve(), environ=dict(os.environ)))

    return anyio.run(run)
