"""Takes in what an agent writes: its files by lines, lines to updates, updates to the record.

No process is needed: what is read may stand there already.
"""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import ExitStack

from orchestrator.adapter import Conversation, Exit, Send
from orchestrator.events import Error, Output, Raw, Update
from orchestrator.journal import STDERR
from orchestrator.lines import Line
from orchestrator.run.recorder import Recorder, fed, last_words, translate
from orchestrator.run.spool import Spool, Tails

STDERR_TAIL = 64 * 1024


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
    def size(self) -> int:
        """How many bytes of output there were."""
        return self._stdout.size + self._stderr.size

    def start(self) -> None:
        """What the conversation says first."""
        self._take(self.conversation.start(), None)

    def pump(self, *, last: bool = False) -> bool:
        """Take in what the files have grown by, a quantum of each at most; whether they have."""
        grew = False
        for spool in (self._stdout, self._stderr):
            grew = self._pump(spool) or grew
        lines, tails_grew = self._tails.read(last=last)
        for line in lines:
            self._take(fed(self.conversation, line), None)
        if grew or tails_grew:
            self._recorder.flush()
        return grew or tails_grew

    def close(self, exit_: Exit) -> Exit:
        """Read what is left, and let the conversation have its last word. The exit, with the end
        of stderr.
        """
        while self.pump(last=True):
            pass
        for spool in (self._stdout, self._stderr):
            for line in spool.rest():
                self._line(spool, line)
        stderr = self._last_words.decode("utf-8", "replace")
        known = Exit(status=exit_.status, signal=exit_.signal, stderr=stderr)
        self._take(last_words(self.conversation, known), None)
        self._recorder.flush()
        return known

    def _pump(self, spool: Spool) -> bool:
        chunk = spool.read()
        if not chunk:
            if spool.shrunk():
                text = f"the agent cut its own {spool.stream} file; lines may be lost"
                self._recorder.say(Error(kind="crashed", text=text))
            return False
        for line in spool.lines(chunk):
            self._line(spool, line)
        return True

    def _line(self, spool: Spool, line: Line) -> None:
        raw = Raw(stream=spool.stream, offset=line.offset, length=line.length)
        if spool is self._stdout:
            self._take(translate(self.conversation, line), raw)
            return
        self._last_words = (self._last_words + line.data + b"\n")[-STDERR_TAIL:]
        text = line.data.decode("utf-8", "backslashreplace")
        self._recorder.add(Output(stream=STDERR, text=text), "agent", raw)

    def _take(self, said: Iterable[Update | Send], raw: Raw | None) -> None:
        for one in said:
            match one:
                case Send():
                    self.sends.append(one)
                case update:
                    self._recorder.add(update, "agent", raw)
