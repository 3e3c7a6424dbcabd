"""A Celery task that runs an agent. Here with a queue of files, so that no broker is needed.

    export ORCHESTRATE_CONFIG=$PWD/examples/embedding/orchestrate.toml AGENTS_QUEUE=/tmp/agents-queue
    cd examples/embedding
    celery --app tasks worker --concurrency 2
    python -c "import tasks; print(tasks.agent.delay('What is this?', '/path/to/repo').get())"

Each task has a supervisor of its own: it starts in 30 ms, and a prefork child that is killed takes its agents along.
An agent is not idempotent: leave `acks_late` off, so that a task is not run twice.
"""

import os
from pathlib import Path
from typing import Any

import anyio
from celery import Celery

from orchestrator.config import load_config
from orchestrator.supervisor import Supervisor
from orchestrator.task import Kind, Limits, Task

QUEUE = Path(os.environ.get("AGENTS_QUEUE", "queue")).absolute()

for folder in ("messages", "control", "results"):
    (QUEUE / folder).mkdir(parents=True, exist_ok=True)

app = Celery("agents", broker="filesystem://", backend=f"file://{QUEUE}/results")
app.conf.broker_transport_options = {
    "data_folder_in": f"{QUEUE}/messages",
    "data_folder_out": f"{QUEUE}/messages",
    "control_folder": f"{QUEUE}/control",
    "polling_interval": 0.1,
}


@app.task
def agent(
    prompt: str, workspace: str, kind: Kind | None = None, minutes: float = 30
) -> dict[str, Any]:
    """What came of it. A failed agent is a result, not an exception."""
    # The limit of time is the supervisor's, which ends the agent cleanly and says so. Celery's own ones are for
    # when everything else has failed.
    task = Task(
        prompt=prompt, workspace=Path(workspace), kind=kind, limits=Limits(wall_s=60 * minutes)
    )
    return anyio.run(run, task)


async def run(task: Task) -> dict[str, Any]:
    async with Supervisor(load_config()) as supervisor:
        outcome = await supervisor.run(task)
    return {
        "status": outcome.status,
        "text": outcome.text,
        "error": outcome.error.text if outcome.error else None,
        "run": outcome.run_id,  # its journal: `orchestrate runs show RUN`
    }
