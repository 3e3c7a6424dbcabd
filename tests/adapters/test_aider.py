"""The aider adapter: what it starts, and what the front's lines mean."""

import json
import signal
from collections.abc import Mapping
from pathlib import Path

import pytest

from adapters.aider import FRONT, KEY, adapter, front, json_command
from orchestrator.adapter import Agent, Command, Exit, Install, Send
from orchestrator.errors import ConfigError
from orchestrator.events import (
    Context,
    Error,
    Location,
    Message,
    MessageDelta,
    Notice,
    Permission,
    Retry,
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
from orchestrator.task import Limits, Task
from tests.recordings import RECORDINGS, Recording

TASK = Task(prompt="Fix the greeting.", workspace=Path("/w"), kind="fix", files=("a.py",))
OURS = [recording for recording in RECORDINGS if recording.facts["adapter"] == "aider"]


def agent_of(model: str | None, **fields: object) -> Agent:
    given: dict[str, object] = {"name": "me", "adapter": "aider", "program": "/venv/bin/aider"}
    return Agent(model=model, **{**given, **fields})  # type: ignore[arg-type]


def command_of(model: str | None, task: Task = TASK, **fields: object) -> Command:
    return adapter.command(task, agent_of(model, **fields))


def settings_of(command: Command) -> Mapping[str, object]:
    assert isinstance(command.stdin, bytes)
    settings = json.loads(command.stdin)
    assert isinstance(settings, dict)
    return settings


def flags_of(model: str | None, task: Task = TASK, **fields: object) -> list[str]:
    flags = settings_of(command_of(model, task, **fields))["argv"]
    assert isinstance(flags, list)
    return flags


def fed(*lines: object, exit_: Exit | None = None) -> list[Update]:
    conversation = adapter.conversation(TASK, agent_of("openai/gpt-5"), None)
    said: list[Update | Send] = [*conversation.start()]
    for line in lines:
        said += conversation.feed(json.dumps(line).encode())
    said += conversation.close(exit_ or Exit(status=0))
    return [one for one in said if not isinstance(one, Send)]


# --- what is started


def test_the_front_runs_on_the_interpreter_beside_aider_and_argv_tells_nothing() -> None:
    command = command_of("openai/gpt-5", api_key_env="MINE", home="/h")
    assert command.argv == ("/venv/bin/python", "-I", "-X", "utf8", FRONT, "--settings")
    assert command.cwd == "/w"
    assert command.interrupt == signal.SIGINT
    assert dict(command.env_from) == {KEY: "MINE"}
    assert command.secrets == (KEY,)
    settings = settings_of(command)
    assert (settings["prompt"], settings["files"]) == (TASK.prompt, ["a.py"])
    assert (settings["home"], settings["api_key_env"]) == ("/h", KEY)
    assert settings["hidden"] == [KEY]
    assert Path(FRONT).is_file()
    install = adapter.about.install
    assert isinstance(install, Install)
    assert f"aider-chat=={adapter.about.tested[0]}" in Path(install.lock).read_text()


def test_the_front_can_be_started_without_a_task() -> None:
    argv = front("/venv/bin/python3.12", ["--message", "hello", "a.py"])
    assert argv[0] == "/venv/bin/python3.12"
    assert json_command.argv("/venv/bin/python3.12", ["--message", "hello", "a.py"]) == argv
    assert json_command.adapter == adapter.about.name
    assert argv[-5:] == (FRONT, "--", "--message", "hello", "a.py")


def test_limits_session_and_access_go_into_the_settings() -> None:
    limits = Limits(steps=3, cost_usd=0.5)
    task = Task(prompt="x", workspace=Path("/w"), access="read", session_id="abc", limits=limits)
    settings = settings_of(command_of("openai/gpt-5", task))
    assert (settings["access"], settings["session_id"]) == ("read", "abc")
    assert (settings["steps"], settings["cost_usd"]) == (3, 0.5)


def test_vllm_is_spoken_to_by_the_api_whose_usage_is_read_whole() -> None:
    flags = flags_of("qwen", server="vllm", base_url="http://127.0.0.1:8000")
    assert flags[0] == "--model=openai/qwen"
    command = command_of("qwen", server="vllm", base_url="http://127.0.0.1:8000")
    assert settings_of(command)["api_base"] == "http://127.0.0.1:8000/v1"


def test_at_an_address_of_its_own_every_call_goes_to_the_one_model() -> None:
    flags = flags_of("qwen", server="ollama", base_url="http://127.0.0.1:11434/v1")
    assert flags[:3] == [
        "--model=ollama_chat/qwen",
        "--weak-model=ollama_chat/qwen",
        "--editor-model=ollama_chat/qwen",
    ]
    command = command_of("qwen", server="ollama", base_url="http://127.0.0.1:11434/v1")
    assert settings_of(command)["api_base"] == "http://127.0.0.1:11434"
    assert flags_of("gpt-5")[0] == "--model=openai/gpt-5"
    assert not [flag for flag in flags_of("gpt-5") if "weak" in flag]


def test_gemini_is_asked_for_whole_answers() -> None:
    assert "--no-stream" in flags_of("gemini-2.5-pro")
    assert "--no-stream" not in flags_of("gpt-5")


def test_aider_commits_only_when_told_to() -> None:
    assert "--no-auto-commits" in flags_of("gpt-5")
    assert "--auto-commits" in flags_of("gpt-5", options={"auto_commits": True})


def test_under_read_aider_answers_and_edits_nothing_whatever_its_flags_say() -> None:
    task = Task(prompt="x", workspace=Path("/w"), kind="review")
    options = {"auto_commits": True, "args": ["--chat-mode", "code", "--auto-commits"]}
    flags = flags_of("gpt-5", task, options=options)
    assert flags.index("--chat-mode=ask") < flags.index("--chat-mode")
    assert flags[-2:] == ["--dry-run", "--no-auto-commits"]


def test_the_options_reach_the_front() -> None:
    options = {
        "args": ["--map-tokens", "0"],
        "project_config": True,
        "model_kwargs": {"temperature": 0},
        "writable": ["/cache"],
    }
    settings = settings_of(command_of("openai/gpt-5", options=options))
    flags = settings["argv"]
    assert isinstance(flags, list)
    assert flags[-2:] == ["--map-tokens", "0"]
    assert settings["project_config"] is True
    assert settings["model_kwargs"] == {"temperature": 0}
    assert settings["writable"] == ["/cache"]
    assert settings_of(command_of("openai/gpt-5"))["project_config"] is False


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"arg": []}, "aider has no option 'arg' (known: args, auto_commits, "),
        ({"args": "--architect"}, "option 'args' is list of aider's own flags"),
        ({"args": ["--map-tokens", 0]}, "found ['--map-tokens', 0]"),
        ({"auto_commits": "yes"}, "option 'auto_commits' is true: aider commits"),
        ({"model_kwargs": []}, "option 'model_kwargs' is table of arguments"),
        ({"model_kwargs": {"x": object()}}, "settings that JSON cannot hold"),
    ],
)
def test_a_wrong_option_is_refused_by_name(options: Mapping[str, object], says: str) -> None:
    with pytest.raises(ConfigError) as raised:
        command_of("openai/gpt-5", options=options)
    assert says in str(raised.value)


def test_without_a_model_the_users_own_configuration_decides() -> None:
    with pytest.raises(ConfigError, match="agent 'me': no model is named"):
        command_of(None)
    flags = flags_of(None, profile="user")
    assert not [flag for flag in flags if "model" in flag]


def test_a_local_model_gets_no_cloud_key() -> None:
    for server in ("ollama", "lmstudio", "vllm", "llamacpp"):
        command = command_of("m", server=server, base_url="http://127.0.0.1:1", tier="local")
        assert (dict(command.env_from), command.secrets) == ({}, ())


@pytest.mark.parametrize(
    ("model", "tier", "local"),
    [("ollama_chat/a", "local", True), ("ollama_chat/a:cloud", "local", False), ("a", "cloud", 0)],
)
def test_a_model_that_ollama_serves_from_the_cloud_is_not_free(
    model: str, tier: str, local: bool
) -> None:
    assert settings_of(command_of(model, tier=tier))["local"] is bool(local)


# --- what it says


def recorded(case: str) -> Recording:
    return next(one for one in OURS if one.facts["case"] == case)


def updates_of(case: str) -> list[Update]:
    return [event.update for event in recorded(case).play()[0]]


def calls_of(case: str) -> list[ToolCall]:
    return [update for update in updates_of(case) if isinstance(update, ToolCall)]


def notices_of(case: str) -> list[str]:
    return [update.text for update in updates_of(case) if isinstance(update, Notice)]


def test_an_edit_is_told_from_session_to_end() -> None:
    updates = updates_of("success_edit")
    kinds = [type(update) for update in updates]
    for kind in (SessionStarted, TurnStarted, Thought, Message, Usage, Context, ToolCall):
        assert kind in kinds
    session = next(update for update in updates if isinstance(update, SessionStarted))
    assert session.model == "openai/scripted"
    edit, begun, linted = calls_of("success_edit")
    assert edit == ToolCall(
        id="edit-1",
        status="completed",
        kind="edit",
        title="edit hello.py",
        locations=[Location(path="hello.py")],
        diff="--- a/hello.py\n+++ b/hello.py\n@@ -1 +1 @@\n-print('helo')\n+print('hello')\n",
    )
    assert (begun.title, linted.status) == ("lint hello.py", "completed")
    assert TurnFinished(stop_reason="end_turn") in updates
    assert Notice(text="access: edit, enforced by Landlock") in updates


def test_usage_is_the_servers_and_excludes_what_was_cached() -> None:
    usages = [update for update in updates_of("success_edit") if isinstance(update, Usage)]
    assert usages == [
        Usage(
            input_tokens=100,
            output_tokens=30,
            cache_read_tokens=40,
            reasoning_tokens=10,
            cost_usd=0.0,
            cost_source="local",
        )
    ]


def test_a_price_is_told_with_where_it_comes_from() -> None:
    [usage] = [update for update in updates_of("anthropic") if isinstance(update, Usage)]
    assert (usage.cache_read_tokens, usage.cache_write_tokens) == (2000, 300)
    assert usage.cost_source == "prices"
    assert usage.cost_usd == pytest.approx(0.000925)


def test_files_made_and_removed_are_edits_too() -> None:
    made = calls_of("several_edits")[1]
    assert made.diff is not None
    assert made.diff.startswith("--- /dev/null\n+++ b/src/b.py\n")
    assert calls_of("patch_deletes")[0].kind == "delete"
    assert "Create new file? src/b.py yes" in notices_of("several_edits")


def test_architect_and_editor_are_two_turns() -> None:
    turns = [one.turn for one in updates_of("architect") if isinstance(one, TurnStarted)]
    assert turns == [1, 2]


def test_a_commit_is_told_and_its_message_is_not_the_answer() -> None:
    _, outcome = recorded("commit").play()
    assert outcome.text is not None
    assert outcome.text.startswith("Spelling.")
    notices = notices_of("commit")
    assert "aside: fix: spell hello" in notices
    assert [one for one in notices if one.endswith("fix: spell hello (hello.py)")]


def test_reflections_are_counted_and_the_last_one_is_a_failure() -> None:
    told = [one for one in notices_of("reflections_used_up") if one.startswith("reflection ")]
    assert [one[:18] for one in told] == [f"reflection {n} of 3:" for n in (1, 2, 3)]
    _, outcome = recorded("reflections_used_up").play()
    assert outcome.error is not None
    assert outcome.error.text.startswith("aider gave up after 3 reflection(s): ")


def test_failing_tests_and_lint_are_the_cause() -> None:
    for case, text in (
        ("tests_fail", "the tests still fail after 3 reflection(s)"),
        ("lint_error", "the linter still complains after 1 reflection(s)"),
    ):
        _, outcome = recorded(case).play()
        assert outcome.error is not None
        assert (outcome.error.kind, outcome.error.text) == ("check_failed", text)
    tests = [one for one in calls_of("tests_fail") if one.id.startswith("test-")]
    assert [one.exit_code for one in tests] == [None, 3] * 4
    assert (tests[0].input, tests[1].output) == ({"command": "echo no; exit 3"}, "no\n")


def test_what_may_not_be_edited_is_a_denial() -> None:
    for case in ("permission_denied", "ignored_file"):
        denied = [one for one in updates_of(case) if isinstance(one, Permission)]
        assert [one.status for one in denied] == ["denied"]
        assert denied[0].reason is not None
        assert denied[0].reason.startswith("editing ")


def test_a_server_that_fails_is_asked_three_times() -> None:
    retries = [one for one in updates_of("rate_limit_429") if isinstance(one, Retry)]
    assert [(one.attempt, one.of, one.delay_s) for one in retries] == [(1, 2, 1.0), (2, 2, 1.0)]


def test_a_slow_answer_is_shown_while_it_grows() -> None:
    updates = updates_of("slow_answer")
    thought = "".join(one.text for one in updates if isinstance(one, ThoughtDelta))
    text = "".join(one.text for one in updates if isinstance(one, MessageDelta))
    assert thought.startswith("A friendly greeting")
    assert text.startswith("Hello there")


def test_a_command_that_was_stopped_is_told_as_failed() -> None:
    [call] = [one for one in calls_of("terminated") if one.status == "failed"]
    assert (call.id, call.output) == ("test-2", "[interrupted]")


def test_a_resumed_session_keeps_its_id() -> None:
    _, outcome = recorded("resume").play()
    asked = recorded("resume").facts["task"]
    assert isinstance(asked, dict)
    assert outcome.session_id == asked["session_id"]


def test_configuration_in_the_work_tree_runs_nothing_and_moves_no_key() -> None:
    assert not [call for call in calls_of("project_config") if call.id.startswith("test")]


def test_a_limit_says_which() -> None:
    kinds = {"step_limit": "max_turns", "cost_limit": "budget_exceeded"}
    for case, kind in kinds.items():
        _, outcome = recorded(case).play()
        assert outcome.error is not None
        assert outcome.error.kind == kind


def test_an_error_names_the_variable_of_the_refused_key() -> None:
    _, outcome = recorded("unauthorized_401").play()
    assert outcome.error is not None
    assert outcome.error.hint == "Is the key in RECORD_KEY valid for this provider and model?"
    [error, *_] = fed({"type": "error", "text": "no", "kind": "auth_failed", "retryable": False})
    assert isinstance(error, Error)
    assert error.hint == "Is the key in OPENAI_API_KEY valid for this provider and model?"
    elsewhere = adapter.conversation(TASK, agent_of("x", base_url="http://desk:1"), None)
    [error] = elsewhere.feed(b'{"type": "error", "text": "no", "kind": "auth_failed"}')
    assert isinstance(error, Error)
    assert error.hint is None


def test_a_key_that_is_not_set_is_named() -> None:
    for case, name in (("missing_key", "NOT_SET"), ("missing_keys", "OPENROUTER_API_KEY")):
        _, outcome = recorded(case).play()
        assert outcome.error is not None
        assert outcome.error.text == f"no key: {name} is not set"
        assert outcome.error.hint is not None
        assert outcome.error.hint.startswith(f"Set {name}, or name the variable")


def test_a_key_that_only_litellm_misses_is_named_and_where_no_model_is_none_is() -> None:
    line = b'{"type": "error", "text": "Missing Anthropic API Key - A call", "kind": "auth_failed"}'
    [error] = adapter.conversation(TASK, agent_of("anthropic/x"), None).feed(line)
    assert isinstance(error, Error)
    assert (error.hint or "").startswith("Set ANTHROPIC_API_KEY, or name the variable")
    nobody = agent_of(None)
    [error] = adapter.conversation(TASK, nobody, None).feed(line)
    assert isinstance(error, Error)
    assert error.hint is None


def test_an_error_without_a_kind_is_judged_by_its_text() -> None:
    [error, *_] = fed({"type": "error", "text": "Service Unavailable", "status": 503})
    assert error == Error(kind="server_error", text="Service Unavailable")


def test_a_function_that_aider_no_longer_has_is_named() -> None:
    line = {"type": "error", "text": "it has no aider.x:Y", "missing": "aider.x:Y"}
    [error, *_] = fed(line, {"type": "result", "status": "missing"})
    assert isinstance(error, Error)
    assert error.kind == "spawn"
    assert error.hint == "aider.x:Y is missing. orchestrate agents install aider"


@pytest.mark.parametrize(
    ("result", "expected"),
    [
        ({"status": "limit"}, [TurnFinished(stop_reason="max_turn_requests")]),
        ({"status": "interrupted"}, [TurnFinished(stop_reason="cancelled")]),
        ({"status": "max_tokens"}, [TurnFinished(stop_reason="max_tokens")]),
        ({"status": "refused"}, [TurnFinished(stop_reason="refusal")]),
        (
            {"status": "finished", "exit_code": 1},
            [
                Error(kind="unknown", text="aider ended with status 'finished'"),
                TurnFinished(stop_reason="error"),
            ],
        ),
    ],
)
def test_each_end_has_its_stop_reason(result: dict[str, object], expected: list[Update]) -> None:
    assert fed({"type": "result", **result}, exit_=Exit(status=1)) == expected


def test_after_an_error_no_last_word_is_a_success() -> None:
    finished = {"type": "result", "status": "finished", "exit_code": 0}
    assert fed({"type": "error", "text": "x"}, finished)[-1] == TurnFinished(stop_reason="error")


def test_without_a_last_word_the_exit_is_the_cause() -> None:
    [error] = fed(exit_=Exit(status=1, stderr="x\nSyntaxError: no\n"))
    text = "aider ended without a last word (exit status 1): SyntaxError: no"
    assert error == Error(kind="crashed", text=text)
    [killed] = fed(exit_=Exit(signal=9))
    assert killed == Error(kind="crashed", text="aider ended without a last word (signal 9)")
    assert fed(exit_=Exit(signal=signal.SIGTERM)) == []


def test_odd_lines_are_kept() -> None:
    kept = [
        {"type": "session"},
        {"type": "edit", "id": "1"},
        {"type": "test", "id": "1", "status": "pending"},
        {"type": "log"},
        {"type": "of_the_future"},
        {"type": "result"},
        {"type": 7},
    ]
    said = fed(*kept, exit_=Exit(signal=signal.SIGINT))
    assert [type(one) for one in said] == [Unparsed] * 7


def test_a_word_in_passing_is_a_notice() -> None:
    assert fed({"type": "notice", "text": "by the way"})[0] == Notice(text="by the way")


def test_figures_that_are_none_are_unknown() -> None:
    odd = {"type": "usage", "input_tokens": "7", "output_tokens": -1, "cost_usd": True}
    assert fed(odd)[:2] == [Usage(), Context()]
    assert fed({"type": "commit", "hash": "a", "message": "b", "files": 1})[0] == Notice(
        text="commit a: b ()"
    )


def test_it_asks_nothing_and_stops_by_signal_alone() -> None:
    conversation = adapter.conversation(TASK, agent_of("openai/gpt-5"), None)
    assert [*conversation.start(), *conversation.interrupt()] == []
    assert list(conversation.decide(Permission(id="1", status="requested"))) == []


@pytest.mark.parametrize("recording", OURS, ids=lambda recording: recording.name)
def test_no_line_of_a_recording_is_unparsed(recording: Recording) -> None:
    updates = [event.update for event in recording.play()[0]]
    assert not [update for update in updates if isinstance(update, Unparsed)]


@pytest.mark.parametrize("lean", [True, False])
def test_without_a_repo_map_the_prompt_is_short(lean: bool) -> None:
    options = {"repo_map": not lean}
    assert ("--map-tokens=0" in flags_of("openai/gpt-5", options=options)) == lean
