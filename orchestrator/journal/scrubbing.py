"""Takes secrets out of what the agent wrote itself."""

from __future__ import annotations

import errno
import os
import re
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from orchestrator import private
from orchestrator.redaction import may_escape, raw_pattern, spellings

_BLOCK = 1024 * 1024


def scrub(path: Path, secrets: Sequence[str]) -> None:
    """Overwrite every secret in a raw file with as many `*`, so that offsets still hold."""
    forms = sorted({form for secret in secrets for form in spellings(secret) if form})
    if not forms:
        return
    find = _finder(forms, secrets)
    overlap = max(*map(len, forms), *(8 * len(secret) for secret in secrets)) - 1
    try:
        descriptor = _open_spool(path)
    except OSError:  # it is not there, or the agent put something else in its place
        return
    with os.fdopen(descriptor, "r+b") as file:
        # No further than now: what the task lets outlive the agent may write for ever.
        position, end = 0, os.fstat(file.fileno()).st_size
        while position < end and (chunk := file.read(overlap + _BLOCK)):
            for found in find(chunk):
                if found.start() >= _BLOCK:
                    continue  # the next block has it whole: it may be the beginning of a longer one
                file.seek(position + found.start())
                file.write(b"*" * len(found[0]))
            position += _BLOCK
            file.seek(position)
        os.fchmod(file.fileno(), 0o400)


def _finder(
    forms: Sequence[bytes], secrets: Sequence[str]
) -> Callable[[bytes], Iterator[re.Match[bytes]]]:
    """Finds secrets in a block. Plain searches first: they take a tenth of a pattern's time."""
    plain = re.compile(b"|".join(map(re.escape, sorted(forms, key=len, reverse=True))))
    escaped = raw_pattern(secrets)

    def find(block: bytes) -> Iterator[re.Match[bytes]]:
        if any(form in block for form in forms):
            yield from plain.finditer(block)
        if may_escape(block):
            yield from escaped.finditer(block)

    return find


def _open_spool(path: Path) -> int:
    """A plain file of ours, to write to; never what a link leads to. Raises OSError."""
    reading = private.opened(path)
    try:
        os.fchmod(reading, 0o600)
        flags = os.O_RDWR | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOFOLLOW
        writing = os.open(path, flags)
        if not os.path.samestat(os.fstat(writing), os.fstat(reading)):
            os.close(writing)
            raise OSError(errno.EBUSY, "it was replaced", str(path))
        return writing
    finally:
        os.close(reading)
