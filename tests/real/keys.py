"""Keys, logins, and what else is in an environment, for every adapter the same: what is planted
never reaches a local server, an agent, its tools, a record or a command line.
"""

import os
import threading
from collections.abc import Generator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from orchestrator.adapter import Adapter
from tests.real.scene import Played, Turns, changed, fingerprint, placed, play

OWN = "sk-own-key-of-this-agent-0123456789"
PLANTED: Mapping[str, str] = {
    name: f"sk-planted-{name.lower().replace('_', '-')}-0123456789"
    for name in (
        *("OPENAI_API_KEY", "CODEX_API_KEY", "ANTHROPIC_API_KEY", "ANTHROPIC_AUTH_TOKEN"),
        *("CLAUDE_CODE_OAUTH_TOKEN", "GEMINI_API_KEY", "GOOGLE_API_KEY", "OPENROUTER_API_KEY"),
        *("MISTRAL_API_KEY", "GROQ_API_KEY", "DEEPSEEK_API_KEY", "AZURE_API_KEY", "HF_TOKEN"),
        *("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "OLLAMA_API_KEY", "LM_STUDIO_API_KEY"),
        *("HOSTED_VLLM_API_KEY", "LITELLM_API_KEY", "GITHUB_TOKEN"),
    )
}
SURROUNDINGS: Mapping[str, str] = {
    name: f"planted-{name.lower().replace('_', '-')}-0123456789"
    for name in (
        *("SSH_AUTH_SOCK", "SSH_AGENT_PID", "GPG_AGENT_INFO", "GIT_SSH_COMMAND", "GIT_DIR"),
        *("DBUS_SESSION_BUS_ADDRESS", "DBUS_SYSTEM_BUS_ADDRESS", "XDG_RUNTIME_DIR"),
        *("XDG_CONFIG_HOME", "DISPLAY", "WAYLAND_DISPLAY", "XAUTHORITY"),
        *("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY", "http_proxy", "https_proxy"),
        *("all_proxy", "LD_PRELOAD", "LD_LIBRARY_PATH", "LD_AUDIT", "NODE_OPTIONS", "NODE_PATH"),
        *("PYTHONPATH", "PYTHONHOME", "PYTHONSTARTUP", "PYTHONINSPECT", "BASH_ENV", "ENV"),
        *("PERL5OPT", "RUBYOPT", "JAVA_TOOL_OPTIONS", "GIT_CONFIG_GLOBAL", "GIT_EXEC_PATH"),
        *("AWS_PROFILE", "AWS_CONFIG_FILE", "GOOGLE_APPLICATION_CREDENTIALS", "KUBECONFIG"),
        *(
            "AZURE_CONFIG_DIR",
            "DOCKER_HOST",
            "DATABASE_URL",
            "NPM_CONFIG_USERCONFIG",
            "PROMPT_COMMAND",
        ),
    )
}
"""Ways to the user's agents, buses and clouds, and what would change which program runs."""

LOGIN = "sk-planted-in-a-login-0123456789"
LOOK = "env; tr '\\0' '\\n' </proc/$PPID/environ"
"""What the scripted model runs to see its own environment and that of the agent."""


MARK = "the-prompt-says-0123456789"
LOOK_S = 0.01


@contextmanager
def command_lines() -> Generator[set[bytes]]:
    """The command lines of all that was started on this machine meanwhile: a look every few ms."""
    before = set(os.listdir("/proc"))  # noqa: PTH208 (a hundred times a second: pathlib takes a core)
    seen: set[bytes] = set()
    over = threading.Event()

    def look() -> None:
        while not over.wait(LOOK_S):
            for process in set(os.listdir("/proc")) - before:  # noqa: PTH208 (as above)
                with suppress(OSError), open(f"/proc/{process}/cmdline", "rb") as line:  # noqa: PTH123
                    seen.add(line.read())

    looker = threading.Thread(target=look)
    looker.start()
    try:
        yield seen
    finally:
        over.set()
        looker.join()


def no_command_line_tells(seen: set[bytes]) -> None:
    """Neither the prompt nor a key is where every user of the machine can read it."""
    assert seen
    for line in seen:
        for secret in (MARK, OWN, LOGIN, *PLANTED.values()):
            assert secret.encode() not in line, line


def plant_login(home: Path, path: str, content: str) -> None:
    """A login file in the user's home that holds LOGIN."""
    file = home / path
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(content.replace("LOGIN", LOGIN))


async def no_planted_key_arrives(
    adapter: Adapter,
    turns: Turns,
    tmp_path: Path,
    *,
    login: tuple[str, str],
    looks: bool = True,
    **agent: Any,
) -> Played:
    """A run at a local server with keys of every cloud in the environment and a login in the home.

    `turns` let the model run LOOK (unless not `looks`: an agent without tools). None of the keys is
    in a request, in the environment of agent and tools, or on record; the home is not touched.
    """
    _, home = placed(tmp_path)
    plant_login(home, *login)
    before = fingerprint(home)
    task = {"prompt": f"Do it. {MARK}"}
    with command_lines() as seen:
        environ = {**SURROUNDINGS, **PLANTED}
        played = await play(adapter, turns, tmp_path, task=task, environ=environ, **agent)
    assert played.requests, played.outcome
    no_command_line_tells(seen)
    for name, value in SURROUNDINGS.items():
        assert value not in played.output, f"{name} is in the environment"
    everything = played.recorded().decode("utf-8", "replace")
    for name, value in {**PLANTED, "the login": LOGIN}.items():
        for request in played.requests:
            assert not request.has_key(value), f"{name} arrived at the server"
            assert value.encode() not in request.json_line(), f"{name} is in a request"
        assert value not in everything, f"{name} is on record"
        assert value not in played.output, f"{name} is in the environment"
    assert not looks or "PATH=" in played.output, played.outcome
    assert not (left := changed(home, before)), left
    return played


async def the_own_key_arrives(
    adapter: Adapter, turns: Turns, tmp_path: Path, *, looks: bool = True, **agent: Any
) -> Played:
    """A run with a key named on the agent: it arrives, no other does, and no tool sees it.

    `turns` let the model run `env` (unless not `looks`).
    """
    environ = {**PLANTED, "MY_KEY": OWN}
    named: dict[str, Any] = {"api_key_env": "MY_KEY", "tier": "cloud", **agent}
    task = {"prompt": f"Do it. {MARK}"}
    with command_lines() as seen:
        played = await play(adapter, turns, tmp_path, task=task, environ=environ, **named)
    assert played.requests, played.outcome
    assert any(MARK.encode() in request.json_line() for request in played.requests)
    no_command_line_tells(seen)
    assert all(request.has_key(OWN) for request in played.requests if request.turn)
    everything = played.recorded().decode("utf-8", "replace")
    for value in (OWN, *PLANTED.values()):
        assert value not in everything
        assert value not in played.output
    assert not looks or "PATH=" in played.output, played.outcome
    return played
