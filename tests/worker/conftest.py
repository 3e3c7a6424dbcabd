"""Where the queue is: a file, and a PostgreSQL that the tests start for themselves."""

from collections.abc import AsyncGenerator, Iterator
from pathlib import Path

import pytest

from orchestrator.worker.client import Client
from scripts.benches.cluster import Cluster, cluster, programs
from tests.worker.scene import Scene, scene


@pytest.fixture(scope="session")
def postgres() -> Iterator[Cluster]:
    if programs() is None:
        pytest.skip("PostgreSQL is not installed: apt-get install postgresql")
    with cluster() as started:
        yield started


@pytest.fixture(params=["sqlite", "postgresql"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path}/state/queue/queue.sqlite"
    made: Cluster = request.getfixturevalue("postgres")
    return made.url()


@pytest.fixture
def here(tmp_path: Path, url: str) -> Iterator[Scene]:
    with scene(tmp_path, url) as made:
        yield made


@pytest.fixture
async def client(here: Scene) -> AsyncGenerator[Client]:
    async with Client(here.url) as opened:
        yield opened
