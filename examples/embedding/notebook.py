# A notebook's cells: the loop runs already, so `await` stands at the top, and each cell is a task of its own.
# Jupyter, IPython (`%autoawait`) and `python -m asyncio` run them as they are; `# %%` is how editors part them.

# %%
from pathlib import Path

from orchestrator.config import load_config
from orchestrator.supervisor import Supervisor
from orchestrator.task import Task

# %% one cell, one question: the block is left at its end
async with Supervisor(load_config()) as supervisor:
    outcome = await supervisor.run(
        Task(prompt="What is this?", workspace=Path.cwd(), kind="search")
    )
outcome.text

# %% a supervisor for many cells: entered here ...
supervisor = await Supervisor(load_config()).__aenter__()

# %%
async with supervisor.stream(
    Task(prompt="And what is missing?", workspace=Path.cwd(), kind="search")
) as events:
    async for event in events:
        print(event.type)
events.outcome.status

# %% ... and left here; restarting the kernel ends it, too
await supervisor.__aexit__(None, None, None)
