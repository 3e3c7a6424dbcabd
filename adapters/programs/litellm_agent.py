"""Runs mini-swe-agent, with LiteLLM behind it, and tells what it does as JSON lines.

A script, run by the interpreter of the environment that has mini-swe-agent; it imports that,
litellm and the standard library only. stdin: the settings (`Settings`), one JSON object. stdout:
the lines, `result` always the last one. stderr: whatever a library prints. Exit status: 0 finished,
1 failed, 2 settings that cannot be used, 3 something is missing, 4 a limit, 128+N signal N.
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import re
import shutil
import sys
import tempfile
import time
import uuid
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from importlib import metadata
from pathlib import Path
from typing import Literal, NoReturn

# The interpreter is the agent's: of ours it gets the modules beside this one and nothing else.
sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from adapters.programs.confinement import PR_SET_CHILD_SUBREAPER, denied_path
from adapters.programs.json_lines import Lines, watch_signals
from adapters.programs.light_start import start_lightly
from adapters.programs.model_calls import (
    BACKOFF_S,
    LONGEST_WAIT_S,
    Growing,
    ModelError,
    judge,
    pause,
    price,
    retries,
    tokens,
    unreachable,
)
from adapters.programs.shell import Ran, Shell

del sys.path[0]

TESTED = ("2.4.6",)
"""Versions of mini-swe-agent that this program was tested with."""

FINISHED, FAILED, BAD_SETTINGS, MISSING, LIMIT = 0, 1, 2, 3, 4

Json = dict[str, object]


@dataclass(frozen=True, kw_only=True)
class Settings:
    """What stdin says.

    `hidden` names the variables that no command of the model may see, `secrets` those whose values
    stand in no line. `api_key_env` holds the key, which the user calls `api_key_name`.
    `may_only_answer`: a text without any work before it can be all that was asked for.
    """

    prompt: str
    model: str
    workspace: str
    access: Literal["read", "edit", "full"]
    files: list[str] = field(default_factory=list[str])
    home: str | None = None
    session_id: str | None = None
    api_base: str | None = None
    api_key_env: str | None = None
    api_key_name: str | None = None
    may_only_answer: bool = False
    local: bool = False
    hidden: list[str] = field(default_factory=list[str])
    secrets: list[str] = field(default_factory=list[str])
    writable: list[str] = field(default_factory=list[str])
    model_kwargs: Json = field(default_factory=dict[str, object])
    steps: int | None = None
    cost_usd: float | None = None
    stream: bool = True
    request_timeout_s: float = 600.0
    command_timeout_s: float = 120.0


class SettingsError(Exception):
    """The settings cannot be used: exit status 2."""


# --- calls of the model --------------------------------------------------------------------------


def missing_key(settings: Settings) -> str | None:
    """The variable that holds no key, where one is surely needed."""
    if settings.api_key_env is not None:
        return None if os.environ.get(settings.api_key_env) else settings.api_key_name
    known = settings.local or settings.api_base or any(map(os.environ.get, settings.secrets))
    if known or settings.model.startswith("azure"):  # which has logins besides keys
        return None
    import litellm

    missing: list[str] = litellm.validate_environment(settings.model)["missing_keys"]
    return next((name for name in missing if name.endswith("_API_KEY")), None)


class Caller:
    """Calls the model: at most two retries, everything it says and costs as lines."""

    def __init__(self, settings: Settings, lines: Lines) -> None:
        self._settings = settings
        self._lines = lines
        self.calls = 0
        self.cost: float | None = None
        self.cost_known = True

    def complete(self, **request: object) -> object:
        """The whole answer, as LiteLLM's ModelResponse. Raises ModelError."""
        self.calls += 1
        attempt = 0
        while True:
            attempt += 1
            try:
                self._preflight()
                response = self._call(request)
            except ModelError as failure:
                self._wait(failure, failure, attempt)
            except Exception as error:
                self._wait(error, judge(error, self._settings.api_base), attempt)
            else:
                self._tell(response)
                return response

    def _preflight(self) -> None:
        if why := unreachable(self._settings.api_base):
            # At the first call nothing is lost yet: the supervisor shall hear of it at once.
            raise ModelError(why, kind="unavailable", retryable=self.calls > 1)

    def _wait(self, error: Exception, failure: ModelError, attempt: int) -> None:
        delay = pause(error, min(attempt, len(BACKOFF_S)))
        most = retries(local=self._settings.local)
        if attempt > most or not failure.retryable or delay > LONGEST_WAIT_S:
            raise failure from error
        self._lines.say("retry", attempt=attempt, of=most, delay_s=delay, reason=str(failure))
        time.sleep(delay)

    def _call(self, request: Mapping[str, object]) -> object:
        import litellm

        settings = self._settings
        if not settings.stream:
            return litellm.completion(**request)
        stream = litellm.completion(**request, stream=True, stream_options={"include_usage": True})
        chunks: list[object] = []
        growing = Growing(self._lines, self.calls)
        for chunk in stream:
            chunks.append(chunk)
            growing.add(chunk)
        if stream.received_finish_reason is None and stream.intermittent_finish_reason is None:
            # LiteLLM calls this finished ("stop"): half an answer would pass for a whole one.
            text = "the answer broke off: a broken connection, or no model server"
            raise ModelError(text, kind="unavailable", retryable=True)
        response = litellm.stream_chunk_builder(chunks, messages=request["messages"])
        if not any(getattr(chunk, "usage", None) for chunk in stream.chunks):
            response.usage = None  # the server said nothing: LiteLLM's figures are estimates
        return response

    def _tell(self, response: object) -> None:
        message = response.choices[0].message  # type: ignore[attr-defined]
        if thought := getattr(message, "reasoning_content", None):
            self._lines.say("thought", id=f"thought-{self.calls}", text=thought)
        if message.content and message.content.strip():
            self._lines.say("message", id=f"message-{self.calls}", text=message.content)
        self.cost = None
        if usage := getattr(response, "usage", None):
            local, model = self._settings.local, self._settings.model
            self.cost = price(response, model, local=local)
            self._lines.say(
                "usage",
                **tokens(usage, model),
                cost_usd=self.cost,
                cost_source=None if self.cost is None else "local" if local else "prices",
                context_size=self._window(),
            )
        if self.cost is None and self.cost_known:
            self.cost_known = False
            if self._settings.cost_usd is not None:
                self._lines.say(
                    "notice", text="the cost of this model is unknown: the cost limit cannot hold"
                )

    def _window(self) -> int | None:
        import litellm

        if isinstance(size := self._settings.model_kwargs.get("num_ctx"), int):
            return size
        name = self._settings.model
        known = litellm.model_cost.get(name) or litellm.model_cost.get(name.partition("/")[2])
        return known.get("max_input_tokens") if known else None


# --- sessions ------------------------------------------------------------------------------------


class Session:
    """The conversation on disk, rewritten after every message: it can go on after any end."""

    def __init__(self, folder: Path, id_: str) -> None:
        self.id = id_
        self._path = folder / f"{id_}.json"

    def load(self) -> list[Json]:
        """The messages, with an answer for each call that has none (the agent was stopped there).

        Raises SettingsError if there is no such session.
        """
        try:
            messages = json.loads(self._path.read_text(encoding="utf-8"))["messages"]
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise SettingsError(f"session {self.id} cannot be read: {error}") from None
        return list(_answered(messages))

    def save(self, messages: Sequence[Mapping[str, object]], model: str) -> None:
        kept = [
            {key: value for key, value in message.items() if key != "extra"}
            for message in messages
            if message.get("role") != "exit"
        ]
        self._path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        draft = self._path.with_suffix(".tmp")
        descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            json.dump({"version": 1, "model": model, "messages": kept}, file, default=str)
        draft.replace(self._path)


def _answered(messages: Sequence[Json]) -> Iterator[Json]:
    answers = {message.get("tool_call_id") for message in messages}
    for message in messages:
        yield message
        calls = message.get("tool_calls")
        for call in calls if isinstance(calls, list) else ():
            if call.get("id") not in answers:
                yield {"role": "tool", "tool_call_id": call.get("id"), "content": "(no output)"}


# --- the agent -----------------------------------------------------------------------------------


_UNMADE_CALL = re.compile(r'"arguments"\s*:|<tool_call|<function|```(?:bash|sh|mswea)')


def is_answer(message: object, finish_reason: object, *, worked: bool) -> bool:
    """Whether a text without a tool call ends the turn, as it does for every other agent.

    Not a text that was meant as a call (weak models write it out), nor an announcement before any
    work: of those mini-swe-agent tells the model how a call is made.
    """
    text = getattr(message, "content", None) or ""
    calls = getattr(message, "tool_calls", None)
    said = finish_reason == "stop" and text.strip() and not calls
    return bool(said and worked and not _UNMADE_CALL.search(text))


def why_unusable(choice: object) -> str:
    """What is wrong with an answer that mini-swe-agent sends back to the model."""
    if choice.finish_reason == "length":  # type: ignore[attr-defined]
        return "the model's answer was cut at its token limit"
    calls = choice.message.tool_calls or ()  # type: ignore[attr-defined]
    made = ", ".join(f"{call.function.name}({call.function.arguments})"[:200] for call in calls)
    return (
        f"the model's tool call cannot be used: {made}" if made else "the model made no tool call"
    )


class Run:
    """One run: holds what the signal thread must reach while the main thread works."""

    def __init__(self, lines: Lines) -> None:
        self.lines = lines
        self.shell: Shell | None = None
        self.scratch: str | None = None
        self.session: Session | None = None
        self.open_call: str | None = None
        self.tool_calls = 0
        self.cut_off = False

    def execute(self, command: object, settings: Settings) -> Ran:
        """Runs one command of the model, told as a tool call."""
        assert self.shell is not None  # noqa: S101  (made before the agent is)
        self.tool_calls += 1
        self.open_call = id_ = f"call-{self.tool_calls}"
        self.lines.say("tool_call", id=id_, status="in_progress", command=command)
        if isinstance(command, str):
            ran = self.shell.run(command)
        else:
            ran = Ran(output="", exit_code=None, problem="the command must be a text")
        self.open_call = None
        self.lines.say(
            "tool_call",
            id=id_,
            status="completed" if ran.exit_code == 0 else "failed",
            output=ran.output,
            exit_code=ran.exit_code,
            problem=ran.problem or None,
        )
        if self.scratch is None or settings.access == "full":
            return ran
        if path := denied_path(ran.output, settings.workspace, self.scratch):
            self.lines.say(
                "denied", id=id_, path=path, access=settings.access, status=ran.exit_code
            )
        return ran

    def end(self, code: int, status: str, **fields: object) -> NoReturn:
        """Leaves nothing behind, says the last line, ends, whatever threads libraries have."""
        self.lines.seize()
        open_call = self.open_call
        if self.shell is not None:
            self.shell.stop()
        if self.scratch is not None:
            shutil.rmtree(self.scratch, ignore_errors=True)
        with contextlib.suppress(OSError):  # no room for it: end all the same
            if open_call is not None:
                self.lines.say("tool_call", id=open_call, status="failed", problem=status)
            self.lines.say(
                "result",
                status=status,
                exit_code=code,
                session_id=self.session.id if self.session else None,
                tool_calls=self.tool_calls,
                **fields,
            )
        sys.stderr.flush()
        os._exit(code)

    def fail(self, code: int, ended: str, text: str, **fields: object) -> NoReturn:
        """The cause, then the end."""
        with contextlib.suppress(OSError):  # no room for it: end all the same
            self.lines.say("error", text=text, **fields)
        self.end(code, ended)


def agent_of(settings: Settings, run: Run, caller: Caller, history: list[Json]) -> object:
    """mini-swe-agent's agent with our model and environment; its prompts are its own."""
    import yaml  # mini-swe-agent's own dependency
    from minisweagent.agents.default import DefaultAgent
    from minisweagent.config import builtin_config_dir
    from minisweagent.environments.local import LocalEnvironment
    from minisweagent.exceptions import FormatError, LimitsExceeded, Submitted
    from minisweagent.models.litellm_model import LitellmModel

    class Model(LitellmModel):  # type: ignore[misc]  # untyped
        def _query(self, messages: list[Json], **kwargs: object) -> object:
            from minisweagent.models.utils.actions_toolcall import BASH_TOOL

            request = self.config.model_kwargs | kwargs
            return caller.complete(
                model=settings.model, messages=messages, tools=[BASH_TOOL], **request
            )

        def _calculate_cost(self, response: object) -> dict[str, float]:
            return {"cost": caller.cost or 0.0}

        def _parse_actions(self, response: object) -> object:
            choice = response.choices[0]  # type: ignore[attr-defined]
            if choice.finish_reason == "content_filter":
                raise ModelError("the model refused to answer", kind="refused")
            worked = run.tool_calls > 0 or bool(history) or settings.may_only_answer
            if is_answer(choice.message, choice.finish_reason, worked=worked):
                exit_ = {"exit_status": "Submitted", "submission": ""}
                raise Submitted(
                    choice.message.model_dump(), {"role": "exit", "content": "", "extra": exit_}
                )
            try:
                return super()._parse_actions(response)
            except FormatError:
                run.cut_off = choice.finish_reason == "length"
                run.lines.say("format_error", text=why_unusable(choice))
                raise

    class Environment(LocalEnvironment):  # type: ignore[misc]  # untyped
        def execute(
            self, action: Json, cwd: str = "", *, timeout: int | None = None
        ) -> dict[str, object]:
            if settings.steps is not None and run.tool_calls >= settings.steps:
                exit_ = {"exit_status": "LimitsExceeded", "submission": "", "limit": "steps"}
                raise LimitsExceeded({"role": "exit", "content": "", "extra": exit_})
            ran = run.execute(action.get("command"), settings)
            output: dict[str, object] = {
                "output": ran.output,
                "returncode": -1 if ran.exit_code is None else ran.exit_code,
                "exception_info": ran.problem,
            }
            self._check_finished(output)
            return output

    class Agent(DefaultAgent):  # type: ignore[misc]  # untyped
        def add_messages(self, *messages: Json) -> list[Json]:
            if history and not self.messages:
                # The first are the system's and the user's: a session that goes on has its own.
                messages = (*history, {"role": "user", "content": request_text(settings)})
            added: list[Json] = super().add_messages(*messages)
            if run.session is not None:
                run.session.save(self.messages, settings.model)
            return added

    config = yaml.safe_load((builtin_config_dir / "mini.yaml").read_text(encoding="utf-8"))
    templates = config["agent"]
    model = Model(
        model_name=settings.model,
        model_kwargs=model_kwargs(settings, config["model"].pop("model_kwargs", {})),
        cost_tracking="ignore_errors",
        set_cache_control="default_end" if "claude" in settings.model.lower() else None,
        **config["model"],
    )
    return Agent(
        model,
        Environment(cwd=settings.workspace),
        system_template=templates["system_template"],
        instance_template=templates["instance_template"],
        step_limit=0,
        cost_limit=settings.cost_usd or 0.0,
    )


def model_kwargs(settings: Settings, packaged: Mapping[str, object]) -> Json:
    """What goes to LiteLLM with every call. The key is in no file and in no message."""
    kwargs: Json = {
        **packaged,
        "num_retries": 0,
        "max_retries": 0,
        "timeout": settings.request_timeout_s,
        **settings.model_kwargs,
    }
    if settings.api_base is not None:
        kwargs["api_base"] = settings.api_base
    if settings.api_key_env is not None:
        kwargs["api_key"] = os.environ.get(settings.api_key_env)
    elif settings.api_base is not None and settings.model.startswith("openai/"):
        kwargs["api_key"] = "none"  # the client insists on one; a server without keys ignores it
    return kwargs


def request_text(settings: Settings) -> str:
    """The task as the model reads it: the user's words and what it cannot know otherwise."""
    parts = [settings.prompt]
    if settings.files:
        parts.append("Files that matter: " + ", ".join(settings.files))
    if settings.access == "read":
        parts.append(
            "You may read here but change nothing. Scratch files belong in $TMPDIR; modes,"
            " owners and times cannot be set there either."
        )
    elif settings.access == "edit":
        parts.append("You may change files in the working folder. Scratch files belong in $TMPDIR.")
    parts.append(
        "The person who asked reads only the text of your last message: say there, next to the"
        " command that submits, what you found or did."
    )
    return "\n\n".join(parts)


# --- the program ---------------------------------------------------------------------------------


def read_settings(text: bytes) -> Settings:
    """The settings. Raises SettingsError."""
    try:
        values = json.loads(text)
        settings = Settings(**values)
    except (ValueError, TypeError) as error:
        raise SettingsError(f"stdin is no settings: {error}") from None
    if settings.session_id and not re.fullmatch(r"[A-Za-z0-9_-]{1,64}", settings.session_id):
        raise SettingsError(f"not a session's id: {settings.session_id[:80]!r}")
    return settings


def prepare_environment(settings: Settings) -> None:
    """What LiteLLM and mini-swe-agent read at import: nothing from network or work tree."""
    os.environ.update(
        LITELLM_LOCAL_MODEL_COST_MAP="True",
        LITELLM_MODE="PRODUCTION",  # else it loads the .env of whatever folder it is in
        MSWEA_CONFIGURED="true",
        MSWEA_SILENT_STARTUP="1",
        MSWEA_COST_TRACKING="ignore_errors",
        MSWEA_MODEL_RETRY_STOP_AFTER_ATTEMPT="1",
    )
    if settings.home is not None:
        os.environ["MSWEA_GLOBAL_CONFIG_DIR"] = str(Path(settings.home, "mini-swe-agent"))


def tool_environment(settings: Settings, scratch: str) -> dict[str, str]:
    """The environment of the model's commands: no key, no pager, caches where it may write."""
    hidden = {*settings.hidden, *([settings.api_key_env] if settings.api_key_env else [])}
    ours = ("MSWEA_", "LITELLM_")
    env = {
        key: value
        for key, value in os.environ.items()
        if key not in hidden and not key.startswith(ours)
    }
    env.update(PAGER="cat", MANPAGER="cat", GIT_PAGER="cat", PIP_PROGRESS_BAR="off")
    if settings.access != "full":
        env.update(
            TMPDIR=scratch, XDG_CACHE_HOME=f"{scratch}/cache", npm_config_cache=f"{scratch}/npm"
        )
    if settings.access == "read":
        # Else a test run that only reads stumbles over caches that it may not write.
        env.update(PYTHONDONTWRITEBYTECODE="1", PYTEST_ADDOPTS="-p no:cacheprovider")
    return env


def open_shell(settings: Settings, run: Run) -> None:
    """Makes the shell of this run and says how far it is confined."""
    run.scratch = scratch = tempfile.mkdtemp(prefix="orchestrate-")
    own = [settings.workspace] if settings.access == "edit" else []
    run.shell = Shell(
        cwd=settings.workspace,
        env=tool_environment(settings, scratch),
        timeout_s=settings.command_timeout_s,
        writable=None if settings.access == "full" else [scratch, *own, *settings.writable],
    )
    if settings.access != "full":
        why = run.shell.unenforced
        run.lines.say("access", level=settings.access, enforced=why is None, reason=why)


def import_agent(run: Run) -> str:
    """Imports what takes seconds. The version of mini-swe-agent."""
    start_lightly()
    try:
        import litellm
        import minisweagent
        import minisweagent.agents.default
        import minisweagent.environments.local
        import minisweagent.models.litellm_model
    except ImportError as error:
        what = error.name or "a module"
        run.fail(MISSING, "missing", f"cannot import {what}: {error}", missing=what)
    litellm.suppress_debug_info = True
    version = str(minisweagent.__version__)
    if version not in TESTED:
        run.lines.say("notice", text=f"mini-swe-agent {version} is untested (tested: {TESTED[0]})")
    run.lines.say("ready", agent=version, litellm=metadata.version("litellm"))
    return version


def work(settings: Settings, run: Run) -> NoReturn:
    """From the settings to the last line."""
    folder = Path(settings.home, "sessions") if settings.home else user_sessions()
    run.session = Session(folder, settings.session_id or str(uuid.uuid4()))
    history = run.session.load() if settings.session_id else []
    run.lines.say("session", session_id=run.session.id, model=settings.model, resumed=bool(history))
    if why := unreachable(settings.api_base):
        run.fail(FAILED, "error", why, kind="unavailable", retryable=True)
    open_shell(settings, run)
    import_agent(run)
    if missing := missing_key(settings):
        text = f"no key: {missing} is not set"
        run.fail(FAILED, "error", text, kind="auth_failed", unset=missing, retryable=False)
    caller = Caller(settings, run.lines)
    agent = agent_of(settings, run, caller, history)
    run.lines.say("turn")
    try:
        ended = agent.run(request_text(settings))  # type: ignore[attr-defined]
    except ModelError as error:
        run.fail(
            FAILED,
            "refused" if error.kind == "refused" else "error",
            str(error),
            **error.said,
        )
    finish(ended, run)


def finish(ended: Mapping[str, object], run: Run) -> NoReturn:
    """mini-swe-agent's own word on how it ended, as the last line."""
    match ended.get("exit_status"):
        case "Submitted":
            run.end(FINISHED, "finished", text=str(ended.get("submission") or "").strip())
        case "LimitsExceeded":
            run.end(LIMIT, "limit", limit=ended.get("limit", "cost_usd"))
        case "RepeatedFormatError":
            run.end(FAILED, "no_tool_call", cut_off=run.cut_off)
        case other:
            run.fail(FAILED, "error", f"mini-swe-agent ended with {other!r}")


def user_sessions() -> Path:
    """Where sessions are kept when the agent has no home of its own."""
    base = os.environ.get("XDG_STATE_HOME") or Path("~/.local/state").expanduser()
    return Path(base, "orchestrate", "litellm-sessions")


def main() -> NoReturn:
    descriptor = os.dup(1)

    os.dup2(2, 1)  # whatever a library prints must not stand among the lines
    run = Run(Lines(descriptor))
    watch_signals(
        lambda number: run.end(128 + number, "interrupted", signal=number),
    )
    if sys.platform.startswith("linux"):
        ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    try:
        settings = read_settings(sys.stdin.buffer.read())
        prepare_environment(settings)
        run.lines.hide([os.environ.get(name, "") for name in settings.secrets])
        work(settings, run)
    except SettingsError as error:
        run.fail(BAD_SETTINGS, "error", str(error), kind="bad_usage", retryable=False)
    except Exception as error:
        import traceback

        traceback.print_exc()
        run.fail(FAILED, "error", f"{type(error).__name__}: {error}", kind="crashed")


if __name__ == "__main__":
    main()
