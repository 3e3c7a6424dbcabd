"""codex and the LiteLLM agent: which keys go where, and what `access` lets them change."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from adapters.codex import adapter as codex
from adapters.litellm import adapter as litellm
from orchestrator.adapter import Adapter
from tests.real.access import attempts, edit_changes_files, outside, read_changes_nothing
from tests.real.keys import LOOK, no_planted_key_arrives, the_own_key_arrives
from tests.real.scene import play

pytestmark = [pytest.mark.real, pytest.mark.anyio]

DONE: Mapping[str, Any] = {"text": "Done."}


@dataclass(frozen=True, kw_only=True)
class Kind:
    """How the scripted model uses one agent."""

    adapter: Adapter
    tool: str
    argument: str
    login: tuple[str, str]
    patch: tuple[Mapping[str, Any], ...] = ()
    model: str = "scripted"

    def shell(self, command: str) -> Mapping[str, Any]:
        return {"tool_calls": [{"name": self.tool, "arguments": {self.argument: command}}]}


_PATCH = (
    "*** Begin Patch\n*** Update File: hello.py\n@@\n-print('helo')\n+print('x')\n*** End Patch"
)
KINDS = {
    "codex": Kind(
        adapter=codex,
        tool="exec_command",
        argument="cmd",
        login=(".codex/auth.json", '{"OPENAI_API_KEY": "LOGIN"}'),
        patch=(
            {
                "tool_calls": [
                    {
                        "name": "exec_command",
                        "arguments": {"cmd": f"apply_patch <<'EOF'\n{_PATCH}\nEOF"},
                    }
                ]
            },
        ),
    ),
    "litellm": Kind(
        adapter=litellm,
        tool="bash",
        argument="command",
        login=(".config/mini-swe-agent/.env", "OPENAI_API_KEY=LOGIN\n"),
        model="openai/scripted",
    ),
}
agents = pytest.mark.parametrize("kind", KINDS.values(), ids=KINDS)


@agents
async def test_a_planted_cloud_key_never_reaches_a_local_server(kind: Kind, tmp_path: Path) -> None:
    turns = [kind.shell(LOOK), DONE]
    await no_planted_key_arrives(kind.adapter, turns, tmp_path, login=kind.login, model=kind.model)


@agents
async def test_a_key_that_is_named_arrives_alone_and_tools_do_not_see_it(
    kind: Kind, tmp_path: Path
) -> None:
    turns = [kind.shell("env"), DONE]
    await the_own_key_arrives(kind.adapter, turns, tmp_path, model=kind.model)


@agents
async def test_under_read_no_file_changes_whatever_the_model_tries(
    kind: Kind, tmp_path: Path
) -> None:
    turns = attempts(kind.shell, *kind.patch)
    played = await read_changes_nothing(kind.adapter, turns, tmp_path, model=kind.model)
    assert played.outcome.status == "denied"


@agents
async def test_under_edit_the_same_attempts_change_files(kind: Kind, tmp_path: Path) -> None:
    turns = attempts(kind.shell, *kind.patch)
    await edit_changes_files(kind.adapter, turns, tmp_path, model=kind.model)


@agents
@pytest.mark.parametrize(("access", "written"), [("edit", False), ("full", True)])
async def test_edit_ends_at_the_work_tree_and_full_does_not(
    kind: Kind, tmp_path: Path, access: str, written: bool
) -> None:
    with outside() as folder:
        turns = [kind.shell(f"echo x > {folder}/made.txt"), DONE]
        await play(kind.adapter, turns, tmp_path, task={"access": access}, model=kind.model)
        assert (folder / "made.txt").exists() == written
