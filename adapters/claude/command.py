"""What to start: `claude -p` for one task and one agent. Pure."""

from __future__ import annotations

import re
import signal
from collections.abc import Iterable, Mapping
from pathlib import PurePath
from types import MappingProxyType
from urllib.parse import urlsplit

import orjson

from adapters.claude.options import Options, options_of
from adapters.reading import fields
from orchestrator.adapter import Agent, Command
from orchestrator.errors import ConfigError
from orchestrator.task import Access, Task

_UUID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")
_LOGIN = "CLAUDE_CODE_OAUTH_TOKEN"
"""The variable of a subscription's token (`claude setup-token`): a login, not a key."""

_LOOKING = ("Read", "Glob", "Grep")
_ALLOWED: Mapping[Access, tuple[str, ...]] = MappingProxyType(
    {
        "read": _LOOKING,
        # Not Edit: the mode accepts edits in the workspace, a rule would accept them anywhere.
        "edit": (*_LOOKING, "Bash"),
        "full": (*_LOOKING, "Edit", "Write", "NotebookEdit", "Bash", "WebFetch", "WebSearch"),
    }
)
_MODES: Mapping[Access, str] = MappingProxyType(
    # Not bypassPermissions: claude refuses it to root, and whoever asks for `full` may be root.
    {"read": "dontAsk", "edit": "acceptEdits", "full": "acceptEdits"}
)
_QUIET: Mapping[str, str] = MappingProxyType(
    {
        "CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC": "1",
        "DISABLE_AUTOUPDATER": "1",
        "DISABLE_TELEMETRY": "1",
        "DISABLE_ERROR_REPORTING": "1",
        # Its own default, 10, takes three minutes to say that a port is refused.
        "CLAUDE_CODE_MAX_RETRIES": "2",
        # Else the schemas of MCP tools are hidden behind another tool.
        "ENABLE_TOOL_SEARCH": "false",
    }
)
# Without the last two it would go on outside of it: where it cannot be set up, or the model asks.
_SANDBOX: Mapping[str, bool] = MappingProxyType(
    {"enabled": True, "failIfUnavailable": True, "allowUnsandboxedCommands": False}
)
_TOOL_MS = 24 * 3600 * 1000
# What a tool of an MCP server may take is the task's to say (`limits.tool`).
# Unset before each of its commands: else every command that the model runs sees the key.
_KEYS = ("ANTHROPIC_API_KEY", "ANTHROPIC_AUTH_TOKEN", "CLAUDE_CODE_OAUTH_TOKEN")


def command_of(task: Task, agent: Agent) -> Command:
    """The command; the prompt follows on stdin. Raises ConfigError for what cannot work."""
    options = options_of(agent)
    if agent.model is None and agent.base_url is not None:
        raise ConfigError(
            f"agent {agent.name!r}: no model is named for {agent.base_url}",
            hint="Name one: `model = ...` on the agent, or --model.",
        )
    key = key_name(agent)
    env_from = {} if key is None or agent.api_key_env is None else {key: agent.api_key_env}
    if agent.home is None:
        env_from["CLAUDE_CONFIG_DIR"] = "CLAUDE_CONFIG_DIR"
    return Command(
        argv=tuple(_argv(task, agent, options)),
        cwd=str(task.workspace),
        env={
            **_QUIET,
            **_retries(agent),
            **_place(agent),
            **_home(agent),
            **_instructions(agent),
            **_mcp_environment(task, agent),
            **options.env,
        },
        env_from=env_from,
        secrets=(key,) if key else (),
        stdin="open",
        files=_files(task, agent, options),
        interrupt=signal.SIGINT,
    )


def bills(agent: Agent) -> bool:
    """Whether the cost that claude states is what is paid: Anthropic's own API, by key."""
    return key_name(agent) == "ANTHROPIC_API_KEY" and agent.tier == "cloud"


def logs_in(agent: Agent) -> bool:
    """Whether a login is used, so that nothing is paid by the token."""
    return agent.base_url is None and key_name(agent) in {None, _LOGIN}


def key_name(agent: Agent) -> str | None:
    """The variable in which claude finds its key; None: none, or the login in its home."""
    if agent.api_key_env is None:
        return None
    if agent.base_url is None or urlsplit(endpoint(agent.base_url)).hostname == "api.anthropic.com":
        return _LOGIN if agent.api_key_env == _LOGIN else "ANTHROPIC_API_KEY"
    return "ANTHROPIC_AUTH_TOKEN"


def endpoint(base_url: str) -> str:
    """The address as claude wants it: `localhost:1234/v1` becomes `http://localhost:1234`."""
    url = base_url.rstrip("/")
    if "://" not in url:
        host = url.partition("/")[0]
        public = re.fullmatch(r"[\w-]+(\.[\w-]+)*\.[a-z]+", host) is not None
        url = f"{'https' if public else 'http'}://{url}"
    return url.removesuffix("/v1")


def _argv(task: Task, agent: Agent, options: Options) -> Iterable[str]:
    access = task.allowed
    yield from (agent.program or "claude", "-p", "--verbose", "--include-partial-messages")
    yield from ("--input-format", "stream-json", "--output-format", "stream-json")
    yield from _profile(task, agent, options)
    yield from _settings(task, agent, options)
    yield from ("--permission-mode", _MODES[access], "--permission-prompts", "none")
    tools = _tools(options, access)
    if tools is not None:
        yield from ("--tools", ",".join(tools))
    # With access `read`, no rule of the user's and no MCP server may open what is closed.
    servers = [f"mcp__{server.key}" for server in task.mcp_servers]
    yield from ("--allowedTools", ",".join((*_ALLOWED[access], *options.allow, *servers)))
    if agent.profile == "clean" or access == "read":
        yield "--strict-mcp-config"
    if options.mcp is not None:
        yield from ("--mcp-config", str(PurePath(agent.home or "", "mcp.json")))
    if task.mcp_servers:
        yield from ("--mcp-config", orjson.dumps({"mcpServers": _mcp(task)}).decode())
    if agent.model is not None:
        yield from ("--model", agent.model)
    yield from options.flags
    yield from _expected(task, options)
    yield from _limits(task, agent)
    if task.session_id is not None:
        # Any other word would be searched for among the names of sessions.
        if not _UUID.fullmatch(task.session_id):
            raise ConfigError(f"{task.session_id!r} is not the id of a claude session")
        yield from ("--resume", task.session_id)


def _profile(task: Task, agent: Agent, options: Options) -> Iterable[str]:
    """The leanest prompt that has the tools: `--bare` knows only Bash, Edit and Read, and no login.

    Measured: a request of 4 KB with `--bare`, of 13 KB with three tools to look around, of 77 KB
    with all.
    """
    if agent.profile != "clean":
        return ()
    known = agent.base_url is not None or agent.api_key_env not in {None, _LOGIN}
    if options.bare and known and task.allowed != "read":
        return ("--bare",)
    # Safe mode has no MCP server, also none that is named on the command line.
    safe = () if task.mcp_servers or options.mcp is not None else ("--safe-mode",)
    return (*safe, "--disable-slash-commands")


def _settings(task: Task, agent: Agent, options: Options) -> Iterable[str]:
    """Whose settings.json count. Never the repository's: its `env` can send the run to another
    address (measured, with `--bare` too), its hooks run what they like.
    """
    settings = dict(options.settings)
    if options.sandbox and task.allowed == "edit":
        settings["sandbox"] = {**fields(settings.get("sandbox")), **_SANDBOX}
    if agent.profile == "clean" or (agent.base_url is not None and agent.api_key_env is not None):
        # The user's `env` would replace a key that must not be written into a flag.
        yield from ("--setting-sources", "")
    else:
        # Without the repository as a source, its CLAUDE.md is read as that of a folder.
        yield from ("--setting-sources", "user", "--add-dir", str(task.workspace))
        if agent.base_url is not None:
            env = {**fields(settings.get("env")), **_place(agent), "ANTHROPIC_API_KEY": ""}
            settings |= {"env": env, "apiKeyHelper": ""}
    if settings:
        yield from ("--settings", orjson.dumps(settings).decode())


def _tools(options: Options, access: Access) -> tuple[str, ...] | None:
    """The tools that there are at all; None: claude's own choice."""
    if access != "read":
        return options.tools
    # What is not there cannot be talked into: no hook and no rule of the user's allows it again.
    return tuple(tool for tool in options.tools or _LOOKING if tool in _LOOKING)


def _mcp(task: Task) -> dict[str, object]:
    """The task's MCP servers. Secrets are named only: a command line is public."""
    return {
        server.key: {
            "type": "stdio",
            "command": server.command[0],
            "args": list(server.command[1:]),
            "env": {**server.env, **{name: f"${{{name}}}" for name in server.secrets}},
        }
        for server in task.mcp_servers
    }


def _mcp_environment(task: Task, agent: Agent) -> dict[str, str]:
    """What MCP servers are told by name, and that their tools may take as long as the task lets
    them.
    """
    if not task.mcp_servers:
        return {}
    secrets: dict[str, str] = {}
    for server in task.mcp_servers:
        for name, value in server.secrets.items():
            if secrets.setdefault(name, value) != value:
                raise ConfigError(
                    f"agent {agent.name!r}: two MCP servers have different values of {name}",
                    hint="claude passes on one: give one of them to the server by other means.",
                )
    return {"MCP_TIMEOUT": "60000", "MCP_TOOL_TIMEOUT": str(_TOOL_MS), **secrets}


def _unset(task: Task) -> bytes:
    secrets = (name for server in task.mcp_servers for name in server.secrets)
    return f"unset {' '.join(dict.fromkeys((*_KEYS, *secrets)))}\n".encode()


def _expected(task: Task, options: Options) -> Iterable[str]:
    """Its own structured output: a tool, so the schema must be that of an object."""
    expected = task.expect or {}
    if expected.get("type") == "object" and "--json-schema" not in options.flags:
        yield from ("--json-schema", orjson.dumps(expected, default=dict).decode())


def _limits(task: Task, agent: Agent) -> Iterable[str]:
    if task.limits.steps is not None:
        yield from ("--max-turns", str(task.limits.steps))
    if task.limits.cost_usd is not None and bills(agent):
        yield from ("--max-budget-usd", f"{task.limits.cost_usd:g}")


def _instructions(agent: Agent) -> dict[str, str]:
    """Of nobody, as in safe mode, which is not always there."""
    if agent.profile != "clean":
        return {}
    return {"CLAUDE_CODE_DISABLE_CLAUDE_MDS": "1", "CLAUDE_CODE_DISABLE_AUTO_MEMORY": "1"}


def _place(agent: Agent) -> dict[str, str]:
    """Where the model is served. Never Anthropic's key, nor a login, for another's address."""
    if agent.base_url is None:
        return {}
    model = agent.model or ""
    env = {
        "ANTHROPIC_BASE_URL": endpoint(agent.base_url),
        "CLAUDE_CODE_DISABLE_EXPERIMENTAL_BETAS": "1",
        # Its small chores and its sub-agents would ask for Anthropic's models by name.
        "ANTHROPIC_DEFAULT_HAIKU_MODEL": model,
        "ANTHROPIC_DEFAULT_SONNET_MODEL": model,
        "ANTHROPIC_DEFAULT_OPUS_MODEL": model,
    }
    # Without any token claude would ask for a login, or send the user's own.
    return env if agent.api_key_env else {**env, "ANTHROPIC_AUTH_TOKEN": "none"}


def _retries(agent: Agent) -> dict[str, str]:
    """A server at home that fails once has a reason; a cloud may be busy for a moment."""
    return {"CLAUDE_CODE_MAX_RETRIES": "1"} if agent.tier == "local" else {}


def _home(agent: Agent) -> dict[str, str]:
    if agent.home is None:
        return {"CLAUDE_CODE_ADDITIONAL_DIRECTORIES_CLAUDE_MD": "1"}
    home = PurePath(agent.home)
    return {
        "CLAUDE_CONFIG_DIR": str(home),
        "CLAUDE_CODE_TMPDIR": str(home / "tmp"),  # else it leaves a folder in /tmp for each run
        "CLAUDE_ENV_FILE": str(home / "unset-keys.sh"),
    }


def _files(task: Task, agent: Agent, options: Options) -> dict[str, bytes]:
    if agent.home is None:
        return {}
    home = PurePath(agent.home)
    files = {str(home / "unset-keys.sh"): _unset(task)}
    if options.mcp is not None:
        files[str(home / "mcp.json")] = orjson.dumps({"mcpServers": options.mcp})
    return files


def prompt_of(task: Task) -> str:
    """The prompt with the files that matter, as text that JSON can hold."""
    prompt = task.prompt
    if task.files:
        files = "\n".join(f"- {file}" for file in task.files)
        prompt = f"{prompt}\n\nFiles that matter:\n{files}\n"
    return prompt.encode("utf-8", "replace").decode()
