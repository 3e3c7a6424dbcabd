"""Agents that ask (`permissions = "ask"`), and whoever embeds the supervisor answers."""

import json
import os
import sys
from pathlib import Path
from typing import Any

import anyio
import pytest

from adapters.acp.described import adapter
from orchestrator.adapter import Agent
from orchestrator.config import Config
from orchestrator.events import Event, Outcome, Permission
from orchestrator.supervisor import Answer, Ask, Asked, Supervisor
from orchestrator.task import Limits, Task
from tests import asking_agent

pytestmark = pytest.mark.anyio


async def run(place: Path, ask: Ask | None, *commands: str, **task: Any) -> tuple[Outcome, Any]:
    """How a run ended that asked for the commands, and what became of its questions."""
    argv = [sys.executable, "-I", "-S", str(asking_agent.__file__), *commands]
    options = {"command": argv, "permissions": "ask"}
    agent = Agent(name="asker", adapter="acp", tier="local", profile="clean", options=options)
    config = Config(
        agents=(agent,),
        adapters={"acp": adapter},
        servers={},
        state=place / "state",
        agents_folder=place / "agents",
        environ={"PATH": os.environ["PATH"], "HOME": str(place)},
    )
    work = place / "work"
    work.mkdir()
    told: list[Event] = []
    async with Supervisor(config, ask=ask) as supervisor:
        fields: dict[str, Any] = {"prompt": "x", "access": "full", **task}
        outcome = await supervisor.run(Task(workspace=work, **fields), told.append)
    said = [one.update for one in told if isinstance(one.update, Permission)]
    known = [(one.tool, one.status, one.reason) for one in said if one.status != "requested"]
    return outcome, known


async def test_who_embeds_it_answers_and_the_wait_is_no_stall(tmp_path: Path) -> None:
    seen: list[Asked] = []

    async def ask(asked: Asked) -> Answer:
        seen.append(asked)
        await anyio.sleep(1)  # a person thinks, longer than `stall`
        return "allow" if asked.question.permission.tool == "make" else "deny"

    limits = Limits(stall_s=0.5)
    outcome, known = await run(tmp_path, ask, "make", "rm", limits=limits)
    assert outcome.status == "denied", outcome
    assert known == [("make", "granted", None), ("rm", "denied", "denied when asked")]
    assert json.loads((tmp_path / "work/answers.txt").read_text()) == {"make": "once", "rm": "no"}
    assert [(one.agent, one.task_id, one.limit_s) for one in seen] == [("asker", "task", 300)] * 2
    assert seen[0].question.call.input == {"command": "make --with all of it"}
    assert seen[0].question.always


async def test_whoever_answers_and_fails_allows_nothing(tmp_path: Path) -> None:
    async def ask(asked: Asked) -> Answer:
        raise LookupError(asked.agent)

    outcome, known = await run(tmp_path, ask, "make")
    assert outcome.status == "denied"
    assert known == [("make", "denied", "who was asked failed: LookupError")]


async def test_nothing_is_asked_that_the_access_forbids(tmp_path: Path) -> None:
    async def ask(asked: Asked) -> Answer:
        raise AssertionError(asked)

    outcome, known = await run(tmp_path, ask, "make", access="read")
    assert outcome.status == "denied"
    assert known == [("make", "denied", "access is `read`")]
