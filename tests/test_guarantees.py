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
        "pidfd": True,
        "many": True,
        "other users": os.geteuid() == 0,
        "unknown orphans": False,
        "daemons": False,
    }
    assert all(one.remedy for one in guarantees() if not one.holds)


def test_elsewhere_it_is_said_that_nothing_is_started(monkeypatch):
    monkeypatch.setattr(sys, "platform", "darwin")
    (only,) = guarantees()
    assert not only.holds
    assert "darwin" in only.text
    assert only.remedy


def test_a_low_limit_of_open_files_is_told_with_the_number_of_agents():
    program = (
        "from orchestrator.process import guarantees; "
        "print(next(one for one in guarantees() if one.name == 'many'))"
    )
    limit = f'ulimit -n 128 && exec {sys.executable} -c "{program}"'
    done = subprocess.run(["sh", "-c", limit], capture_output=True, text=True)
    assert "about 16 agents" in done.stdout, done.stderr
    assert "ulimit -n" in done.stdout


def test_a_kernel_without_handles_for_processes_is_told(monkeypatch):
    def refused(pid: int) -> int:
        raise OSError(38, "Function not implemented")

    monkeypatch.setattr(os, "pidfd_open", refused)
    assert not found()["pidfd"]


@pytest.mark.parametrize("soft", [4096, 64])
def test_the_limit_is_read_each_time(monkeypatch, soft):
    monkeypatch.setattr(resource, "getrlimit", lambda _: (soft, soft))
    assert found()["many"] is (soft == 4096)
