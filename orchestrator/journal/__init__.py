r"""The append-only record of a run and of a job: a folder with the events, what was asked and the
outcome.

    runs/RUN_ID/  stdout stderr    raw, written by the agent itself
                  tails            lines of its own logs, as they were read
                  events.jsonl     one event a line
                  task.json        what was asked, of which agent
                  outcome.json     how it ended
    jobs/JOB_ID/  events.jsonl     the events that belong to no run
                  job.json         what was asked
                  outcome.json     how it ended, with the outcomes of its tasks
                  cancel           there if somebody asked for its end

Files are 0600 in folders 0700. An event is in the journal before anyone sees it.
"""

from orchestrator.journal.disk import (
    append_private,
    make_folder,
    make_private,
    no_room,
    scarce,
    written_to,
)
from orchestrator.journal.finding import (
    export_run,
    find_job,
    find_run,
    list_runs,
    runs_by_job,
    runs_of,
)
from orchestrator.journal.following import follow_job, follow_lines
from orchestrator.journal.names import (
    CANCEL,
    EVENTS,
    JOB,
    OUTCOME,
    STDERR,
    STDOUT,
    STORES,
    TAILS,
    TASK,
)
from orchestrator.journal.reading import read_events, read_lines, running
from orchestrator.journal.records import (
    JobRecord,
    Record,
    Tree,
    ask_to_cancel,
    now,
    read_job,
    read_job_outcome,
    read_outcome,
    read_record,
    write_job,
    write_outcome,
    write_record,
)
from orchestrator.journal.scrubbing import scrub
from orchestrator.journal.writing import RESERVE, Journal

__all__ = [
    "CANCEL",
    "EVENTS",
    "JOB",
    "OUTCOME",
    "RESERVE",
    "STDERR",
    "STDOUT",
    "STORES",
    "TAILS",
    "TASK",
    "JobRecord",
    "Journal",
    "Record",
    "Tree",
    "append_private",
    "ask_to_cancel",
    "export_run",
    "find_job",
    "find_run",
    "follow_job",
    "follow_lines",
    "list_runs",
    "make_folder",
    "make_private",
    "no_room",
    "now",
    "read_events",
    "read_job",
    "read_job_outcome",
    "read_lines",
    "read_outcome",
    "read_record",
    "running",
    "runs_by_job",
    "runs_of",
    "scarce",
    "scrub",
    "write_job",
    "write_outcome",
    "write_record",
    "written_to",
]
