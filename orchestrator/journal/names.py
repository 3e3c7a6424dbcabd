"""What the files of a run and of a job are called."""

from __future__ import annotations

EVENTS, TASK, JOB, OUTCOME, CANCEL, STDOUT, STDERR, TAILS = (
    "events.jsonl",
    "task.json",
    "job.json",
    "outcome.json",
    "cancel",
    "stdout",
    "stderr",
    "tails",
)
STORES = "looks"
# Beside them: what folders without a work tree of their own are seen by, while runs work in them.
