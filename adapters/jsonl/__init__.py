"""Any CLI that prints JSON lines, described in the configuration alone; docs/jsonl.md says how."""

from __future__ import annotations

from dataclasses import replace
from typing import Literal

from adapters.jsonl.command import command_of
from adapters.jsonl.conversation import Mapped
from adapters.jsonl.options import Options, options_of
from adapters.jsonl.rules import UsageRule
from orchestrator.adapter import About, Agent, Command, Conversation, Program
from orchestrator.events import Usage
from orchestrator.task import Task


class _Jsonl:
    """The adapter. What it is depends on the agent: `about_for` says it, and checks the options."""

    about = About(
        name="jsonl",
        title="any CLI that prints JSON lines",
        program=None,
        version_argv=(),
        enforces=(),
        resumes=True,
    )

    def about_for(self, agent: Agent) -> About:
        """What this agent's CLI is. Raises ConfigError if the options do not fit."""
        options = options_of(agent)
        program = options.argv[0]
        return replace(
            self.about,
            title=options.title or str(program),
            program=Program(name=str(program)),
            version_argv=tuple(options.version_argv),
            install=options.install,
            dialects=tuple(options.dialects),
            key_env=options.key_env,
            counts=_counts(options),
            enforces=options.enforces(),
            resumes="{session_id}" in repr(options.argv),
        )

    def command(self, task: Task, agent: Agent) -> Command:
        """What to start. Raises ConfigError if the options do not fit, or not this task."""
        return command_of(task, agent, options_of(agent))

    def conversation(self, task: Task, agent: Agent, before: Usage | None) -> Conversation:
        """A fresh conversation. Raises ConfigError if the options do not fit."""
        options = options_of(agent)
        held = task.allowed == "full" or task.allowed in options.enforces()
        note = None if held else f"access: {task.allowed}, not enforced by {options.argv[0]}"
        return Mapped(options, before, note)


def _counts(options: Options) -> Literal["call", "turn"] | None:
    """The largest unit that its tokens are told for; those of a run come when it is over."""
    rules = (rule for rule in options.events if isinstance(rule, UsageRule))
    scopes = {rule.scope for rule in rules if rule.counts_tokens}
    if not scopes or "run" in scopes:
        return None
    return "turn" if "turn" in scopes else "call"


adapter = _Jsonl()
