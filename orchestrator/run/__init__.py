"""One run: an agent's process from spawn to outcome, lines to updates, updates to stamped events.

`attempt` takes a `plan` through the steps: `serving` has the `agent` run, `limits` and `watch` hold
it to what it may, `work` is about its folder, `ending` about its outcome. `spool` and `intake` read
what it writes, `recorder` stamps. `replay` and `recovery` do that of a run that is over.
"""
