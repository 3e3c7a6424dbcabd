"""Configuration: which agents there are, where models are served, limits, and where records go.

`load_config()` is the only place that reads the environment and configuration files; the library
reads nothing by itself. Adapters and kinds of model server come from entry points, ours like
anybody's.
"""

from __future__ import annotations

import os
import re
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import cache
from importlib.metadata import EntryPoint, distributions
from pathlib import Path
from types import MappingProxyType
from typing import Annotated, Any, Literal
from urllib.parse import urlsplit

import orjson
from platformdirs import user_config_path, user_data_path, user_state_path
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from orchestrator.adapter import About, Adapter, Agent
from orchestrator.document import SIZE_LIMIT, EnvName, HttpUrl, Text, described, parts
from orchestrator.errors import ConfigError, shown
from orchestrator.events import Tier
from orchestrator.server import ModelServer
from orchestrator.task import Limits, LimitsModel

FILE = "orchestrate.toml"


@dataclass(frozen=True, kw_only=True)
class Config:
    """Everything that the supervisor needs to know; frozen.

    `agents` are the configured ones in file order, `default_agent` names the one to prefer. `state`
    is the folder of records, `agents_folder` where programs of our own installing are. `environ` is
    what agents' environments are chosen from; it may hold keys and is not shown.
    """

    agents: tuple[Agent, ...] = ()
    default_agent: str | None = None
    adapters: Mapping[str, Adapter] = field(default_factory=lambda: MappingProxyType({}))
    servers: Mapping[str, ModelServer] = field(default_factory=lambda: MappingProxyType({}))
    limits: Limits = Limits()
    state: Path = field(default_factory=lambda: user_state_path("orchestrate"))
    agents_folder: Path = field(default_factory=lambda: user_data_path("orchestrate") / "agents")
    environ: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}), repr=False)


# --- the file ------------------------------------------------------------------------------------


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, defer_build=True)


class _Defaults(_Strict):
    agent: Text | None = Field(default=None, description="The agent that goes first.")


class _Server(_Strict):
    kind: Text
    base_url: HttpUrl | None = None
    api_key_env: EnvName | None = None
    local: bool | None = Field(
        default=None, description="The owner declares that this host is local."
    )


class _Agent(BaseModel):
    # What is not common to all agents is the adapter's own business, and checked there.
    model_config = ConfigDict(extra="allow", strict=True, frozen=True, defer_build=True)

    adapter: Text
    model: Text | None = None
    server: Text | None = None
    base_url: HttpUrl | None = None
    api_key_env: EnvName | None = None
    tier: Literal["local", "cloud"] | None = None
    profile: Literal["user", "clean"] | None = None
    login: bool = Field(default=False, description="The CLI's own login, though a key is there.")


class _File(_Strict):
    defaults: _Defaults = _Defaults()
    limits: LimitsModel = LimitsModel()
    servers: dict[Annotated[str, Field(min_length=1)], _Server] = {}
    agents: dict[Annotated[str, Field(min_length=1)], _Agent] = {}


_TRUSTED_AGENT = frozenset({"adapter", "model", "server", "profile"})
_TRUSTED_SERVER = frozenset({"kind"})
# What a file that was only found may say. All else could start a program, move a key to another
# address, loosen a sandbox or call a cloud local; an adapter's own options are its own business.


def load_config(
    path: Path | None = None,
    *,
    folder: Path | None = None,
    environ: Mapping[str, str] | None = None,
) -> Config:
    """The configuration from the user's file, the project's and the environment. Raises
    ConfigError.

    `path` names a file, which is then trusted and the only one read. Else the user's own and
    `orchestrate.toml` in `folder` (default: the working directory) are read; the latter was written
    by whoever wrote the repository, so what could run a program or move a key is refused there by
    name.
    """
    environ = dict(os.environ) if environ is None else environ
    stated = environ.get("ORCHESTRATE_CONFIG")
    named = path or (Path(stated) if stated else None)
    servers = _servers()
    adapters = Adapters()
    files = [_read(named)] if named else _found(folder or Path.cwd())
    merged = _File(
        defaults=next((file.defaults for file in files if file.defaults.agent), _Defaults()),
        # A name that both files have is the user's: else a file that was only found could send the
        # user's agents, with their keys, elsewhere.
        servers={name: server for file in files for name, server in file.servers.items()},
        agents={name: agent for file in files for name, agent in file.agents.items()},
    )
    limits = Limits()
    for file in files:
        limits = limits.meet(file.limits.limits())
    agents = [
        _agent(name, entry, merged.servers, servers, adapters)
        for name, entry in merged.agents.items()
    ]
    state = environ.get("ORCHESTRATE_STATE_DIR")
    return Config(
        agents=tuple(agents),
        default_agent=merged.defaults.agent,
        adapters=adapters,
        servers=MappingProxyType(servers),
        limits=limits,
        state=Path(state).absolute() if state else user_state_path("orchestrate"),
        environ=MappingProxyType(dict(environ)),
    )


class Adapters(Mapping[str, Adapter]):
    """The adapters that are installed, by name; each is loaded when it is first asked for.

    Asking for one that cannot be imported raises ConfigError.
    """

    def __init__(self) -> None:
        self._entries = {entry.name: entry for entry in _entries("orchestrator.adapters")}
        self._loaded: dict[str, Adapter] = {}

    def __getitem__(self, name: str) -> Adapter:
        if name not in self._loaded:
            adapter = _import(self._entries[name], "adapter")
            if not isinstance(getattr(adapter, "about", None), About):
                raise ConfigError(f"adapter {name!r} is none: it has no `about`")
            self._loaded[name] = adapter
        return self._loaded[name]

    def __contains__(self, name: object) -> bool:
        return name in self._entries  # without loading it

    def __iter__(self) -> Iterator[str]:
        return iter(self._entries)

    def __len__(self) -> int:
        return len(self._entries)


def check_adapter(name: str, adapters: Mapping[str, Adapter], where: str) -> None:
    """Raises ConfigError with the known ones if there is no adapter of that name."""
    if name in adapters:
        return
    import difflib

    near = difflib.get_close_matches(name, adapters, n=1)
    hint = f"Did you mean {near[0]!r}?" if near else None
    known = ", ".join(adapters) or "none"
    raise ConfigError(f"{where}: no adapter {name!r} (known: {known})", hint=hint)


@cache
def _all_entries() -> tuple[EntryPoint, ...]:
    # Reads the metadata of every installed package, so once for all groups.
    return tuple(
        entry
        for package in distributions()
        for entry in package.entry_points
        if entry.group.startswith("orchestrator.")
    )


def _entries(group: str) -> list[EntryPoint]:
    """The entry points of a group by name; the first on the path wins."""
    found = {entry.name: entry for entry in reversed(_all_entries()) if entry.group == group}
    return [found[name] for name in sorted(found)]


def _servers() -> dict[str, ModelServer]:
    servers: dict[str, ModelServer] = {}
    for entry in _entries("orchestrator.servers"):
        server = _import(entry, "model server")
        if not isinstance(server, ModelServer):
            raise ConfigError(f"model server {entry.name!r} is none: {entry.value} is not one")
        servers[entry.name] = server
    return servers


def _import(entry: EntryPoint, what: str) -> Any:
    try:
        return entry.load()
    except Exception as error:  # foreign code: whatever it raises, it is broken
        reason = shown(f"{type(error).__name__}: {error}")
        raise ConfigError(f"{what} {entry.name!r} cannot be loaded: {reason}") from error


def _found(folder: Path) -> list[_File]:
    """The project's file, then the user's; either may be missing."""
    files: list[_File] = []
    if (project := folder / FILE).is_file():
        file = _read(project)
        _refuse_untrusted(file, project)
        files.append(file)
    if (user := user_config_path("orchestrate") / FILE).is_file():
        files.append(_read(user))
    return files


def _refuse_untrusted(file: _File, path: Path) -> None:
    refused = [
        f"agents.{name}.{key}"
        for name, agent in file.agents.items()
        for key in sorted({*agent.model_fields_set, *(agent.model_extra or {})} - _TRUSTED_AGENT)
    ]
    refused += [
        f"servers.{name}.{key}"
        for name, server in file.servers.items()
        for key in sorted(server.model_fields_set - _TRUSTED_SERVER)
    ]
    if refused:
        text = f"{path}: not trusted to set {', '.join(refused)}: the file was found, not named"
        raise ConfigError(shown(text), hint=shown(f"If you trust it, name it: `--config {path}`."))


def _read(path: Path) -> _File:
    try:
        with path.open("rb") as file:
            raw = file.read(SIZE_LIMIT + 1)
    except OSError as error:
        raise ConfigError(shown(f"cannot read {path}: {error.strerror}")) from error
    if len(raw) > SIZE_LIMIT:
        raise ConfigError(shown(f"{path}: the file has more than {SIZE_LIMIT} bytes"))
    try:
        value = tomllib.loads(raw.decode())
    except RecursionError:
        raise ConfigError(shown(f"{path}: not TOML that can be read: nested too deeply")) from None
    except ValueError as error:  # not TOML, not UTF-8, or a number of thousands of digits
        raise ConfigError(shown(f"{path}: not TOML: {error}")) from error
    try:
        return _File.model_validate(value)
    except ValidationError as error:
        problems = "\n".join(shown(f"{path}: {_problem(problem)}") for problem in error.errors())
        raise ConfigError(problems) from None


def _problem(error: Mapping[str, object]) -> str:
    where = tuple(part for part in parts(error["loc"]) if part != "[key]")
    models: Mapping[object, type[BaseModel]] = {
        "defaults": _Defaults,
        "limits": LimitsModel,
        "servers": _Server,
    }
    model = models.get(where[0], _File) if len(where) > 1 else _File
    key = ".".join(str(part) for part in where)
    return f"{key}: {described(error, sorted(model.model_fields))}"


# --- agents --------------------------------------------------------------------------------------


def _agent(
    name: str,
    entry: _Agent,
    places: Mapping[str, _Server],
    kinds: Mapping[str, ModelServer],
    adapters: Mapping[str, Adapter],
) -> Agent:
    """One agent as configured, with its server looked up."""
    where = f"agent {name!r}"
    check_adapter(entry.adapter, adapters, where)
    if entry.login and entry.api_key_env is not None:
        raise ConfigError(f"{where}: `login = true` and `api_key_env` exclude each other")
    agent = Agent(
        name=name,
        adapter=entry.adapter,
        model=entry.model,
        base_url=entry.base_url,
        api_key_env=entry.api_key_env,
        login=entry.login,
        options=MappingProxyType(dict(entry.model_extra or {})),
    )
    place_name, model = _place(entry, places)
    local: bool | None = None
    if place_name is not None:
        agent, local = _at(agent, place_name, model, places, kinds, where)
    tier = entry.tier or _tier(agent, kinds, local)
    profile = entry.profile or ("clean" if tier == "local" or agent.base_url else "user")
    return replace(agent, tier=tier, profile=profile)


def _place(entry: _Agent, places: Mapping[str, _Server]) -> tuple[str | None, str | None]:
    """The server's name, stated or as the first part of the model's (only if one is named so)."""
    if entry.server is not None or entry.model is None:
        return entry.server, entry.model
    first, slash, rest = entry.model.partition("/")
    return (first, rest) if slash and first in places else (None, entry.model)


def _at(
    agent: Agent,
    place_name: str,
    model: str | None,
    places: Mapping[str, _Server],
    kinds: Mapping[str, ModelServer],
    where: str,
) -> tuple[Agent, bool | None]:
    """The agent at a server: a configured one, or a kind at its usual address."""
    place = places.get(place_name) or _Server(kind=place_name)
    kind = kinds.get(place.kind)
    if kind is None:
        known = ", ".join(sorted({*places, *kinds}))
        raise ConfigError(f"{where}: no server {place.kind!r} (known: {known})")
    agent = replace(agent, server=place.kind, model=model)
    if agent.base_url is not None:
        # What the server's owner says of its address, and its key, are not for another address.
        return agent, None
    base_url = place.base_url or default_url(kind)
    key = agent.api_key_env or place.api_key_env
    return replace(agent, base_url=base_url, api_key_env=key), place.local


def default_url(kind: ModelServer) -> str | None:
    """Where a server of this kind usually is: on loopback at its port, or the provider's URL."""
    return kind.base_url if kind.port is None else f"http://127.0.0.1:{kind.port}"


def _tier(agent: Agent, kinds: Mapping[str, ModelServer], local: bool | None) -> Tier:
    if local is not None:
        return "local" if local else "cloud"
    if agent.base_url is not None:
        return tier_of(agent.base_url)
    return "local" if agent.server is not None and kinds[agent.server].local else "cloud"


def tier_of(base_url: str) -> Tier:
    """`local` for a loopback address (or a scripted server), else `cloud`."""
    from ipaddress import ip_address

    if base_url.startswith("scripted:"):
        return "local"
    if "\\" in base_url:
        return "cloud"  # a slash to some clients, a part of the host's name to others
    try:
        host = urlsplit(base_url if "://" in base_url else f"//{base_url}").hostname or ""
        if host == "localhost" or host.endswith(".localhost"):
            return "local"
        address = ip_address(host)
    except ValueError:
        return "cloud"
    # 0.0.0.0 is where a server listens (OLLAMA_HOST); who connects to it gets to this machine.
    return "local" if address.is_loopback or address.is_unspecified else "cloud"


def agents_for(name: str | None, config: Config) -> tuple[Agent, ...]:
    """The agents that may do a task: the one that is named, or all, in the order of preference.

    All are the configured ones in file order (a default one first), then the discovered.
    Discovering loads every adapter, so it is done only where it matters. Raises ConfigError for an
    unknown name.
    """
    named = name or config.default_agent
    configured = [agent for agent in config.agents if agent.name == named]
    if name is not None and configured:
        return tuple(configured)
    agents = (*config.agents, *_discovered(config))
    first = [agent for agent in agents if agent.name == named]
    if named is not None and not first:
        where = "no agent" if name else "defaults.agent: no agent"
        known = ", ".join(agent.name for agent in agents) or "none"
        raise ConfigError(f"{where} {named!r} (known: {known})")
    if name is not None:
        return tuple(first)
    return (*first, *(agent for agent in agents if agent.name != named))


def port_of(base_url: str) -> int | None:
    """The port that a URL names, or None."""
    try:
        return urlsplit(base_url if "://" in base_url else f"//{base_url}").port
    except ValueError:
        return None


def expanded(path: str, environ: Mapping[str, str]) -> Path | None:
    """The path with a leading `~` or `$NAME` replaced as the agent would; None: that is not set."""
    first, _, rest = path.partition("/")
    if first == "~" or first.startswith("$"):
        start = environ.get("HOME" if first == "~" else first[1:])
        return Path(start, rest) if start else None
    return Path(path)


def _discovered(config: Config) -> list[Agent]:
    """An agent for each adapter with a program, and one for each server that the environment names.

    Those with a local model come first, then by name.
    """
    taken = {agent.name for agent in config.agents}
    found = [
        agent
        for name in config.adapters
        for agent in _agents_of(name, config)
        if agent.name not in taken
    ]
    return sorted(found, key=lambda agent: (agent.tier == "cloud", agent.name))


def _agents_of(name: str, config: Config) -> Iterator[Agent]:
    try:
        about = config.adapters[name].about
    except ConfigError:
        yield Agent(name=name, adapter=name)  # it cannot run, and whoever looks is told why
        return
    if about.program is None:
        return
    key = _set(about.key_env, config.environ)
    yield Agent(name=name, adapter=name, api_key_env=key, profile="user")
    for kind in config.servers.values():
        url = _variable(kind.url_env, config.environ)
        model = _variable(kind.model_env, config.environ)
        if (url or model) and set(kind.dialects) & set(about.dialects):
            base_url = url or default_url(kind)
            tier = tier_of(base_url) if base_url else "local" if kind.local else "cloud"
            # Address and key both from the environment; but no cloud's key for a local server.
            key = _set(kind.key_env, config.environ) if kind.local or tier == "cloud" else None
            yield Agent(
                name=f"{name}-{kind.name}",
                adapter=name,
                model=model,
                server=kind.name,
                base_url=base_url,
                api_key_env=key,
                tier=tier,
                profile="clean",
            )


def _set(name: str | None, environ: Mapping[str, str]) -> str | None:
    """The variable's name, if it is set to something."""
    return name if name is not None and environ.get(name) else None


def _variable(names: tuple[str, ...], environ: Mapping[str, str]) -> str | None:
    return next((environ[name] for name in names if environ.get(name)), None)


# --- the default agent ---------------------------------------------------------------------------


def set_default(name: str, config: Config, path: Path | None = None) -> Path:
    """Make an agent the default in a configuration file: the user's own, or the one named.

    All else in the file stays as it is, comments too. Returns the file. Raises ConfigError for an
    unknown name, and for a file that cannot be edited line by line.
    """
    known = [agent.name for agent in agents_for(None, replace(config, default_agent=None))]
    if name not in known:
        raise ConfigError(f"no agent {name!r} (known: {', '.join(known) or 'none'})")
    stated = config.environ.get("ORCHESTRATE_CONFIG")
    path = path or (Path(stated) if stated else user_config_path("orchestrate") / FILE)
    path = path.resolve()  # a link to where somebody keeps such files stays one
    try:
        text = path.read_bytes().decode("utf-8") if path.exists() else ""
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"cannot read {path}: {error}") from error
    edited = _with_default(text, name)
    if not _only_sets(name, text, edited):
        hint = f"Write it yourself: agent = {_quoted(name)}, below [defaults]."
        raise ConfigError(f"{path}: cannot set defaults.agent in this file", hint=hint)
    try:
        _replace(path, edited)
    except OSError as error:
        raise ConfigError(f"cannot write {path}: {error.strerror}") from error
    return path


def _only_sets(name: str, before: str, after: str) -> bool:
    """Whether the default agent is all in which the two differ."""
    try:
        old, new = (_File.model_validate(tomllib.loads(text)) for text in (before, after))
    except (tomllib.TOMLDecodeError, ValidationError):
        return False
    defaults = old.defaults.model_copy(update={"agent": name})
    return new.model_dump() == old.model_copy(update={"defaults": defaults}).model_dump()


_TABLE = re.compile(r"^[ \t]*\[")
_DEFAULTS = re.compile(r"^[ \t]*\[[ \t]*defaults[ \t]*\][ \t]*(#.*)?\r?\n?$")
_AGENT = re.compile(r"^(?P<key>[ \t]*agent[ \t]*=[ \t]*)(\"[^\"\\\n]*\"|'[^'\n]*')")


def _with_default(text: str, name: str) -> str:
    """The text with `agent` set in [defaults]. Lines that only look so (inside of a text of several
    lines) are not told apart: whoever calls checks what came out.
    """
    lines = text.splitlines(keepends=True)
    head = next((at for at, line in enumerate(lines) if _DEFAULTS.match(line)), None)
    if head is None:
        gap = "" if not text else "\n" if text.endswith("\n") else "\n\n"
        return f"{text}{gap}[defaults]\nagent = {_quoted(name)}\n"
    for at in range(head + 1, len(lines)):
        if _TABLE.match(lines[at]):
            break
        if found := _AGENT.match(lines[at]):
            lines[at] = f"{found['key']}{_quoted(name)}{lines[at][found.end() :]}"
            return "".join(lines)
    lines[head] = lines[head].rstrip("\r\n") + "\n"
    lines.insert(head + 1, f"agent = {_quoted(name)}\n")
    return "".join(lines)


def _quoted(name: str) -> str:
    return orjson.dumps(name).decode()  # JSON's texts are TOML's too


def _replace(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    fresh = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        fresh.write_bytes(text.encode())
        fresh.chmod(path.stat().st_mode & 0o777 if path.exists() else 0o600)
        fresh.replace(path)
    finally:
        fresh.unlink(missing_ok=True)
