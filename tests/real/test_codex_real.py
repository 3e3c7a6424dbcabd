"""The real codex under the real supervisor, its model scripted: what recordings cannot show."""

import os
import subprocess
import time
from collections.abc import AsyncGenerator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager, suppress
from pathlib import Path
from types import MappingProxyType
from typing import Any, TypeAlias

import anyio
import pytest

from adapters.codex import adapter
from adapters.servers import lmstudio, ollama
from orchestrator.adapter import Agent
from orchestrator.config import Config
from orchestrator.discovery import locate
from orchestrator.events import Context, Event, ProcessReaped, ToolCall, Usage
from orchestrator.supervisor import Supervisor
from orchestrator.task import Limits, Task
from orchestrator.testing import ModelServer, model_server
from tests.real.alone import names_looked_up

pytestmark = [pytest.mark.real, pytest.mark.anyio]

KEY = "sk-real-test-0123456789"
Turns: TypeAlias = list[dict[str, Any]]


def command(cmd: str, **arguments: object) -> dict[str, Any]:
    """A turn in which the model asks for a command."""
    return {"tool_calls": [{"name": "exec_command", "arguments": {"cmd": cmd, **arguments}}]}


def patch(*lines: str) -> dict[str, Any]:
    body = "\n".join(("*** Begin Patch", *lines, "*** End Patch"))
    return command(f"apply_patch <<'EOF'\n{body}\nEOF")


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
    """A supervisor with one agent, codex, and the scripted server that its model is on."""

    @asynccontextmanager
    async def started(
        turns: Turns, **fields: object
    ) -> AsyncGenerator[tuple[Supervisor, ModelServer]]:
        async with model_server({"turns": turns}) as server:
            known: dict[str, Any] = {
                "model": "scripted",
                "base_url": server.base_url,
                "tier": "local",
            }
            known |= fields
            config = Config(
                agents=(Agent(name="mine", adapter="codex", **known),),
                adapters=MappingProxyType({"codex": adapter}),
                servers=MappingProxyType({"ollama": ollama.server, "lmstudio": lmstudio.server}),
                limits=Limits(wall_s=100),
                state=tmp_path / "state",
                environ={"PATH": os.environ["PATH"], "HOME": str(tmp_path), "MY_KEY": KEY},
            )
            program = adapter.about.program
            assert program is not None
            assert locate(program, config), "scripts/setup codex"
            async with Supervisor(config) as supervisor:
                yield supervisor, server

    return started


def of(kind: type[Any], events: list[Event]) -> list[Any]:
    return [event.update for event in events if isinstance(event.update, kind)]


async def test_an_edit_succeeds_with_usage_by_call(start, work):
    turns: Turns = [
        patch("*** Update File: hello.py", "@@", "-print('helo')", "+print('hello')"),
        {"text": "Fixed."},
    ]
    turns[0]["usage"] = {"input_tokens": 100, "cache_read_tokens": 40, "output_tokens": 30}
    turns[1]["usage"] = {"input_tokens": 20, "cache_read_tokens": 160, "output_tokens": 6}
    events: list[Event] = []
    async with start(turns, api_key_env="MY_KEY") as (supervisor, server):
        task = Task(
            prompt="Fix it.", workspace=work, isolation="none", kind="fix", check="python3 hello.py"
        )
        outcome = await supervisor.run(task, events.append)
    assert (outcome.status, outcome.verified, outcome.text) == ("succeeded", True, "Fixed.")
    assert outcome.changes.files == ["hello.py"]
    assert (work / "hello.py").read_text() == "print('hello')\n"
    assert (outcome.usage.input_tokens, outcome.usage.cache_read_tokens) == (120, 200)
    assert (outcome.usage.output_tokens, outcome.usage.cost_usd) == (36, 0.0)
    assert [context.used for context in of(Context, events)] == [170, 186]
    assert len(of(Usage, events)) <= 2
    assert all(request.has_key(KEY) for request in server.requests)
    for path in (work.parent / "state").rglob("*"):
        if path.is_file():
            assert KEY.encode() not in path.read_bytes(), path


async def test_the_commands_of_the_model_do_not_see_the_key(start, work):
    async with start([command("env"), {"text": "Seen."}], api_key_env="MY_KEY") as (supervisor, _):
        events: list[Event] = []
        outcome = await supervisor.run(
            Task(prompt="x", workspace=work, isolation="none"), events.append
        )
    assert outcome.status == "succeeded"
    output = of(ToolCall, events)[-1].output
    assert "CODEX_HOME=" in output
    assert "KEY" not in output


async def test_a_session_goes_on_and_is_counted_from_where_it_stood(start, work):
    usage = {"input_tokens": 10, "output_tokens": 1}
    turns = [{"text": text, "usage": usage} for text in ("First.", "Second.")]
    async with start(turns) as (supervisor, server):
        first = await supervisor.run(Task(prompt="One.", workspace=work, isolation="none"))
        (folder,) = (work.parent / "state/runs").iterdir()
        task, continued = supervisor.resumed(folder, "Two.")
        second = await supervisor.run(task, continued=continued)
    assert (first.text, second.text) == ("First.", "Second.")
    assert second.session_id == first.session_id
    assert second.usage.input_tokens == first.usage.input_tokens == 10
    assert "First." in str(server.played[-1].body)


async def test_a_refused_port_ends_as_unavailable_within_30_s(start, work):
    began = time.monotonic()
    # Cloud: so that codex itself finds it out, and not our look at the port before.
    async with start([], base_url="http://127.0.0.1:9", tier="cloud") as (supervisor, _):
        outcome = await supervisor.run(Task(prompt="x", workspace=work, isolation="none"))
    assert outcome.status == "unavailable"
    assert time.monotonic() - began < 30


@pytest.mark.parametrize("server", ["ollama", "lmstudio"])
async def test_oss_edits_a_file(start, work, server):
    turns = [command("echo a > a.txt"), {"text": "Made."}]
    async with start(turns, server=server, options={"oss": True}) as (supervisor, models):
        outcome = await supervisor.run(
            Task(prompt="Make it.", workspace=work, isolation="none", kind="edit")
        )
    assert (outcome.status, outcome.changes.files) == ("succeeded", ["a.txt"])
    assert "/api/pull" not in {request.path for request in models.requests}


async def test_what_the_sandbox_stops_is_a_denial(start, work):
    async with start([command("echo a > a.txt"), {"text": "Done."}]) as (supervisor, _):
        task = Task(prompt="Look.", workspace=work, isolation="none", access="read")
        outcome = await supervisor.run(task)
    assert outcome.status == "denied"
    assert not (work / "a.txt").exists()


async def test_an_interrupt_leaves_nothing_behind(start, work):
    marker = work / "marker"
    turns = [command(f"touch {marker}; setsid tail -f {marker} & wait")]
    events: list[Event] = []
    async with start(turns) as (supervisor, _), anyio.create_task_group() as group:

        async def stop() -> None:
            while not of(ToolCall, events) or not running(marker):
                await anyio.sleep(0.05)
            supervisor.interrupt()

        group.start_soon(stop)
        outcome = await supervisor.run(
            Task(prompt="x", workspace=work, isolation="none"), events.append
        )
        assert outcome.status == "interrupted"
        assert outcome.session_id
        assert of(ProcessReaped, events)
        assert not running(marker)


def test_at_home_no_name_is_looked_up_whatever_the_users_settings(tmp_path):
    """codex would fetch lists of plug-ins; without settings of the user's: `scripts/offline`."""
    said = names_looked_up("adapters.codex", [{"text": "Done."}], tmp_path, profile="user")
    assert said == {"names": [], "status": "succeeded"}


def running(marker: Path) -> list[Path]:
    """The processes whose command line names the marker."""
    found: list[Path] = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        with suppress(OSError):
            if str(marker).encode() in path.read_bytes():
                found.append(path)
    return found
