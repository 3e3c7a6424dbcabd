"""What to start: the description's templates, filled in for one task and one agent."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import chain
from types import MappingProxyType
from typing import TypeAlias

import orjson

from adapters.jsonl.options import PLACEHOLDER, AccessOptions, Options
from adapters.jsonl.paths import is_list, is_mapping
from adapters.places import USERS_OWN, openai_url, root_url
from orchestrator.adapter import Agent, Command
from orchestrator.errors import ConfigError
from orchestrator.task import Task

_SIGNALS: Mapping[str, int] = MappingProxyType({"SIGHUP": 1, "SIGINT": 2, "SIGTERM": 15})
_ARGUMENT_LIMIT = 128 * 1024 - 1

_Values: TypeAlias = Mapping[str, str | None]


def _filled(text: str, values: _Values) -> str | None:
    """The text with its placeholders filled in; None if one has no value."""
    missing = [name for name in PLACEHOLDER.findall(text) if values.get(name) is None]
    if missing:
        return None
    return PLACEHOLDER.sub(lambda found: values[found[1]] or "", text)


def _filled_in(value: object, values: _Values) -> object | None:
    """A JSON value with every text in it filled in; None if a placeholder has no value."""
    if isinstance(value, str):
        return _filled(value, values)
    if is_list(value):
        items = [_filled_in(one, values) for one in value]
        return None if None in items else items
    if is_mapping(value):
        pairs = [(_filled(key, values), _filled_in(one, values)) for key, one in value.items()]
        return None if any(None in pair for pair in pairs) else dict(pairs)
    return value


def _as_text(value: object, values: _Values) -> str | None:
    """A text as it is, a table as JSON; None if a placeholder has no value."""
    filled = _filled_in(value, values)
    if filled is None or isinstance(filled, str):
        return filled
    return orjson.dumps(filled).decode()


def _argv(options: Options, task: Task, agent: Agent, values: _Values) -> tuple[str, ...]:
    access = options.access.get(task.allowed, AccessOptions())
    argv: list[str] = []
    for position, argument in enumerate(options.argv):
        if argument == "{access}":
            argv += [
                _needed(text, values, agent, f"access.{task.allowed}.args") for text in access.args
            ]
        elif isinstance(argument, str):
            argv.append(_needed(argument, values, agent, f"argv[{position}]"))
        else:
            group = [_filled(text, values) for text in argument]
            argv += [text for text in group if text is not None] if None not in group else []
    if agent.program is not None:
        argv[0] = agent.program
    for text in argv:
        if len(text.encode()) > _ARGUMENT_LIMIT:
            raise ConfigError(
                f"agent {agent.name!r}: an argument of {len(text.encode())} bytes is too long",
                hint="Give the prompt on stdin or as {prompt_file}.",
            )
    return tuple(argv)


def _needed(text: str, values: _Values, agent: Agent, where: str) -> str:
    filled = _filled(text, values)
    if filled is None:
        names = [name for name in PLACEHOLDER.findall(text) if values.get(name) is None]
        raise ConfigError(
            f"agent {agent.name!r}: {where}: {{{names[0]}}} has no value",
            hint=f"State it, or put it and its flag into a group: [..., {text!r}].",
        )
    return filled


def _values(task: Task, agent: Agent) -> _Values:
    return {
        "prompt": task.prompt,
        "prompt_file": None if agent.home is None else f"{agent.home}/prompt",
        "model": agent.model,
        "base_url": None if agent.base_url is None else root_url(agent.base_url),
        "openai_url": None if agent.base_url is None else openai_url(agent.base_url),
        "workspace": str(task.workspace),
        "home": agent.home,
        "session_id": task.session_id,
    }


def _environment(options: Options, task: Task, values: _Values) -> dict[str, str]:
    """HOME is the private home where there is one; what is configured comes after it and wins."""
    env: dict[str, str] = {}
    if values["home"] is not None:
        env["HOME"] = values["home"]
    access = options.access.get(task.allowed, AccessOptions())
    for name, content in chain(options.env.items(), access.env.items()):
        if (text := _as_text(content, values)) is not None:
            env[name] = text
    return env


def command_of(task: Task, agent: Agent, options: Options) -> Command:
    values = _values(task, agent)
    if task.session_id is not None and "{session_id}" not in repr(options.argv):
        raise ConfigError(
            f"agent {agent.name!r}: it cannot be resumed: `argv` does not use {{session_id}}",
            hint='Add a group such as ["--session", "{session_id}"].',
        )
    env_from = {name: name for name in options.env_from}
    if agent.home is None:
        env_from |= {name: name for name in USERS_OWN}
    env = _environment(options, task, values)
    secrets: tuple[str, ...] = ()
    if agent.api_key_env is not None:
        name = options.key_env or agent.api_key_env
        env_from[name] = agent.api_key_env
        env.pop(name, None)
        secrets = (name,)
    files = dict(_files(options, agent, values))
    stdin = _as_text(options.stdin_or_default(), values)
    if stdin is None:
        raise ConfigError(f"agent {agent.name!r}: stdin: a placeholder has no value")
    if not isinstance(options.stdin_or_default(), str):
        stdin += "\n"
    return Command(
        argv=_argv(options, task, agent, values),
        cwd=str(task.workspace),
        env=env,
        env_from=env_from,
        secrets=secrets,
        stdin=stdin.encode() if stdin else None,
        files=files,
        interrupt=_SIGNALS.get(options.interrupt),
    )


def _files(options: Options, agent: Agent, values: _Values) -> Iterator[tuple[str, bytes]]:
    if "{prompt_file}" in repr([options.argv, options.env, options.files, options.access]):
        if values["prompt_file"] is None:
            raise ConfigError(
                f"agent {agent.name!r}: {{prompt_file}} needs a private home",
                hint='Set `profile = "clean"`, or give the prompt on stdin.',
            )
        yield values["prompt_file"], (values["prompt"] or "").encode()
    for path, content in options.files.items():
        where, text = _filled(path, values), _as_text(content, values)
        if where is not None and text is not None:
            if not where.startswith("/"):
                raise ConfigError(
                    f"agent {agent.name!r}: files: {where!r} is not absolute",
                    hint="Begin it with {home} or {workspace}.",
                )
            yield where, text.encode()
