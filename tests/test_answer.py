"""Answers that are to satisfy a JSON Schema: where they are found, and what is wrong with them."""

from types import MappingProxyType

import orjson
import pytest
from hypothesis import given

from orchestrator.answer import Answer, asked, read_answer, schema_problem
from tests.strategies import JSON

PATHS = {
    "type": "object",
    "properties": {"paths": {"type": "array", "items": {"type": "string"}}},
    "required": ["paths"],
}


@pytest.mark.parametrize(
    "text",
    [
        '{"paths": ["a"]}',
        'Here it is:\n```json\n{"paths": ["a"]}\n```\nDone.',
        '~~~\n{"paths": ["a"]}\n~~~',
        'First:\n```\n{"x": 1}\n```\nno,\n```json\n{"paths": ["a"]}\n```',
        '```json\n{"paths": ["a"]}\n```\nas\n```python\nprint()\n```',
    ],
)
def test_the_answer_is_the_text_or_a_fenced_block_in_it(text):
    assert read_answer(text, PATHS) == Answer(value={"paths": ["a"]})


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        (None, "there is no answer"),
        ("", "there is no answer"),
        ("a.py, b.py", "the answer holds no JSON"),
        ("```json\n{broken\n```", "the answer holds no JSON"),
        ('{"paths": ["a", 3]}', "$.paths[1]: 3 is not of type 'string'"),
        ('{"path": []}', "$: 'paths' is a required property"),
    ],
)
def test_what_is_wrong_names_the_path(text, problem):
    assert read_answer(text, PATHS).problem == problem


def test_a_wrong_answer_is_kept_beside_its_problem():
    assert read_answer('```\n{"paths": 1}\n```', PATHS).value == {"paths": 1}


def test_a_problem_is_short_however_long_the_answer():
    found = read_answer(orjson.dumps({"paths": "x" * 9999}).decode(), PATHS)
    assert found.problem is not None
    assert len(found.problem) < 250


def test_an_answer_that_nests_too_deeply_is_a_problem_and_no_crash():
    deep = {"$defs": {"l": {"items": {"$ref": "#/$defs/l"}}}, "$ref": "#/$defs/l"}
    found = read_answer("[" * 900 + "]" * 900, deep)
    assert found.problem == "$: nested too deeply to be checked"


@pytest.mark.parametrize("reference", ["#/$defs/none", "http://127.0.0.1:9/schema.json"])
def test_a_schema_is_never_fetched(reference):
    found = read_answer("1", {"$ref": reference})
    assert found.problem is not None
    assert found.problem.startswith("$: the schema does not hold what it refers to: ")
    schema = {"properties": {"a": {"anyOf": [True, {"$ref": reference}]}}}
    told = schema_problem(schema)
    assert told is not None
    assert told[0] == ("properties", "a", "anyOf", 1, "$ref")


@given(JSON)
def test_any_value_is_an_answer_where_all_are_allowed(value):
    assert read_answer(orjson.dumps(value).decode(), {}) == Answer(value=value)


def test_a_schema_that_is_none_is_told_with_its_place():
    assert schema_problem(PATHS) is None
    assert schema_problem({"$defs": {"a": {}}, "$ref": "#/$defs/a"}) is None
    assert schema_problem({"properties": {"$ref": {"type": "string"}}}) is None
    assert schema_problem(MappingProxyType(PATHS)) is None
    found = schema_problem({"properties": {"a": {"type": "strin"}}})
    assert found is not None
    where, why = found
    assert where[:2] == ("properties", "a")
    assert "'strin'" in why


def test_an_older_draft_is_held_to_its_own_rules():
    older = {
        "$schema": "http://json-schema.org/draft-04/schema#",
        "minimum": 3,
        "exclusiveMinimum": True,
    }
    assert schema_problem(older) is None
    assert read_answer("3", older).problem is not None


def test_an_agent_is_told_the_schema():
    told = asked(MappingProxyType(PATHS))
    assert '"required"' in told
    assert orjson.loads(told.split("```json\n")[1].split("```")[0]) == PATHS
