"""The reference of the jsonl adapter's form, out of its own models: quoted by docs/jsonl.md."""

from collections.abc import Iterator

from pydantic import BaseModel

from adapters.jsonl.options import PLACEHOLDERS, AccessOptions, Options
from adapters.jsonl.rules import RULES, BaseRule, Test
from adapters.jsonl.values import Lookup

SHARED = frozenset({"emit", *BaseRule.model_fields})


def options() -> str:
    """The keys of the agent itself."""
    return table(Options)


def access() -> str:
    """The keys of one level of access."""
    return table(AccessOptions)


def placeholders() -> str:
    """What may stand in braces."""
    rows = [f"| `{{{name}}}` | {meaning} |" for name, meaning in PLACEHOLDERS.items()]
    return "\n".join(["| placeholder | becomes |", "|---|---|", *rows])


def shared() -> str:
    """The keys that every rule has."""
    return table(BaseRule)


def tests() -> str:
    """The keys of a test in `when`."""
    return table(Test)


def lookup() -> str:
    """The keys of a value that is a table."""
    return table(Lookup)


def rules() -> str:
    """Each kind of rule with its own keys."""
    return "\n\n".join(_rule(name, rule) for name, rule in RULES.items())


def _rule(name: str, rule: type[BaseModel]) -> str:
    parts = [f"### `{name}`", " ".join((rule.__doc__ or "").split())]
    if set(rule.model_fields) - SHARED:
        parts.append(table(rule, SHARED))
    return "\n\n".join(parts)


def table(model: type[BaseModel], without: frozenset[str] = frozenset()) -> str:
    """A model's keys with their descriptions."""
    return "\n".join(["| key | |", "|---|---|", *_rows(model, without)])


def _rows(model: type[BaseModel], without: frozenset[str]) -> Iterator[str]:
    for name, field in model.model_fields.items():
        if name not in without:
            needed = " Required." if field.is_required() else ""
            text = (field.description or "").replace("|", "\\|")
            yield f"| `{name}` | {text}{needed} |"
