"""Takes in what an agent writes: its files by lines, lines to updates, updates to the record.

No process is needed: what is read may stand there already.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace

from orchestrator.adapter import Conversation, Exit, Send
from orchestrator.events import Error, Notice, Output, Permission, Place, Raw, Source, Update
from orchestrator.journal import STDERR, STDOUT
from orchestrator.lines import Line
from orchestrator.run.recorder import Recorder, Said, fed, last_words, translate
from orchestrator.run.spool import Spool, Tails

STDERR_TAIL = 64 * 1024


def cut(stream: str) -> tuple[Error, Source, Raw]:
    """What is told of a file that became shorter. Its `raw` says that reading began again at 0."""
    text = f"the agent cut its own {stream} file; lines may be lost"
    return Error(kind="crashed", text=text), "supervisor", Raw(stream, 0, 0)


class Intake:
    """What one agent writes, on its way to the record. `sends` gathers what it is to be told."""

    def __init__(
        self,
        conversation: Conversation,
        recorder: Recorder,
        *,
        stdout: Spool,
        stderr: Spool,
        tails: Tails,
    ) -> None:
        self.conversation = conversation
        self.sends: list[Send] = []
        self._recorder = recorder
        self._stdout = stdout
        self._stderr = stderr
        self._tails = tails
        self._last_words = b""

    @property
    def spools(self) -> tuple[Spool, Spool]:
        """What grows when the agent says something: stdout and stderr."""
        return self._stdout, self._stderr

    @property
    def tails(self) -> Tails:
        """Its own logs, as far as they are followed."""
        return self._tails

    @property
    def size(self) -> int:
        """How many bytes of output there are."""
        return self._stdout.there() + self._stderr.there()

    @property
    def read(self) -> int:
        """How many of them were read."""
        return self._stdout.size + self._stderr.size

    @property
    def more(self) -> bool:
        """Whether there may be more to read at once."""
        return self._stdout.full or self._stderr.full

    def taken(self) -> list[Send]:
        """What the agent is to be told; afterwards there is nothing left of it."""
        sends, self.sends = self.sends, []
        return sends

    def decide(self, permission: Permission) -> None:
        """Take in how a question was answered, and what the agent is to be told of it."""
        self._recorder.say(permission)
        self._take(self.conversation.decide(permission), None)
        self._recorder.flush()

    def start(self) -> None:
        """What the conversation says first."""
        self._take(self.conversation.start(), None)

    def hear(self) -> bool:
        """Take in what stdout has grown by, a quantum at most; whether it has."""
        if self._tails.any:
            return self.pump()  # what stands in the one is about what was just said in the other
        grew = self._pump(self._stdout)
        self._recorder.flush()
        return grew

    def pump(self, *, last: bool = False) -> bool:
        """Take in what the files have grown by, a quantum of each at most; whether they have."""
        grew = False
        for spool in (self._stdout, self._stderr):
            grew = (spool.grown() and self._pump(spool)) or grew
        if self._tails.any:
            tails, tails_grew = self._tails.read(self._stdout.start, last=last)
            grew = grew or tails_grew
            for tail in tails:
                self._take(fed(self.conversation, tail.line), tail.raw)
        if grew:
            self._recorder.flush()
        return grew

    def leave(self) -> None:
        """Read no further; what is left unread is told with its place."""
        for spool in self.spools:
            left = spool.leave()
            if left.length:
                text = f"{left.length} bytes of {spool.stream} were not read: the run was stopped"
                self._recorder.add(Notice(text=text), "supervisor", left)
        self._recorder.flush()

    def close(self, exit_: Exit) -> Exit:
        """Read what is left, and let the conversation have its last word. The exit, with the end
        of stderr.
        """
        while self.pump(last=True):
            pass
        self._stdout_lines(self._stdout.rest())
        self._stderr_lines(self._stderr.rest())
        stderr = self._last_words.decode("utf-8", "replace")
        known = replace(exit_, stderr=stderr)
        self._take(last_words(self.conversation, known), None)
        self._recorder.flush()
        return known

    def _pump(self, spool: Spool) -> bool:
        chunk = spool.read()
        if not chunk:
            if spool.shrunk():
                self._recorder.add(*cut(spool.stream))
                self._recorder.flush()
            return False
        lines = spool.lines(chunk)
        if spool is self._stdout:
            self._stdout_lines(lines)
        else:
            self._stderr_lines(lines)
        return True

    def _stdout_lines(self, lines: Sequence[Line]) -> None:
        conversation = self.conversation
        told: list[Said] = []
        for line in lines:
            place = (STDOUT, line[1], line[2])  # offset, length: in half of the time
            for one in translate(conversation, line):
                if isinstance(one, Send):
                    self.sends.append(one)
                else:
                    told.append((one, "agent", place))
        self._recorder.take(told)

    def _stderr_lines(self, lines: Sequence[Line]) -> None:
        for line in lines:
            self._last_words = (self._last_words + line.data + b"\n")[-STDERR_TAIL:]
            text = line.data.decode("utf-8", "backslashreplace")
            place = (STDERR, line.offset, line.length)
            self._recorder.add(Output(stream=STDERR, text=text), "agent", place)

    def _take(self, said: Iterable[Update | Send], place: Place | None) -> None:
        for one in said:
            if isinstance(one, Send):
                self.sends.append(one)
            else:
                self._recorder.add(one, "agent", place)
