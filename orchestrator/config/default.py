"""Setting the default agent in a file that a person wrote: all else in it stays as it is."""

from __future__ import annotations

import re
import tomllib
from dataclasses import replace
from pathlib import Path

import orjson
from pydantic import ValidationError

from orchestrator.config.agents import agents_for
from orchestrator.config.file import FileModel, replace_file
from orchestrator.config.load import user_file
from orchestrator.config.value import Config
from orchestrator.errors import ConfigError, unwritable


def set_default(name: str, config: Config, path: Path | None = None) -> Path:
    """Make an agent the default in a configuration file: the user's own, or the one named.

    All else in the file stays as it is, comments too. Returns the file. Raises ConfigError for an
    unknown name, and for a file that cannot be edited line by line.
    """
    known = [agent.name for agent in agents_for(None, replace(config, default_agent=None))]
    if name not in known:
        raise ConfigError(f"no agent {name!r} (known: {', '.join(known) or 'none'})")
    stated = config.environ.get("ORCHESTRATE_CONFIG")
    path = path or (Path(stated) if stated else user_file())
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
        replace_file(path, edited.encode())
    except OSError as error:
        raise unwritable(path, error) from error
    return path


def _only_sets(name: str, before: str, after: str) -> bool:
    """Whether the default agent is all in which the two differ."""
    try:
        old, new = (FileModel.model_validate(tomllib.loads(text)) for text in (before, after))
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
