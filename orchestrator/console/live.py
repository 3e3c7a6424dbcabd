r"""Draws lines over themselves at the end of a terminal, with others scrolling away above them.

Between two frames the cursor rests at the beginning of the first line, not behind the last one: a
terminal that is made narrower wraps what stands there, nobody can know into how many lines, but the
cursor stays with its character. So `\r` and "erase all below" always find the whole frame (rich's
Live counts lines upward and leaves torn ones behind). While a frame is written, lines do not wrap:
a terminal that finds a character wider than we do cuts the line instead of moving all the others.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

HIDE, SHOW = "\x1b[?25l", "\x1b[?25h"
_NO_WRAP, _WRAP = "\x1b[?7l", "\x1b[?7h"
_ERASE_BELOW, _ERASE_RIGHT = "\x1b[J", "\x1b[K"


class Live:
    """The end of one terminal. `write` takes text; lines must be safe and narrower than it is."""

    def __init__(self, write: Callable[[str], object]) -> None:
        self._write = write
        self._drawn: tuple[str, ...] = ()
        self._size: tuple[int, int] | None = None
        self._hidden = False

    def draw(self, lines: Sequence[str], above: Sequence[str], size: tuple[int, int]) -> bool:
        """Draw the frame anew, after `above`, which stays. Whether anything had to be written."""
        if not above and tuple(lines) == self._drawn and size == self._size:
            return False
        afresh = bool(above) or size != self._size
        self._write(
            "".join(
                (
                    "" if self._hidden else HIDE,
                    f"\r{_ERASE_BELOW}" if afresh else "\r",
                    *(f"{line}\r\n" for line in above),
                    _framed(lines),
                )
            )
        )
        self._drawn, self._size, self._hidden = tuple(lines), size, True
        return True

    def close(self, above: Sequence[str] = ()) -> None:
        """Leave nothing but what stays; the cursor is seen again."""
        stays = "".join(f"{line}\r\n" for line in above)
        if self._hidden or stays:
            self._write(f"\r{_ERASE_BELOW}{stays}{_WRAP}{SHOW}")
        self._drawn, self._size, self._hidden = (), None, False


def _framed(lines: Sequence[str]) -> str:
    """The lines over what stands there, and back to the first of them."""
    body = "\r\n".join(f"{line}{_ERASE_RIGHT}" for line in lines)
    up = f"\x1b[{len(lines) - 1}A" if len(lines) > 1 else ""
    return f"{_NO_WRAP}{body}{_ERASE_BELOW}{_WRAP}\r{up}"
