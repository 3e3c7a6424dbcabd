"""Configuration: which agents there are, where models are served, limits, and where records go.

`load_config()` is the only place that reads the environment and configuration files; the library
reads nothing by itself. Adapters and kinds of model server come from entry points, ours like
anybody's.
"""

from orchestrator.config.address import default_url, expanded, port_of, tier_of
from orchestrator.config.agents import agents_for, check_named
from orchestrator.config.default import set_default
from orchestrator.config.file import config_schema
from orchestrator.config.ladder import (
    file_with_defaults,
    meet,
    not_allowed,
    prefer,
    strictest,
    with_defaults,
)
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
from orchestrator.config.value import Bounds, Config, Defaults, Queue, Setting

__all__ = [
    "Adapters",
    "AtHome",
    "Bounds",
    "Config",
    "Defaults",
    "LocalMode",
    "Queue",
    "Setting",
    "agents_for",
    "at_home",
    "check_adapter",
    "check_named",
    "config_schema",
    "default_url",
    "expanded",
    "file_with_defaults",
    "load_config",
    "local_file",
    "meet",
    "not_allowed",
    "places_of",
    "port_of",
    "prefer",
    "read_local",
    "set_default",
    "strictest",
    "tier_of",
    "tier_of_place",
    "with_defaults",
    "write_local",
]
