"""What codex says: lines of stdout, and of its session log, which tells what stdout does not."""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, TypeAlias

import orjson

from adapters.codex.items import (
    CALLS,
    CUT,
    PANIC,
    asked,
    call_status,
    failure,
    never_began,
    plain,
    plan_entries,
    unknown_call,
    unwrapped,
)
from adapters.codex.values import first_line, instant, usage
from adapters.reading import MOST, fields, hold, whole
from orchestrator.adapter import (
    TEXT_LIMIT,
    Exit,
    Monologue,
    exact,
    read_line,
    unparsed,
    usage_since,
)
from orchestrator.events import (
    Context,
    Error,
    ErrorKind,
    Message,
    Notice,
    Permission,
    Plan,
    RateLimit,
    Retry,
    SessionStarted,
    Thought,
    ToolCall,
    TurnFinished,
    TurnStarted,
    Update,
    Usage,
)

if TYPE_CHECKING:
    from pydantic import JsonValue

_RETRY = re.compile(r"Reconnecting\.\.\. ([0-9]{1,9})/([0-9]{1,9})(?: \((.*)\))?", re.DOTALL)
_ROUTER = re.compile(r"ERROR codex_core::tools::router: error=(.*)")
_REJECTED = re.compile(r"rejected by|rejected:|reject command|requires approval")
_EXITED = re.compile(r"Process exited with code (-?[1-9][0-9]{0,8})\n.*?Output:\n(.*)", re.DOTALL)
_SANDBOX_SAYS = re.compile(r"read-only file system|operation not permitted", re.IGNORECASE)
# How the answers of these tools begin when they ran; any other answer is an error of codex.
_RAN = ("Chunk ID:", "Wall time:", "Exit code:")
_ALL = 100
_RUNNERS = frozenset({"exec_command", "write_stdin", "apply_patch"})


def _latest() -> deque[Mapping[str, object]]:
    return deque(maxlen=MOST)


@dataclass(kw_only=True)
class CodexConversation(Monologue):
    """One run. `session` is the thread's id, once known; `counted` its usage that was told so far.

    Usage is cumulative per thread, on stdout and in the log: whichever comes first is told, and the
    other adds nothing. None: a resumed thread whose usage is not known; the log then tells it.
    """

    model: str | None
    session: str | None
    counted: Usage | None
    _begun: bool = False
    _ended: bool = False
    _aborted: bool = False
    _acted: bool = False
    _answered: bool = False
    _trouble: str | None = None
    _limit: RateLimit | None = None
    _running: set[str] = field(default_factory=set[str])
    # Of the log: records from before the thread's id was known, our turns, the window of each turn,
    # calls by id (tool, what it was asked), those that ran, first lines of answers of the others.
    # Only the latest of each are held.
    _early: deque[Mapping[str, object]] = field(default_factory=_latest)
    _turns: dict[str, None] = field(default_factory=dict[str, None])
    _windows: dict[str, int] = field(default_factory=dict[str, int])
    _calls: dict[str, tuple[str, str]] = field(default_factory=dict[str, tuple[str, str]])
    _ran: dict[str, None] = field(default_factory=dict[str, None])
    _stopped: dict[str, None] = field(default_factory=dict[str, None])

    def feed(self, line: bytes) -> Iterable[Update]:
        """What a line of stdout means, or of the session log (which may mean nothing)."""
        try:
            event: JsonValue = orjson.loads(line)  # nearly always; `read_line` is a step more
        except orjson.JSONDecodeError:
            event = read_line(line)
        if not isinstance(event, dict):
            return (unparsed(line),)
        # The type by itself: to try one mapping after the other takes ten times as long.
        kind, item = event.get("type"), event.get("item")
        if isinstance(item, dict):
            over = kind == "item.completed"
            if item.get("type") == "command_execution":
                return self._command(item, over, line)
            return self._item(item, over, line)
        said = _LINES.get(kind) if isinstance(kind, str) else None
        return _other(self, event, line) if said is None else said(self, event, line)

    # --- stdout

    def thread(self, event: Mapping[str, JsonValue], line: bytes) -> Iterator[Update]:
        """It begins, or goes on."""
        id_ = event.get("thread_id")
        if not isinstance(id_, str):
            yield unparsed(line)
            return
        if self.session not in {None, id_}:
            text = f"codex did not go on with session {self.session}: it began a new one"
            yield Notice(text=text)
        self.session, self._begun = id_, True
        yield SessionStarted(session_id=id_, model=self.model)
        early, self._early = self._early, _latest()
        for record in early:
            yield from self._log(record)

    def turn(self, event: Mapping[str, JsonValue], line: bytes) -> Iterable[Update]:
        """A turn begins."""
        del event, line
        self._acted = self._answered = self._ended = False
        return (TurnStarted(),)

    def completed(self, event: Mapping[str, JsonValue], line: bytes) -> Iterator[Update]:
        """A turn ends, codex says well."""
        del line
        self._ended = True
        total = usage(event.get("usage"), scope="turn")
        if total is not None:
            yield from self._count(total)
        if self._answered:
            yield TurnFinished(stop_reason="end_turn")
            return
        # A refusal, or thinking without an answer: to codex that is completed, without a word.
        why = "the model refused, or stopped after thinking"
        yield Error(kind="incomplete", text=f"codex ended its turn without an answer: {why}")
        yield TurnFinished(stop_reason="error")

    def failed(self, event: Mapping[str, JsonValue], line: bytes) -> Iterable[Update]:
        """A turn ends with an error."""
        match event:
            case {"error": {"message": str(text)}}:
                return self._failed(text)
            case _:
                return (unparsed(line),)

    def _failed(self, text: str) -> Iterator[Update]:
        self._ended = True
        yield failure(text)
        match CUT.search(text):
            case None:
                yield TurnFinished(stop_reason="error")
            case cut if cut[1] == "content_filter":
                yield TurnFinished(stop_reason="refusal")
            case _:
                yield TurnFinished(stop_reason="max_tokens")

    def warned(self, event: Mapping[str, JsonValue], line: bytes) -> Iterable[Update]:
        """An `error` of its own: mostly a retry. A final one is told again by `turn.failed`."""
        text = event.get("message")
        if not isinstance(text, str):
            return (unparsed(line),)
        if (found := _RETRY.fullmatch(text)) is not None:
            reason = plain(found[3] or text)
            return (Retry(reason=reason, attempt=int(found[1]), of=int(found[2])),)
        self._trouble = text
        return (Notice(text=plain(text)),)

    def _command(self, item: dict[str, JsonValue], over: bool, line: bytes) -> tuple[Update, ...]:
        """A command that it runs: most lines, so that no step is taken that is not needed."""
        id_, command, stated = item.get("id"), item.get("command"), item.get("status")
        output, code = item.get("aggregated_output"), item.get("exit_code")
        if not isinstance(id_, str) or not isinstance(command, str):
            return self._item(item, over, line)
        call = ToolCall(
            id_,
            "completed" if stated == "completed" else call_status(stated, over),
            "execute",
            unwrapped(command),
            None,
            output[:TEXT_LIMIT] if isinstance(output, str) and output else None,
            None,
            None,
            code if type(code) is int else None,
        )
        return self._took(call, stated, over)

    def _item(self, item: dict[str, JsonValue], over: bool, line: bytes) -> tuple[Update, ...]:
        """What it thinks, says and does."""
        id_, kind, stated = item.get("id"), item.get("type"), item.get("status")
        if not isinstance(id_, str):
            id_ = str(id_)
        read = CALLS.get(kind) if isinstance(kind, str) else None
        if read is not None:
            call = read(id_, call_status(stated, over), item)
        elif (word := self._word(id_, kind, item)) is not None:
            return (word,)
        else:
            call = unknown_call(id_, call_status(stated, over), item)
        if call is None or (call.input is not None and not exact(item, line)):
            return (unparsed(line),)
        return self._took(call, stated, over)

    def _took(self, call: ToolCall, stated: object, over: bool) -> tuple[Update, ...]:
        """A call, begun or over."""
        id_ = call.id
        if id_ not in self._running:
            self._acted, self._answered = True, False  # the answer comes after the last call
        if over:
            self._running.discard(id_)
        else:
            self._running.add(id_)
        if stated == "declined":
            return (call, Permission(id=id_, status="denied", tool=call.title))
        return (call,)

    def _word(self, id_: str, kind: object, item: Mapping[str, object]) -> Update | None:
        """An item that is no call."""
        said, message = item.get("text"), item.get("message")
        if kind == "agent_message" and isinstance(said, str):
            self._answered = self._acted or self._answered or bool(said.strip())
            return Message(said, id_)
        if kind == "reasoning" and isinstance(said, str):
            return Thought(said, id_)
        if kind == "todo_list":
            return Plan(id=id_, entries=list(plan_entries(item.get("items"))))
        if kind == "error" and isinstance(message, str):
            return Notice(text=message)
        return None

    def log(self, record: object) -> Iterable[Update]:
        """The payload of a line of the session log."""
        return self._log(fields(record))

    # --- the session log

    def _log(self, record: Mapping[str, object]) -> Iterator[Update]:
        """The payload of a line of a log; in the user's own home that may be another thread's."""
        if self.session is None:
            self._early.append(record)
            return
        match record:
            case {"type": "task_started", "turn_id": str(turn), "model_context_window": int(size)}:
                hold(self._windows, turn, size)
            case {"thread_id": self.session, "turn_id": str(turn), "thread_token_usage": dict()}:
                hold(self._turns, turn, None)
                yield from self._model_call(record, self._windows.get(turn))
            case {"type": "item_completed", "thread_id": self.session, "turn_id": str(turn)}:
                hold(self._turns, turn, None)
                hold(self._ran, str(fields(record.get("item")).get("id")), None)
            case {"type": "turn_aborted", "turn_id": str(turn)} if turn in self._turns:
                self._aborted = True
            case {"call_id": str(call), "name": str(name)}:
                wanted = asked(record.get("arguments") or record.get("input"))
                hold(self._calls, call, (name, wanted))
            case {
                "call_id": str(call),
                "output": str(output),
                "internal_chat_message_metadata_passthrough": {"turn_id": str(turn)},
            } if turn in self._turns:
                yield from self._tool_answer(call, output)
            case {"rate_limits": {"primary": dict()} as limits}:
                yield from self._limited(fields(fields(limits).get("primary")))
            case _:
                pass

    def _model_call(self, call: Mapping[str, object], size: int | None) -> Iterator[Update]:
        total = usage(call.get("thread_token_usage"))
        if total is None:
            return
        if self.counted is None:
            self.counted = usage_since(total, usage(call.get("turn_token_usage")))
        yield from self._count(total)
        used = whole(fields(call.get("usage")).get("total_tokens"))
        yield Context(used=used, size=size)

    def _tool_answer(self, call: str, output: str) -> Iterator[Update]:
        """A tool's answer to the model: told if stdout is silent, as it was stopped or not run."""
        name, wanted = self._calls.get(call, ("", ""))
        if name not in _RUNNERS or call in self._ran:
            return
        title = wanted or name
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
        hold(self._stopped, first_line(output), None)
        yield ToolCall(
            id=id_,
            status="failed",
            kind="execute",
            title=title or None,
            output=output[:TEXT_LIMIT],
            exit_code=exit_code,
        )
        if denied is not None:
            tool, reason = first_line(title), first_line(denied)
            yield Permission(id=id_, status="denied", tool=tool or None, reason=reason)

    def _limited(self, primary: Mapping[str, object]) -> Iterator[Update]:
        match primary:
            case {"used_percent": int() | float() as used}:
                at = instant(primary.get("resets_at"))
                all_used = used >= _ALL
                limit = RateLimit(status=f"{used:g}% used", resets_at=at, exhausted=all_used)
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
            self.counted = total
            yield delta

    # --- the end

    def close(self, exit: Exit) -> Iterator[Update]:
        """The calls that only stderr names, and why it ended, if stdout did not say."""
        for number, found in enumerate(_ROUTER.finditer(exit.stderr), 1):
            if found[1] not in self._stopped:
                denied = found[1] if _REJECTED.search(found[1]) else None
                yield from self._stop(f"stderr-{number}", "", found[1], denied)
        if self._ended or exit.signal is not None:
            return
        if self._aborted:
            yield TurnFinished(stop_reason="cancelled")
        elif self._trouble is not None:
            yield failure(self._trouble)
        elif self._begun:
            kind: ErrorKind = "crashed" if exit.status == PANIC else "incomplete"
            yield Error(
                kind=kind, text=f"codex ended (exit {exit.status}) before its turn was over"
            )
        else:
            yield never_began(exit)


def _other(
    conversation: CodexConversation, event: Mapping[str, JsonValue], line: bytes
) -> Iterable[Update]:
    """A line of a type that stdout is not known to have."""
    match event:
        case {"type": str(), "timestamp": str(), "payload": dict()}:
            return conversation.log(event["payload"])
        case _:
            return (unparsed(line),)


_Line: TypeAlias = "Callable[[CodexConversation, Mapping[str, JsonValue], bytes], Iterable[Update]]"
_LINES: Mapping[str, _Line] = {
    "thread.started": CodexConversation.thread,
    "turn.started": CodexConversation.turn,
    "turn.completed": CodexConversation.completed,
    "turn.failed": CodexConversation.failed,
    "error": CodexConversation.warned,
}
