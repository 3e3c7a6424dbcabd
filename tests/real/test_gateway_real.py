"""The real LiteLLM proxy between real agents and a model server that speaks only chat.

One supervisor and one gateway for all of the module: the proxy takes seconds to start.
"""

import os
import signal
from collections.abc import AsyncGenerator, Mapping
from dataclasses import dataclass, field
from itertools import product
from pathlib import Path
from typing import Any

import pytest

from adapters import claude, codex
from adapters.gateway import gateway
from orchestrator.adapter import Agent
from orchestrator.config import Config, load_config
from orchestrator.discovery import locate, ready
from orchestrator.events import Event, MessageDelta, Notice, Outcome, RouteVerified, ToolCall
from orchestrator.supervisor import Supervisor
from orchestrator.task import Limits, Task
from orchestrator.testing import ModelServer, Request, model_server
from orchestrator.testing.script import parse_script
from tests.real.alone import names_looked_up
from tests.real.scene import placed

pytestmark = [pytest.mark.real, pytest.mark.anyio]

PATCH = """apply_patch <<'EOF'
*** Begin Patch
*** Update File: hello.py
@@
-print('helo')
+print('hello')
*** End Patch
EOF"""
EDITS: Mapping[str, list[dict[str, Any]]] = {
    "codex": [
        {"tool_calls": [{"name": "exec_command", "arguments": {"cmd": PATCH}}]},
    ],
    "claude": [
        {"tool_calls": [{"name": "Read", "arguments": {"file_path": "hello.py"}}]},
        {
            "tool_calls": [
                {
                    "name": "Edit",
                    "arguments": {
                        "file_path": "hello.py",
                        "old_string": "helo",
                        "new_string": "hello",
                    },
                }
            ]
        },
    ],
}
TRIED = {"tool_calls": [{"name": "report", "arguments": {"ok": True}}]}
USAGE = {"input_tokens": 100, "cache_read_tokens": 40, "output_tokens": 30}


def edit(agent: str) -> list[dict[str, Any]]:
    """What the model says to fix the file, each turn with the same usage."""
    return [{**turn, "usage": USAGE} for turn in (*EDITS[agent], {"text": "Fixed."})]


@dataclass
class Scene:
    """What the tests share. Each starts from an empty record and a script of its own."""

    supervisor: Supervisor
    server: ModelServer
    state: Path
    events: list[Event] = field(default_factory=list[Event])

    @property
    def gateways(self) -> tuple[int, ...]:
        made = self.supervisor._gateways
        assert made is not None
        return made.pids

    @property
    def asked(self) -> list[Request]:
        """What the agents asked through the gateway, without our own look at the server."""
        every = self.server.requests
        return [one for one in every if one.headers.get("user-agent") != "orchestrate"]

    async def play(self, agent: str, turns: list[dict[str, Any]], work: Path) -> Outcome:
        self.server.script = parse_script(script(turns))
        self.server._cursors.clear()
        self.server.requests.clear()
        self.events.clear()
        task = Task(
            prompt="Fix it.",
            kind="fix",
            check="python3 hello.py | grep -x hello",
            workspace=work,
            isolation="none",
            agent=agent,
        )
        return await self.supervisor.run(task, self.events.append)


def script(turns: list[dict[str, Any]]) -> dict[str, Any]:
    return {"model": "scripted", "server": "openai-compatible", "turns": turns}


@pytest.fixture(scope="module")
async def scene(tmp_path_factory) -> AsyncGenerator[Scene]:
    folder = tmp_path_factory.mktemp("gateway")
    async with model_server(script([TRIED])) as server:
        place: dict[str, Any] = {
            "model": "scripted",
            "base_url": server.base_url,
            "server": "openai-compatible",
            "tier": "local",
            "api_key_env": "DESK_KEY",
        }
        config = Config(
            agents=tuple(Agent(name=name, adapter=name, **place) for name in EDITS),
            adapters={"codex": codex.adapter, "claude": claude.adapter},
            servers=load_config(environ={}, folder=folder).servers,
            gateway=gateway,
            limits=Limits(wall_s=110),
            state=folder / "state",
            agents_folder=folder / "agents",
            environ={
                "PATH": os.environ["PATH"],
                "HOME": str(folder),
                "DESK_KEY": "sk-desk-1234567",
            },
        )
        assert gateway.about.program is not None
        assert locate(gateway.about.program, config), "scripts/setup litellm"
        # Such a server does not tell whether its model calls tools: one call is tried, once.
        tried = await ready(config.agents[0], Task(prompt="x"), config)
        assert tried.error is None
        assert server.remaining() == 0
        async with Supervisor(config) as supervisor:
            yield Scene(supervisor=supervisor, server=server, state=config.state)


@pytest.fixture
def work(tmp_path: Path) -> Path:
    return placed(tmp_path)[0]


@pytest.mark.parametrize("agent", EDITS)
async def test_an_edit_succeeds_its_usage_is_right_and_no_record_holds_a_key(scene, work, agent):
    outcome = await scene.play(agent, edit(agent), work)
    assert (outcome.status, outcome.verified, outcome.text) == ("succeeded", True, "Fixed.")
    assert outcome.changes is not None
    assert outcome.changes.files == ["hello.py"]
    turns = len(edit(agent))
    usage = outcome.usage
    assert usage is not None
    assert (usage.input_tokens, usage.output_tokens) == (100 * turns, 30 * turns)
    assert (usage.cache_read_tokens, usage.cost_usd) == (40 * turns, 0.0)
    updates = [event.update for event in scene.events]
    assert [one.status for one in updates if isinstance(one, ToolCall)][-1] == "completed"
    assert any(isinstance(one, MessageDelta) for one in updates) == (agent == "claude")
    assert any(isinstance(one, Notice) and "LiteLLM proxy" in one.text for one in updates)
    (verified,) = (one for one in updates if isinstance(one, RouteVerified))
    assert (verified.method, verified.model) == ("gateway", "scripted")
    assert verified.server == scene.server.base_url
    assert {one.path for one in scene.asked} == {"/v1/chat/completions"}
    assert all(one.body["stream"] for one in scene.asked)
    assert all(one.has_key("sk-desk-1234567") for one in scene.asked)
    _all_went_through_one_that_kept_its_key(scene)


def _all_went_through_one_that_kept_its_key(scene: Scene) -> None:
    (pid,) = scene.gateways
    environ = Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
    (key,) = (one.partition(b"=")[2] for one in environ if one.startswith(b"LITELLM_MASTER_KEY="))
    assert len(key) > 40
    for path in scene.state.rglob("*"):
        if path.is_file():
            assert key not in path.read_bytes(), path
            assert b"sk-desk-1234567" not in path.read_bytes(), path


REFUSALS: tuple[tuple[dict[str, Any], str], ...] = (
    ({"fault": "model_not_found"}, "model_not_found"),
    ({"fault": "context_overflow"}, "context_overflow"),
    ({"status": 500}, "unavailable"),
    ({"fault": "reset"}, "unavailable"),
)
# Each refusal once, with the quicker one; claude's 404 is in the next test.
USUAL = tuple(("codex", refusal) for refusal in REFUSALS)


@pytest.mark.parametrize(
    ("agent", "turn", "status"),
    [
        pytest.param(
            *(agent, *refusal),
            id=f"{agent}-{next(iter(refusal[0].values()))}",
            marks=() if (agent, refusal) in USUAL else pytest.mark.thorough,
        )
        for agent, refusal in product(EDITS, REFUSALS)
    ],
)
async def test_what_the_server_refuses_is_told_as_it_is_and_soon(scene, work, agent, turn, status):
    outcome = await scene.play(agent, [{**turn, "repeat": "forever"}], work)
    assert outcome.status == status
    assert len(scene.asked) <= 5
    assert len(scene.gateways) == 1


async def test_a_404_does_not_put_the_server_aside(scene, work):
    first = await scene.play("claude", [{"fault": "model_not_found", "repeat": "forever"}], work)
    second = await scene.play("claude", edit("claude"), work)
    assert (first.status, second.status) == ("model_not_found", "succeeded")


@pytest.mark.thorough
async def test_a_run_outlives_a_kill_of_its_gateway(scene, work):
    """The agent's one retry waits at the same address until the proxy is there again."""
    (killed,) = scene.gateways

    def kill(request: Request) -> None:
        if request.turn == 2:
            scene.server.on_request = None
            os.kill(killed, signal.SIGKILL)

    turns = edit("claude")
    scene.server.on_request = kill
    outcome = await scene.play("claude", [turns[0], turns[1], turns[1], turns[2]], work)
    assert outcome.status == "succeeded"
    assert scene.gateways != (killed,)


@pytest.mark.parametrize("agent", ["codex", pytest.param("claude", marks=pytest.mark.thorough)])
def test_neither_gateway_nor_agent_looks_any_name_up(tmp_path, agent):
    said = names_looked_up(
        f"adapters.{agent}",
        [TRIED, *edit(agent)],
        tmp_path,
        make="openai-compatible",
        server="openai-compatible",
        task={"kind": "fix"},
    )
    assert said == {"names": [], "status": "succeeded"}
