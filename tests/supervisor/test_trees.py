"""Whole runs in a repository: each in a work tree of its own, its result a branch or applied."""

import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import anyio
import pytest

from orchestrator.adapter import Agent
from orchestrator.config import Config
from orchestrator.errors import InputError
from orchestrator.events import Event, Message, Notice, Output, ProcessSpawned, RunStarted
from orchestrator.journal import read_record
from orchestrator.process import open_reaper
from orchestrator.supervisor import Supervisor
from orchestrator.task import Limits, Task, TaskFile
from orchestrator.workspace.remains import Desk, Remain, bring, diff, discard, prune
from tests import commands
from tests.scripted_adapter import DONE, Scripted, Step, said, say, scripted_config
from tests.workspace.scene import fingerprint, git, repository, write

pytestmark = pytest.mark.anyio

EDIT: Step = {"edit": "a.txt", "old": "one", "new": "two"}


@pytest.fixture
def user(tmp_path: Path) -> Path:
    return repository(tmp_path / "user", {"a.txt": "one\n", "src/b.txt": "b\n"})


@pytest.fixture
def state(tmp_path: Path) -> Path:
    return tmp_path / "state"


def config_of(state: Path, **agents: list[Step]) -> Config:
    """A configuration with a scripted agent of each name."""
    made = (
        Agent(name=name, adapter="scripted", options={"steps": steps})
        for name, steps in agents.items()
    )
    return Config(
        agents=tuple(made),
        adapters={"scripted": Scripted()},
        state=state,
        environ={"PATH": "/usr/bin:/bin"},
    )


def notes(events: list[Event]) -> list[str]:
    return [event.update.text for event in events if isinstance(event.update, Notice)]


def trees(user: Path) -> int:
    return git(user, "worktree", "list", "--porcelain").count("worktree ")


async def test_a_run_leaves_a_branch_and_the_users_files_alone(user: Path, state: Path) -> None:
    write(user, {"a.txt": "mine\n", "x": "x", "y": "y"})
    before = fingerprint(user)
    events: list[Event] = []
    task = Task(
        prompt="Fix it", workspace=user, kind="fix", check="grep two a.txt && touch litter; pwd"
    )
    async with Supervisor(scripted_config(state, EDIT, say("done"), DONE)) as supervisor:
        outcome = await supervisor.run(task, events.append)
    assert (outcome.status, outcome.verified) == ("succeeded", True)
    assert outcome.changes is not None
    assert outcome.run_id is not None
    branch = f"orchestrate/task/task-{outcome.run_id[-8:]}"
    assert outcome.changes.branch == branch
    assert git(user, "rev-parse", branch) == outcome.changes.commit
    assert git(user, "ls-tree", "--name-only", branch) == "a.txt\nsrc"
    assert "+two" in (outcome.changes.diff or "")
    assert any(note.startswith("3 uncommitted files are not visible") for note in notes(events))
    assert fingerprint(user) == before
    assert trees(user) == 1
    (started,) = (one.update for one in events if isinstance(one.update, RunStarted))
    assert started.cwd == str(state / "trees" / outcome.run_id)
    record = read_record(state / "runs" / outcome.run_id)
    assert record.task.workspace == user
    assert record.tree is not None


async def test_isolation_none_works_in_the_folder_itself(user: Path, state: Path) -> None:
    async with Supervisor(scripted_config(state, EDIT, DONE)) as supervisor:
        outcome = await supervisor.run(Task(prompt="p", workspace=user, isolation="none"))
    assert (user / "a.txt").read_text() == "two\n"
    assert outcome.changes is not None
    assert outcome.changes.branch is None


async def test_work_of_a_failed_run_is_kept_on_its_branch(user: Path, state: Path) -> None:
    async with Supervisor(scripted_config(state, EDIT)) as supervisor:
        outcome = await supervisor.run(Task(prompt="p", workspace=user))
    assert outcome.status == "failed"
    assert outcome.changes is not None
    assert git(user, "show", f"{outcome.changes.branch}:a.txt") == "two"


@pytest.mark.parametrize("how", ["interrupt", "cancel"])
async def test_work_of_a_stopped_run_is_kept_and_its_work_tree_is_gone(
    user: Path, state: Path, how: str
) -> None:
    events: list[Event] = []
    config = scripted_config(state, EDIT, say("x"), {"hang": True})
    async with Supervisor(config) as supervisor, anyio.create_task_group() as group:
        group.start_soon(supervisor.run, Task(prompt="p", workspace=user), events.append)
        while not any(isinstance(event.update, Message) for event in events):
            await anyio.lowlevel.checkpoint()
        if how == "interrupt":
            supervisor.interrupt()
        else:
            group.cancel_scope.cancel()
    branch = git(user, "branch", "--list", "--format=%(refname:short)", "orchestrate/*")
    assert git(user, "show", f"{branch}:a.txt") == "two"
    assert trees(user) == 1
    assert list((state / "trees").iterdir()) == []


async def test_needs_chain_work_trees_and_a_conflict_ends_the_task(user: Path, state: Path) -> None:
    config = config_of(
        state,
        one=[{"edit": "a.txt", "old": "one", "new": "1"}, DONE],
        two=[{"edit": "src/b.txt", "old": "b", "new": "2"}, DONE],
        reads=[{"report": ["cwd"]}, say("seen"), DONE],
        odd=[{"edit": "a.txt", "old": "one", "new": "odd"}, DONE],
    )

    def task(id_: str, agent: str, *needs: str, check: str | None = None) -> Task:
        return Task(
            prompt="p", id=id_, name="job", workspace=user, agent=agent, needs=needs, check=check
        )

    file = TaskFile(
        name="job",
        tasks=(
            task("one", "one"),
            task("two", "two"),
            task("odd", "odd"),
            task("both", "reads", "one", "two", check="grep 1 a.txt && grep 2 src/b.txt"),
            task("after", "reads", "both", check="grep 1 a.txt && grep 2 src/b.txt"),
            task("clash", "reads", "one", "odd"),
            task("behind", "reads", "clash"),
        ),
    )
    async with Supervisor(config) as supervisor:
        outcome = await supervisor.run(file)
    found = {id_: one.status for id_, one in outcome.tasks.items()}  # type: ignore[attr-defined]
    assert found == {
        "one": "succeeded",
        "two": "succeeded",
        "odd": "succeeded",
        "both": "succeeded",
        "after": "succeeded",
        "clash": "conflict",
        "behind": "skipped",
    }
    assert "conflict in a.txt" in outcome.tasks["clash"].error.text  # type: ignore[attr-defined]
    assert trees(user) == 1
    assert list((state / "trees").iterdir()) == []


async def test_setup_runs_once_before_the_agent_and_its_output_is_kept(
    user: Path, state: Path
) -> None:
    events: list[Event] = []
    task = Task(
        prompt="p",
        workspace=user,
        setup="echo making; echo made > made; pwd",
        check="test -f made && grep secret .env.test",
        copy=(".env.test",),
        kind="fix",
    )
    write(user, {".env.test": "secret\n"})
    async with Supervisor(scripted_config(state, EDIT, DONE)) as supervisor:
        outcome = await supervisor.run(task, events.append)
    assert outcome.verified is True
    assert outcome.changes is not None
    assert outcome.changes.files == ["a.txt"]
    said_ = [one.update for one in events if isinstance(one.update, Output)]
    assert said_[0] == Output(stream="setup", text="making")


@pytest.mark.parametrize(
    ("setup", "said_"), [("exit 3", "failed (exit 3)"), ("sleep 60", "did not end in time")]
)
async def test_a_setup_that_fails_starts_no_agent(
    user: Path, state: Path, setup: str, said_: str
) -> None:
    events: list[Event] = []
    task = Task(prompt="p", workspace=user, setup=setup, limits=Limits(setup_s=1))
    async with Supervisor(scripted_config(state, EDIT, DONE)) as supervisor:
        outcome = await supervisor.run(task, events.append)
    assert outcome.status == "failed"
    assert outcome.error is not None
    assert outcome.error.kind == "setup_failed"
    assert said_ in outcome.error.text
    assert not any(isinstance(event.update, ProcessSpawned) for event in events)
    assert trees(user) == 1


async def test_deliver_apply_writes_uncommitted_changes(user: Path, state: Path) -> None:
    events: list[Event] = []
    before = fingerprint(user)
    async with Supervisor(scripted_config(state, EDIT, DONE)) as supervisor:
        task = Task(prompt="p", workspace=user, deliver="apply")
        outcome = await supervisor.run(task, events.append)
    assert outcome.status == "succeeded"
    assert git(user, "status", "--porcelain") == "M a.txt"
    changed = {path for path, what in fingerprint(user).items() if before.get(path) != what}
    assert changed == {"a.txt", ".git/index"}  # the index by the line above: git status itself
    assert any("applied to" in note for note in notes(events))


async def test_a_tree_that_is_not_clean_is_not_applied_to_and_the_next_command_is_told(
    user: Path, state: Path
) -> None:
    events: list[Event] = []
    write(user, {"src/b.txt": "mine\n"})
    async with Supervisor(scripted_config(state, EDIT, DONE)) as supervisor:
        task = Task(prompt="p", workspace=user, deliver="apply")
        outcome = await supervisor.run(task, events.append)
    assert outcome.status == "succeeded"
    assert outcome.run_id is not None
    assert (user / "a.txt").read_text() == "one\n"
    (note,) = (note for note in notes(events) if "not applied" in note)
    assert "uncommitted changes (src/b.txt)" in note
    assert f"orchestrate runs apply {outcome.run_id[-8:]}" in note


async def test_a_conflict_in_applying_is_the_outcome_and_touches_nothing(
    user: Path, state: Path
) -> None:
    events: list[Event] = []

    def commit_meanwhile(event: Event) -> None:
        if isinstance(event.update, Message):
            write(user, {"a.txt": "meanwhile\n"})
            git(user, "commit", "-qam", "Meanwhile")

    async with Supervisor(scripted_config(state, say("x"), EDIT, DONE)) as supervisor:
        task = Task(prompt="p", workspace=user, deliver="apply")
        outcome = await supervisor.run(task, events.append, commit_meanwhile)
    assert outcome.status == "conflict"
    assert outcome.error is not None
    assert "a.txt" in outcome.error.text
    assert "git merge orchestrate/" in (outcome.error.hint or "")
    assert git(user, "status", "--porcelain") == ""


async def test_only_leaves_are_applied_one_after_the_other(user: Path, state: Path) -> None:
    config = config_of(
        state,
        first=[{"write": "x", "text": "x\n"}, DONE],
        left=[{"edit": "a.txt", "old": "one", "new": "left"}, DONE],
        right=[{"edit": "src/b.txt", "old": "b", "new": "right"}, DONE],
    )
    ids = ("first", "left", "right")
    tasks = tuple(
        Task(
            prompt="p",
            id=id_,
            name="job",
            workspace=user,
            agent=id_,
            deliver="apply",
            needs=() if id_ == "first" else ("first",),
        )
        for id_ in ids
    )
    async with Supervisor(config) as supervisor:
        outcome = await supervisor.run(TaskFile(name="job", tasks=tasks))
    assert outcome.status == "succeeded"
    assert (user / "a.txt").read_text() == "left\n"
    assert (user / "src" / "b.txt").read_text() == "right\n"
    assert (user / "x").read_text() == "x\n"


async def test_a_resumed_run_goes_on_at_the_same_path_from_its_commit(
    user: Path, state: Path
) -> None:
    config = scripted_config(state, said(type="session", id="s"), {"report": ["cwd"]}, EDIT, DONE)
    async with Supervisor(config) as supervisor:
        first = await supervisor.run(Task(prompt="p", workspace=user))
        assert first.run_id is not None
        task, continued = supervisor.resumed(state / "runs" / first.run_id, "more")
        events: list[Event] = []
        second = await supervisor.run(task, events.append, continued=continued)
    assert first.changes is not None
    assert second.run_id is not None
    record = read_record(state / "runs" / second.run_id)
    assert record.tree is not None
    assert record.tree.path == state / "trees" / first.run_id
    assert record.tree.start == first.changes.commit
    assert second.changes is not None
    assert second.changes.files == []  # there was no `one` left to edit: it began where it ended
    assert list((state / "trees").iterdir()) == []


@pytest.mark.parametrize(
    ("made", "said_"),
    [("empty", "no commit yet"), ("bare", "bare repository"), ("plain", "no git repository")],
)
async def test_what_no_work_tree_can_be_made_from_is_wrong_input(
    tmp_path: Path, state: Path, made: str, said_: str
) -> None:
    folder = tmp_path / made
    folder.mkdir()
    if made != "plain":
        git(folder, "init", "-q", *(["--bare"] if made == "bare" else []))
    async with Supervisor(scripted_config(state, DONE)) as supervisor:
        with pytest.raises(InputError, match=said_):
            await supervisor.run(Task(prompt="p", workspace=folder, isolation="worktree"))
    assert not (state / "runs").exists()


_KILLED = """
import os, sys
from pathlib import Path
import anyio
from orchestrator.events import Message
from orchestrator.supervisor import Supervisor
from orchestrator.task import Task
from tests.scripted_adapter import say, scripted_config

def die(event):
    if isinstance(event.update, Message):
        os.kill(os.getpid(), 9)

async def main():
    steps = [{"edit": "a.txt", "old": "one", "new": "two"}, say("x"), {"hang": True}]
    async with Supervisor(scripted_config(Path(sys.argv[2]), *steps)) as supervisor:
        await supervisor.run(Task(prompt="Fix it", workspace=Path(sys.argv[1])), die)

anyio.run(main)
"""


async def killed(user: Path, state: Path) -> None:
    """A supervisor that is killed in the middle of a run."""
    root = Path(__file__).parents[2]
    argv = [sys.executable, "-c", _KILLED, str(user), str(state)]
    done = await anyio.run_process(argv, cwd=root, check=False, env={**os.environ})
    assert done.returncode == -signal.SIGKILL, done.stderr


def recovered(user: Path, state: Path) -> "subprocess.CompletedProcess[str]":
    config = user.parent / "scripted.toml"
    config.write_text('[agents.scripted]\nadapter = "jsonl"\nargv = ["true"]\n')
    env = {**os.environ, "ORCHESTRATE_STATE_DIR": str(state), "HOME": str(user.parent)}
    return commands.run("runs", "recover", "last", env=env, cwd=user)


async def pruned(state: Path, *, force: bool = False, dry_run: bool = False) -> list[Remain]:
    async with open_reaper() as reaper:
        desk = Desk(reaper=reaper, state=state, environ={})
        return await prune(desk, force=force, dry_run=dry_run)


async def test_after_kill_9_nothing_is_lost_and_prune_cleans_up(user: Path, state: Path) -> None:
    before = fingerprint(user)
    await killed(user, state)
    (tree,) = (state / "trees").glob("*[0-9a-f]")
    assert trees(user) == 2
    assert [one.removed for one in await pruned(state, dry_run=True)] == [False]
    assert tree.exists()
    done = recovered(user, state)
    shown = f"work tree {tree}: 1 changed file(s), +1 -1, in no branch yet"
    assert shown in done.stdout.splitlines(), done
    assert "orchestrate runs prune" in done.stderr
    assert tree.exists()
    (remain,) = await pruned(state)
    assert remain.removed
    branch = git(user, "branch", "--list", "--format=%(refname:short)", "orchestrate/*")
    assert remain.holds == f"1 changed file(s), now in {branch}"
    assert git(user, "show", f"{branch}:a.txt") == "two"
    assert trees(user) == 1
    assert list((state / "trees").iterdir()) == []
    assert "work tree" not in recovered(user, state).stdout
    assert fingerprint(user) == before
    assert await pruned(state) == []


async def test_prune_leaves_a_run_that_goes_on_alone(user: Path, state: Path) -> None:
    found: list[list[Remain]] = []
    async with (
        Supervisor(scripted_config(state, EDIT, say("x"), {"hang": True})) as supervisor,
        supervisor.stream(Task(prompt="p", workspace=user)) as events,
    ):
        async for event in events:
            if isinstance(event.update, Message):
                found.append(await pruned(state, force=True))
                break
    assert found == [[]]
    assert git(user, "branch", "--list", "orchestrate/*") != ""


async def test_what_prune_cannot_save_stays_until_it_is_forced(user: Path, state: Path) -> None:
    await killed(user, state)
    user.rename(user.with_name("moved"))
    (remain,) = await pruned(state)
    assert (remain.removed, "is gone" in remain.holds) == (False, True)
    (remain,) = await pruned(state, force=True)
    assert remain.removed
    assert not Path(remain.what).exists()


async def test_branches_of_runs_without_a_record_go_when_their_work_is_in_head(
    user: Path, state: Path
) -> None:
    async with Supervisor(scripted_config(state, EDIT, DONE)) as supervisor:
        outcome = await supervisor.run(Task(prompt="p", workspace=user))
    assert outcome.run_id is not None
    shutil.rmtree(state / "runs" / outcome.run_id)
    async with open_reaper() as reaper:
        desk = Desk(reaper=reaper, state=state, environ={})
        (kept,) = await prune(desk, here=user)
        assert not kept.removed
        git(user, "merge", "-q", kept.what)
        (gone,) = await prune(desk, here=user)
    assert gone.removed
    assert git(user, "branch", "--list", "orchestrate/*") == ""


async def test_diff_apply_and_discard_a_run(user: Path, state: Path) -> None:
    async with Supervisor(scripted_config(state, EDIT, DONE)) as supervisor:
        outcome = await supervisor.run(Task(prompt="p", workspace=user))
    folder = state / "runs" / (outcome.run_id or "")
    async with open_reaper() as reaper:
        desk = Desk(reaper=reaper, state=state, environ={})
        patch = await diff(desk, folder)
        assert b"-one\n+two" in patch
        assert await bring(desk, folder) == (user, ["a.txt"])
        assert (user / "a.txt").read_text() == "two\n"
        branch = outcome.changes.branch if outcome.changes else None
        git(user, "switch", "-q", "--ignore-other-worktrees", "-f", branch or "")
        with pytest.raises(InputError, match="is checked out"):
            await discard(desk, folder)
        git(user, "switch", "-qf", "main")
        assert await discard(desk, folder) == branch
        assert git(user, "branch", "--list", "orchestrate/*") == ""
        assert await diff(desk, folder) == patch  # it stays on record
        with pytest.raises(InputError, match="has no branch"):
            await bring(desk, folder)
