"""What a shell completes: runs, agents and adapters, as they are now. A problem completes nothing:
nobody reads an error while typing.
"""

from __future__ import annotations

import os

from orchestrator.errors import OrchestrateError

_MOST = 50


def runs_there(incomplete: str) -> list[str]:
    """Ids of the latest runs, newest first, and `last`."""
    from orchestrator.config.load import state_folder
    from orchestrator.journal import list_runs

    try:
        folders = list_runs(state_folder(os.environ) / "runs")[-_MOST:]
    except OrchestrateError:
        return []
    names = ["last", *(folder.name for folder in reversed(folders))]
    return [name for name in names if name.startswith(incomplete)]


def agents_there(incomplete: str) -> list[str]:
    from orchestrator.config import load_config

    try:
        agents = load_config(looking=True).agents
    except OrchestrateError:
        return []
    return sorted(agent.name for agent in agents if agent.name.startswith(incomplete))


def adapters_there(incomplete: str) -> list[str]:
    from orchestrator.config import load_config

    try:
        return sorted(
            name for name in load_config(looking=True).adapters if name.startswith(incomplete)
        )
    except OrchestrateError:
        return []
