"""Ollama, on one's own machine.

`/v1/responses` came with 0.13.3 (codex asks for 0.13.4), `/v1/messages` with 0.14.0. The context of
a model that is not loaded is known only if its Modelfile sets `num_ctx`: else the server decides
when it loads it (OLLAMA_CONTEXT_LENGTH, or by the memory it finds).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace

from orchestrator.server import (
    Ask,
    Look,
    Model,
    ModelServer,
    Next,
    Progress,
    Pull,
    Reply,
    Seen,
    at_least,
    count_of,
    find_model,
    inner,
    is_list,
    is_remote,
    items,
    text_of,
    texts_of,
)
from orchestrator.task import Dialect

_MOST = 200  # models that are asked about one by one
_NUM_CTX = re.compile(r"^num_ctx\s+(\d{1,9})\s*$", re.MULTILINE)


def _look() -> Look:
    version, tags, running = yield (
        Ask(path="/api/version"),
        Ask(path="/api/tags"),
        Ask(path="/api/ps"),
    )
    stated = text_of(inner(version.body, "version"))
    listed = inner(tags.body, "models")
    if not is_list(listed):
        return None
    models = [_model(each) for each in items(listed) if text_of(each.get("name"))]
    loaded = {
        name: count_of(each.get("context_length"))
        for each in items(inner(running.body, "models"))
        if (name := text_of(each.get("name")))
    }
    asks = tuple(
        Ask(path="/api/show", method="POST", body={"model": model.name}) for model in models[:_MOST]
    )
    shown = (yield asks) if asks else ()
    known = [_shown(model, reply) for model, reply in zip(models, shown, strict=False)]
    return Seen(
        sure=stated is not None,
        version=stated,
        dialects=_dialects(stated),
        models=tuple(_loaded(model, loaded) for model in (*known, *models[_MOST:])),
    )


def _dialects(version: str | None) -> tuple[Dialect, ...]:
    responses: tuple[Dialect, ...] = ("responses",) if at_least(version, 0, 13, 3) else ()
    messages: tuple[Dialect, ...] = ("messages",) if at_least(version, 0, 14) else ()
    return ("ollama", "chat", *responses, *messages)


def _model(each: Mapping[str, object]) -> Model:
    name = text_of(each.get("name")) or ""
    return Model(
        name=name,
        size=count_of(each.get("size")),
        parameters=text_of(inner(each, "details", "parameter_size")),
        quantization=text_of(inner(each, "details", "quantization_level")),
        remote=is_remote(name) or _is_elsewhere(each),
    )


def _is_elsewhere(each: object) -> bool:
    return bool(text_of(inner(each, "remote_host")) or text_of(inner(each, "remote_model")))


def _shown(model: Model, reply: Reply) -> Model:
    """The model with what `/api/show` tells of it."""
    if not reply.ok:
        return model
    architecture = text_of(inner(reply.body, "model_info", "general.architecture")) or ""
    capabilities = texts_of(inner(reply.body, "capabilities"))
    set_here = _NUM_CTX.search(text_of(inner(reply.body, "parameters")) or "")
    possible = count_of(inner(reply.body, "model_info", f"{architecture}.context_length"))
    remote = model.remote or _is_elsewhere(reply.body)
    return replace(
        model,
        # A cloud's models come with all that they can hold.
        context=possible if remote else count_of(int(set_here[1])) if set_here else None,
        context_possible=possible,
        tools="tools" in capabilities if capabilities else None,
        thinking="thinking" in capabilities if capabilities else None,
        remote=remote,
    )


def _loaded(model: Model, running: Mapping[str, int | None]) -> Model:
    if model.name not in running:
        return replace(model, loaded=False)
    return replace(model, loaded=True, context=running[model.name] or model.context)


def _pull(name: str) -> Pull:
    body = {"model": name, "stream": True}
    reply = yield Ask(path="/api/pull", method="POST", body=body, stream=True)
    while reply is not None:
        match reply.body:
            case {"error": str(why)}:
                return why
            case {"status": "success"}:
                return None
            case {"status": str(text)}:
                done = count_of(inner(reply.body, "completed"))
                yield Progress(text=text, done=done, total=count_of(inner(reply.body, "total")))
            case _:
                if not reply.ok:
                    return f"HTTP {reply.status}"
        reply = yield Next()
    return "the download ended before it was whole"


def _remove(name: str) -> Ask:
    return Ask(path="/api/delete", method="DELETE", body={"model": name})


def _use(reply: Reply, model: str) -> str | None:
    """When the model will be unloaded: put off by each answer, to the nanosecond."""
    loaded = items(inner(reply.body, "models"))
    found = find_model([Model(name=str(each.get("name"))) for each in loaded], model)
    for each in loaded:
        if found is not None and each.get("name") == found.name:
            return text_of(each.get("expires_at"))
    return None


server = ModelServer(
    name="ollama",
    title="Ollama",
    port=11434,
    url_env=("OLLAMA_BASE_URL", "OLLAMA_HOST"),
    model_env=("OLLAMA_MODEL",),
    start="ollama serve",
    list_models="ollama list",
    get_model="ollama pull {model}",
    more_context="OLLAMA_CONTEXT_LENGTH={context} ollama serve",
    context_hint="Or set `num_ctx` in the model's Modelfile.",
    dialects=("ollama", "chat", "responses", "messages"),
    owns_port=True,
    lists_all=True,
    prefixes=("ollama_chat", "ollama"),
    look=_look,
    ask_use=Ask(path="/api/ps"),
    use=_use,
    pull=_pull,
    remove=_remove,
)
