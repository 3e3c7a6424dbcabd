"""The bars that every recording of every adapter holds, whole, cut, chunked and mutated."""

import json
import random
import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict

import pytest

from orchestrator.adapter import Exit
from orchestrator.events import Event, RunFinished, Unparsed
from orchestrator.task import Task
from tests.recordings import ADAPTERS, RECORDINGS, Recording

CUTS, MUTATIONS, NOISES = 150, 600, 40
SMALL = 64 * 1024
# A megabyte of output is replayed whole and cut, but not a hundred times over.

each_recording = pytest.mark.parametrize(
    "recording", RECORDINGS, ids=lambda recording: recording.name
)


def check_sound(recording: Recording, stdout: bytes, events: list[Event]) -> None:
    """No exception, each byte of stdout accounted for, exactly one outcome."""
    broken = [
        event.update.reason
        for event in events
        if isinstance(event.update, Unparsed)
        and "the adapter" in event.update.reason
        and "no rule of the adapter" not in event.update.reason
    ]
    assert broken == []
    assert [event.seq for event in events] == list(range(1, len(events) + 1))
    finished = [event for event in events if isinstance(event.update, RunFinished)]
    assert finished == events[-1:]
    end = 0
    for offset, length in sorted({(e.raw.offset, e.raw.length) for e in events if e.raw}):
        assert offset == end
        end = offset + length
    assert end == len(stdout)


def expected(recording: Recording) -> set[object]:
    """How a replay may end: who sent a signal is known when it is sent, not from the recording."""
    status = recording.facts["expected"]
    return {status, "failed"} if status == "interrupted" else {status}


def said(events: list[Event]) -> list[object]:
    """Events without what differs between two replays."""
    found: list[object] = []
    for event in events:
        update = asdict(event.update)
        if isinstance(event.update, RunFinished):
            update["outcome"]["run_id"] = None
        found.append((event.seq, event.source, update, event.raw))
    return found


def dice(recording: Recording) -> random.Random:
    return random.Random(recording.name)


def test_each_adapter_has_at_least_a_dozen_recordings() -> None:
    counts = Counter(str(recording.facts["adapter"]) for recording in RECORDINGS)
    assert {name for name in ADAPTERS if counts[name] < 12} == set()


@each_recording
def test_a_recording_ends_as_it_did(recording: Recording) -> None:
    events, outcome = recording.play()
    check_sound(recording, recording.stdout, events)
    assert outcome.status in expected(recording)
    if outcome.error is not None:
        assert outcome.error.text


@each_recording
def test_chunks_of_any_size_give_the_same_events(recording: Recording) -> None:
    whole, _ = recording.play()
    stdout = recording.stdout
    for size in (1, 7, 4096) if len(stdout) < SMALL else (7, 4096):
        chunks = (stdout[at : at + size] for at in range(0, len(stdout), size))
        chunked, _ = recording.play(chunks)
        assert said(chunked) == said(whole)


@each_recording
def test_a_recording_that_is_cut_anywhere_is_no_success(recording: Recording) -> None:
    stdout = recording.stdout
    last_line = stdout.rstrip(b"\n").rfind(b"\n") + 1
    starts = [at + 1 for at, byte in enumerate(stdout) if byte == 10 and at + 1 <= last_line]
    cuts = {0, last_line, *starts[-40:]}
    rolled = dice(recording)
    cuts.update(rolled.randrange(len(stdout.rstrip())) for _ in range(CUTS) if stdout.strip())
    for cut in [*sorted(cuts)[:: 1 if len(stdout) < SMALL else 10], last_line]:
        for exit_ in (recording.exit, Exit(status=0), Exit(status=0, stderr=recording.stderr)):
            events, outcome = recording.play([stdout[:cut]], exit_=exit_)
            check_sound(recording, stdout[:cut], events)
            assert outcome.status != "succeeded", f"cut at {cut} of {len(stdout)}"


@each_recording
def test_a_failure_stays_one_whatever_its_exit_status(recording: Recording) -> None:
    if recording.facts["expected"] == "succeeded":
        recording_must_fail_with_another_exit(recording)
        return
    exits = [Exit(status=0, stderr=recording.stderr)]
    if recording.facts["expected"] != "denied":
        exits.append(Exit(status=0))  # codex tells only on stderr what its sandbox stopped
    for exit_ in exits:
        _, outcome = recording.play(exit_=exit_)
        assert outcome.status != "succeeded"


def recording_must_fail_with_another_exit(recording: Recording) -> None:
    for exit_ in (Exit(status=1), Exit(signal=9), Exit(signal=15)):
        _, outcome = recording.play(exit_=exit_)
        assert outcome.status != "succeeded"


@each_recording
def test_no_mutation_raises_or_makes_a_failure_a_success(recording: Recording) -> None:
    lines = recording.stdout.split(b"\n")
    rolled = dice(recording)
    times = MUTATIONS if len(recording.stdout) < SMALL else 5
    for at, mutated in mutations(lines, rolled, times):
        events, outcome = recording.play([mutated])
        check_sound(recording, mutated, events)
        if recording.facts["expected"] != "succeeded" and outcome.status == "succeeded":
            # Only if that line alone told of the failure, and now tells something else.
            _, without = recording.play([b"\n".join([*lines[:at], *lines[at + 1 :]])])
            assert without.status == "succeeded", mutated.split(b"\n")[at]


@each_recording
def test_noise_between_the_lines_costs_nothing_but_itself(recording: Recording) -> None:
    rolled = dice(recording)
    if len(recording.stdout) >= SMALL:
        rolled = random.Random(0)
    lines = recording.stdout.split(b"\n")
    for _ in range(NOISES if len(recording.stdout) < SMALL else 1):
        noisy = list(lines)
        at = rolled.randrange(len(noisy))
        noisy.insert(at, rolled.randbytes(rolled.randrange(40)).replace(b"\n", b" "))
        stdout = b"\n".join(noisy)
        events, outcome = recording.play([stdout])
        check_sound(recording, stdout, events)
        assert outcome.status in expected(recording)


@pytest.mark.parametrize("name", sorted(ADAPTERS))
def test_rubbish_is_no_success(name: str) -> None:
    samples = [recording for recording in RECORDINGS if recording.facts["adapter"] == name]
    recording = samples[0]
    rolled = random.Random(name)
    for _ in range(100):
        stdout = rolled.randbytes(rolled.randrange(2000))
        events, outcome = recording.play([stdout], exit_=Exit(status=0), task=Task(prompt="x"))
        check_sound(recording, stdout, events)
        assert outcome.status != "succeeded"


PLACE = re.compile(rb"(?<!\w)/(root|home|work)/|registry\.npmjs|pypi\.org")
STRANGE: tuple[object, ...] = (
    None, True, 0, -1, 1.5, 2**70, "", "x", "\u2028", [], [1], {}, {"type": "x"},
)  # fmt: skip


def mutations(lines: list[bytes], rolled: random.Random, times: int) -> Iterator[tuple[int, bytes]]:
    """The number of a line, and the stream with one place in that line changed."""
    candidates = [at for at, line in enumerate(lines) if line.startswith(b"{")]
    for _ in range(times if candidates else 0):
        at = rolled.choice(candidates)
        try:
            value = json.loads(lines[at])
        except ValueError:
            continue
        mutate(value, rolled)
        line = json.dumps(value, ensure_ascii=False).encode("utf-8", "surrogatepass")
        yield at, b"\n".join([*lines[:at], line, *lines[at + 1 :]])


def mutate(value: object, rolled: random.Random) -> None:
    """Change one place below `value`, at any depth."""
    match value:
        case dict() if value:
            key = rolled.choice(list(value))
            if isinstance(value[key], dict | list) and value[key] and rolled.random() < 0.7:
                mutate(value[key], rolled)
            elif rolled.random() < 0.2:
                del value[key]
            else:
                value[key] = rolled.choice(STRANGE)
        case list() if value:
            at = rolled.randrange(len(value))
            if isinstance(value[at], dict | list) and value[at] and rolled.random() < 0.7:
                mutate(value[at], rolled)
            else:
                value[at] = rolled.choice(STRANGE)
        case _:
            pass


def test_a_recording_has_no_place_of_the_machine_that_made_it() -> None:
    for folder in {recording.meta.parent for recording in RECORDINGS}:
        for path in folder.iterdir():
            assert PLACE.search(path.read_bytes()) is None, path
