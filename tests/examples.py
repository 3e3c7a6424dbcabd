"""How many examples a property test tries: few in the tests, ten times as many in a campaign."""

import os

CAMPAIGN = "ORCHESTRATE_TEST_CAMPAIGN"
"""The variable that asks for a campaign; `scripts/bench properties` sets it."""
CAMPAIGNING = bool(os.environ.get(CAMPAIGN))


def examples(few: int) -> int:
    return few * 10 if CAMPAIGNING else few
