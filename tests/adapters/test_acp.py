"""The Agent Client Protocol: what is said, held against the official schema, and what is heard."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest
from acp import schema
from pydantic import BaseModel

from adapters.acp import AcpConversation, Manner
from adapters.acp.calls import call_of
from adapters.acp.options import merged, options_of
from adapters.acp.wire import IDS
from orchestrator.adapter import Agent, Exit, Send
from orchestrator.errors import ConfigError
from orchestrator.events import (
    Context,
    Error,
    Location,
    Message,
    MessageDelta,
    Notice,
    Permission,
    Plan,
    PlanEntry,
    SessionStarted,
    Thought,
    ThoughtDelta,
    ToolCall,
    TurnFinished,
    TurnStarted,
    Unparsed,
    Update,
    Usage,
)
from orchestrator.task import McpServer, Task
from tests.recordings import RECORDINGS

WORK = Path("/repo")
TASK = Task(prompt="Fix it.", workspace=WORK, kind="fix")
SERVER = McpServer(name="our tools", command=("/bin/tools", "-v"), env={"A_TOKEN": "secret"})
SPOKEN: Mapping[str, type[BaseModel]] = {
    "initialize": schema.InitializeRequest,
    "authenticate": schema.AuthenticateRequest,
    "session/new": schema.NewSessionRequest,
    "session/load": schema.LoadSessionRequest,
    "session/resume": schema.ResumeSessionRequest,
    "session/set_mode": schema.SetSessionModeRequest,
    "session/set_config_option": schema.SetSessionConfigOptionSelectRequest,
    "session/prompt": schema.PromptRequest,
    "session/cancel": schema.CancelNotification,
}
AGENT = Manner(title="agent")
OPTIONS = [
    {"optionId": "yes!", "name": "Always", "kind": "allow_always"},
    {"optionId": "yes", "name": "Once", "kind": "allow_once"},
    {"optionId": "no", "name": "No", "kind": "reject_once"},
]


@dataclass
class Talk:
    """A conversation, its updates, and what it sent, each held against the schema."""

    task: Task = TASK
    manner: Manner = AGENT
    said: list[Update] = field(default_factory=list[Update])
    sent: list[dict[str, Any]] = field(default_factory=list[dict[str, Any]])
    ended: list[Send] = field(default_factory=list[Send])
    questions: list[Send] = field(default_factory=list[Send])

    def __post_init__(self) -> None:
        self.conversation = AcpConversation(task=self.task, manner=self.manner)
        self.take(self.conversation.start())

    def take(self, spoken: Any) -> list[Update]:
        fresh: list[Update] = []
        for one in spoken:
            if not isinstance(one, Send):
                fresh.append(one)
                continue
            if one.end:
                self.ended.append(one)
            if one.question is not None:
                self.questions.append(one)
            for line in one.data.splitlines():
                message = json.loads(line)
                valid(message)
                self.sent.append(message)
        self.said += fresh
        return fresh

    def hear(self, **message: Any) -> list[Update]:
        fresh = self.take(
            self.conversation.feed(json.dumps({"jsonrpc": "2.0", **message}).encode())
        )
        assert fresh, "each line says something, or it would be lost"
        return fresh

    def result(self, step: Any, result: Any) -> list[Update]:
        return self.hear(id=IDS[step], result=result)

    def update(self, sort: str, **fields: Any) -> list[Update]:
        update = {"sessionUpdate": sort, **fields}
        return self.hear(method="session/update", params={"sessionId": "s", "update": update})

    def begun(self, **capable: Any) -> "Talk":
        self.result("initialize", {"protocolVersion": 1, "agentCapabilities": capable})
        self.result("session", {"sessionId": "s"})
        return self

    def asked(self, call: Mapping[str, Any], options: Any = OPTIONS) -> list[Update]:
        params = {"sessionId": "s", "toolCall": call, "options": options}
        return self.hear(id=7, method="session/request_permission", params=params)


def valid(message: Mapping[str, Any]) -> None:
    """Raises unless the message is one of the protocol's."""
    assert message["jsonrpc"] == "2.0"
    if "method" in message and message["method"] != "session/set_model":
        SPOKEN[message["method"]].model_validate(message["params"])
    elif "result" in message:
        schema.RequestPermissionResponse.model_validate(message["result"])
    elif "error" in message:
        schema.Error.model_validate(message["error"])


def of(kind: Any, said: list[Update]) -> list[Any]:
    return [one for one in said if isinstance(one, kind)]


# --- a whole turn


def test_a_turn_goes_from_the_greeting_to_the_end_of_its_input() -> None:
    task = replace(TASK, files=("a.py",), mcp_servers=(SERVER,))
    talk = Talk(task).begun()
    assert of(SessionStarted, talk.said) == [SessionStarted(session_id="s")]
    assert of(TurnStarted, talk.said)
    talk.update("agent_thought_chunk", content={"type": "text", "text": "Let me "})
    talk.update("agent_thought_chunk", content={"type": "text", "text": "think."})
    talk.update("agent_message_chunk", content={"type": "text", "text": "I "})
    talk.update("agent_message_chunk", content={"type": "text", "text": "do."})
    talk.update("tool_call", toolCallId="1", title="ls", kind="execute", status="pending")
    talk.update("tool_call_update", toolCallId="1", status="completed")
    talk.update("agent_message_chunk", content={"type": "text", "text": "Done."})
    talk.result("prompt", {"stopReason": "end_turn"})
    assert of(Thought, talk.said) == [Thought(id="message-0", text="Let me think.")]
    assert [one.text for one in of(Message, talk.said)] == ["I do.", "Done."]
    assert len(of(MessageDelta, talk.said)) == 3
    assert len(of(ThoughtDelta, talk.said)) == 2
    assert talk.said[-1] == TurnFinished(stop_reason="end_turn")
    assert talk.ended == [Send(end=True, leave_s=5.0)]
    methods = [message["method"] for message in talk.sent]
    assert methods == ["initialize", "session/new", "session/prompt"]
    assert talk.sent[0]["params"]["clientCapabilities"]["fs"] == {
        "readTextFile": False,
        "writeTextFile": False,
    }
    assert talk.sent[1]["params"]["mcpServers"] == [
        {
            "name": "our_tools",
            "command": "/bin/tools",
            "args": ["-v"],
            "env": [{"name": "A_TOKEN", "value": "secret"}],
        }
    ]
    assert "- a.py" in talk.sent[2]["params"]["prompt"][0]["text"]


def test_what_is_sent_and_what_real_agents_say_keeps_to_the_schema() -> None:
    """Of each recording: every request is valid as it goes out, every update as it comes in."""
    known = 0
    for recording in RECORDINGS:
        if recording.facts["adapter"] not in {"gemini", "opencode", "qwen"}:
            continue
        for line in recording.stdout.splitlines():
            if line.startswith(b'{"jsonrpc"'):
                known += heard(json.loads(line))
    assert known > 100


def heard(message: Mapping[str, Any]) -> int:
    """How many messages were held against the schema."""
    match message:
        case {"method": "session/update", "params": params}:
            schema.SessionNotification.model_validate(params)
        case {"method": "session/request_permission", "params": params}:
            schema.RequestPermissionRequest.model_validate(params)
        case {"id": 1, "result": result}:
            schema.InitializeResponse.model_validate(result)
        case {"id": 6, "result": result}:
            schema.PromptResponse.model_validate(result)
        case _:
            return 0
    return 1


def test_it_logs_in_sets_mode_and_model_before_the_prompt_where_that_is_wanted() -> None:
    talk = Talk(manner=Manner(title="agent", auth="key", mode="code", model="m"))
    talk.result("initialize", {"protocolVersion": 1})
    talk.result("authenticate", None)
    talk.result("session", {"sessionId": "s", "models": {"currentModelId": "other"}})
    talk.result("mode", {})
    talk.result("model", {})
    assert [message["method"] for message in talk.sent] == [
        "initialize",
        "authenticate",
        "session/new",
        "session/set_mode",
        "session/set_model",
        "session/prompt",
    ]
    assert of(SessionStarted, talk.said)[0].model == "other"


def test_the_model_is_set_by_the_sessions_own_option_for_it() -> None:
    talk = Talk(manner=Manner(title="agent", model="m"))
    talk.result("initialize", {"protocolVersion": 1})
    option = {"id": "which", "category": "model", "currentValue": "x"}
    talk.result("session", {"sessionId": "s", "configOptions": [{"id": "mode"}, option]})
    assert talk.sent[-1]["params"] == {"sessionId": "s", "configId": "which", "value": "m"}
    assert of(SessionStarted, talk.said)[0].model == "x"


def test_a_model_that_the_agent_names_with_more_words_is_ours() -> None:
    talk = Talk(manner=Manner(title="agent", named="coder"))
    talk.result("initialize", {"protocolVersion": 1})
    talk.result("session", {"sessionId": "s", "models": {"currentModelId": "$run|coder(openai)"}})
    assert of(SessionStarted, talk.said)[0].model == "coder"


# --- a session that goes on

RESUME = replace(TASK, session_id="old")


@pytest.mark.parametrize(
    ("capable", "method"),
    [
        ({"loadSession": True, "sessionCapabilities": {"resume": {}}}, "session/resume"),
        ({"loadSession": True}, "session/load"),
    ],
)
def test_a_session_goes_on_and_its_past_is_not_this_run(capable: Any, method: str) -> None:
    talk = Talk(RESUME)
    talk.result("initialize", {"protocolVersion": 1, "agentCapabilities": capable})
    assert talk.sent[-1]["method"] == method
    assert talk.sent[-1]["params"]["sessionId"] == "old"
    past = talk.update("agent_message_chunk", content={"type": "text", "text": "Then."})
    assert isinstance(past[0], Unparsed)
    talk.result("session", {"modes": None})
    assert of(SessionStarted, talk.said)[0].session_id == "old"
    assert not of(Message, talk.said)


def test_an_agent_that_cannot_go_on_says_so() -> None:
    talk = Talk(RESUME)
    talk.result("initialize", {"protocolVersion": 1, "agentCapabilities": {}})
    assert of(Error, talk.said)[0].kind == "bad_usage"
    assert talk.ended


# --- failures

INTERNAL = {"code": -32603, "message": "Internal error"}


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        ({"code": -32000, "message": "Authentication required"}, "auth_failed"),
        ({"code": -32000, "message": "Please begin"}, "auth_failed"),
        ({"code": -32601, "message": "?"}, "bad_usage"),
        ({**INTERNAL, "data": "connect ECONNREFUSED"}, "unavailable"),
        ({"code": -32603, "message": "x", "data": {"status": 429}}, "rate_limited"),
        ({"code": 500, "message": "Error"}, "server_error"),
        ({"code": 404, "message": "Nothing here"}, "model_not_found"),
        ({**INTERNAL, "data": {"details": "prompt is too long"}}, "context_overflow"),
        ({**INTERNAL, "data": {"why": "quota"}}, "rate_limited"),
        ({"code": -1, "message": "Strange"}, "unknown"),
        ({}, "unknown"),
        ("x", "unknown"),
    ],
)  # fmt: skip
def test_an_error_of_the_agents_is_of_a_kind(error: Any, kind: str) -> None:
    talk = Talk().begun()
    said = talk.hear(id=IDS["prompt"], error=error)
    found = of(Error, said)[0]
    assert found.kind == kind
    assert "None" not in found.text or error in ({}, "x")
    assert said[-1] == TurnFinished(stop_reason="error")
    assert talk.ended


def test_an_error_says_the_same_only_once() -> None:
    talk = Talk().begun()
    long = "Connection refused\n" + "x" * 2000
    said = talk.hear(id=6, error={"code": 1, "message": "Connection refused", "data": long})
    assert of(Error, said)[0].text == "its turn failed: Connection refused"


@pytest.mark.parametrize("step", ["initialize", "session", "prompt"])
def test_a_step_without_its_result_is_a_failure(step: Any) -> None:
    talk = Talk()
    if step != "initialize":
        talk.result("initialize", {"protocolVersion": 1})
    if step == "prompt":
        talk.result("session", {"sessionId": "s"})
    talk.result(step, None)
    assert of(Error, talk.said)
    assert of(TurnFinished, talk.said)[0].stop_reason == "error"


def test_another_version_of_the_protocol_is_not_spoken() -> None:
    talk = Talk()
    talk.result("initialize", {"protocolVersion": 2})
    assert "version 2" in of(Error, talk.said)[0].text


def test_a_session_without_an_id_is_a_failure() -> None:
    talk = Talk()
    talk.result("initialize", {"protocolVersion": 1})
    talk.result("session", {"modes": {}})
    assert of(Error, talk.said)[0].kind == "incomplete"


def test_a_reason_to_stop_that_is_not_known_is_no_success() -> None:
    talk = Talk().begun()
    talk.result("prompt", {"stopReason": "error"})
    assert of(Error, talk.said)[0].kind == "incomplete"
    assert talk.said[-1] == TurnFinished(stop_reason="error")


@pytest.mark.parametrize("reason", ["max_tokens", "max_turn_requests", "refusal", "cancelled"])
def test_the_protocols_own_reasons_to_stop_are_ours(reason: str) -> None:
    talk = Talk().begun()
    talk.result("prompt", {"stopReason": reason})
    assert talk.said[-1] == TurnFinished(stop_reason=reason)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("stderr", "kind"),
    [
        ("", "incomplete"),
        ("TypeError: x is not a function", "incomplete"),
        ("Error: connect ECONNREFUSED 127.0.0.1:9", "unavailable"),
    ],
)
def test_an_end_without_a_word_is_told_by_stderr(stderr: str, kind: str) -> None:
    talk = Talk().begun()
    (error,) = talk.take(talk.conversation.close(Exit(status=1, stderr=stderr)))
    assert isinstance(error, Error)
    assert error.kind == kind


def test_after_the_end_nothing_is_added() -> None:
    talk = Talk().begun()
    talk.result("prompt", {"stopReason": "end_turn"})
    assert isinstance(talk.result("prompt", {"stopReason": "end_turn"})[0], Unparsed)
    assert talk.take(talk.conversation.close(Exit(status=1))) == []
    assert Talk().take(Talk().conversation.close(Exit(signal=9))) == []


# --- a stop


def test_a_cancellation_is_asked_for_and_what_it_waits_for_is_answered() -> None:
    talk = Talk(manner=Manner(title="agent", permissions="ask")).begun()
    talk.asked({"toolCallId": "1", "title": "rm"})
    talk.take(talk.conversation.interrupt())
    assert talk.sent[-2]["result"] == {"outcome": {"outcome": "cancelled"}}
    assert talk.sent[-1]["method"] == "session/cancel"
    assert not talk.ended
    talk.result("prompt", {"stopReason": "cancelled"})
    assert talk.said[-1] == TurnFinished(stop_reason="cancelled")
    assert talk.ended


def test_a_cancellation_that_is_answered_by_an_error_is_one_all_the_same() -> None:
    talk = Talk().begun()
    talk.take(talk.conversation.interrupt())
    talk.hear(id=IDS["prompt"], error={"code": -32603, "message": "aborted"})
    assert not of(Error, talk.said)
    assert talk.said[-1] == TurnFinished(stop_reason="cancelled")
    other = Talk().begun()
    other.take(other.conversation.interrupt())
    assert other.take(other.conversation.close(Exit(status=0))) == [
        TurnFinished(stop_reason="cancelled")
    ]


def test_before_there_is_a_turn_a_stop_is_the_end_of_its_input() -> None:
    talk = Talk()
    assert list(talk.conversation.interrupt()) == [Send(end=True)]


# --- permissions

INSIDE = {"toolCallId": "1", "kind": "edit", "locations": [{"path": "/repo/a.py"}]}
OUTSIDE = {"toolCallId": "1", "kind": "edit", "locations": [{"path": "/repo/../etc/passwd"}]}
COMMAND = {"toolCallId": "1", "kind": "execute", "title": "make"}
LOOK = {"toolCallId": "1", "kind": "read", "title": "a.py"}
OTHER = {"toolCallId": "1", "title": "our_tools: go"}
NAMED = {**OTHER, "title": "{}", "_meta": {"toolName": "mcp__our_tools__go"}}
POSING = {**COMMAND, "title": "rm -r . # our_tools"}
POSING_EDIT = {**OUTSIDE, "title": "Edit /our_tools/a.py"}
POSING_TOOL = {**OTHER, "_meta": {"toolName": "mcp__theirs__go"}}
FOLDER = {"toolCallId": "1", "kind": "other", "locations": [{"path": "/var"}]}
RAW = {"toolCallId": "1", "kind": "edit", "rawInput": {"file_path": "b.py"}}
NOWHERE = {"toolCallId": "1", "kind": "delete"}
DIFF = {
    "toolCallId": "1",
    "kind": "edit",
    "content": [{"type": "diff", "path": "/etc/x", "newText": "y"}],
}


@pytest.mark.parametrize(
    ("access", "call", "granted"),
    [
        ("read", LOOK, True),
        ("read", INSIDE, False),
        ("read", COMMAND, False),
        ("read", OTHER, True),  # a tool of a server that the task brings
        ("read", NAMED, True),
        ("read", POSING, False),
        ("edit", POSING_EDIT, False),
        ("read", POSING_TOOL, False),
        ("edit", INSIDE, True),
        ("edit", RAW, True),
        ("edit", OUTSIDE, False),
        ("edit", NOWHERE, False),
        ("edit", DIFF, False),
        ("edit", FOLDER, False),
        ("edit", COMMAND, True),
        ("full", OUTSIDE, True),
    ],
)
def test_the_access_of_the_task_answers_what_is_asked(
    access: Any, call: Mapping[str, Any], granted: bool
) -> None:
    talk = Talk(replace(TASK, access=access, mcp_servers=(SERVER,))).begun()
    permission = of(Permission, talk.asked(call))[0]
    assert permission.status == ("granted" if granted else "denied")
    assert talk.sent[-1]["id"] == 7
    chosen = talk.sent[-1]["result"]["outcome"]["optionId"]
    assert chosen == ("yes" if granted else "no")


def test_a_tool_that_is_told_of_only_when_it_asks_is_told_of() -> None:
    talk = Talk().begun()
    said = talk.asked({**INSIDE, "status": "pending", "title": "Edit a.py"})
    assert of(ToolCall, said)[0].title == "Edit a.py"


@pytest.mark.parametrize(("permissions", "chosen"), [("allow", "yes"), ("deny", "no")])
def test_a_policy_of_the_agents_own_comes_before_the_access(permissions: Any, chosen: str) -> None:
    talk = Talk(manner=Manner(title="agent", permissions=permissions)).begun()
    talk.asked(OUTSIDE)
    assert talk.sent[-1]["result"]["outcome"]["optionId"] == chosen


def test_an_answer_that_is_not_offered_is_a_cancellation_and_a_denial() -> None:
    talk = Talk().begun()
    said = talk.asked(INSIDE, [{"optionId": "no", "kind": "reject_always"}])
    assert of(Permission, said)[0].status == "denied"
    assert talk.sent[-1]["result"] == {"outcome": {"outcome": "cancelled"}}


def test_who_asks_a_person_waits_for_the_answer() -> None:
    talk = Talk(manner=Manner(title="agent", permissions="ask")).begun()
    asked = of(Permission, talk.asked(COMMAND))[0]
    assert asked == Permission(id="1", status="requested", tool="make")
    sent = len(talk.sent)
    granted = Permission(id="1", status="granted")
    talk.take(talk.conversation.decide(granted))
    assert talk.sent[sent]["result"]["outcome"]["optionId"] == "yes"
    assert list(talk.conversation.decide(granted)) == []


def test_what_is_allowed_once_and_for_all_is_told_so() -> None:
    talk = Talk(manner=Manner(title="agent", permissions="ask")).begun()
    talk.asked(COMMAND)
    assert [send.question.always for send in talk.questions if send.question] == [True]
    always = Permission(id="1", status="granted", always=True)
    talk.take(talk.conversation.decide(always))
    assert talk.sent[-1]["result"]["outcome"]["optionId"] == "yes!"


@pytest.mark.parametrize("kind", ["read", "search", "think"])
def test_nobody_is_asked_for_a_look(kind: str) -> None:
    talk = Talk(manner=Manner(title="agent", permissions="ask")).begun()
    said = talk.asked({"toolCallId": "1", "title": "x", "kind": kind})
    assert of(Permission, said)[0].status == "granted"


def test_a_request_that_is_not_served_is_answered_so() -> None:
    talk = Talk().begun()
    said = talk.hear(id="x", method="fs/write_text_file", params={"path": "/etc/passwd"})
    assert isinstance(said[0], Unparsed)
    assert talk.sent[-1]["error"]["code"] == -32601
    assert talk.sent[-1]["id"] == "x"
    talk.hear(id=8, method="session/request_permission", params={})
    assert talk.sent[-1]["result"] == {"outcome": {"outcome": "cancelled"}}


# --- updates


PLAN = {"sessionUpdate": "plan", "entries": []}


def test_lines_that_are_none_of_its_are_kept() -> None:
    talk = Talk()
    kept = list(talk.conversation.feed(b"a warning"))
    assert kept[0].type == "output"  # type: ignore[union-attr]
    talk = Talk().begun()
    for message in (
        {"method": "other", "params": {}},
        {"method": "session/update", "params": {"update": {"sessionUpdate": 1}}},
        {"method": "session/update", "params": {"sessionId": "x", "update": PLAN}},
        {"id": True, "result": {}},
        {"id": 99, "result": {}},
    ):  # fmt: skip
        assert isinstance(talk.hear(**message)[0], Unparsed)
    for kind in ("available_commands_update", "of_tomorrow", "tool_call"):
        assert isinstance(talk.update(kind)[0], Unparsed)
    assert isinstance(talk.update("agent_message_chunk", content={"type": "image"})[0], Unparsed)
    empty = talk.update("agent_message_chunk", content={"type": "text", "text": ""})
    assert isinstance(empty[0], Unparsed)


def test_a_plan_is_told_step_by_step() -> None:
    talk = Talk().begun()
    entries = [{"content": "a", "status": "in_progress"}, {"content": "b", "status": "?"}, {}]
    assert talk.update("plan", entries=entries) == [
        Plan(
            entries=[
                PlanEntry(text="a", status="in_progress"),
                PlanEntry(text="b", status="pending"),
            ]
        )
    ]


def test_a_call_is_told_with_its_output_places_and_exit_status() -> None:
    call = call_of(
        {
            "toolCallId": "1",
            "title": "make",
            "kind": "execute",
            "status": "completed",
            "rawInput": {"command": "make"},
            "locations": [{"path": "/a"}, {"path": ""}, 1],
            "content": [
                {"type": "content", "content": {"type": "text", "text": "one"}},
                {"type": "terminal", "terminalId": "1"},
            ],
            "rawOutput": {"metadata": {"exit": 2}},
        }
    )
    assert call == ToolCall(
        id="1",
        title="make",
        kind="execute",
        status="failed",
        input={"command": "make"},
        output="one",
        locations=[Location(path="/a")],
        exit_code=2,
    )
    assert call_of({"toolCallId": "1", "rawOutput": {"exitCode": 0, "output": "x"}}) == ToolCall(
        id="1", output="x", exit_code=0
    )


def test_a_diff_is_the_agents_own_or_made_of_the_two_texts() -> None:
    block = {"type": "diff", "path": "a.py", "oldText": "x\n", "newText": "y\n"}
    made = call_of({"toolCallId": "1", "content": [block]})
    assert made is not None
    assert made.diff == "--- a.py\n+++ a.py\n@@ -1 +1 @@\n-x\n+y\n"
    assert made.locations == [Location(path="a.py")]
    own = call_of({"toolCallId": "1", "content": [block], "rawOutput": {"fileDiff": "own"}})
    assert own is not None
    assert own.diff == "own"
    for odd in (
        {**block, "path": 1},
        {**block, "newText": None},
        {**block, "newText": "x" * 300_000},
    ):
        call = call_of({"toolCallId": "1", "content": [{**block, **odd}]})
        assert call is not None
        assert call.diff is None


# --- tokens


def usages(talk: Talk) -> list[Usage]:
    return of(Usage, talk.said)


def test_tokens_of_each_call_are_taken_where_they_are_told() -> None:
    talk = Talk().begun()
    counts = {"inputTokens": 14, "outputTokens": 5, "cachedReadTokens": 4, "thoughtTokens": 2}
    talk.update(
        "agent_message_chunk", content={"type": "text", "text": ""}, _meta={"usage": counts}
    )
    talk.result(
        "prompt", {"stopReason": "end_turn", "usage": {"inputTokens": 99, "outputTokens": 9}}
    )
    assert usages(talk) == [
        Usage(input_tokens=10, output_tokens=5, cache_read_tokens=4, reasoning_tokens=2)
    ]


def test_tokens_of_a_turn_are_taken_from_its_end() -> None:
    talk = Talk(manner=Manner(title="agent", cached_in_input=False, billed=True)).begun()
    cost = {"amount": 0.5, "currency": "USD"}
    assert talk.update("usage_update", used=7, size=9, cost=cost) == [Context(used=7, size=9)]
    counts = {"inputTokens": 14, "outputTokens": 5, "cachedReadTokens": 4}
    talk.result("prompt", {"stopReason": "end_turn", "usage": counts})
    assert usages(talk) == [
        Usage(
            input_tokens=14,
            output_tokens=5,
            cache_read_tokens=4,
            cost_usd=0.5,
            cost_source="agent",
        )
    ]


def test_a_cost_without_tokens_is_told_and_one_of_nothing_is_not_known() -> None:
    talk = Talk(manner=Manner(title="agent", billed=True)).begun()
    talk.update("usage_update", used=7, size=9, cost={"amount": 0.5, "currency": "USD"})
    talk.update("usage_update", used=7, size=9, cost={"amount": 0, "currency": "USD"})
    talk.update("usage_update", used=7, size=9, cost={"amount": 3, "currency": "EUR"})
    talk.result("prompt", {"stopReason": "end_turn"})
    assert usages(talk) == [Usage(cost_usd=0.5, cost_source="agent", scope="turn")]


def test_a_quota_tells_the_tokens_of_the_turn() -> None:
    talk = Talk().begun()
    quota = {"token_count": {"input_tokens": 3, "output_tokens": 2}}
    talk.result("prompt", {"stopReason": "end_turn", "_meta": {"quota": quota}})
    assert usages(talk) == [Usage(input_tokens=3, output_tokens=2, scope="turn")]


def test_tokens_of_the_last_call_alone_are_said_to_be_that() -> None:
    talk = Talk(manner=Manner(title="agent", last_call_only=True, note="held to nothing")).begun()
    talk.update("tool_call", toolCallId="1", title="ls", kind="execute", status="completed")
    counts = {"inputTokens": 14, "outputTokens": 5}
    talk.result("prompt", {"stopReason": "end_turn", "usage": counts})
    told = [notice.text for notice in of(Notice, talk.said)]
    assert "held to nothing" in told
    assert "agent tells the tokens of its last call only" in told


@pytest.mark.parametrize(
    ("manner", "reason"),
    [
        (Manner(title="agent", answer_limit=8), "max_tokens"),
        (Manner(title="agent", answer_limit=9), "end_turn"),
        (Manner(title="agent", window=28), "max_tokens"),
        (Manner(title="agent", window=29), "end_turn"),
    ],
)
def test_an_answer_as_long_as_its_limit_was_cut_whatever_the_agent_says(
    manner: Manner, reason: str
) -> None:
    talk = Talk(manner=manner).begun()
    counts = {"inputTokens": 20, "outputTokens": 5, "thoughtTokens": 3}
    talk.result("prompt", {"stopReason": "end_turn", "usage": counts})
    assert talk.said[-1] == TurnFinished(stop_reason=reason)  # type: ignore[arg-type]


# --- options

KNOWN = {"permissions": "p", "settings": "s", "context_window": "c"}


def test_options_are_read_and_wrong_ones_are_told() -> None:
    def read(**options: object) -> Any:
        return options_of(Agent(name="mine", adapter="x", options=options), "x", KNOWN)

    found = read(permissions="deny", settings={"a": 1}, context_window=5)
    assert (found.permissions, found.settings, found.context_window) == ("deny", {"a": 1}, 5)
    assert read() == read(permissions="access")
    mistakes: tuple[dict[str, object], ...] = (
        {"permissions": "maybe"},
        {"permissions": 1},
        {"settings": "x"},
        {"context_window": True},
        {"context_window": 0},
        {"max_output_tokens": 1},
    )
    for wrong in mistakes:
        with pytest.raises(ConfigError, match="agent 'mine'"):
            read(**wrong)


def test_settings_are_merged_table_by_table() -> None:
    ours, theirs = {"a": {"b": 1, "c": 2}, "d": 1}, {"a": {"b": 3}, "d": {"e": 1}}
    assert merged(ours, theirs) == {"a": {"b": 3, "c": 2}, "d": {"e": 1}}


def test_an_answer_that_fills_the_window_by_the_last_call_was_cut() -> None:
    talk = Talk(manner=Manner(title="agent", window=28)).begun()
    usage = {"inputTokens": 20, "outputTokens": 8, "cachedReadTokens": 10}
    talk.update("agent_message_chunk", content={"type": "text", "text": "I"})
    talk.update("agent_message_chunk", content={"type": "text", "text": ""}, _meta={"usage": usage})
    assert talk.result("prompt", {"stopReason": "end_turn"})[-1] == TurnFinished(
        stop_reason="max_tokens"
    )


@pytest.mark.parametrize("worded", [True, False])
def test_who_has_the_last_word_and_says_nothing_after_a_tool_has_failed(worded: bool) -> None:
    talk = Talk(manner=Manner(title="agent", has_last_word=True)).begun()
    talk.update("agent_message_chunk", content={"type": "text", "text": "I begin."})
    talk.update("tool_call", toolCallId="1", title="x", status="completed")
    if worded:
        talk.update("agent_message_chunk", content={"type": "text", "text": "Done."})
    said = talk.result("prompt", {"stopReason": "end_turn"})
    assert [one.kind for one in of(Error, said)] == ([] if worded else ["incomplete"])
    assert said[-1] == TurnFinished(stop_reason="end_turn" if worded else "error")


def test_who_was_denied_something_may_end_its_turn_without_a_word() -> None:
    talk = Talk(manner=Manner(title="agent", has_last_word=True, permissions="deny")).begun()
    talk.asked({"toolCallId": "1", "title": "x", "kind": "execute", "status": "pending"})
    assert talk.result("prompt", {"stopReason": "end_turn"})[-1] == TurnFinished(
        stop_reason="end_turn"
    )


def test_an_answer_that_broke_off_is_the_servers_fault_as_node_tells_it() -> None:
    talk = Talk().begun()
    error = {"code": -32603, "message": "Internal error", "data": {"details": "terminated"}}
    (said,) = of(Error, talk.hear(id=IDS["prompt"], error=error))
    assert (said.kind, said.retryable) == ("unavailable", True)
