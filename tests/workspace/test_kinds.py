"""Repositories of every kind: a work tree can be made from them, or it is said why not."""

import os
from collections.abc import AsyncGenerator, Callable
from pathlib import Path

import pytest

from orchestrator.errors import InputError
from orchestrator.process import Reaper, open_reaper
from orchestrator.workspace.deliver import apply
from orchestrator.workspace.place import Place, Want, ground, place
from orchestrator.workspace.repository import locate
from orchestrator.workspace.worktree import Kept
from tests.workspace.scene import ENV, fingerprint, git, repository, write

pytestmark = pytest.mark.anyio

FILES = {"a.txt": "one\n", "src/b.txt": "b\n"}


@pytest.fixture
async def reaper() -> AsyncGenerator[Reaper]:
    async with open_reaper() as opened:
        yield opened


async def worked(
    reaper: Reaper, user: Path, edit: Callable[[Path], object], *, along: bool = False
) -> tuple[Place, Kept]:
    """A run that does one thing, in a repository that stays as it was."""
    before = fingerprint(user)
    state = user.parent / "state"
    where = await ground(reaper, user, state=state, environ=ENV, include_uncommitted=along)
    assert where is not None
    wanted = Want(run_id="run-0000000a", name="job", task="t", prompt="p")
    async with place(reaper, where, wanted) as made:
        edit(made.tree.path)
        kept = await made.keep(user.parent / "p.patch")
    assert fingerprint(user) == before
    assert list((state / "trees").iterdir()) == []
    return made, kept


def _plain(folder: Path) -> Path:
    return repository(folder / "user", FILES)


def _detached(folder: Path) -> Path:
    user = _plain(folder)
    git(user, "checkout", "-q", "--detach")
    return user


def _linked(folder: Path) -> Path:
    git(_plain(folder), "worktree", "add", "-q", "-b", "side", str(folder / "linked"))
    return folder / "linked"


def _relative_link(folder: Path) -> Path:
    linked = _linked(folder)
    (linked / ".git").write_text("gitdir: ../user/.git/worktrees/linked\n")
    return linked


def _linked_to_bare(folder: Path) -> Path:
    git(folder, "clone", "-q", "--bare", str(_plain(folder)), str(folder / "bare"))
    git(folder / "bare", "worktree", "add", "-q", "-b", "side", str(folder / "linked"))
    return folder / "linked"


def _separate(folder: Path) -> Path:
    return repository(folder / "user", FILES, f"--separate-git-dir={folder / 'elsewhere'}")


def _shallow(folder: Path) -> Path:
    user = _plain(folder)
    write(user, {"a.txt": "one\n", "more": "m\n"})
    git(user, "add", "-A")
    git(user, "commit", "-qm", "Second")
    git(folder, "clone", "-q", "--depth=1", f"file://{user}", str(folder / "shallow"))
    return folder / "shallow"


def _borrowing(folder: Path) -> Path:
    git(folder, "clone", "-q", "--shared", str(_plain(folder)), str(folder / "shared"))
    return folder / "shared"


def _sha256(folder: Path) -> Path:
    return repository(folder / "user", FILES, "--object-format=sha256")


def _odd_path(folder: Path) -> Path:
    return repository(folder / 'odd "ü\n\t\\ path: $(x)' / "user", FILES)


def _packed(folder: Path) -> Path:
    user = _plain(folder)
    git(user, "gc", "-q")
    return user


def _submodule_itself(folder: Path) -> Path:
    outer = repository(folder / "outer", {"o": "o\n"})
    git(outer, "submodule", "add", "-q", str(_plain(folder)), "inner")
    git(outer, "commit", "-qm", "A module")
    return outer / "inner"


@pytest.mark.parametrize(
    "kind",
    [
        _plain,
        _detached,
        _linked,
        _relative_link,
        _linked_to_bare,
        _separate,
        _shallow,
        _borrowing,
        _sha256,
        _odd_path,
        _packed,
        _submodule_itself,
    ],
)
async def test_a_run_in_it_becomes_a_branch_and_can_be_applied(
    reaper: Reaper, tmp_path: Path, kind: Callable[[Path], Path]
) -> None:
    user = kind(tmp_path)

    def edit(work: Path) -> None:
        assert git(work, "status", "--porcelain") == ""
        write(work, {"a.txt": "two\n", "new": "n\n"})

    made, kept = await worked(reaper, user, edit)
    assert kept.changes.files == ["a.txt", "new"]
    assert git(user, "rev-parse", kept.changes.branch or "") == kept.changes.commit
    assert git(user, "rev-parse", f"{kept.changes.branch}^") == git(user, "rev-parse", "HEAD")
    assert git(user, "fsck", "--connectivity-only") is not None
    await apply(
        reaper,
        made.repository,
        made.tree.path.parent,
        upon=made.tree.upon,
        tips=(kept.changes.commit or "",),
    )
    assert (user / "a.txt").read_text() == "two\n"
    assert git(user, "status", "--porcelain") == "M a.txt\n?? new"


async def test_executable_bits_links_and_names_that_differ_in_case_survive(
    reaper: Reaper, tmp_path: Path
) -> None:
    user = repository(tmp_path / "user", {"run.sh": "#!/bin/sh\n", "File": "1\n", "file": "2\n"})
    (user / "run.sh").chmod(0o755)
    (user / "link").symlink_to("../outside")
    git(user, "add", "-A")
    git(user, "commit", "-qm", "More")

    def edit(work: Path) -> None:
        assert os.access(work / "run.sh", os.X_OK)
        assert (work / "link").readlink() == Path("../outside")
        assert (work / "File").read_text() + (work / "file").read_text() == "1\n2\n"
        (work / "run.sh").chmod(0o644)
        (work / "link").unlink()
        (work / "link").symlink_to("elsewhere")
        write(work, {"FILE": "3\n"})

    _, kept = await worked(reaper, user, edit)
    tree = git(user, "ls-tree", kept.changes.branch or "")
    assert [line.split()[0] for line in tree.split("\n")] == [
        "100644",  # FILE
        "100644",
        "100644",
        "120000",
        "100644",  # run.sh, no longer executable
    ]


async def test_line_ends_are_as_the_users_git_would_write_and_read_them(
    reaper: Reaper, tmp_path: Path
) -> None:
    user = repository(tmp_path / "user", FILES)
    git(user, "config", "core.autocrlf", "true")
    write(user, {"x": "x\r\n"})

    def edit(work: Path) -> None:
        assert (work / "a.txt").read_bytes() == b"one\r\n"
        assert (work / "x").read_bytes() == b"x\r\n"
        (work / "a.txt").write_bytes(b"one\r\ntwo\r\n")

    _, kept = await worked(reaper, user, edit, along=True)
    assert (kept.changes.files, kept.changes.insertions) == (["a.txt"], 1)
    assert git(user, "cat-file", "blob", f"{kept.changes.branch}:a.txt") == "one\ntwo"


async def test_a_sparse_checkout_is_as_sparse_for_the_agent(reaper: Reaper, tmp_path: Path) -> None:
    user = repository(tmp_path / "user", FILES)
    git(user, "sparse-checkout", "set", "src")

    def edit(work: Path) -> None:
        assert sorted(path.name for path in work.iterdir()) == [".git", "a.txt", "src"]
        write(work, {"src/b.txt": "two\n", "other/new": "n\n"})

    _, kept = await worked(reaper, user, edit)
    assert kept.changes.files == ["other/new", "src/b.txt"]


async def test_an_ignore_file_of_the_users_own_holds_and_a_huge_or_odd_one_does_not(
    reaper: Reaper, tmp_path: Path
) -> None:
    user = repository(tmp_path / "user", FILES)
    os.mkfifo(tmp_path / "fifo")
    git(user, "config", "core.excludesFile", str(tmp_path / "fifo"))
    _, kept = await worked(reaper, user, lambda work: write(work, {"x.own": "x"}))
    assert kept.changes.files == ["x.own"]
    (tmp_path / "ignore").write_text("*.own\n")
    git(user, "config", "core.excludesFile", str(tmp_path / "ignore"))
    _, kept = await worked(reaper, user, lambda work: write(work, {"x.own": "x"}))
    assert kept.changes.files == []


# --- submodules and LFS --------------------------------------------------------------------------


def with_submodule(folder: Path) -> Path:
    module = repository(folder / "module", {"m": "m\n"})
    user = repository(folder / "user", FILES)
    git(user, "submodule", "add", "-q", str(module), "lib/module")
    git(user, "commit", "-qm", "A module")
    return user


async def test_a_submodule_is_filled_from_the_users_clone_and_is_no_change(
    reaper: Reaper, tmp_path: Path
) -> None:
    user = with_submodule(tmp_path)

    def edit(work: Path) -> None:
        assert (work / "lib" / "module" / "m").read_text() == "m\n"

    made, kept = await worked(reaper, user, edit)
    assert (made.notes, kept.notes) == ((), ())
    assert (kept.changes.files, kept.changes.branch) == ([], None)


async def test_what_changed_in_a_submodule_is_a_patch_and_is_said(
    reaper: Reaper, tmp_path: Path
) -> None:
    user = with_submodule(tmp_path)
    _, kept = await worked(
        reaper, user, lambda work: write(work, {"lib/module/m": "x\n", "a.txt": "y\n"})
    )
    assert kept.changes.files == ["a.txt"]
    (note,) = kept.notes
    assert "lib/module are not in the branch" in note
    patch = tmp_path / "p-0.patch"
    assert str(patch) in note
    git(user / "lib" / "module", "apply", "--check", str(patch))


async def test_a_submodule_without_a_clone_stays_empty_and_is_said(
    reaper: Reaper, tmp_path: Path
) -> None:
    origin = with_submodule(tmp_path)
    user = tmp_path / "clone"
    git(tmp_path, "clone", "-q", str(origin), str(user))
    made, kept = await worked(reaper, user, lambda work: write(work, {"a.txt": "y\n"}))
    (note,) = made.notes
    assert "stay empty: lib/module" in note
    assert "setup: git submodule update --init" in note
    assert kept.changes.files == ["a.txt"]


async def test_files_in_lfs_are_pointers_and_that_is_said(reaper: Reaper, tmp_path: Path) -> None:
    pointer = "version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n"
    attributes = {"assets/.gitattributes": "*.bin filter=lfs diff=lfs merge=lfs -text\n"}
    user = repository(tmp_path / "user", {"assets/x.bin": pointer} | attributes)
    made, kept = await worked(reaper, user, lambda work: write(work, {"n": "n"}))
    assert "setup: git lfs pull" in made.notes[0]
    assert kept.changes.files == ["n"]


# --- what cannot be ------------------------------------------------------------------------------


def _broken_link(folder: Path) -> Path:
    linked = _linked(folder)
    (linked / ".git").write_text("gitdir: /nowhere\n")
    return linked


def _bare(folder: Path) -> Path:
    folder.mkdir(exist_ok=True)
    git(folder, "init", "-q", "--bare", "b.git")
    return folder / "b.git" / "refs"


def _reftable(folder: Path) -> Path:
    user = _plain(folder)
    (user / ".git" / "reftable").mkdir()
    return user


@pytest.mark.parametrize(
    ("kind", "said"),
    [
        (_broken_link, "where there is no repository"),
        (_bare, "in a bare repository"),
        (_reftable, "reftable"),
    ],
)
def test_a_repository_that_is_not_fit_is_refused_with_its_reason(
    tmp_path: Path, kind: Callable[[Path], Path], said: str
) -> None:
    with pytest.raises(InputError, match=said) as caught:
        locate(kind(tmp_path))
    assert caught.value.hint is not None


async def test_a_bare_setting_and_a_broken_configuration_are_refused(
    reaper: Reaper, tmp_path: Path
) -> None:
    for number, (text, said) in enumerate(
        (("[core]\nbare = true\n", "bare"), ("[[", "bad config"))
    ):
        user = repository(tmp_path / str(number), FILES)
        with (user / ".git" / "config").open("a") as file:
            file.write(text)
        with pytest.raises(InputError, match=said):
            await ground(reaper, user, state=tmp_path / "state", environ=ENV)
