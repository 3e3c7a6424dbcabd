"""scripts/bench mutations: each recording of each adapter, damaged in all ways, hundreds of times.

Each is cut at up to 190 places with three ways to exit, changed in one place up to 600 times, and
has noise put between its lines 40 times (of a megabyte, fewer). 0 of all may raise, lose a byte or
be a false success. The tests try a part of it, by the same dice. Exits with 1 if anything is wrong.
"""

import argparse
import os
import sys
import traceback
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from functools import partial

from tests.damage import campaign, check_cuts, check_mutations, check_noise, dice
from tests.recordings import RECORDINGS

CHECKS = {"cuts": check_cuts, "mutations": check_mutations, "noises": check_noise}


def damaged(seed: str, at: int) -> tuple[str, dict[str, int], str]:
    """A recording's name, how often it was damaged in which way, and what was wrong."""
    recording = RECORDINGS[at]
    times = campaign(recording)
    tried: dict[str, int] = {}
    for name, check in CHECKS.items():
        try:
            tried[name] = check(recording, dice(recording, seed), times)
        except Exception:  # noqa: BLE001
            # One is named; the others are tried all the same.
            return recording.name, tried, f"{name}: {traceback.format_exc()}"
    return recording.name, tried, ""


def main(argv: Sequence[str]) -> int:
    asked = argparse.ArgumentParser(prog="scripts/bench mutations", description=__doc__)
    asked.add_argument("--seed", default="", help="other dice than the tests' (any text)")
    asked.add_argument("--only", default="", help="only recordings whose name holds this text")
    asked.add_argument("--jobs", type=int, default=os.cpu_count(), help="how many side by side")
    given = asked.parse_args(argv)
    chosen = [at for at, one in enumerate(RECORDINGS) if given.only in one.name]
    if not chosen:
        print(f"no recording has {given.only!r} in its name", file=sys.stderr)
        return 2
    print(f"{len(chosen)} recordings, seed of each: {given.seed!r} and its name", flush=True)
    total, wrong = Counter[str](), 0
    with ProcessPoolExecutor(given.jobs) as pool:
        for name, tried, why in pool.map(partial(damaged, given.seed), chosen):
            total.update(tried)
            counts = ", ".join(f"{count} {kind}" for kind, count in tried.items())
            print(f"{name}: {why or counts}", flush=True)
            wrong += bool(why)
    summed = ", ".join(f"{count} {kind}" for kind, count in total.items())
    print(f"in all: {summed}; {wrong} recording(s) in which anything was wrong (bar 0)")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
