"""From the settings to the last line."""

from __future__ import annotations

import os
import sys
import uuid
from collections.abc import Mapping
from importlib import metadata
from pathlib import Path
from typing import NoReturn

from adapters.programs.asked import (
    BAD_SETTINGS,
    FAILED,
    FINISHED,
    LIMIT,
    MISSING,
    SettingsError,
    read,
)
from adapters.programs.confinement import adopt_orphans
from adapters.programs.json_lines import Lines, take_stdout, watch_signals
from adapters.programs.light_start import start_lightly
from adapters.programs.litellm_agent.answers import request_text
from adapters.programs.litellm_agent.calls import Caller, missing_key
from adapters.programs.litellm_agent.environment import open_shell, prepare_environment
from adapters.programs.litellm_agent.run import Run
from adapters.programs.litellm_agent.sessions import Session, user_sessions
from adapters.programs.litellm_agent.settings import Settings
from adapters.programs.model_calls import ModelError, unreachable

TESTED = ("2.4.6",)
"""Versions of mini-swe-agent that this program was tested with."""


def main() -> NoReturn:
    run = Run(Lines(take_stdout()))
    watch_signals(lambda number: run.end(128 + number, "interrupted", signal=number))
    adopt_orphans()
    try:
        settings = read(sys.stdin.buffer.read(), Settings)
        prepare_environment(settings)
        run.lines.hide([os.environ.get(name, "") for name in settings.secrets])
        work(settings, run)
    except SettingsError as error:
        run.fail(BAD_SETTINGS, "error", str(error), kind="bad_usage", retryable=False)
    except Exception as error:
        import traceback

        traceback.print_exc()
        run.fail(FAILED, "error", f"{type(error).__name__}: {error}", kind="crashed")


def work(settings: Settings, run: Run) -> NoReturn:
    """From the settings to the last line."""
    folder = Path(settings.home, "sessions") if settings.home else user_sessions()
    run.session = Session(folder, settings.session_id or str(uuid.uuid4()))
    history = run.session.load() if settings.session_id else []
    run.lines.say("session", session_id=run.session.id, model=settings.model, resumed=bool(history))
    if why := unreachable(settings.api_base):
        run.fail(FAILED, "error", why, kind="unavailable", retryable=True)
    open_shell(settings, run)
    import_agent(run)
    if missing := missing_key(settings):
        text = f"no key: {missing} is not set"
        run.fail(FAILED, "error", text, kind="auth_failed", unset=missing, retryable=False)
    from adapters.programs.litellm_agent.agent import agent_of  # which imports mini-swe-agent

    caller = Caller(settings, run.lines)
    agent = agent_of(settings, run, caller, history)
    run.lines.say("turn")
    try:
        ended = agent.run(request_text(settings))  # type: ignore[attr-defined]
    except ModelError as error:
        run.fail(
            FAILED,
            "refused" if error.kind == "refused" else "error",
            str(error),
            **error.said,
        )
    finish(ended, run)


def import_agent(run: Run) -> str:
    """Imports what takes seconds. The version of mini-swe-agent."""
    start_lightly()
    try:
        import litellm
        import minisweagent
        import minisweagent.agents.default
        import minisweagent.environments.local
        import minisweagent.models.litellm_model
    except ImportError as error:
        what = error.name or "a module"
        run.fail(MISSING, "missing", f"cannot import {what}: {error}", missing=what)
    litellm.suppress_debug_info = True
    version = str(minisweagent.__version__)
    if version not in TESTED:
        run.lines.say("notice", text=f"mini-swe-agent {version} is untested (tested: {TESTED[0]})")
    run.lines.say("ready", agent=version, litellm=metadata.version("litellm"))
    return version


def finish(ended: Mapping[str, object], run: Run) -> NoReturn:
    """mini-swe-agent's own word on how it ended, as the last line."""
    match ended.get("exit_status"):
        case "Submitted":
            run.end(FINISHED, "finished", text=str(ended.get("submission") or "").strip())
        case "LimitsExceeded":
            run.end(LIMIT, "limit", limit=ended.get("limit", "cost_usd"))
        case "RepeatedFormatError":
            run.end(FAILED, "no_tool_call", cut_off=run.cut_off)
        case other:
            run.fail(FAILED, "error", f"mini-swe-agent ended with {other!r}")
