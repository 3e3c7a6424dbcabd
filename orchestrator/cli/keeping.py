"""`runs recover` and `runs gc`: complete records that a crash cut off, and let old ones go."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from orchestrator.cli.frame import (
    OUR_FAILURE,
    ConfigOption,
    errors,
    fail,
    looked_at,
    put,
    records,
    say,
)

if TYPE_CHECKING:
    from orchestrator.config import Config


def recover(
    run_: Annotated[
        str | None,
        typer.Argument(
            metavar="[RUN]", help="Run id, a unique part of its end or beginning, or `last`."
        ),
    ] = None,
    every: Annotated[bool, typer.Option("--all", help="All runs that were cut off.")] = False,
    config: ConfigOption = None,
) -> None:
    """Complete the record of a run whose supervisor was killed: each event once, and an outcome.

    It may be done at any time, and twice; what is running is left alone.

    \b
    orchestrate runs recover --all
    orchestrate runs recover 4f0c2a1b
    """  # noqa: D301 (click takes \b for: leave these lines alone)
    from orchestrator.journal import find_run, list_runs
    from orchestrator.supervisor.desk import sweep

    with errors():
        if (run_ is None) != every:
            fail("name a RUN, or say --all")
        loaded = looked_at(config)
        runs = loaded.state / "runs"
        folders = list_runs(runs) if run_ is None else [find_run(runs, run_)]
        failed = [folder for folder in folders if not _recovered(folder, loaded, named=not every)]
        _tell_trees(folders, loaded)
        sweep(loaded.state)
        if not _jobs_recovered(loaded) or failed:
            raise typer.Exit(OUR_FAILURE)


def _recovered(folder: Path, config: Config, *, named: bool) -> bool:
    """Recover one run, and say so; False if that failed."""
    from orchestrator.errors import JournalError
    from orchestrator.journal import OUTCOME
    from orchestrator.run.recovery import recover as recovered

    if (folder / OUTCOME).exists() and not named:
        return True
    try:
        done = recovered(folder, config)
    except JournalError as error:
        say(f"orchestrate: {error}")
        if error.hint:
            say(error.hint)
        return False
    if done is None:
        say(f"{folder.name}: it is running")
    else:
        put(f"{folder.name}: {done.outcome.status}, {done.added} event(s) added")
    return True


def _tell_trees(folders: list[Path], config: Config) -> None:
    """Which of the runs have a work tree still, and what it holds."""
    from orchestrator.cli.trees import at_desk
    from orchestrator.errors import shown
    from orchestrator.journal import running
    from orchestrator.workspace import remains

    trees = config.state / "trees"
    left = [folder for folder in folders if trees.exists() and not running(folder)]

    async def found(desk: remains.Desk) -> list[remains.Remain]:
        return [one for folder in left if (one := await remains.look_into(desk, folder))]

    for one in at_desk(config.state, found) if left and any(trees.iterdir()) else ():
        put(f"work tree {shown(one.what)}: {shown(one.holds)}")
        say("`orchestrate runs prune` saves what it holds in its branch, and removes it")


def _jobs_recovered(config: Config) -> bool:
    """Complete the jobs whose runs are complete now; False if that failed for one."""
    from orchestrator.errors import JournalError
    from orchestrator.journal import JOB, OUTCOME, runs_by_job
    from orchestrator.supervisor.recovery import recover_job

    kept, runs = True, config.state / "runs"
    made = runs_by_job(runs)
    for folder in sorted(path.parent for path in (config.state / "jobs").glob(f"*/{JOB}")):
        try:
            if not (folder / OUTCOME).exists():
                recover_job(folder, runs, made.get(folder.name, ()))
        except JournalError as error:
            say(f"orchestrate: {error}")
            kept = False
    return kept


def gc(
    older: Annotated[
        str, typer.Option(help="Runs that ended longer ago than this go, such as 12h or 30d.")
    ] = "30d",
    keep_bytes: Annotated[
        str, typer.Option(help="Then the oldest, until all take at most this much, such as 5GiB.")
    ] = "20GiB",
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what would go.")] = False,
    config: ConfigOption = None,
) -> None:
    """Remove old runs with their private homes and scratch workspaces, jobs without runs, and
    fetched repositories that no run is of any more.

    What is going on, was cut off, or has a work tree or a session that is still needed stays.

    \b
    orchestrate runs gc --dry-run
    orchestrate runs gc --older 7d --keep-bytes 5GiB
    """  # noqa: D301 (click takes \b for: leave these lines alone)
    import time

    from orchestrator.cleaning import old, remove
    from orchestrator.supervisor.desk import sweep
    from orchestrator.task import parse_duration, parse_size

    with errors():
        state = records(config)
        if not dry_run:
            sweep(state)
        found = old(
            state,
            older_s=parse_duration(older),
            keep_bytes=parse_size(keep_bytes),
            now=time.time(),
        )
        freed = 0
        for one in found:
            if dry_run or remove(one):
                freed += one.size
                put(f"{one.name}: {_size(one.size)}, {one.why}")
        verb = "would be freed" if dry_run else "freed"
        put(f"{_size(freed)} {verb}" if found else "nothing to remove")


def _size(size: float) -> str:
    for unit in ("B", "KiB", "MiB"):
        if size < 1024:
            return f"{size:.0f} {unit}"
        size /= 1024
    return f"{size:.1f} GiB"
