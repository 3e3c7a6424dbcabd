"""Any agent that speaks the Agent Client Protocol, described in the configuration alone."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import chain
from types import MappingProxyType
from typing import TypeAlias, get_args

from adapters.acp.conversation import AcpConversation, Manner
from adapters.acp.options import PERMISSIONS, Options, options_of
from adapters.places import USERS_OWN, openai_url, private_home, root_url
from adapters.reading import fields, is_list, is_object
from orchestrator.adapter import About, Agent, Command, Program
from orchestrator.errors import ConfigError
from orchestrator.events import Usage
from orchestrator.task import Access, Dialect, Task

OPTIONS: Mapping[str, str] = MappingProxyType(
    {
        "command": "list: the program and its arguments; {model}, {base_url}, {openai_url},"
        " {workspace} and {home} are filled in",
        "env": "table of variables, filled in as the command is; left out where there is no value",
        "env_from": "list of names of variables to pass on",
        "files": "table of files in its private home that it finds there:"
        " {'{home}/settings.json' = '{}'}",
        "key_env": "the variable in which it expects the key that `api_key_env` names",
        "auth": "the id of the method to log in with, if it must be asked to",
        "mode": "the id of the session's mode, or a table of one for each access:"
        " {read = 'plan', edit = 'default'}",
        "enforces": "list of the levels of access that it can be held to: ['read', 'full']",
        "dialects": "list of what it speaks with a model server: ['chat']",
        "title": "its name",
        "install": "how it is installed, for people",
        "version_argv": "list: how it is asked for its version (none: it is not)",
        "permissions": PERMISSIONS,
    }
)
"""Each option, and what it does."""

_Check: TypeAlias = Callable[[object], bool]
_PLACEHOLDER = re.compile(r"\{([a-z_]+)\}")
_NAMES = ("model", "base_url", "openai_url", "workspace", "home")


def _is_text(value: object) -> bool:
    return isinstance(value, str) and bool(value)


def _is_texts(value: object) -> bool:
    return is_list(value) and all(map(_is_text, value))


def _is_table(value: object) -> bool:
    return is_object(value) and all(isinstance(one, str) for one in value.values())


def _is_at_home(path: str) -> bool:
    return path.startswith("{home}/") and ".." not in path.split("/")


def _words(allowed: Sequence[str]) -> _Check:
    return lambda value: is_list(value) and all(one in allowed for one in value)


_CHECKS: Mapping[str, _Check] = MappingProxyType(
    {
        "command": lambda value: _is_texts(value) and bool(value),
        "env": _is_table,
        "env_from": _is_texts,
        "files": lambda value: _is_table(value) and all(map(_is_at_home, fields(value))),
        "key_env": _is_text,
        "auth": _is_text,
        "mode": lambda value: (
            _is_text(value) or (_is_table(value) and set(fields(value)) <= set(get_args(Access)))
        ),
        "enforces": _words(get_args(Access)),
        "dialects": _words(get_args(Dialect)),
        "title": _is_text,
        "install": _is_text,
        "version_argv": _is_texts,
    }
)


ABOUT = About(
    name="acp",
    title="any agent that speaks ACP",
    program=None,
    version_argv=(),
    enforces=(),
    resumes=True,
    tells_cost=False,
    mcp=True,
)


@dataclass(frozen=True)
class Described:
    """The adapter. What it is depends on the agent: `about_for` says it, and checks the options."""

    about: About = ABOUT

    def about_for(self, agent: Agent) -> About:
        """What this agent's CLI is. Raises ConfigError if the options do not fit."""
        options = _checked(agent)
        program = _texts(options["command"])[0]
        enforces = tuple(one for one in get_args(Access) if one in _texts(options.get("enforces")))
        dialects = tuple(one for one in get_args(Dialect) if one in _texts(options.get("dialects")))
        return replace(
            self.about,
            title=str(options.get("title") or program),
            program=Program(name=program),
            version_argv=_texts(options.get("version_argv")),
            install=str(options.get("install") or ""),
            dialects=dialects,
            enforces=enforces,
            key_env=_key_name(options),
        )

    def command(self, task: Task, agent: Agent) -> Command:
        """What to start. Raises ConfigError if the options do not fit, or not this task."""
        options = _checked(agent)
        values = _values(task, agent)
        argv = [_needed(agent, word, values) for word in _texts(options["command"])]
        key = (_key_name(options) or agent.api_key_env) if agent.api_key_env else None
        home, files = private_home(agent.home, key)
        env_from = {name: name for name in _texts(options.get("env_from"))}
        if agent.home is None:
            env_from |= {name: name for name in USERS_OWN}
        if key is not None and agent.api_key_env is not None:
            env_from[key] = agent.api_key_env
        return Command(
            argv=(agent.program or argv[0], *argv[1:]),
            cwd=str(task.workspace),
            env={**home, **_environment(fields(options.get("env")), values, key)},
            env_from=env_from,
            secrets=(key,) if key else (),
            stdin="open",
            files={**files, **_files(fields(options.get("files")), values)},
        )

    def conversation(self, task: Task, agent: Agent, before: Usage | None) -> AcpConversation:
        """A fresh conversation. Raises ConfigError if the options do not fit."""
        del before  # each turn's usage is told by itself
        options = _checked(agent)
        title = str(options.get("title") or _texts(options["command"])[0])
        held = task.allowed == "full" or task.allowed in _texts(options.get("enforces"))
        note = f"access: {task.allowed}; {title} is held to it as far as it asks"
        mode = options.get("mode")
        modes = fields(mode) if is_object(mode) else dict.fromkeys(get_args(Access), mode)
        named = any("{model}" in text for text in _spelled(options))
        manner = Manner(
            title=title,
            named=agent.model,
            auth=_text(options.get("auth")),
            mode=_text(modes.get(task.allowed)),
            model=None if named else agent.model,
            permissions=_general(agent).permissions,
            note=None if held else note,
        )
        return AcpConversation(task=task, manner=manner)


def _checked(agent: Agent) -> Mapping[str, object]:
    """The agent's options, each of its kind. Raises ConfigError."""
    _general(agent)
    for name, value in agent.options.items():
        check = _CHECKS.get(name)
        if check is not None and not check(value):
            raise ConfigError(
                f"agent {agent.name!r}: option {name!r} is {OPTIONS[name]}; found {value!r}"
            )
    if "command" not in agent.options:
        text = f"agent {agent.name!r}: acp needs the option 'command'"
        raise ConfigError(text, hint='Such as command = ["goose", "acp"].')
    for text in _spelled(agent.options):
        for name in _PLACEHOLDER.findall(text):
            if name not in _NAMES:
                known = ", ".join(f"{{{known}}}" for known in _NAMES)
                raise ConfigError(f"agent {agent.name!r}: no placeholder {{{name}}} ({known})")
    return agent.options


def _general(agent: Agent) -> Options:
    """The options that others have, too. Raises ConfigError, also for a name that is not known."""
    shared = {name: one for name, one in agent.options.items() if name not in _CHECKS}
    return options_of(replace(agent, options=shared), "acp", OPTIONS)


def _spelled(options: Mapping[str, object]) -> Sequence[str]:
    """The texts that are filled in."""
    filled = (fields(options.get("env")).values(), fields(options.get("files")))
    return [*_texts(options.get("command")), *map(str, chain(*filled))]


def _values(task: Task, agent: Agent) -> Mapping[str, str | None]:
    url = agent.base_url
    return {
        "model": agent.model,
        "base_url": None if url is None else root_url(url),
        "openai_url": None if url is None else openai_url(url),
        "workspace": str(task.workspace),
        "home": agent.home,
    }


def _needed(agent: Agent, text: str, values: Mapping[str, str | None]) -> str:
    filled = _filled(text, values)
    if filled is None:
        raise ConfigError(f"agent {agent.name!r}: command: {text!r} has no value here")
    return filled


def _filled(text: str, values: Mapping[str, str | None]) -> str | None:
    """The text with its placeholders filled in; None if one has no value."""
    if any(values[name] is None for name in _PLACEHOLDER.findall(text)):
        return None
    return _PLACEHOLDER.sub(lambda found: values[found[1]] or "", text)


def _environment(
    env: Mapping[str, object], values: Mapping[str, str | None], key: str | None
) -> dict[str, str]:
    filled = {name: _filled(str(text), values) for name, text in env.items() if name != key}
    return {name: text for name, text in filled.items() if text is not None}


def _files(files: Mapping[str, object], values: Mapping[str, str | None]) -> dict[str, bytes]:
    """In a private home alone: in the user's own, nobody writes. What they hold is as it is."""
    filled = {_filled(path, values): str(text) for path, text in files.items()}
    return {path: text.encode() for path, text in filled.items() if path is not None}


def _key_name(options: Mapping[str, object]) -> str | None:
    return _text(options.get("key_env"))


def _text(value: object) -> str | None:
    return value if isinstance(value, str) else None


def _texts(value: object) -> tuple[str, ...]:
    return tuple(str(one) for one in value) if is_list(value) else ()


adapter = Described()
