"""Where a CLI finds its model and its settings: addresses, a home of its own, or the user's."""

from __future__ import annotations

from pathlib import PurePath

USERS_OWN = (
    "HOME",
    "USER",
    "XDG_CONFIG_HOME",
    "XDG_DATA_HOME",
    "XDG_STATE_HOME",
    "XDG_CACHE_HOME",
)
"""The variables by which a CLI finds the user's own settings and logins."""


def root_url(url: str) -> str:
    """The URL with a scheme, and without `/v1` and trailing slash."""
    full = url if "://" in url else f"http://{url}"
    return full.rstrip("/").removesuffix("/v1").rstrip("/")


def openai_url(url: str) -> str:
    """With `/v1`, as every server has it; a provider's own path stays as it is."""
    root = root_url(url)
    has_path = "/" in root.split("://", 1)[1]
    return root if has_path and not url.rstrip("/").endswith("/v1") else f"{root}/v1"


def private_home(home: str | None, key: str | None) -> tuple[dict[str, str], dict[str, bytes]]:
    """Variables and files that make a private folder the home of a CLI, if it has one.

    The `key`, a variable's name, is not for the commands that the model runs: a shell reads one of
    the files before each, and forgets it.
    """
    if home is None:
        return {}, {}
    env = {"HOME": home}
    if key is None:
        return env, {}
    folder, unset = PurePath(home), f"unset {key}\n".encode()
    files = {str(folder / "unset-key.sh"): unset, str(folder / ".zshenv"): unset}
    return {**env, "BASH_ENV": str(folder / "unset-key.sh")}, files
