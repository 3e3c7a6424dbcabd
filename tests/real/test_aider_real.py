"""The real aider behind our front, its model scripted: what recordings cannot show."""

import json
import os
import signal
import subprocess
import sys
import time
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import anyio
import pytest

from adapters.aider import adapter, front
from orchestrator.adapter import Agent
from orchestrator.config import Config
from orchestrator.discovery import locate
from orchestrator.events import Event, ProcessReaped, ToolCall
from orchestrator.supervisor import Supervisor
from orchestrator.task import Task
from orchestrator.testing import model_server
from tests.real.access import CHANGES
from tests.real.alone import names_looked_up
from tests.real.keys import LOOK, no_planted_key_arrives, the_own_key_arrives
from tests.real.scene import Played, changed, fingerprint, placed, play

pytestmark = [pytest.mark.real, pytest.mark.anyio]

MODEL = "openai/scripted"
FIX: dict[str, Any] = {"text": "I fix it.\n\nhello.py\n```\nprint('hello')\n```\n"}
SEE: dict[str, Any] = {"text": "I need hello.py first."}
"""What a model says that was given no file: naming it adds it to the chat."""

LOGIN = (".aider/oauth-keys.env", "OPENAI_API_KEY=LOGIN\n")


def options(*args: str) -> dict[str, Any]:
    return {"options": {"args": list(args)}}


def program() -> str:
    assert adapter.about.program is not None
    found = locate(adapter.about.program, Config(agents=(), adapters={}, servers={}))
    assert found, "scripts/setup aider"
    return found


@pytest.fixture(scope="module")
async def edited(tmp_path_factory: pytest.TempPathFactory) -> Played:
    """A task that is done by a model on a vLLM, which says what it counted."""
    counted = {**FIX, "usage": {"input_tokens": 900, "output_tokens": 40}}
    task = {"kind": "fix", "files": ("hello.py",), "check": "python3 hello.py | grep hello"}
    folder = tmp_path_factory.mktemp("edited")
    return await play(adapter, [counted], folder, task=task, model="hosted_vllm/scripted")


async def test_an_edit_succeeds_and_leaves_no_litter(edited: Played, tmp_path: Path) -> None:
    outcome = edited.outcome
    assert (outcome.status, outcome.verified) == ("succeeded", True)
    assert outcome.changes is not None
    assert outcome.changes.files == ["hello.py"]
    assert outcome.text == FIX["text"]
    assert outcome.usage is not None
    assert outcome.usage.cost_usd == 0.0
    assert sorted(path.name for path in edited.work.iterdir()) == [".git", "hello.py"]
    untouched, _ = placed(tmp_path)
    assert (edited.work / ".git/config").read_bytes() == (untouched / ".git/config").read_bytes()
    assert list(edited.home.iterdir()) == []


async def test_what_a_vllm_counts_is_what_the_run_used(edited: Played) -> None:
    usage = edited.outcome.usage
    assert usage is not None
    assert (usage.input_tokens, usage.output_tokens) == (900, 40)


@pytest.mark.parametrize(
    "args",
    [pytest.param((), marks=pytest.mark.thorough), ("--chat-mode", "whole")],
    ids=["ask", "whole"],
)
async def test_under_read_no_file_changes_though_the_model_tries(
    tmp_path: Path, args: tuple[str, ...]
) -> None:
    work, _ = placed(tmp_path)
    before = fingerprint(work)
    new = {"text": "new.py\n```\nprint('new')\n```\n"}
    task = {"access": "read", "files": ("hello.py",), "prompt": "/run touch made"}
    played = await play(adapter, [FIX, new], tmp_path, task=task, model=MODEL, **options(*args))
    assert played.requests
    assert not (left := changed(work, before)), left
    assert played.outcome.status == ("denied" if args else "succeeded")


async def test_under_read_a_test_command_cannot_write_either(tmp_path: Path) -> None:
    work, _ = placed(tmp_path)
    before = fingerprint(work)
    flags = ("--test", "--test-cmd", "; ".join(CHANGES))
    played = await play(
        adapter, [FIX], tmp_path, task={"access": "read"}, model=MODEL, **options(*flags)
    )
    (refused,) = (call for call in map(output_of, played.events) if call)
    assert "changing permissions of 'hello.py': Operation not permitted" in refused
    assert not (left := changed(work, before)), left


def output_of(event: Event) -> str | None:
    return event.update.output if isinstance(event.update, ToolCall) else None


@pytest.mark.thorough
async def test_under_edit_the_same_commands_change_files(tmp_path: Path) -> None:
    flags = options("--test", "--test-cmd", "; ".join(CHANGES))
    turns = [{"text": "I cannot repair that."}]
    played = await play(adapter, turns, tmp_path, task={"kind": "fix"}, model=MODEL, **flags)
    assert played.outcome.changes is not None
    assert "hello.py" in played.outcome.changes.files


async def test_a_planted_cloud_key_never_reaches_a_local_server(tmp_path: Path) -> None:
    looks = options("--auto-test", "--test-cmd", f"{LOOK}; true")
    turns = [SEE, FIX]
    await no_planted_key_arrives(adapter, turns, tmp_path, login=LOGIN, model=MODEL, **looks)


async def test_the_own_key_arrives_no_test_command_sees_it_and_no_repository_is_made(
    tmp_path: Path,
) -> None:
    work = tmp_path / "work"
    work.mkdir()
    (work / "hello.py").write_text("print('helo')\n")
    flags = options("--auto-test", "--test-cmd", f"{LOOK}; true", "--file", "hello.py")
    played = await the_own_key_arrives(adapter, [FIX], tmp_path, model=MODEL, **flags)
    assert played.outcome.status == "succeeded"
    assert (work / "hello.py").read_text() == "print('hello')\n"
    assert [path.name for path in work.iterdir()] == ["hello.py"]


async def test_an_interrupt_ends_aider_and_its_test_command(tmp_path: Path) -> None:
    work, _ = placed(tmp_path)
    marker = tmp_path / "marker"
    marker.touch()
    test = f"setsid tail -f {marker} & tail -f {marker}"
    events: list[Event] = []
    async with model_server({"turns": [FIX]}) as server:
        config = Config(
            agents=(
                Agent(
                    name="mine",
                    adapter="aider",
                    model=MODEL,
                    base_url=server.base_url,
                    tier="local",
                    **options("--auto-test", "--test-cmd", test),
                ),
            ),
            adapters={"aider": adapter},
            servers={},
            state=tmp_path / "state",
            environ={"PATH": os.environ["PATH"], "HOME": str(tmp_path)},
        )
        async with Supervisor(config) as supervisor, anyio.create_task_group() as group:

            async def stop() -> None:
                while not running(marker):
                    await anyio.sleep(0.05)
                supervisor.interrupt()

            group.start_soon(stop)
            task = Task(prompt="Fix it.", workspace=work, isolation="none", files=("hello.py",))
            outcome = await supervisor.run(task, events.append)
            assert outcome.status == "interrupted"
    assert running(marker) == []
    assert [one.update for one in events if isinstance(one.update, ProcessReaped)]


JSON_LINES = (sys.executable, "-m", "orchestrator.cli", "aider-json", "--", "--model", MODEL)


@pytest.mark.parametrize(
    "number", [signal.SIGTERM, pytest.param(signal.SIGINT, marks=pytest.mark.thorough)]
)
def test_a_signal_ends_aider_json_and_its_test_command(
    tmp_path: Path, number: signal.Signals
) -> None:
    work, _ = placed(tmp_path)
    marker = tmp_path / "marker"
    marker.touch()
    test = f"setsid tail -f {marker} & tail -f {marker}"
    argv = (*JSON_LINES, "--test", "--test-cmd", test, "--exit")
    env = {"PATH": os.environ["PATH"], "HOME": str(tmp_path), "OPENAI_API_KEY": "none"}
    with subprocess.Popen(argv, cwd=work, env=env, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        lines = map(json.loads, process.stdout)
        assert next(line for line in lines if line["type"] == "test")["status"] == "in_progress"
        while len(running(marker)) < 2:
            time.sleep(0.05)
        began = time.monotonic()
        process.send_signal(number)
        told, result = lines
        assert process.wait(timeout=20) == 128 + number
        took = time.monotonic() - began
    assert running(marker) == []
    assert took < 2
    assert (told["status"], result["status"]) == ("failed", "interrupted")


def test_aider_json_ends_with_its_test_command_when_nobody_reads_any_more(tmp_path: Path) -> None:
    work, _ = placed(tmp_path)
    marker = tmp_path / "marker"
    marker.touch()
    test = f"setsid tail -f {marker} & sed /$/q {tmp_path}/fifo"
    os.mkfifo(tmp_path / "fifo")
    argv = (*JSON_LINES, "--test", "--test-cmd", test, "--exit")
    env = {"PATH": os.environ["PATH"], "HOME": str(tmp_path), "OPENAI_API_KEY": "none"}
    with subprocess.Popen(argv, cwd=work, env=env, stdout=-1, stderr=-1) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        next(line for line in process.stdout if b'"in_progress"' in line)
        while not running(marker):
            time.sleep(0.05)
        process.stdout.close()
        (tmp_path / "fifo").write_text("on\n")  # the test ends, which is to be told
        said = process.stderr.read()
        assert process.wait(timeout=20) == 128 + signal.SIGHUP
    assert b"Traceback" not in said
    assert running(marker) == []


async def test_aider_json_streams_an_edit_with_aiders_own_flags_and_files(tmp_path: Path) -> None:
    work, home = placed(tmp_path)
    (work / ".aider.conf.yml").write_text("test-cmd: python3 hello.py\nauto-test: true\n")
    async with model_server({"turns": [FIX, {"text": "fix: say hello"}]}) as server:
        env = {
            "PATH": os.environ["PATH"],
            "HOME": str(home),
            "OPENAI_API_BASE": f"{server.base_url}/v1",
            "OPENAI_API_KEY": "none",
        }
        argv = (*JSON_LINES, "--message", "Fix it.", "hello.py")
        done = await anyio.run_process(argv, cwd=work, env=env, check=False)
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    assert (done.returncode, lines[-1]["exit_code"]) == (0, 0)
    said = {line["type"]: line for line in lines}
    assert "+print('hello')" in said["edit"]["diff"]
    assert (said["test"]["status"], said["test"]["output"]) == ("completed", "hello\n")
    assert said["commit"]["message"] == "fix: say hello"
    assert {"usage", "turn", "model_call", "message"} <= said.keys()
    assert sorted(path.name for path in work.iterdir()) == [".aider.conf.yml", ".git", "hello.py"]


async def test_a_session_goes_on(tmp_path: Path) -> None:
    work, home = placed(tmp_path)
    turns = [{"text": "First."}, {"text": "Second."}]
    async with model_server({"turns": turns}) as server:
        agent = Agent(
            name="mine", adapter="aider", model=MODEL, base_url=server.base_url, tier="local"
        )
        config = Config(
            agents=(agent,),
            adapters={"aider": adapter},
            servers={},
            state=tmp_path / "state",
            environ={"PATH": os.environ["PATH"], "HOME": str(home)},
        )
        async with Supervisor(config) as supervisor:
            first = await supervisor.run(
                Task(prompt="One.", workspace=work, isolation="none", access="read")
            )
            (folder,) = (tmp_path / "state/runs").iterdir()
            task, continued = supervisor.resumed(folder, "Two.")
            second = await supervisor.run(replace(task, access="read"), continued=continued)
        asked = str(server.requests[-1].body)
    assert (first.text, second.text) == ("First.", "Second.")
    assert second.session_id == first.session_id
    assert "One." in asked
    assert "First." in asked


SHIMS = {
    "an untested version is said": (
        "import aider; aider.__version__ = '9.9.9'",
        "aider 9.9.9 is untested (tested: 0.86.2)",
        0,
    ),
    "a missing function is named": (
        "import aider.coders.base_coder as b; del b.Coder.lint_edited",
        "aider 0.86.2 cannot be wrapped: it has no aider.coders.base_coder:Coder.lint_edited",
        3,
    ),
}


@pytest.mark.parametrize(("shim", "says", "status"), SHIMS.values(), ids=SHIMS)
def test_a_strange_aider_is_told(tmp_path: Path, shim: str, says: str, status: int) -> None:
    work, _ = placed(tmp_path)
    (tmp_path / "sitecustomize.py").write_text(shim)
    python, isolated, *rest = front(program(), ["--model", MODEL, "--exit"])
    assert isolated == "-I"  # else nobody could plant this
    env = {"PATH": os.environ["PATH"], "HOME": str(tmp_path), "PYTHONPATH": str(tmp_path)}
    done = subprocess.run([python, *rest], cwd=work, env=env, capture_output=True, text=True)
    assert done.returncode == status
    assert says in done.stdout


@pytest.mark.parametrize(
    ("flags", "status"),
    [
        pytest.param(["--show-repo-map"], 0, marks=pytest.mark.thorough),
        pytest.param(["--lint", "bad.py"], 0, marks=pytest.mark.thorough),
        (["--no-such-flag"], 2),
        pytest.param(["--version"], 0, marks=pytest.mark.thorough),
        (["--message-file", "not-there"], 1),
        pytest.param(["--gui"], 2, marks=pytest.mark.thorough),
    ],
    ids=["map", "lint", "unknown", "version", "no-message", "gui"],
)
def test_flags_without_a_prompt_work_and_end_as_they_should(
    tmp_path: Path, flags: list[str], status: int
) -> None:
    work, _ = placed(tmp_path)
    (work / "bad.py").write_text("ok = 1\n")
    (work / ".aider.conf.yml").write_text("map-tokens: 512\n")
    env = {"PATH": os.environ["PATH"], "HOME": str(tmp_path), "OPENAI_API_KEY": "none"}
    done = subprocess.run((*JSON_LINES, *flags), cwd=work, env=env, capture_output=True, text=True)
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    assert (done.returncode, lines[-1]["exit_code"]) == (status, status)
    assert sorted(path.name for path in work.iterdir()) == [
        *(".aider.conf.yml", ".git", "bad.py", "hello.py"),
    ]


async def test_nothing_is_looked_up_in_the_network(tmp_path: Path) -> None:
    fix = {**FIX, "text": f"See https://example.com/x.\n\n{FIX['text']}"}
    fields = {"model": MODEL, "options": {"auto_commits": True}}
    told = names_looked_up("adapters.aider", [fix, {"text": "fix: hello"}], tmp_path, **fields)
    assert told == {"names": [], "status": "succeeded"}


def running(marker: Path) -> list[Path]:
    """The processes other than shells whose command line names the marker."""
    found: list[Path] = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        with suppress(OSError):
            words = path.read_bytes().split(b"\0")
            if words[0].endswith(b"tail") and str(marker).encode() in words:
                found.append(path)
    return found
