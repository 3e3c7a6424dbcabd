"""The keys of a configuration file, out of its own models: quoted by docs/configuration.md."""

from orchestrator.config.file import AgentModel, BoundsModel, DefaultsModel, ServerModel
from orchestrator.config.variables import SETTINGS
from orchestrator.task import KINDS
from scripts.jsonl_reference import table


def defaults() -> str:
    return table(DefaultsModel)


def limits() -> str:
    return table(BoundsModel)


def servers() -> str:
    return table(ServerModel)


def agents() -> str:
    return table(AgentModel)


def kinds() -> str:
    return f"Kinds: {', '.join(f'`{kind}`' for kind in KINDS)}."


def variables() -> str:
    """Each variable with the key that it sets."""
    rows = [f"| `{name}` | `{'.'.join(key)}` |" for name, key in SETTINGS.items()]
    return "\n".join(["| variable | key |", "|---|---|", *rows])
