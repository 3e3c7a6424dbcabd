"""Records of runs and jobs as values, quickly: thousands of them, without checking each against its
schema. What cannot be read is told, never left out.

Of a journal no more than `HEAD` bytes are read: how long the first word took, and how long tools
were at work. Nothing is run: a repository is told by its files.
"""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import lru_cache
from pathlib import Path
from typing import TypeGuard, get_args
from uuid import UUID

import orjson

from orchestrator.errors import JournalError
from orchestrator.events import CostSource, Tier, Usage
from orchestrator.journal import EVENTS, OUTCOME, TASK, running
from orchestrator.stats.sums import Ran

HEAD = 1024 * 1024


# --- runs ----------------------------------------------------------------------------------------


def read_runs(runs: Path, since: datetime | None = None) -> Iterator[Ran]:
    """Every run in the folder that began since then, oldest first. Raises JournalError."""
    scratch = runs.parent / "scratch"
    for name in _names(runs, since):
        yield read_run(runs / name, scratch)


def read_run(folder: Path, scratch: Path) -> Ran:
    """One run. `scratch` is where copies are made to work in: each belongs to its template."""
    blank = Ran(run_id=folder.name, state="unreadable")
    try:
        record = _json(folder / TASK)
    except FileNotFoundError:
        going = running(folder)
        return replace(blank, state="running" if going else "cut off", problem="no task.json")
    except (OSError, ValueError) as error:
        return replace(blank, problem=f"{TASK}: {_why(error)}")
    asked = _asked(blank, record, scratch)
    try:
        outcome = _json(folder / OUTCOME)
    except FileNotFoundError:
        # Looked at again: it may have ended since.
        if running(folder):
            return replace(asked, state="running")
        if (folder / OUTCOME).exists():
            return read_run(folder, scratch)
        return replace(asked, state="cut off")
    except (OSError, ValueError) as error:
        return replace(asked, problem=f"{OUTCOME}: {_why(error)}")
    if _text(outcome.get("status")) is None:
        return replace(asked, problem=f"{OUTCOME}: no status")
    return _timed(_ended(asked, outcome), folder)


def _asked(run: Ran, record: Mapping[str, object], scratch: Path) -> Ran:
    """The run with what was asked, of whom, and where."""
    task, agent = _table(record.get("task")), _table(record.get("agent"))
    tree = _table(record.get("tree"))
    place = _text(tree.get("repository")) or _text(task.get("workspace"))
    tier = _tier(agent.get("tier"))
    job = _text(record.get("job_id")) or run.run_id
    return replace(
        run,
        work=(job, _text(task.get("id")) or "-"),
        agent=_text(agent.get("name")),
        model=_text(agent.get("model")),
        server=_text(agent.get("base_url")) or _text(agent.get("server")),
        kind=_text(task.get("kind")),
        day=(_text(record.get("started")) or "")[:10] or None,
        repository=None if place is None else repository_of(place, str(scratch)),
        tier=tier,
        usage=Usage(cost_usd=0.0, cost_source="local", scope="run") if tier == "local" else None,
    )


def _ended(run: Ran, outcome: Mapping[str, object]) -> Ran:
    status, verified = _text(outcome.get("status")), outcome.get("verified")
    return replace(
        run,
        state="ended",
        status=status,
        ok=status == "succeeded" and verified is not False,
        verified=verified if isinstance(verified, bool) else None,
        model=_text(outcome.get("model")) or run.model,
        usage=_usage(outcome.get("usage")) or run.usage,
        duration_s=_number(outcome.get("duration_s")),
    )


def _usage(value: object) -> Usage | None:
    if not _is_table(value):
        return None
    source = next((one for one in get_args(CostSource) if one == value.get("cost_source")), None)
    return Usage(
        input_tokens=_count(value.get("input_tokens")),
        output_tokens=_count(value.get("output_tokens")),
        cache_read_tokens=_count(value.get("cache_read_tokens")),
        cache_write_tokens=_count(value.get("cache_write_tokens")),
        reasoning_tokens=_count(value.get("reasoning_tokens")),
        cost_usd=_number(value.get("cost_usd")),
        cost_source=source,
        scope="run",
    )


# --- times ---------------------------------------------------------------------------------------

_WORDS = (b"message.delta", b"message", b"thought.delta", b"thought", b"tool_call")
_USER = b'"role":"user"'
_OPEN = re.compile(rb'"id":"([^"]*)","status":"(pending|in_progress)"')
_CLOSED = re.compile(rb'"id":"([^"]*)","status":"(completed|failed)"')


def _timed(run: Ran, folder: Path) -> Ran:
    """The run with its times, as far as the head of its journal tells them."""
    try:
        with (folder / EVENTS).open("rb") as file:
            size = os.fstat(file.fileno()).st_size
            head = file.read(min(size, HEAD))
    except OSError as error:
        return replace(run, problem=f"{EVENTS}: {_why(error)}")
    spawned = _first(_events(head, b"process.spawned"))
    exited = _first(_events(head, b"process.exited"))
    first = min(filter(None, (_first(_events(head, kind)) for kind in _WORDS)), default=None)
    if spawned is None or first is None:
        return run
    opened: dict[bytes, float] = {}
    calls = _events(head, b"tool_call")
    tools = sum(_worked(said, _seconds(time), opened) for time, said in calls)
    model_s = exited - spawned - tools if size <= HEAD and exited is not None else 0.0
    return replace(
        run,
        first_token_s=round(first - spawned, 3),
        model_s=round(model_s, 3) if model_s > 0 else None,
    )


def _events(head: bytes, kind: bytes) -> Iterator[tuple[bytes, bytes]]:
    """Time and payload of the events of a kind. Searched for: to parse all would take far longer.

    The first `type` of a line is its event's, whatever stands in a payload.
    """
    mark = b'","type":"%s"' % kind
    at = head.find(mark)
    while at >= 0 and (stop := head.find(b"\n", at)) >= 0:
        line = head[head.rfind(b"\n", 0, at) + 1 : stop]
        payload = line.find(b'","type":"')
        time = line.find(b',"time":"') + 9
        if line.startswith(mark, payload) and 9 <= time < payload:
            yield line[time : line.find(b'"', time)], line[payload:]
        at = head.find(mark, stop)


def _first(events: Iterator[tuple[bytes, bytes]]) -> float | None:
    """When the first of these was that is not the user's word."""
    return next((_seconds(time) for time, said in events if _USER not in said), None)


def _worked(call: bytes, now: float, opened: dict[bytes, float]) -> float:
    """Seconds in which tools were at work, told when the last one of several ends."""
    if (begun := _OPEN.search(call)) is not None:
        opened.setdefault(begun[1], min([now, *opened.values()]))
    elif (done := _CLOSED.search(call)) is not None and (since := opened.pop(done[1], None)):
        return 0.0 if opened else now - since
    return 0.0


def _seconds(time: bytes) -> float:
    return datetime.fromisoformat(time.decode()).timestamp()


# --- jobs ----------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class Jobs:
    """What the records of jobs add: how they ended, and the tasks that never came to a run."""

    statuses: Mapping[str, int]
    without_run: Mapping[str, int]
    problems: tuple[tuple[str, str], ...] = ()


def read_jobs(jobs: Path, since: datetime | None = None) -> Jobs:
    """The jobs that began since then. Raises JournalError."""
    statuses: Counter[str] = Counter()
    without: Counter[str] = Counter()
    problems: list[tuple[str, str]] = []
    for name in _names(jobs, since):
        folder = jobs / name
        try:
            outcome = _json(folder / OUTCOME)
        except FileNotFoundError:
            statuses["running" if running(folder) else "cut off"] += 1
            continue
        except (OSError, ValueError) as error:
            statuses["unreadable"] += 1
            problems.append((name, f"{OUTCOME}: {_why(error)}"))
            continue
        statuses[_text(outcome.get("status")) or "unreadable"] += 1
        for task in _table(outcome.get("tasks")).values():
            if _text(_table(task).get("run_id")) is None:
                without[_text(_table(task).get("status")) or "unreadable"] += 1
    return Jobs(
        statuses=dict(sorted(statuses.items())),
        without_run=dict(sorted(without.items())),
        problems=tuple(problems),
    )


# --- which repository ----------------------------------------------------------------------------


@lru_cache(maxsize=4096)
def repository_of(workspace: str, scratch: str) -> str:
    """The repository that a folder belongs to, by its path: the same for all its work trees.

    By path and not by remote: a repository need not have one, and a remote's URL may hold a key. A
    copy in the scratch folder is `scratch:NAME`; a folder in no repository is itself.
    """
    path = Path(workspace)
    if path.parent == Path(scratch):
        return f"scratch:{re.sub(r'-[0-9a-f]{8}$', '', path.name)}"
    for folder in (path, *path.parents):
        git = folder / ".git"
        if (git / "HEAD").is_file():
            return str(folder)
        if git.is_file():
            return _owner(git) or str(folder)
    return workspace


def _owner(git: Path) -> str | None:
    """The repository of a linked work tree, by its `.git` file; None for a submodule's."""
    try:
        named = git.read_text("utf-8").strip()
        place = (git.parent / named.removeprefix("gitdir: ")).resolve()
        common = (place / (place / "commondir").read_text("utf-8").strip()).resolve()
    except (OSError, ValueError):
        return None
    return str(common.parent if common.name == ".git" else common)


# --- files and JSON ------------------------------------------------------------------------------


def _names(parent: Path, since: datetime | None) -> list[str]:
    """The folders of runs or jobs, oldest first; what is no run's at all is somebody else's."""
    try:
        with os.scandir(parent) as entries:
            names = sorted(entry.name for entry in entries if entry.is_dir(follow_symlinks=False))
    except FileNotFoundError:
        return []
    except OSError as error:
        raise JournalError(f"cannot read {parent}: {error.strerror}") from error
    began = {name: _began(name) for name in names}
    return [
        name for name in names if (at := began[name]) is not None and (since is None or at >= since)
    ]


def _began(name: str) -> datetime | None:
    """When a run began: its id says so (UUIDv7)."""
    try:
        return datetime.fromtimestamp((UUID(name).int >> 80) / 1000, UTC)
    except (ValueError, OverflowError, OSError):
        return None


def _json(path: Path) -> Mapping[str, object]:
    value = orjson.loads(path.read_bytes())
    if not _is_table(value):
        raise ValueError("not an object")
    return value


def _why(error: Exception) -> str:
    return (error.strerror if isinstance(error, OSError) else None) or str(error)


def _is_table(value: object) -> TypeGuard[dict[str, object]]:
    return isinstance(value, dict)


def _table(value: object) -> Mapping[str, object]:
    return value if _is_table(value) else {}


def _text(value: object) -> str | None:
    return value if isinstance(value, str) and value else None


def _count(value: object) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) else None


def _number(value: object) -> float | None:
    return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else None


def _tier(value: object) -> Tier | None:
    return next((tier for tier in get_args(Tier) if tier == value), None)
