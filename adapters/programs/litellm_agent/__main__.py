"""Runs mini-swe-agent, with LiteLLM behind it, and tells what it does as JSON lines.

Run by its path, by the interpreter of the environment that has mini-swe-agent; it imports that,
litellm and the standard library only. stdin: the settings (`Settings`), one JSON object. stdout:
the lines, `result` always the last one. stderr: whatever a library prints. Exit status: 0 finished,
1 failed, 2 settings that cannot be used, 3 something is missing, 4 a limit, 128+N signal N.
"""

import sys
from pathlib import Path

# The interpreter is the agent's: of ours it gets the modules of this folder and nothing else.
sys.path.insert(0, str(Path(__file__).resolve().parents[3]))

from adapters.programs.litellm_agent.program import main

del sys.path[0]

if __name__ == "__main__":
    main()
