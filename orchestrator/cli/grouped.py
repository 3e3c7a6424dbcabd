"""The help of a group of commands: each with its whole first sentence, and in sections where there
are many.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, ClassVar

from typer.core import TyperGroup

if TYPE_CHECKING:
    from typer import Context
    from typer._click.formatting import HelpFormatter

_WHOLE = 400  # more characters than any first sentence has


class Group(TyperGroup):
    """Typer's own cuts each sentence at the window's edge."""

    sections: ClassVar[Mapping[str, Sequence[str]]] = {}

    def format_commands(self, ctx: Context, formatter: HelpFormatter) -> None:  # type: ignore[override]  # its own names are private
        told: dict[str, str] = {}
        for name in self.list_commands(ctx):
            command = self.get_command(ctx, name)
            if command is not None and not command.hidden:
                told[name] = command.get_short_help_str(_WHOLE)
        placed = {name for names in self.sections.values() for name in names}
        rest = [name for name in told if name not in placed]
        others = "Others" if self.sections else "Commands"
        for title, names in {**self.sections, others: rest}.items():
            if rows := [(name, told[name]) for name in names if name in told]:
                with formatter.section(title):
                    formatter.write_dl(rows)
