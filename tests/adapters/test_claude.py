"""The claude adapter: what it starts, and what recordings of the real Claude Code 2.1.328 mean."""

import json
import pickle
import re
import signal
from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

import pytest

from adapters.claude import OPTIONS, adapter
from adapters.claude.command import endpoint
from adapters.claude.conversation import STEPS, ClaudeConversation
from adapters.claude.values import models_usage
from adapters.reading import MOST, hold
from orchestrator.adapter import Agent, Command, Exit, Send, about_of
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
    RateLimit,
    Retry,
    SessionStarted,
    Subagent,
    Thought,
    ThoughtDelta,
    ToolCall,
    TurnFinished,
    TurnStarted,
    Unparsed,
    Update,
    Usage,
)
from orchestrator.task import Limits, McpServer, Task
from orchestrator.usage import Tally

RECORDED = Path(__file__).parent.parent / "recordings/claude/2.1.328"
CASES = sorted(path.name.removesuffix(".meta.json") for path in RECORDED.glob("*.meta.json"))
SESSION = "01a1fc42-0000-7000-8000-00000000abcd"
LOCAL = Agent(
    name="mine",
    adapter="claude",
    model="qwen",
    server="ollama",
    base_url="http://127.0.0.1:11434",
    tier="local",
    program="/opt/claude",
    home="/state/home",
)
CLOUD = Agent(name="claude", adapter="claude", profile="user", api_key_env="ANTHROPIC_API_KEY")
TASK = Task(prompt="Fix it.", workspace=Path("/repo"))
Kind = TypeVar("Kind", bound=Update)


def after(command: Command, flag: str) -> list[str]:
    return [word for one, word in zip(command.argv, command.argv[1:], strict=False) if one == flag]


def with_options(**options: object) -> Agent:
    return replace(LOCAL, options=options)


# --- what to start -------------------------------------------------------------------------------


def test_it_speaks_json_lines_both_ways_and_its_stdin_stays_open():
    command = adapter.command(TASK, LOCAL)
    assert command.argv[:2] == ("/opt/claude", "-p")
    assert after(command, "--input-format") == after(command, "--output-format") == ["stream-json"]
    assert {"--verbose", "--include-partial-messages"} <= set(command.argv)
    assert command.stdin == "open"
    assert command.cwd == "/repo"
    assert command.interrupt == signal.SIGINT
    assert "Fix it." not in command.argv
    assert adapter.command(TASK, replace(LOCAL, program=None)).argv[0] == "claude"


def test_a_local_server_gets_no_key_and_no_login_and_every_request():
    command = adapter.command(TASK, replace(LOCAL, base_url="http://127.0.0.1:11434/v1/"))
    assert command.env["ANTHROPIC_BASE_URL"] == "http://127.0.0.1:11434"
    assert command.env["ANTHROPIC_AUTH_TOKEN"] == "none"
    assert command.env["CLAUDE_CONFIG_DIR"] == "/state/home"
    assert command.env["CLAUDE_CODE_TMPDIR"] == "/state/home/tmp"
    assert {command.env[f"ANTHROPIC_DEFAULT_{size}_MODEL"] for size in SIZES} == {"qwen"}
    assert command.env_from == {}
    assert command.secrets == ()
    assert after(command, "--model") == ["qwen"]
    assert "--bare" in command.argv


SIZES = ("HAIKU", "SONNET", "OPUS")


def test_nothing_phones_home_and_nothing_is_tried_for_minutes():
    for agent in (LOCAL, CLOUD):
        env = adapter.command(TASK, agent).env
        assert env["CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC"] == "1"
        assert env["DISABLE_AUTOUPDATER"] == "1"
        assert env["CLAUDE_CODE_DISABLE_BACKGROUND_TASKS"] == "1"


@pytest.mark.parametrize(
    ("base_url", "named", "key"),
    [
        (None, "MY_KEY", "ANTHROPIC_API_KEY"),
        ("https://api.anthropic.com/v1", "MY_KEY", "ANTHROPIC_API_KEY"),
        (None, "CLAUDE_CODE_OAUTH_TOKEN", "CLAUDE_CODE_OAUTH_TOKEN"),
        ("http://gateway.example", "MY_KEY", "ANTHROPIC_AUTH_TOKEN"),
        ("http://gateway.example", "CLAUDE_CODE_OAUTH_TOKEN", "ANTHROPIC_AUTH_TOKEN"),
    ],
)
def test_a_key_goes_in_by_name_only(base_url, named, key):
    agent = replace(LOCAL, base_url=base_url, api_key_env=named, tier="cloud")
    command = adapter.command(TASK, agent)
    assert command.env_from == {key: named}
    assert command.secrets == (key,)
    assert "ANTHROPIC_AUTH_TOKEN" not in command.env
    assert not any(named in word for word in command.argv)


def test_its_commands_do_not_see_the_key():
    command = adapter.command(TASK, LOCAL)
    script = command.env["CLAUDE_ENV_FILE"]
    assert command.files[script].startswith(b"unset ANTHROPIC_API_KEY ANTHROPIC_AUTH_TOKEN ")


def test_the_users_own_home_and_login_are_left_as_they_are():
    command = adapter.command(TASK, replace(CLOUD, api_key_env=None))
    assert command.env_from == {"CLAUDE_CONFIG_DIR": "CLAUDE_CONFIG_DIR"}
    assert not {"CLAUDE_CONFIG_DIR", "CLAUDE_ENV_FILE"} & set(command.env)
    assert command.files == {}
    assert not {"--bare", "--safe-mode", "--strict-mcp-config", "--model"} & set(command.argv)


def test_no_settings_of_the_repository_count():
    assert after(adapter.command(TASK, LOCAL), "--setting-sources") == [""]
    command = adapter.command(TASK, CLOUD)
    assert after(command, "--setting-sources") == ["user"]
    assert after(command, "--add-dir") == ["/repo"]  # for its CLAUDE.md
    assert command.env["CLAUDE_CODE_ADDITIONAL_DIRECTORIES_CLAUDE_MD"] == "1"
    assert after(command, "--settings") == []


def test_the_users_settings_do_not_send_a_run_at_a_local_server_elsewhere():
    options = {"settings": {"env": {"MINE": "1"}, "model": "x"}}
    agent = replace(LOCAL, profile="user", home=None, options=options)
    (written,) = after(adapter.command(TASK, agent), "--settings")
    settings = json.loads(written)
    assert settings["env"]["ANTHROPIC_BASE_URL"] == "http://127.0.0.1:11434"
    assert settings["env"]["ANTHROPIC_AUTH_TOKEN"] == "none"
    assert settings["env"]["ANTHROPIC_API_KEY"] == settings["apiKeyHelper"] == ""
    assert (settings["env"]["MINE"], settings["model"]) == ("1", "x")
    keyed = adapter.command(TASK, replace(agent, api_key_env="MY_KEY", options={}))
    assert after(keyed, "--setting-sources") == [""]


@pytest.mark.parametrize(
    ("agent", "access", "bare"),
    [
        (LOCAL, "edit", True),
        (LOCAL, "read", False),  # bare has no tool to search with
        (replace(LOCAL, base_url=None), "edit", False),  # bare ignores a login
        (replace(LOCAL, base_url=None, api_key_env="CLAUDE_CODE_OAUTH_TOKEN"), "edit", False),
        (replace(LOCAL, base_url=None, api_key_env="ANTHROPIC_API_KEY"), "full", True),
        (with_options(bare=False), "edit", False),
        (with_options(tools=["Read", "Agent"]), "edit", False),
        (with_options(bare=True, tools=["Read", "Agent"]), "edit", False),
    ],
)
def test_a_clean_agent_is_as_lean_as_its_tools_allow(agent, access, bare):
    argv = adapter.command(replace(TASK, access=access), agent).argv
    assert ("--bare" in argv, "--safe-mode" in argv) == (bare, not bare)
    assert "--strict-mcp-config" in argv


def test_access_read_leaves_no_tool_that_writes():
    command = adapter.command(replace(TASK, access="read"), CLOUD)
    assert after(command, "--tools") == ["Read,Glob,Grep"]
    assert after(command, "--permission-mode") == ["dontAsk"]
    assert "--strict-mcp-config" in command.argv
    asked = with_options(tools=["Read", "Bash"])
    assert after(adapter.command(replace(TASK, kind="review"), asked), "--tools") == ["Read"]


ORACLE = McpServer(
    name="the oracle",
    command=("/bin/oracle", "--loud"),
    env={"PLACE": "Delphi", "ORACLE_TOKEN": "wise"},
)
ASKING = replace(TASK, mcp_servers=(ORACLE,))


def test_a_tasks_mcp_servers_may_be_called_and_their_secrets_are_only_named():
    command = adapter.command(ASKING, LOCAL)
    (config,) = after(command, "--mcp-config")
    assert json.loads(config)["mcpServers"] == {
        "the_oracle": {
            "type": "stdio",
            "command": "/bin/oracle",
            "args": ["--loud"],
            "env": {"PLACE": "Delphi", "ORACLE_TOKEN": "${ORACLE_TOKEN}"},
        }
    }
    assert after(command, "--allowedTools") == ["Read,Glob,Grep,Bash,mcp__the_oracle"]
    assert command.env["ORACLE_TOKEN"] == "wise"
    assert b" ORACLE_TOKEN\n" in command.files[command.env["CLAUDE_ENV_FILE"]]


def test_with_mcp_servers_a_clean_agent_reads_nobodys_instructions_without_safe_mode():
    for task, agent in ((ASKING, LOCAL), (TASK, with_options(mcp={"x": {"command": "y"}}))):
        command = adapter.command(replace(task, access="read"), agent)
        assert not {"--safe-mode", "--bare"} & set(command.argv)
        assert command.env["CLAUDE_CODE_DISABLE_CLAUDE_MDS"] == "1"
    assert "CLAUDE_CODE_DISABLE_CLAUDE_MDS" not in adapter.command(ASKING, CLOUD).env


def test_two_mcp_servers_with_different_secrets_of_one_name_are_refused():
    other = replace(ORACLE, name="other", env={"ORACLE_TOKEN": "else"})
    with pytest.raises(ConfigError, match="different values of ORACLE_TOKEN"):
        adapter.command(replace(TASK, mcp_servers=(ORACLE, other)), LOCAL)


def test_access_edit_allows_commands_and_edits_in_the_workspace():
    command = adapter.command(TASK, LOCAL)
    assert after(command, "--permission-mode") == ["acceptEdits"]
    assert after(command, "--permission-prompts") == ["none"]
    assert after(command, "--allowedTools") == ["Read,Glob,Grep,Bash"]
    assert "--tools" not in command.argv


def test_access_full_allows_edits_everywhere():
    (allowed,) = after(adapter.command(replace(TASK, access="full"), LOCAL), "--allowedTools")
    assert {"Edit", "Write", "Bash", "WebFetch"} <= set(allowed.split(","))


def test_limits_are_claudes_too_where_it_can_count():
    limits = Limits(steps=7, cost_usd=1.5)
    local = adapter.command(replace(TASK, limits=limits), LOCAL)
    assert after(local, "--max-turns") == ["7"]
    assert after(local, "--max-budget-usd") == []
    paid = adapter.command(replace(TASK, limits=limits), CLOUD)
    assert after(paid, "--max-budget-usd") == ["1.5"]
    assert "--max-turns" not in adapter.command(TASK, LOCAL).argv


def test_a_session_goes_on_by_its_id_only():
    task = replace(TASK, session_id=SESSION)
    assert after(adapter.command(task, LOCAL), "--resume") == [SESSION]
    with pytest.raises(ConfigError, match="'last' is not the id of a claude session"):
        adapter.command(replace(TASK, session_id="last"), LOCAL)


def test_a_server_needs_a_model():
    with pytest.raises(ConfigError, match=r"'mine': no model is named for http://127"):
        adapter.command(TASK, replace(LOCAL, model=None))


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        ("localhost:1234", "http://localhost:1234"),
        ("http://127.0.0.1:11434/v1/", "http://127.0.0.1:11434"),
        ("api.example.com/anthropic", "https://api.example.com/anthropic"),
        ("https://gateway.example/v1", "https://gateway.example"),
    ],
)
def test_addresses_are_understood_with_or_without_scheme_and_version(written, meant):
    assert endpoint(written) == meant


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"allow": ["WebFetch"]}, ["Read,Glob,Grep,Bash,WebFetch"]),
        ({"deny": ["Bash(git push *)"]}, ["--disallowedTools", "Bash(git push *)"]),
        ({"folders": ["/a", "/b"]}, ["--add-dir", "/a", "--add-dir", "/b"]),
        ({"tools": ["Read", "Agent"]}, ["--tools", "Read,Agent"]),
        ({"system_prompt": "Be brief."}, ["--append-system-prompt", "Be brief."]),
        ({"schema": {"type": "object"}}, ["--json-schema", '{"type":"object"}']),
        ({"settings": {"a": 1}}, ["--settings", '{"a":1}']),
        ({"sandbox": False}, ["--setting-sources  --permission-mode"]),
        ({"effort": "low"}, ["--effort", "low"]),
        ({"mcp": {"x": {}}}, ["--mcp-config", "/state/home/mcp.json"]),
    ],
)
def test_options_are_flags(options, words):
    argv = adapter.command(TASK, with_options(**options)).argv
    assert " ".join(words) in " ".join(argv)
    assert set(options) <= set(OPTIONS)


def test_an_expected_object_is_asked_for_by_claudes_own_structured_output():
    task = replace(TASK, expect={"type": "object"})
    assert after(adapter.command(task, LOCAL), "--json-schema") == ['{"type":"object"}']
    own = with_options(schema={"type": "object", "title": "mine"})
    schema = '{"type":"object","title":"mine"}'
    assert after(adapter.command(task, own), "--json-schema") == [schema]


def test_what_is_no_object_cannot_be_the_input_of_a_tool():
    task = replace(TASK, expect={"type": "array"})
    assert after(adapter.command(task, LOCAL), "--json-schema") == []


def test_its_sandbox_is_asked_for_so_that_no_command_gets_around_it():
    agent = with_options(sandbox=True, settings={"sandbox": {"enabled": False, "network": {}}})
    held = {"enabled": True, "failIfUnavailable": True, "allowUnsandboxedCommands": False}
    (written,) = after(adapter.command(TASK, agent), "--settings")
    assert json.loads(written) == {"sandbox": {"network": {}, **held}}
    full = adapter.command(replace(TASK, access="full"), with_options(sandbox=True))
    assert after(full, "--settings") == []


def test_only_with_its_sandbox_is_edit_said_to_hold_for_commands():
    for sandbox, held in ((False, ("read", "full")), (True, ("read", "edit", "full"))):
        agent = with_options(sandbox=sandbox)
        assert about_of(adapter, agent).enforces == held
        (note, _) = adapter.conversation(TASK, agent, None).start()
        assert isinstance(note, Notice)
        assert ("not its commands" in note.text) != sandbox


@pytest.mark.parametrize(
    ("options", "variables"),
    [
        ({"thinking": False}, {"MAX_THINKING_TOKENS": "0"}),
        ({"thinking": True}, {}),
        ({"background": True}, {"CLAUDE_CODE_DISABLE_BACKGROUND_TASKS": "0"}),
        ({"background": False}, {"CLAUDE_CODE_DISABLE_BACKGROUND_TASKS": "1"}),
        (
            {"context_window": 32768},
            {"CLAUDE_CODE_MAX_CONTEXT_TOKENS": "32768", "CLAUDE_CODE_MAX_OUTPUT_TOKENS": "8192"},
        ),
        (
            {"max_output_tokens": 512, "context_window": 32768},
            {"CLAUDE_CODE_MAX_OUTPUT_TOKENS": "512"},
        ),
        ({"context_window": 200_000}, {"CLAUDE_CODE_MAX_CONTEXT_TOKENS": "200000"}),
        ({"max_output_tokens": 4096}, {"CLAUDE_CODE_MAX_OUTPUT_TOKENS": "4096"}),
    ],
)
def test_options_are_variables(options, variables):
    env = adapter.command(TASK, with_options(**options)).env
    assert variables.items() <= env.items()
    assert ("MAX_THINKING_TOKENS" in env) == ("MAX_THINKING_TOKENS" in variables)


def test_mcp_servers_are_a_file_in_the_private_home():
    command = adapter.command(TASK, with_options(mcp={"x": {"command": "y"}}))
    assert json.loads(command.files["/state/home/mcp.json"]) == {
        "mcpServers": {"x": {"command": "y"}}
    }


@pytest.mark.parametrize(
    ("agent", "problem"),
    [
        (with_options(colour="red"), "claude has no option 'colour' \\(known: bare, tools"),
        (with_options(effort="enormous"), "option 'effort' is low, medium, .* found 'enormous'"),
        (with_options(tools="Read"), "option 'tools' is list of .* found 'Read'"),
        (with_options(mcp=[]), "option 'mcp' is table of"),
        (replace(with_options(mcp={}), home=None), "option 'mcp' needs `profile: clean`"),
    ],
)
def test_an_option_that_does_not_fit_is_named(agent, problem):
    with pytest.raises(ConfigError, match=problem):
        adapter.command(TASK, agent)


# --- what is said to it --------------------------------------------------------------------------


def talk(task: Task = TASK, agent: Agent = LOCAL, before: Usage | None = None) -> Any:
    conversation = adapter.conversation(task, agent, before)
    assert isinstance(conversation, ClaudeConversation)
    return conversation


def sent(said: Iterable[Update | Send]) -> list[Any]:
    return [json.loads(one.data) for one in said if isinstance(one, Send) and one.data]


def test_the_prompt_is_a_message_with_the_files_that_matter():
    (message,) = sent(talk(replace(TASK, files=("a.py", "b c.py"))).start())
    prompt = "Fix it.\n\nFiles that matter:\n- a.py\n- b c.py\n"
    assert message == {"type": "user", "message": {"role": "user", "content": prompt}}
    (message,) = sent(talk(replace(TASK, prompt="a\udc80b")).start())
    assert message["message"]["content"] == "a?b"


def test_it_is_said_that_commands_are_not_held_to_the_workspace():
    assert any(isinstance(one, Notice) for one in talk().start())
    for access in ("read", "full"):
        assert not any(
            isinstance(one, Notice) for one in talk(replace(TASK, access=access)).start()
        )


def test_an_interrupt_is_asked_for_until_the_first_result_closes_stdin():
    conversation = talk()
    (request,) = sent(conversation.interrupt())
    assert request["request"] == {"subtype": "interrupt"}
    for ends in (1, 0):
        said = list(conversation.feed(line(type="result", subtype="success", is_error=False)))
        assert said.count(Send(end=True)) == ends
    assert list(conversation.interrupt()) == []
    assert list(conversation.decide(Permission(id="1", status="requested"))) == []


def test_a_result_that_is_not_understood_closes_stdin_too():
    said = list(talk().feed(line(type="result", subtype="applause")))
    assert isinstance(said[0], Unparsed)
    assert said[1:] == [Send(end=True)]


# --- recordings ----------------------------------------------------------------------------------


def line(**event: object) -> bytes:
    return json.dumps(event).encode()


def updates(case: str) -> list[Update]:
    meta = json.loads((RECORDED / f"{case}.meta.json").read_text())
    asked = {key: meta["task"].get(key) for key in ("prompt", "access", "kind")}
    known = {key: meta["agent"].get(key) for key in ("model", "base_url", "api_key_env")}
    conversation = adapter.conversation(
        Task(**asked), Agent(name="claude", adapter="claude", **known), None
    )
    stderr = (RECORDED / f"{case}.stderr").read_text()
    found: list[Update] = []
    for said in (RECORDED / f"{case}.jsonl").read_bytes().split(b"\n"):
        if said:
            told = list(conversation.feed(said))
            assert told
            found += [update for update in told if not isinstance(update, Send)]
    return [*found, *conversation.close(Exit(**meta["exit"], stderr=stderr))]


def of(kind: type[Kind], case: str) -> list[Kind]:
    return [update for update in updates(case) if isinstance(update, kind)]


def calls(case: str) -> list[ToolCall]:
    """Each call with all that was said of it."""
    merged: dict[str, ToolCall] = {}
    for call in of(ToolCall, case):
        known = merged.setdefault(call.id, call)
        news = {key: value for key, value in vars(call).items() if value is not None}
        merged[call.id] = replace(known, **news)
    return list(merged.values())


def spent(case: str) -> Usage | None:
    total = Tally()
    for usage in of(Usage, case):
        total = total.plus(usage)
    return total.usage


@pytest.mark.parametrize("case", CASES)
def test_every_line_of_every_recording_is_understood(case):
    strange = [
        one.text for one in of(Unparsed, case) if one.reason != "known, and says nothing new"
    ]
    assert strange == []


@pytest.mark.parametrize("case", CASES)
def test_a_call_begins_once_which_is_what_steps_are_counted_by(case):
    begun = [call.id for call in of(ToolCall, case) if call.status == "in_progress"]
    assert len(begun) == len(set(begun))


def test_a_success_is_a_session_a_turn_messages_and_an_end():
    said = updates("success_edit")
    (session,) = (one for one in said if isinstance(one, SessionStarted))
    assert re.fullmatch(r"[0-9a-f-]{36}", session.session_id)
    assert session.model == "scripted"
    assert session.tools == ["Bash", "Edit", "Read"]
    assert of(TurnStarted, "success_edit") == [TurnStarted()]
    assert [one.text for one in said if isinstance(one, Message)] == [
        "I will fix the spelling.",
        "The greeting is fixed.",
    ]
    assert [one.text for one in said if isinstance(one, Thought)] == ["The word is misspelt."]
    assert said[-1] == TurnFinished(stop_reason="end_turn")


def test_pieces_make_up_the_whole_that_follows_under_the_same_id():
    texts: dict[str | None, str] = {}
    for update in updates("success_edit"):
        match update:
            case MessageDelta(id=id_, text=text) | ThoughtDelta(id=id_, text=text):
                texts[id_] = texts.get(id_, "") + text
            case Message(id=id_, text=text) | Thought(id=id_, text=text):
                assert texts.pop(id_) == text
            case _:
                pass
    assert "".join(texts.values()) == ""  # only pieces of calls are left


def test_an_edit_is_a_call_with_place_and_diff():
    read, edit = calls("success_edit")
    assert (read.kind, read.title, read.status) == ("read", f"Read {HELLO}", "completed")
    assert edit.kind == "edit"
    assert edit.title == f"Edit {HELLO}"
    assert edit.locations == [Location(path=HELLO)]
    assert edit.diff == (
        f"--- {HELLO}\n+++ {HELLO}\n@@ -1,1 +1,1 @@\n-print('helo')\n+print('hello')\n"
    )


HELLO = "hello.py"


def test_usage_and_context_are_told_with_each_call():
    told = [
        (one.input_tokens, one.output_tokens, one.cache_read_tokens, one.reasoning_tokens)
        for one in of(Usage, "success_edit")
    ]
    assert told == [(100, 30, 40, 10), (10, 12, 160, 0), (20, 6, 180, 0)]
    assert {one.scope for one in of(Usage, "success_edit")} == {"call"}
    # Each call twice: when it begins, with one token of the answer, and when that has its size.
    used = [context.used for context in of(Context, "success_edit")]
    assert used == [141, 170, 171, 182, 201, 206]


def test_a_command_has_its_words_its_output_and_its_exit_status():
    failed, made = calls("failing_tool")
    assert failed.kind == "execute"
    assert failed.title == "echo begun; cat missing.txt"
    assert (failed.status, failed.exit_code) == ("failed", 1)
    assert failed.output is not None
    assert "begun" in failed.output
    assert (made.status, made.exit_code) == ("completed", 0)


def test_calls_that_are_broken_fail_and_are_no_denials():
    assert [call.status for call in calls("broken_calls")] == ["failed"] * 3
    assert of(Permission, "broken_calls") == []


def test_searches_are_searches():
    assert [call.kind for call in calls("look_around")] == ["search", "search", "read"]


@pytest.mark.parametrize("case", ["denied_outside", "denied_by_rule"])
def test_a_denial_is_told_once_though_claude_ends_well(case):
    (denial,) = of(Permission, case)
    assert (denial.status, bool(denial.reason)) == ("denied", True)
    assert of(TurnFinished, case) == [TurnFinished(stop_reason="end_turn")]


def test_under_read_a_tool_that_is_not_there_is_a_denial():
    denials = {one.id: one for one in of(Permission, "denied_read_only")}
    assert [one.tool for one in denials.values()] == ["Bash", "Write", "Edit"]
    assert {call.status for call in calls("denied_read_only")} == {"failed"}


@pytest.mark.parametrize(
    ("case", "kind"),
    [
        ("model_down", "unavailable"),
        ("unauthorized_401", "auth_failed"),
        ("not_logged_in", "auth_failed"),
        ("model_404", "model_not_found"),
        ("rate_limit_429", "rate_limited"),
        ("quota_exceeded", "rate_limited"),
        ("server_error_500", "server_error"),
        ("overloaded_529", "server_error"),
        ("cut_stream", "unavailable"),
        ("captive_portal", "unavailable"),
        ("context_overflow", "context_overflow"),
        ("bad_request_400", "invalid_request"),
        ("over_budget", "budget_exceeded"),
        ("refusal", "refused"),
        ("max_tokens", "incomplete"),
        ("thought_only", "incomplete"),
        ("unknown_session", "bad_usage"),
        ("bad_flag", "bad_usage"),
        ("not_isolated", "bad_usage"),
        ("no_sandbox", "bad_usage"),
        ("interrupted_signal_waiting", "incomplete"),
        ("background_then_failure", "server_error"),
    ],
)
def test_a_failure_has_its_kind(case, kind):
    assert of(Error, case)[-1].kind == kind
    assert TurnFinished(stop_reason="end_turn") not in of(TurnFinished, case)[-1:]


@pytest.mark.parametrize(
    ("case", "reason"),
    [
        ("refusal", "refusal"),
        ("max_tokens", "max_tokens"),
        ("max_turns", "max_turn_requests"),
        ("interrupted", "cancelled"),
        ("interrupted_waiting", "cancelled"),
        ("interrupted_signal", "cancelled"),
        ("terminated", "cancelled"),
        ("server_error_500", "error"),
    ],
)
def test_a_turn_that_was_not_done_says_why(case, reason):
    assert of(TurnFinished, case) == [TurnFinished(stop_reason=reason)]


def test_what_to_do_about_a_login_is_said_only_where_no_key_was_refused():
    assert "/login" in str(of(Error, "not_logged_in")[-1].hint)
    assert of(Error, "unauthorized_401")[-1].hint is None


def test_retries_are_told():
    first, second = of(Retry, "server_error_500")
    assert (first.attempt, first.of) == (1, 2)
    assert (second.attempt, second.of) == (2, 2)
    assert first.reason.endswith("(status 500)")
    assert first.delay_s is not None
    assert 0 < first.delay_s < 5
    assert "status" not in of(Retry, "model_down")[0].reason


def test_what_claude_says_in_the_models_name_is_no_answer():
    assert of(Message, "server_error_500") == []
    assert [one.role for one in of(Message, "max_tokens")].count("user") == 3


COUNTS = ("input_tokens", "output_tokens", "cache_read_tokens", "cache_write_tokens")


def results(case: str) -> list[Any]:
    said = (RECORDED / f"{case}.jsonl").read_bytes().split(b"\n")
    return [
        event for one in said if one.startswith(b'{"type":"result"') for event in [json.loads(one)]
    ]


@pytest.mark.parametrize("case", [case for case in CASES if results(case)])
def test_what_was_told_call_by_call_and_the_rest_are_what_the_results_say(case):
    usage = spent(case)
    stated = [
        models_usage(one.get("model_usage_since_last_result"), billed=False)
        for one in results(case)
    ]
    assert usage is not None
    for name in COUNTS:
        assert getattr(usage, name) == sum(getattr(one, name) for one in stated if one is not None)
    assert all(getattr(one, name) >= 0 for one in of(Usage, case) for name in COUNTS)


def streamed(*deltas: Mapping[str, object], **start: int) -> tuple[bytes, ...]:
    """A message with this usage at its start, and these at its end."""
    message = {"id": "m", "usage": {"input_tokens": 10, "output_tokens": 1, **start}}
    events: list[Mapping[str, object]] = [{"type": "message_start", "message": message}]
    events += [{"type": "message_delta", "usage": delta} for delta in deltas]
    return tuple(line(type="stream_event", event=event) for event in events)


def counted(said: Iterable[Update]) -> list[tuple[object, ...]]:
    return [
        (one.scope, one.input_tokens, one.output_tokens) for one in said if isinstance(one, Usage)
    ]


def test_a_call_that_states_its_usage_again_is_counted_once():
    grown = {"output_tokens": 9, "input_tokens": 30}
    said = tell(*streamed({"output_tokens": 5}, {"output_tokens": 5}, grown))
    assert counted(said) == [("call", 10, 5), ("call", 20, 4)]


def test_what_a_result_does_not_know_of_yet_is_not_counted_again_with_the_next():
    first = result(result="x", usage={"input_tokens": 4, "output_tokens": 5})
    second = result(result="y", usage={"input_tokens": 9, "output_tokens": 7})
    said = tell(*streamed({"output_tokens": 5}), first, second)
    assert counted(said) == [("call", 10, 5), ("turn", 3, 7)]


def test_a_call_says_whether_its_cost_is_still_to_come():
    def source(case: str) -> list[tuple[object, ...]]:
        return [(one.scope, one.cost_usd, one.cost_source) for one in of(Usage, case)]

    assert source("priced") == [("call", None, "agent"), ("turn", pytest.approx(0.0045), "agent")]
    assert source("subscription") == [("call", None, "subscription")]
    assert source("answer_only") == [("call", None, None)]


def test_a_call_that_was_cut_short_keeps_what_it_used():
    usage = spent("interrupted")
    assert usage is not None
    assert (usage.input_tokens, usage.output_tokens) == (7, 3)
    killed = of(Usage, "killed")
    assert [one.scope for one in killed] == ["call"]
    assert killed[0].output_tokens == 11


def test_the_last_result_counts_and_usage_is_summed_over_all():
    said = updates("background_command")
    ends = [one for one in said if isinstance(one, TurnStarted | TurnFinished)]
    # One more turn is owed from the moment that the command is over.
    assert ends == [
        TurnStarted(),
        TurnFinished(stop_reason="end_turn"),
        TurnStarted(),
        TurnStarted(),
        TurnFinished(stop_reason="end_turn"),
    ]
    usage = spent("background_command")
    assert usage is not None
    assert (usage.input_tokens, usage.output_tokens) == (330, 15)
    assert len(of(SessionStarted, "background_command")) == 1


def test_a_background_command_is_running_until_it_is_over():
    stated = [call.status for call in of(ToolCall, "background_command")]
    assert stated == ["in_progress", None, "completed"]


def test_a_sub_agents_words_are_not_the_answer_but_its_tokens_count():
    assert [one.text for one in of(Message, "subagent")] == ["There is one file."]
    started, _, over = of(Subagent, "subagent")
    assert (started.status, started.child_agent) == ("started", "general-purpose")
    assert over.status == "completed"
    assert started.id == over.id
    assert [call.title for call in calls("subagent")] == ["Agent Look", "ls"]
    usage = spent("subagent")
    assert usage is not None
    assert (usage.input_tokens, usage.output_tokens) == (2330, 165)


def test_a_plan_is_told_whole_each_time():
    plans = of(Plan, "plan")
    assert plans[-1].entries == [
        PlanEntry(text="Look", status="completed"),
        PlanEntry(text="Answer", status="in_progress"),
    ]


def test_a_cost_is_told_where_it_is_paid_and_the_price_is_known():
    usage = spent("priced")
    assert usage is not None
    assert usage.cost_usd == pytest.approx(0.0045)
    assert usage.cost_source == "agent"
    assert Context(size=200000) in of(Context, "priced")
    unpaid = spent("success_edit")
    assert unpaid is not None
    assert unpaid.cost_usd is None
    assert all(context.size is None for context in of(Context, "success_edit"))


def test_a_login_has_limits_and_no_cost():
    (limit,) = of(RateLimit, "subscription")
    assert limit == RateLimit(
        status="allowed, five_hour 93% used", resets_at="2026-11-21T05:46:40Z", exhausted=False
    )
    (usage,) = of(Usage, "subscription")
    assert (usage.cost_usd, usage.cost_source) == (None, "subscription")
    assert of(RateLimit, "subscription_used_up")[0].status == "rejected"
    assert of(Error, "subscription_used_up")[0].kind == "rate_limited"


def test_an_answer_by_a_schema_is_the_answer():
    assert of(Message, "structured")[-1].text == '{"count":2}'


def test_a_resumed_session_counts_only_its_own():
    usage = spent("resume")
    assert usage is not None
    assert (usage.input_tokens, usage.cache_read_tokens, usage.output_tokens) == (16, 220, 10)


def test_a_large_output_is_cut_and_odd_text_arrives():
    (large,) = calls("large_output")
    assert large.output is not None
    assert len(large.output) <= 64 * 1024
    assert of(Message, "odd_text")[-1].text == "Before \u2028 between \u0085 after 🙂."


def test_an_mcp_tool_is_a_call_of_another_kind():
    asked, failed = calls("mcp_call")
    assert (asked.kind, asked.title) == ("other", "mcp__oracle__ask")
    assert asked.output == "All is well with the weather."
    assert failed.status == "failed"


# --- what the recordings do not hold -------------------------------------------------------------


def tell(*lines: bytes, task: Task = TASK, agent: Agent = LOCAL) -> list[Update]:
    conversation = talk(task, agent, Usage())
    said = [update for one in lines for update in conversation.feed(one)]
    return [update for update in said if not isinstance(update, Send)]


def result(**event: object) -> bytes:
    return line(**{"type": "result", "subtype": "success", "is_error": False, **event})


def user(*blocks: object, **event: object) -> bytes:
    return line(type="user", message={"content": list(blocks)}, **event)


def assistant(*blocks: object, **event: object) -> bytes:
    return line(type="assistant", message={"id": "m", "content": list(blocks)}, **event)


@pytest.mark.parametrize(
    "unknown",
    [
        b"no JSON",
        b'{"type": "system"}',
        b'{"type": "system", "subtype": "fireworks"}',
        b'{"type": "system", "subtype": "init"}',
        b'{"type": "applause"}',
        b'{"type": "assistant", "message": {"content": []}}',
        b'{"type": "assistant", "message": {"content": [{"type": "picture"}]}}',
        b'{"type": "assistant", "message": {"content": [{"type": "tool_use"}]}}',
        b'{"type": "user", "message": {}}',
        b'{"type": "user", "message": {"content": [{"type": "picture"}]}}',
        b'{"type": "system", "subtype": "task_started"}',
        b'{"type": "system", "subtype": "task_notification"}',
        b'{"type": "result", "subtype": "applause"}',
        b'{"type": "result"}',
        b'{"type": "keep_alive"}',
    ],
)
def test_what_is_not_known_is_kept(unknown):
    (kept,) = tell(unknown)
    assert kept.type in {"unparsed", "output"}


def test_a_call_without_an_input_is_a_call():
    block = b'{"type":"tool_use","id":"t","name":"Other"}'
    (call,) = tell(b'{"type":"assistant","message":{"id":"m","content":[%b]}}' % block)
    assert call == ToolCall("t", "in_progress", "other", "Other", {})


@pytest.mark.parametrize("value", [b"18446744073709551616", b"[" * 300 + b"]" * 300])
def test_a_call_or_an_answer_that_could_not_be_written_again_as_it_is_stays_raw(value):
    call = b'{"type":"tool_use","id":"t","name":"Other","input":{"n":%b}}' % value
    line = b'{"type":"assistant","message":{"id":"m","content":[%b]}}' % call
    (kept,) = tell(line)
    assert isinstance(kept, Unparsed)
    assert kept.text == line.decode()
    answer = b'{"type":"result","subtype":"success","is_error":false,"structured_output":[%b]}'
    kept, *_, end = tell(answer % value)
    assert isinstance(kept, Unparsed)
    assert kept.text == (answer % value).decode()
    assert end.type == "turn.finished"


@pytest.mark.parametrize(
    ("said", "told"),
    [
        (
            line(
                type="rate_limit_event",
                rate_limit_info={"status": "allowed", "resetsAt": 1795240000},
            ),
            RateLimit(status="allowed", resets_at="2026-11-21T05:46:40Z", exhausted=False),
        ),
        (
            line(type="rate_limit_event", rate_limit_info={"status": "rejected"}),
            RateLimit(status="rejected", exhausted=True),
        ),
        (
            line(type="control_response", response={"error": "no"}),
            Notice(text="claude refused a request: no"),
        ),
        (
            line(type="tool_progress", tool_use_id="1", tool_name="Bash"),
            Notice(text="Bash is still running"),
        ),
        (
            line(type="system", subtype="compact_boundary"),
            Notice(text="claude summed up the conversation to make room"),
        ),
        (line(type="system", subtype="api_retry"), Retry(reason="a request failed")),
        (user("x", isSynthetic=True), None),
        (line(type="user", message={"content": "Go on."}), Message(role="user", text="Go on.")),
        (
            line(type="stream_event", event={"type": "message_delta", "usage": {}}),
            Context(),
        ),
        (
            line(type="stream_event", event={"type": "ping"}),
            MessageDelta(id=":0", text=""),
        ),
    ],
)
def test_words_that_no_recording_has(said, told):
    (update,) = tell(said)
    assert told is None or update == told


def test_a_plan_by_todos():
    listed = [
        {"content": "Look", "status": "completed"},
        {"content": "Answer", "status": "in_progress"},
        {"content": "Rest", "status": "pending"},
        "rubbish",
    ]
    said = tell(
        assistant({"type": "tool_use", "id": "1", "name": "TodoWrite", "input": {"todos": listed}})
    )
    assert said[-1] == Plan(
        entries=[
            PlanEntry(text="Look", status="completed"),
            PlanEntry(text="Answer", status="in_progress"),
            PlanEntry(text="Rest", status="pending"),
        ]
    )


def test_a_step_of_a_plan_may_be_deleted_or_unknown():
    def step(name: str, call: str, **details: object) -> tuple[bytes, bytes]:
        return (
            assistant({"type": "tool_use", "id": call, "name": name, "input": {}}),
            user({"type": "tool_result", "tool_use_id": call}, tool_use_result=details),
        )

    said = tell(
        *step("TaskCreate", "1", task={"id": "1", "subject": "Look"}),
        *step("TaskUpdate", "2", taskId="1", statusChange={"to": "deleted"}),
        *step("TaskUpdate", "3", taskId="9", statusChange={"to": "completed"}),
        *step("TaskUpdate", "4"),
    )
    plans = [one.entries for one in said if isinstance(one, Plan)]
    assert plans == [[PlanEntry(text="Look", status="pending")], []]


def test_a_long_plan_is_told_with_its_latest_steps_and_that_is_said_each_time():
    conversation, said = talk(), list[Update]()
    for number in range(STEPS + 2):
        call, step = f"c{number}", {"id": str(number), "subject": f"step {number}"}
        asked = {"type": "tool_use", "id": call, "name": "TaskCreate", "input": {}}
        conversation.feed(assistant(asked))
        done = user({"type": "tool_result", "tool_use_id": call}, tool_use_result={"task": step})
        said += list(conversation.feed(assistant(asked))) + list(conversation.feed(done))
    plans = [one for one in said if isinstance(one, Plan)]
    assert [len(one.entries) for one in plans[-3:]] == [STEPS] * 3
    assert plans[-1].entries[-1].text == f"step {STEPS + 1}"
    assert [one.text for one in said if isinstance(one, Notice)] == [
        f"the plan is long: its latest {STEPS} steps are shown"
    ] * 2


@pytest.mark.no_cover
def test_what_is_known_of_a_conversation_does_not_grow_with_it():
    def flood(numbers: range) -> None:
        for number in numbers:
            id_, call = f"m{number}", f"c{number}"
            message = {"id": id_, "usage": {"input_tokens": 10, "output_tokens": 1}}
            piece = {"type": "content_block_delta", "delta": {"text": "piece"}}
            step = {"task": {"id": str(number), "subject": "a step"}}
            asked = {"type": "tool_use", "id": call, "name": "TaskCreate", "input": {}}
            for said in (
                line(type="stream_event", event={"type": "message_start", "message": message}),
                line(type="stream_event", event=piece),
                line(
                    type="stream_event",
                    event={"type": "message_delta", "usage": {"output_tokens": 2}},
                ),
                line(type="assistant", message={"id": id_, "content": [asked]}),
                user({"type": "tool_result", "tool_use_id": call}, tool_use_result=step),
                line(
                    type="system", subtype="permission_denied", tool_use_id=call, tool_name="Bash"
                ),
                line(type="system", subtype="task_started", tool_use_id=f"b{number}"),
            ):
                for _ in conversation.feed(said):
                    pass

    def held() -> int:
        return len(
            pickle.dumps({key: one for key, one in vars(conversation).items() if key != "task"})
        )

    conversation = talk()
    flood(range(100_000, 100_000 + MOST))
    before = held()
    flood(range(200_000, 200_000 + MOST))
    assert abs(held() - before) < 100  # some numbers have a digit more
    flood(range(300_000, 300_000 + MOST))
    assert abs(held() - before) < 100


def test_text_of_a_sub_agent_is_a_thought():
    (said,) = tell(assistant({"type": "text", "text": "I look."}, parent_tool_use_id="1"))
    assert said == Thought(id="m:0", text="I look.")


def test_a_patch_that_is_not_one_makes_no_diff():
    details = {"filePath": "a.py", "structuredPatch": [{"oldStart": "x", "lines": ["+a"]}]}
    (call,) = tell(user({"type": "tool_result", "tool_use_id": "1"}, tool_use_result=details))
    assert isinstance(call, ToolCall)
    assert call.diff is None


def test_a_sub_agent_in_the_background_that_was_stopped_is_not_waited_for():
    said = tell(
        line(type="system", subtype="init", session_id=SESSION),
        assistant({"type": "tool_use", "id": "1", "name": "Agent", "input": {}}),
        line(
            type="system",
            subtype="task_started",
            tool_use_id="1",
            task_type="local_agent",
            is_backgrounded=True,
        ),
        user({"type": "tool_result", "tool_use_id": "1", "content": "begun"}),
        result(result="Started."),
        line(type="system", subtype="task_notification", tool_use_id="1", status="killed"),
    )
    assert said[-2:] == [
        ToolCall(id="1", status="failed"),
        Subagent(id="1", status="failed"),
    ]
    assert [one for one in said if isinstance(one, TurnStarted)] == [TurnStarted()]


def test_a_denial_that_only_the_result_knows_of():
    denials = [{"tool_use_id": "1", "tool_name": "Bash"}, "rubbish"]
    said = tell(result(result="Done.", permission_denials=denials))
    assert Permission(id="1", status="denied", tool="Bash") in said


def test_under_read_a_missing_tool_is_a_denial_also_where_only_the_answer_names_it():
    task = replace(TASK, access="read")
    error = "<tool_use_error>Error: No such tool available: {}. {} is disabled.</tool_use_error>"
    for tool, denied in (("Bash", 1), ("Juggle", 0)):
        block = {"type": "tool_result", "tool_use_id": "1", "content": error.format(tool, tool)}
        said = tell(user({**block, "is_error": True}), task=task)
        assert len([one for one in said if isinstance(one, Permission)]) == denied


@pytest.mark.parametrize(
    ("event", "said"),
    [
        ({"result": "Hi.", "stop_reason": "max_tokens"}, [TurnFinished(stop_reason="max_tokens")]),
        ({"result": "No.", "stop_reason": "refusal"}, [TurnFinished(stop_reason="refusal")]),
        (
            {"result": "Hi.", "terminal_reason": "hook_stopped"},
            [
                Error(kind="incomplete", text="claude ended its turn early: hook_stopped"),
                TurnFinished(stop_reason="error"),
            ],
        ),
        (
            {"subtype": "error_max_structured_output_retries", "is_error": True, "errors": ["x"]},
            [Error(kind="unknown", text="x"), TurnFinished(stop_reason="error")],
        ),
        (
            {"subtype": "error_max_budget_usd", "is_error": True},
            [
                Error(
                    kind="budget_exceeded",
                    text="claude spent its budget before it was done",
                    retryable=False,
                ),
                TurnFinished(stop_reason="error"),
            ],
        ),
        (
            {"is_error": None},
            [
                Error(kind="unknown", text="claude says that its turn failed", retryable=False),
                TurnFinished(stop_reason="error"),
            ],
        ),
        (
            {"is_error": True, "result": "Too long", "terminal_reason": "prompt_too_long"},
            [
                Error(kind="context_overflow", text="Too long", retryable=False),
                TurnFinished(stop_reason="error"),
            ],
        ),
    ],
)
def test_ends_that_no_recording_has(event, said):
    assert tell(result(**event)) == said


def test_a_turn_that_acted_needs_no_last_word():
    done = user({"type": "tool_result", "tool_use_id": "1", "content": "ok"})
    assert tell(done, result(result=""))[-1] == TurnFinished(stop_reason="end_turn")


def test_usage_of_an_older_claude_is_the_sessions_less_what_was_before():
    models = {"m": {"inputTokens": 100, "outputTokens": 10, "costUSD": 0.5}}
    said = result(result="x", modelUsage=models, usage={"input_tokens": 7, "output_tokens": 1})
    before = Usage(input_tokens=60, output_tokens=4, cost_usd=0.2)

    def used(known: Usage | None) -> tuple[object, ...]:
        task = replace(TASK, session_id=SESSION)
        conversation = adapter.conversation(task, CLOUD, known)
        (usage,) = (one for one in conversation.feed(said) if isinstance(one, Usage))
        cost = None if usage.cost_usd is None else round(usage.cost_usd, 6)
        return usage.input_tokens, usage.output_tokens, cost

    assert used(before) == (40, 6, 0.3)
    assert used(None) == (7, 1, None)


def test_the_window_is_told_where_one_model_is_known():
    one = {"costBasis": "list", "contextWindow": 200000}
    assert Context(size=200000) in tell(result(result="x", modelUsage={"a": one}))
    assert Context(size=200000) not in tell(result(result="x", modelUsage={"a": one, "b": one}))


# --- the end -------------------------------------------------------------------------------------


def ended(exit_: Exit, *lines: bytes) -> list[Update]:
    conversation = talk()
    for one in lines:
        list(conversation.feed(one))
    return list(conversation.close(exit_))


BEGUN = line(type="system", subtype="init", session_id=SESSION)


@pytest.mark.parametrize(
    ("stderr", "kind"),
    [
        ("", "incomplete"),
        ('[claude-code:unrecognized_model] {"model":"x"}\n\n', "incomplete"),
        ("Error: claude native binary not installed.\n\nEither postinstall did not", "spawn"),
        ("error: unknown option '--fly'", "bad_usage"),
        ("--dangerously-skip-permissions cannot be used with root/sudo privileges", "bad_usage"),
        ("Error: Settings file not found: /x", "bad_usage"),
        ("Error: connect ECONNREFUSED 127.0.0.1:9", "unavailable"),
        ("Segmentation fault", "unknown"),
    ],
)
def test_why_it_never_began_is_on_stderr(stderr, kind):
    (error,) = ended(Exit(status=1, stderr=stderr))
    assert isinstance(error, Error)
    assert error.kind == kind
    assert "\n" not in error.text


def test_an_end_without_a_result_is_none():
    (error,) = ended(Exit(status=0), BEGUN)
    assert error == Error(kind="incomplete", text="claude ended (exit 0) before its turn was over")
    assert ended(Exit(signal=9), BEGUN) == []
    assert ended(Exit(status=143), BEGUN) == [TurnFinished(stop_reason="cancelled")]
    assert ended(Exit(status=0), BEGUN, result(result="Done.")) == []


def test_an_interrupt_that_left_no_result_is_known_by_its_words():
    words = {"type": "text", "text": "[Request interrupted by user]"}
    said = ended(Exit(status=0), BEGUN, user(words))
    assert said == [TurnFinished(stop_reason="cancelled")]


def test_a_server_at_home_is_tried_again_once():
    at_home = Agent(name="a", adapter="claude", model="m", base_url="http://h:1", tier="local")
    retries = [
        adapter.command(TASK, agent).env["CLAUDE_CODE_MAX_RETRIES"]
        for agent in (at_home, replace(at_home, tier="cloud"))
    ]
    assert retries == ["1", "2"]


@pytest.mark.parametrize(
    ("options", "profile", "heavy"),
    [
        ({}, "clean", False),
        ({"bare": False}, "clean", True),
        ({"tools": ["Read"]}, "clean", False),
        ({}, "user", True),
    ],
)
def test_its_prompt_is_as_heavy_as_its_tools(options, profile, heavy):
    agent = Agent(name="a", adapter="claude", options=options, profile=profile)
    assert about_of(adapter, agent).prompt_tokens == (22_000 if heavy else 1_100)


def test_a_message_without_an_id_begins_nothing():
    event = {"type": "message_start", "message": {"role": "assistant"}}
    line = json.dumps({"type": "stream_event", "event": event}).encode()
    conversation = adapter.conversation(Task(prompt="p"), Agent(name="c", adapter="claude"), None)
    assert list(conversation.feed(line)) == [MessageDelta(id=":0", text="")]


def test_only_the_latest_calls_are_remembered():
    known: dict[str, int] = {}
    for number in range(MOST + 5):
        hold(known, str(number), number)
    assert list(known.values()) == list(range(5, MOST + 5))


def test_its_own_command_makes_an_mcp_server_known_to_it():
    setup = adapter.mcp_setup("/opt/claude", ORACLE)
    user = ("--scope", "user", "the_oracle")
    assert setup.add == ("/opt/claude", "mcp", "add", *user, "--", "/bin/oracle", "--loud")
    assert setup.remove == ("/opt/claude", "mcp", "remove", *user)
    assert setup.show == ("/opt/claude", "mcp", "get", "the_oracle")
