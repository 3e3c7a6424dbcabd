"""opencode (https://opencode.ai), by the Agent Client Protocol, or by JSON lines. Seen with
1.18.33.

Where its model is served, what it may do and what it must leave alone is told in its own
configuration, by a variable: nothing of that stands in the repository or in the user's home.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path, PurePath
from types import MappingProxyType

import orjson

from adapters.acp import (
    PERMISSIONS,
    AcpConversation,
    Manner,
    Options,
    merged,
    options_of,
    prompt_text,
)
from adapters.opencode.lines import OpencodeLines
from adapters.places import USERS_OWN, openai_url, private_home
from adapters.reading import fields
from orchestrator.adapter import About, Agent, Command, Conversation, Install, Program
from orchestrator.errors import ConfigError
from orchestrator.events import Usage
from orchestrator.task import Access, Task

ABOUT = About(
    name="opencode",
    title="opencode",
    # npm's `opencode` is a script of Node that outlives the binary which it starts.
    program=Program(
        name="opencode",
        natives=(
            "../node_modules/opencode-linux-*/bin/opencode",
            "../../opencode-linux-*/bin/opencode",
            "../opencode-linux-*/bin/opencode",
        ),
    ),
    tested=("1.18.33",),
    install=Install(
        kind="npm",
        lock=str(Path(__file__).parent.parent / "locks" / "opencode" / "package-lock.json"),
        megabytes=180,
        minutes=1,
    ),
    dialects=("chat",),
    prompt_tokens=8_000,
    window_option="context_window",
    # Its file tools ask before they leave the workspace; its commands can write anywhere.
    enforces=("read", "full"),
    resumes=True,
    mcp=True,
    counts="turn",
    keys=("ANTHROPIC_API_KEY", "OPENAI_API_KEY", "GEMINI_API_KEY", "OPENROUTER_API_KEY"),
    logins=("$XDG_DATA_HOME/opencode/auth.json", "~/.local/share/opencode/auth.json"),
)

OPTIONS: Mapping[str, str] = MappingProxyType(
    {
        "permissions": PERMISSIONS,
        "protocol": "acp, json: how it is spoken to; json is `run --format json`, a fallback that"
        " rejects what it would ask for, and has no MCP servers",
        "context_window": "the model's context in tokens",
        "max_output_tokens": "the most tokens that one answer may have",
        "settings": "table of other settings, as in opencode.json",
    }
)
"""Each option, and what it does."""

_SIGINT = 2
_KEY = "ORCHESTRATE_KEY"
_PROVIDER = "orchestrate"
_OUTPUT = 32_000
"""What it asks for where it does not know the model."""
_QUIET: Mapping[str, str] = MappingProxyType(
    {
        "OPENCODE_DISABLE_AUTOUPDATE": "1",
        "OPENCODE_DISABLE_DEFAULT_PLUGINS": "1",
        "OPENCODE_DISABLE_LSP_DOWNLOAD": "1",
        "OPENCODE_DISABLE_MODELS_FETCH": "1",
        # Written by whoever wrote the repository: it can start programs.
        "OPENCODE_DISABLE_PROJECT_CONFIG": "1",
    }
)
_PERMISSION: Mapping[Access, Mapping[str, str]] = MappingProxyType(
    {
        "read": {"edit": "deny", "bash": "deny", "task": "deny", "external_directory": "deny"},
        "edit": {"external_directory": "ask"},
        "full": {"*": "allow"},
    }
)
# At its start it installs a package for plugins from npm, unless it finds it installed.
_PLUGINS = orjson.dumps({"packages": {"": {"dependencies": {"@opencode-ai/plugin": "*"}}}})


@dataclass(frozen=True)
class Opencode:
    """The adapter."""

    about: About = ABOUT

    def about_for(self, agent: Agent) -> About:
        """What it is, by how it is spoken to."""
        return replace(self.about, mcp=_options(agent).protocol == "acp")

    def command(self, task: Task, agent: Agent) -> Command:
        """`opencode acp`, its stdin open, or `opencode run`. Raises ConfigError for what cannot
        work.
        """
        options = _options(agent)
        env_from: dict[str, str] = {}
        if agent.home is None:
            env_from |= {name: name for name in USERS_OWN}
        key = _key_name(agent)
        if key is not None and agent.api_key_env is not None:
            env_from[key] = agent.api_key_env
        settings = orjson.dumps(_settings(task, agent, options), default=dict).decode()
        home, files = private_home(agent.home, key)
        in_lines = options.protocol == "json"
        words = _run(task, options) if in_lines else ("acp",)
        return Command(
            argv=(agent.program or "opencode", *words),
            cwd=str(task.workspace),
            env={**_QUIET, **home, "OPENCODE_CONFIG_CONTENT": settings},
            env_from=env_from,
            secrets=(key,) if key else (),
            stdin=prompt_text(task).encode() if in_lines else "open",
            interrupt=_SIGINT if in_lines else None,
            files={**files, **_files(agent)},
        )

    def conversation(self, task: Task, agent: Agent, before: Usage | None) -> Conversation:
        """A fresh conversation. Raises ConfigError if the options do not fit."""
        del before  # each turn's usage is told by itself
        options = _options(agent)
        held = task.allowed in self.about.enforces
        note = "access: edit; opencode keeps its own edits to it, not its commands"
        if options.protocol == "json":
            return OpencodeLines(note=None if held else note, billed=agent.tier == "cloud")
        manner = Manner(
            title="opencode",
            named=agent.model,
            permissions=options.permissions,
            cached_in_input=False,
            last_call_only=True,
            answer_limit=_output(options),
            window=options.context_window,
            billed=agent.tier == "cloud",
            note=None if held else note,
        )
        return AcpConversation(task=task, manner=manner)


def _options(agent: Agent) -> Options:
    options = options_of(agent, "opencode", OPTIONS)
    if options.protocol == "json" and options.permissions == "ask":
        text = f"agent {agent.name!r}: by JSON lines opencode does not ask"
        raise ConfigError(text, hint="Leave `protocol` out, or `permissions`.")
    return options


def _key_name(agent: Agent) -> str | None:
    """The variable in which opencode finds the key: its own provider's, or of our configuration."""
    if agent.api_key_env is None:
        return None
    return _KEY if agent.base_url is not None else agent.api_key_env


def _run(task: Task, options: Options) -> tuple[str, ...]:
    """Without a title it asks the model for one. What it may not do by its permissions it does not
    do with `--auto` either; without, it rejects what it would ask for.
    """
    session = () if task.session_id is None else ("--session", task.session_id)
    looks = task.allowed == "read" or options.permissions == "deny"
    granted = () if looks else ("--auto",)
    return ("run", "--format", "json", "--thinking", "--title", "task", *session, *granted)


def _settings(task: Task, agent: Agent, options: Options) -> dict[str, object]:
    """Its configuration, which comes on top of the user's own (profile `user`)."""
    ours: dict[str, object] = {
        "autoupdate": False,
        "share": "disabled",
        # It would ask a model for a title of the session first.
        "agent": {"title": {"disable": True}},
    }
    settings = merged(ours, options.settings)
    permission = dict(_PERMISSION[task.allowed])
    if options.protocol == "json" and task.allowed == "edit":
        permission["external_directory"] = "deny"  # nobody is asked
    if options.permissions != "access" and task.allowed != "read":
        permission |= dict.fromkeys(("edit", "bash", "webfetch", "external_directory"), "ask")
    settings["permission"] = {**fields(options.settings.get("permission")), **permission}
    if agent.base_url is None:
        return settings if agent.model is None else {**settings, "model": agent.model}
    if agent.model is None:
        raise ConfigError(
            f"agent {agent.name!r}: no model is named for {agent.base_url}",
            hint="Name one: `model = ...` on the agent, or --model.",
        )
    return {**settings, **_served(agent, agent.base_url, agent.model, options)}


def _served(agent: Agent, base_url: str, model: str, options: Options) -> dict[str, object]:
    """The one provider that there is: the agent's own server, for its small chores, too."""
    key = "{env:" + _KEY + "}" if agent.api_key_env else "none"
    served: dict[str, object] = {"name": model}
    if (context := options.context_window) is not None:
        served["limit"] = {"context": context, "output": _output(options)}
    return {
        "model": f"{_PROVIDER}/{model}",
        "small_model": f"{_PROVIDER}/{model}",
        "enabled_providers": [_PROVIDER],
        "provider": {
            _PROVIDER: {
                "npm": "@ai-sdk/openai-compatible",
                "options": {"baseURL": openai_url(base_url), "apiKey": key},
                "models": {model: served},
            }
        },
    }


def _output(options: Options) -> int:
    """The most tokens of one answer: what we tell it, else its own default."""
    if options.context_window is None:
        return _OUTPUT
    return options.max_output_tokens or options.context_window // 4


def _files(agent: Agent) -> dict[str, bytes]:
    if agent.home is None:
        return {}
    folder = PurePath(agent.home) / ".config" / "opencode"
    return {
        str(folder / "package-lock.json"): _PLUGINS,
        str(folder / "node_modules" / ".package-lock.json"): b"{}",
    }


adapter = Opencode()
