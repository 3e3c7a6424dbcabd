"""`config`: every value with the level that set it; trusting the files of projects."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from orchestrator.cli.frame import (
    NOT_SUCCEEDED,
    ConfigOption,
    ListForm,
    ListOption,
    errors,
    fail,
    looked_at,
    put,
    put_json,
    say,
    tabled,
)

if TYPE_CHECKING:
    from orchestrator.config import Setting
    from orchestrator.config.file import Read
    from orchestrator.config.trust import Refused
    from orchestrator.config.value import Stated

app = typer.Typer()

FolderArgument = Annotated[
    Path | None,
    typer.Argument(metavar="[FOLDER]", help="The project; default: the one that you are in."),
]


@app.callback(invoke_without_command=True)
def config_(
    context: typer.Context,
    output: ListOption = ListForm.TEXT,
    config: ConfigOption = None,
    task: Annotated[
        Path | None,
        typer.Option(metavar="TASK.yaml", help="Also what holds for each task of this file."),
    ] = None,
) -> None:
    """Show every value with the level that set it, and where; trust a project's file.

    Levels, the weakest first: default, provider (variables such as OLLAMA_BASE_URL), user (your
    file), project (orchestrate.toml here or above, up to the top of the repository), environment
    (ORCHESTRATE_*); then the task and its flags. Of limits, the strictest of all levels holds.

    \b
    orchestrate config
    orchestrate config --task task.yaml
    orchestrate config --output json
    orchestrate config trust
    """  # noqa: D301 (click takes \b for: leave these lines alone)
    if context.invoked_subcommand is not None:
        return
    with errors():
        settings = looked_at(config).settings
        if task is not None:
            settings = (*settings, *_of_tasks(task, settings))
        if output is ListForm.JSON:
            told = [_fields(setting) for setting in settings]
            put_json(told, indented=True)
        else:
            put(_table(settings))


def _of_tasks(path: Path, settings: tuple[Setting, ...]) -> tuple[Setting, ...]:
    from orchestrator.cli.flags import read_bytes, read_tasks
    from orchestrator.config.of_task import Written, task_settings
    from orchestrator.task import written_in

    read_tasks(path)  # what is wrong with it is told before anything of it is
    raw, line = written_in(read_bytes(path), file=str(path))
    return task_settings(Written(file=str(path), raw=raw, line=line), settings)


def _table(settings: tuple[Setting, ...]) -> str:
    rows = [["KEY", "VALUE", "LEVEL", "WHERE", "OTHERS SAY"]]
    for setting in settings:
        holds = setting.holds
        others = "; ".join(f"{_text(one.value)} ({_from(one)})" for one in setting.others)
        where = holds.origin.where or "-"
        rows.append([setting.key, _text(holds.value), holds.origin.level, where, others])
    return tabled(rows)


def _from(one: Stated) -> str:
    return " ".join(filter(None, (one.origin.level, one.origin.where)))


def _text(value: object) -> str:
    import orjson

    return value if isinstance(value, str) else orjson.dumps(value, default=str).decode()


def _fields(setting: Setting) -> dict[str, object]:
    return {
        "key": setting.key,
        **_stated(setting.holds),
        "others": [_stated(one) for one in setting.others],
    }


def _stated(one: Stated) -> dict[str, object]:
    return {"value": one.value, "level": one.origin.level, "where": one.origin.where}


# --- trust ---------------------------------------------------------------------------------------


@app.command("trust")
def trust_(
    folder: FolderArgument = None,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
    list_: Annotated[bool, typer.Option("--list", help="Only list what is trusted.")] = False,
) -> None:
    """Trust a project's orchestrate.toml as it is now, after a look at what that allows.

    Without trust such a file may name agents and tighten limits, but start no program of its own,
    send no key and no work elsewhere. When the file changes, the trust is gone.

    \b
    orchestrate config trust
    orchestrate config trust ~/src/project --yes
    orchestrate config trust --list
    """  # noqa: D301 (click takes \b for: leave these lines alone)
    from orchestrator.config import trust
    from orchestrator.config.load import state_folder

    with errors():
        state = state_folder(os.environ)
        if list_:
            rows = [f"{_safe(one.path)}  sha256:{one.sha256}" for one in trust.all_trusted(state)]
            put("\n".join(rows) or "nothing is trusted yet")
            return
        if os.environ.get("ORCHESTRATE_RUN_ID"):
            fail("trust is yours to give: an agent that orchestrate runs cannot")
        file = _project(folder)
        _show(file, trust.refused(file))
        _ask(yes=yes)
        trust.trust(file, state)
        put(f"{_safe(file.path)} is trusted until it changes")


def _show(file: Read, refused: tuple[Refused, ...]) -> None:
    from orchestrator.console import safe

    if not refused:
        say(f"{safe(str(file.path))} says nothing that needs trust; trusted, it may also replace")
        say("agents and servers of your own by its own of the same name.")
        return
    say("Trusted, these count, too:")
    for one in refused:
        say(safe(f"  {one.where}: {one.key} = {_text(one.value)}"))


def _ask(*, yes: bool) -> None:
    if yes:
        return
    if not sys.stdin.isatty():
        fail("nobody is here to be asked: look at the file, then say --yes")
    if not typer.confirm("Trust it?", err=True):
        say("not trusted")
        raise typer.Exit(NOT_SUCCEEDED)


@app.command("untrust")
def untrust_(folder: FolderArgument = None) -> None:
    """Take back the trust in a project's orchestrate.toml.

    \b
    orchestrate config untrust
    """  # noqa: D301 (click takes \b for: leave these lines alone)
    from orchestrator.config import trust
    from orchestrator.config.file import FILE
    from orchestrator.config.load import state_folder

    with errors():
        state = state_folder(os.environ)
        path = folder / FILE if folder is not None else _project(None).path
        known = trust.untrust(path, state)
        put(f"{_safe(path)} {'is trusted no more' if known else 'was not trusted'}")


def _project(folder: Path | None) -> Read:
    """The project's file; a folder that is named must have one itself."""
    from orchestrator.config.file import FILE, read_found
    from orchestrator.config.load import find_project

    found = read_found(folder.absolute() / FILE) if folder else find_project(Path.cwd())
    if found is None:
        where = (
            f"in {_safe(folder)}" if folder else "here, or above up to the top of the repository"
        )
        fail(f"no {FILE} {where}")
    return found


def _safe(path: Path) -> str:
    from orchestrator.errors import shown

    return shown(str(path))
