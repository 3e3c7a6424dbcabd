"""With what agents come to their models: keys in the environment, logins in files that are looked
for and never read. And, before a run, that one has nothing to come with.
"""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import suppress

from orchestrator.adapter import About, Agent, Command, about_of
from orchestrator.config import Config, expanded
from orchestrator.events import Auth, Error
from orchestrator.task import Task


def auth_of(agent: Agent, command: Command, config: Config) -> Auth:
    """With what the agent comes to its model: a key that its command passes on, or a login.

    A login is one of the CLI's own files in the user's home; whether it is still good, nobody asks.
    """
    sources = (command.env_from.get(name) for name in command.secrets)
    if any(config.environ.get(source) for source in sources if source is not None):
        return "key"
    own = agent.profile == "user" and agent.base_url is None and agent.tier == "cloud"
    return (
        "login"
        if own and is_logged_in(about_of(config.adapters[agent.adapter], agent), config)
        else "none"
    )


def is_logged_in(about: About, config: Config) -> bool:
    """Whether one of the CLI's own files of a login is there."""
    return _any_there(about.logins, config)


def credentials(agent: Agent, about: About, config: Config) -> bool | None:
    """Whether a key or a login was seen; None: nobody knows what it wants."""
    names = {name for name in (agent.api_key_env, about.key_env, *about.keys) if name}
    if agent.tier == "local" or agent.base_url is not None or not (names or about.logins):
        return None
    if any(config.environ.get(name) for name in names):
        return True
    return agent.profile == "user" and is_logged_in(about, config)


def keyless(agent: Agent, task: Task, config: Config) -> Error | None:
    """That the key is not set which the agent names; or that a CLI which would not say so itself
    has neither key nor login.
    """
    if (name := agent.api_key_env) is not None:
        if config.environ.get(name):
            return None
        hint = f"Set {name}, or name the variable that holds the key with --api-key-env."
        return Error(kind="auth_failed", text=f"no key: {name} is not set", hint=hint)
    about = about_of(config.adapters[agent.adapter], agent)
    if credentials(agent, about, config) is not False or not about.settings:
        return None
    if agent.options or task.env or task.env_from:
        return None  # they may say another way in, or bring a key
    if agent.profile == "user" and _any_there(about.settings, config):
        return None  # so may these
    text = f"{about.title} has neither a key nor a login"
    ways = (f"set {about.key_env}" if about.key_env else "", about.log_in)
    hint = ", or ".join(way for way in ways if way)
    return Error(kind="auth_failed", text=text, hint=f"{hint[:1].upper()}{hint[1:]}.")


def _any_there(files: Iterable[str], config: Config) -> bool:
    for file in files:
        with suppress(OSError):  # a folder that may not be looked into
            path = expanded(file, config.environ)
            if path is not None and path.exists():
                return True
    return False
