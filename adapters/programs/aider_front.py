"""Runs aider and tells what it does as JSON lines, which aider itself cannot.

    PYTHON aider_front.py -- AIDER FLAGS             aider with its own flags and configuration
    PYTHON aider_front.py --settings < SETTINGS      as the adapter starts it (`Settings`, JSON)

PYTHON is the interpreter that aider is installed for. stdout: the lines, `result` always the last
one. stderr: whatever a library prints. Exit status: 0 the work is done, 1 it failed, 2 flags or
settings that cannot be used, 3 something is missing, 4 a limit, 128+N signal N.
"""

from __future__ import annotations

import ctypes
import difflib
import hashlib
import json
import math
import os
import re
import shutil
import subprocess
import sys
import tempfile
import threading
import time
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import redirect_stdout, suppress
from dataclasses import dataclass, field
from importlib import import_module, metadata
from pathlib import Path
from typing import Literal, NoReturn

# The interpreter is aider's: of ours it gets the modules beside this one and nothing else.
sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from adapters.programs.confinement import PR_SET_CHILD_SUBREAPER, confine
from adapters.programs.json_lines import Lines, watch_signals
from adapters.programs.light_start import start_lightly
from adapters.programs.model_calls import (
    LONGEST_WAIT_S,
    Growing,
    ModelError,
    count,
    judge,
    pause,
    price,
    retries,
    tokens,
    unreachable,
)
from adapters.programs.shell import Shell

del sys.path[0]

TESTED = ("0.86.2",)
"""Versions of aider that this program was tested with."""

FINISHED, FAILED, BAD_SETTINGS, MISSING, LIMIT = 0, 1, 2, 3, 4

Json = dict[str, object]

DEFAULTS: Mapping[str, object] = {
    "analytics": False,
    "check_update": False,
    "detect_urls": False,
    "disable_playwright": True,
    "fancy_input": False,
    "gitignore": False,
    "notifications": False,
    "pretty": False,
    "show_model_warnings": False,
    "show_release_notes": False,
}
"""Our defaults of aider's settings: no look-up, no litter. Its files and flags still win."""

_CONFIG_FILE = ".aider.conf.yml"
_TEXT_CHARS = 64 * 1024
_DIFF_CHARS = 2 * 1024 * 1024


@dataclass(frozen=True, kw_only=True)
class Settings:
    """What stdin says, or the command line: then only `argv`.

    `argv` are aider's flags. `prompt` None: it is somewhere in them. `hidden` names the variables
    that no command may see, `secrets` those whose values stand in no line. `project_config` False:
    configuration files of the work tree are not read. `api_key_env` holds the key, which the user
    calls `api_key_name`.
    """

    argv: list[str] = field(default_factory=list[str])
    prompt: str | None = None
    model: str | None = None
    files: list[str] = field(default_factory=list[str])
    workspace: str = "."
    access: Literal["read", "edit", "full"] = "full"
    home: str | None = None
    session_id: str | None = None
    api_base: str | None = None
    api_key_env: str | None = None
    api_key_name: str | None = None
    local: bool = False
    project_config: bool = True
    hidden: list[str] = field(default_factory=list[str])
    secrets: list[str] = field(default_factory=list[str])
    writable: list[str] = field(default_factory=list[str])
    model_kwargs: Json = field(default_factory=dict[str, object])
    steps: int | None = None
    cost_usd: float | None = None


class SettingsError(Exception):
    """The settings cannot be used: exit status 2."""


class MissingPointError(Exception):
    """This aider has no such function to wrap: exit status 3."""


class Stop(BaseException):
    """Unwinds aider, which catches every Exception. Ends the run with this failure."""

    def __init__(
        self,
        text: str,
        *,
        code: int = FAILED,
        ended: str = "error",
        said: Mapping[str, object] | None = None,
        **more: object,
    ) -> None:
        super().__init__(text)
        self.text = text
        self.code = code
        self.ended = ended
        self.said = {**(said or {}), **more}


# --- the run -------------------------------------------------------------------------------------


class Run:
    """One run: what was begun, what went wrong, and how it ends."""

    def __init__(self, lines: Lines) -> None:
        self.lines = lines
        self.settings = Settings()
        self.key: str | None = None
        self.session_id = ""
        self.shells: dict[str, Shell] = {}
        self.writable: list[str] | None = None
        self.scratch: str | None = None
        self.open_call: tuple[str, str] | None = None
        self.problem: Stop | None = None
        self.last_complaint = ""
        self.turns = 0
        self.calls = 0
        self.commands = 0
        self.edits = 0
        self.cost: float | None = None
        self.testing = False
        self.linting = False
        self.asking = threading.local()
        self.asked: object = None

    def blame(self, kind: str, text: str, ended: str = "error") -> None:
        """Remembers why this is no success. The first reason counts; aider may go on."""
        if self.problem is None:
            self.problem = Stop(text, ended=ended, kind=kind)

    def execute(self, command: str, cwd: str | None) -> tuple[int, str]:
        """Runs a command of aider's user: exit status and output."""
        settings = self.settings
        hidden = set(settings.hidden)
        env = {name: value for name, value in os.environ.items() if name not in hidden}
        folder = cwd or settings.workspace
        if (shell := self.shells.get(folder)) is None:
            # Enclosed once more, it cannot look into this process, which holds the key.
            shell = Shell(cwd=folder, env=env, timeout_s=math.inf, writable=self.writable)
            self.shells[folder] = shell
        if self.linting:  # told as a whole
            ran = shell.run(command)
            return ran.exit_code or 0, ran.output
        type_ = "test" if self.testing else "command"
        self.commands += 1
        id_ = f"{type_}-{self.commands}"
        self.open_call = (type_, id_)
        self.lines.say(type_, id=id_, status="in_progress", command=command)
        ran = shell.run(command)
        self.open_call = None
        status = "completed" if ran.exit_code == 0 else "failed"
        self.lines.say(type_, id=id_, status=status, exit_code=ran.exit_code, output=ran.output)
        return 1 if ran.exit_code is None else ran.exit_code, ran.output

    def end(self, code: int, status: str, **fields: object) -> NoReturn:
        """Leaves nothing behind, says the last line, ends, whatever threads libraries have."""
        self.lines.seize()
        open_call = self.open_call
        # One at least: it stops what other libraries have started, too.
        for shell in self.shells.values() or (Shell(cwd="/", env={}, timeout_s=0, writable=None),):
            shell.stop()
        if self.scratch is not None:
            shutil.rmtree(self.scratch, ignore_errors=True)
        with suppress(OSError):  # no room for it, or nobody reads: end all the same
            if open_call is not None:
                self.lines.say(open_call[0], id=open_call[1], status="failed", problem=status)
            self.lines.say(
                "result",
                status=status,
                exit_code=code,
                session_id=self.session_id,
                turns=self.turns,
                model_calls=self.calls,
                edits=self.edits,
                **fields,
            )
        sys.stderr.flush()
        os._exit(code)

    def fail(self, stop: Stop) -> NoReturn:
        """The cause, then the end."""
        with suppress(OSError):  # the same
            self.lines.say("error", text=stop.text, **stop.said)
        self.end(stop.code, stop.ended)


# --- aider's functions ---------------------------------------------------------------------------


def find(point: str) -> tuple[object, str]:
    """The owner of `MODULE:NAME.NAME` and the last name. Raises MissingPointError."""
    module, _, path = point.partition(":")
    *owners, name = path.split(".")
    try:
        owner: object = import_module(module)
        for step in owners:
            owner = getattr(owner, step)
        getattr(owner, name)
    except (ImportError, AttributeError) as error:
        raise MissingPointError(f"{point} ({error})") from None
    return owner, name


Maker = Callable[[Callable[..., object]], object]
"""Makes the new function out of the one that is replaced."""


def _kept(original: Callable[..., object]) -> object:
    """For what is only relied on."""
    return original


def _by(new: object) -> Maker:
    """Replaces a function by another that does not need it."""

    def maker(original: Callable[..., object]) -> object:
        del original
        return new

    return maker


def replace(points: Mapping[str, Maker]) -> None:
    """Replaces each `MODULE:NAME` by what its maker makes of it. All or, if one is missing, none.

    Raises MissingPointError.
    """
    found = [(*find(point), maker) for point, maker in points.items()]
    for owner, name, maker in found:
        setattr(owner, name, maker(getattr(owner, name)))


def patches(run: Run) -> dict[str, Maker]:
    """All that is changed in aider, and how."""
    coder = "aider.coders.base_coder:"
    return {
        **_quiet_patches(),
        "aider.io:InputOutput.confirm_ask": _kept,
        coder + "FinishReasonLength": _kept,
        coder + "Coder.abs_root_path": _kept,
        "aider.main:InputOutput": lambda original: _screen(original, run),
        "aider.main:get_parser": lambda original: _parser(original, run),
        "aider.main:generate_search_path_list": lambda original: _search_path(original, run),
        "aider.main:setup_git": _by(_setup_git(run)),
        "aider.main:report_uncaught_exceptions": _by(_nothing),
        "aider.models:Model.send_completion": lambda original: _send_completion(original, run),
        "aider.models:Model.simple_send_with_retries": lambda original: _aside(original, run),
        "aider.models:RETRY_TIMEOUT": _by(0),  # `_send` tries again, and no one else
        coder + "RETRY_TIMEOUT": _by(0),
        coder + "Coder.send": lambda original: _send(original, run),
        coder + "Coder.send_message": lambda original: _send_message(original, run),
        coder + "Coder.show_send_output_stream": _silent_stream,
        coder + "Coder.calculate_and_show_tokens_and_cost": _by(_nothing),
        coder + "Coder.run_one": lambda original: _run_one(original, run),
        coder + "Coder.apply_updates": lambda original: _apply_updates(original, run),
        coder + "Coder.prepare_to_edit": lambda original: _prepare_to_edit(original, run),
        coder + "Coder.lint_edited": lambda original: _lint_edited(original, run),
        coder + "Coder.show_exhausted_error": lambda original: _exhausted(original, run),
        coder + "run_cmd": _by(_run_cmd(run)),
        "aider.commands:run_cmd": _by(_run_cmd(run)),
        "aider.commands:Commands.cmd_test": lambda original: _cmd_test(original, run),
        "aider.commands:Commands.is_command": lambda original: _is_command(original, run),
        "aider.linter:run_cmd_subprocess": _by(_run_cmd(run)),
        "aider.repo:GitRepo.commit": lambda original: _commit(original, run),
        "aider.repomap:RepoMap.TAGS_CACHE_DIR": _by(str(_tags_cache(run.settings))),
    }


def _quiet_patches() -> dict[str, Maker]:
    """What would look something up in the network, or open a browser."""
    return {
        "aider.models:ModelInfoManager._update_cache": _by(_nothing),
        "aider.models:ModelInfoManager.fetch_openrouter_model_info": _by(_no_facts),
        "aider.openrouter:OpenRouterModelManager._update_cache": _by(_nothing),
        "aider.utils:run_install": _by(_no_install),
        "aider.onboarding:offer_openrouter_oauth": _by(_no_model),
        "aider.main:offer_openrouter_oauth": _by(_no_key),
    }


def _pair(value: object) -> tuple[object, object]:
    match value:
        case (first, second):
            return first, second
        case _:
            raise TypeError(f"not two values: {value!r}")


def _nothing(*arguments: object, **options: object) -> None:
    """In the place of what must not happen."""


def _no_key(*arguments: object, **options: object) -> NoReturn:
    """In the place of a login in a browser."""
    unset = "OPENROUTER_API_KEY"
    raise Stop(f"no key: {unset} is not set", kind="auth_failed", unset=unset, retryable=False)


def _no_model(*arguments: object, **options: object) -> NoReturn:
    text = "no model is named, and there is no key to tell which one"
    raise Stop(text, kind="auth_failed", retryable=False)


def _no_install(*arguments: object, **options: object) -> tuple[bool, str]:
    return False, "nothing is installed from here"


def _no_facts(*arguments: object, **options: object) -> Json:
    return {}


# --- what aider says, asks and reads -------------------------------------------------------------


class _NoConsole:
    """Where aider would print."""

    print = rule = staticmethod(_nothing)


def _screen(original: Callable[..., object], run: Run) -> object:
    """The class that stands between aider and a terminal: told as lines, answered at once."""
    assert isinstance(original, type)  # noqa: S101  (it is a class in every version)

    class Screen(original):  # type: ignore[misc, valid-type]
        def __init__(
            self, pretty: object, yes: object, *arguments: object, **options: object
        ) -> None:
            options.update(fancy_input=False, notifications=False)
            self.hushed = False
            self.console = _NoConsole()
            # Nobody is there to be asked: what is not refused by a flag is allowed.
            super().__init__(False, yes is not False, *arguments, **options)  # noqa: FBT003
            self.console = _NoConsole()

        def _told(self, level: str, text: object) -> None:
            if level == "error":
                run.last_complaint = str(text).strip()
            if not self.hushed and str(text).strip():
                run.lines.say("log", level=level, text=str(text).strip()[:_TEXT_CHARS])

        def tool_error(self, message: object = "", strip: bool = True) -> None:
            super().tool_error(str(message), strip)
            self._told("error", message)

        def tool_warning(self, message: object = "", strip: bool = True) -> None:
            super().tool_warning(str(message), strip)
            self._told("warning", message)

        def tool_output(self, *messages: object, **options: object) -> None:
            super().tool_output(*map(str, messages), **options)
            if not options.get("log_only"):
                self._told("info", " ".join(map(str, messages)))

        def confirm_ask(self, question: str, *arguments: object, **options: object) -> bool:
            self.hushed = True
            answer: bool = super().confirm_ask(question, *arguments, **options)
            self.hushed = False
            subject = options.get("subject")
            said = "yes" if answer else "no"
            run.lines.say("auto_answer", question=question, subject=subject, answer=said)
            return answer

        def prompt_ask(self, question: str, *arguments: object, **options: object) -> object:
            answer = super().prompt_ask(question, *arguments, **options)
            run.lines.say("auto_answer", question=question, answer=str(answer))
            return answer

        def offer_url(self, *arguments: object, **options: object) -> bool:
            return False

        def get_input(self, *arguments: object, **options: object) -> NoReturn:
            raise EOFError

        def rule(self) -> None: ...

        def ring_bell(self) -> None: ...

        def print(self, message: object = "") -> None:
            self._told("info", message)

        def assistant_output(self, message: object, pretty: object = None) -> None: ...

        def user_input(self, inp: str, log_only: bool = True) -> None:
            super().user_input(inp, log_only=True)

    return Screen


def _parser(original: Callable[..., object], run: Run) -> Callable[..., object]:
    """Aider's flags, with our defaults and without the work tree's configuration if unwanted."""

    def refuse(message: str) -> NoReturn:
        raise Stop(f"aider: {message}", code=BAD_SETTINGS, kind="bad_usage", retryable=False)

    def get_parser(default_config_files: Sequence[str], git_root: str | None) -> object:
        settings = run.settings
        own = str(Path.home() / _CONFIG_FILE)
        known = [file for file in default_config_files if settings.project_config or file == own]
        parser = original(known, git_root)
        folder = session_folder(run)
        parser.set_defaults(  # type: ignore[attr-defined]
            **DEFAULTS,
            input_history_file=str(folder / "input.history"),
            chat_history_file=str(folder / "chat.history.md"),
        )
        parser.error = refuse  # type: ignore[attr-defined]
        parse = parser.parse_args  # type: ignore[attr-defined]

        def parse_args(*arguments: object, **options: object) -> object:
            run.asked = parse(*arguments, **options)
            if getattr(run.asked, "gui", None):
                refuse("--gui shows a page in a browser: there is nothing to tell as lines")
            return run.asked

        parser.parse_args = parse_args  # type: ignore[attr-defined]
        return parser

    return get_parser


def _search_path(original: Callable[..., object], run: Run) -> Callable[..., object]:
    """Where settings of models, `.env` and the like are looked for."""

    def generate(default_file: str, git_root: str | None, named: str | None) -> object:
        if run.settings.project_config:
            return original(default_file, git_root, named)
        found = [Path.home() / default_file]
        if named and Path(named).name != default_file:
            found.append(Path(named))
        return [str(path.resolve()) for path in found]

    return generate


def _is_command(original: Callable[..., object], run: Run) -> Callable[..., object]:
    # A prompt is words for the model, also if it begins with "/" or "!".
    if run.settings.prompt is None:
        return original

    def is_command(self: object, text: str) -> bool:
        return False

    return is_command


def _setup_git(run: Run) -> Callable[..., object]:
    """In the place of one that makes a repository where there is none, and edits its settings."""

    def setup_git(root: str | None, io: object) -> str | None:
        if root is None:
            run.lines.say("notice", text="this is no git repository, and none is made")
        else:
            lend_identity(root)
        return root

    return setup_git


def lend_identity(root: str) -> None:
    """A name for commits where git knows none: for this process and what it starts only."""
    names = {"user.name": "aider", "user.email": "aider@localhost"}
    missing = {name: value for name, value in names.items() if not _git(root, "config", name)}
    if missing:
        os.environ["GIT_CONFIG_COUNT"] = str(len(missing))
        for number, (name, value) in enumerate(missing.items()):
            os.environ[f"GIT_CONFIG_KEY_{number}"] = name
            os.environ[f"GIT_CONFIG_VALUE_{number}"] = value


def _git(folder: str, *words: str) -> list[str]:
    """What git answers, line by line; nothing where it has no answer."""
    try:
        done = subprocess.run(
            ("git", *words), cwd=folder, capture_output=True, text=True, check=False
        )
    except OSError:
        return []
    return done.stdout.splitlines() if done.returncode == 0 else []


# --- calls of the model --------------------------------------------------------------------------


def _send_completion(original: Callable[..., object], run: Run) -> Callable[..., object]:
    """One call of the model, whichever of aider's models it is and whatever for."""

    def send_completion(
        self: object,
        messages: list[Json],
        functions: object,
        stream: bool,
        temperature: object = None,
    ) -> object:
        name = str(getattr(self, "name", ""))
        call = run.calls + 1
        aside = not getattr(run.asking, "now", False)  # a commit's message, a summary
        check_limits(run)
        run.calls = call
        run.lines.say("model_call", call=call, model=name, stream=stream, aside=aside or None)
        if why := unreachable(run.settings.api_base or environment_base(name)):
            # At the first call nothing is lost yet: the supervisor shall hear of it at once.
            raise ModelError(why, kind="unavailable", retryable=call > 1)
        import litellm

        litellm.disable_hf_tokenizer_download = True
        before = getattr(self, "extra_params", None)
        self.extra_params = {**(before or {}), **call_kwargs(run, name, stream=stream)}  # type: ignore[attr-defined]
        try:
            done = original(self, messages, functions, stream, temperature)
        finally:
            self.extra_params = before  # type: ignore[attr-defined]
        hashed, answer = _pair(done)
        told = Answer(run, call, name, messages, aside=aside)
        if stream:
            return hashed, told.follow(answer)
        told.whole(answer)
        return hashed, answer

    return send_completion


def call_kwargs(run: Run, model: str, *, stream: bool) -> Json:
    """What goes to LiteLLM with every call. The key is in no file and in no message."""
    settings = run.settings
    kwargs: Json = {"max_retries": 0, "num_retries": 0, **settings.model_kwargs}
    if stream:
        kwargs["stream_options"] = {"include_usage": True}
    if settings.api_base is not None:
        kwargs["api_base"] = settings.api_base
    if run.key is not None:
        kwargs["api_key"] = run.key
    elif settings.api_base is not None and model.startswith("openai/"):
        kwargs["api_key"] = "none"  # the client insists on one; a server without keys ignores it
    return kwargs


_LOCAL_BASES = {
    "ollama": ("OLLAMA_API_BASE", "http://127.0.0.1:11434"),
    "ollama_chat": ("OLLAMA_API_BASE", "http://127.0.0.1:11434"),
}


def environment_base(model: str) -> str | None:
    """The address that LiteLLM takes from the environment, as far as that is simple to say."""
    provider = model.partition("/")[0]
    name, default = _LOCAL_BASES.get(provider, (f"{provider.upper()}_API_BASE", None))
    return os.environ.get(name, default)


def check_limits(run: Run) -> None:
    """Raises Stop when the next call of the model would be one too many."""
    settings = run.settings
    if settings.steps is not None and run.calls >= settings.steps:
        raise Stop("the limit of steps is reached", code=LIMIT, ended="limit", kind="max_turns")
    if settings.cost_usd is not None and (run.cost or 0.0) >= settings.cost_usd:
        text = "the limit of cost is reached"
        raise Stop(text, code=LIMIT, ended="limit", kind="budget_exceeded")


class Answer:
    """An answer of the model: told while it grows and as a whole, with what it used."""

    def __init__(
        self, run: Run, call: int, model: str, messages: list[Json], *, aside: bool
    ) -> None:
        self._run = run
        self._call = call
        self._model = model
        self._messages = messages
        self._aside = aside or None
        self._text = ""
        self._thought = ""
        self._called = False
        self._finish: str | None = None

    def follow(self, stream: object) -> Iterator[object]:
        """The chunks. Raises ModelError at the end of an answer that is no answer."""
        chunks: list[object] = []
        growing = Growing(self._run.lines, self._call)
        last: list[object] = []
        for chunk in stream:  # type: ignore[attr-defined]
            chunks.append(chunk)
            growing.add(chunk)
            self._add(chunk)
            if last or self._finish == "length":
                last.append(chunk)  # aider leaves at this one, and the usage comes behind it
            else:
                yield chunk
        received = getattr(stream, "received_finish_reason", None)
        if received is None and getattr(stream, "intermittent_finish_reason", None) is None:
            # LiteLLM calls this finished ("stop"): half an answer would pass for a whole one.
            text = "the answer broke off: a broken connection, or no model server"
            raise ModelError(text, kind="unavailable", retryable=True)
        if any(getattr(chunk, "usage", None) for chunk in getattr(stream, "chunks", ())):
            import litellm

            self._tell_usage(litellm.stream_chunk_builder(chunks, messages=self._messages))
        self._tell()
        yield from last

    def whole(self, response: object) -> None:
        """An answer that came as one."""
        for choice in getattr(response, "choices", ())[:1]:
            self._finish = getattr(choice, "finish_reason", None)
            self._take(choice.message)
        self._tell_usage(response)
        self._tell()

    def _add(self, chunk: object) -> None:
        for choice in getattr(chunk, "choices", ())[:1]:
            self._finish = getattr(choice, "finish_reason", None) or self._finish
            self._take(choice.delta)

    def _take(self, part: object) -> None:
        self._text += getattr(part, "content", None) or ""
        self._thought += getattr(part, "reasoning_content", None) or ""
        asked = getattr(part, "tool_calls", None) or getattr(part, "function_call", None)
        self._called = self._called or bool(asked)

    def _tell(self) -> None:
        if self._thought:
            self._run.lines.say("thought", id=f"thought-{self._call}", text=self._thought)
        if self._text.strip():
            self._run.lines.say(
                "message", id=f"message-{self._call}", text=self._text, aside=self._aside
            )
        if self._finish == "content_filter":
            raise ModelError("the model refused to answer", kind="refused")
        if self._finish != "length" and not self._text.strip() and not self._called:
            raise ModelError("the model's answer was empty", kind="incomplete", retryable=True)

    def _tell_usage(self, response: object) -> None:
        usage = getattr(response, "usage", None)
        if usage is None:
            return
        local = self._run.settings.local
        cost = price(response, self._model, local=local)
        if cost is not None:
            self._run.cost = (self._run.cost or 0.0) + cost
        self._run.lines.say(
            "usage",
            call=self._call,
            model=self._model,
            **tokens(usage, self._model),
            cost_usd=cost,
            cost_source=None if cost is None else "local" if local else "prices",
        )


def _send(original: Callable[..., object], run: Run) -> Callable[..., object]:
    """One question to the model: at most two retries, then the run ends. aider's own made 27."""
    from aider.coders.base_coder import FinishReasonLength

    def send(
        self: object, messages: list[Json], model: object = None, functions: object = None
    ) -> Iterator[object]:
        attempt, base = 0, run.settings.api_base
        while True:
            attempt += 1
            run.asking.now = True
            try:
                yield from original(self, messages, model, functions)  # type: ignore[misc]
                return
            except FinishReasonLength:
                raise
            except Exception as error:
                failure = error if isinstance(error, ModelError) else judge(error, base)
                _wait_or_stop(run, failure, error, attempt)
            finally:
                run.asking.now = False

    return send


def _aside(original: Callable[..., object], run: Run) -> Callable[..., object]:
    """A commit's message, a summary: aider goes on without, and so do we."""

    def simple_send_with_retries(self: object, messages: list[Json]) -> object:
        try:
            return original(self, messages)
        except Exception as error:
            text = str(judge(error, run.settings.api_base))
            run.lines.say("model_error", call=run.calls, text=text, aside=True)
            return None

    return simple_send_with_retries


_OF_A_CALL = ("litellm", "openai", "httpx", "httpcore", "aiohttp", "model_calls")


def _wait_or_stop(run: Run, failure: ModelError, error: Exception, attempt: int) -> None:
    if type(error).__module__.partition(".")[0] not in _OF_A_CALL and failure.kind is None:
        text = f"{type(error).__name__}: {error}"
        raise Stop(text, kind="crashed", retryable=False) from error
    said: Json = failure.said
    run.lines.say("model_error", call=run.calls, text=str(failure), **said)
    most = retries(local=run.settings.local)
    delay = pause(error, min(attempt, most))
    if attempt > most or not failure.retryable or delay > LONGEST_WAIT_S:
        ended = "refused" if failure.kind == "refused" else "error"
        raise Stop(str(failure), ended=ended, said=said) from error
    run.lines.say("retry", attempt=attempt, of=most, delay_s=delay, reason=str(failure))
    time.sleep(delay)


def _silent_stream(original: Callable[..., object]) -> Callable[..., object]:
    """Aider prints the answer as it comes; we have told it already."""

    def show_send_output_stream(self: object, completion: object) -> Iterator[object]:
        with Path(os.devnull).open("w", encoding="utf-8") as nowhere, redirect_stdout(nowhere):
            yield from original(self, completion)  # type: ignore[misc]

    return show_send_output_stream


# --- turns ---------------------------------------------------------------------------------------


def _send_message(original: Callable[..., object], run: Run) -> Callable[..., object]:
    """A turn: a question, its answer, and what aider does with that."""

    def send_message(self: object, inp: str) -> Iterator[object]:
        run.turns += 1
        number = run.turns
        reflections = count(self, "num_reflections") or 0
        model = getattr(getattr(self, "main_model", None), "name", None)
        mode = getattr(self, "edit_format", None)
        if reflections:
            most = count(self, "max_reflections")
            run.lines.say("reflection", number=reflections, of=most, reason=inp[:2000])
        run.lines.say("turn", status="started", number=number, mode=mode, model=model)
        edits = run.edits
        yield from original(self, inp)  # type: ignore[misc]
        run.lines.say("turn", status="ended", number=number, edits=run.edits - edits)

    return send_message


def _run_one(original: Callable[..., object], run: Run) -> Callable[..., object]:
    """A prompt with all its reflections. aider ends well however they end."""

    def run_one(self: object, user_message: object, preproc: object) -> object:
        result = original(self, user_message, preproc)
        reflections = count(self, "num_reflections") or 0
        after = f" after {reflections} reflection(s)" if reflections else ""
        if getattr(self, "test_outcome", None) is False:
            run.blame("check_failed", f"the tests still fail{after}")
        elif getattr(self, "lint_outcome", None) is False:
            run.blame("check_failed", f"the linter still complains{after}")
        elif cause := getattr(self, "reflected_message", None):
            told = str(cause).strip().splitlines() or [""]
            run.blame("incomplete", f"aider gave up{after}: {told[0][:300]}")
        return result

    return run_one


def _exhausted(original: Callable[..., object], run: Run) -> Callable[..., object]:
    def show_exhausted_error(self: object) -> None:
        run.blame("incomplete", "the model's answer was cut at its token limit", "max_tokens")

    return show_exhausted_error


# --- edits, commits, lint and tests --------------------------------------------------------------


def _read(path: Path) -> str | None:
    try:
        return path.read_text("utf-8", "replace")
    except OSError:
        return None


def _prepare_to_edit(original: Callable[..., object], run: Run) -> Callable[..., object]:
    """Looks at the files before they are edited; says which edits were not allowed."""

    def prepare_to_edit(self: object, edits: Sequence[Sequence[object]]) -> object:
        paths = {str(edit[0]): None for edit in edits if edit[0]}
        before: dict[str, str | None] = {}
        for path in paths:
            before[path] = _read(Path(self.abs_root_path(path)))  # type: ignore[attr-defined]
        self.orchestrate_before = before  # type: ignore[attr-defined]
        allowed = original(self, edits)
        kept = {str(edit[0]) for edit in allowed if edit[0]}  # type: ignore[attr-defined]
        for path in paths:
            if path not in kept:
                run.lines.say("denied", id=f"denied-{path}", path=path, reason="aider skipped it")
        return allowed

    return prepare_to_edit


def _apply_updates(original: Callable[..., object], run: Run) -> Callable[..., object]:
    """Applies what the model wrote, and tells it file by file."""

    def apply_updates(self: object) -> object:
        self.orchestrate_before = {}  # type: ignore[attr-defined]
        run.last_complaint = ""
        edited = original(self)
        before: dict[str, str | None] = self.orchestrate_before  # type: ignore[attr-defined]
        for path, text in before.items():
            _tell_edit(run, Path(self.abs_root_path(path)), text)  # type: ignore[attr-defined]
        if getattr(self, "dry_run", False):
            for path in sorted(map(str, edited)):  # type: ignore[call-overload]
                run.lines.say("denied", id=f"denied-{path}", path=path, reason="dry run")
        elif run.last_complaint and not getattr(self, "reflected_message", None):
            run.blame("incomplete", run.last_complaint)
        return edited

    return apply_updates


def _tell_edit(run: Run, path: Path, before: str | None) -> None:
    after = _read(path)
    if after == before:
        return
    try:
        shown = str(path.relative_to(Path(run.settings.workspace).resolve()))
    except ValueError:  # outside of the workspace
        shown = str(path)
    run.edits += 1
    id_ = f"edit-{run.edits}"
    change = "created" if before is None else "deleted" if after is None else "changed"
    if len(before or "") + len(after or "") > _DIFF_CHARS:  # comparing it would take long
        run.lines.say("edit", id=id_, path=shown, change=change)
        return
    diff = difflib.unified_diff(
        (before or "").splitlines(keepends=True),
        (after or "").splitlines(keepends=True),
        "/dev/null" if before is None else f"a/{shown}",
        "/dev/null" if after is None else f"b/{shown}",
    )
    text = "".join(line if line.endswith("\n") else f"{line}\n" for line in diff)
    run.lines.say("edit", id=id_, path=shown, change=change, diff=text[:_TEXT_CHARS])


def _lint_edited(original: Callable[..., object], run: Run) -> Callable[..., object]:
    def lint_edited(self: object, fnames: Sequence[str]) -> object:
        run.commands += 1
        id_, files = f"lint-{run.commands}", sorted(name for name in fnames if name)
        run.lines.say("lint", id=id_, status="in_progress", files=files)
        run.open_call = ("lint", id_)
        run.linting, self.io.hushed = True, True  # type: ignore[attr-defined]
        errors = original(self, fnames)
        run.linting, self.io.hushed = False, False  # type: ignore[attr-defined]
        run.open_call = None
        status = "failed" if errors else "completed"
        # aider names the interpreter that it runs the linter with, to the model as well.
        output = str(errors or "").replace(sys.executable, "python")
        run.lines.say("lint", id=id_, status=status, output=output.strip()[:_TEXT_CHARS])
        return output

    return lint_edited


def _cmd_test(original: Callable[..., object], run: Run) -> Callable[..., object]:
    def cmd_test(self: object, args: object) -> object:
        run.testing = True
        errors = original(self, args)
        run.testing = False
        if errors and not run.turns:
            run.blame("check_failed", "the tests fail")  # --test, and nothing was asked
        return errors

    return cmd_test


def _run_cmd(run: Run) -> Callable[..., object]:
    def run_cmd(command: str, *arguments: object, **options: object) -> tuple[int, str]:
        cwd = options.get("cwd")
        return run.execute(command, None if cwd is None else str(cwd))

    return run_cmd


def _commit(original: Callable[..., object], run: Run) -> Callable[..., object]:
    def commit(self: object, *arguments: object, **options: object) -> object:
        complaints = count(self.io, "num_error_outputs")  # type: ignore[attr-defined]
        done = original(self, *arguments, **options)
        if done:
            hash_, message = map(str, _pair(done))
            root = str(getattr(self, "root", "."))
            files = _git(root, "show", "--format=", "--name-only", hash_)
            run.lines.say("commit", hash=hash_, message=message, files=files)
        elif count(self.io, "num_error_outputs") != complaints:  # type: ignore[attr-defined]
            run.blame("unknown", run.last_complaint)
        return done

    return commit


# --- folders -------------------------------------------------------------------------------------


def session_folder(run: Run) -> Path:
    """Where the history of this conversation is kept: never in the work tree."""
    home = run.settings.home
    if home is not None:
        return Path(home, "sessions", run.session_id)
    base = os.environ.get("XDG_STATE_HOME") or Path("~/.local/state").expanduser()
    return Path(base, "orchestrate", "aider-sessions", run.session_id)


def _tags_cache(settings: Settings) -> Path:
    """An absolute folder for the repository map, one for each work tree."""
    name = hashlib.sha256(str(Path(settings.workspace).resolve()).encode()).hexdigest()[:16]
    return Path.home() / ".aider" / "caches" / f"tags-{name}"


def open_session(run: Run) -> None:
    """Makes the folder of the session, or finds it. Raises SettingsError if it is not there."""
    settings = run.settings
    run.session_id = settings.session_id or str(uuid.uuid4())
    folder = session_folder(run)
    if settings.session_id and not (folder / "chat.history.md").is_file():
        raise SettingsError(f"there is no session {settings.session_id}")
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)


def enclose(run: Run) -> None:
    """Holds this process, and all that it starts, to its access; says how far that goes."""
    settings = run.settings
    if settings.access == "full":
        return
    run.scratch = scratch = tempfile.mkdtemp(prefix="orchestrate-")
    os.environ["TMPDIR"] = tempfile.tempdir = scratch
    own = Path.home() / ".aider"
    own.mkdir(mode=0o700, parents=True, exist_ok=True)
    writable = [scratch, str(own), str(session_folder(run)), *settings.writable]
    if settings.access == "edit":
        # A linked work tree's index is elsewhere, and aider adds new files to it.
        git = _git(settings.workspace, "rev-parse", "--absolute-git-dir", "--git-common-dir")
        writable += [settings.workspace, *(str(Path(settings.workspace, name)) for name in git)]
    run.writable = writable
    why = confine(writable, settings.workspace)
    run.lines.say("access", level=settings.access, enforced=why is None, reason=why)


# --- the program ---------------------------------------------------------------------------------


def read_settings(arguments: Sequence[str]) -> Settings:
    """What is to be done. Raises SettingsError."""
    match arguments:
        case ["--settings"]:
            try:
                settings = Settings(**json.loads(sys.stdin.buffer.read()))
            except (ValueError, TypeError) as error:
                raise SettingsError(f"stdin is no settings: {error}") from None
        case ["--", *argv]:
            settings = Settings(argv=argv, workspace=str(Path.cwd()))
        case _:
            raise SettingsError("usage: aider_front.py -- AIDER FLAGS")
    if settings.session_id and not re.fullmatch(r"[A-Za-z0-9_-]{1,64}", settings.session_id):
        raise SettingsError(f"not a session's id: {settings.session_id[:80]!r}")
    return settings


def take_key(run: Run) -> None:
    """Takes the key out of the environment: what git or a linter starts shall not have it."""
    settings = run.settings
    if settings.api_key_env is None:
        return
    run.key = os.environ.pop(settings.api_key_env, None)
    if not run.key:
        unset = settings.api_key_name or settings.api_key_env
        text = f"no key: {unset} is not set"
        raise Stop(text, kind="auth_failed", unset=unset, retryable=False)


def prepare(settings: Settings) -> None:
    """What aider and LiteLLM read at import: nothing from the network, all from one home."""
    os.environ["LITELLM_LOCAL_MODEL_COST_MAP"] = "True"
    os.environ["LITELLM_MODE"] = "PRODUCTION"
    sys.argv[:] = ["aider"]  # it writes its command line into its history
    devnull = os.open(os.devnull, os.O_RDONLY)
    os.dup2(devnull, 0)
    os.close(devnull)
    if settings.home is not None:
        home = Path(settings.home)
        # Only for aider: git and the tests of the project know the user's own home.
        Path.home = staticmethod(lambda: home)  # type: ignore[method-assign]


def aider_argv(run: Run) -> list[str]:
    """Aider's command line: the flags, then the files and the prompt."""
    settings = run.settings
    argv = list(settings.argv)
    if settings.session_id:
        argv.append("--restore-chat-history")
    flag = "--read" if settings.access == "read" else "--file"
    named = []
    for file in settings.files:
        # aider makes an empty file of one that is not there, and takes no folders.
        if Path(settings.workspace, file).is_file():
            argv.append(f"{flag}={file}")
        else:
            named.append(file)
    if settings.prompt is not None:
        prompt = settings.prompt
        if named:
            prompt += "\n\nFiles that matter: " + ", ".join(named)
        argv.append(f"--message={prompt}")
    return argv


def has_json(run: Run) -> bool:
    """Whether this aider prints JSON lines by itself. None did up to now."""
    owner, name = find("aider.args:get_parser")
    parser = getattr(owner, name)([], None)
    native = "--json" in getattr(parser, "_option_string_actions", {})
    if native:
        run.lines.say("notice", text="this aider has --json of its own, which is used")
    return native


def version_of(package: str) -> str:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return "unknown"


def read_tables_quickly() -> None:
    """Aider reads its tables of models by parsers written in Python, which took 1.3 CPU seconds of
    each start; the parsers written in C read the same and take none.
    """
    with suppress(ImportError):
        yaml = import_module("yaml")
        yaml.SafeLoader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # type: ignore[attr-defined]
    with suppress(ImportError):
        json5 = import_module("json5")
        json5.loads = json_first(json5.loads)  # type: ignore[attr-defined]


_COMMENT = re.compile(r"^[ \t]*//.*$", re.MULTILINE)
_LAST_COMMA = re.compile(r",(?=\s*\n\s*[}\]])")


def json_first(original: Callable[..., object]) -> Callable[..., object]:
    """JSON5 that is JSON but for lines of comment and last commas is read as that.

    Neither pattern can match within a string of JSON, which has no line break in it.
    """

    def loads(text: str, **options: object) -> object:
        if not options:
            with suppress(ValueError):
                return json.loads(_LAST_COMMA.sub("", _COMMENT.sub("", text)))
        return original(text, **options)

    return loads


def import_aider(run: Run) -> str:
    """Imports what takes seconds. The version of aider."""
    start_lightly()
    read_tables_quickly()
    try:
        import aider

        import_module("aider.main")
    except ImportError as error:
        what = error.name or "a module"
        text = f"cannot import {what}: {error}"
        raise Stop(text, code=MISSING, ended="missing", kind="spawn", missing=what) from None
    version = str(aider.__version__)
    if version not in TESTED:
        run.lines.say("notice", text=f"aider {version} is untested (tested: {TESTED[0]})")
    run.lines.say("ready", aider=version, litellm=version_of("litellm"))
    return version


def work(run: Run, descriptor: int) -> NoReturn:
    """From the settings to the last line."""
    settings = run.settings
    open_session(run)
    resumed = bool(settings.session_id)
    run.lines.say("session", session_id=run.session_id, model=settings.model, resumed=resumed)
    if why := unreachable(settings.api_base):
        raise Stop(why, kind="unavailable", retryable=True)
    enclose(run)
    version = import_aider(run)
    if has_json(run):
        os.dup2(descriptor, 1)
        main_of_aider = import_module("aider.main").main
        os._exit(main_of_aider(["--json", *aider_argv(run)]) or 0)
    try:
        replace(patches(run))
    except MissingPointError as error:
        text = f"aider {version} cannot be wrapped: it has no {error}"
        stop = Stop(text, code=MISSING, ended="missing", kind="spawn", missing=str(error))
        raise stop from None
    finish(run, call_aider(run))


def call_aider(run: Run) -> object:
    """Aider's own main. What it returns, or the status that it exits with."""
    from aider.main import main as main_of_aider

    try:
        return main_of_aider(aider_argv(run))
    except SystemExit as error:
        return error.code


def finish(run: Run, returned: object) -> NoReturn:
    """How it ended: aider's own word, where it gives one, and ours."""
    if run.problem is not None:
        run.fail(run.problem)
    if returned not in {None, 0}:
        text = run.last_complaint or f"aider ended with {returned!r}"
        run.fail(Stop(text, kind=None, retryable=False))
    if not run.turns and not run.edits and _left_undone(run):
        text = run.last_complaint or "aider ended before it asked the model"
        run.fail(Stop(text, kind="incomplete"))
    run.end(FINISHED, "finished")


def _left_undone(run: Run) -> bool:
    """Whether something was asked that nobody did: aider ends well all the same."""
    if run.settings.prompt is not None:
        return True
    message = str(getattr(run.asked, "message", None) or "").strip()
    if message and not message.startswith(("/", "!")):  # those are commands of aider's own
        return True
    named = getattr(run.asked, "message_file", None) or getattr(run.asked, "apply", None)
    return bool(named and run.last_complaint)


def main(arguments: Sequence[str]) -> NoReturn:
    descriptor = os.dup(1)
    os.dup2(2, 1)  # whatever a library prints must not stand among the lines
    run = Run(Lines(descriptor))
    watch_signals(lambda number: run.end(128 + number, "interrupted", signal=number))
    if sys.platform.startswith("linux"):
        ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    try:
        run.settings = settings = read_settings(arguments)
        prepare(settings)
        run.lines.hide([os.environ.get(name, "") for name in settings.secrets])
        take_key(run)
        work(run, descriptor)
    except Stop as stop:
        run.fail(stop)
    except SettingsError as error:
        run.fail(Stop(str(error), code=BAD_SETTINGS, kind="bad_usage", retryable=False))
    except Exception as error:
        import traceback

        traceback.print_exc()
        run.fail(Stop(f"{type(error).__name__}: {error}", kind="crashed"))


if __name__ == "__main__":
    main(sys.argv[1:])
