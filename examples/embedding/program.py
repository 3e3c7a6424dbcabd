"""A plain program: two tasks side by side, their events as they come, and what became of them.

    ORCHESTRATE_CONFIG=examples/embedding/orchestrate.toml python examples/embedding/program.py FOLDER

asyncio.run does as well as anyio.run. Ctrl-C cancels `main`, and that kills the agents.
"""

import sys
from pathlib import Path

import anyio

from orchestrator.config import load_config
from orchestrator.events import Event, Message
from orchestrator.supervisor import Supervisor
from orchestrator.task import Task

QUESTIONS = ("What does this project do? One sentence.", "Which of its files has no test?")


def tell(event: Event) -> None:
    match event.update:
        case Message(text=text):
            print(f"{event.task_id}: {text}", flush=True)
        case _:
            print(f"{event.task_id}: {event.type}", flush=True)


async def ask(supervisor: Supervisor, task: Task, answers: dict[str, str | None]) -> None:
    outcome = await supervisor.run(task, tell)
    answers[task.id] = (
        outcome.text if outcome.ok else f"{outcome.status}: {outcome.error and outcome.error.text}"
    )


async def main(folder: Path) -> None:
    answers: dict[str, str | None] = {}
    async with Supervisor(load_config()) as supervisor, anyio.create_task_group() as group:
        for number, question in enumerate(QUESTIONS, 1):
            task = Task(id=f"question-{number}", prompt=question, workspace=folder, kind="search")
            group.start_soon(ask, supervisor, task, answers)
    for name, answer in sorted(answers.items()):
        print(f"{name} -> {answer}")


if __name__ == "__main__":
    try:
        anyio.run(main, Path(sys.argv[1]))
    except KeyboardInterrupt:
        sys.exit(130)
