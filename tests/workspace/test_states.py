"""Whatever state the user's repository is in, a run leaves it as it was, to the byte."""

import itertools
import shutil
import stat
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import pytest
from anyio.from_thread import BlockingPortal, start_blocking_portal
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from orchestrator.process import Reaper, open_reaper
from orchestrator.workspace.deliver import NotAppliedError, apply
from orchestrator.workspace.place import Want, ground, place
from orchestrator.workspace.worktree import ConflictError
from tests.examples import CAMPAIGNING, examples
from tests.workspace.scene import ENV, fingerprint, git, repository, write

COUNT = itertools.count()
FILES = ("a.txt", "b.txt", "src/c.txt", "src/deep/d e.txt", "run.sh", "link", "ünï.txt")

State = Callable[[Path], object]

PHASES = (Phase.explicit, Phase.reuse, Phase.generate, Phase.shrink)
# Without `explain`, which traces every line.


def _rename(user: Path) -> None:
    git(user, "mv", "b.txt", "renamed.txt", check=False)


def _conflict(user: Path) -> None:
    """A merge that stopped in the middle."""
    git(user, "stash", "-q", check=False)
    git(user, "switch", "-qc", f"side{next(COUNT)}", check=False)
    write(user, {"src/c.txt": "theirs\n"})
    git(user, "commit", "-qam", "Theirs", check=False)
    side = git(user, "rev-parse", "HEAD")
    git(user, "switch", "-qd", "HEAD^", check=False)
    write(user, {"src/c.txt": "ours\n"})
    git(user, "commit", "-qam", "Ours", check=False)
    git(user, "merge", side, check=False)


def _stash(user: Path) -> None:
    write(user, {"a.txt": "stashed\n"})
    git(user, "stash", "-q", check=False)


def _submodule(user: Path) -> None:
    other = user.with_name(f"{user.name}-module")
    if not other.exists():
        repository(other, {"in-module": "m\n"})
        git(user, "submodule", "add", "-q", str(other), "module", check=False)


def _module_changed(user: Path) -> None:
    if (user / "module" / ".git").exists():
        write(user, {"module/in-module": "changed\n", "module/more": "x\n"})


def _mode(user: Path) -> None:
    path = user / "run.sh"
    if path.is_file():
        path.chmod(path.stat().st_mode ^ stat.S_IXUSR)


def _link(user: Path) -> None:
    (user / "link").unlink(missing_ok=True)
    (user / "link").symlink_to("src/nowhere")


def _delete(user: Path) -> None:
    (user / "a.txt").unlink(missing_ok=True)


def _fifo_and_inner(user: Path) -> None:
    if not (user / "inner").exists():
        repository(user / "inner", {"x": "x"})


def _odd_names(user: Path) -> None:
    write(user, {"new\nline": "n", "-dash": "d", "*.glob": "g", "sp ace/ü": "u", "A.txt": "case"})


def _user_git(*words: str) -> State:
    def state(user: Path) -> None:
        git(user, *words, check=False)

    state.__name__ = f"git {' '.join(words)}"
    return state


def _files(files: Mapping[str, str]) -> State:
    def state(user: Path) -> None:
        write(user, files)

    state.__name__ = f"write {sorted(files)}"
    return state


STATES: tuple[State, ...] = (
    _files({"a.txt": "changed\n"}),
    _files({"src/c.txt": "changed\r\nwith both\n"}),
    _files({"new": "untracked\n", "src/new": "untracked\n"}),
    _files({"x.ignored": "i\n", "build/x": "i\n"}),
    _files({".gitattributes": "*.txt text eol=crlf\n"}),
    _files({".gitignore": "*\n"}),
    _rename,
    _conflict,
    _stash,
    _submodule,
    _module_changed,
    _mode,
    _link,
    _delete,
    _fifo_and_inner,
    _odd_names,
    _user_git("add", "-A"),
    _user_git("add", "-N", "."),
    _user_git("rm", "-q", "--cached", "b.txt"),
    _user_git("commit", "-qam", "More"),
    _user_git("branch", "feature/x"),
    _user_git("tag", "-am", "t", "v1"),
    _user_git("checkout", "-q", "--detach"),
    _user_git("switch", "-qc", "topic"),
    _user_git("pack-refs", "--all"),
    _user_git("repack", "-adq"),
    _user_git("notes", "add", "-m", "n"),
    _user_git("sparse-checkout", "set", "src"),
    _user_git("sparse-checkout", "set", "--no-cone", "/*", "!b.txt"),
    _user_git("sparse-checkout", "set", "--sparse-index", "src"),
    _user_git("update-index", "--assume-unchanged", "a.txt"),
    _user_git("update-index", "--skip-worktree", "b.txt"),
    _user_git("update-index", "--split-index"),
    _user_git("update-index", "--untracked-cache"),
    _user_git("update-index", "--index-version", "4"),
    _user_git("config", "core.autocrlf", "true"),
    _user_git("config", "core.autocrlf", "input"),
    _user_git("config", "core.fileMode", "false"),
    _user_git("config", "core.ignoreCase", "true"),
    _user_git("config", "status.showUntrackedFiles", "no"),
    _user_git("worktree", "add", "-q", "--detach", "build/tree"),
    _user_git("replace", "--edit", "HEAD"),
    _user_git("bisect", "start"),
)
EDITS: tuple[State, ...] = (
    _files({"a.txt": "agent\n"}),
    _files({"src/c.txt": "agent\n", "src/more": "agent\n"}),
    _files({"build/out": "ignored\n"}),
    _rename,
    _mode,
    _link,
    _odd_names,
    _fifo_and_inner,
    _user_git("commit", "-qam", "The agent's own"),
    _user_git("rm", "-qr", "src"),
)


@pytest.fixture(scope="module")
def portal() -> Iterator[BlockingPortal]:
    with start_blocking_portal("asyncio") as opened:
        yield opened


@pytest.fixture(scope="module")
def reaper(portal: BlockingPortal) -> Iterator[Reaper]:
    with portal.wrap_async_context_manager(open_reaper()) as opened:
        yield opened


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    user = tmp_path_factory.mktemp("states") / "template"
    ignore = {".gitignore": "*.ignored\nbuild/\n"}
    repository(user, {name: f"{name}\n" for name in FILES} | ignore)
    (user / "link").unlink()
    (user / "link").symlink_to("a.txt")
    (user / "run.sh").chmod(0o755)
    git(user, "commit", "-qam", "Second")
    return user


def user_of(template: Path, states: list[State]) -> Path:
    user = template.with_name(f"user{next(COUNT)}")
    shutil.copytree(template, user, symlinks=True)
    for state in states:
        state(user)
    return user


async def _run(reaper: Reaper, user: Path, state: Path, edits: list[State], *, along: bool) -> None:
    where = await ground(reaper, user, state=state, environ=ENV, include_uncommitted=along)
    assert where is not None
    wanted = Want(run_id="run-0000000a", name="job", task="t", prompt="p")
    async with place(reaper, where, wanted) as made:
        for edit in edits:
            edit(made.tree.path)
        kept = await made.keep(state / "p.patch")
        assert kept.complete, kept.notes
    assert (kept.changes.branch is None) or kept.changes.commit is not None
    assert [path.name for path in (state / "trees").iterdir()] == []


@settings(
    max_examples=examples(60),
    phases=PHASES,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)
@given(
    states=st.lists(st.sampled_from(STATES), max_size=6),
    edits=st.lists(st.sampled_from(EDITS), max_size=3),
    along=st.booleans(),
)
@pytest.mark.timeout(3000 if CAMPAIGNING else 300)
@pytest.mark.no_cover
def test_a_run_leaves_the_users_repository_as_it_was(
    portal: BlockingPortal,
    reaper: Reaper,
    template: Path,
    states: list[State],
    edits: list[State],
    along: bool,
) -> None:
    user = user_of(template, states)
    before = fingerprint(user)
    state = user.with_name(f"{user.name}-state")
    portal.call(lambda: _run(reaper, user, state, edits, along=along))
    after = fingerprint(user)
    assert {k for k in before.keys() | after.keys() if before.get(k) != after.get(k)} == set()
    shutil.rmtree(user)


async def _delivered(reaper: Reaper, user: Path, state: Path) -> list[str] | str:
    """A run, then what applying it says."""
    where = await ground(reaper, user, state=state, environ=ENV)
    assert where is not None
    async with place(
        reaper, where, Want(run_id="run-0000000a", name="job", task="t", prompt="p")
    ) as made:
        write(made.tree.path, {"src/c.txt": "agent\n", "src/more": "agent\n"})
        kept = await made.keep(None)
    assert kept.changes.commit is not None
    try:
        asked = apply(
            reaper, where.repository, where.trees, upon=where.base, tips=(kept.changes.commit,)
        )
        return await asked
    except (NotAppliedError, ConflictError) as error:
        return str(error)


@settings(max_examples=examples(20), phases=PHASES, suppress_health_check=[HealthCheck.too_slow])
@given(states=st.lists(st.sampled_from(STATES), max_size=4))
@pytest.mark.timeout(3000 if CAMPAIGNING else 120)
@pytest.mark.no_cover
def test_applying_writes_the_changed_files_and_nothing_else_or_nothing(
    portal: BlockingPortal, reaper: Reaper, template: Path, states: list[State]
) -> None:
    user = user_of(template, states)
    before = fingerprint(user)
    state = user.with_name(f"{user.name}-state")
    applied = portal.call(_delivered, reaper, user, state)
    after = fingerprint(user)
    changed = {k for k in before.keys() | after.keys() if before.get(k) != after.get(k)}
    if isinstance(applied, str):
        assert changed == set()
    else:
        assert changed - {"src"} == {"src/c.txt", "src/more"} == set(applied)
        assert (user / "src" / "c.txt").read_text().splitlines() == ["agent"]
    shutil.rmtree(user)
