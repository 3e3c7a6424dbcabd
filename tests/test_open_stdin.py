"""A stdin that stays open: what the conversation says arrives, is ended, and stops it cleanly."""

import sys
from collections.abc import Iterator
from pathlib import Path

import anyio
import pytest

from orchestrator.adapter import About, Agent, Command, Exit, Send, json_line, unparsed
from orchestrator.config import Config
from orchestrator.events import Event, Permission, ProcessExited, TurnFinished, Update, Usage
from orchestrator.supervisor import Supervisor
from orchestrator.task import Task

pytestmark = pytest.mark.anyio

PROGRAM = r"""
import json, signal, sys, time
def say(**event):
    print(json.dumps(event), flush=True)
signal.signal(signal.SIGINT, lambda *_: sys.exit(42))
signal.signal(signal.SIGTERM, lambda *_: sys.exit(43))
for line in sys.stdin:
    say(heard=line.strip())
    if line == "stop\n" and sys.argv[1] == "obeys":
        time.sleep(0.3)  # time to put things in order
        say(end="cancelled")
say(end="end_turn")  # it was told that nothing more comes
"""


class Talks:
    """Says `hello`, ends stdin when told that it was heard, and asks to `stop` in words."""

    def __init__(self, *, ends: bool, leave_s: float | None = None) -> None:
        self.ends, self.leave_s = ends, leave_s

    def start(self) -> Iterator[Send]:
        yield Send(data=b"hello\n")

    def feed(self, line: bytes) -> Iterator[Update | Send]:
        match json_line(line):
            case {"end": "end_turn"}:
                yield TurnFinished(stop_reason="end_turn")
            case {"end": "cancelled"}:
                yield TurnFinished(stop_reason="cancelled")
                yield Send(end=True)
            case _:
                yield unparsed(line)
                if self.ends:
                    yield Send(data=b"bye\n", end=True, leave_s=self.leave_s)

    def interrupt(self) -> Iterator[Send]:
        yield Send(data=b"stop\n")

    def decide(self, permission: Permission) -> Iterator[Send]:
        raise NotImplementedError

    def close(self, exit: Exit) -> Iterator[Update]:
        yield from ()


class Adapter:
    def __init__(
        self, kind: str, *, ends: bool, program: str = PROGRAM, leave_s: float | None = None
    ) -> None:
        self.about = About(name="talking", title="Talking", program=None)
        self.kind, self.ends, self.program, self.leave_s = kind, ends, program, leave_s

    def command(self, task: Task, agent: Agent) -> Command:
        argv = (sys.executable, "-I", "-S", "-c", self.program, self.kind)
        return Command(argv=argv, cwd=str(task.workspace), stdin="open", interrupt=2)

    def conversation(self, task: Task, agent: Agent, before: Usage | None) -> Talks:
        return Talks(ends=self.ends, leave_s=self.leave_s)


def supervisor(tmp_path: Path, adapter: Adapter) -> Supervisor:
    agent = Agent(name="talking", adapter="talking")
    environ = {"PATH": "/usr/bin:/bin"}
    return Supervisor(
        Config(agents=(agent,), adapters={"talking": adapter}, state=tmp_path, environ=environ)
    )


async def interrupted(tmp_path: Path, adapter: Adapter) -> list[Event]:
    """The events of a run that is interrupted when it has heard something."""
    events: list[Event] = []
    async with supervisor(tmp_path, adapter) as running, anyio.create_task_group() as group:

        async def stop() -> None:
            while not any(event.update.type == "unparsed" for event in events):
                await anyio.sleep(0.02)
            running.interrupt()

        group.start_soon(stop)
        task = Task(prompt="x", workspace=tmp_path)
        outcome = await running.run(task, events.append)
        assert outcome.status == "interrupted"
    return events


def exits(events: list[Event]) -> list[int | None]:
    return [one.update.status for one in events if isinstance(one.update, ProcessExited)]


async def test_a_conversation_ends_stdin_and_what_it_said_before_arrives(tmp_path):
    adapter = Adapter("obeys", ends=True)
    events: list[Event] = []
    async with supervisor(tmp_path, adapter) as running:
        task = Task(prompt="x", workspace=tmp_path, check="true")
        outcome = await running.run(task, events.append)
    assert outcome.status == "succeeded"
    heard = [event.update.text for event in events if event.update.type == "unparsed"]
    assert heard == ['{"heard": "hello"}', '{"heard": "bye"}']


async def test_an_interrupt_in_words_has_time_to_work_before_any_signal(tmp_path):
    events = await interrupted(tmp_path, Adapter("obeys", ends=False))
    assert TurnFinished(stop_reason="cancelled") in [event.update for event in events]
    assert exits(events) == [0]


async def test_a_signal_follows_where_words_do_not_help(tmp_path, monkeypatch):
    monkeypatch.setattr("orchestrator.run.agent.GRACE_S", 0.5)
    assert exits(await interrupted(tmp_path, Adapter("ignores", ends=False))) == [42]


async def test_where_nobody_reads_any_more_the_signal_comes_at_once(tmp_path, monkeypatch):
    monkeypatch.setattr("orchestrator.run.agent.GRACE_S", 1000)  # who waits that long never ends
    lingering = PROGRAM + "time.sleep(60)\n"
    events = await interrupted(tmp_path, Adapter("obeys", ends=True, program=lingering))
    assert exits(events) == [42]


@pytest.mark.parametrize("ignores", ["", "signal.signal(signal.SIGTERM, signal.SIG_DFL)\n"])
async def test_who_stays_when_its_work_is_over_is_ended_and_has_succeeded(tmp_path, ignores):
    lingering = PROGRAM + ignores + "time.sleep(60)\n"
    adapter = Adapter("obeys", ends=True, program=lingering, leave_s=0.2)
    events: list[Event] = []
    async with supervisor(tmp_path, adapter) as running:
        task = Task(prompt="x", workspace=tmp_path, check="true")
        outcome = await running.run(task, events.append)
    assert outcome.status == "succeeded", outcome
    assert "exit: none by itself; ended when its work was over" in outcome.evidence
    assert len(exits(events)) == 1  # with which status or signal, says nothing


async def test_who_leaves_in_time_is_not_ended(tmp_path):
    adapter = Adapter("obeys", ends=True, leave_s=30)
    async with supervisor(tmp_path, adapter) as running:
        outcome = await running.run(Task(prompt="x", workspace=tmp_path, check="true"))
    assert outcome.status == "succeeded", outcome
    assert "exit: 0" in outcome.evidence
