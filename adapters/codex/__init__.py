"""OpenAI's Codex CLI, headless: `codex exec --json`. Seen with 0.169.0.

Its stdout tells neither usage per call nor what the sandbox stopped; its session log does
(`Command.tails`), and stderr names the calls that codex itself rejected. Where it is seen what each
line means: tests/recordings/codex.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

from adapters.codex.command import command_of
from adapters.codex.conversation import CodexConversation
from adapters.codex.options import OPTIONS as OPTIONS
from orchestrator.adapter import About, Agent, Command, Install, McpSetup, Program
from orchestrator.events import Usage
from orchestrator.task import McpServer, Task

ABOUT = About(
    name="codex",
    title="Codex CLI",
    # A SIGKILL of the wrapper, in Node, leaves the binary behind it running: start the binary.
    program=Program(
        name="codex",
        natives=(
            "../../codex-*/vendor/*/bin/codex",
            "../node_modules/@openai/codex-*/vendor/*/bin/codex",
        ),
    ),
    tested=("0.169.0",),
    install=Install(
        kind="npm",
        lock=str(Path(__file__).parent.parent / "locks" / "codex" / "package-lock.json"),
        megabytes=400,
        minutes=1,
    ),
    dialects=("responses",),
    # 25 KB, of which 18 are its instructions; 7 KB with instructions of our own.
    prompt_tokens=6_300,
    lean_prompt_tokens=1_900,
    lean=MappingProxyType({"compact": True}),
    window_option="context_window",
    resumes=True,
    tells_cost=False,
    mcp=True,
    counts="call",
    key_env="OPENAI_API_KEY",
    keys=("OPENAI_API_KEY", "CODEX_API_KEY"),
    logins=("$CODEX_HOME/auth.json", "~/.codex/auth.json"),
    log_in="`codex login`",
    settings=("$CODEX_HOME/config.toml", "~/.codex/config.toml"),
)


@dataclass(frozen=True)
class Codex:
    """The adapter."""

    about: About = ABOUT

    def command(self, task: Task, agent: Agent) -> Command:
        """`codex exec --json`, the prompt on stdin. Raises ConfigError for what cannot work."""
        return command_of(task, agent)

    def mcp_setup(self, program: str, server: McpServer) -> McpSetup:
        """`codex mcp`: written into the config.toml of the user's home."""
        mcp = (program, "mcp")
        return McpSetup(
            add=(*mcp, "add", server.key, "--", *server.command),
            remove=(*mcp, "remove", server.key),
            show=(*mcp, "get", server.key),
            note=(
                "codex starts MCP servers almost without environment: name the variables that your"
                " agents need (keys, ORCHESTRATE_CONFIG) in its config.toml, such as"
                f' `env_vars = ["OPENAI_API_KEY"]` under [mcp_servers.{server.key}]'
            ),
        )

    def conversation(self, task: Task, agent: Agent, before: Usage | None) -> CodexConversation:
        """A fresh conversation."""
        return CodexConversation(
            model=agent.model,
            session=task.session_id,
            counted=Usage() if task.session_id is None else before,
        )


adapter = Codex()
