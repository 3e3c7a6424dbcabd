"""After a crash every event stands once and in order, whenever it came and whoever came twice."""

import os
import random
import signal
import socket
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from orchestrator.adapter import Agent, Command, Exit, Send
from orchestrator.config import Config
from orchestrator.errors import JournalError
from orchestrator.events import (
    Error,
    Event,
    Output,
    ProcessExited,
    ProcessReaped,
    ProcessSpawned,
    Raw,
    RunFinished,
    RunStarted,
    Update,
    Usage,
)
from orchestrator.events.wire import decode, encode
from orchestrator.journal import (
    EVENTS,
    OUTCOME,
    STDERR,
    STDOUT,
    TAILS,
    Journal,
    Record,
    list_runs,
    make_folder,
    read_events,
    read_outcome,
    running,
    write_record,
    written_to,
)
from orchestrator.lines import Line, LineSplitter
from orchestrator.run import recovery
from orchestrator.run.attempt import open_reaper, perform
from orchestrator.run.control import Control
from orchestrator.run.plan import Plan
from orchestrator.run.recorder import fed, last_words, new_run_id, translate
from orchestrator.run.recovery import recover
from orchestrator.supervisor.recovery import recover_job
from orchestrator.task import Task
from orchestrator.usage import priced
from tests.recordings import ADAPTERS, RECORDINGS, Recording

CASES = [
    one
    for adapter in ("aider", "claude", "codex", "jsonl", "litellm")
    for one in sorted(
        (one for one in RECORDINGS if one.name.startswith(adapter)),
        key=lambda one: -min(len(one.stdout), 10**5),
    )[:7]
]
CRASH = Exit(signal=signal.SIGKILL)


def configured(state: Path) -> Config:
    return Config(agents=(), adapters=ADAPTERS, state=state, environ={"PATH": "/usr/bin:/bin"})


class Run:
    """The folder of a run as a supervisor leaves it: here what the agent wrote, there the events of
    all of it, in the order in which they came.
    """

    def __init__(self, recording: Recording, state: Path) -> None:
        self.recording = recording
        self.state = state
        self.agent = replace(recording.agent, base_url=None)
        self.record = Record(
            run_id=new_run_id(),
            started="2026-01-02T03:04:05Z",
            task=recording.task,
            agent=self.agent,
        )
        self.folder = make_folder(state / "runs", self.record.run_id)
        write_record(self.folder, self.record)
        self.events: list[Event] = []
        self._seq = 0
        tail = recording.meta.with_name(
            recording.meta.name.removesuffix(".meta.json") + ".tail.jsonl"
        )
        self.tail = tail.read_bytes() if tail.exists() else b""
        self._all()

    def _all(self) -> None:
        (self.folder / STDOUT).write_bytes(self.recording.stdout)
        (self.folder / STDERR).write_bytes(self.recording.stderr.encode())
        conversation = self.recording.adapter.conversation(self.record.task, self.agent, None)
        self._say(RunStarted(adapter=self.agent.adapter), ProcessSpawned(pid=1))
        self._take(conversation.start(), None)
        tails = self._copied()
        for line in _lines(self.recording.stdout):
            for raw, tail in [one for one in tails if one[1].offset <= line.offset]:
                self._take(fed(conversation, tail), raw)
            tails = [one for one in tails if one[1].offset > line.offset]
            self._take(translate(conversation, line), Raw(STDOUT, line.offset, line.length))
        for raw, tail in tails:
            self._take(fed(conversation, tail), raw)
        for line in _lines((self.folder / STDERR).read_bytes()):
            text = line.data.decode("utf-8", "backslashreplace")
            raw = Raw(STDERR, line.offset, line.length)
            self._take([Output(stream=STDERR, text=text)], raw)
        exit_ = self.recording.exit
        self._say(ProcessExited(pid=1, status=exit_.status, signal=exit_.signal))
        self._take(last_words(conversation, exit_), None)

    def _copied(self) -> list[tuple[Raw, Line]]:
        """The session log's lines: each was read at another moment of stdout."""
        moments = random.Random(1)
        size, block, found = len(self.recording.stdout), b"", []
        afters = sorted(moments.randrange(size) for _ in _lines(self.tail))
        for after, line in zip(afters, _lines(self.tail), strict=True):
            copied = b'%d\t%d\t"/log"\t%b\n' % (after, line.offset + line.length, line.data)
            raw = Raw(TAILS, len(block), len(copied))
            found.append((raw, Line(line.data, after, len(line.data) + 1)))
            block += copied
        (self.folder / TAILS).write_bytes(block)
        return found

    def _say(self, *updates: Update) -> None:
        for update in updates:
            self._event(update, "supervisor", None)

    def _take(self, said, raw: Raw | None) -> None:
        for one in said:
            if not isinstance(one, Send):
                self._event(one, "agent", raw)

    def _event(self, update: Update, source, raw: Raw | None) -> None:
        if isinstance(update, Usage):
            update = priced(update, self.agent)
        self._seq += 1
        stamped = Event(
            seq=self._seq,
            time="2026-01-02T03:04:05.000006Z",
            run_id=self.record.run_id,
            task_id=self.record.task.id,
            agent=self.agent.name,
            source=source,
            update=update,
            raw=raw,
        )
        self.events.append(decode(encode(stamped)))

    def write_journal(self, share: float) -> None:
        """As much of the journal as there was at the crash, to the byte."""
        block = b"".join(encode(event) + b"\n" for event in self.events)
        (self.folder / EVENTS).write_bytes(block[: int(share * len(block))])
        (self.folder / OUTCOME).unlink(missing_ok=True)


def _lines(stream: bytes) -> list[Line]:
    splitter = LineSplitter()
    return [*splitter.feed(stream), *splitter.close()]


def said(events: Sequence[Event]) -> list[tuple[Update, Raw | None]]:
    """What the agent said, by place: the order inside each stream is what can be told apart."""
    ours = [(event.update, event.raw) for event in events if event.source == "agent"]
    return sorted(ours, key=lambda one: "" if one[1] is None else one[1].stream)


def spent(events: Sequence[Event]) -> list[Usage]:
    return [event.update for event in events if isinstance(event.update, Usage)]


def whole(folder: Path) -> list[Event]:
    """The events of a journal that is complete: gapless, with one end, which is the last."""
    events = list(read_events(folder))
    assert [event.seq for event in events] == list(range(1, len(events) + 1))
    ends = [event for event in events if isinstance(event.update, RunFinished)]
    assert ends == events[-1:]
    return events


@pytest.mark.parametrize("recording", CASES, ids=lambda one: one.name)
def test_whenever_it_was_cut_off_every_event_stands_once_and_in_order(tmp_path, recording):
    run = Run(recording, tmp_path)
    moments = random.Random(recording.name)
    for recoveries in (1, 3):
        _cut_off_and_recovered(run, [moments.random() for _ in range(recoveries)])


def _cut_off_and_recovered(run: Run, cuts: Sequence[float]) -> None:
    config = configured(run.state)
    run.write_journal(cuts[0])
    for again in cuts[1:]:  # the recovery is cut off, too: what it wrote, it wrote in order
        assert recover(run.folder, config) is not None
        (run.folder / OUTCOME).unlink()
        kept = (run.folder / EVENTS).read_bytes()
        (run.folder / EVENTS).write_bytes(kept[: int(again * len(kept))])
    recovered = recover(run.folder, config)
    assert recovered is not None
    events = whole(run.folder)
    exited = any(isinstance(event.update, ProcessExited) for event in events)
    if exited:
        assert said(events) == said(run.events)
    else:  # how it ended was not on record, so its last words are those of a killed agent
        with_line = [event for event in run.events if event.raw is not None]
        assert said([event for event in events if event.raw is not None]) == said(with_line)
    assert recovered.outcome.status == "interrupted"
    assert read_outcome(run.folder) == recovered.outcome
    before = (run.folder / EVENTS).read_bytes()
    assert recover(run.folder, config) == replace(recovered, added=0)
    assert (run.folder / EVENTS).read_bytes() == before


def test_usage_that_a_cli_counts_cumulatively_is_not_counted_twice(tmp_path):
    (recording,) = [
        one for one in CASES if one.name.endswith("several_tool_calls") and "codex" in one.name
    ]
    run = Run(recording, tmp_path)
    for number, event in enumerate(run.events):
        if isinstance(event.update, Usage):
            block = [encode(one) + b"\n" for one in run.events[: number + 1]]
            (run.folder / EVENTS).write_bytes(b"".join(block))
            (run.folder / OUTCOME).unlink(missing_ok=True)
            recover(run.folder, configured(tmp_path))
            assert spent(whole(run.folder)) == spent(run.events)


async def test_through_a_gateway_a_run_costs_the_same_before_and_after_a_crash(tmp_path):
    said = b"".join(b'{"input":%d,"output":9}\n' % count for count in (1000, 30)) + b'{"end":1}\n'
    options = {
        "argv": ["x"],
        "events": [
            {"when": {"end": 1}, "emit": "turn.finished", "stop_reason": "end_turn"},
            {"emit": "usage", "input_tokens": ".input", "output_tokens": ".output"},
        ],
    }
    work = tmp_path / "work"
    work.mkdir()
    task = Task(prompt="p", workspace=work, kind="search")
    asked = Agent(
        name="a",
        adapter="jsonl",
        options=options,
        model="gpt-4o",
        base_url="https://api.openai.com",
    )
    with socket.create_server(("127.0.0.1", 0)) as gateway:
        plan = Plan(
            job_id="j",
            run_id=new_run_id(),
            started="2026-01-02T03:04:05Z",
            task=task,
            agent=replace(asked, base_url=f"http://127.0.0.1:{gateway.getsockname()[1]}"),
            recorded=asked,
            adapter=ADAPTERS["jsonl"],
            command=Command(argv=("/bin/cat",), cwd=str(work), stdin=said),
            limits=task.limits,
            auth="key",
        )
        async with open_reaper() as reaper:
            outcome = await perform(
                plan,
                config=configured(tmp_path),
                reaper=reaper,
                control=Control(),
                publish=lambda _: None,
            )
    folder = tmp_path / "runs" / plan.run_id
    events = list(read_events(folder))
    told = spent(events)
    assert outcome.usage is not None
    assert outcome.usage.cost_usd == sum(usage.cost_usd or 0.0 for usage in told) > 0
    for number, event in enumerate(events):
        if isinstance(event.update, Usage):
            block = b"".join(encode(one) + b"\n" for one in events[:number])
            (folder / EVENTS).write_bytes(block)
            (folder / OUTCOME).unlink(missing_ok=True)
            recovered = recover(folder, configured(tmp_path))
            assert spent(whole(folder)) == told
            assert recovered is not None
            assert recovered.outcome.usage == outcome.usage


def test_a_run_that_is_running_is_left_alone(tmp_path):
    run = Run(CASES[0], tmp_path)
    with Journal(run.folder):
        assert recover(run.folder, configured(tmp_path)) is None
    assert list(read_events(run.folder)) == []


def test_a_journal_that_says_the_end_needs_only_its_outcome(tmp_path):
    run = Run(CASES[0], tmp_path)
    run.write_journal(0.5)
    recovered = recover(run.folder, configured(tmp_path))
    assert recovered is not None
    before = (run.folder / EVENTS).read_bytes()
    (run.folder / OUTCOME).unlink()
    assert read_outcome(run.folder) == recovered.outcome
    recover(run.folder, configured(tmp_path))
    assert (run.folder / OUTCOME).exists()
    assert (run.folder / EVENTS).read_bytes() == before


def test_an_output_that_was_cut_is_told_once_and_read_from_its_beginning(tmp_path):
    run = Run(next(one for one in CASES if "codex" in one.name), tmp_path)
    run.write_journal(1)
    (run.folder / STDOUT).write_bytes(b"new\n")
    recover(run.folder, configured(tmp_path))
    events = whole(run.folder)
    cuts = [
        event.raw
        for event in events
        if isinstance(event.update, Error) and event.source == "supervisor"
    ]
    assert cuts == [Raw(STDOUT, 0, 0)]
    assert [event.update for event in events if event.raw == Raw(STDOUT, 0, 4)] == [
        Output(stream=STDOUT, text="new")
    ]
    (run.folder / OUTCOME).unlink()
    kept = (run.folder / EVENTS).read_bytes().splitlines(keepends=True)
    (run.folder / EVENTS).write_bytes(b"".join(kept[:-1]))
    recover(run.folder, configured(tmp_path))
    assert [replace(one, time="") for one in whole(run.folder)] == [
        replace(one, time="") for one in events
    ]


@pytest.mark.parametrize("stream", [STDOUT, STDERR, EVENTS])
def test_a_pipe_in_the_place_of_a_file_holds_nobody_up(tmp_path, stream):
    run = Run(CASES[0], tmp_path)
    run.write_journal(0.5)
    (run.folder / stream).unlink()
    os.mkfifo(run.folder / stream)
    assert not written_to(run.folder / stream)
    if stream == EVENTS:
        with pytest.raises(JournalError, match="not a regular file"):
            recover(run.folder, configured(tmp_path))
        assert read_outcome(run.folder) is None
    else:
        recover(run.folder, configured(tmp_path))
        assert whole(run.folder)


@pytest.mark.parametrize("kept", [0, 1])
def test_what_may_outlive_an_agent_and_still_writes_does_not_keep_its_record_from_being_completed(
    tmp_path, monkeypatch, kept
):
    monkeypatch.setattr(recovery, "_SILENCE_S", 0.0)
    run = Run(CASES[0], tmp_path)
    run._say(ProcessReaped(survivors=0, kept=kept))
    run.write_journal(1)
    with (
        (run.folder / STDERR).open("ab") as spool,
        subprocess.Popen(["sleep", "60"], stdout=spool) as server,
    ):
        try:
            if kept:
                assert recover(run.folder, configured(tmp_path)) is not None
                assert whole(run.folder)
            else:  # it may be the agent itself, which is just being ended
                with pytest.raises(JournalError, match="still writes"):
                    recover(run.folder, configured(tmp_path))
            assert server.poll() is None
        finally:
            server.kill()


def test_a_run_whose_adapter_is_gone_says_so(tmp_path):
    run = Run(CASES[0], tmp_path)
    run.write_journal(0.5)
    config = replace(configured(tmp_path), adapters={})
    with pytest.raises(JournalError, match=r"no adapter .* to read it with"):
        recover(run.folder, config)


# --- with real processes --------------------------------------------------------------------------

SUPERVISE = """
import sys
from pathlib import Path

import anyio

from orchestrator.supervisor import Supervisor
from orchestrator.task import Task
from tests.test_recovery import played


async def main():
    config = played(Path(sys.argv[1]), sys.argv[2])
    async with Supervisor(config) as supervisor:
        await supervisor.run(Task(prompt="p", workspace=Path(sys.argv[1])), told)


def told(event):
    print(event.seq, flush=True)


anyio.run(main)
"""
PLAY = """
import sys, time
stream = open(sys.argv[1], "rb").read()
for _ in range(20):
    for begin in range(0, len(stream), 700):
        sys.stdout.buffer.write(stream[begin : begin + 700])
        sys.stdout.buffer.flush()
        time.sleep(0.001)
"""


class Played:
    """A real adapter whose program is one that plays a recording."""

    def __init__(self, recording: Recording) -> None:
        self._adapter = recording.adapter
        self._recording = recording
        self.about = replace(recording.adapter.about, program=None, logins=(), settings=())

    def command(self, task, agent):
        from orchestrator.adapter import Command

        path = self._recording.meta.with_name(
            self._recording.meta.name.removesuffix(".meta.json") + ".jsonl"
        )
        return Command(
            argv=(sys.executable, "-c", PLAY, str(path)), cwd=str(task.workspace), stdin="open"
        )

    def conversation(self, task, agent, before):
        return self._adapter.conversation(task, agent, before)


def played(state: Path, name: str) -> Config:
    (recording,) = [one for one in RECORDINGS if one.name == name]
    agent = Agent(name="played", adapter="played")
    return Config(
        agents=(agent,),
        adapters={"played": Played(recording)},
        state=state / "state",
        environ={"PATH": "/usr/bin:/bin"},
    )


@pytest.mark.parametrize("cli", ["claude", "codex", "aider", "litellm"])
def test_a_killed_supervisor_loses_and_doubles_nothing(tmp_path, cli):
    recording = next(one for one in CASES if one.name.startswith(cli) and len(one.stdout) < 10**5)
    for seen in random.Random(cli).sample(range(5, 150), 2):
        place = tmp_path / str(seen)
        place.mkdir()
        _killed_after(seen, place, recording.name)
        config = played(place, recording.name)
        (folder,) = list_runs(config.state / "runs")
        assert not running(folder)
        before = len(list(read_events(folder)))
        recovered = recover(folder, config)
        assert recovered is not None
        events = whole(folder)
        assert len(events) >= max(before, seen)
        assert _of_stdout(events) == _expected(folder, config)
        assert recovered.outcome.status == "interrupted"
        _job_is_recovered(config.state)


def _job_is_recovered(state: Path) -> None:
    (job,) = (state / "jobs").iterdir()
    outcome = recover_job(job, state / "runs")
    assert outcome is not None
    assert (outcome.status, list(outcome.tasks)) == ("interrupted", ["task"])
    events = list(read_events(job))
    assert [event.seq for event in events] == list(range(1, len(events) + 1))
    assert [event.type for event in events] == ["task.started", "task.finished", "job.finished"]
    assert recover_job(job, state / "runs") == outcome
    assert list(read_events(job)) == events


def _killed_after(events: int, place: Path, name: str) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", SUPERVISE, str(place), name],
        cwd=Path(__file__).parents[1],
        stdout=subprocess.PIPE,
        process_group=0,
    ) as supervisor:
        assert supervisor.stdout is not None
        for line in supervisor.stdout:
            if int(line) >= events:
                break
        supervisor.kill()


def _of_stdout(events: Sequence[Event]) -> list[tuple[Update, Raw]]:
    return [
        (event.update, event.raw)
        for event in events
        if event.raw is not None and event.raw.stream == STDOUT
    ]


def _expected(folder: Path, config: Config) -> list[tuple[Update, Raw]]:
    """What a conversation says that was never cut off, of all that the agent wrote."""
    task = Task(prompt="p", workspace=folder.parents[2])
    conversation = config.adapters["played"].conversation(task, config.agents[0], None)
    list(conversation.start())
    found = []
    for line in _lines((folder / STDOUT).read_bytes()):
        for one in translate(conversation, line):
            if not isinstance(one, Send):
                raw = Raw(STDOUT, line.offset, line.length)
                paid = priced(one, config.agents[0]) if isinstance(one, Usage) else one
                found.append((paid, raw))
    return [(_as_read(update), raw) for update, raw in found]


def _as_read(update: Update) -> Update:
    event = Event(
        seq=1, time="t", run_id=None, task_id=None, agent=None, source="agent", update=update
    )
    return decode(encode(event)).update


def test_two_recoveries_at_once_do_not_meet(tmp_path):
    run = Run(next(one for one in CASES if "claude" in one.name), tmp_path)
    run.write_journal(0.3)
    code = (
        "import sys; from pathlib import Path; from orchestrator.run.recovery import recover;"
        "from tests.test_recovery import configured;"
        "done = recover(Path(sys.argv[1]), configured(Path(sys.argv[2])));"
        "print(done and done.added)"
    )
    argv = [sys.executable, "-c", code, str(run.folder), str(tmp_path)]
    where = Path(__file__).parents[1]
    both = [subprocess.Popen(argv, stdout=subprocess.PIPE, text=True, cwd=where) for _ in range(2)]
    added = [int(each.communicate()[0].replace("None", "0")) for each in both]
    assert min(added) == 0
    assert max(added) > 0
    assert said(whole(run.folder)) == said(run.events) or not _exited(run.folder)


def _exited(folder: Path) -> bool:
    return any(isinstance(event.update, ProcessExited) for event in read_events(folder))
