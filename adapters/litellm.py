"""A coding agent on any provider that LiteLLM knows: mini-swe-agent, through a front of our own.

The front (`programs/litellm_agent.py`) prints JSON lines. It is run by the interpreter of the
environment that has mini-swe-agent; its settings go in on stdin. What each of its lines means is
seen in tests/recordings/litellm.
"""

from __future__ import annotations

import re
import signal
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from types import MappingProxyType
from typing import TypeGuard, get_args
from urllib.parse import urlsplit

import orjson

from orchestrator.adapter import (
    TEXT_LIMIT,
    About,
    Agent,
    Command,
    Exit,
    Install,
    Program,
    Send,
    error_kind,
    json_line,
    unparsed,
)
from orchestrator.errors import ConfigError
from orchestrator.events import (
    Context,
    Error,
    ErrorKind,
    Message,
    MessageDelta,
    Notice,
    Permission,
    Retry,
    SessionStarted,
    Thought,
    ThoughtDelta,
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
        megabytes=400,
        minutes=2,
    ),
    dialects=("chat", "ollama"),
    prompt_tokens=1_100,
    resumes=True,
)
_AGAIN = f"{ABOUT.install_hint} --force"

FRONT = str(Path(__file__).with_name("programs") / "litellm_agent.py")
KEY = "LITELLM_AGENT_KEY"
"""The variable in which the front finds the key of an agent that names one."""

# --- which model, where --------------------------------------------------------------------------

_OF_SERVER = MappingProxyType(
    {
        "ollama": "ollama_chat",
        "lmstudio": "lm_studio",
        "vllm": "hosted_vllm",
        "llamacpp": "openai",
        "openai": "openai",
    }
)
"""LiteLLM's provider for each kind of model server."""

_SYNONYMS = MappingProxyType({"ollama_chat": ("ollama",), "hosted_vllm": ("vllm",)})
_VERSIONED = frozenset({"openai", "lm_studio", "hosted_vllm", "llamafile", "custom_openai"})
"""Providers whose address ends in the API's version, `/v1`."""

_UNVERSIONED = frozenset({"ollama_chat", "anthropic"})
"""Providers that put the whole path behind the address themselves."""

_UNNAMED: tuple[tuple[re.Pattern[str], str], ...] = (
    (re.compile(r"gpt-|chatgpt-|o\d|codex-|ft:gpt"), "openai"),
    (re.compile(r"claude"), "anthropic"),
    (re.compile(r"gemini"), "gemini"),
)
"""Models that are known without their provider."""

OLLAMA_CONTEXT = 32_768
# Ollama's own default, 4,096, holds no agent's prompt: 0 tool calls in 3 of 3 runs.


def litellm_model(agent: Agent) -> str:
    """The agent's model as LiteLLM names it: `PROVIDER/MODEL`."""
    model = agent.model or ""
    provider, slash, rest = model.partition("/")
    of_server = _OF_SERVER.get(agent.server or "")
    if of_server is not None:
        known = (of_server, *_SYNONYMS.get(of_server, ()))
        return f"{of_server}/{rest if slash and provider in known else model}"
    if slash:
        return f"ollama_chat/{rest}" if provider == "ollama" else model
    if agent.base_url is not None:
        return f"openai/{model}"
    for pattern, name in _UNNAMED:
        if pattern.match(model):
            return f"{name}/{model}"
    return model


def endpoint(base_url: str, provider: str) -> str:
    """The address as LiteLLM wants it for this provider, however it was written."""
    url = base_url.rstrip("/")
    if "://" not in url:
        parts = urlsplit(f"//{url}")
        host = parts.hostname or ""
        public = parts.port in {None, 443} and "." in host and not re.fullmatch(r"[\d.]+", host)
        url = f"{'https' if public else 'http'}://{url}"
    if provider in _UNVERSIONED:
        return re.sub(r"/(v1|api)$", "", url)
    if provider in _VERSIONED and urlsplit(url).path in {"", "/"}:
        return f"{url}/v1"
    return url


# --- which variables -----------------------------------------------------------------------------


@dataclass(frozen=True)
class Variables:
    """What a provider reads from the environment: keys, addresses, settings that are neither."""

    keys: tuple[str, ...]
    addresses: tuple[str, ...] = ()
    settings: tuple[str, ...] = ()

    @property
    def all(self) -> tuple[str, ...]:
        """All of them."""
        return (*self.keys, *self.addresses, *self.settings)


_AWS = Variables(
    keys=(
        "AWS_ACCESS_KEY_ID",
        "AWS_SECRET_ACCESS_KEY",
        "AWS_SESSION_TOKEN",
        "AWS_BEARER_TOKEN_BEDROCK",
        "AWS_WEB_IDENTITY_TOKEN",
        "AWS_WEB_IDENTITY_TOKEN_FILE",
        "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI",
        "AWS_CONTAINER_CREDENTIALS_FULL_URI",
        "AWS_CONTAINER_AUTHORIZATION_TOKEN",
        "AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE",
    ),
    addresses=("AWS_BEDROCK_RUNTIME_ENDPOINT", "AWS_ENDPOINT_URL"),
    settings=(
        "AWS_REGION",
        "AWS_REGION_NAME",
        "AWS_DEFAULT_REGION",
        "AWS_PROFILE",
        "AWS_ROLE_ARN",
        "AWS_ROLE_NAME",
        "AWS_SESSION_NAME",
        "AWS_ROLE_SESSION_NAME",
        "AWS_CONFIG_FILE",
        "AWS_SHARED_CREDENTIALS_FILE",
    ),
)
_VERTEX = Variables(
    keys=("GOOGLE_APPLICATION_CREDENTIALS", "VERTEXAI_CREDENTIALS", "VERTEX_CREDENTIALS"),
    addresses=("VERTEXAI_API_BASE", "VERTEX_API_BASE"),
    settings=(
        "VERTEXAI_PROJECT",
        "VERTEXAI_LOCATION",
        "VERTEX_PROJECT",
        "VERTEX_LOCATION",
        "GOOGLE_CLOUD_PROJECT",
        "CLOUDSDK_CONFIG",
    ),
)
_AZURE_LOGIN = (
    "AZURE_AD_TOKEN",
    "AZURE_TENANT_ID",
    "AZURE_CLIENT_ID",
    "AZURE_CLIENT_SECRET",
    "AZURE_USERNAME",
    "AZURE_PASSWORD",
)
_COHERE = Variables(keys=("COHERE_API_KEY", "CO_API_KEY"), addresses=("COHERE_API_BASE",))
_WATSONX = Variables(
    keys=("WATSONX_API_KEY", "WATSONX_APIKEY", "WATSONX_ZENAPIKEY", "WATSONX_TOKEN"),
    addresses=("WATSONX_URL", "WATSONX_API_BASE", "WATSONX_IAM_URL"),
    settings=(
        "WATSONX_PROJECT_ID",
        "WATSONX_SPACE_ID",
        "WATSONX_DEPLOYMENT_SPACE_ID",
        "WATSONX_REGION",
    ),
)

_VARIABLES: Mapping[str, Variables] = MappingProxyType(
    {
        "openai": Variables(
            # The account belongs to the key: it must not travel to another address without it.
            keys=("OPENAI_API_KEY", "OPENAI_ORGANIZATION", "OPENAI_PROJECT"),
            addresses=("OPENAI_BASE_URL", "OPENAI_API_BASE"),
        ),
        "anthropic": Variables(
            keys=("ANTHROPIC_API_KEY", "ANTHROPIC_AUTH_TOKEN"),
            addresses=("ANTHROPIC_BASE_URL", "ANTHROPIC_API_BASE"),
        ),
        "gemini": Variables(
            keys=("GEMINI_API_KEY", "GOOGLE_API_KEY"), addresses=("GEMINI_API_BASE",)
        ),
        "azure": Variables(
            keys=("AZURE_API_KEY", "AZURE_OPENAI_API_KEY", *_AZURE_LOGIN),
            addresses=("AZURE_API_BASE",),
            settings=("AZURE_API_VERSION", "AZURE_API_TYPE", "AZURE_SCOPE", "AZURE_CREDENTIAL"),
        ),
        "azure_ai": Variables(
            keys=("AZURE_AI_API_KEY", "AZURE_API_KEY", *_AZURE_LOGIN),
            addresses=("AZURE_AI_API_BASE",),
            settings=("AZURE_AI_API_VERSION",),
        ),
        "vertex_ai": _VERTEX,
        "vertex_ai_beta": _VERTEX,
        "bedrock": _AWS,
        "sagemaker": _AWS,
        "sagemaker_chat": _AWS,
        "openrouter": Variables(
            keys=("OPENROUTER_API_KEY", "OR_API_KEY"),
            addresses=("OPENROUTER_API_BASE",),
            settings=("OR_SITE_URL", "OR_APP_NAME"),
        ),
        "cohere": _COHERE,
        "cohere_chat": _COHERE,
        "mistral": Variables(
            keys=("MISTRAL_API_KEY", "MISTRAL_AZURE_API_KEY"),
            addresses=("MISTRAL_API_BASE", "MISTRAL_AZURE_API_BASE"),
        ),
        "perplexity": Variables(keys=("PERPLEXITYAI_API_KEY", "PERPLEXITY_API_KEY")),
        "together_ai": Variables(
            keys=("TOGETHERAI_API_KEY", "TOGETHER_AI_API_KEY", "TOGETHER_API_KEY"),
            addresses=("TOGETHER_AI_API_BASE",),
        ),
        "fireworks_ai": Variables(
            keys=(
                "FIREWORKS_AI_API_KEY",
                "FIREWORKS_API_KEY",
                "FIREWORKSAI_API_KEY",
                "FIREWORKS_AI_TOKEN",
            ),
            addresses=("FIREWORKS_API_BASE",),
        ),
        "huggingface": Variables(
            keys=("HUGGINGFACE_API_KEY", "HF_TOKEN"), addresses=("HF_API_BASE",)
        ),
        "cloudflare": Variables(
            keys=("CLOUDFLARE_API_KEY",),
            addresses=("CLOUDFLARE_API_BASE",),
            settings=("CLOUDFLARE_ACCOUNT_ID",),
        ),
        "databricks": Variables(
            keys=("DATABRICKS_API_KEY", "DATABRICKS_CLIENT_ID", "DATABRICKS_CLIENT_SECRET"),
            addresses=("DATABRICKS_API_BASE",),
        ),
        "datarobot": Variables(keys=("DATAROBOT_API_TOKEN",), addresses=("DATAROBOT_ENDPOINT",)),
        "snowflake": Variables(
            keys=("SNOWFLAKE_JWT",),
            addresses=("SNOWFLAKE_API_BASE",),
            settings=("SNOWFLAKE_ACCOUNT_ID",),
        ),
        "meta_llama": Variables(keys=("LLAMA_API_KEY",), addresses=("LLAMA_API_BASE",)),
        "watsonx": _WATSONX,
        "watsonx_text": _WATSONX,
        # Their prefixes and their variables differ.
        "ollama_chat": Variables(keys=("OLLAMA_API_KEY",), addresses=("OLLAMA_API_BASE",)),
    }
)

_SEVERAL_KEYS = frozenset({"bedrock", "sagemaker", "sagemaker_chat", "vertex_ai", "vertex_ai_beta"})
"""Providers whose key is made of several variables: no single one can be passed in its place."""


def variables(provider: str) -> Variables:
    """What LiteLLM reads for this provider; for most it is NAME_API_KEY and NAME_API_BASE."""
    if (known := _VARIABLES.get(provider)) is not None:
        return known
    name = re.sub(r"\W", "_", provider).upper()
    return Variables(keys=(f"{name}_API_KEY",), addresses=(f"{name}_API_BASE",))


@dataclass(frozen=True, kw_only=True)
class _Access:
    """What the front gets of the environment. `passed`: name for it: name here."""

    passed: Mapping[str, str]
    secrets: tuple[str, ...]
    key: str | None = None


def _environment(agent: Agent, provider: str) -> _Access:
    """The provider's variables. Base URL and key come from the same place: the agent or these."""
    own = variables(provider)
    named = agent.api_key_env
    if (agent.base_url is None and named in {None, *own.keys}) or (
        provider in _SEVERAL_KEYS and named in own.keys
    ):
        names = own.all if agent.base_url is None else (*own.keys, *own.settings)
        return _Access(passed={name: name for name in names}, secrets=own.keys)
    passed = {name: name for name in own.settings}
    if named is None:
        return _Access(passed=passed, secrets=())
    return _Access(passed={**passed, KEY: named}, secrets=(KEY,), key=KEY)


# --- options -------------------------------------------------------------------------------------

OPTIONS: Mapping[str, str] = MappingProxyType(
    {
        "model_kwargs": "table of arguments for every call of the model: {temperature = 0}",
        "stream": "false: ask for whole answers, for a server that cannot stream",
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
            case "model_kwargs", table if _is_table(table):
                options[name] = table
            case "stream", bool():
                options[name] = value
            case "writable", texts if _is_list(texts) and all(isinstance(a, str) for a in texts):
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


def _is_table(value: object) -> TypeGuard[dict[str, object]]:
    return isinstance(value, dict)


def _is_list(value: object) -> TypeGuard[list[object]]:
    return isinstance(value, list)


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
        options = _options(agent)
        kwargs = options.pop("model_kwargs", None)
        defaults = {"num_ctx": OLLAMA_CONTEXT} if provider == "ollama_chat" else {}
        access = _environment(agent, provider)
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
            "model_kwargs": {**defaults, **(kwargs if _is_table(kwargs) else {})},
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
_SIGNALS = frozenset({signal.SIGINT, signal.SIGTERM, signal.SIGHUP})


@dataclass(kw_only=True)
class LiteLLMConversation:
    """One run. `note` is said first; `key` is the variable to name when the key is refused."""

    note: str | None = None
    key: str | None = None
    _text: str | None = None
    _failed: bool = False
    _ended: bool = False
    _turns: int = 0

    def start(self) -> Iterable[Update | Send]:
        """What is worth knowing about the model's name."""
        return () if self.note is None else (Notice(text=self.note),)

    def interrupt(self) -> Iterable[Send]:
        """Nothing: SIGINT is its cleanest stop."""
        return ()

    def decide(self, permission: Permission) -> Iterable[Send]:
        """Nothing: it does not ask."""
        del permission
        return ()

    def feed(self, line: bytes) -> Iterator[Update]:
        """What a line of the front means."""
        said = json_line(line) or {}
        match said:
            case {"type": "session", "session_id": str(id_)}:
                yield SessionStarted(session_id=id_, model=_text(said, "model"), tools=["bash"])
            case {"type": "access" | "ready"}:
                yield Notice(text=_prepared(said))
            case {"type": "turn"}:
                self._turns += 1
                yield TurnStarted(turn=self._turns)
            case {"type": "delta", "text": str(text)}:
                delta = ThoughtDelta if said.get("of") == "thought" else MessageDelta
                yield delta(text=text[:TEXT_LIMIT], id=_text(said, "id"))
            case {"type": "thought", "text": str(text)}:
                yield Thought(text=text[:TEXT_LIMIT], id=_text(said, "id"))
            case {"type": "message", "text": str(text)}:
                self._text = text
                yield Message(text=text[:TEXT_LIMIT], id=_text(said, "id"))
            case {"type": "usage"}:
                yield _usage(said)
                yield Context(used=_count(said, "context_used"), size=_count(said, "context_size"))
            case {"type": "tool_call", "id": str(id_), "status": str(status)} if (
                status in _TOOL_STATUSES
            ):
                yield _tool_call(id_, _TOOL_STATUSES[status], said)
            case {"type": "denied", "id": str(id_), "path": str(path)}:
                yield _denied(id_, path, said)
            case {"type": "retry", "reason": str(reason)}:
                yield Retry(
                    reason=reason,
                    attempt=_count(said, "attempt"),
                    of=_count(said, "of"),
                    delay_s=_number(said, "delay_s"),
                )
            case {"type": "notice" | "format_error", "text": str(text)}:
                yield Notice(text=text)
            case {"type": "error", "text": str(text)}:
                self._failed = True
                yield self._error(text, said)
            case {"type": "result", "status": str(status)}:
                self._ended = True
                yield from self._result(status, said)
            case _:
                yield unparsed(line)

    def close(self, exit: Exit) -> Iterable[Update]:
        """The front always has a last word: without it, it never came up, or was killed."""
        if self._ended or exit.signal in _SIGNALS:
            return
        told = exit.stderr.strip().rsplit("\n", 1)[-1]
        how = f"signal {exit.signal}" if exit.signal else f"exit status {exit.status}"
        text = f"the agent ended without a last word ({how})" + (f": {told}" if told else "")
        hint = f"Reinstall it: {_AGAIN}" if "No module named" in told else None
        yield Error(kind="crashed", text=text, hint=hint)

    def _error(self, text: str, said: Mapping[str, object]) -> Error:
        status = _count(said, "status")
        kind = _kind(said.get("kind")) or error_kind(text, status)
        hint: str | None = None
        if (missing := said.get("missing")) is not None:
            kind, hint = "spawn", f"{missing} is missing. Reinstall it: {_AGAIN}"
        elif kind == "auth_failed" and self.key is not None:
            hint = f"Is the key in {self.key} valid for this provider and model?"
        retryable = said.get("retryable")
        return Error(
            kind=kind,
            text=text,
            retryable=retryable if isinstance(retryable, bool) else None,
            hint=hint,
        )

    def _result(self, status: str, said: Mapping[str, object]) -> Iterator[Update]:
        match status, said:
            case "finished", {"exit_code": 0} if not self._failed:
                text = _text(said, "text")
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


def _prepared(said: Mapping[str, object]) -> str:
    """What the front says of itself before it begins."""
    if said.get("type") == "ready":
        return f"mini-swe-agent {said.get('agent')}, litellm {said.get('litellm')}"
    level = said.get("level")
    if said.get("enforced") is True:
        return f"access: {level}, enforced by Landlock"
    return f"access: {level}, not enforced: {said.get('reason')}"


def _tool_call(id_: str, status: ToolCallStatus, said: Mapping[str, object]) -> ToolCall:
    command, output, problem = said.get("command"), _text(said, "output"), _text(said, "problem")
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


def _usage(said: Mapping[str, object]) -> Usage:
    source = said.get("cost_source")
    return Usage(
        input_tokens=_count(said, "input_tokens"),
        output_tokens=_count(said, "output_tokens"),
        cache_read_tokens=_count(said, "cache_read_tokens"),
        cache_write_tokens=_count(said, "cache_write_tokens"),
        reasoning_tokens=_count(said, "reasoning_tokens"),
        cost_usd=_number(said, "cost_usd"),
        cost_source="local" if source == "local" else "prices" if source == "prices" else None,
    )


def _kind(value: object) -> ErrorKind | None:
    return next((kind for kind in get_args(ErrorKind) if kind == value), None)


def _text(said: Mapping[str, object], key: str) -> str | None:
    value = said.get(key)
    return value if isinstance(value, str) else None


def _count(said: Mapping[str, object], key: str) -> int | None:
    value = said.get(key)
    return value if type(value) is int and value >= 0 else None


def _number(said: Mapping[str, object], key: str) -> float | None:
    match said.get(key):
        case bool():
            return None
        case int() | float() as value if value >= 0:
            return float(value)
        case _:
            return None
