"""A supervisor in a process of its own, whose real agent is in the middle of a tool: to be killed.

As a program: `python -m tests.real.host AGENT MARK FOLDER`; prints the agent's pid when its process
is there, and its outcome's status at the end.
"""

import importlib
import os
import sys
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

import anyio

from orchestrator.adapter import Agent
from orchestrator.config import Config
from orchestrator.discovery import locate
from orchestrator.events import Event, ProcessSpawned
from orchestrator.supervisor import Supervisor
from orchestrator.task import Limits, Task
from orchestrator.testing import model_server
from tests.real.scene import placed

TOOLS: Mapping[str, tuple[str, str]] = MappingProxyType(
    {
        "codex": ("exec_command", "cmd"),
        "claude": ("Bash", "command"),
        "litellm": ("bash", "command"),
    }
)
FIX = {"text": "I fix it.\n\nhello.py\n```\nprint('hello')\n```\n"}


def script(agent: str, command: str) -> tuple[list[Mapping[str, Any]], dict[str, Any]]:
    """What the model says so that the command runs, and the agent's fields that it takes."""
    if agent == "aider":  # it has no tools, but a test command
        args = ["--auto-test", "--test-cmd", command]
        return [FIX], {"model": "openai/scripted", "options": {"args": args}}
    tool, argument = TOOLS[agent]
    return [{"tool_calls": [{"name": tool, "arguments": {argument: command}}]}], {}


def told(event: Event) -> None:
    if isinstance(event.update, ProcessSpawned):
        print(event.update.pid, flush=True)


async def main(name: str, mark: str, folder: Path) -> None:
    adapter = importlib.import_module(f"adapters.{name}").adapter
    turns, fields = script(name, f"setsid sleep 300 {mark} & (setsid sleep 300 {mark} &) ; wait")
    work, home = placed(folder)
    async with model_server({"model": "*", "turns": turns}) as server:
        known: dict[str, Any] = {
            "model": "scripted",
            "base_url": server.base_url,
            "tier": "local",
            **fields,
        }
        config = Config(
            agents=(Agent(name="mine", adapter=name, **known),),
            adapters={name: adapter},
            servers={},
            limits=Limits(wall_s=100),
            state=folder / "state",
            agents_folder=folder / "agents",
            environ={"PATH": os.environ["PATH"], "HOME": str(home)},
        )
        if not locate(adapter.about.program, config):
            sys.exit(f"scripts/setup {name}")
        async with Supervisor(config) as supervisor:
            task = Task(prompt="Fix it.", workspace=work, files=("hello.py",))
            print((await supervisor.run(task, told)).status, flush=True)


if __name__ == "__main__":
    anyio.run(main, sys.argv[1], sys.argv[2], Path(sys.argv[3]))
