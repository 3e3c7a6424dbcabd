"""The description of a CLI as a whole: how to start it, and the rules. Problems are told by key."""

from __future__ import annotations

import difflib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from types import MappingProxyType
from typing import Annotated, Literal, TypeGuard

from pydantic import (
    AfterValidator,
    Discriminator,
    Field,
    PlainValidator,
    StringConstraints,
    Tag,
    ValidationError,
    model_validator,
)

from adapters.jsonl.paths import is_list, is_mapping
from adapters.jsonl.rules import RULES, Rule, Test, TurnFinishedRule
from adapters.jsonl.values import Lookup, Strict, form
from orchestrator.adapter import Agent
from orchestrator.document import EnvName
from orchestrator.errors import ConfigError
from orchestrator.events import ErrorKind
from orchestrator.task import Access, Dialect

PLACEHOLDERS: Mapping[str, str] = MappingProxyType(
    {
        "prompt": "the task's prompt (in `argv` every user of the machine can read it)",
        "prompt_file": "the path of a private file with the prompt (only with `profile = clean`)",
        "model": "the agent's model",
        "base_url": "where the model is served: with scheme, without `/v1` and trailing slash",
        "openai_url": "the same for OpenAI-compatible clients: with `/v1` unless it has a path",
        "workspace": "the folder that the agent works in; it is the working directory too",
        "home": "the agent's private folder (only with `profile = clean`)",
        "session_id": "the conversation to go on with (only when resuming)",
    }
)
"""What may stand in braces, and what it becomes."""
PLACEHOLDER = re.compile(r"\{([a-z_]+)\}")


def _template(text: str) -> str:
    names: list[str] = PLACEHOLDER.findall(text)
    for name in names:
        if name not in PLACEHOLDERS:
            near = difflib.get_close_matches(name, PLACEHOLDERS, n=1)
            known = ", ".join(f"{{{known}}}" for known in PLACEHOLDERS)
            advice = f"did you mean {{{near[0]}}}?" if near else f"known: {known}"
            raise ValueError(f"no placeholder {{{name}}}; {advice}")
    return text


def _argument(text: str) -> str:
    # No placeholder with a value: it stands alone in argv, and only there.
    return text if text == "{access}" else _template(text)


def _templates(value: object) -> object:
    """A JSON value, each text in it a template."""
    if isinstance(value, str):
        return _template(value)
    if is_list(value):
        return [_templates(one) for one in value]
    if is_mapping(value):
        return {_template(key): _templates(one) for key, one in value.items()}
    if isinstance(value, int | float):
        return value
    raise ValueError("a text, a number, true, false, a list or a table")


def _content(value: object) -> object:
    if isinstance(value, str) or is_mapping(value):
        return _templates(value)
    raise ValueError("a text, or a table that becomes JSON")


Template = Annotated[str, AfterValidator(_template)]
Content = Annotated[
    object, PlainValidator(_content, json_schema_input_type=str | dict[str, object])
]
Group = Annotated[list[Template], Field(min_length=1)]
Argument = Annotated[
    Annotated[str, AfterValidator(_argument), Tag("leaf")] | Annotated[Group, Tag("list")],
    Discriminator(form),
]


class AccessOptions(Strict):
    """What one level of access adds to the command."""

    args: list[Template] = Field(
        default=[], description="Arguments, put where `{access}` stands in `argv`."
    )
    env: dict[EnvName, Content] = Field(default={}, description="Variables, as under `env`.")
    enforced: bool = Field(
        default=True,
        description="Whether the CLI then holds its agent to it; if not, the run says so.",
    )


class Options(Strict):
    """The options of an agent with `adapter = "jsonl"`."""

    argv: Annotated[list[Argument], Field(min_length=1)] = Field(
        description="Program and arguments; there is no shell. A list within is a group: it is left"
        " out if a placeholder in it has no value. `{access}` is where `access.*.args` go."
    )
    stdin: Content = Field(
        None,
        description="What the CLI reads on stdin: a text, or a table that becomes one line of JSON."
        ' Default: "{prompt}", or nothing if the prompt stands in `argv` or a file.',
    )
    env: dict[EnvName, Content] = Field(
        {},
        description="Variables. A table becomes JSON. Not set if a placeholder has no value.",
    )
    env_from: list[EnvName] = Field([], description="Names of variables to pass on.")
    key_env: EnvName | None = Field(
        None, description="The variable in which the CLI expects the key that `api_key_env` names."
    )
    files: dict[Template, Content] = Field(
        {}, description="Private files to write before the start, by absolute path."
    )
    access: dict[Access, AccessOptions] = Field(
        {}, description="What `read`, `edit` and `full` mean to this CLI."
    )
    interrupt: Literal["SIGINT", "SIGTERM", "SIGHUP", "none"] = Field(
        "SIGINT", description="The signal that stops it cleanly."
    )
    exits: dict[Annotated[str, StringConstraints(pattern=r"^\d{1,3}$")], ErrorKind] = Field(
        {}, description="Exit statuses with a meaning of their own, and the kind of error they are."
    )
    events: Annotated[list[Rule], Field(min_length=1)] = Field(
        description="The rules. All that match a line speak, in this order."
    )
    title: str | None = Field(None, description="The CLI's name for people.")
    install: str = Field("", description="How to install it, for when it is not found.")
    version_argv: list[str] = Field(["--version"], description="Arguments that print its version.")
    dialects: list[Dialect] = Field([], description="What it can speak with a model server.")

    @model_validator(mode="after")
    def _whole(self) -> Options:
        first = self.argv[0]
        if not isinstance(first, str) or not first or "{" in first:
            raise ValueError("argv: the first is the program: a name or path, no placeholder")
        if "{access}" not in self.argv and any(access.args for access in self.access.values()):
            raise ValueError("access: `args` are given, but `{access}` stands nowhere in `argv`")
        if not any(isinstance(rule, TurnFinishedRule) for rule in self.events):
            raise ValueError(
                'events: a rule with `emit = "turn.finished"` is required:'
                " without it success cannot be told"
            )
        if "{prompt}" not in self._filled() and "{prompt_file}" not in self._filled():
            raise ValueError("stdin: the prompt goes nowhere: use {prompt} or {prompt_file}")
        return self

    def enforces(self) -> tuple[Access, ...]:
        """The levels of access that the CLI itself holds its agent to."""
        return tuple(level for level, access in self.access.items() if access.enforced)

    def _filled(self) -> str:
        """Everything that placeholders can stand in, as one text."""
        return repr([self.argv, self.stdin_or_default(), self.env, self.files, self.access])

    def stdin_or_default(self) -> object:
        """What stdin is a template of."""
        if self.stdin is not None:
            return self.stdin
        elsewhere = repr([self.argv, self.env, self.files, self.access])
        return "" if "{prompt}" in elsewhere or "{prompt_file}" in elsewhere else "{prompt}"


@dataclass(frozen=True)
class _Written:
    """A description, known again by how it is written."""

    text: str
    options: Mapping[str, object] = field(compare=False)


@lru_cache(maxsize=64)
def _checked(written: _Written) -> Options:
    # To check a description takes milliseconds, and each run asks for it several times.
    return Options.model_validate(dict(written.options))


def options_of(agent: Agent) -> Options:
    """The agent's options, checked. Raises ConfigError with every problem found."""
    try:
        return _checked(_Written(repr(agent.options), agent.options))
    except ValidationError as error:
        problems = dict.fromkeys(_problem(problem, agent.options) for problem in error.errors())
        lines = "\n".join(f"agent {agent.name!r}: {problem}" for problem in problems)
        raise ConfigError(lines, hint="docs/jsonl.md describes every key.") from None


_TAGS = frozenset({"leaf", "table", "list", "[key]"})


def _problem(error: Mapping[str, object], options: Mapping[str, object]) -> str:
    """One line for one of pydantic's errors: where, what was found, what is allowed."""
    parts = [part for part in _parts(error["loc"]) if part not in _TAGS]
    where = _where(parts, options)
    context = error.get("ctx")
    match error["type"], context:
        case "extra_forbidden", _:
            near = difflib.get_close_matches(str(parts[-1]), _known(parts), n=1)
            known = f"did you mean `{near[0]}`?" if near else f"known: {', '.join(_known(parts))}"
            return f"{where}: unknown key; {known}"
        case "missing", _:
            return f"{where}: required, but not there"
        case "union_tag_not_found", _:
            return f"{where}: `emit` is required: one of {', '.join(RULES)}"
        case "union_tag_invalid", {"tag": str(tag)}:
            near = difflib.get_close_matches(tag, RULES, n=1)
            allowed = f"did you mean `{near[0]}`?" if near else f"one of {', '.join(RULES)}"
            return f"{where}: no event {tag!r}; {allowed}"
        case "value_error", {"error": ValueError() as why}:
            return f"{where}: {why}" if where else str(why)
        case _:
            allowed = str(error["msg"]).removeprefix("Input should be ")
            return f"{where}: found {error['input']!r:.60}; allowed: {allowed}"


def _parts(location: object) -> Sequence[object]:
    return location if _is_tuple(location) else ()


def _is_tuple(value: object) -> TypeGuard[tuple[object, ...]]:
    return isinstance(value, tuple)


def _where(parts: Sequence[object], options: Mapping[str, object]) -> str:
    """`events rule 3 (message): text` for what pydantic calls events, 2, message, text."""
    match parts:
        case ["events", int(index), *rest]:
            rules = options.get("events")
            emit: object = None
            if is_list(rules) and index < len(rules) and is_mapping(rule := rules[index]):
                emit = rule.get("emit")
            named = f" ({emit})" if isinstance(emit, str) else ""
            if rest and rest[0] == emit:
                rest = rest[1:]
            key = ".".join(str(part) for part in rest)
            return f"events rule {index + 1}{named}" + (f": {key}" if key else "")
        case _:
            return ".".join(str(part) for part in parts)


def _known(parts: Sequence[object]) -> list[str]:
    """The keys that may stand where an unknown one was found."""
    match parts:
        case ["events", int(), str(emit), _]:
            return sorted(RULES[emit].model_fields)
        case ["events", _, _, "when", *_]:
            return sorted(Test.model_fields)
        case ["events", *_]:
            return sorted(Lookup.model_fields)
        case ["access", *_]:
            return sorted(AccessOptions.model_fields)
        case _:
            return sorted(Options.model_fields)
