"""The real Claude Code under the real supervisor, its model scripted: what recordings cannot
show.
"""

import json
import os
import re
import shutil
import tempfile
import time
from collections.abc import AsyncGenerator, Callable, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager, suppress
from pathlib import Path
from types import MappingProxyType
from typing import Any, TypeAlias

import anyio
import pytest

from adapters.claude import adapter
from orchestrator.adapter import Agent
from orchestrator.config import Config
from orchestrator.discovery import locate
from orchestrator.events import Event, ProcessExited, ProcessReaped, ToolCall, TurnFinished
from orchestrator.supervisor import Supervisor
from orchestrator.task import Limits, Task
from orchestrator.testing import ModelServer, model_server
from tests.real.access import attempts, edit_changes_files, outside, read_changes_nothing
from tests.real.alone import names_looked_up
from tests.real.keys import LOGIN, LOOK, no_planted_key_arrives, plant_login, the_own_key_arrives
from tests.real.scene import placed, play

pytestmark = [pytest.mark.real, pytest.mark.anyio]

DONE: Mapping[str, Any] = {"text": "Done."}
CREDENTIALS = (
    ".claude/.credentials.json",
    """{"claudeAiOauth": {"accessToken": "LOGIN", "refreshToken": "LOGIN",
    "expiresAt": 4102444800000, "scopes": ["user:inference", "user:profile"]}}""",
)


def call(name: str, **arguments: object) -> dict[str, Any]:
    """A turn in which the model asks for a tool."""
    return {"tool_calls": [{"name": name, "arguments": arguments}]}


def shell(command: str) -> dict[str, Any]:
    return call("Bash", command=command)


EDITS = (
    call("Edit", file_path="hello.py", old_string="helo", new_string="hello"),
    call("Edit", file_path="new.py", old_string="", new_string="x"),
    call("Write", file_path="written.py", content="x"),
    call("NotebookEdit", notebook_path="book.ipynb", new_source="x", edit_mode="insert"),
)


async def test_an_edit_succeeds_and_its_check_too(tmp_path):
    turns = [
        {**call("Read", file_path="hello.py"), "usage": {"input_tokens": 100, "output_tokens": 9}},
        {**EDITS[0], "usage": {"input_tokens": 20, "cache_read_tokens": 90, "output_tokens": 7}},
        {"text": "Fixed.", "usage": {"input_tokens": 5, "output_tokens": 2}},
    ]
    task = {"kind": "fix", "check": "python3 hello.py | grep -x hello"}
    played = await play(adapter, turns, tmp_path, task=task)
    outcome = played.outcome
    assert (outcome.status, outcome.verified, outcome.text) == ("succeeded", True, "Fixed.")
    assert outcome.changes is not None
    assert outcome.changes.files == ["hello.py"]
    usage = outcome.usage
    assert usage is not None
    assert (usage.input_tokens, usage.cache_read_tokens, usage.output_tokens) == (125, 90, 18)
    assert usage.cost_usd == 0.0
    (edit,) = (c for c in of(ToolCall, played.events) if c.diff)
    assert edit.diff.endswith("@@ -1,1 +1,1 @@\n-print('helo')\n+print('hello')\n")


async def test_it_leaves_nothing_in_the_folder_for_temporary_files(tmp_path):
    def left() -> set[Path]:
        name = re.sub(r"[^A-Za-z0-9]", "-", str(tmp_path / "work"))
        return set(Path(tempfile.gettempdir()).glob(f"claude-*/{name}*"))

    played = await play(adapter, [shell("echo a"), DONE], tmp_path)
    assert played.outcome.status == "succeeded"
    assert left() == set()


# --- stopping and going on

Start: TypeAlias = Callable[..., AbstractAsyncContextManager[tuple[Supervisor, ModelServer]]]


@pytest.fixture
def start(tmp_path: Path) -> Start:
    """A supervisor with one agent, claude, and the scripted server that its model is on."""

    @asynccontextmanager
    async def started(
        turns: list[dict[str, Any]], **fields: object
    ) -> AsyncGenerator[tuple[Supervisor, ModelServer]]:
        async with model_server({"turns": turns}) as server:
            known: dict[str, Any] = {
                "model": "scripted",
                "base_url": server.base_url,
                "tier": "local",
            }
            known |= fields
            config = Config(
                agents=(Agent(name="mine", adapter="claude", **known),),
                adapters=MappingProxyType({"claude": adapter}),
                servers=MappingProxyType({}),
                limits=Limits(wall_s=100),
                state=tmp_path / "state",
                agents_folder=tmp_path / "agents",
                environ={"PATH": os.environ["PATH"], "HOME": str(tmp_path)},
            )
            program = adapter.about.program
            assert program is not None
            located = locate(program, config)
            assert located, "scripts/setup claude"
            assert "claude-code-linux" in located, "the platform's binary, not the stub"
            async with Supervisor(config) as supervisor:
                yield supervisor, server

    return started


@pytest.fixture
def work(tmp_path: Path) -> Path:
    return placed(tmp_path)[0]


def of(kind: type[Any], events: list[Event]) -> list[Any]:
    return [event.update for event in events if isinstance(event.update, kind)]


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


async def test_a_session_goes_on_in_its_work_tree_made_anew(start, work):
    turns = [
        shell("echo made-there > made.txt"),
        {"text": "First."},
        shell("cat made.txt; echo more >> made.txt"),
        {"text": "Second."},
    ]
    async with start(turns) as (supervisor, server):
        first = await supervisor.run(Task(prompt="One.", workspace=work))
        (folder,) = (work.parent / "state/runs").iterdir()
        task, continued = supervisor.resumed(folder, "Two.")
        events: list[Event] = []
        second = await supervisor.run(task, events.append, continued=continued)
    assert (first.text, second.text) == ("First.", "Second.")
    assert second.session_id == first.session_id
    assert "First." in str(server.requests[-1].body)
    assert any("made-there" in (call.output or "") for call in of(ToolCall, events))
    assert first.changes.files == second.changes.files == ["made.txt"]
    assert first.changes.branch != second.changes.branch
    assert not (work / "made.txt").exists()
    assert list((work.parent / "state" / "trees").iterdir()) == []


async def test_an_interrupt_keeps_the_usage_and_leaves_nothing_behind(start, work):
    marker = work / "marker"
    turns = [shell(f"touch {marker}; setsid tail -f {marker} & wait")]
    turns[0]["usage"] = {"input_tokens": 7, "output_tokens": 3}
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
        assert (outcome.usage.input_tokens, outcome.usage.output_tokens) == (7, 3)
        assert of(TurnFinished, events) == [TurnFinished(stop_reason="cancelled")]
        # By the control channel: a SIGINT would have made it 0.
        assert [(end.status, end.signal) for end in of(ProcessExited, events)] == [(1, None)]
        assert of(ProcessReaped, events)
        assert not running(marker)


async def test_an_interrupt_while_the_model_is_silent_takes_no_time(start, work, monkeypatch):
    monkeypatch.setattr("orchestrator.run.agent.GRACE_S", 1000)  # who waits that long never ends
    hang = [{"fault": "hang"}]
    async with start(hang) as (supervisor, server), anyio.create_task_group() as group:

        async def stop() -> None:
            while not server.played:
                await anyio.sleep(0.05)
            supervisor.interrupt()

        group.start_soon(stop)
        outcome = await supervisor.run(Task(prompt="x", workspace=work, isolation="none"))
        assert outcome.status == "interrupted"
        assert outcome.session_id


def running(marker: Path) -> list[Path]:
    """The processes whose command line names the marker."""
    found: list[Path] = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        with suppress(OSError):
            if str(marker).encode() in path.read_bytes():
                found.append(path)
    return found


async def test_a_refused_port_ends_as_unavailable_within_30_s(start, work):
    began = time.monotonic()
    # Cloud: so that claude itself finds it out, and not our look at the port before.
    async with start([], base_url="http://127.0.0.1:9", tier="cloud") as (supervisor, _):
        outcome = await supervisor.run(Task(prompt="x", workspace=work, isolation="none"))
    assert outcome.status == "unavailable"
    assert time.monotonic() - began < 30


async def test_a_background_command_is_waited_for_and_its_turn_counts(start, work):
    turns = [
        call("Bash", command="sleep 1; echo a > a.txt", run_in_background=True),
        {"text": "It runs."},
        {"text": "It is over."},
    ]
    options = {"background": True, "bare": False}
    async with start(turns, options=options) as (supervisor, _):
        outcome = await supervisor.run(
            Task(prompt="Make it.", workspace=work, isolation="none", kind="edit")
        )
    assert (outcome.status, outcome.text) == ("succeeded", "It is over.")
    assert outcome.changes.files == ["a.txt"]


# --- access, keys, network


async def test_under_read_no_file_changes_whatever_the_model_tries(tmp_path):
    played = await read_changes_nothing(adapter, attempts(shell, *EDITS), tmp_path)
    assert played.outcome.status == "denied"


async def test_under_read_the_users_own_rules_open_nothing(tmp_path):
    _, home = placed(tmp_path)
    settings = '{"permissions": {"allow": ["Bash", "Edit", "Write"], "defaultMode": "acceptEdits"}}'
    plant_login(home, ".claude/settings.json", settings)
    turns = attempts(shell, *EDITS)
    played = await read_changes_nothing(adapter, turns, tmp_path, profile="user")
    assert played.outcome.status == "denied"


async def test_under_edit_the_same_attempts_change_files(tmp_path):
    await edit_changes_files(adapter, attempts(shell, *EDITS), tmp_path)


@pytest.mark.parametrize(("access", "written"), [("edit", False), ("full", True)])
async def test_its_edits_end_at_the_work_tree_unless_access_is_full(tmp_path, access, written):
    with outside() as folder:
        turns = [call("Edit", file_path=f"{folder}/made.txt", old_string="", new_string="x"), DONE]
        played = await play(adapter, turns, tmp_path, task={"access": access})
        assert (folder / "made.txt").exists() == written
    assert played.outcome.status == ("succeeded" if written else "denied")


@pytest.mark.skipif(
    not (shutil.which("bwrap") and shutil.which("socat")),
    reason="claude's own sandbox needs bubblewrap and socat on PATH",
)
async def test_with_its_sandbox_no_command_writes_outside_of_the_work_tree(tmp_path):
    with outside() as folder:
        turns = [shell(f"echo x > made.txt; echo x > {folder}/made.txt; chmod 700 {folder}"), DONE]
        task = {"kind": "edit"}
        played = await play(adapter, turns, tmp_path, task=task, options={"sandbox": True})
        assert list(folder.iterdir()) == []
    assert played.outcome.status == "succeeded"
    assert played.outcome.changes is not None
    assert played.outcome.changes.files == ["made.txt"]
    assert "Read-only file system" in played.output


async def test_a_planted_cloud_key_never_reaches_a_local_server(tmp_path):
    turns = [shell(LOOK), DONE]
    await no_planted_key_arrives(adapter, turns, tmp_path, login=CREDENTIALS)


async def test_a_login_of_the_user_never_reaches_a_local_server(tmp_path):
    _, home = placed(tmp_path)
    plant_login(home, *CREDENTIALS)
    played = await play(adapter, [DONE], tmp_path, profile="user")
    assert played.outcome.status == "succeeded"
    assert not any(request.has_key(LOGIN) for request in played.requests)


@pytest.mark.parametrize(
    ("profile", "place"),
    [
        pytest.param("clean", "work", marks=pytest.mark.thorough),
        ("user", "work"),
        pytest.param("user", "home", marks=pytest.mark.thorough),
    ],
)
async def test_no_settings_file_sends_a_local_run_elsewhere(tmp_path, profile, place):
    work, _ = placed(tmp_path)
    hook = {"type": "command", "command": f"touch {work}/hooked"}
    settings = {
        "env": {"ANTHROPIC_BASE_URL": "http://127.0.0.1:9", "ANTHROPIC_API_KEY": LOGIN},
        "apiKeyHelper": f"touch {work}/hooked; echo {LOGIN}",
        "hooks": {"SessionStart": [{"hooks": [hook]}]} if place == "work" else {},
    }
    for file in ("settings.json", "settings.local.json"):
        plant_login(tmp_path / place, f".claude/{file}", json.dumps(settings))
    (work / "CLAUDE.md").write_text("Be kind to semicolons.")
    played = await play(adapter, [DONE], tmp_path, profile=profile)
    assert played.outcome.status == "succeeded"
    assert not any(request.has_key(LOGIN) for request in played.requests)
    assert not (work / "hooked").exists()
    assert ("semicolons" in str(played.requests[0].body)) == (profile == "user")


async def test_a_key_that_is_named_arrives_alone_and_tools_do_not_see_it(tmp_path):
    await the_own_key_arrives(adapter, [shell("env"), DONE], tmp_path)


@pytest.mark.parametrize("profile", ["clean", pytest.param("user", marks=pytest.mark.thorough)])
async def test_no_name_is_looked_up(tmp_path, profile):
    turns = [shell("echo a > a.txt"), DONE]
    said = names_looked_up("adapters.claude", turns, tmp_path, profile=profile)
    assert said == {"names": [], "status": "succeeded"}
