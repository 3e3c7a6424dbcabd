"""What may befall a recording (a cut, a change in one place, noise between its lines), and what
must hold whatever does. How often each is tried is the caller's: the tests spend the same few bytes
on each recording, `scripts/bench mutations` is the whole campaign.
"""

import json
import random
from collections.abc import Iterator
from dataclasses import dataclass

from orchestrator.adapter import Exit
from orchestrator.events import Event, RunFinished, Unparsed
from tests.recordings import Recording


@dataclass(frozen=True, kw_only=True)
class Times:
    """How often one recording is damaged; `line_starts` of the last lines are cut at, too."""

    cuts: int
    line_starts: int
    mutations: int
    noises: int


CAMPAIGN = Times(cuts=150, line_starts=40, mutations=600, noises=40)
HUGE = Times(cuts=15, line_starts=4, mutations=5, noises=1)
# A megabyte of output is damaged, too, but not hundreds of times.
SMALL = 64 * 1024
SPENT = 48 * 1024
# Bytes that the tests replay of each recording for each kind of damage.


def campaign(recording: Recording) -> Times:
    return CAMPAIGN if len(recording.stdout) < SMALL else HUGE


def sample(recording: Recording) -> Times:
    """A part of the campaign: the smaller the recording, the larger the part."""
    if len(recording.stdout) >= SMALL:
        return HUGE
    fits = SPENT // max(1, len(recording.stdout))
    return Times(
        cuts=min(12, max(4, fits)),
        line_starts=min(6, max(3, fits)),
        mutations=min(40, max(8, fits)),
        noises=min(4, max(1, fits)),
    )


def dice(recording: Recording, seed: str = "") -> random.Random:
    return random.Random(f"{seed}{recording.name}")


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


def check_cuts(recording: Recording, rolled: random.Random, times: Times) -> int:
    """A recording that is cut anywhere is no success. How many places there were."""
    stdout = recording.stdout
    last_line = stdout.rstrip(b"\n").rfind(b"\n") + 1
    starts = [at + 1 for at, byte in enumerate(stdout) if byte == 10 and at + 1 <= last_line]
    cuts = {0, last_line, *starts[-times.line_starts :]}
    if stdout.strip():
        cuts.update(rolled.randrange(len(stdout.rstrip())) for _ in range(times.cuts))
    exits = dict.fromkeys((recording.exit, Exit(status=0), Exit(status=0, stderr=recording.stderr)))
    for cut in sorted(cuts):
        for exit_ in exits:
            events, outcome = recording.play([stdout[:cut]], exit_=exit_)
            check_sound(recording, stdout[:cut], events)
            assert outcome.status != "succeeded", f"cut at {cut} of {len(stdout)}, {exit_}"
    return len(cuts)


def check_mutations(recording: Recording, rolled: random.Random, times: Times) -> int:
    """No mutation raises or makes a failure a success. How many different ones there were."""
    lines = recording.stdout.split(b"\n")
    tried = {recording.stdout}
    for at, mutated in mutations(lines, rolled, times.mutations):
        if mutated in tried:
            continue  # a short recording has not that many places
        tried.add(mutated)
        events, outcome = recording.play([mutated])
        check_sound(recording, mutated, events)
        if recording.facts["expected"] != "succeeded" and outcome.status == "succeeded":
            # Only if that line alone told of the failure, and now tells something else.
            _, without = recording.play([b"\n".join([*lines[:at], *lines[at + 1 :]])])
            assert without.status == "succeeded", mutated.split(b"\n")[at]
    return len(tried) - 1


def check_noise(recording: Recording, rolled: random.Random, times: Times) -> int:
    """Noise between the lines costs nothing but itself. How often there was some."""
    lines = recording.stdout.split(b"\n")
    for _ in range(times.noises):
        noisy = list(lines)
        at = rolled.randrange(len(noisy))
        noisy.insert(at, rolled.randbytes(rolled.randrange(40)).replace(b"\n", b" "))
        stdout = b"\n".join(noisy)
        events, outcome = recording.play([stdout])
        check_sound(recording, stdout, events)
        assert outcome.status in expected(recording), noisy[at]
    return times.noises


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
