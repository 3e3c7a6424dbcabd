"""Where a supervisor may be entered, used and left, and what becomes of runs that are on then."""

import asyncio
import dataclasses
import threading
from pathlib import Path

import anyio
import anyio.to_thread
import pytest

from orchestrator.config import Config
from orchestrator.errors import InputError, SupervisionError
from orchestrator.events import Event, Message, Outcome, ProcessSpawned
from orchestrator.journal import read_events, read_outcome
from orchestrator.supervisor import Supervisor
from orchestrator.task import Task
from tests.scripted_adapter import DONE, say, scripted_config

pytestmark = pytest.mark.anyio

ASKED_TO_STOP = (
    {"on": "SIGINT", "do": [say("good night"), DONE, {"exit": 0}]},
    say("awake"),
    {"hang": True},
)


@pytest.fixture
def work(tmp_path: Path) -> Path:
    folder = tmp_path / "work"
    folder.mkdir()
    (folder / "file.txt").write_text("one\n")
    return folder


@pytest.fixture
def state(tmp_path: Path) -> Path:
    return tmp_path / "state"


def task_in(work: Path) -> Task:
    return Task(prompt="p", workspace=work, kind="search")


class Heard:
    """A sink that can be waited for."""

    def __init__(self) -> None:
        self.awake = anyio.Event()
        self.pid = 0

    def __call__(self, event: Event) -> None:
        match event.update:
            case ProcessSpawned(pid=pid):
                self.pid = pid
            case Message(text="awake"):
                self.awake.set()
            case _:
                pass


def of_the_run(state: Path) -> Outcome:
    (folder,) = (state / "runs").iterdir()
    assert list(read_events(folder))[-1].type == "run.finished"
    outcome = read_outcome(folder)
    assert outcome is not None
    return outcome


# --- the wrong place


async def test_a_supervisor_is_entered_once(work: Path, state: Path) -> None:
    async with Supervisor(scripted_config(state, say("a"), DONE)) as supervisor:
        with pytest.raises(SupervisionError, match="was entered before"):
            await supervisor.__aenter__()
        assert (await supervisor.run(task_in(work))).ok


async def test_a_supervisor_that_was_left_does_nothing_more(work: Path, state: Path) -> None:
    async with Supervisor(scripted_config(state, DONE)) as supervisor:
        pass
    with pytest.raises(SupervisionError, match="block was left"):
        await supervisor.run(task_in(work))
    with pytest.raises(SupervisionError, match="block was left"):
        async with supervisor.stream(task_in(work)):
            pass
    with pytest.raises(SupervisionError, match="was entered before"):
        await supervisor.__aenter__()


async def test_another_thread_is_told_whose_the_supervisor_is(work: Path, state: Path) -> None:
    async with Supervisor(scripted_config(state, say("a"), DONE)) as supervisor:

        def elsewhere() -> None:
            with pytest.raises(SupervisionError, match="another thread") as error:
                supervisor.interrupt()
            assert "from_thread" in (error.value.hint or "")
            with pytest.raises(SupervisionError, match="another thread"):
                anyio.run(supervisor.run, task_in(work))
            # As the hint says:
            outcome = anyio.from_thread.run(supervisor.run, task_in(work))
            assert outcome.ok

        await anyio.to_thread.run_sync(elsewhere)


def test_another_loop_of_the_same_thread_is_told_whose_the_supervisor_is(
    work: Path, state: Path
) -> None:
    supervisor = Supervisor(scripted_config(state, say("a"), DONE))
    first, second = asyncio.new_event_loop(), asyncio.new_event_loop()
    try:
        first.run_until_complete(supervisor.__aenter__())
        with pytest.raises(SupervisionError, match="another event loop"):
            second.run_until_complete(supervisor.run(task_in(work)))
        assert first.run_until_complete(supervisor.run(task_in(work))).ok
        first.run_until_complete(supervisor.__aexit__(None, None, None))
    finally:
        first.close()
        second.close()


def test_without_an_event_loop_there_is_no_supervisor(state: Path) -> None:
    entering = Supervisor(scripted_config(state, DONE)).__aenter__()
    with pytest.raises(SupervisionError, match="no running event loop"):
        entering.send(None)


async def test_entering_in_vain_leaves_nothing_and_may_be_tried_again(
    work: Path, state: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    supervisor = Supervisor(scripted_config(state, say("a"), DONE))
    monkeypatch.setattr("orchestrator.process.pair.START_S", 0)
    with pytest.raises(SupervisionError, match="did not start"):
        await supervisor.__aenter__()
    with pytest.raises(SupervisionError, match="not running"):
        await supervisor.run(task_in(work))
    monkeypatch.undo()
    async with supervisor:
        assert (await supervisor.run(task_in(work))).ok


# --- leaving


async def test_leaving_the_block_ends_the_runs_of_other_tasks_cleanly(
    work: Path, state: Path
) -> None:
    heard, outcomes = Heard(), list[Outcome]()

    async def run(supervisor: Supervisor) -> None:
        outcomes.append(await supervisor.run(task_in(work), heard))

    async with anyio.create_task_group() as group:
        async with Supervisor(scripted_config(state, *ASKED_TO_STOP)) as supervisor:
            group.start_soon(run, supervisor)
            await heard.awake.wait()
        assert [outcome.status for outcome in outcomes] == ["interrupted"]
        assert not Path(f"/proc/{heard.pid}").exists()
    recorded = of_the_run(state)
    assert recorded.error is not None
    assert recorded.error.text == "the supervisor's block was left"
    assert recorded.text == "good night"


async def test_leaving_by_an_error_of_the_hosts_is_clean_too(work: Path, state: Path) -> None:
    heard = Heard()

    async def embed(group: anyio.abc.TaskGroup) -> None:
        async with Supervisor(scripted_config(state, *ASKED_TO_STOP)) as supervisor:
            group.start_soon(supervisor.run, task_in(work), heard)
            await heard.awake.wait()
            raise KeyError("mine")

    async with anyio.create_task_group() as group:
        with pytest.raises(KeyError):
            await embed(group)
        assert (of_the_run(state).status, of_the_run(state).text) == ("interrupted", "good night")


async def test_a_cancelled_leaving_kills_at_once_and_the_record_is_whole(
    work: Path, state: Path
) -> None:
    heard = Heard()
    steps = {"ignore": ["SIGINT", "SIGTERM"]}, say("awake"), {"hang": True}

    async def embed(group: anyio.abc.TaskGroup, scope: anyio.CancelScope) -> None:
        with scope:
            async with Supervisor(scripted_config(state, *steps)) as supervisor:
                group.start_soon(supervisor.run, task_in(work), heard)
                await heard.awake.wait()
                scope.cancel()

    async with anyio.create_task_group() as group:
        await embed(group, anyio.CancelScope())
        assert not Path(f"/proc/{heard.pid}").exists()
    assert of_the_run(state).status == "interrupted"


async def test_a_supervisor_may_be_left_in_another_task_than_it_was_entered_in(
    work: Path, state: Path
) -> None:
    supervisor = Supervisor(scripted_config(state, say("a"), DONE))
    await asyncio.create_task(supervisor.__aenter__())
    outcome = await asyncio.create_task(supervisor.run(task_in(work)))
    await asyncio.create_task(supervisor.__aexit__(None, None, None))
    assert outcome.ok


async def test_a_run_that_asyncio_cancels_leaves_nothing(work: Path, state: Path) -> None:
    heard = Heard()
    async with Supervisor(scripted_config(state, *ASKED_TO_STOP)) as supervisor:
        run = asyncio.create_task(supervisor.run(task_in(work), heard))
        await heard.awake.wait()
        run.cancel()
        with pytest.raises(asyncio.CancelledError):
            await run
        assert not Path(f"/proc/{heard.pid}").exists()
        assert of_the_run(state).status == "cancelled"


# --- several


async def test_leaving_one_of_two_supervisors_leaves_the_others_runs_alone(
    work: Path, state: Path, tmp_path: Path
) -> None:
    heard = Heard()
    steps = {"read": "line"}, say("awake"), {"sleep": 0.3}, say("still here"), DONE
    outcomes: list[Outcome] = []

    async def run(supervisor: Supervisor) -> None:
        outcomes.append(await supervisor.run(task_in(work), heard))

    async with (
        anyio.create_task_group() as group,
        Supervisor(scripted_config(tmp_path / "other", *steps)) as other,
    ):
        async with Supervisor(scripted_config(state, DONE)):
            group.start_soon(run, other)
            await heard.awake.wait()
        assert not outcomes
        while not outcomes:
            await anyio.sleep(0.01)
    assert [(outcome.status, outcome.text) for outcome in outcomes] == [("succeeded", "still here")]


async def _once(config: Config, work: Path) -> str:
    async with Supervisor(config) as supervisor:
        return (await supervisor.run(task_in(work))).status


def test_threads_have_a_supervisor_and_a_loop_each(work: Path, state: Path) -> None:
    config = scripted_config(state, say("a"), DONE)
    statuses: list[str] = []

    def run() -> None:
        statuses.append(asyncio.run(_once(config, work)))

    threads = [threading.Thread(target=run) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert statuses == ["succeeded"] * 3
    assert len(list((state / "runs").iterdir())) == 3


def test_one_thread_may_have_one_loop_after_the_other(work: Path, state: Path) -> None:
    config = scripted_config(state, say("a"), DONE)
    assert [asyncio.run(_once(config, work)) for _ in range(2)] == ["succeeded"] * 2


# --- a task that a host made of somebody else's words


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ({"privacy": "Local"}, "privacy: 'Local' is none of any, local"),
        ({"privacy": None}, "privacy: None is none of"),
        ({"kind": "dance"}, "kind: 'dance' is none of search, summary"),
        ({"workspace": "work"}, "workspace: not a Path"),
        ({"prompt": None}, "prompt: not a str"),
        ({"limits": {"wall_s": 3}}, "limits: not a Limits"),
    ],
)
async def test_a_task_with_a_wrong_value_is_refused_by_name(
    wrong: dict[str, object], words: str, work: Path, state: Path
) -> None:
    task = dataclasses.replace(task_in(work), **wrong)  # type: ignore[arg-type]
    async with Supervisor(scripted_config(state, DONE)) as supervisor:
        with pytest.raises(InputError, match=words) as error:
            await supervisor.run(task)
    assert "task 'task'" in str(error.value)
    assert not (state / "runs").exists()
