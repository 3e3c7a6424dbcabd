"""What holds for each task of a file, with the level that set it: the file's own word beside those
of the configuration. Pure.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from orchestrator.config.file import DefaultsModel
from orchestrator.config.origins import displayed
from orchestrator.config.positions import is_list, is_table, value_at
from orchestrator.config.value import Origin, Setting, Stated
from orchestrator.task import LimitsModel, Privacy

_PINS = ("kind", "agent", "model", "base_url", "api_key_env", "check", "retries", "handoff")
_PREFERENCES = (*_PINS, *(name for name in DefaultsModel.model_fields if name not in _PINS))
_ORDER: Sequence[Privacy] = ("local", "any")
Where = tuple[str | int, ...]


@dataclass(frozen=True, kw_only=True)
class Written:
    """A task file that was checked, as it was written; `line` is that of a key in it."""

    file: str
    raw: Mapping[str, object]
    line: Callable[[Where], int]


def task_settings(written: Written, known: Sequence[Setting]) -> tuple[Setting, ...]:
    """Every value of every task; `known` are those of the configuration."""
    base = {setting.key: setting for setting in known}
    items = written.raw.get("tasks")
    tasks = list(enumerate(items)) if is_list(items) else [(None, {"id": "task"})]
    return tuple(
        setting
        for at, item in tasks
        if is_table(item)
        for setting in _of_one(str(item["id"]), at, written, base)
    )


def _of_one(
    id_: str, at: int | None, written: Written, base: Mapping[str, Setting]
) -> Iterator[Setting]:
    for name in _PREFERENCES:
        # The default agent only goes first; the one of a task is the only one.
        usual = () if name == "agent" else _all(base.get(f"defaults.{name}"))
        stated = [*_said((name,), at, written), *usual]
        if stated:
            yield Setting(key=f"{id_}.{name}", holds=stated[0], others=tuple(stated[1:]))
    for name in (*LimitsModel.model_fields, "privacy"):
        key = ("privacy",) if name == "privacy" else ("limits", name)
        stated = [*_said(key, at, written), *_all(base.get(f"limits.{name}"))]
        if stated:
            best = min(stated, key=lambda one: _strictness(name, one))
            others = tuple(one for one in stated if one is not best)
            yield Setting(key=f"{id_}.{'.'.join(key)}", holds=best, others=others)


def _said(key: Sequence[str], at: int | None, written: Written) -> Iterator[Stated]:
    """What the task says of itself, then what is said at the top of its file."""
    places: list[Where] = [()] if at is None else [("tasks", at), ()]
    for place in places:
        raw = written.raw if not place else _item(written.raw, at)
        value = value_at(key, raw)
        if value is not None:
            where = f"{written.file}:{written.line((*place, *key))}"
            yield Stated(value=displayed(key, value), origin=Origin(level="task", where=where))


def _item(raw: Mapping[str, object], at: int | None) -> object:
    items = raw.get("tasks")
    return items[at] if is_list(items) and at is not None else {}


def _all(setting: Setting | None) -> tuple[Stated, ...]:
    return () if setting is None else (setting.holds, *setting.others)


def _strictness(name: str, one: Stated) -> tuple[float, bool]:
    """Less is stricter; a built-in default is no word of anybody's and gives way to all others."""
    default = one.origin.level == "default"
    if name == "privacy":
        return (_ORDER.index("local" if one.value == "local" else "any"), default)
    read = LimitsModel.model_validate({name: one.value})
    value: object = getattr(read, name)
    number = float(value) if isinstance(value, int | float) else float("inf")
    return (float("inf") if default else number, default)
