"""Configuration: which agents there are, where models are served, limits, and where records go.

`load_config()` is the only place that reads the environment and configuration files; the library
reads nothing by itself. Adapters and kinds of model server come from entry points, ours like
anybody's.
"""

from orchestrator.config.address import default_url, expanded, port_of, tier_of
from orchestrator.config.agents import agents_for
from orchestrator.config.default import set_default
from orchestrator.config.load import load_config
from orchestrator.config.plugins import Adapters, check_adapter
from orchestrator.config.value import Config

__all__ = [
    "Adapters",
    "Config",
    "agents_for",
    "check_adapter",
    "default_url",
    "expanded",
    "load_config",
    "port_of",
    "set_default",
    "tier_of",
]
