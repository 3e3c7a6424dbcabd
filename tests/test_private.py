"""Our own files are nobody else's: 0600 in 0700, and no link that somebody planted is followed."""

import os
import stat
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from orchestrator import private
from orchestrator.errors import JournalError, OrchestrateError
from orchestrator.events import Outcome
from orchestrator.journal import (
    EVENTS,
    OUTCOME,
    STDOUT,
    TASK,
    Journal,
    follow_lines,
    list_runs,
    make_folder,
    read_lines,
    read_outcome,
    read_record,
    running,
    scrub,
    write_outcome,
)


def mode(path: Path) -> int:
    return stat.S_IMODE(path.lstat().st_mode)


def test_folders_and_their_parents_are_for_nobody_else(tmp_path: Path) -> None:
    made = private.folder(tmp_path / "a" / "b" / "c")
    assert [mode(made), mode(made.parent), mode(made.parent.parent)] == [0o700] * 3
    made.chmod(0o755)
    assert mode(private.folder(made)) == 0o700
    with pytest.raises(FileExistsError):
        private.folder(made, fresh=True)


def test_a_file_is_replaced_whole_and_a_link_in_its_place_too(tmp_path: Path) -> None:
    precious = tmp_path / "precious"
    precious.write_bytes(b"mine")
    (tmp_path / "file").symlink_to(precious)
    private.replace(tmp_path / "file", b"new")
    assert precious.read_bytes() == b"mine"
    assert not (tmp_path / "file").is_symlink()
    assert (mode(tmp_path / "file"), private.read(tmp_path / "file")) == (0o600, b"new")
    (tmp_path / "folder").mkdir()
    with pytest.raises(OSError, match="directory"):
        private.replace(tmp_path / "folder", b"new")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file", "folder", "precious"]


def _link(path: Path, target: Path) -> None:
    path.symlink_to(target)


def _pipe(path: Path, target: Path) -> None:
    del target
    os.mkfifo(path)


@pytest.mark.parametrize("plant", [_link, _pipe])
def test_what_somebody_planted_is_not_read(
    tmp_path: Path, plant: Callable[[Path, Path], None]
) -> None:
    secret = tmp_path / "secret"
    secret.write_bytes(b'{"status":"succeeded"}\n')
    run = make_folder(tmp_path / "runs", "run")
    for name in (EVENTS, TASK, OUTCOME, STDOUT):
        plant(run / name, secret)
    for read in (
        lambda: list(read_lines(run)),
        lambda: list(follow_lines(run)),
        lambda: read_record(run),
        lambda: read_outcome(run),
    ):
        with pytest.raises(JournalError, match=r"link|regular"):
            read()
    assert not running(run)
    scrub(run / STDOUT, ["succeeded"])
    assert secret.read_bytes() == b'{"status":"succeeded"}\n'


def test_an_outcome_replaces_a_planted_link(tmp_path: Path) -> None:
    precious = tmp_path / "precious"
    precious.write_bytes(b"mine")
    run = make_folder(tmp_path / "runs", "run")
    (run / OUTCOME).symlink_to(precious)
    write_outcome(run, Outcome(status="succeeded"))
    assert precious.read_bytes() == b"mine"
    found = read_outcome(run)
    assert found is not None
    assert found.status == "succeeded"


def test_a_journal_is_never_written_through_a_link(tmp_path: Path) -> None:
    run = make_folder(tmp_path / "runs", "run")
    (run / EVENTS).symlink_to(tmp_path / "elsewhere")
    with pytest.raises(JournalError, match="cannot make"):
        Journal(run)
    assert not (tmp_path / "elsewhere").exists()


def test_a_folder_of_runs_that_is_a_link_is_refused(tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    (tmp_path / "runs").symlink_to(tmp_path / "other")
    with pytest.raises(OrchestrateError, match="link"):
        make_folder(tmp_path / "runs", "run")
    with pytest.raises(OrchestrateError, match="link"):
        list_runs(tmp_path / "runs")
    assert list((tmp_path / "other").iterdir()) == []


def test_a_run_that_is_a_link_is_not_listed(tmp_path: Path) -> None:
    elsewhere = make_folder(tmp_path / "elsewhere", "run")
    (elsewhere / TASK).write_bytes(b"{}")
    make_folder(tmp_path / "runs", "real").joinpath(TASK).write_bytes(b"{}")
    (tmp_path / "runs" / "run").symlink_to(elsewhere)
    assert [path.name for path in list_runs(tmp_path / "runs")] == ["real"]


AS_ANOTHER = """
import os, sys
from pathlib import Path
from orchestrator import private
os.seteuid(54321)
try:
    private.checked(Path("theirs"))
except PermissionError as error:
    sys.exit(error.strerror)
"""


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a folder to another user")
def test_a_folder_of_another_user_is_refused_but_root_may_use_it(tmp_path: Path) -> None:
    theirs = private.folder(tmp_path / "theirs")
    os.chown(theirs, 12345, 12345)
    assert private.folder(theirs) == theirs
    tmp_path.chmod(0o711)
    done = subprocess.run(
        [sys.executable, "-c", AS_ANOTHER], cwd=tmp_path, capture_output=True, text=True
    )
    assert (done.returncode, done.stderr.strip()) == (1, "it belongs to another user")
