"""The real mini-swe-agent behind its front, on a scripted model: what recordings cannot show."""

import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import anyio.to_thread
import pytest

from adapters.litellm import FRONT, adapter
from orchestrator.adapter import Agent
from orchestrator.config import load_config
from orchestrator.events import JobOutcome
from orchestrator.supervisor import Supervisor
from orchestrator.task import Access, Task, parse_task, parse_task_file
from orchestrator.testing import ModelServer, Request, model_server

pytestmark = pytest.mark.real

ROOT = Path(__file__).resolve().parent.parent.parent
MINI = Path(sys.prefix) / "agents/litellm/bin/mini"
SECRET = "sk-secret-0123456789"
SUBMIT = {"command": "echo COMPLETE_TASK_AND_SUBMIT_FINAL_OUTPUT"}


@pytest.fixture(scope="module", autouse=True)
def _installed() -> None:
    if not MINI.exists():
        pytest.skip("mini-swe-agent is not installed (scripts/setup litellm)")


@dataclass
class Said:
    """What the front said in one run."""

    status: int
    lines: list[dict[str, object]] = field(default_factory=list[dict[str, object]])
    stderr: str = ""

    def of(self, type_: str) -> list[dict[str, object]]:
        return [line for line in self.lines if line["type"] == type_]

    @property
    def outputs(self) -> str:
        return "".join(str(line.get("output", "")) for line in self.of("tool_call"))


def says(*commands: str, text: str = "All done.") -> dict[str, object]:
    """A model that runs commands, one after the other, and then says that it is done."""
    turns: list[object] = [
        {"tool_calls": [{"name": "bash", "arguments": {"command": command}}]}
        for command in commands
    ]
    return {"model": "*", "turns": [*turns, {"text": text}]}


def start(
    workspace: Path,
    server: ModelServer | None,
    *,
    task: Task | None = None,
    environ: Mapping[str, str] | None = None,
    access: Access = "edit",
    **fields: object,
) -> "subprocess.Popen[bytes]":
    """Starts the front as the supervisor would: with what the adapter's command says."""
    given: dict[str, object] = {
        "name": "me",
        "adapter": "litellm",
        "model": "openai/scripted",
        "base_url": server.base_url if server else None,
        "home": str(workspace.parent / "home"),
        "program": str(MINI),
        "tier": "local",
        **fields,
    }
    wanted = task or Task(prompt="Do it.", workspace=workspace, access=access)
    command = adapter.command(wanted, Agent(**given))  # type: ignore[arg-type]
    environ = environ or {}
    env = {
        "PATH": os.defpath,
        "HOME": str(workspace.parent),
        **{name: environ[source] for name, source in command.env_from.items() if source in environ},
    }
    process = subprocess.Popen(
        command.argv,
        cwd=command.cwd,
        env=env,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    assert process.stdin is not None
    assert isinstance(command.stdin, bytes)
    process.stdin.write(command.stdin)
    process.stdin.close()
    process.stdin = None
    return process


def ended(process: "subprocess.Popen[bytes]") -> Said:
    stdout, stderr = process.communicate(timeout=100)
    lines = [json.loads(line) for line in stdout.split(b"\n") if line]
    return Said(status=process.returncode, lines=lines, stderr=stderr.decode())


async def run(workspace: Path, server: ModelServer | None, **fields: object) -> Said:
    return await anyio.to_thread.run_sync(
        lambda: ended(start(workspace, server, **fields))  # type: ignore[arg-type]
    )


@dataclass(frozen=True, kw_only=True)
class Worked:
    """A run of several commands, and what each of them printed."""

    said: Said
    asked: list[Request]
    outputs: Mapping[str, str]
    workspace: Path
    outside: Path
    mark: str


@pytest.fixture
def workspace(tmp_path: Path) -> Path:
    return new_workspace(tmp_path)


def new_workspace(parent: Path) -> Path:
    folder = parent / "workspace"
    folder.mkdir()
    (folder / "hello.txt").write_text("hello world\n")
    return folder


def fingerprint(folder: Path) -> str:
    """Names, kinds and contents of everything below a folder."""
    found = hashlib.sha256()
    for path in sorted(folder.rglob("*")):
        found.update(f"{path.relative_to(folder)} {path.is_symlink()} {path.is_dir()}\n".encode())
        found.update(path.read_bytes() if path.is_file() else b"")
    return found.hexdigest()


def alive(mark: str) -> list[str]:
    """The command lines of living processes that hold `mark`."""
    found: list[str] = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            line = (folder / "cmdline").read_bytes()
        except OSError:
            continue  # it has ended
        if mark.encode() in line:
            found.append(line.decode())
    return found


# --- work


SPY = "env; tr '\\0' '\\n' < /proc/$PPID/environ; cat /proc/*/cmdline | tr '\\0' '\\n'"


@pytest.fixture(scope="module")
async def worked(tmp_path_factory: pytest.TempPathFactory) -> Worked:
    """One run, with a key and one more folder to write to, in a work tree that is full of traps.

    Its model asks for an edit, a flood, a process that stays, a look at the folder for temporary
    files, the key, and an edit elsewhere.
    """
    folder = new_workspace(tmp_path_factory.mktemp("worked"))
    trap(folder)
    outside = folder.parent / "outside"
    outside.mkdir()
    mark = f"61{os.getpid()}"  # in seconds: longer than the test has time
    commands = {
        "edit": "sed -i s/world/there/ hello.txt && cat hello.txt",
        "flood": "yes | head -c 200000000",
        "memory": "ps -o rss= -p $PPID",
        "background": f"sleep {mark} & echo started",
        "scratch": "echo x > $TMPDIR/x; echo in $TMPDIR",
        "spy": SPY,
        "key": f"echo {SECRET}",
        "outside": "echo x > ../outside/x; echo written",
    }
    async with model_server(says(*commands.values())) as server:
        said = await run(
            folder,
            server,
            environ={"MY_KEY": SECRET},
            api_key_env="MY_KEY",
            options={"writable": [str(outside)]},
        )
        assert (server.mismatches, server.exhausted, server.remaining()) == ([], 0, 0)
    done = [str(line["output"]) for line in said.of("tool_call") if line["status"] == "completed"]
    return Worked(
        said=said,
        asked=list(server.requests),
        outputs=dict(zip(commands, done, strict=True)),
        workspace=folder,
        outside=outside,
        mark=mark,
    )


def trap(folder: Path) -> None:
    """Puts what would change the agent into a work tree, were it imported or read as settings."""
    for name in ("litellm.py", "json.py", "minisweagent.py", "sitecustomize.py"):
        (folder / name).write_text("raise SystemExit('imported from the workspace')\n")
    (folder / ".env").write_text("OPENAI_API_BASE=http://127.0.0.1:9\nMSWEA_SILENT_STARTUP=\n")
    (folder / "mini.yaml").write_text("agent: {system_template: hijacked}\n")


async def test_an_edit_is_made_and_told_to_the_end(worked: Worked) -> None:
    said = worked.said
    assert said.status == 0
    assert said.stderr == ""
    assert (worked.workspace / "hello.txt").read_text() == "hello there\n"
    assert worked.outputs["edit"] == "hello there\n"
    assert said.lines[-1]["type"] == "result"
    assert said.lines[-1]["status"] == "finished"
    assert said.of("access") == [{"type": "access", "level": "edit", "enforced": True}]


async def test_a_flood_of_output_costs_no_memory_and_no_line_is_long(worked: Worked) -> None:
    assert max(len(json.dumps(line)) for line in worked.said.lines) < 200_000
    assert int(worked.outputs["memory"]) < 400_000


async def test_a_background_process_does_not_hold_up_a_command_and_does_not_stay(
    worked: Worked,
) -> None:
    assert "started" in worked.outputs["background"]
    assert alive(worked.mark) == []


async def test_nothing_of_its_scratch_folder_stays(worked: Worked) -> None:
    folder = Path(worked.outputs["scratch"].strip().removeprefix("in "))
    assert folder.name.startswith("orchestrate-")
    assert not folder.exists()


async def test_writing_elsewhere_is_allowed_where_the_user_says(worked: Worked) -> None:
    assert (worked.outside / "x").read_text() == "x\n"
    assert not [line for line in worked.said.of("denied") if "outside" in str(line["path"])]


async def test_no_command_sees_the_key(worked: Worked) -> None:
    said = worked.said
    assert all(request.has_key(SECRET) for request in worked.asked)
    assert SECRET not in json.dumps(said.lines)
    assert "[redacted]" in worked.outputs["key"]
    assert "PATH=" in worked.outputs["spy"]
    assert "LITELLM_AGENT_KEY" not in said.outputs
    for path in (worked.workspace.parent / "home").rglob("*"):
        assert not path.is_file() or SECRET not in path.read_text() or path.suffix == ".json"


async def test_what_lies_in_the_workspace_is_not_imported_or_read_as_settings(
    worked: Worked,
) -> None:
    assert worked.said.status == 0
    assert "imported from the workspace" not in worked.said.stderr
    assert "hijacked" not in json.dumps(worked.asked[0].body)


async def test_a_resumed_session_remembers_what_was_said_and_done(worked: Worked) -> None:
    session = str(worked.said.of("session")[0]["session_id"])
    task = Task(prompt="And what else?", workspace=worked.workspace, session_id=session)
    async with model_server(says(text="Nothing else.")) as server:
        second = await run(worked.workspace, server, task=task)
        asked = json.dumps(server.requests[0].body)
    assert second.status == 0
    assert second.of("session")[0]["session_id"] == session
    for text in ("Do it.", "hello there", "All done.", "And what else?"):
        assert text in asked
    folder = worked.workspace.parent / "home/sessions"
    assert folder.stat().st_mode & 0o777 == 0o700
    assert (folder / f"{session}.json").stat().st_mode & 0o777 == 0o600
    assert list(folder.iterdir()) == [folder / f"{session}.json"]


async def test_a_session_that_is_not_there_is_wrong_input(workspace: Path) -> None:
    for session in ("not-there", "../../etc/passwd"):
        task = Task(prompt="Go on.", workspace=workspace, session_id=session)
        said = await run(workspace, None, task=task, base_url="http://127.0.0.1:9")
        assert said.status == 2
        assert said.of("error")[0]["kind"] == "bad_usage"
        assert said.lines[-1]["type"] == "result"


async def test_a_server_that_is_down_is_found_before_litellm_is_imported(workspace: Path) -> None:
    said = await run(workspace, None, base_url="http://127.0.0.1:9")
    assert said.status == 1
    assert said.of("error")[0]["kind"] == "unavailable"
    assert said.of("ready") == []


async def test_a_server_that_goes_down_in_between_is_unavailable_and_no_500(
    workspace: Path,
) -> None:
    async with model_server(says("sleep 2")) as server:
        process = await anyio.to_thread.run_sync(lambda: start(workspace, server))
        while not server.requests:
            await anyio.sleep(0.02)
    said = await anyio.to_thread.run_sync(lambda: ended(process))
    assert said.of("error")[0]["kind"] == "unavailable"
    assert len(said.of("retry")) == 1  # at home one is enough


# --- the end


@pytest.mark.parametrize(
    ("number", "status"),
    [
        (signal.SIGTERM, 143),
        pytest.param(signal.SIGINT, 130, marks=pytest.mark.thorough),
        pytest.param(signal.SIGHUP, 129, marks=pytest.mark.thorough),
    ],
)
async def test_a_signal_ends_it_at_once_and_leaves_no_process(
    workspace: Path, number: signal.Signals, status: int
) -> None:
    mark = f"6{number}{os.getpid()}"
    trap = f"trap '' TERM INT HUP; setsid sleep {mark} & (sleep {mark} &) ; sleep {mark}"
    async with model_server(says(trap)) as server:
        process = await anyio.to_thread.run_sync(lambda: start(workspace, server))
        while len(alive(f"sleep\0{mark}")) < 3:
            await anyio.sleep(0.1)
        began = time.monotonic()
        process.send_signal(number)
        said = await anyio.to_thread.run_sync(lambda: ended(process))
    assert time.monotonic() - began < 15
    assert said.status == status
    assert said.lines[-2:] == [
        {"type": "tool_call", "id": "call-1", "status": "failed", "problem": "interrupted"},
        {
            "type": "result",
            "status": "interrupted",
            "exit_code": status,
            "session_id": said.of("session")[0]["session_id"],
            "tool_calls": 1,
            "signal": number,
        },
    ]
    assert alive(mark) == []


async def test_a_signal_while_the_model_is_silent_ends_it_at_once(workspace: Path) -> None:
    async with model_server({"turns": [{"fault": "hang"}]}) as server:
        process = await anyio.to_thread.run_sync(lambda: start(workspace, server))
        while not server.requests:
            await anyio.sleep(0.02)
        began = time.monotonic()
        process.send_signal(signal.SIGINT)
        said = await anyio.to_thread.run_sync(lambda: ended(process))
    assert time.monotonic() - began < 15
    assert (said.status, said.lines[-1]["status"]) == (130, "interrupted")


# --- what a command may do

CHANGES = (
    "echo x > new.txt; echo x >> hello.txt; : > hello.txt; truncate -s 0 hello.txt",
    "rm -f hello.txt; mv hello.txt other.txt; ln -s / link; ln hello.txt hard; mkdir folder",
    "cp hello.txt copy.txt; mkfifo pipe; sed -i s/hello/bye/ hello.txt; git init -q .",
    "python3 -c 'import os; os.truncate(\"hello.txt\", 0)' || perl -e 'truncate(\"hello.txt\", 0)'",
    "setsid sh -c 'echo x > late.txt'; (echo x > child.txt &) ; env -i sh -c 'echo x > clean.txt'",
)


# test_keys_and_access_real.py tells it each time, of other attempts.
@pytest.mark.thorough
async def test_read_access_changes_no_file_whatever_the_model_tries(workspace: Path) -> None:
    before = fingerprint(workspace)
    async with model_server(says(*CHANGES)) as server:
        said = await run(workspace, server, access="read")
        assert server.remaining() == 0
    assert said.status == 0
    assert fingerprint(workspace) == before
    assert said.of("access") == [{"type": "access", "level": "read", "enforced": True}]
    assert [line["access"] for line in said.of("denied")] == ["read"] * len(said.of("denied"))
    assert len(said.of("denied")) >= 3


@pytest.mark.thorough
async def test_the_same_changes_are_made_under_edit(workspace: Path) -> None:
    before = fingerprint(workspace)
    async with model_server(says(*CHANGES)) as server:
        await run(workspace, server)
    assert fingerprint(workspace) != before
    assert (workspace / "new.txt").exists()


# Of `edit`, test_keys_and_access_real.py tells it each time.
@pytest.mark.thorough
@pytest.mark.parametrize(("access", "written"), [("read", False), ("edit", False), ("full", True)])
async def test_writing_elsewhere_takes_more_than_edit(
    workspace: Path, access: Access, written: bool
) -> None:
    outside = workspace.parent / "outside"
    outside.mkdir()
    async with model_server(says("echo x > ../outside/x; echo y > $TMPDIR/y")) as server:
        said = await run(workspace, server, access=access)
    assert said.status == 0
    assert (outside / "x").exists() is written
    assert len(said.of("denied")) == (not written)


# --- providers


@pytest.mark.parametrize(
    ("model", "environ", "path"),
    [
        pytest.param(
            "azure/dep",
            {
                "AZURE_API_BASE": "SERVER",
                "AZURE_API_KEY": SECRET,
                "AZURE_API_VERSION": "2024-10-21",
            },
            "/openai/deployments/dep/chat/completions?api-version=2024-10-21",
            marks=pytest.mark.thorough,
        ),
        pytest.param(
            "openrouter/a/b",
            {"OPENROUTER_API_BASE": "SERVER/api/v1", "OPENROUTER_API_KEY": SECRET},
            "/api/v1/chat/completions",
            marks=pytest.mark.thorough,
        ),
        pytest.param(
            "groq/x",
            {"GROQ_API_BASE": "SERVER", "GROQ_API_KEY": SECRET},
            "/chat/completions",
            marks=pytest.mark.thorough,
        ),
        pytest.param(
            "openai/x",
            {"OPENAI_BASE_URL": "SERVER/v1", "OPENAI_API_KEY": SECRET},
            "/v1/chat/completions",
            marks=pytest.mark.thorough,
        ),
        (
            "anthropic/claude-x",
            {"ANTHROPIC_API_BASE": "SERVER", "ANTHROPIC_API_KEY": SECRET},
            "/v1/messages",
        ),
    ],
)
async def test_a_provider_is_reached_by_its_own_variables(
    workspace: Path, model: str, environ: dict[str, str], path: str
) -> None:
    async with model_server(says("echo x > made.txt")) as server:
        environ = {key: value.replace("SERVER", server.base_url) for key, value in environ.items()}
        said = await run(workspace, None, model=model, environ=environ, tier="cloud", base_url=None)
        assert [request.path for request in server.requests] == [path] * 2
        assert all(request.has_key(SECRET) for request in server.requests)
    assert said.status == 0
    assert (workspace / "made.txt").exists()
    assert [line.get("cost_usd") for line in said.of("usage")] == [None, None]


@pytest.mark.thorough
async def test_bedrock_is_asked_in_its_own_way(workspace: Path) -> None:
    async with model_server(says()) as server:
        environ = {
            "AWS_BEDROCK_RUNTIME_ENDPOINT": server.base_url,
            "AWS_ACCESS_KEY_ID": "AKIAFAKE",
            "AWS_SECRET_ACCESS_KEY": SECRET,
            "AWS_REGION_NAME": "us-east-1",
        }
        model = "bedrock/anthropic.claude-3-haiku-20240307-v1:0"
        said = await run(workspace, None, model=model, environ=environ, tier="cloud")
        [request] = server.requests
    assert request.path.startswith("/model/anthropic.claude-3-haiku")
    assert "x-amz-date" in request.headers
    assert said.of("error")[0]["kind"] == "model_not_found"  # 404: no Bedrock there


@pytest.mark.thorough
async def test_vertex_ai_fetches_a_token_with_the_service_accounts_key(
    workspace: Path, tmp_path: Path
) -> None:
    openssl = shutil.which("openssl") or pytest.skip("no openssl")
    key = subprocess.run([openssl, "genrsa", "2048"], capture_output=True, text=True).stdout
    async with model_server(says()) as server:
        account = {
            "type": "service_account",
            "project_id": "p",
            "private_key": key,
            "private_key_id": "1",
            "client_email": "a@p.example",
            "token_uri": f"{server.base_url}/token",
        }
        file = tmp_path / "account.json"
        file.write_text(json.dumps(account))
        environ = {
            "GOOGLE_APPLICATION_CREDENTIALS": str(file),
            "VERTEXAI_PROJECT": "p",
            "VERTEXAI_LOCATION": "us-central1",
        }
        model = "vertex_ai/gemini-2.5-flash"
        said = await run(workspace, None, model=model, environ=environ, tier="cloud")
        assert {request.path for request in server.requests} == {"/token"}
    assert said.of("error")[0]["kind"] == "auth_failed"


# One more where an untested version is said.
@pytest.mark.thorough
@pytest.mark.parametrize(
    ("model", "variable"),
    [
        ("anthropic/claude-x", "ANTHROPIC_API_KEY"),
        ("gemini/gemini-2.5-flash", "GEMINI_API_KEY"),
    ],
)
async def test_a_key_that_is_not_set_is_named_and_nobody_is_asked(
    workspace: Path, model: str, variable: str
) -> None:
    said = await run(workspace, None, model=model, tier="cloud")
    [error] = said.of("error")
    assert error["kind"] == "auth_failed"
    assert str(error["text"]).startswith("no key: ")
    assert variable in str(error["text"]) or "GOOGLE_API_KEY" in str(error["text"])


# --- another environment


def test_a_missing_package_is_named(tmp_path: Path) -> None:
    settings = {"prompt": "x", "model": "openai/x", "workspace": str(tmp_path), "access": "edit"}
    bare = Path(sys.executable)  # our own environment has no mini-swe-agent
    done = subprocess.run(
        [bare, "-I", FRONT],
        input=json.dumps({**settings, "home": str(tmp_path / "home")}),
        capture_output=True,
        text=True,
    )
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    assert done.returncode == 3
    assert lines[-2]["missing"] == "litellm"
    assert lines[-1]["status"] == "missing"


def test_an_untested_version_and_a_key_that_is_not_set_are_said(tmp_path: Path) -> None:
    programs = tmp_path / "adapters/programs"
    shutil.copytree(Path(FRONT).parents[1], programs)
    front = programs / Path(FRONT).relative_to(Path(FRONT).parents[1])
    program = front.with_name("program.py")
    program.write_text(program.read_text().replace('TESTED = ("2.4.6",)', 'TESTED = ("0.0.1",)'))
    settings = {"prompt": "x", "model": "openrouter/x", "workspace": str(tmp_path)}
    done = subprocess.run(
        [MINI.with_name("python"), "-I", front],
        input=json.dumps({**settings, "access": "edit", "home": str(tmp_path / "home")}),
        capture_output=True,
        text=True,
    )
    notice = '"text": "mini-swe-agent 2.4.6 is untested (tested: 0.0.1)"'
    assert notice in done.stdout
    (error,) = (line for line in map(json.loads, done.stdout.splitlines()) if "kind" in line)
    assert (error["type"], error["kind"]) == ("error", "auth_failed")
    assert error["text"] == "no key: OPENROUTER_API_KEY is not set"


def test_settings_that_are_none_are_refused(tmp_path: Path) -> None:
    for settings in (b"", b"{", b"[]", b'{"prompt": "x"}', b'{"unknown": 1}'):
        done = subprocess.run([sys.executable, "-I", FRONT], input=settings, capture_output=True)
        assert done.returncode == 2
        assert json.loads(done.stdout.splitlines()[-1])["status"] == "error"


# --- the whole way


# .ci/run runs it with the wheel, as its users would.
@pytest.mark.thorough
async def test_the_quickstart_succeeds_and_its_check_passes(tmp_path: Path) -> None:
    file = ROOT / "examples/quickstart/task.yaml"
    task = parse_task(file.read_bytes(), file="task.yaml", folder=file.parent)
    environ = {**os.environ, "ORCHESTRATE_STATE_DIR": str(tmp_path / "state")}
    async with Supervisor(load_config(environ=environ)) as supervisor:
        outcome = await supervisor.run(task)
    assert (outcome.status, outcome.verified) == ("succeeded", True)
    assert outcome.changes is not None
    assert outcome.changes.files == ["slug.py"]
    assert outcome.text is not None
    assert outcome.text.startswith("Fixed: ")


# That a task hands on what it left, supervisor/test_job.py shows.
@pytest.mark.thorough
async def test_the_example_of_several_tasks_hands_on_what_they_left(tmp_path: Path) -> None:
    file = ROOT / "examples/graph/task.yaml"
    tasks = parse_task_file(file.read_bytes(), file="task.yaml", folder=file.parent)
    environ = {**os.environ, "ORCHESTRATE_STATE_DIR": str(tmp_path / "state")}
    async with Supervisor(load_config(environ=environ)) as supervisor:
        outcome = await supervisor.run(tasks)
    assert isinstance(outcome, JobOutcome)
    assert (outcome.status, outcome.verified) == ("succeeded", True)
    assert outcome.tasks["locate"].answer == {"files": ["slug.py"]}
    # The models of `fix` and `review` go on only if their prompts hold what was handed on.
    assert list(outcome.tasks) == ["locate", "words", "fix", "review"]
