"""gemini, opencode and qwen, which speak the Agent Client Protocol: what each is started with."""

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from adapters import gemini, opencode, qwen
from adapters.acp import AcpConversation
from adapters.places import openai_url, root_url
from orchestrator.adapter import Adapter, Agent, Command, Conversation, Exit, Send, about_of
from orchestrator.errors import ConfigError
from orchestrator.events import Notice, Permission
from orchestrator.task import McpServer, Task

TASK = Task(prompt="Fix it.", workspace=Path("/repo"), kind="fix")
READ = replace(TASK, access="read")
ADAPTERS: Mapping[str, Adapter] = {
    "gemini": gemini.adapter,
    "opencode": opencode.adapter,
    "qwen": qwen.adapter,
}
SERVER = McpServer(name="oracle", command=("/bin/oracle",))
trusting = pytest.mark.parametrize("name", ["gemini", "qwen"])
each_agent = pytest.mark.parametrize("name", ADAPTERS)


def local(name: str, **options: object) -> Agent:
    return Agent(
        name="mine",
        adapter=name,
        model="coder",
        base_url="localhost:1234/v1",
        tier="local",
        program=f"/opt/{name}",
        home="/state/home",
        options=options,
    )


def started(name: str, task: Task = TASK, **options: object) -> Command:
    return ADAPTERS[name].command(task, local(name, **options))


def settings(name: str, task: Task = TASK, **options: object) -> dict[str, Any]:
    """The CLI's own settings that it is started with."""
    command = started(name, task, **options)
    if name == "opencode":
        found = json.loads(command.env["OPENCODE_CONFIG_CONTENT"])
    else:
        found = json.loads(command.files[f"/state/home/.{name}/settings.json"])
    assert isinstance(found, dict)
    return found


@each_agent
def test_it_is_started_with_an_open_stdin_in_a_home_of_its_own(name: str) -> None:
    command = started(name)
    assert command.argv[0] == f"/opt/{name}"
    assert command.stdin == "open"
    assert command.cwd == "/repo"
    assert command.env["HOME"] == "/state/home"
    assert command.env_from == {}
    assert all(path.startswith("/state/home/") for path in command.files)


@each_agent
def test_a_key_is_named_and_stands_nowhere(name: str) -> None:
    agent = replace(local(name), api_key_env="MY_KEY")
    command = ADAPTERS[name].command(TASK, agent)
    (secret,) = command.secrets
    assert command.env_from[secret] == "MY_KEY"
    assert secret not in command.env


@each_agent
def test_in_the_users_own_home_nothing_is_written_and_its_login_is_found(name: str) -> None:
    agent = Agent(name="mine", adapter=name, profile="user", api_key_env="A_KEY")
    command = ADAPTERS[name].command(TASK, agent)
    assert command.files == {}
    assert "HOME" not in command.env
    assert command.env_from["HOME"] == "HOME"
    assert "A_KEY" in command.env_from.values()
    assert command.argv[0] == name
    without = ADAPTERS[name].command(TASK, replace(agent, api_key_env=None, model="m"))
    assert without.secrets == ()


@each_agent
@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"nonsense": 1}, "no option 'nonsense' (known: permissions"),
        ({"permissions": "maybe"}, "option 'permissions' is access, allow, deny"),
    ],
)
def test_a_wrong_option_is_told_with_what_there_is(
    name: str, options: dict[str, object], told: str
) -> None:
    for use in (ADAPTERS[name].command, lambda t, a: ADAPTERS[name].conversation(t, a, None)):
        with pytest.raises(ConfigError) as raised:
            use(TASK, local(name, **options))
        assert told in str(raised.value)


@pytest.mark.parametrize("name", ["gemini", "qwen"])
def test_settings_are_not_for_the_users_own_home(name: str) -> None:
    agent = replace(local(name, settings={"a": 1}), home=None)
    with pytest.raises(ConfigError, match="profile: clean"):
        ADAPTERS[name].command(TASK, agent)


@trusting
def test_a_folder_is_trusted_only_where_the_user_says_so_and_then_mcp_servers_are_taken(
    name: str,
) -> None:
    def found(**options: object) -> tuple[bool, bool]:
        command = started(name, TASK, **options)
        trusted = command.files.get("/state/home/.qwen/trustedFolders.json")
        trusts = "GEMINI_CLI_TRUST_WORKSPACE" in command.env
        trusts = trusts or trusted == b'{"/repo":"TRUST_FOLDER"}'
        waits = command.env.get("QWEN_CODE_LEGACY_MCP_BLOCKING") == "1"
        assert waits is (trusts and name == "qwen")
        return trusts, about_of(ADAPTERS[name], local(name, **options)).mcp

    assert found() == found(trust_workspace=False) == (False, False)
    assert found(trust_workspace=True) == (True, True)
    assert ADAPTERS[name].about.trust_option == "trust_workspace"


@trusting
@pytest.mark.parametrize("wrong", ["yes", 1, None])
def test_only_true_and_false_say_whether_a_folder_is_trusted(name: str, wrong: object) -> None:
    with pytest.raises(ConfigError, match="option 'trust_workspace' is true, false"):
        started(name, trust_workspace=wrong)


@trusting
def test_the_servers_of_the_task_are_told_to_a_new_session(name: str) -> None:
    task = replace(READ, mcp_servers=(SERVER,))
    conversation = ADAPTERS[name].conversation(task, local(name, trust_workspace=True), None)
    list(conversation.start())
    greeted = b'{"jsonrpc":"2.0","id":1,"result":{"protocolVersion":1}}'
    sent = [said.data for said in conversation.feed(greeted) if isinstance(said, Send)]
    opened = [message for message in map(json.loads, sent) if message["method"] == "session/new"]
    assert [one["params"]["mcpServers"][0]["name"] for one in opened] == ["oracle"]


def test_gemini_in_the_users_own_home_can_trust_the_folder_and_qwen_cannot() -> None:
    own = Agent(name="mine", adapter="x", profile="user", options={"trust_workspace": True})
    assert gemini.adapter.command(TASK, own).env["GEMINI_CLI_TRUST_WORKSPACE"] == "true"
    for use in (lambda: qwen.adapter.command(TASK, own), lambda: about_of(qwen.adapter, own)):
        with pytest.raises(ConfigError, match="'trust_workspace' needs `profile: clean`"):
            use()


def test_qwen_by_json_lines_trusts_no_folder() -> None:
    with pytest.raises(ConfigError, match="by JSON lines qwen takes no MCP servers"):
        started("qwen", protocol="json", trust_workspace=True)


def test_gemini_that_may_only_read_keeps_the_tools_of_the_tasks_servers() -> None:
    """Its list of `core` tools would leave them out."""
    asking = replace(READ, mcp_servers=(SERVER,))
    tools = settings("gemini", asking, trust_workspace=True)["tools"]
    assert "core" not in tools
    assert {"run_shell_command", "replace", "write_file"} <= set(tools["exclude"])
    assert "core" in settings("gemini", asking)["tools"]
    assert "core" in settings("gemini", READ, trust_workspace=True)["tools"]


@each_agent
def test_what_an_edit_is_not_held_to_is_said(name: str) -> None:
    def notes(task: Task) -> list[str]:
        conversation = ADAPTERS[name].conversation(task, local(name), None)
        assert isinstance(conversation, AcpConversation)
        said = list(conversation.start())
        assert isinstance(said[-1], Send)
        return [one.text for one in said if isinstance(one, Notice)]

    (note,) = notes(TASK)
    assert "not its commands" in note
    assert notes(READ) == notes(replace(TASK, access="full")) == []


@each_agent
def test_nothing_is_counted_updated_or_fetched_behind_the_users_back(name: str) -> None:
    quiet = json.dumps(settings(name)) + json.dumps(dict(started(name).env))
    words = {
        "opencode": ['"autoupdate": false', '"share": "disabled"', "DISABLE_MODELS_FETCH"],
        "gemini": ['"usageStatisticsEnabled": false', '"enableAutoUpdate": false'],
        "qwen": ['"usageStatisticsEnabled": false', '"enableAutoUpdate": false'],
    }
    assert all(word in quiet for word in words[name])


@each_agent
def test_the_users_settings_come_on_top_but_for_what_holds_the_agent(name: str) -> None:
    found = settings(name, READ, settings={"general": {"mine": 1}, "theme": "x"})
    assert found["theme"] == "x"
    assert found["general"]["mine"] == 1


# --- each by itself


def test_opencode_knows_one_server_and_asks_no_other_for_anything() -> None:
    found = settings("opencode", context_window=32_000)
    assert found["model"] == found["small_model"] == "orchestrate/coder"
    assert found["enabled_providers"] == ["orchestrate"]
    served = found["provider"]["orchestrate"]
    assert served["options"] == {"baseURL": "http://localhost:1234/v1", "apiKey": "none"}
    assert served["models"]["coder"]["limit"] == {"context": 32_000, "output": 8_000}
    assert found["agent"]["title"] == {"disable": True}
    keyed = replace(local("opencode"), api_key_env="MY_KEY")
    command = opencode.adapter.command(TASK, keyed)
    assert "{env:ORCHESTRATE_KEY}" in command.env["OPENCODE_CONFIG_CONTENT"]


def test_opencode_is_held_to_the_access_by_its_own_permissions() -> None:
    assert settings("opencode", READ)["permission"]["bash"] == "deny"
    assert settings("opencode")["permission"] == {"external_directory": "ask"}
    asked = settings("opencode", permissions="deny")["permission"]
    assert asked["bash"] == asked["edit"] == "ask"
    mine = settings("opencode", READ, settings={"permission": {"bash": "allow", "skill": "deny"}})
    assert mine["permission"]["bash"] == "deny"
    assert mine["permission"]["skill"] == "deny"


def test_opencode_needs_the_name_of_a_model_at_a_server() -> None:
    with pytest.raises(ConfigError, match="no model is named"):
        opencode.adapter.command(TASK, replace(local("opencode"), model=None))
    cloud = Agent(name="mine", adapter="opencode", model="anthropic/opus")
    config = json.loads(opencode.adapter.command(TASK, cloud).env["OPENCODE_CONFIG_CONTENT"])
    assert config["model"] == "anthropic/opus"
    assert "provider" not in config


def test_opencode_finds_its_plugins_installed() -> None:
    files = started("opencode").files
    lock = json.loads(files["/state/home/.config/opencode/package-lock.json"])
    assert "@opencode-ai/plugin" in lock["packages"][""]["dependencies"]


def test_gemini_goes_to_a_server_that_speaks_googles_api() -> None:
    command = started("gemini")
    assert command.env["GOOGLE_GEMINI_BASE_URL"] == "http://localhost:1234"
    assert command.env["GEMINI_API_KEY"] == "none"
    assert command.argv[1:] == ("--acp", "--approval-mode", "default", "--model", "coder")
    assert "core" not in settings("gemini")["tools"]
    assert "write_file" not in settings("gemini", READ)["tools"]["core"]
    assert "read_file" in settings("gemini", READ)["tools"]["core"]


def test_qwen_goes_to_an_openai_compatible_server() -> None:
    command = started("qwen")
    assert command.env["OPENAI_BASE_URL"] == "http://localhost:1234/v1"
    assert command.env["OPENAI_API_KEY"] == "none"
    assert command.argv[-4:] == ("--auth-type", "openai", "--model", "coder")
    assert "write_file" not in settings("qwen")["tools"]["exclude"]
    assert "write_file" in settings("qwen", READ)["tools"]["exclude"]
    sized = settings("qwen", context_window=9_000)["model"]["generationConfig"]
    assert sized["contextWindowSize"] == 9_000
    login = qwen.adapter.command(TASK, Agent(name="mine", adapter="qwen"))
    assert "--auth-type" not in login.argv


@pytest.mark.parametrize(
    ("url", "root", "openai"),
    [
        ("localhost:1234", "http://localhost:1234", "http://localhost:1234/v1"),
        ("https://x.example/v1/", "https://x.example", "https://x.example/v1"),
        ("https://x.example/api/v3", "https://x.example/api/v3", "https://x.example/api/v3"),
    ],
)
def test_addresses_are_as_their_clients_want_them(url: str, root: str, openai: str) -> None:
    assert root_url(url) == root
    assert openai_url(url) == openai


# --- opencode by JSON lines

SILENT = Exit(status=0)
STEP = b'{"type":"step_start","sessionID":"s"}'


def lines(**options: object) -> Conversation:
    return opencode.adapter.conversation(READ, local("opencode", protocol="json", **options), None)


def fed(conversation: Conversation, line: bytes) -> list[Any]:
    return list(conversation.feed(line))


def ended(exit: Exit, *said: bytes) -> list[Any]:
    """What the end of a run means that said these lines."""
    conversation = lines()
    for line in said:
        fed(conversation, line)
    return list(conversation.close(exit))


def test_opencode_by_json_lines_reads_its_prompt_and_grants_what_no_rule_denies() -> None:
    command = started("opencode", replace(TASK, files=("a.py",)), protocol="json")
    assert command.argv[1:4] == ("run", "--format", "json")
    assert command.argv[-1] == "--auto"
    assert command.stdin == b"Fix it.\n\nFiles that matter:\n- a.py\n"
    assert command.interrupt == 2
    assert settings("opencode", protocol="json")["permission"] == {"external_directory": "deny"}
    resumed = started("opencode", replace(READ, session_id="ses_1"), protocol="json")
    assert resumed.argv[-2:] == ("--session", "ses_1")
    assert started("opencode", protocol="json", permissions="deny").argv[-1] == "task"


def test_opencode_by_json_lines_has_no_mcp_servers_and_says_what_is_not_enforced() -> None:
    assert opencode.adapter.about_for(local("opencode")).mcp
    assert not opencode.adapter.about_for(local("opencode", protocol="json")).mcp
    assert list(lines().start()) == []
    loose = opencode.adapter.conversation(TASK, local("opencode", protocol="json"), None)
    assert [type(said) for said in loose.start()] == [Notice]
    with pytest.raises(ConfigError, match="acp, json"):
        started("opencode", protocol="xml")
    with pytest.raises(ConfigError, match="by JSON lines opencode does not ask"):
        started("opencode", protocol="json", permissions="ask")


def test_opencode_by_json_lines_is_stopped_by_signals_and_answered_by_nobody() -> None:
    assert list(lines().interrupt()) == []
    assert list(lines().decide(Permission(id="1", status="requested"))) == []


def test_no_end_of_opencode_without_its_word_is_a_success() -> None:
    for said in ((), (STEP,)):
        error, finished = ended(SILENT, *said)
        assert (error.kind, finished.stop_reason) == ("incomplete", "error")
    told = Exit(status=1, stderr="Error: it broke")
    assert ended(told)[0].kind == "bad_usage"
    assert ended(told, STEP)[0].kind == "incomplete"
    assert ended(Exit(status=1, stderr="Error: status 429"), STEP)[0].kind == "rate_limited"
    assert ended(Exit(signal=9), STEP) == []


def test_what_opencode_does_not_tell_is_not_invented() -> None:
    conversation = lines()
    (kept,) = fed(conversation, b'{"type":"step_finish"}')
    assert kept.type == "unparsed"
    (usage,) = fed(conversation, b'{"type":"step_finish","part":{"reason":"tool-calls","cost":0}}')
    assert (usage.output_tokens, usage.cost_usd, usage.cost_source) == (None, None, None)
    call, *plan = fed(conversation, b'{"type":"tool_use","part":{"callID":"1","tool":"todowrite"}}')
    assert (call.status, call.locations, plan) == ("failed", None, [])
    (error,) = fed(conversation, b'{"type":"error"}')
    assert (error.kind, error.text, error.retryable) == ("unknown", "an error", None)


def test_what_opencode_says_of_cost_counts_in_the_cloud() -> None:
    cloud = replace(local("opencode", protocol="json"), tier="cloud")
    conversation = opencode.adapter.conversation(READ, cloud, None)
    (usage,) = fed(conversation, b'{"type":"step_finish","part":{"reason":"x","cost":0.25}}')
    assert (usage.cost_usd, usage.cost_source) == (0.25, "agent")
