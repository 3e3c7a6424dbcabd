"""vLLM, on one's own machine."""

from orchestrator.server import ModelServer

server = ModelServer(
    name="vllm",
    title="vLLM",
    port=8000,
    url_env=("VLLM_BASE_URL",),
    model_env=("VLLM_MODEL",),
    key_env="VLLM_API_KEY",
    start="vllm serve MODEL",
    list_models="curl http://127.0.0.1:8000/v1/models",
    dialects=("chat", "responses", "messages"),
)
