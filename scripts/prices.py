"""Trims LiteLLM's price list to orchestrator/prices.json: chat models of clouds, what their tokens
cost, how much they hold. LiteLLM's list has prices for a token; ours for a million.
"""

import json
import re
import sys
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
TARGET = ROOT / "orchestrator" / "prices.json"
LIST = "litellm/model_prices_and_context_window_backup.json"
# LiteLLM's provider: ours, and what its names begin with. Those that cost nothing by the token
# (subscriptions, one's own machine) are not here: LiteLLM's price of them is 0.
PROVIDERS = {
    "anthropic": "anthropic",
    "azure": "azure",
    "bedrock_converse": "bedrock",
    "cerebras": "cerebras",
    "cohere_chat": "cohere_chat",
    "dashscope": "dashscope",
    "deepinfra": "deepinfra",
    "deepseek": "deepseek",
    "fireworks_ai": "fireworks_ai",
    "gemini": "gemini",
    "groq": "groq",
    "meta": "meta",
    "minimax": "minimax",
    "mistral": "mistral",
    "moonshot": "moonshot",
    "openai": "openai",
    "openrouter": "openrouter",
    "together_ai": "together_ai",
    "vertex_ai": "vertex_ai",
    "vertex_ai-anthropic_models": "vertex_ai",
    "vertex_ai-language-models": "vertex_ai",
    "xai": "xai",
    "zai": "zai",
}
PRICES = (
    "input_cost_per_token",
    "output_cost_per_token",
    "cache_read_input_token_cost",
    "cache_creation_input_token_cost",
)
MODELS = re.compile(r'^"models": ', re.MULTILINE)
ABOVE = re.compile(r"input_cost_per_token_above_(\d+)k_tokens")
Entry = Mapping[str, object]


def installed() -> tuple[Path, str, str]:
    """LiteLLM's list in the agent's environment, the version it came with, and its licence."""
    places = (ROOT / ".venv/agents/litellm/lib").glob("python3*/site-packages")
    for place in places:
        for found in place.glob("litellm-*.dist-info"):
            version = found.name.removeprefix("litellm-").removesuffix(".dist-info")
            licence = (found / "licenses" / "LICENSE").read_text()
            return place / LIST, version, licence[licence.index("Copyright") :]
    sys.exit("litellm is not installed in .venv/agents/litellm: run scripts/setup litellm")


def trimmed(everything: Mapping[str, Entry]) -> dict[str, dict[str, list[object]]]:
    """By provider and model: prices of a million tokens, windows, and what is above a size."""
    found: dict[str, dict[str, list[object]]] = {}
    for name, entry in sorted(everything.items()):
        provider = PROVIDERS.get(str(entry.get("litellm_provider")))
        if provider is not None and entry.get("mode") in {"chat", "responses"} and usual(entry):
            model = name.removeprefix(f"{provider}/")
            found.setdefault(provider, {})[model] = row(entry)
    return dict(sorted(found.items()))


def usual(entry: Entry) -> bool:
    """Whether the price is one of ours: by the token, and thoughts cost what words cost."""
    output = entry.get("output_cost_per_token")
    thoughts = entry.get("output_cost_per_reasoning_token", output)
    return bool(entry.get("input_cost_per_token")) and bool(output) and thoughts == output


def row(entry: Entry) -> list[object]:
    values: list[object] = [million(entry.get(name)) for name in PRICES]
    windows = (entry.get("max_input_tokens"), entry.get("max_output_tokens"))
    values += [int(size) if isinstance(size, int | float) else None for size in windows]
    above = sorted(int(size[1]) for name in entry if (size := ABOVE.fullmatch(name)))
    for thousands in above[:1]:
        longer = (million(entry.get(f"{name}_above_{thousands}k_tokens")) for name in PRICES)
        usual_prices = values[: len(PRICES)]
        values.append(
            [
                thousands * 1000,
                *(b if a is None else a for a, b in zip(longer, usual_prices, strict=True)),
            ]
        )
    return values


def million(price: object) -> float | None:
    return round(price * 1e6, 6) if isinstance(price, int | float) else None


def written(
    models: Mapping[str, Mapping[str, object]], version: str, licence: str
) -> Iterator[str]:
    """The file, a model a line: so that a refresh can be read as a difference."""
    head = {
        "date": datetime.now(UTC).date().isoformat(),
        "source": f"LiteLLM {version}, model_prices_and_context_window_backup.json, trimmed",
        "licence": f"MIT. {' '.join(licence.split())}",
        "unit": "US dollars for a million tokens; windows in tokens; null: not stated",
        "columns": [
            *("input", "output", "cache_read", "cache_write", "window", "output_window"),
            ["prompts_above", "input", "output", "cache_read", "cache_write"],
        ],
    }
    yield "{\n"
    for name, value in head.items():
        yield f"{json.dumps(name)}: {json.dumps(value)},\n"
    yield '"models": {\n'
    providers = [
        f"{json.dumps(provider)}: {{\n"
        + ",\n".join(f"{json.dumps(name)}:{compact(entry)}" for name, entry in of_one.items())
        + "\n}"
        for provider, of_one in models.items()
    ]
    yield ",\n".join(providers)
    yield "\n}\n}\n"


def compact(value: object) -> str:
    return json.dumps(value, separators=(",", ":")).replace(".0,", ",").replace(".0]", "]")


def main() -> None:
    path, version, licence = installed()
    models = trimmed(json.loads(path.read_bytes()))
    text = "".join(written(models, version, licence))
    if sys.argv[1:] == ["--check"]:
        if not TARGET.exists() or MODELS.split(TARGET.read_text())[-1] != MODELS.split(text)[-1]:
            sys.exit(f"orchestrator/prices.json is not what LiteLLM {version} says: scripts/prices")
        return
    TARGET.write_text(text)
    count = sum(len(of_one) for of_one in models.values())
    print(f"{TARGET.relative_to(ROOT)}: {count} models, {len(text) // 1000} kB")


if __name__ == "__main__":
    main()
