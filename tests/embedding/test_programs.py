"""Plain programs and notebooks that embed the supervisor: examples/embedding, and a host with
children, signal handlers, logging and threads of its own.
"""

import ast
import asyncio
import json
import signal
from collections.abc import Coroutine
from pathlib import Path
from types import CodeType

import pytest

from tests.embedding.hosts import (
    EXAMPLES,
    LONG_S,
    Tree,
    environment,
    events_of,
    host,
    run_folders,
    said,
    terminate,
)

SLOW = 'sleep 1; say "step $step"'


def demo(folder: Path, *, slow: bool = False) -> dict[str, str]:
    """The environment of a host with the examples' own agent, which is a script of the shell."""
    text = (EXAMPLES / "orchestrate.toml").read_text()
    assert SLOW in text
    made = folder / "demo.toml"
    made.write_text(text.replace(SLOW, "say awake; sleep 1000 & wait" if slow else SLOW[9:]))
    (folder / "work").mkdir(exist_ok=True)
    return environment(folder) | {"ORCHESTRATE_CONFIG": str(made)}


def test_the_program_does_two_tasks_and_prints_their_events(tmp_path: Path) -> None:
    log = tmp_path / "log"
    argv = [str(EXAMPLES / "program.py"), "work"]
    with host(argv, env=demo(tmp_path), cwd=tmp_path, log=log) as process:
        assert process.wait(LONG_S) == 0
    lines = log.read_text().splitlines()
    for number in (1, 2):
        assert f"question-{number}: run.started" in lines
        assert f"question-{number}: step 1" in lines
    assert lines[-2:] == ["question-1 -> step 3", "question-2 -> step 3"]
    assert len(run_folders(tmp_path)) == 2


def test_ctrl_c_in_the_program_ends_its_agents(tmp_path: Path) -> None:
    log = tmp_path / "log"
    argv = [str(EXAMPLES / "program.py"), "work"]
    with host(argv, env=demo(tmp_path, slow=True), cwd=tmp_path, log=log) as process:
        awake = [said(log, process, f"question-{number}: awake") for number in (1, 2)]
        assert len(awake) == 2
        trees = [
            Tree(int(str(event["pid"])))
            for run in run_folders(tmp_path)
            for event in events_of(run)
            if event["type"] == "process.spawned"
        ]
        assert terminate(process, signal.SIGINT) == 130
        for tree in trees:
            tree.wait_gone()
    assert [events_of(run)[-1]["type"] for run in run_folders(tmp_path)] == ["run.finished"] * 2


# --- a notebook


def cells(path: Path) -> list[CodeType]:
    """Its cells, compiled as IPython does: `await` may stand at the top."""
    flags = ast.PyCF_ALLOW_TOP_LEVEL_AWAIT
    parts = path.read_text().split("\n# %%")
    return [compile(f"# {part}", str(path), "exec", flags) for part in parts]


def test_the_cells_of_the_notebook_run_in_a_loop_that_runs_already(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in demo(tmp_path).items():
        monkeypatch.setenv(name, value)
    monkeypatch.chdir(tmp_path / "work")
    names: dict[str, object] = {}
    before = signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)

    async def kernel() -> None:
        for cell in cells(EXAMPLES / "notebook.py"):
            found = eval(cell, names)  # noqa: S307 (the example)
            if isinstance(found, Coroutine):
                await asyncio.create_task(found)  # each in a task of its own, as ipykernel does
        assert await asyncio.to_thread(lambda: "the host's") == "the host's"

    loop = asyncio.new_event_loop()  # as a kernel's: without the handler of `asyncio.run`
    try:
        loop.run_until_complete(kernel())
        loop.run_until_complete(loop.shutdown_default_executor())
    finally:
        loop.close()
    assert [getattr(names[name], "text", None) for name in ("outcome",)] == ["step 3"]
    assert len(run_folders(tmp_path)) == 2
    assert before == (signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM))


# --- a host with a life of its own

HOST = """
import asyncio, json, logging, os, signal, subprocess, sys, threading
from pathlib import Path

def attributes():
    return {
        "signals": {n: str(signal.getsignal(n)) for n in signal.valid_signals()},
        "mask": sorted(signal.pthread_sigmask(signal.SIG_BLOCK, ())),
        "wakeup": signal.set_wakeup_fd(-1),
        "handlers": [str(handler) for handler in logging.getLogger().handlers],
        "loggers": logging.getLogger().level,
        "threads": [thread.name for thread in threading.enumerate()],
        "cwd": os.getcwd(),
        "umask": (mask := os.umask(0), os.umask(mask))[0],
        "environ": dict(os.environ),
        "descriptors": sorted(os.listdir("/proc/self/fd")),
        "subreaper": Path("/proc/self/status").read_text().count("Subreaper"),
    }

heard = []
signal.signal(signal.SIGCHLD, lambda number, _: heard.append(number))
signal.signal(signal.SIGTERM, lambda number, _: heard.append(number))
before = attributes()

import structlog
from orchestrator.config import load_config
from orchestrator.supervisor import Supervisor
from orchestrator.task import Task

imported = attributes()
config = load_config()
mine = subprocess.Popen([sys.executable, "-c", "import sys; sys.exit(input() == 'now' and 7)"],
                        stdin=subprocess.PIPE, text=True)

async def main():
    statuses = []
    async with Supervisor(config) as one, Supervisor(config) as other:
        during = {n: str(signal.getsignal(n)) for n in signal.valid_signals()}
        def told(event):
            if event.type == "message" and not mine.stdin.closed:
                mine.stdin.write("now\\n")   # our own child ends while agents run
                mine.stdin.close()
        task = Task(prompt="p", workspace=Path("work"), kind="search")
        for outcome in await asyncio.gather(one.run(task, told), other.run(task)):
            statuses.append(outcome.status)
        child = os.fork()
        if child == 0:
            try:
                other.interrupt()
            except Exception as error:
                os._exit(42 if "forked" in str(error) else 43)
            os._exit(44)
        forked = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    return statuses, during, forked

loop = asyncio.new_event_loop()
statuses, during, forked = loop.run_until_complete(main())
loop.close()
for thread in threading.enumerate()[1:]:
    thread.join(20)  # they end with the loop
after = attributes()
own = os.waitstatus_to_exitcode(os.waitpid(mine.pid, 0)[1])
try:
    os.waitpid(-1, os.WNOHANG)
    left = True
except ChildProcessError:
    left = False
before["wakeup"] = imported["wakeup"] = after["wakeup"] = None
os.kill(os.getpid(), signal.SIGTERM)
differences = [name for name in before if not before[name] == imported[name] == after[name]]
print(json.dumps({
    "statuses": statuses, "own": own, "left": left, "forked": forked,
    "differences": differences, "during": during == before["signals"],
    "sigchld": signal.SIGCHLD in heard, "sigterm": signal.SIGTERM in heard,
    "structlog": structlog.is_configured(),
}))
"""


def test_a_host_keeps_its_children_handlers_logging_and_descriptors(tmp_path: Path) -> None:
    log = tmp_path / "log"
    with host(["-c", HOST], env=demo(tmp_path), cwd=tmp_path, log=log) as process:
        assert process.wait(LONG_S) == 0, log.read_text()
    (line,) = log.read_text().splitlines()
    assert json.loads(line) == {
        "statuses": ["succeeded", "succeeded"],
        "own": 7,
        "left": False,
        "forked": 42,
        "differences": [],
        "during": True,
        "sigchld": True,
        "sigterm": True,
        "structlog": False,
    }
