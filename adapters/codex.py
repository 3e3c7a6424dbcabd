"""OpenAI's Codex CLI, headless: `codex exec --json`. Seen with 0.169.0.

Its stdout tells neither usage per call nor what the sandbox stopped; its session log does
(`Command.tails`), and stderr names the calls that codex itself rejected. Where it is seen what each
line means: tests/recordings/codex.
"""

from __future__ import annotations

import re
import signal
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import PurePath
from types import MappingProxyType
from typing import TypeGuard

import orjson

from orchestrator.adapter import (
    TEXT_LIMIT,
    About,
    Agent,
    Command,
    Exit,
    Program,
    Send,
    Tail,
    error_kind,
    json_line,
    unparsed,
    usage_since,
)
from orchestrator.errors import ConfigError
from orchestrator.events import (
    Context,
    Error,
    ErrorKind,
    Location,
    Message,
    Notice,
    Permission,
    Plan,
    PlanEntry,
    RateLimit,
    Retry,
    SessionStarted,
    Thought,
    ToolCall,
    ToolCallStatus,
    TurnFinished,
    TurnStarted,
    Update,
    Usage,
)
from orchestrator.task import Task

ABOUT = About(
    name="codex",
    title="Codex CLI",
    # A SIGKILL of the wrapper, in Node, leaves the binary behind it running: start the binary.
    program=Program(
        name="codex",
        natives=(
            "../../codex-*/vendor/*/bin/codex",
            "../node_modules/@openai/codex-*/vendor/*/bin/codex",
        ),
    ),
    tested=("0.169.0",),
    install="npm install --global @openai/codex",
    dialects=("responses",),
    prompt_tokens=6_300,
    resumes=True,
    key_env="OPENAI_API_KEY",
)

OPTIONS: Mapping[str, str] = MappingProxyType(
    {
        "oss": "true: start with `--oss` (ollama, lmstudio), which downloads a missing model",
        "network": "true: commands may use the network (access: edit)",
        "writable": "list of further folders that may be written (access: edit)",
        "web_search": "true: the provider's web search",
        "plan": "true: give the model a tool to keep a plan",
        "reasoning_effort": "minimal, low, medium, high: how long the model thinks",
        "context_window": "the model's context in tokens, where codex does not know the model",
        "config": "table of other settings of codex's config.toml: {model_verbosity = 'low'}",
    }
)
"""The options of an agent that uses this adapter, and what each does."""

KEY = "RUN_KEY"
_OSS = frozenset({"ollama", "lmstudio"})
_SANDBOX = {"read": "read-only", "edit": "workspace-write", "full": "danger-full-access"}
_UUID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")

# --- what to start -------------------------------------------------------------------------------


@dataclass(frozen=True)
class Codex:
    """The adapter."""

    about: About = ABOUT

    def command(self, task: Task, agent: Agent) -> Command:
        """`codex exec --json`, the prompt on stdin. Raises ConfigError for what cannot work."""
        options = _options(agent)
        key = _key_variable(agent)
        argv = [agent.program or "codex", "exec", "--json", "--skip-git-repo-check"]
        argv += ["-s", _SANDBOX[task.allowed], "-c", 'approval_policy="never"']
        for folder in options.writable:
            argv += ["--add-dir", folder]
        if agent.profile == "clean":
            argv += ["--strict-config", "--ignore-user-config", "--ignore-rules"]
        argv += [word for name in _disabled(agent) for word in ("--disable", name)]
        argv += ["-m", _model(agent.model, agent, options)] if agent.model else []
        argv += ["--oss", "--local-provider", f"{agent.server}"] if options.oss else []
        settings = {**_settings(agent, key), **options.settings}
        argv += [
            word for item in settings.items() for word in ("-c", f"{item[0]}={_toml(item[1])}")
        ]
        if task.session_id is not None:
            # A name that codex does not know would begin a new session without a word.
            if not _UUID.fullmatch(task.session_id):
                raise ConfigError(f"{task.session_id!r} is not the id of a codex session")
            argv += ["resume", task.session_id]
        env = {} if agent.home is None else {"CODEX_HOME": agent.home}
        if options.oss and agent.base_url is not None:
            env["CODEX_OSS_BASE_URL"] = endpoint(agent.base_url)
        names = {"CODEX_HOME": "CODEX_HOME"} if agent.home is None else {}
        return Command(
            argv=(*argv, "-"),
            cwd=str(task.workspace),
            env={**env, **task.env},
            env_from={
                **names,
                **{name: name for name in task.env_from},
                **({key: agent.api_key_env} if key and agent.api_key_env else {}),
            },
            secrets=(key,) if key else (),
            stdin=_prompt(task).encode("utf-8", "replace"),
            tails=(_tail(task, agent),),
            interrupt=signal.SIGINT,
        )

    def conversation(self, task: Task, agent: Agent, before: Usage | None) -> CodexConversation:
        """A fresh conversation."""
        return CodexConversation(
            model=agent.model,
            session=task.session_id,
            counted=Usage() if task.session_id is None else before,
        )


adapter = Codex()


def endpoint(base_url: str) -> str:
    """The base URL with a scheme and the API's version: `localhost:1234` is `http://localhost:1234/v1`."""
    url = base_url.rstrip("/")
    url = url if "://" in url else f"http://{url}"
    return url if re.search(r"/v\d+$", url) else f"{url}/v1"


@dataclass(frozen=True, kw_only=True)
class _Options:
    oss: bool
    writable: tuple[str, ...]
    settings: Mapping[str, object]


def _options(agent: Agent) -> _Options:
    """What the agent's options ask for. Raises ConfigError for an unknown or ill-typed one."""
    oss = agent.base_url is None and agent.server in _OSS
    writable: tuple[str, ...] = ()
    settings: dict[str, object] = {}
    for name, value in agent.options.items():
        match name, value:
            case "oss", bool() if agent.server in _OSS or not value:
                oss = value
            case "network", bool():
                settings["sandbox_workspace_write.network_access"] = value
            case "writable", _ if _is_list(value):
                writable = tuple(str(folder) for folder in value)
            case "web_search", bool():
                settings["web_search"] = "live" if value else "disabled"
            case "plan", bool():
                settings["tools.update_plan"] = {"enabled": value}
            case "reasoning_effort", str():
                settings["model_reasoning_effort"] = value
            case "context_window", int():
                settings["model_context_window"] = value
            case "config", _ if _is_object(value):
                settings |= value
            case _:
                raise ConfigError(_wrong_option(agent, name, value))
    if agent.model is None and (oss or agent.base_url is not None):
        raise ConfigError(
            f"agent {agent.name!r}: no model is named for {agent.base_url or agent.server}",
            hint="Name one: `model = ...` on the agent, or --model.",
        )
    return _Options(oss=oss, writable=writable, settings=settings)


def _model(model: str, agent: Agent, options: _Options) -> str:
    # `--oss` compares with Ollama's list, where every name has a tag, and would download it again.
    untagged = options.oss and agent.server == "ollama" and ":" not in model
    return f"{model}:latest" if untagged else model


def _wrong_option(agent: Agent, name: str, value: object) -> str:
    if name not in OPTIONS:
        return f"agent {agent.name!r}: codex has no option {name!r} (known: {', '.join(OPTIONS)})"
    return f"agent {agent.name!r}: option {name!r} is {OPTIONS[name]}; found {value!r}"


def _key_variable(agent: Agent) -> str | None:
    """The variable that codex reads the key from; None: no key, or the login in its home."""
    if agent.api_key_env is None:
        return None
    return "CODEX_API_KEY" if agent.base_url is None else KEY


def _disabled(agent: Agent) -> tuple[str, ...]:
    # Without the first, a refused port is tried for ever (measured: still at it after 200 s).
    always = ("unbounded_connection_retries", "multi_agent", "goals")
    return (*always, "plugins", "apps", "image_generation") if agent.profile == "clean" else always


def _settings(agent: Agent, key: str | None) -> dict[str, object]:
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
    if key is not None:
        # Else every command that the model runs sees the key.
        settings["shell_environment_policy.exclude"] = [key]
    if agent.base_url is not None and agent.options.get("oss") is not True:
        settings["model_provider"] = "endpoint"
        settings["model_providers.endpoint"] = {
            "name": agent.server or "endpoint",
            "base_url": endpoint(agent.base_url),
            "wire_api": "responses",
            **({"env_key": key} if key else {}),
            "request_max_retries": 2,
            "stream_max_retries": 2,
            "stream_idle_timeout_ms": 300_000,
        }
    return settings


def _toml(value: object) -> str:
    """A value in TOML; JSON's texts, numbers and lists are TOML's too, its objects are not."""
    match value:
        case _ if _is_object(value):
            pairs = value.items()
            return f"{{{','.join(f'{_toml(key)}={_toml(item)}' for key, item in pairs)}}}"
        case _ if _is_list(value):
            return f"[{','.join(_toml(item) for item in value)}]"
        case _:
            return orjson.dumps(value).decode()


def _prompt(task: Task) -> str:
    if not task.files:
        return task.prompt
    files = "\n".join(f"- {file}" for file in task.files)
    return f"{task.prompt}\n\nFiles that matter:\n{files}\n"


def _tail(task: Task, agent: Agent) -> Tail:
    folder = PurePath(agent.home or "~/.codex") / "sessions"
    pattern = f"**/rollout-*{task.session_id or ''}.jsonl"
    return Tail(name="session", folder=str(folder), pattern=pattern, containing=b'"payload"')


# --- what it says --------------------------------------------------------------------------------

_RETRY = re.compile(r"Reconnecting\.\.\. ([0-9]{1,9})/([0-9]{1,9})(?: \((.*)\))?", re.DOTALL)
_CUT = re.compile(r"Incomplete response returned, reason: (\w+)")
_SHELL = re.compile(r"\S*/(?:ba|z)?sh -l?c (['\"])(.*)\1", re.DOTALL)
_ROUTER = re.compile(r"ERROR codex_core::tools::router: error=(.*)")
_REJECTED = re.compile(r"rejected|reject command|requires approval")
_EXITED = re.compile(r"Process exited with code (-?[1-9][0-9]{0,8})\n.*?Output:\n(.*)", re.DOTALL)
_SANDBOX_SAYS = re.compile(r"read-only file system|operation not permitted", re.IGNORECASE)
# How the answers of these tools begin when they ran; any other answer is an error of codex.
_RAN = ("Chunk ID:", "Wall time:", "Exit code:")
_RUNNERS = frozenset({"exec_command", "write_stdin", "apply_patch"})
_RETRYABLE: frozenset[ErrorKind] = frozenset({"unavailable", "server_error", "rate_limited"})


@dataclass(kw_only=True)
class CodexConversation:
    """One run. `session` is the thread's id, once known; `counted` its usage that was told so far.

    Usage is cumulative per thread, on stdout and in the log: whichever comes first is told, and the
    other adds nothing. None: a resumed thread whose usage is not known; the log then tells it.
    """

    model: str | None
    session: str | None
    counted: Usage | None
    _begun: bool = False
    _ended: bool = False
    _acted: bool = False
    _answered: bool = False
    _trouble: str | None = None
    _limit: RateLimit | None = None
    _tools: set[str] = field(default_factory=set[str])
    # Of the log: records from before the thread's id was known, our turns, the window of each turn,
    # calls by id (tool, what it was asked), those that ran, first lines of answers of the others.
    _early: list[Mapping[str, object]] = field(default_factory=list[Mapping[str, object]])
    _turns: set[str] = field(default_factory=set[str])
    _windows: dict[str, int] = field(default_factory=dict[str, int])
    _calls: dict[str, tuple[str, str]] = field(default_factory=dict[str, tuple[str, str]])
    _ran: set[str] = field(default_factory=set[str])
    _stopped: set[str] = field(default_factory=set[str])

    def start(self) -> Iterable[Update | Send]:
        """Nothing: the prompt went in with the command."""
        return ()

    def interrupt(self) -> Iterable[Send]:
        """Nothing: SIGINT is its cleanest stop."""
        return ()

    def decide(self, permission: Permission) -> Iterable[Send]:
        """Nothing: it does not ask."""
        del permission
        return ()

    def feed(self, line: bytes) -> Iterator[Update]:
        """What a line of stdout means, or of the session log (which may mean nothing)."""
        event = json_line(line) or {}
        match event:
            case {"timestamp": str(), "type": str(), "payload": dict()}:
                yield from self._log(_fields(event["payload"]))
            case {"type": "thread.started", "thread_id": str(id_)}:
                yield from self._thread(id_)
            case {"type": "turn.started"}:
                self._acted = self._answered = self._ended = False
                yield TurnStarted()
            case {"type": "turn.completed"}:
                yield from self._completed(_usage(event.get("usage")))
            case {"type": "turn.failed", "error": {"message": str(text)}}:
                yield from self._failed(text)
            case {"type": "error", "message": str(text)}:
                yield self._warned(text)
            case {
                "type": "item.started" | "item.updated" | "item.completed",
                "item": {"id": str(id_), "type": str()},
            }:
                over = event["type"] == "item.completed"
                yield from self._item(id_, _fields(event["item"]), line, over=over)
            case _:
                yield unparsed(line)

    # --- stdout

    def _thread(self, id_: str) -> Iterator[Update]:
        if self.session not in {None, id_}:
            text = f"codex did not go on with session {self.session}: it began a new one"
            yield Notice(text=text)
        self.session, self._begun = id_, True
        yield SessionStarted(session_id=id_, model=self.model)
        early, self._early = self._early, []
        for record in early:
            yield from self._log(record)

    def _completed(self, total: Usage | None) -> Iterator[Update]:
        self._ended = True
        if total is not None:
            yield from self._count(replace(total, scope="turn"))
        if self._answered:
            yield TurnFinished(stop_reason="end_turn")
            return
        # A refusal, or thinking without an answer: to codex that is completed, without a word.
        why = "the model refused, or stopped after thinking"
        yield Error(kind="incomplete", text=f"codex ended its turn without an answer: {why}")
        yield TurnFinished(stop_reason="error")

    def _failed(self, text: str) -> Iterator[Update]:
        self._ended = True
        yield _error(text)
        match _CUT.search(text):
            case None:
                yield TurnFinished(stop_reason="error")
            case cut if cut[1] == "content_filter":
                yield TurnFinished(stop_reason="refusal")
            case _:
                yield TurnFinished(stop_reason="max_tokens")

    def _warned(self, text: str) -> Update:
        """An `error` of its own: mostly a retry. A final one is told again by `turn.failed`."""
        if (found := _RETRY.fullmatch(text)) is not None:
            reason = _plain(found[3] or text)
            return Retry(reason=reason, attempt=int(found[1]), of=int(found[2]))
        self._trouble = text
        return Notice(text=_plain(text))

    def _item(
        self, id_: str, item: Mapping[str, object], line: bytes, *, over: bool
    ) -> Iterator[Update]:
        match item:
            case {"type": "agent_message", "text": str(text)}:
                self._answered = self._acted or self._answered or bool(text.strip())
                yield Message(id=id_, text=text)
            case {"type": "reasoning", "text": str(text)}:
                yield Thought(id=id_, text=text)
            case {"type": "todo_list"}:
                yield Plan(id=id_, entries=list(_entries(item.get("items"))))
            case {"type": "error", "message": str(text)}:
                yield Notice(text=text)
            case _ if (call := _tool_call(id_, item, over=over)) is not None:
                if id_ not in self._tools:
                    self._tools.add(id_)
                    self._acted, self._answered = (
                        True,
                        False,
                    )  # the answer comes after the last call
                yield call
                if item.get("status") == "declined":
                    yield Permission(id=id_, status="denied", tool=call.title)
            case _:
                yield unparsed(line)

    # --- the session log

    def _log(self, record: Mapping[str, object]) -> Iterator[Update]:
        """The payload of a line of a log; in the user's own home that may be another thread's."""
        if self.session is None:
            self._early.append(record)
            return
        match record:
            case {"type": "task_started", "turn_id": str(turn), "model_context_window": int(size)}:
                self._windows[turn] = size
            case {"thread_id": self.session, "turn_id": str(turn), "thread_token_usage": dict()}:
                self._turns.add(turn)
                yield from self._model_call(record, self._windows.get(turn))
            case {"type": "item_completed", "thread_id": self.session, "turn_id": str(turn)}:
                self._turns.add(turn)
                self._ran.add(str(_fields(record.get("item")).get("id")))
            case {"type": "turn_aborted", "turn_id": str(turn)} if turn in self._turns:
                self._ended = True
                yield TurnFinished(stop_reason="cancelled")
            case {"call_id": str(call), "name": str(name)}:
                self._calls[call] = name, _asked(record.get("arguments") or record.get("input"))
            case {
                "call_id": str(call),
                "output": str(output),
                "internal_chat_message_metadata_passthrough": {"turn_id": str(turn)},
            } if turn in self._turns:
                yield from self._tool_answer(call, output)
            case {"rate_limits": {"primary": dict()} as limits}:
                yield from self._limited(_fields(_fields(limits).get("primary")))
            case _:
                pass

    def _model_call(self, call: Mapping[str, object], size: int | None) -> Iterator[Update]:
        total = _usage(call.get("thread_token_usage"))
        if total is None:
            return
        if self.counted is None:
            self.counted = usage_since(total, _usage(call.get("turn_token_usage")))
        yield from self._count(total)
        used = _whole(_fields(call.get("usage")).get("total_tokens"))
        yield Context(used=used, size=size)

    def _tool_answer(self, call: str, output: str) -> Iterator[Update]:
        """What a tool told the model: told where stdout is silent, i.e. it was stopped or never ran."""
        name, asked = self._calls.get(call, ("", ""))
        if name not in _RUNNERS or call in self._ran:
            return
        title = asked or name
        if not output.startswith(_RAN):
            denied = output if _REJECTED.search(output) else None
            yield from self._stop(call, title, output, denied)
        elif name == "exec_command" and (found := _EXITED.search(output)) is not None:
            # codex took its failure for the sandbox's doing, and hides it from stdout.
            denied = "the sandbox stopped it" if _SANDBOX_SAYS.search(output) else None
            yield from self._stop(call, title, found[2], denied, exit_code=int(found[1]))

    def _stop(
        self, id_: str, title: str, output: str, denied: str | None, exit_code: int | None = None
    ) -> Iterator[Update]:
        """A call that did not happen, and if that was for want of permission, the denial."""
        self._stopped.add(_first_line(output))
        yield ToolCall(
            id=id_,
            status="failed",
            kind="execute",
            title=title,
            output=output[:TEXT_LIMIT],
            exit_code=exit_code,
        )
        if denied is not None:
            tool, reason = _first_line(title), _first_line(denied)
            yield Permission(id=id_, status="denied", tool=tool, reason=reason)

    def _limited(self, primary: Mapping[str, object]) -> Iterator[Update]:
        match primary:
            case {"used_percent": int() | float() as used}:
                at = _instant(primary.get("resets_at"))
                limit = RateLimit(status=f"{used:g}% used", resets_at=at)
                if limit != self._limit:
                    self._limit = limit
                    yield limit
            case _:
                pass

    def _count(self, total: Usage) -> Iterator[Update]:
        """The part of a cumulative usage that was not told yet."""
        if self.counted is None:
            return
        delta = usage_since(total, self.counted)
        if delta.input_tokens or delta.output_tokens or delta.cache_read_tokens:
            self.counted = _sum(self.counted, delta)
            yield delta

    # --- the end

    def close(self, exit: Exit) -> Iterator[Update]:
        """The calls that only stderr names, and why it ended, if stdout did not say."""
        for number, found in enumerate(_ROUTER.finditer(exit.stderr), 1):
            if found[1] not in self._stopped:
                denied = found[1] if _REJECTED.search(found[1]) else None
                yield from self._stop(f"stderr-{number}", "a tool", found[1], denied)
        if self._ended or exit.signal is not None:
            return
        if self._trouble is not None:
            yield _error(self._trouble)
        elif self._begun:
            kind: ErrorKind = "crashed" if exit.status == _PANIC else "incomplete"
            yield Error(
                kind=kind, text=f"codex ended (exit {exit.status}) before its turn was over"
            )
        else:
            yield _never_began(exit)


# --- what stands in a line -----------------------------------------------------------------------


def _tool_call(id_: str, item: Mapping[str, object], *, over: bool) -> ToolCall | None:
    call = ToolCall(id=id_, status=_status(item.get("status"), over=over))
    match item:
        case {"type": "command_execution", "command": str(command)}:
            return replace(
                call,
                kind="execute",
                title=_command(command),
                output=_text(item.get("aggregated_output")),
                exit_code=_whole(item.get("exit_code")),
            )
        case {"type": "file_change"}:
            done = list(_changes(item.get("changes")))
            return replace(
                call,
                kind="delete" if {what for what, _ in done} == {"delete"} else "edit",
                title=", ".join(f"{what} {path}" for what, path in done),
                locations=[Location(path=path) for _, path in done],
            )
        case {"type": "mcp_tool_call", "server": str(server), "tool": str(tool)}:
            return replace(
                call,
                kind="other",
                title=f"{server}.{tool}",
                input=item.get("arguments"),
                output=_result(item),
            )
        case {"type": "web_search"}:
            return replace(call, kind="fetch", title=_text(item.get("query")) or "web search")
        case {"type": "collab_tool_call", "tool": str(tool)}:
            return replace(call, kind="other", title=tool)
        case _:
            return None


def _status(value: object, *, over: bool) -> ToolCallStatus:
    match value:
        case "in_progress":
            return "in_progress"
        case "completed":
            return "completed"
        case None:  # a web search states none
            return "completed" if over else "in_progress"
        case _:
            return "failed"


def _command(command: str) -> str:
    """The command without the shell that codex puts around it."""
    found = _SHELL.fullmatch(command)
    return found[2] if found else command


def _changes(changes: object) -> Iterator[tuple[str, str]]:
    for change in _listed(changes):
        match change:
            case {"path": str(path), "kind": str(kind)}:
                yield kind, path
            case _:
                pass


def _entries(items: object) -> Iterator[PlanEntry]:
    for item in _listed(items):
        match item:
            case {"text": str(text), "completed": bool(completed)}:
                yield PlanEntry(text=text, status="completed" if completed else "pending")
            case _:
                pass


def _result(item: Mapping[str, object]) -> str | None:
    match item:
        case {"error": {"message": str(text)}}:
            return _text(text)
        case {"result": {"content": list()} as result}:
            parts = _listed(_fields(result).get("content"))
            texts = [_text(_fields(part).get("text")) for part in parts]
            return _text("\n".join(text for text in texts if text))
        case _:
            return None


def _asked(value: object) -> str:
    """What a tool was asked: a shell's command, or the arguments as they are."""
    text = _text(value) or ""
    match json_line(text.encode("utf-8", "replace")):
        case {"cmd": str(command)}:
            return command
        case _:
            return text


def _fields(value: object) -> Mapping[str, object]:
    """A JSON object's fields; none for anything else."""
    return value if _is_object(value) else {}


def _listed(value: object) -> Sequence[object]:
    """A JSON list's items; none for anything else."""
    return value if _is_list(value) else ()


def _is_list(value: object) -> TypeGuard[Sequence[object]]:
    return isinstance(value, list | tuple)


def _is_object(value: object) -> TypeGuard[dict[str, object]]:
    return isinstance(value, dict)


def _text(value: object) -> str | None:
    return value[:TEXT_LIMIT] if isinstance(value, str) and value else None


def _whole(value: object) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) else None


def _first_line(text: str) -> str:
    return text.partition("\n")[0]


def _instant(seconds: object) -> str | None:
    """Seconds since 1970 in RFC 3339; None for anything else."""
    match seconds:
        case int() if 0 <= seconds < 2**32:
            return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        case _:
            return None


def _usage(value: object) -> Usage | None:
    """Tokens as codex counts them: its `input_tokens` holds the cached ones too."""
    fields = _fields(value)
    prompt, output = _whole(fields.get("input_tokens")), _whole(fields.get("output_tokens"))
    if prompt is None or output is None:
        return None
    read = _whole(fields.get("cached_input_tokens"))
    write = _whole(fields.get("cache_write_input_tokens"))
    return Usage(
        input_tokens=max(0, prompt - (read or 0) - (write or 0)),
        output_tokens=output,
        cache_read_tokens=read,
        cache_write_tokens=write,
        reasoning_tokens=_whole(fields.get("reasoning_output_tokens")),
    )


def _sum(one: Usage, other: Usage) -> Usage:
    def both(a: int | None, b: int | None) -> int | None:
        return b if a is None else a + (b or 0)

    return Usage(
        input_tokens=both(one.input_tokens, other.input_tokens),
        output_tokens=both(one.output_tokens, other.output_tokens),
        cache_read_tokens=both(one.cache_read_tokens, other.cache_read_tokens),
        cache_write_tokens=both(one.cache_write_tokens, other.cache_write_tokens),
        reasoning_tokens=both(one.reasoning_tokens, other.reasoning_tokens),
    )


def _plain(text: str) -> str:
    """The provider's words, out of the JSON that it put around them."""
    match json_line(text.encode("utf-8", "replace")):
        case {"error": {"message": str(message)}}:
            return message
        case _:
            return text


def _error(text: str) -> Error:
    if (cut := _CUT.search(text)) is not None:
        kind: ErrorKind = "refused" if cut[1] == "content_filter" else "incomplete"
        return Error(kind=kind, text=text, retryable=False)
    if text.startswith("Missing environment variable"):
        hint = "Set the variable that the agent's `api_key_env` names."
        return Error(kind="auth_failed", text=text, retryable=False, hint=hint)
    kind = error_kind(text)
    return Error(kind=kind, text=_plain(text), retryable=kind in _RETRYABLE)


_PANIC = 101
# What codex says on stderr when it ends before it began: wording, kind, remedy.
_NEVER_BEGAN: tuple[tuple[str, ErrorKind, str | None], ...] = (
    (r"^error: ", "bad_usage", "Is this a codex of another version? See `codex exec --help`."),
    (r"Error loading config", "bad_usage", "See the agent's options, `config` above all."),
    (r"no rollout found", "bad_usage", "A session goes on only in the home that it was made in."),
    (r"No prompt provided|Error finding codex home", "bad_usage", None),
    (
        r"Pull failed|LM Studio not found",
        "model_not_found",
        "The server has no model of this name.",
    ),
    (r"LM Studio is not responding", "unavailable", "Is it running (`lms server start`)?"),
)


def _never_began(exit: Exit) -> Error:
    lines = [line for line in exit.stderr.splitlines() if line and not line.startswith("WARNING")]
    if not lines:
        said = f"codex ended (exit {exit.status}) and said nothing"
        return Error(kind="crashed" if exit.status == _PANIC else "incomplete", text=said)
    text = next((line for line in lines if "rror" in line), lines[-1])
    for wording, kind, hint in _NEVER_BEGAN:
        if re.search(wording, exit.stderr, re.MULTILINE):
            return Error(kind=kind, text=text, retryable=kind in _RETRYABLE, hint=hint)
    kind = "crashed" if exit.status == _PANIC else error_kind(exit.stderr)
    return Error(kind=kind, text=text, retryable=kind in _RETRYABLE)
