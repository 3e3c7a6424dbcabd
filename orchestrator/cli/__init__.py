"""The command line. Only this package prints, configures logging and picks exit statuses.

What is heavy is imported where it is used, so that `--help` stays quick.
"""

from __future__ import annotations

import gc
import os
import sys
from collections.abc import Mapping, Sequence
from typing import Annotated, ClassVar, NoReturn

import typer

from orchestrator.cli import agents, config, local, mcp, models, queue, runs
from orchestrator.cli.delegate import delegate
from orchestrator.cli.doctor import doctor
from orchestrator.cli.frame import INTERRUPTED, NOT_SUCCEEDED, OUR_FAILURE, SUCCEEDED, put, say
from orchestrator.cli.fronts import Commands, Part
from orchestrator.cli.init import init
from orchestrator.cli.queue import submit, worker
from orchestrator.cli.replay import replay
from orchestrator.cli.route import route
from orchestrator.cli.run import run
from orchestrator.cli.stats import stats
from orchestrator.cli.validate import schema, validate


def version() -> None:
    """Print the version.

    \b
    orchestrate version
    """  # noqa: D301 (click takes \b for: leave these lines alone)
    from orchestrator import __version__

    put(__version__)


class _All(Commands):
    ours: ClassVar[Mapping[str, Part]] = {
        "run": run,
        "validate": validate,
        "schema": schema,
        "replay": replay,
        "stats": stats,
        "doctor": doctor,
        "init": init,
        "route": route,
        "submit": submit,
        "worker": worker,
        "delegate": delegate,
        "version": version,
        "runs": runs.app,
        "queue": queue.app,
        "agents": agents.app,
        "models": models.app,
        "local": local.app,
        "config": config.app,
        "mcp": mcp.app,
    }
    sections: ClassVar[Mapping[str, Sequence[str]]] = {
        "Run tasks": ("run", "validate", "route", "schema"),
        "Look at runs": ("runs", "stats", "replay"),
        "Agents and models": ("doctor", "init", "agents", "models", "local", "config"),
        "In the background": ("submit", "worker", "queue"),
        "From agent to agent": ("delegate", "mcp"),
    }


app = typer.Typer(
    cls=_All, rich_markup_mode=None, pretty_exceptions_enable=False, no_args_is_help=True
)


def _version(asked: bool) -> None:
    if asked:
        version()
        raise typer.Exit


@app.callback()
def orchestrate(
    version_: Annotated[
        bool,
        typer.Option(
            "--version", "-V", callback=_version, is_eager=True, help="Print the version and exit."
        ),
    ] = False,
) -> None:
    """Run coding agents as supervised processes: one event stream, one truthful outcome."""


def main() -> None:
    """The console script. Never returns."""
    # Importing makes many objects and no garbage: looking for some takes a tenth of the start.
    gc.disable()
    _open_missing_stdio()
    given = dict(os.environ)  # what another program, started in our place, shall have
    # Looking for plug-ins of pydantic reads the metadata of every installed package.
    os.environ.setdefault("PYDANTIC_DISABLE_PLUGINS", "__all__")
    try:
        app(obj=given, prog_name="orchestrate")  # also as `python -m`, as agents start it
    except SystemExit as end:
        _leave(end.code if isinstance(end.code, int) else SUCCEEDED)
    except KeyboardInterrupt:
        _leave(INTERRUPTED)
    except OSError as error:
        say(f"orchestrate: cannot write the output: {error.strerror}")
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
