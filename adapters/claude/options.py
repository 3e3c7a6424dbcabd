"""The options of an agent that uses claude: which there are, and which flags and variables they
are.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

import orjson

from adapters.reading import is_list, is_object
from orchestrator.adapter import Agent
from orchestrator.errors import ConfigError

OPTIONS: Mapping[str, str] = MappingProxyType(
    {
        "bare": "false: claude's whole system prompt and all its tools (profile: clean)",
        "tools": "list of claude's own tools to have, instead of all that the access allows",
        "allow": "list of further permission rules: ['WebFetch', 'mcp__files']",
        "deny": "list of rules for what is never allowed: ['Bash(git push *)']",
        "folders": "list of further folders to work in",
        "mcp": "table of MCP servers: {files = {type = 'stdio', command = '...', args = []}}",
        "system_prompt": "text to add to claude's system prompt",
        "schema": "table: a JSON Schema that the final answer keeps to",
        "effort": "low, medium, high, xhigh, max: how long the model thinks",
        "thinking": "false: the model does not think before it answers",
        "background": "true: commands and sub-agents may run on in the background",
        "context_window": "the model's context in tokens, where claude does not know the model",
        "max_output_tokens": "the most tokens that one answer may have",
        "sandbox": "true: commands write to the workspace only (access: edit) and have no network;"
        " claude's own sandbox, which needs bubblewrap and socat",
        "settings": "table of other settings, as in claude's settings.json",
    }
)
"""Each option, and what it does."""

_NARROW = 128_000
_BACKGROUND = "CLAUDE_CODE_DISABLE_BACKGROUND_TASKS"


@dataclass(frozen=True, kw_only=True)
class Options:
    """What an agent's options ask for."""

    bare: bool = True
    sandbox: bool = False
    tools: tuple[str, ...] | None = None
    allow: tuple[str, ...] = ()
    mcp: Mapping[str, object] | None = None
    settings: Mapping[str, object]
    flags: tuple[str, ...] = ()
    env: Mapping[str, str]


def options_of(agent: Agent) -> Options:
    """The agent's options. Raises ConfigError for an unknown or ill-typed one."""
    tools: tuple[str, ...] | None = None
    allow: tuple[str, ...] = ()
    mcp: Mapping[str, object] | None = None
    settings: Mapping[str, object] = {}
    flags: list[str] = []
    # A command that outlives its turn would outlive the check of the work, too.
    env = {_BACKGROUND: "1"}
    for name, value in agent.options.items():
        match name, value:
            case "bare" | "sandbox", bool():
                pass
            case "tools", _ if is_list(value):
                tools = _texts(value)
            case "allow", _ if is_list(value):
                allow = _texts(value)
            case "deny", _ if is_list(value):
                flags += ["--disallowedTools", ",".join(_texts(value))]
            case "folders", _ if is_list(value):
                flags += [word for folder in _texts(value) for word in ("--add-dir", folder)]
            case "mcp", _ if is_object(value) and agent.home is not None:
                mcp = value
            case "system_prompt", str():
                flags += ["--append-system-prompt", value]
            case "schema", _ if is_object(value):
                flags += ["--json-schema", orjson.dumps(value).decode()]
            case "settings", _ if is_object(value):
                settings = value
            case "effort", "low" | "medium" | "high" | "xhigh" | "max":
                flags += ["--effort", str(value)]
            case "thinking", bool():
                env |= {} if value else {"MAX_THINKING_TOKENS": "0"}
            case "background", bool():
                env |= {_BACKGROUND: "0" if value else "1"}
            case "context_window", int():
                env["CLAUDE_CODE_MAX_CONTEXT_TOKENS"] = str(value)
                if value <= _NARROW:
                    # It would ask for answers of 32,000 tokens, which such a window never holds.
                    env.setdefault("CLAUDE_CODE_MAX_OUTPUT_TOKENS", str(value // 4))
            case "max_output_tokens", int():
                env["CLAUDE_CODE_MAX_OUTPUT_TOKENS"] = str(value)
            case _:
                raise ConfigError(_wrong(agent, name, value))
    return Options(
        bare=agent.options.get("bare") is not False and agent.options.get("tools") is None,
        sandbox=agent.options.get("sandbox") is True,
        tools=tools,
        allow=allow,
        mcp=mcp,
        settings=settings,
        flags=tuple(flags),
        env=env,
    )


def _texts(value: object) -> tuple[str, ...]:
    return tuple(str(item) for item in value) if is_list(value) else ()


def _wrong(agent: Agent, name: str, value: object) -> str:
    if name not in OPTIONS:
        return f"agent {agent.name!r}: claude has no option {name!r} (known: {', '.join(OPTIONS)})"
    if name == "mcp" and is_object(value):
        return f"agent {agent.name!r}: option 'mcp' needs `profile: clean`; see `claude mcp add`"
    return f"agent {agent.name!r}: option {name!r} is {OPTIONS[name]}; found {value!r}"
