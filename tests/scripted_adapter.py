"""An adapter for orchestrator.testing's scripted agent, and a configuration with it."""

import json
import signal
import sys
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from orchestrator.adapter import (
    About,
    Agent,
    Command,
    Conversation,
    OneShot,
    Send,
    json_line,
    unparsed,
)
from orchestrator.config import Config
from orchestrator.events import (
    Error,
    Message,
    Permission,
    SessionStarted,
    ToolCall,
    TurnFinished,
    Update,
    Usage,
)
from orchestrator.task import Limits, Task
from orchestrator.testing import agent as scripted_agent

Step = Mapping[str, object]

DONE: Step = {"print": json.dumps({"type": "end"})}


def say(text: str) -> Step:
    return {"print": json.dumps({"type": "message", "text": text})}


def said(**line: object) -> Step:
    return {"print": json.dumps(line)}


def parse(line: bytes) -> Iterator[Update]:
    match json_line(line):
        case {"type": "message", "text": str(text)}:
            yield Message(text=text)
        case {"type": "session", "id": str(id_), "model": str(model)}:
            yield SessionStarted(session_id=id_, model=model)
        case {"type": "session", "id": str(id_)}:
            yield SessionStarted(session_id=id_)
        case {"type": "tool", "id": str(id_), "status": "in_progress"}:
            yield ToolCall(id=id_, status="in_progress", kind="execute", title="a tool")
        case {"type": "tool", "id": str(id_), "status": "completed"}:
            yield ToolCall(id=id_, status="completed")
        case {"type": "tool", "id": str(id_), "status": "failed"}:
            yield ToolCall(id=id_, status="failed")
        case {"type": "usage", "cost": float(cost)}:
            yield Usage(input_tokens=1, output_tokens=1, cost_usd=cost, cost_source="agent")
        case {"type": "denied"}:
            yield Permission(id="p", status="denied", tool="write")
        case {"type": "error", "text": str(text)}:
            yield Error(kind="server_error", text=text)
        case {"env": {"AGENT_KEY": str(key)}}:
            yield Error(kind="auth_failed", text=f"bad key {key}")
        case {"type": "broken"}:
            raise RuntimeError("a mistake in the adapter")
        case {"type": "end"}:
            yield TurnFinished(stop_reason="end_turn")
        case _:
            yield unparsed(line)


@dataclass
class Scripted:
    """Runs the steps that the agent's options hold; `interrupt` as an adapter may want it."""

    interrupt: int | None = signal.SIGINT
    greeting: bytes | None = None
    about: About = field(
        default_factory=lambda: About(name="scripted", title="Scripted", program=None, resumes=True)
    )

    def command(self, task: Task, agent: Agent) -> Command:
        script = f"{agent.home}/script.json"
        return Command(
            argv=(sys.executable, "-I", "-S", scripted_agent.__file__, script),
            cwd=str(task.workspace),
            files={script: json.dumps(agent.options.get("steps", ())).encode()},
            env_from={"AGENT_KEY": agent.api_key_env} if agent.api_key_env else {},
            secrets=("AGENT_KEY",),
            stdin="open" if self.greeting else task.prompt.encode(),
            interrupt=self.interrupt,
        )

    def conversation(self, task: Task, agent: Agent, before: Usage | None) -> Conversation:
        if self.greeting is None:
            return OneShot(parse=parse)
        greeting = self.greeting

        class Greets(OneShot):
            def start(self) -> Iterable[Update | Send]:
                return (Send(data=greeting),)

        return Greets(parse=parse)


@dataclass
class PerTask(Scripted):
    """Does the steps of each task by its id; those of none by default."""

    steps: Mapping[str, list[Step]] = field(default_factory=dict)

    def command(self, task: Task, agent: Agent) -> Command:
        steps = self.steps.get(task.id, [say(f"did {task.id}"), DONE])
        script = f"{agent.home}/script.json"
        return Command(
            argv=(sys.executable, "-I", "-S", scripted_agent.__file__, script),
            cwd=str(task.workspace),
            files={script: json.dumps(steps).encode()},
            stdin=task.prompt.encode(),
        )


def scripted_config(
    state: Path,
    *steps: Step,
    adapter: Scripted | None = None,
    environ: Mapping[str, str] | None = None,
    limits: Limits | None = None,
    **agent: str,
) -> Config:
    """A configuration whose one agent, `scripted`, does the steps."""
    made = Agent(name="scripted", adapter="scripted", options={"steps": list(steps)}, **agent)  # type: ignore[arg-type]
    return Config(
        agents=(made,),
        adapters={"scripted": adapter or Scripted()},
        state=state,
        limits=limits or Limits(),
        environ=environ if environ is not None else {"PATH": "/usr/bin:/bin"},
    )
