"""One configuration file: its form, reading it, and what is wrong with it, by file, line, key."""

from __future__ import annotations

import os
import re
import stat
import tomllib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path
from typing import IO, Annotated, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError

from orchestrator import private
from orchestrator.config.positions import Key, has_long_key, is_list, is_table, line_of, lines_of
from orchestrator.config.value import Bounds, Defaults
from orchestrator.document import SIZE_LIMIT, EnvName, HttpUrl, Label, Text, described, parts
from orchestrator.errors import ConfigError, shown
from orchestrator.task import (
    KINDS,
    Access,
    Deliver,
    Fallback,
    Isolation,
    Kind,
    LimitsModel,
    Privacy,
    Strategy,
    Switch,
)

FILE = "orchestrate.toml"
CLASSES = ("cheap", "reasoning")
_DEEPEST = 50


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, defer_build=True)


class DefaultsModel(_Strict):
    """What holds where a task says nothing. The strongest level that says something wins."""

    agent: Text | None = Field(default=None, description="The agent that goes first.")
    strategy: Strategy | None = Field(
        default=None,
        description="Which class of agents: `auto` (by kind), `local`, `cloud`, or `cascade` "
        "(local first, verified, then the cloud).",
    )
    fallback: Fallback | None = Field(
        default=None, description="`cloud`: a failed local run may go on in the cloud."
    )
    isolation: Isolation | None = Field(
        default=None, description="`worktree`: each task in a git worktree of its own; or `none`."
    )
    deliver: Deliver | None = Field(
        default=None, description="The result as a `branch`, or `apply` it to the work tree."
    )
    access: Access | None = Field(
        default=None,
        description="What agents may do: `read`, `edit`, `full`. Kinds that only read keep to "
        "`read`.",
    )
    delegation: Switch | None = Field(
        default=None, description="Agents may hand sub-tasks on to other agents."
    )

    def defaults(self) -> Defaults:
        """The same as a value of the core."""
        return Defaults(
            strategy=self.strategy,
            fallback=self.fallback,
            isolation=self.isolation,
            deliver=self.deliver,
            access=self.access,
            delegation=self.delegation,
        )


def _some(names: list[str]) -> list[str]:
    if names:
        return names
    raise ValueError("at least one name; without the key, every agent may be used")


class BoundsModel(LimitsModel):
    """Limits. The strictest of all levels holds: a task can tighten them and never loosen."""

    concurrency: Annotated[int, Field(ge=1, le=10_000)] | None = Field(
        default=None, description="Tasks at the same time."
    )
    cloud_slots: Annotated[int, Field(ge=1, le=10_000)] | None = Field(
        default=None,
        description="Agents at one cloud provider at the same time, over all jobs. Default: 20.",
    )
    privacy: Privacy | None = Field(
        default=None, description="`local`: only agents whose model is local."
    )
    agents: Annotated[list[Text], AfterValidator(_some)] | None = Field(
        default=None,
        description="The agents that may be used, by name; of several levels' lists, the names "
        "that are in all.",
    )

    def bounds(self) -> Bounds:
        """What is not of one run, as a value of the core."""
        return Bounds(
            concurrency=self.concurrency,
            cloud_slots=self.cloud_slots,
            privacy=self.privacy or "any",
            agents=None if self.agents is None else frozenset(self.agents),
        )


def _database(url: str) -> str:
    if re.match(r"(sqlite:///|postgres(ql)?://)\S", url):
        return url
    raise ValueError("sqlite:///PATH, or postgresql://USER@HOST/NAME")


class QueueModel(_Strict):
    """The queue of the background worker."""

    database: Annotated[Text, AfterValidator(_database)] | None = Field(
        default=None,
        description="Where it is: `sqlite:///PATH` for one machine, `postgresql://USER@HOST/NAME` "
        "for many. Default: a file in the state directory.",
    )
    concurrency: Annotated[int, Field(ge=1, le=10_000)] | None = Field(
        default=None, description="How many jobs a worker does at the same time. Default: 4."
    )
    labels: list[Label] | None = Field(
        default=None,
        description="What a worker here has beside what is found: tasks name it as `requires`.",
    )


class ServerModel(_Strict):
    """A model server by name. A model `NAME/MODEL` is then served there."""

    kind: Text = Field(description="ollama, lmstudio, vllm, llamacpp, openai, ...")
    base_url: HttpUrl | None = Field(
        default=None,
        description="Where it is, with or without scheme, `/v1`, trailing slash; default: on this "
        "machine at its usual port.",
    )
    api_key_env: EnvName | None = Field(
        default=None, description="The variable that holds the key; never the key."
    )
    local: bool | None = Field(
        default=None, description="The owner declares that this host is local."
    )
    slots: Annotated[int, Field(ge=1, le=10_000)] | None = Field(
        default=None, description="How many agents it serves at the same time."
    )


class AgentModel(BaseModel):
    """An agent by name. What is not listed here is the adapter's own business, and checked
    there.
    """

    model_config = ConfigDict(extra="allow", strict=True, frozen=True, defer_build=True)

    adapter: Text = Field(description="How its CLI is spoken to: codex, claude, aider, ...")
    model: Text | None = Field(
        default=None, description="The model; `SERVER/MODEL` if there is a server of that name."
    )
    server: Text | None = Field(
        default=None, description="Where the model is served: a server's name, or a kind."
    )
    base_url: HttpUrl | None = Field(default=None, description="The address, where no server says.")
    api_key_env: EnvName | None = Field(
        default=None, description="The variable that holds the key; never the key."
    )
    tier: Literal["local", "cloud"] | None = Field(
        default=None, description="Where the model runs; default: as the address says."
    )
    profile: Literal["user", "clean"] | None = Field(
        default=None,
        description="`user`: the CLI's own home, settings and login; `clean`: a private home. "
        "Default: `user` in the cloud, `clean` elsewhere.",
    )
    login: bool = Field(default=False, description="The CLI's own login, though a key is there.")


class FileModel(_Strict):
    """An `orchestrate.toml`. Nothing in it is required."""

    model_config = ConfigDict(title="Configuration of orchestrate")

    defaults: DefaultsModel = DefaultsModel()
    limits: BoundsModel = BoundsModel()
    queue: QueueModel = QueueModel()
    servers: dict[Annotated[str, Field(min_length=1)], ServerModel] = Field(
        default={}, description="Model servers by name."
    )
    agents: dict[Annotated[str, Field(min_length=1)], AgentModel] = Field(
        default={}, description="Agents by name, in the order in which they are tried."
    )
    kinds: dict[Kind, Text] = Field(
        default={},
        description="Which class (`cheap`, `reasoning`) or which agent does work of a kind.",
    )


def config_schema() -> dict[str, object]:
    """JSON Schema of a configuration file."""
    schema = "https://json-schema.org/draft/2020-12/schema"
    return {"$schema": schema, **FileModel.model_json_schema()}


@dataclass(frozen=True, kw_only=True)
class Read:
    """A file as it was read, once: what was checked and hashed is what holds."""

    path: Path
    model: FileModel
    raw: Mapping[str, object]
    sha256: str
    lines: Mapping[Key, int] = field(repr=False)

    def at(self, key: Sequence[str]) -> str:
        """FILE:LINE of a key."""
        return f"{self.path}:{line_of(key, self.lines)}"


def read(path: Path) -> Read:
    """The file that somebody named. Raises ConfigError."""
    try:
        file = path.open("rb")
    except OSError as error:
        raise ConfigError(shown(f"cannot read {path}: {error.strerror}")) from error
    with file:
        return parsed(_content(file, path), path)


def read_found(path: Path) -> Read | None:
    """The file at a place where one may be; None if none is. Raises ConfigError."""
    try:
        number = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        raise ConfigError(shown(f"cannot read {path}: {error.strerror}")) from error
    if not stat.S_ISREG(os.fstat(number).st_mode):
        os.close(number)
        return None  # a folder, or a pipe on which one would wait
    with os.fdopen(number, "rb") as file:
        return parsed(_content(file, path), path)


def _content(file: IO[bytes], path: Path) -> bytes:
    try:
        return file.read(SIZE_LIMIT + 1)
    except OSError as error:
        raise ConfigError(shown(f"cannot read {path}: {error.strerror}")) from error


def replace_file(path: Path, content: bytes) -> None:
    """Write a file whole or not at all; a new one is private. Raises OSError."""
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    mode = path.stat().st_mode & 0o777 if path.exists() else 0o600
    private.replace(path, content, mode=mode)


def parsed(content: bytes, path: Path) -> Read:
    """The configuration in a file's bytes. Pure. Raises ConfigError with every problem found."""
    if len(content) > SIZE_LIMIT:
        raise ConfigError(shown(f"{path}: the file has more than {SIZE_LIMIT} bytes"))
    try:
        text = content.decode("utf-8-sig").replace("\r\n", "\n")
        if has_long_key(text, _DEEPEST):  # `tomllib` would take minutes for one
            raise RecursionError
        raw = tomllib.loads(text)
    except RecursionError:
        raise ConfigError(shown(f"{path}: not TOML that can be read: nested too deeply")) from None
    except ValueError as error:  # not TOML, not UTF-8, or a number of thousands of digits
        raise ConfigError(shown(f"{path}{_not_toml(str(error), content)}")) from error
    if _depth(raw) > _DEEPEST:
        raise ConfigError(shown(f"{path}: nested deeper than {_DEEPEST} levels"))
    lines = lines_of(text)
    try:
        model = FileModel.model_validate(raw)
    except ValidationError as error:
        found = sorted((line_of(_key(each), lines), problem(each)) for each in error.errors())
        told = "\n".join(shown(f"{path}:{line}: {text}") for line, text in found)
        raise ConfigError(told) from None
    digest = sha256(content).hexdigest()
    return Read(path=path, model=model, raw=raw, sha256=digest, lines=lines)


def _not_toml(why: str, content: bytes) -> str:
    """What `tomllib` says at the end, where it is, first."""
    found = re.fullmatch(
        r"(.*) \(at (?:line (\d+), column (\d+)|end of document)\)", why, re.DOTALL
    )
    if found is None:
        return f": not TOML: {why}"
    line = found[2] or str(max(1, len(content.splitlines())))
    return f":{line}:{found[3] or 1}: not TOML: {found[1]}"


def _depth(value: object) -> int:
    """How deep tables and lists are nested, up to one level more than is allowed."""
    level: list[object] = [value]
    for depth in range(_DEEPEST + 1):
        if not level:
            return depth
        level = [inner for outer in level for inner in _inside(outer)]
    return _DEEPEST + 1


def _inside(value: object) -> Iterable[object]:
    if is_table(value):
        return value.values()
    return value if is_list(value) else ()


# --- what is wrong -------------------------------------------------------------------------------

_TABLES: Mapping[str, type[BaseModel]] = {
    "defaults": DefaultsModel,
    "limits": BoundsModel,
    "queue": QueueModel,
    "servers": ServerModel,
}


def problem(error: Mapping[str, object]) -> str:
    """One of pydantic's errors: the key, what was found, what is allowed or probably meant."""
    key = _key(error)
    name = ".".join(key)
    match error["type"], key:
        case "extra_forbidden", (*_, last) if not _near(last, _known(key)) and _homes(last):
            return f"{name}: unknown key here; it stands under {_homes(last)}"
        case "literal_error", ("kinds", kind):
            return f"{name}: unknown kind; {nearest(kind, KINDS)}"
        case _:
            return f"{name}: {described(error, _known(key))}"


def _homes(key: str) -> str:
    """The tables that know this key, as one writes them."""
    found = [
        f"[{table}]"
        for table in ("defaults", "limits", "queue")
        if key in _TABLES[table].model_fields
    ]
    return " or ".join(found)


def _key(error: Mapping[str, object]) -> Key:
    return tuple(str(part) for part in parts(error["loc"]) if part != "[key]")


def _known(key: Key) -> Sequence[str]:
    """The keys that may stand beside this one."""
    model = _TABLES.get(key[0], FileModel) if len(key) > 1 else FileModel
    return sorted(model.model_fields)


def nearest(name: str, known: Sequence[str]) -> str:
    """What was probably meant, or all that there is."""
    near = _near(name, known)
    return f"did you mean `{near}`?" if near else f"known: {', '.join(known) or 'none'}"


def _near(name: str, known: Sequence[str]) -> str | None:
    import difflib

    return next(iter(difflib.get_close_matches(name, known, n=1)), None)
