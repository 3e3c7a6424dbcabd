"""Getting a model onto a server, and off it, where the server can do that itself."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Callable

import anyio

from orchestrator.adapter import json_line
from orchestrator.client import ask, lines_of
from orchestrator.config import Config
from orchestrator.discovery.servers import FoundServer, problem_of
from orchestrator.errors import AskError, InputError, OrchestrateError, shown
from orchestrator.server import Ask, Next, Pause, Progress, Pull, Reply

SILENCE_S = 60.0
"""How long a download may say nothing: a registry may be slow, a dead one says nothing for ever."""


async def pull(
    found: FoundServer, model: str, config: Config, tell: Callable[[Progress], None]
) -> None:
    """Have the server fetch a model; `tell` is called as it goes on. Raises InputError if a server
    of this kind fetches none, OrchestrateError if it fails.
    """
    kind = config.servers[found.kind]
    if kind.pull is None:
        how = (kind.get_model or "").format(model=model)
        hint = f"Start it with the model instead: `{how}`." if how else None
        raise InputError(f"{found.title} fetches no models by itself", hint=hint)
    try:
        why = await _pulled(kind.pull(model), found, key_of(found, config), tell)
    except AskError as error:
        problem = problem_of(error, kind, found.base_url)
        raise OrchestrateError(problem.text, hint=problem.hint) from error
    if why is not None:
        hint = f"Is the name right? `{kind.list_models}` shows what is there."
        raise OrchestrateError(shown(f"{found.title} cannot get {model}: {why}"), hint=hint)


def key_of(found: FoundServer, config: Config) -> str | None:
    """The key that goes to this server, from the variable that is named for it."""
    return config.environ.get(found.api_key_env) if found.api_key_env else None


async def _pulled(
    steps: Pull, found: FoundServer, key: str | None, tell: Callable[[Progress], None]
) -> str | None:
    stream: AsyncIterator[Reply] | None = None
    step, reply = next(steps), None
    try:
        while True:
            match step:
                case Progress():
                    tell(step)
                    reply = None
                case Pause(seconds=seconds):
                    await anyio.sleep(seconds)
                    reply = None
                case Next():
                    reply = await anext(stream, None) if stream is not None else None
                case Ask(stream=False):
                    reply = await ask(found.base_url, step, key=key, limit_s=SILENCE_S)
                case Ask():
                    stream = _streamed(found, step, key)
                    reply = await anext(stream, None)
            step = steps.send(reply)
    except StopIteration as end:
        why: str | None = end.value
        return why
    finally:
        if isinstance(stream, AsyncGenerator):
            await stream.aclose()


async def _streamed(found: FoundServer, request: Ask, key: str | None) -> AsyncIterator[Reply]:
    async with lines_of(found.base_url, request, key=key, silence_s=SILENCE_S) as lines:
        async for line in lines:
            yield Reply(status=lines.status, body=json_line(line))


async def remove(found: FoundServer, model: str, config: Config) -> None:
    """Have the server delete a model. Raises InputError if a server of this kind deletes none,
    OrchestrateError if it fails.
    """
    kind = config.servers[found.kind]
    if kind.remove is None:
        raise InputError(f"{found.title} deletes no models by itself", hint="Delete it there.")
    try:
        key = key_of(found, config)
        reply = await ask(found.base_url, kind.remove(model), key=key, limit_s=SILENCE_S)
    except AskError as error:
        problem = problem_of(error, kind, found.base_url)
        raise OrchestrateError(problem.text, hint=problem.hint) from error
    if not reply.ok:
        raise OrchestrateError(shown(f"{found.title} cannot delete {model}: HTTP {reply.status}"))
