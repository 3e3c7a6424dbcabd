"""How a CLI is started that speaks the protocol: stdin open, one key, a home of its own. Pure."""

from collections.abc import Iterable, Mapping

from adapters.acp.options import Options, options_of
from adapters.places import USERS_OWN, private_home
from orchestrator.adapter import Agent, Command
from orchestrator.errors import ConfigError
from orchestrator.task import Task


def talking(
    task: Task,
    agent: Agent,
    *,
    argv: Iterable[str],
    key: str,
    env: Mapping[str, str],
    files: Mapping[str, bytes],
) -> Command:
    """The command; `key` is the variable in which the CLI looks for the key that the agent has."""
    env_from = {} if agent.home is not None else {name: name for name in USERS_OWN}
    if agent.api_key_env is not None:
        env_from[key] = agent.api_key_env
    home, own = private_home(agent.home, key if agent.api_key_env else None)
    return Command(
        argv=tuple(argv),
        cwd=str(task.workspace),
        env={**home, **env},
        env_from=env_from,
        secrets=(key,) if agent.api_key_env else (),
        stdin="open",
        files={**own, **files},
    )


def private_options(agent: Agent, title: str, known: Mapping[str, str], users: str) -> Options:
    """`options_of`, of a CLI whose settings are a file of its home: the user's own, `users`, stays
    as it is. Raises ConfigError.
    """
    options = options_of(agent, title, known)
    if options.settings and agent.home is None:
        text = f"agent {agent.name!r}: option 'settings' needs `profile: clean`"
        raise ConfigError(text, hint=f"Or change {users}.")
    return options
