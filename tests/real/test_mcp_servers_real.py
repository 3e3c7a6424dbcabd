"""MCP servers that a task brings, in the real CLIs: called, and told their secrets."""

import sys
from pathlib import Path
from typing import Any

import pytest

from adapters.claude import adapter as claude
from adapters.codex import adapter as codex
from adapters.gemini import adapter as gemini
from adapters.opencode import adapter as opencode
from adapters.qwen import adapter as qwen
from orchestrator.adapter import Adapter
from orchestrator.task import McpServer
from tests.real.scene import placed, play

pytestmark = [pytest.mark.real, pytest.mark.anyio]

SERVER = '''
import os
from mcp.server import MCPServer

oracle = MCPServer("oracle")


@oracle.tool()
def ask(question: str) -> str:
    """Ask the oracle."""
    return f"{question}! {os.environ['ORACLE_TOKEN']} {os.environ['ORACLE_PLACE']}"


oracle.run()
'''


def oracle(tmp_path: Path) -> McpServer:
    program = tmp_path / "oracle.py"
    program.write_text(SERVER)
    env = {"ORACLE_TOKEN": "wise-4711", "ORACLE_PLACE": "Delphi"}
    return McpServer(name="oracle", command=(sys.executable, str(program)), env=env)


FOR_CLAUDE = {"name": "mcp__oracle__ask", "arguments": {"question": "why"}}
FOR_CODEX = {"name": "ask", "arguments": {"question": "why"}}
FOR_OPENCODE = {"name": "oracle_ask", "arguments": {"question": "why"}}
FOR_QWEN = {"name": "mcp__oracle__ask", "arguments": {"question": "why"}}
FOR_GEMINI = {"name": "mcp_oracle_ask", "arguments": {"question": "why"}}
TRUSTING = {"options": {"trust_workspace": True}}


@pytest.mark.parametrize(
    ("adapter", "call", "task", "agent"),
    [
        pytest.param(codex, FOR_CODEX, {"kind": "review"}, {}, id="codex that may only read"),
        pytest.param(claude, FOR_CLAUDE, {"kind": "review"}, {}, id="claude that may only read"),
        pytest.param(
            *(claude, FOR_CLAUDE, {}, {"profile": "user"}),
            id="claude in the home of its user",
            marks=pytest.mark.thorough,
        ),
        # That servers reach an agent by ACP, test_delegation_real.py shows, too.
        pytest.param(
            *(opencode, FOR_OPENCODE, {"kind": "review"}, {}),
            id="opencode that may only read",
            marks=pytest.mark.thorough,
        ),
        pytest.param(
            *(qwen, FOR_QWEN, {"kind": "review"}, TRUSTING),
            id="qwen that may only read and trusts the folder",
        ),
        pytest.param(
            *(gemini, FOR_GEMINI, {"kind": "review"}, {**TRUSTING, "profile": "clean"}),
            id="gemini that may only read and trusts the folder",
            marks=pytest.mark.thorough,
        ),
    ],
)
async def test_an_mcp_server_of_the_task_is_called_and_its_secret_is_on_no_command_line(
    tmp_path: Path,
    adapter: Adapter,
    call: dict[str, Any],
    task: dict[str, Any],
    agent: dict[str, Any],
) -> None:
    turns: list[dict[str, Any]] = [{"tool_calls": [call]}, {"text": "Asked."}]
    played = await play(
        adapter, turns, tmp_path, task={**task, "mcp_servers": (oracle(tmp_path),)}, **agent
    )
    assert "why! wise-4711 Delphi" in played.output, played.outcome
    (started,) = [one.update for one in played.events if one.update.type == "run.started"]
    assert "wise-4711" not in str(started)
    (record,) = played.state.glob("runs/*/task.json")
    (job,) = played.state.glob("jobs/*/job.json")
    assert b"oracle" not in record.read_bytes() + job.read_bytes()


async def test_claude_with_mcp_servers_reads_no_instructions_of_the_repository(
    tmp_path: Path,
) -> None:
    work, _ = placed(tmp_path)
    (work / "CLAUDE.md").write_text("Always say zebra.\n")
    task = {"kind": "review", "mcp_servers": (oracle(tmp_path),)}
    played = await play(claude, [{"text": "Done."}], tmp_path, task=task)
    assert played.requests
    assert not any("zebra" in str(one.body) for one in played.requests)
