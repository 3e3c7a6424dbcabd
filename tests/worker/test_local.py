"""`orchestrate local` and a worker that runs: it obeys from its next task on, both ways."""

import pytest

from orchestrator.events import Notice, RunStarted
from orchestrator.testing import model_server
from orchestrator.worker.client import Client
from tests.worker.scene import Scene

pytestmark = [pytest.mark.anyio, pytest.mark.timeout(100)]


@pytest.mark.parametrize("url", ["sqlite"], indirect=True)
async def test_a_running_worker_obeys_the_switch_from_its_next_task_on(
    here: Scene, client: Client
) -> None:
    here.config.write_text(here.config.read_text().replace("argv", 'dialects = ["chat"]\nargv', 1))
    script = {"model": "qwen:14b", "server": "openai-compatible", "turns": [{"text": "unasked"}]}
    await here.worker()
    ran: list[tuple[str | None, str | None, list[str]]] = []
    async with model_server(script) as server:
        for switch in ((), ("local", "on", server.base_url, "qwen:14b"), ("local", "off")):
            if switch:
                await here.ask(*switch)
            job = await client.submit(here.task("true"))
            outcome = await client.wait(job)
            assert outcome.status == "succeeded", outcome.error
            updates = [one.event.update async for one in client.follow(job)]
            [run] = [one for one in updates if isinstance(one, RunStarted)]
            notes = [one.text for one in updates if isinstance(one, Notice)]
            ran.append((run.tier, run.model, [text for text in notes if "local mode" in text]))
    where = f"{server.base_url} (the OpenAI-compatible server)"
    note = f"local mode: qwen:14b at {where} instead of the cloud"
    assert ran == [("cloud", None, []), ("local", "qwen:14b", [note]), ("cloud", None, [])]
