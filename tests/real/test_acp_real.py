"""The real gemini, opencode and qwen, over ACP, under the real supervisor, on a scripted model."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from itertools import product
from pathlib import Path
from typing import Any

import anyio
import pytest

from adapters import gemini, opencode, qwen
from orchestrator.adapter import Adapter, Agent
from orchestrator.config import Config
from orchestrator.events import Event, ProcessSpawned, ToolCall
from orchestrator.journal import read_outcome
from orchestrator.supervisor import Answer, Asked, Supervisor
from orchestrator.task import Limits, Task
from orchestrator.testing import model_server
from tests.real.access import attempts
from tests.real.alone import names_looked_up
from tests.real.keys import no_planted_key_arrives, the_own_key_arrives
from tests.real.scene import Played, changed, fingerprint, placed, play

pytestmark = [pytest.mark.real, pytest.mark.anyio]

DONE: Mapping[str, Any] = {"text": "Done."}


@dataclass(frozen=True, kw_only=True)
class Kind:
    """How the scripted model uses one agent."""

    adapter: Adapter
    tool: str
    login: str
    fields: Mapping[str, Any]

    def shell(self, command: str) -> Mapping[str, Any]:
        arguments: dict[str, Any] = {"command": command, "description": "Run it"}
        if self.adapter is qwen.adapter:
            arguments["is_background"] = False
        return {"tool_calls": [{"name": self.tool, "arguments": arguments}]}


KINDS = {
    "gemini": Kind(
        adapter=gemini.adapter,
        tool="run_shell_command",
        login=".gemini/oauth_creds.json",
        # No server at home is known to speak Google's API.
        fields={"tier": "cloud", "profile": "clean"},
    ),
    "opencode": Kind(
        adapter=opencode.adapter,
        tool="bash",
        login=".local/share/opencode/auth.json",
        fields={},
    ),
    "qwen": Kind(
        adapter=qwen.adapter,
        tool="run_shell_command",
        login=".qwen/oauth_creds.json",
        fields={},
    ),
}
IN_LINES = {
    f"{name}-json": replace(KINDS[name], fields={"options": {"protocol": "json"}})
    for name in ("opencode", "qwen")
}
KINDS.update(IN_LINES)


def some(*usually: str, others: Iterable[str] = ()) -> pytest.MarkDecorator:
    """These agents, as each takes its time; with --thorough the others, too."""
    further = [pytest.param(KINDS[name], id=name, marks=pytest.mark.thorough) for name in others]
    usual = [pytest.param(KINDS[name], id=name) for name in usually]
    return pytest.mark.parametrize("kind", [*usual, *further])


agents = some("gemini", "opencode", "qwen", others=IN_LINES)


def of(kind: type[Any], played: Played) -> list[Any]:
    return [event.update for event in played.events if isinstance(event.update, kind)]


# That they do a task over ACP is seen where no name is looked up.
@some("qwen-json", others=("gemini", "opencode", "opencode-json", "qwen"))
async def test_a_task_is_done_and_its_command_seen(kind: Kind, tmp_path: Path) -> None:
    turns = [kind.shell("echo hello > made.txt; echo out"), {"text": "Made it."}]
    played = await play(
        kind.adapter, turns, tmp_path, task={"kind": "edit", "access": "edit"}, **kind.fields
    )
    assert played.outcome.status == "succeeded", played.outcome
    assert played.outcome.text == "Made it."
    assert (played.work / "made.txt").read_text() == "hello\n"
    assert played.outcome.usage is not None
    assert played.outcome.usage.output_tokens
    assert any(call.status == "completed" for call in of(ToolCall, played))
    assert played.unsaid == 0


@some("gemini", others=("opencode", "qwen", *IN_LINES))
async def test_under_read_no_file_changes_whatever_the_model_tries(
    kind: Kind, tmp_path: Path
) -> None:
    turns = [*attempts(kind.shell)[:3], DONE]
    work, _ = placed(tmp_path)
    before = fingerprint(work)
    played = await play(kind.adapter, turns, tmp_path, task={"access": "read"}, **kind.fields)
    assert played.requests, played.outcome
    # opencode keeps there which project it is.
    assert changed(work, before).keys() <= {".git", ".git/opencode"}
    assert played.outcome.changes is None or not played.outcome.changes.files


@some("gemini", others=("qwen", "opencode"))
async def test_a_person_is_asked_before_each_command(kind: Kind, tmp_path: Path) -> None:
    turns = [kind.shell("echo yes > yes.txt"), kind.shell("echo no > no.txt"), DONE]
    seen: list[str] = []

    async def ask(asked: Asked) -> Answer:
        seen.append(str(asked.question.call))
        return "allow" if "yes.txt" in seen[-1] else "deny"

    fields: dict[str, Any] = {**kind.fields, "options": {"permissions": "ask"}}
    task = {"access": "edit", "kind": "edit"}
    played = await play(kind.adapter, turns, tmp_path, ask=ask, task=task, **fields)
    assert played.outcome.status == "denied", played.outcome
    assert (played.work / "yes.txt").exists()
    assert not (played.work / "no.txt").exists()
    assert len(seen) == 2, seen


# Not gemini: asked for its version, it leaves a new file in the user's home each time.
@some("qwen", others=("opencode",))
async def test_a_planted_cloud_key_never_reaches_a_local_server(kind: Kind, tmp_path: Path) -> None:
    look = kind.shell("env; tr '\\0' '\\n' </proc/$PPID/environ")
    login = (kind.login, '{"access_token": "LOGIN"}')
    _, home = placed(tmp_path)
    if kind.adapter is opencode.adapter:  # asked for its version, it makes its folders there
        env = {"PATH": os.environ["PATH"], "HOME": str(home)}
        subprocess.run([program(kind), "--version"], env=env, check=True, capture_output=True)
    await no_planted_key_arrives(kind.adapter, [look, DONE], tmp_path, login=login, **kind.fields)


@some("gemini", others=("qwen", "opencode", *IN_LINES))
async def test_a_key_that_is_named_arrives_alone(kind: Kind, tmp_path: Path) -> None:
    fields: dict[str, Any] = {**kind.fields, "profile": "clean"}
    await the_own_key_arrives(kind.adapter, [kind.shell("env"), DONE], tmp_path, **fields)


@agents
async def test_a_model_server_that_is_down_is_unavailable_within_30_s(
    kind: Kind, tmp_path: Path
) -> None:
    fields: dict[str, Any] = {**kind.fields, "base_url": "http://127.0.0.1:9"}
    played = await play(kind.adapter, [DONE], tmp_path, **fields)
    assert played.outcome.status == "unavailable", played.outcome
    assert played.outcome.duration_s is not None
    assert played.outcome.duration_s < 30


@agents
async def test_a_task_is_done_and_no_name_is_looked_up(kind: Kind, tmp_path: Path) -> None:
    name = kind.adapter.about.name
    turns = [kind.shell("echo a > a.txt"), DONE]
    said = names_looked_up(f"adapters.{name}", turns, tmp_path, **kind.fields)
    assert said == {"names": [], "status": "succeeded"}
    assert (tmp_path / "work/a.txt").read_text() == "a\n"
    (run,) = (tmp_path / "state/runs").iterdir()
    outcome = read_outcome(run)
    assert outcome is not None
    assert (outcome.text, outcome.run_id) == ("Done.", run.name)
    assert outcome.usage is not None
    assert outcome.usage.output_tokens


# Not gemini: it names a session's file by the minute, and loses a session that goes on within it;
# its recording `resumed` has more time.
@some("qwen", others=("opencode", *IN_LINES))
async def test_a_session_goes_on(kind: Kind, tmp_path: Path) -> None:
    work, home = placed(tmp_path)
    turns = [{"text": "First."}, {"text": "Second."}]
    async with model_server({"model": "*", "turns": turns}) as server:
        config = configured(kind, server.base_url, tmp_path, home)
        async with Supervisor(config) as supervisor:
            first = await supervisor.run(Task(prompt="One.", workspace=work, isolation="none"))
            (folder,) = (config.state / "runs").iterdir()
            task, continued = supervisor.resumed(folder, "Two.")
            second = await supervisor.run(task, continued=continued)
        assert (first.text, second.text) == ("First.", "Second."), second
        assert second.session_id == first.session_id
        assert "First." in str(server.requests[-1].body)


def configured(kind: Kind, base_url: str, folder: Path, home: Path) -> Config:
    name = kind.adapter.about.name
    fields: dict[str, Any] = {"tier": "local", **kind.fields}
    agent = Agent(name="mine", adapter=name, model="scripted", base_url=base_url, **fields)
    return Config(
        agents=(agent,),
        adapters={name: kind.adapter},
        servers={},
        limits=Limits(wall_s=100),
        state=folder / "state",
        agents_folder=folder / "agents",
        environ={"PATH": os.environ["PATH"], "HOME": str(home)},
    )


# An interrupt, which is each adapter's own, of the quickest; with --thorough, all die every death.
DEATHS = ("cancel", "SIGTERM", "SIGKILL")
USUAL = (("gemini", "cancel"),)


@pytest.mark.parametrize(
    ("agent", "death"),
    [
        pytest.param(*pair, marks=() if pair in USUAL else pytest.mark.thorough)
        for pair in product(KINDS, DEATHS)
    ],
)
async def test_a_death_in_the_middle_of_a_command_leaves_nothing(
    agent: str, death: str, tmp_path: Path
) -> None:
    kind = KINDS[agent]
    work, home = placed(tmp_path)
    marker = work / "marker"
    command = f"touch {marker}; setsid tail -f {marker} & (setsid tail -f {marker} &); wait"
    turns = [kind.shell(command), DONE]
    pids: list[int] = []

    def told(event: Event) -> None:
        if isinstance(event.update, ProcessSpawned):
            pids.append(event.update.pid)

    async with model_server({"model": "*", "turns": turns}) as server:
        config = configured(kind, server.base_url, tmp_path, home)
        async with Supervisor(config) as supervisor, anyio.create_task_group() as group:

            async def kill() -> None:
                while len(running(marker)) < 3:
                    await anyio.sleep(0.05)
                if death == "cancel":
                    supervisor.interrupt()
                else:
                    os.kill(pids[0], signal.Signals[death])

            group.start_soon(kill)
            outcome = await supervisor.run(
                Task(prompt="x", workspace=work, isolation="none", kind="edit"), told
            )
            assert outcome.status in {"interrupted", "failed"}, outcome
            assert running(marker) == []
    assert of_this_run(config) == []


def running(marker: Path) -> list[Path]:
    """The processes whose command line names the marker."""
    found: list[Path] = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        with suppress(OSError):
            if str(marker).encode() in path.read_bytes():
                found.append(path)
    return found


def of_this_run(config: Config) -> list[Path]:
    """The processes whose environment names the run."""
    (run,) = (config.state / "runs").iterdir()
    token = f"ORCHESTRATE_RUN_ID={run.name}".encode()
    found: list[Path] = []
    for path in Path("/proc").glob("[0-9]*/environ"):
        with suppress(OSError):
            if token in path.read_bytes():
                found.append(path)
    return found


def program(kind: Kind) -> str:
    """The installed CLI."""
    name = kind.adapter.about.name
    folder = Path(sys.prefix) / "agents" / name
    programs = (folder / "bin" / name, folder / "node_modules/.bin" / name)
    return str(next(path for path in programs if path.exists()))
