"""One configuration file: its form, reading it, and what is wrong with it, by file and key."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from orchestrator.document import SIZE_LIMIT, EnvName, HttpUrl, Text, described, parts
from orchestrator.errors import ConfigError, shown
from orchestrator.task import LimitsModel

FILE = "orchestrate.toml"


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, defer_build=True)


class DefaultsModel(_Strict):
    agent: Text | None = Field(default=None, description="The agent that goes first.")


class ServerModel(_Strict):
    kind: Text
    base_url: HttpUrl | None = None
    api_key_env: EnvName | None = None
    local: bool | None = Field(
        default=None, description="The owner declares that this host is local."
    )


class AgentModel(BaseModel):
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


class FileModel(_Strict):
    defaults: DefaultsModel = DefaultsModel()
    limits: LimitsModel = LimitsModel()
    servers: dict[Annotated[str, Field(min_length=1)], ServerModel] = {}
    agents: dict[Annotated[str, Field(min_length=1)], AgentModel] = {}


def read(path: Path) -> FileModel:
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
        return FileModel.model_validate(value)
    except ValidationError as error:
        problems = "\n".join(shown(f"{path}: {_problem(problem)}") for problem in error.errors())
        raise ConfigError(problems) from None


def _problem(error: Mapping[str, object]) -> str:
    where = tuple(part for part in parts(error["loc"]) if part != "[key]")
    models: Mapping[object, type[BaseModel]] = {
        "defaults": DefaultsModel,
        "limits": LimitsModel,
        "servers": ServerModel,
    }
    model = models.get(where[0], FileModel) if len(where) > 1 else FileModel
    key = ".".join(str(part) for part in where)
    return f"{key}: {described(error, sorted(model.model_fields))}"
