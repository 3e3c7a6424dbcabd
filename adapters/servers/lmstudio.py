"""LM Studio, on one's own machine."""

from orchestrator.server import ModelServer

server = ModelServer(
    name="lmstudio",
    title="LM Studio",
    port=1234,
    url_env=("LM_STUDIO_BASE_URL",),
    model_env=("LM_STUDIO_MODEL",),
    start="lms server start",
    list_models="lms ls",
    dialects=("chat", "responses", "messages"),
    owns_port=True,
)
