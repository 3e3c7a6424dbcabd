"""The script of a scripted model: what it says, turn by turn, and the faults it plays.

A script is a value (`Script`); `load_script` reads one from a YAML or JSON file. Every error is a
`ScriptError` that names the file and the key. Nothing here knows of HTTP or of a wire format.

    model: scripted
    turns:
      - thought: The test says two.
        text: I look at the file.
        tool_calls:
          - {name: bash, arguments: {command: cat calc.py}}
        usage: {input_tokens: 1200, cache_read_tokens: 800, output_tokens: 40}
      - status: 429
        headers: {retry-after: 1}
      - expect: {contains: def add}
        text: Done.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import orjson
import yaml
from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    JsonValue,
    ValidationError,
    model_validator,
)

MAX_SCRIPT_BYTES = 16 * 1024 * 1024
MAX_TEXT_CHARS = 256 * 1024 * 1024

FaultName = Literal[
    "context_overflow",  # the provider's own words for a prompt that is too long
    "model_not_found",  # 404, as if the model did not exist
    "quota_exceeded",  # the account is out of money
    "stream_error",  # HTTP 200, then an error inside the stream
    "reset",  # the connection is reset (RST)
    "cut",  # the connection is closed in the middle of a chunked body
    "truncate",  # the body ends well, but without the event that ends the answer
    "hang",  # the connection stays open and silent
    "garbage",  # HTTP 200 with an event stream that does not parse
    "html",  # HTTP 200 with a web page, as a captive portal sends
]
StopReason = Literal["end_turn", "max_tokens", "refusal"]

# Faults that may come in the middle of an answer: the turn's text and tool calls are sent up to
# the half of it.
_MIDWAY: frozenset[str] = frozenset({"stream_error", "reset", "cut", "truncate", "hang"})

_FRAMING = frozenset({"connection", "content-length", "transfer-encoding"})


class ScriptError(ValueError):
    """A script that cannot be used. The message names the file, the key, what was found and what
    is allowed.
    """


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    @model_validator(mode="before")
    @classmethod
    def _known_keys(cls, given: JsonValue) -> JsonValue:
        # pydantic's own message for an unknown key does not say which ones are allowed.
        unknown = set(given) - set(cls.model_fields) if isinstance(given, dict) else None
        if unknown:
            allowed = ", ".join(cls.model_fields)
            raise ValueError(f"unknown key {min(unknown, key=str)!r} (allowed: {allowed})")
        return given


class Repeated(_Part):
    """A large text in few words: `{repeat: "x", times: 1000000}`."""

    repeat: str
    times: Annotated[int, Field(ge=0)]

    @model_validator(mode="after")
    def _bounded(self) -> Repeated:
        if len(self.repeat) * self.times > MAX_TEXT_CHARS:
            message = f"repeat x times is over {MAX_TEXT_CHARS} characters"
            raise ValueError(message)
        return self


Text = str | Repeated


class ToolCall(_Part):
    """One call the model asks for. `name` is the tool's name as the agent declares it.

    A string as `arguments` is sent as it is: the input of a free-form tool, or JSON that is broken
    on purpose.
    """

    name: str
    arguments: dict[str, JsonValue] | str = Field(default_factory=dict[str, JsonValue])
    id: str | None = None


class Usage(_Part):
    """Tokens of one answer. `input_tokens` excludes cached ones; `output_tokens` includes
    reasoning.
    """

    input_tokens: Annotated[int, Field(ge=0)] = 0
    cache_read_tokens: Annotated[int, Field(ge=0)] = 0
    cache_write_tokens: Annotated[int, Field(ge=0)] = 0
    output_tokens: Annotated[int, Field(ge=0)] = 0
    reasoning_tokens: Annotated[int, Field(ge=0)] = 0

    @model_validator(mode="after")
    def _reasoning_is_output(self) -> Usage:
        if self.reasoning_tokens > self.output_tokens:
            message = "reasoning_tokens are part of output_tokens and cannot exceed them"
            raise ValueError(message)
        return self


class Drip(_Part):
    """A slow answer: `bytes` of the body, then `seconds` of silence, and so on."""

    bytes: Annotated[int, Field(ge=1)]
    seconds: Annotated[float, Field(ge=0, strict=False)]


class Condition(_Part):
    """What a request must look like. Each key that is given must hold.

    `contains`: text in what the request adds since the model's last answer (prompt, tool results).
    `tool`: the name of a tool that the request declares. `model`: the name it asks for.
    """

    contains: str | None = None
    tool: str | None = None
    model: str | None = None


class ErrorText(_Part):
    """Overrides of the authentic error: what a server of another make would say."""

    message: str | None = None
    code: str | None = None
    type: str | None = None


def _header_value(value: object) -> object:
    # YAML reads `retry-after: 2` as a number; on the wire it is text.
    return str(value) if isinstance(value, int | float) else value


Headers = dict[
    Annotated[str, Field(pattern=r"^[A-Za-z0-9-]+$")],
    Annotated[str, BeforeValidator(_header_value), Field(pattern=r"^[ -~]*$")],
]


class Turn(_Part):
    """The answer to one generation request, or the fault played instead of it."""

    when: Condition | None = None
    expect: Condition | None = None
    repeat: Annotated[int, Field(ge=1)] | Literal["forever"] = 1
    delay: Annotated[float, Field(ge=0, strict=False)] = 0.0
    drip: Drip | None = None

    thought: Text = ""
    text: Text = ""
    tool_calls: tuple[ToolCall, ...] = Field(default=(), strict=False)
    usage: Usage | Literal["none"] | None = None
    stop_reason: StopReason | None = None

    status: Annotated[int, Field(ge=400, le=599)] | None = None
    fault: FaultName | None = None
    error: ErrorText = ErrorText()
    headers: Headers = Field(default_factory=dict[str, str])

    @model_validator(mode="after")
    def _answer_or_error(self) -> Turn:
        if problem := _contradiction(self):
            raise ValueError(problem)
        return self

    @property
    def says_something(self) -> bool:
        """Whether there is an answer, be it only the half that comes before a fault."""
        return bool(self.text or self.thought or self.tool_calls)


def _contradiction(turn: Turn) -> str | None:
    whole_error = turn.status is not None or (turn.fault and turn.fault not in _MIDWAY)
    if turn.status is not None and turn.fault is not None:
        return f"a turn has a status or a fault, not both (status {turn.status}, {turn.fault})"
    if whole_error and turn.says_something:
        return f"a turn with {turn.fault or f'status {turn.status}'} cannot also answer"
    if turn.error != ErrorText() and turn.status is None and turn.fault is None:
        return "`error` needs a `status` or a `fault`"
    if framing := _FRAMING.intersection(name.lower() for name in turn.headers):
        return f"headers: {min(framing)} is the server's own"
    return None


Make = Literal["any", "ollama", "lmstudio", "vllm", "llamacpp", "openai-compatible"]
_Names = Annotated[tuple[str, ...], Field(strict=False, min_length=1)]


class Script(_Part):
    """`model`: the name or names served (`"*"` is any); `turns`: one for each generation request,
    in order.

    `server`: the make whose paths and words the server has; `any` has those of all. `context` is
    the window that it tells; where it is stated it is kept, too: a longer prompt is an error, or,
    with Ollama, cut without a word. `tools`: whether the models are said to call tools.
    """

    model: str | _Names = "scripted"
    server: Make = "any"
    context: Annotated[int, Field(ge=1)] | None = None
    tools: bool = True
    turns: tuple[Turn, ...] = Field(strict=False)

    @property
    def models(self) -> tuple[str, ...]:
        """The names that a list of models shows; `*` is the last, as gateways list it."""
        named = tuple(name for name in self._names if name != "*") or ("scripted",)
        return (*named, "*") if "*" in self._names else named

    def serves(self, model: str) -> bool:
        """Whether a request for `model` is answered. Ollama's `:latest` is understood."""
        served = {name.removesuffix(":latest") for name in self._names}
        return "*" in served or model.removesuffix(":latest") in served

    @property
    def _names(self) -> tuple[str, ...]:
        return (self.model,) if isinstance(self.model, str) else self.model


def spell(text: Text) -> str:
    """The characters of a text, with `repeat` carried out."""
    match text:
        case str():
            return text
        case Repeated(repeat=piece, times=times):
            return piece * times


def load_script(path: str | Path) -> Script:
    """The script in a YAML or JSON file. Raises ScriptError, or OSError when the file cannot be
    read.
    """
    path = Path(path)
    content = path.read_bytes()
    if len(content) > MAX_SCRIPT_BYTES:
        message = f"{path}: {len(content)} bytes; a script has at most {MAX_SCRIPT_BYTES}"
        raise ScriptError(message)
    return parse_script(_parse(path, content), str(path))


def parse_script(value: object, name: str = "script") -> Script:
    """The script in a parsed document. Raises ScriptError; `name` is how its message starts."""
    try:
        return Script.model_validate(value)
    except ValidationError as error:
        raise ScriptError(_explain(name, error)) from None


def _parse(path: Path, content: bytes) -> object:
    try:
        if path.suffix == ".json":
            parsed: object = orjson.loads(content)
        else:
            parsed = yaml.load(content, Loader=_Loader)  # noqa: S506  (_Loader is a SafeLoader)
    except (orjson.JSONDecodeError, yaml.YAMLError, RecursionError) as error:
        message = f"{path}: {error}"
        raise ScriptError(message) from None
    return parsed


class _Loader(yaml.SafeLoader):
    """SafeLoader that refuses aliases, and duplicate keys, of which the last would silently win."""

    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        if self.check_event(yaml.AliasEvent):
            raise yaml.MarkedYAMLError(
                problem="aliases are not allowed", problem_mark=self.get_mark()
            )
        node = super().compose_node(parent, index)
        if isinstance(node, yaml.MappingNode):
            _refuse_duplicates(node)
        return node


def _refuse_duplicates(node: yaml.MappingNode) -> None:
    keys = [key.value for key, _ in node.value if isinstance(key, yaml.ScalarNode)]
    for key, _ in node.value:
        if keys.count(key.value) > 1:
            raise yaml.MarkedYAMLError(
                problem=f"duplicate key {key.value!r}", problem_mark=key.start_mark
            )


def _explain(name: str, error: ValidationError) -> str:
    """One line for each key that is wrong."""
    return "\n".join(
        f"{name}: {_key(problem['loc'])}{problem['msg'].removeprefix('Value error, ')}"
        f" (found {_short(problem['input'])})"
        for problem in error.errors(include_url=False)
    )


def _key(location: tuple[int | str, ...]) -> str:
    match location:
        case ():
            return ""
        case ("turns", int(index), *rest):
            return f"turn {index + 1}: {_key(tuple(rest))}"
        case _:
            # pydantic names the validators of a union's members too, as `function-after[...]`.
            keys = [str(part) for part in location if "[" not in str(part)]
            return f"{'.'.join(keys)}: "


def _short(found: object, width: int = 60) -> str:
    shown = repr(found)
    return shown if len(shown) <= width else shown[: width - 3] + "..."
