"""Before a run: whether an agent can do its task on its model server, and what is said if not."""

import socket
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from adapters.claude import adapter as claude
from adapters.codex import adapter as codex
from orchestrator.adapter import About, Agent
from orchestrator.config import Config, load_config
from orchestrator.discovery import Ready, ready
from orchestrator.discovery.credentials import keyless
from orchestrator.events import Event, Failure, Notice, ProcessSpawned
from orchestrator.model_errors import error_kind
from orchestrator.outcome import STATUS
from orchestrator.remedy import remedy
from orchestrator.supervisor import Supervisor
from orchestrator.task import Task
from orchestrator.testing import ModelServer, model_server
from orchestrator.testing.play import json_response
from tests.resolver import knows_nobody
from tests.scripted_adapter import DONE, Scripted, say, scripted_config

pytestmark = pytest.mark.anyio

CALLS = {"tool_calls": [{"name": "report", "arguments": {"ok": True}}]}
WORDS = {"text": "pong", "repeat": "forever"}


def about(**fields: object) -> About:
    known: dict[str, object] = {
        "name": "scripted",
        "title": "Scripted",
        "program": None,
        "prompt_tokens": 6_000,
        "lean_prompt_tokens": 6_000,
        "tools": True,
        **fields,
    }
    return About(**known)  # type: ignore[arg-type]


@pytest.fixture
def config(tmp_path: Path) -> Config:
    made = scripted_config(tmp_path / "state", say("Hello."), DONE, adapter=Scripted(about=about()))
    return replace(made, servers=load_config(environ={}, folder=tmp_path).servers)


@pytest.fixture
def closed() -> Iterator[str]:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        yield f"http://127.0.0.1:{taken.getsockname()[1]}"


def at(url: str, kind: str, **fields: object) -> Agent:
    known: dict[str, object] = {"model": "qwen:14b", "tier": "local", **fields}
    return Agent(name="scripted", adapter="scripted", base_url=url, server=kind, **known)  # type: ignore[arg-type]


def script(make: str, *turns: Mapping[str, object], **keys: object) -> dict[str, object]:
    return {"model": "qwen:14b", "server": make, "turns": list(turns or (WORDS,)), **keys}


TASK = Task(prompt="Say hello.", isolation="none")


async def told(script: Mapping[str, object], config: Config, **agent: object) -> Ready:
    async with model_server(script) as server:
        return await ready(at(server.base_url, str(script["server"]), **agent), TASK, config)


# --- tools ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(("turn", "tools"), [(CALLS, True), (WORDS, False)])
async def test_where_nobody_tells_a_tool_call_is_tried_once(config, turn, tools):
    async with model_server(script("vllm", turn, turn)) as server:
        agent = at(server.base_url, "vllm")
        first = await ready(agent, TASK, config)
        second = await ready(agent, TASK, config)
        assert len(server.played) == 1
    assert (first.error is None, second.error is None) == (tools, tools)
    if tools:
        assert first.notes == (
            "vLLM does not tell whether qwen:14b calls tools; tried one: it was called",
        )
    else:
        assert first.error is not None
        assert first.error.kind == "tools_unsupported"
        assert "--enable-auto-tool-choice" in (first.error.hint or "")


@pytest.mark.parametrize(
    ("turn", "kind"),
    [
        ({"status": 500, "repeat": "forever"}, None),
        ({**WORDS, "stop_reason": "max_tokens"}, None),
        ({"status": 400, "error": {"message": "tools are not supported"}}, "tools_unsupported"),
    ],
)
async def test_only_a_tool_call_that_failed_is_a_no(config, turn, kind):
    found = await told(script("vllm", turn), config)
    assert (found.error and found.error.kind) == kind


async def test_what_the_server_tells_is_believed(config):
    async with model_server(script("ollama", tools=False)) as server:
        found = await ready(at(server.base_url, "ollama"), TASK, config)
        assert server.played == []
    assert found.error is not None
    assert found.error.text == ("qwen:14b calls no tools, and Scripted does nothing without them.")


# --- window ---------------------------------------------------------------------------------------


async def test_a_window_that_is_too_small_starts_nothing_and_says_how_to_widen_it(config, tmp_path):
    events: list[Event] = []
    async with model_server(script("ollama", context=4096)) as server:
        agents = (replace(at(server.base_url, "ollama"), options=config.agents[0].options),)
        async with Supervisor(replace(config, agents=agents)) as supervisor:
            outcome = await supervisor.run(replace(TASK, workspace=tmp_path), events.append)
        assert server.played == []
    assert (outcome.status, outcome.run_id is not None) == ("context_overflow", True)
    assert outcome.error is not None
    assert outcome.error.text == (
        "The window of qwen:14b has 4096 tokens: too few for Scripted"
        " (its own prompt 6000, the task about 3, an answer 2048)."
    )
    assert "OLLAMA_CONTEXT_LENGTH=32768 ollama serve" in (outcome.error.hint or "")
    assert "num_ctx" in (outcome.error.hint or "")
    assert not [one for one in events if isinstance(one.update, ProcessSpawned)]


@pytest.mark.parametrize(
    ("make", "remedy"),
    [
        ("lmstudio", "lms load qwen:14b --context-length 32768"),
        ("llamacpp", "llama-server --jinja -c 32768 -m MODEL.gguf"),
        ("vllm", "vllm serve qwen:14b --max-model-len 32768"),
    ],
)
async def test_each_server_has_its_own_remedy(config, make, remedy):
    config = replace(config, adapters={"scripted": Scripted(about=about(tools=False))})
    found = await told(script(make, context=4096), config)
    assert found.error is not None
    if make != "vllm":  # a window of vLLM's is all that the model is served with
        assert remedy in (found.error.hint or "")


async def test_the_files_of_a_task_count(config, tmp_path):
    (tmp_path / "large.py").write_bytes(b"x" * 100_000)
    task = replace(TASK, workspace=tmp_path, files=("large.py", "no\0file"))
    async with model_server(script("ollama", context=30_000)) as server:
        found = await ready(at(server.base_url, "ollama"), task, config)
        small = await ready(at(server.base_url, "ollama"), TASK, config)
    assert found.error is not None
    assert found.error.kind == "context_overflow"
    assert small.error is None


async def test_the_leanest_form_is_told_in_the_run(config, tmp_path):
    lean = about(lean={"lean": True}, lean_prompt_tokens=500)
    events: list[Event] = []
    async with model_server(script("ollama", context=8192)) as server:
        agents = (replace(at(server.base_url, "ollama"), options=config.agents[0].options),)
        config = replace(config, agents=agents, adapters={"scripted": Scripted(about=lean)})
        async with Supervisor(config) as supervisor:
            outcome = await supervisor.run(replace(TASK, workspace=tmp_path), events.append)
    assert outcome.run_id is not None  # the stand-in asks no model, which is a mismatch of its own
    notes = [one.update.text for one in events if isinstance(one.update, Notice)]
    assert "compact: Scripted in its leanest form, as the window of qwen:14b has 8192 tokens" in (
        notes
    )


async def test_whoever_goes_to_no_known_server_is_as_it_was(config):
    agent = at("http://127.0.0.1:1", "")
    assert await ready(agent, TASK, config) == Ready(agent=agent)


async def test_privacy_local_refuses_what_the_server_only_passes_on(config):
    """Local address, local name: the server alone knows that a cloud serves it."""
    from orchestrator.discovery import readiness, servers

    async with model_server(script("ollama")) as server:
        agent = at(server.base_url, "ollama")
        found = await servers.known_server(agent, config)
        assert found is not None
        models = tuple(replace(one, remote=True) for one in found.models)
        servers._keep(replace(found, models=models), config)
        kept = await readiness.ready(agent, replace(TASK, privacy="local"), config)
    assert kept.error is not None
    assert kept.error.kind == "unroutable"


# --- each its own status, message and remedy ------------------------------------------------------


async def ended(
    config: Config, agent: Agent, tmp_path: Path, *steps: object
) -> tuple[str, str, str]:
    agent = replace(agent, options={"steps": list(steps)} if steps else config.agents[0].options)
    async with Supervisor(replace(config, agents=(agent,))) as supervisor:
        outcome = await supervisor.run(replace(TASK, workspace=tmp_path))
    assert outcome.error is not None
    return outcome.status, outcome.error.text, outcome.error.hint or ""


async def test_model_down(config, tmp_path, closed):
    assert await ended(config, at(closed, "ollama"), tmp_path) == (
        "unavailable",
        f"Cannot reach Ollama at {closed} (connection refused).",
        "Is it running (`ollama serve`)? Is the model there (`ollama list`)?",
    )


async def test_wrong_url(config, tmp_path):
    usual = "http://127.0.0.1:11434"
    async with model_server(script("vllm")) as server:
        assert await ended(config, at(server.base_url, "ollama"), tmp_path) == (
            "unavailable",
            f"Something answers at {server.base_url}, but it is not Ollama.",
            f"Is the address right, host, port and path? Ollama usually is at {usual}.",
        )


async def test_what_is_no_openai_compatible_server_is_told_with_a_look_to_take(
    config, tmp_path, monkeypatch
):
    monkeypatch.setattr(ModelServer, "handle", lambda *_: json_response({"detail": "Not Found"}))
    async with model_server(script("vllm")) as server:
        agent = at(server.base_url, "openai-compatible")
        assert await ended(config, agent, tmp_path) == (
            "unavailable",
            f"Something answers at {server.base_url}, but it is not an OpenAI-compatible server.",
            (
                "Is the address right, host, port and path?"
                f" `curl {server.base_url}/v1/models` should list its models."
            ),
        )


async def test_unknown_host(config, tmp_path, monkeypatch):
    knows_nobody(monkeypatch)
    agent = at("http://desk.example:11434", "ollama")
    status, text, hint = await ended(config, agent, tmp_path)
    assert (status, hint) == (
        "unavailable",
        "Is the host's name spelled right? Can this machine resolve it?",
    )
    assert "there is no host 'desk.example'" in text


async def test_model_not_pulled(config, tmp_path):
    async with model_server(script("ollama")) as server:
        agent = at(server.base_url, "ollama", model="llama3:8b")
        assert await ended(config, agent, tmp_path) == (
            "model_not_found",
            f"Ollama at {server.base_url} has no model 'llama3:8b'. It has: qwen:14b.",
            "Get it: `ollama pull llama3:8b`.",
        )


async def test_a_key_that_is_missing_or_wrong(config, tmp_path, monkeypatch):
    refusal = json_response({"detail": "Unauthorized"}, 401)
    monkeypatch.setattr(ModelServer, "handle", lambda *_: refusal)
    async with model_server(script("vllm")) as server:
        status, text, hint = await ended(config, at(server.base_url, "vllm"), tmp_path)
    assert (status, hint) == (
        "auth_failed",
        "Name the variable that holds it: api_key_env = 'VLLM_API_KEY'.",
    )
    assert text == f"vLLM at {server.base_url} wants a key, or refuses the one it got."


async def test_a_named_key_that_is_not_set_is_told_before_anyone_is_asked(config, tmp_path):
    async with model_server(script("vllm")) as server:
        agent = at(server.base_url, "vllm", api_key_env="DESK_KEY")
        assert await ended(config, agent, tmp_path) == (
            "auth_failed",
            "no key: DESK_KEY is not set",
            "Set DESK_KEY, or name the variable that holds the key with --api-key-env.",
        )
        assert server.requests == []


LOGIN, SETTINGS = ".codex/auth.json", ".codex/config.toml"


@pytest.mark.parametrize(
    ("agent", "task", "environ", "file", "told"),
    [
        ({}, {}, {}, None, True),
        ({"profile": "clean"}, {}, {}, LOGIN, True),
        ({"profile": "clean"}, {}, {}, SETTINGS, True),
        ({}, {}, {"CODEX_HOME": "/nowhere"}, None, True),
        ({}, {}, {}, LOGIN, False),
        ({}, {}, {}, SETTINGS, False),
        ({"options": {"config": {"model_provider": "mine"}}}, {}, {}, None, False),
        ({}, {"env_from": ("OPENAI_API_KEY",)}, {}, None, False),
        ({"api_key_env": "OPENAI_API_KEY"}, {}, {"OPENAI_API_KEY": "k"}, None, False),
        ({"tier": "local", "base_url": "http://127.0.0.1:1"}, {}, {}, None, False),
        ({"adapter": "claude"}, {}, {}, None, False),
    ],
)
def test_a_codex_that_has_neither_key_nor_login_is_told_so_before_it_tries_for_ever(
    config, tmp_path, agent, task, environ, file, told
):
    """claude says it itself, and soon; what the user's own settings may say nobody knows."""
    if file is not None:
        (tmp_path / file).parent.mkdir()
        (tmp_path / file).touch()
    adapters = {"codex": codex, "claude": claude}
    environ = {"HOME": str(tmp_path), **environ}
    config = replace(config, adapters=adapters, environ=environ)
    known: dict[str, Any] = {"name": "mine", "adapter": "codex", "profile": "user", **agent}
    error = keyless(Agent(**known), replace(TASK, **task), config)
    if not told:
        assert error is None
        return
    assert error is not None
    assert (error.kind, error.text, error.hint) == (
        "auth_failed",
        "Codex CLI has neither a key nor a login",
        "Set OPENAI_API_KEY, or `codex login`.",
    )


async def test_a_request_that_times_out(config, tmp_path, monkeypatch):
    from orchestrator.discovery import servers

    monkeypatch.setattr(servers, "PATIENT_S", 0.2)
    with socket.create_server(("127.0.0.1", 0)) as silent:  # accepts, and never answers
        url = f"http://127.0.0.1:{silent.getsockname()[1]}"
        assert await ended(config, at(url, "ollama"), tmp_path) == (
            "timed_out",
            f"Ollama at {url} does not answer (no answer within 0.2 s).",
            "It may be loading a model or be busy: try again, or restart it.",
        )


NO_ROOM = "Take a smaller model, or a smaller window: {} has no memory for this one."
BROKEN = "See the log of {}: is the model's file whole, and its version new enough?"
CALLS_NONE = "Take a model that calls tools, such as qwen2.5-coder:14b."


@pytest.mark.parametrize(
    ("server", "said", "kind", "hint"),
    [
        (
            "ollama",
            "model requires more system memory (8.1 GiB) than is available (4.0 GiB)",
            "out_of_memory",
            NO_ROOM,
        ),
        (
            "ollama",
            "llama runner process has terminated: cudaMalloc failed: out of memory",
            "out_of_memory",
            NO_ROOM,
        ),
        (
            "ollama",
            (
                "llama runner process has terminated: error loading model:"
                " unable to allocate CUDA0 buffer"
            ),
            "out_of_memory",
            NO_ROOM,
        ),
        (
            "llamacpp",
            "failed to allocate CUDA0 buffer of size 151851674624",
            "out_of_memory",
            NO_ROOM,
        ),
        (
            "lmstudio",
            (
                'Failed to load model "x". Error: Model loading was stopped due to'
                " insufficient system resources."
            ),
            "out_of_memory",
            NO_ROOM,
        ),
        ("vllm", "CUDA out of memory. Tried to allocate 50.00 MiB.", "out_of_memory", NO_ROOM),
        ("ollama", "llama runner process has terminated: exit status 2", "load_failed", BROKEN),
        ("llamacpp", "failed to load model 'x.gguf'", "load_failed", BROKEN),
        ("lmstudio", "Failed to load model: unsupported architecture", "load_failed", BROKEN),
        (
            "vllm",
            "EngineCore encountered an issue. See stack trace (above) for the root cause.",
            "server_error",
            "The fault lies with {}: see its log, or try again later.",
        ),
        ("ollama", "library/phi:latest does not support tools", "tools_unsupported", CALLS_NONE),
        (
            "llamacpp",
            "tools param requires --jinja flag",
            "tools_unsupported",
            CALLS_NONE,
        ),
        (
            "vllm",
            '"auto" tool choice requires --enable-auto-tool-choice and --tool-call-parser',
            "tools_unsupported",
            CALLS_NONE,
        ),
    ],
)
def test_what_a_server_says_when_it_cannot(config, server, said, kind, hint):
    """As they word it in their own trackers' reports: only llama.cpp's server runs in tests."""
    assert error_kind(said, 500) == kind
    where = config.servers[server]
    agent = at("http://127.0.0.1:1", server)
    told = remedy(Failure(kind=kind, text=said), agent, where)
    more = f" {where.tools_hint}" if kind == "tools_unsupported" and where.tools_hint else ""
    assert told == hint.format(where.title) + more
    assert STATUS.get(kind, "failed") == ("failed" if "tools" in kind else "unavailable")
