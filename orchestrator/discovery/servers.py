"""Model servers: which answer, what they have, and whether an agent can use what it was given.

Only configured addresses and loopback are asked, all at once. What was seen is kept for a few
seconds, for all processes of the user, and says how old it is.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from hashlib import sha256
from pathlib import Path
from typing import Literal
from urllib.parse import urlsplit

import anyio
import orjson
from pydantic import TypeAdapter, ValidationError

from orchestrator import private
from orchestrator.adapter import Agent
from orchestrator.config import Config, places_of, tier_of, tier_of_place
from orchestrator.errors import AskError, ConfigError, lone_error, shown
from orchestrator.events import Error, Tier
from orchestrator.server import (
    ANY,
    Ask,
    Look,
    Model,
    ModelServer,
    Place,
    Reply,
    Seen,
    address_of,
    find_model,
    is_remote,
)
from orchestrator.task import Dialect

ASK_S = 1.0
"""How long one question of a survey may take: a server on this machine answers in milliseconds."""

PATIENT_S = 5.0
"""The same before a run, where a late answer is better than a wrong refusal."""

FRESH_S = 5.0
"""How long what was seen of a server counts as its state."""

LOAD_S, AGAIN_S = 5 * 60.0, 0.5
"""How long a server may load its model before a run, and how often it is asked whether it has."""

_AT_ONCE = 8


@dataclass(frozen=True, kw_only=True)
class FoundServer:
    """A model server as it was seen. `problem` is why it is of no use, None if it is of use.

    `base_url` is where it was asked. `seen_at` is Unix time, `latency_s` how long it took to tell.
    `open_to`: the addresses beyond loopback at which it listens, if it is on this machine.
    `loading`: it reads its model, and will be of use.
    """

    name: str
    kind: str
    title: str
    base_url: str
    tier: Tier
    stated: bool
    up: bool
    api_key_env: str | None = None
    version: str | None = None
    dialects: tuple[Dialect, ...] = ()
    models: tuple[Model, ...] = ()
    problem: Error | None = None
    open_to: tuple[str, ...] = ()
    loading: bool = False
    seen_at: float = 0.0
    latency_s: float | None = None

    @property
    def age_s(self) -> float:
        """How old this is, in seconds."""
        return max(0.0, time.time() - self.seen_at)

    @property
    def loaded(self) -> tuple[Model, ...]:
        """The models that answer at once."""
        return tuple(model for model in self.models if model.loaded)


# --- finding -------------------------------------------------------------------------------------


async def find_servers(config: Config) -> tuple[FoundServer, ...]:
    """Every place where models may be served, asked now and all at once, in the order of
    `places_of`.

    Those at a usual address of which nobody said that there is one are there only if they answer.
    """
    found: dict[str, FoundServer] = {}

    async def see_one(place: Place) -> None:
        found[place.name] = await see(place, config)

    with lone_error():
        async with anyio.create_task_group() as group:
            for place in places_of(config):
                group.start_soon(see_one, place)
    ordered = (found[place.name] for place in places_of(config))
    return tuple(one for one in ordered if one.up or one.stated)


async def see(place: Place, config: Config, *, limit_s: float = ASK_S) -> FoundServer:
    """One server, asked now. Keeps what it saw."""
    kind, began = config.servers[place.kind], time.monotonic()
    try:
        address = address_of(place.base_url, kind.port)
        kind, seen = await _identified(place, address, config, limit_s)
    except (AskError, ConfigError) as error:
        return _found(place, kind, place.base_url, None, problem_of(error, kind, place.base_url))
    problem = _of_no_use(seen, kind, address)
    found = _found(place, kind, address, None if problem and not seen else seen, problem)
    found = replace(found, latency_s=round(time.monotonic() - began, 3))
    _keep(found, config)
    return found


async def _identified(
    place: Place, address: str, config: Config, limit_s: float
) -> tuple[ModelServer, Seen | None]:
    """Which kind answers: the one that is expected, another that is sure, or any that has models.

    Where somebody said which kind it is, that is believed.
    """
    key = config.environ.get(place.api_key_env) if place.api_key_env else None
    expected = config.servers[place.kind]
    first = await _look(expected.look(), address, key, limit_s)
    if place.stated or (first is not None and first.sure):
        return expected, first
    for kind in config.servers.values():
        if kind.local and kind.port is not None and kind.name != expected.name:
            seen = await _look(kind.look(), address, key, limit_s)
            if seen is not None and seen.sure:
                return kind, seen
    if (plain := _plain_kind(config)) is not None:
        seen = await _look(plain.look(), address, key, limit_s)
        if seen is not None and seen.sure and seen.models:
            return plain, seen
    return expected, None


def _plain_kind(config: Config) -> ModelServer | None:
    """The kind that asks for nothing but a list of models."""
    plain = (kind for kind in config.servers.values() if kind.local and kind.port is None)
    return next(plain, None)


async def _look(look: Look, address: str, key: str | None, limit_s: float) -> Seen | None:
    """Asks what the kind wants to know until it has seen enough. Raises AskError if nothing of the
    first questions is answered.
    """
    asks = next(look, None)
    first = True
    while asks is not None:
        replies = await _replies(asks, address, key, limit_s)
        if first and (errors := [one for one in replies if isinstance(one, AskError)]):
            _raise_if_all(errors, replies)
        first = False
        known = [one if isinstance(one, Reply) else Reply(status=0) for one in replies]
        try:
            asks = look.send(known)
        except StopIteration as end:
            seen: Seen | None = end.value
            return _refused(seen, known)
    return None


def _raise_if_all(errors: Sequence[AskError], replies: Sequence[object]) -> None:
    if len(errors) == len(replies):
        raise errors[0]


def _refused(seen: Seen | None, replies: Sequence[Reply]) -> Seen | None:
    """Who wants a key is no other kind of thing."""
    if seen is None and replies and all(one.status in {401, 403} for one in replies):
        return Seen(sure=False, problem=_WANTS_KEY)
    return seen


_WANTS_KEY = "wants a key"


async def _replies(
    asks: Sequence[Ask], address: str, key: str | None, limit_s: float
) -> list[Reply | AskError]:
    from orchestrator.client import ask  # HTTP: a run without a model server starts without it

    replies: dict[int, Reply | AskError] = {}
    limiter = anyio.CapacityLimiter(_AT_ONCE)

    async def one(at: int, request: Ask) -> None:
        async with limiter:
            try:
                replies[at] = await ask(address, request, key=key, limit_s=limit_s)
            except AskError as error:
                replies[at] = error

    with lone_error():
        async with anyio.create_task_group() as group:
            for at, request in enumerate(asks):
                group.start_soon(one, at, request)
    return [replies[at] for at in range(len(asks))]


def _found(
    place: Place, kind: ModelServer, base_url: str, seen: Seen | None, problem: Error | None
) -> FoundServer:
    # What was expected and what answers may differ: then the name says what it is.
    name = place.name if place.stated or kind.name == place.kind else kind.name
    local = tier_of_place(place) == "local"
    return FoundServer(
        name=name,
        kind=kind.name,
        title=kind.title,
        base_url=base_url,
        tier="local" if local else "cloud",
        stated=place.stated,
        up=seen is not None,
        api_key_env=place.api_key_env,
        version=seen.version if seen else None,
        dialects=seen.dialects if seen else (),
        models=tuple(sorted(seen.models, key=lambda model: model.name)) if seen else (),
        problem=problem,
        open_to=_beyond_loopback(base_url) if seen else (),
        loading=seen.loading if seen else False,
        seen_at=time.time(),
    )


def _beyond_loopback(address: str) -> tuple[str, ...]:
    """Where a server on this machine listens that others can reach, from the kernel's tables."""
    parts = urlsplit(address)
    if tier_of(address) == "cloud":
        return ()
    port = parts.port or 80
    found: set[str] = set()
    for table in (Path("/proc/net/tcp"), Path("/proc/net/tcp6")):
        with suppress(OSError):  # not Linux
            found.update(_listening(table.read_text("ascii"), port))
    return tuple(sorted(found))


_LISTEN = "0A"
_LOOPBACK = ("0100007F", "00000000000000000000000001000000", "0000000000000000FFFF00000100007F")
_NAMES = {"00000000": "0.0.0.0", "0" * 32: "::"}  # noqa: S104 (it is looked for, not bound)


def _listening(table: str, port: int) -> list[str]:
    rows = (line.split() for line in table.splitlines()[1:])
    addresses = [
        row[1].rpartition(":")[0]
        for row in rows
        if len(row) > 3 and row[3] == _LISTEN and int(row[1].rpartition(":")[2], 16) == port
    ]
    return [
        f"{_NAMES.get(address, 'a network address')}:{port}"
        for address in addresses
        if address not in _LOOPBACK and not (len(address) == 8 and address.endswith("7F"))
    ]


# --- what was seen, kept for a moment ------------------------------------------------------------


_FOUND = TypeAdapter(FoundServer)


def _kept_in(config: Config, base_url: str, kind: str) -> Path:
    name = sha256(f"{kind} {base_url}".encode()).hexdigest()[:24]
    return config.state / "servers" / f"{name}.json"


def _keep(found: FoundServer, config: Config) -> None:
    path = _kept_in(config, found.base_url, found.kind)
    with suppress(OSError):  # it is asked again, that is all
        private.folder(path.parent)
        private.replace(path, orjson.dumps(found))


def _kept(place: Place, config: Config) -> FoundServer | None:
    """What was seen of the place less than FRESH_S ago, if it was up."""
    try:
        address = address_of(place.base_url, config.servers[place.kind].port)
        found = _FOUND.validate_json(private.read(_kept_in(config, address, place.kind)))
    except (OSError, ValidationError, ConfigError):
        return None
    current = found.up and found.problem is None and found.age_s < FRESH_S
    return replace(found, name=place.name) if current else None


# --- what is wrong -------------------------------------------------------------------------------


def problem_of(error: AskError | ConfigError, kind: ModelServer | None, base_url: str) -> Error:
    """Why a server cannot be asked, with what to do about it."""
    title = kind.title if kind else "the model server"
    where = f"{title} at {base_url}"
    match error:
        case AskError(why="unknown_host"):
            text = f"Cannot reach {where}: {error}."
            return Error(kind="unavailable", text=text, retryable=False, hint=_WRONG_HOST)
        case AskError(why="timed_out"):
            text = f"{_up(where)} does not answer ({error})."
            return Error(kind="timed_out", text=text, retryable=True, hint=_SLOW)
        case AskError(why="not_http" | "too_large" | "insecure"):
            text = f"What answers at {base_url} is not {_one_of(title)}: {error}."
            hint = _wrong_url(kind, base_url)
            return Error(kind="unavailable", text=text, retryable=False, hint=hint)
        case AskError():
            text = f"Cannot reach {where} ({error})."
            return Error(kind="unavailable", text=text, retryable=True, hint=server_hint(kind))
        case ConfigError():
            text = f"Cannot reach {title}: {error}."
            return Error(kind="unavailable", text=text, retryable=False, hint=error.hint)


_WRONG_HOST = "Is the host's name spelled right? Can this machine resolve it?"
_SLOW = "It may be loading a model or be busy: try again, or restart it."


def _up(text: str) -> str:
    return f"The {text[4:]}" if text.startswith("the ") else text  # vLLM stays vLLM


def _one_of(title: str) -> str:
    """`the OpenAI-compatible server` is one of many, vLLM is vLLM."""
    name = title.removeprefix("the ")
    if name == title:
        return title
    return f"{'an' if name[0] in 'AEIOUaeiou' else 'a'} {name}"


def _wrong_url(kind: ModelServer | None, base_url: str) -> str:
    more = ""
    if kind is not None and kind.port is not None:
        more = f" {kind.title} usually is at http://127.0.0.1:{kind.port}."
    elif kind is not None:
        more = f" `curl {base_url}/v1/models` should list its models."
    return f"Is the address right, host, port and path?{more}"


def _of_no_use(seen: Seen | None, kind: ModelServer, base_url: str) -> Error | None:
    """What is wrong with a server that did answer."""
    where = f"{_up(kind.title)} at {base_url}"
    if seen is None:
        text = f"Something answers at {base_url}, but it is not {_one_of(kind.title)}."
        hint = _wrong_url(kind, base_url)
        return Error(kind="unavailable", text=text, retryable=False, hint=hint)
    if seen.problem == _WANTS_KEY:
        hint = f"Name the variable that holds it: api_key_env = {kind.key_env or 'NAME'!r}."
        text = f"{where} {_WANTS_KEY}, or refuses the one it got."
        return Error(kind="auth_failed", text=text, retryable=False, hint=hint)
    if seen.problem is not None:
        text = f"{where} is {seen.problem}."
        return Error(kind="unavailable", text=text, retryable=True, hint="Try again in a moment.")
    return None


def server_hint(kind: ModelServer | None) -> str:
    """What to do when a model server does not answer, or has not the model."""
    if kind is None or kind.start is None:
        return "Is it running? Is the address right?"
    models = f" Is the model there (`{kind.list_models}`)?" if kind.list_models else ""
    return f"Is it running (`{kind.start}`)?{models}"


# --- before a run --------------------------------------------------------------------------------


async def with_model(agent: Agent, config: Config) -> Agent | Error:
    """The agent with a model, where it goes to a server at home and nobody named one.

    That is the server's variable, then its only loaded model; else an error that lists what it
    has. An agent whose model is named, or that goes elsewhere, comes back as it is.
    """
    place = place_of(agent, config)
    if place is None or agent.model is not None:
        return agent
    kind = config.servers[place.kind]
    if model := _of_variable(kind, config):
        return replace(agent, model=model)
    found = _kept(place, config) or await _loaded(place, config)
    if found.problem is not None:
        return found.problem
    if model := _the_one(found):
        return replace(agent, model=model)
    return nameless(found, agent, config) or agent


def nameless(found: FoundServer, agent: Agent, config: Config) -> Error | None:
    """That the agent names no model, nor anybody else, and its server has not just one. A gateway
    may know a name for what the agent asks for by itself.
    """
    kind = config.servers[found.kind]
    if agent.model is not None or kind.port is None:
        return None
    said = _of_variable(kind, config) or _the_one(found)
    return None if said else _none_named(found, kind)


def _of_variable(kind: ModelServer, config: Config) -> str | None:
    return next((model for name in kind.model_env if (model := config.environ.get(name))), None)


def _the_one(found: FoundServer) -> str | None:
    """The only model that is loaded, or that there is where nobody tells which are."""
    told = any(model.loaded is not None for model in found.models)
    listed = found.loaded if told else found.models
    candidates = [model.name for model in listed if model.name != ANY]
    return candidates[0] if len(candidates) == 1 else None


def only_model(found: FoundServer, config: Config) -> str | None:
    """The model that an agent of nobody's choice has there: the variable's, the only one loaded,
    or the only one that there is. None: there are several to choose from, or none that is here.
    """
    at_home = [model.name for model in found.models if not model.remote and model.name != ANY]
    alone = at_home[0] if len(at_home) == 1 else None
    model = _of_variable(config.servers[found.kind], config) or _the_one(found) or alone
    return None if model is None or is_remote(model) else model


def _none_named(found: FoundServer, kind: ModelServer) -> Error:
    where = f"{found.title} at {found.base_url}"
    if not found.models:
        get = (kind.get_model or "").format(model="qwen2.5-coder:14b")
        text = f"No model is named, and {where} has none."
        hint = f"Get one, such as `{get}`." if get else "Load a model there."
        return Error(kind="model_not_found", text=text, retryable=False, hint=hint)
    loaded = f"{len(found.loaded)} models loaded" if found.loaded else "no model loaded"
    text = f"No model is named, and {where} has {loaded}. It has: {_names(found.models)}."
    variable = f", or set {kind.model_env[0]}" if kind.model_env else ""
    return Error(kind="model_not_found", text=text, retryable=False, hint=f"Name one{variable}.")


def _names(models: Sequence[Model], most: int = 10) -> str:
    names = [shown(model.name) for model in models[:most]]
    more = f" and {len(models) - most} more" if len(models) > most else ""
    return ", ".join(names) + more


async def seen(place: Place, config: Config) -> FoundServer:
    """One server, as it was a moment ago or asked now."""
    return _kept(place, config) or await see(place, config)


def model_at(found: FoundServer, agent: Agent, config: Config) -> Model | Error | None:
    """The agent's model at its server, or why it is not there; None: nobody knows."""
    missing = lacks(found, agent, config)
    if missing is not None or agent.model is None:
        return missing
    return find_model(found.models, bare(agent.model, config.servers[found.kind]))


@dataclass(frozen=True, kw_only=True)
class Use:
    """A word of whoever serves on the use of a model, at one moment. `mark` is another one after
    each answer; None: the model was not loaded, or nothing is told of it. `counts`: a mark that
    stays means that nothing was answered.
    """

    server: str
    mark: str | None
    counts: bool = True
    method: Literal["server", "gateway"] = "server"


async def use_of(agent: Agent, config: Config) -> Use | None:
    """How the agent's model was used until now, by its server's own word; None: it does not say."""
    place = place_of(agent, config)
    kind = config.servers[place.kind] if place is not None else None
    if place is None or kind is None or kind.ask_use is None or agent.model is None:
        return None
    from orchestrator.client import ask

    key = config.environ.get(place.api_key_env) if place.api_key_env else None
    try:
        address = address_of(place.base_url, kind.port)
        reply = await ask(address, kind.ask_use, key=key, limit_s=ASK_S)
    except (AskError, ConfigError):
        return None
    if not reply.ok:
        return None
    mark = kind.use(reply, bare(agent.model, kind))
    return Use(server=place.base_url, mark=mark, counts=kind.use_counts)


async def preflight(agent: Agent, config: Config) -> Error | None:
    """The reason why the agent's model server cannot do it, or None: not there, not that, not the
    model.

    Only one at home is asked, or one that was configured: CLIs retry a refused port for minutes,
    and LiteLLM calls it a 500.
    """
    if agent.base_url is None or (agent.tier == tier_of(agent.base_url) == "cloud"):
        return None
    found = await known_server(agent, config)
    if found is None:
        return await _connects(agent.base_url)
    return found.problem or lacks(found, agent, config)


async def known_server(agent: Agent, config: Config) -> FoundServer | None:
    """The agent's server as it is now, None if it goes to none of a kind that is known."""
    place = place_of(agent, config)
    if place is None:
        return None
    found = _kept(place, config)
    if found is not None and lacks(found, agent, config) is None:
        return found
    return await _loaded(place, config)


async def _loaded(place: Place, config: Config) -> FoundServer:
    """One server, asked now; as long as it says that it loads its model, it has time for that."""
    found = await see(place, config, limit_s=PATIENT_S)
    with anyio.move_on_after(LOAD_S):
        while found.loading:
            await anyio.sleep(AGAIN_S)
            found = await see(place, config, limit_s=PATIENT_S)
    return found


def place_of(agent: Agent, config: Config) -> Place | None:
    """The agent's server as a place that can be asked, if its kind is known."""
    kind = config.servers.get(agent.server or "")
    if kind is None or agent.base_url is None or agent.base_url.startswith("scripted:"):
        return None
    local = agent.tier == "local" if agent.tier != tier_of(agent.base_url) else None
    if agent.tier == "cloud" and local is None:
        return None
    return Place(
        name=kind.name,
        kind=kind.name,
        base_url=agent.base_url,
        api_key_env=agent.api_key_env,
        local=local,
        stated=True,
    )


async def _connects(base_url: str) -> Error | None:
    """A server of unknown kind only has to be there."""
    from orchestrator.client import connect

    try:
        await connect(address_of(base_url), limit_s=PATIENT_S)
    except (AskError, ConfigError) as error:
        return problem_of(error, None, base_url)
    return None


def lacks(found: FoundServer, agent: Agent, config: Config) -> Error | None:
    """That the server has not the model, where its list is all that it can have."""
    kind = config.servers[found.kind]
    if agent.model is None or not kind.lists_all or is_remote(agent.model):
        return None
    if found.problem is not None or find_model(found.models, bare(agent.model, kind)) is not None:
        return None
    has = f"It has: {_names(found.models)}." if found.models else "It has none."
    text = f"{_up(kind.title)} at {found.base_url} has no model {agent.model!r}. {has}"
    hint = f"Get it: `{(kind.get_model or '').format(model=bare(agent.model, kind))}`."
    return Error(kind="model_not_found", text=shown(text), retryable=False, hint=hint)


def bare(model: str, kind: ModelServer) -> str:
    """The model as the server itself names it."""
    first, slash, rest = model.partition("/")
    return rest if slash and first in kind.prefixes else model
