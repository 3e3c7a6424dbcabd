"""The server of llama.cpp, on one's own machine: it serves the model that it was started with."""

from orchestrator.server import ModelServer

server = ModelServer(
    name="llamacpp",
    title="llama.cpp",
    port=8080,
    url_env=("LLAMACPP_BASE_URL",),
    model_env=("LLAMACPP_MODEL",),
    key_env="LLAMA_API_KEY",
    start="llama-server --jinja -m MODEL.gguf",
    list_models="curl http://127.0.0.1:8080/v1/models",
    dialects=("chat", "responses", "messages"),
)
