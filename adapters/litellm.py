"""A coding agent on any provider that LiteLLM knows: mini-swe-agent, through a front of our own.

The front (`programs/litellm_agent`) prints JSON lines. It is run by the interpreter of the
environment that has mini-swe-agent; its settings go in on stdin. What each of its lines means is
seen in tests/recordings/litellm.
"""

from __future__ import annotations

import re
import signal
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from types import MappingProxyType

import orjson

from adapters.fronts import FrontConversation, heard, is_list, is_table, text_of
from adapters.providers import KEYS, WHOLE, endpoint, environment, litellm_model, variables
from orchestrator.adapter import (
    TEXT_LIMIT,
    About,
    Agent,
    Command,
    Install,
    Program,
    json_line,
)
from orchestrator.errors import ConfigError
from orchestrator.events import (
    Error,
    Message,
    Notice,
    Permission,
    SessionStarted,
    ToolCall,
    ToolCallStatus,
    TurnFinished,
    TurnStarted,
    Update,
    Usage,
)
from orchestrator.task import EDITING_KINDS, Task

ABOUT = About(
    name="litellm",
    title="LiteLLM agent (mini-swe-agent)",
    # The interpreter beside `mini` is what runs the front.
    program=Program(name="mini", natives=("python",)),
    version_argv=(
        "-Ic",
        "from importlib.metadata import version; print(version('mini-swe-agent'))",
    ),
    tested=("2.4.6",),
    install=Install(
        kind="pip",
        lock=str(Path(__file__).with_name("locks") / "litellm" / "requirements.txt"),
        megabytes=440,
        minutes=2,
    ),
    dialects=("chat", "ollama"),
    prompt_tokens=1_100,
    resumes=True,
    landlock=True,
    counts="call",
    keys=KEYS,
)

FRONT = str(Path(__file__).with_name("programs") / "litellm_agent" / "__main__.py")
KEY = "LITELLM_AGENT_KEY"
"""The variable in which the front finds the key of an agent that names one."""

_LONGEST_S = 24 * 3600.0
OLLAMA_CONTEXT = 32_768
# Ollama's own default, 4,096, holds no agent's prompt: 0 tool calls in 3 of 3 runs.

# --- options -------------------------------------------------------------------------------------

OPTIONS: Mapping[str, str] = MappingProxyType(
    {
        "model_kwargs": "table of arguments for every call of the model: {temperature = 0}",
        "stream": "true or false: ask for a stream or for whole answers (a stream, but for Gemini)",
        "writable": "list of further folders that commands may write to (access: read, edit)",
        "command_timeout_s": "seconds after which a command of the model is killed (120)",
        "request_timeout_s": "seconds without a byte after which a call of the model fails (600)",
    }
)
"""The options of an agent that uses this adapter, and what each does."""


def _options(agent: Agent) -> dict[str, object]:
    """The options, checked. Raises ConfigError for an unknown or ill-typed one."""
    options: dict[str, object] = {}
    for name, value in agent.options.items():
        match name, value:
            case "model_kwargs", table if is_table(table):
                options[name] = table
            case "stream", bool():
                options[name] = value
            case "writable", texts if is_list(texts) and all(isinstance(a, str) for a in texts):
                options[name] = texts
            case "command_timeout_s" | "request_timeout_s", float() | int() if (
                value is not True and value > 0
            ):
                options[name] = float(value)
            case known, _ if known in OPTIONS:
                text = f"agent {agent.name!r}: option {name!r} is {OPTIONS[name]}; found {value!r}"
                raise ConfigError(text)
            case _:
                known_ones = ", ".join(OPTIONS)
                text = f"agent {agent.name!r}: litellm has no option {name!r} (known: {known_ones})"
                raise ConfigError(text)
    return options


def _patience(task: Task) -> dict[str, object]:
    """A command may hand on work and wait for it: as long as the task itself may take."""
    return {"command_timeout_s": task.limits.wall_s or _LONGEST_S} if task.delegation else {}


def _python(agent: Agent) -> str:
    path = PurePosixPath(agent.program or "mini")
    return str(path if path.name.startswith("python") else path.with_name("python"))


# --- the adapter ---------------------------------------------------------------------------------


@dataclass(frozen=True)
class LiteLLM:
    """The adapter."""

    about: About = ABOUT

    def command(self, task: Task, agent: Agent) -> Command:
        """The front, its settings on stdin. Raises ConfigError for what cannot work."""
        model = litellm_model(agent)
        provider, slash, _ = model.partition("/")
        if not agent.model or not slash:
            raise ConfigError(
                f"agent {agent.name!r}: "
                + (f"model {model!r} names no provider" if agent.model else "no model is named"),
                hint="Name it as PROVIDER/MODEL: ollama_chat/qwen2.5-coder, openrouter/..., ...",
            )
        options = {**_patience(task), **_options(agent)}
        kwargs = options.pop("model_kwargs", None)
        defaults = {"num_ctx": OLLAMA_CONTEXT} if provider == "ollama_chat" else {}
        access = environment(agent, provider, KEY)
        settings = {
            "prompt": task.prompt,
            "files": list(task.files),
            "model": model,
            "workspace": str(task.workspace),
            "access": task.allowed,
            "home": agent.home,
            "session_id": task.session_id,
            "api_base": endpoint(agent.base_url, provider) if agent.base_url else None,
            "api_key_env": access.key,
            "api_key_name": agent.api_key_env,
            "may_only_answer": task.allowed == "read" or task.kind not in {None, *EDITING_KINDS},
            "local": agent.tier == "local" and not re.search(r"[:-]cloud$", model),
            "hidden": [name for name in access.passed if name not in task.env_from],
            "secrets": list(access.secrets),
            "model_kwargs": {**defaults, **(kwargs if is_table(kwargs) else {})},
            "stream": provider not in WHOLE,
            "steps": task.limits.steps,
            "cost_usd": task.limits.cost_usd,
            **options,
        }
        try:
            stdin = orjson.dumps(settings)
        except TypeError as error:
            text = f"agent {agent.name!r}: settings that JSON cannot hold: {error}"
            raise ConfigError(text) from error
        return Command(
            argv=(_python(agent), "-I", "-X", "utf8", FRONT),
            cwd=str(task.workspace),
            env_from=access.passed,
            secrets=access.secrets,
            stdin=stdin,
            interrupt=signal.SIGINT,
        )

    def conversation(self, task: Task, agent: Agent, before: Usage | None) -> LiteLLMConversation:
        """A fresh conversation. Usage is told by calls, so what was before adds nothing."""
        del task, before
        model = litellm_model(agent)
        provider, slash, name = model.partition("/")
        note: str | None = None
        if slash and agent.model == f"ollama/{name}" and provider == "ollama_chat":
            note = f"{model} is used for {agent.model}: LiteLLM's `ollama/` drops the tools"
        own = variables(provider)
        key = agent.api_key_env or (own.keys[0] if agent.base_url is None else None)
        return LiteLLMConversation(note=note, key=key)


adapter = LiteLLM()


# --- what it says --------------------------------------------------------------------------------

_TOOL_STATUSES: Mapping[object, ToolCallStatus] = MappingProxyType(
    {status: status for status in ("in_progress", "completed", "failed")}
)


@dataclass(kw_only=True)
class LiteLLMConversation(FrontConversation):
    """One run. `note` is said first."""

    title: str = "the agent"
    again: str = f"Reinstall it: {ABOUT.install_hint} --force"
    _text: str | None = None
    _turns: int = 0

    def feed(self, line: bytes) -> Iterator[Update]:
        """What a line of the front means."""
        said = json_line(line) or {}
        match said:
            case {"type": "session", "session_id": str(id_)}:
                yield SessionStarted(session_id=id_, model=text_of(said, "model"), tools=["bash"])
            case {"type": "ready"}:
                text = f"mini-swe-agent {said.get('agent')}, litellm {said.get('litellm')}"
                yield Notice(text=text)
            case {"type": "turn"}:
                self._turns += 1
                yield TurnStarted(turn=self._turns)
            case {"type": "message", "text": str(text)}:
                self._text = text
                yield from heard(said, line)
            case {"type": "tool_call", "id": str(id_), "status": str(status)} if (
                status in _TOOL_STATUSES
            ):
                yield _tool_call(id_, _TOOL_STATUSES[status], said)
            case {"type": "denied", "id": str(id_), "path": str(path)}:
                yield _denied(id_, path, said)
            case {"type": "format_error", "text": str(text)}:
                yield Notice(text=text)
            case {"type": "error", "text": str(text)}:
                yield self._error(text, said)
            case {"type": "result", "status": str(status)}:
                self._ended = True
                yield from self._result(status, said)
            case _:
                yield from heard(said, line)

    def _result(self, status: str, said: Mapping[str, object]) -> Iterator[Update]:
        match status, said:
            case "finished", {"exit_code": 0} if not self._failed:
                text = text_of(said, "text")
                if text and text != self._text:
                    yield Message(text=text[:TEXT_LIMIT])
                yield TurnFinished(stop_reason="end_turn")
            case "interrupted", _:
                yield TurnFinished(stop_reason="cancelled")
            case "limit", {"limit": "steps"}:
                yield TurnFinished(stop_reason="max_turn_requests")
            case "limit", _:
                yield Error(kind="budget_exceeded", text="the agent reached its cost limit")
                yield TurnFinished(stop_reason="error")
            case "no_tool_call", {"cut_off": True}:
                yield TurnFinished(stop_reason="max_tokens")
            case "no_tool_call", _:
                text = "the model made no usable tool call, several times in a row"
                hint = "Use a model that is good at tool calls, or give it a larger context."
                yield Error(kind="incomplete", text=text, hint=hint)
                yield TurnFinished(stop_reason="error")
            case "refused", _:
                yield TurnFinished(stop_reason="refusal")
            case _:
                if not self._failed:
                    yield Error(kind="unknown", text=f"the agent ended with status {status!r}")
                yield TurnFinished(stop_reason="error")


def _tool_call(id_: str, status: ToolCallStatus, said: Mapping[str, object]) -> ToolCall:
    command, output, problem = (
        said.get("command"),
        text_of(said, "output"),
        text_of(said, "problem"),
    )
    if problem is not None:
        output = f"{output}\n[{problem}]" if output else f"[{problem}]"
    exit_code = said.get("exit_code")
    return ToolCall(
        id=id_,
        status=status,
        kind="execute",
        title=command[:200] if isinstance(command, str) else None,
        input=None if command is None else {"command": command},
        output=None if output is None else output[: TEXT_LIMIT + 200],
        exit_code=exit_code if type(exit_code) is int else None,
    )


def _denied(id_: str, path: str, said: Mapping[str, object]) -> Update:
    """A write that was refused: for a failed command under `read` a denial, else worth knowing.

    A command that went on regardless (a cache that could not be written) has lost nothing, and
    under `edit` the model may well do its work elsewhere.
    """
    text = f"writing {path} was refused (access: {said.get('access')})"
    if said.get("access") == "read" and said.get("status") != 0:
        return Permission(id=id_, status="denied", reason=text)
    return Notice(text=text)
