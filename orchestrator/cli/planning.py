"""What a task file would do, told without doing it."""

from __future__ import annotations

from orchestrator.cli.frame import tabled
from orchestrator.console import one_line
from orchestrator.graph import order
from orchestrator.task import Task, TaskFile


def planned(file: TaskFile) -> str:
    """The tasks in an order in which they may run, each with what it would do."""
    tasks = {task.id: task for task in file.tasks}
    rows = [["TASK", "NEEDS", "KIND", "ACCESS", "AGENT", "CHECK", "PROMPT"]]
    rows += [_row(tasks[id_]) for id_ in order(file.needs)]
    return tabled(rows)


def _row(task: Task) -> list[str]:
    model = f" ({task.model})" if task.model else ""
    chosen = "a local one" if task.privacy == "local" else "as `route` tells"
    return [
        task.id,
        ", ".join(task.needs) or "-",
        task.kind or "-",
        task.allowed,
        f"{task.agent or chosen}{model}",
        one_line(task.check, 30) if task.check else "-",
        one_line(task.prompt, 40),
    ]
