"""Workers that are killed while they work: nothing is lost, and nothing done twice at once."""

from pathlib import Path

import pytest

from scripts.benches.chaos import Plan, chaos

pytestmark = [pytest.mark.anyio, pytest.mark.timeout(150)]


async def test_after_a_killed_worker_every_job_is_accounted_for(tmp_path: Path, url: str) -> None:
    told: list[str] = []
    plan = Plan(tasks=10, kills=1, workers=2, concurrency=4, lines=20)
    found = await chaos(tmp_path, url, plan, told.append)
    assert found.wrong == []
    assert sum(found.ended.values()) == 10
    assert set(found.ended) <= {"succeeded", "interrupted"}
    assert len(told) == 1
