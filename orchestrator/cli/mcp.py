"""`mcp`: the MCP server itself, and how clients come to know it."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from orchestrator.cli.completing import adapters_there
from orchestrator.cli.frame import ConfigOption, configured, errors, fail, looked_at, put, put_json

if TYPE_CHECKING:
    from orchestrator.asking import Ask
    from orchestrator.config import Config
    from orchestrator.task import McpServer

app = typer.Typer()

NameArgument = Annotated[
    str,
    typer.Argument(help="The adapter's name, such as claude.", autocompletion=adapters_there),
]
DryOption = Annotated[
    bool, typer.Option("--dry-run", help="Only print the commands that would be run.")
]


@app.callback(invoke_without_command=True)
def mcp(context: typer.Context, config: ConfigOption = None) -> None:
    """Serve MCP on stdin and stdout: an agent or editor hands sub-tasks to other agents with it.

    They work on the folder that it is started in, by your configuration. Started by an agent that
    runs under orchestrate with `delegation: on`, it asks that run's supervisor.

    \b
    orchestrate mcp install claude
    orchestrate mcp config
    """  # noqa: D301 (click takes \b for: leave these lines alone)
    if context.invoked_subcommand is not None:
        return
    import anyio

    from orchestrator.telemetry import log_to_stderr

    with errors():
        _check_extra()
        log_to_stderr()
        anyio.run(_serve, config)


def _check_extra() -> None:
    from importlib.util import find_spec

    if find_spec("mcp") is None:
        fail("the MCP SDK is not installed: pip install 'orchestrate[mcp]'")


async def _serve(path: Path | None) -> None:
    import signal
    from functools import partial

    from orchestrator.asking import ask, desk_of
    from orchestrator.mcp.server import serve

    desk = desk_of(os.environ)
    if desk is not None:
        # That takes back what was asked; the thread that reads stdin cannot be told to end.
        signal.signal(signal.SIGINT, signal.SIG_DFL)
        inside: Ask = partial(ask, desk)
        await serve(inside)
        return
    await _serve_alone(configured(path))


async def _serve_alone(config: Config) -> None:
    """Until stdin is closed, or a signal asks for the end; sub-tasks are ended in order first. A
    second signal ends it at once: the reaper ends what it ran, `runs recover` their records.
    """
    import signal

    import anyio

    from orchestrator.errors import lone_error
    from orchestrator.mcp.alone import alone
    from orchestrator.mcp.server import serve

    over, asked = anyio.Event(), list[int]()
    with lone_error(), anyio.open_signal_receiver(signal.SIGINT, signal.SIGTERM) as received:
        async with anyio.create_task_group() as group:

            async def listen() -> None:
                async for number in received:
                    if asked:
                        os._exit(128 + number)
                    asked.append(number)
                    over.set()

            async def answer(ask: Ask) -> None:
                await serve(ask)
                over.set()

            group.start_soon(listen)
            async with alone(config, Path.cwd()) as outside:
                group.start_soon(answer, outside)
                await over.wait()
            if asked:
                os._exit(128 + asked[0])  # the SDK's thread that reads stdin cannot be told to end
            group.cancel_scope.cancel()


@app.command()
def install(name: NameArgument, dry_run: DryOption = False, config: ConfigOption = None) -> None:
    """Make it known to an agent's CLI for good, by that CLI's own command. Again: no change.

    \b
    orchestrate mcp install claude
    orchestrate mcp install codex --dry-run
    """  # noqa: D301 (click takes \b for: leave these lines alone)
    _join(name, looked_at(config), leave=False, dry=dry_run)


@app.command()
def uninstall(name: NameArgument, dry_run: DryOption = False, config: ConfigOption = None) -> None:
    """Remove it from an agent's CLI.

    \b
    orchestrate mcp uninstall claude
    """  # noqa: D301 (click takes \b for: leave these lines alone)
    _join(name, looked_at(config), leave=True, dry=dry_run)


@app.command("config")
def config_() -> None:
    """Print it as the JSON that most other clients want in their settings.

    \b
    orchestrate mcp config > .mcp.json
    """  # noqa: D301 (click takes \b for: leave these lines alone)
    with errors():
        _check_extra()
    server = _server()
    entry = {"type": "stdio", "command": server.command[0], "args": list(server.command[1:])}
    put_json({"mcpServers": {server.name: entry}}, indented=True)


def _join(name: str, config: Config, *, leave: bool, dry: bool) -> None:
    from functools import partial

    import anyio

    from orchestrator.joining import join

    with errors():
        _check_extra()
        for line in anyio.run(partial(join, name, _server(), config, leave=leave, dry=dry)):
            put(line)


def _server() -> McpServer:
    """By this very interpreter; nothing is imported from the folder that it is started in."""
    from orchestrator.task import McpServer

    command = (sys.executable, "-P", "-m", "orchestrator.cli", "mcp")
    return McpServer(name="orchestrate", command=command)
