"""What a person sees of events and outcomes: text, the moving part of a terminal, summaries,
stories. Pure but for `live`, which is given what to write with: only `cli` prints.

Nothing that an agent or a model said reaches the terminal unescaped.
"""

from orchestrator.console.summary import summary
from orchestrator.console.text import one_line, safe, table
from orchestrator.console.told import told

__all__ = ["one_line", "safe", "summary", "table", "told"]
