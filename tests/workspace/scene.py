"""A user's repository to work on, and what of it must never change."""

import hashlib
import os
import subprocess
from collections.abc import Mapping
from pathlib import Path

ENV = {
    "PATH": os.environ["PATH"],
    "HOME": "/nonexistent",
    "GIT_CONFIG_NOSYSTEM": "1",
    "GIT_AUTHOR_NAME": "User",
    "GIT_AUTHOR_EMAIL": "user@example.com",
    "GIT_COMMITTER_NAME": "User",
    "GIT_COMMITTER_EMAIL": "user@example.com",
    "GIT_AUTHOR_DATE": "2026-01-01T00:00:00Z",
    "GIT_COMMITTER_DATE": "2026-01-01T00:00:00Z",
}


def git(folder: Path, *words: str, check: bool = True, stdin: bytes | None = None) -> str:
    """The user's own git, in their repository."""
    done = subprocess.run(
        ["git", "-c", "protocol.file.allow=always", *words],
        cwd=folder,
        env=ENV,
        check=check,
        capture_output=True,
        input=stdin,
    )
    return done.stdout.decode("utf-8", "surrogateescape").strip()


def repository(folder: Path, files: Mapping[str, str] | None = None, *init: str) -> Path:
    """A repository of one commit."""
    folder.mkdir(parents=True)
    git(folder, "init", "-q", "-b", "main", *init)
    write(folder, files if files is not None else {"a.txt": "one\n", "src/b.txt": "b\n"})
    git(folder, "add", "-A")
    git(folder, "commit", "-qm", "Begin", "--allow-empty")
    return folder


def write(folder: Path, files: Mapping[str, str]) -> None:
    for name, text in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)


OURS = "orchestrate"
# Folders of a git directory that only we add to, or that hold no state of the user's.


def fingerprint(top: Path) -> dict[str, str]:
    """Everything below a folder, but for new objects and our branches: names, modes, contents."""
    found: dict[str, str] = {}
    for folder, names, files in os.walk(top):
        inside = Path(folder).relative_to(top)
        if inside.parts[-1:] == ("objects",):
            names.clear()
            continue
        if inside.parts[-3:] == ("refs", "heads", OURS):
            names.clear()
            continue
        for name in [*files, *names]:
            path = Path(folder) / name
            if path.parent.name == "heads" and name == OURS:
                continue
            status = path.lstat()
            if path.is_symlink():
                content = f"link {path.readlink()}"
            elif path.is_file():
                content = f"{hashlib.sha256(path.read_bytes()).hexdigest()} {status.st_mtime_ns}"
            else:
                content = ""
            found[str(inside / name)] = f"{status.st_mode:o} {content}"
    return found
