"""What is there: programs on this machine, and model servers that answer. All I/O of choosing."""

from orchestrator.discovery.credentials import auth_of
from orchestrator.discovery.nearby import with_nearby
from orchestrator.discovery.programs import locate, locate_in, look, version
from orchestrator.discovery.readiness import Ready, ready
from orchestrator.discovery.servers import (
    FoundServer,
    Use,
    find_servers,
    preflight,
    problem_of,
    see,
    server_hint,
    use_of,
    with_model,
)
from orchestrator.discovery.standing import offers, room_of, routes_of
from orchestrator.discovery.survey import FoundAdapter, FoundAgent, Survey, survey

__all__ = [
    "FoundAdapter",
    "FoundAgent",
    "FoundServer",
    "Ready",
    "Survey",
    "Use",
    "auth_of",
    "find_servers",
    "locate",
    "locate_in",
    "look",
    "offers",
    "preflight",
    "problem_of",
    "ready",
    "room_of",
    "routes_of",
    "see",
    "server_hint",
    "survey",
    "use_of",
    "version",
    "with_model",
    "with_nearby",
]
