"""One provider's real agent hands work to another's: one tree, one ledger, each usage once."""

import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import anyio
import pytest

from adapters.aider import adapter as aider
from adapters.claude import adapter as claude
from adapters.codex import adapter as codex
from adapters.gemini import adapter as gemini
from adapters.litellm import adapter as litellm
from adapters.opencode import adapter as opencode
from adapters.qwen import adapter as qwen
from orchestrator.adapter import Agent
from orchestrator.budget import tokens
from orchestrator.config import Config, load_config
from orchestrator.discovery import locate
from orchestrator.events import (
    Event,
    JobFinished,
    JobOutcome,
    Outcome,
    RunFinished,
    RunStarted,
    Subagent,
    ToolCall,
)
from orchestrator.journal import read_outcome
from orchestrator.supervisor import Supervisor
from orchestrator.task import Limits, Task, parse_task_file
from orchestrator.testing import model_server
from tests.real.scene import placed
from tests.workspace.scene import git

pytestmark = [pytest.mark.real, pytest.mark.anyio]

Turns: TypeAlias = Sequence[Mapping[str, Any]]
ADAPTERS = {one.about.name: one for one in (aider, claude, codex, gemini, litellm, opencode, qwen)}
FIX = {"text": "I fix it.\n\nhello.py\n```\nprint('hello')\n```\n"}


@dataclass(frozen=True, kw_only=True)
class Family:
    """What came of a task whose agent hands on work."""

    outcome: Outcome
    events: list[Event]
    work: Path

    def runs(self) -> dict[str, Outcome]:
        """The outcome of each task's run."""
        finished = ((e.task_id, e.update) for e in self.events if isinstance(e.update, RunFinished))
        return {id_ or "": update.outcome for id_, update in finished}

    def parents(self) -> dict[str, str | None]:
        began = (e for e in self.events if isinstance(e.update, RunStarted))
        return {e.agent or "": e.parent_run_id for e in began}

    @property
    def heard(self) -> str:
        """What the first agent's tools answered."""
        calls = (e.update for e in self.events if isinstance(e.update, ToolCall) and e.task_id)
        return "".join(call.output or "" for call in calls)

    def adds_up(self) -> None:
        """The job's usage is the sum of its runs', each counted once."""
        (job,) = (e.update.outcome for e in self.events if isinstance(e.update, JobFinished))
        runs = self.runs().values()
        assert all(tokens(one.usage) > 0 for one in runs), runs
        assert tokens(job.usage) == sum(tokens(one.usage) for one in runs)
        assert job.usage is not None
        assert job.usage.cost_usd == 0.0  # all at home


async def family(
    tmp_path: Path,
    models: Mapping[str, Turns],
    task: Mapping[str, Any],
    options: Mapping[str, object] | None = None,
) -> Family:
    """An agent of each name, named as its adapter, whose model says those turns; the first one's
    does the task, with the `options`.
    """
    work, home = placed(tmp_path)
    events: list[Event] = []
    async with AsyncExitStack() as stack:
        agents: list[Agent] = []
        for name, turns in models.items():
            usage = {"input_tokens": 100 + len(agents), "output_tokens": 10}
            told = [{**turn, "usage": usage} for turn in turns]
            script = {"model": "*", "turns": told}
            server = await stack.enter_async_context(model_server(script))
            model = "openai/scripted" if name in {"aider", "litellm"} else "scripted"
            own = {} if agents else options or {}
            agents.append(
                Agent(
                    name=name,
                    adapter=name,
                    model=model,
                    base_url=server.base_url,
                    tier="local",
                    options=own,
                )
            )
            program = ADAPTERS[name].about.program
            assert program is not None
        config = Config(
            agents=tuple(agents),
            adapters=ADAPTERS,
            servers=load_config(environ={}, folder=home).servers,
            limits=Limits(wall_s=100),
            state=tmp_path / "state",
            agents_folder=tmp_path / "agents",
            environ={"PATH": os.environ["PATH"], "HOME": str(home)},
        )
        for name in models:
            program = ADAPTERS[name].about.program
            assert program is not None
            assert locate(program, config), f"scripts/setup {name}"
        asked = Task(workspace=work, agent=agents[0].name, delegation=True, **task)
        async with Supervisor(config) as supervisor:
            outcome = await supervisor.run(asked, events.append)
    return Family(outcome=outcome, events=events, work=work)


def call(name: str, **arguments: Any) -> dict[str, Any]:
    return {"tool_calls": [{"name": name, "arguments": arguments}]}


async def test_codex_hands_an_edit_to_a_local_aider_and_takes_its_work(tmp_path: Path) -> None:
    take = "git apply $(ls -td ../../runs/*/diff.patch | head -1)"
    found = await family(
        tmp_path,
        {
            "codex": [
                call(
                    "delegate", prompt="Fix the typo", kind="fix", agent="aider", files=["hello.py"]
                ),
                call("exec_command", cmd=take),
                {"text": "It is fixed."},
            ],
            "aider": [FIX],
        },
        {"prompt": "Have it fixed", "kind": "fix"},
    )
    assert found.outcome.ok, (found.outcome, found.heard)
    assert '"status":"succeeded"' in found.heard.replace('\\"', '"')
    assert found.parents() == {"codex": None, "aider": found.outcome.run_id}
    assert found.outcome.changes is not None
    assert git(found.work, "show", f"{found.outcome.changes.branch}:hello.py") == "print('hello')"
    assert (found.work / "hello.py").read_text() == "print('helo')\n"
    said = [e.update.status for e in found.events if isinstance(e.update, Subagent)]
    assert said == ["requested", "started", "completed"]
    found.adds_up()


async def test_claude_hands_two_tasks_on_at_once_to_the_litellm_agent_and_to_codex(
    tmp_path: Path,
) -> None:
    tasks = [
        {"prompt": "Where is the typo?", "kind": "search", "agent": "litellm"},
        {"prompt": "Is it tested?", "kind": "review", "agent": "codex"},
    ]
    found = await family(
        tmp_path,
        {
            "claude": [
                call("mcp__orchestrate__delegate_many", tasks=tasks),
                {"text": "Both have answered."},
            ],
            "litellm": [call("bash", command="grep -rn helo ."), {"text": "In hello.py."}],
            "codex": [call("exec_command", cmd="ls"), {"text": "It is not."}],
        },
        {"prompt": "Find out about the typo", "kind": "plan"},
    )
    assert found.outcome.ok, (found.outcome, found.heard)
    assert "In hello.py." in found.heard
    assert "It is not." in found.heard
    assert found.parents() == {
        "claude": None,
        "litellm": found.outcome.run_id,
        "codex": found.outcome.run_id,
    }
    assert {one.status for one in found.runs().values()} == {"succeeded"}
    found.adds_up()


async def test_the_litellm_agent_hands_on_to_claude_by_the_command(tmp_path: Path) -> None:
    """Where its own commands may only read, too: the socket is no file that they write to."""
    ask = "orchestrate delegate 'What is a deadlock?' --kind explain --agent claude"
    found = await family(
        tmp_path,
        {
            "litellm": [call("bash", command=ask), {"text": "Now I know."}],
            "claude": [{"text": "Two wait for each other."}],
        },
        {"prompt": "Ask somebody", "kind": "review"},
    )
    assert found.outcome.ok, (found.outcome, found.heard)
    assert "Two wait for each other." in found.heard
    assert "status: succeeded" in found.heard
    assert found.parents() == {"litellm": None, "claude": found.outcome.run_id}
    found.adds_up()


async def test_the_example_splits_the_work_by_its_kinds(tmp_path: Path) -> None:
    """As it stands, but for the models, which are scripted."""
    example = Path(__file__).parent.parent.parent / "examples/delegation"
    says: dict[str, Turns] = {
        "codex": [
            call("delegate", prompt="Where is the cause?", kind="search"),
            call("exec_command", cmd="sed -i 's/split(\" \")/split()/' slug.py"),
            call("delegate", prompt="Is it right?", kind="review"),
            {"text": "The review found nothing."},
        ],
        "litellm": [{"text": "In slug.py."}],
        "claude": [{"text": "It is right."}],
    }
    text = (example / "orchestrate.toml").read_text()
    events: list[Event] = []
    async with AsyncExitStack() as stack:
        for name, turns in says.items():
            script = {"model": "*", "turns": list(turns)}
            url = (await stack.enter_async_context(model_server(script))).base_url
            text = text.replace("http://127.0.0.1:11434", url) if name == "litellm" else text
            own = f'adapter = "{name}"\nmodel = "scripted"\nbase_url = "{url}"'
            if name != "litellm":
                text = text.replace(f'adapter = "{name}"', own)
        text = text.replace("ollama_chat/qwen2.5-coder:32b", "openai/scripted")
        (tmp_path / "orchestrate.toml").write_text(text)
        environ = {
            "PATH": os.environ["PATH"],
            "HOME": str(tmp_path),
            "ORCHESTRATE_STATE_DIR": str(tmp_path / "state"),
        }
        config = load_config(tmp_path / "orchestrate.toml", environ=environ)
        file = parse_task_file(
            (example / "task.yaml").read_bytes(), file="task.yaml", folder=example
        )
        async with Supervisor(config) as supervisor:
            outcome = await supervisor.run(file, events.append)
    assert outcome.ok, outcome
    assert isinstance(outcome, JobOutcome)
    assert outcome.tasks["task"].verified is True
    began = [e.agent for e in events if isinstance(e.update, RunStarted)]
    assert began == ["planner", "local-qwen", "claude"]


TRUSTING = {"trust_workspace": True}


@pytest.mark.parametrize(
    ("name", "tool", "options"),
    [
        ("gemini", "mcp_orchestrate_delegate", TRUSTING),
        pytest.param(*("opencode", "orchestrate_delegate", {}), marks=pytest.mark.thorough),
        pytest.param(*("qwen", "mcp__orchestrate__delegate", TRUSTING), marks=pytest.mark.thorough),
    ],
    ids=["gemini", "opencode", "qwen"],
)
async def test_an_agent_hands_a_search_on_over_acp(
    tmp_path: Path, name: str, tool: str, options: Mapping[str, object]
) -> None:
    found = await family(
        tmp_path,
        {
            name: [
                call(tool, prompt="Where?", kind="search", agent="codex"),
                {"text": "It is in hello.py."},
            ],
            "codex": [{"text": "Look into hello.py."}],
        },
        {"prompt": "Find out about the typo", "kind": "explain"},
        options,
    )
    assert found.outcome.ok, (found.outcome, found.heard)
    assert "Look into hello.py." in found.heard
    assert found.parents() == {name: None, "codex": found.outcome.run_id}
    assert all(one.status == "succeeded" for one in found.runs().values())


async def test_the_users_own_claude_lists_and_calls_the_tools_with_the_configuration_printed(
    tmp_path: Path,
) -> None:
    """Claude Code as a user starts it, outside of any run of ours."""
    work, home = placed(tmp_path)
    program = claude.about.program
    assert program is not None
    environ = {"PATH": os.environ["PATH"], "HOME": str(home)}
    path = locate(program, Config(environ=environ, agents_folder=tmp_path / "agents"))
    assert path, "scripts/setup claude"
    printed = [sys.executable, "-m", "orchestrator.cli", "mcp", "config"]
    settings = tmp_path / "mcp.json"
    settings.write_bytes(subprocess.run(printed, capture_output=True, check=True).stdout)
    asked = call(
        "mcp__orchestrate__delegate", prompt="Where is the typo?", kind="search", agent="helper"
    )
    async with (
        model_server({"model": "*", "turns": [asked, {"text": "It is found."}]}) as outer,
        model_server({"model": "*", "turns": [{"text": "In hello.py."}]}) as inner,
    ):
        (tmp_path / "orchestrate.toml").write_text(
            '[agents.helper]\nadapter = "codex"\nmodel = "scripted"\n'
            f'tier = "local"\nbase_url = "{inner.base_url}"\n'
        )
        environ |= {
            "ANTHROPIC_BASE_URL": outer.base_url,
            "ANTHROPIC_API_KEY": "sk-none",
            "ANTHROPIC_MODEL": "scripted",
            "CLAUDE_CONFIG_DIR": str(home / "claude"),
            "CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC": "1",
            "ENABLE_TOOL_SEARCH": "false",
            "ORCHESTRATE_CONFIG": str(tmp_path / "orchestrate.toml"),
            "ORCHESTRATE_STATE_DIR": str(tmp_path / "state"),
        }
        argv = [path, "-p", "Find the typo", "--strict-mcp-config", "--mcp-config", str(settings)]
        argv += ["--allowedTools", "mcp__orchestrate__delegate"]
        with anyio.fail_after(100):
            done = await anyio.run_process(argv, cwd=work, env=environ, check=False)
        bodies = [str(one.body) for one in outer.requests]
    assert done.stdout.decode().strip() == "It is found.", done
    offered = [body for body in bodies if "mcp__orchestrate__delegate_many" in body]
    assert offered, "it does not show the tools to its model"
    assert "In hello.py." in bodies[-1], bodies[-1][-2000:]
    (run,) = (tmp_path / "state/runs").iterdir()
    outcome = read_outcome(run)
    assert outcome is not None
    assert (outcome.status, outcome.agent) == ("succeeded", "helper")
