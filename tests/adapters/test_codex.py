"""The codex adapter: what it starts, and what recordings of the real codex 0.169.0 mean."""

import json
import re
import signal
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

import pytest

from adapters.codex import OPTIONS, adapter
from adapters.codex.command import endpoint
from adapters.reading import MOST, hold
from orchestrator.adapter import Agent, Command, Exit
from orchestrator.errors import ConfigError
from orchestrator.events import (
    Context,
    Error,
    Location,
    Message,
    Notice,
    Permission,
    Plan,
    PlanEntry,
    RateLimit,
    Retry,
    SessionStarted,
    Thought,
    ToolCall,
    TurnFinished,
    TurnStarted,
    Unparsed,
    Update,
    Usage,
)
from orchestrator.outcome import Digest, Facts, decide
from orchestrator.task import McpServer, Task
from orchestrator.usage import add

RECORDED = Path(__file__).parent.parent / "recordings/codex/0.169.0"
CASES = sorted(path.name.removesuffix(".meta.json") for path in RECORDED.glob("*.meta.json"))
SESSION = "01a1fc42-0000-7000-8000-00000000abcd"
LOCAL = Agent(
    name="mine",
    adapter="codex",
    model="qwen",
    server="vllm",
    base_url="http://127.0.0.1:8000",
    tier="local",
    program="/opt/codex",
    home="/state/home",
)
CLOUD = Agent(name="codex", adapter="codex", profile="user", api_key_env="OPENAI_API_KEY")
TASK = Task(prompt="Fix it.", workspace=Path("/repo"))


def settings(command: Command) -> dict[str, str]:
    """What follows each `-c`."""
    return dict(word.split("=", 1) for word in after(command, "-c"))


def after(command: Command, flag: str) -> list[str]:
    return [word for one, word in zip(command.argv, command.argv[1:], strict=False) if one == flag]


Kind = TypeVar("Kind", bound=Update)


# --- what to start -------------------------------------------------------------------------------


def test_the_prompt_goes_in_on_stdin_and_the_command_line_ends_with_a_dash():
    command = adapter.command(TASK, LOCAL)
    assert command.stdin == b"Fix it."
    assert command.argv[:3] == ("/opt/codex", "exec", "--json")
    assert command.argv[-1] == "-"
    assert command.cwd == "/repo"
    assert command.interrupt == signal.SIGINT
    assert "Fix it." not in command.argv


def test_files_that_matter_are_named_in_the_prompt():
    command = adapter.command(replace(TASK, files=("a.py", "b c.py")), LOCAL)
    assert command.stdin == b"Fix it.\n\nFiles that matter:\n- a.py\n- b c.py\n"


def test_a_prompt_that_is_not_quite_text_is_sent_all_the_same():
    assert adapter.command(replace(TASK, prompt="a\udc80b"), LOCAL).stdin == b"a?b"


@pytest.mark.parametrize(
    ("access", "sandbox"),
    [("read", "read-only"), ("edit", "workspace-write"), ("full", "danger-full-access")],
)
def test_access_is_a_sandbox_and_nobody_is_asked(access, sandbox):
    command = adapter.command(replace(TASK, access=access), LOCAL)
    assert after(command, "-s") == [sandbox]
    assert settings(command)["approval_policy"] == '"never"'


def test_kinds_that_only_read_may_only_read():
    assert after(adapter.command(replace(TASK, kind="review"), LOCAL), "-s") == ["read-only"]


ORACLE = McpServer(
    name="the oracle",
    command=("/bin/oracle", "--loud"),
    env={"PLACE": "Delphi", "ORACLE_TOKEN": "wise"},
)


def test_a_tasks_mcp_servers_may_be_called_and_their_secrets_are_only_named():
    command = adapter.command(
        replace(TASK, mcp_servers=(ORACLE,)), replace(LOCAL, api_key_env="MY_KEY")
    )
    found = settings(command)
    server = found["mcp_servers.the_oracle"]
    assert '"command"="/bin/oracle","args"=["--loud"],"env"={"PLACE"="Delphi"}' in server
    assert '"env_vars"=["ORACLE_TOKEN"]' in server
    assert '"default_tools_approval_mode"="approve"' in server
    assert command.env["ORACLE_TOKEN"] == "wise"
    assert found["shell_environment_policy.exclude"] == '["RUN_KEY","ORACLE_TOKEN"]'


def test_two_mcp_servers_with_different_secrets_of_one_name_are_refused():
    other = replace(ORACLE, name="other", env={"ORACLE_TOKEN": "else"})
    with pytest.raises(ConfigError, match="different values of ORACLE_TOKEN"):
        adapter.command(replace(TASK, mcp_servers=(ORACLE, other)), LOCAL)


def test_an_address_becomes_a_provider_of_its_own_that_gives_up_soon():
    found = settings(adapter.command(TASK, LOCAL))
    assert found["model_provider"] == '"endpoint"'
    provider = found["model_providers.endpoint"]
    assert '"base_url"="http://127.0.0.1:8000/v1"' in provider
    assert '"wire_api"="responses"' in provider
    assert '"name"="vllm"' in provider
    assert '"request_max_retries"=1' in provider
    assert "env_key" not in provider
    assert "unbounded_connection_retries" in after(adapter.command(TASK, LOCAL), "--disable")


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        ("localhost:1234", "http://localhost:1234/v1"),
        ("http://localhost:1234/", "http://localhost:1234/v1"),
        ("http://localhost:1234/v1", "http://localhost:1234/v1"),
        ("http://localhost:1234/v1/", "http://localhost:1234/v1"),
        ("127.0.0.1", "http://127.0.0.1/v1"),
        ("desk", "http://desk/v1"),
        ("desk.example:11434", "http://desk.example:11434/v1"),
        ("api.example.com", "https://api.example.com/v1"),
        ("api.example.com/v1", "https://api.example.com/v1"),
        ("https://openrouter.ai/api", "https://openrouter.ai/api/v1"),
        ("https://x.example/v1beta/openai", "https://x.example/v1beta/openai"),
    ],
)
def test_an_address_may_be_written_in_many_ways(written, meant):
    assert endpoint(written) == meant


def test_a_key_is_passed_by_name_and_hidden_from_the_commands_of_the_model():
    command = adapter.command(TASK, replace(LOCAL, api_key_env="MY_KEY"))
    assert command.env_from == {"RUN_KEY": "MY_KEY"}
    assert command.secrets == ("RUN_KEY",)
    assert '"env_key"="RUN_KEY"' in settings(command)["model_providers.endpoint"]
    assert settings(command)["shell_environment_policy.exclude"] == '["RUN_KEY"]'
    assert "MY_KEY" not in " ".join(command.argv)


def test_without_an_address_it_is_openai_with_the_users_home_and_key():
    command = adapter.command(TASK, CLOUD)
    assert command.argv[0] == "codex"
    assert command.env == {}
    assert command.env_from == {"CODEX_HOME": "CODEX_HOME", "CODEX_API_KEY": "OPENAI_API_KEY"}
    assert command.secrets == ("CODEX_API_KEY",)
    assert "model_provider" not in settings(command)
    assert "-m" not in command.argv
    assert command.tails[0].folder == "~/.codex/sessions"


def test_without_a_key_the_login_of_the_home_is_used():
    command = adapter.command(TASK, replace(CLOUD, api_key_env=None))
    assert command.secrets == ()
    assert command.env_from == {"CODEX_HOME": "CODEX_HOME"}


def test_a_clean_profile_ignores_the_users_settings_and_trims_the_prompt():
    clean, user = (
        adapter.command(TASK, LOCAL),
        adapter.command(TASK, replace(LOCAL, profile="user")),
    )
    assert clean.env == {"CODEX_HOME": "/state/home"}
    for flag in ("--ignore-user-config", "--ignore-rules", "--strict-config"):
        assert flag in clean.argv
        assert flag not in user.argv
    assert "image_generation" in after(clean, "--disable")
    assert "image_generation" not in after(user, "--disable")
    assert settings(clean)["web_search"] == '"disabled"'
    assert "web_search" not in settings(user)
    for command in (clean, user):
        assert settings(command)["analytics.enabled"] == "false"
        assert settings(command)["check_for_update_on_startup"] == "false"
        assert "multi_agent" in after(command, "--disable")


PLUGGED = {"config": {"features.plugins": True}}


@pytest.mark.parametrize(
    ("agent", "off"),
    [
        (LOCAL, {"plugins", "apps"}),
        (replace(LOCAL, profile="user"), {"plugins", "apps"}),
        (replace(LOCAL, options=PLUGGED), {"apps"}),
        (CLOUD, set()),
        (replace(CLOUD, profile="clean", home="/home"), {"plugins", "apps"}),
    ],
)
def test_lists_of_plug_ins_are_fetched_only_where_the_users_settings_hold_in_the_cloud(agent, off):
    command = adapter.command(TASK, agent)
    assert {"plugins", "apps"} & set(after(command, "--disable")) == off


@pytest.mark.parametrize("server", ["ollama", "lmstudio"])
def test_without_an_address_a_local_server_is_codex_own_oss(server):
    command = adapter.command(TASK, replace(LOCAL, server=server, base_url=None))
    assert "--oss" in command.argv
    assert after(command, "--local-provider") == [server]
    assert "CODEX_OSS_BASE_URL" not in command.env
    assert "model_provider" not in settings(command)


def test_oss_may_be_asked_for_with_an_address():
    agent = replace(LOCAL, server="ollama", options={"oss": True})
    command = adapter.command(TASK, agent)
    assert command.env["CODEX_OSS_BASE_URL"] == "http://127.0.0.1:8000/v1"
    assert "model_provider" not in settings(command)
    assert after(command, "-m") == ["qwen:latest"]
    tagged = adapter.command(TASK, replace(agent, model="qwen:7b"))
    assert after(tagged, "-m") == ["qwen:7b"]


def test_oss_may_be_declined():
    agent = replace(LOCAL, server="ollama", base_url=None, options={"oss": False})
    assert "--oss" not in adapter.command(TASK, agent).argv


@pytest.mark.parametrize(
    ("options", "name", "value"),
    [
        ({"network": True}, "sandbox_workspace_write.network_access", "true"),
        ({"web_search": True}, "web_search", '"live"'),
        ({"web_search": False}, "web_search", '"disabled"'),
        ({"plan": True}, "tools.update_plan", '{"enabled"=true}'),
        ({"reasoning_effort": "high"}, "model_reasoning_effort", '"high"'),
        ({"context_window": 32768}, "model_context_window", "32768"),
        ({"config": {"a.b": ["x", 1, {"c": 'say "hi"'}]}}, "a.b", r'["x",1,{"c"="say \"hi\""}]'),
        ({"config": {"web_search": "cached"}}, "web_search", '"cached"'),
    ],
)
def test_an_option_is_a_setting(options, name, value):
    assert settings(adapter.command(TASK, replace(LOCAL, options=options)))[name] == value


def test_further_folders_may_be_writable():
    command = adapter.command(TASK, replace(LOCAL, options={"writable": ["/a", "/b c"]}))
    assert after(command, "--add-dir") == ["/a", "/b c"]


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"netwrok": True}, "codex has no option 'netwrok' (known: oss, network"),
        ({"network": "yes"}, "option 'network' is true: commands may use the network"),
        ({"oss": True}, "option 'oss' is true: start with `--oss`"),
    ],
)
def test_a_wrong_option_is_named_with_what_is_known(options, says):
    with pytest.raises(ConfigError, match=re.escape(says)):
        adapter.command(TASK, replace(LOCAL, options=options))


def test_every_option_is_described():
    assert {"oss", "network", "config"} <= set(OPTIONS)


def test_a_server_of_ones_own_needs_a_model():
    with pytest.raises(ConfigError, match="no model is named"):
        adapter.command(TASK, replace(LOCAL, model=None))


def test_a_session_goes_on_by_its_id_and_its_log_alone_is_read():
    command = adapter.command(replace(TASK, session_id=SESSION), LOCAL)
    assert command.argv[-3:] == ("resume", SESSION, "-")
    assert {tail.pattern for tail in command.tails} == {f"**/rollout-*{SESSION}.jsonl"}
    assert {tail.folder for tail in command.tails} == {"/state/home/sessions"}


def test_a_session_that_has_no_id_of_codex_would_silently_be_a_new_one_and_is_refused():
    with pytest.raises(ConfigError, match="not the id of a codex session"):
        adapter.command(replace(TASK, session_id="last"), LOCAL)


# --- what recordings mean ------------------------------------------------------------------------


def lines(case: str, ending: str) -> list[bytes]:
    file = RECORDED / f"{case}{ending}"
    return [line for line in file.read_bytes().split(b"\n") if line] if file.exists() else []


def facts(case: str) -> dict[str, Any]:
    meta: dict[str, Any] = json.loads((RECORDED / f"{case}.meta.json").read_text())
    return meta


def played(case: str, order: str = "stdout first") -> list[Update]:
    """The updates of a recording, stdout and log in the order that is asked for."""
    meta = facts(case)
    session_id = meta["task"]["session_id"]
    before = Usage(**meta["before"]) if meta["before"] else None
    conversation = adapter.conversation(
        Task(prompt="x", session_id=session_id), Agent(**meta["agent"]), before
    )
    stdout, log = lines(case, ".jsonl"), lines(case, ".tail.jsonl")
    match order:
        case "stdout first":
            fed = [*stdout, *log]
        case "log first":
            fed = [*log, *stdout]
        case "log between":
            fed = [*stdout[:2], *log, *stdout[2:]]
        case _:
            fed = stdout
    updates: list[Update] = []
    for line in fed:
        said = list(conversation.feed(line))
        assert said or line in log
        updates += said
    stderr = (RECORDED / f"{case}.stderr").read_text()
    updates += conversation.close(Exit(**meta["exit"], stderr=stderr))
    return updates


def of(kind: type[Kind], updates: list[Update]) -> list[Kind]:
    return [update for update in updates if isinstance(update, kind)]


def used(updates: list[Update]) -> Usage:
    whole = Usage()
    for update in of(Usage, updates):
        whole = add(whole, update) or whole
    return replace(whole, scope="run")


ORDERS = ["stdout first", "log first", "log between"]


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("case", CASES)
def test_a_recording_ends_as_it_should_whatever_came_first(case, order):
    meta = facts(case)
    digest = Digest()
    for update in played(case, order):
        digest.add(update)
    task = Task(prompt="x", kind=meta["task"].get("kind"))
    exit_ = Exit(**meta["exit"], stderr=(RECORDED / f"{case}.stderr").read_text())
    outcome = decide(Facts(task=task, digest=digest, exit=exit_))
    assert outcome.status == meta["expected"]
    assert not of(Unparsed, played(case, order))


@pytest.mark.parametrize("case", CASES)
def test_the_sum_of_usage_is_what_codex_counted_whatever_came_first(case):
    sums = [used(played(case, order)) for order in ORDERS]
    assert sums[0] == sums[1] == sums[2]
    final = [json.loads(line) for line in lines(case, ".jsonl")]
    totals = [event["usage"] for event in final if event["type"] == "turn.completed"]
    if totals and facts(case)["before"] is None:
        (total,) = totals
        cached = total["cached_input_tokens"] + total["cache_write_input_tokens"]
        assert sums[0].input_tokens == total["input_tokens"] - cached
        assert sums[0].cache_read_tokens == total["cached_input_tokens"]
        assert sums[0].output_tokens == total["output_tokens"]
        assert sums[0].reasoning_tokens == total["reasoning_output_tokens"]


def test_an_edit_by_patch():
    updates = played("success_edit")
    (session,) = of(SessionStarted, updates)
    assert re.fullmatch(r"[0-9a-f-]{36}", session.session_id)
    assert session.model == "scripted"
    assert [thought.text for thought in of(Thought, updates)] == ["The word is misspelt."]
    assert [message.text for message in of(Message, updates)] == [
        "I will fix the spelling.",
        "The greeting is fixed.",
    ]
    begun, done = of(ToolCall, updates)
    assert (begun.status, done.status) == ("in_progress", "completed")
    assert begun.id == done.id
    assert done.kind == "edit"
    path = f"{facts('success_edit')['task']['workspace']}/hello.py"
    assert done.locations == [Location(path=path)]
    assert done.title == f"update {path}"
    assert of(TurnFinished, updates) == [TurnFinished(stop_reason="end_turn")]


def test_usage_is_told_call_by_call_where_the_log_comes_first():
    first, second = of(Usage, played("success_edit", "log first"))
    assert (first.input_tokens, first.cache_read_tokens, first.output_tokens) == (100, 40, 30)
    assert (first.reasoning_tokens, first.scope) == (10, "call")
    assert (second.input_tokens, second.cache_read_tokens, second.output_tokens) == (20, 160, 6)
    assert [context.used for context in of(Context, played("success_edit"))] == [170, 186]
    assert {context.size for context in of(Context, played("success_edit"))} == {258_400}


def test_usage_is_told_once_a_turn_where_there_is_no_log():
    (usage,) = of(Usage, played("success_edit", "no log"))
    assert (usage.input_tokens, usage.cache_read_tokens, usage.scope) == (120, 200, "turn")


@pytest.mark.parametrize("order", ORDERS)
def test_a_resumed_session_is_counted_from_where_it_stood(order):
    usage = used(played("resume", order))
    assert (usage.input_tokens, usage.cache_read_tokens, usage.output_tokens) == (16, 220, 10)


@pytest.mark.parametrize("order", ORDERS)
def test_a_resumed_session_of_unknown_usage_is_counted_by_its_log(order):
    session = json.loads(lines("resume", ".jsonl")[0])["thread_id"]
    conversation = adapter.conversation(Task(prompt="x", session_id=session), LOCAL, None)
    stdout, log = lines("resume", ".jsonl"), lines("resume", ".tail.jsonl")
    fed = [*log, *stdout] if order == "log first" else [*stdout, *log]
    usage = used([update for line in fed for update in conversation.feed(line)])
    assert (usage.input_tokens, usage.cache_read_tokens, usage.output_tokens) == (16, 220, 10)


def test_a_command_with_its_output_and_exit_code():
    calls = {call.id: call for call in of(ToolCall, played("failing_tool"))}
    failed, made = calls.values()
    assert (failed.title, failed.kind, failed.status) == ("cat missing.txt", "execute", "failed")
    assert failed.exit_code == 1
    assert failed.output == "cat: missing.txt: No such file or directory\n"
    assert (made.status, made.exit_code, made.output) == ("completed", 0, None)


def test_several_calls_in_one_answer():
    calls = {call.id: call for call in of(ToolCall, played("several_tool_calls"))}
    kinds = [call.kind for call in calls.values()]
    assert kinds == ["execute", "execute", "edit", "delete"]
    assert {call.status for call in calls.values()} == {"completed"}


def test_a_million_characters_of_output_are_cut():
    done = of(ToolCall, played("large_output"))[-1]
    assert done.output == "x" * 65_536


def test_odd_text_arrives_unchanged():
    updates = played("odd_text")
    assert of(Message, updates)[-1].text == "Before \u2028 between \x85 after 🙂."
    assert "a\u2028b\x85c\x1b[31mred" in str(of(ToolCall, updates)[-1].output)


def test_a_plan_is_told_whole_each_time():
    first, second, *_ = of(Plan, played("plan"))
    assert first.entries == [
        PlanEntry(text="Look", status="pending"),
        PlanEntry(text="Answer", status="pending"),
    ]
    assert second.entries[0].status == "completed"


def test_mcp_calls_with_arguments_and_results():
    calls = {call.id: call for call in of(ToolCall, played("mcp_call"))}
    well, ill = calls.values()
    assert (well.title, well.kind, well.status) == ("oracle.ask", "other", "completed")
    assert well.input == {"about": "the weather"}
    assert well.output == "All is well with the weather."
    assert ill.status == "failed"


def test_what_the_sandbox_stopped_is_told_by_the_log():
    denied = of(Permission, played("denied_read_only"))
    assert [(one.tool, one.status, one.reason) for one in denied] == [
        ("echo b > b.txt", "denied", "the sandbox stopped it"),
        (
            "apply_patch <<'EOF'",
            "denied",
            (
                "patch rejected: writing is blocked by read-only sandbox;"
                " rejected by user approval settings"
            ),
        ),
    ]
    command = of(ToolCall, played("denied_read_only"))[0]
    assert (command.status, command.exit_code) == ("failed", 1)
    assert command.output == "/bin/bash: line 1: b.txt: Read-only file system\n"


def test_what_codex_rejected_is_told_by_stderr_where_there_is_no_log():
    denied = of(Permission, played("denied_outside", "no log"))
    assert [one.reason for one in denied] == [
        "patch rejected: writing outside of the project; rejected by user approval settings",
        (
            "approval policy is Never; reject command — you cannot ask for escalated permissions"
            " if the approval policy is Never"
        ),
    ]
    assert len(of(Permission, played("denied_outside"))) == 3


def test_calls_that_never_ran_are_told():
    for order in ("log first", "no log"):
        updates = played("broken_calls", order)
        outputs = [str(call.output) for call in of(ToolCall, updates)]
        assert any(output.startswith("apply_patch verification failed") for output in outputs)
        assert any(output.startswith("failed to parse function arguments") for output in outputs)
        assert "unsupported call: no_such_tool" in outputs
        assert len(outputs) == 3
        assert not of(Permission, updates)


def test_a_command_that_still_runs_at_the_end_stays_open():
    (call,) = of(ToolCall, played("still_running"))
    assert call.status == "in_progress"


def test_a_turn_without_an_answer_is_no_end_of_turn():
    for case in ("refusal", "thought_only"):
        updates = played(case)
        assert of(Error, updates)[-1].kind == "incomplete"
        assert of(TurnFinished, updates) == [TurnFinished(stop_reason="error")]


def test_retries_are_no_errors():
    updates = played("server_error_once")
    (retry,) = of(Retry, updates)
    assert (retry.attempt, retry.of) == (1, 2)
    assert retry.reason.startswith("stream disconnected before completion")
    assert not of(Error, updates)


@pytest.mark.parametrize(
    ("case", "kind", "text"),
    [
        ("model_down", "unavailable", "Connection failed: error sending request"),
        ("unauthorized_401", "auth_failed", "unexpected status 401 Unauthorized"),
        ("missing_key", "auth_failed", "Missing environment variable: `RUN_KEY`"),
        ("model_404", "model_not_found", "The model `gpt-none` does not exist"),
        ("no_responses_api", "invalid_request", "unexpected status 404 Not Found: 404 page"),
        ("rate_limit_429", "rate_limited", "exceeded retry limit, last status: 429"),
        ("quota_exceeded", "rate_limited", "Quota exceeded"),
        ("server_error_500", "server_error", "We\u2019re currently experiencing high demand"),
        ("cut_stream", "unavailable", "stream disconnected before completion"),
        ("context_overflow", "context_overflow", "Codex ran out of room"),
        ("bad_request_400", "invalid_request", "Bad Request"),
        ("max_tokens", "incomplete", "Incomplete response returned, reason: max_output_tokens"),
        ("bad_flag", "bad_usage", "Error loading config.toml: unknown configuration field"),
        ("mcp_missing", "bad_usage", "Error: thread/start"),
        ("oss_ollama_down", "unavailable", "Error: OSS setup failed: No running Ollama server"),
        ("oss_lmstudio_down", "unavailable", "Error: OSS setup failed: OSS setup failed: LM"),
        ("oss_ollama_no_model", "model_not_found", "Pulling model none:7b"),
        ("interrupted_waiting", None, None),
    ],
)
def test_an_error_has_its_kind_and_the_providers_words(case, kind, text):
    errors = of(Error, played(case))
    assert [error.kind for error in errors] == ([kind] if kind else [])
    if kind:
        assert errors[0].text.startswith(text)


def test_what_was_cut_at_the_token_limit_says_so():
    assert of(TurnFinished, played("max_tokens")) == [TurnFinished(stop_reason="max_tokens")]


def test_the_log_tells_of_an_interrupt_and_stdout_alone_of_an_unfinished_turn():
    for case in ("interrupted", "interrupted_waiting"):
        assert of(TurnFinished, played(case)) == [TurnFinished(stop_reason="cancelled")]
        (error,) = of(Error, played(case, "no log"))
        assert (error.kind, error.text) == (
            "incomplete",
            "codex ended (exit 1) before its turn was over",
        )


def test_limits_of_the_provider_are_told_once():
    (limit,) = of(RateLimit, played("rate_limits_shown"))
    assert limit == RateLimit(status="93% used", resets_at="2026-11-21T05:46:40Z", exhausted=False)


# --- what no recording shows ---------------------------------------------------------------------


def said(*events: object, exit_: Exit | None = None, session: str | None = None) -> list[Any]:
    """The updates of lines, each a JSON value or bytes, and of the exit if there is one."""
    conversation = adapter.conversation(Task(prompt="x", session_id=session), LOCAL, None)
    updates: list[Update] = []
    for event in events:
        line = event if isinstance(event, bytes) else json.dumps(event).encode()
        updates += conversation.feed(line)
    return updates + list(conversation.close(exit_) if exit_ else ())


def item(stage: str = "completed", **fields: object) -> dict[str, object]:
    return {"type": f"item.{stage}", "item": {"id": "item_9", **fields}}


def log(type_: str, **payload: object) -> dict[str, object]:
    return {"timestamp": "2026-11-21T00:00:00Z", "type": type_, "payload": payload}


STARTED = {"type": "thread.started", "thread_id": SESSION}
TURN = {"turn_id": "t", "thread_id": SESSION}
METADATA = {"internal_chat_message_metadata_passthrough": {"turn_id": "t"}}


def test_it_neither_begins_nor_answers_nor_interrupts_by_words():
    conversation = adapter.conversation(TASK, LOCAL, None)
    assert not [*conversation.start(), *conversation.interrupt()]
    assert not [*conversation.decide(Permission(id="1", status="requested"))]


@pytest.mark.parametrize(
    "line",
    [
        b"",
        b"plain text",
        b'{"type":',
        b"\xff\xfe\x00",
        b'{"type":"thread.started"}',
        b'{"type":"turn.failed","error":"x"}',
        b'{"type":"item.completed","item":{"id":"1","type":"agent_message","text":5}}',
        b'{"type":"item.completed","item":{"type":"novelty"}}',
        b'{"type":"item.completed","item":[]}',
        b'{"type":"brand.new"}',
    ],
)
def test_what_is_not_known_is_kept(line):
    (update,) = said(line)
    assert update.type in {"output", "unparsed"}


def test_an_item_of_an_unknown_kind_that_has_a_status_is_a_tool_call():
    (call,) = said(item("started", type="novelty", status="in_progress", depth=3))
    assert (call.title, call.kind, call.status) == ("novelty", "other", "in_progress")
    assert call.input["depth"] == 3
    (done,) = said(item(type=["no text"], status="exploded"))
    assert (done.title, done.status) == ("item", "failed")


@pytest.mark.parametrize("value", ["18446744073709551616", "[" * 300 + "]" * 300])
@pytest.mark.parametrize(
    "call",
    ['"type":"mcp_tool_call","server":"s","tool":"t","arguments":{"n":%s}', '"type":"new","n":%s'],
)
def test_a_call_that_could_not_be_written_again_as_it_is_stays_raw(call, value):
    line = '{"type":"item.completed","item":{"id":"1","status":"completed",%s}}' % (call % value)
    (kept,) = said(line.encode())
    assert (kept.type, kept.text) == ("unparsed", line)


def test_a_number_that_is_too_large_costs_only_itself():
    line = item(type="command_execution", command="ls", status="failed", exit_code=2**64)
    (call,) = said(line)
    assert (call.title, call.status, call.exit_code) == ("ls", "failed", None)


def test_a_web_search_has_no_status_and_two_ids():
    line = (
        b'{"type":"item.started","item":{"id":"item_1","type":"web_search","id":"ws_1","query":""}}'
    )
    (begun,) = said(line)
    assert (begun.id, begun.kind, begun.status) == ("ws_1", "fetch", "in_progress")
    assert begun.title == "web search"
    (done,) = said(item(type="web_search", query="codex"))
    assert (done.title, done.status) == ("codex", "completed")


def test_a_sub_agents_call_is_a_tool_call():
    (call,) = said(
        item("started", type="collab_tool_call", tool="spawn_agent", status="in_progress")
    )
    assert (call.title, call.kind) == ("spawn_agent", "other")


def test_a_declined_call_is_a_denial():
    command = item(type="command_execution", command="rm -rf x", status="declined")
    call, permission = said(command)
    assert (call.title, call.status) == ("rm -rf x", "failed")
    assert (permission.status, permission.tool) == ("denied", "rm -rf x")


def test_changes_and_steps_that_are_not_understood_are_left_out():
    change = {"path": "/a", "kind": "add"}
    (call,) = said(item(type="file_change", changes=[change, 5, {}], status="completed"))
    assert (call.title, call.kind) == ("add /a", "edit")
    (plan,) = said(item(type="todo_list", items=[{"text": "a", "completed": True}, None]))
    assert plan.entries == [PlanEntry(text="a", status="completed")]


def test_an_mcp_error_is_its_output():
    call = item(
        type="mcp_tool_call", server="s", tool="t", error={"message": "no"}, status="failed"
    )
    assert said(call)[0].output == "no"


def test_an_answer_must_come_after_the_last_call():
    message = item(type="agent_message", text="Looking.")
    command = item(type="command_execution", command="ls", status="completed", exit_code=True)
    completed = {"type": "turn.completed"}
    *_, error, end = said(STARTED, {"type": "turn.started"}, message, command, completed)
    assert (error.kind, end.stop_reason) == ("incomplete", "error")
    *_, end = said(command, message, completed)
    assert end.stop_reason == "end_turn"
    *_, end = said(command, item(type="agent_message", text=""), completed)
    assert end.stop_reason == "end_turn"
    *_, end = said(item(type="agent_message", text=" "), completed)
    assert end.stop_reason == "error"


def test_a_refusal_by_the_provider_s_filter():
    text = "Incomplete response returned, reason: content_filter"
    error, end = said({"type": "turn.failed", "error": {"message": text}})
    assert (error.kind, end.stop_reason) == ("refused", "refusal")


def test_an_error_that_is_not_told_again_counts_at_the_end():
    body = json.dumps({"error": {"message": "Slow down."}})
    notice, error = said({"type": "error", "message": body}, exit_=Exit(status=1))
    assert notice == Notice(text="Slow down.")
    assert (error.kind, error.text) == ("invalid_request", "Slow down.")


def test_a_retry_without_a_reason():
    (retry,) = said({"type": "error", "message": "Reconnecting... 2/5"})
    assert retry == Retry(reason="Reconnecting... 2/5", attempt=2, of=5)


def test_a_new_session_in_the_place_of_the_one_asked_for_is_told():
    other = "01a1fc42-0000-7000-8000-00000000ffff"
    notice, session = said(STARTED, session=other)
    assert notice.text == f"codex did not go on with session {other}: it began a new one"
    assert session.session_id == SESSION


def test_without_known_usage_nor_a_log_a_resumed_session_states_none():
    usage = {"input_tokens": 10, "output_tokens": 1}
    updates = said(STARTED, {"type": "turn.completed", "usage": usage}, session=SESSION)
    assert not of(Usage, updates)


def test_usage_of_nought_is_not_told():
    usage = {"input_tokens": 0, "output_tokens": 0}
    assert not of(Usage, said(STARTED, {"type": "turn.completed", "usage": usage}))


def test_other_threads_of_the_same_home_are_left_alone():
    usage = {"input_tokens": 10, "output_tokens": 1}
    other = {"turn_id": "o", "thread_id": "other"}
    foreign = {"internal_chat_message_metadata_passthrough": {"turn_id": "o"}}
    updates = said(
        STARTED,
        log("token_usage_record", **other, thread_token_usage=usage),
        log("event_msg", type="item_completed", **other, item={"id": "c"}),
        log("event_msg", type="turn_aborted", turn_id="o"),
        log("response_item", call_id="c", name="exec_command", arguments="{}"),
        log("response_item", call_id="c", output="patch rejected: no", **foreign),
    )
    assert [update.type for update in updates] == ["session.started"]


def test_a_record_without_usage_says_nothing():
    records = log("token_usage_record", **TURN, thread_token_usage={})
    assert [update.type for update in said(STARTED, records)] == ["session.started"]


def tool_answer(name: str, output: str, arguments: object = "") -> list[Any]:
    known = log("event_msg", type="item_completed", **TURN, item={"id": "before"})
    call = log("response_item", call_id="c", name=name, arguments=arguments)
    return said(STARTED, known, call, log("response_item", call_id="c", output=output, **METADATA))[
        1:
    ]


def test_a_failure_that_is_not_plainly_the_sandbox_s_is_no_denial():
    output = "Chunk ID: 1\nProcess exited with code 2\nOutput:\nPermission denied"
    (call,) = tool_answer("exec_command", output, '{"cmd":"make"}')
    assert (call.title, call.status, call.exit_code) == ("make", "failed", 2)


@pytest.mark.parametrize(
    ("name", "output"),
    [
        ("update_plan", "Plan updated"),
        ("write_stdin", "Chunk ID: 1\nProcess exited with code 1\nOutput:\nRead-only file system"),
        ("exec_command", "Chunk ID: 1\nProcess exited with code 0\nOutput:\n"),
        ("exec_command", "Chunk ID: 1\nProcess running with session ID 5\nOutput:\n"),
    ],
)
def test_answers_that_stdout_tells_or_nobody_needs_are_silent(name, output):
    assert not tool_answer(name, output)


def test_a_limit_that_is_not_understood_is_silent():
    for primary in ({"used_percent": "much"}, {}):
        limits = log("event_msg", type="token_count", rate_limits={"primary": primary})
        assert len(said(STARTED, limits)) == 1


def test_a_limit_without_a_time():
    limits = log("event_msg", rate_limits={"primary": {"used_percent": 5.5, "resets_at": -1}})
    assert said(STARTED, limits, limits)[1:] == [RateLimit(status="5.5% used", exhausted=False)]


def test_turns_are_told_anew():
    assert said({"type": "turn.started"}) == [TurnStarted()]


@pytest.mark.parametrize(
    ("status", "stderr", "kind", "text"),
    [
        (2, "error: unexpected argument '--x' found\n\nUsage:", "bad_usage", "error: unexpected"),
        (1, "WARNING: x\nError finding codex home: y", "bad_usage", "Error finding codex home"),
        (
            1,
            "Error: thread/resume failed: no rollout found for z",
            "bad_usage",
            "Error: thread/res",
        ),
        (1, "No prompt provided via stdin.", "bad_usage", "No prompt provided"),
        (1, "Error: OSS setup failed: LM Studio not found.", "model_not_found", "Error: OSS"),
        (1, "Something odd", "unknown", "Something odd"),
        (1, "Not logged in", "auth_failed", "Not logged in"),
        (101, "thread 'main' panicked at x.rs:1", "crashed", "thread 'main' panicked"),
        (1, "", "incomplete", "codex ended (exit 1) and said nothing"),
        (101, "", "crashed", "codex ended (exit 101) and said nothing"),
    ],
)
def test_an_end_before_the_beginning_is_told_by_stderr(status, stderr, kind, text):
    (error,) = said(exit_=Exit(status=status, stderr=stderr))
    assert error.kind == kind
    assert error.text.startswith(text)


def test_a_panic_in_mid_turn_is_a_crash():
    *_, error = said(STARTED, exit_=Exit(status=101))
    assert error.kind == "crashed"


def test_a_signal_needs_no_word():
    assert len(said(STARTED, exit_=Exit(signal=9))) == 1


def test_compact_has_short_instructions_of_its_own():
    agent = replace(LOCAL, home="/state/home", options={"compact": True})
    command = adapter.command(TASK, agent)
    found = settings(command)
    assert found["model_instructions_file"] == '"/state/home/compact.md"'
    assert found["include_permissions_instructions"] == "false"
    assert len(command.files["/state/home/compact.md"]) < 1_000
    assert adapter.command(TASK, replace(agent, options={"compact": False})).files == {}


def test_compact_needs_a_home_of_its_own():
    with pytest.raises(ConfigError, match="option 'compact' is true: short instructions"):
        adapter.command(TASK, replace(LOCAL, home=None, options={"compact": True}))


def test_a_cloud_may_be_busy_for_a_moment():
    found = settings(adapter.command(TASK, replace(LOCAL, tier="cloud")))
    assert '"request_max_retries"=2' in found["model_providers.endpoint"]


@pytest.mark.parametrize(
    "line",
    [
        {"type": "thread.started"},
        {"type": "turn.failed", "error": "no"},
        {"type": "error", "message": 1},
        {"type": "item.completed", "item": "no"},
        {"type": "item.completed", "item": {"type": "reasoning"}},
        {"type": "item.completed", "item": {"type": "command_execution"}},
        {"type": "item.completed", "item": {"type": "mcp_tool_call", "server": 1}},
        {"type": "item.completed", "item": {"type": "collab_tool_call"}},
        {"type": ["item.completed"], "item": 1},
    ],
)
def test_a_line_that_lacks_what_its_type_has_is_kept_as_it_is(line):
    conversation = adapter.conversation(Task(prompt="p"), Agent(name="c", adapter="codex"), None)
    text = json.dumps(line)
    reason = "no rule of the adapter matches"
    assert list(conversation.feed(text.encode())) == [
        Unparsed(stream="stdout", text=text, reason=reason)
    ]


def test_an_item_counts_whatever_happened_to_it():
    conversation = adapter.conversation(Task(prompt="p"), Agent(name="c", adapter="codex"), None)
    item = {"type": "web_search", "id": "1", "query": "anyio"}
    line = json.dumps({"type": "item.begun", "item": item}).encode()
    call = ToolCall(id="1", status="in_progress", kind="fetch", title="anyio")
    assert list(conversation.feed(line)) == [call]


def test_only_the_latest_calls_are_remembered():
    known: dict[str, int] = {}
    for number in range(MOST + 5):
        hold(known, str(number), number)
    assert list(known.values()) == list(range(5, MOST + 5))


def test_its_own_command_makes_an_mcp_server_known_to_it():
    setup = adapter.mcp_setup("/opt/codex", ORACLE)
    added = ("/opt/codex", "mcp", "add", "the_oracle", "--", "/bin/oracle", "--loud")
    assert setup.add == added
    assert setup.remove == ("/opt/codex", "mcp", "remove", "the_oracle")
    assert setup.show == ("/opt/codex", "mcp", "get", "the_oracle")
