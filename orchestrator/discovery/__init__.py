"""What is there: programs on this machine, and model servers that answer. All I/O of choosing."""

from orchestrator.discovery.programs import auth_of, locate, locate_in, look, version
from orchestrator.discovery.readiness import Ready, ready
from orchestrator.discovery.servers import (
    FoundServer,
    find_servers,
    preflight,
    problem_of,
    see,
    server_hint,
    with_model,
)
from orchestrator.discovery.survey import FoundAdapter, FoundAgent, Survey, survey

__all__ = [
    "FoundAdapter",
    "FoundAgent",
    "FoundServer",
    "Ready",
    "Survey",
    "auth_of",
    "find_servers",
    "locate",
    "locate_in",
    "look",
    "preflight",
    "problem_of",
    "ready",
    "see",
    "server_hint",
    "survey",
    "version",
    "with_model",
]
