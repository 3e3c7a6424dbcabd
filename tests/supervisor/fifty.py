"""A graph of fifty tasks, and how each must end. Run as a program: a supervisor that is killed."""

import os
import sys
from collections.abc import Callable, Mapping
from pathlib import Path

import anyio

from orchestrator.events import Event, Message
from orchestrator.supervisor import Supervisor
from orchestrator.task import Task, TaskFile
from tests.scripted_adapter import DONE, PerTask, Step, say, scripted_config

FAIL: Step = {"exit": 3}
BAD = {"bad", "badleaf"}
CUT_OFF = ("l1", "r1")
# What is running when the supervisor is killed.


def fifty() -> dict[str, tuple[str, ...]]:
    """A fan-out, diamonds one after the other, and tasks that fail at their roots or alone."""
    graph: dict[str, tuple[str, ...]] = {"root": ()}
    graph |= {f"leaf{at}": ("root",) for at in range(10)}
    graph["gather"] = tuple(f"leaf{at}" for at in range(10))
    last = "gather"
    for at in range(6):
        graph |= {f"l{at}": (last,), f"r{at}": (last,), f"join{at}": (f"l{at}", f"r{at}")}
        last = f"join{at}"
    graph |= {"bad": (), "after": ("bad",), "later": ("after", "root")}
    graph |= {f"lost{at}": ("later",) for at in range(7)}
    graph |= {f"alone{at}": () for at in range(8)}
    graph |= {"badleaf": ("root",), "mixed": ("badleaf", "gather")}
    return graph


def expected(graph: Mapping[str, tuple[str, ...]]) -> dict[str, str]:
    found: dict[str, str] = {}

    def status(id_: str) -> str:
        if id_ not in found:
            fine = all(status(need) == "succeeded" for need in graph[id_])
            found[id_] = "skipped" if not fine else "failed" if id_ in BAD else "succeeded"
        return found[id_]

    return {id_: status(id_) for id_ in graph}


def ancestors(graph: Mapping[str, tuple[str, ...]], id_: str) -> set[str]:
    found: set[str] = set(graph[id_])
    return found.union(*(ancestors(graph, need) for need in graph[id_]))


def steps(id_: str, *then: Step) -> list[Step]:
    """What a task's agent does: it writes a file of its name, in its own work tree."""
    return [{"write": f"{id_}.txt", "text": id_}, say(f"did {id_}"), *then]


def tasks_in(user: Path) -> TaskFile:
    """The fifty tasks in a repository; a prompt has what its needs said."""
    made = [
        Task(
            id=id_,
            name="fifty",
            needs=needs,
            prompt=" ".join(f"{{{{ tasks.{need}.text }}}}" for need in needs) or "begin",
            workspace=user,
            kind="edit",
        )
        for id_, needs in fifty().items()
    ]
    return TaskFile(name="fifty", tasks=tuple(made), concurrency=8)


def supervisor(state: Path, *, cut_off: tuple[str, ...] = ()) -> Supervisor:
    done = {id_: [FAIL] if id_ in BAD else steps(id_, DONE) for id_ in fifty()}
    done |= {id_: steps(id_, {"hang": True}) for id_ in cut_off}
    return Supervisor(scripted_config(state, adapter=PerTask(steps=done)))


def dies_with(ids: tuple[str, ...]) -> Callable[[Event], None]:
    """A sink that kills this process when the agents of these tasks have all spoken."""
    left = set(ids)

    def sink(event: Event) -> None:
        if isinstance(event.update, Message):
            left.discard(event.task_id or "")
        if not left:
            os.kill(os.getpid(), 9)

    return sink


async def main(user: Path, state: Path) -> None:
    async with supervisor(state, cut_off=CUT_OFF) as running:
        await running.run(tasks_in(user), dies_with(CUT_OFF))


if __name__ == "__main__":
    anyio.run(main, Path(sys.argv[1]), Path(sys.argv[2]))
