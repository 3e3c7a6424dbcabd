"""`runs`: look at recorded runs, and go on from them."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NamedTuple

import typer

from orchestrator.cli.frame import (
    INTERRUPTED,
    ConfigOption,
    ListForm,
    ListOption,
    OutputForm,
    OutputOption,
    RunArgument,
    configured,
    errors,
    put,
    put_json,
    put_painted,
    runs_folder,
    say,
    tabled,
    width,
)
from orchestrator.cli.keeping import gc, recover
from orchestrator.cli.queue import DatabaseOption
from orchestrator.cli.run import run_and_leave
from orchestrator.cli.showing import line_printer, lively
from orchestrator.cli.submitted import cancel, follow, queued_told, retry, wait
from orchestrator.cli.trees import apply, diff, discard, prune

if TYPE_CHECKING:
    from orchestrator.console.story import Asked
    from orchestrator.events import Event

app = typer.Typer(no_args_is_help=True, help="Look at recorded runs, and go on from them.")

app.command()(recover)
app.command()(gc)

CUT_OFF = "cut off"


@app.command("list")
def list_(
    limit: Annotated[int, typer.Option("--limit", "-n", min=1, help="How many, newest last.")] = 20,
    output: ListOption = ListForm.TEXT,
    config: ConfigOption = None,
) -> None:
    """List recorded runs: when, how it ended, of which job and task, by which agent, on what.

    \b
    orchestrate runs list
    orchestrate runs list -n 100 | grep failed
    orchestrate runs list --output json
    """  # noqa: D301 (click takes \b for: leave these lines alone)
    from orchestrator.cli.submitted import has_queue
    from orchestrator.errors import ConfigError
    from orchestrator.journal import list_runs

    with errors():
        entries = [_entry(folder) for folder in list_runs(runs_folder(config))[-limit:]]
        if output is ListForm.JSON:
            put_json([one._asdict() for one in entries], indented=True)
            return
        put(_listed(entries) if entries else "no runs yet")
        if any(one.outcome == CUT_OFF for one in entries):
            say("Records that were cut off are completed by `orchestrate runs recover --all`.")
        with suppress(ConfigError):  # a broken one keeps nobody from what is on record
            if has_queue(config):  # to ask it takes over a second
                say("Jobs that were submitted and not begun: `orchestrate queue list`.")


class _Entry(NamedTuple):
    """A run of the list. `outcome` is also `running`, `cut off` or `unreadable`."""

    run: str
    outcome: str
    started: str | None = None
    job: str | None = None
    task: str | None = None
    agent: str | None = None
    model: str | None = None
    prompt: str | None = None
    problem: str | None = None


def _entry(folder: Path) -> _Entry:
    from orchestrator.errors import JournalError
    from orchestrator.journal import read_outcome, read_record, running

    try:
        record, outcome = read_record(folder), read_outcome(folder)
    except JournalError as error:
        return _Entry(run=folder.name, outcome="unreadable", problem=str(error))
    return _Entry(
        run=folder.name,
        outcome=outcome.status if outcome else "running" if running(folder) else CUT_OFF,
        started=record.started,
        job=record.job_id,
        task=record.task.id,
        agent=record.agent.name,
        model=(outcome and outcome.model) or record.agent.model,
        prompt=record.task.prompt,
    )


def _row(one: _Entry) -> list[str]:
    from orchestrator.console import one_line

    return [
        one.run,
        one.started or "-",
        one.outcome,
        (one.job or "-")[-8:],
        one.task or "-",
        one_line(one.agent or "-", 20),
        one_line(one.model or "-", 30),
        one_line(one.prompt, 40) if one.prompt is not None else one_line(one.problem or "-", 60),
    ]


def _listed(entries: Sequence[_Entry]) -> str:
    """As a table. In a window that is too narrow for it, a run goes by the end of its id, and when
    it began by day and minute.
    """
    from orchestrator.console import table

    rows = [["RUN", "STARTED", "OUTCOME", "JOB", "TASK", "AGENT", "MODEL", "PROMPT"]]
    rows += map(_row, entries)
    room, whole = width(), table(rows)
    if room is None or max(map(len, whole.splitlines())) <= room:
        return whole
    short = ([row[0][-8:], row[1][5:16].replace("T", " "), *row[2:]] for row in rows[1:])
    return tabled([rows[0], *short])


@app.command()
def show(
    run_: RunArgument,
    full: Annotated[
        bool, typer.Option("--full", help="Shorten nothing and leave nothing out.")
    ] = False,
    raw: Annotated[
        bool, typer.Option("--raw", help="What the agent printed, as it is, instead of the story.")
    ] = False,
    tree: Annotated[
        bool, typer.Option("--tree", help="Who handed what on to whom, and what that cost.")
    ] = False,
    database: DatabaseOption = None,
    config: ConfigOption = None,
) -> None:
    """Tell the story of a run: asked, done, changed, how it ended and why.

    \b
    orchestrate runs show last
    orchestrate runs show last --tree
    orchestrate runs show 4f0c2a1b --full | less
    orchestrate runs show 4f0c2a1b --raw | jq .
    """  # noqa: D301 (click takes \b for: leave these lines alone)
    from orchestrator.errors import InputError
    from orchestrator.journal import find_job, find_run

    with errors():
        runs = runs_folder(config)
        if tree:
            _put_tree(runs, run_)
            return
        if (job := find_job(runs.parent / "jobs", run_)) is not None:
            _put_job(job, runs)
            return
        try:
            folder = find_run(runs, run_)
        except InputError:
            if (told := queued_told(run_, config, database)) is None:
                raise
            put(told)
            return
        if raw:
            _print_raw(folder)
        else:
            _put_story(folder, full=full)


def _put_job(job: Path, runs: Path) -> None:
    from orchestrator.cli.jobs import job_told

    colour = lively(sys.stdout)
    for part in job_told(job, runs, width=width(), colour=colour):
        put_painted(part, colour=colour)


def _put_story(folder: Path, *, full: bool) -> None:
    from orchestrator.console.paint import painted
    from orchestrator.console.story import story

    colour = lively(sys.stdout)
    for line in story(_asked(folder), _events(folder), full=full):
        put_painted(painted(line, colour=colour), colour=colour)
    put(f"record     {folder}")


def _put_tree(runs: Path, name: str) -> None:
    from orchestrator.cli.jobs import tree_told
    from orchestrator.errors import InputError
    from orchestrator.journal import find_job, find_run, read_record

    job, run_id = find_job(runs.parent / "jobs", name), None
    if job is None:
        record = read_record(find_run(runs, name))
        job, run_id = runs.parent / "jobs" / (record.job_id or ""), record.run_id
        if record.job_id is None or not job.is_dir():
            raise InputError(f"run {run_id} is of no job that is on record: it has no tree")
    colour = lively(sys.stdout)
    put_painted(tree_told(job, runs, run_id, width=width(), colour=colour), colour=colour)


def _asked(folder: Path) -> Asked:
    from orchestrator.console.story import Asked
    from orchestrator.journal import read_record, running

    record = read_record(folder)
    return Asked(
        run_id=record.run_id,
        started=record.started,
        prompt=record.task.prompt,
        workspace=str(record.task.workspace),
        resumed=record.resumed,
        running=running(folder),
    )


def _events(folder: Path) -> Iterator[Event]:
    """The events of a run; for a line that is none, a notice that says so."""
    from orchestrator.errors import JournalError
    from orchestrator.events import Event, Notice
    from orchestrator.events.wire import decode
    from orchestrator.journal import read_lines

    for number, line in enumerate(read_lines(folder), start=1):
        try:
            yield decode(line)
        except JournalError as error:
            yield Event(
                seq=number,
                time="",
                run_id=folder.name,
                task_id=None,
                agent=None,
                source="supervisor",
                update=Notice(text=f"not readable: {error}"),
            )


def _print_raw(folder: Path) -> None:
    """The agent's stdout: as it is for programs, escaped on a terminal."""
    from orchestrator import private
    from orchestrator.errors import InputError, JournalError
    from orchestrator.journal import STDOUT

    try:
        with os.fdopen(private.opened(folder / STDOUT), "rb") as file:
            if sys.stdout.isatty():
                for line in file:
                    put(line.decode("utf-8", "replace"), end=False)
            else:
                shutil.copyfileobj(file, sys.stdout.buffer)
    except FileNotFoundError as error:
        raise InputError(f"run {folder.name} has no raw output: no agent was started") from error
    except OSError as error:
        raise JournalError(f"cannot read {folder / STDOUT}: {error.strerror}") from error


@app.command()
def tail(
    run_: RunArgument = "last",
    output: OutputOption = OutputForm.TEXT,
    config: ConfigOption = None,
) -> None:
    """Follow a run until it ends.

    \b
    orchestrate runs tail
    orchestrate runs tail 4f0c2a1b --output jsonl | jq .type
    """  # noqa: D301 (click takes \b for: leave these lines alone)
    from orchestrator.journal import find_run, follow_lines

    with errors():
        folder = find_run(runs_folder(config), run_)
        put_line = line_printer(output)
        try:
            for line in follow_lines(folder):
                put_line(line)
        except KeyboardInterrupt:
            raise typer.Exit(INTERRUPTED) from None


@app.command()
def export(
    run_: RunArgument,
    to: Annotated[
        Path | None, typer.Option("--to", help="The archive to write; default: RUN.tar.gz here.")
    ] = None,
    config: ConfigOption = None,
) -> None:
    """Pack a run into one archive: raw output, events, task, outcome; a bug report.

    \b
    orchestrate runs export last
    orchestrate runs export 4f0c2a1b --to report.tar.gz
    """  # noqa: D301 (click takes \b for: leave these lines alone)
    from orchestrator.errors import InputError
    from orchestrator.journal import export_run, find_run, read_outcome

    with errors():
        folder = find_run(runs_folder(config), run_)
        if read_outcome(folder) is None:
            # Keys are taken out of the raw output when a run is over.
            hint = "Wait for its end, or see `orchestrate runs recover`."
            raise InputError(f"run {folder.name} is not over", hint=hint)
        target = to or Path(f"{folder.name}.tar.gz")
        if not target.parent.is_dir():
            raise InputError(f"no folder {target.parent}", hint="Make it, or name another.")
        export_run(folder, target)
        put(str(target))


@app.command()
def resume(
    run_: RunArgument,
    prompt: Annotated[str, typer.Option("--prompt", "-p", help="What to do next.")],
    kind: Annotated[
        str | None, typer.Option(help="Class of the work; not the first run's.")
    ] = None,
    check: Annotated[
        str | None, typer.Option(help="Command that verifies the work; default: as before.")
    ] = None,
    output: OutputOption = OutputForm.TEXT,
    config: ConfigOption = None,
) -> None:
    """Go on in the agent's own session, as a new run: same workspace, agent, access and limits.

    \b
    orchestrate runs resume last -p "Now the docs" --kind docs
    """  # noqa: D301 (click takes \b for: leave these lines alone)
    from dataclasses import replace

    from orchestrator.journal import find_run
    from orchestrator.supervisor import Supervisor
    from orchestrator.task import parse_flags

    with errors():
        loaded = configured(config)
        folder = find_run(loaded.state / "runs", run_)
        task, continued = Supervisor(loaded).resumed(folder, prompt)
        flags = {name: text for name, text in (("kind", kind), ("check", check)) if text}
        if flags:
            flagged = parse_flags({"prompt": "-", **flags}, folder=Path.cwd())
            task = replace(task, **{name: getattr(flagged, name) for name in flags})
        run_and_leave(loaded, task, continued, output)


for command in (diff, apply, discard, prune, follow, wait, cancel, retry):
    app.command()(command)
