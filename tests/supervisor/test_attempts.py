"""Tasks of several attempts with real processes: retries, escalation, hand-over, slots."""

import json
import subprocess
import sys
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field, replace
from pathlib import Path

import anyio
import pytest

from adapters.servers.llamacpp import server as llamacpp
from adapters.servers.lmstudio import server as lmstudio
from adapters.servers.ollama import server as ollama
from adapters.servers.vllm import server as vllm
from orchestrator.adapter import About, Agent, Command
from orchestrator.config import Config
from orchestrator.events import (
    Event,
    Limit,
    Notice,
    Outcome,
    Retry,
    RouteEscalated,
    RouteSelected,
    RouteVerified,
    RunStarted,
    TaskFinished,
    Update,
)
from orchestrator.journal import list_runs, read_events
from orchestrator.outcome import ROUTING_ONLY
from orchestrator.slots import Room, Slots
from orchestrator.supervisor import Supervisor, following
from orchestrator.task import Limits, Task
from orchestrator.testing import ModelServer, Script, model_server
from orchestrator.testing import agent as scripted_agent
from orchestrator.testing.script import Make, Turn
from tests.scripted_adapter import DONE, Scripted, Step, said, say

pytestmark = pytest.mark.anyio

EDIT: Step = {"edit": "file.txt", "old": "one", "new": "two"}
BUSY = said(type="error", text="503 overloaded")
SPENT = said(type="usage", cost=0.25)


@dataclass
class ByTurn(Scripted):
    """Each agent does its first script on its first attempt, its second on the second, ..."""

    scripts: Mapping[str, Sequence[Sequence[Step]]] = field(default_factory=dict)
    turns: dict[str, int] = field(default_factory=dict)
    prompts: list[str] = field(default_factory=list)

    def command(self, task: Task, agent: Agent) -> Command:
        turn = self.turns.get(agent.name, -1)
        if agent.home != "/":  # there it is only looked at whether there could be a command
            turn = self.turns[agent.name] = turn + 1
            self.prompts.append(task.prompt)
        script = f"{agent.home}/script.json"
        return Command(
            argv=(sys.executable, "-I", "-S", scripted_agent.__file__, script),
            cwd=str(task.workspace),
            files={script: json.dumps(list(self.scripts[agent.name][max(turn, 0)])).encode()},
            stdin=task.prompt.encode(),
        )


@pytest.fixture(autouse=True)
def _no_long_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(following, "FIRST_DELAY_S", 0.001)


@pytest.fixture
def work(tmp_path: Path) -> Path:
    folder = tmp_path / "work"
    folder.mkdir()
    (folder / "file.txt").write_text("one\n")
    return folder


@pytest.fixture
def repository(work: Path) -> Path:
    settings = ("-c", "user.name=n", "-c", "user.email=e@x")
    for argv in (("init", "-q"), ("add", "."), (*settings, "commit", "-qm", "first")):
        subprocess.run(["git", *argv], cwd=work, check=True)
    return work


def config(tmp_path: Path, adapter: Scripted, **more: object) -> Config:
    """Two agents: `home`, which is local, and `paid`, which is in the cloud."""
    home = Agent(name="home", adapter="scripted", tier="local")
    paid = Agent(name="paid", adapter="scripted", tier="cloud")
    return Config(
        agents=(home, paid),
        adapters={"scripted": adapter},
        state=tmp_path / "state",
        environ={"PATH": "/usr/bin:/bin"},
        **more,  # type: ignore[arg-type]
    )


async def outcome_of(settings: Config, task: Task) -> tuple[Outcome, list[Event]]:
    events: list[Event] = []
    async with Supervisor(settings) as supervisor:
        return await supervisor.run(task, events.append), events


def updates(events: list[Event], *kinds: type[Update]) -> list[Update]:
    return [event.update for event in events if isinstance(event.update, kinds)]


def ran(events: list[Event]) -> list[tuple[str | None, int | None]]:
    started = [event for event in events if isinstance(event.update, RunStarted)]
    return [
        (event.agent, event.update.attempt)
        for event in started
        if isinstance(event.update, RunStarted)
    ]


async def test_a_failure_that_may_pass_is_tried_again_in_a_run_of_its_own_and_told_in_the_job(
    work: Path, tmp_path: Path
) -> None:
    adapter = ByTurn(scripts={"home": [[SPENT, BUSY], [SPENT, say("done"), DONE]]})
    task = Task(prompt="p", workspace=work, agent="home", retries=2)
    outcome, events = await outcome_of(config(tmp_path, adapter), task)
    outcome.check()
    assert ran(events) == [("home", 1), ("home", 2)]
    (retry,) = [event for event in events if isinstance(event.update, Retry)]
    assert isinstance(retry.update, Retry)
    assert (retry.run_id, retry.task_id, retry.source) == (None, "task", "supervisor")
    assert (retry.update.attempt, retry.update.of) == (1, 2)
    assert retry.update.reason == "server_error: 503 overloaded"
    assert outcome.usage is not None
    assert outcome.usage.cost_usd == 0.5
    assert [line.split(":")[0] for line in outcome.evidence[:2]] == ["attempt 1", "attempt 2"]
    (job,) = (tmp_path / "state" / "jobs").iterdir()
    assert [type(event.update) for event in read_events(job)].count(Retry) == 1
    (finished,) = updates(events, TaskFinished)
    assert isinstance(finished, TaskFinished)
    assert finished.outcome == outcome


async def test_without_retries_it_is_the_end(work: Path, tmp_path: Path) -> None:
    adapter = ByTurn(scripts={"home": [[BUSY]]})
    outcome, events = await outcome_of(
        config(tmp_path, adapter), Task(prompt="p", workspace=work, agent="home")
    )
    assert (outcome.ok, ran(events)) == (False, [("home", 1)])


async def test_a_cascade_goes_on_in_the_cloud_when_the_check_fails_and_starts_afresh(
    repository: Path, tmp_path: Path
) -> None:
    spoil: Step = {"write": "file.txt", "text": "spoiled\n"}
    adapter = ByTurn(
        scripts={
            "home": [[spoil, say("I think so"), DONE]],
            "paid": [[EDIT, SPENT, say("now"), DONE]],
        }
    )
    task = Task(
        prompt="p",
        workspace=repository,
        kind="fix",
        strategy="cascade",
        check="grep -q two file.txt",
        limits=Limits(wall_s=100),
    )
    outcome, events = await outcome_of(config(tmp_path, adapter), task)
    outcome.check()
    assert (outcome.agent, outcome.verified, ran(events)) == (
        "paid",
        True,
        [("home", 1), ("paid", 2)],
    )
    (moved,) = updates(events, RouteEscalated)
    assert isinstance(moved, RouteEscalated)
    assert (moved.from_agent, moved.to_agent, moved.cost_usd) == ("home", "paid", None)
    assert moved.why.startswith("check_failed: the check")
    assert adapter.prompts == ["p", "p"]
    assert (repository / "file.txt").read_text() == "one\n"
    chosen = updates(events, RouteSelected)
    assert [
        [one.agent for one in update.considered if one.chosen]
        for update in chosen
        if isinstance(update, RouteSelected)
    ] == [["home"], ["paid"]]


async def test_who_goes_on_with_what_was_left_finds_it_and_is_told(
    repository: Path, tmp_path: Path
) -> None:
    adapter = ByTurn(
        scripts={
            "home": [[EDIT, say("half of it"), DONE]],
            "paid": [[{"edit": "file.txt", "old": "two", "new": "three"}, say("rest"), DONE]],
        }
    )
    task = Task(
        prompt="p",
        workspace=repository,
        strategy="cascade",
        handoff="continue",
        check="grep -q three file.txt",
    )
    outcome, _ = await outcome_of(config(tmp_path, adapter), task)
    outcome.check()
    assert adapter.prompts[0] == "p"
    assert "Another agent (home)" in adapter.prompts[1]
    assert adapter.prompts[1].endswith("half of it")
    assert outcome.changes is not None
    assert outcome.changes.commit is not None
    log = subprocess.run(
        ["git", "rev-list", "--count", f"HEAD..{outcome.changes.commit}"],
        cwd=repository,
        capture_output=True,
        check=True,
    )
    assert log.stdout.strip() == b"2"


@pytest.mark.parametrize("handoff", ["clean", "continue"])
async def test_a_scratch_folder_is_a_fresh_one_or_the_one_that_was_left(
    work: Path, tmp_path: Path, handoff: str
) -> None:
    look: Step = {"edit": "file.txt", "old": "two" if handoff == "continue" else "one", "new": "3"}
    adapter = ByTurn(scripts={"home": [[EDIT, DONE]], "paid": [[look, say("x"), DONE]]})
    task = Task(
        prompt="p",
        template=work,
        strategy="cascade",
        handoff=handoff,  # type: ignore[arg-type]
        check="grep -q 3 file.txt",
    )
    outcome, _ = await outcome_of(config(tmp_path, adapter), task)
    outcome.check()
    assert outcome.agent == "paid"


async def test_in_the_folder_itself_the_next_attempt_is_told_what_it_begins_with(
    work: Path, tmp_path: Path
) -> None:
    adapter = ByTurn(scripts={"home": [[EDIT, BUSY], [say("done"), DONE]]})
    task = Task(prompt="p", workspace=work, agent="home", retries=1)
    _, events = await outcome_of(config(tmp_path, adapter), task)
    notes = [update.text for update in updates(events, Notice) if isinstance(update, Notice)]
    assert notes == ["it begins with what the attempt before left in the folder itself"]


async def test_without_a_word_the_work_stays_at_home_and_the_key_is_named(
    work: Path, tmp_path: Path
) -> None:
    adapter = ByTurn(scripts={"home": [[say("an answer"), DONE]], "paid": [[DONE]]})
    task = Task(prompt="p", workspace=work, kind="search", check="false")
    outcome, events = await outcome_of(config(tmp_path, adapter), task)
    assert (outcome.status, ran(events)) == ("failed", [("home", 1)])
    assert outcome.error is not None
    assert "fallback: cloud" in (outcome.error.hint or "")
    assert updates(events, RouteEscalated) == []


async def test_private_work_fails_at_home_and_says_what_holds_it_there(
    work: Path, tmp_path: Path
) -> None:
    adapter = ByTurn(scripts={"home": [[BUSY], [BUSY]], "paid": [[DONE]]})
    task = Task(
        prompt="p",
        workspace=work,
        strategy="cascade",
        fallback="cloud",
        privacy="local",
        retries=1,
    )
    outcome, events = await outcome_of(config(tmp_path, adapter), task)
    assert ran(events) == [("home", 1), ("home", 2)]
    assert ROUTING_ONLY in outcome.evidence
    assert "fallback" not in ((outcome.error and outcome.error.hint) or "")
    selected = updates(events, RouteSelected)
    assert [one.enforced for one in selected if isinstance(one, RouteSelected)] == ["routing"] * 2


async def test_a_local_agent_that_goes_round_in_circles_is_ended_before_its_time(
    work: Path, tmp_path: Path
) -> None:
    turns: list[Step] = []
    for number in range(following.EARLY_FAILURES):
        turns += [said(type="tool", id=f"t{number}", status="failed")]
    adapter = ByTurn(scripts={"home": [[*turns, {"hang": True}]], "paid": [[say("easy"), DONE]]})
    task = Task(prompt="p", workspace=work, strategy="cascade")
    outcome, events = await outcome_of(config(tmp_path, adapter), task)
    outcome.check()
    (limit,) = updates(events, Limit)
    assert isinstance(limit, Limit)
    assert (limit.limit, limit.value) == ("failures", following.EARLY_FAILURES)
    (moved,) = updates(events, RouteEscalated)
    assert isinstance(moved, RouteEscalated)
    assert moved.why == "stalled: 8 tool calls in a row failed"


async def test_an_interrupt_during_a_pause_ends_the_task(
    work: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(following, "FIRST_DELAY_S", 1000.0)
    monkeypatch.setattr(following, "LONGEST_DELAY_S", 1000.0)
    adapter = ByTurn(scripts={"home": [[BUSY]]})
    events: list[Event] = []
    async with Supervisor(config(tmp_path, adapter)) as supervisor:

        def stop_in_the_pause(event: Event) -> None:
            events.append(event)
            if isinstance(event.update, Retry):
                supervisor.interrupt()

        task = Task(prompt="p", workspace=work, agent="home", retries=1)
        outcome = await supervisor.run(task, stop_in_the_pause)
    assert outcome.status == "interrupted"
    assert ran(events) == [("home", 1)]


# --- refused before it began ----------------------------------------------------------------------

SERVERS = {one.name: one for one in (llamacpp, lmstudio, ollama, vllm)}
WORDS = Script(turns=(Turn(text="no", repeat="forever"),), model="m", server="vllm")
NEEDS_TOOLS = About(name="scripted", title="Scripted", program=None, prompt_tokens=100)


async def refused_at_home(
    work: Path, tmp_path: Path, *more: str, **task: str
) -> tuple[Outcome, list[Event], ByTurn]:
    """`first` is at a server whose model calls no tool when one is tried; the others are not."""
    steps = [say("done"), DONE]
    adapter = ByTurn(about=NEEDS_TOOLS, scripts={name: [steps] for name in ("first", *more)})
    async with model_server(WORDS) as server:
        url = server.base_url
        first = Agent(name="first", adapter="scripted", model="m", server="vllm", tier="local")
        others = {
            "desk": replace(first, name="desk", server=None, base_url=f"{url}/desk"),
            "paid": Agent(name="paid", adapter="scripted", tier="cloud"),
        }
        agents = (replace(first, base_url=url), *(others[name] for name in more))
        settings = replace(config(tmp_path, adapter), agents=agents, servers={"vllm": vllm})
        wanted = Task(prompt="p", workspace=work, kind="search", **task)  # type: ignore[arg-type]
        outcome, events = await outcome_of(settings, wanted)
    return outcome, events, adapter


async def test_what_a_server_cannot_do_the_next_route_does_and_the_event_says_why(
    work: Path, tmp_path: Path
) -> None:
    outcome, events, adapter = await refused_at_home(work, tmp_path, "desk", handoff="continue")
    outcome.check()
    assert ran(events) == [("first", 1), ("desk", 2)]
    (moved,) = updates(events, RouteEscalated)
    assert isinstance(moved, RouteEscalated)
    assert (moved.from_agent, moved.to_agent) == ("first", "desk")
    assert moved.why == (
        "tools_unsupported: m calls no tools, and Scripted does nothing without them."
    )
    assert adapter.prompts[-1] == "p"  # nobody worked on it before: there is nothing to go on from
    assert not [note for note in updates(events, Notice) if "begins with" in str(note)]


@pytest.mark.parametrize("leaves", [False, True])
async def test_what_the_only_server_at_home_cannot_do_leaves_it_only_by_the_users_word(
    work: Path, tmp_path: Path, leaves: bool
) -> None:
    word = {"fallback": "cloud"} if leaves else {}
    outcome, events, _ = await refused_at_home(work, tmp_path, "paid", **word)
    assert outcome.ok is leaves
    assert ran(events) == ([("first", 1), ("paid", 2)] if leaves else [("first", 1)])
    if not leaves:
        assert (outcome.status, outcome.agent) == ("failed", "first")
        assert outcome.error is not None
        assert outcome.error.kind == "tools_unsupported"
        assert "Set `fallback: cloud`" in (outcome.error.hint or "")


# --- slots ----------------------------------------------------------------------------------------


@pytest.fixture
async def url() -> AsyncGenerator[str]:
    """Where something listens, so that it can be connected to."""
    server = await anyio.create_tcp_listener(local_host="127.0.0.1")
    async with server:
        port: int = server.extra(anyio.abc.SocketAttribute.local_port)  # noqa: S610 (not Django)
        yield f"http://127.0.0.1:{port}"


async def test_an_agent_waits_for_the_slot_of_its_server_and_says_so(
    work: Path, tmp_path: Path, url: str
) -> None:
    adapter = ByTurn(scripts={"home": [[say("done"), DONE]]})
    settings = config(tmp_path, adapter)
    home = replace(settings.agents[0], base_url=url)
    told = anyio.Event()
    events: list[Event] = []
    outcomes: list[Outcome] = []

    def listen(event: Event) -> None:
        events.append(event)
        if isinstance(event.update, Notice):
            told.set()

    async def run(supervisor: Supervisor) -> None:
        task = Task(prompt="p", workspace=work, agent="home")
        outcomes.append(await supervisor.run(task, listen))

    room = Room(name=url, slots=1)
    async with (
        Supervisor(replace(settings, agents=(home,))) as supervisor,
        anyio.create_task_group() as group,
        Slots(settings.state / "slots").hold(room),
    ):
        group.start_soon(run, supervisor)
        await told.wait()
        assert "process.spawned" not in [event.type for event in events]
    outcomes[0].check()
    notes = [update.text for update in updates(events, Notice) if isinstance(update, Notice)]
    assert notes == [f"waits for a free slot at {url} (1 in use)"]


async def test_no_slot_within_the_time_limit_is_a_time_out(
    work: Path, tmp_path: Path, url: str
) -> None:
    settings = config(tmp_path, ByTurn(scripts={"home": [[DONE]]}))
    home = replace(settings.agents[0], base_url=url)
    async with Slots(settings.state / "slots").hold(Room(name=url, slots=1)):
        outcome, _ = await outcome_of(
            replace(settings, agents=(home,)),
            Task(prompt="p", workspace=work, agent="home", limits=Limits(wall_s=0.2)),
        )
    assert outcome.status == "timed_out"
    assert outcome.error is not None
    assert outcome.error.text == "no slot was free within the time limit of 0.2 s"
    assert len(list_runs(settings.state / "runs")) == 1


# --- what really served ---------------------------------------------------------------------------

ASK = """
import json, sys, urllib.request
body = json.dumps({"model": "m", "messages": [{"role": "user", "content": "hello"}]}).encode()
request = urllib.request.Request(
    sys.argv[1] + "/v1/chat/completions", body, {"content-type": "application/json"}
)
answer = json.load(urllib.request.urlopen(request))["choices"][0]["message"]["content"]
print(json.dumps({"type": "session", "id": "s", "model": "m"}))
print(json.dumps({"type": "message", "text": answer}))
print(json.dumps({"type": "end"}))
"""


@dataclass
class GoesTo(Scripted):
    """An agent that asks the model at an address of its own, whatever it was told."""

    url: str = ""

    def command(self, task: Task, agent: Agent) -> Command:
        return Command(
            argv=(sys.executable, "-I", "-S", "-c", ASK, self.url), cwd=str(task.workspace)
        )


@pytest.fixture
async def servers() -> AsyncGenerator[tuple[ModelServer, ModelServer]]:
    """One at home, which says of itself that it is an Ollama, and one that stands for a cloud."""
    async with speaking_as("ollama") as home, speaking_as("ollama") as cloud:
        yield home, cloud


def speaking_as(make: Make) -> AbstractAsyncContextManager[ModelServer]:
    return model_server(Script(turns=(Turn(text="hi", repeat="forever"),), model="m", server=make))


async def routed_home(
    tmp_path: Path, work: Path, home: ModelServer, adapter: Scripted, **more: str
) -> tuple[Outcome, list[Event]]:
    url = home.base_url.removesuffix("/v1")
    agent = Agent(
        name="home",
        adapter="scripted",
        model="m",
        base_url=url,
        tier="local",
        **{"server": "ollama", **more},  # type: ignore[arg-type]
    )
    settings = config(tmp_path, adapter)
    settings = replace(settings, agents=(agent,), servers=SERVERS)
    return await outcome_of(settings, Task(prompt="p", workspace=work, agent="home"))


COUNTING: tuple[Make, ...] = ("ollama", "vllm", "llamacpp")
QUIET = replace(NEEDS_TOOLS, tools=False)


@pytest.mark.parametrize("make", COUNTING)
async def test_what_the_server_says_that_it_answered_is_verified(
    work: Path, tmp_path: Path, make: Make
) -> None:
    async with speaking_as(make) as home:
        adapter = GoesTo(url=home.base_url, about=QUIET)
        for _ in range(2):
            outcome, events = await routed_home(tmp_path, work, home, adapter, server=make)
            outcome.check()
            (verified,) = updates(events, RouteVerified)
            assert isinstance(verified, RouteVerified)
            assert (verified.method, verified.model) == ("server", "m")
            assert verified.server == home.base_url


async def test_a_run_that_failed_without_an_answer_was_not_served_elsewhere(
    work: Path, tmp_path: Path
) -> None:
    async with speaking_as("ollama") as home:
        fails = ByTurn(about=QUIET, scripts={"home": [[BUSY, DONE]]})
        outcome, events = await routed_home(tmp_path, work, home, fails)
    assert outcome.error is not None
    assert outcome.error.kind == "server_error"
    assert updates(events, RouteVerified) == []


async def test_a_server_that_counts_nothing_verifies_nothing(work: Path, tmp_path: Path) -> None:
    async with speaking_as("lmstudio") as home:
        adapter = GoesTo(url=home.base_url, about=QUIET)
        outcome, events = await routed_home(tmp_path, work, home, adapter, server="lmstudio")
    outcome.check()
    (verified,) = updates(events, RouteVerified)
    assert isinstance(verified, RouteVerified)
    assert (verified.method, verified.server) == ("claimed", None)


@pytest.mark.parametrize("make", COUNTING)
async def test_a_run_that_was_served_elsewhere_fails_whatever_the_agent_says(
    work: Path, tmp_path: Path, make: Make, servers: tuple[ModelServer, ModelServer]
) -> None:
    _, cloud = servers
    adapter = GoesTo(url=cloud.base_url, about=QUIET)
    async with speaking_as(make) as home:
        # One answer before: a server that never had one says nothing of any.
        before = GoesTo(url=home.base_url, about=QUIET)
        await routed_home(tmp_path, work, home, before, server=make)
        outcome, events = await routed_home(tmp_path, work, home, adapter, server=make)
    assert outcome.status == "failed"
    assert outcome.error is not None
    assert outcome.error.kind == "route_mismatch"
    assert "answered nothing meanwhile" in outcome.error.text
    assert updates(events, RouteVerified) == []


async def test_the_agents_own_word_is_only_claimed(
    work: Path, tmp_path: Path, servers: tuple[ModelServer, ModelServer]
) -> None:
    home, _ = servers
    adapter = GoesTo(url=home.base_url.removesuffix("/v1"))
    outcome, events = await routed_home(tmp_path, work, home, adapter, server="unknown")
    outcome.check()
    (verified,) = updates(events, RouteVerified)
    assert isinstance(verified, RouteVerified)
    assert (verified.method, verified.model, verified.server) == ("claimed", "m", None)
