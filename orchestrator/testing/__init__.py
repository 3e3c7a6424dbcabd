"""Test doubles that ship with the product: a scripted model server and a scripted agent.

Names are loaded when they are first used, so that `python -m orchestrator.testing agent` starts as
fast as Python.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from orchestrator.testing.requests import Request as Request
    from orchestrator.testing.script import Script as Script
    from orchestrator.testing.script import ScriptError as ScriptError
    from orchestrator.testing.script import load_script as load_script
    from orchestrator.testing.server import ModelServer as ModelServer
    from orchestrator.testing.server import model_server as model_server

__all__ = ["ModelServer", "Request", "Script", "ScriptError", "load_script", "model_server"]

_HOMES = {
    "ModelServer": "server",
    "Request": "requests",
    "Script": "script",
    "ScriptError": "script",
    "load_script": "script",
    "model_server": "server",
}


def __getattr__(name: str) -> object:
    from importlib import import_module

    if name not in _HOMES:
        message = f"module {__name__!r} has no attribute {name!r}"
        raise AttributeError(message)
    found: object = getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
    return found
