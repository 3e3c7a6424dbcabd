"""All that starts, signals and ends processes, through guard and reaper (orchestrator/reaper).

`open_reaper` lends a `Reaper`; `Reaper.spawn` lends a `Process`. Leaving either block, by whatever
way, kills all that was started in it. The host's own children, signal handlers and attributes are
not touched. Does not read what agents say: that is in their spool files.
"""

from orchestrator.process.child import Ended, Process
from orchestrator.process.command import Completed, run_to_end
from orchestrator.process.environment import base_environment, environment
from orchestrator.process.guarantees import Guarantee, guarantees
from orchestrator.process.parent import Reaper, open_reaper
from orchestrator.process.start import too_many_files
from orchestrator.process.ticks import Ticks

__all__ = [
    "Completed",
    "Ended",
    "Guarantee",
    "Process",
    "Reaper",
    "Ticks",
    "base_environment",
    "environment",
    "guarantees",
    "open_reaper",
    "run_to_end",
    "too_many_files",
]
