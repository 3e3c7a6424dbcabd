"""An update without the secrets in it. What a secret looks like is said by its caller. Pure."""

from __future__ import annotations

import re
from copy import copy
from functools import cache
from typing import Literal, get_args, get_origin, get_type_hints

from orchestrator.events import Plain, Update
from orchestrator.redaction import REDACTED, is_dict, is_list


def redacted(update: Update, secret: re.Pattern[str]) -> Update:
    """The same update with what `secret` finds taken out of every free text in it.

    Words of a closed vocabulary stay: a secret that equals one of them is none in that place.
    """
    clean = copy(update)
    vars(clean).update(_free_of(update, secret))
    return clean


def _free_of(value: Plain, secret: re.Pattern[str]) -> dict[str, object]:
    # A class can be hashed; mypy asks whether its values can.
    closed = _closed(type(value))  # type: ignore[arg-type]
    return {
        name: one if name in closed else _redacted(one, secret) for name, one in vars(value).items()
    }


def _redacted(value: object, secret: re.Pattern[str]) -> object:
    if isinstance(value, str):
        return secret.sub(REDACTED, value)
    if is_list(value):
        return [_redacted(one, secret) for one in value]
    if is_dict(value):
        return {_redacted(key, secret): _redacted(one, secret) for key, one in value.items()}
    if isinstance(value, Plain):
        clean = copy(value)
        vars(clean).update(_free_of(value, secret))
        return clean
    return value


@cache
def _closed(kind: type[Plain]) -> frozenset[str]:
    """The fields of a class whose type is a closed set of words."""
    hints = get_type_hints(kind)
    return frozenset(
        name
        for name, hint in hints.items()
        if get_origin(hint) is Literal or any(get_origin(one) is Literal for one in get_args(hint))
    )
