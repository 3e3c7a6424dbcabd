"""The contract of a kind of model server: what it is and what to tell a person about it. No I/O."""

from __future__ import annotations

from dataclasses import dataclass

from orchestrator.task import Dialect


@dataclass(frozen=True, kw_only=True)
class ModelServer:
    """A kind of place that serves models.

    `port` is its usual one on loopback, None: it has none (a cloud). `url_env` and `model_env` are
    the variables that users of it set. `start` and `list_models` are what a person types to start
    it and to see its models. `dialects` are what it speaks. `local`: it runs on one's own machines.
    `owns_port`: whatever answers at its port is taken for one.
    """

    name: str
    title: str
    port: int | None
    url_env: tuple[str, ...] = ()
    model_env: tuple[str, ...] = ()
    key_env: str | None = None
    base_url: str | None = None
    start: str | None = None
    list_models: str | None = None
    dialects: tuple[Dialect, ...] = ("chat",)
    local: bool = True
    owns_port: bool = False
