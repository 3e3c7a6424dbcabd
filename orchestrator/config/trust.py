"""Who is trusted: what a file may say that was only found, and which found files the user trusts.

Trust is for a folder and the content of its `orchestrate.toml`: each is one private file in the
state directory. A file that changed has to be trusted anew.
"""

from __future__ import annotations

import os
import shlex
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Literal, TypeAlias

import orjson

from orchestrator import private
from orchestrator.config.file import FILE, Read, replace_file
from orchestrator.config.positions import Key, value_at
from orchestrator.errors import ConfigError, shown, unwritable

_AGENT = frozenset({"adapter", "model", "server", "profile"})
_SERVER = frozenset({"kind", "slots"})
# What a file that was only found may say. All else could start a program, move a key to another
# address, loosen a sandbox or call a cloud local; an adapter's own options are its own business.

_LOOSENING: Mapping[str, frozenset[str]] = {
    "strategy": frozenset({"cloud", "cascade"}),
    "fallback": frozenset({"cloud"}),
    "isolation": frozenset({"none"}),
    "deliver": frozenset({"apply", "push"}),
    "access": frozenset({"full"}),
}
# Defaults that send work to the cloud, let agents out of a sandbox or touch the user's own files.

_TOLD = 20

Verdict: TypeAlias = Literal["trusted", "changed", "unknown"]


@dataclass(frozen=True, kw_only=True)
class Refused:
    """One key that counts only in a file that is trusted."""

    key: str
    value: object
    where: str


def refused(file: Read) -> tuple[Refused, ...]:
    """What the file says that it may not, unless it is trusted. Pure."""
    return tuple(
        Refused(key=".".join(key), value=value_at(key, file.raw), where=file.at(key))
        for key in _refused(file)
    )


def _refused(file: Read) -> Iterator[Key]:
    model = file.model
    for name, loosening in _LOOSENING.items():
        if getattr(model.defaults, name) in loosening:
            yield "defaults", name
    for key in sorted(model.queue.model_fields_set):  # tasks, keys' names and all, would go there
        yield "queue", key
    for name, agent in model.agents.items():
        for key in sorted({*agent.model_fields_set, *(agent.model_extra or {})} - _AGENT):
            yield "agents", name, key
    for name, server in model.servers.items():
        for key in sorted(server.model_fields_set - _SERVER):
            yield "servers", name, key


class UntrustedError(ConfigError):
    """A file that was only found says what only a trusted one may."""


def refuse_untrusted(file: Read, verdict: Verdict) -> None:
    """Raises UntrustedError with all that a file says which it may not; pure."""
    if verdict == "trusted" or not (found := refused(file)):
        return
    why = {
        "changed": "the file has changed since you trusted it",
        "unknown": "the file was found, not named",
    }[verdict]
    keys = ", ".join(one.key for one in found[:_TOLD])
    more = f" and {len(found) - _TOLD} more" if len(found) > _TOLD else ""
    command = f"orchestrate config trust {shlex.quote(str(file.path.parent))}"
    raise UntrustedError(
        shown(f"{found[0].where}: not trusted to set {keys}{more}: {why}"),
        hint=shown(f"If you trust it: `{command}` (it shows what that allows)."),
    )


# --- what is trusted -----------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class Trusted:
    """A file that the user trusts, as long as its content is the same."""

    path: Path
    sha256: str


def verdict(file: Read, state: Path) -> Verdict:
    """Whether the user trusts the file with this content. Raises ConfigError."""
    known = _known(_record(file.path, state))
    if known is None or known.path != _place(file.path):
        return "unknown"
    return "trusted" if known.sha256 == file.sha256 else "changed"


def trust(file: Read, state: Path) -> None:
    """From now on the file counts as its user's own, with the content that was read."""
    record = _record(file.path, state)
    try:
        replace_file(record, orjson.dumps({"path": str(_place(file.path)), "sha256": file.sha256}))
    except OSError as error:
        raise unwritable(record, error) from error


def untrust(path: Path, state: Path) -> bool:
    """Whether the file at this path was trusted; now it is not."""
    record = _record(path, state)
    try:
        record.unlink()
    except FileNotFoundError:
        return False
    except OSError as error:
        raise ConfigError(shown(f"cannot remove {record}: {error.strerror}")) from error
    return True


def all_trusted(state: Path) -> list[Trusted]:
    """Every file that is trusted, by path."""
    records = (state / "trust").glob("*.json")
    return sorted(filter(None, map(_known, records)), key=lambda one: one.path)


def _place(path: Path) -> Path:
    """The file in its real folder: a link to a folder is trusted as the folder itself."""
    return path.parent.resolve() / FILE


def _record(path: Path, state: Path) -> Path:
    name = sha256(os.fsencode(_place(path))).hexdigest()
    return state / "trust" / f"{name[:32]}.json"


def _known(record: Path) -> Trusted | None:
    try:
        value = orjson.loads(private.read(record))
    except FileNotFoundError:
        return None
    except (OSError, orjson.JSONDecodeError) as error:
        raise ConfigError(shown(f"cannot read {record}: {error}"), hint="Remove it.") from error
    match value:
        case {"path": str(path), "sha256": str(digest)}:
            return Trusted(path=Path(path), sha256=digest)
        case _:
            raise ConfigError(shown(f"{record} is no record of trust"), hint="Remove it.")
