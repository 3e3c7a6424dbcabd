"""`init`: an orchestrate.toml from what was found. It never overwrites."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from orchestrator.cli.frame import ConfigOption, configured, errors, fail, put

if TYPE_CHECKING:
    from orchestrator.config import Config
    from orchestrator.discovery.diagnosis import Diagnosis

_HEAD = """\
# orchestrate: which agents there are, and where their models are.
# Written from what was found; yours from now on. `orchestrate doctor` tells what is wrong with it.
"""


def init(
    user: Annotated[
        bool, typer.Option("--user", help="Your own configuration, instead of this folder's.")
    ] = False,
    config: ConfigOption = None,
) -> None:
    """Write an orchestrate.toml from what was found: agents, servers, models.

    In a folder it holds only what a file that was found may say; addresses and keys belong into
    your own (--user). A file that is there already stays as it is.

    \b
    orchestrate init
    orchestrate init --user
    """  # noqa: D301 (click takes \b for: leave these lines alone)
    import anyio

    from orchestrator.config import local_file
    from orchestrator.discovery.diagnosis import diagnose

    with errors():
        target = local_file().with_name("orchestrate.toml") if user else Path("orchestrate.toml")
        if target.exists():
            fail(f"{target} is there already, and stays as it is")
        loaded = configured(config)
        text = _text(anyio.run(diagnose, loaded), loaded, whole=user)
        _write(target, text)
        put(str(target))


def _write(target: Path, text: str) -> None:
    """Whole or not at all, and never over one that has come meanwhile."""
    from orchestrator.errors import unwritable

    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with target.open("x", encoding="utf-8") as file:
            file.write(text)
    except FileExistsError:
        fail(f"{target} is there already, and stays as it is")
    except OSError as error:
        target.unlink(missing_ok=True)
        raise unwritable(target, error) from error


def _text(found: Diagnosis, config: Config, *, whole: bool) -> str:
    """The file. `whole`: with addresses and keys, which only a trusted file may name."""
    parts = [_HEAD]
    agents = list(_agents(found, config))
    if agents:
        parts.append(f"[defaults]\nagent = {_quoted(agents[0][0])}\n")
    for server in found.servers if whole else ():
        if server.stated and server.problem is None:
            lines = [f"kind = {_quoted(server.kind)}", f"base_url = {_quoted(server.base_url)}"]
            if server.api_key_env:
                lines.append(f"api_key_env = {_quoted(server.api_key_env)}")
            parts.append(f"[servers.{_quoted(server.name)}]\n" + "\n".join(lines) + "\n")
    for name, keys in agents:
        lines = [f"{key} = {_quoted(value)}" for key, value in keys.items()]
        parts.append(f"[agents.{_quoted(name)}]\n" + "\n".join(lines) + "\n")
    if not agents:
        ways = "\n".join(f"# {way}" for way in found.ways)
        parts.append(f"# No agent works yet. The shortest ways to one:\n{ways}\n")
    return "\n".join(parts)


def _agents(found: Diagnosis, config: Config) -> list[tuple[str, dict[str, str]]]:
    """Installed CLIs with each server that they can speak to, then those with a key or a login."""
    agents: list[tuple[str, dict[str, str]]] = []
    there = [one for one in found.adapters if one.path is not None and one.problem is None]
    for server in found.servers:
        models = [model for model in server.models if not model.remote]
        best = next((model for model in models if model.loaded), models[0] if models else None)
        if best is None or server.problem is not None:
            continue
        for one in there:
            if set(one.dialects) & set(server.dialects):
                keys = {"adapter": one.name, "server": server.name, "model": best.name}
                agents.append((f"{one.name}-{server.name}", keys))
    agents += [(one.name, {"adapter": one.name}) for one in there if one.auth in {"key", "login"}]
    return agents


def _quoted(text: str) -> str:
    import orjson

    return orjson.dumps(text).decode()  # JSON's texts are TOML's too
