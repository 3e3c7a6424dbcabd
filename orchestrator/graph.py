"""Which task comes when: order, cycles, and what may start or must be skipped now. Pure.

A graph is `needs`: each task's id with the ids of the tasks that it needs, in the order of the
file. What is said of an order or a step holds for graphs without cycles and unknown names.
"""

from __future__ import annotations

import heapq
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import TypeAlias

Needs: TypeAlias = Mapping[str, Sequence[str]]


@dataclass(frozen=True, kw_only=True)
class Claim:
    """A folder that a task works in; `alone`: it writes there, so nobody else may be there."""

    folder: str
    alone: bool


@dataclass(frozen=True, kw_only=True)
class Step:
    """What follows from the state of a graph: tasks to start, in the order of the file, and tasks
    to skip, each with the first of its needs that did not succeed.
    """

    start: tuple[str, ...] = ()
    skip: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))


def order(needs: Needs) -> tuple[str, ...]:
    """Every task after all that it needs, else by the file. Tasks in or behind a cycle are left
    out.
    """
    place = {id_: at for at, id_ in enumerate(needs)}
    missing = {id_: len(set(wanted)) for id_, wanted in needs.items()}
    dependents: dict[str, list[str]] = {id_: [] for id_ in needs}
    for id_, wanted in needs.items():
        for need in set(wanted):
            dependents[need].append(id_)
    ready = [at for id_, at in place.items() if not missing[id_]]
    names, found = tuple(needs), list[str]()
    while ready:
        id_ = names[heapq.heappop(ready)]
        found.append(id_)
        for dependent in dependents[id_]:
            missing[dependent] -= 1
            if not missing[dependent]:
                heapq.heappush(ready, place[dependent])
    return tuple(found)


def cycle(needs: Needs) -> tuple[str, ...]:
    """The first cycle, as (a, b, a) where a needs b; empty if there is none."""
    placed = set(order(needs))
    stuck = [id_ for id_ in needs if id_ not in placed]
    if not stuck:
        return ()
    path = [stuck[0]]  # whoever is stuck needs somebody who is stuck
    while True:
        following = next(need for need in needs[path[-1]] if need not in placed)
        if following in path:
            return (*path[path.index(following) :], following)
        path.append(following)


def before(needs: Needs) -> dict[str, frozenset[str]]:
    """All that each task needs, directly or not."""
    found: dict[str, frozenset[str]] = {}
    for id_ in order(needs):
        direct = needs[id_]
        found[id_] = frozenset(direct).union(*(found[need] for need in direct))
    return found


def step(
    needs: Needs,
    *,
    ended: Mapping[str, bool],
    running: Collection[str],
    room: int,
    claims: Mapping[str, Claim] = MappingProxyType({}),
) -> Step:
    """What is to be started and skipped now. `ended`: whether each task that is over succeeded.

    At most `room` tasks run side by side, and none beside one that claims its folder alone.
    """
    over, skip = dict(ended), dict[str, str]()
    start: list[str] = []
    held = [claims[id_] for id_ in running if id_ in claims]
    for id_ in order(needs):
        if id_ in over or id_ in running:
            continue
        lost = next((need for need in needs[id_] if over.get(need) is False), None)
        if lost is not None:
            skip[id_], over[id_] = lost, False
        elif all(over.get(need) for need in needs[id_]):
            claim = claims.get(id_)
            if len(running) + len(start) < room and not _taken(claim, held):
                start.append(id_)
                held += [claim] if claim is not None else []
    return Step(start=tuple(start), skip=MappingProxyType(skip))


def _taken(claim: Claim | None, held: Sequence[Claim]) -> bool:
    return claim is not None and any(
        other.folder == claim.folder and (other.alone or claim.alone) for other in held
    )
