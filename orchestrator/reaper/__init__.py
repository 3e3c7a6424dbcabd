"""Guard and reaper: the two processes that stand between the supervisor and its agents.

The guard only waits, and sweeps when the reaper dies; its child, the reaper, is the parent of every
agent. When the supervisor dies both kill all that is left and end. They own no policy: what to
kill, and when, the supervisor says (orchestrator/process); only what nobody is left to answer for
is killed unasked. They import light modules of the standard library alone and start no threads.
"""

TOKEN = "ORCHESTRATE_RUN_ID"  # noqa: S105 (a name)
"""The variable in each agent's environment that names its run. Orphans are told apart by it."""

REAPER_ENDS_S = 20.0
"""The reaper's time to kill all after the supervisor's death; then the guard kills it too."""
STUCK_S = 5.0
"""What has survived SIGKILL this long belongs to another user, or is stuck in the kernel."""
SHOWN = 1024
"""So many bytes of a command line are told: written as hexadecimal they fit into a message."""
