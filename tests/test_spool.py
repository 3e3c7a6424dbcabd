"""What an agent writes reaches the record, whatever it is: no exception, no byte is lost."""

import os
import random
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import anyio
import pytest

from orchestrator.adapter import Agent, Command, Conversation, Exit, json_line
from orchestrator.events import Error, Event, Message, Notice, ToolCall, Unparsed, Usage
from orchestrator.events.wire import decode
from orchestrator.journal import (
    EVENTS,
    STDERR,
    STDOUT,
    TAILS,
    Journal,
    make_folder,
    read_events,
    scrub,
)
from orchestrator.lines import HEAD, LINE_LIMIT
from orchestrator.run.intake import Intake
from orchestrator.run.recorder import Recorder
from orchestrator.run.spool import MANY, QUANTUM, Spool, Tails
from orchestrator.supervisor import Supervisor
from orchestrator.task import Task
from tests.recordings import ADAPTERS, RECORDINGS
from tests.scripted_adapter import Scripted, scripted_config

MIB = 1024 * 1024

# --- hostile lines --------------------------------------------------------------------------------

STRANGE = [
    b"",
    b" ",
    b"\r",
    b"\0",
    b"\0\0{}\0",
    b"\xef\xbb\xbf{}",
    b"\xef\xbb\xbf",
    b"\xff\xfe{}",
    b"\xc3\x28",
    b"\xed\xa0\x80",
    b"\x1b[31mred\x1b[0m",
    b"\x1b]0;title\x07",
    "\u2028\u2029\x85\u202e\u200b\U000e0041".encode(),
    b"2026-01-02T03:04:05Z WARN something: {not json}",
    b"data: {}",
    b"null",
    b"[]",
    b'"text"',
    b"-",
    b"{",
    b"}",
    b"{}}",
    b"{} {}",
    b'{"a":1,}',
    b'{"a":1,"a":2}',
    b"{'a':1}",
    b'{"type":NaN}',
    b'{"type":Infinity}',
    b'{"type":-Infinity}',
    b'{"a":01}',
    b'{"a":1e999}',
    b'{"a":-0}',
    b'{"a":18446744073709551616}',
    b'{"a":' + b"9" * 400 + b"}",
    b'{"a":"\\ud800"}',
    b'{"a":"\\udc00\\ud800"}',
    b'{"a":"\\u0000"}',
    b'{"\\ud800":1}',
    b'{"a":"\x01"}',
    b'{"a":"\\x"}',
    b'{"a":' + b"[" * 253 + b"]" * 253 + b"}",
    b'{"a":' * 300 + b"1" + b"}" * 300,
    b'{"a":' * 1100 + b"1" + b"}" * 1100,
    b"{" * 5000,
    b"[" * 100_000,
    b'{"a":"' + b"x" * 70_000 + b'"}',
]
HUGE = b"18446744073709551616"


def twisted(number: random.Random) -> Iterator[bytes]:
    """Real lines in which something is wrong: a value of another kind, a byte that is not there."""
    real = [
        line
        for recording in RECORDINGS
        for line in recording.stdout.split(b"\n")
        if 1 < len(line) < 9000
    ]
    values = [b"null", b"[]", b"{}", b"1.5", HUGE, b'"\\ud800"', b"NaN", b"true", b"[[[]]]"]
    for line in number.sample(real, 150):
        at = number.randrange(len(line))
        yield line[:at]
        yield line[:at] + number.randbytes(1) + line[at + 1 :]
        for mark in (b'":', b"["):
            if mark in line:
                places = [place for place in range(len(line)) if line.startswith(mark, place)]
                place = number.choice(places) + len(mark)
                yield line[:place] + number.choice(values) + line[place:]
                yield line[:place] + number.choice(values) + b"}"


def taken_in(folder: Path, adapter: str, stdout: bytes, stderr: bytes = b"") -> list[Event]:
    """The journal of an agent that wrote this."""
    (folder / STDOUT).write_bytes(stdout)
    (folder / STDERR).write_bytes(stderr)
    end = {"emit": "turn.finished", "when": {"a": "end"}, "stop_reason": "end_turn"}
    rules = {"argv": ["a"], "events": [{"emit": "message", "text": "a"}, end]}
    options = rules if adapter == "jsonl" else {}
    agent = Agent(name="a", adapter=adapter, options=options)
    head = {"run_id": "r", "task_id": "t", "parent_run_id": None, "agent": "a"}
    with ExitStack() as stack:
        journal = stack.enter_context(Journal(folder))
        recorder = Recorder(head=head, write=journal.append, publish=lambda _: None)
        intake = Intake(
            ADAPTERS[adapter].conversation(Task(prompt="p"), agent, None),
            recorder,
            stdout=stack.enter_context(Spool(folder / STDOUT, STDOUT)),
            stderr=stack.enter_context(Spool(folder / STDERR, STDERR)),
            tails=Tails((), {}, folder / TAILS, stack),
        )
        intake.start()
        intake.close(Exit(status=0))
    return list(read_events(folder))


def assert_accounted(events: list[Event], stream: str, size: int) -> None:
    """Every byte belongs to a line, and every line to an event."""
    places = sorted(
        {
            (event.raw.offset, event.raw.length)
            for event in events
            if event.raw and event.raw.stream == stream
        }
    )
    assert sum(length for _, length in places) == size
    for (offset, length), (following, _) in pairwise(places):
        assert offset + length == following


@pytest.mark.parametrize("adapter", ["aider", "claude", "codex", "jsonl", "litellm"])
def test_of_strange_lines_none_is_lost_and_none_is_an_error_of_ours(tmp_path, adapter):
    number = random.Random(adapter)
    lines = [*STRANGE, *twisted(number)]
    number.shuffle(lines)
    stream = b"\n".join(lines) + b"\nno end \xff{"
    folder = make_folder(tmp_path, "run")
    events = taken_in(folder, adapter, stream, stream)
    assert_accounted(events, STDOUT, len(stream))
    assert_accounted(events, STDERR, len(stream))
    reasons = [event.update.reason for event in events if isinstance(event.update, Unparsed)]
    assert not [reason for reason in reasons if "adapter failed" in reason]
    for line in (folder / EVENTS).read_bytes().split(b"\n")[:-1]:
        decode(line)


@pytest.mark.parametrize("number", [2**64, 2**70, -(2**65), 10**30])
def test_an_integer_that_would_not_stay_exact_stays_raw(number):
    assert json_line(b'{"a":[{"b":%d}]}' % number) is None
    assert json_line(b'{"a":"%d"}' % number) == {"a": str(number)}


def test_a_large_integer_that_stays_exact_is_read():
    assert json_line(b'{"a":%d}' % (2**64 - 1)) == {"a": 2**64 - 1}
    assert json_line(b'{"b":1e300}') == {"b": 1e300}


def test_an_oversize_line_is_an_event_with_its_head_and_length_and_the_stream_goes_on(tmp_path):
    long = b"x" * (LINE_LIMIT + 7)
    events = taken_in(make_folder(tmp_path, "run"), "codex", long + b"\nafter\n")
    first, second = [event for event in events if event.raw is not None]
    assert isinstance(first.update, Unparsed)
    assert first.update.text == "x" * HEAD
    assert str(len(long) + 1) in first.update.reason
    assert first.raw is not None
    assert first.raw.length == len(long) + 1
    assert getattr(second.update, "text", None) == "after"


# --- fairness -------------------------------------------------------------------------------------


def test_a_flood_of_empty_lines_gets_smaller_turns(tmp_path):
    (tmp_path / "flood").write_bytes(b"\n" * 4 * QUANTUM)
    with Spool(tmp_path / "flood", STDOUT) as spool:
        turns = []
        while chunk := spool.read():
            turns.append(len(spool.lines(chunk)))
    assert max(turns) <= QUANTUM // 16
    assert turns[-2] <= 2 * MANY
    assert sum(turns) == 4 * QUANTUM


@pytest.mark.parametrize("line", [b"x" * 2**20, b"x" * 400, b"x" * 10])
def test_no_turn_takes_more_than_64_kib_whatever_the_lines_are(tmp_path, line):
    (tmp_path / "flood").write_bytes((line + b"\n") * (2**21 // len(line)))
    with Spool(tmp_path / "flood", STDOUT) as spool:
        while chunk := spool.read():
            assert len(chunk) <= 64 * 1024
            spool.lines(chunk)


def test_a_spool_is_read_no_further_than_to_where_it_was_bound(tmp_path):
    path = tmp_path / STDOUT
    path.write_bytes(b"one\n")
    with Spool(path, STDOUT) as spool:
        spool.bound()
        with path.open("ab") as file:
            file.write(b"two\n")
        assert [line.data for line in spool.lines(spool.read())] == [b"one"]
        assert (spool.read(), spool.rest(), spool.leave().length) == (b"", [], 0)


FLOODER = """
import sys, time
block = b'{"type": "message", "text": "flood"}\\n' * 2000
for _ in range(3000):
    sys.stdout.buffer.write(block)
    time.sleep(0.005)  # 16 MB a second: more than can be read, and no full disk
"""
QUIET = """
import json, time
for number in range(10):
    print(json.dumps({"type": "message", "text": f"{time.monotonic()}"}), flush=True)
    time.sleep(0.02)
print(json.dumps({"type": "end"}))
"""


class Speaks(Scripted):
    """The prompt is the agent's program."""

    def command(self, task: Task, agent: Agent) -> Command:
        return Command(argv=(sys.executable, "-c", task.prompt), cwd=str(task.workspace))


@pytest.mark.anyio
@pytest.mark.timeout(60)
async def test_one_flooder_does_not_starve_the_others(tmp_path):
    async with Supervisor(scripted_config(tmp_path / "state", adapter=Speaks())) as supervisor:
        outcomes = []

        async def quiet() -> None:
            outcomes.append(await supervisor.run(Task(prompt=QUIET, workspace=tmp_path)))

        flooded: list[Event] = []
        async with anyio.create_task_group() as group:
            group.start_soon(
                supervisor.run, Task(prompt=FLOODER, workspace=tmp_path), flooded.append
            )
            while len(flooded) < 2000:
                await anyio.sleep(0.01)
            with anyio.fail_after(40):
                async with anyio.create_task_group() as others:
                    for _ in range(5):
                        others.start_soon(quiet)
            before = len(flooded)
            await anyio.sleep(0.1)
            assert len(flooded) > before  # it still floods: nobody was waited for
            group.cancel_scope.cancel()
    assert [outcome.status for outcome in outcomes] == ["succeeded"] * 5


# --- spools that are taken away -------------------------------------------------------------------


@pytest.mark.parametrize("other", ["link", "fifo", "device", "folder"])
def test_what_stands_in_the_place_of_a_spool_is_not_read(tmp_path, other):
    path = tmp_path / STDOUT
    (tmp_path / "target").write_bytes(b"sk-secret-0123456789")
    match other:
        case "link":
            path.symlink_to(tmp_path / "target")
        case "fifo":
            os.mkfifo(path)
        case "device":
            path.symlink_to("/dev/zero")
        case _:
            path.mkdir()
    with pytest.raises(OSError, match=r"not a regular file|symbolic link"):
        Spool(path, STDOUT)
    scrub(path, ["sk-secret-0123456789"])
    assert (tmp_path / "target").read_bytes() == b"sk-secret-0123456789"


@pytest.mark.anyio
async def test_that_an_agent_took_its_own_output_away_is_told_and_no_line_of_it_is_lost(tmp_path):
    program = (
        "import os, json\n"
        "def say(**line): print(json.dumps(line), flush=True)\n"
        "say(type='message', text='before')\n"
        "path = os.readlink('/proc/self/fd/1'); os.unlink(path); os.mkfifo(path)\n"
        "say(type='message', text='after'); say(type='end')\n"
    )
    events: list[Event] = []
    async with Supervisor(scripted_config(tmp_path / "state", adapter=Speaks())) as supervisor:
        task = Task(prompt=program, workspace=tmp_path, kind="search")
        outcome = await supervisor.run(task, events.append)
    assert outcome.status == "succeeded"
    said = [event.update.text for event in events if isinstance(event.update, Message)]
    assert said == ["before", "after"]
    told = [event.update.text for event in events if isinstance(event.update, Notice)]
    assert any("took its own stdout away" in text for text in told)


@pytest.mark.anyio
async def test_a_truncated_spool_is_an_error_event_and_is_read_from_its_beginning(tmp_path):
    program = (
        "import os, time, json\n"
        "print(json.dumps({'type': 'message', 'text': 'x' * 500}), flush=True)\n"
        "time.sleep(0.5)\n"
        "os.truncate('/proc/self/fd/1', 0) if os.geteuid() == 0 else os.ftruncate(1, 0)\n"
        "time.sleep(0.5)\n"
        "print(json.dumps({'type': 'message', 'text': 'anew'}), flush=True)\n"
        "print(json.dumps({'type': 'end'}), flush=True)\n"
    )
    events: list[Event] = []
    async with Supervisor(scripted_config(tmp_path / "state", adapter=Speaks())) as supervisor:
        await supervisor.run(Task(prompt=program, workspace=tmp_path), events.append)
    (cut,) = [event for event in events if isinstance(event.update, Error) and event.raw]
    assert cut.raw is not None
    assert (cut.raw.stream, cut.raw.offset, cut.raw.length) == (STDOUT, 0, 0)
    after = [event.raw.offset for event in events if event.raw and event.seq > cut.seq]
    assert after[0] == 0


# --- memory ---------------------------------------------------------------------------------------

SUPERVISE = """
import sys
from pathlib import Path

import anyio

from orchestrator.supervisor import Supervisor
from orchestrator.task import Limits, Task
from tests import test_spool
from tests.scripted_adapter import scripted_config
from tests.test_spool import high_water


async def main():
    place, program, adapter = Path(sys.argv[1]), sys.argv[2], getattr(test_spool, sys.argv[3])()
    config = scripted_config(place / "state", adapter=adapter)
    async with Supervisor(config) as supervisor:
        idle = "pass"
        await supervisor.run(Task(prompt=idle, workspace=place))
        before = high_water()
        outcome = await supervisor.run(Task(prompt=program, workspace=place), lambda _: None)
        print(outcome.status, len(outcome.text or ""), high_water() - before)


anyio.run(main)
"""
END = """
for line in ({'type': 'message', 'text': 'next'}, {'type': 'end'}):
    sys.stdout.write('\\n' + json.dumps(line))
"""


def high_water() -> int:
    """Peak resident size of this process, in KiB."""
    status = Path("/proc/self/status").read_text()
    return next(int(line.split()[1]) for line in status.splitlines() if "VmHWM" in line)


def supervised(place: Path, program: str, adapter: type[Speaks] = Speaks) -> tuple[str, int, int]:
    """Status, length of the text and KiB above idle of a supervisor of its own."""
    argv = [sys.executable, "-c", SUPERVISE, str(place), program, adapter.__name__]
    where = Path(__file__).parents[1]
    done = subprocess.run(argv, capture_output=True, text=True, cwd=where)
    assert done.returncode == 0, done.stderr
    status, length, above = done.stdout.split()
    return status, int(length), int(above)


@pytest.mark.timeout(60)
def test_a_line_of_200_mb_costs_no_memory_and_the_next_event_is_delivered(tmp_path):
    program = f"import sys, json\nfor _ in range(200): sys.stdout.write('x' * {MIB})\n{END}"
    status, length, above = supervised(tmp_path, program)
    assert (status, length) == ("succeeded", len("next"))
    assert above <= 64 * 1024


@pytest.mark.timeout(60)
def test_the_memory_of_a_supervisor_does_not_grow_with_the_stream(tmp_path):
    line = "json.dumps({'type': 'message', 'text': 'x' * 4000})"
    flood = f"line = {line} + '\\n'\nfor _ in range(16000): sys.stdout.write(line)"
    program = f"import sys, json\n{flood}\n{END}"
    status, length, above = supervised(tmp_path, program)
    assert (status, length) == ("succeeded", len("next"))
    assert above <= 16 * 1024
    (folder,) = [
        one for one in (tmp_path / "state/runs").iterdir() if (one / STDOUT).stat().st_size > MIB
    ]
    ratio = (folder / EVENTS).stat().st_size / (folder / STDOUT).stat().st_size
    assert 0.9 < ratio < 1.2  # and the journal grows with the stream, not faster


CALLS = """
import json, sys

def say(**line): sys.stdout.write(json.dumps(line) + "\\n")
def part(**event): say(type="stream_event", event=event)

say(type="system", subtype="init", session_id="s", model="m")
for number in range(10):
    id_ = f"m{number}"
    usage = {"input_tokens": 9, "output_tokens": 1}
    part(type="message_start", message={"id": id_, "usage": usage})
    for _ in range(1000):
        part(type="content_block_delta", index=0, delta={"type": "text_delta", "text": "x" * 200})
    part(type="message_delta", usage={"output_tokens": 1000})
    say(type="assistant", message={"id": id_, "content": [{"type": "text", "text": "next"}]})
say(type="result", subtype="success", is_error=False, result="next", usage={})
"""


class SpeaksAsClaude(Speaks):
    """The same, in claude's words."""

    def conversation(self, task: Task, agent: Agent, before: Usage | None) -> Conversation:
        return ADAPTERS["claude"].conversation(task, replace(agent, options={}), before)


@pytest.mark.timeout(60)
def test_nor_with_messages_that_come_piece_by_piece(tmp_path):
    status, length, above = supervised(tmp_path, CALLS, SpeaksAsClaude)
    assert (status, length) == ("succeeded", len("next"))
    assert above <= 16 * 1024


@pytest.mark.anyio
async def test_a_final_line_of_2_mb_from_node_that_exits_at_once_arrives_whole(tmp_path):
    node = shutil.which("node")
    if node is None:
        pytest.skip("node is not installed")
    script = (
        "process.stdout.write(JSON.stringify({type: 'end'}) + '\\n');"
        "process.stdout.write(JSON.stringify({type: 'message', text: 'x'.repeat(2e6)}));"
        "process.exit(0)"
    )
    program = f"import os; os.execv({node!r}, ['node', '-e', {script!r}])"
    async with Supervisor(scripted_config(tmp_path / "state", adapter=Speaks())) as supervisor:
        outcome = await supervisor.run(Task(prompt=program, workspace=tmp_path))
    assert outcome.text == "x" * 2_000_000


@pytest.mark.parametrize("raw", [None, (STDERR, 3, 4)])
def test_what_json_cannot_hold_is_on_record_in_other_words(raw):
    deep: list[object] = []
    for _ in range(9000):
        deep = [deep]
    cases = ({"answer": {1, 2}}, {"answer": "\udcff"}, {"answer": 2**70}, {"answer": deep})
    lines: list[bytes] = []
    recorder = Recorder(head={}, write=lines.append, publish=lambda _: None)
    for value in cases:
        recorder.add(ToolCall(id="one", input=value), "agent", raw)
        recorder.add(Message(text="whole"), "agent", None)
        recorder.flush()
    kept = [decode(line).update for block in lines for line in block.splitlines()]
    assert [one for one in kept if isinstance(one, Message)] == [Message(text="whole")] * 4
    told = [one for one in kept if isinstance(one, Unparsed)]
    assert {one.stream for one in told} == {STDOUT if raw is None else STDERR}
    assert all(one.reason.startswith("cannot be written as JSON: ") for one in told)
    for one, words in zip(told, ("{1, 2}", "\\udcff", str(2**70), "ToolCall"), strict=True):
        assert words in one.text
