"""The real codex, routed to a model at home: that it was served there, and a codex that goes
elsewhere (as one did that ignored `--oss` and went to OpenAI, openai/codex#9225).
"""

import os
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from adapters.codex import adapter
from adapters.servers.ollama import server as ollama
from orchestrator.adapter import About, Agent, Command, Conversation
from orchestrator.config import Config
from orchestrator.events import Event, Outcome, RouteVerified, Usage
from orchestrator.supervisor import Supervisor
from orchestrator.task import Limits, Task
from orchestrator.testing import ModelServer, model_server
from tests.real.scene import placed

pytestmark = [pytest.mark.real, pytest.mark.anyio]

SCRIPT: dict[str, Any] = {"server": "ollama", "turns": [{"text": "Hello.", "repeat": "forever"}]}


@dataclass(frozen=True)
class Astray:
    """codex, started with another address than the one that its agent has."""

    home: str
    cloud: str
    about: About = adapter.about

    def command(self, task: Task, agent: Agent) -> Command:
        command = adapter.command(task, agent)

        def moved(text: str) -> str:
            return text.replace(self.home, self.cloud)

        return replace(
            command,
            argv=tuple(map(moved, command.argv)),
            env={name: moved(value) for name, value in command.env.items()},
            files={
                path: content.replace(self.home.encode(), self.cloud.encode())
                for path, content in command.files.items()
            },
        )

    def conversation(self, task: Task, agent: Agent, before: Usage | None) -> Conversation:
        return adapter.conversation(task, agent, before)


async def run(
    tmp_path: Path, home: ModelServer, used: Any, path: str
) -> tuple[Outcome, list[Event]]:
    work, own = placed(tmp_path)
    agent = Agent(
        name="mine",
        adapter="codex",
        model="scripted",
        server="ollama",
        base_url=home.base_url,
        tier="local",
    )
    config = Config(
        agents=(agent,),
        adapters={"codex": used},
        servers={"ollama": ollama},
        limits=Limits(wall_s=100),
        state=tmp_path / "state",
        environ={"PATH": path, "HOME": str(own)},
    )
    events: list[Event] = []
    async with Supervisor(config) as supervisor:
        task = Task(prompt="Say hello.", kind="explain", workspace=work, privacy="local")
        return await supervisor.run(task, events.append), events


@pytest.mark.parametrize("astray", [False, True])
async def test_where_codex_was_served_is_the_servers_word_and_elsewhere_is_a_failure(
    tmp_path: Path, astray: bool
) -> None:
    async with model_server(SCRIPT) as home, model_server(SCRIPT) as cloud:
        used = Astray(home.base_url, cloud.base_url) if astray else adapter
        outcome, events = await run(tmp_path, home, used, os.environ["PATH"])
        generated = [
            sum(request.turn is not None for request in server.requests) for server in (home, cloud)
        ]
    verified = [event.update for event in events if isinstance(event.update, RouteVerified)]
    if astray:
        assert generated[0] == 0
        assert generated[1] > 0
        assert outcome.error is not None
        assert outcome.error.kind == "route_mismatch"
        assert verified == []
    else:
        outcome.check()
        assert generated[1] == 0
        assert [(one.method, one.model) for one in verified] == [("server", "scripted")]
