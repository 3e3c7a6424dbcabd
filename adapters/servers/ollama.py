"""Ollama, on one's own machine. Codex speaks to it from version 0.13.4 on (`/v1/responses`)."""

from orchestrator.server import ModelServer

server = ModelServer(
    name="ollama",
    title="Ollama",
    port=11434,
    url_env=("OLLAMA_BASE_URL", "OLLAMA_HOST"),
    model_env=("OLLAMA_MODEL",),
    start="ollama serve",
    list_models="ollama list",
    dialects=("ollama", "chat", "responses", "messages"),
    owns_port=True,
)
