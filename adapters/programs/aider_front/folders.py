"""Where a run keeps its history, where it may write, and what git knows of its work tree."""

from __future__ import annotations

import hashlib
import os
import subprocess
import tempfile
import uuid
from pathlib import Path

from adapters.programs.aider_front.run import Run
from adapters.programs.aider_front.settings import Settings
from adapters.programs.asked import SettingsError
from adapters.programs.confinement import confine


def session_folder(run: Run) -> Path:
    """Where the history of this conversation is kept: never in the work tree."""
    home = run.settings.home
    if home is not None:
        return Path(home, "sessions", run.session_id)
    base = os.environ.get("XDG_STATE_HOME") or Path("~/.local/state").expanduser()
    return Path(base, "orchestrate", "aider-sessions", run.session_id)


def tags_cache(settings: Settings) -> Path:
    """An absolute folder for the repository map, one for each work tree."""
    name = hashlib.sha256(str(Path(settings.workspace).resolve()).encode()).hexdigest()[:16]
    return Path.home() / ".aider" / "caches" / f"tags-{name}"


def open_session(run: Run) -> None:
    """Makes the folder of the session, or finds it. Raises SettingsError if it is not there."""
    settings = run.settings
    run.session_id = settings.session_id or str(uuid.uuid4())
    folder = session_folder(run)
    if settings.session_id and not (folder / "chat.history.md").is_file():
        raise SettingsError(f"there is no session {settings.session_id}")
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)


def enclose(run: Run) -> None:
    """Holds this process, and all that it starts, to its access; says how far that goes."""
    settings = run.settings
    if settings.access == "full":
        return
    run.scratch = scratch = tempfile.mkdtemp(prefix="orchestrate-")
    os.environ["TMPDIR"] = tempfile.tempdir = scratch
    own = Path.home() / ".aider"
    own.mkdir(mode=0o700, parents=True, exist_ok=True)
    writable = [scratch, str(own), str(session_folder(run)), *settings.writable]
    if settings.access == "edit":
        # A linked work tree's index is elsewhere, and aider adds new files to it.
        git = git_says(settings.workspace, "rev-parse", "--absolute-git-dir", "--git-common-dir")
        writable += [settings.workspace, *(str(Path(settings.workspace, name)) for name in git)]
    run.writable = writable
    why = confine(writable, settings.workspace)
    run.lines.say("access", level=settings.access, enforced=why is None, reason=why)


def lend_identity(root: str) -> None:
    """A name for commits where git knows none: for this process and what it starts only."""
    names = {"user.name": "aider", "user.email": "aider@localhost"}
    missing = {name: value for name, value in names.items() if not git_says(root, "config", name)}
    if missing:
        os.environ["GIT_CONFIG_COUNT"] = str(len(missing))
        for number, (name, value) in enumerate(missing.items()):
            os.environ[f"GIT_CONFIG_KEY_{number}"] = name
            os.environ[f"GIT_CONFIG_VALUE_{number}"] = value


def git_says(folder: str, *words: str) -> list[str]:
    """What git answers, line by line; nothing where it has no answer."""
    try:
        done = subprocess.run(
            ("git", *words), cwd=folder, capture_output=True, text=True, check=False
        )
    except OSError:
        return []
    return done.stdout.splitlines() if done.returncode == 0 else []
