"""Agents that say nothing, as real processes: which are alive, which have stalled, and who says so.

The agents are lines of Python; the model is a socket that this file drips into.
"""

import asyncio
import json
import os
import sys
import time
from collections.abc import AsyncGenerator
from contextlib import ExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import anyio
import anyio.abc
import pytest

from orchestrator import pulse
from orchestrator.adapter import About, Agent, Command, OneShot
from orchestrator.budget import Ledger
from orchestrator.events import Event, Message, Notice, Outcome, ProcessReaped, Stall
from orchestrator.journal import STDERR, STDOUT, TAILS
from orchestrator.process import guarantees
from orchestrator.process.guarantees import Guarantee
from orchestrator.run.intake import Intake
from orchestrator.run.recorder import Recorder
from orchestrator.run.spool import Spool, Tails
from orchestrator.run.watch import Watch, Watched
from orchestrator.supervisor import Supervisor
from orchestrator.task import Limits, Task
from tests.scripted_adapter import Scripted, scripted_config

pytestmark = pytest.mark.anyio

QUIET_S = 2.0
LONG_S = 2 * QUIET_S

TELL = """
import json, os, socket, subprocess, sys, time
def tell(**line): print(json.dumps(line), flush=True)
def connect(port):
    return socket.create_connection(("127.0.0.1", port))
"""
SPEAKS = 'tell(type="message", text="hm")\n'
ENDS = 'tell(type="message", text="done")\ntell(type="end")\n'


def tool(code: str) -> str:
    """A tool call that is open while a child process runs the code."""
    run = f"subprocess.run([sys.executable, '-c', {TELL + code!r}])\n"
    began = 'tell(type="tool", id="a", status="in_progress")\n'
    return began + run + 'tell(type="tool", id="a", status="completed")\n'


@dataclass
class Snippet(Scripted):
    """Runs a few lines of Python as the agent."""

    code: str = ""

    def command(self, task: Task, agent: Agent) -> Command:
        argv = (sys.executable, "-I", "-S", "-c", TELL + self.code)
        return Command(argv=argv, cwd=str(task.workspace))


@dataclass
class Played:
    outcome: Outcome
    events: list[Event]

    def of(self, kind: type) -> list[object]:
        return [event.update for event in self.events if isinstance(event.update, kind)]


@asynccontextmanager
async def dripping(every_s: float | None) -> AsyncGenerator[int]:
    """A server that sends a byte every so often, or nothing at all. Its port."""

    async def drip(stream: anyio.abc.SocketStream) -> None:
        async with stream:
            while True:
                if every_s is None:
                    await anyio.sleep_forever()
                else:
                    await anyio.sleep(every_s)
                    try:
                        await stream.send(b"x")
                    except anyio.BrokenResourceError:
                        return  # it has had enough

    async with (
        await anyio.create_tcp_listener(local_host="127.0.0.1") as listener,
        anyio.create_task_group() as group,
    ):
        group.start_soon(listener.serve, drip)
        yield listener.extra(anyio.abc.SocketAttribute.local_port)  # noqa: S610 (no Django here)
        group.cancel_scope.cancel()


@pytest.fixture
def place(tmp_path: Path) -> Path:
    (tmp_path / "work").mkdir()
    return tmp_path


async def play(place: Path, code: str, limits: Limits, tier: str = "cloud") -> Played:
    config = scripted_config(place / "state", adapter=Snippet(code=code), limits=limits, tier=tier)
    events: list[Event] = []
    task = Task(prompt="p", workspace=place / "work", isolation="none", kind="explain")
    async with Supervisor(config) as supervisor:
        return Played(await supervisor.run(task, events.append), events)


def reads(port: int, seconds: float) -> str:
    """Reads, without a word, for a while; ends sooner if nothing comes."""
    return (
        f"s = connect({port})\nuntil = time.monotonic() + {seconds}\n"
        "while time.monotonic() < until: s.recv(1)\n"
    )


async def test_a_model_that_drips_is_slow_and_not_stalled(place: Path) -> None:
    async with dripping(0.3) as port:
        played = await play(place, SPEAKS + reads(port, LONG_S) + ENDS, Limits(stall_s=QUIET_S))
    assert played.outcome.status == "succeeded"
    assert played.of(Stall) == []


async def test_a_model_that_hangs_is_stalled_and_the_outcome_says_which_budget(
    place: Path,
) -> None:
    async with dripping(None) as port:
        played = await play(place, SPEAKS + reads(port, 60) + ENDS, Limits(stall_s=QUIET_S))
    outcome = played.outcome
    assert outcome.status == "stalled"
    assert outcome.error is not None
    assert outcome.error.limit == "stall"
    assert "the last one was output" in outcome.error.text
    assert outcome.error.hint == "Raise `limits.stall`, or split the task."
    (stall,) = played.of(Stall)
    assert isinstance(stall, Stall)
    assert (stall.budget, stall.last, stall.action) == ("stall", "output", "stop")
    assert stall.seconds > QUIET_S
    assert played.of(ProcessReaped)


async def test_a_model_that_drips_and_then_hangs_was_last_heard(place: Path) -> None:
    async with dripping(0.3) as drips, dripping(None) as hangs:
        code = SPEAKS + reads(drips, LONG_S) + reads(hangs, 60) + ENDS
        played = await play(place, code, Limits(stall_s=QUIET_S))
    (stall,) = played.of(Stall)
    assert isinstance(stall, Stall)
    assert stall.last == "bytes"
    assert played.outcome.status == "stalled"


async def test_a_tool_that_computes_without_a_word_is_at_work(place: Path) -> None:
    busy = f"until = time.monotonic() + {LONG_S}\nwhile time.monotonic() < until: pass\n"
    played = await play(place, SPEAKS + tool(busy) + ENDS, Limits(tool_s=QUIET_S))
    assert played.outcome.status == "succeeded"


async def test_an_agent_that_computes_without_a_tool_is_stalled(place: Path) -> None:
    played = await play(place, SPEAKS + "while True: pass\n", Limits(stall_s=QUIET_S))
    assert played.outcome.status == "stalled"


async def test_a_tool_that_downloads_without_a_word_is_at_work(place: Path) -> None:
    async with dripping(0.3) as port:
        code = SPEAKS + tool(reads(port, LONG_S)) + ENDS
        played = await play(place, code, Limits(tool_s=QUIET_S))
    assert played.outcome.status == "succeeded"


async def test_a_tool_that_only_waits_is_bounded_by_its_own_budget(place: Path) -> None:
    code = SPEAKS + tool("time.sleep(60)\n") + ENDS
    played = await play(place, code, Limits(stall_s=0.5, tool_s=QUIET_S))
    assert played.outcome.status == "stalled"
    assert played.outcome.error is not None
    assert played.outcome.error.limit == "tool"


async def test_before_its_first_word_a_model_has_a_budget_of_its_own(place: Path) -> None:
    limits = Limits(first_s=QUIET_S, stall_s=600)
    played = await play(place, "time.sleep(60)\n", limits)
    assert played.outcome.error is not None
    assert (played.outcome.status, played.outcome.error.limit) == ("stalled", "first")


async def test_a_local_model_may_load_for_longer_than_it_may_stall(place: Path) -> None:
    code = f"time.sleep({QUIET_S})\n" + ENDS
    played = await play(place, code, Limits(stall_s=QUIET_S / 4), tier="local")
    assert played.outcome.status == "succeeded"


def test_the_next_look_is_when_the_nearest_limit_is_passed_and_not_later(tmp_path: Path) -> None:
    watched = Watched(
        task_id="t",
        run_id="r",
        limits=Limits(wall_s=1000, stall_s=100),
        local=False,
        ledger=Ledger(),
    )
    recorder = Recorder(head={}, write=None, publish=lambda _: None)
    watch = Watch(watched, recorder, os.getpid())
    for name in (STDOUT, STDERR):
        (tmp_path / name).touch()
    with ExitStack() as stack:
        stdout, stderr = (
            stack.enter_context(Spool(tmp_path / one, one)) for one in (STDOUT, STDERR)
        )
        tails = Tails((), {}, tmp_path / TAILS, stack)
        said = OneShot(parse=lambda _: ())
        intake = Intake(said, recorder, stdout=stdout, stderr=stderr, tails=tails)
        assert watch.hold(intake) is None
    now = time.monotonic()
    assert now + 90 < watch.due <= now + 100


async def test_a_turn_has_its_time_however_lively_it_is(place: Path) -> None:
    code = 'while True:\n    tell(type="message", text="la")\n    time.sleep(0.05)\n'
    played = await play(place, code, Limits(turn_s=1))
    assert played.outcome.error is not None
    assert (played.outcome.status, played.outcome.error.limit) == ("timed_out", "turn")


async def test_tokens_are_bounded_and_the_event_says_after_what(place: Path) -> None:
    code = SPEAKS + 'for _ in range(9): tell(type="usage", cost=0.0)\ntime.sleep(60)\n'
    played = await play(place, code, Limits(tokens=10))
    (limit,) = [json.loads(line) for line in journal(place) if b'"type":"limit"' in line]
    assert (limit["limit"], limit["enforced"]) == ("tokens", "call")
    # Twice as much a line: however many of them are read at once, those that pass it are told.
    assert limit["value"] > 10
    assert played.outcome.status == "budget_exceeded"


async def test_where_bytes_are_not_seen_that_is_said_once_and_output_still_counts(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuses() -> dict[int, int]:
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(pulse._EARS, "received", refuses)
    async with dripping(0.3) as port:
        played = await play(place, SPEAKS + reads(port, 60), Limits(stall_s=QUIET_S))
    told = [notice.text for notice in played.of(Notice) if isinstance(notice, Notice)]
    why = "the kernel does not tell (Operation not permitted)"
    text = f"what the agent receives is not seen, only what it writes: {why}"
    assert told.count(text) == 1
    assert played.outcome.status == "stalled"


def test_what_cannot_be_seen_is_no_guarantee(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuses() -> dict[int, int]:
        raise PermissionError(1, "Operation not permitted")

    def progress() -> Guarantee:
        return next(one for one in guarantees() if one.name == "progress")

    assert progress().holds
    monkeypatch.setattr(pulse._EARS, "received", refuses)
    assert not progress().holds
    assert "the kernel does not tell" in progress().text


@pytest.mark.parametrize(
    ("limits", "tier", "tells", "status"),
    [
        (Limits(cost_usd=1), "cloud", False, "unroutable"),
        (Limits(cost_usd=1, steps=9), "cloud", False, "succeeded"),
        (Limits(cost_usd=1, tokens=9), "cloud", False, "succeeded"),
        (Limits(cost_usd=1), "cloud", True, "succeeded"),
        (Limits(cost_usd=1), "local", False, "succeeded"),
        (Limits(), "cloud", False, "succeeded"),  # 5 dollars by default
    ],
)
async def test_a_bound_of_costs_that_nobody_tells_is_refused_with_the_remedy(
    place: Path, limits: Limits, tier: str, tells: bool, status: str
) -> None:
    about = About(name="scripted", title="Scripted", program=None, tells_cost=tells)
    config = scripted_config(
        place / "state", adapter=Snippet(code=ENDS, about=about), limits=limits, tier=tier
    )
    async with Supervisor(config) as supervisor:
        outcome = await supervisor.run(Task(prompt="p", workspace=place / "work"))
    assert outcome.status == status
    if outcome.error is not None:
        assert outcome.error.text == (
            "scripted: limits.cost_usd ($1) cannot be kept: its cost is not known"
        )
        assert "limits.tokens" in (outcome.error.hint or "")
    else:
        assert status == "succeeded"


def journal(place: Path) -> list[bytes]:
    (folder,) = (place / "state" / "runs").iterdir()
    return (folder / "events.jsonl").read_bytes().splitlines()


async def test_a_silence_in_which_nobody_listened_is_no_stall(place: Path) -> None:
    """The supervisor was stopped (Ctrl-Z); meanwhile the model went on to answer, drop by drop."""
    serves = (
        "import socket, time; server = socket.create_server(('127.0.0.1', 0))\n"
        "print(server.getsockname()[1], flush=True); client, _ = server.accept()\n"
        "while True: client.send(b'x'); time.sleep(0.1)\n"
    )
    code = (
        f"server = subprocess.Popen([sys.executable, '-c', {serves!r}], stdout=subprocess.PIPE)\n"
        f"port = int(server.stdout.readline())\n{SPEAKS}s = connect(port)\n"
        f"until = time.monotonic() + {2 * QUIET_S}\nwhile time.monotonic() < until: s.recv(1)\n"
        f"server.kill()\n{ENDS}"
    )
    config = scripted_config(place / "state", adapter=Snippet(code=code), tier="cloud")
    loop = asyncio.get_running_loop()

    def stopped_a_while(event: Event) -> None:
        if isinstance(event.update, Message) and event.update.text == "hm":
            loop.call_later(0.05, time.sleep, QUIET_S + 0.7)  # before its processes were looked at

    limits = Limits(stall_s=QUIET_S, first_s=QUIET_S)
    task = Task(
        prompt="p", workspace=place / "work", isolation="none", kind="explain", limits=limits
    )
    async with Supervisor(config) as supervisor:
        outcome = await supervisor.run(task, stopped_a_while)
    assert outcome.status == "succeeded", outcome.error
