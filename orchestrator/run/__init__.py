"""One run: an agent's process from spawn to outcome, lines to updates, updates to stamped events.

`recorder` stamps and turns lines into updates, `spool` reads what the agent writes, `attempt` puts
them together with a process, `replay` does without one.
"""
