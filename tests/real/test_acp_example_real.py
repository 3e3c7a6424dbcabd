"""The real opencode, as examples/acp describes it, under the supervisor, on a scripted model."""

import os
from dataclasses import replace
from pathlib import Path

import pytest

from orchestrator.adapter import Program
from orchestrator.config import load_config
from orchestrator.discovery import locate
from orchestrator.supervisor import Supervisor
from orchestrator.task import Task
from orchestrator.testing import model_server
from tests.real.scene import placed

pytestmark = [pytest.mark.real, pytest.mark.anyio]

EXAMPLE = Path(__file__).parent.parent.parent / "examples/acp/agents.toml"
WRITE = {"name": "write", "arguments": {"filePath": "made.txt", "content": "hello\n"}}


async def test_opencode_does_its_task_by_the_profile_of_the_example(tmp_path: Path) -> None:
    work, home = placed(tmp_path)
    environ = {"PATH": os.environ["PATH"], "HOME": str(home)}
    environ["ORCHESTRATE_STATE_DIR"] = str(tmp_path / "state")
    config = load_config(EXAMPLE, environ=environ)
    (agent,) = [agent for agent in config.agents if agent.name == "opencode-acp"]
    program = locate(Program(name="opencode"), config)
    assert program, "scripts/setup opencode"
    async with model_server({"turns": [{"tool_calls": [WRITE]}, {"text": "Made it."}]}) as server:
        agent = replace(agent, model="scripted", base_url=server.base_url, program=program)
        config = replace(config, agents=(agent,))
        task = Task(prompt="Make it.", workspace=work, isolation="none", kind="edit", access="full")
        async with Supervisor(config) as supervisor:
            outcome = await supervisor.run(task)
        assert server.remaining() == 0
    assert (outcome.status, outcome.text) == ("succeeded", "Made it."), outcome
    assert (work / "made.txt").read_text() == "hello\n"
