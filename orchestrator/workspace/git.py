"""Running git so that nothing that an agent planted is ever executed.

Every git process has its own HOME, no configuration but ours, and hooks, fsmonitor and signing off.
What repository it works on is the caller's: never the user's own `.git`, whose configuration an
agent can write.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

from orchestrator.errors import OrchestrateError
from orchestrator.process import Completed, Reaper, run_to_end

GIT_S = 120.0
OUTPUT = 64 * 1024**2
# What is read of git's output: a list of all files of a large repository fits.


class GitError(OrchestrateError):
    """Git failed; `str()` says how."""


HARDENED = (
    "-c",
    "core.hooksPath=/dev/null",
    "-c",
    "core.fsmonitor=false",
    "-c",
    "commit.gpgSign=false",
    "-c",
    "core.autocrlf=false",
    "-c",
    "core.safecrlf=false",
    "-c",
    "advice.addEmbeddedRepo=false",
    "-c",
    "gc.auto=0",
    "-c",
    "core.compression=0",
)


def environment() -> dict[str, str]:
    return {
        "PATH": os.defpath,
        "LC_ALL": "C",
        "HOME": "/nonexistent",
        "GIT_CONFIG_NOSYSTEM": "1",
        "GIT_CONFIG_GLOBAL": "/dev/null",
        "GIT_TERMINAL_PROMPT": "0",
        "GIT_AUTHOR_NAME": "orchestrate",
        "GIT_AUTHOR_EMAIL": "orchestrate@localhost",
        "GIT_COMMITTER_NAME": "orchestrate",
        "GIT_COMMITTER_EMAIL": "orchestrate@localhost",
    }


async def run_git(
    reaper: Reaper,
    folder: Path,
    env: Mapping[str, str],
    *arguments: str,
    accept: frozenset[int] = frozenset({0}),
    stdin: bytes | None = None,
) -> Completed:
    """Run git in a folder. Raises GitError if its exit status is not one to `accept`, or if it does
    not end; SpawnError.
    """
    done = await run_to_end(
        reaper,
        ("git", *HARDENED, *arguments),
        cwd=folder,
        env=env,
        limit_s=GIT_S,
        output_limit=OUTPUT,
        stdin=stdin,
    )
    if done.exit not in accept:
        said = done.stderr.decode("utf-8", "replace").strip().rsplit("\n", 1)[-1]
        raise GitError(f"git: {said or f'exit {done.exit}'}")
    return done
