"""What `scripts/bench prompts` calls right and wrong."""

import pytest

from orchestrator.adapter import About
from scripts.benches.prompts import Form, told
from tests.scripted_adapter import Scripted

ADAPTER = Scripted(about=About(name="x", title="X", program=None))


@pytest.mark.parametrize(
    ("size", "stated", "right"),
    [
        (4000, 1000, True),
        (4400, 1000, True),
        (4500, 1000, False),  # a window that seems to hold it does not
        (2000, 1000, True),
        (1900, 1000, False),  # and one that would is refused
        (9000, None, True),
        (None, 1000, False),
    ],
)
def test_a_prompt_that_is_not_as_its_adapter_says_is_told(
    size: int | None, stated: int | None, right: bool
) -> None:
    line, kept = told(Form(name="x", adapter=ADAPTER, options={}, stated=stated), size)
    assert kept is right
    assert line.endswith("MISSED") is not right
