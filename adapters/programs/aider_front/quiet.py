"""In the place of what would look something up in the network, install it or open a browser."""

from __future__ import annotations

from typing import NoReturn

from adapters.programs.aider_front.replacing import Maker, by, nothing
from adapters.programs.aider_front.run import Stop
from adapters.programs.asked import Json


def quiet_patches() -> dict[str, Maker]:
    """What would look something up in the network, or open a browser."""
    return {
        "aider.models:ModelInfoManager._update_cache": by(nothing),
        "aider.models:ModelInfoManager.fetch_openrouter_model_info": by(_no_facts),
        "aider.openrouter:OpenRouterModelManager._update_cache": by(nothing),
        "aider.utils:run_install": by(_no_install),
        "aider.onboarding:offer_openrouter_oauth": by(_no_model),
        "aider.main:offer_openrouter_oauth": by(_no_key),
    }


def _no_key(*arguments: object, **options: object) -> NoReturn:
    """In the place of a login in a browser."""
    unset = "OPENROUTER_API_KEY"
    raise Stop(f"no key: {unset} is not set", kind="auth_failed", unset=unset, retryable=False)


def _no_model(*arguments: object, **options: object) -> NoReturn:
    text = "no model is named, and there is no key to tell which one"
    raise Stop(text, kind="auth_failed", retryable=False)


def _no_install(*arguments: object, **options: object) -> tuple[bool, str]:
    return False, "nothing is installed from here"


def _no_facts(*arguments: object, **options: object) -> Json:
    return {}
