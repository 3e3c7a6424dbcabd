"""Slots of a server: never more than there are, the oldest first, freed by whoever dies."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import anyio
import pytest

from orchestrator.slots import Room, Slots

pytestmark = pytest.mark.anyio

ONE = Room(name="http://127.0.0.1:11434", slots=1)
TWO = Room(name="claude", slots=2)

HOLDER = """
import sys, anyio
from pathlib import Path
from orchestrator.slots import Room, Slots

async def main():
    room = Room(name=sys.argv[2], slots=1)
    async with Slots(Path(sys.argv[1])).hold(room, lambda text: print("waits", flush=True)):
        print("has it", flush=True)
        await anyio.sleep_forever()

anyio.run(main)
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "slots"


def holder(folder: Path) -> "subprocess.Popen[bytes]":
    return subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(folder), ONE.name], stdout=subprocess.PIPE
    )


def says(process: "subprocess.Popen[bytes]") -> bytes:
    assert process.stdout is not None
    return process.stdout.readline().strip()


async def test_never_more_hold_a_slot_than_there_are_and_all_get_one(folder: Path) -> None:
    slots, now, most, done = Slots(folder), 0, 0, 0

    async def work() -> None:
        nonlocal now, most, done
        async with slots.hold(TWO):
            now += 1
            most = max(most, now)
            await anyio.lowlevel.checkpoint()
            now -= 1
            done += 1

    async with anyio.create_task_group() as group:
        for _ in range(12):
            group.start_soon(work)
    assert (most, done) == (2, 12)
    assert Slots(folder / "other").taken(TWO) == 0
    assert not (folder / "other").exists()
    assert slots.taken(TWO) == 0


async def test_the_oldest_is_next_and_waiting_is_told_once(folder: Path) -> None:
    slots, order, told = Slots(folder), list[int](), list[str]()

    async def work(number: int) -> None:
        async with slots.hold(ONE, told.append):
            order.append(number)

    async with anyio.create_task_group() as group, slots.hold(ONE):
        for number in range(5):
            group.start_soon(work, number)
            while len(told) <= number:
                await anyio.lowlevel.checkpoint()
        assert slots.taken(ONE) == 1
    assert order == [0, 1, 2, 3, 4]
    assert told == [f"waits for a free slot at {ONE.name} (1 in use)"] * 5


async def test_who_is_cancelled_while_waiting_is_in_nobodys_way(folder: Path) -> None:
    slots = Slots(folder)
    async with slots.hold(ONE):
        with anyio.move_on_after(0.02):
            async with slots.hold(ONE):
                raise AssertionError("two have one slot")
    (place,) = folder.iterdir()
    assert list((place / "queue").iterdir()) == []
    with anyio.fail_after(5):
        async with slots.hold(ONE):
            assert slots.taken(ONE) == 1


async def test_places_do_not_wait_for_each_other(folder: Path) -> None:
    slots = Slots(folder)
    with anyio.fail_after(5):
        async with slots.hold(ONE), slots.hold(Room(name="http://127.0.0.1/11434", slots=1)):
            assert len(list(folder.iterdir())) == 2


async def test_a_parent_that_lends_its_slot_to_its_child_is_no_deadlock(folder: Path) -> None:
    slots = Slots(folder)
    order: list[str] = []

    async def newcomer() -> None:
        async with slots.hold(ONE):
            order.append("newcomer")

    with anyio.fail_after(10):
        async with anyio.create_task_group() as group, slots.hold(ONE) as parent:
            async with parent.lent(), slots.hold(ONE):
                order.append("child")
                group.start_soon(newcomer)
                (place,) = folder.iterdir()
                while not list((place / "queue").iterdir()):
                    await anyio.lowlevel.checkpoint()
                order.append("child ends")
                group.start_soon(newcomer)
            order.append("parent")
    assert order[:2] == ["child", "child ends"]
    assert set(order[2:]) == {"parent", "newcomer"}
    assert order.count("newcomer") == 2


async def test_the_kernel_frees_what_a_killed_process_held(folder: Path) -> None:
    first = holder(folder)
    assert says(first) == b"has it"
    second, third = holder(folder), holder(folder)
    try:
        assert {says(second), says(third)} == {b"waits"}
        waiting = Slots(folder)
        assert waiting.taken(ONE) == 1
        # One that waits is killed, too: its ticket is nobody's any more.
        os.kill(second.pid, signal.SIGKILL)
        os.kill(first.pid, signal.SIGKILL)
        assert says(third) == b"has it"
        os.kill(third.pid, signal.SIGKILL)
        with anyio.fail_after(10):
            async with waiting.hold(ONE):
                (place,) = folder.iterdir()
                assert list((place / "queue").iterdir()) == []
    finally:
        for process in (first, second, third):
            process.kill()
            process.communicate()


async def test_the_files_are_the_users_own(folder: Path) -> None:
    async with Slots(folder).hold(ONE):
        (place,) = folder.iterdir()
        assert [path.stat().st_mode & 0o777 for path in (place, place / "0")] == [0o700, 0o600]
