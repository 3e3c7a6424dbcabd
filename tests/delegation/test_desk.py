"""Handing on work from inside of a run: real processes, the real command, one tree."""

import os
import socket
import stat
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import anyio
import pytest

from adapters.servers import openai
from orchestrator.adapter import About, Agent, Conversation
from orchestrator.asking import Desk, ask
from orchestrator.cli.jobs import tree_told
from orchestrator.config import Config
from orchestrator.errors import InputError
from orchestrator.events import (
    Event,
    JobFinished,
    JobOutcome,
    Notice,
    Outcome,
    ProcessSpawned,
    RunFinished,
    Subagent,
    Usage,
)
from orchestrator.journal import find_run, read_events, read_outcome, read_record
from orchestrator.lines import LINE_LIMIT
from orchestrator.run.attempt import open_reaper
from orchestrator.supervisor import Supervisor
from orchestrator.supervisor.desk import open_desk, sweep
from orchestrator.task import Limits, Task
from orchestrator.testing import model_server
from orchestrator.workspace import remains
from tests.delegation.scene import Shell, answer, hands_on, says, shell_config, used
from tests.workspace.scene import git, repository, write

pytestmark = [pytest.mark.anyio, pytest.mark.timeout(60)]


@pytest.fixture
def user(tmp_path: Path) -> Path:
    return repository(tmp_path / "user", {"a.txt": "one\n", "src/b.txt": "b\n"})


WAITS = """printf '%s\\n%s' "$ORCHESTRATE_SOCKET" "$ORCHESTRATE_TOKEN" > "$SEEN/.desk"
mv "$SEEN/.desk" "$SEEN/desk"
until test -e "$SEEN/go"; do sleep 0.05; done"""
"""Lines of a script: the test asks in its place, until it is told to go on."""


@asynccontextmanager
async def asking(
    config: Config, task: Task, tmp_path: Path
) -> AsyncGenerator[tuple[Desk, list[Outcome]]]:
    """The task runs while the block lasts, and then goes on to its end."""
    seen = tmp_path / "seen"
    outcomes: list[Outcome] = []

    async def do() -> None:
        async with Supervisor(config) as supervisor:
            outcomes.append(await supervisor.run(task))

    async with anyio.create_task_group() as group:
        group.start_soon(do)
        while not (seen / "desk").exists():
            await anyio.sleep(0.01)
        socket, token = (seen / "desk").read_text().split("\n")
        yield Desk(socket=socket, token=token), outcomes
        (seen / "go").touch()


async def quiet(progress: Any) -> None:
    del progress


async def told(desk: Desk, word: str, **parameters: Any) -> Any:
    return await ask(desk, word, parameters, quiet)


async def run(config: Config, task: Task) -> tuple[Outcome, list[Event]]:
    events: list[Event] = []
    async with Supervisor(config) as supervisor:
        return await supervisor.run(task, events.append), events


def _runs(config: Config) -> list[Path]:
    return sorted((config.state / "runs").iterdir())


def of_job(config: Config) -> JobOutcome:
    (folder,) = (config.state / "jobs").iterdir()
    (finished,) = (e.update for e in read_events(folder) if isinstance(e.update, JobFinished))
    return finished.outcome


async def test_a_sub_task_works_on_its_parents_files_as_they_are_and_its_work_can_be_taken(
    tmp_path: Path, user: Path
) -> None:
    take = """sed -n 's/.*"take": "\\(.*\\)",*/\\1/p' "$SEEN/one.json\""""
    parent = "\n".join(
        [
            used(0.25),
            "echo two > a.txt",  # not committed, and seen by the child all the same
            hands_on("one", "'make it three'", "--agent child --kind fix"),
            f"$({take})",
        ]
    )
    child = "\n".join(
        [
            used(0.5),
            "grep -q two a.txt && grep -q KEY secret.env && echo three > c.txt",
            says("made"),
        ]
    )
    config = shell_config(tmp_path, {"parent": parent, "child": child})
    write(user, {"secret.env": "KEY=1\n"})
    task = Task(
        prompt="Begin",
        workspace=user,
        agent="parent",
        kind="fix",
        copy=("secret.env",),
        delegation=True,
        limits=Limits(depth=1),
    )
    outcome, events = await run(config, task)
    assert "secret.env" not in git(user, "log", "--all", "--name-only", "--format=")
    found = answer(tmp_path, "one")
    assert (found["status"], found["text"]) == ("succeeded", "made"), found
    assert (found["files"], found["cost_usd"]) == (["c.txt"], 0.5)
    assert outcome.ok, outcome
    assert outcome.changes is not None
    assert sorted(outcome.changes.files) == ["a.txt", "c.txt"]
    heard = [one.update for one in events if isinstance(one.update, Subagent)]
    assert [one.status for one in heard] == ["requested", "started", "completed"]
    assert {one.child_task_id for one in heard} == {"task-1"}
    assert heard[-1].child_run_id == found["run_id"]
    record = read_record(config.state / "runs" / found["run_id"])
    assert record.task.parent_run_id == outcome.run_id
    job = of_job(config)
    assert list(job.tasks) == ["task"]
    assert job.usage is not None
    assert job.usage.cost_usd == 0.75
    assert outcome.usage is not None
    assert outcome.usage.cost_usd == 0.25  # its own: each run's is counted once
    job_folder = next((config.state / "jobs").iterdir())
    drawn = tree_told(job_folder, config.state / "runs", None, width=None, colour=False)
    head, top, below, _, total = drawn.splitlines()
    assert head.split()[:2] == ["TASK", "OUTCOME"]
    assert (top.split()[0], below.split()[:2]) == ("task", ["└", "task-1"])
    assert ("$0.25" in top, "$0.50" in below, "$0.75" in total) == (True, True, True), drawn
    assert find_run(config.state / "runs", "last").name == outcome.run_id  # what the user asked for
    assert b"TOKEN" not in b"".join(p.read_bytes() for p in config.state.rglob("*.json*"))
    assert list((config.state / "desks").iterdir()) == []


async def test_with_one_slot_three_levels_of_delegation_come_to_an_end(
    tmp_path: Path, user: Path
) -> None:
    """Each waits for the next and lends it the only slot; the last may not go deeper."""

    def level(name: str, below: str) -> str:
        return hands_on(name, f"'do {below}'", f"--agent {below}") + "\n" + says(name)

    scripts = {
        "top": level("top", "one"),
        "one": level("one", "two"),
        "two": level("two", "three"),
        "three": level("three", "top"),
    }
    config = shell_config(tmp_path, scripts)
    task = Task(
        prompt="Begin", workspace=user, agent="top", delegation=True, limits=Limits(depth=3)
    )
    async with model_server({"turns": []}) as server:  # a local one: it has one slot
        url = server.base_url
        agents = tuple(replace(one, base_url=url, model="m") for one in config.agents)
        config = replace(config, agents=agents, servers={"openai": openai.compatible})
        outcome, events = await run(config, task)
    assert outcome.ok, outcome
    assert [answer(tmp_path, name)["text"] for name in ("top", "one", "two")] == [
        "one",
        "two",
        "three",
    ]
    assert (tmp_path / "seen/three.status").read_text() == "127\n"  # it has no such command
    spawned = [e.task_id for e in events if isinstance(e.update, ProcessSpawned)]
    assert spawned == ["task", "task-1", "task-1-1", "task-1-1-1"]
    waits = [e.update.text for e in events if isinstance(e.update, Notice)]
    assert not any("waits for a free slot" in text for text in waits)  # it is lent at once
    (room,) = (config.state / "slots").iterdir()
    assert (room / "0").exists()  # there was one, and all of them had it
    assert not (room / "1").exists()


async def test_who_asks_for_more_is_refused_in_words_and_goes_on(
    tmp_path: Path, user: Path
) -> None:
    (user / "out").symlink_to("/etc")
    (user / "round").symlink_to("round")
    parent = "\n".join([hands_on("cloud", "'x'", "--agent cloudy"), WAITS, says("done")])
    config = shell_config(tmp_path, {"parent": parent, "child": says("y"), "cloudy": says("no")})
    task = Task(
        prompt="Begin",
        workspace=user,
        agent="parent",
        isolation="none",
        privacy="local",
        delegation=True,
    )
    async with asking(config, task, tmp_path) as (desk, outcomes):

        async def refused(word: str, **parameters: Any) -> str:
            with pytest.raises(InputError) as caught:
                await told(desk, word, **parameters)
            return f"{caught.value} {caught.value.hint}"

        assert "leads out of this task's folder" in await refused(
            "delegate", prompt="x", workspace="out"
        )
        dear = {"prompt": "x", "limits": {"cost_usd": 99}}
        assert "cost_usd: 99 is more than what is left" in await refused("delegate", **dear)
        assert "kind: Input should be" in await refused("delegate", prompt="x", kind="odd")
        assert "prompt: Field required" in await refused("delegate")
        assert "Extra inputs" in await refused("delegate", prompt="x", env={})
        assert "nothing is known of 'explode'" in await refused("explode")
        assert "no sub-task 'task-9'" in await refused("result", id="task-9")
        assert "File name too long" in await refused("delegate", prompt="x", workspace="z" * 300)
        assert "no folder" in await refused("delegate", prompt="x", workspace="round")
        assert "prompt: String should match" in await refused("delegate", prompt=" \n")
        assert "no text in UTF-8" in await refused("delegate", prompt="\udcff")
        huge = "y" * LINE_LIMIT
        assert "at most 4194304 bytes" in await refused("delegate", prompt=huge)
        stranger = replace(desk, token="no")
        with pytest.raises(InputError, match="no run is at work that has this token"):
            await told(stranger, "status")
        for rubbish in (b"rubbish\n", b"[]\n", b"\xff\n", b"{}\n"):
            async with await anyio.connect_unix(desk.socket) as stream:
                await stream.send(rubbish)
                assert b"not a request" in await stream.receive()
        many = {"tasks": [{"prompt": "x", "agent": "cloudy"}, {"prompt": "x", "agent": "child"}]}
        no, yes = (await told(desk, "delegate_many", **many))["results"]
        assert (no["status"], yes["status"], yes["text"]) == ("refused", "succeeded", "y")
        (stands,) = (await told(desk, "status"))["tasks"]
        assert (stands["id"], stands["status"]) == ("task-1", "succeeded")
        rest = await told(desk, "result", id="task-1", offset=1)
        assert rest["text"] == ""
        offered = (await told(desk, "list_agents"))["agents"]
        assert {one["name"]: one["tier"] for one in offered} == {
            "parent": "local",
            "child": "local",
            "cloudy": "cloud",
        }
        assert stat.S_IMODE(Path(desk.socket).stat().st_mode) == 0o600
        assert stat.S_IMODE(Path(desk.socket).parent.stat().st_mode) == 0o700
    (outcome,) = outcomes
    assert outcome.ok, outcome
    err = (tmp_path / "seen/cloud.err").read_text()
    assert "privacy: local" in err
    assert "Local agents: parent, child" in err
    assert (tmp_path / "seen/cloud.status").read_text() == "2\n"


async def test_a_request_that_is_taken_back_ends_the_sub_task_and_only_that(
    tmp_path: Path, user: Path
) -> None:
    parent = "\n".join([WAITS, says("done")])
    config = shell_config(tmp_path, {"parent": parent, "child": "sleep 600"})
    task = Task(prompt="Begin", workspace=user, agent="parent", delegation=True)
    async with asking(config, task, tmp_path) as (desk, outcomes):
        asked = {"prompt": "x", "agent": "child"}
        async with anyio.create_task_group() as group:

            async def stop(progress: Any) -> None:
                if str(progress["doing"]).startswith("child:"):
                    group.cancel_scope.cancel()

            group.start_soon(ask, desk, "delegate", asked, stop)
        result = await told(desk, "result", id="task-1")
        assert result["status"] == "cancelled"
        left = await told(desk, "delegate", **{**asked, "prompt": "y"}, wait=False)
        assert left["status"] == "running"
        ended = await told(desk, "cancel", id=left["id"])
        assert ended["status"] == "cancelled"
        await told(desk, "delegate", **{**asked, "prompt": "z"}, wait=False)
    assert outcomes[0].ok  # and what it did not wait for has ended with it
    made = [read_outcome(path) for path in sorted((config.state / "runs").iterdir())]
    assert sorted(one.status for one in made if one) == ["cancelled"] * len(made[1:]) + [
        "succeeded"
    ]


async def test_what_sub_tasks_spend_is_of_their_parents_budget(tmp_path: Path, user: Path) -> None:
    """The parent is stopped, as its own agent would be, and what it had handed on ends with it."""
    parent = "\n".join([used(0.1), hands_on("one", "'spend'", "--agent child"), "sleep 50"])
    child = "\n".join([used(0.95), "sleep 50"])
    config = shell_config(tmp_path, {"parent": parent, "child": child})
    task = Task(
        prompt="Begin",
        workspace=user,
        agent="parent",
        delegation=True,
        limits=Limits(cost_usd=1.0),
    )
    outcome, events = await run(config, task)
    assert (outcome.status, outcome.error and outcome.error.limit) == (
        "budget_exceeded",
        "cost_usd",
    )
    ended = {
        e.task_id: e.update.outcome.status for e in events if isinstance(e.update, RunFinished)
    }
    assert ended == {"task": "budget_exceeded", "task-1": ended["task-1"]}
    assert ended["task-1"] in {"budget_exceeded", "cancelled"}


async def test_sub_tasks_side_by_side_pass_their_parents_budget_by_one_unit_each_at_most(
    tmp_path: Path, user: Path
) -> None:
    """Nothing is set aside for them: each might have spent the whole rest by itself."""
    spends = "until test -e $SEEN/tick{}; do sleep 0.05; done; {}"
    child = "\n".join([*(spends.format(n, used(0.3)) for n in (1, 2)), "sleep 600"])
    config = shell_config(tmp_path, {"parent": f"{used(0.1)}\n{WAITS}", "child": child})
    task = Task(
        prompt="Begin",
        workspace=user,
        agent="parent",
        delegation=True,
        limits=Limits(cost_usd=1.5),
    )
    async with asking(config, task, tmp_path) as (desk, outcomes):
        tasks = [{"prompt": f"spend {n}", "agent": "child"} for n in range(4)]
        await told(desk, "delegate_many", tasks=tasks, wait=False)
        (tmp_path / "seen/tick1").touch()
        journals, spent = config.state / "runs", b'"cost_usd":0.3'
        while sum(e.read_bytes().count(spent) for e in journals.glob("*/events.jsonl")) < 4:
            await anyio.sleep(0.05)  # with the parent's own, 1.30 of 1.50
        (tmp_path / "seen/tick2").touch()  # whoever is first passes it
        while not outcomes:
            await anyio.sleep(0.05)
    assert outcomes[0].error is not None
    assert (outcomes[0].status, outcomes[0].error.limit) == ("budget_exceeded", "cost_usd")
    made = {read_record(path).task.id: read_outcome(path) for path in _runs(config)}
    texts = [one.error.text for one in made.values() if one and one.error]
    assert len(made) == len(texts) == 5
    assert any("$1.5 spent by task and what it handed on" in text for text in texts), texts
    total = of_job(config).usage
    assert total is not None
    assert 1.5 < (total.cost_usd or 0) <= 1.5 + 4 * 0.3


async def test_the_command_asks_for_less_of_everything_and_never_gets_more(
    tmp_path: Path, user: Path
) -> None:
    less = "--access read --tokens 50 --steps 3 --depth 0 --cost-usd 0.5 --wall 60s"
    parent = "\n".join(
        [
            hands_on("access", "x --access full"),
            hands_on("depth", "x --depth 9"),
            hands_on("tokens", "x --tokens 5000"),
            hands_on("huge", "x --depth 1000"),
            hands_on("less", f"x --agent child {less}"),
            says("done"),
        ]
    )
    config = shell_config(tmp_path, {"parent": parent, "child": says("y")})
    limits = Limits(tokens=1000, steps=9, depth=2)
    task = Task(prompt="Begin", workspace=user, agent="parent", delegation=True, limits=limits)
    outcome, _ = await run(config, replace(task, kind="explain"))
    assert outcome.ok, outcome
    seen = tmp_path / "seen"
    for name, refusal in (
        ("access", "access full is more than this task has: edit\n"),
        ("depth", "limits.depth 9 is more than this task can give\n"),
        ("tokens", "tokens: 5000 is more than what is left of this task's: 1000\n"),
        ("huge", "limits.depth: Input should be less than or equal to 100\n"),
    ):
        assert (seen / f"{name}.status").read_text() == "2\n", name
        assert refusal in (seen / f"{name}.err").read_text(), name
    found = answer(tmp_path, "less")
    assert (found["status"], found["text"]) == ("succeeded", "y")
    made = read_record(config.state / "runs" / found["run_id"]).task
    had = made.limits
    assert (made.access, made.delegation) == ("read", False)
    assert (had.tokens, had.steps, had.depth, had.cost_usd, had.wall_s) == (50, 3, 0, 0.5, 60)


async def test_a_parent_below_the_top_takes_over_what_lies_beside_it_too(
    tmp_path: Path, user: Path
) -> None:
    """By a patch whose path has a space in it."""
    take = """sed -n 's/.*"take": "\\(.*\\)",*/\\1/p' "$SEEN/one.json\""""
    parent = "\n".join([hands_on("one", "x --agent child --kind fix"), f'eval "$({take})"'])
    child = "echo three > ../a.txt; echo bb > b.txt"
    config = shell_config(tmp_path, {"parent": parent, "child": child})
    config = replace(config, state=tmp_path / "my state")
    task = Task(prompt="Begin", workspace=user / "src", agent="parent", kind="fix", delegation=True)
    outcome, _ = await run(config, task)
    assert outcome.changes is not None, answer(tmp_path, "one")
    assert sorted(outcome.changes.files) == ["a.txt", "src/b.txt"]


async def test_what_a_sub_task_made_is_there_for_the_user_when_its_parents_work_tree_is_gone(
    tmp_path: Path, user: Path
) -> None:
    """Saved though a git that was killed had left its lock; applied where the parent began."""
    parent = "\n".join([hands_on("one", "x --agent child --kind fix"), says("done")])
    child = 'touch "$PWD.index.lock"; echo three > c.txt'
    config = shell_config(tmp_path, {"parent": parent, "child": child})
    task = Task(prompt="Begin", workspace=user, agent="parent", kind="explain", delegation=True)
    outcome, _ = await run(config, task)
    assert outcome.ok, outcome
    assert not list((config.state / "trees").iterdir())
    folder = config.state / "runs" / answer(tmp_path, "one")["run_id"]
    async with open_reaper() as reaper:
        state = config.state.resolve()
        at = remains.Desk(reaper=reaper, state=state, environ=config.environ)
        assert b"+three" in await remains.diff(at, folder)
        assert await remains.bring(at, folder) == (user, ["c.txt"])
        assert (user / "c.txt").read_text() == "three\n"
        branch = await remains.discard(at, folder)
        assert git(user, "branch", "--list", branch) == ""


async def test_a_parent_that_breaks_its_work_tree_is_told_and_goes_on(
    tmp_path: Path, user: Path
) -> None:
    """It might else lead a sub-task, and what is committed of it, into another repository."""
    elsewhere = repository(tmp_path / "elsewhere", {"theirs.txt": "x\n"})
    parent = "\n".join(
        [
            f"echo 'gitdir: {elsewhere}/.git' > .git",
            hands_on("one", "'x'", "--agent child"),
            says("done"),
        ]
    )
    config = shell_config(tmp_path, {"parent": parent, "child": says("y")})
    task = Task(prompt="Begin", workspace=user, agent="parent", kind="explain", delegation=True)
    outcome, _ = await run(config, task)
    assert outcome.text == "done"
    found = answer(tmp_path, "one")
    assert (found["status"], found["run_id"]) == ("failed", None)
    assert "is not a work tree of" in found["error"]
    assert git(elsewhere, "branch", "--list", "orchestrate/*") == ""


async def test_an_agent_that_takes_mcp_servers_has_the_tools_from_its_conversation_too(
    tmp_path: Path, user: Path
) -> None:
    """As over ACP, where the conversation makes them known, and not the command."""
    made: list[Task] = []

    class Talks(Shell):
        def conversation(self, task: Task, agent: Agent, before: Usage | None) -> Conversation:
            made.append(task)
            return super().conversation(task, agent, before)

    config = shell_config(tmp_path, {"parent": says("done")})
    about = replace(config.adapters["shell"].about, mcp=True)
    config = replace(config, adapters={"shell": Talks(seen=tmp_path / "seen", about=about)})
    outcome, _ = await run(
        config, Task(prompt="Begin", workspace=user, agent="parent", delegation=True)
    )
    assert outcome.ok, outcome
    assert [server.name for task in made for server in task.mcp_servers] == ["orchestrate"]
    assert made[0].prompt == "Begin"
    assert b"ORCHESTRATE_TOKEN" not in b"".join(
        p.read_bytes() for p in config.state.rglob("*.json*")
    )


@pytest.mark.parametrize("privacy", ["any", "local"])
async def test_an_agent_trusts_no_folder_where_nothing_may_leave_the_machine(
    tmp_path: Path, user: Path, privacy: Any
) -> None:
    """What the repository's settings name may be elsewhere; it is then told of the command."""
    made: list[tuple[Task, Agent]] = []

    class Trusts(Shell):
        def about_for(self, agent: Agent) -> About:
            return replace(self.about, mcp=agent.options.get("trusting") is True)

        def conversation(self, task: Task, agent: Agent, before: Usage | None) -> Conversation:
            made.append((task, agent))
            return super().conversation(task, agent, before)

    config = shell_config(tmp_path, {"parent": says("done")})
    about = replace(config.adapters["shell"].about, trust_option="trusting")
    (parent,) = config.agents
    config = replace(
        config,
        agents=(replace(parent, options={**parent.options, "trusting": True}),),
        adapters={"shell": Trusts(seen=tmp_path / "seen", about=about)},
    )
    outcome, events = await run(
        config,
        Task(prompt="Begin", workspace=user, agent="parent", delegation=True, privacy=privacy),
    )
    assert outcome.ok, outcome
    ((task, agent),) = made
    at_home = privacy == "local"
    assert ("trusting" in agent.options, bool(task.mcp_servers)) == (not at_home, not at_home)
    assert (task.prompt != "Begin") is at_home
    notices = [e.update.text for e in events if isinstance(e.update, Notice)]
    (told,) = [text for text in notices if "trust" in text]
    assert told.startswith("privacy: local: parent does not" if at_home else "parent trusts the")


@pytest.mark.parametrize("deep", ["", "d" * 100], ids=["in the state", "where paths are short"])
async def test_a_desk_that_nobody_is_at_any_more_is_swept_and_no_other(
    tmp_path: Path, deep: str
) -> None:
    state = tmp_path / deep
    async with open_desk(state, ()) as left, open_desk(state, ()) as young:
        at_work = left.socket.parent
        os.utime(at_work, (0, 0))
        sweep(state)
        assert left.socket.exists()
    for dead in (at_work, young.socket.parent):  # as after kill -9
        (dead / "bin").mkdir(parents=True)
        (dead / "bin/orchestrate").touch()
        with socket.socket(socket.AF_UNIX) as one:
            one.bind(str(dead / "desk"))
    os.utime(at_work, (0, 0))
    try:
        sweep(state)
        assert not at_work.exists()
        assert young.socket.exists()
    finally:
        os.utime(young.socket.parent, (0, 0))
        sweep(state)
    assert not young.socket.parent.exists()
