"""Who follows many files is told which of them have grown, whether the kernel tells or not."""

import os
import resource
import time
from collections.abc import AsyncGenerator, Generator
from contextlib import ExitStack, contextmanager
from itertools import pairwise
from pathlib import Path

import anyio
import pytest

from orchestrator.process import Ticks, growth
from orchestrator.process.growth import Growth
from orchestrator.run.spool import Spool

pytestmark = pytest.mark.anyio


@pytest.fixture(params=["told by the kernel", "asked each", "no more to be had"])
async def ticks(
    request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> AsyncGenerator[Ticks]:
    match request.param:
        case "asked each":
            monkeypatch.setattr(growth, "_system", lambda: None)
        case "no more to be had":
            monkeypatch.setattr(growth, "_MODIFIED", 0)  # which the kernel refuses to watch for
        case _:
            pass
    made = Ticks()
    yield made
    made.close()


class Followed:
    """A file, and how often its growth was told since it was last read."""

    def __init__(self, path: Path, ticks: Ticks, stack: ExitStack) -> None:
        path.touch()
        self.path = path
        self.spool = stack.enter_context(Spool(path, path.name))
        self.told = anyio.Event()
        self.read = b""
        stack.enter_context(ticks.hearing(self.spool, self.hear))

    def hear(self) -> None:
        self.read += self.spool.read()
        self.told.set()

    def write(self, text: bytes) -> None:
        self.told = anyio.Event()
        with self.path.open("ab") as file:
            file.write(text)


async def test_each_of_many_files_is_heard_of_when_it_has_grown_and_no_other(
    tmp_path: Path, ticks: Ticks
) -> None:
    with ExitStack() as stack:
        files = [Followed(tmp_path / str(number), ticks, stack) for number in range(50)]
        for written in (files[7::10], files[3::20], files[:1]):
            for file in files:
                file.read = b""
            for file in written:
                file.write(b"one\n")
            for file in written:
                await file.told.wait()
            assert [file for file in files if file.read] == sorted(written, key=files.index)
            assert {file.read for file in written} == {b"one\n"}


async def test_a_file_is_heard_of_whatever_its_name_is_by_then(
    tmp_path: Path, ticks: Ticks
) -> None:
    with ExitStack() as stack:
        file = Followed(tmp_path / "it", ticks, stack)
        other = tmp_path / "other"
        file.path.rename(other)
        file.path.write_bytes(b"somebody else's\n")
        with other.open("ab") as writing:
            writing.write(b"its own\n")
        await file.told.wait()
        assert file.read == b"its own\n"


async def test_what_has_left_is_not_called_any_more(tmp_path: Path, ticks: Ticks) -> None:
    with ExitStack() as stack:
        stays = Followed(tmp_path / "stays", ticks, stack)
        with ExitStack() as early:
            leaves = Followed(tmp_path / "leaves", ticks, early)
            leaves.write(b"unheard\n")
        stays.write(b"heard\n")
        await stays.told.wait()
        assert (leaves.read, stays.read) == (b"", b"heard\n")


async def test_a_look_is_taken_when_the_one_before_said_and_not_earlier(ticks: Ticks) -> None:
    looks: list[tuple[float, float]] = []
    done = anyio.Event()

    def look() -> float:
        now = time.monotonic()
        due = now + 0.05 * (1 + len(looks))
        looks.append((now, due))
        if len(looks) == 4:
            done.set()
        return due

    with ticks.looking(look):
        await done.wait()
    assert all(now >= due for (_, due), (now, _) in pairwise(looks))


async def test_however_much_there_is_to_do_others_have_their_turn_in_between(
    tmp_path: Path, ticks: Ticks
) -> None:
    turns, calls = 0, 0

    def busy() -> float:
        nonlocal calls
        calls += 1
        end = time.thread_time() + 0.006  # longer than a slice
        while time.thread_time() < end:
            pass
        return 0.0

    with ExitStack() as stack:
        for _ in range(10):
            stack.enter_context(ticks.looking(busy))
        while calls < 20:
            await anyio.lowlevel.checkpoint()
            turns += calls > 0
    assert turns >= 10, "ten slow calls were made in one turn of the loop"


def test_when_more_was_written_than_the_kernel_notes_all_are_looked_at(tmp_path: Path) -> None:
    told = Growth()
    with ExitStack() as stack:
        stack.callback(told.close)
        files = [stack.enter_context(opened(tmp_path / str(number))) for number in range(3)]
        watched = [told.watch(file, number) for number, file in enumerate(files)]
        if None in watched:
            pytest.skip("this system does not tell")
        room = int(Path("/proc/sys/fs/inotify/max_queued_events").read_text())
        for number in range(room + 10):  # notices of the same file one after the other are one
            os.write(files[number % 2], b".")
        seen: set[int] = set()
        while found := set(told.grown()):
            seen |= found
        assert seen == {0, 1, 2}
        os.write(files[1], b".")
        assert list(told.grown()) == [1]


def test_to_be_told_of_many_files_takes_one_descriptor(tmp_path: Path) -> None:
    told = Growth()
    with ExitStack() as stack:
        files = [stack.enter_context(opened(tmp_path / str(number))) for number in range(100)]
        before = descriptors()
        if None in [told.watch(file, number) for number, file in enumerate(files)]:
            pytest.skip("this system does not tell")
        assert descriptors() == before + 1
        told.close()
        told.close()
        assert descriptors() == before
        assert list(told.grown()) == []


def test_where_no_descriptor_is_left_a_file_is_not_watched(tmp_path: Path) -> None:
    told = Growth()
    with opened(tmp_path / "file") as file:
        before = resource.getrlimit(resource.RLIMIT_NOFILE)
        try:
            resource.setrlimit(resource.RLIMIT_NOFILE, (0, before[1]))
            assert told.watch(file, 0) is None
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, before)
    told.close()


def descriptors() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


@contextmanager
def opened(path: Path) -> Generator[int]:
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT)
    try:
        yield descriptor
    finally:
        os.close(descriptor)
