"""Tools over stdio: requests in, whoever can answer them is asked, results out.

Parameters that are wrong are an error of the protocol; what is refused, and what failed, is a
result that says so: the model that asked can act on it.
"""

from __future__ import annotations

from collections.abc import Mapping
from inspect import cleandoc
from typing import TYPE_CHECKING

import orjson
from mcp.server.context import ServerRequestContext
from mcp.server.lowlevel.server import Server
from mcp.server.stdio import stdio_server
from mcp.shared.exceptions import MCPError
from mcp_types import (
    INTERNAL_ERROR,
    INVALID_PARAMS,
    CallToolRequestParams,
    CallToolResult,
    ListToolsResult,
    PaginatedRequestParams,
    TextContent,
    Tool,
    ToolAnnotations,
)

from orchestrator import __version__
from orchestrator.asking import Answer, Ask
from orchestrator.errors import InputError, NotUnderstoodError, OrchestrateError
from orchestrator.supervisor.requests import WORDS, meant

if TYPE_CHECKING:
    from typing import Any

    from pydantic import JsonValue

NAME = "orchestrate"

INSTRUCTIONS = (
    "Hand sub-tasks to other coding agents: wide searches, summaries and simple edits to local"
    " models, which cost nothing; reviews and hard questions to other models. They work in a copy"
    " of the folder; take their changes over with the command in `take`."
)
_READING = frozenset({"status", "result", "list_agents"})


async def serve(ask: Ask) -> None:
    """Answer until stdin is closed; what was asked for and is not over is then taken back."""

    async def listed(
        context: ServerRequestContext[Any], params: PaginatedRequestParams | None
    ) -> ListToolsResult:
        del context, params
        return ListToolsResult(tools=list(tools()))

    async def called(
        context: ServerRequestContext[Any], params: CallToolRequestParams
    ) -> CallToolResult:
        return await _called(ask, context, params)

    server: Server[Any] = Server(
        NAME,
        version=__version__,
        instructions=INSTRUCTIONS,
        on_list_tools=listed,
        on_call_tool=called,
    )
    async with stdio_server() as (read, write):
        await server.run(read, write, server.create_initialization_options())


def tools() -> tuple[Tool, ...]:
    """What can be called: each word that may be asked, with what its parameters mean."""
    return tuple(
        Tool(
            name=word,
            description=" ".join(cleandoc(model.__doc__ or "").split()),
            input_schema={**model.model_json_schema(), "title": word},
            annotations=ToolAnnotations(read_only_hint=word in _READING, open_world_hint=True),
        )
        for word, model in WORDS.items()
    )


async def _called(
    ask: Ask, context: ServerRequestContext[Any], params: CallToolRequestParams
) -> CallToolResult:
    told = 0

    async def progress(what: Mapping[str, JsonValue]) -> None:
        nonlocal told
        told += 1
        await context.session.report_progress(told, None, f"{what.get('id')}: {what.get('doing')}")

    parameters = params.arguments or {}
    try:
        meant(params.name, parameters)  # before anybody else hears of it
        return _result(await ask(params.name, parameters, progress))
    except NotUnderstoodError as error:
        raise MCPError(code=INVALID_PARAMS, message=str(error)) from error
    except InputError as error:
        return _result({"status": "refused", "error": str(error), "hint": error.hint}, bad=True)
    except OrchestrateError as error:
        raise MCPError(code=INTERNAL_ERROR, message=str(error)) from error


def _result(answer: Answer, *, bad: bool = False) -> CallToolResult:
    text = orjson.dumps(answer).decode()
    return CallToolResult(
        content=[TextContent(type="text", text=text)], structured_content=answer, is_error=bad
    )
