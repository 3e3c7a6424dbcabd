"""Whole runs with a real process: what the supervisor sees, records and decides."""

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import anyio
import anyio.lowlevel
import pytest

from orchestrator.adapter import About, Agent, Command, Program, Tail
from orchestrator.config import Bounds, Defaults
from orchestrator.errors import InputError, OutcomeError, SupervisionError
from orchestrator.events import (
    Check,
    Error,
    Event,
    JobFinished,
    Message,
    Notice,
    Output,
    ProcessReaped,
    ProcessSpawned,
    RunFinished,
    RunStarted,
    Stall,
    Unparsed,
    Update,
)
from orchestrator.events.wire import decode, encode
from orchestrator.journal import read_events, read_lines, read_outcome, read_record
from orchestrator.supervisor import Supervisor
from orchestrator.supervisor.stream import EventStream
from orchestrator.task import Limits, Task
from tests.scripted_adapter import DONE, Scripted, said, say, scripted_config

pytestmark = pytest.mark.anyio


@pytest.fixture
def work(tmp_path: Path) -> Path:
    folder = tmp_path / "work"
    folder.mkdir()
    (folder / "file.txt").write_text("one\n")
    return folder


@pytest.fixture
def state(tmp_path: Path) -> Path:
    return tmp_path / "state"


def job_folder(state: Path) -> Path:
    (folder,) = (state / "jobs").iterdir()
    return folder


def run_folder(state: Path) -> Path:
    (folder,) = (state / "runs").iterdir()
    return folder


def updates(events: list[Event], kind: type[Update]) -> list[Update]:
    return [event.update for event in events if isinstance(event.update, kind)]


def last_of_the_run(events: list[Event]) -> Update:
    return [event.update for event in events if event.run_id][-1]


async def wait_for(events: list[Event], kind: type[Update]) -> None:
    while not updates(events, kind):
        await anyio.lowlevel.checkpoint()


def alive(pid: int) -> bool:
    return Path(f"/proc/{pid}").exists()


async def test_a_run_that_says_it_is_done_and_changed_a_file_succeeded(
    work: Path, state: Path
) -> None:
    config = scripted_config(
        state, say("hello"), {"edit": "file.txt", "old": "one", "new": "two"}, DONE
    )
    events: list[Event] = []
    async with Supervisor(config) as supervisor:
        outcome = await supervisor.run(
            Task(prompt="p", workspace=work, kind="edit", check="grep -q two file.txt"),
            events.append,
        )
    outcome.check()
    assert (outcome.status, outcome.verified, outcome.text) == ("succeeded", True, "hello")
    assert outcome.changes is not None
    assert outcome.changes.files == ["file.txt"]
    assert (outcome.changes.insertions, outcome.changes.deletions) == (1, 1)
    assert "+two" in (outcome.changes.diff or "")
    assert [event.type for event in events if event.run_id is None] == [
        "task.started",
        "task.finished",
        "job.finished",
    ]
    folder = run_folder(state)
    for journal in (folder, job_folder(state)):
        recorded = list(read_events(journal))
        assert [event.seq for event in recorded] == list(range(1, len(recorded) + 1))
        assert recorded == [
            event for event in events if (event.run_id or event.job_id) == journal.name
        ]
    assert len({event.job_id for event in events}) == 1
    assert isinstance(events[-1].update, JobFinished)
    assert read_outcome(folder) == outcome
    assert read_record(folder).task.prompt == "p"


async def test_the_journal_has_an_event_before_a_subscriber_sees_it(
    work: Path, state: Path
) -> None:
    late: list[Event] = []

    def look(event: Event) -> None:
        if decode(list(read_lines(run_folder(state)))[event.seq - 1]) != event:
            late.append(event)

    async with Supervisor(scripted_config(state, say("a"), say("b"), DONE)) as supervisor:
        await supervisor.run(Task(prompt="p", workspace=work), look)
    assert late == []


async def test_an_agent_that_ends_without_its_last_word_failed(work: Path, state: Path) -> None:
    async with Supervisor(scripted_config(state, say("all done!"))) as supervisor:
        outcome = await supervisor.run(Task(prompt="p", workspace=work))
    assert outcome.status == "failed"
    assert outcome.error is not None
    assert outcome.error.kind == "incomplete"
    with pytest.raises(OutcomeError):
        outcome.check()


async def test_an_edit_that_changed_nothing_failed(work: Path, state: Path) -> None:
    async with Supervisor(scripted_config(state, say("edited!"), DONE)) as supervisor:
        outcome = await supervisor.run(Task(prompt="p", workspace=work, kind="edit"))
    assert outcome.error is not None
    assert (outcome.status, outcome.error.kind) == ("failed", "no_change")


async def test_a_failed_check_is_a_failure_with_its_output_kept(work: Path, state: Path) -> None:
    events: list[Event] = []
    async with Supervisor(scripted_config(state, DONE)) as supervisor:
        outcome = await supervisor.run(
            Task(prompt="p", workspace=work, check="echo why; exit 3"), events.append
        )
    assert (outcome.status, outcome.verified) == ("failed", False)
    (check,) = updates(events, Check)
    assert check == Check(command="echo why; exit 3", passed=False, exit=3, output="why\n")


async def test_a_check_that_does_not_end_is_stopped_and_fails(work: Path, state: Path) -> None:
    task = Task(prompt="p", workspace=work, check="sleep 60", limits=Limits(check_s=0.2))
    async with Supervisor(scripted_config(state, DONE)) as supervisor:
        outcome = await supervisor.run(task)
    assert outcome.verified is False


async def test_an_interrupt_stops_the_agent_and_its_children_and_writes_the_outcome(
    work: Path, state: Path
) -> None:
    config = scripted_config(
        state,
        {"spawn": [{"ignore": ["SIGTERM", "SIGINT"]}, {"hang": True}], "double_fork": True},
        say("started"),
        {"hang": True},
    )
    events: list[Event] = []
    outcomes: list[object] = []
    async with Supervisor(config) as supervisor, anyio.create_task_group() as group:

        async def run() -> None:
            outcomes.append(await supervisor.run(Task(prompt="p", workspace=work), events.append))

        group.start_soon(run)
        await wait_for(events, Message)
        supervisor.interrupt()
    outcome = read_outcome(run_folder(state))
    assert outcome is not None
    assert outcomes == [outcome]
    assert outcome.status == "interrupted"
    (reaped,) = updates(events, ProcessReaped)
    assert isinstance(reaped, ProcessReaped)
    assert (reaped.survivors, reaped.kept, len(reaped.processes)) == (1, 0, 1)
    (spawned,) = updates(events, ProcessSpawned)
    assert isinstance(spawned, ProcessSpawned)
    assert not alive(spawned.pid)


async def test_cancelling_the_run_kills_the_agent_and_still_writes_the_outcome(
    work: Path, state: Path
) -> None:
    config = scripted_config(state, {"ignore": ["SIGTERM", "SIGINT"]}, say("x"), {"hang": True})
    events: list[Event] = []
    async with Supervisor(config) as supervisor, anyio.create_task_group() as group:
        group.start_soon(supervisor.run, Task(prompt="p", workspace=work), events.append)
        await wait_for(events, Message)
        group.cancel_scope.cancel()
    outcome = read_outcome(run_folder(state))
    assert outcome is not None
    assert outcome.status == "cancelled"
    assert isinstance(last_of_the_run(events), RunFinished)
    (spawned,) = updates(events, ProcessSpawned)
    assert isinstance(spawned, ProcessSpawned)
    assert not alive(spawned.pid)


@pytest.mark.parametrize(
    ("limits", "steps", "status"),
    [
        (Limits(wall_s=0.2), [{"hang": True}], "timed_out"),
        (Limits(stall_s=0.2), [{"hang": True}], "stalled"),
        (Limits(output_bytes=1000), [{"print": "x" * 99, "times": 99}, {"hang": True}], "failed"),
        (
            Limits(steps=1),
            [said(type="tool", id=i, status="in_progress") for i in "ab"] + [{"hang": True}],
            "budget_exceeded",
        ),
        (
            Limits(cost_usd=0.5),
            [said(type="usage", cost=0.4), said(type="usage", cost=0.4), {"hang": True}],
            "budget_exceeded",
        ),
    ],
)
async def test_a_limit_stops_the_run(
    work: Path, state: Path, limits: Limits, steps: list[dict[str, object]], status: str
) -> None:
    async with Supervisor(scripted_config(state, *steps)) as supervisor:
        outcome = await supervisor.run(Task(prompt="p", workspace=work, limits=limits))
    assert outcome.status == status
    assert outcome.error is not None
    assert outcome.error.hint is not None


async def test_what_was_stopped_by_a_limit_says_so_though_the_agent_said_that_it_is_done(
    work: Path, state: Path
) -> None:
    config = scripted_config(state, say("done"), DONE, {"hang": True})
    async with Supervisor(config) as supervisor:
        task = Task(prompt="p", workspace=work, kind="search", limits=Limits(wall_s=0.5))
        outcome = await supervisor.run(task)
    assert outcome.status == "timed_out"
    assert "terminal event: end_turn" in outcome.evidence


async def test_an_agent_is_not_stalled_while_a_tool_runs(work: Path, state: Path) -> None:
    config = scripted_config(
        state,
        said(type="tool", id="a", status="in_progress"),
        {"sleep": 0.5},
        said(type="tool", id="a", status="completed"),
        say("x"),
        DONE,
        limits=Limits(stall_s=0.2),
    )
    events: list[Event] = []
    async with Supervisor(config) as supervisor:
        outcome = await supervisor.run(Task(prompt="p", workspace=work), events.append)
    assert outcome.status == "succeeded"
    assert updates(events, Stall) == []


async def test_the_strictest_limit_holds(work: Path, state: Path) -> None:
    config = scripted_config(state, {"hang": True}, limits=Limits(wall_s=0.2))
    async with Supervisor(config) as supervisor:
        outcome = await supervisor.run(Task(prompt="p", workspace=work, limits=Limits(wall_s=3600)))
    assert outcome.status == "timed_out"


async def test_defaults_and_bounds_of_the_configuration_hold_for_every_task(
    work: Path, state: Path
) -> None:
    config = replace(
        scripted_config(state, DONE),
        defaults=Defaults(access="read"),
        bounds=Bounds(agents=frozenset({"other"})),
    )
    async with Supervisor(config) as supervisor:
        refused = await supervisor.run(Task(prompt="p", workspace=work))
    assert refused.status == "unroutable"
    assert "limits.agents allows only other" in refused.evidence[0]
    async with Supervisor(replace(config, bounds=Bounds())) as supervisor:
        await supervisor.run(Task(prompt="p", workspace=work))
    assert read_record(run_folder(state)).task.access == "read"
    async with Supervisor(replace(config, bounds=Bounds(privacy="local"))) as supervisor:
        private = await supervisor.run(Task(prompt="p", workspace=work))
    assert "privacy: local" in private.evidence[0]


async def test_a_grandchild_that_holds_the_output_open_does_not_hold_the_run(
    work: Path, state: Path
) -> None:
    config = scripted_config(state, {"spawn": [{"hang": True}], "setsid": True}, say("x"), DONE)
    async with Supervisor(config) as supervisor:
        outcome = await supervisor.run(Task(prompt="p", workspace=work))
    assert outcome.status == "succeeded"


async def test_every_line_of_the_output_is_accounted_for(work: Path, state: Path) -> None:
    config = scripted_config(
        state,
        {"raw": "\x00\xff\xfe not utf-8\n"},
        {"print": "plain text"},
        {"print": ""},
        {"print": "{broken json"},
        said(type="broken"),
        {"print": "on stderr", "to": "stderr"},
        {"print": {"repeat": "y", "times": 5_000_000}},
        {"print": '{"type": "message", "text": "a\u2028b"}'},
        DONE,
        {"raw": "no newline at the end"},
    )
    events: list[Event] = []
    async with Supervisor(config) as supervisor:
        outcome = await supervisor.run(Task(prompt="p", workspace=work), events.append)
    assert outcome.status == "succeeded"
    for stream in ("stdout", "stderr"):
        spans = sorted(
            {(e.raw.offset, e.raw.length) for e in events if e.raw and e.raw.stream == stream}
        )
        end = 0
        for offset, length in spans:
            assert offset == end
            end = offset + length
        assert end == (run_folder(state) / stream).stat().st_size
    reasons = [
        update.reason for update in updates(events, Unparsed) if isinstance(update, Unparsed)
    ]
    assert any("too long" in reason for reason in reasons)
    assert any("RuntimeError" in reason for reason in reasons)
    assert Output(stream="stderr", text="on stderr") in updates(events, Output)


async def test_a_planted_key_is_in_no_record(work: Path, state: Path) -> None:
    key = 'sk-"XYZZY"-0123456789'
    config = scripted_config(
        state,
        {"report": ["env"]},
        {"report": ["env"], "to": "stderr"},
        environ={"PATH": "/usr/bin:/bin", "REAL_KEY": key, "OTHER": "other-secret-value"},
        api_key_env="REAL_KEY",
    )
    events: list[Event] = []
    async with Supervisor(config) as supervisor:
        outcome = await supervisor.run(
            Task(prompt="p", workspace=work, env_from=("OTHER",)), events.append
        )
    assert outcome.error is not None
    assert "[redacted]" in outcome.error.text
    for path in run_folder(state).rglob("*"):
        if path.is_file():
            content = path.read_bytes()
            assert b"XYZZY" not in content, path
            assert b"other-secret-value" not in content, path
    assert "XYZZY" not in repr(events)


async def test_the_agent_sees_only_the_allowed_environment(work: Path, state: Path) -> None:
    environ = {
        "PATH": "/usr/bin:/bin",
        "OPENAI_API_KEY": "sk-not-for-you-000",
        "SSH_AUTH_SOCK": "/run/x",
        "WANTED": "yes",
        "LD_PRELOAD": "",
    }
    config = scripted_config(state, {"report": ["env"]}, DONE, environ=environ)
    async with Supervisor(config) as supervisor:
        await supervisor.run(
            Task(prompt="p", workspace=work, env={"PLAIN": "1"}, env_from=("WANTED", "ABSENT"))
        )
    env = json.loads((run_folder(state) / "stdout").read_text().splitlines()[0])["env"]
    assert env["PLAIN"] == "1"
    assert {"OPENAI_API_KEY", "SSH_AUTH_SOCK", "LD_PRELOAD", "ABSENT"}.isdisjoint(env)


async def test_records_are_private(work: Path, state: Path) -> None:
    async with Supervisor(scripted_config(state, say("x"), DONE)) as supervisor:
        await supervisor.run(Task(prompt="p", workspace=work))
    folder = run_folder(state)
    assert folder.stat().st_mode & 0o777 == 0o700
    for path in folder.rglob("*"):
        assert path.stat().st_mode & 0o077 == 0, path


async def test_an_unknown_agent_is_wrong_input_and_names_the_known(work: Path, state: Path) -> None:
    async with Supervisor(scripted_config(state, DONE)) as supervisor:
        with pytest.raises(InputError, match=r"no agent 'codx' \(known: scripted\)"):
            await supervisor.run(Task(prompt="p", workspace=work, agent="codx"))
    assert not (state / "runs").exists()


async def test_a_missing_workspace_is_wrong_input(tmp_path: Path, state: Path) -> None:
    async with Supervisor(scripted_config(state, DONE)) as supervisor:
        with pytest.raises(InputError, match="no folder"):
            await supervisor.run(Task(prompt="p", workspace=tmp_path / "gone"))


async def test_a_private_task_without_a_local_agent_is_unroutable(work: Path, state: Path) -> None:
    events: list[Event] = []
    async with Supervisor(scripted_config(state, DONE)) as supervisor:
        outcome = await supervisor.run(
            Task(prompt="p", workspace=work, privacy="local"), events.append
        )
    assert outcome.status == "unroutable"
    assert outcome.error is not None
    assert "in the cloud" in outcome.error.text
    assert {event.run_id for event in events} == {None}
    assert [event.type for event in events] == ["task.started", "task.finished", "job.finished"]


async def test_a_local_server_that_is_down_ends_unavailable_before_anything_starts(
    work: Path, state: Path
) -> None:
    config = scripted_config(state, DONE, base_url="http://127.0.0.1:9", tier="local")
    events: list[Event] = []
    async with Supervisor(config) as supervisor:
        outcome = await supervisor.run(Task(prompt="p", workspace=work), events.append)
    assert outcome.status == "unavailable"
    assert outcome.error is not None
    assert "http://127.0.0.1:9" in outcome.error.text
    assert outcome.error.hint is not None
    assert updates(events, ProcessSpawned) == []


async def test_a_program_that_cannot_start_is_a_failed_run(work: Path, state: Path) -> None:
    class Missing(Scripted):
        def command(self, task: Task, agent: Agent) -> Command:
            return replace(super().command(task, agent), argv=("/no/such/program",))

    events: list[Event] = []
    async with Supervisor(scripted_config(state, DONE, adapter=Missing())) as supervisor:
        outcome = await supervisor.run(Task(prompt="p", workspace=work), events.append)
    assert outcome.status == "failed"
    (error,) = updates(events, Error)
    assert isinstance(error, Error)
    assert "/no/such/program" in error.text


async def test_what_a_conversation_sends_reaches_the_agent(work: Path, state: Path) -> None:
    config = scripted_config(
        state, {"read": "line"}, say("got it"), DONE, adapter=Scripted(greeting=b"hello\n")
    )
    async with Supervisor(config) as supervisor:
        outcome = await supervisor.run(Task(prompt="p", workspace=work))
    assert (outcome.status, outcome.text) == ("succeeded", "got it")


async def test_a_sink_that_raises_is_dropped_and_the_run_goes_on(work: Path, state: Path) -> None:
    seen: list[Event] = []
    calls: list[int] = []

    def bad(event: Event) -> None:
        calls.append(event.seq)
        raise ValueError("no")

    async with Supervisor(scripted_config(state, say("x"), DONE)) as supervisor:
        outcome = await supervisor.run(Task(prompt="p", workspace=work), bad, seen.append)
    assert outcome.ok
    assert calls == [1]
    assert isinstance(seen[-1].update, JobFinished)


async def test_a_stream_gives_every_event_and_then_the_outcome(work: Path, state: Path) -> None:
    async with (
        Supervisor(scripted_config(state, say("a"), say("b"), DONE)) as supervisor,
        supervisor.stream(Task(prompt="p", workspace=work)) as stream,
    ):
        events = [event async for event in stream]
    of_the_run = [event for event in events if event.run_id]
    assert [event.seq for event in of_the_run] == list(range(1, len(of_the_run) + 1))
    assert stream.outcome is not None
    assert of_the_run[-1].update == RunFinished(outcome=stream.outcome)
    assert [event.type for event in (events[0], *events[-2:])] == [
        "task.started",
        "task.finished",
        "job.finished",
    ]


async def test_whoever_reads_a_long_stream_and_never_waits_lets_others_have_their_turns(
    state: Path,
) -> None:
    folder = state / "runs" / "one"
    folder.mkdir(parents=True)
    event = Event(
        seq=1,
        time="2026-01-02T03:04:05.000006Z",
        run_id="one",
        task_id="t",
        agent="a",
        source="agent",
        update=Message(text="m"),
    )
    (folder / "events.jsonl").write_bytes((encode(event) + b"\n") * 2000)
    stream, turns, read = EventStream(state), 0, 0
    for _ in range(2000):
        stream.told(event)
    stream.end()

    async def other() -> None:
        nonlocal turns
        while read < 2000:
            turns += 1
            await anyio.lowlevel.checkpoint()

    async with anyio.create_task_group() as group:
        group.start_soon(other)
        await anyio.lowlevel.checkpoint()
        async for _ in stream:
            read += 1
    assert turns > 10


async def test_leaving_a_stream_early_kills_the_agent(work: Path, state: Path) -> None:
    pids: list[int] = []
    async with Supervisor(scripted_config(state, say("a"), {"hang": True})) as supervisor:
        async with supervisor.stream(Task(prompt="p", workspace=work)) as stream:
            async for event in stream:
                if isinstance(event.update, ProcessSpawned):
                    pids.append(event.update.pid)
                    break
        assert not alive(pids[0])


async def test_an_error_of_the_embedder_in_the_block_comes_out_as_itself(
    work: Path, state: Path
) -> None:
    with pytest.raises(KeyError):
        async with (
            Supervisor(scripted_config(state, DONE)) as supervisor,
            supervisor.stream(Task(prompt="p", workspace=work)),
        ):
            raise KeyError("mine")


async def test_a_resumed_run_names_the_session_and_keeps_the_home(work: Path, state: Path) -> None:
    config = scripted_config(
        state, said(type="session", id="s-1"), said(type="usage", cost=0.25), DONE
    )
    async with Supervisor(config) as supervisor:
        first = await supervisor.run(Task(prompt="p", workspace=work))
        task, continued = supervisor.resumed(run_folder(state), "more")
        second = await supervisor.run(task, continued=continued)
    assert (task.session_id, task.prompt) == ("s-1", "more")
    assert continued.before == first.usage
    assert second.run_id is not None
    record = read_record(state / "runs" / second.run_id)
    assert record.resumed == first.run_id
    assert first.run_id is not None
    assert record.agent.home == read_record(state / "runs" / first.run_id).agent.home


async def test_a_run_without_a_session_cannot_be_resumed(work: Path, state: Path) -> None:
    async with Supervisor(scripted_config(state, DONE)) as supervisor:
        await supervisor.run(Task(prompt="p", workspace=work))
        with pytest.raises(InputError, match="no session to resume"):
            supervisor.resumed(run_folder(state), "more")


async def test_a_supervisor_outside_its_block_says_so(work: Path, state: Path) -> None:
    with pytest.raises(SupervisionError, match="async with"):
        await Supervisor(scripted_config(state, DONE)).run(Task(prompt="p", workspace=work))


async def test_a_template_becomes_a_fresh_git_repository(tmp_path: Path, state: Path) -> None:
    template = tmp_path / "template"
    template.mkdir()
    (template / "a.txt").write_text("one")
    config = scripted_config(state, {"edit": "a.txt", "old": "one", "new": "two"}, DONE)
    async with Supervisor(config) as supervisor:
        outcome = await supervisor.run(Task(prompt="p", template=template, kind="edit"))
    assert outcome.ok
    assert outcome.run_id is not None
    made = read_record(state / "runs" / outcome.run_id).task.workspace
    assert (made / "a.txt").read_text() == "two"
    assert (template / "a.txt").read_text() == "one"
    log = subprocess.run(["git", "log", "--oneline"], cwd=made, capture_output=True, check=True)
    assert len(log.stdout.splitlines()) == 1


async def test_the_users_repository_is_not_written_by_looking_at_it(
    work: Path, state: Path
) -> None:
    def shape() -> list[tuple[str, int]]:
        return sorted((str(path), path.stat().st_mtime_ns) for path in (work / ".git").rglob("*"))

    before = shape()
    async with Supervisor(
        scripted_config(state, {"write": "new", "text": "x"}, DONE)
    ) as supervisor:
        outcome = await supervisor.run(Task(prompt="p", workspace=work))
    assert outcome.changes is not None
    assert outcome.changes.files == ["new"]
    assert shape() == before


async def test_what_an_agent_plants_in_the_repository_is_not_executed(
    work: Path, state: Path, tmp_path: Path
) -> None:
    trap = tmp_path / "trapped"
    script = f"#!/bin/sh\ntouch {trap}\n"
    config_lines = f'[core]\n\tfsmonitor = touch {trap}\n[filter "x"]\n\tclean = touch {trap}\n'
    config = scripted_config(
        state,
        {"write": ".git/config", "text": config_lines},
        {"write": ".gitattributes", "text": "* filter=x\n"},
        {"write": ".git/hooks/post-index-change", "text": script},
        {"write": "new", "text": "x"},
        DONE,
    )
    async with Supervisor(config) as supervisor:
        outcome = await supervisor.run(Task(prompt="p", workspace=work))
    assert outcome.changes is not None
    assert sorted(outcome.changes.files) == [".gitattributes", "new"]
    assert not trap.exists()


async def test_changes_outside_a_repository_are_seen_too(tmp_path: Path, state: Path) -> None:
    folder = tmp_path / "plain"
    folder.mkdir()
    async with Supervisor(scripted_config(state, {"write": "n", "text": "x"}, DONE)) as supervisor:
        outcome = await supervisor.run(Task(prompt="p", workspace=folder, kind="edit"))
    assert outcome.ok
    assert outcome.changes is not None
    assert outcome.changes.files == ["n"]


async def test_a_spool_that_the_agent_cuts_is_told(work: Path, state: Path) -> None:
    config = scripted_config(state, {"print": "x" * 100}, {"hang": True})
    events: list[Event] = []
    async with Supervisor(config) as supervisor, anyio.create_task_group() as group:
        group.start_soon(supervisor.run, Task(prompt="p", workspace=work), events.append)
        await wait_for(events, Output)
        spool = run_folder(state) / "stdout"
        spool.chmod(0o600)
        os.truncate(spool, 0)
        await wait_for(events, Error)
        supervisor.interrupt()
    assert any("cut its own" in str(update) for update in updates(events, Error))


async def test_what_is_scripted_is_named_so(work: Path, state: Path, tmp_path: Path) -> None:
    (tmp_path / "model.yaml").write_text("turns: [{text: hi}]\n")
    config = scripted_config(state, say("x"), DONE)
    events: list[Event] = []
    task = Task(prompt="p", workspace=work, base_url=f"scripted:{tmp_path / 'model.yaml'}")
    async with Supervisor(config) as supervisor:
        await supervisor.run(task, events.append)
    (started,) = updates(events, RunStarted)
    assert isinstance(started, RunStarted)
    assert (started.server or "").startswith("scripted:")
    assert any("scripted" in str(update) for update in updates(events, Notice))


async def test_a_wrong_script_is_wrong_input(work: Path, state: Path, tmp_path: Path) -> None:
    task = Task(prompt="p", workspace=work, base_url=f"scripted:{tmp_path / 'none.yaml'}")
    async with Supervisor(scripted_config(state, DONE)) as supervisor:
        with pytest.raises(InputError, match=r"none\.yaml"):
            await supervisor.run(task)


def test_a_killed_supervisor_leaves_no_agent_behind(tmp_path: Path) -> None:
    """The reaper outlives its supervisor just long enough to kill everything."""
    program = f"""
import sys, anyio
sys.path.insert(0, {str(Path(__file__).parent.parent)!r})
from pathlib import Path
from tests.scripted_adapter import scripted_config, say
from orchestrator.events import ProcessSpawned
from orchestrator.supervisor import Supervisor
from orchestrator.supervisor.stream import EventStream
from orchestrator.task import Task

def told(event):
    if isinstance(event.update, ProcessSpawned):
        print(event.update.pid, flush=True)

async def main():
    steps = {{"ignore": ["SIGTERM"]}}, {{"hang": True}}
    config = scripted_config(Path({str(tmp_path / "state")!r}), *steps)
    async with Supervisor(config) as supervisor:
        await supervisor.run(Task(prompt="p", workspace=Path({str(tmp_path)!r})), told)

anyio.run(main)
"""
    with subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE) as host:
        assert host.stdout is not None
        pid = int(host.stdout.readline())
        pidfd = os.pidfd_open(pid)
        host.kill()
    _wait_readable(pidfd)
    os.close(pidfd)


def _wait_readable(fd: int) -> None:
    import select

    assert select.select([fd], [], [], 10)[0], "the agent is still alive"


async def test_a_key_in_a_diff_or_a_file_name_is_in_no_record_and_no_outcome(
    work: Path, state: Path
) -> None:
    key = "sk-leaked-0123456789"
    config = scripted_config(
        state,
        {"write": "leak.txt", "text": f"key {key}"},
        {"write": f"name-{key}", "text": "x"},
        say("done"),
        DONE,
        environ={"PATH": "/usr/bin:/bin", "MY_KEY": key},
    )
    async with Supervisor(config) as supervisor:
        outcome = await supervisor.run(Task(prompt="p", workspace=work, env_from=("MY_KEY",)))
    assert outcome.changes is not None
    assert outcome.changes.files == ["leak.txt", "name-[redacted]"]
    assert key not in repr(outcome)
    for path in run_folder(state).iterdir():
        if path.is_file() and path.name != "task.json":
            assert key.encode() not in path.read_bytes(), path


@pytest.mark.parametrize("word", ["supervisor", "run.finished", "finished", "2026-11-"])
async def test_a_secret_that_is_a_word_of_the_schema_breaks_nothing(
    work: Path, state: Path, word: str
) -> None:
    config = scripted_config(state, say(f"a {word}"), DONE, environ={"W": word})
    events: list[Event] = []
    async with Supervisor(config) as supervisor:
        outcome = await supervisor.run(
            Task(prompt="p", workspace=work, env_from=("W",)), events.append
        )
    assert (outcome.status, outcome.text) == ("succeeded", "a [redacted]")
    assert isinstance(last_of_the_run(events), RunFinished)


@pytest.mark.parametrize("trap", ["fifo", "link", "folder", "file"])
async def test_a_tail_that_is_no_plain_file_is_left_alone(
    work: Path, state: Path, tmp_path: Path, trap: str
) -> None:
    logs = tmp_path / "logs"
    logs.mkdir()
    match trap:
        case "fifo":
            os.mkfifo(logs / "x.log")
        case "link":
            (logs / "x.log").symlink_to("/dev/zero")
        case "folder":
            (logs / "x.log").mkdir()
        case _:
            (logs / "x.log").write_text("old\n")

    class Tailing(Scripted):
        def command(self, task: Task, agent: Agent) -> Command:
            tail = Tail(name="log", folder=str(logs), pattern="*.log", containing=b"message")
            return replace(super().command(task, agent), tails=(tail, tail))

    steps = [{"write": str(logs / "new.log"), "text": json.dumps({"type": "message", "text": "t"})}]
    config = scripted_config(state, *steps, say("x"), DONE, adapter=Tailing())
    events: list[Event] = []
    async with Supervisor(config) as supervisor:
        outcome = await supervisor.run(Task(prompt="p", workspace=work), events.append)
    assert outcome.status == "succeeded"


async def test_an_interrupt_during_the_preparation_starts_nothing(
    work: Path, state: Path, tmp_path: Path
) -> None:
    template = tmp_path / "template"
    template.mkdir()
    config = scripted_config(state, say("x"), DONE)
    events: list[Event] = []
    async with Supervisor(config) as supervisor:
        supervisor.interrupt()
        outcome = await supervisor.run(Task(prompt="p", template=template), events.append)
    assert outcome.status == "interrupted"
    assert updates(events, ProcessSpawned) == []


async def test_an_interrupt_before_the_agent_starts_is_heeded(work: Path, state: Path) -> None:
    events: list[Event] = []
    async with Supervisor(scripted_config(state, say("x"), DONE)) as supervisor:

        def interrupt_at_once(event: Event) -> None:
            events.append(event)
            supervisor.interrupt()

        outcome = await supervisor.run(Task(prompt="p", workspace=work), interrupt_at_once)
    assert outcome.status == "interrupted"
    assert updates(events, ProcessSpawned) == []
    assert isinstance(last_of_the_run(events), RunFinished)


async def test_our_own_records_are_no_change(work: Path) -> None:
    config = scripted_config(work / ".state", say("done!"), DONE)
    async with Supervisor(config) as supervisor:
        outcome = await supervisor.run(Task(prompt="p", workspace=work, kind="fix"))
    assert outcome.status == "failed"
    assert outcome.changes is not None
    assert outcome.changes.files == []


async def test_what_running_code_leaves_behind_is_no_change(work: Path, state: Path) -> None:
    by_product = {"write": "__pycache__/m.cpython-311.pyc", "text": "x"}
    async with Supervisor(scripted_config(state, by_product, say("fixed!"), DONE)) as supervisor:
        outcome = await supervisor.run(Task(prompt="p", workspace=work, kind="fix"))
    assert outcome.status == "failed"


async def test_a_change_in_a_repository_inside_of_the_work_tree_is_seen(
    work: Path, state: Path
) -> None:
    inner = work / "inner"
    inner.mkdir()
    (inner / "a.txt").write_text("one\n")
    for words in (["init", "-q"], ["add", "-A"], ["commit", "-qm", "one"]):
        subprocess.run(
            ["git", "-c", "user.name=t", "-c", "user.email=t@t", *words], cwd=inner, check=True
        )
    config = scripted_config(
        state, {"edit": "inner/a.txt", "old": "one", "new": "two"}, say("x"), DONE
    )
    async with Supervisor(config) as supervisor:
        outcome = await supervisor.run(Task(prompt="p", workspace=work, kind="edit"))
    assert outcome.status == "succeeded"
    assert outcome.changes is not None
    assert outcome.changes.files == ["inner/a.txt"]


async def test_a_named_file_counts_though_git_ignores_it(work: Path, state: Path) -> None:
    (work / ".gitignore").write_text(".env\n")
    config = scripted_config(state, {"write": ".env", "text": "A=1"}, say("x"), DONE)
    async with Supervisor(config) as supervisor:
        outcome = await supervisor.run(
            Task(prompt="p", workspace=work, kind="edit", files=(".env",))
        )
    assert outcome.ok


async def test_an_agent_that_removes_its_workspace_is_a_failed_run_not_ours(
    work: Path, state: Path, tmp_path: Path
) -> None:
    class Removing(Scripted):
        def command(self, task: Task, agent: Agent) -> Command:
            argv = ("/bin/sh", "-c", f"rm -rf {work}; echo '{DONE['print']}'")
            return replace(super().command(task, agent), argv=argv, stdin=None)

    events: list[Event] = []
    async with Supervisor(scripted_config(state, adapter=Removing())) as supervisor:
        outcome = await supervisor.run(
            Task(prompt="p", workspace=work, kind="fix", check="true"), events.append
        )
    assert outcome.status == "failed"
    assert isinstance(last_of_the_run(events), RunFinished)


async def test_steps_are_tool_calls_however_they_are_told(work: Path, state: Path) -> None:
    told_once = [said(type="tool", id=i, status="completed") for i in "abcdef"]
    task = Task(prompt="p", workspace=work, limits=Limits(steps=2))
    async with Supervisor(scripted_config(state, *told_once, {"hang": True})) as supervisor:
        outcome = await supervisor.run(task)
    assert outcome.status == "budget_exceeded"


async def test_one_call_that_is_told_often_is_one_step(work: Path, state: Path) -> None:
    again = [said(type="tool", id="a", status="in_progress")] * 5
    end = said(type="tool", id="a", status="completed")
    task = Task(prompt="p", workspace=work, limits=Limits(steps=2))
    async with Supervisor(scripted_config(state, *again, end, say("x"), DONE)) as supervisor:
        outcome = await supervisor.run(task)
    assert outcome.status == "succeeded"


async def test_a_version_that_nobody_has_tried_is_told(tmp_path: Path) -> None:
    (tmp_path / "bin").mkdir()
    program = tmp_path / "bin" / "scripted-cli"
    program.write_text("#!/bin/sh\necho scripted-cli 2.1\n")
    program.chmod(0o755)
    for tested, told in ((("2.0", "1.9"), True), (("2.1",), False), ((), False)):
        about = About(
            name="scripted",
            title="Scripted",
            program=Program(name="scripted-cli"),
            tested=tested,
            resumes=True,
        )
        environ = {"PATH": f"{tmp_path}/bin:/usr/bin:/bin"}
        config = scripted_config(
            tmp_path / "state", DONE, adapter=Scripted(about=about), environ=environ
        )
        events: list[Event] = []
        async with Supervisor(config) as supervisor:
            await supervisor.run(Task(prompt="x", workspace=tmp_path), events.append)
        notes = [event.update.text for event in events if isinstance(event.update, Notice)]
        assert ("Scripted 2.1 is untested (tested: 2.0, 1.9)" in notes) == told


async def test_a_program_that_is_half_installed_is_told_how_to_install_it(tmp_path: Path) -> None:
    (tmp_path / "bin").mkdir()
    program = tmp_path / "bin" / "scripted-cli"
    program.write_text("echo no binary\n")  # as npm leaves it where no postinstall ran
    program.chmod(0o755)

    class Stub(Scripted):
        def command(self, task: Task, agent: Agent) -> Command:
            return replace(super().command(task, agent), argv=(str(program),))

    about = About(name="scripted", title="Scripted", program=None, install="make scripted-cli")
    config = scripted_config(tmp_path / "state", DONE, adapter=Stub(about=about))
    async with Supervisor(config) as supervisor:
        outcome = await supervisor.run(Task(prompt="x", workspace=tmp_path))
    assert outcome.error is not None
    assert "neither a program for this machine" in outcome.error.text
    assert outcome.error.hint == "make scripted-cli"
