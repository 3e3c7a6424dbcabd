"""A web service that starts tasks, streams their events, and cancels them.

    ORCHESTRATE_CONFIG=examples/embedding/orchestrate.toml \
        uvicorn --app-dir examples/embedding --timeout-graceful-shutdown 5 service:app

    curl localhost:8000/jobs --json '{"prompt": "What is this?", "workspace": "/path/to/repo"}'
    curl -N localhost:8000/jobs/JOB/events                        # server-sent events, from the first
    curl -N localhost:8000/jobs/JOB/events -H 'Last-Event-ID: 7'  # from the eighth
    curl -N localhost:8000/stream --json '{...}'                  # starts a job that ends when curl does
    curl -X DELETE localhost:8000/jobs/JOB

A service of yours decides who may start what, and where: whoever reaches this one runs agents as you.
"""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

import anyio
import anyio.abc
from fastapi import Depends, FastAPI, Header, HTTPException, Request
from fastapi.responses import StreamingResponse
from pydantic import BaseModel
from starlette.types import Receive, Scope, Send

from orchestrator.config import load_config
from orchestrator.errors import InputError, OrchestrateError
from orchestrator.events import Event, JobFinished, JobOutcome
from orchestrator.events.wire import encode
from orchestrator.supervisor import EventStream, Supervisor
from orchestrator.task import Kind, Task


@dataclass
class Job:
    """A task that was asked for. The log holds no events, only where in the journals they are."""

    log: EventStream
    id: str = ""
    outcome: JobOutcome | None = None
    error: str | None = None
    scope: anyio.CancelScope = field(default_factory=anyio.CancelScope)


@dataclass
class Desk:
    """What the endpoints work with, from start-up to shutdown."""

    supervisor: Supervisor
    group: anyio.abc.TaskGroup
    state: Path
    jobs: dict[str, Job] = field(default_factory=dict)

    async def begin(self, task: Task) -> Job:
        """Start a task beside the request; returns when its first event is on record."""
        job: Job = await self.group.start(self._do, task)
        return job

    async def _do(self, task: Task, *, task_status: anyio.abc.TaskStatus[Job]) -> None:
        job = Job(log=EventStream(self.state))

        def told(event: Event) -> None:  # called in the event loop: it must be quick
            job.log.told(event)
            if isinstance(event.update, JobFinished):
                job.outcome = event.update.outcome
            if not job.id and event.job_id:
                job.id = event.job_id
                self.jobs[job.id] = job
                task_status.started(job)

        try:
            with job.scope:
                await self.supervisor.run(task, told)
        except OrchestrateError as error:
            if not job.id:
                raise  # nothing was started: `begin` raises it
            job.error = str(error)  # our own failure; one of the agent's is an outcome
        finally:
            job.log.end()


@asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncIterator[None]:
    config = load_config()
    # The supervisor within the group: it is left first, which ends what runs, and then the group is empty.
    async with anyio.create_task_group() as group, Supervisor(config) as supervisor:
        app.state.desk = Desk(supervisor, group, config.state)
        yield


def desk_of(request: Request) -> Desk:
    desk: Desk = request.app.state.desk
    return desk


def job_of(job_id: str, desk: Annotated[Desk, Depends(desk_of)]) -> Job:
    if job_id not in desk.jobs:
        raise HTTPException(404, f"no job {job_id!r} of this service")
    return desk.jobs[job_id]


class Wanted(BaseModel):
    prompt: str
    workspace: Path
    kind: Kind | None = None


async def begun(wanted: Wanted, desk: Annotated[Desk, Depends(desk_of)]) -> Job:
    task = Task(prompt=wanted.prompt, workspace=wanted.workspace, kind=wanted.kind)
    try:
        return await desk.begin(task)
    except InputError as error:  # no such folder, no agent that could do it, ...
        raise HTTPException(422, str(error)) from error


class Attached(StreamingResponse):
    """A response with its job: however it ends, also when the client goes away, the job ends with it."""

    def __init__(self, job: Job) -> None:
        super().__init__(lines(job), media_type="application/x-ndjson")
        self.job = job

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await super().__call__(scope, receive, send)
        finally:
            self.job.scope.cancel()


async def lines(job: Job) -> AsyncIterator[bytes]:
    async for event in job.log:
        yield encode(event) + b"\n"


async def messages(job: Job, after: int) -> AsyncIterator[bytes]:
    async for number, event in job.log.after(after):
        yield b"id: %d\nevent: %b\ndata: %b\n\n" % (number, event.type.encode(), encode(event))


app = FastAPI(lifespan=lifespan)


@app.post("/jobs", status_code=202)
async def start(job: Annotated[Job, Depends(begun)]) -> dict[str, str]:
    return {"job": job.id}


@app.get("/jobs/{job_id}")
async def look(job: Annotated[Job, Depends(job_of)]) -> dict[str, object]:
    return {"job": job.id, "events": job.log.count, "outcome": job.outcome, "error": job.error}


@app.get("/jobs/{job_id}/events")
async def follow(
    job: Annotated[Job, Depends(job_of)], last_event_id: Annotated[int, Header(ge=0)] = 0
) -> StreamingResponse:
    return StreamingResponse(messages(job, last_event_id), media_type="text/event-stream")


@app.delete("/jobs/{job_id}", status_code=202)
async def cancel(job: Annotated[Job, Depends(job_of)]) -> dict[str, str]:
    job.scope.cancel()  # kills its agents; `job.finished` says `cancelled`
    return {"job": job.id}


@app.post("/stream")
async def stream(job: Annotated[Job, Depends(begun)]) -> StreamingResponse:
    return Attached(job)
