"""What every command shares: exit statuses, common options, saying, and errors as one clear text.

0 succeeded (and verified where checked), 1 not, 2 wrong input, 3 our own failure (also
a full disk), 130 interrupted.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NoReturn

import typer

from orchestrator.cli.completing import runs_there

if TYPE_CHECKING:
    import signal

    from orchestrator.config import Config
    from orchestrator.events import Outcome

SUCCEEDED, NOT_SUCCEEDED, WRONG_INPUT, OUR_FAILURE, INTERRUPTED = 0, 1, 2, 3, 130


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
    typer.Argument(
        metavar="RUN",
        help="Run id, a unique part of its end or beginning, or `last`.",
        autocompletion=runs_there,
    ),
]


def configured(path: Path | None) -> Config:
    from orchestrator.config import load_config

    return load_config(path)


def looked_at(path: Path | None) -> Config:
    """The configuration for a command that runs no agent: what is not trusted is left out, and
    said.
    """
    from orchestrator.config import load_config

    config = load_config(path, looking=True)
    if (error := config.left_out) is not None:
        say(f"orchestrate: left out here, and `run` refuses: {error}")
        say(error.hint or "")
    return config


def runs_folder(config: Path | None) -> Path:
    """Where runs are on record: that stands in no file, so a bad one keeps nobody from them."""
    return records(config) / "runs"


def records(config: Path | None) -> Path:
    """The state folder. A configuration file that is named must be one all the same."""
    from orchestrator.config.load import state_folder

    return configured(config).state if config is not None else state_folder(os.environ)


def status(outcome: Outcome) -> int:
    if outcome.status == "interrupted":
        return INTERRUPTED
    if outcome.error is not None and outcome.error.kind == "disk_full":
        return OUR_FAILURE
    return SUCCEEDED if outcome.ok else NOT_SUCCEEDED


def ending() -> tuple[signal.Signals, ...]:
    """The signals that ask a command to end. That the terminal was closed is one (not under
    `nohup`).
    """
    import signal

    closed = (signal.SIGHUP,) if signal.getsignal(signal.SIGHUP) == signal.SIG_DFL else ()
    return signal.SIGINT, signal.SIGTERM, *closed


# Everything that a command prints goes through one of these: nothing from outside steers the
# terminal, whoever forgot to escape it.


def say(text: str) -> None:
    """To stderr, where everything goes that is not the result."""
    from orchestrator.console import safe

    typer.echo(safe(text), err=True)


def put(text: str, *, end: bool = True) -> None:
    """A result for a person, to stdout."""
    from orchestrator.console import safe

    typer.echo(safe(text), nl=end)


def tabled(rows: Sequence[Sequence[str]]) -> str:
    """Rows as a table that fits into the window, if there is one; the first row is the head."""
    from orchestrator.console import table

    return table(rows, width())


def width() -> int | None:
    """How many cells wide the terminal is that a result goes to; None: it goes elsewhere."""
    try:
        return os.get_terminal_size(sys.stdout.fileno()).columns or None
    except (OSError, ValueError):  # no terminal, or no file at all
        return None


def put_painted(text: str, *, colour: bool) -> None:
    """The same, made by `console.paint`, which has escaped what it painted."""
    typer.echo(text, color=colour)


def put_json(value: object, *, indented: bool = False) -> None:
    """A result for programs, to stdout."""
    import orjson

    put_line(orjson.dumps(value, option=orjson.OPT_INDENT_2 if indented else None))


def put_line(line: bytes) -> None:
    r"""JSON as it is; on a terminal with `\u009b` for what could steer it, which says the same."""
    if sys.stdout.isatty():
        from orchestrator.errors import escaped_in_json

        line = escaped_in_json(line.decode()).encode()
    sys.stdout.buffer.write(line + b"\n")
    sys.stdout.buffer.flush()


def fail(text: str) -> NoReturn:
    from orchestrator.errors import InputError

    raise InputError(text)


@contextmanager
def errors() -> Generator[None]:
    """Our exceptions as one clear text on stderr and the documented exit status."""
    from orchestrator.errors import InputError, OrchestrateError

    try:
        yield
    except OrchestrateError as error:
        say(f"orchestrate: {error}")
        if error.hint:
            say(error.hint)
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
        # Of a descriptor there is no name: what was written to is our own output.
        what = "write the output" if error.filename is None else f"use {error.filename}"
        say(f"orchestrate: cannot {what}: {error.strerror or error}")
        raise typer.Exit(OUR_FAILURE) from None
    except Exception:  # noqa: BLE001 (the last resort: our own mistake has its exit status, too)
        say(f"{_traceback()}orchestrate: this is a mistake of ours, please report it")
        raise typer.Exit(OUR_FAILURE) from None


def _traceback() -> str:
    """Where it happened, to be put into a report: without the user's keys."""
    import traceback

    from orchestrator.redaction import REDACTED, known, pattern

    secret = pattern(known((), os.environ))
    told = traceback.format_exc()
    return told if secret is None else secret.sub(REDACTED, told)
