"""Makes a program that imports LiteLLM start with less work, without a change in what it does.

Run by the agent's own interpreter: standard library only, and its own pydantic, if it has one.
"""

from __future__ import annotations

import gc
from contextlib import suppress


def start_lightly() -> None:
    """To be called before LiteLLM is imported.

    CPU seconds of `import aider.main, litellm`: 6.0; with deferred models 4.7; with both 4.2. Those
    of its proxy become a fifth less.
    """
    # A thousand classes that all stay: to look through them again and again finds no garbage.
    gc.set_threshold(20_000, 20, 20)
    with suppress(ImportError):
        from pydantic import BaseModel

        # A model's validator is made when it is first used; few of LiteLLM's hundreds ever are.
        # openai's own models do the same by default (DEFER_PYDANTIC_BUILD).
        BaseModel.model_config["defer_build"] = True
