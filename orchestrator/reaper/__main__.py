"""Run by its path: `python -I -S -E __main__.py CONTROL SUPERVISOR`, a socket and a pidfd."""

import os
import socket
import sys

# Behind the standard library, so that nothing that is installed beside us stands before it.
sys.path.append(os.path.abspath(__file__ + "/../../.."))

from orchestrator.reaper.guard import guard

if __name__ == "__main__":
    guard(socket.socket(fileno=int(sys.argv[1])), int(sys.argv[2]))
