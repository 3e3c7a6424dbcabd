"""The LiteLLM proxy on a socket that it is given, run by the interpreter that has LiteLLM.

litellm_gateway.py CONFIG: serves on the listening socket that is its stdin until a signal ends it.
Whoever starts it holds that socket, so nobody else can get its port, and who connects while it
starts, or is started anew, waits. The proxy's own command line can only be told a number.
"""

import json
import os
import socket
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path
from types import ModuleType
from typing import Any

# The interpreter is LiteLLM's: of ours it gets the modules beside this one and nothing else.
sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from adapters.programs.light_start import start_lightly

del sys.path[0]


def main(config: str) -> None:
    os.environ |= {
        "CONFIG_FILE_PATH": config,
        "LITELLM_LOCAL_MODEL_COST_MAP": "True",  # else it fetches a list of prices
        "LITELLM_MODE": "PRODUCTION",  # else it reads a .env file
        "LITELLM_TELEMETRY": "False",
        "DISABLE_ADMIN_UI": "True",
        "NO_DOCS": "True",
        "NO_REDOC": "True",
        # Neither a proxy of the user's nor anybody else is between it and its one server.
        "NO_PROXY": "*",
        "no_proxy": "*",
    }
    # Its only use is to measure recordings of speech; with numpy it would be 80 MB more.
    sys.modules["soundfile"] = ModuleType("soundfile")
    start_lightly()
    _serve(socket.socket(fileno=os.dup(0)))


def _telling(app: Callable[..., Awaitable[None]]) -> Callable[..., Awaitable[None]]:
    """The proxy, writing down for each answer which of its deployments gave it: LiteLLM puts that
    into the headers.
    """

    async def telling(scope: Any, receive: Any, send: Any) -> None:
        async def heard(message: Any) -> None:
            if message["type"] == "http.response.start" and message["status"] == 200:
                _write(dict(message.get("headers", ())))
            await send(message)

        await app(scope, receive, heard if scope["type"] == "http" else send)

    return telling


def _write(headers: dict[bytes, bytes]) -> None:
    served = headers.get(b"x-litellm-model-id")
    if served:
        with Path("served.jsonl").open("a", encoding="utf-8") as file:
            file.write(json.dumps({"model": served.decode("latin-1")}) + "\n")


def _serve(listening: socket.socket) -> None:
    import uvicorn
    from litellm.proxy.proxy_server import app

    settings = uvicorn.Config(_telling(app), log_level="warning", access_log=False, lifespan="on")
    uvicorn.Server(settings).run(sockets=[listening])


if __name__ == "__main__":
    main(sys.argv[1])
