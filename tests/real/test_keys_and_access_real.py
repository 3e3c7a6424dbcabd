"""codex and the LiteLLM agent: which keys go where, and what `access` lets them change."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from adapters.codex import adapter as codex
from adapters.litellm import adapter as litellm
from orchestrator.adapter import Adapter
from orchestrator.events import RunStarted
from tests.real.access import attempts, edit_changes_files, outside, read_changes_nothing
from tests.real.keys import LOGIN, LOOK, OWN, no_planted_key_arrives, the_own_key_arrives
from tests.real.scene import Played, play

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
# The same of the other one is in test_litellm_real.py, in a run that shows more.
codex_alone = pytest.mark.parametrize(
    "kind",
    [
        pytest.param(KINDS["codex"], id="codex"),
        pytest.param(KINDS["litellm"], id="litellm", marks=pytest.mark.thorough),
    ],
)


@agents
async def test_a_planted_cloud_key_never_reaches_a_local_server(kind: Kind, tmp_path: Path) -> None:
    turns = [kind.shell(LOOK), DONE]
    await no_planted_key_arrives(kind.adapter, turns, tmp_path, login=kind.login, model=kind.model)


@codex_alone
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


@codex_alone
async def test_under_edit_the_same_attempts_change_files(kind: Kind, tmp_path: Path) -> None:
    turns = attempts(kind.shell, *kind.patch)
    await edit_changes_files(kind.adapter, turns, tmp_path, model=kind.model)


@pytest.mark.parametrize(
    ("name", "access", "written"),
    [
        ("codex", "edit", False),
        ("codex", "full", True),
        ("litellm", "edit", False),
        pytest.param("litellm", "full", True, marks=pytest.mark.thorough),
    ],
)
async def test_edit_ends_at_the_work_tree_and_full_does_not(
    name: str, tmp_path: Path, access: str, written: bool
) -> None:
    kind = KINDS[name]
    with outside() as folder:
        turns = [kind.shell(f"echo x > {folder}/made.txt"), DONE]
        await play(kind.adapter, turns, tmp_path, task={"access": access}, model=kind.model)
        assert (folder / "made.txt").exists() == written


# --- logins

ACCOUNT = {
    ".codex/auth.json": f'{{"OPENAI_API_KEY": "{LOGIN}"}}',
    ".codex/config.toml": """
model_provider = "account"
[model_providers.account]
name = "account"
base_url = "SERVER/v1"
wire_api = "responses"
requires_openai_auth = true
""",
}


# From the user's own home codex fetches a list of plug-ins at each start: not in tests.
UNPLUGGED = {"config": {"features.plugins": False}}


def started(played: Played) -> RunStarted:
    (event,) = [one.update for one in played.events if isinstance(one.update, RunStarted)]
    return event


@pytest.mark.parametrize("login", [False, True])
async def test_codex_without_a_key_uses_the_users_own_login_and_home(
    tmp_path: Path, login: bool
) -> None:
    cloud: dict[str, Any] = {"base_url": None, "tier": "cloud", "profile": "user", "login": login}
    cloud["options"] = UNPLUGGED
    environ = {"OPENAI_API_KEY": OWN} if login else {}
    turns = [KINDS["codex"].shell("env"), {"text": "Done.", "usage": {"input_tokens": 7}}]
    played = await play(codex, turns, tmp_path, files=ACCOUNT, environ=environ, **cloud)
    assert played.outcome.status == "succeeded", played.outcome
    assert started(played).auth == "login"
    assert all(request.has_key(LOGIN) for request in played.requests if request.turn)
    assert played.outcome.usage is not None
    assert (played.outcome.usage.cost_usd, played.outcome.usage.cost_source) == (
        None,
        "subscription",
    )
    for path in ACCOUNT:
        assert (played.home / path).exists()
    assert list((played.home / ".codex/sessions").rglob("*.jsonl"))
    assert LOGIN.encode() not in played.recorded()


async def test_codex_with_the_usual_key_uses_it_rather_than_the_login(tmp_path: Path) -> None:
    cloud: dict[str, Any] = {"base_url": None, "tier": "cloud", "profile": "user"}
    cloud["options"] = UNPLUGGED
    environ = {"OPENAI_API_KEY": OWN}
    played = await play(codex, [DONE], tmp_path, files=ACCOUNT, environ=environ, **cloud)
    assert started(played).auth == "key"
    assert all(request.has_key(OWN) for request in played.requests if request.turn)


@pytest.mark.parametrize(
    "further", [{"options": UNPLUGGED}, {"server": "ollama", "options": {"oss": True, **UNPLUGGED}}]
)
async def test_a_login_does_not_reach_a_local_server_even_from_the_users_own_home(
    tmp_path: Path, further: dict[str, Any]
) -> None:
    files = {".codex/auth.json": ACCOUNT[".codex/auth.json"]}
    played = await play(codex, [DONE], tmp_path, files=files, profile="user", **further)
    assert played.requests
    assert started(played).auth == "none"
    for request in played.requests:
        assert not request.had_key
        assert LOGIN.encode() not in request.json_line()
