"""`models`: what the model servers have; getting, deleting and trying a model."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, Annotated

import typer

from orchestrator.cli.frame import (
    NOT_SUCCEEDED,
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
    from orchestrator.config import Config
    from orchestrator.discovery import FoundServer
    from orchestrator.server import Model, Progress

app = typer.Typer(no_args_is_help=True, help="Models on the model servers: list, get, try them.")

ModelArgument = Annotated[
    str,
    typer.Argument(metavar="SERVER/MODEL", help="As `models list` has it; or just MODEL."),
]


@app.command("list")
def list_(
    server: Annotated[str | None, typer.Argument(help="Only this server's.")] = None,
    output: ListOption = ListForm.TEXT,
    config: ConfigOption = None,
) -> None:
    """List the models of every server that answers: window, tools, thinking, loaded, size.

    \b
    orchestrate models list
    orchestrate models list ollama --output json
    """  # noqa: D301 (click takes \b for: leave these lines alone)
    with errors():
        found = _found(looked_at(config))
        chosen = [one for one in found if server in {None, one.name}]
        if server is not None and not chosen:
            fail(f"no server {server!r} (known: {', '.join(one.name for one in found) or 'none'})")
        if output is ListForm.JSON:
            put_json(chosen, indented=True)
            return
        put(models_told(chosen))


def _found(config: Config) -> tuple[FoundServer, ...]:
    import anyio

    from orchestrator.discovery import find_servers

    return anyio.run(find_servers, config)


def models_told(servers: list[FoundServer]) -> str:
    """The models as a table, and below it what is wrong with a server."""
    rows = [["MODEL", "WINDOW", "OF", "TOOLS", "THINKING", "LOADED", "SIZE"]]
    rows += [
        [f"{server.name}/{model.name}", *_columns(model)]
        for server in servers
        for model in server.models
    ]
    problems = [one.problem.text for one in servers if one.problem is not None]
    empty = "no models" if servers else "no model server answers: `orchestrate doctor` says more"
    return "\n".join([tabled(rows) if len(rows) > 1 else empty, *problems])


def _columns(model: Model) -> list[str]:
    size = _bytes(model.size) if model.size else model.parameters or "?"
    where = "in the cloud" if model.remote else _yes(model.loaded)
    window, possible = _count(model.context), _count(model.context_possible)
    return [window, possible, _yes(model.tools), _yes(model.thinking), where, size]


def _bytes(size: int) -> str:
    return f"{size / 1e9:.1f} GB" if size >= 10**8 else f"{size / 1e6:.1f} MB"


def _yes(flag: bool | None) -> str:
    return {True: "yes", False: "no", None: "?"}[flag]


def _count(number: int | None) -> str:
    return "?" if number is None else str(number)


@app.command()
def show(
    model: ModelArgument, output: ListOption = ListForm.TEXT, config: ConfigOption = None
) -> None:
    """Show what is known of a model and its server.

    \b
    orchestrate models show qwen2.5-coder:14b
    """  # noqa: D301 (click takes \b for: leave these lines alone)
    from orchestrator.errors import shown
    from orchestrator.server import find_model

    with errors():
        loaded = configured(config)
        server, name = _named(model, loaded)
        known = find_model(server.models, name)
        if known is None:
            fail(_not_there(server, name))
        if output is ListForm.JSON:
            put_json({"server": server, "model": known})
            return
        possible = _count(known.context_possible)
        window = f"{_count(known.context)} tokens configured, {possible} possible"
        rows = [
            ("model", f"{server.name}/{known.name}"),
            ("server", f"{server.title} {server.version or ''} at {server.base_url}"),
            ("runs", "in a cloud" if known.remote or server.tier == "cloud" else "here"),
            ("window", window),
            ("tools", _yes(known.tools)),
            ("thinking", _yes(known.thinking)),
            ("loaded", _yes(known.loaded)),
            ("size", _columns(known)[-1]),
            ("form", known.quantization or "?"),
            ("dialects", ", ".join(server.dialects)),
        ]
        put("\n".join(f"{key:<9} {shown(text)}" for key, text in rows))
        more = loaded.servers[server.kind].more_context
        if more and (known.context or 0) < (known.context_possible or 0):
            say(f"more window: {more.format(model=known.name, context=32_768)}")


def _named(text: str, config: Config) -> tuple[FoundServer, str]:
    """The server and the model: SERVER/MODEL, or a model that one server alone has."""
    from orchestrator.server import find_model

    found = _found(config)
    first, slash, rest = text.partition("/")
    for server in found:
        if slash and rest and server.name == first:
            return _up(server), rest
    having = [server for server in found if find_model(server.models, text)]
    if not having and slash and rest:
        _missed(first, config)
    if not having:
        names = ", ".join(server.name for server in found)
        fail(f"no server is named or has it: {text!r} (servers: {names or 'none answers'})")
    if len(having) > 1:
        names = ", ".join(f"{server.name}/{text}" for server in having)
        fail(f"more than one server has it: {names}")
    return having[0], text


def _missed(name: str, config: Config) -> None:
    """Tell why a server that is named does not answer, if there is one of that name."""
    import anyio

    from orchestrator.config import places_of
    from orchestrator.discovery import see

    for place in places_of(config):
        if place.name == name:
            _up(anyio.run(see, place, config))


def _up(server: FoundServer) -> FoundServer:
    from orchestrator.errors import OrchestrateError

    if server.problem is not None:
        raise OrchestrateError(server.problem.text, hint=server.problem.hint)
    return server


def _not_there(server: FoundServer, name: str) -> str:
    has = ", ".join(model.name for model in server.models) or "none"
    return f"{server.title} has no model {name!r} (it has: {has})"


@app.command("pull")
def pull_(model: ModelArgument, config: ConfigOption = None) -> None:
    """Have a server fetch a model (Ollama, LM Studio), with a progress bar.

    \b
    orchestrate models pull ollama/qwen2.5-coder:14b
    """  # noqa: D301 (click takes \b for: leave these lines alone)
    import anyio

    from orchestrator.discovery.pulling import pull

    with errors():
        loaded = configured(config)
        server, name = _named(model, loaded)
        anyio.run(pull, server, name, loaded, _progress_bar())
        say(f"{server.name}/{name} is there")


def _progress_bar() -> Callable[[Progress], None]:
    """On a terminal one line that grows, elsewhere one line for each new step."""
    from orchestrator.errors import shown

    before = ""

    def tell(progress: Progress) -> None:
        nonlocal before
        if progress.text != before:
            say(f"{chr(10) if before and sys.stderr.isatty() else ''}{shown(progress.text)}")
            before = progress.text
        if progress.total and sys.stderr.isatty():
            part = min(1.0, (progress.done or 0) / progress.total)
            bar = ("#" * int(part * 40)).ljust(40, "-")
            size = f"{progress.total / 1e9:.1f} GB"
            typer.echo(f"\r[{bar}] {part:4.0%} of {size}", nl=False, err=True)

    return tell


@app.command("rm")
def rm_(model: ModelArgument, config: ConfigOption = None) -> None:
    """Have a server delete a model (Ollama).

    \b
    orchestrate models rm qwen2.5-coder:14b
    """  # noqa: D301 (click takes \b for: leave these lines alone)
    import anyio

    from orchestrator.discovery.pulling import remove
    from orchestrator.server import find_model

    with errors():
        loaded = configured(config)
        server, name = _named(model, loaded)
        if find_model(server.models, name) is None:
            fail(_not_there(server, name))
        anyio.run(remove, server, name, loaded)
        say(f"{server.name}/{name} is deleted")


@app.command("test")
def try_(
    model: ModelArgument,
    quick: Annotated[
        bool, typer.Option("--quick", help="Without the prompt that nearly fills the window.")
    ] = False,
    output: ListOption = ListForm.TEXT,
    config: ConfigOption = None,
) -> None:
    """Try a model for real: an answer, a stream, a tool call, a prompt that fills its window.

    \b
    orchestrate models test ollama/qwen2.5-coder:14b
    """  # noqa: D301 (click takes \b for: leave these lines alone)
    import anyio

    from orchestrator.discovery.trial import Trial, trials
    from orchestrator.errors import shown

    with errors():
        loaded = configured(config)
        server, name = _named(model, loaded)
        results: list[Trial] = []

        async def do() -> None:
            async for trial in trials(server, name, loaded, long=not quick):
                results.append(trial)
                if output is ListForm.TEXT:
                    sign = {True: "ok", False: "FAILED", None: "not tried"}[trial.ok]
                    took = f"({trial.seconds:.1f} s)"
                    put(f"{trial.what:<12} {sign:<10} {shown(trial.text)} {took}")

        anyio.run(do)
        if output is ListForm.JSON:
            put_json(results)
        if any(trial.ok is False for trial in results):
            raise typer.Exit(NOT_SUCCEEDED)
