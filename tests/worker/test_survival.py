"""What happens to jobs when workers freeze, lose their lease or end, and when databases do."""

import signal
import subprocess
from dataclasses import replace

import anyio
import psycopg
import pytest

from orchestrator.worker.client import Client
from scripts.benches.cluster import Cluster
from tests.worker.scene import Scene, until

pytestmark = [pytest.mark.anyio, pytest.mark.timeout(150)]

only_sqlite = pytest.mark.parametrize("url", ["sqlite"], indirect=True)
only_postgresql = pytest.mark.parametrize("url", ["postgresql"], indirect=True)


@only_postgresql
async def test_nobody_takes_the_job_of_a_worker_that_is_only_frozen(
    here: Scene, client: Client
) -> None:
    first = await here.worker()
    script = f"echo ran >>{here.work}/ran; while ! test -e {here.work}/free; do sleep 0.1; done"
    job = await client.submit(here.task(script, recovery="restart"))
    await until((here.work / "ran").exists)
    first.send_signal(signal.SIGSTOP)
    await here.worker()
    for word in ("one", "two"):  # the other one works, and looks after the dead meanwhile
        other = await client.submit(here.task(f"echo {word}; sleep 1"))
        assert (await client.wait(other)).ok
    assert (await client.entry(job)).attempts == 1
    (here.work / "free").touch()
    first.send_signal(signal.SIGCONT)
    assert (await client.wait(job)).ok
    assert (here.work / "ran").read_text() == "ran\n"


@only_postgresql
async def test_a_worker_whose_lease_is_ended_ends_its_agents(here: Scene, client: Client) -> None:
    first = await here.worker()
    mark = "617.25"
    job = await client.submit(here.task(f"sleep {mark}"))
    await until(lambda: here.alive(mark))
    with psycopg.connect(here.url, autocommit=True) as server:
        server.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
            " WHERE application_name = 'orchestrate-lease'"
        )
    await until(lambda: first.poll() is not None)
    assert first.returncode == 3
    assert not here.alive(mark)
    await here.worker()
    assert (await client.wait(job)).status == "interrupted"


@only_postgresql
async def test_a_restart_of_the_database_loses_nothing(
    here: Scene, client: Client, postgres: Cluster
) -> None:
    await here.worker()
    script = f"echo ran >>{here.work}/ran; while ! test -e {here.work}/free; do sleep 0.1; done"
    running = await client.submit(here.task(script))
    await until((here.work / "ran").exists)
    waiting = await client.submit(here.task("true"))
    postgres.stop()
    postgres.start()
    (here.work / "free").touch()
    assert (await client.wait(running)).ok
    assert (await client.wait(waiting)).ok
    assert (here.work / "ran").read_text() == "ran\n"


@only_postgresql
async def test_without_its_database_a_client_can_give_up_and_a_worker_can_end(
    here: Scene, client: Client, postgres: Cluster
) -> None:
    worker = await here.worker()
    job = await client.submit(here.task("true"))
    assert (await client.wait(job)).ok
    postgres.stop()
    try:
        for asked in (client.submit(here.task("true")), client.wait(job)):
            with anyio.move_on_after(0.5) as scope:
                await asked
            assert scope.cancelled_caught
        worker.send_signal(signal.SIGTERM)
        await until(lambda: worker.poll() is not None)
    finally:
        postgres.start()
    assert worker.returncode == 0
    assert (await client.wait(job)).ok


@only_postgresql
async def test_the_words_of_a_killed_worker_s_agent_may_be_any(here: Scene, client: Client) -> None:
    first = await here.worker()
    mark = "619.25"
    said = """printf '{"type": "said", "text": "%s"}' 'a\\u0000b'; echo; sleep """
    job = await client.submit(here.task(f"{said}{mark}", id="job"))
    await until(lambda: here.alive(mark))
    first.kill()
    first.wait()
    await here.ask("worker", "--drain")
    outcome = await client.wait(job)
    assert (outcome.status, outcome.tasks["job"].text) == ("interrupted", "a\ufffdb")


@only_sqlite
async def test_a_worker_that_drains_looks_after_what_a_dead_one_left(
    here: Scene, client: Client
) -> None:
    first = await here.worker()
    mark = "618.25"
    job = await client.submit(here.task(f"sleep {mark}"))
    await until(lambda: here.alive(mark))
    first.kill()
    first.wait()
    await here.ask("worker", "--drain")
    assert (await client.entry(job)).over
    assert (await client.wait(job)).status == "interrupted"


@only_sqlite
async def test_the_agent_s_own_session_goes_on_in_its_own_work_tree(
    here: Scene, client: Client
) -> None:
    git = ["git", "-C", str(here.work), "-c", "user.name=x", "-c", "user.email=x@example.com"]
    for words in (["init", "-q"], ["commit", "-q", "--allow-empty", "-m", "first"]):
        subprocess.run([*git, *words], check=True)
    first = await here.worker()
    mark = "618.25"
    script = f"echo half >half; sleep {mark}"
    task = replace(here.task(script, recovery="resume"), isolation="worktree")
    job = await client.submit(task)
    await until(lambda: here.alive(mark))
    await here.worker()
    first.kill()
    outcome = await client.wait(job)
    assert outcome.ok, outcome
    assert (here.folder / "resumed").read_text() == "s-1\nhalf\n"  # what was half done is there
    before, after = (here.folder / "places").read_text().split()
    assert before == after != str(here.work)


@only_sqlite
@pytest.mark.parametrize("first", [signal.SIGTERM, signal.SIGHUP], ids=["term", "closed"])
async def test_the_first_signal_lets_jobs_end_and_the_second_stops_them(
    here: Scene, client: Client, first: signal.Signals
) -> None:
    worker = await here.worker()
    mark = "619.25"
    job = await client.submit(here.task(f"sleep {mark}"))
    await until(lambda: here.alive(mark))
    worker.send_signal(first)
    log = here.folder / "worker-0.log"
    await until(lambda: "no further jobs" in log.read_text())
    later = await client.submit(here.task("true"))
    worker.send_signal(signal.SIGTERM)
    assert (await client.wait(job)).status == "interrupted"
    await until(lambda: worker.poll() is not None)
    assert worker.returncode == 0
    assert (await client.entry(later)).state == "waiting"
