"""qwen by JSON lines (`protocol = "json"`): what its recordings do not show."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from adapters import qwen
from adapters.qwen.lines import QwenLines
from orchestrator.adapter import Agent, Command, Exit
from orchestrator.errors import ConfigError
from orchestrator.events import Error, Notice, Permission, SessionStarted, ToolCall, TurnFinished
from orchestrator.task import Task

TASK = Task(prompt="Fix it.", workspace=Path("/repo"), kind="fix")
READ = replace(TASK, access="read")
FAILED = "Sorry. [API Error: 401 Incorrect API key]"
DONE = {"type": "result", "subtype": "success", "is_error": False}


def agent(**options: object) -> Agent:
    options = {"protocol": "json", **options}
    return Agent(name="q", adapter="qwen", home="/home/q", options=options)


def started(task: Task = TASK, **options: object) -> Command:
    return qwen.adapter.command(task, agent(**options))


def heard(*events: Any) -> list[Any]:
    """What is said of the lines, one after the other."""
    conversation = QwenLines(note=None)
    return [said for event in events for said in conversation.feed(json.dumps(event).encode())]


def message(*blocks: dict[str, Any], **fields: Any) -> dict[str, Any]:
    return {"type": "assistant", "message": {"id": "m", "content": list(blocks), **fields}}


def ended(exit: Exit, *events: Any) -> list[Any]:
    conversation = QwenLines(note=None)
    for event in events:
        assert list(conversation.feed(json.dumps(event).encode()))
    return list(conversation.close(exit))


def test_its_prompt_goes_in_by_stdin_and_each_tool_that_changes_something_is_named() -> None:
    command = started(replace(TASK, files=("a.py",), session_id="s-1"))
    assert command.stdin == b"Fix it.\n\nFiles that matter:\n- a.py\n"
    assert command.argv[1:4] == ("--output-format", "stream-json", "--include-partial-messages")
    assert "--resume s-1" in " ".join(command.argv)
    assert "--allowed-tools write_file" in " ".join(command.argv)
    assert command.interrupt == 2
    for quiet in (started(READ), started(permissions="deny")):
        assert "--allowed-tools" not in quiet.argv


def test_nobody_can_be_asked_by_lines() -> None:
    for use in (qwen.adapter.command, lambda t, a: qwen.adapter.conversation(t, a, None)):
        with pytest.raises(ConfigError, match="qwen does not ask"):
            use(TASK, agent(permissions="ask"))
    conversation = QwenLines(note=None)
    assert [*conversation.interrupt()] == []
    assert [*conversation.decide(Permission(id="1", status="granted"))] == []


def test_what_it_is_not_held_to_is_said() -> None:
    (note,) = qwen.adapter.conversation(TASK, agent(), None).start()
    assert isinstance(note, Notice)
    assert [*qwen.adapter.conversation(READ, agent(), None).start()] == []


def test_a_session_is_told_once_and_each_turn_begins_anew() -> None:
    init = {"type": "system", "subtype": "init", "session_id": "s", "tools": ["edit", 1]}
    said = heard(init, init)
    assert said[0] == SessionStarted(session_id="s", tools=["edit"])
    assert [one.type for one in said[1:]] == ["turn.started", "turn.started"]


def test_a_failed_request_is_no_success_although_it_says_so() -> None:
    said = heard(message({"type": "text", "text": FAILED}), DONE)
    assert [one.type for one in said] == ["message", "error", "turn.finished"]
    assert said[1] == Error(kind="auth_failed", text="401 Incorrect API key")
    assert said[2] == TurnFinished(stop_reason="error")
    for told in ("fetch failed", "other side closed"):
        assert heard(DONE | {"is_error": True, "result": told})[0].kind == "unavailable"


def test_a_request_that_failed_and_a_tool_after_it_is_no_failure() -> None:
    tool = {"type": "tool_use", "id": "1", "name": "glob", "input": {"pattern": "*"}}
    said = heard(message({"type": "text", "text": FAILED}), message(tool), DONE)
    assert said[-1] == TurnFinished(stop_reason="end_turn")


def test_an_error_is_told_once() -> None:
    error = DONE | {"is_error": True, "error": {"message": "HTTP 404"}}
    assert [one.type for one in heard(error)] == ["error", "turn.finished"]
    assert heard({"type": "result", "subtype": "error_x"})[0].text == "error_x"
    both = heard(message({"type": "text", "text": FAILED}), error)
    assert [one.type for one in both] == ["message", "error", "turn.finished"]


def test_a_denial_is_told_once() -> None:
    why = 'Qwen Code requires permission to use "x"'
    result = {"type": "tool_result", "tool_use_id": "1", "is_error": True, "content": why}
    denials = [{"tool_use_id": "1", "tool_name": "x"}, {"tool_use_id": "2", "tool_name": "y"}, {}]
    said = heard(
        {"type": "user", "message": {"content": [result]}}, DONE | {"permission_denials": denials}
    )
    denied = [one for one in said if isinstance(one, Permission)]
    assert [(one.id, one.tool, one.reason) for one in denied] == [
        ("1", None, why),
        ("2", "y", None),
    ]


@pytest.mark.parametrize(
    ("name", "given", "title"),
    [
        ("run_shell_command", {"command": "make"}, "make"),
        ("edit", {"file_path": "/a"}, "edit /a"),
        ("other_tool", {}, "other_tool"),
    ],
)
def test_a_tool_is_named_by_what_it_does(name: str, given: dict[str, Any], title: str) -> None:
    (call,) = heard(message({"type": "tool_use", "id": "1", "name": name, "input": given}))
    assert isinstance(call, ToolCall)
    assert call.title == title


def test_what_a_plan_without_steps_and_a_result_without_a_call_say_is_kept() -> None:
    plan = {"type": "tool_use", "id": "1", "name": "todo_write", "input": {"todos": []}}
    assert [one.type for one in heard(message(plan))] == ["tool_call"]
    assert heard({"type": "user", "message": {"content": [{"type": "tool_result"}]}})[0].type == (
        "unparsed"
    )
    assert heard(message({"type": "image"}))[0].type == "unparsed"


@pytest.mark.parametrize(
    ("part", "kind"),
    [
        ({"type": "message_start", "message": {}}, "message.delta"),
        ({"type": "content_block_start"}, "message.delta"),
        ({"type": "content_block_delta", "delta": {"thinking": "hm"}}, "thought.delta"),
        ({"type": "content_block_delta", "delta": {"partial_json": "{"}}, "message.delta"),
        ({"type": "goal_state"}, "unparsed"),
        ({"type": "new"}, "unparsed"),
    ],
)
def test_a_piece_of_a_message_is_a_piece_or_a_sign_of_life(part: Any, kind: str) -> None:
    assert [one.type for one in heard({"type": "stream_event", "event": part})] == [kind]


def test_lines_of_other_kinds_stay() -> None:
    for event in ({"type": "new"}, {"type": "system", "subtype": "new"}, {"type": "system"}):
        assert heard(event)[0].type == "unparsed"
    assert heard({"type": "system", "subtype": "retry"})[0].type == "retry"


def test_usage_of_a_call_counts_once_and_its_cached_tokens_apart() -> None:
    used = {"input_tokens": 100, "output_tokens": 3, "cache_read_input_tokens": 40}
    text = {"type": "text", "text": "x"}
    said = heard(message(text, usage={"input_tokens": 0}), message(text, usage=used))
    (usage,) = (one for one in said if one.type == "usage")
    assert (usage.input_tokens, usage.cache_read_tokens, usage.output_tokens) == (60, 40, 3)


@pytest.mark.parametrize(
    ("exit", "kinds"),
    [
        (Exit(status=53), [None, "max_turn_requests"]),
        (Exit(status=55), ["budget_exceeded", "error"]),
        (Exit(status=130), [None, "cancelled"]),
        (Exit(status=0), ["incomplete", "error"]),
        (Exit(status=1, stderr="Error: no such flag"), ["bad_usage", "error"]),
        (Exit(status=1, stderr="Error: status 429"), ["rate_limited", "error"]),
        (Exit(signal=9), [None, None]),
    ],
)
def test_what_no_line_told_its_exit_tells(exit: Exit, kinds: list[str | None]) -> None:
    said = ended(exit)
    error = next((one.kind for one in said if isinstance(one, Error)), None)
    stop = next((one.stop_reason for one in said if isinstance(one, TurnFinished)), None)
    assert [error, stop] == kinds


def test_an_end_in_the_middle_is_no_wrong_usage() -> None:
    init = {"type": "system", "subtype": "init", "session_id": "s"}
    assert ended(Exit(status=1, stderr="Error: broke"), init)[0].kind == "incomplete"
    assert ended(Exit(status=0), init, DONE) == []
