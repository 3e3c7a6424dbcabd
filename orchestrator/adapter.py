"""The contract of an adapter: how one CLI is spoken to. Values and protocols only, no I/O.

An adapter translates and does nothing: `command` says what to start, a `Conversation` what a line
means.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import TYPE_CHECKING, Literal, Protocol, runtime_checkable

import orjson

from orchestrator.events import (
    Notice,
    Output,
    Permission,
    ToolCall,
    Unparsed,
    Update,
    Usage,
)
from orchestrator.task import Dialect, McpServer, Task

if TYPE_CHECKING:
    from pydantic import JsonValue

TEXT_LIMIT = 64 * 1024
"""How much of a line an event carries, in bytes; the spool has it whole."""


def _no_options() -> Mapping[str, object]:
    return MappingProxyType({})


def _no_names() -> Mapping[str, str]:
    return MappingProxyType({})


def _no_files() -> Mapping[str, bytes]:
    return MappingProxyType({})


@dataclass(frozen=True, kw_only=True)
class Agent:
    """A configured coding agent: what a route chooses and what the user names.

    `server` is the kind of model server (`ollama`, ...) and `base_url` its address as configured;
    None: the provider's own. `api_key_env` names the variable with the key, None: no key.
    `tier` says where the model runs. `login`: the CLI's own, although a key may be there.
    `options` are the adapter's own.
    `explicit`: its user wrote down where its model runs, with what key or which model.
    `program` and `home` are set by the core before `Adapter.command`: the program as an absolute
    path, and the private folder for the agent's settings and sessions (None: the user's own).
    """

    name: str
    adapter: str
    model: str | None = None
    server: str | None = None
    base_url: str | None = None
    api_key_env: str | None = None
    tier: Literal["local", "cloud"] = "cloud"
    profile: Literal["user", "clean"] = "clean"
    login: bool = False
    options: Mapping[str, object] = field(default_factory=_no_options)
    explicit: bool = False
    program: str | None = None
    home: str | None = None


@dataclass(frozen=True, kw_only=True)
class Tail:
    """A further file to follow while the agent runs, such as its session log.

    `pattern` is a glob below `folder`, which may begin with `~` or `$NAME` of the agent's own
    environment (left out if that is not set); only files that appear or grow after the spawn are
    read. Of their lines only those that contain `containing` reach `Conversation.feed`.
    """

    name: str
    folder: str
    pattern: str
    containing: bytes


@dataclass(frozen=True, kw_only=True)
class Command:
    """What to start. `argv[0]` is an absolute path or a program's name; there is no shell.

    `env` is the whole environment together with `env_from` (name for the child: name in the
    supervisor's environment; absent ones are left out) and a small base (PATH, LANG, TMPDIR, ...).
    `stdin`: bytes become a private file; "open" keeps a pipe for `Send`; None is empty.
    `files` (absolute path: content) are written 0600 before the spawn. `secrets` names the
    variables among `env_from` whose values must not appear in any record.
    `interrupt` is the signal that stops this CLI cleanly, sent before SIGTERM; None: there is none.
    """

    argv: tuple[str, ...]
    cwd: str
    env: Mapping[str, str] = field(default_factory=_no_names)
    env_from: Mapping[str, str] = field(default_factory=_no_names)
    secrets: tuple[str, ...] = ()
    stdin: bytes | Literal["open"] | None = None
    files: Mapping[str, bytes] = field(default_factory=_no_files)
    tails: tuple[Tail, ...] = ()
    interrupt: int | None = None


@dataclass(frozen=True, kw_only=True)
class Exit:
    """How a process ended: exit status or signal number (never both), and the end of its stderr.

    `dismissed`: it was ended because it stayed when its work was over (`Send.leave_s`).
    """

    status: int | None = None
    signal: int | None = None
    stderr: str = ""
    dismissed: bool = False


@dataclass(frozen=True, kw_only=True)
class Question:
    """What an agent waits for a person to allow; `Conversation.decide` takes the answer. `always`:
    it can be allowed once and for all.
    """

    permission: Permission
    call: ToolCall
    always: bool = False


@dataclass(frozen=True, kw_only=True)
class Send:
    """Bytes for the agent's stdin (with `Command.stdin == "open"`). `end`: it is closed after
    them.

    `leave_s`: the agent has nothing more to do; if it stays longer than that, it is ended, and how
    it then ends says nothing of its work. None: it leaves by itself. `question`: nothing is sent
    until somebody answered it.
    """

    data: bytes = b""
    end: bool = False
    leave_s: float | None = None
    question: Question | None = None


@dataclass(frozen=True, kw_only=True)
class Program:
    """A program that an adapter starts.

    `name` is looked for on PATH and in the environments of our own. `natives` are glob patterns,
    relative to the folder of the resolved program: a wrapper's real binary, preferred where found.
    """

    name: str
    natives: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Install:
    """How the tested version is installed into a folder of our own: from a lock with hashes.

    `lock` is an absolute path, shipped with the adapter: a `requirements.txt` for pip, a
    `package-lock.json` with its `package.json` beside it for npm. `megabytes` on disk and `minutes`
    are what it takes, as measured. It needs a Python older than `python_below`, None: any of ours.
    """

    kind: Literal["pip", "npm"]
    lock: str
    megabytes: int
    minutes: int
    python_below: tuple[int, int] | None = None


@dataclass(frozen=True, kw_only=True)
class About:
    """What a CLI is: how to find it, what was tested, what it speaks.

    `tested` are version texts, newest first. `install` is a text for people where only they can
    install it. `dialects` are what it can use of a model server. `prompt_tokens` is the size of its
    own prompt as the agent is usually run on a local model, as measured; `lean_prompt_tokens` the
    same in its leanest form, which the options `lean` ask for (empty: there is no leaner one).
    `window_option` is the option that tells it how large the model's window is. `tools`: it
    does nothing with a model that calls none.
    `key_env` is the variable that usually holds the provider's key, `keys` are all in which one may
    be. `logins` are files that are there while the user is logged in; a path may begin with `~` or
    `$NAME`. They are looked for and never read. `log_in` is what a person types to log in.
    `settings`, of a CLI that without key and login goes on trying instead of saying so, are files
    in which its user may have said another way to a model.
    `enforces` are the levels of access that the CLI itself can hold an agent to. `tells_cost`:
    whether it states what its calls cost. `counts`: after what it tells its tokens, None: it does
    not tell them, or nobody knows. `mcp`: it takes the MCP servers of a task. `trust_option` is the
    option that makes the repository's own settings count for it. `landlock`: it is held to `access`
    by the kernel's Landlock, and where there is none by nothing.
    """

    name: str
    title: str
    program: Program | None
    version_argv: tuple[str, ...] = ("--version",)
    tested: tuple[str, ...] = ()
    install: Install | str = ""
    dialects: tuple[Dialect, ...] = ()
    prompt_tokens: int | None = None
    lean_prompt_tokens: int | None = None
    lean: Mapping[str, object] = field(default_factory=_no_options)
    window_option: str | None = None
    tools: bool = True
    enforces: tuple[Literal["read", "edit", "full"], ...] = ("read", "edit", "full")
    resumes: bool = False
    tells_cost: bool = True
    counts: Literal["call", "turn"] | None = None
    mcp: bool = False
    trust_option: str | None = None
    landlock: bool = False
    key_env: str | None = None
    keys: tuple[str, ...] = ()
    logins: tuple[str, ...] = ()
    log_in: str = ""
    settings: tuple[str, ...] = ()

    @property
    def install_hint(self) -> str:
        """What to type to install it."""
        if isinstance(self.install, str):
            return self.install
        return f"orchestrate agents install {self.name}"


@dataclass(frozen=True, kw_only=True)
class Upstream:
    """The one model server behind a gateway. `key_from` names the variable that holds its key."""

    kind: str
    base_url: str
    models: tuple[str, ...]
    key_from: str | None = None


class Gateway(Protocol):
    """A program that offers `dialects` and passes what it is asked on to a server of `upstream`."""

    @property
    def about(self) -> About:
        """The program; `dialects` are those that it offers."""
        ...

    @property
    def upstream(self) -> Dialect:
        """What the server behind it has to speak."""
        ...

    @property
    def health(self) -> str:
        """The path at which it answers with 200 as soon as it is up, without asking any model."""
        ...

    def command(self, program: str, upstream: Upstream, *, folder: str, key_from: str) -> Command:
        """What to start. It finds the socket to listen on as its stdin; whoever asks it something
        has the key that the variable `key_from` holds.
        """
        ...


class Conversation(Protocol):
    """The protocol state of one run, without I/O."""

    def start(self) -> Iterable[Update | Send]:
        """What to say first."""
        ...

    def feed(self, line: bytes) -> Iterable[Update | Send]:
        r"""What one line of stdout (or of a tail) means. Never empty for a line of stdout."""
        ...

    def interrupt(self) -> Iterable[Send]:
        """The cleanest stop that this CLI knows, before any signal."""
        ...

    def decide(self, permission: Permission) -> Iterable[Send]:
        """The answer to a permission that was asked for."""
        ...

    def close(self, exit: Exit) -> Iterable[Update]:
        """What the exit and the end of stderr mean. Nothing is fed afterwards."""
        ...


class Adapter(Protocol):
    """How one CLI is spoken to."""

    @property
    def about(self) -> About:
        """What the CLI is."""
        ...

    def command(self, task: Task, agent: Agent) -> Command:
        """What to start for this task. Raises ConfigError if the agent's options do not fit."""
        ...

    def conversation(self, task: Task, agent: Agent, before: Usage | None) -> Conversation:
        """A fresh conversation; `before` is the usage of the session that is resumed, if known."""
        ...


@runtime_checkable
class SpeaksForSeveral(Protocol):
    """What an adapter also is, if its CLI, or what that can be held to, depends on the agent."""

    def about_for(self, agent: Agent) -> About:
        """What this agent's CLI is. Raises ConfigError if the agent's options do not fit."""
        ...


@dataclass(frozen=True, kw_only=True)
class McpSetup:
    """The CLI's own commands that make an MCP server known to it for good: `show` fails if there is
    none of that name, else it prints the server's command. `note`: what the user must know then.
    """

    add: tuple[str, ...]
    remove: tuple[str, ...]
    show: tuple[str, ...]
    note: str | None = None


@runtime_checkable
class SetsUpMcp(Protocol):
    """What an adapter also is, if its CLI can be told to use an MCP server from now on."""

    def mcp_setup(self, program: str, server: McpServer) -> McpSetup:
        """The commands; `program` is the CLI's."""
        ...


def about_of(adapter: Adapter, agent: Agent) -> About:
    """What this agent's CLI is. Raises ConfigError if the agent's options do not fit."""
    return adapter.about_for(agent) if isinstance(adapter, SpeaksForSeveral) else adapter.about


@dataclass(frozen=True, kw_only=True)
class Front:
    """A command of the command line that an adapter brings: it becomes the adapter's program.

    Found by its name among the entry points `orchestrator.commands`. `argv` makes the command line
    of the program's absolute path and of the user's words, of which none is read before. `help` is
    a text for people, its first line short.
    """

    adapter: str
    help: str
    argv: Callable[[str, Sequence[str]], tuple[str, ...]]


def _nothing(exit: Exit) -> Iterable[Update]:
    del exit
    return ()


@dataclass(kw_only=True, eq=False)
class Monologue:
    """The part of a conversation that is the same for each CLI that only speaks: the prompt goes in
    with its command, it asks nothing that could be answered, and a signal is its only stop. `note`
    is said first.
    """

    note: str | None = None

    def start(self) -> Iterable[Update | Send]:
        """What is worth knowing of the run."""
        return () if self.note is None else (Notice(text=self.note),)

    def interrupt(self) -> Iterable[Send]:
        """Nothing: a signal is its only stop."""
        return ()

    def decide(self, permission: Permission) -> Iterable[Send]:
        """Nothing: it denies itself what it would have to ask for, or does it."""
        del permission
        return ()


@dataclass(kw_only=True)
class OneShot(Monologue):
    """The ready-made conversation: a prompt goes in once, lines come out, the exit may add a
    word.
    """

    parse: Callable[[bytes], Iterable[Update | Send]]
    ended: Callable[[Exit], Iterable[Update]] = _nothing

    def feed(self, line: bytes) -> Iterable[Update | Send]:
        """What the line means, by `parse`."""
        return self.parse(line)

    def close(self, exit: Exit) -> Iterable[Update]:
        """What the exit means, by `ended`."""
        return self.ended(exit)


# --- what every parser needs ---------------------------------------------------------------------

_HUGE = 2.0**63
# From 2^64 on orjson reads integers as floats: they would not be what the agent said.
_DEEP = 200
# orjson reads 1,024 levels and writes 254: what it cannot write again must stay raw.


def json_line(line: bytes) -> dict[str, JsonValue] | None:
    """The JSON object on a line, or None if the line is anything else.

    NUL bytes, a byte order mark and blanks around it are forgiven. What could not be written again
    inside an update (254 levels are the most), or not exactly (integers from 2^64 on), is None too.
    """
    value = read_line(line)
    return value if value is not None and (_is_plain(line) or exact(value, line)) else None


def _is_plain(line: bytes) -> bool:
    """Whether its bytes alone tell that all of it is exact: to look at each value takes longer."""
    flat = len(line) <= 2 * _DEEP or line.count(b"{") + line.count(b"[") <= _DEEP
    return flat and not _has_many_digits(line)


def read_line(line: bytes) -> dict[str, JsonValue] | None:
    """The same in half of the time, and not looked at so closely: what goes from there into an
    update as it stands (the input of a tool, say) must be `exact`.

    An integer from 2^64 on is a float here, so that it is none of the `int` that are looked for.
    """
    try:
        value: JsonValue = orjson.loads(line)
    except orjson.JSONDecodeError:
        return _read_bare(line)
    return value if isinstance(value, dict) else None


def _read_bare(line: bytes) -> dict[str, JsonValue] | None:
    bare = _bare(line)
    return read_line(bare) if bare != line and bare[:1] == b"{" else None


def exact(value: JsonValue, line: bytes) -> bool:
    """Whether what was read from the line can be written inside an update, as it stands there."""
    depth, huge = 0, False
    level = [value]
    while level:
        deeper: list[JsonValue] = []
        for one in level:
            if isinstance(one, dict):
                deeper += one.values()
            elif isinstance(one, list):
                deeper += one
            elif isinstance(one, float) and abs(one) >= _HUGE:
                huge = True
        level = deeper
        depth += 1
    if depth > _DEEP and not _writable(value):
        return False
    return not huge or not _has_many_digits(line)


def _writable(value: JsonValue) -> bool:
    try:
        orjson.dumps([[value]])  # as deep as in an update
    except TypeError:
        return False
    return True


_DIGITS = bytes(ord("0") if chr(byte).isdigit() and byte < 128 else byte for byte in range(256))
_TWENTY = b"0" * 20


def _has_many_digits(line: bytes) -> bool:
    """Whether there are as many in a row as an integer has that is read as a float."""
    # `find`, since `in` first tries to take bytes for a number: that took as long as all the rest.
    return line.translate(_DIGITS).find(_TWENTY) >= 0


def _bare(line: bytes) -> bytes:
    blanks = b"\x00 \t\r\n"
    return line.strip(blanks).removeprefix(b"\xef\xbb\xbf").lstrip(blanks)


def unparsed(line: bytes, reason: str | None = None) -> Update:
    """A line kept as it is: plain text becomes `Output`, JSON that nobody knows `Unparsed`."""
    text = line[:TEXT_LIMIT].decode("utf-8", "backslashreplace")
    if line[:1] == b"{" or _bare(line)[:1] == b"{":
        return Unparsed("stdout", text, _why_unparsed(line) if reason is None else reason)
    return Output("stdout", text)


def _why_unparsed(line: bytes) -> str:
    value = read_line(line)
    if value is None:
        return "it cannot be read as a JSON object"
    if not exact(value, line):
        return "it is nested too deeply, or has too large a number, to be kept exactly"
    return "no rule of the adapter matches"


def usage_since(now: Usage, before: Usage | None) -> Usage:
    """The delta between two cumulative usages, never below zero; unknown stays unknown.

    What `before` does not state was not counted yet: it starts at zero.
    """
    if before is None:
        return now

    return Usage(
        input_tokens=_less(now.input_tokens, before.input_tokens),
        output_tokens=_less(now.output_tokens, before.output_tokens),
        cache_read_tokens=_less(now.cache_read_tokens, before.cache_read_tokens),
        cache_write_tokens=_less(now.cache_write_tokens, before.cache_write_tokens),
        reasoning_tokens=_less(now.reasoning_tokens, before.reasoning_tokens),
        cost_usd=None
        if now.cost_usd is None
        else max(0.0, now.cost_usd - (before.cost_usd or 0.0)),
        cost_source=now.cost_source,
        scope=now.scope,
    )


def _less(one: int | None, other: int | None) -> int | None:
    return None if one is None else max(0, one - (other or 0))
