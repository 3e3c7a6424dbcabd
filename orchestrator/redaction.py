"""Which values no record may hold, how they may be spelt in one, and texts without them. Pure.

A value is looked for in whole texts, after JSON was parsed: as it is, in JSON, in JSON inside JSON,
in a URL, and in base64 at any place of a longer text.
"""

from __future__ import annotations

import base64
import os
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import TypeGuard
from urllib.parse import quote_from_bytes

import orjson

REDACTED = "[redacted]"
SHORTEST, SHORTEST_UNNAMED = 8, 16
# A shorter value is no key, and blanking it would tear holes into ordinary text. What nobody named
# as a secret must look like one.

_TELLING = re.compile(
    r"(?i)((key|token|secret|passw(or)?d|credentials?|authorization|cookie)s?|(^|_)pat)$"
)
_KEY = re.compile(r"[!-~]+")
_ESCAPE = re.compile(rb"%[0-9A-F]{2}")
_PLACE = re.compile(r"[/~.]|[A-Za-z]:\\|[a-z+]+://")


def known(names: Iterable[str], environ: Mapping[str, str]) -> tuple[str, ...]:
    """The values that no record may hold: of the variables named, and of those whose own names say
    that they are keys, whoever gets them.
    """
    named = {environ[name] for name in names if name in environ}
    others = {value for name, value in environ.items() if _TELLING.search(name) and _is_key(value)}
    return tuple(sorted({value for value in named if len(value) >= SHORTEST} | others))


def _is_key(value: str) -> bool:
    long_enough = len(value) >= SHORTEST_UNNAMED
    return long_enough and bool(_KEY.fullmatch(value)) and not _PLACE.match(value)


def spellings(secret: str) -> tuple[bytes, ...]:
    """How a secret may stand in a record."""
    plain = os.fsencode(secret)
    return tuple(dict.fromkeys((plain, *_in_json(secret), *_in_url(plain), *_in_base64(plain))))


def _in_json(secret: str) -> Iterator[bytes]:
    try:
        once = orjson.dumps(secret)[1:-1]
    except TypeError:  # not UTF-8, so no JSON holds it
        return
    yield once
    twice = orjson.dumps(once.decode())[1:-1]
    yield twice
    yield orjson.dumps(twice.decode())[1:-1]  # the text of a record may hold it in JSON inside JSON


def _in_url(plain: bytes) -> Iterator[bytes]:
    """As Python, JavaScript (`encodeURIComponent`) and forms escape it, digits in either case."""
    for safe in ("", "/", "!'()*"):
        escaped = quote_from_bytes(plain, safe=safe).encode()
        for form in (escaped, escaped.replace(b"%20", b"+")):
            yield form
            yield _ESCAPE.sub(lambda found: found[0].lower(), form)


def _in_base64(plain: bytes) -> Iterator[bytes]:
    """The characters that no neighbour of it has a part in, for each place in a longer text."""
    for before, shared in ((0, 0), (1, 2), (2, 3)):
        shifted = b"\0" * before + plain
        whole = slice(shared, len(shifted) * 8 // 6)
        yield base64.b64encode(shifted)[whole]
        yield base64.urlsafe_b64encode(shifted)[whole]


def finder(values: Sequence[str]) -> Callable[[bytes], bool]:
    """What tells whether one of them stands in a record, in any spelling."""
    forms = sorted({form for value in values for form in spellings(value)})
    if not forms:
        return lambda _: False
    # Not at the top: a command that records nothing needs none of it.
    from ahocorasick_rs import BytesAhoCorasick, MatchKind

    # By this kind of match it passes over what cannot be one, as fast as memory is read.
    seek = BytesAhoCorasick(forms, matchkind=MatchKind.LeftmostFirst)
    return lambda block: bool(seek.find_matches_as_indexes(block))


def pattern(values: Sequence[str]) -> re.Pattern[str] | None:
    """What finds each of them in a text, longer ones first; None where there is none."""
    found = {form.decode("utf-8", "replace") for value in values for form in spellings(value)}
    forms = sorted(found, key=lambda form: (-len(form), form))
    return re.compile("|".join(map(re.escape, forms))) if forms else None


def raw_pattern(values: Sequence[str]) -> re.Pattern[bytes]:
    r"""The same for raw output, in which any character may be escaped, as `\u0073` or `\/`.

    Slow, so ask `may_escape` before.
    """
    escaped: set[bytes] = {
        b"".join(rb"(?:%b|\\+u00%02x)" % (_either(byte), byte) for byte in os.fsencode(value))
        for value in values
        if value and value.isascii()
    }
    longer_first = sorted(escaped, key=len, reverse=True)
    return re.compile(b"|".join(longer_first) or rb"(?!)", re.IGNORECASE)


def _either(byte: int) -> bytes:
    one = re.escape(bytes((byte,)))
    return rb"\\*" + one if byte == ord("/") else one


may_escape = re.compile(rb"\\u00[2-7]|\\/").search
"""Whether characters are escaped that need not be."""


def without(value: object, secret: re.Pattern[str]) -> object:
    """A JSON value without the secrets in it, also in the names of its fields."""
    if isinstance(value, str):
        return secret.sub(REDACTED, value)
    if is_list(value):
        return [without(one, secret) for one in value]
    if is_dict(value):
        return {without(key, secret): without(one, secret) for key, one in value.items()}
    return value


def is_list(value: object) -> TypeGuard[list[object]]:
    return isinstance(value, list)


def is_dict(value: object) -> TypeGuard[dict[object, object]]:
    return isinstance(value, dict)


class Pieces:
    """Texts that come in pieces. A piece that ends with the beginning of a secret is cut there; the
    rest comes with the next piece of the same text, in which the secret is then whole.

    What is held back at the end of a text is in the whole text, which follows.
    """

    def __init__(self, values: Sequence[str]) -> None:
        self._values = [value for value in values if value]
        pairs = {value[at : at + 2] for value in self._values for at in range(len(value) - 1)}
        self._ends = pairs.union(value[0] for value in self._values)
        self._held: dict[str, str] = {}

    def cuts(self, piece: str) -> bool:
        """Whether `cut` may change the piece: most stay as they are."""
        # Where a secret is cut off, the text ends with its first letter, or with two of its others.
        ends = self._ends
        return bool(self._held) or piece[-2:] in ends or piece[-1:] in ends

    def cut(self, id_: str, piece: str) -> str:
        """The piece with what was held back before it, without what is held back now."""
        if not piece or not self.cuts(piece):
            return piece
        text = self._held.pop(id_, "") + piece
        at = min(_beginning(value, text) for value in self._values)
        if at < len(text):
            self._held[id_] = text[at:]
        return text[:at]

    def end(self, id_: str) -> None:
        """The text is over."""
        self._held.pop(id_, None)


def _beginning(secret: str, text: str) -> int:
    """Where a secret begins that the end of the text cuts off; the text's length if none does."""
    at = text.find(secret[0], max(0, len(text) - len(secret) + 1))
    while at >= 0 and not secret.startswith(text[at:]):
        at = text.find(secret[0], at + 1)
    return len(text) if at < 0 else at
