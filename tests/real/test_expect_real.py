"""Answers by a JSON Schema, with the real agents: asked for in each one's way, checked by us."""

from pathlib import Path

import pytest

from adapters.claude import adapter as claude
from adapters.codex import adapter as codex
from tests.real.scene import Turns, play

pytestmark = [pytest.mark.anyio, pytest.mark.real]

SCHEMA = {
    "type": "object",
    "properties": {"files": {"type": "array", "items": {"type": "string"}}},
    "required": ["files"],
    "additionalProperties": False,
}
TASK = {"kind": "search", "expect": SCHEMA}


@pytest.mark.parametrize(
    ("profile", "access"),
    [("clean", "edit"), pytest.param("user", "read", marks=pytest.mark.thorough)],
)
async def test_claude_answers_through_its_own_structured_output(
    tmp_path: Path, profile: str, access: str
) -> None:
    call = {"name": "StructuredOutput", "arguments": {"files": ["hello.py"]}}
    turns: Turns = [{"text": "I look.", "tool_calls": [call]}, {"text": "Said."}]
    home = str(tmp_path / "agent") if profile == "clean" else None
    task = {**TASK, "access": access}
    played = await play(claude, turns, tmp_path, task=task, profile=profile, home=home)
    assert played.outcome.status == "succeeded"
    assert played.outcome.answer == {"files": ["hello.py"]}
    assert "StructuredOutput" in str(played.requests[0].body)


async def test_a_model_of_claude_may_also_say_the_answer_in_words(
    tmp_path: Path,
) -> None:
    turns = [{"text": '{"files": ["hello.py"]}'}] * 8
    home = str(tmp_path / "agent")
    played = await play(claude, turns, tmp_path, task=TASK, profile="clean", home=home)
    assert played.outcome.answer == {"files": ["hello.py"]}
    assert played.outcome.status == "succeeded"


async def test_an_answer_of_another_shape_fails_with_its_path(tmp_path: Path) -> None:
    turns = [{"text": '{"files": [1]}'}]
    played = await play(codex, turns, tmp_path, task=TASK)
    outcome = played.outcome
    assert outcome.error is not None
    assert (outcome.status, outcome.error.kind) == ("failed", "invalid_answer")
    assert "$.files[0]: 1 is not of type 'string'" in outcome.evidence[-1]


async def test_codex_is_told_the_schema_in_the_prompt(tmp_path: Path) -> None:
    # Its own `exec --output-schema` sends each request, also those that are to call tools, with
    # `strict: true` and the schema as it is: one with an optional property is then refused by
    # OpenAI, and a local server may answer with nothing but JSON.
    turns = [{"text": '```json\n{"files": ["hello.py"]}\n```'}]
    played = await play(codex, turns, tmp_path, task=TASK)
    assert played.outcome.answer == {"files": ["hello.py"]}
    assert "valid against this JSON Schema" in str(played.requests[0].body)
