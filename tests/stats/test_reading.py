"""Reading records: as the program writes them, broken ones told, none dropped."""

import fcntl
import subprocess
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest

from orchestrator.errors import JournalError
from orchestrator.events import (
    Message,
    Outcome,
    ProcessExited,
    ProcessSpawned,
    ThoughtDelta,
    ToolCall,
    Update,
    Usage,
)
from orchestrator.journal import Tree, make_folder, read_record, write_record
from orchestrator.stats.reading import HEAD, read_jobs, read_run, read_runs, repository_of
from orchestrator.task import Task
from tests.stats import records
from tests.stats.records import LOCAL, START, id_at

USAGE = Usage(input_tokens=10, output_tokens=20, cost_usd=0.5, cost_source="agent", scope="run")
DONE = Outcome(status="succeeded", verified=True, usage=USAGE, model="served", duration_s=4.5)


def only(state: Path):
    (run,) = read_runs(state / "runs")
    return run


def test_a_run_is_read_as_it_was_written(tmp_path):
    folder = records.run(tmp_path, 0, agent=LOCAL, job="job", outcome=DONE)
    run = only(tmp_path)
    assert run.run_id == folder.name
    assert (run.state, run.status, run.ok, run.verified) == ("ended", "succeeded", True, True)
    assert (run.agent, run.model, run.tier, run.kind) == ("desk", "served", "local", "fix")
    assert (run.server, run.day) == ("http://127.0.0.1:11434", "2026-09-21")
    assert (run.work, run.usage, run.duration_s) == (("job", "task"), USAGE, 4.5)
    assert run.problem is None


def test_a_success_that_the_check_denies_is_none(tmp_path):
    records.run(tmp_path, 0, outcome=Outcome(status="succeeded", verified=False))
    assert (only(tmp_path).ok, only(tmp_path).verified) == (False, False)


def test_a_local_run_that_tells_no_usage_still_costs_nothing(tmp_path):
    records.run(tmp_path, 0, agent=LOCAL, outcome=Outcome(status="failed"))
    records.run(tmp_path, 1, agent=LOCAL)
    records.run(tmp_path, 2, outcome=Outcome(status="failed"))
    usages = [run.usage for run in read_runs(tmp_path / "runs")]
    assert [usage and (usage.input_tokens, usage.cost_usd) for usage in usages] == [
        (None, 0.0),
        (None, 0.0),
        None,
    ]


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b'"x"', b"\xff", b"{}", b'{"status": 3}'])
def test_a_broken_outcome_is_told_and_keeps_its_agent(tmp_path, content):
    folder = records.run(tmp_path, 0)
    (folder / "outcome.json").write_bytes(content)
    run = only(tmp_path)
    assert (run.state, run.agent, run.ok) == ("unreadable", "cloud", False)
    assert run.problem is not None
    assert run.problem.startswith("outcome.json: ")


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"\xff"])
def test_a_broken_record_is_told(tmp_path, content):
    folder = records.run(tmp_path, 0, outcome=DONE)
    (folder / "task.json").chmod(0o600)
    (folder / "task.json").write_bytes(content)
    run = only(tmp_path)
    assert (run.state, run.agent) == ("unreadable", None)
    assert run.problem is not None
    assert run.problem.startswith("task.json: ")


def test_fields_of_other_types_are_unknown_and_nothing_else_is(tmp_path):
    folder = records.run(tmp_path, 0)
    (folder / "task.json").write_bytes(b'{"task": 1, "agent": {"name": 2, "tier": "mars"}}')
    (folder / "outcome.json").write_bytes(
        b'{"status": "failed", "usage": {"input_tokens": "many", "output_tokens": true,'
        b' "cost_usd": "x", "cost_source": "y"}, "duration_s": true, "verified": "yes"}'
    )
    run = only(tmp_path)
    assert (run.state, run.status, run.verified) == ("ended", "failed", None)
    assert (run.agent, run.tier, run.kind, run.duration_s) == (None, None, None, None)
    assert run.usage == Usage(scope="run")


def test_a_run_without_an_outcome_goes_on_or_was_cut_off(tmp_path):
    folder = records.run(tmp_path, 0)
    assert only(tmp_path).state == "cut off"
    with (folder / "events.jsonl").open("rb") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        assert only(tmp_path).state == "running"


def test_a_folder_that_a_crash_left_without_a_record_is_counted(tmp_path):
    make_folder(tmp_path / "runs", id_at(0))
    assert (only(tmp_path).state, only(tmp_path).problem) == ("cut off", "no task.json")


def test_without_its_journal_a_run_has_no_times_and_that_is_told(tmp_path):
    folder = records.run(tmp_path, 0, outcome=DONE)
    (folder / "events.jsonl").unlink()
    run = only(tmp_path)
    assert (run.state, run.first_token_s) == ("ended", None)
    assert run.problem == "events.jsonl: No such file or directory"


def test_what_is_no_run_is_nobodys_run(tmp_path):
    assert list(read_runs(tmp_path / "runs")) == []
    (tmp_path / "runs" / "notes").mkdir(parents=True)
    (tmp_path / "runs" / id_at(0)).write_text("a file")
    (tmp_path / "runs" / id_at(1)).symlink_to(tmp_path)
    assert list(read_runs(tmp_path / "runs")) == []


def test_a_folder_that_cannot_be_listed_is_an_error(tmp_path):
    (tmp_path / "runs").write_text("a file")
    with pytest.raises(JournalError, match=r"cannot read .*runs: Not a directory"):
        list(read_runs(tmp_path / "runs"))


def test_since_takes_the_runs_that_began_then_and_opens_no_other(tmp_path):
    old = records.run(tmp_path, 0, outcome=DONE)
    (old / "task.json").unlink()
    new = records.run(tmp_path, 10, outcome=DONE)
    since = datetime.fromtimestamp(START + 10, UTC)
    assert [run.run_id for run in read_runs(tmp_path / "runs", since)] == [new.name]


# --- times ----------------------------------------------------------------------------------------

SPAWNED, EXITED = ProcessSpawned(pid=1), ProcessExited(pid=1, status=0)
HELLO = Message(text="hello", id="1")


def call(id_: str, status) -> ToolCall:
    return ToolCall(id=id_, status=status, title='"type":"message","time":"x"\n{"v":1}')


def test_times_count_from_the_program_s_start_and_leave_out_tools(tmp_path):
    said: list[tuple[float, Update]] = [
        (1.0, SPAWNED),
        (1.5, Message(text="the prompt, echoed", role="user")),
        (3.25, ThoughtDelta(text="hm")),
        (3.5, HELLO),
        (4.0, call("a", "in_progress")),
        (4.5, call("b", "pending")),
        (4.75, call("b", "in_progress")),
        (6.0, call("a", "completed")),
        (8.0, call("b", "failed")),
        (9.0, call("c", "completed")),
        (11.0, EXITED),
    ]
    records.run(tmp_path, 0, outcome=DONE, said=said)
    run = only(tmp_path)
    assert (run.first_token_s, run.model_s) == (2.25, 10.0 - 4.0)


@pytest.mark.parametrize("said", [[], [(0.0, SPAWNED), (1.0, EXITED)], [(0.0, HELLO)]])
def test_without_a_start_or_a_word_there_are_no_times(tmp_path, said):
    records.run(tmp_path, 0, outcome=DONE, said=said)
    assert (only(tmp_path).first_token_s, only(tmp_path).model_s) == (None, None)


def test_of_a_long_journal_only_the_beginning_is_read(tmp_path):
    long = Message(text="x" * HEAD)
    said: list[tuple[float, Update]]
    said = [(0.0, SPAWNED), (1.0, HELLO), (2.0, long), (3.0, EXITED)]
    records.run(tmp_path, 0, outcome=DONE, said=said)
    assert (only(tmp_path).first_token_s, only(tmp_path).model_s) == (1.0, None)


# --- jobs -----------------------------------------------------------------------------------------


def test_jobs_tell_of_tasks_that_came_to_no_run(tmp_path):
    tasks = {
        "a": Outcome(status="failed", run_id="1"),
        "b": Outcome(status="skipped"),
        "c": Outcome(status="unroutable"),
    }
    records.job(tmp_path, 0, tasks, "failed")
    records.job(tmp_path, 1, {"a": DONE}, "succeeded")
    records.job(tmp_path, 2, None, "")
    broken = records.job(tmp_path, 3, None, "")
    (broken / "outcome.json").write_bytes(b"{")
    jobs = read_jobs(tmp_path / "jobs")
    assert jobs.statuses == {"cut off": 1, "failed": 1, "succeeded": 1, "unreadable": 1}
    assert jobs.without_run == {"skipped": 1, "succeeded": 1, "unroutable": 1}
    assert [name for name, _ in jobs.problems] == [broken.name]


# --- which repository -----------------------------------------------------------------------------


def git(folder: Path, *arguments: str) -> None:
    setting = ("-c", "user.name=t", "-c", "user.email=t@localhost", "-c", "commit.gpgSign=false")
    subprocess.run(["git", *setting, *arguments], cwd=folder, check=True, capture_output=True)


def test_all_work_trees_of_a_repository_are_one(tmp_path):
    main, other = tmp_path / "main", tmp_path / "other"
    main.mkdir()
    git(main, "init", "-q")
    git(main, "commit", "-q", "--allow-empty", "-m", "one")
    git(main, "worktree", "add", "-q", str(other))
    (main / "deep" / "er").mkdir(parents=True)
    found = {repository_of(str(place), "-") for place in (main, main / "deep" / "er", other)}
    assert found == {str(main)}


def test_a_bare_repository_s_work_trees_are_one_too(tmp_path):
    main, bare = tmp_path / "main", tmp_path / "bare.git"
    main.mkdir()
    git(main, "init", "-q")
    git(main, "commit", "-q", "--allow-empty", "-m", "one")
    git(tmp_path, "clone", "-q", "--bare", str(main), str(bare))
    git(bare, "worktree", "add", "-q", str(tmp_path / "a"))
    assert repository_of(str(tmp_path / "a"), "-") == str(bare)


def test_a_submodule_and_a_strange_git_file_are_their_own_folder(tmp_path):
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / ".git").write_text("gitdir: ../.git/modules/sub\n")
    assert repository_of(str(tmp_path / "sub"), "-") == str(tmp_path / "sub")
    (tmp_path / "strange").mkdir()
    (tmp_path / "strange" / ".git").write_bytes(b"\xff")
    assert repository_of(str(tmp_path / "strange"), "-") == str(tmp_path / "strange")


def test_a_folder_that_is_gone_is_its_own():
    assert repository_of("/nonexistent/gone", "-") == "/nonexistent/gone"


def test_a_folder_that_is_only_called_git_makes_no_repository(tmp_path):
    git(tmp_path, "init", "-q")
    (tmp_path / "work" / ".git").mkdir(parents=True)
    assert repository_of(str(tmp_path / "work"), "-") == str(tmp_path)


def test_scratch_copies_of_one_template_belong_together(tmp_path):
    scratch = tmp_path / "scratch"
    names = {
        repository_of(str(scratch / f"toy-{end}"), str(scratch)) for end in ("0123abcd", "a" * 8)
    }
    assert names == {"scratch:toy"}


def test_a_run_in_a_work_tree_of_its_own_is_its_repository_s(tmp_path):
    (tmp_path / "repo").mkdir()
    git(tmp_path / "repo", "init", "-q")
    gone = tmp_path / "trees" / "x"
    folder = records.run(tmp_path, 0, task=Task(prompt="-", workspace=gone), outcome=DONE)
    tree = Tree(
        path=gone,
        repository=tmp_path / "repo",
        inside="",
        start="0",
        upon="0",
        branch="orchestrate/x",
    )
    write_record(folder, replace(read_record(folder), tree=tree))
    assert read_run(folder, tmp_path / "scratch").repository == str(tmp_path / "repo")
