"""Makes our MCP server known to an agent's CLI for good, by that CLI's own command."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from pathlib import Path

from orchestrator.adapter import McpSetup, SetsUpMcp
from orchestrator.config import Config, check_adapter
from orchestrator.discovery import locate
from orchestrator.errors import ConfigError, OrchestrateError
from orchestrator.process import Reaper, open_reaper, run_to_end
from orchestrator.process.command import Completed
from orchestrator.task import McpServer

LIMIT_S = 60.0


async def join(
    name: str, server: McpServer, config: Config, *, leave: bool = False, dry: bool = False
) -> tuple[str, ...]:
    """Add the server to the CLI of an adapter, or remove it (`leave`): what was done, in words, or
    with `dry` the commands that would be run. Doing it again changes nothing.

    Raises ConfigError for a CLI that has no such command or is not there, OrchestrateError where it
    failed.
    """
    setup = _setup(name, server, config)
    async with open_reaper() as reaper:
        there = await _run(setup.show, reaper, config)
        known = there.exit == 0
        todo: tuple[tuple[str, ...], ...]
        if leave:
            todo = (setup.remove,) if known else ()
        elif known and _names(there, server):
            todo = ()
        else:
            todo = (setup.remove, setup.add) if known else (setup.add,)
        if dry:
            return tuple(map(shlex.join, todo)) or (_nothing(name, leave=leave),)
        for argv in todo:
            await _must(argv, reaper, config)
    if not todo:
        return (_nothing(name, leave=leave),)
    if leave:
        return (f"{server.name} is removed from {name} now",)
    note = () if setup.note is None else (setup.note,)
    return (f"{server.name} is an MCP server of {name} now", *note)


def _setup(name: str, server: McpServer, config: Config) -> McpSetup:
    check_adapter(name, config.adapters, "mcp install")
    adapter = config.adapters[name]
    if not isinstance(adapter, SetsUpMcp) or adapter.about.program is None:
        ready = ", ".join(n for n, one in config.adapters.items() if isinstance(one, SetsUpMcp))
        raise ConfigError(
            f"{name} has no command for it (these have: {ready or 'none'})",
            hint="`orchestrate mcp config` prints what other clients want.",
        )
    program = locate(adapter.about.program, config)
    if program is None:
        raise ConfigError(f"{name} is not installed", hint=adapter.about.install_hint)
    return adapter.mcp_setup(program, server)


def _names(shown: Completed, server: McpServer) -> bool:
    """Whether what the CLI shows is this very server."""
    text = " ".join(shown.stdout.decode("utf-8", "replace").split())
    return all(word in text for word in server.command)


def _nothing(name: str, *, leave: bool) -> str:
    return f"nothing to do: {name} {'does not have it' if leave else 'has it already'}"


async def _must(argv: Sequence[str], reaper: Reaper, config: Config) -> None:
    done = await _run(argv, reaper, config)
    if done.exit != 0:
        said = done.stdout.decode("utf-8", "replace").strip()
        raise OrchestrateError(f"{shlex.join(argv)} failed:\n{said}")


async def _run(argv: Sequence[str], reaper: Reaper, config: Config) -> Completed:
    return await run_to_end(
        reaper,
        argv,
        cwd=Path.cwd(),
        env=config.environ,
        limit_s=LIMIT_S,
        merge=True,
        output_limit=64 * 1024,
    )
