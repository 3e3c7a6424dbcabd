"""What claude says, line by line, and what is said to it: the prompt, an interrupt, the end."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import orjson

from adapters.blocks import call_usage, delta, plan_status, todos
from adapters.claude.command import prompt_of
from adapters.claude.ends import result_end, without_result
from adapters.claude.tools import WRITERS, begun, ended, missing
from adapters.claude.values import (
    call_end,
    instant,
    models_usage,
    prompt_size,
    seconds,
    usage_sum,
    used,
    window,
)
from adapters.reading import fields, first_line, hold, items, number, text, whole
from orchestrator.adapter import Exit, Send, exact, read_line, unparsed, usage_since
from orchestrator.events import (
    Context,
    CostSource,
    Message,
    MessageDelta,
    Notice,
    Permission,
    Plan,
    PlanEntry,
    RateLimit,
    Retry,
    SessionStarted,
    Subagent,
    Thought,
    ThoughtDelta,
    ToolCall,
    TurnStarted,
    Update,
    Usage,
)
from orchestrator.task import Task

if TYPE_CHECKING:
    from pydantic import JsonValue

_NOTHING_NEW = "known, and says nothing new"
_SYNTHETIC = "<synthetic>"
"""The model of messages that claude writes itself, such as "API Error: ..."."""
STEPS = 100
"""How long a plan may be that is kept step by step: it is told whole with each of them."""


def _nothing() -> Usage:
    return Usage(input_tokens=0, output_tokens=0, cache_read_tokens=0, cache_write_tokens=0)


@dataclass(kw_only=True)
class ClaudeConversation:
    """One run. `billed`: the cost that claude states is paid; `login`: nothing is, by the token.
    `counted`: the session's usage so far, None if that is not known. `sandboxed`: its commands are.
    """

    task: Task
    billed: bool
    login: bool
    counted: Usage | None
    sandboxed: bool = False
    _begun: bool = False
    _closed: bool = False
    _interrupted: bool = False
    # Of this turn: whether a tool did something, and whether its `result` came.
    _acted: bool = False
    _over: bool = False
    # Of the streamed message: its id, the block's, a piece of it without text, what the call used
    # so far, and how much of that was told.
    _message: str = ""
    _block: str = ":0"
    _silence: MessageDelta = field(default_factory=lambda: MessageDelta(id=":0", text=""))
    _call: Usage | None = None
    _told: Usage | None = None
    # What was told of calls since the last `result`.
    _calls: Usage = field(default_factory=_nothing)
    # Blocks seen by message, calls' names by id, denials, background tasks by the call's id; of
    # each only the latest are held.
    _blocks: dict[str, int] = field(default_factory=dict[str, int])
    _names: dict[str, str] = field(default_factory=dict[str, str])
    _denied: dict[str, None] = field(default_factory=dict[str, None])
    _background: dict[str, None] = field(default_factory=dict[str, None])
    _plan: dict[str, PlanEntry] = field(default_factory=dict[str, PlanEntry])

    def start(self) -> Iterator[Update | Send]:
        """The prompt, as a message."""
        if self.task.allowed == "edit" and self.sandboxed:
            yield Notice(text="access: edit, enforced by claude's own rules and sandbox")
        elif self.task.allowed == "edit":
            yield Notice(text="access: edit; claude keeps its edits to it, not its commands")
        message = {"role": "user", "content": prompt_of(self.task)}
        yield _line({"type": "user", "message": message})

    def interrupt(self) -> Iterator[Send]:
        """An interrupt by the control channel, as long as it is open."""
        if not self._closed:
            request = {"subtype": "interrupt"}
            yield _line({"type": "control_request", "request_id": "interrupt", "request": request})

    def decide(self, permission: Permission) -> Iterable[Send]:
        """Nothing: it is told not to ask."""
        del permission
        return ()

    def feed(self, line: bytes) -> Iterable[Update | Send]:
        """What a line of stdout means."""
        try:
            event: JsonValue = orjson.loads(line)  # nearly always; `read_line` is a step more
        except orjson.JSONDecodeError:
            event = read_line(line)
        if not isinstance(event, dict):
            return (unparsed(line),)
        # The type first and by itself: to try one mapping after the other takes ten times as long.
        kind = event.get("type")
        if kind == "stream_event" and isinstance(part := event.get("event"), dict):
            return self._streamed(part)
        if kind == "system" and isinstance(subtype := event.get("subtype"), str):
            if subtype == "thinking_tokens":
                return (ThoughtDelta("", self._block),)
            if subtype in _QUIET:
                return (unparsed(line, _NOTHING_NEW),)
            return self._system(subtype, event, line)
        if kind == "assistant" and isinstance(message := event.get("message"), dict):
            return self._assistant(event, message, line)
        if kind == "user" and isinstance(message := event.get("message"), dict):
            return self._user(event, message, line)
        return self._result(event, line) if kind == "result" else (_aside(event, line),)

    # --- messages

    def _streamed(self, part: Mapping[str, JsonValue]) -> Iterable[Update]:
        """A piece of the message that is being written; pieces without text are silence."""
        kind = part.get("type")
        if kind == "content_block_delta" and isinstance(piece := part.get("delta"), dict):
            if "partial_json" in piece:  # of the input of a tool: most lines
                return (self._silence,)
            return (delta(piece, self._block) or self._silence,)
        if kind == "message_start":
            return (self._begins(part.get("message")),)
        if kind == "message_delta":
            return self._answered(fields(part.get("usage")))
        if kind == "content_block_start" and isinstance(index := part.get("index"), int):
            self._at(self._message, index)
        return (self._silence,)

    def _at(self, message: str, block: int) -> None:
        """What comes is of this block of this message."""
        self._message, self._block = message, f"{message}:{block}"
        self._silence = MessageDelta("", self._block)

    def _begins(self, message: object) -> Update:
        begun = fields(message)
        id_ = begun.get("id")
        if not isinstance(id_, str):
            return self._silence
        self._at(id_, 0)
        self._told = None
        self._call = call_usage(begun.get("usage"), self._payer)
        return self._occupied()

    def _answered(self, counts: Mapping[str, object]) -> Sequence[Update]:
        """The end of a call: only now the tokens of the answer are known, and the call is told."""
        if self._call is None or whole(counts.get("output_tokens")) is None:
            return (self._occupied(),)
        self._call = call_end(self._call, counts)
        new = usage_since(self._call, self._told)
        self._told = self._call
        if not used(new):
            return (self._occupied(),)
        self._calls = usage_sum(self._calls, new)
        return (new, self._occupied())

    @property
    def _payer(self) -> CostSource | None:
        """Who will say what a call costs: claude does, with the turn's `result`."""
        if self.login:
            return "subscription"
        return "agent" if self.billed else None

    def _occupied(self) -> Update:
        if self._call is None:
            return Context()
        return Context(used=prompt_size(self._call) + (self._call.output_tokens or 0))

    def _assistant(
        self, event: Mapping[str, object], message: Mapping[str, JsonValue], line: bytes
    ) -> Sequence[Update]:
        """Blocks of a message, one a line."""
        id_, blocks = message.get("id"), message.get("content")
        if not isinstance(id_, str):
            id_ = ""
        told: list[Update] = []
        for block in blocks if isinstance(blocks, list) else ():
            number = self._blocks.get(id_, -1) + 1
            hold(self._blocks, id_, number)
            known = block if isinstance(block, dict) else {}
            if known.get("type") == "tool_use":
                said = self._asked(known, line)
            else:
                said = self._said(f"{id_}:{number}", known, message, event)
            told += said or (unparsed(line),)
        return told or (unparsed(line),)

    def _said(
        self,
        id_: str,
        block: Mapping[str, object],
        message: Mapping[str, object],
        event: Mapping[str, object],
    ) -> Sequence[Update]:
        kind, words, thought = block.get("type"), block.get("text"), block.get("thinking")
        if kind == "text" and isinstance(words, str):
            if message.get("model") == _SYNTHETIC:
                return (Notice(text=words),)  # a `result` with the same words follows
            # A sub-agent's words are no answer.
            alone = text(event.get("parent_tool_use_id")) is None
            return (Message(words, id_) if alone else Thought(words, id_),)
        if kind == "thinking" and isinstance(thought, str):
            return (Thought(thought, id_),)
        return ()

    def _asked(self, block: Mapping[str, JsonValue], line: bytes) -> Sequence[Update]:
        call, name, given = block.get("id"), block.get("name"), block.get("input")
        if not isinstance(call, str) or not isinstance(name, str):
            return ()
        if not isinstance(given, dict):
            given = {}
        if not exact(given, line):
            return ()
        hold(self._names, call, name)
        told: list[Update] = [begun(call, name, given)]
        if name == "TodoWrite":
            told.append(Plan(entries=todos(given.get("todos"))))
        if name in WRITERS and self.task.allowed == "read":
            told.append(self._denial(call, name, "access is `read`"))
        return told

    def _user(
        self, event: Mapping[str, JsonValue], message: Mapping[str, JsonValue], line: bytes
    ) -> Sequence[Update]:
        """Results of tools, and what claude says to the model in the user's name."""
        content = message.get("content")
        if isinstance(content, str) and content:
            return (self._in_the_users_name(content, event),)
        told: list[Update] = []
        for block in content if isinstance(content, list) else ():
            known = block if isinstance(block, dict) else {}
            kind, call, words = known.get("type"), known.get("tool_use_id"), known.get("text")
            if kind == "tool_result" and isinstance(call, str):
                told += self._returned(call, known, event.get("tool_use_result"))
            elif kind == "text" and isinstance(words, str):
                told.append(self._in_the_users_name(words, event))
            else:
                told.append(unparsed(line))
        return told or (unparsed(line),)

    def _in_the_users_name(self, words: str, event: Mapping[str, object]) -> Update:
        parent = text(event.get("parent_tool_use_id"))
        if parent is not None:
            return Subagent(id=parent, status="started")  # its prompt
        self._interrupted = self._interrupted or words.startswith(_INTERRUPTED)
        return Message(role="user", text=words)

    def _returned(
        self, call: str, result: Mapping[str, object], details: object
    ) -> Sequence[Update]:
        over = ended(call, result, details)
        if over.status == "failed":
            closed = missing(over.output or "")
            if closed is None or self.task.allowed != "read" or call in self._denied:
                return (over,)
            return (over, self._denial(call, closed, "access is `read`"))
        self._acted = True
        name = self._names.get(call, "")
        if call in self._background:
            over = ToolCall(id=call, output=over.output)  # it began: `task_notification` ends it
        if name in {"TaskCreate", "TaskUpdate"}:
            return (over, *self._planned(fields(details)))
        return (over,)

    def _planned(self, details: Mapping[str, object]) -> Iterator[Update]:
        """A plan that is kept step by step."""
        match details:
            case {"task": {"id": str(id_), "subject": str(subject)}}:
                if len(self._plan) == STEPS and id_ not in self._plan:
                    yield Notice(text=f"the plan is long: its latest {STEPS} steps are shown")
                hold(self._plan, id_, PlanEntry(text=subject, status="pending"), most=STEPS)
            case {"taskId": str(id_), "statusChange": {"to": str(status)}} if id_ in self._plan:
                step = self._plan.pop(id_) if status == "deleted" else self._plan[id_]
                if status != "deleted":
                    self._plan[id_] = replace(step, status=plan_status(status))
            case _:
                return
        yield Plan(entries=list(self._plan.values()))

    def _denial(self, call: str, tool: str, reason: str | None) -> Update:
        hold(self._denied, call, None)
        return Permission(id=call, status="denied", tool=tool, reason=reason)

    # --- claude's own words

    def _system(
        self, subtype: str, event: Mapping[str, object], line: bytes
    ) -> Iterator[Update | Send]:
        match subtype, event:
            case "init", {"session_id": str(session)}:
                yield from self._turn(session, event)
            case "api_retry", _:
                yield _retry(event)
            case "permission_denied", {"tool_use_id": str(call), "tool_name": str(tool)}:
                why = text(event.get("message")) or text(event.get("decision_reason")) or ""
                yield self._denial(call, tool, first_line(why.rpartition(_REQUIRED)[2]))
            case "task_started", _:
                yield from self._task_started(event, line)
            case "task_notification", _:
                yield from self._task_ended(event, line)
            case "informational", {"content": str(words)}:
                yield Notice(text=words)
            case "compact_boundary", _:
                yield Notice(text="claude summed up the conversation to make room")
            case "model_refusal_no_fallback", _:
                yield Notice(text="the model's safeguards stopped its answer")
            case _:
                yield unparsed(line)

    def _turn(self, session: str, event: Mapping[str, object]) -> Iterator[Update]:
        if not self._begun:
            self._begun = True
            tools = [tool for tool in items(event.get("tools")) if isinstance(tool, str)]
            model = text(event.get("model"))
            yield SessionStarted(session_id=session, model=model, tools=tools or None)
        self._acted = self._over = False
        yield TurnStarted()

    def _task_started(self, event: Mapping[str, object], line: bytes) -> Iterator[Update]:
        """A command or a sub-agent of its own; one in the background outlives its call."""
        call = text(event.get("tool_use_id"))
        if call is None:
            yield unparsed(line, _NOTHING_NEW)
            return
        if event.get("is_backgrounded") is not False:
            hold(self._background, call, None)
        match event:
            case {"task_type": "local_agent"}:
                kind = text(event.get("subagent_type"))
                yield Subagent(id=call, status="started", child_agent=kind)
            case _:
                yield Notice(text=f"runs on by itself: {event.get('description')}")

    def _task_ended(self, event: Mapping[str, object], line: bytes) -> Iterator[Update]:
        call, status = text(event.get("tool_use_id")), event.get("status")
        told = False
        if call in self._background:
            del self._background[call]
            told = True
            yield ToolCall(id=call, status="completed" if status == "completed" else "failed")
        if call is not None and self._names.get(call) in {"Agent", "Task"}:
            told = True
            yield Subagent(id=call, status="completed" if status == "completed" else "failed")
        if self._over and str(status) in {"completed", "failed"}:
            # The model is told of it, in a turn that is still to come.
            self._over, told = False, True
            yield TurnStarted()
        if not told:
            yield unparsed(line, _NOTHING_NEW)

    # --- ends

    def _result(self, event: Mapping[str, JsonValue], line: bytes) -> Iterator[Update | Send]:
        """A turn is over. Background tasks may bring another one, so that the last result counts;
        stdin is closed, so that claude ends when there is none.
        """
        end = result_end(event, acted=self._acted)
        if end is None:
            yield unparsed(line, "a result of a kind that is not known")
        else:
            yield from self._spent(event)
            for denial in items(event.get("permission_denials")):
                match denial:
                    case {"tool_use_id": str(call), "tool_name": str(tool)}:
                        if call not in self._denied:
                            yield self._denial(call, tool, None)
                    case _:
                        pass
            answer = event.get("structured_output")
            if answer is not None and not exact(answer, line):
                yield unparsed(line, "an answer that cannot be written again as it is")
            elif answer is not None:
                yield Message(text=orjson.dumps(answer).decode())
            yield from end
        self._over = True
        if not self._closed:
            self._closed = True
            yield Send(end=True)

    def _spent(self, event: Mapping[str, object]) -> Iterator[Update]:
        """The usage since the last result, less what was told of it call by call: sub-agents' and
        calls whose streams broke, and the cost. `usage` leaves out sub-agents, `modelUsage` counts
        all that the session ever used.
        """
        since, total = (
            models_usage(event.get(name), billed=self.billed)
            for name in ("model_usage_since_last_result", "modelUsage")
        )
        if since is None and total is not None and self.counted is not None:
            since = usage_since(total, self.counted)
        self.counted = total or self.counted
        spent = since or call_usage(event.get("usage"))
        if spent is not None:
            source = "subscription" if self.login else spent.cost_source
            rest = replace(usage_since(spent, self._calls), scope="turn", cost_source=source)
            if used(rest) or rest.cost_usd is not None or not used(self._calls):
                yield rest
            # What is more than the result knows of, the next one counts.
            self._calls = usage_since(self._calls, spent)
        size = window(event.get("modelUsage"))
        if size is not None:
            yield Context(size=size)

    def close(self, exit: Exit) -> Iterator[Update]:
        """Why it ended, if no `result` said so."""
        if not self._over and exit.signal is None:
            yield from without_result(exit, begun=self._begun, interrupted=self._interrupted)


_INTERRUPTED = "[Request interrupted by user"
_REQUIRED = "What required approval: "
_QUIET = frozenset(
    {
        "status",
        "ui_invalidate",
        "task_updated",
        "task_progress",
        "background_tasks_changed",
        "hook_started",
        "hook_progress",
        "hook_response",
        "files_persisted",
        "session_state_changed",
        "post_turn_summary",
    }
)


def _aside(event: Mapping[str, object], line: bytes) -> Update:
    """A line that is of no message, and not of the session."""
    match event:
        case {"type": "rate_limit_event", "rate_limit_info": {"status": str(status)}}:
            return _limited(status, fields(event["rate_limit_info"]))
        case {"type": "control_response", "response": {"error": str(why)}}:
            return Notice(text=f"claude refused a request: {why}")
        case {"type": "tool_progress", "tool_use_id": str(), "tool_name": str(name)}:
            return Notice(text=f"{name} is still running")
        case {"type": "control_response" | "keep_alive"}:
            return unparsed(line, _NOTHING_NEW)
        case _:
            return unparsed(line)


def _line(message: Mapping[str, object]) -> Send:
    return Send(data=orjson.dumps(message, option=orjson.OPT_APPEND_NEWLINE))


def _limited(status: str, limit: Mapping[str, object]) -> RateLimit:
    used = [
        f"{name} {share:.0%} used"
        for name, window_ in fields(limit.get("unifiedWindows")).items()
        if (share := number(fields(window_).get("utilization"))) is not None
    ]
    stated = ", ".join((status, *used))
    return RateLimit(
        status=stated, resets_at=instant(limit.get("resetsAt")), exhausted=status == "rejected"
    )


def _retry(event: Mapping[str, object]) -> Retry:
    status = whole(event.get("error_status"))
    reason = text(event.get("error")) or "a request failed"
    return Retry(
        reason=reason if status is None else f"{reason} (status {status})",
        attempt=whole(event.get("attempt")),
        of=whole(event.get("max_retries")),
        delay_s=seconds(event.get("retry_delay_ms")),
    )
