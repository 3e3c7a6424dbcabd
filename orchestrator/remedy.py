"""What to do next when a run did not succeed: one line for each kind of failure. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from orchestrator.adapter import Agent
from orchestrator.events import ErrorKind, Failure
from orchestrator.server import ModelServer

_LOOK = "See what it did with `orchestrate runs show last`."
_GO_ON = "Go on with `orchestrate runs resume last -p ...`, if the agent began a session."

_USUAL: Mapping[ErrorKind, str] = MappingProxyType(
    {
        "context_overflow": "Give the task less to read (`files:`), or a model with a larger"
        " context.",
        "disk_full": "Free space there, or set ORCHESTRATE_STATE_DIR to another folder.",
        "denied": "Allow more with `access: edit` or `access: full`, if the task needs it.",
        "bad_usage": "The agent's program refused its arguments: is its version a tested one?",
        "check_failed": f"{_LOOK} Then go on with `orchestrate runs resume last -p ...`.",
        "invalid_answer": f"{_LOOK} Is the schema under `expect:` what the model can give?",
        "skipped": "See why the task failed that it needs.",
        "no_change": f"{_LOOK} Say more exactly what to change.",
        "spawn": "Is the program installed and allowed to run?",
        "refused": "The model would not do it: say it otherwise, or use another model.",
        "interrupted": _GO_ON,
        "cancelled": _GO_ON,
    }
)
"""What needs nothing to be known of the agent."""


def remedy(failure: Failure, agent: Agent, server: ModelServer | None) -> str:
    """What to do next, in one line: the agent's own hint, or the usual one for this kind of
    failure.

    `server` is the kind of model server that the agent uses, None for a provider's own.
    """
    if failure.hint is not None:
        return failure.hint
    match failure.kind:
        case "unavailable" | "server_error" | "out_of_memory" | "load_failed":
            return _at_the_server(failure.kind, agent, server)
        case "tools_unsupported" | "model_not_found":
            return _another_model(failure.kind, agent, server)
        case "auth_failed":
            name = agent.api_key_env
            key = f"Is the key in {name} valid" if name else "Is there a key or login"
            place = agent.base_url or _place(server)
            return f"{key} for {place}? Name its variable with --api-key-env."
        case "rate_limited":
            until = f"until {failure.resets_at}" if failure.resets_at else "for the limit to reset"
            return f"Wait {until}, or use another agent or model."
        case "budget_exceeded" | "max_turns" | "timed_out" | "stalled" | "output_limit":
            limit = f"`limits.{failure.limit}`" if failure.limit else "the limit under `limits:`"
            return f"Raise {limit}, or split the task."
        case kind:
            return _USUAL.get(kind, _LOOK)


def _place(server: ModelServer | None) -> str:
    return server.title if server else "the model's provider"


def _at_the_server(kind: ErrorKind, agent: Agent, server: ModelServer | None) -> str:
    place = _place(server)
    match kind:
        case "unavailable" if server is None and agent.base_url is None:
            return "Is the network up? If it is, the model's provider is not: try again later."
        case "unavailable":
            start = f" (`{server.start}`)" if server and server.start else ""
            return f"Is {place} running{start} and reachable at {agent.base_url or 'its address'}?"
        case "out_of_memory":
            return f"Take a smaller model, or a smaller window: {place} has no memory for this one."
        case "load_failed":
            return f"See the log of {place}: is the model's file whole, and its version new enough?"
        case _:
            return f"The fault lies with {place}: see its log, or try again later."


def _another_model(kind: ErrorKind, agent: Agent, server: ModelServer | None) -> str:
    if kind == "tools_unsupported":
        get = f" {server.tools_hint}" if server and server.tools_hint else ""
        return f"Take a model that calls tools, such as qwen2.5-coder:14b.{get}"
    models = f" (`{server.list_models}`)" if server and server.list_models else ""
    if agent.model is None:
        return f"Name a model that is there{models} with --model."
    return f"Is the model {agent.model} there{models}? Name another with --model."
