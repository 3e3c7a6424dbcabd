"""Every value with the level that set it, for a person to see. Pure; secrets are not shown."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from orchestrator.adapter import Agent
from orchestrator.config import ladder
from orchestrator.config.file import BoundsModel, DefaultsModel, QueueModel
from orchestrator.config.ladder import Rung
from orchestrator.config.positions import Key, is_list, is_table, value_at
from orchestrator.config.value import Origin, Setting, Stated
from orchestrator.server import ModelServer

HIDDEN = "(not shown)"
_BUILT_IN: Mapping[Key, object] = {
    ("defaults", "strategy"): "auto",
    ("defaults", "fallback"): "none",
    ("defaults", "deliver"): "branch",
    ("defaults", "delegation"): "off",
    ("limits", "wall"): "30m",
    ("limits", "stall"): "5m",
    ("limits", "tool"): "15m",
    ("limits", "check"): "10m",
    ("limits", "setup"): "10m",
    ("limits", "cost_usd"): 5.0,
    ("limits", "output"): "1GiB",
    ("limits", "depth"): 3,
    ("limits", "children"): 10,
    ("limits", "privacy"): "any",
    ("queue", "concurrency"): 4,
}
_SECRET = re.compile(r"(?i)(key|token|secret|passw(or)?d|credentials?|authorization|cookie)s?$")
_LOOKS_SECRET = re.compile(r"\b(sk-|gh[pousr]_|AIza|xox[a-z]-|Bearer\s)\S{6,}")
_USERINFO = re.compile(r"(?<=//)[^/@\s]*@|(?<=[?&])(ssl)?password=[^&\s]*&?")


def settings(
    rungs: Sequence[Rung],
    agents: Sequence[Agent],
    servers: Mapping[str, ModelServer],
    environ: Mapping[str, str],
    state: Path,
) -> tuple[Setting, ...]:
    """All that is set, in the order of the tables; `rungs` come weakest first."""
    return (
        *_preferences(rungs, [("defaults", name) for name in DefaultsModel.model_fields]),
        *_limits(rungs),
        *_preferences(rungs, [("queue", name) for name in QueueModel.model_fields]),
        *_preferences(rungs, sorted({("kinds", kind) for kind in ladder.kinds(rungs)})),
        *_tables("servers", {name: of for name, (_, of) in ladder.servers(rungs).items()}, rungs),
        *_variables(servers, environ),
        *_agents(agents, rungs),
        _state(state, environ),
    )


def _preferences(rungs: Sequence[Rung], keys: Sequence[Key]) -> Iterator[Setting]:
    for key in keys:
        if stated := _all_stated(key, rungs):
            yield _setting(key, stated[-1], stated[-2::-1])
        elif key in _BUILT_IN:
            yield _setting(key, _built_in(key), ())


def _limits(rungs: Sequence[Rung]) -> Iterator[Setting]:
    """The strictest of those that state a limit, and all the others, too."""
    for name in BoundsModel.model_fields:
        key = ("limits", name)
        stating = [rung for rung in rungs if value_at(key, rung.raw) is not None]
        stated = _all_stated(key, stating)
        if not stated:
            if key in _BUILT_IN:
                yield _setting(key, _built_in(key), ())
            continue
        values = [getattr(rung.model.limits, name) for rung in stating]
        if name == "agents":
            yield _allowed(key, stated, values)
            continue
        order = ("local", "any") if name == "privacy" else sorted(values)
        best = min(range(len(values)), key=lambda at: order.index(values[at]))
        yield _setting(key, stated[best], [*stated[:best], *stated[best + 1 :]][::-1])


def _allowed(key: Key, stated: Sequence[Stated], values: Sequence[Sequence[str]]) -> Setting:
    """What all lists have in common comes from all of them."""
    if len(stated) == 1:
        return _setting(key, stated[0], ())
    common = sorted(set(values[0]).intersection(*values[1:]))
    places = ", ".join(one.origin.where or one.origin.level for one in stated)
    holds = Stated(value=common, origin=Origin(level=stated[-1].origin.level, where=places))
    return _setting(key, holds, stated[::-1])


def _tables(table: str, winners: Mapping[str, Rung], rungs: Sequence[Rung]) -> Iterator[Setting]:
    """Each key of each server or agent; a level's table holds as a whole."""
    for name, winner in winners.items():
        others = [rung for rung in reversed(rungs) if rung is not winner]
        written = value_at((table, name), winner.raw)
        for last in written if is_table(written) else ():
            key = (table, name, last)
            (holds,) = _all_stated(key, [winner])
            yield _setting(key, holds, _all_stated(key, others))


def _variables(servers: Mapping[str, ModelServer], environ: Mapping[str, str]) -> Iterator[Setting]:
    """What the variables of providers say, for servers of their kind."""
    for kind in servers.values():
        names = {
            "base_url": next((name for name in kind.url_env if environ.get(name)), None),
            "model": next((name for name in kind.model_env if environ.get(name)), None),
            "api_key_env": kind.key_env if environ.get(kind.key_env or "") else None,
        }
        for last, name in names.items():
            if name is not None:
                key = ("servers", kind.name, last)
                value = name if last == "api_key_env" else displayed(key, environ[name])
                origin = Origin(level="provider", where=name)
                yield _setting(key, Stated(value=value, origin=origin), ())


def _agents(agents: Sequence[Agent], rungs: Sequence[Rung]) -> Iterator[Setting]:
    """What is written of each agent, and what holds because nobody wrote it."""
    written = ladder.agents(rungs)
    for agent in agents:
        yield from _tables("agents", {agent.name: written[agent.name][1]}, rungs)
        for last in ("base_url", "tier", "profile"):
            value = getattr(agent, last)
            if value is not None and last not in written[agent.name][0].model_fields_set:
                key = ("agents", agent.name, last)
                holds = Stated(value=displayed(key, value), origin=Origin(level="default"))
                yield _setting(key, holds, ())


def _state(state: Path, environ: Mapping[str, str]) -> Setting:
    name = "ORCHESTRATE_STATE_DIR"
    origin = (
        Origin(level="environment", where=name) if environ.get(name) else Origin(level="default")
    )
    return _setting(("state",), Stated(value=str(state), origin=origin), ())


def _all_stated(key: Key, rungs: Sequence[Rung]) -> list[Stated]:
    return [
        Stated(value=displayed(key, value), origin=Origin(level=rung.level, where=rung.where(key)))
        for rung in rungs
        if (value := value_at(key, rung.raw)) is not None
    ]


def _built_in(key: Key) -> Stated:
    return Stated(value=_BUILT_IN[key], origin=Origin(level="default"))


def _setting(key: Key, holds: Stated, others: Sequence[Stated]) -> Setting:
    return Setting(key=".".join(key), holds=holds, others=tuple(others))


# --- what is not shown ---------------------------------------------------------------------------


def displayed(key: Sequence[str], value: object) -> object:
    """The value without what may be secret: an option of an adapter may hold anything."""
    if _SECRET.search(key[-1]) or "env" in key[:-1]:
        return HIDDEN
    if is_table(value):
        return {name: displayed((*key, name), inner) for name, inner in value.items()}
    if is_list(value):
        return [displayed(key, inner) for inner in value]
    match value:
        case str():
            return _LOOKS_SECRET.sub(HIDDEN, _USERINFO.sub("", value))
        case bool() | int() | float() | None:
            return value
        case _:
            return str(value)  # a date
