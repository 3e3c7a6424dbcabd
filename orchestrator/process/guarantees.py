"""What supervision guarantees on this machine, and what it does not, as values to show."""

from __future__ import annotations

import os
import resource
import sys
from dataclasses import dataclass
from pathlib import Path

FILES_EACH = 4
"""Descriptors that the supervisor holds for each running agent: its files and the journal."""
FILES_OWN = 64


@dataclass(frozen=True, kw_only=True)
class Guarantee:
    """One thing that holds here or does not. `remedy`: what can be done about it, if anything."""

    name: str
    holds: bool
    text: str
    remedy: str | None = None


def guarantees() -> tuple[Guarantee, ...]:
    """What holds on this machine, for this user. Starts nothing; takes well under a millisecond."""
    if sys.platform != "linux":
        return (
            Guarantee(
                name="agents",
                holds=False,
                text=f"no agent is started: {sys.platform} has no subreaper, so that what an agent "
                "leaves behind could not be found",
                remedy="run orchestrate on Linux: a virtual machine, WSL 2 or a container",
            ),
        )
    return (_proc(), _pidfd(), _many(), _other_users(), _unknown_orphans(), _daemons())


def _proc() -> Guarantee:
    there = Path(f"/proc/self/task/{os.getpid()}/children").exists()
    return Guarantee(
        name="trees",
        holds=there,
        text="every descendant of an agent is found, also after setsid and a double fork"
        if there
        else "agents cannot be supervised: /proc is not mounted or does not list children",
        remedy=None if there else "mount /proc (a kernel with CONFIG_PROC_CHILDREN)",
    )


def _pidfd() -> Guarantee:
    try:
        os.close(os.pidfd_open(os.getpid()))
    except OSError as error:
        return Guarantee(
            name="pidfd",
            holds=False,
            text=f"agents cannot be supervised: no handles for processes ({error.strerror})",
            remedy="Linux 5.4 or newer, and a container's seccomp profile that allows pidfd_open",
        )
    return Guarantee(
        name="pidfd",
        holds=True,
        text="no other process is signalled, also when pids are reused",
    )


def _many() -> Guarantee:
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    count = max(0, soft - FILES_OWN) // FILES_EACH
    return Guarantee(
        name="many",
        holds=count >= 1,
        text=f"about {count} agents can run at once with {soft} open files",
        remedy=None if count >= 100 else "raise the limit of open files: ulimit -n 4096",
    )


def _other_users() -> Guarantee:
    root = os.geteuid() == 0
    return Guarantee(
        name="other users",
        holds=root,
        text="what an agent starts as another user is ended, too"
        if root
        else "what an agent starts as another user (sudo) cannot be ended",
        remedy=None if root else "give the user of the agents no sudo without a password",
    )


def _unknown_orphans() -> Guarantee:
    return Guarantee(
        name="unknown orphans",
        holds=False,
        text="with several agents at once, a daemon without environment, session and parent is "
        "ended only when no agent is left that it may belong to",
        remedy="run one agent at a time (concurrency: 1) where that matters",
    )


def _daemons() -> Guarantee:
    return Guarantee(
        name="daemons",
        holds=False,
        text="what an agent asks a running daemon to do (docker, systemd, at) is not ended with it",
        remedy="keep the daemon's socket out of the agent's reach",
    )
