"""What every test shares: one event loop, time-outs by marker, property tests that do not hurry.

So that all of them stay quick (judge by CPU time, not by the clock):
- A test that runs the same lines hundreds of times has the marker `no_cover`: coverage would more
  than double its time. What it reaches, another test reaches.
- Property tests try the same few examples in each run; `scripts/bench properties` tries 25 times
  as many, others each time. Where as many as usual take long, `max_examples=examples(30)`.
- Recordings are damaged through `tests.damage`, as often as its `sample` says; the whole campaign
  is `scripts/bench mutations`.
- A repository is copied from one made once for the module, rather than made by ten processes.
- What takes seconds to start (a gateway, a server) is a fixture of the module.
- `orchestrate` is started through `tests.commands`: forked, it need not import anything.
- A real agent is started once for each thing that it alone shows. What is the same with a further
  agent, provider or signal has the marker `thorough`: `scripts/test --thorough` runs that, too,
  before a release and whenever another version of an agent is locked.
"""

import fcntl
import functools
import gc
import os
import signal
import sys
from collections.abc import Awaitable, Callable, Generator, Iterator, Sequence
from contextlib import suppress
from inspect import iscoroutinefunction
from pathlib import Path
from typing import Any

import anyio
import hypothesis
import pytest
import typer.testing

from tests.examples import CAMPAIGNING, examples
from tests.hostile import living, new_mark

REAL_AGENT_S = 120

NEED_NOTHING = (
    *(f"tests/adapters/test_{name}.py" for name in ("acp", "acp_agents", "acp_described")),
    *(f"tests/adapters/test_{name}.py" for name in ("aider", "claude", "codex", "jsonl")),
    *(f"tests/adapters/test_{name}.py" for name in ("litellm", "qwen_lines", "servers")),
    *(f"tests/config/test_{name}.py" for name in ("ladder", "load", "origins")),
    *(f"tests/test_{name}.py" for name in ("adapter", "answer", "budget", "events", "journal")),
    *(f"tests/test_{name}.py" for name in ("lines", "outcome", "outcomes_page", "recordings")),
    *(f"tests/test_{name}.py" for name in ("redaction", "route", "task")),
    *(f"tests/test_{name}.py" for name in ("server", "template", "usage")),
    "tests/supervisor/test_following.py",
)
"""Tests without an installed agent or database: they run while scripts/test installs these."""

RUN_PROCESSES = (
    *(f"tests/{name}/" for name in ("embedding", "mcp", "real", "worker", "workspace")),
    *(f"tests/supervisor/test_{name}.py" for name in ("attempts", "budgets", "fifty", "job")),
    *(f"tests/supervisor/test_{name}.py" for name in ("questions", "trees")),
    *(f"tests/test_{name}" for name in ("add_an_agent", "cli", "disk_full", "faults", "gateway")),
    *(f"tests/test_{name}" for name in ("groups", "install", "keeping", "loading", "open_stdin")),
    *(f"tests/test_{name}" for name in ("package", "process", "reaper", "recovery", "secrets")),
    *(f"tests/test_{name}" for name in ("silence", "slots", "spool", "supervisor", "survivors")),
    "tests/test_ticks",
)
"""Tests that no coverage measures, which would double their time: what they reach of the pure
modules, the tests of these reach.
"""

if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:
    # Started in the background of a script: all that the tests start would ignore Ctrl-C, too.
    signal.signal(signal.SIGINT, signal.default_int_handler)

hypothesis.settings.register_profile(
    "project",
    max_examples=examples(100),
    deadline=None,  # a shared machine is slow at times; pytest's time-out ends what hangs
    derandomize=not CAMPAIGNING,
    print_blob=True,
)
hypothesis.settings.load_profile("project")


# An application is made into its commands at each call, which takes a fifth of a second.
typer.testing._get_command = functools.cache(typer.main.get_command)  # type: ignore[attr-defined]


@pytest.fixture(scope="session")
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture
def mark() -> Iterator[str]:
    """What the processes of a test bear in their command lines: those that are left are killed."""
    mark = new_mark()
    yield mark
    for pid in living(mark):
        os.kill(pid, signal.SIGKILL)


def coverage_of(session: pytest.Session) -> Any:
    """pytest-cov's controller, if coverage is measured."""
    return getattr(session.config.pluginmanager.getplugin("_cov"), "cov_controller", None)


@pytest.hookimpl(tryfirst=True)
def pytest_sessionstart(session: pytest.Session) -> None:
    """pytest-cov measures each worker twice, and what `no_cover` pauses is the second one alone."""
    covering = coverage_of(session)
    if covering and "PYTEST_XDIST_WORKER" in os.environ:
        covering.cov.stop()


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_collection(session: pytest.Session) -> Generator[None]:
    """What is collected makes no garbage, and is never looked through for any. What is imported for
    it is the same in each worker: the first one measures it, which takes it twice as long.
    """
    covering = coverage_of(session)
    elsewhere = os.environ.get("PYTEST_XDIST_WORKER", "gw0") != "gw0"
    if covering and elsewhere:
        covering.pause()
    gc.disable()
    yield
    gc.freeze()
    gc.enable()
    if covering and elsewhere:
        covering.resume()


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--thorough", action="store_true", help="with the tests marked `thorough`")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    later: list[pytest.Item] = []
    for item in items:
        if item.get_closest_marker("real") and not item.get_closest_marker("timeout"):
            item.add_marker(pytest.mark.timeout(REAL_AGENT_S))
        if item.nodeid.startswith(RUN_PROCESSES):
            item.add_marker(pytest.mark.no_cover)
        if item.get_closest_marker("thorough") and not config.getoption("--thorough"):
            later.append(item)
    config.hook.pytest_deselected(items=later)
    gone = frozenset(later)
    items[:] = _dealt([item for item in items if item not in gone])


def _dealt(items: Sequence[pytest.Item]) -> list[pytest.Item]:
    """Each worker gets an equal share, in order: so that all begin with what needs no agent."""
    workers = int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1"))
    if workers == 1:
        return list(items)
    first = [item for item in items if _needs_nothing(item)]
    then = [item for item in items if not _needs_nothing(item)]
    cuts = [len(then) * worker // workers for worker in range(workers + 1)]
    shares = (
        [*first[worker::workers], *then[cuts[worker] : cuts[worker + 1]]]
        for worker in range(workers)
    )
    return [item for share in shares for item in share]


def _needs_nothing(item: pytest.Item) -> bool:
    return item.nodeid.startswith(NEED_NOTHING) and item.get_closest_marker("real") is None


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_protocol(item: pytest.Item) -> Generator[None, bool | None, bool | None]:
    """What waits for the agents waits here: no test's time has begun."""
    if not _needs_nothing(item):
        _agents_are_there()
    return (yield)


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Telling why a test failed takes seconds: a time-out in the midst of it would end pytest."""
    if call.excinfo is not None:
        item.config.hook.pytest_timeout_cancel_timer(item=item)
    return (yield)


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_pyfunc_call(pyfuncitem: pytest.Function) -> Generator[None, object, object]:
    """An asynchronous test ends by itself before its time-out does: that only breaks into the loop,
    where the test would go on, and its fixtures would wait for it for ever.
    """
    limit_s = _limit_s(pyfuncitem)
    if limit_s and iscoroutinefunction(pyfuncitem.obj):
        pyfuncitem.obj = _ending(pyfuncitem.obj, 0.9 * limit_s)
    return (yield)


def _limit_s(item: pytest.Item) -> float:
    marker = item.get_closest_marker("timeout")
    stated = marker.args[0] if marker and marker.args else item.config.getvalue("timeout")
    return float(stated or 0.0)


def _ending(test: Callable[..., Awaitable[None]], limit_s: float) -> Callable[..., Awaitable[None]]:
    @functools.wraps(test)
    async def limited(**given: object) -> None:
        with anyio.fail_after(limit_s):
            await test(**given)

    return limited


@functools.cache
def _agents_are_there() -> None:
    """scripts/test holds the lock while it installs what the tests need."""
    with suppress(FileNotFoundError), Path(sys.prefix, ".setup/agents.lock").open() as lock:
        fcntl.flock(lock, fcntl.LOCK_SH)
