"""Fifty tasks in one repository: their order, their trees, their ends, and nothing left over."""

import os
import signal
import sys
from collections.abc import Mapping
from pathlib import Path

import anyio
import pytest

from orchestrator.events import Event, JobFinished, JobOutcome, Outcome, RunFinished
from orchestrator.journal import list_runs, read_record
from orchestrator.process import open_reaper
from orchestrator.workspace.remains import Desk, Remain, prune
from tests.supervisor.fifty import (
    CUT_OFF,
    ancestors,
    expected,
    fifty,
    supervisor,
    tasks_in,
)
from tests.workspace.scene import fingerprint, git, repository

pytestmark = [pytest.mark.anyio, pytest.mark.timeout(120)]


@pytest.fixture
def user(tmp_path: Path) -> Path:
    return repository(tmp_path / "user")


def files_of(user: Path, branch: str) -> set[str]:
    names = git(user, "ls-tree", "--name-only", branch).split()
    return {name.removesuffix(".txt") for name in names} - {"a", "src"}


def branches(user: Path) -> dict[str, str]:
    """Our branches in the user's repository, by task."""
    listed = git(user, "branch", "--list", "--format=%(refname:short)", "orchestrate/*").split()
    return {branch.rpartition("/")[2].rpartition("-")[0]: branch for branch in listed}


def work_trees(user: Path) -> int:
    return git(user, "worktree", "list", "--porcelain").count("worktree ")


async def test_fifty_tasks_come_in_order_work_in_their_trees_and_end_as_they_must(
    user: Path, tmp_path: Path
) -> None:
    graph, state = fifty(), tmp_path / "state"
    assert len(graph) == 50
    before = fingerprint(user)
    async with supervisor(state) as running, running.stream(tasks_in(user)) as stream:
        events = [event async for event in stream]
    outcome = stream.outcome
    assert isinstance(outcome, JobOutcome)
    assert {id_: one.status for id_, one in outcome.tasks.items()} == expected(graph)
    assert_in_order(events, graph)
    done = {id_ for id_, one in outcome.tasks.items() if one.ok}
    assert branches(user) == {
        id_: one.changes.branch for id_, one in outcome.tasks.items() if id_ in done and one.changes
    }
    for id_, branch in branches(user).items():
        assert files_of(user, branch) == {id_} | ancestors(graph, id_)
        said = " ".join(f"did {need}" for need in graph[id_]) or "begin"
        assert prompt_of(state, outcome.tasks[id_]) == said
    ran = [one for one in outcome.tasks.values() if one.status != "skipped"]
    assert len(list_runs(state / "runs")) == len(ran)
    assert work_trees(user) == 1
    assert list((state / "trees").iterdir()) == []
    assert fingerprint(user) == before


async def test_after_kill_9_the_work_of_fifty_tasks_is_in_branches_and_prune_leaves_nothing(
    user: Path, tmp_path: Path
) -> None:
    graph, state = fifty(), tmp_path / "state"
    before = fingerprint(user)
    argv = [sys.executable, "-m", "tests.supervisor.fifty", str(user), str(state)]
    root = Path(__file__).parents[2]
    killed = await anyio.run_process(argv, cwd=root, check=False, env={**os.environ})
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    going = work_trees(user) - 1
    assert going >= len(CUT_OFF)
    removed = await pruned(state)
    assert [one.removed for one in removed] == [True] * going
    assert work_trees(user) == 1
    assert list((state / "trees").iterdir()) == []
    assert fingerprint(user) == before
    kept = branches(user)
    assert {*CUT_OFF, "root", "gather", "join0"} <= set(kept)
    for id_, branch in kept.items():
        assert files_of(user, branch) == {id_} | ancestors(graph, id_)
    assert await pruned(state) == []


async def pruned(state: Path) -> list[Remain]:
    async with open_reaper() as reaper:
        return await prune(Desk(reaper=reaper, state=state, environ={}))


def prompt_of(state: Path, outcome: Outcome) -> str:
    assert outcome.run_id is not None
    return read_record(state / "runs" / outcome.run_id).task.prompt


def assert_in_order(events: list[Event], graph: Mapping[str, tuple[str, ...]]) -> None:
    """A task begins after all that it needs and is skipped after some of it; its run is whole."""
    place = {(event.type, event.task_id): at for at, event in enumerate(events)}
    for id_, needs in graph.items():
        begun = place.get(("task.started", id_))
        ended = place["task.finished", id_]
        before = [
            place["task.finished", need] < (ended if begun is None else begun) for need in needs
        ]
        assert all(before) if begun is not None else any(before)
        of_it = [at for at, event in enumerate(events) if event.task_id == id_ and event.run_id]
        if begun is not None:
            assert begun < of_it[0]
            assert of_it[-1] < ended
            assert isinstance(events[of_it[-1]].update, RunFinished)
            seqs = [events[at].seq for at in of_it]
            assert seqs == list(range(1, len(seqs) + 1))
    assert isinstance(events[-1].update, JobFinished)
