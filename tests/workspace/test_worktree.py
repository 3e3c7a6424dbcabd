"""A run's own work tree: what it starts from, what is kept of it, and what is left alone."""

import os
from collections.abc import AsyncGenerator
from pathlib import Path

import pytest

from orchestrator.errors import InputError
from orchestrator.process import Reaper, open_reaper
from orchestrator.workspace.place import Ground, Want, ground, place
from orchestrator.workspace.worktree import ConflictError, branch_name
from tests.workspace.scene import ENV, fingerprint, git, repository, write

pytestmark = pytest.mark.anyio

RUN = "0199-run-0000000a"


@pytest.fixture
async def reaper() -> AsyncGenerator[Reaper]:
    async with open_reaper() as opened:
        yield opened


@pytest.fixture
def state(tmp_path: Path) -> Path:
    return tmp_path / "state"


async def standing(reaper: Reaper, folder: Path, state: Path, *, along: bool = False) -> Ground:
    found = await ground(reaper, folder, state=state, environ=ENV, include_uncommitted=along)
    assert found is not None
    return found


def want(run_id: str = RUN, **more: object) -> Want:
    return Want(run_id=run_id, name="job", task="fix", prompt="Fix it", **more)  # type: ignore[arg-type]


def trees_of(folder: Path) -> list[str]:
    listed = git(folder, "worktree", "list", "--porcelain").split("\n")
    return [line for line in listed if line.startswith("worktree ")]


def left(state: Path) -> list[str]:
    return sorted(path.name for path in (state / "trees").iterdir())


async def test_the_work_is_a_commit_on_a_branch_and_nothing_else_has_changed(
    reaper: Reaper, tmp_path: Path, state: Path
) -> None:
    user = repository(tmp_path / "user")
    before = fingerprint(user)
    where = await standing(reaper, user, state)
    async with place(reaper, where, want()) as made:
        work = made.tree.workspace
        assert git(work, "status", "--porcelain") == ""
        assert git(work, "rev-parse", "HEAD") == where.base
        write(work, {"a.txt": "two\n", "new/c.txt": "c\n"})
        (work / "src" / "b.txt").unlink()
        kept = await made.keep(state / "p.patch")
        write(work, {"litter": "of the check\n"})
    assert kept.changes.branch == "orchestrate/job/fix-0000000a"
    assert kept.changes.files == ["a.txt", "new/c.txt", "src/b.txt"]
    tip = git(user, "rev-parse", kept.changes.branch)
    assert tip == kept.changes.commit
    assert git(user, "rev-parse", f"{tip}^") == where.base
    assert git(user, "ls-tree", "-r", "--name-only", tip).split() == ["a.txt", "new/c.txt"]
    shown = git(user, "show", "-s", "--format=%an %ae|%B", tip)
    assert shown.startswith("orchestrate orchestrate@localhost|Fix it")
    assert f"Task: job/fix\nRun: {RUN}" in shown
    assert fingerprint(user) == before
    assert left(state) == []
    assert trees_of(user) == [f"worktree {user}"]


async def test_no_branch_is_made_when_nothing_changed(
    reaper: Reaper, tmp_path: Path, state: Path
) -> None:
    user = repository(tmp_path / "user")
    async with place(reaper, await standing(reaper, user, state), want()) as made:
        write(made.tree.path, {"__pycache__/x.pyc": "by-product"})
        kept = await made.keep(None)
    assert (kept.changes.files, kept.changes.branch, kept.changes.commit) == ([], None, None)
    assert git(user, "branch", "--list", "orchestrate/*") == ""


async def test_the_agents_own_commits_stay_below_ours(
    reaper: Reaper, tmp_path: Path, state: Path
) -> None:
    user = repository(tmp_path / "user")
    async with place(reaper, await standing(reaper, user, state), want()) as made:
        work = made.tree.path
        write(work, {"a.txt": "two\n"})
        git(work, "commit", "-qam", "The agent's")
        own = git(work, "rev-parse", "HEAD")
        write(work, {"a.txt": "three\n"})
        kept = await made.keep(None)
    assert git(user, "rev-parse", f"{kept.changes.branch}^") == own
    assert kept.changes.files == ["a.txt"]


async def test_a_commit_of_the_agents_that_holds_all_is_the_result(
    reaper: Reaper, tmp_path: Path, state: Path
) -> None:
    user = repository(tmp_path / "user")
    async with place(reaper, await standing(reaper, user, state), want()) as made:
        work = made.tree.path
        git(work, "switch", "-qc", "its-own")
        write(work, {"a.txt": "two\n"})
        git(work, "commit", "-qam", "The agent's")
        own = git(work, "rev-parse", "HEAD")
        kept = await made.keep(None)
    assert kept.changes.commit == own


async def test_a_head_that_does_not_descend_from_the_base_is_no_parent(
    reaper: Reaper, tmp_path: Path, state: Path
) -> None:
    user = repository(tmp_path / "user")
    where = await standing(reaper, user, state)
    async with place(reaper, where, want()) as made:
        work = made.tree.path
        git(work, "checkout", "-q", "--orphan", "other")
        git(work, "commit", "-qm", "Elsewhere")
        write(work, {"a.txt": "two\n"})
        kept = await made.keep(None)
    assert git(user, "rev-parse", f"{kept.changes.branch}^") == where.base


async def test_work_that_nobody_kept_is_saved_when_the_block_fails(
    reaper: Reaper, tmp_path: Path, state: Path
) -> None:
    user = repository(tmp_path / "user")
    where = await standing(reaper, user, state)

    async def fails() -> None:
        async with place(reaper, where, want()) as made:
            write(made.tree.path, {"a.txt": "two\n"})
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        await fails()
    assert git(user, "show", "orchestrate/job/fix-0000000a:a.txt") == "two"
    assert left(state) == []


async def test_a_subfolder_is_the_same_subfolder_of_the_work_tree(
    reaper: Reaper, tmp_path: Path, state: Path
) -> None:
    user = repository(tmp_path / "user")
    async with place(reaper, await standing(reaper, user / "src", state), want()) as made:
        assert made.tree.workspace == made.tree.path / "src"
        write(made.tree.workspace, {"b.txt": "changed\n"})
        kept = await made.keep(None)
    assert kept.changes.files == ["src/b.txt"]


async def test_a_subfolder_that_is_not_committed_is_refused_and_nothing_is_left(
    reaper: Reaper, tmp_path: Path, state: Path
) -> None:
    user = repository(tmp_path / "user")
    write(user, {"fresh/x": "x"})
    where = await standing(reaper, user / "fresh", state)
    with pytest.raises(InputError, match="fresh is not in the commit"):
        async with place(reaper, where, want()):
            pass
    assert left(state) == []
    along = await standing(reaper, user / "fresh", state, along=True)
    async with place(reaper, along, want()) as made:
        assert (made.tree.workspace / "x").read_text() == "x"


async def test_uncommitted_files_are_counted_and_not_visible(
    reaper: Reaper, tmp_path: Path, state: Path
) -> None:
    user = repository(tmp_path / "user", {".gitignore": "ignored\n", "a.txt": "one\n"})
    write(user, {"a.txt": "mine\n", "new": "n", "ignored": "i", "staged": "s"})
    git(user, "add", "staged")
    before = fingerprint(user)
    where = await standing(reaper, user, state)
    assert where.notes == (
        "3 uncommitted files are not visible to the agent (--include-uncommitted takes them along)",
    )
    async with place(reaper, where, want()) as made:
        assert (made.tree.path / "a.txt").read_text() == "one\n"
        assert not (made.tree.path / "new").exists()
    assert fingerprint(user) == before


async def test_uncommitted_files_taken_along_are_not_in_the_delivered_changes(
    reaper: Reaper, tmp_path: Path, state: Path
) -> None:
    user = repository(tmp_path / "user", {".gitignore": "ignored\n", "a.txt": "one\n", "b": "b\n"})
    write(user, {"a.txt": "mine\n", "new": "n", "ignored": "i"})
    before = fingerprint(user)
    where = await standing(reaper, user, state, along=True)
    assert where.notes == ()
    async with place(reaper, where, want()) as made:
        work = made.tree.path
        assert (work / "a.txt").read_text() == "mine\n"
        assert (work / "new").read_text() == "n"
        assert not (work / "ignored").exists()
        write(work, {"b": "changed\n"})
        kept = await made.keep(None)
    assert kept.changes.files == ["b"]
    assert fingerprint(user) == before


async def test_needs_are_merged_in_order_and_a_conflict_names_the_files(
    reaper: Reaper, tmp_path: Path, state: Path
) -> None:
    user = repository(tmp_path / "user")
    where = await standing(reaper, user, state)
    commits: list[str] = []
    for run, files in (("run-00000001", {"x": "1"}), ("run-00000002", {"a.txt": "2"})):
        async with place(reaper, where, want(run)) as made:
            write(made.tree.path, files)
            commits.append((await made.keep(None)).changes.commit or "")
    async with place(reaper, where, want("run-00000003", needs=(*commits, where.base))) as made:
        assert (made.tree.path / "x").read_text() == "1"
        assert (made.tree.path / "a.txt").read_text() == "2"
        assert git(user, "show", "-s", "--format=%P", made.tree.start).split() == commits
        write(made.tree.path, {"a.txt": "other"})
        kept = await made.keep(None)
    assert kept.changes.files == ["a.txt"]
    async with place(reaper, where, want("run-00000004")) as made:
        write(made.tree.path, {"a.txt": "4", "x": "4"})
        odd = (await made.keep(None)).changes.commit or ""
    before = left(state)
    with pytest.raises(ConflictError) as caught:
        async with place(reaper, where, want("run-00000005", needs=(odd, *commits))):
            pass
    assert caught.value.files == ("x",)
    assert left(state) == before == []


async def test_what_setup_leaves_is_not_the_agents_work(
    reaper: Reaper, tmp_path: Path, state: Path
) -> None:
    user = repository(tmp_path / "user", {"lock": "1\n", "a.txt": "one\n", "b.txt": "b\n"})
    async with place(reaper, await standing(reaper, user, state), want()) as made:
        work = made.tree.path
        write(work, {"lock": "2\n", "generated/x": "x", "b.txt": "setup\n"})
        await made.prepared()
        write(work, {"a.txt": "two\n", "generated/y": "y", "b.txt": "agent\n"})
        kept = await made.keep(None)
    assert kept.changes.files == ["a.txt", "b.txt", "generated/y"]
    assert git(user, "show", f"{kept.changes.branch}:lock") == "1"


async def test_copied_files_are_there_and_never_committed(
    reaper: Reaper, tmp_path: Path, state: Path
) -> None:
    user = repository(tmp_path / "user", {"a.txt": "one\n", "data/tracked": "t\n"})
    write(user, {".env.test": "K=1\n", "mod/x/y": "y", "data/own": "o", "data/tracked": "mine\n"})
    (user / "mod" / "link").symlink_to("x/y")
    (user / "mod" / "x" / "y").chmod(0o755)
    asked = want(copy=(".env.test", "mod", "data"))
    async with place(reaper, await standing(reaper, user, state), asked) as made:
        work = made.tree.path
        assert (work / ".env.test").read_text() == "K=1\n"
        assert (work / "mod" / "link").readlink() == Path("x/y")
        assert os.access(work / "mod" / "x" / "y", os.X_OK)
        assert (work / "data" / "tracked").read_text() == "t\n"
        assert (work / "data" / "own").stat().st_ino != (user / "data" / "own").stat().st_ino
        write(work, {".env.test": "K=2\n", "mod/z": "z", "data/own": "p", "data/new": "n"})
        kept = await made.keep(None)
    assert kept.changes.files == ["data/new"]
    assert (user / ".env.test").read_text() == "K=1\n"


@pytest.mark.parametrize(
    ("path", "said"),
    [("gone", "no gone in"), ("out", "leads out of"), ("through/x", "written through a link")],
)
async def test_what_cannot_be_copied_is_said_and_nothing_is_left(
    reaper: Reaper, tmp_path: Path, state: Path, path: str, said: str
) -> None:
    user = repository(tmp_path / "user")
    outside = tmp_path / "outside"
    outside.mkdir()
    (user / "through").symlink_to(outside)
    git(user, "add", "-A")
    git(user, "commit", "-qm", "A link")
    (user / "through").unlink()
    write(user, {"through/x": "x"})
    (user / "out").symlink_to("/etc")
    where = await standing(reaper, user, state)
    with pytest.raises(InputError, match=said):
        async with place(reaper, where, want(copy=(path,))):
            pass
    assert left(state) == []
    assert list(outside.iterdir()) == []


async def test_a_repository_that_the_agent_made_inside_is_kept_as_plain_files(
    reaper: Reaper, tmp_path: Path, state: Path
) -> None:
    user = repository(tmp_path / "user")
    async with place(reaper, await standing(reaper, user, state), want()) as made:
        repository(made.tree.path / "app", {"x": "x\n"})
        repository(made.tree.path / "app" / "deep", {"y": "y\n"})
        (made.tree.path / "empty").mkdir()
        git(made.tree.path / "empty", "init", "-q")
        write(made.tree.path, {"empty/z": "z\n"})
        kept = await made.keep(None)
    assert kept.changes.files == ["app/deep/y", "app/x", "empty/z"]
    assert any("app in the work tree is kept as plain files" in note for note in kept.notes)
    assert left(state) == []


async def test_what_cannot_be_saved_stays_and_is_said(
    reaper: Reaper, tmp_path: Path, state: Path
) -> None:
    user = repository(tmp_path / "user")
    where = await standing(reaper, user, state)
    async with place(reaper, where, want()) as made:
        write(made.tree.path, {"a.txt": "two\n"})
        git(user, "branch", "orchestrate")  # meanwhile, by the user
        said = await made.end()
    assert said is not None
    assert str(made.tree.path) in said
    assert (made.tree.path / "a.txt").read_text() == "two\n"


async def test_a_branch_in_the_way_is_told_before_anything_starts(
    reaper: Reaper, tmp_path: Path, state: Path
) -> None:
    user = repository(tmp_path / "user")
    git(user, "branch", "orchestrate/job")
    where = await standing(reaper, user, state)
    with pytest.raises(InputError, match="'orchestrate/job' is in the way"):
        async with place(reaper, where, want()):
            pass


async def test_a_work_tree_in_use_is_not_entered_twice(
    reaper: Reaper, tmp_path: Path, state: Path
) -> None:
    user = repository(tmp_path / "user")
    where = await standing(reaper, user, state)
    async with place(reaper, where, want()) as made:
        write(made.tree.path, {"mine": "m"})
        with pytest.raises(InputError, match="is there already"):
            async with place(reaper, where, want("other-0000000b", path=made.tree.path)):
                pass
        assert (made.tree.path / "mine").exists()


async def test_a_read_only_folder_that_the_agent_left_is_removed(
    reaper: Reaper, tmp_path: Path, state: Path
) -> None:
    user = repository(tmp_path / "user")
    async with place(reaper, await standing(reaper, user, state), want()) as made:
        write(made.tree.path, {"ro/x": "x"})
        (made.tree.path / "ro").chmod(0o555)
    assert left(state) == []


@pytest.mark.parametrize(
    ("name", "task", "branch"),
    [
        ("job", "fix", "orchestrate/job/fix-00000001"),
        ("a..b.lock", "x.", "orchestrate/a-.b-/x--00000001"),
        (".hid", "a b~^:?*[\\", "orchestrate/-hid/a-b--------00000001"),
    ],
)
def test_a_branch_is_named_as_git_allows(tmp_path: Path, name: str, task: str, branch: str) -> None:
    assert branch_name(name, task, "x-00000001") == branch
    git(repository(tmp_path / "r"), "check-ref-format", "--branch", branch)


async def test_a_plain_folder_and_an_ignored_one_need_no_work_tree(
    reaper: Reaper, tmp_path: Path, state: Path
) -> None:
    user = repository(tmp_path / "user", {".gitignore": "build\n"})
    write(user, {"build/x": "x"})
    plain = tmp_path / "plain"
    plain.mkdir()
    for folder in (user / "build", plain):
        assert await ground(reaper, folder, state=state, environ=ENV) is None
