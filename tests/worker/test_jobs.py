"""Jobs from the queue to their outcome, with real workers and real agents, on both databases."""

import json
import signal

import pytest

from orchestrator.worker.client import Client
from tests.worker.scene import Scene, until

pytestmark = [pytest.mark.anyio, pytest.mark.timeout(100)]

# Each command and each worker loads the engine: where the database makes no difference that
# test_chaos.py does not look at on both, one is enough.
only_sqlite = pytest.mark.parametrize("url", ["sqlite"], indirect=True)
only_postgresql = pytest.mark.parametrize("url", ["postgresql"], indirect=True)

TASK = """\
agent: shell
kind: search
workspace: work
prompt: |
  echo '{"type": "said", "text": "hello"}'
"""


@only_sqlite
def test_what_was_submitted_is_looked_at_as_what_is_run_here(here: Scene) -> None:
    (here.folder / "task.yaml").write_text(TASK)
    job = here.said("submit", "task.yaml")
    assert here.said("runs", "show", job).startswith(f"job        {job}\nstate      waiting")
    here.said("worker", "--drain")
    told = here.said("runs", "follow", job, "--output", "jsonl").splitlines()
    events = [json.loads(line) for line in told]
    assert {event["job_id"] for event in events} == {job}
    assert "hello" in [event.get("text") for event in events]
    assert events[-1]["type"] == "job.finished"
    outcome = json.loads(here.said("runs", "wait", job, "--output", "json"))
    assert (outcome["status"], outcome["tasks"]["task"]["text"]) == ("succeeded", "ok")
    assert "hello" in here.said("runs", "show", "last")


async def test_a_job_that_is_cancelled_elsewhere_leaves_no_process(
    here: Scene, client: Client
) -> None:
    worker = await here.worker()
    mark = "614.25"
    job = await client.submit(here.task(f"sleep {mark} & sleep {mark}"))
    await until(lambda: here.alive(mark))
    assert await client.cancel(job)
    await until(lambda: not here.alive(mark))
    outcome = await client.wait(job)
    assert outcome.status == "cancelled"
    assert outcome.tasks["task"].run_id is not None
    assert [one.event.type async for one in client.follow(job)][-1] == "job.finished"
    assert not await client.cancel(job)
    worker.send_signal(signal.SIGTERM)
    await until(lambda: worker.poll() is not None)
    assert worker.returncode == 0


async def test_a_killed_worker_s_agents_die_and_its_job_is_interrupted(
    here: Scene, client: Client
) -> None:
    first = await here.worker()
    mark = "615.25"
    job = await client.submit(here.task(f"echo ran >>{here.work}/ran; sleep {mark}"))
    await until(lambda: here.alive(mark))
    await here.worker()
    first.kill()
    outcome = await client.wait(job)
    assert outcome.status == "interrupted"
    assert not here.alive(mark)
    assert (here.work / "ran").read_text() == "ran\n"
    again = await client.retry(job)
    await until(lambda: here.alive(mark))
    assert await client.cancel(again)


@only_postgresql
async def test_a_job_that_opted_in_begins_again_once(here: Scene, client: Client) -> None:
    first = await here.worker()
    mark = "616.25"
    script = f"echo ran >>{here.work}/ran; test -e {here.work}/free || sleep {mark}"
    job = await client.submit(here.task(script, recovery="restart"))
    await until(lambda: here.alive(mark))
    await here.worker()
    (here.work / "free").touch()
    first.kill()
    outcome = await client.wait(job)
    assert outcome.status == "succeeded"
    assert (here.work / "ran").read_text() == "ran\nran\n"
    assert here.said("runs", "show", job).count("\nrun  ") == 2
