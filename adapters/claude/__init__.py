"""Anthropic's Claude Code, headless: `claude -p` with JSON lines both ways. Seen with 2.1.328.

The prompt goes in as a message on an open stdin, which is closed at the first `result`: until then
an interrupt can be asked for there, which keeps the `result` and its usage, as a SIGINT may not.
What each line means is seen in tests/recordings/claude.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from types import MappingProxyType

from adapters.claude.command import bills, command_of, logs_in
from adapters.claude.conversation import ClaudeConversation
from adapters.claude.options import OPTIONS as OPTIONS
from adapters.claude.options import options_of
from orchestrator.adapter import About, Agent, Command, Install, McpSetup, Program
from orchestrator.events import Usage
from orchestrator.task import McpServer, Task

ABOUT = About(
    name="claude",
    title="Claude Code",
    # npm's postinstall links the platform's binary; where it did not run, `claude` is a stub.
    program=Program(
        name="claude",
        natives=(
            "../../claude-code-*/claude",
            "../node_modules/@anthropic-ai/claude-code-*/claude",
        ),
    ),
    tested=("2.1.328",),
    install=Install(
        kind="npm",
        lock=str(Path(__file__).parent.parent / "locks" / "claude" / "package-lock.json"),
        megabytes=360,
        minutes=1,
    ),
    dialects=("messages",),
    prompt_tokens=1_100,
    lean_prompt_tokens=1_100,
    lean=MappingProxyType({"bare": True}),
    window_option="context_window",
    # `edit` allows commands; without `sandbox`, nothing holds a command to the workspace.
    enforces=("read", "full"),
    resumes=True,
    mcp=True,
    counts="call",
    key_env="ANTHROPIC_API_KEY",
    keys=("ANTHROPIC_API_KEY", "ANTHROPIC_AUTH_TOKEN", "CLAUDE_CODE_OAUTH_TOKEN"),
    logins=("$CLAUDE_CONFIG_DIR/.credentials.json", "~/.claude/.credentials.json"),
    log_in="`claude`, in it `/login`",
)

WHOLE = 22_000
"""Its prompt with all its tools: 87 KB."""


@dataclass(frozen=True)
class Claude:
    """The adapter."""

    about: About = ABOUT

    def about_for(self, agent: Agent) -> About:
        """With its sandbox, `edit` holds for commands, too; with all its tools, it is heavy."""
        options = options_of(agent)
        enforces = ("read", "edit", "full") if options.sandbox else self.about.enforces
        whole = agent.profile == "user" or (not options.bare and options.tools is None)
        prompt = WHOLE if whole else self.about.prompt_tokens
        return replace(self.about, enforces=enforces, prompt_tokens=prompt)

    def command(self, task: Task, agent: Agent) -> Command:
        """`claude -p`, its stdin open. Raises ConfigError for what cannot work."""
        return command_of(task, agent)

    def mcp_setup(self, program: str, server: McpServer) -> McpSetup:
        """`claude mcp`: for all of the user's projects."""
        mcp, scope = (program, "mcp"), ("--scope", "user")
        return McpSetup(
            add=(*mcp, "add", *scope, server.key, "--", *server.command),
            remove=(*mcp, "remove", *scope, server.key),
            show=(*mcp, "get", server.key),
        )

    def conversation(self, task: Task, agent: Agent, before: Usage | None) -> ClaudeConversation:
        """A fresh conversation."""
        return ClaudeConversation(
            task=task,
            billed=bills(agent),
            login=logs_in(agent),
            counted=Usage() if task.session_id is None else before,
            sandboxed=options_of(agent).sandbox,
        )


adapter = Claude()
