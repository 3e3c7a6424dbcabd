"""`ORCHESTRATE_*`: one variable for each default and limit; a misspelt one is refused."""

import pytest

from orchestrator.config.variables import SETTINGS, of_environment, variable_of
from orchestrator.errors import ConfigError
from orchestrator.task import Limits


def test_each_default_and_limit_has_its_variable():
    assert SETTINGS["ORCHESTRATE_STRATEGY"] == ("defaults", "strategy")
    assert SETTINGS["ORCHESTRATE_LIMITS_COST_USD"] == ("limits", "cost_usd")
    assert {variable_of(key): key for key in SETTINGS.values()} == SETTINGS


@pytest.mark.parametrize(
    ("name", "text", "value"),
    [
        ("WALL", "90s", Limits(wall_s=90)),
        ("STEPS", "7", Limits(steps=7)),
        ("COST_USD", "1.50", Limits(cost_usd=1.5)),
        ("COST_USD", "2", Limits(cost_usd=2)),
        ("OUTPUT", "1MiB", Limits(output_bytes=1024**2)),
        ("WALL", "", Limits()),
    ],
)
def test_a_limit_is_written_as_in_a_file(name, text, value):
    rung = of_environment({f"ORCHESTRATE_LIMITS_{name}": text, "PATH": "/bin"})
    assert rung.model.limits.limits() == value


def test_a_list_is_written_with_commas():
    limits = of_environment({"ORCHESTRATE_LIMITS_AGENTS": "a, b,,c "}).model.limits
    assert limits.agents == ["a", "b", "c"]


@pytest.mark.parametrize(
    ("name", "text", "why"),
    [
        ("STRATEGY", "fast", "found 'fast'; allowed: auto, local, cloud, cascade"),
        ("LIMITS_WALL", "1 day", "found '1 day'; allowed: a duration above 0, such as 90s"),
        ("LIMITS_WALL", "90", "found '90'; allowed: a duration above 0, such as 90s"),
        ("LIMITS_STEPS", "many", "found 'many'; allowed: a whole number"),
        ("LIMITS_STEPS", "0", "found '0'; allowed: greater than or equal to 1"),
        ("LIMITS_COST_USD", "nan", "found 'nan'; allowed: a number that has an end"),
        ("LIMITS_COST_USD", "-1", "found '-1'; allowed: a number above 0"),
        ("LIMITS_AGENTS", ",", "found a list; allowed: at least one name; without the key, every"),
        ("AGENT", "a\x00", "found 'a\\x00'; allowed: a text without NUL"),
    ],
)
def test_a_value_that_cannot_be_meant_is_refused_by_its_variable(name, text, why):
    with pytest.raises(ConfigError) as caught:
        of_environment({f"ORCHESTRATE_{name}": text})
    assert str(caught.value).startswith(f"ORCHESTRATE_{name}: {why}")


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("LIMIT_COST_USD", "ORCHESTRATE_LIMITS_COST_USD"),
        ("LIMITS_COST", "ORCHESTRATE_LIMITS_COST_USD"),
        ("STRATEGIE", "ORCHESTRATE_STRATEGY"),
        ("DEFAULTS_AGENT", "ORCHESTRATE_AGENT"),
        ("CONFG", "ORCHESTRATE_CONFIG"),
        ("STATEDIR", "ORCHESTRATE_STATE_DIR"),
    ],
)
def test_a_misspelt_variable_is_refused_with_the_one_that_was_meant(name, meant):
    with pytest.raises(ConfigError) as caught:
        of_environment({f"ORCHESTRATE_{name}": "1"})
    text = f"ORCHESTRATE_{name}: no such setting; did you mean {meant}?"
    assert str(caught.value) == text


def test_what_looks_like_a_limit_and_is_like_none_is_refused_with_all():
    with pytest.raises(ConfigError, match="known: ORCHESTRATE_LIMITS_WALL, ORCHESTRATE_LIMITS_"):
        of_environment({"ORCHESTRATE_LIMITS_QQQQQQ": "1"})


@pytest.mark.parametrize(
    "name",
    ["ORCHESTRATE_CONFIG", "ORCHESTRATE_STATE_DIR", "ORCHESTRATE_RUN_ID", "ORCHESTRATE_QQQ",
     "ORCHESTRATE_", "ORCHESTRATION", "STRATEGY"],
)  # fmt: skip
def test_other_variables_are_left_alone(name):
    rung = of_environment({name: "1"})
    assert rung.model == of_environment({}).model


def test_several_problems_are_told_at_once():
    with pytest.raises(ConfigError) as caught:
        of_environment({"ORCHESTRATE_STRATEGY": "x", "ORCHESTRATE_LIMITS_STEPS": "x"})
    assert len(str(caught.value).splitlines()) == 2
