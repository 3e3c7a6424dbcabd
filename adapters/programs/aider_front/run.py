"""One run of aider: what it has done, and how it ends."""

from __future__ import annotations

import math
import os
import shutil
import sys
import threading
from collections.abc import Mapping
from contextlib import suppress
from typing import NoReturn

from adapters.programs.aider_front.settings import Settings
from adapters.programs.asked import FAILED
from adapters.programs.json_lines import Lines
from adapters.programs.shell import Shell

TEXT_CHARS = 64 * 1024


class Stop(BaseException):
    """Unwinds aider, which catches every Exception. Ends the run with this failure."""

    def __init__(
        self,
        text: str,
        *,
        code: int = FAILED,
        ended: str = "error",
        said: Mapping[str, object] | None = None,
        **more: object,
    ) -> None:
        super().__init__(text)
        self.text = text
        self.code = code
        self.ended = ended
        self.said = {**(said or {}), **more}


class Run:
    """One run: what was begun, what went wrong, and how it ends."""

    def __init__(self, lines: Lines) -> None:
        self.lines = lines
        self.settings = Settings()
        self.key: str | None = None
        self.session_id = ""
        self.shells: dict[str, Shell] = {}
        self.writable: list[str] | None = None
        self.scratch: str | None = None
        self.open_call: tuple[str, str] | None = None
        self.problem: Stop | None = None
        self.last_complaint = ""
        self.turns = 0
        self.calls = 0
        self.commands = 0
        self.edits = 0
        self.cost: float | None = None
        self.testing = False
        self.linting = False
        self.asking = threading.local()
        self.asked: object = None

    def blame(self, kind: str, text: str, ended: str = "error") -> None:
        """Remembers why this is no success. The first reason counts; aider may go on."""
        if self.problem is None:
            self.problem = Stop(text, ended=ended, kind=kind)

    def execute(self, command: str, cwd: str | None) -> tuple[int, str]:
        """Runs a command of aider's user: exit status and output."""
        settings = self.settings
        hidden = set(settings.hidden)
        env = {name: value for name, value in os.environ.items() if name not in hidden}
        folder = cwd or settings.workspace
        if (shell := self.shells.get(folder)) is None:
            # Enclosed once more, it cannot look into this process, which holds the key.
            shell = Shell(cwd=folder, env=env, timeout_s=math.inf, writable=self.writable)
            self.shells[folder] = shell
        if self.linting:  # told as a whole
            ran = shell.run(command)
            return ran.exit_code or 0, ran.output
        type_ = "test" if self.testing else "command"
        self.commands += 1
        id_ = f"{type_}-{self.commands}"
        self.open_call = (type_, id_)
        self.lines.say(type_, id=id_, status="in_progress", command=command)
        ran = shell.run(command)
        self.open_call = None
        status = "completed" if ran.exit_code == 0 else "failed"
        self.lines.say(type_, id=id_, status=status, exit_code=ran.exit_code, output=ran.output)
        return 1 if ran.exit_code is None else ran.exit_code, ran.output

    def end(self, code: int, status: str, **fields: object) -> NoReturn:
        """Leaves nothing behind, says the last line, ends, whatever threads libraries have."""
        self.lines.seize()
        open_call = self.open_call
        # One at least: it stops what other libraries have started, too.
        for shell in self.shells.values() or (Shell(cwd="/", env={}, timeout_s=0, writable=None),):
            shell.stop()
        if self.scratch is not None:
            shutil.rmtree(self.scratch, ignore_errors=True)
        with suppress(OSError):  # no room for it, or nobody reads: end all the same
            if open_call is not None:
                self.lines.say(open_call[0], id=open_call[1], status="failed", problem=status)
            self.lines.say(
                "result",
                status=status,
                exit_code=code,
                session_id=self.session_id,
                turns=self.turns,
                model_calls=self.calls,
                edits=self.edits,
                **fields,
            )
        sys.stderr.flush()
        os._exit(code)

    def fail(self, stop: Stop) -> NoReturn:
        """The cause, then the end."""
        with suppress(OSError):  # the same
            self.lines.say("error", text=stop.text, **stop.said)
        self.end(stop.code, stop.ended)
