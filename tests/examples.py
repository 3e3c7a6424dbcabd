"""How many examples a property test tries: few in the tests, 25 times as many in a campaign."""

import os

CAMPAIGN = "ORCHESTRATE_TEST_CAMPAIGN"
"""The variable that asks for a campaign; `scripts/bench properties` sets it."""
CAMPAIGNING = bool(os.environ.get(CAMPAIGN))


def examples(usual: int) -> int:
    """Of the usual number (hypothesis' own is 100) a part, or ten times as many."""
    return usual * 10 if CAMPAIGNING else usual * 2 // 5
