"""The MCP server as an independent client has it: the SDK's own, over real pipes."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Generator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import anyio
import pytest

from orchestrator.events import Outcome
from orchestrator.journal import read_outcome
from orchestrator.supervisor import Supervisor
from orchestrator.task import Task
from tests.commands import MCP, Command
from tests.delegation.scene import says, shell_config
from tests.delegation.test_desk import WAITS
from tests.workspace.scene import git, repository

if TYPE_CHECKING:  # it takes a second, which a worker without one of these tests need not spend
    from mcp import Client

pytestmark = [pytest.mark.anyio, pytest.mark.timeout(90)]

AGENT = """
[agents.{name}]
adapter = "jsonl"
model = "m"
tier = "local"
argv = ["/bin/sh", "-c", '''{script}''']
[[agents.{name}.events]]
when = {{ type = "text" }}
emit = "message"
text = ".text"
[[agents.{name}.events]]
when = {{ type = "done" }}
emit = "turn.finished"
stop_reason = "end_turn"
"""
DONE = """printf '{"type":"done"}\\n'"""


def text(words: str) -> str:
    return f"""printf '{{"type":"text","text":"{words}"}}\\n'"""


@pytest.fixture
def user(tmp_path: Path) -> Path:
    return repository(tmp_path / "user", {"a.txt": "one\n"})


@pytest.fixture
def environ(tmp_path: Path) -> dict[str, str]:
    many = "$(head -c 9000 /dev/zero | tr '\\0' x)"
    long = f"""printf '{{"type":"text","text":"%s"}}\\n' "{many}\""""
    agents = {
        "echo": f"echo two > a.txt; {text('did it')}; {DONE}",
        "long": f"{long}; {DONE}",
        "slow": f"{text('begun')}; echo $$ > {tmp_path}/slow; exec sleep 600",
    }
    config = tmp_path / "orchestrate.toml"
    config.write_text("".join(AGENT.format(name=n, script=s) for n, s in agents.items()))
    return {
        "ORCHESTRATE_CONFIG": str(config),
        "ORCHESTRATE_STATE_DIR": str(tmp_path / "state"),
        "HOME": str(tmp_path),
        "PATH": os.environ["PATH"],
    }


def client_of(environ: dict[str, str], folder: Path) -> "Client":
    from mcp import Client, StdioServerParameters, stdio_client

    server = StdioServerParameters(
        command=sys.executable,
        args=["-P", "-m", "orchestrator.cli", "mcp"],
        env=environ,
        cwd=folder,
    )
    return Client(stdio_client(server))


def answer(result: Any) -> dict[str, Any]:
    from mcp_types import CallToolResult

    assert isinstance(result, CallToolResult)
    found: dict[str, Any] = json.loads(result.content[0].text)  # type: ignore[union-attr]
    assert found == result.structured_content
    return found


def alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return "Z" not in Path(f"/proc/{pid}/stat").read_text().split(") ")[1][:1]


async def appeared(path: Path) -> str:
    while not path.exists() or not path.read_text().strip():
        await anyio.sleep(0.02)
    return path.read_text().strip()


async def gone(pid: int) -> None:
    while alive(pid):
        await anyio.sleep(0.02)


async def test_a_client_lists_and_calls_the_tools_and_no_mistake_of_its_ends_them(
    user: Path, environ: dict[str, str], tmp_path: Path
) -> None:
    from mcp import MCPError
    from mcp_types import INVALID_PARAMS

    async with client_of(environ, user) as client:
        tools = {tool.name: tool for tool in (await client.list_tools()).tools}
        assert set(tools) == {
            "delegate", "delegate_many", "status", "result", "cancel", "list_agents",
        }  # fmt: skip
        assert all(len(tool.description or "") > 30 for tool in tools.values())
        assert tools["delegate"].input_schema["required"] == ["prompt"]

        for name, wrong in (
            ("delegate", {}),
            ("delegate", {"prompt": 7}),
            ("delegate", {"prompt": "x", "kind": "odd"}),
            ("delegate", {"prompt": "x", "nonsense": 1}),
            ("delegate_many", {"tasks": []}),
            ("result", {"id": "x", "offset": -1}),
            ("explode", {}),
        ):
            with pytest.raises(MCPError) as caught:
                await client.call_tool(name, wrong)
            assert caught.value.error.code == INVALID_PARAMS, name
        refused = await client.call_tool("delegate", {"prompt": "x", "workspace": "/etc"})
        assert refused.is_error
        assert "outside of this task's folder" in answer(refused)["error"]

        heard: list[str] = []

        async def hear(progress: float, total: float | None, message: str | None) -> None:
            heard.append(message or "")

        asked = {"prompt": "Make it two", "agent": "echo", "kind": "fix"}
        made = answer(await client.call_tool("delegate", asked, progress_callback=hear))
        assert (made["status"], made["text"], made["files"]) == ("succeeded", "did it", ["a.txt"])
        assert heard[0].startswith("sub-1: ")
        assert git(user, "show", f"{made['branch']}:a.txt") == "two"
        assert (user / "a.txt").read_text() == "one\n"
        subprocess.run(made["take"].split(), cwd=user, check=True)
        assert (user / "a.txt").read_text() == "two\n"

        tasks = [{"prompt": "x", "agent": "long"}, {"prompt": "y", "agent": "nobody"}]
        many = answer(await client.call_tool("delegate_many", {"tasks": tasks}))["results"]
        assert (len(many[0]["text"]), many[0]["text_length"]) == (8000, 9000)
        assert many[1]["status"] == "refused"
        rest = {"id": many[0]["id"], "offset": many[0]["next_offset"]}
        assert len(answer(await client.call_tool("result", rest))["text"]) == 1000
        agents = answer(await client.call_tool("list_agents", {}))["agents"]
        assert {"echo", "long", "slow"} <= {one["name"] for one in agents}

        pid = 0
        with anyio.CancelScope() as scope:
            async with anyio.create_task_group() as group:

                async def ask() -> None:
                    await client.call_tool("delegate", {"prompt": "wait", "agent": "slow"})

                group.start_soon(ask)
                pid = int(await appeared(tmp_path / "slow"))
                scope.cancel()
        await gone(pid)
        states = answer(await client.call_tool("status", {}))["tasks"]
        ended = answer(await client.call_tool("result", {"id": states[-1]["id"]}))
        assert ended["status"] == "cancelled"

        (tmp_path / "slow").unlink()
        await client.call_tool("delegate", {"prompt": "w", "agent": "slow", "wait": False})
        last = int(await appeared(tmp_path / "slow"))
    await gone(last)  # stdin was closed: that ends all
    outcomes = [read_outcome(path) for path in sorted((tmp_path / "state/runs").iterdir())]
    assert [one.status for one in outcomes if one] == [
        "succeeded", "succeeded", "cancelled", "cancelled",
    ]  # fmt: skip


async def test_inside_of_a_run_the_tools_are_the_supervisors(tmp_path: Path, user: Path) -> None:
    config = shell_config(tmp_path, {"parent": f"{WAITS}\n{says('done')}", "child": says("y")})
    outcomes: list[Outcome] = []

    async def run() -> None:
        task = Task(prompt="Begin", workspace=user, agent="parent", delegation=True)
        async with Supervisor(config) as supervisor:
            outcomes.append(await supervisor.run(task))

    async with anyio.create_task_group() as group:
        group.start_soon(run)
        socket, token = (await appeared(tmp_path / "seen/desk")).split("\n")
        environ = {"ORCHESTRATE_SOCKET": socket, "ORCHESTRATE_TOKEN": token}
        async with client_of(environ, user) as client:
            done = answer(await client.call_tool("delegate", {"prompt": "x", "agent": "child"}))
            assert (done["id"], done["text"]) == ("task-1", "y")
        (tmp_path / "seen/go").touch()
    assert outcomes[0].ok
    assert len(list((config.state / "jobs").iterdir())) == 1


RUBBISH = (b"rubbish", b"[]", b"{}", b"null", b"\xff\xfe", b"\0", b"[" * 5000, b"x" * 2_000_000)


@contextmanager
def at_work(user: Path, environ: dict[str, str], tmp_path: Path) -> Generator[tuple[Any, int]]:
    """The server in the middle of a sub-task, whose process is given too; its stdin stays open."""

    def told(method: str, **params: Any) -> bytes:
        return json.dumps({"jsonrpc": "2.0", "method": method, **params}).encode() + b"\n"

    client = {"protocolVersion": "2025-06-18", "capabilities": {}}
    hello = {**client, "clientInfo": {"name": "x", "version": "1"}}
    call = {"name": "delegate", "arguments": {"prompt": "wait", "agent": "slow"}}
    pipe = subprocess.PIPE
    with Command[bytes](
        ["mcp"], imports=MCP, cwd=user, env=environ, stdin=pipe, stdout=pipe
    ) as process:
        assert process.stdin is not None
        process.stdin.write(told("initialize", id=1, params=hello))
        process.stdin.write(told("notifications/initialized"))
        process.stdin.write(b"".join(line + b"\n" for line in RUBBISH))  # which ends nothing
        process.stdin.write(told("tools/call", id=2, params=call))
        process.stdin.flush()
        yield process, int(anyio.run(appeared, tmp_path / "slow"))


def test_a_signal_ends_the_server_and_its_sub_tasks_in_order_while_stdin_is_open(
    tmp_path: Path, user: Path, environ: dict[str, str]
) -> None:
    with at_work(user, environ, tmp_path) as (process, pid):
        process.send_signal(signal.SIGTERM)
        assert process.wait() == 128 + signal.SIGTERM
    assert not alive(pid)
    (run,) = (tmp_path / "state/runs").iterdir()
    outcome = read_outcome(run)
    assert outcome is not None
    assert outcome.status == "cancelled"


def test_a_second_signal_ends_the_server_at_once_whatever_it_waits_for(
    tmp_path: Path, user: Path, environ: dict[str, str]
) -> None:
    """As for a reaper that does not answer; it ends everything when it finds itself alone."""
    with at_work(user, environ, tmp_path) as (process, pid):
        reaper = parent(pid)
        both = parent(reaper), reaper  # its guard would wake it
        for each in both:
            os.kill(each, signal.SIGSTOP)
        try:
            process.send_signal(signal.SIGINT)
            process.send_signal(signal.SIGTERM)
            assert process.wait() in {128 + signal.SIGINT, 128 + signal.SIGTERM}
            assert alive(reaper)  # nobody waited until it was given up
        finally:
            for each in both:
                with suppress(ProcessLookupError):
                    os.kill(each, signal.SIGCONT)
    anyio.run(gone, pid)


def parent(pid: int) -> int:
    return int(Path(f"/proc/{pid}/stat").read_text().rsplit(") ", 1)[1].split()[1])


def test_inside_of_a_run_the_first_signal_ends_it_while_stdin_is_open(user: Path) -> None:
    environ = {**os.environ, "ORCHESTRATE_SOCKET": "/nobody", "ORCHESTRATE_TOKEN": "none"}
    client = {"protocolVersion": "2025-06-18", "capabilities": {}}
    hello = {**client, "clientInfo": {"name": "x", "version": "1"}}
    told = {"jsonrpc": "2.0", "id": 1, "method": "initialize", "params": hello}
    argv = [sys.executable, "-P", "-m", "orchestrator.cli", "mcp"]
    pipe = subprocess.PIPE
    with subprocess.Popen(argv, cwd=user, env=environ, stdin=pipe, stdout=pipe) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(json.dumps(told).encode() + b"\n")
        process.stdin.flush()
        assert b'"id":1' in process.stdout.readline()
        process.send_signal(signal.SIGINT)
        assert process.wait() == -signal.SIGINT


def test_help_and_run_do_without_the_sdk() -> None:
    code = (
        "import sys, orchestrator.cli, orchestrator.cli.mcp, orchestrator.supervisor\n"
        "assert not {'mcp', 'mcp_types'} & set(sys.modules), 'imported'"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_what_other_clients_want_is_printed() -> None:
    argv = [sys.executable, "-m", "orchestrator.cli", "mcp", "config"]
    printed = json.loads(subprocess.run(argv, capture_output=True, check=True).stdout)
    entry = printed["mcpServers"]["orchestrate"]
    assert entry["command"] == sys.executable
    assert entry["args"][-1] == "mcp"
