"""What an agent plants in a repository or a work tree executes nothing when we run git, and leads
nowhere.
"""

import stat
from collections.abc import AsyncGenerator, Callable
from pathlib import Path

import pytest

from orchestrator.process import Reaper, open_reaper
from orchestrator.workspace.deliver import NotAppliedError, apply
from orchestrator.workspace.looks import Look
from orchestrator.workspace.place import Ground, Want, ground, place
from tests.workspace.scene import ENV, fingerprint, git, repository, write

pytestmark = pytest.mark.anyio

HOOKS = (
    "post-checkout",
    "pre-commit",
    "post-commit",
    "prepare-commit-msg",
    "commit-msg",
    "reference-transaction",
    "post-index-change",
    "post-merge",
    "pre-auto-gc",
    "post-rewrite",
)
ATTRIBUTES = "* filter=evil diff=evil merge=evil\n"


@pytest.fixture
async def reaper() -> AsyncGenerator[Reaper]:
    async with open_reaper() as opened:
        yield opened


def script(path: Path, mark: Path) -> Path:
    """A program that leaves a mark."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"#!/bin/sh\necho $0 >> {mark}\ncat\n")
    path.chmod(path.stat().st_mode | stat.S_IXUSR)
    return path


def configuration(evil: Path) -> str:
    return f"""
[core]
\tfsmonitor = {evil}
\thooksPath = {evil.parent}/hooks
\tpager = {evil}
\teditor = {evil}
\tsshCommand = {evil}
\tgitProxy = {evil}
\taskPass = {evil}
\talternateRefsCommand = {evil}
[filter "evil"]
\tclean = {evil}
\tsmudge = {evil}
\tprocess = {evil}
\trequired = true
[diff]
\texternal = {evil}
[diff "evil"]
\ttextconv = {evil}
\tcommand = {evil}
[merge "evil"]
\tdriver = {evil} %A
[interactive]
\tdiffFilter = {evil}
[commit]
\tgpgSign = true
[gpg]
\tprogram = {evil}
[credential]
\thelper = {evil}
[uploadpack]
\tpackObjectsHook = {evil}
[alias]
\tstatus = !{evil}
\tadd = !{evil}
[remote "origin"]
\turl = ext::{evil}
\tpromisor = true
\tpartialclonefilter = blob:none
[trace2]
\teventTarget = {evil.parent}/trace
"""


def plant(folder: Path, evil: Path, mark: Path) -> None:
    """Everything that a configuration and hooks can execute, into a git directory."""
    for hook in HOOKS:
        script(folder / "hooks" / hook, mark)
        script(evil.parent / "hooks" / hook, mark)
    included = evil.parent / "included"
    included.write_text(configuration(evil))
    with (folder / "config").open("a") as file:
        file.write(configuration(evil) + f"[include]\n\tpath = {included}\n")
        file.write("[extensions]\n\tworktreeConfig = true\n")
    (folder / "config.worktree").write_text(configuration(evil))
    (folder / "info").mkdir(exist_ok=True)
    (folder / "info" / "attributes").write_text(ATTRIBUTES)


@pytest.fixture
def evil(tmp_path: Path) -> tuple[Path, Path]:
    mark = tmp_path / "EXECUTED"
    return script(tmp_path / "evil" / "run", mark), mark


async def test_the_planted_things_do_execute_when_the_users_own_git_runs(
    tmp_path: Path, evil: tuple[Path, Path]
) -> None:
    user = repository(tmp_path / "user")
    plant(user / ".git", *evil)
    git(user, "update-index", "--refresh", check=False)
    assert evil[1].exists()


async def runs(reaper: Reaper, where: Ground, user: Path, evil: tuple[Path, Path]) -> list[str]:
    """Two runs whose agents plant all that they can; their commits."""
    tips: list[str] = []
    for number in "12":
        run = f"run-{where.base[:7]}{number}"
        wanted = Want(run_id=run, name="j", task="t", prompt="p", copy=(".gitattributes",))
        async with place(reaper, where, wanted) as made:
            work = made.tree.path
            write(work, {".gitattributes": ATTRIBUTES, f"new{number}": "n\n", "b.txt": "c\n"})
            plant(user / ".git" / "worktrees" / run, *evil)
            inner = repository(work / "inner", {"x": "x\n"})
            plant(inner / ".git", *evil)
            (work / ".git").unlink()
            repository(work / "own", {})
            (work / "own" / ".git").rename(work / ".git")
            plant(work / ".git", *evil)
            await made.prepared()
            write(work, {"a.txt": "agent\n", "inner/x": "changed\n"})
            kept = await made.keep(where.trees / "p.patch")
        assert "a.txt" in kept.changes.files
        assert kept.changes.commit is not None
        tips.append(kept.changes.commit)
    wanted = Want(run_id="run-merges", name="j", task="t", prompt="p", needs=tuple(tips))
    async with place(reaper, where, wanted):
        pass
    return tips


async def test_no_git_of_ours_executes_what_is_planted(
    reaper: Reaper, tmp_path: Path, evil: tuple[Path, Path]
) -> None:
    user = repository(tmp_path / "user", {"a.txt": "one\n", "b.txt": "b\n"})
    state, mark = tmp_path / "state", evil[1]
    plant(user / ".git", *evil)
    write(user, {".gitattributes": ATTRIBUTES, "a.txt": "mine\n"})
    along = await ground(reaper, user, state=state, environ=ENV, include_uncommitted=True)
    where = await ground(reaper, user, state=state, environ=ENV)
    assert along is not None
    assert where is not None
    await runs(reaper, along, user, evil)
    tips = await runs(reaper, where, user, evil)
    with pytest.raises(NotAppliedError, match=r"uncommitted changes \(a.txt\)"):
        await apply(reaper, where.repository, where.trees, upon=where.base, tips=tips)
    write(user, {"a.txt": "one\n"})
    (user / ".gitattributes").unlink()
    await apply(reaper, where.repository, where.trees, upon=where.base, tips=tips[:1])
    assert (user / "a.txt").read_text() == "agent\n"
    assert not mark.exists(), mark.read_text()


async def test_a_snapshot_executes_nothing_of_a_repository_inside(
    reaper: Reaper, tmp_path: Path, evil: tuple[Path, Path]
) -> None:
    user = repository(tmp_path / "user")
    inner = repository(user / "inner", {"x": "x\n"})
    plant(inner / ".git", *evil)
    store = tmp_path / "store"
    before = await Look(user, store, tmp_path / "state").before(reaper)
    (store / "config").write_text(configuration(evil[0]))
    (store / "commondir").write_text(str(inner / ".git"))
    write(user, {"inner/x": "changed\n", ".gitattributes": ATTRIBUTES})
    found = await before.changes(reaper, tmp_path / "p.patch")
    assert found.files == [".gitattributes", "inner/x"]
    assert not evil[1].exists(), evil[1].read_text()


def _link_the_tree(made: Path, outside: Path) -> None:
    made.rename(made.with_name("moved"))
    made.symlink_to(outside)


def _link_a_folder(made: Path, outside: Path) -> None:
    (made / "src" / "b.txt").unlink()
    (made / "src").rmdir()
    (made / "src").symlink_to(outside)


def _link_a_file(made: Path, outside: Path) -> None:
    (made / "a.txt").unlink()
    (made / "a.txt").symlink_to(outside / "secret")
    (made / ".gitignore").symlink_to(outside / "secret")
    (made / ".gitattributes").symlink_to(outside / "secret")


@pytest.mark.parametrize("planted", [_link_the_tree, _link_a_folder, _link_a_file])
async def test_a_planted_link_leads_nowhere(
    reaper: Reaper, tmp_path: Path, planted: Callable[[Path, Path], None]
) -> None:
    user = repository(tmp_path / "user")
    outside = tmp_path / "outside"
    write(outside, {"secret": "the secret\n", "b.txt": "the secret\n"})
    before = fingerprint(outside)
    where = await ground(reaper, user, state=tmp_path / "state", environ=ENV)
    assert where is not None
    wanted = Want(run_id="run-00000001", name="j", task="t", prompt="p")
    async with place(reaper, where, wanted) as made:
        planted(made.tree.path, outside)
        await made.end()
    objects = git(user, "cat-file", "--batch-all-objects", "--batch")
    assert "the secret" not in objects
    assert fingerprint(outside) == before
