"""The options of an agent that uses codex: which there are, and which settings they are."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

from adapters.reading import is_list, is_object
from orchestrator.adapter import Agent
from orchestrator.errors import ConfigError

OPTIONS: Mapping[str, str] = MappingProxyType(
    {
        "oss": "true: start with `--oss` (ollama, lmstudio), which downloads a missing model",
        "network": "true: commands may use the network (access: edit)",
        "writable": "list of further folders that may be written (access: edit)",
        "web_search": "true: the provider's web search",
        "plan": "true: give the model a tool to keep a plan",
        "reasoning_effort": "minimal, low, medium, high: how long the model thinks",
        "compact": "true: short instructions instead of codex's own (a small model or window)",
        "context_window": "the model's context in tokens, where codex does not know the model",
        "config": "table of other settings of codex's config.toml: {model_verbosity = 'low'}",
    }
)
"""Each option, and what it does."""

OSS = frozenset({"ollama", "lmstudio"})
"""The kinds of model server that `--oss` knows."""


@dataclass(frozen=True, kw_only=True)
class Options:
    """What an agent's options ask for. `settings` are overrides of config.toml."""

    oss: bool
    compact: bool
    writable: tuple[str, ...]
    settings: Mapping[str, object]


def options_of(agent: Agent) -> Options:
    """The agent's options. Raises ConfigError for an unknown or ill-typed one."""
    oss = agent.base_url is None and agent.server in OSS
    compact = False
    writable: tuple[str, ...] = ()
    settings: dict[str, object] = {}
    for name, value in agent.options.items():
        match name, value:
            case "oss", bool() if agent.server in OSS or not value:
                oss = value
            case "compact", bool() if agent.home is not None or not value:
                compact = value
            case "network", bool():
                settings["sandbox_workspace_write.network_access"] = value
            case "writable", _ if is_list(value):
                writable = tuple(str(folder) for folder in value)
            case "web_search", bool():
                settings["web_search"] = "live" if value else "disabled"
            case "plan", bool():
                settings["tools.update_plan"] = {"enabled": value}
            case "reasoning_effort", str():
                settings["model_reasoning_effort"] = value
            case "context_window", int():
                settings["model_context_window"] = value
            case "config", _ if is_object(value):
                settings |= value
            case _:
                raise ConfigError(_wrong(agent, name, value))
    return Options(oss=oss, compact=compact, writable=writable, settings=settings)


def _wrong(agent: Agent, name: str, value: object) -> str:
    if name not in OPTIONS:
        return f"agent {agent.name!r}: codex has no option {name!r} (known: {', '.join(OPTIONS)})"
    return f"agent {agent.name!r}: option {name!r} is {OPTIONS[name]}; found {value!r}"
