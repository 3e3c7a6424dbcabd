"""What to start: `codex exec --json` for one task and one agent. Pure."""

from __future__ import annotations

import re
import signal
from collections.abc import Iterable, Iterator
from itertools import chain
from pathlib import PurePosixPath
from types import MappingProxyType

import orjson

from adapters.codex.options import Options, options_of
from adapters.reading import is_list, is_object
from orchestrator.adapter import Agent, Command, Tail
from orchestrator.errors import ConfigError
from orchestrator.task import Task

KEY = "RUN_KEY"
"""The variable in which codex finds the key for an address of the agent's own."""

_SANDBOX = MappingProxyType(
    {"read": "read-only", "edit": "workspace-write", "full": "danger-full-access"}
)
_TOOL_S = 24 * 3600
# Its own limit of a call is 60 s; what a tool may take is the task's to say (`limits.tool`).
_UUID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")


_COMPACT = b"""\
You are a coding agent at work in the current folder, with nobody to ask. Use exec_command to look
(rg, sed -n) and to try. Change files with it, too: apply_patch <<'EOF'
*** Begin Patch
*** Update File: PATH
@@
 a line as it is
-a line to remove
+a line to add
*** End Patch
EOF
("*** Add File: PATH" with + lines only makes one, "*** Delete File: PATH" removes one.)
Do what is asked and no more, see that it works, then say in a few words what you did.
"""
# Instead of codex's own 18 KB, which a small window cannot hold and a small model cannot follow.


def command_of(task: Task, agent: Agent) -> Command:
    """The command, the prompt on stdin. Raises ConfigError for what cannot work."""
    options = options_of(agent)
    if agent.model is None and (options.oss or agent.base_url is not None):
        raise ConfigError(
            f"agent {agent.name!r}: no model is named for {agent.base_url or agent.server}",
            hint="Name one: `model = ...` on the agent, or --model.",
        )
    key = _key(agent)
    env: dict[str, str] = {}
    env_from: dict[str, str] = {}
    if agent.home is not None:
        env["CODEX_HOME"] = agent.home
    else:
        env_from["CODEX_HOME"] = "CODEX_HOME"
    if options.oss and agent.base_url is not None:
        env["CODEX_OSS_BASE_URL"] = endpoint(agent.base_url)
    if key is not None and agent.api_key_env is not None:
        env_from[key] = agent.api_key_env
    env |= _mcp_secrets(task, agent)
    return Command(
        argv=tuple(_argv(task, agent, options, key)),
        cwd=str(task.workspace),
        env=env,
        env_from=env_from,
        secrets=(key,) if key else (),
        stdin=_prompt(task).encode("utf-8", "replace"),
        files=_files(agent, options),
        tails=_tails(task, agent),
        interrupt=signal.SIGINT,
    )


def endpoint(base_url: str) -> str:
    """The address with scheme and version: `localhost:1234` becomes `http://localhost:1234/v1`."""
    url = base_url.rstrip("/")
    if "://" not in url:
        host = url.partition("/")[0]
        public = re.fullmatch(r"[\w-]+(\.[\w-]+)*\.[a-z]+", host) is not None
        url = f"{'https' if public else 'http'}://{url}"
    return url if re.search(r"/v\d\w*(/|$)", url) else f"{url}/v1"


def _argv(task: Task, agent: Agent, options: Options, key: str | None) -> Iterable[str]:
    yield from (agent.program or "codex", "exec", "--json", "--skip-git-repo-check")
    yield from ("-s", _SANDBOX[task.allowed], "-c", 'approval_policy="never"')
    yield from chain.from_iterable(("--add-dir", folder) for folder in options.writable)
    if agent.profile == "clean":
        yield from ("--strict-config", "--ignore-user-config", "--ignore-rules")
    yield from chain.from_iterable(("--disable", feature) for feature in _off(agent, options))
    if agent.model is not None:
        yield from ("-m", _model(agent.model, agent, options))
    if options.oss:
        yield from ("--oss", "--local-provider", str(agent.server))
    settings = {**_settings(agent, options, key), **options.settings, **_mcp(task)}
    if hidden := [*([key] if key else ()), *_mcp_secrets(task, agent)]:
        # Else every command that the model runs sees them.
        settings["shell_environment_policy.exclude"] = hidden
    yield from chain.from_iterable(("-c", f"{name}={_toml(settings[name])}") for name in settings)
    if task.session_id is not None:
        # A name that codex does not know would begin a new session, without a word.
        if not _UUID.fullmatch(task.session_id):
            raise ConfigError(f"{task.session_id!r} is not the id of a codex session")
        yield from ("resume", task.session_id)
    yield "-"


def _key(agent: Agent) -> str | None:
    """The variable that codex reads the key from; None: no key, or the login in its home."""
    if agent.api_key_env is None:
        return None
    return "CODEX_API_KEY" if agent.base_url is None else KEY


def _model(model: str, agent: Agent, options: Options) -> str:
    # `--oss` compares with Ollama's list, where every name has a tag, and would download it again.
    untagged = options.oss and agent.server == "ollama" and ":" not in model
    return f"{model}:latest" if untagged else model


def _off(agent: Agent, options: Options) -> Iterator[str]:
    """Features that are disabled, but for those of which the user's options say what they are."""
    return (one for one in _unwanted(agent) if f"features.{one}" not in options.settings)


def _unwanted(agent: Agent) -> Iterator[str]:
    # Without the first, a refused port is tried for ever (measured: still at it after 200 s).
    yield from ("unbounded_connection_retries", "multi_agent", "goals")
    if agent.profile == "clean" or agent.tier == "local":
        # Their lists come from github.com and chatgpt.com, wherever the model is.
        yield from ("plugins", "apps")
    if agent.profile == "clean":
        yield "image_generation"


def _mcp(task: Task) -> dict[str, object]:
    """The task's MCP servers; without one of them, codex does not begin."""
    return {
        f"mcp_servers.{server.key}": {
            "command": server.command[0],
            "args": list(server.command[1:]),
            "env": {name: server.env[name] for name in server.env.keys() - server.secrets.keys()},
            "env_vars": sorted(server.secrets),
            "required": True,
            "startup_timeout_sec": 60,
            "tool_timeout_sec": _TOOL_S,
            # Else each call needs an approval, which nobody can give.
            "default_tools_approval_mode": "approve",
        }
        for server in task.mcp_servers
    }


def _mcp_secrets(task: Task, agent: Agent) -> dict[str, str]:
    """What codex passes on to MCP servers from its own environment: a command line is public."""
    secrets: dict[str, str] = {}
    for server in task.mcp_servers:
        for name, value in server.secrets.items():
            if secrets.setdefault(name, value) != value:
                raise ConfigError(
                    f"agent {agent.name!r}: two MCP servers have different values of {name}",
                    hint="codex passes on one: give one of them to the server by other means.",
                )
    return secrets


def _settings(agent: Agent, options: Options, key: str | None) -> dict[str, object]:
    """Overrides of config.toml."""
    settings: dict[str, object] = {
        "check_for_update_on_startup": False,
        "analytics.enabled": False,
    }
    if agent.profile == "clean":
        settings |= {
            "web_search": "disabled",
            # 2 KB of every request, also for skills in the user's home.
            "skills.include_instructions": False,
            "skills.bundled.enabled": False,
        }
    if options.compact:
        settings["model_instructions_file"] = _instructions(agent)
        settings["include_permissions_instructions"] = False
    if agent.base_url is not None and not options.oss:
        # Rather than `--oss`, which downloads models and cannot be told to retry less.
        settings["model_provider"] = "endpoint"
        settings["model_providers.endpoint"] = {
            "name": agent.server or "endpoint",
            "base_url": endpoint(agent.base_url),
            "wire_api": "responses",
            **({"env_key": key} if key else {}),
            # A server at home that fails once has a reason; a cloud may be busy for a moment.
            "request_max_retries": 1 if agent.tier == "local" else 2,
            "stream_max_retries": 1 if agent.tier == "local" else 2,
            "stream_idle_timeout_ms": 300_000,
        }
    return settings


def _instructions(agent: Agent) -> str:
    return str(PurePosixPath(agent.home or "", "compact.md"))


def _files(agent: Agent, options: Options) -> dict[str, bytes]:
    return {_instructions(agent): _COMPACT} if options.compact else {}


def _toml(value: object) -> str:
    """A value in TOML; JSON's texts, numbers and lists are TOML's too, its objects are not."""
    if is_object(value):
        return f"{{{','.join(f'{_toml(key)}={_toml(item)}' for key, item in value.items())}}}"
    if is_list(value):
        return f"[{','.join(_toml(item) for item in value)}]"
    return orjson.dumps(value).decode()


def _prompt(task: Task) -> str:
    if not task.files:
        return task.prompt
    files = "\n".join(f"- {file}" for file in task.files)
    return f"{task.prompt}\n\nFiles that matter:\n{files}\n"


def _tails(task: Task, agent: Agent) -> tuple[Tail, ...]:
    homes = ("~/.codex", "$CODEX_HOME") if agent.home is None else (agent.home,)
    pattern = f"**/rollout-*{task.session_id or ''}.jsonl"
    wanted = (("session", b'"turn_id":'), ("limits", b'"used_percent":'))
    return tuple(
        Tail(name=name, folder=f"{home}/sessions", pattern=pattern, containing=containing)
        for home in homes
        for name, containing in wanted
    )
