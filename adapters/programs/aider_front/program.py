"""From the settings to the last line."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from importlib import import_module, metadata
from pathlib import Path
from typing import NoReturn

from adapters.programs.aider_front.calls import aside, send, send_completion, silent_stream
from adapters.programs.aider_front.edits import (
    apply_updates,
    cmd_test,
    commit,
    lint_edited,
    prepare_to_edit,
    run_cmd,
)
from adapters.programs.aider_front.folders import enclose, open_session, tags_cache
from adapters.programs.aider_front.quiet import quiet_patches
from adapters.programs.aider_front.replacing import (
    Maker,
    MissingPointError,
    by,
    find,
    kept,
    nothing,
    replace,
)
from adapters.programs.aider_front.run import Run, Stop
from adapters.programs.aider_front.screen import is_command, parser, screen, search_path, setup_git
from adapters.programs.aider_front.settings import Settings, read_settings
from adapters.programs.aider_front.tables import read_tables_quickly
from adapters.programs.aider_front.turns import exhausted, run_one, send_message
from adapters.programs.asked import BAD_SETTINGS, FINISHED, MISSING, SettingsError
from adapters.programs.confinement import adopt_orphans
from adapters.programs.json_lines import Lines, take_stdout, watch_signals
from adapters.programs.light_start import start_lightly
from adapters.programs.model_calls import unreachable

TESTED = ("0.86.2",)
"""Versions of aider that this program was tested with."""


def main(arguments: Sequence[str]) -> NoReturn:
    descriptor = take_stdout()
    run = Run(Lines(descriptor))
    watch_signals(lambda number: run.end(128 + number, "interrupted", signal=number))
    adopt_orphans()
    try:
        run.settings = settings = read_settings(arguments)
        prepare(settings)
        run.lines.hide([os.environ.get(name, "") for name in settings.secrets])
        take_key(run)
        work(run, descriptor)
    except Stop as stop:
        run.fail(stop)
    except SettingsError as error:
        run.fail(Stop(str(error), code=BAD_SETTINGS, kind="bad_usage", retryable=False))
    except Exception as error:
        import traceback

        traceback.print_exc()
        run.fail(Stop(f"{type(error).__name__}: {error}", kind="crashed"))


def work(run: Run, descriptor: int) -> NoReturn:
    """From the settings to the last line."""
    settings = run.settings
    open_session(run)
    resumed = bool(settings.session_id)
    run.lines.say("session", session_id=run.session_id, model=settings.model, resumed=resumed)
    if why := unreachable(settings.api_base):
        raise Stop(why, kind="unavailable", retryable=True)
    enclose(run)
    version = import_aider(run)
    if has_json(run):
        os.dup2(descriptor, 1)
        main_of_aider = import_module("aider.main").main
        os._exit(main_of_aider(["--json", *aider_argv(run)]) or 0)
    try:
        replace(patches(run))
    except MissingPointError as error:
        text = f"aider {version} cannot be wrapped: it has no {error}"
        stop = Stop(text, code=MISSING, ended="missing", kind="spawn", missing=str(error))
        raise stop from None
    finish(run, call_aider(run))


def take_key(run: Run) -> None:
    """Takes the key out of the environment: what git or a linter starts shall not have it."""
    settings = run.settings
    if settings.api_key_env is None:
        return
    run.key = os.environ.pop(settings.api_key_env, None)
    if not run.key:
        unset = settings.api_key_name or settings.api_key_env
        text = f"no key: {unset} is not set"
        raise Stop(text, kind="auth_failed", unset=unset, retryable=False)


def prepare(settings: Settings) -> None:
    """What aider and LiteLLM read at import: nothing from the network, all from one home."""
    os.environ["LITELLM_LOCAL_MODEL_COST_MAP"] = "True"
    os.environ["LITELLM_MODE"] = "PRODUCTION"
    sys.argv[:] = ["aider"]  # it writes its command line into its history
    devnull = os.open(os.devnull, os.O_RDONLY)
    os.dup2(devnull, 0)
    os.close(devnull)
    if settings.home is not None:
        home = Path(settings.home)
        # Only for aider: git and the tests of the project know the user's own home.
        Path.home = staticmethod(lambda: home)  # type: ignore[method-assign]


def aider_argv(run: Run) -> list[str]:
    """Aider's command line: the flags, then the files and the prompt."""
    settings = run.settings
    argv = list(settings.argv)
    if settings.session_id:
        argv.append("--restore-chat-history")
    flag = "--read" if settings.access == "read" else "--file"
    named = []
    for file in settings.files:
        # aider makes an empty file of one that is not there, and takes no folders.
        if Path(settings.workspace, file).is_file():
            argv.append(f"{flag}={file}")
        else:
            named.append(file)
    if settings.prompt is not None:
        prompt = settings.prompt
        if named:
            prompt += "\n\nFiles that matter: " + ", ".join(named)
        argv.append(f"--message={prompt}")
    return argv


def has_json(run: Run) -> bool:
    """Whether this aider prints JSON lines by itself. None did up to now."""
    owner, name = find("aider.args:get_parser")
    parser = getattr(owner, name)([], None)
    native = "--json" in getattr(parser, "_option_string_actions", {})
    if native:
        run.lines.say("notice", text="this aider has --json of its own, which is used")
    return native


def import_aider(run: Run) -> str:
    """Imports what takes seconds. The version of aider."""
    start_lightly()
    read_tables_quickly()
    try:
        import aider

        import_module("aider.main")
    except ImportError as error:
        what = error.name or "a module"
        text = f"cannot import {what}: {error}"
        raise Stop(text, code=MISSING, ended="missing", kind="spawn", missing=what) from None
    version = str(aider.__version__)
    if version not in TESTED:
        run.lines.say("notice", text=f"aider {version} is untested (tested: {TESTED[0]})")
    run.lines.say("ready", aider=version, litellm=version_of("litellm"))
    return version


def version_of(package: str) -> str:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return "unknown"


def patches(run: Run) -> dict[str, Maker]:
    """All that is changed in aider, and how."""
    coder = "aider.coders.base_coder:"
    return {
        **quiet_patches(),
        "aider.io:InputOutput.confirm_ask": kept,
        coder + "FinishReasonLength": kept,
        coder + "Coder.abs_root_path": kept,
        "aider.main:InputOutput": lambda original: screen(original, run),
        "aider.main:get_parser": lambda original: parser(original, run),
        "aider.main:generate_search_path_list": lambda original: search_path(original, run),
        "aider.main:setup_git": by(setup_git(run)),
        "aider.main:report_uncaught_exceptions": by(nothing),
        "aider.models:Model.send_completion": lambda original: send_completion(original, run),
        "aider.models:Model.simple_send_with_retries": lambda original: aside(original, run),
        "aider.models:RETRY_TIMEOUT": by(0),  # `send` tries again, and no one else
        coder + "RETRY_TIMEOUT": by(0),
        coder + "Coder.send": lambda original: send(original, run),
        coder + "Coder.send_message": lambda original: send_message(original, run),
        coder + "Coder.show_send_output_stream": silent_stream,
        coder + "Coder.calculate_and_show_tokens_and_cost": by(nothing),
        coder + "Coder.run_one": lambda original: run_one(original, run),
        coder + "Coder.apply_updates": lambda original: apply_updates(original, run),
        coder + "Coder.prepare_to_edit": lambda original: prepare_to_edit(original, run),
        coder + "Coder.lint_edited": lambda original: lint_edited(original, run),
        coder + "Coder.show_exhausted_error": lambda original: exhausted(original, run),
        coder + "run_cmd": by(run_cmd(run)),
        "aider.commands:run_cmd": by(run_cmd(run)),
        "aider.commands:Commands.cmd_test": lambda original: cmd_test(original, run),
        "aider.commands:Commands.is_command": lambda original: is_command(original, run),
        "aider.linter:run_cmd_subprocess": by(run_cmd(run)),
        "aider.repo:GitRepo.commit": lambda original: commit(original, run),
        "aider.repomap:RepoMap.TAGS_CACHE_DIR": by(str(tags_cache(run.settings))),
    }


def call_aider(run: Run) -> object:
    """Aider's own main. What it returns, or the status that it exits with."""
    from aider.main import main as main_of_aider

    try:
        return main_of_aider(aider_argv(run))
    except SystemExit as error:
        return error.code


def finish(run: Run, returned: object) -> NoReturn:
    """How it ended: aider's own word, where it gives one, and ours."""
    if run.problem is not None:
        run.fail(run.problem)
    if returned not in {None, 0}:
        text = run.last_complaint or f"aider ended with {returned!r}"
        run.fail(Stop(text, kind=None, retryable=False))
    if not run.turns and not run.edits and _left_undone(run):
        text = run.last_complaint or "aider ended before it asked the model"
        run.fail(Stop(text, kind="incomplete"))
    run.end(FINISHED, "finished")


def _left_undone(run: Run) -> bool:
    """Whether something was asked that nobody did: aider ends well all the same."""
    if run.settings.prompt is not None:
        return True
    message = str(getattr(run.asked, "message", None) or "").strip()
    if message and not message.startswith(("/", "!")):  # those are commands of aider's own
        return True
    named = getattr(run.asked, "message_file", None) or getattr(run.asked, "apply", None)
    return bool(named and run.last_complaint)
