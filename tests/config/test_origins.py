"""Every value is told with the level that set it and where; no secret is."""

from pathlib import Path

import pytest

from orchestrator.config import Setting
from orchestrator.config.origins import HIDDEN, displayed
from tests.config.places import found, named, project, user
from tests.config.test_trust import trusted


def told(home: Path, **environ: str) -> dict[str, tuple[object, str, str | None]]:
    settings = found(home, environ).settings
    assert len({setting.key for setting in settings}) == len(settings) or "servers" in str(settings)
    return {setting.key: short(setting) for setting in settings}


def short(setting: Setting) -> tuple[object, str, str | None]:
    holds = setting.holds
    return holds.value, holds.origin.level, holds.origin.where


def others(home: Path, key: str, **environ: str) -> list[tuple[object, str]]:
    (setting,) = [one for one in found(home, environ).settings if one.key == key]
    return [(one.value, one.origin.level) for one in setting.others]


def test_without_any_configuration_the_built_in_values_are_told(home):
    assert told(home) == {
        "defaults.strategy": ("auto", "default", None),
        "defaults.fallback": ("none", "default", None),
        "defaults.deliver": ("branch", "default", None),
        "defaults.delegation": ("off", "default", None),
        "limits.wall": ("30m", "default", None),
        "limits.stall": ("5m", "default", None),
        "limits.tool": ("15m", "default", None),
        "limits.check": ("10m", "default", None),
        "limits.setup": ("10m", "default", None),
        "limits.cost_usd": (5.0, "default", None),
        "limits.output": ("1GiB", "default", None),
        "limits.depth": (3, "default", None),
        "limits.children": (10, "default", None),
        "limits.privacy": ("any", "default", None),
        "queue.concurrency": (4, "default", None),
        "state": (str(home / "home" / ".local" / "state" / "orchestrate"), "default", None),
    }


def test_a_preference_is_the_strongest_levels_and_the_others_are_told(home):
    at_user = user(home, '# mine\n[defaults]\nstrategy = "cloud"\n[kinds]\nfix = "cheap"')
    at_project = project(home, '[defaults]\nstrategy = "local"\n[kinds]\nfix = "mine"')
    assert told(home)["defaults.strategy"] == ("local", "project", f"{at_project}:2")
    assert told(home)["kinds.fix"] == ("mine", "project", f"{at_project}:4")
    assert others(home, "defaults.strategy") == [("cloud", "user")]
    variable = "ORCHESTRATE_STRATEGY"
    assert told(home, **{variable: "auto"})["defaults.strategy"] == (
        "auto",
        "environment",
        variable,
    )
    assert others(home, "defaults.strategy", **{variable: "auto"}) == [
        ("local", "project"),
        ("cloud", "user"),
    ]
    project(home, "")
    assert told(home)["defaults.strategy"] == ("cloud", "user", f"{at_user}:3")


@pytest.mark.parametrize(
    ("in_user", "in_project", "holds", "level"),
    [
        ('wall = "2h"', 'wall = "90m"', "90m", "project"),
        ('wall = "90m"', "wall = 7200", "90m", "user"),
        ("steps = 3", "steps = 3", 3, "user"),
        ('privacy = "local"', 'privacy = "any"', "local", "user"),
        ('privacy = "any"', 'privacy = "local"', "local", "project"),
        ('output = "1MiB"', 'output = "1GiB"', "1MiB", "user"),
    ],
)
def test_a_limit_is_the_strictest_levels_and_all_are_told(home, in_user, in_project, holds, level):
    user(home, f"[limits]\n{in_user}")
    project(home, f"[limits]\n{in_project}")
    key = f"limits.{in_user.split(' ')[0]}"
    assert told(home)[key][:2] == (holds, level)
    assert len(others(home, key)) == 1


def test_the_agents_that_all_levels_allow_come_from_all_of_them(home):
    at_user = user(home, '[limits]\nagents = ["b", "a"]')
    assert told(home)["limits.agents"] == (["b", "a"], "user", f"{at_user}:2")
    name = "ORCHESTRATE_LIMITS_AGENTS"
    both = told(home, **{name: "b,c"})["limits.agents"]
    assert both == (["b"], "environment", f"{at_user}:2, {name}")
    assert others(home, "limits.agents", **{name: "b,c"}) == [
        (["b", "c"], "environment"),
        (["b", "a"], "user"),
    ]


def test_a_numbers_variable_is_told_as_a_number(home):
    name = "ORCHESTRATE_LIMITS_COST_USD"
    assert told(home, **{name: "2"})["limits.cost_usd"] == (2.0, "environment", name)


def test_an_agents_keys_are_told_and_what_follows_from_them(home):
    path = user(home, '[agents.a]\nadapter = "mine"\nserver = "ollama"')
    assert {key: value for key, value in told(home).items() if key.startswith("agents.")} == {
        "agents.a.adapter": ("mine", "user", f"{path}:2"),
        "agents.a.server": ("ollama", "user", f"{path}:3"),
        "agents.a.base_url": ("http://127.0.0.1:11434", "default", None),
        "agents.a.tier": ("local", "default", None),
        "agents.a.profile": ("clean", "default", None),
    }


def test_an_agent_of_a_stronger_level_holds_as_a_whole_if_it_is_trusted(home):
    user(home, '[agents.a]\nadapter = "mine"\nmodel = "u"')
    project(home, '[agents.a]\nadapter = "mine"\nmodel = "p"\nprofile = "user"')
    assert told(home)["agents.a.model"][:2] == ("u", "user")
    assert others(home, "agents.a.model") == [("p", "project")]
    trusted(home)
    assert told(home)["agents.a.model"][:2] == ("p", "project")
    assert others(home, "agents.a.model") == [("u", "user")]


def test_a_named_file_is_a_level_of_its_own(home):
    settings = {one.key: short(one) for one in named(home, "[limits]\nsteps = 3").settings}
    assert settings["limits.steps"] == (3, "file", f"{home / 'named.toml'}:2")


def test_variables_of_providers_are_told_and_a_key_only_by_its_name(home):
    environ = {
        "OLLAMA_HOST": "desk:1",
        "LM_STUDIO_MODEL": "m",
        "OPENAI_API_KEY": "sk-geheim-geheim",
        "OPENAI_BASE_URL": "https://me:geheim@x.example/v1",
    }
    values = {key: one for key, one in told(home, **environ).items() if one[1] == "provider"}
    assert values == {
        "servers.ollama.base_url": ("desk:1", "provider", "OLLAMA_HOST"),
        "servers.lmstudio.model": ("m", "provider", "LM_STUDIO_MODEL"),
        "servers.openai.api_key_env": ("OPENAI_API_KEY", "provider", "OPENAI_API_KEY"),
        "servers.openai.base_url": ("https://x.example/v1", "provider", "OPENAI_BASE_URL"),
    }


def test_the_folder_of_records_is_told(home):
    value = told(home, ORCHESTRATE_STATE_DIR="/x")["state"]
    assert value == ("/x", "environment", "ORCHESTRATE_STATE_DIR")


@pytest.mark.parametrize(
    ("key", "value", "shown"),
    [
        (("agents", "a", "argv"), ["x", "--key", "sk-geheimgeheim"], ["x", "--key", HIDDEN]),
        (
            ("agents", "a", "env"),
            {"PORT": "1", "X": {"Y": "geheim"}},
            {"PORT": HIDDEN, "X": HIDDEN},
        ),
        (("agents", "a", "api_key"), "geheim", HIDDEN),
        (("agents", "a", "headers"), {"Authorization": "geheim"}, {"Authorization": HIDDEN}),
        (("agents", "a", "auth_token"), ["geheim"], HIDDEN),
        (("agents", "a", "api_key_env"), "MY_KEY", "MY_KEY"),
        (("agents", "a", "sandbox"), "off", "off"),
        (("agents", "a", "depth"), {"a": [1, 1.5, True, None]}, {"a": [1, 1.5, True, None]}),
        (("agents", "a", "url"), "http://me:geheim@x/v1", "http://x/v1"),
        (("agents", "a", "args"), "--auth 'Bearer geheimgeheim' -v", f"--auth '{HIDDEN} -v"),
    ],
)
def test_what_may_be_secret_is_not_shown(key, value, shown):
    assert displayed(key, value) == shown
    assert "geheim" not in str(displayed(key, value))


def test_a_date_is_told_as_a_text(home):
    config = named(home, '[agents.a]\nadapter = "mine"\nwhen = 2026-01-02')
    assert tuple(one.holds.value for one in config.settings if one.key == "agents.a.when") == (
        "2026-01-02",
    )
