"""Slots over all machines, with two workers' sessions on one PostgreSQL and a state each."""

from pathlib import Path

import anyio
import pytest

from orchestrator.slots import Room
from orchestrator.worker.fleet import FleetSlots
from orchestrator.worker.lease import session
from scripts.benches.cluster import Cluster

pytestmark = [pytest.mark.anyio, pytest.mark.timeout(60)]


async def test_a_slot_that_another_machine_has_is_waited_for_but_not_one_at_loopback(
    tmp_path: Path, postgres: Cluster
) -> None:
    url = postgres.url()
    cloud = Room(name="https://gpu.example", slots=1)
    own = Room(name="http://127.0.0.1:11434", slots=1)
    told, order = anyio.Event(), list[str]()

    def waits(text: str) -> None:
        order.append(text)
        told.set()

    async with session(url, "desk") as one, session(url, "attic") as other:
        desk, attic = FleetSlots(tmp_path / "desk", one), FleetSlots(tmp_path / "attic", other)

        async def second() -> None:
            async with attic.hold(cloud, waits):
                order.append("attic has it")

        async with anyio.create_task_group() as group, desk.hold(cloud), desk.hold(own):
            async with attic.hold(own):
                group.start_soon(second)
                await told.wait()
            order.append("desk gives it")
    waited = "waits for a slot at https://gpu.example that other machines have"
    assert order == [waited, "desk gives it", "attic has it"]
