"""Where configuration files are, for the tests, and reading them."""

from collections.abc import Mapping
from pathlib import Path

from orchestrator.adapter import Agent
from orchestrator.config import Config, load_config


def write(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


def project(home: Path, text: str) -> Path:
    return write(home / "project" / "orchestrate.toml", text)


def user(home: Path, text: str) -> Path:
    return write(home / "home" / ".config" / "orchestrate" / "orchestrate.toml", text)


def found(home: Path, environ: Mapping[str, str] | None = None) -> Config:
    return load_config(folder=home / "project", environ=environ or {})


def named(home: Path, text: str) -> Config:
    return load_config(write(home / "named.toml", text), environ={})


def agent(config: Config, name: str) -> Agent:
    (one,) = [each for each in config.agents if each.name == name]
    return one
