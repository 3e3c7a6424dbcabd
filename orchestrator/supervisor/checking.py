"""Whether a task can be done as written. Asked before anything is started for it."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

from orchestrator.config import Config, agents_for
from orchestrator.errors import InputError
from orchestrator.supervisor.means import Continued
from orchestrator.task import Task

if TYPE_CHECKING:
    from orchestrator.testing.script import Script


def check_task(task: Task, config: Config, continued: Continued | None) -> None:
    """Raises InputError if the task cannot be done as written (an unknown agent, no workspace)."""
    if continued is None:
        agents_for(task.agent, config)
    if task.base_url is not None and task.base_url.startswith("scripted:"):
        script_of(task.base_url)
    if task.source is not None:
        return
    if task.template is None:
        check_workspace(task.workspace)
    elif not task.template.is_dir():
        raise InputError(f"workspace.scratch: no folder {task.template}")


def check_workspace(folder: Path) -> None:
    """Raises InputError unless there is such a folder, and it may be read."""
    if not folder.is_dir():
        raise InputError(f"workspace: no folder {folder}")
    if not os.access(folder, os.R_OK | os.X_OK):
        raise InputError(f"workspace: no permission to read {folder}")


def script_of(base_url: str) -> tuple[Path, Script]:
    """The file that `scripted:FILE` names, and what it says. Raises InputError."""
    from orchestrator.testing import ScriptError, load_script

    file = Path(base_url.removeprefix("scripted:"))
    try:
        return file, load_script(file)
    except (OSError, ScriptError) as error:
        raise InputError(f"base_url: {error}") from error
