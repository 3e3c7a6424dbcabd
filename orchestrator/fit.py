"""Whether a model can carry an agent: its window, its size, its tools. Pure.

Sizes are in tokens; what is not known is no reason against anything. An agent comes back as it is
to run: in its leanest form where the window or the model is small, and told how large the window
is, so that it shortens its conversation in time.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType

from orchestrator.adapter import About, Agent
from orchestrator.errors import shown
from orchestrator.events import Error
from orchestrator.server import Model, ModelServer
from orchestrator.task import Task

ANSWER = 2_048
"""The room that one answer of the model needs."""

SMALL_WINDOW = 24_576
"""Below this an agent is run in its leanest form."""

SMALL_MODEL = 8.0
"""Models of so many billion parameters, or fewer, get along badly with long instructions."""

HEAVY = 4_000
"""An agent whose own prompt is larger than this is too much for a small model."""

_BYTES_PER_TOKEN = 3.5
# Measured: 3.6 to 4.3 for code and English prose in the tokenizers of today.
_BILLIONS = re.compile(r"(?i)(?<![a-z0-9.])(\d+(?:\.\d+)?)\s*([bm])(?![a-z0-9])")


@dataclass(frozen=True, kw_only=True)
class Fit:
    """An agent as it is to run on its model, and what there is to say about that."""

    agent: Agent
    notes: tuple[str, ...] = ()


def estimate(task: Task, sizes: Iterable[int] = ()) -> int:
    """The tokens that a task is likely to need: its prompt, and its files of these `sizes`."""
    return round((len(task.prompt.encode()) + sum(sizes)) / _BYTES_PER_TOKEN)


def fit(
    agent: Agent,
    about: About,
    model: Model,
    kind: ModelServer,
    *,
    wanted: int,
    others: Mapping[str, About] = MappingProxyType({}),
    force: bool = False,
) -> Fit | Error:
    """The agent as it fits the model, or why it does not.

    `wanted` is what the task is likely to need. `others` are the adapters that could be used
    with the same server; `force` leaves warnings out.
    """
    if model.tools is False and about.tools:
        return _no_tools(about, model, kind, others)
    lean = _is_small(model) and _can_be_lean(agent, about)
    prompt = about.lean_prompt_tokens if lean else about.prompt_tokens
    if model.context is not None and model.context < (prompt or 0) + wanted + ANSWER:
        return _too_small(about, model, kind, (prompt, wanted), others)
    notes: list[str] = []
    if lean:
        agent = replace(agent, options={**about.lean, **agent.options})
        notes.append(f"compact: {about.title} in its leanest form, as {_why_small(model)}")
    if warning := None if force else _warning(about, model, prompt, others):
        notes.append(warning)
    return Fit(agent=_told(agent, about, model), notes=tuple(notes))


def billions(model: Model) -> float | None:
    """The parameters of a model in billions: as the server tells, else as its name says."""
    for text in (model.parameters or "", model.name):
        found = [float(size) / (1 if unit in "bB" else 1000) for size, unit in _sizes(text)]
        if found:
            return max(found)  # `30b-a3b`: the second is what is active
    return None


def _sizes(text: str) -> list[tuple[str, str]]:
    return [(found[1], found[2]) for found in _BILLIONS.finditer(text)]


def _is_small(model: Model) -> bool:
    size = billions(model)
    narrow = model.context is not None and model.context < SMALL_WINDOW
    return narrow or (size is not None and size <= SMALL_MODEL)


def _why_small(model: Model) -> str:
    if model.context is not None and model.context < SMALL_WINDOW:
        return f"the window of {shown(model.name)} has {model.context} tokens"
    return f"{shown(model.name)} has {billions(model):g} billion parameters"


def _can_be_lean(agent: Agent, about: About) -> bool:
    """What the user has set for the agent, or has in the CLI's own home, stands."""
    own = agent.profile == "user"
    return bool(about.lean) and not own and not any(name in agent.options for name in about.lean)


def _told(agent: Agent, about: About, model: Model) -> Agent:
    """The agent with the size of the window, where its CLI can be told and nobody has."""
    name = about.window_option
    if name is None or model.context is None or name in agent.options:
        return agent
    return replace(agent, options={**agent.options, name: model.context})


# --- what does not fit ---------------------------------------------------------------------------


def _too_small(
    about: About,
    model: Model,
    kind: ModelServer,
    needed: tuple[int | None, int],
    others: Mapping[str, About],
) -> Error:
    prompt, wanted = needed
    text = (
        f"The window of {shown(model.name)} has {model.context} tokens: too few for {about.title}"
        f" (its own prompt {prompt or 0}, the task about {wanted}, an answer {ANSWER})."
    )
    hints: list[str] = []
    possible = model.context_possible
    if possible is None or possible > (model.context or 0):
        if kind.more_context:
            more = 2 ** max(15, ((prompt or 0) + wanted + ANSWER).bit_length())
            command = kind.more_context.format(model=model.name, context=more)
            hints.append(f"Give it more: `{command}`.")
            hints += [kind.context_hint] if kind.context_hint else []
        else:
            hints.append("Start its server with a larger context.")
    room = (model.context or 0) - wanted - ANSWER
    if fits := _lightest(others, room):
        hints.append(f"Or use {fits}, which fits.")
    hints.append("Or give the task less to read (`files:`).")
    return Error(kind="context_overflow", text=text, retryable=False, hint=" ".join(hints))


def _no_tools(about: About, model: Model, kind: ModelServer, others: Mapping[str, About]) -> Error:
    text = f"{shown(model.name)} calls no tools, and {about.title} does nothing without them."
    without = next((name for name, one in others.items() if not one.tools), None)
    other = f", or use {without}, which needs none" if without else ""
    hint = f"Take a model that does, such as qwen2.5-coder:14b{other}."
    hint = f"{hint} {kind.tools_hint}" if kind.tools_hint else hint
    return Error(kind="tools_unsupported", text=text, retryable=False, hint=hint)


def _warning(
    about: About, model: Model, prompt: int | None, others: Mapping[str, About]
) -> str | None:
    size = billions(model)
    if size is None or size > SMALL_MODEL or prompt is None or prompt < HEAVY:
        return None
    text = (
        f"{about.title} is heavy for {shown(model.name)} ({size:g} billion parameters):"
        f" {prompt} tokens of instructions"
    )
    light = _lightest(others, HEAVY - 1)
    return f"{text}; {light} would fit" if light else text


def _lightest(others: Mapping[str, About], room: int) -> str | None:
    """The adapter with the smallest prompt, if that has room."""
    sizes = {name: _least(about) for name, about in others.items() if _least(about) is not None}
    fits = {name: size for name, size in sizes.items() if size is not None and size <= room}
    return min(fits, key=lambda name: fits[name], default=None)


def _least(about: About) -> int | None:
    return about.lean_prompt_tokens if about.lean else about.prompt_tokens
