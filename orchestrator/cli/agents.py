"""`agents`: which there are, installing the tested version, choosing the default one."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from orchestrator.cli.completing import adapters_there, agents_there
from orchestrator.cli.frame import (
    ConfigOption,
    ListForm,
    ListOption,
    configured,
    errors,
    fail,
    looked_at,
    put,
    put_json,
    say,
    tabled,
)

if TYPE_CHECKING:
    from orchestrator.discovery import Survey

app = typer.Typer()


@app.callback(invoke_without_command=True)
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

    with errors():
        found = anyio.run(survey, looked_at(config))
        if output is ListForm.JSON:
            put_json(found, indented=True)
        else:
            put(_agents_told(found))


def _agents_told(survey: Survey) -> str:
    """Adapters and agents as two tables."""
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
    return f"{tabled(adapters)}\n\n{tabled(agents)}"


@app.command("install")
def install_(
    name: Annotated[
        str,
        typer.Argument(help="The adapter's name, such as codex.", autocompletion=adapters_there),
    ],
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

    with errors():
        loaded = configured(config)

        async def do() -> str:
            done = await install(name, loaded, say, force=force)
            what = "is installed" if done.fresh else "was installed already"
            return f"{name} {done.version} {what}: {done.path}"

        put(anyio.run(do))


@app.command("use")
def use_(
    name: Annotated[
        str,
        typer.Argument(
            help="The agent's name, as `orchestrate agents` has it.", autocompletion=agents_there
        ),
    ],
    config: ConfigOption = None,
) -> None:
    """Make an agent the default one, in your configuration file (or the one named by --config).

    \b
    orchestrate agents use codex
    """  # noqa: D301 (click takes \b for: leave these lines alone)
    import anyio

    from orchestrator.config import set_default
    from orchestrator.discovery import with_nearby

    with errors():
        settings = configured(config)
        nearby = anyio.run(with_nearby, settings, (name,)).nearby
        if name in {agent.name for agent in nearby}:
            fail(f"{name} is there only while its server runs: write it down (`orchestrate init`)")
        path = set_default(name, settings, config)
        put(f"{name} is the default agent ({path})")
        winner = configured(config).default_agent
        if winner != name:
            say(f"but in this folder it is {winner}: its orchestrate.toml says so")
