"""The plug-in for llama.cpp against its real server: what it sees, and every trial of a model.

`scripts/servers` calls it. The random model answers nonsense, so that its tool call must fail and
everything else must hold.
"""

from __future__ import annotations

import socket
import subprocess
import sys
import tempfile
from dataclasses import replace
from pathlib import Path

import anyio
import orjson

from orchestrator.client import ask
from orchestrator.config import load_config
from orchestrator.discovery import see
from orchestrator.discovery.trial import trials
from orchestrator.server import Ask, Place, inner

ROOT = Path(__file__).parent.parent
PYTHON = ROOT / ".venv" / "servers" / "bin" / "python"
CONTEXT = 2048
ASKS = (
    Ask(path="/health"),
    Ask(path="/props"),
    Ask(path="/v1/models"),
    Ask(path="/v1/responses", method="POST"),
    Ask(path="/v1/messages", method="POST"),
    Ask(path="/api/version"),
    Ask(path="/version"),
)


def main(arguments: list[str]) -> int:
    """0 if the real server is seen as it is."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    command = [str(PYTHON), str(ROOT / "scripts" / "tiny_server.py"), str(port), str(CONTEXT)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as server:
        if server.stdin is None or server.stdout is None:
            return 1
        with server.stdin:  # it ends with its stdin
            address = server.stdout.readline().decode().strip()
            return anyio.run(check, address, "--record" in arguments)


async def check(address: str, record: bool) -> int:
    """What is seen, told and compared."""
    if record:
        await record_replies(address)
    with tempfile.TemporaryDirectory() as state:
        config = replace(load_config(environ={}), state=Path(state), agents=())
        place = Place(name="llamacpp", kind="llamacpp", base_url=address)
        found = await see(place, config, limit_s=10)
        print(found)
        results = [trial async for trial in trials(found, "tiny", config)]
    for trial in results:
        print(trial)
    [model] = found.models
    seen = (found.kind, found.dialects, model.context, model.context_possible, model.tools)
    wanted = ("llamacpp", ("chat", "responses", "messages"), CONTEXT, 4096, True)
    held = {trial.what: trial.ok for trial in results}
    print("seen", seen, "as it is" if seen == wanted else f"but it is {wanted}")
    return 0 if seen == wanted and held["chat"] and held["stream"] and held["long prompt"] else 1


async def record_replies(address: str) -> None:
    """Writes what the server replies as a fixture, with this machine's paths left out."""
    replies: dict[str, dict[str, object]] = {}
    for request in ASKS:
        reply = await ask(address, request, limit_s=10)
        replies[f"{request.method} {request.path}"] = {"status": reply.status, "body": reply.body}
    text = orjson.dumps(
        {
            "source": "recorded",
            "of": "llama.cpp b11549 (xllamacpp 2026.10.11549), a model of random weights",
            "by": "scripts/servers --record",
            "replies": replies,
        },
        option=orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE,
    ).decode()
    path = str(inner(replies, "GET /props", "body", "model_path"))
    target = ROOT / "tests" / "servers" / "llamacpp.json"
    target.write_text(text.replace(path, "/models/tiny.gguf"), "utf-8")
    print(f"wrote {target}")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
