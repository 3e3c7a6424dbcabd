"""Preferences climb, limits meet; a task can tighten and never loosen."""

from dataclasses import fields, replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.adapter import Agent
from orchestrator.config import (
    Bounds,
    Config,
    Defaults,
    file_with_defaults,
    meet,
    not_allowed,
    prefer,
    strictest,
    with_defaults,
)
from orchestrator.errors import ConfigError
from orchestrator.task import KINDS, READING_KINDS, Limits, Task, TaskFile
from tests.config.places import agent, found, project, user
from tests.config.test_trust import trusted

FULL = Bounds(concurrency=4, privacy="any", agents=frozenset({"a", "b"}))


@pytest.mark.parametrize(
    ("stated", "holds"),
    [((), None), ((None, None), None), (("a", "b"), "b"), (("a", None), "a"), ((None, 0), 0)],
)
def test_the_last_word_of_a_preference_holds(stated, holds):
    assert prefer(*stated) == holds


@pytest.mark.parametrize(
    ("one", "other", "both"),
    [
        (FULL, Bounds(), FULL),
        (Bounds(concurrency=4), Bounds(concurrency=9), Bounds(concurrency=4)),
        (Bounds(privacy="local"), Bounds(privacy="any"), Bounds(privacy="local")),
        (FULL, Bounds(agents=frozenset({"b", "c"})), replace(FULL, agents=frozenset({"b"}))),
        (FULL, Bounds(agents=frozenset({"c"})), replace(FULL, agents=frozenset())),
    ],
)
def test_bounds_meet_at_the_strictest(one, other, both):
    assert meet(one, other) == both
    assert meet(other, one) == both


BOUNDS = st.builds(
    Bounds,
    concurrency=st.none() | st.integers(1, 4),
    privacy=st.sampled_from(["any", "local"]),
    agents=st.none() | st.frozensets(st.sampled_from("abc"), max_size=3),
)


@given(BOUNDS, BOUNDS, BOUNDS)
def test_whatever_the_order_of_the_levels_nothing_is_loosened(one, other, third):
    both = meet(one, other)
    assert meet(both, third) == meet(one, meet(third, other))
    for each in (one, other):
        assert meet(both, each) == both


@pytest.mark.parametrize(
    ("stated", "holds"), [((), "any"), (("any", None), "any"), (("any", "local", "any"), "local")]
)
def test_one_level_is_enough_to_keep_work_at_home(stated, holds):
    assert strictest(*stated) == holds


# --- tasks ----------------------------------------------------------------------------------------

CONFIG = Config(defaults=Defaults(access="full"), bounds=Bounds(privacy="local"))


@pytest.mark.parametrize("kind", [None, *KINDS])
def test_a_default_holds_where_a_task_says_nothing_and_reading_kinds_keep_to_reading(kind):
    task = with_defaults(Task(prompt="x", kind=kind), CONFIG)
    assert task.allowed == ("read" if kind in READING_KINDS else "full")


STATED = {
    "access": ("full", "edit"),
    "strategy": ("cascade", "local"),
    "fallback": ("cloud", "none"),
    "isolation": ("none", "worktree"),
    "deliver": ("apply", "branch"),
    "delegation": (True, False),
}


def test_every_default_is_one_of_a_tasks_keys():
    assert {field.name for field in fields(Defaults)} == set(STATED)


@pytest.mark.parametrize("name", STATED)
def test_a_tasks_word_is_stronger_than_a_default(name):
    default, own = STATED[name]
    by_default: dict[str, Any] = {name: default}
    by_task: dict[str, Any] = {name: own}
    config = Config(defaults=Defaults(**by_default))
    assert getattr(with_defaults(Task(prompt="x"), config), name) == default
    assert getattr(with_defaults(Task(prompt="x", **by_task), config), name) == own


@pytest.mark.parametrize(
    ("file", "config", "both"),
    [(None, None, None), (3, None, 3), (None, 2, 2), (3, 2, 2), (1, 2, 1)],
)
def test_tasks_of_a_file_get_the_defaults_and_no_more_room_than_any_level_gives(file, config, both):
    tasks = TaskFile(tasks=(Task(prompt="x"), Task(prompt="y", access="read")), concurrency=file)
    configured = replace(CONFIG, bounds=Bounds(concurrency=config))
    done = file_with_defaults(tasks, configured)
    assert [task.access for task in done.tasks] == ["full", "read"]
    assert done.concurrency == both


@pytest.mark.parametrize("privacy", ["any", "local"])
def test_a_task_cannot_loosen_privacy(privacy):
    assert with_defaults(Task(prompt="x", privacy=privacy), CONFIG).privacy == "local"
    assert with_defaults(Task(prompt="x", privacy=privacy), Config()).privacy == privacy


def test_without_defaults_a_task_stays_as_it_is():
    task = Task(prompt="x", kind="fix")
    assert with_defaults(task, Config()) == task


def test_agents_that_no_level_forbids_may_be_used_and_the_others_are_told_why():
    agents = [Agent(name="a", adapter="x"), Agent(name="c", adapter="x")]
    assert not_allowed(agents, Config()) == {}
    assert not_allowed(agents, Config(bounds=FULL)) == {"c": "limits.agents allows only a, b"}
    nobody = Config(bounds=Bounds(agents=frozenset()))
    assert set(not_allowed(agents, nobody)) == {"a", "c"}


# --- files and variables --------------------------------------------------------------------------


def test_limits_of_all_levels_meet(home):
    user(home, '[limits]\nwall = "1h"\ncost_usd = 2.5\nconcurrency = 8\nagents = ["a", "b"]')
    project(home, '[limits]\nwall = "10m"\ncost_usd = 50.0\nprivacy = "local"\nagents = ["b", "c"]')
    config = found(home, {"ORCHESTRATE_LIMITS_STEPS": "7", "ORCHESTRATE_LIMITS_WALL": "2h"})
    assert config.limits == Limits(wall_s=600, cost_usd=2.5, steps=7)
    assert config.bounds == Bounds(concurrency=8, privacy="local", agents=frozenset({"b"}))


@pytest.mark.parametrize("level", ["user", "project", "environment"])
def test_the_strongest_level_says_what_is_preferred(home, level):
    environ = {}
    user(home, '[defaults]\nstrategy = "cloud"\nagent = "mine"')
    if level != "user":
        project(home, '[defaults]\nstrategy = "local"')
    if level == "environment":
        environ = {"ORCHESTRATE_STRATEGY": "auto"}
    config = found(home, environ)
    strategies = {"user": "cloud", "project": "local", "environment": "auto"}
    assert config.defaults.strategy == strategies[level]
    assert config.default_agent == "mine"  # key by key: the others say nothing of it


def test_kinds_climb_one_by_one(home):
    user(home, '[kinds]\nsearch = "cheap"\nreview = "mine"')
    project(home, '[kinds]\nreview = "reasoning"')
    assert found(home).kinds == {"search": "cheap", "review": "reasoning"}


@pytest.mark.parametrize("name", ["cheap", "reasoning", "mine", "codex", "mine-ollama", "own"])
def test_a_kind_goes_to_a_class_or_to_an_agent_configured_or_not(home, name):
    user(home, f'[agents.own]\nadapter = "mine"\n[kinds]\nfix = "{name}"')
    assert found(home).kinds == {"fix": name}


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ('fix = "cheep"', "toml:2: kinds.fix: no class and no agent 'cheep'; did you mean `cheap`"),
        ('fix = "clude"', "toml:2: kinds.fix: no class and no agent 'clude'; did you mean `claude"),
        ('fix = "zzz"', "toml:2: kinds.fix: no class and no agent 'zzz'; known: cheap, reasoning,"),
        ('serch = "cheap"', "toml:2: kinds.serch: unknown kind; did you mean `search`?"),
        ('zzz = "cheap"', "toml:2: kinds.zzz: unknown kind; known: search, summary, explain,"),
        ("fix = 3", "toml:2: kinds.fix: found the number 3; allowed: a text (put it in quotes)"),
    ],
)
def test_a_kind_or_a_target_that_is_unknown_is_refused_with_the_nearest(home, text, why):
    user(home, f"[kinds]\n{text}")
    with pytest.raises(ConfigError) as caught:
        found(home)
    assert why in str(caught.value)


# --- addresses and keys ---------------------------------------------------------------------------

DESK = '[servers.desk]\nkind = "ollama"\nbase_url = "http://desk:1"\napi_key_env = "DESK_KEY"\n'


def test_a_trusted_project_replaces_an_agent_and_a_server_as_a_whole(home):
    user(home, DESK + '[agents.a]\nadapter = "mine"\nmodel = "desk/m"\nprofile = "user"')
    text = '[servers.desk]\nkind = "ollama"\nbase_url = "http://other:1"\n'
    project(home, text + '[agents.a]\nadapter = "mine"\nserver = "desk"')
    trusted(home)
    one = agent(found(home), "a")
    assert (one.base_url, one.api_key_env, one.model) == ("http://other:1", None, None)
    assert one.profile == "clean"


def test_a_key_never_goes_to_an_address_of_another_level(home):
    user(home, '[agents.a]\nadapter = "mine"\nmodel = "desk/m"\napi_key_env = "KEY"')
    project(home, '[servers.desk]\nkind = "ollama"\nbase_url = "http://evil:1"')
    trusted(home)
    with pytest.raises(ConfigError, match=r"its api_key_env would go to the address in .*toml:3"):
        found(home)


def test_a_server_of_a_found_file_is_not_seen_by_the_users_agents(home):
    user(home, '[agents.a]\nadapter = "mine"\nmodel = "some/m"\napi_key_env = "KEY"')
    project(home, '[servers.some]\nkind = "cloudy"\n[agents.b]\nadapter = "mine"\nmodel = "some/n"')
    config = found(home)
    assert (agent(config, "a").base_url, agent(config, "a").model) == (None, "some/m")
    assert (agent(config, "b").server, agent(config, "b").model) == ("cloudy", "n")


@pytest.mark.parametrize(
    ("written", "environ", "base_url", "key", "tier"),
    [
        ("", {"OLLAMA_HOST": "desk:1"}, "http://desk:1", None, "cloud"),
        ("", {"OLLAMA_BASE_URL": "http://127.0.0.1:7/"}, "http://127.0.0.1:7/", None, "local"),
        ("", {}, "http://127.0.0.1:11434", None, "local"),
        ("", {"OLLAMA_HOST": ""}, "http://127.0.0.1:11434", None, "local"),
        ('base_url = "http://own:2"', {"OLLAMA_HOST": "desk:1"}, "http://own:2", None, "cloud"),
        ('api_key_env = "K"', {"OLLAMA_HOST": "desk:1"}, "http://127.0.0.1:11434", "K", "local"),
        ('tier = "local"', {"OLLAMA_HOST": "desk:1"}, "http://127.0.0.1:11434", None, "local"),
    ],
)
def test_a_providers_variable_fills_a_gap_and_overrides_nothing(
    home, written, environ, base_url, key, tier
):
    user(home, f'[agents.a]\nadapter = "mine"\nserver = "ollama"\n{written}')
    one = agent(found(home, environ), "a")
    assert (one.base_url, one.api_key_env, one.tier) == (base_url, key, tier)


@pytest.mark.parametrize("written", ["local = true", 'api_key_env = "K"', 'base_url = "own:2"'])
def test_a_variables_address_takes_nothing_that_is_written_of_a_server(home, written):
    user(home, f'[servers.s]\nkind = "cloudy"\n{written}\n[agents.a]\nadapter = "mine"\n'
               'server = "s"')  # fmt: skip
    environ = {"CLOUDY_URL": "http://elsewhere.example", "CLOUDY_KEY": "k"}
    assert agent(found(home, environ), "a").base_url in {"https://api.cloudy.example/v1", "own:2"}


def test_an_address_and_a_key_of_the_same_provider_come_together(home):
    user(home, '[agents.a]\nadapter = "mine"\nserver = "cloudy"')
    one = agent(found(home, {"CLOUDY_URL": "http://x.example", "CLOUDY_KEY": "k"}), "a")
    assert (one.base_url, one.api_key_env) == ("http://x.example", "CLOUDY_KEY")
