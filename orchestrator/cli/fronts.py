"""The commands by their names. Those that adapters bring (entry points `orchestrator.commands`) are
programs that this process becomes, so that output, signals and exit status are the program's own.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cache
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, NoReturn, TypeAlias

import typer
from typer.core import TyperCommand, TyperGroup
from typer.main import get_command

from orchestrator.cli.frame import configured, errors, put
from orchestrator.cli.grouped import Group

if TYPE_CHECKING:
    from importlib.metadata import EntryPoint

    from orchestrator.adapter import Front


class _Verbatim(TyperCommand):
    """A command whose words are not looked into, but for a first `--help`, or a first `--`."""

    def parse_args(self, ctx: typer.Context, args: list[str]) -> list[str]:  # type: ignore[override]  # its own name is private
        known = args[:1] in (["--"], ["--help"])
        return super().parse_args(ctx, args if known else ["--", *args])


Part: TypeAlias = "Callable[..., None] | typer.Typer"
Made: TypeAlias = TyperCommand | TyperGroup


class _Ours(Mapping[str, Made]):
    """Each is made when it is asked for: making all of them takes a tenth of a run's start."""

    def __init__(self, parts: Mapping[str, Part]) -> None:
        self._parts = parts
        self._made: dict[str, Made] = {}

    def __getitem__(self, name: str) -> Made:
        if name not in self._made:
            self._made[name] = _made(name, self._parts[name])
        return self._made[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._parts)

    def __len__(self) -> int:
        return len(self._parts)


def _made(name: str, part: Part) -> Made:
    alone = typer.Typer(rich_markup_mode=None, add_completion=False)
    if not isinstance(part, typer.Typer):
        alone.command(name)(part)
        return get_command(alone)  # type: ignore[return-value]  # of an app with one command
    alone.add_typer(part, name=name, cls=Group)
    return get_command(alone).commands[name]  # type: ignore[attr-defined,no-any-return]


class Commands(Group):
    """Our own commands, then those that adapters bring, which are looked for only if need be."""

    ours: ClassVar[Mapping[str, Part]] = {}

    def __init__(self, **attributes: Any) -> None:
        super().__init__(**attributes)
        self.commands = _Ours(self.ours)  # type: ignore[assignment]  # nobody adds one

    def list_commands(self, ctx: typer.Context) -> list[str]:  # type: ignore[override]  # the same
        ours = super().list_commands(ctx)
        return [*ours, *(entry.name for entry in _entries() if entry.name not in ours)]

    def get_command(self, ctx: typer.Context, cmd_name: str) -> TyperCommand | None:  # type: ignore[override]  # the same
        ours = super().get_command(ctx, cmd_name)
        if ours is not None:
            return ours  # type: ignore[return-value]
        return next((_command(entry) for entry in _entries() if entry.name == cmd_name), None)


@cache  # they are read from the files of every package that is installed
def _entries() -> Sequence[EntryPoint]:
    from importlib.metadata import entry_points

    return sorted(entry_points(group="orchestrator.commands"))


def _brought_by(entry: EntryPoint) -> str:
    """The adapter's name, by its module: it is not loaded to be listed."""
    return entry.module.rpartition(".")[2]


def _command(entry: EntryPoint) -> TyperCommand:
    """What the command line needs to know; the adapter is not loaded before it is asked for."""
    app = typer.Typer(rich_markup_mode=None, add_completion=False)

    @app.command(
        entry.name,
        cls=_Verbatim,
        help=f"A program of {_brought_by(entry)}: see its --help.",
        add_help_option=False,
    )
    def start(
        context: typer.Context,
        words: Annotated[list[str] | None, typer.Argument()] = None,
        asks: Annotated[bool, typer.Option("--help", help="Show this message and exit.")] = False,
    ) -> None:
        with errors():
            front = _load(entry)
            if asks:
                put(f"Usage: orchestrate {entry.name} [--] WORDS...\n\n{front.help}")
                return
            environ: Mapping[str, str] = context.obj or os.environ
            _become(front, words or [], environ)

    command = get_command(app)
    assert isinstance(command, TyperCommand)  # noqa: S101  (of an app with one command)
    return command


def _load(entry: EntryPoint) -> Front:
    from orchestrator.adapter import Front
    from orchestrator.errors import ConfigError

    try:
        front = entry.load()
    except Exception as error:  # foreign code: whatever it raises, it is broken
        text = f"command {entry.name!r} cannot be loaded: {type(error).__name__}: {error}"
        raise ConfigError(text) from error
    if not isinstance(front, Front):
        raise ConfigError(f"command {entry.name!r} is none: {entry.value} is no Front")
    return front


def _become(front: Front, words: Sequence[str], environ: Mapping[str, str]) -> NoReturn:
    """Ends this program without leaving the process. Raises ConfigError if there is no other."""
    from orchestrator.config import check_adapter
    from orchestrator.discovery import locate
    from orchestrator.errors import ConfigError, OrchestrateError

    config = configured(None)
    check_adapter(front.adapter, config.adapters, "command")
    about = config.adapters[front.adapter].about
    path = locate(about.program, config) if about.program is not None else None
    if path is None:
        raise ConfigError(f"{about.title} is not installed", hint=about.install_hint)
    argv = front.argv(path, words)
    sys.stdout.flush()
    sys.stderr.flush()
    try:
        os.execve(argv[0], argv, environ)  # noqa: S606 (argv is a tuple and there is no shell)
    except OSError as error:
        raise OrchestrateError(f"cannot start {argv[0]}: {error.strerror}") from error
