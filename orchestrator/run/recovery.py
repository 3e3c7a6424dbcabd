"""After a crash of ours: what the agent wrote is read again from its beginning through a new
conversation; events that are on record are not made again, the others are added, then the end.

It can be done twice, by two at once, and after having been killed itself: the journal is locked,
only grows, and says by itself what is missing.
"""

from __future__ import annotations

import shutil
import signal
import time
from collections.abc import Iterable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from itertools import islice
from pathlib import Path

from orchestrator import redaction
from orchestrator.adapter import Conversation, Exit, Send
from orchestrator.config import Config
from orchestrator.errors import JournalError, OrchestrateError
from orchestrator.events import (
    Auth,
    Event,
    Notice,
    Outcome,
    Output,
    ProcessExited,
    ProcessReaped,
    ProcessSpawned,
    Raw,
    RunFinished,
    RunStarted,
    Update,
)
from orchestrator.journal import (
    OUTCOME,
    STDERR,
    STDOUT,
    STORES,
    TAILS,
    Journal,
    Record,
    read_events,
    read_outcome,
    read_record,
    write_outcome,
    written_to,
)
from orchestrator.lines import Line
from orchestrator.outcome import Facts
from orchestrator.process import environment
from orchestrator.run.ending import outcome_of, scrub_all
from orchestrator.run.intake import STDERR_TAIL, cut
from orchestrator.run.recorder import Recorder, fed, last_words, recorder_of, translate
from orchestrator.run.spool import Spool, Tail, Tails, read_tails

WHY = "orchestrate was ended before the agent was; this record was completed afterwards"
_AT_ONCE = 500
_SILENCE_S, _PROBE_S = 5.0, 0.02


@dataclass(frozen=True, kw_only=True)
class Recovered:
    """A run whose record is complete again: how it ended, how many events were missing."""

    run_id: str
    outcome: Outcome
    added: int


def recover(folder: Path, config: Config) -> Recovered | None:
    """Complete the record of a run that was cut off. None: it is running, or being recovered.

    Raises JournalError if the record cannot be read or written, or nobody can read the agent.
    """
    record = read_record(folder)
    journal = Journal.reopen(folder)
    if journal is None:
        return None
    with journal:
        known = _known(folder)
        if not known.kept:
            _wait_for_silence(folder)
        outcome = known.outcome or read_outcome(folder)
        if outcome is not None:
            if not (folder / OUTCOME).exists():
                write_outcome(folder, outcome)
            return Recovered(run_id=record.run_id, outcome=outcome, added=0)
        values = redaction.known(record.secrets, config.environ)
        recorder = recorder_of(record, known.auth, journal.append, _nobody, values)
        for event in read_events(folder):
            recorder.resume(event)
        before = recorder.seq
        exit_ = _Again(record, folder, config, recorder, known).feed()
        outcome = _end(record, folder, config, recorder, known, exit_)
        journal.sync()
        write_outcome(folder, outcome)
        return Recovered(run_id=record.run_id, outcome=outcome, added=recorder.seq - before)


def _wait_for_silence(folder: Path) -> None:
    """The reaper ends an agent as soon as we are gone, but not before. Raises JournalError."""
    end = time.monotonic() + _SILENCE_S
    while any(written_to(folder / name) for name in (STDOUT, STDERR)):
        if time.monotonic() > end:
            text = f"run {folder.name}: a process of the agent is alive and still writes"
            raise JournalError(text, hint=f"`fuser {folder / STDOUT}` names it: end it first.")
        time.sleep(_PROBE_S)


@dataclass(kw_only=True)
class _Known:
    """What stands in a journal: per stream the last line that was told and by how many events, the
    events that belong to no line, and what is known of the process.
    """

    told: dict[str, tuple[Raw, int]] = field(default_factory=dict[str, tuple[Raw, int]])
    without_line: int = 0
    spawned: bool = False
    kept: int = 0
    auth: Auth = "none"
    exit: Exit | None = None
    outcome: Outcome | None = None

    def add(self, event: Event) -> None:
        match event.update:
            case RunStarted(auth=auth):
                self.auth = auth or "none"
            case ProcessSpawned():
                self.spawned = True
            case ProcessReaped(kept=kept):
                self.kept = kept
            case ProcessExited(status=status, signal=number):
                self.exit = Exit(status=status, signal=number)
            case RunFinished(outcome=outcome):
                self.outcome = outcome
            case _:
                pass
        self._count(event)

    def _count(self, event: Event) -> None:
        match event.source, event.raw:
            case "agent", None:
                self.without_line += 1
            case "agent", Raw() as raw:
                last, count = self.told.get(raw.stream, (raw, 0))
                self.told[raw.stream] = raw, count + 1 if last.offset == raw.offset else 1
            case _, Raw(length=0) as raw:  # the file was cut: its offsets begin again
                self.told.pop(raw.stream, None)
            case _:
                pass

    def of(self, stream: str, offset: int) -> int | None:
        """How many events of a line are on record; None: all."""
        last, count = self.told.get(stream, (Raw(stream, -1, 0), 0))
        if offset < last.offset:
            return None
        return count if offset == last.offset else 0


def _known(folder: Path) -> _Known:
    known = _Known()
    for event in read_events(folder):
        known.add(event)
    return known


def _nobody(event: Event) -> None:
    del event


class _Again:
    """The agent's output, fed again to a new conversation."""

    def __init__(
        self, record: Record, folder: Path, config: Config, recorder: Recorder, known: _Known
    ) -> None:
        self._record = record
        self._folder = folder
        self._config = config
        self._recorder = recorder
        self._known = known
        self._last_words = b""

    def feed(self) -> Exit | None:
        """Everything; how the process ended, None if it never began."""
        if not self._known.spawned and not (self._folder / STDOUT).exists():
            return None
        conversation = self._conversation()
        with ExitStack() as stack:
            begun = self._without_line(conversation.start(), self._known.without_line)
            self._stdout(conversation, stack)
            self._stderr(stack)
        known = self._known.exit or Exit(signal=signal.SIGKILL)  # by the reaper, as we were gone
        exit_ = replace(known, stderr=self._last_words.decode("utf-8", "replace"))
        self._without_line(last_words(conversation, exit_), self._known.without_line - begun)
        self._recorder.flush()
        return self._known.exit or Exit()

    def _conversation(self) -> Conversation:
        name = self._record.agent.adapter
        adapter = self._config.adapters.get(name)
        if adapter is None:
            text = f"run {self._record.run_id}: no adapter {name!r} to read it with"
            raise JournalError(text, hint="Install what provides it, then recover again.")
        return adapter.conversation(self._record.task, self._record.agent, self._record.before)

    def _stdout(self, conversation: Conversation, stack: ExitStack) -> None:
        """Lines of stdout and of the agent's own logs, in the order in which they were fed."""
        tails = iter(read_tails(self._folder / TAILS))
        tail = next(tails, None)
        for line in self._lines(STDOUT, stack):
            while tail is not None and tail.after <= line.offset:
                self._tail(conversation, tail)
                tail = next(tails, None)
            said = translate(conversation, line)
            self._add(said, Raw(STDOUT, line.offset, line.length))
        while tail is not None:
            self._tail(conversation, tail)
            tail = next(tails, None)
        for tail in self._new_tails(stack):
            self._tail(conversation, tail)

    def _tail(self, conversation: Conversation, tail: Tail) -> None:
        self._add(fed(conversation, tail.line), tail.raw)

    def _new_tails(self, stack: ExitStack) -> Iterator[Tail]:
        """What the agent's logs hold that was not read any more."""
        record = self._record
        try:
            adapter = self._config.adapters[record.agent.adapter]
            command = adapter.command(record.task, record.agent)
        except (OrchestrateError, OSError) as error:
            text = f"the agent's own log was not read: {error}"
            self._recorder.add(Notice(text=text), "supervisor")
            return
        env = environment(
            command, self._config.environ, env=record.task.env, env_from=record.task.env_from
        )
        copy = self._folder / TAILS
        tails = Tails(command.tails, env, copy, stack)
        home = record.agent.home if record.resumed is None else None
        tails.go_on(read_tails(copy), Path(home) if home else None)
        while True:
            found, grew = tails.read(_size(self._folder / STDOUT), last=True)
            yield from found
            if not grew:
                return

    def _stderr(self, stack: ExitStack) -> None:
        for line in self._lines(STDERR, stack):
            self._last_words = (self._last_words + line.data + b"\n")[-STDERR_TAIL:]
            text = line.data.decode("utf-8", "backslashreplace")
            self._add([Output(stream=STDERR, text=text)], Raw(STDERR, line.offset, line.length))

    def _lines(self, stream: str, stack: ExitStack) -> Iterator[Line]:
        path = self._folder / stream
        try:
            spool = stack.enter_context(Spool(path, stream))
            spool.bound()
        except OSError:  # it is not there, or the agent put something else in its place
            return
        last = self._known.told.get(stream)
        if last is not None and _size(path) < last[0].offset + last[0].length:
            self._recorder.add(*cut(stream))
            self._known.told.pop(stream)
        while chunk := spool.read():
            yield from spool.lines(chunk)
        yield from spool.rest()

    def _add(self, said: Iterable[Update | Send], raw: Raw) -> None:
        known = self._known.of(raw.stream, raw.offset)
        if known is None:
            return
        updates = [one for one in said if not isinstance(one, Send)]
        for update in islice(updates, known, None):
            self._recorder.add(update, "agent", raw)
        if self._recorder.waiting >= _AT_ONCE:
            self._recorder.flush()

    def _without_line(self, said: Iterable[Update | Send], known: int) -> int:
        """Add those that are not known; how many were."""
        updates = [one for one in said if not isinstance(one, Send)]
        for update in islice(updates, known, None):
            self._recorder.add(update, "agent")
        return min(known, len(updates))


def _size(path: Path) -> int:
    try:
        return path.lstat().st_size
    except OSError:
        return 0


def _end(
    record: Record,
    folder: Path,
    config: Config,
    recorder: Recorder,
    known: _Known,
    exit_: Exit | None,
) -> Outcome:
    """The run's last event."""
    facts = Facts(
        task=record.task,
        digest=recorder.digest,
        exit=exit_,
        stopped="interrupted",
        stopped_why=WHY,
        usage=recorder.usage,
    )
    outcome = outcome_of(facts, record.run_id, record.agent, config)
    scrub_all(folder, redaction.known(record.secrets, config.environ))
    shutil.rmtree(config.state / STORES / record.run_id, ignore_errors=True)
    return recorder.finish(outcome)
