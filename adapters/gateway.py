"""The gateway: a LiteLLM proxy between an agent that speaks Messages or Responses and a server that
speaks only chat. It is the LiteLLM of the LiteLLM agent's environment, run by a program of our own
(`programs/litellm_gateway.py`).

It knows one server, and of that the models that it is told, by their own names.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import orjson

from orchestrator.adapter import About, Command, Program, Upstream
from orchestrator.task import Dialect

PROGRAM = str(Path(__file__).with_name("programs") / "litellm_gateway.py")
_KEY, _UPSTREAM_KEY = "LITELLM_MASTER_KEY", "UPSTREAM_KEY"

ABOUT = About(
    name="litellm",
    title="LiteLLM proxy",
    # The interpreter beside `mini` has LiteLLM, too.
    program=Program(name="mini", natives=("python",)),
    install="orchestrate agents install litellm",
    dialects=("messages", "responses"),
)


@dataclass(frozen=True)
class LiteLLMProxy:
    """The gateway."""

    about: About = ABOUT
    upstream: Dialect = "chat"
    health: str = "/health/readiness"

    def command(self, program: str, upstream: Upstream, *, folder: str, key_from: str) -> Command:
        """The proxy with its configuration, which holds no key."""
        path = PurePosixPath(program)
        python = path if path.name.startswith("python") else path.with_name("python")
        config = str(
            PurePosixPath(folder, "gateway.yaml")
        )  # JSON is YAML; another name is not read
        env_from = {_KEY: key_from}
        if upstream.key_from is not None:
            env_from[_UPSTREAM_KEY] = upstream.key_from
        return Command(
            argv=(str(python), "-I", PROGRAM, config),
            cwd=folder,
            env={"HOME": folder},
            env_from=env_from,
            secrets=tuple(env_from),
            files={config: orjson.dumps(configuration(upstream))},
        )


gateway = LiteLLMProxy()


def configuration(upstream: Upstream) -> dict[str, object]:
    """The proxy's configuration. It tries nothing again: the agent does, and says so."""
    # LM Studio's is LiteLLM's plainest route to `/v1/chat/completions`. Of `openai/` it would ask
    # for Responses upstream, too; `ollama/` loses the tools.
    where = {
        "api_base": f"{upstream.base_url}/v1",
        "api_key": f"os.environ/{_UPSTREAM_KEY}" if upstream.key_from else "none",
        "max_retries": 0,
    }
    return {
        "model_list": [
            {
                "model_name": model,
                "litellm_params": {"model": f"lm_studio/{model}", **where},
                "model_info": {"id": model},  # what it says of who answered
            }
            for model in upstream.models
        ],
        "litellm_settings": {
            "drop_params": True,  # such as `thinking`, which chat does not know
            "num_retries": 0,
            "telemetry": False,
            "use_chat_completions_url_for_anthropic_messages": True,
        },
        # Else one 404 puts the only server aside, and whoever comes next is told 429.
        "router_settings": {"disable_cooldowns": True, "num_retries": 0},
    }
