"""Records on the command line: what was cut off is completed, what is old goes, the rest stays."""

import os
import subprocess
import time
from dataclasses import replace
from pathlib import Path

import pytest

from orchestrator.adapter import Agent
from orchestrator.cleaning import old, remove
from orchestrator.events import Outcome
from orchestrator.journal import (
    OUTCOME,
    TASK,
    JobRecord,
    Journal,
    Record,
    list_runs,
    make_folder,
    read_outcome,
    read_record,
    write_job,
    write_outcome,
    write_record,
)
from orchestrator.run.recorder import new_run_id
from orchestrator.task import Source, Task
from orchestrator.workspace.source import cache_of
from tests import commands

DAY = 86400.0


def age(path: Path, days: float) -> None:
    then = time.time() - days * DAY
    os.utime(path, (then, then))


def made(
    state: Path, *, days: float, size: int = 0, over: bool = True, home: Path | None = None
) -> Path:
    """A run that ended some days ago."""
    run_id = new_run_id()
    folder = make_folder(state / "runs", run_id)
    home = home or folder / "home"
    agent = Agent(name="codex", adapter="codex", home=str(home))
    task = Task(prompt="p", workspace=state)
    write_record(
        folder, Record(run_id=run_id, started="2026-01-02T03:04:05Z", task=task, agent=agent)
    )
    home.mkdir(exist_ok=True)
    (home / "session").write_bytes(b"x" * size)
    with Journal(folder):
        pass
    if over:
        write_outcome(folder, Outcome(status="failed", run_id=run_id))
        age(folder / OUTCOME, days)
    return folder


def job(state: Path, *, days: float, of: Path | None = None, over: bool = True) -> Path:
    """A job that ended some days ago, and had this run."""
    job_id = new_run_id()
    folder = make_folder(state / "jobs", job_id)
    write_job(folder, JobRecord(job_id=job_id, started="2026-01-02T03:04:05Z", tasks=()))
    with Journal(folder):
        pass
    if over:
        (folder / OUTCOME).write_text("{}")
        age(folder / OUTCOME, days)
    if of is not None:
        write_record(of, replace(read_record(of), job_id=job_id))
    return folder


def gone(state: Path, *, days: float = 30, keep: int = 2**60) -> set[str]:
    found = old(state, older_s=days * DAY, keep_bytes=keep, now=time.time())
    return {one.name for one in found if remove(one)}


def test_runs_that_ended_long_ago_go_with_all_that_was_theirs(tmp_path):
    first, second = made(tmp_path, days=40), made(tmp_path, days=10)
    scratch = tmp_path / "scratch" / f"job-{first.name[-8:]}"
    (scratch / "sub").mkdir(parents=True)
    (scratch / "sub").chmod(0o500)
    (tmp_path / "outside").write_text("stays")
    (first / "home" / "link").symlink_to(tmp_path / "outside")
    assert gone(tmp_path) == {first.name}
    assert list_runs(tmp_path / "runs") == [second]
    assert not scratch.exists()
    assert (tmp_path / "outside").read_text() == "stays"


def test_the_oldest_go_until_the_rest_fits(tmp_path):
    runs = [made(tmp_path, days=days, size=10**6) for days in (5, 4, 3, 2)]
    assert gone(tmp_path, keep=2_200_000) == {runs[0].name, runs[1].name}
    assert gone(tmp_path, keep=2_200_000) == set()


def test_what_is_running_or_was_cut_off_or_is_still_needed_stays(tmp_path):
    cut_off = made(tmp_path, days=0, over=False)
    first = made(tmp_path, days=90)
    made(tmp_path, days=1, home=first / "home")  # goes on in the first one's session
    tree = made(tmp_path, days=90)
    (tmp_path / "trees" / tree.name).mkdir(parents=True)
    assert gone(tmp_path) == set()
    with Journal.reopen(cut_off) or pytest.fail("in use"):
        assert gone(tmp_path, days=0, keep=0) & {cut_off.name, first.name, tree.name} == set()


def test_a_run_that_somebody_opens_in_that_moment_stays(tmp_path):
    folder = made(tmp_path, days=90)
    (found,) = old(tmp_path, older_s=DAY, keep_bytes=2**60, now=time.time())
    with Journal.reopen(folder) or pytest.fail("in use"):
        assert not remove(found)
    assert read_outcome(folder) is not None


def test_what_a_crash_left_of_a_removal_goes_the_next_time(tmp_path):
    folder = made(tmp_path, days=90)
    (folder / "task.json").unlink()
    age(folder, 2)
    assert gone(tmp_path) == {folder.name}
    assert not folder.exists()


def test_what_a_crash_left_of_a_look_at_a_folder_goes_after_a_day(tmp_path):
    for name, days in (("old", 2.0), ("fresh", 0.5)):
        store = tmp_path / "looks" / name
        (store / "objects").mkdir(parents=True)
        moment = time.time() - days * DAY
        os.utime(store, (moment, moment))
    assert gone(tmp_path) == {"old"}
    assert [path.name for path in (tmp_path / "looks").iterdir()] == ["fresh"]


def test_a_job_goes_when_it_is_old_and_its_runs_are_gone(tmp_path):
    fresh, lonely = job(tmp_path, days=1), job(tmp_path, days=40)
    with_run = job(tmp_path, days=40, of=made(tmp_path, days=10))
    old_run = made(tmp_path, days=35)
    with_old_run = job(tmp_path, days=35, of=old_run)
    cut_off, going_on = job(tmp_path, days=40, over=False), job(tmp_path, days=40)
    tree = tmp_path / "trees" / "of-nobody"
    tree.mkdir(parents=True)
    age(tree, 400)
    with Journal.reopen(going_on) or pytest.fail("in use"):
        assert gone(tmp_path) == {lonely.name, old_run.name, with_old_run.name}
    assert set((tmp_path / "jobs").iterdir()) == {fresh, with_run, cut_off, going_on}
    assert tree.exists(), "work trees are for `runs prune`"


def run(state: Path, *argv: str) -> "subprocess.CompletedProcess[str]":
    env = {**os.environ, "ORCHESTRATE_STATE_DIR": str(state)}
    return commands.run("runs", *argv, env=env)


def test_a_fetched_repository_goes_when_it_is_old_and_its_runs_are_gone(tmp_path):
    used, other = Source(url="https://h/used.git"), Source(url="https://h/other.git")
    for source in (used, other):
        cache_of(source, tmp_path).mkdir(parents=True)
        age(cache_of(source, tmp_path), 40)
    run = made(tmp_path, days=2)
    record = read_record(run)
    write_record(run, replace(record, task=replace(record.task, source=used)))

    def going(older: float) -> list[str]:
        return [one.name for one in old(tmp_path, older_s=older, keep_bytes=10**9, now=time.time())]

    assert going(30 * DAY) == [cache_of(other, tmp_path).name]
    assert going(50 * DAY) == []
    whole = (run / TASK).read_bytes()
    (run / TASK).write_bytes(b"{")  # nobody knows which repository that is of
    assert going(30 * DAY) == []
    (run / TASK).write_bytes(whole)
    assert going(DAY) == [run.name, *sorted(cache_of(one, tmp_path).name for one in (used, other))]
    age(cache_of(used, tmp_path), 0)  # somebody fetched it just now, for a run that is to begin
    assert cache_of(used, tmp_path).name not in going(0)


def test_a_cut_off_run_is_shown_so_and_recovered_by_name_or_all(tmp_path):
    folder = made(tmp_path, days=0, over=False)
    shown = run(tmp_path, "list")
    assert "cut off" in shown.stdout
    assert "orchestrate runs recover --all" in shown.stderr
    done = run(tmp_path, "recover", folder.name)
    assert done.returncode == 0, done.stderr
    assert "interrupted" in done.stdout
    assert run(tmp_path, "recover", "--all").stdout == ""
    assert "interrupted" in run(tmp_path, "list").stdout


@pytest.mark.parametrize(
    "argv",
    [
        ["recover"],
        ["recover", "last", "--all"],
        ["gc", "--older", "soon"],
        ["gc", "--keep-bytes", "much"],
    ],
)
def test_wrong_flags_are_wrong_input(tmp_path, argv):
    done = run(tmp_path, *argv)
    assert done.returncode == 2
    assert done.stderr.startswith("orchestrate: ")


def test_a_dry_run_removes_nothing(tmp_path):
    folder = made(tmp_path, days=40, size=10**6)
    done = run(tmp_path, "gc", "--dry-run")
    assert folder.name in done.stdout
    assert "would be freed" in done.stdout
    assert folder.exists()
    assert "freed" in run(tmp_path, "gc", "--older", "30d").stdout
    assert not folder.exists()
    assert run(tmp_path, "gc").stdout == "nothing to remove\n"


def test_an_unreadable_run_is_left_alone(tmp_path):
    folder = made(tmp_path, days=90)
    (folder / OUTCOME).write_text("{")
    assert gone(tmp_path) == set()
