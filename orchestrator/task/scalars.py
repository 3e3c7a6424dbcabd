"""Single values in a task file: durations, sizes, switches, paths, addresses. Each has one form and
one message that names it.
"""

from __future__ import annotations

import math
import re
from pathlib import Path, PurePosixPath
from typing import Annotated, Literal, TypeAlias

from pydantic import AfterValidator, BeforeValidator, Field, StringConstraints

from orchestrator.document import TASK_ID, Text
from orchestrator.errors import InputError, shown
from orchestrator.task.value import SECRET

_UNITS = {"s": 1.0, "m": 60.0, "h": 3600.0}
_SIZES = {"kib": 1024, "mib": 1024**2, "gib": 1024**3}
MOST = 2**53
# Above this a number is a mistake, and not every reader of JSON has it exactly.


def _seconds(value: object) -> float:
    seconds = math.nan
    match value:
        case bool():
            pass
        case int() | float() if value <= MOST:
            seconds = float(value)
        case str() if found := re.fullmatch(r"([0-9]+(?:\.[0-9]+)?)([smh])", value.strip()):
            seconds = float(found[1]) * _UNITS[found[2]]
        case _:
            pass
    if 0 < seconds <= MOST:
        return seconds
    raise ValueError("a duration above 0, such as 90s, 30m or 2h")


def parse_duration(text: str) -> float:
    """Seconds of a duration such as `30m` or `30d`. Raises InputError."""
    number, unit = text[:-1], text[-1:]
    if unit == "d" and number.isascii() and number.isdigit():
        return int(number) * 86400.0
    try:
        return _seconds(text)
    except ValueError as error:
        raise InputError(f"{shown(text)}: {error}") from error


def parse_size(text: str) -> int:
    """Bytes of a size such as `20GiB`. Raises InputError."""
    try:
        return _bytes(text)
    except ValueError as error:
        raise InputError(f"{shown(text)}: {error}") from error


def _bytes(value: object) -> int:
    size = 0
    match value:
        case bool():
            pass
        case int():
            size = value
        case str() if found := re.fullmatch(
            r"([0-9]{1,16}) ?([KMG]iB)", value.strip(), re.IGNORECASE
        ):
            size = int(found[1]) * _SIZES[found[2].lower()]
        case _:
            pass
    if 0 < size <= MOST:
        return size
    raise ValueError("a size above 0, such as 500MiB or 1GiB")


_OnOff: TypeAlias = Literal["on", "off"]


def _switched(value: object) -> object:
    match value:
        case "on" | "off":
            return value == "on"
        case bool() | None:
            return value
        case _:
            raise ValueError("on or off")


def inside(value: str) -> str:
    path = PurePosixPath(value)
    if not value or path.is_absolute() or ".." in path.parts:
        raise ValueError("a path inside the workspace, relative to it")
    return value


def no_secret(value: str) -> str:
    if SECRET.search(value):
        raise ValueError("no secret: name the variable under `env_from` instead")
    return value


def _expandable(value: str) -> str:
    try:
        Path(value).expanduser()
    except RuntimeError:
        raise ValueError("a folder; nobody's home is known by that `~`") from None
    return value


_GIT_URL = re.compile(
    r"(https|ssh)://(?!-)[A-Za-z0-9.@\[\]_~-][^\s\x00-\x1f\\]*"
    r"|file:///[^\x00-\x1f]+|(?!-)[A-Za-z0-9._-]+@(?!-)[A-Za-z0-9.-]+:(?!//)[^\s\x00-\x1f\\]+"
)
_LOGIN = re.compile(r"https://[^/]*@|ssh://[^/]*:[^/]*@")
_GIT_REF = re.compile(r"(?!.*(\.\.|@\{|//|\.lock$))[A-Za-z0-9_][A-Za-z0-9_.\-/+@#]*")


def git_url(value: str) -> str:
    if _LOGIN.match(value):
        raise ValueError("no name or password: the git of whoever runs it has the credentials")
    if not _GIT_URL.fullmatch(value):
        raise ValueError("an address that begins with https://, ssh://, file:/// or USER@HOST:")
    return value


def git_ref(value: str) -> str:
    if not _GIT_REF.fullmatch(value):
        raise ValueError("the name of a branch or tag, or a whole commit id")
    return value


Switch = Annotated[bool, BeforeValidator(_switched, json_schema_input_type=bool | _OnOff)]
Seconds = Annotated[float, BeforeValidator(_seconds, json_schema_input_type=float | str)]
Bytes = Annotated[int, BeforeValidator(_bytes, json_schema_input_type=int | str)]
Count = Annotated[int, Field(ge=1, le=MOST)]
Dollars = Annotated[float, Field(gt=0, allow_inf_nan=False)]
Depth = Annotated[int, Field(ge=0, le=100)]
TaskId = Annotated[str, StringConstraints(pattern=TASK_ID)]
Folder = Annotated[Text, AfterValidator(_expandable)]
