"""An adapter of one's own for tiny.py: what it is, what to start, and what a line means."""

from collections.abc import Iterator
from dataclasses import dataclass

from orchestrator.adapter import About, Agent, Command, OneShot, Program, json_line, unparsed
from orchestrator.events import (
    Message,
    SessionStarted,
    ToolCall,
    TurnFinished,
    Update,
    Usage,
)
from orchestrator.task import Task


def parse(line: bytes) -> Iterator[Update]:
    """Each line says at least one thing: nothing is dropped."""
    match json_line(line):
        case {"event": "begin", "session": str(session)}:
            yield SessionStarted(session_id=session)
        case {"event": "tool", "id": str(id_), "name": str(name), "state": "done"}:
            yield ToolCall(id=id_, title=name, kind="edit", status="completed")
        case {"event": "answer", "text": str(text)}:
            yield Message(text=text)
        case {"event": "end", "why": "finished", "tokens": {"in": int(read), "out": int(wrote)}}:
            yield Usage(input_tokens=read, output_tokens=wrote)
            yield TurnFinished(stop_reason="end_turn")
        case _:
            yield unparsed(line)


@dataclass(frozen=True)
class Tiny:
    about: About = About(
        name="tiny",
        title="Tiny",
        program=Program(name="python3"),
        tested=(),
        install="It is a file of this example.",
        enforces=("full",),
    )

    def command(self, task: Task, agent: Agent) -> Command:
        """Values only: the program and its arguments, no shell; the prompt goes in on stdin."""
        return Command(
            argv=(agent.program or "python3", "tiny.py", "--json"),
            cwd=str(task.workspace),
            stdin=task.prompt.encode(),
        )

    def conversation(self, task: Task, agent: Agent, before: Usage | None) -> OneShot:
        return OneShot(parse=parse)


adapter = Tiny()
