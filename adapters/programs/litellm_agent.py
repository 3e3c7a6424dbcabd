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
import select
import shutil
import signal
import socket
import stat
import struct
import subprocess
import sys
import tempfile
import threading
import time
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from importlib import metadata
from pathlib import Path
from typing import Literal, NoReturn
from urllib.parse import urlsplit

TESTED = ("2.4.6",)
"""Versions of mini-swe-agent that this program was tested with."""

FINISHED, FAILED, BAD_SETTINGS, MISSING, LIMIT = 0, 1, 2, 3, 4

RETRIES = 2
BACKOFF_S = (1.0, 4.0)
LONGEST_WAIT_S = 30.0  # a server that asks for a longer pause is left to the supervisor
CONNECT_S = 5.0
DELTA_S = 0.25  # how often a growing answer is shown
TELL_S = 10.0  # how often it is told that a tool call, which is shown only whole, grows
# Of a command's output, its first and its last; the model itself sees 5,000 characters of each.
KEPT_BYTES = 32 * 1024
DRAIN_S = 0.25  # how long a background process may go on holding a command's output

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


class ModelError(Exception):
    """A call of the model failed for good. `kind` None: the adapter judges by status and text."""

    def __init__(
        self, text: str, *, kind: str | None, status: int | None = None, retryable: bool = False
    ) -> None:
        super().__init__(text)
        self.kind = kind
        self.status = status
        self.retryable = retryable


# --- lines ---------------------------------------------------------------------------------------


class Lines:
    """The JSON lines. After `seize` only the thread that ends the program is heard."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._lock = threading.Lock()
        self._owner: int | None = None
        self._secrets: tuple[str, ...] = ()

    def hide(self, secrets: Sequence[str]) -> None:
        """Blots these values out of every line from now on."""
        self._secrets = tuple(
            json.dumps(value, ensure_ascii=False)[1:-1] for value in secrets if len(value) > 7
        )

    def say(self, type_: str, **fields: object) -> None:
        """One line. Fields that are None are left out."""
        with self._lock:
            heard = self._owner in {None, threading.get_ident()}
            if heard:
                self._write(type_, fields)
        if not heard:
            threading.Event().wait()  # for the end, which is near; nothing more must be begun

    def seize(self) -> None:
        """From now on other threads that speak stop there. A second one that ends does, too."""
        with self._lock:
            first = self._owner is None
            self._owner = self._owner or threading.get_ident()
        if not first:
            threading.Event().wait()

    def _write(self, type_: str, fields: Mapping[str, object]) -> None:
        stated = {key: value for key, value in fields.items() if value is not None}
        line = json.dumps({"type": type_, **stated}, default=str, ensure_ascii=False)
        for secret in self._secrets:
            line = line.replace(secret, "[redacted]")
        rest = line.encode("utf-8", "replace") + b"\n"
        while rest:
            rest = rest[os.write(self._descriptor, rest) :]


# --- commands of the model -----------------------------------------------------------------------


@dataclass(kw_only=True)
class Ran:
    """How a command ended. `exit_code` None: it was killed, and `problem` says why."""

    output: str
    exit_code: int | None
    problem: str = ""


class Shell:
    """Runs commands, each in a session of its own, from a thread that is confined to `writable`.

    Landlock and no_new_privs belong to a thread and are inherited by what it starts: the program
    itself stays free. `writable` None: not confined. `unenforced`: why it could not be.
    """

    def __init__(
        self, *, cwd: str, env: Mapping[str, str], timeout_s: float, writable: Sequence[str] | None
    ) -> None:
        self._cwd = cwd
        self._env = dict(env)
        self._timeout_s = timeout_s
        self._program = shutil.which("bash") or "/bin/sh"
        self._thread = ThreadPoolExecutor(1, "shell")
        self._starting = threading.Lock()
        self._current: int | None = None
        self._stopped = False
        self.unenforced: str | None = None
        if writable is not None:
            self.unenforced = self._thread.submit(confine, writable, cwd).result()

    def run(self, command: str) -> Ran:
        return self._thread.submit(self._run, command).result()

    def stop(self) -> None:
        """Kills every process that came out of a command. No further command is started."""
        with self._starting:
            self._stopped = True
            current = self._current
        if current is not None:
            with contextlib.suppress(OSError):  # it has just ended
                os.killpg(current, signal.SIGKILL)
        for _ in range(50):
            left = descendants()
            for pid in left:
                with contextlib.suppress(OSError):
                    os.kill(pid, signal.SIGKILL)
            if not left:
                return
            time.sleep(0.002)

    def _run(self, command: str) -> Ran:
        with self._starting:
            if self._stopped:
                return Ran(output="", exit_code=None, problem="the agent is being stopped")
            process = subprocess.Popen(
                [self._program, "-c", command],
                cwd=self._cwd,
                env=self._env,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
            self._current = process.pid
        try:
            return self._watch(process)
        finally:
            self._current = None

    def _watch(self, process: subprocess.Popen[bytes]) -> Ran:
        problem = ""
        kept = Kept()
        try:
            for chunk in self._chunks(process):
                kept.add(chunk)
            process.wait(timeout=self._timeout_s)
        except subprocess.TimeoutExpired:
            problem = f"timed out after {self._timeout_s:g} s; it was killed"
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
        exit_code = None if problem else process.returncode
        return Ran(output=kept.text(), exit_code=exit_code, problem=problem)

    def _chunks(self, process: subprocess.Popen[bytes]) -> Iterator[bytes]:
        """The output to its end, or until only a silent background process holds it open."""
        with process.stdout or contextlib.nullcontext() as pipe:
            deadline = time.monotonic() + self._timeout_s
            quiet_since: float | None = None
            while pipe is not None:
                now = time.monotonic()
                if now > deadline:
                    raise subprocess.TimeoutExpired(process.args, self._timeout_s)
                if select.select([pipe], [], [], 0.05)[0]:
                    chunk = os.read(pipe.fileno(), 65536)
                    if not chunk:
                        return
                    quiet_since = None
                    yield chunk
                elif process.poll() is not None:
                    quiet_since = quiet_since or now
                    if now - quiet_since > DRAIN_S:
                        return


class Kept:
    """The first and the last bytes of an output, however long it is."""

    def __init__(self) -> None:
        self._head = bytearray()
        self._tail = bytearray()
        self._dropped = 0

    def add(self, chunk: bytes) -> None:
        room = KEPT_BYTES - len(self._head)
        self._head += chunk[:room]
        self._tail += chunk[room:]
        if len(self._tail) > 4 * KEPT_BYTES:
            self._cut()

    def text(self) -> str:
        self._cut()
        middle = b"\n[... %d bytes left out ...]\n" % self._dropped if self._dropped else b""
        return (self._head + middle + self._tail).decode("utf-8", "replace")

    def _cut(self) -> None:
        surplus = max(0, len(self._tail) - KEPT_BYTES)
        del self._tail[:surplus]
        self._dropped += surplus


def descendants() -> list[int]:
    """Every living process below this one; orphans are, since this one is a subreaper."""
    parents: dict[int, int] = {}
    with contextlib.suppress(OSError):  # no /proc: the process group is all we know
        for folder in Path("/proc").iterdir():
            if not folder.name.isdigit():
                continue
            with contextlib.suppress(OSError):  # it has ended meanwhile
                fields = (folder / "stat").read_bytes().rpartition(b")")[2].split()
                if fields[0] != b"Z":
                    parents[int(folder.name)] = int(fields[1])
    found = {os.getpid()}
    while more := {pid for pid, parent in parents.items() if parent in found} - found:
        found |= more
    return sorted(found - {os.getpid()})


# --- Landlock ------------------------------------------------------------------------------------

_CREATE_RULESET, _ADD_RULE, _RESTRICT_SELF = 444, 445, 446
_PR_CAPBSET_DROP, _PR_SET_CHILD_SUBREAPER, _PR_SET_NO_NEW_PRIVS = 24, 36, 38
_WRITE_FILE, _TRUNCATE = 1 << 1, 1 << 14
# remove_dir, remove_file, make_{dir,reg,sock,fifo,sym}, refer; granted where one may write.
_CHANGE_TREE = sum(1 << bit for bit in (4, 5, 7, 8, 9, 10, 12, 13))
# A device made in the scratch folder would be a way around all this for root: granted nowhere.
_MAKE_DEVICE = 1 << 6 | 1 << 11
_SCOPE_SIGNAL, _SCOPE_ABI = 1 << 1, 6  # no signal leaves the domain: not to us, not to the reaper
# sys_module, sys_rawio, sys_ptrace, sys_admin, sys_boot, mknod, perfmon, bpf. With sys_admin root
# could read our environment, and the key in it: mm_access asks for perfmon_capable after Landlock.
_CAPABILITIES = (16, 17, 19, 21, 22, 27, 38, 39)
_TRUNCATE_ABI = 3  # before it, truncate(2) was free: not worth the name of enforcement
_DEVICES = ("/dev/null", "/dev/zero", "/dev/full", "/dev/tty", "/dev/ptmx", "/dev/pts")


def confine(writable: Sequence[str], workspace: str) -> str | None:
    """Lets this thread, and all that it starts, write only below `writable`. None, or why not.

    Landlock governs what is in files and folders. Modes, owners and times it leaves alone.
    """
    if not sys.platform.startswith("linux"):
        return "only Linux has Landlock"
    libc = ctypes.CDLL(None, use_errno=True)
    abi = libc.syscall(_CREATE_RULESET, None, ctypes.c_size_t(0), 1)
    if abi < _TRUNCATE_ABI:
        return "this kernel has no Landlock" if abi < 1 else f"Landlock ABI {abi} is too old"
    rights = _WRITE_FILE | _TRUNCATE | _CHANGE_TREE | _MAKE_DEVICE
    scoped = struct.pack("=QQ", 0, _SCOPE_SIGNAL) if abi >= _SCOPE_ABI else b""
    handled = struct.pack("=Q", rights) + scoped
    ruleset = libc.syscall(_CREATE_RULESET, handled, ctypes.c_size_t(len(handled)), 0)
    if ruleset < 0:
        return f"Landlock refused: {os.strerror(ctypes.get_errno())}"
    try:
        for path in (*writable, *_DEVICES):
            _allow(libc, ruleset, path)
        for capability in _CAPABILITIES:
            libc.prctl(_PR_CAPBSET_DROP, capability, 0, 0, 0)  # only root has any to lose
        libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
        if libc.syscall(_RESTRICT_SELF, ruleset, 0) != 0:
            return f"Landlock refused: {os.strerror(ctypes.get_errno())}"
    finally:
        os.close(ruleset)
    return None if workspace in writable else _probe(workspace)


def _allow(libc: ctypes.CDLL, ruleset: int, path: str) -> None:
    try:
        descriptor = os.open(path, os.O_PATH | os.O_CLOEXEC)
    except OSError:  # what is not there cannot be written to either
        return
    try:
        folder = stat.S_ISDIR(os.fstat(descriptor).st_mode)
        rights = _WRITE_FILE | _TRUNCATE | (_CHANGE_TREE if folder else 0)
        libc.syscall(_ADD_RULE, ruleset, 1, struct.pack("=Qi", rights, descriptor), 0)
    finally:
        os.close(descriptor)


def _probe(workspace: str) -> str | None:
    """Trust, but verify: a file that must not come into being."""
    path = Path(workspace, f".orchestrate-{uuid.uuid4().hex}")
    try:
        os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY))
    except OSError:
        return None
    # This thread may create but not remove it where the kernel does half of what it promised.
    with contextlib.suppress(OSError):
        path.unlink()
    return "a file could be made in spite of Landlock"


_WHY = "(?:Permission denied|Read-only file system)"
_QUOTES = "'\"`\u2018\u2019"
_DENIED = re.compile(
    rf"(?im)(?:^|[\s:{_QUOTES}])(?P<path>[^\s:{_QUOTES}]+)[{_QUOTES}]?: {_WHY}"
    rf"|{_WHY}: [{_QUOTES}](?P<quoted>[^{_QUOTES}]+)[{_QUOTES}]"
)


def denied_path(output: str, workspace: str) -> str | None:
    """A path that a command was refused and this program is not: Landlock's doing."""
    for found in _DENIED.finditer(output):
        path = Path(workspace, found["quoted"] or found["path"])
        if os.access(path if path.exists() else path.parent, os.W_OK):
            return str(path)
    return None


# --- calls of the model --------------------------------------------------------------------------

_KINDS = {
    "ContextWindowExceededError": "context_overflow",
    "ContentPolicyViolationError": "refused",
    "AuthenticationError": "auth_failed",
    "PermissionDeniedError": "auth_failed",
    "NotFoundError": "model_not_found",
    "RateLimitError": "rate_limited",
    "Timeout": "timed_out",
    "MidStreamFallbackError": "unavailable",
}
_FINAL_STATUSES = frozenset({400, 401, 402, 403, 404, 413, 422})
_NO_MORE_MONEY = re.compile(r"(?i)quota|billing|credit balance")
_CONNECTION = re.compile(r"(?i)connection error|connect(ion)? (failed|refused)|cannot connect")
_PREFIXES = re.compile(r"^(?:(?:litellm\.)?\w+Error: |\w+(?:Exception|Error)(?: [\w ]+)? - )+")
_AFTER = re.compile(r" Original exception: |\nTraceback \(|\. Handle with `litellm")
_NOT_INSTALLED = re.compile(r"No module named '|ith: pip install")
_NO_LOGIN = re.compile(
    r"RefreshError|DefaultCredentialsError|(?i:unable to locate|missing) credentials"
)
_TEXT_CHARS = 2000


def unreachable(api_base: str | None) -> str | None:
    """Why nothing answers at this address, or None. LiteLLM shows a refused connection as a 500."""
    url = urlsplit(api_base or "")
    if not url.hostname or (url.scheme == "https" and os.environ.get("HTTPS_PROXY")):
        return None
    port = url.port or (443 if url.scheme == "https" else 80)
    try:
        socket.create_connection((url.hostname, port), CONNECT_S).close()
    except OSError as error:
        return f"cannot connect to {api_base}: {error.strerror or error}"
    return None


def judge(error: Exception, api_base: str | None) -> ModelError:
    """What an exception of LiteLLM means: by its class, by its text where the class lies."""
    text = plain(str(error)) or type(error).__name__
    code = getattr(error, "status_code", None)
    status = code if isinstance(code, int) else None
    names = [class_.__name__ for class_ in type(error).__mro__]
    kind = next((_KINDS[name] for name in names if name in _KINDS), None)
    if kind is None and _CONNECTION.search(text):
        kind, status, text = "unavailable", None, unreachable(api_base) or text
    if _NOT_INSTALLED.search(str(error)):
        return ModelError(text, kind="spawn")
    if _NO_LOGIN.search(str(error)):
        return ModelError(text, kind="auth_failed")
    retryable = status not in _FINAL_STATUSES and not _NO_MORE_MONEY.search(text)
    return ModelError(text, kind=kind, status=status, retryable=retryable)


def plain(text: str) -> str:
    """A provider's own words, without LiteLLM's around them and without the JSON they came in."""
    text = _PREFIXES.sub("", _AFTER.split(text)[0])
    with contextlib.suppress(ValueError):
        found: object = json.loads(re.sub(r"^b(['\"])(.*)\1$", r"\2", text))
        while isinstance(found, dict):
            found = found.get("error") or found.get("message")
        text = found if isinstance(found, str) else text
    return text.strip()[:_TEXT_CHARS]


def pause(error: Exception, attempt: int) -> float:
    """Seconds to wait: what the server asked for, else our own."""
    response = getattr(error, "response", None)
    for holder, name in (
        (response, "headers"),
        (error, "headers"),
        (error, "litellm_response_headers"),
    ):
        headers = getattr(holder, name, None) or {}
        with contextlib.suppress(KeyError, ValueError):  # not asked; asked by date
            return float(headers["retry-after"])
    return BACKOFF_S[attempt - 1]


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
        if attempt > RETRIES or not failure.retryable or delay > LONGEST_WAIT_S:
            raise failure from error
        self._lines.say("retry", attempt=attempt, of=RETRIES, delay_s=delay, reason=str(failure))
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
        if getattr(response, "usage", None):
            self.cost = self._price(response)
            self._lines.say("usage", **self._usage(response.usage))  # type: ignore[attr-defined]
        if self.cost is None and self.cost_known:
            self.cost_known = False
            if self._settings.cost_usd is not None:
                self._lines.say(
                    "notice", text="the cost of this model is unknown: the cost limit cannot hold"
                )

    def _price(self, response: object) -> float | None:
        if self._settings.local:
            return 0.0
        import litellm

        try:
            cost = litellm.completion_cost(response, model=self._settings.model)
        except Exception:  # one of LiteLLM's own: the model has no price
            return None
        return float(cost) or None  # LiteLLM's 0 is "no price known"

    def _usage(self, usage: object) -> Json:
        prompt = _count(usage, "prompt_tokens")
        details = getattr(usage, "prompt_tokens_details", None)
        cached = _count(details, "cached_tokens")
        written = _count(usage, "cache_creation_input_tokens")
        fresh = None if prompt is None else max(0, prompt - (cached or 0) - (written or 0))
        completion = _count(usage, "completion_tokens")
        reasoning = _count(getattr(usage, "completion_tokens_details", None), "reasoning_tokens")
        if self._settings.model.startswith("ollama"):
            reasoning = None  # estimated by LiteLLM: Ollama does not say
        source = "local" if self._settings.local else "prices"
        return {
            "input_tokens": fresh,
            "cache_read_tokens": cached,
            "cache_write_tokens": written,
            "output_tokens": completion,
            "reasoning_tokens": reasoning,
            "cost_usd": self.cost,
            "cost_source": None if self.cost is None else source,
            "context_used": None if prompt is None else prompt + (completion or 0),
            "context_size": self._window(),
        }

    def _window(self) -> int | None:
        import litellm

        if isinstance(size := self._settings.model_kwargs.get("num_ctx"), int):
            return size
        name = self._settings.model
        known = litellm.model_cost.get(name) or litellm.model_cost.get(name.partition("/")[2])
        return known.get("max_input_tokens") if known else None


def _count(holder: object, name: str) -> int | None:
    value = getattr(holder, name, None)
    return value if isinstance(value, int) else None


class Growing:
    """An answer while it grows, shown a few times a second: what is slow must not look dead."""

    def __init__(self, lines: Lines, call: int) -> None:
        self._lines = lines
        self._ids = {"message": f"message-{call}", "thought": f"thought-{call}"}
        self._pending = dict.fromkeys(self._ids, "")
        self._arguments = 0
        self._shown = self._told = time.monotonic()

    def add(self, chunk: object) -> None:
        for choice in getattr(chunk, "choices", None) or ():
            delta = choice.delta
            self._pending["message"] += getattr(delta, "content", None) or ""
            self._pending["thought"] += getattr(delta, "reasoning_content", None) or ""
            for call in getattr(delta, "tool_calls", None) or ():
                self._arguments += len(call.function.arguments or "")
        # An answer that is there at once is told once, whole.
        if time.monotonic() - self._shown > DELTA_S:
            self._show()

    def _show(self) -> None:
        self._shown = now = time.monotonic()
        for of, text in self._pending.items():
            if text:
                self._lines.say("delta", of=of, id=self._ids[of], text=text)
                self._pending[of], self._told = "", now
        if now - self._told > TELL_S:
            self._told = now
            text = f"the model is writing a tool call ({self._arguments} characters so far)"
            self._lines.say("notice", text=text)


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
        if settings.access != "full" and (path := denied_path(ran.output, settings.workspace)):
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
        parts.append("You may read here but change nothing. Scratch files belong in $TMPDIR.")
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


def watch_signals(stop: Callable[[int], object]) -> None:
    """Calls `stop` from a thread of its own: the main one may be deep in a library."""

    def wake(number: int, frame: object) -> None:
        """Nothing: that there is a handler makes the number arrive at the pipe."""

    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, wake)
    signal.set_wakeup_fd(writer, warn_on_full_buffer=False)
    threading.Thread(target=lambda: stop(os.read(reader, 1)[0]), daemon=True).start()


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
            kind=error.kind,
            status=error.status,
            retryable=error.retryable,
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
        ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
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
