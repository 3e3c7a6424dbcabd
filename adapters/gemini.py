"""Google's Gemini CLI, by the Agent Client Protocol. Seen with 0.61.0.

It speaks Google's API and no other: a local server must offer that. It is told to ask before each
tool, and the access of the task answers.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path, PurePath
from types import MappingProxyType

import orjson

from adapters.acp import (
    PERMISSIONS,
    TRUST,
    TRUST_OPTION,
    AcpConversation,
    Manner,
    Options,
    merged,
    private_options,
    talking,
)
from adapters.places import root_url
from orchestrator.adapter import About, Agent, Command, Install, Program
from orchestrator.events import Usage
from orchestrator.task import Task

ABOUT = About(
    name="gemini",
    title="Gemini CLI",
    program=Program(name="gemini"),
    tested=("0.61.0",),
    install=Install(
        kind="npm",
        lock=str(Path(__file__).parent / "locks" / "gemini" / "package-lock.json"),
        megabytes=100,
        minutes=1,
    ),
    dialects=("gemini",),
    prompt_tokens=12_500,
    # Its file tools ask before they leave the workspace; its commands can write anywhere.
    enforces=("read", "full"),
    resumes=True,
    tells_cost=False,
    # Seen: in a folder that is not trusted it starts none. In one that is, the task's server is
    # called, but the MCP servers that the repository's own settings name are started, too.
    mcp=False,
    trust_option=TRUST_OPTION,
    counts="turn",
    key_env="GEMINI_API_KEY",
    keys=("GEMINI_API_KEY", "GOOGLE_API_KEY"),
    logins=("~/.gemini/oauth_creds.json",),
)

OPTIONS: Mapping[str, str] = MappingProxyType(
    {
        "permissions": PERMISSIONS,
        TRUST_OPTION: TRUST,
        "settings": "table of other settings, as in gemini's settings.json (profile: clean)",
    }
)
"""Each option, and what it does."""

_KEY = "GEMINI_API_KEY"
_LOOKING = (
    "glob",
    "google_web_search",
    "grep_search",
    "list_directory",
    "read_file",
    "read_many_files",
    "search_file_content",
    "web_fetch",
)
_DOING = (
    "activate_skill",
    "ask_user",
    "enter_plan_mode",
    "exit_plan_mode",
    "invoke_agent",
    "replace",
    "run_shell_command",
    "save_memory",
    "write_file",
)
_QUIET: Mapping[str, object] = MappingProxyType(
    {
        "general": {
            "enableAutoUpdate": False,
            "enableAutoUpdateNotification": False,
            # Its own default, 10, takes three minutes to say that a port is refused.
            "maxAttempts": 2,
        },
        "privacy": {"usageStatisticsEnabled": False},
        "telemetry": {"enabled": False},
        "security": {"auth": {"selectedType": "gemini-api-key"}},
        "tools": {"useRipgrep": False, "shell": {"enableInteractiveShell": False}},
        "ide": {"enabled": False},
    }
)


@dataclass(frozen=True)
class Gemini:
    """The adapter."""

    about: About = ABOUT

    def about_for(self, agent: Agent) -> About:
        """What it is, by what it may trust."""
        return replace(self.about, mcp=_options(agent).trust_workspace)

    def command(self, task: Task, agent: Agent) -> Command:
        """`gemini --acp`, its stdin open. Raises ConfigError for what cannot work."""
        options = _options(agent)
        return talking(
            task,
            agent,
            argv=_argv(agent),
            key=_KEY,
            env=_environment(agent, options),
            files=_files(task, agent, options),
        )

    def conversation(self, task: Task, agent: Agent, before: Usage | None) -> AcpConversation:
        """A fresh conversation. Raises ConfigError if the options do not fit."""
        del before  # each turn's usage is told by itself
        note = "access: edit; gemini keeps its own edits to it, not its commands"
        manner = Manner(
            title="gemini",
            named=agent.model,
            permissions=_options(agent).permissions,
            # Seen: of an answer without text, of a broken call and of a block it says `end_turn`.
            has_last_word=True,
            leave_s=0.5,  # it stays for ever, and saves its session as it goes
            note=note if task.allowed == "edit" else None,
        )
        return AcpConversation(task=task, manner=manner)


def _options(agent: Agent) -> Options:
    return private_options(agent, "gemini", OPTIONS, "~/.gemini/settings.json")


def _argv(agent: Agent) -> Iterator[str]:
    yield from (agent.program or "gemini", "--acp", "--approval-mode", "default")
    if agent.model is not None:
        yield from ("--model", agent.model)


def _environment(agent: Agent, options: Options) -> dict[str, str]:
    # Else a second process, which outlives the first.
    env = {"GEMINI_CLI_NO_RELAUNCH": "true"}
    if options.trust_workspace:
        # With --skip-trust the repository's settings count or not, by how long it takes to start.
        env["GEMINI_CLI_TRUST_WORKSPACE"] = "true"
    if agent.base_url is not None:
        env["GOOGLE_GEMINI_BASE_URL"] = root_url(agent.base_url)
        if agent.api_key_env is None:
            env[_KEY] = "none"  # it wants one
    return env


def _files(task: Task, agent: Agent, options: Options) -> dict[str, bytes]:
    """Its settings, in its private home: what is not there cannot be talked into."""
    if agent.home is None:
        return {}
    held = {"tools": _looking(task, options)} if task.allowed == "read" else {}
    settings = merged(merged(_QUIET, options.settings), held)
    path = PurePath(agent.home) / ".gemini" / "settings.json"
    return {str(path): orjson.dumps(settings)}


def _looking(task: Task, options: Options) -> dict[str, object]:
    """Only the tools that look; those of MCP servers cannot be named among them."""
    if options.trust_workspace and task.mcp_servers:
        return {"exclude": list(_DOING)}
    return {"core": list(_LOOKING)}


adapter = Gemini()
