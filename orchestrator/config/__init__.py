"""Configuration: which agents there are, where models are served, limits, and where records go.

`load_config()` is the only place that reads the environment and configuration files; the library
reads nothing by itself. Adapters and kinds of model server come from entry points, ours like
anybody's.
"""

from orchestrator.config.address import default_url, expanded, port_of, tier_of
from orchestrator.config.agents import agents_for
from orchestrator.config.default import set_default
from orchestrator.config.load import load_config
from orchestrator.config.local import (
    AtHome,
    LocalMode,
    at_home,
    local_file,
    read_local,
    write_local,
)
from orchestrator.config.places import places_of, tier_of_place
from orchestrator.config.plugins import Adapters, check_adapter
from orchestrator.config.value import Config

__all__ = [
    "Adapters",
    "AtHome",
    "Config",
    "LocalMode",
    "agents_for",
    "at_home",
    "check_adapter",
    "default_url",
    "expanded",
    "load_config",
    "local_file",
    "places_of",
    "port_of",
    "read_local",
    "set_default",
    "tier_of",
    "tier_of_place",
    "write_local",
]
