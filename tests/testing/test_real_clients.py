"""Real agents against the scripted server: that they take its answers for a real server's."""

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import anyio.to_thread
import pytest

from orchestrator.testing import Script, model_server

AGENTS = Path(sys.prefix) / "agents"
KEY = "sk-fake-for-tests"
CODEX = "codex/node_modules/@openai/codex-*/vendor/*/bin/codex"
CODEX_FLAGS = (
    *("exec", "--json", "--ignore-user-config", "--skip-git-repo-check", "-m", "scripted"),
    *("-s", "danger-full-access", "--disable", "unbounded_connection_retries"),
    *("--disable", "plugins", "--disable", "multi_agent", "-c", "analytics.enabled=false"),
    *("-c", "check_for_update_on_startup=false", "-c", 'model_provider="loc"'),
)
PATCH = "*** Begin Patch\n*** Add File: patched.txt\n+by a patch\n*** End Patch"


def installed(pattern: str) -> Path:
    found = next(iter(AGENTS.glob(pattern)), None)
    return found or pytest.skip(f"{pattern.partition('/')[0]} is not installed (scripts/setup)")


def run(
    argv: tuple[str, ...], home: Path, **environment: str
) -> "subprocess.CompletedProcess[bytes]":
    env = {"PATH": "/usr/bin:/bin", "HOME": str(home), **environment}
    return subprocess.run(
        argv, cwd=home, env=env, input=b"say hello", capture_output=True, timeout=100
    )


@pytest.mark.real
async def test_codex_follows_a_script_of_a_command_a_patch_and_a_text(
    tmp_path: Path, script_of: Callable[..., Script]
) -> None:
    codex = installed(CODEX)
    script = script_of(
        {
            "thought": "I write the file.",
            "tool_calls": [
                {"name": "exec_command", "arguments": {"cmd": "echo hello | tee a.txt"}},
                {"name": "exec_command", "arguments": {"cmd": f"apply_patch <<'E'\n{PATCH}\nE"}},
            ],
            "usage": {"input_tokens": 100, "cache_read_tokens": 50, "output_tokens": 30},
        },
        {
            "expect": {"contains": "hello", "tool": "exec_command"},
            "text": "Done.",
            "usage": {"input_tokens": 10, "output_tokens": 3, "reasoning_tokens": 2},
        },
    )
    async with model_server(script) as server:
        provider = f'{{name="loc",base_url="{server.base_url}/v1",env_key="RUN_KEY"}}'
        argv = (str(codex), *CODEX_FLAGS, "-c", f"model_providers.loc={provider}", "-")
        done = await anyio.to_thread.run_sync(
            lambda: run(argv, tmp_path, CODEX_HOME=str(tmp_path), RUN_KEY=KEY)
        )
        assert (done.returncode, server.mismatches, server.exhausted) == (0, [], 0)
        assert all(request.has_key(KEY) for request in server.requests)
    events = [json.loads(line) for line in done.stdout.splitlines()]
    items = {e["item"]["type"]: e["item"] for e in events if e["type"] == "item.completed"}
    assert items["reasoning"]["text"] == "I write the file."
    assert items["command_execution"]["aggregated_output"] == "hello\n"
    assert items["agent_message"]["text"] == "Done."
    assert (tmp_path / "patched.txt").read_text() == "by a patch\n"
    assert events[-1]["usage"] == {
        "input_tokens": 160,
        "cached_input_tokens": 50,
        "cache_write_input_tokens": 0,
        "output_tokens": 33,
        "reasoning_output_tokens": 2,
    }


@pytest.mark.real
@pytest.mark.parametrize(
    ("model", "variable", "path"),
    [
        # As all of tests/real/test_litellm_real.py.
        pytest.param("openai/scripted", "OPENAI_API_BASE", "/v1", marks=pytest.mark.thorough),
        ("ollama_chat/scripted", "OLLAMA_API_BASE", ""),
    ],
)
async def test_a_litellm_agent_follows_a_script_of_two_commands(
    model: str, variable: str, path: str, tmp_path: Path, script_of: Callable[..., Script]
) -> None:
    mini = installed("litellm/bin/mini")
    submit = "echo COMPLETE_TASK_AND_SUBMIT_FINAL_OUTPUT; echo all good"
    script = script_of(
        {"tool_calls": [{"name": "bash", "arguments": {"command": "echo hello | tee a.txt"}}]},
        {
            "expect": {"contains": "hello", "tool": "bash"},
            "tool_calls": [{"name": "bash", "arguments": {"command": submit}}],
        },
    )
    async with model_server(script) as server:
        settings = {
            variable: server.base_url + path,
            "OPENAI_API_KEY": KEY,
            "LITELLM_LOCAL_MODEL_COST_MAP": "True",
            "MSWEA_CONFIGURED": "true",
            "MSWEA_COST_TRACKING": "ignore_errors",
        }
        argv = (str(mini), "-m", model, "-t", "say hello", "-y", "--exit-immediately")
        done = await anyio.to_thread.run_sync(
            lambda: run((*argv, "-l", "0", "-o", "run.json"), tmp_path, **settings)
        )
        assert (done.returncode, server.mismatches, server.exhausted) == (0, [], 0)
        assert server.remaining() == 0
    assert (tmp_path / "a.txt").read_text() == "hello\n"
    assert json.loads((tmp_path / "run.json").read_text())["info"]["submission"] == "all good\n"
