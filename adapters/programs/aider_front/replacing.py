"""Replaces functions of aider by others that are made of them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from importlib import import_module


class MissingPointError(Exception):
    """This aider has no such function to wrap: exit status 3."""


def find(point: str) -> tuple[object, str]:
    """The owner of `MODULE:NAME.NAME` and the last name. Raises MissingPointError."""
    module, _, path = point.partition(":")
    *owners, name = path.split(".")
    try:
        owner: object = import_module(module)
        for step in owners:
            owner = getattr(owner, step)
        getattr(owner, name)
    except (ImportError, AttributeError) as error:
        raise MissingPointError(f"{point} ({error})") from None
    return owner, name


Maker = Callable[[Callable[..., object]], object]
"""Makes the new function out of the one that is replaced."""


def kept(original: Callable[..., object]) -> object:
    """For what is only relied on."""
    return original


def by(new: object) -> Maker:
    """Replaces a function by another that does not need it."""

    def maker(original: Callable[..., object]) -> object:
        del original
        return new

    return maker


def replace(points: Mapping[str, Maker]) -> None:
    """Replaces each `MODULE:NAME` by what its maker makes of it. All or, if one is missing, none.

    Raises MissingPointError.
    """
    found = [(*find(point), maker) for point, maker in points.items()]
    for owner, name, maker in found:
        setattr(owner, name, maker(getattr(owner, name)))


def pair(value: object) -> tuple[object, object]:
    match value:
        case (first, second):
            return first, second
        case _:
            raise TypeError(f"not two values: {value!r}")


def nothing(*arguments: object, **options: object) -> None:
    """In the place of what must not happen."""
