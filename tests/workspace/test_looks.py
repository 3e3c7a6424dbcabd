"""Looks at folders: shared by all who ask at the same time, and true for each of them."""

from __future__ import annotations

import shutil
from collections.abc import AsyncIterator, Generator
from contextlib import contextmanager
from pathlib import Path

import anyio
import pytest

from orchestrator.process import Reaper, open_reaper
from orchestrator.workspace import git as ours
from orchestrator.workspace.looks import Look, Looks
from tests.workspace.scene import fingerprint, repository, write

pytestmark = pytest.mark.anyio


@pytest.fixture
async def reaper() -> AsyncIterator[Reaper]:
    async with open_reaper() as reaper:
        yield reaper


@pytest.fixture(params=["repository", "plain folder"])
def folder(tmp_path: Path, request: pytest.FixtureRequest) -> Path:
    if request.param == "repository":
        return repository(tmp_path / "work")
    write(tmp_path / "work", {"a.txt": "one\n", "src/b.txt": "b\n"})
    return tmp_path / "work"


@contextmanager
def counted(monkeypatch: pytest.MonkeyPatch) -> Generator[list[str]]:
    """The git commands that were run."""
    commands: list[str] = []
    run = ours.run_git

    async def counting(reaper, where, env, *arguments, **more):
        commands.append(arguments[0])
        return await run(reaper, where, env, *arguments, **more)

    with monkeypatch.context() as patch:
        patch.setattr(ours, "run_git", counting)
        yield commands


async def test_who_asks_at_the_same_time_shares_a_look(
    reaper: Reaper, tmp_path: Path, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    look = Look(folder, tmp_path / "store", tmp_path / "state")
    with counted(monkeypatch) as commands:
        async with anyio.create_task_group() as group:
            for _ in range(30):
                group.start_soon(look.before, reaper)
    assert commands.count("add") <= 2  # one for the first, one for all who came meanwhile


async def test_a_look_that_is_shared_shows_each_what_was_changed_before_it_asked(
    reaper: Reaper, tmp_path: Path, folder: Path
) -> None:
    look = Look(folder, tmp_path / "store", tmp_path / "state")
    missing: list[str] = []

    async def run(number: int) -> None:
        before = await look.before(reaper)
        await anyio.sleep(number % 5 / 100)
        write(folder, {f"new/{number}": "x\n"})
        found = await before.changes(reaper, tmp_path / f"{number}.patch")
        if f"new/{number}" not in found.files:
            missing.append(f"{number}: {found.files}")

    async with anyio.create_task_group() as group:
        for number in range(12):
            group.start_soon(run, number)
    assert not missing


async def test_nothing_is_written_where_it_looks(
    reaper: Reaper, tmp_path: Path, folder: Path
) -> None:
    untouched = fingerprint(folder)
    before = await Look(folder, tmp_path / "store", tmp_path / "state").before(reaper)
    found = await before.changes(reaper, tmp_path / "patch")
    assert (found.files, fingerprint(folder)) == ([], untouched)


async def test_a_look_that_is_cut_off_does_not_keep_others_from_looking(
    reaper: Reaper, tmp_path: Path, folder: Path
) -> None:
    look = Look(folder, tmp_path / "store", tmp_path / "state")
    await look.before(reaper)
    (look.store / "index.lock").touch()  # as git leaves it when it is killed
    with anyio.move_on_after(0):
        await look.before(reaper)
    write(folder, {"a.txt": "two\n"})
    async with anyio.create_task_group() as group:
        cut_off = anyio.CancelScope()

        async def first() -> None:
            with cut_off:
                await look.before(reaper)

        group.start_soon(first)
        await anyio.wait_all_tasks_blocked()
        group.start_soon(look.before, reaper)
        cut_off.cancel()
    before = await look.before(reaper)
    write(folder, {"a.txt": "three\n"})
    found = await before.changes(reaper, tmp_path / "patch")
    assert (found.files, found.insertions, found.deletions) == (["a.txt"], 1, 1)


async def test_a_repository_inside_that_was_removed_is_told_and_others_go_on(
    reaper: Reaper, tmp_path: Path, folder: Path
) -> None:
    repository(folder / "inner", {"x": "x\n"})
    look = Look(folder, tmp_path / "store", tmp_path / "state")
    before = await look.before(reaper)
    shutil.rmtree(folder / "inner")
    found = await before.changes(reaper, tmp_path / "patch")
    assert found.files == ["inner"]
    later = await look.before(reaper)
    write(folder, {"a.txt": "two\n"})
    assert (await later.changes(reaper, tmp_path / "patch")).files == ["a.txt"]


async def test_a_repository_that_came_while_others_ran_is_looked_into_from_then_on(
    reaper: Reaper, tmp_path: Path, folder: Path
) -> None:
    look = Look(folder, tmp_path / "store", tmp_path / "state")
    await look.before(reaper)
    repository(folder / "inner", {"x": "x\n"})
    later = await look.before(reaper)
    write(folder, {"inner/x": "changed\n"})
    assert (await later.changes(reaper, tmp_path / "patch")).files == ["inner/x"]


async def test_our_repository_goes_with_the_last_who_needs_it(
    reaper: Reaper, tmp_path: Path, folder: Path
) -> None:
    looks = Looks()
    async with looks.at(folder, tmp_path / "one", ours=tmp_path / "state") as one:
        await one.before(reaper)
        async with looks.at(folder, tmp_path / "two", ours=tmp_path / "state") as two:
            assert two is one
        assert (tmp_path / "one").is_dir()
    assert not (tmp_path / "one").exists()
    async with looks.at(folder, tmp_path / "two", ours=tmp_path / "state") as three:
        await three.before(reaper)
        assert (tmp_path / "two").is_dir()
