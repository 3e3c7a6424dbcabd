"""The environment of LiteLLM, of mini-swe-agent and of the commands of the model."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

from adapters.programs.litellm_agent.run import Run
from adapters.programs.litellm_agent.settings import Settings
from adapters.programs.shell import Shell


def prepare_environment(settings: Settings) -> None:
    """What LiteLLM and mini-swe-agent read at import: nothing from network or work tree."""
    os.environ.update(
        LITELLM_LOCAL_MODEL_COST_MAP="True",
        LITELLM_MODE="PRODUCTION",  # else it loads the .env of whatever folder it is in
        MSWEA_CONFIGURED="true",
        MSWEA_SILENT_STARTUP="1",
        MSWEA_COST_TRACKING="ignore_errors",
        MSWEA_MODEL_RETRY_STOP_AFTER_ATTEMPT="1",
    )
    if settings.home is not None:
        os.environ["MSWEA_GLOBAL_CONFIG_DIR"] = str(Path(settings.home, "mini-swe-agent"))


def tool_environment(settings: Settings, scratch: str) -> dict[str, str]:
    """The environment of the model's commands: no key, no pager, caches where it may write."""
    hidden = {*settings.hidden, *([settings.api_key_env] if settings.api_key_env else [])}
    ours = ("MSWEA_", "LITELLM_")
    env = {
        key: value
        for key, value in os.environ.items()
        if key not in hidden and not key.startswith(ours)
    }
    env.update(PAGER="cat", MANPAGER="cat", GIT_PAGER="cat", PIP_PROGRESS_BAR="off")
    if settings.access != "full":
        env.update(
            TMPDIR=scratch, XDG_CACHE_HOME=f"{scratch}/cache", npm_config_cache=f"{scratch}/npm"
        )
    if settings.access == "read":
        # Else a test run that only reads stumbles over caches that it may not write.
        env.update(PYTHONDONTWRITEBYTECODE="1", PYTEST_ADDOPTS="-p no:cacheprovider")
    return env


def open_shell(settings: Settings, run: Run) -> None:
    """Makes the shell of this run and says how far it is confined."""
    run.scratch = scratch = tempfile.mkdtemp(prefix="orchestrate-")
    own = [settings.workspace] if settings.access == "edit" else []
    run.shell = Shell(
        cwd=settings.workspace,
        env=tool_environment(settings, scratch),
        timeout_s=settings.command_timeout_s,
        writable=None if settings.access == "full" else [scratch, *own, *settings.writable],
    )
    if settings.access != "full":
        why = run.shell.unenforced
        run.lines.say("access", level=settings.access, enforced=why is None, reason=why)
