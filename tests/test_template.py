"""Templates in prompts: what refers to something, what is a mistake, and that values are data."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.template import (
    FIELDS,
    TRUNCATED,
    VALUE_LIMIT,
    Mistake,
    Reference,
    cut,
    pieces,
    rendered,
)


def meant(prompt: str) -> list[str | Reference | Mistake]:
    return [each for _, each in pieces(prompt)]


def test_a_reference_is_a_task_and_a_field():
    assert meant("see {{ tasks.a-b_1.text }}, {{tasks.c.diff}}!") == [
        "see ",
        Reference("a-b_1", "text"),
        ", ",
        Reference("c", "diff"),
        "!",
    ]


@pytest.mark.parametrize("literal", ["{{ '{{' }}", '{{"{{"}}'])
def test_a_literal_can_be_written(literal):
    assert rendered(f"a {literal} b }}}}", str) == "a {{ b }}"


@pytest.mark.parametrize(
    ("prompt", "why"),
    [
        ("{{ x }}", "allowed: {{ tasks.ID.text|diff|branch|status|verified }}; a literal `{{`"),
        ("{{}}", "allowed: "),
        ("{{ tasks.a }}", "allowed: "),
        ("{{ tasks.a.text.upper() }}", "allowed: "),
        ("{{ tasks.a.txt }}", f"unknown field 'txt'; known: {', '.join(FIELDS)}"),
        ("{{ tasks.a.text", "`{{` is not closed by `}}`"),
    ],
)
def test_anything_else_in_braces_is_a_mistake_that_says_what_is_allowed(prompt, why):
    found = meant(prompt)[0]
    assert isinstance(found, Mistake)
    assert found.why.startswith(why)
    assert rendered(prompt, str) == prompt


@given(st.text(st.sampled_from("{}' ta.x"), max_size=20))
def test_the_pieces_are_the_whole_prompt(prompt):
    assert "".join(written for written, _ in pieces(prompt)) == prompt


@given(st.text(max_size=50))
def test_a_value_is_never_looked_at_again(value):
    both = "{{ tasks.a.text }}{{ tasks.a.text }}"
    assert rendered(both, lambda _: value) == value * 2


@given(st.text(max_size=10), st.integers(VALUE_LIMIT - 8, VALUE_LIMIT + 8))
def test_a_long_value_is_cut_between_characters_and_says_so(end, length):
    value = "é" * (length // 2) + end
    found = cut(value)
    if len(value.encode()) <= VALUE_LIMIT:
        assert found == value
    else:
        kept = found.removesuffix(TRUNCATED)
        assert found != kept
        assert value.startswith(kept)
        assert VALUE_LIMIT - 4 < len(kept.encode()) <= VALUE_LIMIT
