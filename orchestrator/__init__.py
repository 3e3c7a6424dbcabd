"""Supervise coding agents: one event stream and one truthful outcome. Importing does nothing.

Each public name is imported from the module that owns it: `Supervisor` from `supervisor`, `Task`
from `task`, `Event` and `Outcome` from `events`, `load_config` from `config`, the exceptions from
`errors`, `Client` (the queue) from `worker.client`, the contract of an adapter from `adapter`.
"""

__version__ = "0.1.0"
