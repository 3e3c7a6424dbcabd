"""Agents that are shell scripts: what they hand on, they hand on with the real command."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from orchestrator.adapter import About, Agent, Command
from orchestrator.config import Config
from orchestrator.task import Task
from tests.scripted_adapter import Scripted

END = """printf '{"type":"end"}\\n'"""


def used(usd: float) -> str:
    """A line of the script: the model's bill."""
    return f"""printf '{{"type":"usage","cost":{usd:.2f}}}\\n'"""


def says(text: str) -> str:
    return f"""printf '{{"type":"message","text":"{text}"}}\\n'"""


def hands_on(name: str, *words: str) -> str:
    """Lines of the script: hand on, and keep what came of it below $SEEN."""
    told = " ".join(words)
    return (
        f'orchestrate delegate {told} -o json > "$SEEN/{name}.json" 2> "$SEEN/{name}.err"\n'
        f'echo $? > "$SEEN/{name}.status"'
    )


@dataclass
class Shell(Scripted):
    """Runs the script that the agent's options hold."""

    seen: Path = Path()
    about: About = field(
        default_factory=lambda: About(name="shell", title="Shell", program=None, enforces=())
    )

    def command(self, task: Task, agent: Agent) -> Command:
        return Command(
            argv=("/bin/sh", "-c", str(agent.options["script"])),
            cwd=str(task.workspace),
            env={"SEEN": str(self.seen), "PROMPT": task.prompt},
            stdin=task.prompt.encode(),
        )


def shell_config(tmp_path: Path, scripts: Mapping[str, str], **more: Any) -> Config:
    """An agent of each name; those whose names begin with `cloud` are in the cloud."""
    seen = tmp_path / "seen"
    seen.mkdir(exist_ok=True)
    agents = tuple(
        Agent(
            name=name,
            adapter="shell",
            tier="cloud" if name.startswith("cloud") else "local",
            options={"script": f"{script}\n{END}"},
        )
        for name, script in scripts.items()
    )
    return Config(
        agents=agents,
        adapters={"shell": Shell(seen=seen)},
        state=tmp_path / "state",
        environ={"PATH": "/usr/bin:/bin"},
        **more,
    )


def answer(tmp_path: Path, name: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((tmp_path / "seen" / f"{name}.json").read_text())
    return found
