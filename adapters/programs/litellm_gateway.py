"""The LiteLLM proxy on a socket that it is given, run by the interpreter that has LiteLLM.

litellm_gateway.py CONFIG: serves on the listening socket that is its stdin until a signal ends it.
Whoever starts it holds that socket, so nobody else can get its port, and who connects while it
starts, or is started anew, waits. The proxy's own command line can only be told a number.
"""

import os
import socket
import sys
from types import ModuleType


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
    _serve(socket.socket(fileno=os.dup(0)))


def _serve(listening: socket.socket) -> None:
    import uvicorn
    from litellm.proxy.proxy_server import app

    settings = uvicorn.Config(app, log_level="warning", access_log=False, lifespan="on")
    uvicorn.Server(settings).run(sockets=[listening])


if __name__ == "__main__":
    main(sys.argv[1])
