"""What is said to an agent by the Agent Client Protocol: JSON-RPC 2.0, a message a line. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Literal, TypeAlias

import orjson

from orchestrator.adapter import Send
from orchestrator.task import Task

VERSION = 1
"""The protocol's major version that is spoken here."""
NO_SUCH_METHOD = -32601

Step: TypeAlias = Literal["initialize", "authenticate", "session", "mode", "model", "prompt"]
IDS: Mapping[Step, int] = MappingProxyType(
    {"initialize": 1, "authenticate": 2, "session": 3, "mode": 4, "model": 5, "prompt": 6}
)
"""Each request is made once, so that its answer is known by its id, in a replay, too."""


def request(step: Step, method: str, **params: object) -> Send:
    return _line({"id": IDS[step], "method": method, "params": params})


def notify(method: str, **params: object) -> Send:
    return _line({"method": method, "params": params})


def answer(id_: object, result: Mapping[str, object]) -> Send:
    return _line({"id": id_, "result": result})


def unknown_method(id_: object, method: str) -> Send:
    return _line({"id": id_, "error": {"code": NO_SUCH_METHOD, "message": f"no method {method}"}})


def initialize() -> Send:
    """No `fs`, no `terminal`: what the agent does, it does itself, under its own limits."""
    return request(
        "initialize",
        "initialize",
        protocolVersion=VERSION,
        clientCapabilities={"fs": {"readTextFile": False, "writeTextFile": False}},
        clientInfo={"name": "orchestrate", "version": "1"},
    )


def selected(id_: object, option: str | None) -> Send:
    """The answer to a permission request; None: none of its options is what is meant."""
    if option is None:
        return answer(id_, {"outcome": {"outcome": "cancelled"}})
    return answer(id_, {"outcome": {"outcome": "selected", "optionId": option}})


def servers_of(task: Task) -> list[dict[str, object]]:
    """The task's MCP servers. They go in by stdin, which is on no record: secrets, too."""
    return [
        {
            "name": server.key,
            "command": server.command[0],
            "args": list(server.command[1:]),
            "env": [{"name": name, "value": value} for name, value in server.env.items()],
        }
        for server in task.mcp_servers
    ]


def prompt_of(task: Task) -> list[dict[str, str]]:
    """The prompt with the files that matter, as a block."""
    return [{"type": "text", "text": prompt_text(task)}]


def prompt_text(task: Task) -> str:
    """The prompt with the files that matter, as text that JSON can hold."""
    prompt = task.prompt
    if task.files:
        files = "\n".join(f"- {file}" for file in task.files)
        prompt = f"{prompt}\n\nFiles that matter:\n{files}\n"
    return prompt.encode("utf-8", "replace").decode()


def _line(message: Mapping[str, object]) -> Send:
    spoken = {"jsonrpc": "2.0", **message}
    return Send(data=orjson.dumps(spoken, option=orjson.OPT_APPEND_NEWLINE))
