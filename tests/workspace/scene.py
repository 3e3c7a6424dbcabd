"""A user's repository to work on, and what of it must never change."""

import hashlib
import os
import subprocess
from collections.abc import Iterator, Mapping
from pathlib import Path

ENV = {
    "PATH": os.environ["PATH"],
    "HOME": "/nonexistent",
    "GIT_CONFIG_NOSYSTEM": "1",
    "GIT_TEMPLATE_DIR": "",  # no sample hooks: a repository here is copied and read many times
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
    return dict(_printed(str(top), ""))


def _printed(folder: str, inside: str) -> Iterator[tuple[str, str]]:
    with os.scandir(folder) as entries:
        for entry in entries:
            name = f"{inside}{entry.name}"
            status = entry.stat(follow_symlinks=False)
            if entry.name == OURS and inside.endswith("refs/heads/"):
                continue
            if entry.is_symlink():
                yield name, f"{status.st_mode:o} link {os.readlink(entry.path)}"  # noqa: PTH115 (hot)
            elif entry.is_file(follow_symlinks=False):
                yield name, f"{status.st_mode:o} {_content(entry.path)} {status.st_mtime_ns}"
            else:
                yield name, f"{status.st_mode:o}"
            if entry.is_dir(follow_symlinks=False) and entry.name != "objects":
                yield from _printed(entry.path, f"{name}/")


def _content(path: str) -> str:
    with open(path, "rb") as file:  # noqa: PTH123 (hot, as below)
        return hashlib.sha256(file.read()).hexdigest()
