"""The LiteLLM adapter: what it starts for each provider, and what the front's lines mean."""

import json
import signal
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import pytest

from adapters.litellm import FRONT, KEY, adapter
from adapters.providers import endpoint, litellm_model, variables
from orchestrator.adapter import Agent, Command, Exit, Send
from orchestrator.errors import ConfigError
from orchestrator.events import (
    Context,
    Error,
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
from orchestrator.task import Limits, Task, parse_task
from tests.recordings import RECORDINGS, Recording

TASK = Task(prompt="Fix the greeting.", workspace=Path("/w"), kind="fix", files=("a.py",))
OURS = [recording for recording in RECORDINGS if recording.facts["adapter"] == "litellm"]


def agent_of(model: str | None, **fields: object) -> Agent:
    given: dict[str, object] = {"name": "me", "adapter": "litellm", "program": "/venv/bin/mini"}
    return Agent(model=model, **{**given, **fields})  # type: ignore[arg-type]


def command_of(model: str | None, task: Task = TASK, **fields: object) -> Command:
    return adapter.command(task, agent_of(model, **fields))


def settings_of(command: Command) -> Mapping[str, object]:
    assert isinstance(command.stdin, bytes)
    settings = json.loads(command.stdin)
    assert isinstance(settings, dict)
    return settings


def fed(*lines: object, exit_: Exit | None = None) -> list[Update]:
    conversation = adapter.conversation(TASK, agent_of("openai/gpt-5"), None)
    said: list[Update | Send] = [*conversation.start()]
    for line in lines:
        said += conversation.feed(json.dumps(line).encode())
    said += conversation.close(exit_ or Exit(status=0))
    return [one for one in said if not isinstance(one, Send)]


# --- what is started


def test_the_front_runs_on_the_interpreter_beside_mini_and_argv_tells_nothing() -> None:
    command = command_of("openai/gpt-5", api_key_env="MINE", home="/h")
    assert command.argv == ("/venv/bin/python", "-I", "-X", "utf8", FRONT)
    assert command.cwd == "/w"
    assert command.interrupt == signal.SIGINT
    assert settings_of(command)["prompt"] == TASK.prompt
    assert settings_of(command)["home"] == "/h"
    assert Path(FRONT).is_file()


def test_a_program_that_is_the_interpreter_is_used_as_it_is() -> None:
    command = command_of("openai/gpt-5", program="/venv/bin/python3.12")
    assert command.argv[0] == "/venv/bin/python3.12"


def test_limits_session_and_access_go_into_the_settings() -> None:
    task = Task(
        prompt="x",
        workspace=Path("/w"),
        access="read",
        session_id="abc",
        limits=Limits(steps=3, cost_usd=0.5),
    )
    settings = settings_of(command_of("openai/gpt-5", task))
    assert settings["access"] == "read"
    assert settings["session_id"] == "abc"
    assert settings["steps"] == 3
    assert settings["cost_usd"] == 0.5


@pytest.mark.parametrize(
    ("task", "may"),
    [
        (Task(prompt="x", kind="explain"), True),
        (Task(prompt="x", kind="fix"), False),
        (Task(prompt="x"), False),
        (Task(prompt="x", access="read"), True),
    ],
)
def test_a_bare_answer_is_enough_where_nothing_is_to_be_changed(task: Task, may: bool) -> None:
    assert settings_of(command_of("openai/gpt-5", task))["may_only_answer"] is may


@pytest.mark.parametrize(
    ("model", "server", "base_url", "expected"),
    [
        ("gpt-5", None, None, "openai/gpt-5"),
        ("o3", None, None, "openai/o3"),
        ("claude-opus-5-5", None, None, "anthropic/claude-opus-5-5"),
        ("gemini-2.5-pro", None, None, "gemini/gemini-2.5-pro"),
        ("vertex_ai/gemini-2.5-pro", None, None, "vertex_ai/gemini-2.5-pro"),
        ("openrouter/qwen/qwen3-coder", None, None, "openrouter/qwen/qwen3-coder"),
        ("scripted", None, "http://127.0.0.1:1", "openai/scripted"),
        ("openai/scripted", None, "http://127.0.0.1:1", "openai/scripted"),
        ("ollama/qwen:7b", None, None, "ollama_chat/qwen:7b"),
        ("mistral:7b", "ollama", None, "ollama_chat/mistral:7b"),
        ("ollama/mistral:7b", "ollama", None, "ollama_chat/mistral:7b"),
        ("library/mistral", "ollama", None, "ollama_chat/library/mistral"),
        ("openai/gpt-oss-20b", "lmstudio", None, "lm_studio/openai/gpt-oss-20b"),
        ("lm_studio/x", "lmstudio", None, "lm_studio/x"),
        ("Qwen/Qwen3", "vllm", None, "hosted_vllm/Qwen/Qwen3"),
        ("vllm/Qwen3", "vllm", None, "hosted_vllm/Qwen3"),
        ("any", "llamacpp", None, "openai/any"),
        ("gpt-5", "openai", None, "openai/gpt-5"),
    ],
)
def test_a_model_is_named_as_litellm_wants_it(
    model: str, server: str | None, base_url: str | None, expected: str
) -> None:
    assert litellm_model(agent_of(model, server=server, base_url=base_url)) == expected


@pytest.mark.parametrize(
    ("written", "provider", "expected"),
    [
        ("http://127.0.0.1:11434/", "ollama_chat", "http://127.0.0.1:11434"),
        ("127.0.0.1:11434/v1", "ollama_chat", "http://127.0.0.1:11434"),
        ("desk:11434/api", "ollama_chat", "http://desk:11434"),
        ("localhost:1234", "lm_studio", "http://localhost:1234/v1"),
        ("http://localhost:1234/v1/", "lm_studio", "http://localhost:1234/v1"),
        ("https://api.example.com/api/v3", "openai", "https://api.example.com/api/v3"),
        ("api.example.com", "openai", "https://api.example.com/v1"),
        ("api.example.com:443", "hosted_vllm", "https://api.example.com:443/v1"),
        ("desk.example:8000", "hosted_vllm", "http://desk.example:8000/v1"),
        ("192.168.0.2", "openai", "http://192.168.0.2/v1"),
        ("[::1]:8080", "openai", "http://[::1]:8080/v1"),
        ("https://gateway.example/anthropic/v1", "anthropic", "https://gateway.example/anthropic"),
        ("https://me.openai.azure.com/", "azure", "https://me.openai.azure.com"),
    ],
)
def test_an_address_works_however_it_is_written(written: str, provider: str, expected: str) -> None:
    assert endpoint(written, provider) == expected


def test_ollama_is_asked_for_a_context_that_holds_an_agent() -> None:
    assert settings_of(command_of("ollama_chat/x"))["model_kwargs"] == {"num_ctx": 32_768}
    own = {"model_kwargs": {"num_ctx": 8192, "temperature": 0}}
    settings = settings_of(command_of("ollama_chat/x", options=own))
    assert settings["model_kwargs"] == {"num_ctx": 8192, "temperature": 0}
    assert settings_of(command_of("lm_studio/x"))["model_kwargs"] == {}


@pytest.mark.parametrize(
    ("model", "tier", "local"),
    [
        ("ollama_chat/qwen:7b", "local", True),
        ("ollama_chat/qwen3-coder:480b-cloud", "local", False),
        ("ollama_chat/glm:cloud", "local", False),
        ("openai/gpt-5", "cloud", False),
    ],
)
def test_a_model_that_ollama_serves_from_the_cloud_is_not_free(
    model: str, tier: str, local: bool
) -> None:
    assert settings_of(command_of(model, tier=tier))["local"] is local


@pytest.mark.parametrize(
    ("model", "stream"),
    [("openai/x", True), ("ollama_chat/x", True), ("gemini/x", False), ("vertex_ai/x", False)],
)
def test_where_a_streams_end_is_made_up_whole_answers_are_asked_for(
    model: str, stream: bool
) -> None:
    assert settings_of(command_of(model))["stream"] is stream
    told = command_of(model, options={"stream": not stream})
    assert settings_of(told)["stream"] is not stream


def test_the_options_reach_the_front() -> None:
    options = {"stream": False, "writable": ["/cache"], "command_timeout_s": 5}
    settings = settings_of(command_of("openai/gpt-5", options=options))
    assert settings["stream"] is False
    assert settings["writable"] == ["/cache"]
    assert settings["command_timeout_s"] == 5.0


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"temprature": 0}, "no option 'temprature' (known: model_kwargs, stream, "),
        ({"stream": "no"}, "option 'stream' is true or false: ask for a stream"),
        ({"writable": ["/a", 1]}, "option 'writable' is list of further folders"),
        ({"writable": "/a"}, "found '/a'"),
        ({"command_timeout_s": True}, "found True"),
        ({"command_timeout_s": 0}, "found 0"),
        ({"model_kwargs": "temperature"}, "option 'model_kwargs' is table of arguments"),
        ({"model_kwargs": {"x": object()}}, "settings that JSON cannot hold"),
    ],
)
def test_a_wrong_option_is_refused_by_name(options: Mapping[str, object], says: str) -> None:
    with pytest.raises(ConfigError) as raised:
        command_of("openai/gpt-5", options=options)
    assert says in str(raised.value)


def test_a_model_must_be_named_with_its_provider() -> None:
    with pytest.raises(ConfigError, match="agent 'me': no model is named"):
        command_of(None)
    with pytest.raises(ConfigError, match="agent 'me': model 'qwen' names no provider"):
        command_of("qwen")
    with pytest.raises(ConfigError, match="no model is named"):
        command_of(None, server="ollama")


QUICKSTART = Path(__file__).resolve().parent.parent.parent / "examples/quickstart"


@pytest.mark.parametrize("name", ["task", "ollama", "lmstudio", "cloud"])
def test_the_examples_can_be_started(name: str) -> None:
    file = QUICKSTART / f"{name}.yaml"
    task = parse_task(file.read_bytes(), file=file.name, folder=file.parent)
    command = adapter.command(task, agent_of(task.model, base_url=task.base_url))
    assert settings_of(command)["model"] == task.model


# --- whose variables

CLOUDS = {
    "openai/gpt-5": {"OPENAI_API_KEY", "OPENAI_BASE_URL"},
    "anthropic/claude": {"ANTHROPIC_API_KEY"},
    "gemini/gemini-2.5-pro": {"GEMINI_API_KEY", "GOOGLE_API_KEY"},
    "azure/deployment": {"AZURE_API_KEY", "AZURE_API_BASE", "AZURE_API_VERSION"},
    "azure_ai/x": {"AZURE_AI_API_KEY", "AZURE_AI_API_BASE"},
    "vertex_ai/gemini-2.5-pro": {
        "GOOGLE_APPLICATION_CREDENTIALS",
        "VERTEXAI_PROJECT",
        "VERTEXAI_LOCATION",
    },
    "bedrock/x": {"AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_REGION_NAME", "AWS_PROFILE"},
    "sagemaker/x": {"AWS_ACCESS_KEY_ID"},
    "openrouter/x/y": {"OPENROUTER_API_KEY", "OR_SITE_URL"},
    "groq/x": {"GROQ_API_KEY"},
    "mistral/x": {"MISTRAL_API_KEY", "MISTRAL_API_BASE"},
    "deepseek/x": {"DEEPSEEK_API_KEY"},
    "xai/x": {"XAI_API_KEY"},
    "together_ai/x": {"TOGETHERAI_API_KEY"},
    "fireworks_ai/x": {"FIREWORKS_AI_API_KEY"},
    "cohere_chat/x": {"COHERE_API_KEY"},
    "perplexity/x": {"PERPLEXITYAI_API_KEY"},
    "huggingface/x": {"HF_TOKEN"},
    "databricks/x": {"DATABRICKS_API_KEY", "DATABRICKS_API_BASE"},
    "watsonx/x": {"WATSONX_API_KEY", "WATSONX_URL", "WATSONX_PROJECT_ID"},
    "nvidia_nim/x": {"NVIDIA_NIM_API_KEY", "NVIDIA_NIM_API_BASE"},
    "nano-gpt/x": {"NANO_GPT_API_KEY"},
    "brand_new/x": {"BRAND_NEW_API_KEY", "BRAND_NEW_API_BASE"},
    "ollama_chat/x": {"OLLAMA_API_BASE"},
    "lm_studio/x": {"LM_STUDIO_API_BASE"},
    "hosted_vllm/x": {"HOSTED_VLLM_API_BASE"},
}


@pytest.mark.parametrize("model", CLOUDS)
def test_a_provider_gets_its_own_variables_and_nobody_elses(model: str) -> None:
    command = command_of(model)
    passed = set(command.env_from)
    assert passed >= CLOUDS[model]
    assert dict(command.env_from) == {name: name for name in passed}
    family = {"azure": "azure", "azure_ai": "azure", "bedrock": "aws", "sagemaker": "aws"}

    def kin(name: str) -> str:
        provider = name.partition("/")[0]
        return family.get(provider, provider)

    others = [CLOUDS[other] for other in CLOUDS if kin(other) != kin(model)]
    assert passed.isdisjoint(set().union(*others))


@pytest.mark.parametrize("model", CLOUDS)
def test_no_key_stands_in_argv_or_settings_and_no_command_of_the_model_sees_one(
    model: str,
) -> None:
    for key, base_url in ((None, None), ("MINE", None), ("MINE", "http://x:1")):
        command = command_of(model, api_key_env=key, base_url=base_url)
        settings = settings_of(command)
        assert settings["hidden"] == list(command.env_from)
        assert settings["secrets"] == list(command.secrets)
        assert set(command.secrets) <= set(command.env_from)
        assert not set(command.env)
        assert all("KEY" not in word for word in command.argv)


def test_a_named_key_travels_under_a_name_of_our_own() -> None:
    command = command_of("openai/gpt-5", api_key_env="MINE")
    assert dict(command.env_from) == {KEY: "MINE"}
    assert command.secrets == (KEY,)
    settings = settings_of(command)
    assert settings["api_key_env"] == KEY
    assert settings["api_key_name"] == "MINE"


def test_a_key_that_is_the_providers_own_variable_comes_with_its_address() -> None:
    command = command_of("openai/gpt-5", api_key_env="OPENAI_API_KEY")
    assert set(command.env_from) == set(variables("openai").all)
    assert settings_of(command)["api_key_env"] is None


def test_a_named_address_gets_no_key_that_was_not_named_with_it() -> None:
    assert dict(command_of("openai/x", base_url="http://desk:1").env_from) == {}
    keyed = command_of("openai/x", base_url="http://desk:1", api_key_env="OPENAI_API_KEY")
    assert dict(keyed.env_from) == {KEY: "OPENAI_API_KEY"}


def test_what_is_neither_key_nor_address_goes_along_with_a_named_address() -> None:
    command = command_of("azure/d", base_url="https://me.azure.example", api_key_env="MY_AZURE")
    assert command.env_from["AZURE_API_VERSION"] == "AZURE_API_VERSION"
    assert command.env_from[KEY] == "MY_AZURE"
    assert "AZURE_API_KEY" not in command.env_from
    assert "AZURE_API_BASE" not in command.env_from


def test_a_key_of_several_parts_goes_whole_to_a_named_address() -> None:
    command = command_of(
        "bedrock/x", base_url="https://vpce.example", api_key_env="AWS_ACCESS_KEY_ID"
    )
    assert {"AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_REGION"} <= set(command.env_from)
    assert "AWS_BEDROCK_RUNTIME_ENDPOINT" not in command.env_from
    assert KEY not in command.env_from


def test_a_local_model_gets_no_cloud_key() -> None:
    for server in ("ollama", "lmstudio", "vllm", "llamacpp"):
        command = command_of("m", server=server, base_url="http://127.0.0.1:1", tier="local")
        assert dict(command.env_from) == {}
        assert command.secrets == ()


def test_a_variable_that_the_task_passes_on_is_not_hidden_from_commands() -> None:
    task = Task(prompt="x", workspace=Path("/w"), env_from=("AWS_PROFILE",))
    hidden = settings_of(command_of("bedrock/x", task))["hidden"]
    assert isinstance(hidden, list)
    assert "AWS_PROFILE" not in hidden
    assert "AWS_ACCESS_KEY_ID" in hidden


# --- what it says


def recorded(case: str) -> Recording:
    return next(one for one in OURS if one.facts["case"] == case)


def updates_of(case: str) -> list[Update]:
    return [event.update for event in recorded(case).play()[0]]


def test_an_edit_is_told_from_session_to_end() -> None:
    updates = updates_of("success_edit")
    kinds = [type(update) for update in updates]
    for kind in (SessionStarted, TurnStarted, Thought, Message, Usage, Context, ToolCall):
        assert kind in kinds
    session = next(update for update in updates if isinstance(update, SessionStarted))
    assert session.tools == ["bash"]
    assert session.model == "openai/scripted"
    calls = [update for update in updates if isinstance(update, ToolCall)]
    assert calls[0] == ToolCall(
        id="call-1",
        status="in_progress",
        kind="execute",
        title="cat hello.py",
        input={"command": "cat hello.py"},
    )
    assert (calls[1].status, calls[1].output, calls[1].exit_code) == (
        "completed",
        "print('helo')\n",
        0,
    )
    assert TurnFinished(stop_reason="end_turn") in updates


def test_usage_excludes_what_was_cached() -> None:
    usages = [update for update in updates_of("success_edit") if isinstance(update, Usage)]
    assert usages[0] == Usage(
        input_tokens=100,
        output_tokens=30,
        cache_read_tokens=40,
        reasoning_tokens=10,
        cost_usd=0.0,
        cost_source="local",
    )


def test_a_price_is_told_with_where_it_comes_from() -> None:
    usages = [update for update in updates_of("anthropic") if isinstance(update, Usage)]
    assert usages[0].cache_write_tokens == 300
    assert usages[0].cost_source == "prices"
    assert usages[0].cost_usd == pytest.approx(0.000925)
    contexts = [update for update in updates_of("anthropic") if isinstance(update, Context)]
    assert (contexts[0].used, contexts[0].size) == (2450, 200_000)


def test_the_submitted_text_is_the_answer() -> None:
    _, outcome = recorded("submission").play()
    assert outcome.text == "README.md"


def test_a_resumed_session_keeps_its_id() -> None:
    _, outcome = recorded("resume").play()
    asked = recorded("resume").facts["task"]
    assert isinstance(asked, dict)
    assert outcome.session_id == asked["session_id"]


def test_what_landlock_holds_is_said() -> None:
    assert Notice(text="access: edit, enforced by Landlock") in updates_of("success_edit")
    [notice] = fed({"type": "access", "level": "read", "enforced": False, "reason": "too old"})[:1]
    assert notice == Notice(text="access: read, not enforced: too old")


def test_a_refused_write_is_a_denial_under_read_and_a_notice_elsewhere() -> None:
    denied = [one for one in updates_of("permission_denied") if isinstance(one, Permission)]
    assert [one.status for one in denied] == ["denied", "denied"]
    for case in ("read_only_cache", "write_outside"):
        updates = updates_of(case)
        assert not [one for one in updates if isinstance(one, Permission)]
        assert [one for one in updates if isinstance(one, Notice) and "was refused" in one.text]


def test_a_retry_tells_its_pause() -> None:
    retries = [one for one in updates_of("rate_limit_429") if isinstance(one, Retry)]
    assert [(one.attempt, one.of, one.delay_s) for one in retries] == [(1, 2, 1.0), (2, 2, 1.0)]


def test_a_slow_answer_is_shown_while_it_grows() -> None:
    updates = updates_of("slow_answer")
    thought = "".join(one.text for one in updates if isinstance(one, ThoughtDelta))
    text = "".join(one.text for one in updates if isinstance(one, MessageDelta))
    assert thought.startswith("A friendly greeting")
    assert text.startswith("Hello there")


def test_a_command_that_was_killed_says_why() -> None:
    [call] = [
        one
        for one in updates_of("tool_timeout")
        if isinstance(one, ToolCall) and one.id == "call-1" and one.status == "failed"
    ]
    assert call.output == "begun\n\n[timed out after 1 s; it was killed]"
    assert call.exit_code is None
    silent = {"type": "tool_call", "id": "1", "status": "failed", "problem": "interrupted"}
    assert fed(silent)[0] == ToolCall(
        id="1", status="failed", kind="execute", output="[interrupted]"
    )


def test_an_error_names_the_variable_of_the_refused_key() -> None:
    _, outcome = recorded("unauthorized_401").play()
    assert outcome.error is not None
    assert outcome.error.hint == "Is the key in RECORD_KEY valid for this provider and model?"
    [error, *_] = fed({"type": "error", "text": "no", "kind": "auth_failed"})
    assert isinstance(error, Error)
    assert error.hint == "Is the key in OPENAI_API_KEY valid for this provider and model?"
    elsewhere = adapter.conversation(TASK, agent_of("x", base_url="http://desk:1"), None)
    [error] = elsewhere.feed(b'{"type": "error", "text": "no", "kind": "auth_failed"}')
    assert isinstance(error, Error)
    assert error.hint is None


@pytest.mark.parametrize(
    ("case", "variable"), [("missing_key", "NOT_SET"), ("missing_keys", "OPENROUTER_API_KEY")]
)
def test_a_key_that_is_not_set_is_named_with_what_to_do(case: str, variable: str) -> None:
    _, outcome = recorded(case).play()
    assert outcome.error is not None
    assert outcome.error.text == f"no key: {variable} is not set"
    assert (outcome.error.hint or "").startswith(f"Set {variable}, or name ")


def test_an_error_without_a_kind_is_judged_by_its_text() -> None:
    [error, *_] = fed({"type": "error", "text": "Service Unavailable", "status": 503})
    assert error == Error(kind="server_error", text="Service Unavailable")


def test_a_missing_package_is_named_with_how_to_install_it() -> None:
    line = {"type": "error", "text": "cannot import mcp", "missing": "mcp", "retryable": False}
    [error, *_] = fed(line, {"type": "result", "status": "missing"})
    assert isinstance(error, Error)
    assert error.kind == "spawn"
    assert error.hint is not None
    assert "mcp is missing" in error.hint
    assert "orchestrate agents install litellm" in error.hint


@pytest.mark.parametrize(
    ("result", "expected"),
    [
        ({"status": "limit", "limit": "steps"}, [TurnFinished(stop_reason="max_turn_requests")]),
        ({"status": "interrupted"}, [TurnFinished(stop_reason="cancelled")]),
        ({"status": "no_tool_call", "cut_off": True}, [TurnFinished(stop_reason="max_tokens")]),
        ({"status": "refused"}, [TurnFinished(stop_reason="refusal")]),
        (
            {"status": "other"},
            [
                Error(kind="unknown", text="the agent ended with status 'other'"),
                TurnFinished(stop_reason="error"),
            ],
        ),
        (
            {"status": "finished", "exit_code": 1},
            [
                Error(kind="unknown", text="the agent ended with status 'finished'"),
                TurnFinished(stop_reason="error"),
            ],
        ),
    ],
)
def test_each_end_has_its_stop_reason(result: dict[str, object], expected: list[Update]) -> None:
    assert fed({"type": "result", **result}, exit_=Exit(status=1)) == expected


def test_after_an_error_no_last_word_is_a_success() -> None:
    lines = ({"type": "error", "text": "x"}, {"type": "result", "status": "finished"})
    assert fed(*lines)[-1] == TurnFinished(stop_reason="error")
    finished = {"type": "result", "status": "finished", "exit_code": 0}
    assert fed(lines[0], finished)[-1] == TurnFinished(stop_reason="error")


def test_without_a_last_word_the_exit_is_the_cause() -> None:
    stderr = "x\nModuleNotFoundError: No module named 'encodings'\n"
    [error] = fed(exit_=Exit(status=1, stderr=stderr))
    assert isinstance(error, Error)
    assert error.kind == "crashed"
    assert "(exit status 1): ModuleNotFoundError" in error.text
    assert error.hint is not None
    [killed] = fed(exit_=Exit(signal=9))
    assert killed == Error(kind="crashed", text="the agent ended without a last word (signal 9)")
    assert fed(exit_=Exit(signal=signal.SIGTERM)) == []


def test_odd_lines_are_kept() -> None:
    kept = [
        {"type": "session"},
        {"type": "tool_call", "id": "1", "status": "pending"},
        {"type": "usage_of_the_future"},
        {"type": "result"},
    ]
    said = fed(*kept, exit_=Exit(signal=signal.SIGINT))
    assert [type(one) for one in said] == [Unparsed] * 4


def test_figures_that_are_none_are_unknown() -> None:
    odd = {
        "type": "usage",
        "input_tokens": "7",
        "output_tokens": -1,
        "cost_usd": True,
        "cost_source": "guess",
    }
    assert fed(odd)[:2] == [Usage(), Context()]
    assert fed({"type": "usage", "cost_usd": -1.0})[0] == Usage()


def test_ollamas_other_name_is_replaced_with_a_word() -> None:
    conversation = adapter.conversation(TASK, agent_of("ollama/qwen:7b"), None)
    [notice] = conversation.start()
    assert isinstance(notice, Notice)
    assert "ollama_chat/qwen:7b is used for ollama/qwen:7b" in notice.text


def test_it_asks_nothing_and_stops_by_signal_alone() -> None:
    conversation = adapter.conversation(TASK, agent_of("openai/gpt-5"), None)
    assert [*conversation.start(), *conversation.interrupt()] == []
    assert list(conversation.decide(Permission(id="1", status="requested"))) == []


@pytest.mark.parametrize("recording", OURS, ids=lambda recording: recording.name)
def test_no_line_of_a_recording_is_unparsed(recording: Recording) -> None:
    updates = [event.update for event in recording.play()[0]]
    assert not [update for update in updates if isinstance(update, Unparsed)]


def test_a_command_that_hands_on_work_may_take_as_long_as_the_task():
    def timeout(**task: object) -> object:
        command = command_of("openai/x", replace(TASK, **task))  # type: ignore[arg-type]
        return settings_of(command).get("command_timeout_s")

    assert timeout() is None
    assert timeout(delegation=True) == 24 * 3600
    assert timeout(delegation=True, limits=Limits(wall_s=60)) == 60
