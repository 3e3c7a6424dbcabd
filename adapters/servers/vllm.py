"""vLLM, on one's own machine: it serves the model that it was started with.

Whether it calls tools depends on how it was started (`--enable-auto-tool-choice
--tool-call-parser ...`) and is not told. `/v1/responses` came with 0.10, `/v1/messages` with
0.11.1.
"""

from __future__ import annotations

import re
from dataclasses import replace

from orchestrator.server import (
    Ask,
    Look,
    ModelServer,
    Reply,
    Seen,
    at_least,
    inner,
    items,
    openai_models,
    text_of,
)
from orchestrator.task import Dialect


def _look() -> Look:
    listed, version = yield (Ask(path="/v1/models"), Ask(path="/version"))
    models = openai_models(listed)
    if models is None:
        return None
    owners = {each.get("owned_by") for each in items(inner(listed.body, "data"))}
    stated = text_of(inner(version.body, "version"))
    return Seen(
        sure="vllm" in owners,
        version=stated,
        dialects=_dialects(stated),
        models=tuple(
            replace(model, loaded=True, context_possible=model.context) for model in models
        ),
    )


def _dialects(version: str | None) -> tuple[Dialect, ...]:
    responses: tuple[Dialect, ...] = ("responses",) if at_least(version, 0, 10) else ()
    messages: tuple[Dialect, ...] = ("messages",) if at_least(version, 0, 11, 1) else ()
    return ("chat", *responses, *messages)


_COUNTED = re.compile(r"^vllm:prompt_tokens_total\{([^}]*)\} (\S+)", re.MULTILINE)


def _use(reply: Reply, model: str) -> str | None:
    """How many tokens of prompts it has read for the model, in what it tells Prometheus."""
    label = f'model_name="{model}"'
    counts = [found[2] for found in _COUNTED.finditer(reply.text) if label in found[1]]
    return " ".join(counts) or None


server = ModelServer(
    name="vllm",
    title="vLLM",
    port=8000,
    url_env=("VLLM_BASE_URL",),
    model_env=("VLLM_MODEL",),
    key_env="VLLM_API_KEY",
    start="vllm serve MODEL",
    list_models="curl http://127.0.0.1:8000/v1/models",
    get_model="vllm serve {model}",
    more_context="vllm serve {model} --max-model-len {context}",
    tools_hint="Start it with `--enable-auto-tool-choice --tool-call-parser PARSER`.",
    dialects=("chat", "responses", "messages"),
    lists_all=True,
    prefixes=("hosted_vllm", "vllm"),
    look=_look,
    ask_use=Ask(path="/metrics"),
    use=_use,
)
