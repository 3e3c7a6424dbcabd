"""`submit`, `worker` and `queue`: tasks for the background worker. The engine is loaded here alone,
and only when one of these is used.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Awaitable, Callable
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, TypeVar

import typer

from orchestrator.cli.frame import (
    INTERRUPTED,
    ConfigOption,
    ListForm,
    ListOption,
    OutputForm,
    OutputOption,
    ending,
    errors,
    looked_at,
    put,
    put_json,
    say,
    tabled,
)

if TYPE_CHECKING:
    import anyio

    from orchestrator.worker.client import Client
    from orchestrator.worker.engine import Entry
    from orchestrator.worker.worker import Post, Shift

Result = TypeVar("Result")
FEW = 5

app = typer.Typer(no_args_is_help=True, help="The queue of the background worker.")
DatabaseOption = Annotated[
    str | None,
    typer.Option("--database", help="The queue's address; default: `queue.database`."),
]


def submit(  # noqa: PLR0917 (a flag is a parameter)
    file: Annotated[Path, typer.Argument(metavar="TASK.yaml", help="The task file.")],
    wait: Annotated[bool, typer.Option("--wait", help="Wait for the outcome.")] = False,
    priority: Annotated[int, typer.Option(min=-1000, max=1000, help="The higher the sooner.")] = 0,
    dedup: Annotated[
        str | None,
        typer.Option(help="While a job with the same key is not over, that one is named instead."),
    ] = None,
    delay: Annotated[str | None, typer.Option(help="Not before that time, such as 10m.")] = None,
    database: DatabaseOption = None,
    output: OutputOption = OutputForm.TEXT,
    config: ConfigOption = None,
) -> None:
    """Give a task to the background worker, and print the id of its job at once.

    \b
    orchestrate submit task.yaml
    orchestrate submit task.yaml --priority 10 --delay 10m
    orchestrate submit task.yaml --wait --output json
    """  # noqa: D301 (click takes \b for: leave these lines alone)
    from orchestrator.cli.flags import asked
    from orchestrator.cli.submitted import waited
    from orchestrator.task import parse_duration

    with errors():
        task = asked(file)
        delay_s = None if delay is None else parse_duration(delay)

        async def submitted(client: Client) -> str:
            return await client.submit(
                task,
                priority=priority,
                dedup=dedup,
                delay_s=delay_s,
                folder=Path.cwd(),
                config=None if config is None else config.absolute(),
            )

        job = with_client(submitted, config, database)
        if not wait:
            match output:
                case OutputForm.JSON | OutputForm.JSONL:
                    put_json({"job_id": job})
                case OutputForm.TEXT | OutputForm.QUIET:
                    put(job)
            return
        say(f"job {job}")
        waited(job, output, config, database)


def worker(
    concurrency: Annotated[
        int | None, typer.Option(min=1, help="How many jobs at a time; default: 4.")
    ] = None,
    label: Annotated[
        list[str] | None, typer.Option(help="What this worker has; may be given several times.")
    ] = None,
    drain: Annotated[
        bool, typer.Option("--drain", help="End when no job is waiting any more.")
    ] = False,
    database: DatabaseOption = None,
    config: ConfigOption = None,
) -> None:
    """Take tasks from the queue and run them, until it is told to end.

    The first Ctrl-C or SIGTERM drains (so does a terminal that is closed): what runs is finished,
    nothing else begun. The second stops the agents, the third kills them. The configuration is read
    anew for each job.

    \b
    orchestrate worker
    orchestrate worker --concurrency 2 --database postgresql://queue@desk/queue
    orchestrate worker --label gpu --label site:berlin
    orchestrate worker --drain
    """  # noqa: D301 (click takes \b for: leave these lines alone)
    import gc

    import anyio

    from orchestrator.telemetry import log_to_stderr
    from orchestrator.worker.client import missing_extra, url_of

    with errors():
        loaded = looked_at(config)
        try:
            from orchestrator.worker.worker import Post, Shift
        except ModuleNotFoundError as error:
            if error.name not in {"dbos", "sqlalchemy"}:
                raise
            raise missing_extra() from error
        log_to_stderr()
        gc.enable()
        post = Post(
            url=database or url_of(loaded),
            concurrency=concurrency or loaded.queue.concurrency,
            state=loaded.state,
            config=None if config is None else config.absolute(),
            labels=loaded.queue.labels | _labels(label or []),
        )
        shift = Shift(idle_ends=drain)
        if not anyio.run(_working, post, shift):
            raise typer.Exit(INTERRUPTED)


def _labels(given: list[str]) -> frozenset[str]:
    import re

    from orchestrator.document import LABEL
    from orchestrator.errors import InputError

    for label in given:
        if re.fullmatch(LABEL, label) is None:
            raise InputError(f"--label: {label!r} is none", hint="Such as gpu, or site:berlin.")
    return frozenset(given)


async def _working(post: Post, shift: Shift) -> bool:
    """A shift, until it is over; False if it was ended by force."""
    import anyio

    from orchestrator.errors import lone_error
    from orchestrator.worker.worker import work

    with lone_error():
        async with anyio.create_task_group() as group:
            await group.start(_signals, shift, group.cancel_scope)
            await work(post, shift, _tell)
            group.cancel_scope.cancel()
            return True
    return False


def _tell(text: str) -> None:
    """What the worker does, as long as somebody can read it: its terminal may be closed."""
    with suppress(OSError):
        say(text)


async def _signals(
    shift: Shift, scope: anyio.CancelScope, *, task_status: anyio.abc.TaskStatus[None]
) -> None:
    import anyio

    with anyio.open_signal_receiver(*ending()) as received:
        task_status.started()
        async for _ in received:
            if not shift.draining.is_set():
                shift.drain()
                _tell("no further jobs; once more to stop those that run")
            elif not shift.stopping.is_set():
                shift.stop()
                _tell("stopping the agents; once more to kill them")
            else:
                scope.cancel()


@app.command("list")
def list_(
    every: Annotated[bool, typer.Option("--all", help="Those that are over, too.")] = False,
    limit: Annotated[
        int, typer.Option(min=1, help="At most so many, the latest that were submitted.")
    ] = 1000,
    database: DatabaseOption = None,
    output: ListOption = ListForm.TEXT,
    config: ConfigOption = None,
) -> None:
    """List the jobs that wait or run, in the order in which they will be taken.

    \b
    orchestrate queue list
    orchestrate queue list --all --output json
    orchestrate queue list --all --limit 100000
    """  # noqa: D301 (click takes \b for: leave these lines alone)
    from orchestrator.errors import counted

    async def listed(client: Client) -> tuple[bool, list[Entry], dict[str, str]]:
        # One more than is shown tells whether there are more.
        entries = list(await client.entries(waiting=not every, limit=limit + 1))
        if len(entries) > limit:
            most = counted(limit, "job")
            say(f"Only the latest {most}, and there are more: such as `--limit {limit * 10}`.")
            entries = entries[-limit:]
        return await client.paused(), entries, await client.why_waiting(entries)

    with errors():
        paused, entries, why = with_client(listed, config, database)
        entries.sort(key=_turn)
        if output is ListForm.JSON:
            jobs = [_as_json(entry) | {"waits": why.get(entry.job_id)} for entry in entries]
            put_json({"paused": paused, "jobs": jobs})
            return
        if paused:
            say("The queue is paused: no worker takes a job. `orchestrate queue unpause`")
        rows = [["JOB", "STATE", "PRIORITY", "SUBMITTED", "WORKER", "TASKS", "PROMPT"]]
        rows += [_row(entry) for entry in entries]
        put(tabled(rows) if len(rows) > 1 else "no jobs")
        for line in _waits(why):
            say(line)


def _waits(why: dict[str, str]) -> list[str]:
    """What jobs wait for: with many of them, each cause once."""
    if len(why) <= FEW:
        return [f"{job_id} waits: {missing}" for job_id, missing in why.items()]
    from orchestrator.errors import counted

    causes = Counter(why.values()).items()
    return [
        f"{counted(count, 'job')} {'waits' if count == 1 else 'wait'}: {cause}"
        for cause, count in causes
    ]


def _turn(entry: Entry) -> tuple[int, int, float]:
    order = ("running", "waiting", "delayed")
    place = order.index(entry.state) if entry.state in order else -1
    return place, -entry.priority, entry.submitted or 0.0


def _row(entry: Entry) -> list[str]:
    from orchestrator.console import one_line
    from orchestrator.worker.client import shown_state

    notes = entry.notes or {}
    return [
        entry.job_id,
        shown_state(entry),
        str(entry.priority),
        _instant(entry.submitted),
        one_line(entry.worker or "-", 30),
        str(notes.get("tasks", "-")),
        one_line(str(notes.get("prompt", "-")), 40),
    ]


def _as_json(entry: Entry) -> dict[str, object]:
    from orchestrator.worker.client import shown_state

    notes = entry.notes or {}
    return {
        "job_id": entry.job_id,
        "state": shown_state(entry),
        "priority": entry.priority,
        "submitted": _instant(entry.submitted),
        "worker": entry.worker,
        "attempts": entry.attempts,
        "name": notes.get("name"),
        "tasks": notes.get("tasks"),
    }


async def told(client: Client, job_id: str) -> str:
    """What the queue knows of a job, for a person."""
    from orchestrator.errors import shown
    from orchestrator.worker.client import outcome_of

    entry = await client.entry(job_id)
    outcome = outcome_of(entry)
    notes = entry.notes or {}
    rows = {
        "job": entry.job_id,
        "state": outcome.status if outcome is not None else entry.state,
        "priority": str(entry.priority),
        "submitted": _instant(entry.submitted),
        "not before": _instant(entry.delayed_until),
        "started": _instant(entry.started),
        "ended": _instant(entry.ended),
        "worker": entry.worker or "-",
        "prompt": shown(str(notes.get("prompt", "-"))),
    }
    if entry.state == "waiting" and await client.paused():
        rows["waits"] = "the queue is paused: `orchestrate queue unpause`"
    elif why := await client.why_waiting([entry]):
        rows["waits"] = shown(why[job_id])
    if outcome is not None and outcome.error is not None:
        rows["cause"] = shown(outcome.error.text)
    lines = (f"{key:<10} {value}" for key, value in rows.items() if value != "-")
    return "\n".join(lines)


def _instant(seconds: float | None) -> str:
    from datetime import UTC, datetime

    if seconds is None:
        return "-"
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


@app.command()
def pause(database: DatabaseOption = None, config: ConfigOption = None) -> None:
    """Let no worker take a job. What is running goes on.

    \b
    orchestrate queue pause
    """  # noqa: D301 (click takes \b for: leave these lines alone)
    with errors():
        with_client(lambda client: client.pause(paused=True), config, database)
        put("paused")


@app.command()
def unpause(database: DatabaseOption = None, config: ConfigOption = None) -> None:
    """Let the workers take jobs again.

    \b
    orchestrate queue unpause
    """  # noqa: D301 (click takes \b for: leave these lines alone)
    with errors():
        with_client(lambda client: client.pause(paused=False), config, database)
        put("unpaused")


@app.command()
def gc(
    older: Annotated[
        str, typer.Option(help="Jobs that were over longer ago than this go, such as 12h or 30d.")
    ] = "30d",
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what would go.")] = False,
    database: DatabaseOption = None,
    config: ConfigOption = None,
) -> None:
    """Forget jobs that are over, with their events. Records of runs are `runs gc`'s.

    \b
    orchestrate queue gc --dry-run
    orchestrate queue gc --older 7d
    """  # noqa: D301 (click takes \b for: leave these lines alone)
    from orchestrator.task import parse_duration

    with errors():
        older_s = parse_duration(older)

        async def removed(client: Client) -> list[Entry]:
            return await client.remove(older_s=older_s, dry_run=dry_run)

        gone = with_client(removed, config, database)
        for entry in gone:
            put(f"{entry.job_id}: {entry.state}")
        put(f"{len(gone)} {'would go' if dry_run else 'removed'}" if gone else "nothing to remove")


def with_client(
    do: Callable[[Client], Awaitable[Result]], config: Path | None, database: str | None = None
) -> Result:
    """Do something with the queue, opened."""
    import anyio

    from orchestrator.errors import lone_error
    from orchestrator.worker.client import Client, url_of

    url = database or url_of(looked_at(config))

    async def done() -> Result:
        async with Client(url) as client:
            return await do(client)

    with lone_error():
        return anyio.run(done)
