"""aider, through a JSON-lines front of our own: it has no `--json`.

The front (`programs/aider_front`) is run by aider's own interpreter; its settings go in on
stdin. What each of its lines means is seen in tests/recordings/aider.
"""

from __future__ import annotations

import re
import signal
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from types import MappingProxyType

import orjson

from adapters.fronts import (
    FrontConversation,
    count_of,
    heard,
    is_list,
    is_table,
    text_of,
    texts_of,
)
from adapters.providers import KEYS, WHOLE, endpoint, environment, litellm_model, variables
from orchestrator.adapter import (
    TEXT_LIMIT,
    About,
    Agent,
    Command,
    Front,
    Install,
    Program,
    json_line,
)
from orchestrator.errors import ConfigError
from orchestrator.events import (
    Error,
    ErrorKind,
    Location,
    Notice,
    Permission,
    SessionStarted,
    ToolCall,
    ToolCallStatus,
    ToolKind,
    TurnFinished,
    TurnStarted,
    Update,
    Usage,
)
from orchestrator.task import Task

ABOUT = About(
    name="aider",
    title="aider",
    # The interpreter beside `aider` is what runs the front.
    program=Program(name="aider", natives=("python", "python3")),
    version_argv=("-Ic", "from importlib.metadata import version; print(version('aider-chat'))"),
    tested=("0.86.2",),
    install=Install(
        kind="pip",
        lock=str(Path(__file__).with_name("locks") / "aider" / "requirements.txt"),
        megabytes=690,
        minutes=2,
        python_below=(3, 13),
    ),
    dialects=("chat", "ollama"),
    prompt_tokens=2_500,
    lean_prompt_tokens=1_000,
    lean=MappingProxyType({"repo_map": False}),
    tools=False,
    resumes=True,
    landlock=True,
    counts="call",
    keys=KEYS,
)

FRONT = str(Path(__file__).with_name("programs") / "aider_front" / "__main__.py")
KEY = "AIDER_FRONT_KEY"
"""The variable in which the front finds the key of an agent that names one."""


def front(program: str, arguments: Sequence[str]) -> tuple[str, ...]:
    """The command line that prints aider's work as JSON lines, for those who want only that.

    `program` is what `ABOUT.program` was found as, `arguments` are aider's own flags.
    """
    return (*_front(program), "--", *arguments)


def _front(program: str) -> tuple[str, ...]:
    path = PurePosixPath(program)
    python = str(path if path.name.startswith("python") else path.with_name("python"))
    return (python, "-I", "-X", "utf8", FRONT)


# --- options -------------------------------------------------------------------------------------

OPTIONS: Mapping[str, str] = MappingProxyType(
    {
        "args": "list of aider's own flags, which win over ours: ['--architect', '--map-tokens=0']",
        "auto_commits": "true: aider commits its edits itself",
        "project_config": "true: aider's configuration files in the work tree are read",
        "repo_map": "false: without the map of the repository (a small model or window)",
        "model_kwargs": "table of arguments for every call of the model: {temperature = 0}",
        "writable": "list of further folders that may be written to (access: read, edit)",
    }
)
"""The options of an agent that uses this adapter, and what each does."""


@dataclass(frozen=True, kw_only=True)
class _Options:
    args: tuple[str, ...] = ()
    repo_map: bool = True
    auto_commits: bool = False
    project_config: bool = False
    model_kwargs: Mapping[str, object] = field(default_factory=dict[str, object])
    writable: tuple[str, ...] = ()


def _options(agent: Agent) -> _Options:
    """The options, checked. Raises ConfigError for an unknown or ill-typed one."""
    options: dict[str, object] = {}
    for name, value in agent.options.items():
        match name, value:
            case "model_kwargs", table if is_table(table):
                options[name] = table
            case "auto_commits" | "project_config" | "repo_map", bool():
                options[name] = value
            case "args" | "writable", texts if is_list(texts) and _all_texts(texts):
                options[name] = tuple(texts)
            case known, _ if known in OPTIONS:
                text = f"agent {agent.name!r}: option {name!r} is {OPTIONS[name]}; found {value!r}"
                raise ConfigError(text)
            case _:
                known_ones = ", ".join(OPTIONS)
                text = f"agent {agent.name!r}: aider has no option {name!r} (known: {known_ones})"
                raise ConfigError(text)
    return _Options(**options)  # type: ignore[arg-type]  # each was checked above


def _all_texts(values: list[object]) -> bool:
    return all(isinstance(value, str) for value in values)


# --- the adapter ---------------------------------------------------------------------------------


@dataclass(frozen=True)
class Aider:
    """The adapter."""

    about: About = ABOUT

    def command(self, task: Task, agent: Agent) -> Command:
        """The front, its settings on stdin. Raises ConfigError for what cannot work."""
        model = _named(agent)
        provider, _, _ = model.partition("/")
        if agent.model is None and agent.profile == "clean":
            hint = "Name it as PROVIDER/MODEL: ollama_chat/qwen2.5-coder, openrouter/..., ..."
            raise ConfigError(f"agent {agent.name!r}: no model is named", hint=hint)
        options = _options(agent)
        access = environment(agent, provider, KEY)
        settings = {
            "argv": list(_flags(task, agent, options)),
            "prompt": task.prompt,
            "files": list(task.files),
            "model": model or None,
            "workspace": str(task.workspace),
            "access": task.allowed,
            "home": agent.home,
            "session_id": task.session_id,
            "api_base": endpoint(agent.base_url, provider) if agent.base_url else None,
            "api_key_env": access.key,
            "api_key_name": agent.api_key_env,
            "local": agent.tier == "local" and not re.search(r"[:-]cloud$", model),
            "project_config": options.project_config,
            "hidden": [name for name in access.passed if name not in task.env_from],
            "secrets": list(access.secrets),
            "writable": list(options.writable),
            "model_kwargs": dict(options.model_kwargs),
            "steps": task.limits.steps,
            "cost_usd": task.limits.cost_usd,
        }
        try:
            stdin = orjson.dumps(settings)
        except TypeError as error:
            text = f"agent {agent.name!r}: settings that JSON cannot hold: {error}"
            raise ConfigError(text) from error
        return Command(
            argv=(*_front(agent.program or "aider"), "--settings"),
            cwd=str(task.workspace),
            env_from=access.passed,
            secrets=access.secrets,
            stdin=stdin,
            interrupt=signal.SIGINT,
        )

    def conversation(self, task: Task, agent: Agent, before: Usage | None) -> AiderConversation:
        """A fresh conversation. Usage is told by calls, so what was before adds nothing."""
        del task, before
        own = variables(_named(agent).partition("/")[0])
        usual = own.keys[0] if agent.base_url is None and agent.model is not None else None
        return AiderConversation(key=agent.api_key_env or usual)


adapter = Aider()
json_command = Front(
    adapter=ABOUT.name,
    help="""Runs aider with its own flags and files, and prints what it does as JSON lines.

    orchestrate aider-json -- --model ollama_chat/qwen2.5-coder --message "Fix it" hello.py

It is aider alone, with all that aider may do, and nobody supervises it: that is what
`orchestrate run` is for. The last line is `result`. Exit status: 0 the work is done, 1 it failed,
2 flags that cannot be used, 3 something is missing, 128+N signal N. aider's own help: `-- --help`.
""",
    argv=front,
)
"""`orchestrate aider-json`."""


def _named(agent: Agent) -> str:
    """The model as aider's LiteLLM is to know it.

    Of what vLLM streams, LiteLLM 1.81.10 loses the usage and makes one up: no budget would hold.
    The same server's OpenAI API is read whole.
    """
    model = litellm_model(agent)
    provider, _, name = model.partition("/")
    return f"openai/{name}" if provider == "hosted_vllm" and agent.base_url else model


def _flags(task: Task, agent: Agent, options: _Options) -> Iterator[str]:
    """The flags of aider, which takes the last one of two that contradict each other."""
    if agent.model is not None:
        model = _named(agent)
        yield f"--model={model}"
        if agent.base_url is not None:  # its smaller models are not there
            yield from (f"--weak-model={model}", f"--editor-model={model}")
        if model.partition("/")[0] in WHOLE:
            yield "--no-stream"
    yield "--auto-commits" if options.auto_commits else "--no-auto-commits"
    yield "--no-suggest-shell-commands"  # nobody is there to allow one
    if task.allowed == "read":
        yield "--chat-mode=ask"
    if not options.repo_map:
        yield "--map-tokens=0"
    yield from options.args
    if task.allowed == "read":
        yield from ("--dry-run", "--no-auto-commits")


# --- what it says --------------------------------------------------------------------------------

_STATUSES: Mapping[object, ToolCallStatus] = MappingProxyType(
    {status: status for status in ("in_progress", "completed", "failed")}
)
_EDITS: Mapping[object, ToolKind] = MappingProxyType(
    {"created": "edit", "changed": "edit", "deleted": "delete"}
)


@dataclass(kw_only=True)
class AiderConversation(FrontConversation):
    """One run."""

    title: str = ABOUT.title
    again: str = ABOUT.install_hint

    def feed(self, line: bytes) -> Iterator[Update]:
        """What a line of the front means."""
        said = json_line(line) or {}
        match said:
            case {"type": "session", "session_id": str(id_)}:
                yield SessionStarted(session_id=id_, model=text_of(said, "model"))
            case {"type": "turn", "status": "started"}:
                yield TurnStarted(turn=count_of(said, "number"))
            case {"type": "message", "text": str(text), "aside": True}:
                yield Notice(text=f"aside: {text[:TEXT_LIMIT]}")
            case {"type": "edit", "id": str(id_), "path": str(path)}:
                yield _edit(id_, path, said)
            case {"type": "test" | "lint" | "command", "id": str(id_), "status": str(status)} if (
                status in _STATUSES
            ):
                yield _ran(id_, _STATUSES[status], said)
            case {"type": "denied", "id": str(id_), "path": str(path)}:
                reason = f"editing {path}: {said.get('reason')}"
                yield Permission(id=id_, status="denied", tool="edit", reason=reason)
            case {"type": "error", "text": str(text)}:
                yield self._error(text, said)
            case {"type": "result", "status": str(status)}:
                self._ended = True
                yield from self._result(status, said)
            case {"type": str(type_)} if (told := _notice(type_, said)) is not None:
                yield Notice(text=told[:TEXT_LIMIT])
            case _:
                yield from heard(said, line)

    def _hint(self, kind: ErrorKind, text: str) -> str | None:
        if kind == "auth_failed" and self.key is not None and text.startswith("Missing "):
            return f"Set {self.key}, or name the variable that holds the key with --api-key-env."
        if kind == "check_failed":
            return "See its output above; a stronger model may succeed."
        return super()._hint(kind, text)

    def _result(self, status: str, said: Mapping[str, object]) -> Iterator[Update]:
        match status, said:
            case "finished", {"exit_code": 0} if not self._failed:
                yield TurnFinished(stop_reason="end_turn")
            case "interrupted", _:
                yield TurnFinished(stop_reason="cancelled")
            case "limit", _:
                yield TurnFinished(stop_reason="max_turn_requests")
            case "max_tokens", _:
                yield TurnFinished(stop_reason="max_tokens")
            case "refused", _:
                yield TurnFinished(stop_reason="refusal")
            case _:
                if not self._failed:
                    yield Error(kind="unknown", text=f"aider ended with status {status!r}")
                yield TurnFinished(stop_reason="error")


def _notice(type_: str, said: Mapping[str, object]) -> str | None:
    """Lines that decide nothing, in words; None for any other."""
    match type_:
        case "ready":
            return f"aider {said.get('aider')}, litellm {said.get('litellm')}"
        case "log" | "model_error":
            return text_of(said, "text")
        case "turn":
            return f"turn {said.get('number')}: {said.get('status')}, {said.get('edits')} edits"
        case "model_call":
            return f"call {said.get('call')} of {said.get('model')}"
        case "reflection":
            reason = (text_of(said, "reason") or "").strip().partition("\n")[0]
            return f"reflection {said.get('number')} of {said.get('of')}: {reason}"
        case "auto_answer":
            asked = " ".join(filter(None, (text_of(said, "question"), text_of(said, "subject"))))
            return f"{asked} {said.get('answer')}"
        case "commit":
            files = ", ".join(texts_of(said, "files"))
            return f"commit {said.get('hash')}: {said.get('message')} ({files})"
        case _:
            return None


def _edit(id_: str, path: str, said: Mapping[str, object]) -> ToolCall:
    return ToolCall(
        id=id_,
        status="completed",
        kind=_EDITS.get(text_of(said, "change"), "edit"),
        title=f"edit {path}",
        locations=[Location(path=path)],
        diff=text_of(said, "diff"),
    )


def _ran(id_: str, status: ToolCallStatus, said: Mapping[str, object]) -> ToolCall:
    """A command, a test or the linter. When it begins, it says what; when it ends, how."""
    command, output, problem = (text_of(said, key) for key in ("command", "output", "problem"))
    if problem is not None:
        output = f"{output or ''}[{problem}]"
    files = texts_of(said, "files")
    title = command or (f"lint {', '.join(files)}" if files else None)
    return ToolCall(
        id=id_,
        status=status,
        kind="execute",
        title=title[:200] if title else None,
        input=None if command is None else {"command": command},
        output=None if output is None else output[: TEXT_LIMIT + 200],
        locations=[Location(path=path) for path in files] or None,
        exit_code=count_of(said, "exit_code"),
    )
