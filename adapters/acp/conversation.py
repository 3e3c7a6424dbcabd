"""What an agent says by the Agent Client Protocol, line by line, and what is said to it: greeting,
session, prompt, answers to its requests, a cancellation. The state of one run, without I/O.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import TypeAlias

from adapters.acp.calls import call_of, steps
from adapters.acp.ends import STOP_REASONS, failure, without_end
from adapters.acp.policy import Permissions, asks, denial, lasts, option_for
from adapters.acp.usage import chunk_usage, cost_of, result_usage
from adapters.acp.wire import (
    IDS,
    VERSION,
    Step,
    initialize,
    notify,
    prompt_of,
    request,
    selected,
    servers_of,
    unknown_method,
)
from adapters.reading import Pieces, fields, hold, is_object, items, text, whole
from orchestrator.adapter import Exit, Question, Send, json_line, unparsed
from orchestrator.events import (
    Context,
    Error,
    MessageDelta,
    Notice,
    Permission,
    Plan,
    SessionStarted,
    ThoughtDelta,
    ToolCall,
    TurnFinished,
    TurnStarted,
    Update,
    Usage,
)
from orchestrator.task import Task

Said: TypeAlias = Iterator[Update | Send]

_NOTHING_NEW = "known, and says nothing new"
_PAST = "of the session's past"
_TOLD: frozenset[Step] = frozenset({"initialize", "session", "prompt"})
"""Steps whose answer says something: of the others there may be none."""
_DOING: Mapping[Step, str] = {
    "initialize": "the agent would not begin",
    "authenticate": "it could not log in",
    "session": "it would not open a session",
    "mode": "it would not change its mode",
    "model": "it would not take the model",
    "prompt": "its turn failed",
}


@dataclass(frozen=True, kw_only=True)
class Manner:
    """How one agent is spoken to, beyond what the protocol settles.

    `named` is the model as our agent names it, which the CLI may name with more words. `auth` is
    the method to log in with, `mode` and `model` are set in the session; None: as it is.
    `cached_in_input`: it counts cached tokens among those read. `billed`: the cost that it states
    is paid. `last_call_only`: the usage that it tells is not the whole turn's. An answer of as many
    tokens as `answer_limit`, or one that fills the `window`, was cut, whatever it says.
    `has_last_word`: a turn that it ended well ends with words, not with a tool. `leave_s`: how long
    it may stay when its input is closed. `note` says what of the access it is not held to.
    """

    title: str
    named: str | None = None
    auth: str | None = None
    mode: str | None = None
    model: str | None = None
    permissions: Permissions = "access"
    cached_in_input: bool = True
    billed: bool = False
    last_call_only: bool = False
    answer_limit: int | None = None
    window: int | None = None
    has_last_word: bool = False
    leave_s: float = 5.0
    note: str | None = None


@dataclass(frozen=True, kw_only=True)
class _Asked:
    request: object
    options: object


@dataclass(kw_only=True)
class AcpConversation:
    """One run."""

    task: Task
    manner: Manner
    _step: Step = "initialize"
    _over: bool = False
    _cancelled: bool = False
    _session: str | None = None
    _capable: Mapping[str, object] = field(default_factory=dict[str, object])
    _opened: Mapping[str, object] = field(default_factory=dict[str, object])
    _asked: dict[str, _Asked] = field(default_factory=dict[str, _Asked])
    _pieces: Pieces = field(default_factory=Pieces)
    _message: int = 0
    _by_call: bool = False
    _last: Usage | None = None
    _worded: bool = False
    _denied: bool = False
    _cost: float | None = None

    def start(self) -> Said:
        """Who we are, and which version is spoken."""
        if self.manner.note is not None:
            yield Notice(text=self.manner.note)
        yield initialize()

    def interrupt(self) -> Iterator[Send]:
        """A cancellation; before there is anything to cancel, the end of its input."""
        for asked in self._asked.values():
            yield selected(asked.request, None)
        self._asked.clear()
        if self._session is None or self._step != "prompt" or self._over:
            yield Send(end=True)
            return
        self._cancelled = True
        yield notify("session/cancel", sessionId=self._session)

    def decide(self, permission: Permission) -> Iterator[Send]:
        """The answer to what the agent asked for, if it still waits for it."""
        asked = self._asked.pop(permission.id, None)
        if asked is not None:
            allow, always = permission.status == "granted", permission.always is True
            self._denied = self._denied or not allow
            yield selected(asked.request, option_for(asked.options, allow=allow, always=always))

    def feed(self, line: bytes) -> Iterable[Update | Send]:
        """What a line of stdout means."""
        message = json_line(line)
        if message is None:
            return (unparsed(line),)
        method, id_ = message.get("method"), message.get("id")
        if isinstance(method, str):
            if "id" not in message:
                return self._told(method, fields(message.get("params")), line)
            return self._requested(method, id_, fields(message.get("params")), line)
        if type(id_) is int and id_ == IDS[self._step] and not self._over:
            return self._answered(message)
        return (unparsed(line, "an answer to nothing that was asked"),)

    def close(self, exit: Exit) -> Iterator[Update]:
        """The reason where no answer gave one: what it left on stderr."""
        yield from self._pieces.take()
        if self._over or exit.signal is not None:
            return
        if self._cancelled:
            yield TurnFinished(stop_reason="cancelled")
        else:
            yield without_end(exit, self.manner.title)

    # --- answers to what was asked

    def _answered(self, message: Mapping[str, object]) -> Said:
        result = fields(message.get("result"))
        if "error" in message or (self._step in _TOLD and not result):
            yield from self._failed(message)
            return
        match self._step:
            case "initialize":
                yield from self._greeted(result)
            case "authenticate":
                yield from self._open()
            case "session":
                yield from self._began(result)
            case "mode":
                yield from self._choose_model()
            case "model":
                yield from self._prompt()
            case _:  # the prompt
                yield from self._ended(result)

    def _failed(self, message: Mapping[str, object]) -> Said:
        yield from self._pieces.take()
        error = message.get("error") or {"message": "it gave no result"}
        yield from self._end(failure(error, _DOING[self._step]))

    def _end(self, error: Error) -> Said:
        self._over = True
        cancelled = self._cancelled or error.kind == "cancelled"
        if not cancelled:
            yield error
        yield TurnFinished(stop_reason="cancelled" if cancelled else "error")
        yield self._bye()

    def _bye(self) -> Send:
        return Send(end=True, leave_s=self.manner.leave_s)

    def _greeted(self, result: Mapping[str, object]) -> Said:
        version = whole(result.get("protocolVersion"))
        self._capable = fields(result.get("agentCapabilities"))
        if version != VERSION:
            said = f"{self.manner.title} speaks version {version} of ACP, and we {VERSION}"
            yield from self._end(Error(kind="bad_usage", text=said, retryable=False))
        elif self.manner.auth is not None:
            yield Notice(text=f"logs in: {self.manner.auth}")
            yield self._ask("authenticate", "authenticate", methodId=self.manner.auth)
        else:
            yield from self._open()

    def _open(self) -> Said:
        """A new session, or the one to go on with; resumed where that tells nothing anew."""
        known = self.task.session_id
        place: dict[str, object] = {
            "cwd": str(self.task.workspace),
            "mcpServers": servers_of(self.task),
        }
        sessions = fields(self._capable.get("sessionCapabilities"))
        yield Notice(text="ACP: " + ("a new session" if known is None else f"resumes {known}"))
        if known is None:
            yield self._ask("session", "session/new", **place)
        elif is_object(sessions.get("resume")):
            yield self._ask("session", "session/resume", sessionId=known, **place)
        elif self._capable.get("loadSession") is True:
            yield self._ask("session", "session/load", sessionId=known, **place)
        else:
            said = f"{self.manner.title} cannot go on with a session"
            yield from self._end(Error(kind="bad_usage", text=said, retryable=False))

    def _began(self, result: Mapping[str, object]) -> Said:
        self._session = text(result.get("sessionId")) or self.task.session_id
        self._opened = result
        if self._session is None:
            yield from self._end(Error(kind="incomplete", text="its session has no id"))
            return
        model, named = _model(result), self.manner.named
        if named is not None and model is not None and named in model:
            model = named
        yield SessionStarted(session_id=self._session, model=model)
        if self.manner.mode is None:
            yield from self._choose_model()
        else:
            yield self._ask(
                "mode", "session/set_mode", sessionId=self._session, modeId=self.manner.mode
            )

    def _choose_model(self) -> Said:
        """By the session's option for it, or by the older method."""
        wanted = self.manner.model
        options = [fields(option) for option in items(self._opened.get("configOptions"))]
        named = [text(one.get("id")) for one in options if one.get("category") == "model"]
        if wanted is None:
            yield from self._prompt()
        elif named and named[0] is not None:
            yield Notice(text=f"ACP: takes the model {wanted}")
            yield self._ask(
                "model",
                "session/set_config_option",
                sessionId=self._session,
                configId=named[0],
                value=wanted,
            )
        else:
            yield Notice(text=f"ACP: takes the model {wanted}")
            yield self._ask("model", "session/set_model", sessionId=self._session, modelId=wanted)

    def _prompt(self) -> Said:
        yield TurnStarted()
        yield self._ask(
            "prompt", "session/prompt", sessionId=self._session, prompt=prompt_of(self.task)
        )

    def _ended(self, result: Mapping[str, object]) -> Said:
        yield from self._pieces.take()
        if not self._by_call and (used := result_usage(result)) is not None:
            if self.manner.last_call_only and self._message:
                said = f"{self.manner.title} tells the tokens of its last call only"
                yield Notice(text=said)
            yield self._spent(used)
        elif self._cost is not None and self.manner.billed:
            yield Usage(cost_usd=self._cost, cost_source="agent", scope="turn")
        reason = STOP_REASONS.get(str(result.get("stopReason")))
        if reason is None:
            said = f"its turn ended for a reason that is not known: {result.get('stopReason')}"
            yield from self._end(Error(kind="incomplete", text=said))
            return
        worded = self._worded or self._denied  # some end their turn where they were denied a thing
        if reason == "end_turn" and self.manner.has_last_word and not worded:
            said = f"{self.manner.title} ended its turn without an answer: the model's was broken"
            yield from self._end(Error(kind="incomplete", text=said, retryable=True))
            return
        self._over = True
        yield TurnFinished(stop_reason="max_tokens" if self._was_cut(result) else reason)
        yield self._bye()

    def _was_cut(self, result: Mapping[str, object]) -> bool:
        """Some say `end_turn` of an answer, too, that was cut at its limit (opencode, qwen)."""
        used, manner = self._last or result_usage(result), self.manner
        if used is None or used.output_tokens is None:
            return False
        wrote = used.output_tokens + (used.reasoning_tokens or 0)
        cached = 0 if manner.cached_in_input else used.cache_read_tokens or 0
        read = (used.input_tokens or 0) + cached
        full = manner.window is not None and read + wrote >= manner.window
        return full or (manner.answer_limit is not None and wrote >= manner.answer_limit)

    def _ask(self, step: Step, method: str, **params: object) -> Send:
        self._step = step
        return request(step, method, **params)

    def _spent(self, used: Usage) -> Usage:
        cached = used.cache_read_tokens
        if self.manner.cached_in_input and cached and used.input_tokens is not None:
            used = replace(used, input_tokens=max(0, used.input_tokens - cached))
        if self._cost is None or not self.manner.billed:
            return used
        return replace(used, cost_usd=self._cost, cost_source="agent")

    # --- what it asks for

    def _requested(
        self, method: str, id_: object, params: Mapping[str, object], line: bytes
    ) -> Said:
        call = fields(params.get("toolCall"))
        told = call_of(call)
        if method != "session/request_permission":
            yield unparsed(line, f"a request that is not served here: {method}")
            yield unknown_method(id_, method)
        elif told is None or self._over:
            yield unparsed(line, "asks for a permission for no tool call")
            yield selected(id_, None)
        else:
            yield from self._pieces.take()
            yield told  # some agents tell of a call here first
            yield from self._permission(id_, told, call, params.get("options"))

    def _permission(
        self, id_: object, told: ToolCall, call: Mapping[str, object], options: object
    ) -> Said:
        name, tool = told.id, text(call.get("title")) or text(call.get("kind"))
        permissions = self.manner.permissions
        why = denial(call, self.task, permissions)
        if why is None and asks(call, self.task, permissions):
            asked = Permission(id=name, status="requested", tool=tool)
            hold(self._asked, name, _Asked(request=id_, options=options))
            yield asked
            yield Send(question=Question(permission=asked, call=told, always=lasts(options)))
            return
        option = option_for(options, allow=why is None)
        if why is None and option is None:
            why = "none of its options allows it"
        self._denied = self._denied or why is not None
        yield Permission(
            id=name, status="granted" if why is None else "denied", tool=tool, reason=why
        )
        yield selected(id_, option)

    # --- what it tells

    def _told(self, method: str, params: Mapping[str, object], line: bytes) -> Said:
        update = fields(params.get("update"))
        kind = update.get("sessionUpdate")
        if method != "session/update" or not isinstance(kind, str):
            yield unparsed(line)
        elif self._step == "session":
            yield unparsed(line, _PAST)
        elif self._session is not None and params.get("sessionId") != self._session:
            yield unparsed(line, "of another session")
        else:
            yield from self._update(kind, update, line)

    def _update(self, kind: str, update: Mapping[str, object], line: bytes) -> Said:
        match kind:
            case "agent_message_chunk" | "agent_thought_chunk":
                yield from self._chunk(kind, update, line)
            case "tool_call" | "tool_call_update":
                yield from self._pieces.take()
                self._message += 1
                self._worded = False
                yield call_of(update) or unparsed(line)
            case "plan":
                yield from self._pieces.take()
                yield Plan(entries=steps(update.get("entries")))
            case "usage_update":
                self._cost = cost_of(update) or self._cost
                yield Context(used=whole(update.get("used")), size=whole(update.get("size")))
            case _ if kind in _KNOWN:
                yield unparsed(line, _NOTHING_NEW)
            case _:
                yield unparsed(line)

    def _chunk(self, kind: str, update: Mapping[str, object], line: bytes) -> Said:
        said = fields(update.get("content")).get("text")
        used = chunk_usage(update)
        if isinstance(said, str) and said:
            id_ = text(update.get("messageId")) or f"message-{self._message}"
            delta = MessageDelta if kind == "agent_message_chunk" else ThoughtDelta
            piece = delta(id=id_, text=said)
            self._worded = self._worded or kind == "agent_message_chunk"
            yield from self._pieces.add(piece)
            yield piece
        elif used is None:
            yield unparsed(line, _NOTHING_NEW if said == "" else "a piece without text")
        if used is not None:
            self._by_call, self._last = True, used
            yield self._spent(used)


_KNOWN = frozenset(
    {
        "available_commands_update",
        "config_option_update",
        "current_mode_update",
        "session_info_update",
        "user_message_chunk",
    }
)


def _model(opened: Mapping[str, object]) -> str | None:
    """The session's model, as the agent names it: by its option for it, or by the older list."""
    for option in map(fields, items(opened.get("configOptions"))):
        if option.get("category") == "model":
            return text(option.get("currentValue"))
    return text(fields(opened.get("models")).get("currentModelId"))
