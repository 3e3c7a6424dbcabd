"""What a shell completes: runs, agents and adapters, as they are now. A problem completes nothing:
nobody reads an error while typing.
"""

from __future__ import annotations

from orchestrator.errors import OrchestrateError

_MOST = 50


def runs_there(incomplete: str) -> list[str]:
    """Ids of the latest runs, newest first, and `last`."""
    from orchestrator.config import load_config
    from orchestrator.journal import list_runs

    try:
        folders = list_runs(load_config().state / "runs")[-_MOST:]
    except OrchestrateError:
        return []
    names = ["last", *(folder.name for folder in reversed(folders))]
    return [name for name in names if name.startswith(incomplete)]


def agents_there(incomplete: str) -> list[str]:
    from orchestrator.config import load_config

    try:
        agents = load_config().agents
    except OrchestrateError:
        return []
    return sorted(agent.name for agent in agents if agent.name.startswith(incomplete))


def adapters_there(incomplete: str) -> list[str]:
    from orchestrator.config import load_config

    try:
        return sorted(name for name in load_config().adapters if name.startswith(incomplete))
    except OrchestrateError:
        return []
