"""The server of llama.cpp, on one's own machine: it serves the model that it was started with.

It answers to any model's name. `n_ctx` of its settings is the window of one slot, what a request
can really use. Which API it has depends on its build, so it is asked: an empty body is refused
with 400 where there is an endpoint, with 404 where there is none.
"""

from __future__ import annotations

from collections.abc import Mapping

from orchestrator.server import (
    Ask,
    Look,
    Model,
    ModelServer,
    Reply,
    Seen,
    count_of,
    flag_of,
    inner,
    is_list,
    items,
    text_of,
    texts_of,
)
from orchestrator.task import Dialect

_LOADING = 503
_STILL = "still loading its model"


def _loads(reply: Reply) -> bool:
    return reply.status == _LOADING and inner(reply.body, "error", "code") == _LOADING


def _look() -> Look:
    health, properties, listed, responses, messages = yield (
        Ask(path="/health"),
        Ask(path="/props"),
        Ask(path="/v1/models"),
        Ask(path="/v1/responses", method="POST"),
        Ask(path="/v1/messages", method="POST"),
    )
    if any(map(_loads, (health, properties, listed))):  # it may be done between two of them
        return Seen(sure=True, dialects=("chat",), problem=_STILL, loading=True)
    data = inner(listed.body, "data")
    if not listed.ok or not is_list(data):
        return None
    models = items(data)
    build = text_of(inner(properties.body, "build_info"))
    return Seen(
        sure=any(each.get("owned_by") == "llamacpp" for each in models),
        version=build,
        dialects=("chat", *_spoken("responses", responses), *_spoken("messages", messages)),
        models=tuple(
            _model(each, properties, alone=len(models) == 1)
            for each in models
            if text_of(each.get("id"))
        ),
    )


def _spoken(dialect: Dialect, reply: Reply) -> tuple[Dialect, ...]:
    return () if reply.status in {0, 404, 405, 501} else (dialect,)


def _model(each: Mapping[str, object], properties: Reply, *, alone: bool) -> Model:
    """A model; the server's properties are its own where it is the only one."""
    props = properties.body if alone else None
    meta = each.get("meta")
    window = count_of(inner(props, "default_generation_settings", "n_ctx"))
    status = text_of(inner(each, "status", "value"))  # a router's: loaded, unloaded, loading
    return Model(
        name=text_of(each.get("id")) or "",
        context=window or count_of(inner(meta, "n_ctx")),
        context_possible=count_of(inner(meta, "n_ctx_train")),
        tools=_tools(inner(props, "chat_template_caps")),
        thinking=None,
        loaded=status in {None, "loaded"},
        size=count_of(inner(meta, "size")),
        quantization=text_of(inner(meta, "ftype")),
        aliases=tuple(one for one in texts_of(each.get("aliases")) if one != each.get("id")),
    )


def _tools(able: object) -> bool | None:
    """Whether the chat template shows the model both its tools and its earlier calls.

    Only one of the two: unknown, since the server then fills in a form of its own.
    """
    shows = flag_of(inner(able, "supports_tools"))
    recalls = flag_of(inner(able, "supports_tool_calls"))
    return shows if shows == recalls else None


def _use(reply: Reply, model: str) -> str | None:
    """The last task of each slot: the one model that it serves does them all."""
    del model
    slots = [each for each in items(reply.body) if "id_task" in each]
    return " ".join(f"{each.get('id')}:{each['id_task']}" for each in slots) or None


server = ModelServer(
    name="llamacpp",
    title="llama.cpp",
    port=8080,
    url_env=("LLAMACPP_BASE_URL",),
    model_env=("LLAMACPP_MODEL",),
    key_env="LLAMA_API_KEY",
    start="llama-server --jinja -m MODEL.gguf",
    list_models="curl http://127.0.0.1:8080/v1/models",
    get_model="llama-server --jinja -m {model}",
    more_context="llama-server --jinja -c {context} -m MODEL.gguf",
    tools_hint="Start it with `--jinja`.",
    dialects=("chat", "responses", "messages"),
    look=_look,
    ask_use=Ask(path="/slots"),
    use=_use,
)
