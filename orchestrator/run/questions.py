"""Questions of running agents that a person answers: one after the other, each in its time.

Where nobody is there, where nobody answers, and where who should answer fails, it is a denial.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field, replace
from typing import Literal, TypeAlias

import anyio

from orchestrator.adapter import Question
from orchestrator.events import Permission
from orchestrator.telemetry import warn

Answer: TypeAlias = Literal["allow", "always", "deny"]

NOBODY = "permissions = ask, and nobody is there to be asked"


@dataclass(frozen=True, kw_only=True)
class Asked:
    """What an agent may not do before a person has allowed it: `question.call` says what it is. In
    `limit_s` seconds it is denied.
    """

    task_id: str
    run_id: str
    agent: str
    question: Question
    limit_s: float


Ask: TypeAlias = Callable[[Asked], Awaitable[Answer]]
"""Puts a question to a person. It is cancelled when there is no time left for an answer, and when
the agent does not wait for one any more.
"""


@dataclass(frozen=True, kw_only=True)
class Person:
    """Who is asked; None: nobody. The next question waits until the one before is answered."""

    ask: Ask | None = None
    _turn: anyio.Lock = field(default_factory=anyio.Lock)

    async def decide(self, asked: Asked) -> Permission:
        """The answer, as it goes on record and to the agent."""
        if self.ask is None:
            return _denied(asked, NOBODY)
        async with self._turn:
            with anyio.move_on_after(asked.limit_s):
                return await _answered(self.ask, asked)
        return _denied(asked, f"nobody answered within {asked.limit_s:g} s (limits.ask)")


async def _answered(ask: Ask, asked: Asked) -> Permission:
    try:
        answer = await ask(asked)
    except Exception as error:  # noqa: BLE001
        # It is the embedder's code: its mistake must not cost the run, nor allow anything.
        warn("who is asked for permission failed", error=repr(error), run_id=asked.run_id)
        return _denied(asked, f"who was asked failed: {type(error).__name__}")
    match answer:
        case "allow" | "always":
            always = answer == "always" and asked.question.always
            return replace(asked.question.permission, status="granted", always=always or None)
        case _:
            return _denied(asked, "denied when asked")


def _denied(asked: Asked, why: str) -> Permission:
    return replace(asked.question.permission, status="denied", reason=why)
