"""`local`: the switch that sends every agent to a model server at home."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Annotated

import typer

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
)

if TYPE_CHECKING:
    from orchestrator.config import Config, LocalMode
    from orchestrator.discovery import FoundServer

app = typer.Typer()
_ADDRESS = re.compile(
    r"\w+://.*|(localhost|[\w.-]+\.[\w.-]+|\[[\da-fA-F:]+\]|[\w-]*)(:\d{1,5})(/.*)?"
)


@app.callback(invoke_without_command=True)
def local_(
    context: typer.Context, output: ListOption = ListForm.TEXT, config: ConfigOption = None
) -> None:
    """Send everything to a model server at home, without editing a file or restarting anything.

    Without a command: how the switch stands. Agents whose server, model or key you wrote down keep
    them; each substitution is said in the run. Running workers obey from their next task on.

    \b
    orchestrate local on
    orchestrate local on http://127.0.0.1:1234 qwen2.5-coder-14b
    orchestrate local off
    """  # noqa: D301 (click takes \b for: leave these lines alone)
    if context.invoked_subcommand is not None:
        return
    from orchestrator.config import read_local

    with errors():
        mode = read_local()
        if output is ListForm.JSON:
            put_json(mode)
            return
        put(_told(mode))
        if mode.on:
            _tell_who_stays(looked_at(config))


def _told(mode: LocalMode) -> str:
    if not mode.on:
        return "local mode is off"
    return f"local mode is on: {mode.model or 'the model of the server'} at {mode.base_url}"


def _tell_who_stays(config: Config) -> None:
    """Agents that local mode leaves alone, though they are in a cloud."""
    for agent in config.agents:
        if agent.explicit and agent.tier == "cloud":
            say(f"not moved: {agent.name}, its configuration says where its model is")


@app.command()
def on(
    where: Annotated[
        str | None, typer.Argument(metavar="[URL]", help="Its address, or a server's name.")
    ] = None,
    model: Annotated[str | None, typer.Argument(help="The model.")] = None,
    config: ConfigOption = None,
) -> None:
    """Send everything to a server at home: the one named, else the first that answers.

    \b
    orchestrate local on
    orchestrate local on http://127.0.0.1:1234 qwen2.5-coder:14b
    """  # noqa: D301 (click takes \b for: leave these lines alone)
    from dataclasses import replace

    from orchestrator.config import read_local, write_local
    from orchestrator.errors import ConfigError

    with errors():
        loaded = configured(config)
        if where is not None and model is None and not _is_place(where, loaded):
            where, model = None, where  # `local on qwen2.5-coder:14b`
        try:
            before = read_local()
        except ConfigError:
            before = None  # whatever it was, it is said anew
        server = _server(where, before, loaded)
        kept = model or (before.model if before else None)
        mode = _checked(server, kept)
        if before == mode:
            say("it was on already")
        write_local(replace(mode, on=True))
        put(_told(mode))
        _warn(server, mode, loaded)


def _is_place(text: str, config: Config) -> bool:
    from orchestrator.config import places_of

    named = text in {place.name for place in places_of(config)}
    return named or _ADDRESS.fullmatch(text) is not None


def _server(where: str | None, before: LocalMode | None, config: Config) -> FoundServer:
    """The server that is meant, asked now. Raises InputError where none is."""
    import anyio

    from orchestrator.config import places_of
    from orchestrator.discovery import find_servers, see
    from orchestrator.server import Place, address_of

    if where is None and before is not None and before.base_url and before.kind:
        where = before.base_url
    if where is None:
        found = anyio.run(find_servers, config)
        home = [one for one in found if one.tier == "local" and one.problem is None]
        if not home:
            fail("no model server at home answers: start one, or name its address")
        return home[0]
    places = {place.name: place for place in places_of(config)}
    place = places.get(where)
    if place is None:
        kinds = {one.port: one.name for one in config.servers.values() if one.port is not None}
        address = address_of(where)
        port = int(address.rpartition(":")[2].partition("/")[0]) if address.count(":") > 1 else 0
        same = (one for one in config.places if address_of(one.base_url) == address)
        kind = kinds.get(port, "ollama")
        place = next(same, Place(name=kind, kind=kind, base_url=address))
    return anyio.run(see, place, config)


def _checked(server: FoundServer, model: str | None) -> LocalMode:
    from orchestrator.config import LocalMode
    from orchestrator.server import find_model, is_remote

    if server.tier != "local":
        name = server.name
        fail(
            f"{server.base_url} is not on this machine: if it counts as home, say so in your "
            f'configuration: [servers.{name}] kind = "{server.kind}", base_url, local = true'
        )
    known = find_model(server.models, model) if model else None
    if model and (is_remote(model) or (known is not None and known.remote)):
        fail(f"{model} is served by a cloud, whatever the address")
    return LocalMode(on=True, base_url=server.base_url, kind=server.kind, model=model)


def _warn(server: FoundServer, mode: LocalMode, config: Config) -> None:
    from orchestrator.server import find_model

    if server.problem is not None:
        say(f"warning: {server.problem.text} {server.problem.hint or ''}")
    elif mode.model is None:
        has = ", ".join(model.name for model in server.models[:5]) or "none"
        say(f"warning: no model is set: `orchestrate local model NAME` (it has: {has})")
    elif server.models and find_model(server.models, mode.model) is None:
        pull = f"orchestrate models pull {server.name}/{mode.model}"
        say(f"warning: {mode.model} is not there: `{pull}`")
    _tell_who_stays(config)


@app.command()
def off() -> None:
    """Let every agent go where it usually goes. The server and the model are remembered.

    \b
    orchestrate local off
    """  # noqa: D301 (click takes \b for: leave these lines alone)
    from dataclasses import replace

    from orchestrator.config import LocalMode, read_local, write_local
    from orchestrator.errors import ConfigError

    with errors():
        try:
            before = read_local()
        except ConfigError:
            before = LocalMode(on=True)
        if before.on:
            write_local(replace(before, on=False))
        else:
            say("it was off already")
        put("local mode is off")


@app.command("list")
def list_(config: ConfigOption = None) -> None:
    """List the servers at home with their models.

    \b
    orchestrate local list
    """  # noqa: D301 (click takes \b for: leave these lines alone)
    import anyio

    from orchestrator.cli.models import models_told
    from orchestrator.discovery import find_servers

    with errors():
        found = anyio.run(find_servers, looked_at(config))
        put(models_told([one for one in found if one.tier == "local"]))


@app.command()
def model(
    name: Annotated[str, typer.Argument(help="The model's name, or `clear`: the server's own.")],
) -> None:
    """Set the model of local mode, or clear it.

    \b
    orchestrate local model qwen2.5-coder:14b
    orchestrate local model clear
    """  # noqa: D301 (click takes \b for: leave these lines alone)
    from dataclasses import replace

    from orchestrator.config import read_local, write_local
    from orchestrator.server import is_remote

    with errors():
        if is_remote(name):
            fail(f"{name} is served by a cloud, whatever the address")
        mode = replace(read_local(), model=None if name == "clear" else name)
        write_local(mode)
        put(f"the model of local mode is {mode.model or 'what the server has loaded'}")
        put(_told(mode))
