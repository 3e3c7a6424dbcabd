"""What a person reads when a real agent could not come to its model: its words and our remedy, by
the recordings. What is found before an agent is started: test_readiness.py.
"""

import pytest

from orchestrator.config.plugins import installed_servers
from orchestrator.remedy import remedy
from tests.recordings import RECORDINGS, Recording

SERVERS = installed_servers()
DOWN = "Is the model's provider running and reachable at http://127.0.0.1:9?"
LESS = "Give the task less to read (`files:`), or a model with a larger context."
RAISE = "Raise the limit under `limits:`, or split the task."
WAIT = "or use another agent or model."
LOG = "see its log, or try again later."
VALID = "Is the key in RECORD_KEY valid for"
ANOTHER = "there? Name another with --model."
SET = "Set NOT_SET, or name the variable that holds the key with --api-key-env."

TOLD = {
    "unavailable": {
        "aider/model_down": ("cannot connect to http://127.0.0.1:9/v1: Connection refused", DOWN),
        "claude/model_down": ("Connection refused", DOWN),
        "codex/model_down": ("Connection failed: error sending request", DOWN),
        "codex/oss_lmstudio_down": ("LM Studio is not responding.", "(`lms server start`)?"),
        "codex/oss_ollama_down": ("No running Ollama server detected.", "(`ollama serve`)"),
        "gemini/model_down": ("fetch failed", DOWN),
        "jsonl/model-down": ("Cannot connect to API: Unable to connect.", DOWN),
        "litellm/model_down": ("cannot connect to http://127.0.0.1:9/v1: Connection refused", DOWN),
        "opencode/model_down": ("Cannot connect to API: Unable to connect.", DOWN),
        "qwen/model_down": ("Connection error.", DOWN),
        "aider/server_error_500": ("The server had an error while processing your request.", LOG),
        "claude/server_error_500": ("API Error: 500 Internal server error.", LOG),
        "codex/server_error_500": ("experiencing high demand", LOG),
        "litellm/server_error_500": ("The server had an error while processing", LOG),
        "litellm/ollama_500": ("internal server error", f"The fault lies with Ollama: {LOG}"),
    },
    "model_not_found": {
        "aider/model_404": ("The model `none` does not exist", ANOTHER),
        "claude/model_404": ("There's an issue with the selected model (none).", ANOTHER),
        "codex/model_404": ("The model `gpt-none` does not exist", ANOTHER),
        "litellm/model_404": ("The model `none` does not exist", ANOTHER),
    },
    "auth_failed": {
        "aider/unauthorized_401": ("Incorrect API key provided", VALID),
        "claude/unauthorized_401": ("Not logged in", VALID),
        "codex/unauthorized_401": ("Incorrect API key provided", VALID),
        "litellm/unauthorized_401": ("Incorrect API key provided", VALID),
        "aider/missing_key": ("no key: NOT_SET is not set", SET),
        "litellm/missing_key": ("no key: NOT_SET is not set", SET),
        "claude/not_logged_in": ("Not logged in", "Log in with `claude` and /login, or name a"),
    },
    "context_overflow": {
        "aider/context_overflow": ("maximum context length is 8192 tokens", LESS),
        "claude/context_overflow": ("Prompt is too long", LESS),
        "codex/context_overflow": ("ran out of room in the model's context window", LESS),
        "gemini/context_overflow": ("exceeds the maximum number of tokens allowed", LESS),
        "jsonl/context-overflow": ("maximum context length is 8192 tokens", LESS),
        "litellm/context_overflow": ("maximum context length is 8192 tokens", LESS),
        "litellm/ollama_overflow": ("the input length exceeds the context length", LESS),
        "opencode/context_overflow": ("context exceeds model limit", LESS),
        "qwen/context_overflow": ("maximum context length is 8192 tokens", LESS),
    },
    "budget_exceeded": {
        "aider/cost_limit": ("the limit of cost is reached", RAISE),
        "aider/step_limit": ("the limit of steps is reached", RAISE),
        "claude/over_budget": ("Reached maximum budget ($0.01)", RAISE),
        "litellm/cost_limit": ("the agent reached its cost limit", RAISE),
        "litellm/step_limit": ("the agent used up its steps", RAISE),
    },
    "rate_limited": {
        "aider/rate_limit_429": ("Rate limit reached", WAIT),
        "claude/rate_limit_429": ("rate limit of 40,000 input tokens a minute", WAIT),
        "codex/rate_limit_429": ("429 Too Many Requests", WAIT),
        "codex/usage_limit": ("hit your usage limit", WAIT),
        "jsonl/rate-limited": ("Rate limit reached", WAIT),
        "litellm/rate_limit_429": ("Rate limit reached", WAIT),
    },
}
CASES = [(status, name, *said) for status, each in TOLD.items() for name, said in each.items()]


def recorded(name: str) -> Recording:
    adapter, case = name.split("/")
    (found,) = (
        one
        for one in RECORDINGS
        if one.facts["adapter"] == adapter and one.name.rpartition("/")[2] == case
    )
    return found


@pytest.mark.parametrize(("status", "name", "text", "hint"), CASES, ids=[case[1] for case in CASES])
def test_each_agents_failure_has_its_status_its_words_and_its_remedy(status, name, text, hint):
    recording = recorded(name)
    _, outcome = recording.play()
    assert outcome.status == status
    assert outcome.error is not None
    assert text in outcome.error.text
    assert hint in remedy(outcome.error, recording.agent, SERVERS.get(recording.agent.server or ""))
