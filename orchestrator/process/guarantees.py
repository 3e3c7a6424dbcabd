"""What supervision guarantees on this machine, and what it does not, as values to show."""

from __future__ import annotations

import os
import resource
from dataclasses import dataclass

from orchestrator.files import agents_at_once
from orchestrator.process.means import lacking, ps, remedy
from orchestrator.pulse import blind


@dataclass(frozen=True, kw_only=True)
class Guarantee:
    """One thing that holds here or does not. `remedy`: what can be done about it, if anything."""

    name: str
    holds: bool
    text: str
    remedy: str | None = None


def guarantees() -> tuple[Guarantee, ...]:
    """What holds on this machine, for this user. Starts nothing; takes some milliseconds."""
    why = lacking()
    if why is not None:
        return (*_by_group(why), _progress(), _many(), _other_users(), _daemons())
    trees = Guarantee(
        name="trees",
        holds=True,
        text="every descendant of an agent is found, also after setsid and a double fork",
    )
    numbers = Guarantee(
        name="numbers",
        holds=True,
        text="no other process is signalled, also when pids are reused",
    )
    return (trees, numbers, _progress(), _many(), _other_users(), _unknown_orphans(), _daemons())


def _by_group(why: str) -> tuple[Guarantee, ...]:
    """What is not held where there are no subreapers."""
    seen = (
        "a process that made a group of its own and lost its parent within a second is not found"
        if ps()
        else "there is no ps: a process that makes a group of its own is not found"
    )
    return (
        Guarantee(
            name="trees",
            holds=False,
            text=f"agents are ended by process group ({why}): {seen}",
            remedy=remedy(),
        ),
        Guarantee(
            name="numbers",
            holds=False,
            text="a group is known by its number, which another may have the moment it is empty",
            remedy=remedy(),
        ),
        Guarantee(
            name="all at once",
            holds=False,
            text="if supervisor, guard and reaper are killed in the same instant, agents live on",
            remedy="let nothing kill processes by name (pkill python)",
        ),
    )


def _progress() -> Guarantee:
    why = blind()
    return Guarantee(
        name="progress",
        holds=why is None,
        text="a slow model is told from one that hangs by the bytes that its agent receives"
        if why is None
        else f"only an agent's output is a sign of life, not what it receives: {why}",
        remedy=None if why is None else "give slow models more time: limits.first, limits.stall",
    )


def _many() -> Guarantee:
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    count = agents_at_once()
    return Guarantee(
        name="many",
        holds=count >= 1,
        text=f"about {count} agents can run at once with {soft} open files; others wait",
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
