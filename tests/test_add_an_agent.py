"""docs/add-an-agent.md: each of its ways adds an agent that does its task, as its examples say."""

import importlib.util
import os
import shutil
import sys
import tomllib
from dataclasses import replace
from pathlib import Path

import pytest

from orchestrator.adapter import Adapter, Agent, about_of
from orchestrator.config import Config, load_config
from orchestrator.supervisor import Supervisor
from orchestrator.task import Task

pytestmark = pytest.mark.anyio

ROOT = Path(__file__).resolve().parent.parent
EXAMPLE = ROOT / "examples/add-an-agent"
PAGE = ROOT / "docs/add-an-agent.md"
WAYS = ("tiny-acp", "tiny-json", "tiny-adapter")


def own_adapter() -> Adapter:
    """The adapter of the example, as an entry point would load it."""
    spec = importlib.util.spec_from_file_location("tiny_adapter", EXAMPLE / "tiny_adapter.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    adapter: Adapter = module.adapter
    return adapter


def configured(tmp_path: Path) -> Config:
    environ = {"PATH": os.environ["PATH"], "HOME": str(tmp_path)}
    environ["ORCHESTRATE_STATE_DIR"] = str(tmp_path / "state")
    config = load_config(EXAMPLE / "orchestrate.toml", environ=environ)
    own = Agent(name="tiny-adapter", adapter="tiny", tier="local")
    adapters = {**{name: config.adapters[name] for name in ("acp", "jsonl")}, "tiny": own_adapter()}
    return replace(config, agents=(*config.agents, own), adapters=adapters)


@pytest.mark.parametrize("way", WAYS)
async def test_an_agent_that_was_added_does_its_task(way: str, tmp_path: Path) -> None:
    work = tmp_path / "work"
    work.mkdir()
    shutil.copy(EXAMPLE / "tiny.py", work)
    task = Task(
        prompt="Write this.",
        workspace=work,
        kind="edit",
        access="full",
        agent=way,
        isolation="none",
    )
    async with Supervisor(configured(tmp_path)) as supervisor:
        outcome = await supervisor.run(task)
    assert outcome.status == "succeeded", outcome
    assert outcome.text == "tiny.txt is written."
    assert outcome.session_id == "tiny-1"
    assert (work / "tiny.txt").read_text() == "Write this."


def test_the_page_shows_what_the_tests_run() -> None:
    page = PAGE.read_text()
    for name in ("orchestrate.toml", "tiny_adapter.py", "tiny.py"):
        assert f"examples/add-an-agent/{name}" in page
    profile = EXAMPLE.joinpath("orchestrate.toml").read_text().split("\n\n")[1]
    assert profile in page
    parser = EXAMPLE.joinpath("tiny_adapter.py").read_text()
    assert parser[parser.index("def parse(") : parser.index("@dataclass")].strip() in page


def test_the_adapter_of_the_example_is_as_short_as_the_page_says() -> None:
    assert len(EXAMPLE.joinpath("tiny_adapter.py").read_text().splitlines()) <= 65


def test_every_description_of_an_agent_is_one_that_is_taken(tmp_path: Path) -> None:
    adapter = configured(tmp_path).adapters["acp"]
    agents = tomllib.loads((ROOT / "examples/acp/agents.toml").read_text())["agents"]
    known = {"adapter", "profile", "model", "base_url", "tier"}
    for name, entry in agents.items():
        options = {key: value for key, value in entry.items() if key not in known}
        about = about_of(adapter, Agent(name=name, adapter="acp", options=options))
        assert about.program is not None
        assert about.title == entry["title"]
