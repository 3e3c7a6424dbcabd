"""Runs aider and tells what it does as JSON lines, which aider itself cannot.

    PYTHON -I .../__main__.py -- AIDER FLAGS           aider with its own flags and configuration
    PYTHON -I .../__main__.py --settings < SETTINGS    as the adapter starts it (`Settings`, JSON)

PYTHON is the interpreter that aider is installed for. stdout: the lines, `result` always the last
one. stderr: whatever a library prints. Exit status: 0 the work is done, 1 it failed, 2 flags or
settings that cannot be used, 3 something is missing, 4 a limit, 128+N signal N.
"""

import sys
from pathlib import Path

# The interpreter is aider's: of ours it gets the modules of this folder and nothing else.
sys.path.insert(0, str(Path(__file__).resolve().parents[3]))

from adapters.programs.aider_front.program import main

del sys.path[0]

if __name__ == "__main__":
    main(sys.argv[1:])
