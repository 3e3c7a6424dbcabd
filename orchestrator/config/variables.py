"""`ORCHESTRATE_*`: a level of the configuration, one variable for each default and limit. Pure.

`ORCHESTRATE_STRATEGY` is `defaults.strategy`, `ORCHESTRATE_LIMITS_WALL` is `limits.wall`,
`ORCHESTRATE_QUEUE_DATABASE` is `queue.database`, a list is written with commas. One that is empty
is as if it were not set.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from types import MappingProxyType

from pydantic import ValidationError

from orchestrator.config.file import (
    BoundsModel,
    DefaultsModel,
    FileModel,
    QueueModel,
    problem,
)
from orchestrator.config.ladder import Rung
from orchestrator.config.positions import Key
from orchestrator.document import parts
from orchestrator.errors import ConfigError, shown

PREFIX = "ORCHESTRATE_"
DESK = ("ORCHESTRATE_SOCKET", "ORCHESTRATE_TOKEN")
"""Where an agent's own sub-tasks are asked for, and what says whose they are."""

SETTINGS: Mapping[str, Key] = MappingProxyType(
    {
        **{f"{PREFIX}{name.upper()}": ("defaults", name) for name in DefaultsModel.model_fields},
        **{f"{PREFIX}LIMITS_{name.upper()}": ("limits", name) for name in BoundsModel.model_fields},
        **{f"{PREFIX}QUEUE_{name.upper()}": ("queue", name) for name in QueueModel.model_fields},
    }
)
"""Each variable with the key that it sets."""

_OTHERS = ("ORCHESTRATE_CONFIG", "ORCHESTRATE_STATE_DIR", "ORCHESTRATE_RUN_ID", *DESK)
_ALIKE = 0.75
_LISTS = frozenset({("limits", "agents"), ("queue", "labels")})


def of_environment(environ: Mapping[str, str]) -> Rung:
    """What the variables say. Raises ConfigError for a value that is not valid, and for a
    variable that is probably a misspelt one: a limit that does not hold costs money.
    """
    unknown = [shown(f"{name}: {why}") for name in sorted(environ) if (why := _misspelt(name))]
    if unknown:
        raise ConfigError("\n".join(unknown))
    raw: dict[str, dict[str, object]] = {"defaults": {}, "limits": {}, "queue": {}}
    for name, (table, key) in SETTINGS.items():
        if text := environ.get(name):
            names = [part.strip() for part in text.split(",") if part.strip()]
            raw[table][key] = names if (table, key) in _LISTS else text
    try:
        model = FileModel.model_validate(raw, strict=False)
    except ValidationError as error:
        raise ConfigError("\n".join(_told(error))) from None
    tables = {"defaults": model.defaults, "limits": model.limits, "queue": model.queue}
    for table, fields in tables.items():
        for key, value in raw[table].items():
            raw[table][key] = getattr(fields, key) if _number(value) else value
    return Rung(level="environment", model=model, raw=raw, where=variable_of)


def _number(value: object) -> bool:
    return isinstance(value, str) and re.fullmatch(r"\s*[0-9.]+\s*", value) is not None


def variable_of(key: Key) -> str:
    """The variable that sets a key."""
    table, name = key
    return f"{PREFIX}{'' if table == 'defaults' else f'{table.upper()}_'}{name.upper()}"


def _told(error: ValidationError) -> Iterator[str]:
    for each in error.errors():
        kind = str(each["type"]).replace("_parsing", "_type")
        _, _, text = problem({**each, "type": kind}).partition(": ")
        table, name = (str(part) for part in parts(each["loc"])[:2])
        yield shown(f"{variable_of((table, name))}: {text}")


def _misspelt(name: str) -> str | None:
    """What was probably meant, if a variable looks like one of ours and is none."""
    import difflib

    known = {one.removeprefix(PREFIX): one for one in (*SETTINGS, *_OTHERS)}
    tail = name.removeprefix(PREFIX)
    if tail == name or tail in known:
        return None
    short = tail.removeprefix("DEFAULTS_")
    near = difflib.get_close_matches(short, known, n=1, cutoff=_ALIKE if short == tail else 0.0)
    if near:
        return f"no such setting; did you mean {known[near[0]]}?"
    if tail.startswith("LIMITS_"):
        limits = [variable for variable, key in SETTINGS.items() if key[0] == "limits"]
        return f"no such setting; known: {', '.join(limits)}"
    return None
