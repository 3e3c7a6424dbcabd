"""What LM Studio, vLLM and llama.cpp answer beside generation, and which paths each make of server
has. Shapes: LM Studio's and vLLM's as documented, llama.cpp's as its server (b11549) replied. Pure.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from orchestrator.testing.catalog import CONTEXT_LENGTH, model
from orchestrator.testing.dialect import Json
from orchestrator.testing.script import Make, Script

VLLM_VERSION = "0.19.0"
_SIZE = 9_000_000_000

_OPENAI = ("/chat/completions", "/models", "/models/.+")
_PATHS: Mapping[Make, tuple[str, ...]] = {
    "any": (".*",),
    "ollama": (*_OPENAI, "/responses", "/messages", "/api/(?!v[01]|hello).*", "/"),
    "lmstudio": (*_OPENAI, "/responses", "/messages", "/api/v[01]/.*"),
    "vllm": (
        *_OPENAI,
        "/responses",
        "/messages(/count_tokens)?",
        "/version",
        "/health",
        "/metrics",
    ),
    "llamacpp": (
        *_OPENAI,
        "/responses",
        "/messages(/count_tokens)?",
        "/health",
        "/props",
        "/slots",
    ),
    "openai-compatible": _OPENAI,
}


def has_path(make: Make, endpoint: str) -> bool:
    """Whether a server of that make answers there."""
    return any(re.fullmatch(pattern, endpoint) for pattern in _PATHS[make])


def not_there(make: Make, method: str, path: str) -> tuple[Json, int]:
    """What a server of that make says to a path that it has not, with the HTTP status."""
    match make:
        case "lmstudio":
            return {"error": f"Unexpected endpoint or method. ({method} {path})"}, 200
        case "vllm" | "openai-compatible":
            return {"detail": "Not Found"}, 404
        case "llamacpp":
            error = {"message": "File Not Found", "type": "not_found_error", "code": 404}
            return {"error": error}, 404
        case "ollama":
            return {"error": "404 page not found"}, 404
        case "any":
            what = f"scripted model server: no {method} {path}"
            return {"error": {"message": what}}, 404


def listed(script: Script, name: str) -> Json:
    """A model in `/v1/models`, with what the make adds to OpenAI's keys."""
    window = script.context or CONTEXT_LENGTH
    own: Json = {}
    match script.server:
        case "vllm":
            own = {"owned_by": "vllm", "root": name, "max_model_len": window}
        case "llamacpp":
            meta = {"n_ctx": window, "n_ctx_train": CONTEXT_LENGTH, "size": _SIZE}
            own = {"owned_by": "llamacpp", "meta": meta}
        case "ollama":
            own = {"owned_by": "library"}
        case "lmstudio":
            own = {"owned_by": "organization_owner"}
        case "any" | "openai-compatible":
            pass
    return {**model(name), **own}


def properties(script: Script) -> Json:
    """llama.cpp's `GET /props`: the window of one slot, and what the chat template can do."""
    return {
        "default_generation_settings": {"n_ctx": script.context or CONTEXT_LENGTH},
        "total_slots": 1,
        "model_alias": script.models[0],
        "model_path": f"/models/{script.models[0]}.gguf",
        "chat_template_caps": {
            "supports_tools": script.tools,
            "supports_tool_calls": script.tools,
        },
        "build_info": "b11549-scripted",
        "is_sleeping": False,
    }


def slots(script: Script, answers: int = 0) -> Sequence[Json]:
    """llama.cpp's `GET /slots`; each of its answers was a task of its one slot."""
    slot = {"id": 0, "n_ctx": script.context or CONTEXT_LENGTH, "is_processing": False}
    return [{**slot, "id_task": answers} if answers else slot]


def metrics(script: Script, answers: int) -> str:
    """One of vLLM's `GET /metrics`: the tokens of prompts that it has read."""
    name = "vllm:prompt_tokens_total"
    labels = [f'{{engine="0",model_name="{model}"}}' for model in script.models]
    lines = [f"{name}{label} {answers * 100:.1f}" for label in labels]
    return "\n".join([f"# TYPE {name} counter", *lines, ""])


def lm_studio_models(script: Script) -> Json:
    """LM Studio's `GET /api/v1/models`, since 0.4.0."""
    return {"models": [_lm_studio_model(script, name) for name in script.models]}


def _lm_studio_model(script: Script, name: str) -> Json:
    config = {"context_length": script.context or CONTEXT_LENGTH, "parallel": 4}
    return {
        "type": "llm",
        "publisher": "scripted",
        "key": name,
        "display_name": name,
        "architecture": "scripted",
        "quantization": {"name": "Q4_K_M", "bits_per_weight": 4},
        "size_bytes": _SIZE,
        "params_string": "14B",
        "loaded_instances": [{"id": name, "config": config}],
        "max_context_length": CONTEXT_LENGTH,
        "format": "gguf",
        "capabilities": {"vision": False, "trained_for_tool_use": script.tools},
        "description": None,
    }


def older_lm_studio_models(script: Script) -> Json:
    """LM Studio's `GET /api/v0/models`, since 0.3.6."""
    return {
        "object": "list",
        "data": [
            {
                "id": name,
                "object": "model",
                "type": "llm",
                "publisher": "scripted",
                "arch": "scripted",
                "compatibility_type": "gguf",
                "quantization": "Q4_K_M",
                "state": "loaded",
                "max_context_length": CONTEXT_LENGTH,
                "loaded_context_length": script.context or CONTEXT_LENGTH,
                "capabilities": ["tool_use"] if script.tools else [],
            }
            for name in script.models
        ],
    }


def download(script: Script, name: str) -> Json:
    """LM Studio's `POST /api/v1/models/download`: a model that is not served does not exist."""
    if not script.serves(name):
        return {"error": {"type": "model_not_found", "message": f"Model '{name}' not found"}}
    return {"job_id": f"job_{name}", "status": "downloading", "total_size_bytes": _SIZE}


def download_status(job: str) -> Json:
    """LM Studio's `GET /api/v1/models/download/status/JOB`: whatever it was, it has come."""
    return {
        "job_id": job,
        "status": "completed",
        "total_size_bytes": _SIZE,
        "downloaded_bytes": _SIZE,
    }
