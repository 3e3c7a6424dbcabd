"""OpenAI, or any place that speaks its API: a cloud, unless the address is one's own."""

from orchestrator.server import (
    Ask,
    Look,
    ModelServer,
    Reply,
    Seen,
    inner,
    items,
    openai_models,
)
from orchestrator.task import Dialect


def _look() -> Look:
    (listed,) = yield (Ask(path="/v1/models"),)
    models = openai_models(listed)
    return None if models is None else Seen(sure=False, dialects=("chat",), models=models)


server = ModelServer(
    name="openai",
    title="the OpenAI-compatible server",
    port=None,
    url_env=("OPENAI_BASE_URL",),
    model_env=("OPENAI_MODEL",),
    key_env="OPENAI_API_KEY",
    base_url="https://api.openai.com/v1",
    list_models='curl -H "Authorization: Bearer $OPENAI_API_KEY" https://api.openai.com/v1/models',
    dialects=("chat", "responses"),
    local=False,
    look=_look,
)


def _look_closer() -> Look:
    """With an empty request to each endpoint: who has it complains of what is in it."""
    listed, messages, responses = yield (
        Ask(path="/v1/models"),
        Ask(path="/v1/messages", method="POST"),
        Ask(path="/v1/responses", method="POST"),
    )
    models = openai_models(listed)
    if models is None:
        return None
    has: list[Dialect] = ["chat"]
    if messages.status in _COMPLAINS:
        has.append("messages")
    if responses.status in _COMPLAINS:
        has.append("responses")
    return Seen(sure=_says_so(listed), dialects=tuple(has), models=models)


def _says_so(listed: Reply) -> bool:
    """Whether the list calls itself one of models: other things than these have a `/v1/models`."""
    kinds = {each.get("object") for each in items(inner(listed.body, "data"))}
    return inner(listed.body, "object") == "list" or kinds == {"model"}


_COMPLAINS = frozenset({400, 422})

compatible = ModelServer(
    name="openai-compatible",
    title="the OpenAI-compatible server",
    port=None,
    list_models="curl BASE_URL/v1/models",
    dialects=("chat",),
    look=_look_closer,
)
"""LocalAI, SGLang, KoboldCpp, a gateway of one's own, ...: all that is known is `/v1/models`."""
