"""Guard and reaper where the system has no subreapers, no handles for processes and no /proc.

They say and are told the same as those of orchestrator/reaper, in frames on a stream. Each agent is
ended by the process groups that were seen below it: once a second, and before each signal, `ps` is
looked at. What left its group before anybody looked, and lost its parent, is not found. Light
modules only.
"""
