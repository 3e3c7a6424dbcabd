"""What may come from an agent, and how to tell that none of it steers a terminal."""

import re
import unicodedata

from hypothesis import strategies as st

from orchestrator.events import Event, Update

HOSTILE = (
    "\x1b[2J", "\x1b]0;title\x07", "\x9b31m", "\r", "\x08", "\x7f", "\0", "\u202e", "\u2066",
    "\u200b", "\ufeff", "\u2028", "\x85", "\U000e0041", "\udc80", "\xad",
)  # fmt: skip
TEXT = st.text(max_size=20) | st.lists(st.sampled_from(["a", "\n", *HOSTILE]), max_size=6).map(
    "".join
)
VISIBLE_FORMATS = re.compile(
    "[\u0600-\u0605\u06dd\u070f\u0890\u0891\u08e2\U000110bd\U000110cd\U00013430-\U0001343f]"
)


def steers(text: str) -> list[str]:
    """The characters that must not reach a terminal: controls, formats, surrogates, line ends."""
    return [
        hex(ord(character))
        for character in VISIBLE_FORMATS.sub("", text)
        if character not in "\n\t"
        and unicodedata.category(character) in {"Cc", "Cf", "Cs", "Zl", "Zp"}
    ]


def event(update: Update, agent: str | None = "codex") -> Event:
    return Event(
        seq=1, time="t", run_id="run-1", task_id="t", agent=agent, source="agent", update=update
    )


def at(second: float, update: Update, task: str = "fix", run: str | None = "run-1") -> Event:
    """An event so many seconds after ten o'clock."""
    minutes, seconds = divmod(second, 60)
    return Event(
        seq=1,
        time=f"2026-01-01T10:{int(minutes):02}:{seconds:09.6f}Z",
        run_id=run,
        task_id=task,
        agent="codex",
        source="agent",
        update=update,
    )
