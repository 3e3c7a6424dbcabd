"""Lines that are read together say what each says alone, whatever stands on them."""

import random
from contextlib import ExitStack
from dataclasses import asdict

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.adapter import Exit, ReadsObjects, Send, json_line, json_lines
from orchestrator.events import Event
from orchestrator.journal import STDERR, STDOUT, TAILS
from orchestrator.lines import LineSplitter
from orchestrator.run.intake import Intake
from orchestrator.run.recorder import Recorder, translate
from orchestrator.run.spool import Spool, Tails
from tests.damage import mutations
from tests.recordings import RECORDINGS, Recording
from tests.test_spool import STRANGE

MARK = b"9007199254740993"
# Pieces of JSON that would be something else if one swallowed the next, or fell into two.
PIECES = [
    b"{}",
    b' {"a": 1}\r',
    b'{"a":[1',
    b'{"a":[{}',
    b"2]}",
    b"{}]}",
    b"{},{}",
    b"{},%b,{}" % MARK,
    b'{"a":%b}' % MARK,
    b'{"a":%b.0}' % MARK,
    b'{"a":9007199254740992}',
    b"[",
    b"]",
    b",",
    b'{"a":"',
    b'"}',
    b"null",
    MARK,
    b"{}],[{}",
    b'{"a":18446744073709551616}',
    b'{"a":"18446744073709551616"}',
    *STRANGE,
]
HOT = [one for one in RECORDINGS if one.name.startswith(("claude", "codex"))]


@given(st.lists(st.sampled_from(PIECES), max_size=6))
def test_pieces_of_json_are_read_as_each_is_alone(lines: list[bytes]) -> None:
    assert repr(json_lines(lines)) == repr([json_line(line) for line in lines])


def test_a_line_cannot_take_the_place_of_what_stands_between_two() -> None:
    # One swallows its neighbour, and another is three: as many values as there should be.
    lines = [b'{"a":[{}', b"{}]}", b"{},%b,{}" % MARK]
    assert json_lines(lines) == [None, None, None]
    lines = [b'{"a":[{}', b"{}]}", b"{},\t9007199254740993 ,{}"]
    assert json_lines(lines) == [None, None, None]


@pytest.mark.parametrize("recording", RECORDINGS, ids=lambda one: one.name)
def test_lines_of_a_recording_are_read_as_each_is_alone(recording: Recording) -> None:
    lines = recording.stdout.split(b"\n")
    assert json_lines(lines[:-1]) == [json_line(line) for line in lines[:-1]]
    for at, stream in mutations(lines, random.Random(recording.name), 3):
        damaged = stream.split(b"\n")[max(0, at - 5) : at + 5]
        assert repr(json_lines(damaged)) == repr([json_line(line) for line in damaged])


@pytest.mark.parametrize("recording", HOT, ids=lambda one: one.name)
def test_a_spool_is_taken_in_as_its_lines_are_one_by_one(recording, tmp_path) -> None:
    rolled = random.Random(recording.name)
    lines = recording.stdout.split(b"\n")
    streams = [stream for _, stream in mutations(lines, rolled, 1)]
    noisy = [*lines[:2], rolled.choice(STRANGE), *lines[2:]]
    for number, stream in enumerate([recording.stdout, *streams, b"\n".join(noisy)]):
        folder = tmp_path / str(number)
        folder.mkdir()
        (folder / STDOUT).write_bytes(stream)
        (folder / STDERR).write_bytes(b"")
        assert taken_in(recording, folder) == one_by_one(recording, stream)


def taken_in(recording: Recording, folder) -> list[object]:
    events: list[Event] = []
    assert isinstance(conversed(recording), ReadsObjects)
    with ExitStack() as stack:
        intake = Intake(
            conversed(recording),
            recorded(events),
            stdout=stack.enter_context(Spool(folder / STDOUT, STDOUT)),
            stderr=stack.enter_context(Spool(folder / STDERR, STDERR)),
            tails=Tails((), {}, folder / TAILS, stack),
        )
        intake.start()
        intake.close(Exit(status=0))
    return told(events)


def one_by_one(recording: Recording, stream: bytes) -> list[object]:
    events: list[Event] = []
    recorder = recorded(events)
    conversation = conversed(recording)
    for said in conversation.start():
        if not isinstance(said, Send):
            recorder.add(said, "agent")
    splitter = LineSplitter()
    for line in (*splitter.feed(stream), *splitter.close()):
        for said in translate(conversation, line):
            if not isinstance(said, Send):
                recorder.add(said, "agent", (STDOUT, line.offset, line.length))
    for said in conversation.close(Exit(status=0)):
        recorder.add(said, "agent")
    recorder.flush()
    return told(events)


def conversed(recording: Recording):
    return recording.adapter.conversation(recording.task, recording.agent, None)


def recorded(events: list[Event]) -> Recorder:
    head = {"run_id": "r", "task_id": "t", "parent_run_id": None, "agent": "a"}
    return Recorder(head=head, write=None, publish=events.append)


def told(events: list[Event]) -> list[object]:
    return [(event.seq, asdict(event.update), event.raw) for event in events]
