"""`python -m orchestrator.testing serve SCRIPT`, `python -m orchestrator.testing agent SCRIPT`."""

from __future__ import annotations

import sys


def main(argv: list[str]) -> int:
    """Runs one of the two doubles. Returns the exit status; 2 is a usage or script error."""
    match argv:
        case ["agent", *rest]:
            from orchestrator.testing import agent

            return agent.main(rest)
        case ["serve", *rest]:
            from orchestrator.testing import serve

            return serve.main(rest)
        case _:
            sys.stderr.write("usage: python -m orchestrator.testing serve|agent SCRIPT ...\n")
            return 2


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
