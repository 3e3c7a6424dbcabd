"""The bars that every recording of every adapter holds, whole, cut, chunked and mutated.

Of the damage, this is a part; `scripts/bench mutations` is the whole campaign.
"""

import random
import re
from collections import Counter
from dataclasses import asdict

import pytest

from orchestrator.adapter import Exit
from orchestrator.events import Event, RunFinished
from orchestrator.task import Task
from tests.damage import (
    SPENT,
    check_cuts,
    check_mutations,
    check_noise,
    check_sound,
    dice,
    expected,
    sample,
)
from tests.recordings import ADAPTERS, RECORDINGS, Recording

# What `acp` reads, a description of any agent, is what gemini, opencode and qwen say.
RECORDED = [name for name in ADAPTERS if name != "acp"]

each_recording = pytest.mark.parametrize(
    "recording", RECORDINGS, ids=lambda recording: recording.name
)


def said(events: list[Event]) -> list[object]:
    """Events without what differs between two replays."""
    found: list[object] = []
    for event in events:
        update = asdict(event.update)
        if isinstance(event.update, RunFinished):
            update["outcome"]["run_id"] = None
        found.append((event.seq, event.source, update, event.raw))
    return found


def test_each_adapter_has_at_least_a_dozen_recordings() -> None:
    counts = Counter(str(recording.facts["adapter"]) for recording in RECORDINGS)
    assert {name for name in RECORDED if counts[name] < 12} == set()


@each_recording
def test_a_recording_ends_as_it_did(recording: Recording) -> None:
    events, outcome = recording.play()
    check_sound(recording, recording.stdout, events)
    assert outcome.status in expected(recording)
    if outcome.error is not None:
        assert outcome.error.text


@each_recording
@pytest.mark.no_cover
def test_chunks_of_any_size_give_the_same_events(recording: Recording) -> None:
    whole, _ = recording.play()
    told = said(whole)
    stdout = recording.stdout
    for size in (1, 7) if len(stdout) < SPENT // 8 else (97,):  # of these, many lines take several
        chunks = (stdout[at : at + size] for at in range(0, len(stdout), size))
        chunked, _ = recording.play(chunks)
        assert said(chunked) == told


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


# What follows replays the same lines over and over: what they reach, the tests above reached, and
# looking at each line again would take longer than the replays.


@each_recording
@pytest.mark.no_cover
def test_a_recording_that_is_cut_anywhere_is_no_success(recording: Recording) -> None:
    assert check_cuts(recording, dice(recording), sample(recording)) > 0


@each_recording
@pytest.mark.no_cover
def test_no_mutation_raises_or_makes_a_failure_a_success(recording: Recording) -> None:
    tried = check_mutations(recording, dice(recording), sample(recording))
    assert tried > 0 or b"{" not in recording.stdout


@each_recording
@pytest.mark.no_cover
def test_noise_between_the_lines_costs_nothing_but_itself(recording: Recording) -> None:
    assert check_noise(recording, dice(recording), sample(recording)) > 0


@pytest.mark.parametrize("name", sorted(RECORDED))
@pytest.mark.no_cover
def test_rubbish_is_no_success(name: str) -> None:
    samples = [recording for recording in RECORDINGS if recording.facts["adapter"] == name]
    recording = samples[0]
    rolled = random.Random(name)
    for _ in range(100):
        stdout = rolled.randbytes(rolled.randrange(2000))
        events, outcome = recording.play([stdout], exit_=Exit(status=0), task=Task(prompt="x"))
        check_sound(recording, stdout, events)
        assert outcome.status != "succeeded"


# `/home/me` is nobody's: it stands in the documents, which a recorded review reads.
PLACE = re.compile(rb"(?<!\w)/(root|work|home(?!/me/))/|registry\.npmjs|pypi\.org")


def test_a_recording_has_no_place_of_the_machine_that_made_it() -> None:
    for folder in {recording.meta.parent for recording in RECORDINGS}:
        for path in folder.iterdir():
            assert PLACE.search(path.read_bytes()) is None, path
