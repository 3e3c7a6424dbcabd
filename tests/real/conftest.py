"""Each real agent is asked for its version once, and not by every test: that takes some of them
seconds.
"""

import os
from collections.abc import Generator
from pathlib import Path

import pytest

from orchestrator import private


@pytest.fixture(autouse=True)
def _versions_are_known(
    tmp_path: Path, tmp_path_factory: pytest.TempPathFactory
) -> Generator[None]:
    """The state folder of a test has the versions that others asked for, and keeps its own."""
    base = tmp_path_factory.getbasetemp()  # of this worker, below that of all
    known = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / "versions"
    own = tmp_path / "state" / "versions"
    _copy(known, own)
    yield
    _copy(own, known)


def _copy(source: Path, target: Path) -> None:
    if not source.is_dir():
        return
    private.folder(target)
    for file in source.glob("[!.]*"):
        if not (target / file.name).exists():
            private.replace(target / file.name, file.read_bytes())
