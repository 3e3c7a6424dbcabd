"""What is wanted (`Task`, `TaskFile`), read safely from a task file. Pure: every error names file,
line, column, key.

`parse_task_file` takes the file's bytes and gives frozen values; whether paths exist is the
supervisor's business.
"""

from orchestrator.task.model import LimitsModel, TaskModel, task_schema
from orchestrator.task.reading import parse_flags, parse_task, parse_task_file, written_in
from orchestrator.task.rules import check_tasks
from orchestrator.task.scalars import (
    Count,
    Depth,
    Dollars,
    Seconds,
    Switch,
    parse_duration,
    parse_size,
)
from orchestrator.task.value import (
    DEFAULT_LIMITS,
    EDITING_KINDS,
    KINDS,
    READING_KINDS,
    Access,
    Deliver,
    Detached,
    Dialect,
    Fallback,
    Handoff,
    Isolation,
    Kind,
    Limits,
    McpServer,
    Privacy,
    Recovery,
    Source,
    Strategy,
    Task,
    TaskFile,
    recorded,
)

__all__ = [
    "DEFAULT_LIMITS",
    "EDITING_KINDS",
    "KINDS",
    "READING_KINDS",
    "Access",
    "Count",
    "Deliver",
    "Depth",
    "Detached",
    "Dialect",
    "Dollars",
    "Fallback",
    "Handoff",
    "Isolation",
    "Kind",
    "Limits",
    "LimitsModel",
    "McpServer",
    "Privacy",
    "Recovery",
    "Seconds",
    "Source",
    "Strategy",
    "Switch",
    "Task",
    "TaskFile",
    "TaskModel",
    "check_tasks",
    "parse_duration",
    "parse_flags",
    "parse_size",
    "parse_task",
    "parse_task_file",
    "recorded",
    "task_schema",
    "written_in",
]
