"""The contract of a kind of model server: what it is, which questions it answers, how its replies
are read. No I/O: a kind yields what to ask and is sent what was replied; discovery asks.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Generator, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from ipaddress import ip_address
from types import MappingProxyType
from typing import Literal, TypeAlias, TypeGuard
from urllib.parse import urlsplit

from orchestrator.errors import ConfigError, shown
from orchestrator.task import Dialect

# --- what is asked, and what comes back ----------------------------------------------------------


def _no_body() -> Mapping[str, object]:
    return MappingProxyType({})


@dataclass(frozen=True, kw_only=True)
class Ask:
    """A request: `path` is below the server's address (which has no `/v1`), `body` becomes JSON.

    `stream`: the reply is read line by line, each as a `Reply` of its own.
    """

    path: str
    method: Literal["GET", "POST", "DELETE"] = "GET"
    body: Mapping[str, object] = field(default_factory=_no_body)
    stream: bool = False


@dataclass(frozen=True, kw_only=True)
class Reply:
    """An answer: the HTTP status (0: there was none) and the JSON in it (None: it was none).

    `text` is what it said where that was no JSON.
    """

    status: int
    body: object = None
    text: str = ""

    @property
    def ok(self) -> bool:
        """Whether the server did what it was asked."""
        return 200 <= self.status < 300


@dataclass(frozen=True, kw_only=True)
class Model:
    """A model that a server has. None is unknown; sizes are in bytes, contexts in tokens.

    `context` is what is really configured for it, `context_possible` what it was made for.
    `remote`: the server only passes it on to a cloud, whatever the address.
    """

    name: str
    context: int | None = None
    context_possible: int | None = None
    tools: bool | None = None
    thinking: bool | None = None
    loaded: bool | None = None
    size: int | None = None
    parameters: str | None = None
    quantization: str | None = None
    remote: bool = False
    aliases: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Seen:
    """What a server said of itself. `sure`: nothing but a server of this kind answers so.

    `problem`: it is there, but of no use yet, such as `loading its model`; `loading`: it will be.
    """

    sure: bool
    version: str | None = None
    dialects: tuple[Dialect, ...] = ()
    models: tuple[Model, ...] = ()
    problem: str | None = None
    loading: bool = False


Look: TypeAlias = Generator[tuple[Ask, ...], Sequence[Reply], Seen | None]
"""Yields what to ask next, all at once, and is sent as many replies. Returns None if it is no
server of this kind that answers.
"""


@dataclass(frozen=True, kw_only=True)
class Progress:
    """How far a download is; the bytes are None where nobody knows."""

    text: str
    done: int | None = None
    total: int | None = None


@dataclass(frozen=True, kw_only=True)
class Pause:
    """Wait before asking again."""

    seconds: float


@dataclass(frozen=True)
class Next:
    """Send the next line of the stream, or None at its end."""


Pull: TypeAlias = Generator["Ask | Next | Pause | Progress", "Reply | None", str | None]
"""Fetches a model: yields steps, is sent what an `Ask` or a `Next` brought. Returns why it failed,
or None.
"""


# --- the kinds -----------------------------------------------------------------------------------


def _tells_nothing(reply: Reply, model: str) -> str | None:
    del reply, model
    return None


def _looks_at_nothing() -> Look:
    yield from ()
    return None


@dataclass(frozen=True, kw_only=True)
class ModelServer:
    """A kind of place that serves models.

    `port` is its usual one on loopback, None: it has none (a cloud). `url_env` and `model_env` are
    the variables that users of it set. `start` and `list_models` are what a person types to start
    it and to see its models, `get_model` to get one, `more_context` to have a larger window;
    `context_hint` and `tools_hint` say how else it comes to that, and to calling tools.
    `dialects` are what its current versions speak; `look` says what the one at hand does. `local`:
    it runs on one's own machines. `owns_port`: whatever answers at its port is taken for one.
    `lists_all`: a model that is not in its list cannot be had from it. `prefixes` are what agents
    put before its models' names (`ollama_chat/NAME`). `use` reads from the reply to `ask_use` a
    text that is another one after each answer of a model; None: the model is not loaded, or nothing
    is told of it. `use_counts`: a text that stays means that nothing was answered; else it means
    nothing.
    """

    name: str
    title: str
    port: int | None
    url_env: tuple[str, ...] = ()
    model_env: tuple[str, ...] = ()
    key_env: str | None = None
    base_url: str | None = None
    start: str | None = None
    list_models: str | None = None
    get_model: str | None = None
    more_context: str | None = None
    context_hint: str | None = None
    tools_hint: str | None = None
    dialects: tuple[Dialect, ...] = ("chat",)
    local: bool = True
    owns_port: bool = False
    lists_all: bool = False
    prefixes: tuple[str, ...] = ()
    look: Callable[[], Look] = _looks_at_nothing
    ask_use: Ask | None = None
    use: Callable[[Reply, str], str | None] = _tells_nothing
    use_counts: bool = True
    pull: Callable[[str], Pull] | None = None
    remove: Callable[[str], Ask] | None = None


@dataclass(frozen=True, kw_only=True)
class Place:
    """A model server by name: one of the configuration, or a kind where it usually is.

    `local`: whether its owner calls it so, None: its address decides. `stated`: somebody named it
    (a file, a variable), so that it is missed when it does not answer. `slots`: how many agents it
    serves at the same time, None: as many as its kind usually does.
    """

    name: str
    kind: str
    base_url: str
    api_key_env: str | None = None
    local: bool | None = None
    stated: bool = False
    slots: int | None = None


# --- names and addresses -------------------------------------------------------------------------

ANY = "*"
_CLOUD = re.compile(r"[:-]cloud$")


def is_remote(model: str) -> bool:
    """Whether a model's name says that a cloud serves it (`gpt-oss:120b-cloud`)."""
    return _CLOUD.search(model) is not None


def find_model(models: Iterable[Model], name: str) -> Model | None:
    """The model of that name; `:latest` and a variant (`@q4_k_m`) may be missing on either side.

    One that is called `*` stands for any: gateways list it so.
    """
    listed = tuple(models)
    for same in (_exactly, _plainly):
        for model in listed:
            if any(same(known) == same(name) for known in (model.name, *model.aliases)):
                return model
    return next((model for model in listed if model.name == ANY), None)


def _exactly(name: str) -> str:
    return name


def _plainly(name: str) -> str:
    return name.removesuffix(":latest").partition("@")[0]


def address_of(url: str, port: int | None = None) -> str:
    """A server's address in one form, as something to connect to: scheme, no `/v1`, no last slash.

    `port` is taken where neither a scheme nor a port is given, as Ollama does with OLLAMA_HOST.
    0.0.0.0 and `::` are where a server listens: who connects to it goes to loopback. Raises
    ConfigError for what is no address.
    """
    text = url.strip().strip("\"'")
    stated = "://" in text
    try:
        parts = urlsplit(text if stated else f"http://{text}")
        host, number = _reachable(parts.hostname or ""), parts.port
    except ValueError:
        raise ConfigError(shown(f"not an address: {url}"), hint=_FORM) from None
    if parts.scheme not in {"http", "https"} or not re.fullmatch(r"[\w.:%-]+", host):
        raise ConfigError(shown(f"not an address: {url}"), hint=_FORM)
    number = port if number is None and not stated else number
    where = f"[{host}]" if ":" in host else host
    path = re.sub(r"/(v1|api)?/*$", "", re.sub(r"/+$", "", parts.path))
    return f"{parts.scheme}://{where}{'' if number is None else f':{number}'}{path}"


_FORM = "An address is a URL or HOST:PORT, such as http://127.0.0.1:11434."


def _reachable(host: str) -> str:
    if host == "":
        return "127.0.0.1"
    try:
        address = ip_address(host)
    except ValueError:
        return host
    if not address.is_unspecified:
        return host
    return "::1" if address.version == 6 else "127.0.0.1"


# --- what every kind needs to read a reply -------------------------------------------------------


def items(value: object) -> list[Mapping[str, object]]:
    """The objects in a list; nothing for anything else."""
    return [each for each in value if _is_object(each) and each] if is_list(value) else []


def is_list(value: object) -> TypeGuard[list[object]]:
    """Whether a value is a list, of whatever."""
    return isinstance(value, list)


def _is_object(value: object) -> TypeGuard[dict[str, object]]:
    return isinstance(value, dict)


def inner(value: object, *keys: str) -> object:
    """The value below the keys, or None where there is no such thing."""
    for key in keys:
        value = value.get(key) if _is_object(value) else None
    return value


def text_of(value: object) -> str | None:
    """A text that says something, or None."""
    return value if isinstance(value, str) and value else None


def count_of(value: object) -> int | None:
    """A positive whole number, or None: a window of 0 tokens is an unknown one."""
    if isinstance(value, bool) or not isinstance(value, int) or value <= 0:
        return None
    return value


def flag_of(value: object) -> bool | None:
    """True or False as stated, None for anything else."""
    return value if isinstance(value, bool) else None


def texts_of(value: object) -> tuple[str, ...]:
    """The texts in a list; nothing for anything else."""
    return tuple(each for each in value if isinstance(each, str)) if is_list(value) else ()


def at_least(version: str | None, *wanted: int) -> bool:
    """Whether a version (`0.13.4`, `0.14.0-rc2`) is that one or newer. Unknown: no."""
    numbers = re.findall(r"\d+", (version or "").partition("-")[0])
    return bool(numbers) and tuple(int(each[:9]) for each in numbers) >= wanted


def openai_models(reply: Reply) -> tuple[Model, ...] | None:
    """What `GET /v1/models` lists, or None if that is no such list.

    Besides the name it holds what several servers add: `max_model_len` (vLLM, SGLang),
    `context_length` (gateways).
    """
    if not reply.ok or not is_list(inner(reply.body, "data")):
        return None
    return tuple(
        Model(
            name=name,
            context=count_of(each.get("max_model_len")) or count_of(each.get("context_length")),
            remote=is_remote(name),
        )
        for each in items(inner(reply.body, "data"))
        if (name := text_of(each.get("id"))) is not None
    )
