"""What this machine is called, and what was found on it, as labels."""

from __future__ import annotations

import re
import socket
from pathlib import Path

from orchestrator.config import Config
from orchestrator.discovery.diagnosis import diagnose
from orchestrator.discovery.survey import agents_there
from orchestrator.worker.labels import HOST, of_agents, of_machine

_ID = Path("/etc/machine-id")


def here() -> str:
    """The label of this machine. Containers that share a name and an id count as one."""
    name = re.sub(r"[^A-Za-z0-9.-]", "-", socket.gethostname())[:60] or "machine"
    try:
        number = _ID.read_text(encoding="ascii", errors="replace").strip()[:8]
    except OSError:
        number = ""
    return f"{HOST}{name}-{number}" if number.isalnum() else f"{HOST}{name}"


def at_a_glance(config: Config) -> frozenset[str]:
    """What can be told without asking anybody: the agents whose programs are there."""
    return of_agents(agents_there(config))


async def looked_at(config: Config) -> frozenset[str]:
    """The same, with versions of programs, model servers and their models."""
    return of_machine(await diagnose(config))
