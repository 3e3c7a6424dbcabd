"""scripts/bench properties [PYTEST ARGUMENT...]: the property tests, with 25 times the examples.

Others each time, where the tests try the same few: a failure prints what repeats it. Exits with
pytest's status. For a part: scripts/bench properties tests/workspace/test_states.py
"""

import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from tests.examples import CAMPAIGN

ROOT = Path(__file__).parent.parent.parent
LIMIT_S = 1800


def main(argv: Sequence[str]) -> int:
    if "--help" in argv:
        print(__doc__)
        return 0
    dev = subprocess.run([ROOT / "scripts/setup", "dev"], check=False)
    if dev.returncode:
        return dev.returncode
    pytest = [sys.executable, "-m", "pytest", "-m", "hypothesis", f"--timeout={LIMIT_S}", *argv]
    return subprocess.run(
        pytest, cwd=ROOT, env={**os.environ, CAMPAIGN: "1"}, check=False
    ).returncode


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
