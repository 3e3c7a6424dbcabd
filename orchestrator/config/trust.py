"""What a configuration file may say that was only found, and not named by its user."""

from __future__ import annotations

from pathlib import Path

from orchestrator.config.file import FileModel
from orchestrator.errors import ConfigError, shown

TRUSTED_AGENT = frozenset({"adapter", "model", "server", "profile"})
TRUSTED_SERVER = frozenset({"kind"})
# What a file that was only found may say. All else could start a program, move a key to another
# address, loosen a sandbox or call a cloud local; an adapter's own options are its own business.


def refuse_untrusted(file: FileModel, path: Path) -> None:
    refused = [
        f"agents.{name}.{key}"
        for name, agent in file.agents.items()
        for key in sorted({*agent.model_fields_set, *(agent.model_extra or {})} - TRUSTED_AGENT)
    ]
    refused += [
        f"servers.{name}.{key}"
        for name, server in file.servers.items()
        for key in sorted(server.model_fields_set - TRUSTED_SERVER)
    ]
    if refused:
        text = f"{path}: not trusted to set {', '.join(refused)}: the file was found, not named"
        raise ConfigError(shown(text), hint=shown(f"If you trust it, name it: `--config {path}`."))
