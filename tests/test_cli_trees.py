"""The command line in a repository: run in a work tree, then diff, apply, discard, prune."""

from pathlib import Path

import pytest

from tests.test_cli import DONE, call, run, said
from tests.workspace.scene import fingerprint, git, repository, write

EDIT = {"edit": "a.txt", "old": "one", "new": "two"}


@pytest.fixture
def place(tmp_path: Path) -> Path:
    return repository(tmp_path / "work", {"a.txt": "one\n"})


def test_a_run_names_its_branch_and_the_next_command_and_leaves_the_rest_alone(
    place: Path,
) -> None:
    write(place, {"mine": "m"})
    before = fingerprint(place)
    done = run(place, EDIT, DONE, flags=("--kind", "fix"))
    assert done.returncode == 0, done.stderr
    (branch,) = (line.split()[1] for line in done.stdout.split("\n") if line.startswith("branch"))
    assert branch.startswith("orchestrate/task/task-")
    assert "orchestrate runs diff" in done.stdout
    assert "1 uncommitted file is not visible to the agent (--include-uncommitted" in done.stderr
    assert fingerprint(place) == before
    shown = call(place, "runs", "diff", "last")
    assert "-one\n+two\n" in shown.stdout
    assert git(place, "apply", "--check", stdin=shown.stdout.encode()) == ""


def test_uncommitted_files_go_along_when_asked_for(place: Path) -> None:
    write(place, {"a.txt": "one and more\n"})
    before = fingerprint(place)
    flags = ("--include-uncommitted", "--check", "grep 'two and more' a.txt")
    done = run(place, EDIT, DONE, flags=flags)
    assert done.returncode == 0, done.stderr
    assert "not visible" not in done.stderr
    assert fingerprint(place) == before


def test_isolation_none_and_deliver_apply_are_flags(place: Path) -> None:
    run(place, EDIT, DONE, flags=("--isolation", "none"))
    assert (place / "a.txt").read_text() == "two\n"
    git(place, "checkout", "-q", ".")
    run(place, EDIT, DONE, flags=("--deliver", "apply"))
    assert git(place, "status", "--porcelain") == "M a.txt"


def test_apply_refuses_a_changed_tree_then_applies_and_discard_asks(place: Path) -> None:
    run(place, EDIT, DONE)
    write(place, {"a.txt": "mine\n"})
    refused = call(place, "runs", "apply", "last")
    assert refused.returncode == 1
    assert "not applied" in refused.stderr
    assert "a.txt" in refused.stderr
    assert (place / "a.txt").read_text() == "mine\n"
    git(place, "commit", "-qam", "Mine")
    conflict = call(place, "runs", "apply", "last")
    assert conflict.returncode == 1
    assert "conflict in a.txt" in conflict.stderr
    git(place, "reset", "-q", "--hard", "HEAD^")
    applied = call(place, "runs", "apply", "last")
    assert (applied.returncode, applied.stdout) == (0, "a.txt\n")
    unasked = call(place, "runs", "discard", "last")
    assert unasked.returncode == 2
    assert "--yes" in unasked.stderr
    gone = call(place, "runs", "discard", "last", "--yes")
    assert gone.returncode == 0
    assert git(place, "branch", "--list", "orchestrate/*") == ""
    again = call(place, "runs", "apply", "last")
    assert again.returncode == 2
    assert "has no branch" in again.stderr


def test_prune_says_when_nothing_is_left(place: Path) -> None:
    run(place, EDIT, DONE)
    done = call(place, "runs", "prune")
    assert (done.returncode, done.stdout) == (0, "nothing is left over\n")


def test_a_repository_without_a_commit_is_refused_with_what_to_do(tmp_path: Path) -> None:
    folder = tmp_path / "work"
    folder.mkdir()
    git(folder, "init", "-q")
    write(folder, {"a.txt": "one\n"})
    done = run(folder, EDIT, DONE)
    assert done.returncode == 2
    assert "has no commit yet" in done.stderr
    assert "isolation: none" in done.stderr
    assert run(folder, EDIT, said("x"), DONE, flags=("--isolation", "none")).returncode == 0
