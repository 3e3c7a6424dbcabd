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

import functools
import gc
import signal

import hypothesis
import pytest
import typer.testing

from tests.examples import CAMPAIGNING, examples

REAL_AGENT_S = 120

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


def pytest_collection() -> None:
    """What is collected makes no garbage, and is never looked through for any."""
    gc.disable()


def pytest_collection_finish() -> None:
    gc.freeze()
    gc.enable()


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--thorough", action="store_true", help="with the tests marked `thorough`")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    for item in items:
        if item.get_closest_marker("real") and not item.get_closest_marker("timeout"):
            item.add_marker(pytest.mark.timeout(REAL_AGENT_S))
    if not config.getoption("--thorough"):
        later = [item for item in items if item.get_closest_marker("thorough")]
        config.hook.pytest_deselected(items=later)
        items[:] = [item for item in items if item not in later]
