"""What is said of the guarantees is what this machine can do."""

import os
import resource
import subprocess
import sys

import pytest

from orchestrator.process import guarantees


def found() -> dict[str, bool]:
    return {one.name: one.holds for one in guarantees()}


def test_on_linux_trees_are_found_and_what_cannot_be_held_is_said_with_a_remedy():
    assert found() == {
        "trees": True,
        "numbers": True,
        "progress": True,
        "many": True,
        "other users": os.geteuid() == 0,
        "unknown orphans": False,
        "daemons": False,
    }
    assert all(one.remedy for one in guarantees() if not one.holds)


def test_elsewhere_it_is_said_what_process_groups_do_not_hold_and_what_to_do(monkeypatch):
    monkeypatch.setattr(sys, "platform", "darwin")
    held = {one.name: one for one in guarantees()}
    assert not any(held[name].holds for name in ("trees", "numbers", "all at once"))
    assert "darwin has no subreapers" in held["trees"].text
    assert "Linux" in (held["trees"].remedy or "")
    assert held["many"].holds


def test_a_low_limit_of_open_files_is_told_with_the_number_of_agents():
    program = (
        "from orchestrator.process import guarantees; "
        "print(next(one for one in guarantees() if one.name == 'many'))"
    )
    limit = f'ulimit -n 192 && exec {sys.executable} -c "{program}"'
    done = subprocess.run(["sh", "-c", limit], capture_output=True, text=True)
    assert "about 16 agents" in done.stdout, done.stderr
    assert "ulimit -n" in done.stdout


def test_a_kernel_without_handles_for_processes_is_told(monkeypatch):
    def refused(pid: int) -> int:
        raise OSError(38, "Function not implemented")

    monkeypatch.setattr(os, "pidfd_open", refused)
    trees = guarantees()[0]
    assert not trees.holds
    assert "no handles for processes: Function not implemented" in trees.text
    assert "pidfd_open" in (trees.remedy or "")


def test_a_shortage_of_descriptors_is_not_taken_for_a_system_that_has_no_handles(monkeypatch):
    def short(pid: int) -> int:
        raise OSError(24, "Too many open files")

    monkeypatch.setattr(os, "pidfd_open", short)
    assert found()["trees"]


@pytest.mark.parametrize("soft", [4096, 64])
def test_the_limit_is_read_each_time(monkeypatch, soft):
    monkeypatch.setattr(resource, "getrlimit", lambda _: (soft, soft))
    assert found()["many"] is (soft == 4096)
