"""What the scripted server says besides answers: which models it has, which version it is, that it
is well.

Ollama's paths (`/api/...`) and the `/v1/models` that OpenAI, Anthropic, LM Studio, vLLM and
llama.cpp share. Pure.
"""

from __future__ import annotations

from collections.abc import Iterator
from hashlib import sha256

from pydantic import JsonValue

from orchestrator.testing.dialect import Json
from orchestrator.testing.script import Script

# codex --oss refuses an Ollama older than 0.13.4.
OLLAMA_VERSION = "0.30.0"
CONTEXT_LENGTH = 131_072
_LAYER = 4_000_000_000
_EPOCH = "2026-01-01T00:00:00Z"
_EPOCH_S = 1_767_225_600
_DETAILS: Json = {
    "format": "gguf",
    "family": "scripted",
    "families": ["scripted"],
    "parameter_size": "0B",
    "quantization_level": "Q4_K_M",
}


def models(script: Script, served: list[Json]) -> Json:
    """`GET /v1/models`, with OpenAI's and Anthropic's keys."""
    return {
        "object": "list",
        "data": served,
        "has_more": False,
        "first_id": script.models[0],
        "last_id": script.models[-1],
    }


def model(name: str) -> Json:
    """`GET /v1/models/NAME`."""
    return _model(name)


def _model(name: str) -> Json:
    return {
        "id": name,
        "object": "model",
        "created": _EPOCH_S,
        "owned_by": "scripted",
        "type": "model",
        "display_name": name,
        "created_at": _EPOCH,
    }


def tags(script: Script) -> Json:
    """`GET /api/tags`: the models that Ollama has on disk."""
    return {"models": [_tag(name) for name in script.models]}


def running(script: Script, answers: int = 0) -> Json:
    """`GET /api/ps`: the models that Ollama has loaded, with the context really configured. Each of
    its answers puts off when a model is unloaded.
    """
    loaded = {
        "expires_at": f"2126-01-01T00:00:00.{answers:09}Z",
        "size_vram": 0,
        "context_length": script.context or CONTEXT_LENGTH,
    }
    return {"models": [{**_tag(name), **loaded} for name in script.models]}


def _tag(name: str) -> Json:
    full = name if ":" in name or name == "*" else f"{name}:latest"
    return {
        "name": full,
        "model": full,
        "modified_at": _EPOCH,
        "size": 0,
        "digest": sha256(name.encode()).hexdigest(),
        "details": _DETAILS,
    }


def show(script: Script) -> Json:
    """`POST /api/show`: what a model can do."""
    return {
        "details": _DETAILS,
        "model_info": {
            "general.architecture": "scripted",
            "scripted.context_length": CONTEXT_LENGTH,
        },
        "capabilities": ["completion", *(["tools"] if script.tools else []), "thinking"],
        "template": "{{ .Prompt }}",
        "modified_at": _EPOCH,
    }


def pull(script: Script, body: JsonValue) -> Iterator[Json]:
    """`POST /api/pull`: a served model is there at once, any other does not exist."""
    yield {"status": "pulling manifest"}
    match body:
        case {"model": str(name)} | {"name": str(name)} if not script.serves(name):
            yield {"error": "pull model manifest: file does not exist"}
        case _:
            for done in range(0, _LAYER + 1, _LAYER // 4):
                layer = {"digest": "sha256:0", "total": _LAYER, "completed": done}
                yield {"status": "pulling 000000000000", **layer}
            yield {"status": "verifying sha256 digest"}
            yield {"status": "success"}
