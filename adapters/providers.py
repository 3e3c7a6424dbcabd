"""Models, addresses and variables as LiteLLM names them, for every agent behind it.

Which agent it is does not matter here.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from urllib.parse import urlsplit

from orchestrator.adapter import Agent

# --- which model, where --------------------------------------------------------------------------

_OF_SERVER = MappingProxyType(
    {
        "ollama": "ollama_chat",
        "lmstudio": "lm_studio",
        "vllm": "hosted_vllm",
        "llamacpp": "openai",
        "openai": "openai",
        "openai-compatible": "openai",
    }
)
"""LiteLLM's provider for each kind of model server."""

_SYNONYMS = MappingProxyType({"ollama_chat": ("ollama",), "hosted_vllm": ("vllm",)})
_VERSIONED = frozenset({"openai", "lm_studio", "hosted_vllm", "llamafile", "custom_openai"})
"""Providers whose address ends in the API's version, `/v1`."""

_UNVERSIONED = frozenset({"ollama_chat", "anthropic"})
"""Providers that put the whole path behind the address themselves."""

WHOLE = frozenset({"gemini", "vertex_ai", "vertex_ai_beta"})
"""Providers that are asked for whole answers: in their streams LiteLLM makes up a `stop` for every
piece, so that an answer that was cut would pass for a finished one (seen in 1.106.2).
"""

_UNNAMED: tuple[tuple[re.Pattern[str], str], ...] = (
    (re.compile(r"gpt-|chatgpt-|o\d|codex-|ft:gpt"), "openai"),
    (re.compile(r"claude"), "anthropic"),
    (re.compile(r"gemini"), "gemini"),
)
"""Models that are known without their provider."""


def litellm_model(agent: Agent) -> str:
    """The agent's model as LiteLLM names it: `PROVIDER/MODEL`."""
    model = agent.model or ""
    provider, slash, rest = model.partition("/")
    of_server = _OF_SERVER.get(agent.server or "")
    if of_server is not None:
        known = (of_server, *_SYNONYMS.get(of_server, ()))
        return f"{of_server}/{rest if slash and provider in known else model}"
    if slash:
        return f"ollama_chat/{rest}" if provider == "ollama" else model
    if agent.base_url is not None:
        return f"openai/{model}"
    for pattern, name in _UNNAMED:
        if pattern.match(model):
            return f"{name}/{model}"
    return model


def endpoint(base_url: str, provider: str) -> str:
    """The address as LiteLLM wants it for this provider, however it was written."""
    url = base_url.rstrip("/")
    if "://" not in url:
        parts = urlsplit(f"//{url}")
        host = parts.hostname or ""
        public = parts.port in {None, 443} and "." in host and not re.fullmatch(r"[\d.]+", host)
        url = f"{'https' if public else 'http'}://{url}"
    if provider in _UNVERSIONED:
        return re.sub(r"/(v1|api)$", "", url)
    if provider in _VERSIONED and urlsplit(url).path in {"", "/"}:
        return f"{url}/v1"
    return url


# --- which variables -----------------------------------------------------------------------------


@dataclass(frozen=True)
class Variables:
    """What a provider reads from the environment: keys, addresses, settings that are neither."""

    keys: tuple[str, ...]
    addresses: tuple[str, ...] = ()
    settings: tuple[str, ...] = ()

    @property
    def all(self) -> tuple[str, ...]:
        """All of them."""
        return (*self.keys, *self.addresses, *self.settings)


_AWS = Variables(
    keys=(
        "AWS_ACCESS_KEY_ID",
        "AWS_SECRET_ACCESS_KEY",
        "AWS_SESSION_TOKEN",
        "AWS_BEARER_TOKEN_BEDROCK",
        "AWS_WEB_IDENTITY_TOKEN",
        "AWS_WEB_IDENTITY_TOKEN_FILE",
        "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI",
        "AWS_CONTAINER_CREDENTIALS_FULL_URI",
        "AWS_CONTAINER_AUTHORIZATION_TOKEN",
        "AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE",
    ),
    addresses=("AWS_BEDROCK_RUNTIME_ENDPOINT", "AWS_ENDPOINT_URL"),
    settings=(
        "AWS_REGION",
        "AWS_REGION_NAME",
        "AWS_DEFAULT_REGION",
        "AWS_PROFILE",
        "AWS_ROLE_ARN",
        "AWS_ROLE_NAME",
        "AWS_SESSION_NAME",
        "AWS_ROLE_SESSION_NAME",
        "AWS_CONFIG_FILE",
        "AWS_SHARED_CREDENTIALS_FILE",
    ),
)
_VERTEX = Variables(
    keys=("GOOGLE_APPLICATION_CREDENTIALS", "VERTEXAI_CREDENTIALS", "VERTEX_CREDENTIALS"),
    addresses=("VERTEXAI_API_BASE", "VERTEX_API_BASE"),
    settings=(
        "VERTEXAI_PROJECT",
        "VERTEXAI_LOCATION",
        "VERTEX_PROJECT",
        "VERTEX_LOCATION",
        "GOOGLE_CLOUD_PROJECT",
        "CLOUDSDK_CONFIG",
    ),
)
_AZURE_LOGIN = (
    "AZURE_AD_TOKEN",
    "AZURE_TENANT_ID",
    "AZURE_CLIENT_ID",
    "AZURE_CLIENT_SECRET",
    "AZURE_USERNAME",
    "AZURE_PASSWORD",
)
_COHERE = Variables(keys=("COHERE_API_KEY", "CO_API_KEY"), addresses=("COHERE_API_BASE",))
_WATSONX = Variables(
    keys=("WATSONX_API_KEY", "WATSONX_APIKEY", "WATSONX_ZENAPIKEY", "WATSONX_TOKEN"),
    addresses=("WATSONX_URL", "WATSONX_API_BASE", "WATSONX_IAM_URL"),
    settings=(
        "WATSONX_PROJECT_ID",
        "WATSONX_SPACE_ID",
        "WATSONX_DEPLOYMENT_SPACE_ID",
        "WATSONX_REGION",
    ),
)

_VARIABLES: Mapping[str, Variables] = MappingProxyType(
    {
        "openai": Variables(
            # The account belongs to the key: it must not travel to another address without it.
            keys=("OPENAI_API_KEY", "OPENAI_ORGANIZATION", "OPENAI_PROJECT"),
            addresses=("OPENAI_BASE_URL", "OPENAI_API_BASE"),
        ),
        "anthropic": Variables(
            keys=("ANTHROPIC_API_KEY", "ANTHROPIC_AUTH_TOKEN"),
            addresses=("ANTHROPIC_BASE_URL", "ANTHROPIC_API_BASE"),
        ),
        "gemini": Variables(
            keys=("GEMINI_API_KEY", "GOOGLE_API_KEY"), addresses=("GEMINI_API_BASE",)
        ),
        "azure": Variables(
            keys=("AZURE_API_KEY", "AZURE_OPENAI_API_KEY", *_AZURE_LOGIN),
            addresses=("AZURE_API_BASE",),
            settings=("AZURE_API_VERSION", "AZURE_API_TYPE", "AZURE_SCOPE", "AZURE_CREDENTIAL"),
        ),
        "azure_ai": Variables(
            keys=("AZURE_AI_API_KEY", "AZURE_API_KEY", *_AZURE_LOGIN),
            addresses=("AZURE_AI_API_BASE",),
            settings=("AZURE_AI_API_VERSION",),
        ),
        "vertex_ai": _VERTEX,
        "vertex_ai_beta": _VERTEX,
        "bedrock": _AWS,
        "sagemaker": _AWS,
        "sagemaker_chat": _AWS,
        "openrouter": Variables(
            keys=("OPENROUTER_API_KEY", "OR_API_KEY"),
            addresses=("OPENROUTER_API_BASE",),
            settings=("OR_SITE_URL", "OR_APP_NAME"),
        ),
        "cohere": _COHERE,
        "cohere_chat": _COHERE,
        "mistral": Variables(
            keys=("MISTRAL_API_KEY", "MISTRAL_AZURE_API_KEY"),
            addresses=("MISTRAL_API_BASE", "MISTRAL_AZURE_API_BASE"),
        ),
        "perplexity": Variables(keys=("PERPLEXITYAI_API_KEY", "PERPLEXITY_API_KEY")),
        "together_ai": Variables(
            keys=("TOGETHERAI_API_KEY", "TOGETHER_AI_API_KEY", "TOGETHER_API_KEY"),
            addresses=("TOGETHER_AI_API_BASE",),
        ),
        "fireworks_ai": Variables(
            keys=(
                "FIREWORKS_AI_API_KEY",
                "FIREWORKS_API_KEY",
                "FIREWORKSAI_API_KEY",
                "FIREWORKS_AI_TOKEN",
            ),
            addresses=("FIREWORKS_API_BASE",),
        ),
        "huggingface": Variables(
            keys=("HUGGINGFACE_API_KEY", "HF_TOKEN"), addresses=("HF_API_BASE",)
        ),
        "cloudflare": Variables(
            keys=("CLOUDFLARE_API_KEY",),
            addresses=("CLOUDFLARE_API_BASE",),
            settings=("CLOUDFLARE_ACCOUNT_ID",),
        ),
        "databricks": Variables(
            keys=("DATABRICKS_API_KEY", "DATABRICKS_CLIENT_ID", "DATABRICKS_CLIENT_SECRET"),
            addresses=("DATABRICKS_API_BASE",),
        ),
        "datarobot": Variables(keys=("DATAROBOT_API_TOKEN",), addresses=("DATAROBOT_ENDPOINT",)),
        "snowflake": Variables(
            keys=("SNOWFLAKE_JWT",),
            addresses=("SNOWFLAKE_API_BASE",),
            settings=("SNOWFLAKE_ACCOUNT_ID",),
        ),
        "meta_llama": Variables(keys=("LLAMA_API_KEY",), addresses=("LLAMA_API_BASE",)),
        "watsonx": _WATSONX,
        "watsonx_text": _WATSONX,
        # Their prefixes and their variables differ.
        "ollama_chat": Variables(keys=("OLLAMA_API_KEY",), addresses=("OLLAMA_API_BASE",)),
    }
)

_LIKE_MOST = ("DEEPSEEK", "GROQ", "XAI", "CEREBRAS", "NVIDIA_NIM", "DEEPINFRA", "MOONSHOT", "ZAI")
KEYS: tuple[str, ...] = (
    *dict.fromkeys(key for known in _VARIABLES.values() for key in known.keys if "KEY" in key),
    *(f"{name}_API_KEY" for name in _LIKE_MOST),
)
"""Variables in which a key of one of the better known providers may be."""

_SEVERAL_KEYS = frozenset({"bedrock", "sagemaker", "sagemaker_chat", "vertex_ai", "vertex_ai_beta"})
"""Providers whose key is made of several variables: no single one can be passed in its place."""


def variables(provider: str) -> Variables:
    """What LiteLLM reads for this provider; for most it is NAME_API_KEY and NAME_API_BASE."""
    if (known := _VARIABLES.get(provider)) is not None:
        return known
    name = re.sub(r"\W", "_", provider).upper()
    return Variables(keys=(f"{name}_API_KEY",), addresses=(f"{name}_API_BASE",))


@dataclass(frozen=True, kw_only=True)
class Access:
    """What the front gets of the environment. `passed`: name for it: name here."""

    passed: Mapping[str, str]
    secrets: tuple[str, ...]
    key: str | None = None


def environment(agent: Agent, provider: str, key: str) -> Access:
    """The provider's variables. Base URL and key come from the same place: the agent or these.

    `key` is the variable in which a key that the agent names is passed on.
    """
    own = variables(provider)
    named = agent.api_key_env
    if (agent.base_url is None and named in {None, *own.keys}) or (
        provider in _SEVERAL_KEYS and named in own.keys
    ):
        names = own.all if agent.base_url is None else (*own.keys, *own.settings)
        return Access(passed={name: name for name in names}, secrets=own.keys)
    passed = {name: name for name in own.settings}
    if named is None:
        return Access(passed=passed, secrets=())
    return Access(passed={**passed, key: named}, secrets=(key,), key=key)
