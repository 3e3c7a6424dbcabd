"""What every test shares: one event loop, time-outs by marker, property tests that do not hurry."""

import signal
from collections.abc import Iterable

import hypothesis
import pytest

REAL_AGENT_S = 120

if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:
    # Started in the background of a script: all that the tests start would ignore Ctrl-C, too.
    signal.signal(signal.SIGINT, signal.default_int_handler)

hypothesis.settings.register_profile(
    "project",
    deadline=None,  # a shared machine is slow at times; pytest's time-out ends what hangs
    print_blob=True,
)
hypothesis.settings.load_profile("project")


@pytest.fixture(scope="session")
def anyio_backend() -> str:
    return "asyncio"


def pytest_collection_modifyitems(items: Iterable[pytest.Item]) -> None:
    for item in items:
        if item.get_closest_marker("real") and not item.get_closest_marker("timeout"):
            item.add_marker(pytest.mark.timeout(REAL_AGENT_S))
