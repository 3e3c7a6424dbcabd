"""`runs wait`, `follow`, `cancel`, `retry`: of jobs that were submitted, and of those run here."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NoReturn

import typer

from orchestrator.cli.completing import runs_there
from orchestrator.cli.frame import (
    ConfigOption,
    OutputForm,
    OutputOption,
    configured,
    errors,
    fail,
    looked_at,
    put,
    put_json,
    records,
    say,
    status,
)
from orchestrator.cli.queue import DatabaseOption

if TYPE_CHECKING:
    from orchestrator.errors import InputError
    from orchestrator.events import Outcome
    from orchestrator.worker.client import Client

_POLL_S = 0.1
JobArgument = Annotated[
    str,
    typer.Argument(
        metavar="ID",
        help="Id of a job or run, a unique part of its end or beginning, or `last`.",
        autocompletion=runs_there,
    ),
]


@dataclass(frozen=True, kw_only=True)
class Found:
    """A job: its record here, if there is one, and whether the queue knows it."""

    job_id: str
    folder: Path | None
    queued: bool


def found(name: str, config: Path | None, database: str | None) -> Found:
    """The job of this name, or the one that the run of this name is of. Raises InputError."""
    from orchestrator.errors import InputError
    from orchestrator.journal import find_job, find_run, read_job, read_record

    state = records(config)
    folder = find_job(state / "jobs", name)
    if folder is None:
        try:
            job_id = read_record(find_run(state / "runs", name)).job_id
        except InputError as error:
            return _in_queue(name, config, database, error)
        folder = state / "jobs" / (job_id or "")
        if job_id is None or not folder.exists():
            fail(f"run {name!r} is of no job: it is too old")
    return Found(job_id=folder.name, folder=folder, queued=read_job(folder).queued)


def _in_queue(name: str, config: Path | None, database: str | None, unknown: InputError) -> Found:
    from orchestrator.cli.queue import with_client
    from orchestrator.errors import InputError

    if database is None and not has_queue(config):
        raise unknown
    job_id = with_client(lambda client: client.find(name), config, database)
    if job_id is None:
        raise InputError(f"no run and no job {name!r}", hint="See `runs list` and `queue list`.")
    return Found(job_id=job_id, folder=None, queued=True)


def queued_told(name: str, config: Path | None, database: str | None) -> str | None:
    """What the queue knows of a job that has no record here; None: it knows none."""
    from orchestrator.cli.queue import told, with_client

    if database is None and not has_queue(config):
        return None

    async def looked(client: Client) -> str | None:
        job_id = await client.find(name)
        return None if job_id is None else await told(client, job_id)

    return with_client(looked, config, database)


def has_queue(config: Path | None) -> bool:
    """Whether there is a queue to ask: nobody makes one by looking."""
    loaded = looked_at(config)
    return loaded.queue.database is not None or (loaded.state / "queue").is_dir()


def wait(
    job: JobArgument,
    output: OutputOption = OutputForm.TEXT,
    database: DatabaseOption = None,
    config: ConfigOption = None,
) -> None:
    """Wait until a job is over; its outcome, and the exit status that it would have had here.

    \b
    orchestrate runs wait 4f0c2a1b
    orchestrate runs wait last --output json | jq .status
    """  # noqa: D301 (click takes \b for: leave these lines alone)
    from orchestrator.cli.queue import with_client

    with errors():
        one = found(job, config, database)
        if one.queued:
            leave(with_client(lambda client: client.wait(one.job_id), config, database), output)
        leave(_over(one), output)


def _over(one: Found) -> Outcome:
    """How a job that is run here ended, when it has."""
    from orchestrator.journal import read_job_outcome, running

    folder = one.folder or Path()
    while running(folder):
        time.sleep(_POLL_S)
    outcome = read_job_outcome(folder)
    if outcome is None:
        fail(f"job {one.job_id} was cut off: `orchestrate runs recover --all` completes its record")
    return outcome


def follow(
    job: JobArgument = "last",
    output: OutputOption = OutputForm.TEXT,
    database: DatabaseOption = None,
    config: ConfigOption = None,
) -> None:
    """Follow a job, all its runs, until it is over: from its beginning, whenever one comes.

    \b
    orchestrate runs follow
    orchestrate runs follow 4f0c2a1b --output jsonl | jq .type
    """  # noqa: D301 (click takes \b for: leave these lines alone)
    from orchestrator.cli.queue import with_client
    from orchestrator.cli.showing import line_printer, printer
    from orchestrator.journal import follow_job

    with errors():
        one = found(job, config, database)
        if one.queued:
            show = printer(output)

            async def followed(client: Client) -> None:
                async for each in client.follow(one.job_id):
                    show(each.event)

            with_client(followed, config, database)
            return
        put_line = line_printer(output)
        for line in follow_job(records(config), one.job_id):
            put_line(line)


def cancel(job: JobArgument, database: DatabaseOption = None, config: ConfigOption = None) -> None:
    """End a job, whoever runs it and wherever: its agents are killed.

    \b
    orchestrate runs cancel 4f0c2a1b
    """  # noqa: D301 (click takes \b for: leave these lines alone)
    from orchestrator.cli.queue import with_client
    from orchestrator.journal import ask_to_cancel, running

    with errors():
        one = found(job, config, database)
        if one.queued:
            going = with_client(lambda client: client.cancel(one.job_id), config, database)
        else:
            going = running(one.folder or Path())
            if going:
                ask_to_cancel(one.folder or Path())
        if not going:
            fail(f"job {one.job_id} is over")
        put(one.job_id)


def retry(
    job: JobArgument,
    output: OutputOption = OutputForm.TEXT,
    database: DatabaseOption = None,
    config: ConfigOption = None,
) -> None:
    """Do a job once more, as a new one: in the queue if it was submitted, else here.

    \b
    orchestrate runs retry 4f0c2a1b
    """  # noqa: D301 (click takes \b for: leave these lines alone)
    from orchestrator.cli.queue import with_client
    from orchestrator.cli.run import run_and_leave
    from orchestrator.journal import read_job, running
    from orchestrator.task import TaskFile

    with errors():
        one = found(job, config, database)
        if one.queued:
            again = with_client(lambda client: client.retry(one.job_id), config, database)
            if output in {OutputForm.JSON, OutputForm.JSONL}:
                put_json({"job_id": again})
            else:
                put(again)
            return
        folder = one.folder or Path()
        if running(folder):
            fail(f"job {one.job_id} is not over")
        record = read_job(folder)
        file = TaskFile(
            tasks=record.tasks,
            name=record.name,
            concurrency=record.concurrency,
            limits=record.limits,
            single=record.single,
        )
        task = file.tasks[0] if file.single else file
        run_and_leave(configured(config), task, None, output)


def waited(job: str, output: OutputForm, config: Path | None, database: str | None) -> NoReturn:
    """Show a job of the queue until it is over, then its outcome and its exit status."""
    from orchestrator.cli.queue import with_client
    from orchestrator.cli.showing import printer

    show = printer(output)

    async def until_over(client: Client) -> Outcome:
        if output in {OutputForm.TEXT, OutputForm.JSONL}:
            async for one in client.follow(job):
                show(one.event)
        return await client.wait(job)

    leave(with_client(until_over, config, database), output)


def leave(outcome: Outcome, output: OutputForm) -> NoReturn:
    from orchestrator.console import one_line

    match output:
        case OutputForm.JSON:
            put_json(outcome)
        case OutputForm.TEXT:
            put(outcome.status)
        case OutputForm.JSONL | OutputForm.QUIET:
            pass
    if outcome.error is not None and output is not OutputForm.JSON:
        say(f"{outcome.status}: {one_line(outcome.error.text, 400)}")
        if outcome.error.hint:
            say(f"remedy: {one_line(outcome.error.hint, 400)}")
    raise typer.Exit(status(outcome))
