"""One run: what it has done, and how it ends."""

from __future__ import annotations

import contextlib
import os
import shutil
import sys
from typing import NoReturn

from adapters.programs.confinement import denied_path
from adapters.programs.json_lines import Lines
from adapters.programs.litellm_agent.sessions import Session
from adapters.programs.litellm_agent.settings import Settings
from adapters.programs.shell import Ran, Shell


class Run:
    """One run: holds what the signal thread must reach while the main thread works."""

    def __init__(self, lines: Lines) -> None:
        self.lines = lines
        self.shell: Shell | None = None
        self.scratch: str | None = None
        self.session: Session | None = None
        self.open_call: str | None = None
        self.tool_calls = 0
        self.cut_off = False

    def execute(self, command: object, settings: Settings) -> Ran:
        """Runs one command of the model, told as a tool call."""
        assert self.shell is not None  # noqa: S101  (made before the agent is)
        self.tool_calls += 1
        self.open_call = id_ = f"call-{self.tool_calls}"
        self.lines.say("tool_call", id=id_, status="in_progress", command=command)
        if isinstance(command, str):
            ran = self.shell.run(command)
        else:
            ran = Ran(output="", exit_code=None, problem="the command must be a text")
        self.open_call = None
        self.lines.say(
            "tool_call",
            id=id_,
            status="completed" if ran.exit_code == 0 else "failed",
            output=ran.output,
            exit_code=ran.exit_code,
            problem=ran.problem or None,
        )
        if self.scratch is None or settings.access == "full":
            return ran
        if path := denied_path(ran.output, settings.workspace, self.scratch):
            self.lines.say(
                "denied", id=id_, path=path, access=settings.access, status=ran.exit_code
            )
        return ran

    def end(self, code: int, status: str, **fields: object) -> NoReturn:
        """Leaves nothing behind, says the last line, ends, whatever threads libraries have."""
        self.lines.seize()
        open_call = self.open_call
        if self.shell is not None:
            self.shell.stop()
        if self.scratch is not None:
            shutil.rmtree(self.scratch, ignore_errors=True)
        with contextlib.suppress(OSError):  # no room for it: end all the same
            if open_call is not None:
                self.lines.say("tool_call", id=open_call, status="failed", problem=status)
            self.lines.say(
                "result",
                status=status,
                exit_code=code,
                session_id=self.session.id if self.session else None,
                tool_calls=self.tool_calls,
                **fields,
            )
        sys.stderr.flush()
        os._exit(code)

    def fail(self, code: int, ended: str, text: str, **fields: object) -> NoReturn:
        """The cause, then the end."""
        with contextlib.suppress(OSError):  # no room for it: end all the same
            self.lines.say("error", text=text, **fields)
        self.end(code, ended)
