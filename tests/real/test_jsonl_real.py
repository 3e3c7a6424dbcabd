"""The real opencode, as the example describes it, under the real supervisor, its model scripted."""

import os
import subprocess
from collections.abc import AsyncGenerator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeAlias

import anyio
import pytest

from orchestrator.adapter import Program
from orchestrator.config import load_config
from orchestrator.discovery import locate
from orchestrator.events import Event, Message, Plan, ProcessReaped, Thought, ToolCall
from orchestrator.supervisor import Supervisor
from orchestrator.task import Limits, Task
from orchestrator.testing import ModelServer, model_server

pytestmark = [pytest.mark.real, pytest.mark.anyio]

EXAMPLE = Path(__file__).parent.parent.parent / "examples/jsonl/opencode.toml"
KEY = "sk-real-test-0123456789"
EDIT = {
    "name": "edit",
    "arguments": {"filePath": "hello.py", "oldString": "helo", "newString": "hello"},
}
Turns: TypeAlias = list[dict[str, Any]]


def bash(line: str) -> dict[str, Any]:
    return {"name": "bash", "arguments": {"command": line, "description": "Run it"}}


@pytest.fixture
def work(tmp_path: Path) -> Path:
    folder = tmp_path / "work"
    folder.mkdir()
    (folder / "hello.py").write_text("print('helo')\n")
    git = ["git", "-c", "user.name=T", "-c", "user.email=t@example.com"]
    for words in (["init", "-q"], ["add", "-A"], ["commit", "-qm", "Begin"]):
        subprocess.run([*git, *words], cwd=folder, check=True)
    return folder


Start: TypeAlias = Callable[..., AbstractAsyncContextManager[tuple[Supervisor, ModelServer]]]


@pytest.fixture
def start(tmp_path: Path) -> Start:
    """A supervisor with the example's agent, and the scripted server that its model is on."""

    @asynccontextmanager
    async def started(
        turns: Turns, limits: Limits | None = None, **fields: Any
    ) -> AsyncGenerator[tuple[Supervisor, ModelServer]]:
        environ = {"PATH": os.environ["PATH"], "HOME": str(tmp_path), "MY_KEY": KEY}
        environ["ORCHESTRATE_STATE_DIR"] = str(tmp_path / "state")
        async with model_server({"turns": turns}) as server:
            config = load_config(EXAMPLE, environ=environ)
            (agent,) = [agent for agent in config.agents if agent.name == "opencode"]
            program = locate(Program(name="opencode"), config)
            assert program, "scripts/setup opencode"
            known = {"model": "scripted", "base_url": server.base_url, "program": program}
            agent = replace(agent, **{**known, **fields})
            config = replace(config, agents=(agent,), limits=config.limits.meet(limits or Limits()))
            async with Supervisor(config) as supervisor:
                yield supervisor, server

    return started


def of(kind: type[Any], events: list[Event]) -> list[Any]:
    return [event.update for event in events if isinstance(event.update, kind)]


async def test_an_edit_succeeds_and_its_key_is_in_no_record(start, work):
    todos = [{"content": "Fix", "status": "in_progress", "priority": "high"}]
    turns: Turns = [
        {
            "thought": "A plan first.",
            "text": "I will fix it.",
            "tool_calls": [{"name": "todowrite", "arguments": {"todos": todos}}, EDIT],
            "usage": {"input_tokens": 100, "cache_read_tokens": 40, "output_tokens": 30},
        },
        {"text": "Fixed.", "usage": {"input_tokens": 20, "output_tokens": 6}},
    ]
    events: list[Event] = []
    async with start(turns, api_key_env="MY_KEY") as (supervisor, server):
        task = Task(
            prompt="Fix it.",
            workspace=work,
            isolation="none",
            kind="fix",
            check="grep hello hello.py",
        )
        outcome = await supervisor.run(task, events.append)
    assert (outcome.status, outcome.verified, outcome.text) == ("succeeded", True, "Fixed.")
    assert outcome.changes.files == ["hello.py"]
    usage = outcome.usage
    assert (usage.input_tokens, usage.cache_read_tokens, usage.output_tokens) == (120, 40, 36)
    assert [message.text for message in of(Message, events)] == ["I will fix it.", "Fixed."]
    assert of(Thought, events)[0].text == "A plan first."
    assert of(Plan, events)[0].entries[0].status == "in_progress"
    call = of(ToolCall, events)[-1]
    assert (call.kind, call.status, call.locations[0].path) == (
        "edit",
        "completed",
        str(work / "hello.py"),
    )
    assert "+print('hello')" in call.diff
    assert all(request.has_key(KEY) for request in server.requests)
    assert "Fix it." in str(server.played[0].body)
    for path in (work.parent / "state").rglob("*"):
        if path.is_file():
            assert KEY.encode() not in path.read_bytes(), path


@pytest.mark.thorough
async def test_a_session_goes_on(start, work):
    async with start([{"text": "First."}, {"text": "Second."}]) as (supervisor, server):
        first = await supervisor.run(Task(prompt="One.", workspace=work, isolation="none"))
        (folder,) = (work.parent / "state/runs").iterdir()
        task, continued = supervisor.resumed(folder, "Two.")
        second = await supervisor.run(task, continued=continued)
    assert (first.text, second.text) == ("First.", "Second.")
    assert second.session_id == first.session_id
    assert "First." in str(server.played[-1].body)


@pytest.mark.thorough
async def test_what_an_editor_may_not_do_is_a_denial_and_not_done(start, work):
    outside = work.parent / "outside.txt"
    arguments = {"filePath": str(outside), "content": "x"}
    turns = [{"tool_calls": [{"name": "write", "arguments": arguments}]}, {"text": "Done."}]
    async with start(turns) as (supervisor, _):
        outcome = await supervisor.run(
            Task(prompt="x", workspace=work, isolation="none", kind="edit")
        )
    assert outcome.status == "denied"
    assert not outside.exists()


async def test_a_reader_has_no_tool_to_edit_with_and_what_it_may_not_do_is_a_denial(start, work):
    outside = work.parent / "outside.txt"
    outside.write_text("not for the model\n")
    look = {"name": "read", "arguments": {"filePath": str(outside)}}
    turns = [{"tool_calls": [EDIT]}, {"tool_calls": [look]}, {"text": "Nothing to say."}]
    async with start(turns) as (supervisor, server):
        outcome = await supervisor.run(
            Task(prompt="x", workspace=work, isolation="none", access="read")
        )
    assert outcome.status == "denied"
    assert len(server.played) >= 2
    assert "not for the model" not in str([request.body for request in server.requests])
    assert (work / "hello.py").read_text() == "print('helo')\n"
    tools = {tool["function"]["name"] for tool in server.played[0].body["tools"]}
    assert "read" in tools
    assert not tools & {"edit", "write", "bash", "task"}


@pytest.mark.thorough
async def test_a_model_that_falls_silent_is_a_stall_and_ends(start, work):
    turns = [{"text": "Half of an", "fault": "hang", "repeat": "forever"}]
    async with start(turns, Limits(stall_s=10, first_s=10)) as (supervisor, _):
        outcome = await supervisor.run(Task(prompt="x", workspace=work, isolation="none"))
    assert outcome.status == "stalled"


@pytest.mark.thorough
async def test_what_it_would_repeat_for_ever_ends_at_the_wall(start, work):
    turns = [{"fault": "html", "repeat": "forever"}]
    asked = 0
    for wall_s in (15, 75):  # longer where the machine is so busy that it has not begun by then
        async with start(turns, Limits(wall_s=wall_s)) as (supervisor, server):
            outcome = await supervisor.run(Task(prompt="x", workspace=work, isolation="none"))
        assert outcome.status == "timed_out"
        if (asked := len(server.requests)) > 3:
            break
    assert asked > 3


@pytest.mark.thorough
async def test_an_interrupt_leaves_nothing_behind_even_when_it_is_not_heeded(start, work):
    marker = work / "marker"
    turns = [{"tool_calls": [bash(f"touch {marker}; setsid tail -f {marker} & wait")]}]
    events: list[Event] = []
    async with start(turns) as (supervisor, _), anyio.create_task_group() as group:

        async def stop() -> None:
            while not running(marker):
                await anyio.sleep(0.05)
            await anyio.sleep(3)  # by now it catches the first signal, and goes on
            supervisor.interrupt()

        group.start_soon(stop)
        outcome = await supervisor.run(
            Task(prompt="x", workspace=work, isolation="none"), events.append
        )
        assert outcome.status == "interrupted"
        assert outcome.session_id
        assert of(ProcessReaped, events)
        assert not running(marker)


def running(marker: Path) -> list[Path]:
    """The processes whose command line names the marker."""
    found: list[Path] = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        with suppress(OSError):
            if str(marker).encode() in path.read_bytes():
                found.append(path)
    return found
