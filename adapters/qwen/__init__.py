"""Qwen Code (https://github.com/QwenLM/qwen-code), by the Agent Client Protocol, or by JSON lines.
Seen with 0.24.4.

It is told to ask before each tool, and the access of the task answers. It asks for Node 22; with
Node 20, all that is recorded was seen, too.
"""

from __future__ import annotations

import signal
from collections.abc import Iterable, Iterator, Mapping
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
    prompt_text,
    talking,
)
from adapters.places import openai_url
from adapters.qwen.lines import QwenLines
from orchestrator.adapter import About, Agent, Command, Conversation, Install, Program
from orchestrator.errors import ConfigError
from orchestrator.events import Usage
from orchestrator.task import Task

ABOUT = About(
    name="qwen",
    title="Qwen Code",
    program=Program(name="qwen"),
    tested=("0.24.4",),
    install=Install(
        kind="npm",
        lock=str(Path(__file__).parent.parent / "locks" / "qwen" / "package-lock.json"),
        megabytes=125,
        minutes=1,
    ),
    dialects=("chat",),
    prompt_tokens=15_000,
    window_option="context_window",
    # Its file tools ask before they leave the workspace; its commands can write anywhere.
    enforces=("read", "full"),
    resumes=True,
    tells_cost=False,
    # Seen: in a folder that is not trusted it starts none. In one that is, the task's server is
    # called, but the hooks of the repository's own settings are run, too.
    mcp=False,
    trust_option=TRUST_OPTION,
    counts="call",
    key_env="OPENAI_API_KEY",
    keys=("OPENAI_API_KEY", "DASHSCOPE_API_KEY"),
    logins=("~/.qwen/oauth_creds.json",),
)

OPTIONS: Mapping[str, str] = MappingProxyType(
    {
        "permissions": PERMISSIONS,
        TRUST_OPTION: f"{TRUST} (profile: clean)",
        "protocol": "acp, json: how it is spoken to; json is `--output-format stream-json`, a"
        " fallback that denies itself what it would ask for",
        "context_window": "the model's context in tokens",
        "settings": "table of other settings, as in qwen's settings.json (profile: clean)",
    }
)
"""Each option, and what it does."""

_KEY = "OPENAI_API_KEY"
_UNHELD = "access: edit, not enforced: by JSON lines qwen writes anywhere"
_WRITING = ("edit", "notebook_edit", "run_shell_command", "write_file")
# Tools that are of no use to whoever runs alone, and are a third of its prompt.
_FOR_PEOPLE = (
    "agent",
    "ask_user_question",
    "enter_plan_mode",
    "enter_worktree",
    "exit_plan_mode",
    "exit_worktree",
    "get_goal",
    "list_agents",
    "report_findings",
    "send_message",
    "skill",
    "task_stop",
    "update_goal",
)
_QUIET: Mapping[str, object] = MappingProxyType(
    {
        "general": {"enableAutoUpdate": False, "gitCoAuthor": {"commit": False, "pr": False}},
        "privacy": {"usageStatisticsEnabled": False},
        "telemetry": {"enabled": False},
        # The repository's own settings were written by whoever wrote it: they can start programs.
        "security": {"folderTrust": {"enabled": True}},
        # Each of these asks the model for something that nobody sees; it would stay for that, too.
        "memory": {"enableManagedAutoMemory": False, "enableManagedAutoDream": False},
        "ui": {"enableFollowupSuggestions": False},
        # Each session would begin with half a megabyte of them on stdout.
        "skills": {"disabledLevels": ["bundled"]},
        "experimental": {"emitToolUseSummaries": False, "artifact": False, "cron": False},
        # Its own default takes minutes to say that a port is refused.
        "model": {"generationConfig": {"maxRetries": 1}},
        "tools": {
            "shell": {"enableInteractiveShell": False},
            "todoWrite": {"enabled": True},
            "toolSearch": {"enabled": False},
        },
    }
)


@dataclass(frozen=True)
class Qwen:
    """The adapter."""

    about: About = ABOUT

    def about_for(self, agent: Agent) -> About:
        """What it is, by what it may trust."""
        return replace(self.about, mcp=_options(agent).trust_workspace)

    def command(self, task: Task, agent: Agent) -> Command:
        """`qwen --acp`, its stdin open, or with JSON lines. Raises ConfigError for what cannot
        work.
        """
        options = _options(agent)
        in_lines = options.protocol == "json"
        words = _lines(task, options) if in_lines else ("--acp",)
        command = talking(
            task,
            agent,
            argv=_argv(agent, words),
            key=_KEY,
            env=_environment(agent, options),
            files=_files(task, agent, options),
        )
        if not in_lines:
            return command
        return replace(command, stdin=prompt_text(task).encode(), interrupt=signal.SIGINT)

    def conversation(self, task: Task, agent: Agent, before: Usage | None) -> Conversation:
        """A fresh conversation. Raises ConfigError if the options do not fit."""
        del before  # each call's usage is told by itself
        options = _options(agent)
        if options.protocol == "json":
            return QwenLines(note=_UNHELD if task.allowed == "edit" else None)
        note = "access: edit; qwen keeps its own edits to it, not its commands"
        manner = Manner(
            title="qwen",
            named=agent.model,
            permissions=options.permissions,
            window=options.context_window,
            # Seen: of answers without text after a tool, five in a row, it says `end_turn`.
            has_last_word=True,
            note=note if task.allowed == "edit" else None,
        )
        return AcpConversation(task=task, manner=manner)


def _options(agent: Agent) -> Options:
    options = private_options(agent, "qwen", OPTIONS, "~/.qwen/settings.json")
    if options.protocol == "json" and options.permissions == "ask":
        text = f"agent {agent.name!r}: by JSON lines qwen does not ask"
        raise ConfigError(text, hint="Leave `protocol` out, or `permissions`.")
    if options.trust_workspace:
        _check_trust(agent, options)
    return options


def _check_trust(agent: Agent, options: Options) -> None:
    if options.protocol == "json":
        text = f"agent {agent.name!r}: by JSON lines qwen takes no MCP servers"
        raise ConfigError(text, hint=f"Leave `protocol` out, or `{TRUST_OPTION}`.")
    if agent.profile == "user":
        text = f"agent {agent.name!r}: option {TRUST_OPTION!r} needs `profile: clean`"
        raise ConfigError(text, hint="Which folders your own qwen trusts is in ~/.qwen.")


def _lines(task: Task, options: Options) -> Iterator[str]:
    """In a folder that is not trusted it would deny what changes anything: so each is named."""
    yield from ("--output-format", "stream-json", "--include-partial-messages")
    if task.session_id is not None:
        yield from ("--resume", task.session_id)
    if task.allowed != "read" and options.permissions != "deny":
        for tool in (*_WRITING, "web_fetch"):
            yield from ("--allowed-tools", tool)


def _argv(agent: Agent, words: Iterable[str]) -> Iterator[str]:
    yield from (agent.program or "qwen", *words, "--approval-mode", "default")
    if agent.base_url is not None or agent.api_key_env is not None:
        yield from ("--auth-type", "openai")
    if agent.model is not None:
        yield from ("--model", agent.model)


def _environment(agent: Agent, options: Options) -> dict[str, str]:
    # Else a second process, which outlives the first.
    env = {"QWEN_CODE_NO_RELAUNCH": "1"}
    if options.trust_workspace:
        # Else the model is first asked while its MCP servers still start, and has no tools of them.
        env["QWEN_CODE_LEGACY_MCP_BLOCKING"] = "1"
    if agent.base_url is not None:
        env["OPENAI_BASE_URL"] = openai_url(agent.base_url)
        if agent.api_key_env is None:
            env[_KEY] = "none"  # it wants one
    return env


def _files(task: Task, agent: Agent, options: Options) -> dict[str, bytes]:
    """Its settings, in its private home: what is not there cannot be talked into."""
    if agent.home is None:
        return {}
    excluded = (*_FOR_PEOPLE, *_WRITING) if task.allowed == "read" else _FOR_PEOPLE
    own: dict[str, object] = {"tools": {"exclude": list(excluded)}}
    if options.context_window is not None:
        window = {"contextWindowSize": options.context_window}
        own["model"] = {"generationConfig": window}
    settings = merged(merged(_QUIET, options.settings), own)
    folder = PurePath(agent.home) / ".qwen"
    files = {str(folder / "settings.json"): orjson.dumps(settings)}
    if options.trust_workspace:
        trusted = {str(task.workspace): "TRUST_FOLDER"}
        files[str(folder / "trustedFolders.json")] = orjson.dumps(trusted)
    return files


adapter = Qwen()
