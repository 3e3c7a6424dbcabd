"""Run by its path: `python -I -S -E __main__.py CONTROL LIFE SUPERVISOR PS`: a socket, a pipe, the
supervisor's pid and the program that lists processes.
"""

import os
import sys

# Behind the standard library, so that nothing that is installed beside us stands before it.
sys.path.append(os.path.abspath(__file__ + "/../../.."))

from orchestrator.groups.guard import guard

if __name__ == "__main__":
    control, life, supervisor = map(int, sys.argv[1:4])
    guard(control, life, supervisor, sys.argv[4])
