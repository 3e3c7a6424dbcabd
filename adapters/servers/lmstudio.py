"""LM Studio, on one's own machine.

Its own API has two generations: `/api/v1/models` since 0.4.0, `/api/v0/models` since 0.3.6. It
answers unknown paths with 200 and an error, and does not tell its version. `/v1/responses` came
with 0.3.29, `/v1/messages` with 0.4.1. A model that is not loaded is loaded when it is asked for.
"""

from __future__ import annotations

from collections.abc import Mapping

from orchestrator.server import (
    Ask,
    Look,
    Model,
    ModelServer,
    Pause,
    Progress,
    Pull,
    Reply,
    Seen,
    count_of,
    find_model,
    flag_of,
    inner,
    is_list,
    items,
    openai_models,
    text_of,
    texts_of,
)

_AGAIN_S = 1.0


def _look() -> Look:
    newer, older, common = yield (
        Ask(path="/api/v1/models"),
        Ask(path="/api/v0/models"),
        Ask(path="/v1/models"),
    )
    if is_list(listed := inner(newer.body, "models")) and newer.ok:
        models = tuple(_model(each) for each in items(listed) if _generates(each, "key"))
        return Seen(sure=True, dialects=("chat", "responses", "messages"), models=models)
    if is_list(listed := inner(older.body, "data")) and older.ok:
        models = tuple(_older_model(each) for each in items(listed) if _generates(each, "id"))
        return Seen(sure=True, dialects=("chat", "responses"), models=models)
    plain = openai_models(common)
    return None if plain is None else Seen(sure=False, dialects=("chat",), models=plain)


def _generates(each: Mapping[str, object], key: str) -> bool:
    return text_of(each.get(key)) is not None and each.get("type") not in {
        "embedding",
        "embeddings",
    }


def _model(each: Mapping[str, object]) -> Model:
    instances = items(each.get("loaded_instances"))
    windows = [count_of(inner(instance, "config", "context_length")) for instance in instances]
    ids = (text_of(instance.get("id")) for instance in instances)
    name = text_of(each.get("key")) or ""
    able = each.get("capabilities")
    return Model(
        name=name,
        # Of several loaded copies nobody knows which one answers: the smallest window counts.
        context=min((window for window in windows if window is not None), default=None),
        context_possible=count_of(each.get("max_context_length")),
        tools=flag_of(inner(able, "trained_for_tool_use")),
        thinking=None if able is None else inner(able, "reasoning") is not None,
        loaded=bool(instances),
        size=count_of(each.get("size_bytes")),
        parameters=text_of(each.get("params_string")),
        quantization=text_of(inner(each, "quantization", "name")),
        aliases=tuple(one for one in ids if one is not None and one != name),
    )


def _older_model(each: Mapping[str, object]) -> Model:
    able = texts_of(each.get("capabilities"))
    return Model(
        name=text_of(each.get("id")) or "",
        context=count_of(each.get("loaded_context_length")),
        context_possible=count_of(each.get("max_context_length")),
        tools=True if "tool_use" in able else False if able else None,
        loaded=each.get("state") == "loaded",
        quantization=text_of(each.get("quantization")),
    )


def _pull(name: str) -> Pull:
    """A job that is asked about until it ends."""
    reply = yield Ask(path="/api/v1/models/download", method="POST", body={"model": name})
    job = text_of(inner(_body(reply), "job_id")) or ""
    while True:
        match text_of(inner(_body(reply), "status")):
            case "completed" | "already_downloaded":
                return None
            case "downloading" | "paused" as status if job:
                done = count_of(inner(_body(reply), "downloaded_bytes"))
                total = count_of(inner(_body(reply), "total_size_bytes"))
                yield Progress(text=status, done=done, total=total)
            case status:
                error = inner(_body(reply), "error")
                said = text_of(inner(error, "message")) or text_of(error)
                return said or status or "no answer of its kind"
        yield Pause(seconds=_AGAIN_S)
        reply = yield Ask(path=f"/api/v1/models/download/status/{job}")


def _body(reply: Reply | None) -> object:
    return None if reply is None else reply.body


def _use(reply: Reply, model: str) -> str | None:
    """That the model is loaded: it counts no answers, but loads a model that is asked for."""
    listed = [_model(each) for each in items(inner(reply.body, "models"))]
    found = find_model(listed, model)
    return "loaded" if found is not None and found.loaded else None


server = ModelServer(
    name="lmstudio",
    title="LM Studio",
    port=1234,
    url_env=("LM_STUDIO_BASE_URL",),
    model_env=("LM_STUDIO_MODEL",),
    key_env="LM_API_TOKEN",
    start="lms server start",
    list_models="lms ls",
    get_model="lms get {model}",
    more_context="lms load {model} --context-length {context}",
    dialects=("chat", "responses", "messages"),
    owns_port=True,
    lists_all=True,
    prefixes=("lm_studio", "lmstudio"),
    look=_look,
    ask_use=Ask(path="/api/v1/models"),
    use=_use,
    use_counts=False,
    pull=_pull,
)
