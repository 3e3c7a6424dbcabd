"""OpenAI, or any place that speaks its API: a cloud, unless the address is one's own."""

from orchestrator.server import ModelServer

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
)
