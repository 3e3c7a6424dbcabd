"""What this machine is called, and what was found on it, as labels."""

from __future__ import annotations

import platform
import re
import socket
from pathlib import Path

from orchestrator.config import Config
from orchestrator.discovery.diagnosis import diagnose
from orchestrator.discovery.survey import agents_there
from orchestrator.document import LABEL
from orchestrator.worker.labels import HOST, of_agents, of_machine
from orchestrator.workspace.source import addresses

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
    """What can be told without asking anybody: the agents whose programs are there, the GPU, and
    the repositories that were fetched before.
    """
    return of_agents(agents_there(config)) | gpus() | repositories(config.state)


async def looked_at(config: Config) -> frozenset[str]:
    """The same, with versions of programs, model servers and their models."""
    return at_a_glance(config) | of_machine(await diagnose(config))


def gpus(root: Path = Path("/")) -> frozenset[str]:
    """What the kernel knows of devices that compute: no program of a vendor is started for that."""
    makers = {
        "nvidia": any(root.glob("proc/driver/nvidia/gpus/*")) or any(root.glob("dev/nvidia[0-9]*")),
        "amd": (root / "dev/kfd").exists() and any(root.glob("dev/dri/renderD*")),
        "apple": (platform.system(), platform.machine()) == ("Darwin", "arm64"),
    }
    found = {f"gpu:{maker}" for maker, there in makers.items() if there}
    return frozenset({"gpu", *found} if found else ())


def repositories(state: Path) -> frozenset[str]:
    """Those that were fetched on this machine: a task elsewhere would fetch them whole."""
    named = (f"repository:{url}" for url in addresses(state))
    return frozenset(label for label in named if re.fullmatch(LABEL, label))
