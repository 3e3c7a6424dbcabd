"""The command line. Only this module prints, configures logging and picks exit statuses.

0 succeeded (and verified where checked), 1 not, 2 wrong input, 3 our own failure, 130 interrupted.
What is heavy is imported where it is used, so that `--help` stays quick.
"""

from __future__ import annotations

import gc
import os
import sys
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NoReturn

import typer

if TYPE_CHECKING:
    from anyio import CancelScope
    from anyio.abc import TaskStatus

    from orchestrator.adapter import Exit
    from orchestrator.config import Config
    from orchestrator.discovery import Survey
    from orchestrator.events import Event, Outcome
    from orchestrator.supervisor import Continued, Supervisor
    from orchestrator.task import Task

SUCCEEDED, NOT_SUCCEEDED, WRONG_INPUT, OUR_FAILURE, INTERRUPTED = 0, 1, 2, 3, 130

app = typer.Typer(
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    no_args_is_help=True,
    help="Run coding agents as supervised processes: one event stream, one truthful outcome.",
)
runs = typer.Typer(no_args_is_help=True, help="Look at recorded runs, and go on from them.")
app.add_typer(runs, name="runs")
agents = typer.Typer()
app.add_typer(agents, name="agents")


class OutputForm(StrEnum):
    """What `--output` may be."""

    TEXT = "text"
    JSONL = "jsonl"
    JSON = "json"
    QUIET = "quiet"


class ListForm(StrEnum):
    """What `--output` of a list may be."""

    TEXT = "text"
    JSON = "json"


class SchemaName(StrEnum):
    """What `schema` can print."""

    TASK = "task"
    EVENTS = "events"


TaskFileArgument = Annotated[
    Path | None, typer.Argument(metavar="TASK.yaml", help="The task file; or use --prompt.")
]
OutputOption = Annotated[
    OutputForm,
    typer.Option(
        "--output",
        "-o",
        help="text: for people; jsonl: the event stream; json: only the outcome; quiet: nothing.",
    ),
]
ConfigOption = Annotated[
    Path | None,
    typer.Option("--config", help="Configuration file, trusted because you name it."),
]
ListOption = Annotated[
    ListForm, typer.Option("--output", "-o", help="text: for people; json: for programs.")
]
RunArgument = Annotated[
    str,
    typer.Argument(metavar="RUN", help="Run id, a unique part of its end or beginning, or `last`."),
]


@app.command()
def run(  # noqa: PLR0913, PLR0917 (a flag is a parameter)
    file: TaskFileArgument = None,
    prompt: Annotated[str | None, typer.Option("--prompt", "-p", help="What to do.")] = None,
    check: Annotated[str | None, typer.Option(help="Command that verifies the work.")] = None,
    agent: Annotated[str | None, typer.Option(help="The agent, by name.")] = None,
    model: Annotated[str | None, typer.Option(help="The model, as the agent names it.")] = None,
    base_url: Annotated[str | None, typer.Option(help="Where the model is served.")] = None,
    api_key_env: Annotated[
        str | None, typer.Option(help="Name of the variable that holds the key.")
    ] = None,
    kind: Annotated[str | None, typer.Option(help="Class of the work, such as fix.")] = None,
    access: Annotated[str | None, typer.Option(help="read, edit or full.")] = None,
    privacy: Annotated[str | None, typer.Option(help="any or local.")] = None,
    workspace: Annotated[
        Path | None, typer.Option("--workspace", "-C", help="The folder to work in.")
    ] = None,
    wall: Annotated[str | None, typer.Option(help="Time limit, such as 10m.")] = None,
    output: OutputOption = OutputForm.TEXT,
    config: ConfigOption = None,
) -> None:
    """Run a task: TASK.yaml, or --prompt. Flags win over the file; limits only tighten.

    \b
    orchestrate run task.yaml
    orchestrate run -p "fix the failing test" --check "pytest -q" --agent codex
    orchestrate run -p "explain this" --agent litellm --model ollama_chat/qwen2.5-coder:32b
    """  # noqa: D301 (click takes \b for: leave these lines alone)
    flags = {
        "prompt": prompt,
        "check": check,
        "agent": agent,
        "model": model,
        "base_url": base_url,
        "api_key_env": api_key_env,
        "kind": kind,
        "access": access,
        "privacy": privacy,
    }
    with _errors():
        task = _task(file, {name: value for name, value in flags.items() if value is not None})
        task = _tightened(task, workspace, wall)
        _run(_load_config(config), task, None, output)


@app.command()
def validate(file: Annotated[Path, typer.Argument(metavar="TASK.yaml")]) -> None:
    """Check a task file without running it; every problem is told with its line and column."""
    with _errors():
        task = _read_task(file)
        if task.template is None and not task.workspace.is_dir():
            _fail(f"{file}: workspace: no folder {task.workspace}")
        if task.template is not None and not task.template.is_dir():
            _fail(f"{file}: workspace.scratch: no folder {task.template}")
        typer.echo(f"{file}: valid")


@app.command()
def schema(name: Annotated[SchemaName, typer.Argument(help="Which one.")]) -> None:
    """Print the JSON Schema of a task file or of an event."""
    import orjson

    from orchestrator import events, task

    value = task.task_schema() if name is SchemaName.TASK else events.schema()
    typer.echo(orjson.dumps(value, option=orjson.OPT_INDENT_2))


@app.command()
def replay(  # noqa: PLR0917 (a flag is a parameter)
    adapter: Annotated[
        str, typer.Argument(help="The adapter's name, or an agent's with --config.")
    ],
    stdout_file: Annotated[Path, typer.Argument(help="The raw stdout of the CLI.")],
    stderr: Annotated[Path | None, typer.Option(help="Its raw stderr.")] = None,
    exit_: Annotated[
        int, typer.Option("--exit", help="Its exit status; -N for signal N.", show_default=True)
    ] = 0,
    task: Annotated[Path | None, typer.Option(help="The task file that it was given.")] = None,
    output: OutputOption = OutputForm.TEXT,
    config: ConfigOption = None,
) -> None:
    """Turn a raw recording into events; the last one is run.finished with the outcome.

    \b
    orchestrate replay codex stdout.jsonl --exit=1 --output jsonl
    """  # noqa: D301 (click takes \b for: leave these lines alone)
    with _errors():
        outcome = _replay(
            adapter, stdout_file, _exit(exit_, stderr), task, output, _load_config(config)
        )
        raise typer.Exit(_status(outcome))


@app.command()
def version() -> None:
    """Print the version."""
    from orchestrator import __version__

    typer.echo(__version__)


# --- runs ----------------------------------------------------------------------------------------


@runs.command("list")
def list_(
    limit: Annotated[int, typer.Option("--limit", "-n", min=1, help="How many, newest last.")] = 20,
    config: ConfigOption = None,
) -> None:
    """List recorded runs: when, how it ended, by which agent, on what."""
    from orchestrator.console import one_line, table
    from orchestrator.errors import JournalError
    from orchestrator.journal import list_runs, read_outcome, read_record, running

    with _errors():
        rows = [["RUN", "STARTED", "OUTCOME", "AGENT", "MODEL", "PROMPT"]]
        for folder in list_runs(_runs_folder(config))[-limit:]:
            try:
                record, outcome = read_record(folder), read_outcome(folder)
            except JournalError as error:
                rows.append([folder.name, "-", "unreadable", "-", "-", one_line(str(error), 60)])
                continue
            rows.append(
                [
                    folder.name,
                    record.started,
                    outcome.status if outcome else "running" if running(folder) else "cut off",
                    one_line(record.agent.name, 20),
                    one_line((outcome and outcome.model) or record.agent.model or "-", 30),
                    one_line(record.task.prompt, 40),
                ]
            )
        typer.echo(table(rows) if len(rows) > 1 else "no runs yet")


@runs.command()
def show(run_: RunArgument, config: ConfigOption = None) -> None:
    """Tell the story of a run: what was asked, what was done, what changed, how it ended and
    why.
    """
    from orchestrator.console import safe, step
    from orchestrator.errors import JournalError
    from orchestrator.events import decode
    from orchestrator.journal import find_run, read_lines, read_record

    with _errors():
        folder = find_run(_runs_folder(config), run_)
        record = read_record(folder)
        typer.echo(f"run {record.run_id}, started {record.started}")
        if record.resumed:
            typer.echo(f"resumes {record.resumed}")
        typer.echo(f"workspace: {safe(str(record.task.workspace))}")
        typer.echo("asked: " + safe(record.task.prompt.strip()) + "\n")
        for line in read_lines(folder):
            try:
                text = step(decode(line))
            except JournalError as error:
                text = f"  not readable: {safe(str(error))}"
            if text is not None:
                typer.echo(text)
        typer.echo(f"\nrecord: {folder}")


@runs.command()
def tail(
    run_: RunArgument = "last",
    output: OutputOption = OutputForm.TEXT,
    config: ConfigOption = None,
) -> None:
    """Follow a run until it ends."""
    from orchestrator.journal import find_run, follow_lines

    with _errors():
        folder = find_run(_runs_folder(config), run_)
        show_line = _line_printer(output)
        try:
            for line in follow_lines(folder):
                show_line(line)
        except KeyboardInterrupt:
            raise typer.Exit(INTERRUPTED) from None


@runs.command()
def export(
    run_: RunArgument,
    to: Annotated[
        Path | None, typer.Option("--to", help="The archive to write; default: RUN.tar.gz here.")
    ] = None,
    config: ConfigOption = None,
) -> None:
    """Pack a run (raw output, events, task, outcome) into one archive: a bug report."""
    from orchestrator.journal import export_run, find_run

    with _errors():
        folder = find_run(_runs_folder(config), run_)
        target = to or Path(f"{folder.name}.tar.gz")
        export_run(folder, target)
        typer.echo(str(target))


@runs.command()
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
    """Go on in the agent's own session, as a new run: same workspace, agent, access and limits."""
    from dataclasses import replace

    from orchestrator.journal import find_run
    from orchestrator.supervisor import Supervisor
    from orchestrator.task import parse_flags

    with _errors():
        loaded = _load_config(config)
        folder = find_run(loaded.state / "runs", run_)
        task, continued = Supervisor(loaded).resumed(folder, prompt)
        flags = {name: text for name, text in (("kind", kind), ("check", check)) if text}
        if flags:
            flagged = parse_flags({"prompt": "-", **flags}, folder=Path.cwd())
            task = replace(task, **{name: getattr(flagged, name) for name in flags})
        _run(loaded, task, continued, output)


# --- agents --------------------------------------------------------------------------------------


@agents.callback(invoke_without_command=True)
def agents_(
    context: typer.Context, output: ListOption = ListForm.TEXT, config: ConfigOption = None
) -> None:
    """List agents, install them, choose the default one.

    Without a command: every adapter (program, version, versions tested, key or login) and agent.

    \b
    orchestrate agents
    orchestrate agents --output json
    orchestrate agents install codex
    orchestrate agents use codex
    """  # noqa: D301 (click takes \b for: leave these lines alone)
    if context.invoked_subcommand is not None:
        return
    import anyio

    from orchestrator.discovery import survey

    with _errors():
        found = anyio.run(survey, _load_config(config))
        if output is ListForm.JSON:
            import orjson

            typer.echo(orjson.dumps(found, option=orjson.OPT_INDENT_2))
        else:
            typer.echo(_agents_told(found))


def _agents_told(survey: Survey) -> str:
    """Adapters and agents as two tables."""
    from orchestrator.console import table

    adapters = [["ADAPTER", "PROGRAM", "VERSION", "TESTED", "AUTH", "DIALECTS"]]
    for one in survey.adapters:
        stated = one.version or "-"
        path = one.path or (f"not installed ({one.install})" if one.install else "-")
        version = f"{stated} (untested)" if one.untested else stated
        tested, dialects = ", ".join(one.tested) or "-", ", ".join(one.dialects) or "-"
        adapters.append([one.name, one.problem or path, version, tested, one.auth, dialects])
    agents = [["AGENT", "ADAPTER", "MODEL", "SERVER", "TIER", "PROFILE", "ACCESS", "AUTH", ""]]
    for agent in survey.agents:
        where = [agent.model or "-", agent.server or "-", agent.tier, agent.profile]
        held = ", ".join(agent.access) or "not enforced"
        note = "; ".join(filter(None, ["default" if agent.default else "", agent.problem]))
        agents.append([agent.name, agent.adapter, *where, held, agent.auth or "-", note])
    return f"{table(adapters)}\n\n{table(agents)}"


@agents.command("install")
def install_(
    name: Annotated[str, typer.Argument(help="The adapter's name, such as codex.")],
    force: Annotated[
        bool, typer.Option("--force", help="Install although the tested version is there.")
    ] = False,
    config: ConfigOption = None,
) -> None:
    """Install the tested version of an agent's CLI, into a folder of orchestrate's own.

    What is downloaded is what the lock of the adapter says, by its hashes. pip and npm obey your
    own settings (mirrors, proxies).

    \b
    orchestrate agents install codex
    orchestrate agents install litellm --force
    """  # noqa: D301 (click takes \b for: leave these lines alone)
    import anyio

    from orchestrator.install import install

    with _errors():
        loaded = _load_config(config)

        async def do() -> str:
            done = await install(name, loaded, _say, force=force)
            what = "is installed" if done.fresh else "was installed already"
            return f"{name} {done.version} {what}: {done.path}"

        typer.echo(anyio.run(do))


@agents.command("use")
def use_(
    name: Annotated[str, typer.Argument(help="The agent's name, as `orchestrate agents` has it.")],
    config: ConfigOption = None,
) -> None:
    """Make an agent the default one, in your configuration file (or the one named by --config).

    \b
    orchestrate agents use codex
    """  # noqa: D301 (click takes \b for: leave these lines alone)
    from orchestrator.config import set_default

    with _errors():
        path = set_default(name, _load_config(config), config)
        typer.echo(f"{name} is the default agent ({path})")
        winner = _load_config(config).default_agent
        if winner != name:
            _say(f"but in this folder it is {winner}: its orchestrate.toml says so")


# --- running -------------------------------------------------------------------------------------


def _run(config: Config, task: Task, continued: Continued | None, output: OutputForm) -> NoReturn:
    import anyio

    from orchestrator.telemetry import log_to_stderr

    log_to_stderr()
    outcome = anyio.run(_supervise, config, task, continued, output)
    _print_outcome(outcome, output, config)
    raise typer.Exit(_status(outcome))


async def _supervise(
    config: Config, task: Task, continued: Continued | None, output: OutputForm
) -> Outcome:
    import anyio

    from orchestrator.errors import lone_error
    from orchestrator.events import Outcome
    from orchestrator.supervisor import Supervisor

    gc.enable()
    outcome = Outcome(status="interrupted")  # stays so if the second Ctrl-C ends it all at once
    with lone_error():
        async with anyio.create_task_group() as group, Supervisor(config) as supervisor:
            await group.start(_interrupts, supervisor, group.cancel_scope)
            show = _or_stop(_printer(output), supervisor)
            outcome = await supervisor.run(task, show, continued=continued)
            group.cancel_scope.cancel()
    return outcome


def _or_stop(show: Callable[[Event], None], supervisor: Supervisor) -> Callable[[Event], None]:
    """Stop the run if its events cannot be shown: the disk is full, or whoever read them is
    gone.
    """
    failed = False

    def show_or_stop(event: Event) -> None:
        nonlocal failed
        try:
            if not failed:
                show(event)
        except OSError as error:
            failed = True
            supervisor.interrupt(f"the output cannot be written: {error.strerror}")

    return show_or_stop


async def _interrupts(
    supervisor: Supervisor, scope: CancelScope, *, task_status: TaskStatus[None]
) -> None:
    """The first Ctrl-C (or SIGTERM) stops the agent cleanly, the second one at once."""
    import signal

    import anyio

    with anyio.open_signal_receiver(signal.SIGINT, signal.SIGTERM) as received:
        task_status.started()
        async for _ in received:
            _say("stopping the agent; once more to stop at once")
            supervisor.interrupt()
            break
        async for _ in received:
            scope.cancel()


def _printer(output: OutputForm) -> Callable[[Event], None]:
    from orchestrator.console import told
    from orchestrator.events import encode

    def jsonl(event: Event) -> None:
        sys.stdout.buffer.write(encode(event) + b"\n")
        sys.stdout.buffer.flush()

    def text(event: Event) -> None:
        if (line := told(event)) is not None:
            _say(line)

    match output:
        case OutputForm.JSONL:
            return jsonl
        case OutputForm.TEXT:
            return text
        case OutputForm.JSON | OutputForm.QUIET:
            return _silent


def _silent(event: Event) -> None:
    del event


def _print_outcome(outcome: Outcome, output: OutputForm, config: Config) -> None:
    import orjson

    from orchestrator.console import summary

    match output:
        case OutputForm.TEXT:
            _say("")
            typer.echo(summary(outcome, workspace=_workspace(outcome, config)))
        case OutputForm.JSON:
            typer.echo(orjson.dumps(outcome))
        case OutputForm.JSONL | OutputForm.QUIET:
            if outcome.error is not None:
                from orchestrator.console import one_line

                _say(f"{outcome.status}: {one_line(outcome.error.text, 400)}")
                if outcome.error.hint:
                    _say(f"remedy: {one_line(outcome.error.hint, 400)}")


def _workspace(outcome: Outcome, config: Config) -> str | None:
    from orchestrator.journal import read_record

    if outcome.run_id is None:
        return None
    return str(read_record(config.state / "runs" / outcome.run_id).task.workspace)


def _line_printer(output: OutputForm) -> Callable[[bytes], None]:
    """What `tail` does with a journal's line."""
    from orchestrator.events import decode

    show_event = _printer(output)

    def print_line(line: bytes) -> None:
        if output is OutputForm.JSONL:
            sys.stdout.buffer.write(line + b"\n")
            sys.stdout.buffer.flush()
        else:
            show_event(decode(line))

    return print_line


# --- replaying -----------------------------------------------------------------------------------


def _replay(
    name: str,
    stdout_file: Path,
    exit_: Exit,
    task_file: Path | None,
    output: OutputForm,
    config: Config,
) -> Outcome:
    from orchestrator.adapter import Agent
    from orchestrator.config import check_adapter
    from orchestrator.run import replay as replayed
    from orchestrator.task import Task

    task = _read_task(task_file) if task_file else Task(prompt="(a recording)")
    agent = next((one for one in config.agents if one.name == name), None)
    if agent is None:
        check_adapter(name, config.adapters, "replay")
        agent = Agent(name=name, adapter=name)
    outcome = replayed(
        config.adapters[agent.adapter],
        task=task,
        agent=agent,
        stdout=_chunks(stdout_file),
        exit_=exit_,
        publish=_printer(output),
    )
    if output is not OutputForm.JSONL:
        import orjson

        from orchestrator.console import summary

        if output is OutputForm.TEXT:
            typer.echo(summary(outcome))
        elif output is OutputForm.JSON:
            typer.echo(orjson.dumps(outcome))
    return outcome


def _chunks(path: Path) -> Iterator[bytes]:
    try:
        with path.open("rb") as file:
            while chunk := file.read(64 * 1024):
                yield chunk
    except OSError as error:
        _fail(f"cannot read {path}: {error.strerror}")


def _exit(number: int, stderr: Path | None) -> Exit:
    from orchestrator.adapter import Exit

    try:
        text = stderr.read_bytes().decode("utf-8", "replace") if stderr else ""
    except OSError as error:
        _fail(f"cannot read {stderr}: {error.strerror}")
    if number < 0:
        return Exit(signal=-number, stderr=text)
    return Exit(status=number, stderr=text)


# --- input ---------------------------------------------------------------------------------------


def _task(file: Path | None, flags: dict[str, str]) -> Task:
    """The task of a file with flags on top, or of the flags alone."""
    from dataclasses import replace

    if file is None and "prompt" not in flags:
        _fail("no task: name a TASK.yaml, or say what to do with --prompt")
    task = _read_task(file) if file else None
    if not flags:
        assert task is not None  # noqa: S101 (else there is a prompt among the flags)
        return task
    from orchestrator.task import parse_flags

    flagged = parse_flags({"prompt": "-", **flags}, folder=Path.cwd())
    if task is None:
        return flagged
    stated = {name: getattr(flagged, name) for name in flags if name != "privacy"}
    task = replace(task, **stated)
    return replace(task, privacy="local") if flagged.privacy == "local" else task


def _tightened(task: Task, workspace: Path | None, wall: str | None) -> Task:
    from dataclasses import replace

    if workspace is not None:
        task = replace(task, workspace=workspace.absolute(), template=None)
    if wall is not None:
        from orchestrator.task import parse_flags

        flags = {"prompt": "-", "limits": {"wall": wall}}
        limits = parse_flags(flags, folder=Path.cwd()).limits
        task = replace(task, limits=task.limits.meet(limits))
    return task


def _read_task(file: Path) -> Task:
    from orchestrator.task import SIZE_LIMIT, parse_task

    try:
        with file.open("rb") as opened:
            text = opened.read(SIZE_LIMIT + 1)
    except OSError as error:
        _fail(f"cannot read {file}: {error.strerror}")
    return parse_task(text, file=str(file), folder=file.absolute().parent)


def _load_config(path: Path | None) -> Config:
    from orchestrator.config import load_config

    return load_config(path)


def _runs_folder(config: Path | None) -> Path:
    return _load_config(config).state / "runs"


# --- saying --------------------------------------------------------------------------------------


def _status(outcome: Outcome) -> int:
    if outcome.status == "interrupted":
        return INTERRUPTED
    return SUCCEEDED if outcome.ok else NOT_SUCCEEDED


def _say(text: str) -> None:
    """To stderr, where everything goes that is not the result."""
    typer.echo(text, err=True)


def _fail(text: str) -> NoReturn:
    from orchestrator.errors import InputError

    raise InputError(text)


@contextmanager
def _errors() -> Generator[None]:
    """Our exceptions as one clear text on stderr and the documented exit status."""
    from orchestrator.errors import InputError, OrchestrateError

    try:
        yield
    except OrchestrateError as error:
        _say(f"orchestrate: {error}")
        if error.hint:
            _say(error.hint)
        wrong_input = isinstance(error, InputError)
        raise typer.Exit(WRONG_INPUT if wrong_input else OUR_FAILURE) from None
    except KeyboardInterrupt:
        raise typer.Exit(INTERRUPTED) from None
    except BrokenPipeError:
        # Whoever read our output is gone; keep the interpreter from saying so at its end.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        raise typer.Exit(NOT_SUCCEEDED) from None
    except typer.Exit:
        raise
    except OSError as error:
        _say(f"orchestrate: cannot write the output: {error.strerror or error}")
        raise typer.Exit(OUR_FAILURE) from None
    except Exception:  # noqa: BLE001 (the last resort: our own mistake has its exit status, too)
        import traceback

        _say(f"{traceback.format_exc()}orchestrate: this is a mistake of ours, please report it")
        raise typer.Exit(OUR_FAILURE) from None


def main() -> None:
    """The console script. Never returns."""
    # Importing makes many objects and no garbage: looking for some takes a tenth of the start.
    gc.disable()
    _open_missing_stdio()
    # Looking for plug-ins of pydantic reads the metadata of every installed package.
    os.environ.setdefault("PYDANTIC_DISABLE_PLUGINS", "__all__")
    try:
        app()
    except SystemExit as end:
        _leave(end.code if isinstance(end.code, int) else SUCCEEDED)
    except KeyboardInterrupt:
        _leave(INTERRUPTED)
    except OSError as error:
        _say(f"orchestrate: cannot write the output: {error.strerror}")
        _leave(OUR_FAILURE)
    _leave(SUCCEEDED)


def _open_missing_stdio() -> None:
    """A closed stdout or stderr becomes /dev/null: no file of ours may get their numbers."""
    for number in (0, 1, 2):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)
    sys.stdout = sys.stdout or open(1, "w", closefd=False)  # noqa: SIM115
    sys.stderr = sys.stderr or open(2, "w", closefd=False)  # noqa: SIM115


def _leave(status: int) -> NoReturn:
    """End without taking every module apart first, which takes longer than a short command."""
    try:
        sys.stdout.flush()
        sys.stderr.flush()
    except OSError:
        status = status or NOT_SUCCEEDED  # whoever read our output is gone
    os._exit(status)


if __name__ == "__main__":
    main()
