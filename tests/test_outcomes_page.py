"""The table of traps in docs/outcomes.md stays true: each row's recording ends as it says."""

import re
from pathlib import Path
from typing import get_args

import pytest

from orchestrator.events import Status
from tests.recordings import ADAPTERS, RECORDINGS

ROOT = Path(__file__).parent.parent
PAGE = (ROOT / "docs/outcomes.md").read_text()
ROW = re.compile(r"^\| (.+?) \| `([^`]+)` \| (\w+) \|$", re.MULTILINE)
SUCCESSES, FAILURES = (ROW.findall(part) for part in PAGE.split("### False failures"))
BY_NAME = {recording.name: recording for recording in RECORDINGS}
shown_by_recordings = pytest.mark.parametrize(
    ("name", "status"),
    [(name, status) for _, name, status in (*SUCCESSES, *FAILURES) if "::" not in name],
)


@shown_by_recordings
def test_a_trap_ends_as_the_page_says(name: str, status: str) -> None:
    recording = BY_NAME[name]
    assert recording.facts["expected"] == status
    _, outcome = recording.play()
    # Who sent a signal is known when it is sent, not from the recording.
    assert outcome.status in ({status, "failed"} if status == "interrupted" else {status})
    assert outcome.evidence


def test_every_row_of_the_page_is_read() -> None:
    rows = [line for line in PAGE.splitlines() if line.startswith("| ") and "`" in line]
    statuses = [line for line in rows if line.startswith("| `")]
    assert len(rows) - len(statuses) == len(SUCCESSES) + len(FAILURES) > 90
    assert {status for _, _, status in SUCCESSES}.isdisjoint({"succeeded"})
    assert {status for _, _, status in FAILURES} == {"succeeded"}


def test_a_trap_without_a_recording_names_a_test_that_exists() -> None:
    for _, place, _ in SUCCESSES:
        if "::" in place:
            file, _, test = place.partition("::")
            assert f"def {test}(" in (ROOT / file).read_text()


def test_every_adapter_has_traps_of_both_kinds() -> None:
    # `acp` itself is spoken by agents that others describe: it has no recordings of its own.
    recorded = {recording.name.partition("/")[0] for recording in RECORDINGS}
    assert recorded == set(ADAPTERS) - {"acp"}
    for rows in (SUCCESSES, FAILURES):
        assert {name.partition("/")[0] for _, name, _ in rows} >= recorded


def test_the_page_explains_every_status() -> None:
    explained = {
        status for line in PAGE.splitlines() if line.startswith("| `")
        for status in re.findall(r"`(\w+)`", line.split(" | ")[0])
    }  # fmt: skip
    assert explained == set(get_args(Status))


def test_no_recorded_failure_is_a_success_and_no_recorded_success_a_failure() -> None:
    wrong = [
        (recording.name, recording.facts["expected"], outcome.status)
        for recording in RECORDINGS
        for _, outcome in [recording.play()]
        if (outcome.status == "succeeded") != (recording.facts["expected"] == "succeeded")
    ]
    assert wrong == []


@pytest.mark.parametrize(
    ("name", "resets_at"),
    [
        ("claude/2.1.328/subscription_used_up", "2026-11-21T05:46:40Z"),
        ("litellm/2.4.6/rate_limit_long", None),
        ("aider/0.86.2/rate_limit_429", None),
    ],
)
def test_a_recorded_limit_says_until_when(name: str, resets_at: str | None) -> None:
    """None: an hour, or a second, after the recording was made."""
    _, outcome = BY_NAME[name].play()
    assert outcome.error is not None
    assert outcome.error.resets_at is not None
    assert re.fullmatch(r"2\d{3}(-\d\d){2}T(\d\d:){2}\d\dZ", outcome.error.resets_at)
    assert resets_at in {None, outcome.error.resets_at}
