"""Addresses of model servers as OpenAI-compatible clients want them, and what is the user's own."""

from __future__ import annotations

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
