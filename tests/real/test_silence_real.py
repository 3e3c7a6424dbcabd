"""Real CLIs on a model that is slow or hangs: who is slow goes on, who hangs is a stall."""

import pytest

from adapters import claude, codex
from orchestrator.events import Stall
from orchestrator.task import Limits
from tests.real.scene import Played, play

pytestmark = [pytest.mark.real, pytest.mark.anyio]

QUIET_S = 8


def stalls(played: Played) -> list[Stall]:
    return [event.update for event in played.events if isinstance(event.update, Stall)]


async def test_codex_on_a_model_that_drips_is_not_stalled_though_it_says_nothing(tmp_path):
    turns = [{"text": "Slow.", "drip": {"bytes": 120, "seconds": 1}}]
    limits = Limits(first_s=QUIET_S, stall_s=QUIET_S)
    played = await play(codex.adapter, turns, tmp_path, task={"limits": limits, "kind": "explain"})
    assert played.outcome.status == "succeeded", played.outcome
    assert played.outcome.text == "Slow."
    assert played.outcome.duration_s is not None
    assert played.outcome.duration_s > 1.5 * QUIET_S  # else it was never too long silent
    assert stalls(played) == []


@pytest.mark.parametrize(
    "adapter",
    [
        pytest.param(codex.adapter, id="codex", marks=pytest.mark.thorough),
        pytest.param(claude.adapter, id="claude"),
    ],
)
async def test_a_model_that_hangs_is_a_stall_and_says_so(tmp_path, adapter):
    turns = [{"text": "Half of it", "fault": "hang", "repeat": "forever"}]
    limits = Limits(first_s=QUIET_S, stall_s=QUIET_S)
    played = await play(adapter, turns, tmp_path, task={"limits": limits})
    assert played.outcome.status == "stalled"
    (stall,) = stalls(played)
    assert stall.budget in {"first", "stall"}
    assert played.outcome.error is not None
    assert played.outcome.error.limit == stall.budget
