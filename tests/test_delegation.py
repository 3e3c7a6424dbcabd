"""What an agent may hand on: never more than it has itself, and each refusal says what to do."""

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from orchestrator.adapter import Agent
from orchestrator.delegation import Ancestor, Asked, Parent, Refused, narrowed
from orchestrator.task import Limits, Task

AGENTS = (
    Agent(name="qwen", adapter="x", tier="local"),
    Agent(name="claude", adapter="y", tier="cloud"),
)
LEFT = Limits(wall_s=600, cost_usd=0.5, tokens=1000, steps=40, depth=2, children=3)
TASK = Task(
    prompt="Fix the whole thing",
    workspace=Path("/repo"),
    agent="claude",
    base_url="http://x",
    api_key_env="K",
    check="pytest -q",
    retries=2,
    session_id="s",
    setup="uv sync",
    delegation=True,
)
PARENT = Parent(
    run_id="run-1",
    task=TASK,
    left=LEFT,
    ancestors=(Ancestor(agent="claude", prompt="Fix the whole thing"),),
)


def wanted(asked: dict[str, Any]) -> Asked:
    fields: dict[str, Any] = {"prompt": "Find it", **asked}
    return Asked(**fields)


def child(parent: Parent = PARENT, **asked: Any) -> Task:
    found = narrowed(parent, wanted(asked), AGENTS)
    assert isinstance(found, Task), found
    return found


def refused(parent: Parent = PARENT, **asked: Any) -> Refused:
    found = narrowed(parent, wanted(asked), AGENTS)
    assert isinstance(found, Refused), found
    return found


def of(**task: Any) -> Parent:
    return replace(PARENT, task=replace(TASK, **task))


def left(**limits: Any) -> Parent:
    return replace(PARENT, left=replace(LEFT, **limits))


def test_a_sub_task_has_its_parents_folder_limits_and_setup_and_none_of_its_pins():
    found = child(kind="search", files=("a.py",))
    assert (found.prompt, found.kind, found.files) == ("Find it", "search", ("a.py",))
    assert (found.workspace, found.setup) == (Path("/repo"), "uv sync")
    assert found.limits == replace(LEFT, depth=1)
    pins = (found.agent, found.model, found.base_url, found.api_key_env, found.session_id)
    assert pins == (None,) * 5
    assert (found.check, found.retries, found.parent_run_id) == (None, 0, "run-1")
    assert (found.include_uncommitted, found.deliver, found.access) == (True, "branch", "read")
    assert found.delegation is True


def test_its_own_limits_are_met_with_what_is_left():
    asked = Limits(wall_s=60, cost_usd=0.1, steps=100, depth=0)
    found = child(limits=asked)
    assert found.limits == replace(LEFT, wall_s=60, cost_usd=0.1, depth=0)
    assert found.delegation is False
    assert child(left(depth=1)).delegation is False
    assert child(left(depth=None, cost_usd=None), limits=Limits(cost_usd=9)).limits.cost_usd == 9


@pytest.mark.parametrize(
    ("asked", "strategy", "fallback"),
    [
        ({}, None, "cloud"),
        ({"tier": "local"}, "local", "none"),
        ({"tier": "cloud"}, "cloud", "cloud"),
    ],
)
def test_a_tier_is_where_its_model_is_looked_for(asked, strategy, fallback):
    found = child(of(fallback="cloud", strategy="cloud"), **asked)
    assert (found.strategy, found.fallback) == (strategy, fallback)


def test_privacy_and_staying_at_home_are_handed_down():
    assert child(of(privacy="local")).privacy == "local"
    assert child(privacy="local").privacy == "local"
    stays = child(of(strategy="local"), agent="qwen", model="gpt-5")
    assert (stays.strategy, stays.privacy) == ("local", "local")  # whatever the model is named
    leaves = child(of(strategy="local", fallback="cloud"), agent="claude")
    assert (leaves.strategy, leaves.privacy) == (None, "any")
    assert child(of(privacy="local"), agent="qwen").agent == "qwen"


@pytest.mark.parametrize(
    ("parent", "asked", "access"),
    [
        ("edit", {}, "edit"),
        ("edit", {"kind": "review"}, "read"),
        ("read", {}, "read"),
        ("full", {"kind": "fix"}, "edit"),
        ("full", {"access": "full"}, "full"),
    ],
)
def test_access_is_what_the_work_needs_and_its_parent_has(parent, asked, access):
    assert child(of(access=parent), **asked).access == access


@pytest.mark.parametrize(
    ("parent", "asked", "text", "hint"),
    [
        (left(depth=0), {}, "as deep", "yourself"),
        (PARENT, {"limits": Limits(depth=2)}, "limits.depth 2", "at most 1"),
        (replace(PARENT, asked=3), {}, "handed on 3 sub-tasks", "Do the rest yourself"),
        (PARENT, {"prompt": " fix the\nWHOLE thing"}, "a circle: claude", "another agent"),
        (PARENT, {"prompt": TASK.prompt, "agent": "claude"}, "a circle", "other words"),
        (PARENT, {"agent": "gpt"}, "no agent 'gpt'", "qwen, claude"),
        (PARENT, {"agent": "qwen", "tier": "cloud"}, "qwen is a local agent", "one of the two"),
        (of(privacy="local"), {"agent": "claude"}, "privacy: local", "Local agents: qwen"),
        (
            of(privacy="local"),
            {"tier": "cloud"},
            "tier: cloud would have it in the cloud",
            "leave agent",
        ),
        (of(privacy="local"), {"privacy": "any"}, "so do its sub-tasks", "Leave `privacy` out"),
        (of(strategy="local"), {"agent": "claude"}, "strategy: local", "Local agents: qwen"),
        (of(access="read"), {"kind": "fix"}, "may only read", "search"),
        (of(access="edit"), {"access": "full"}, "access full is more", "ask for less"),
        (PARENT, {"workspace": "/etc"}, "workspace: /etc is outside", "in /repo"),
        (PARENT, {"workspace": "../other"}, "outside", "in /repo"),
        (PARENT, {"files": ("../x",)}, "files: /repo/../x is outside", "in /repo"),
        (PARENT, {"files": ("/repo/x",)}, "not relative", "from there"),
        (PARENT, {"check": "curl evil"}, "check: it would be run outside", "pytest -q"),
        (of(access="read", check=None), {"check": "x"}, "check: it would", "Leave it out"),
        (PARENT, {"limits": Limits(cost_usd=2)}, "cost_usd: 2 is more", "Ask for less"),
        (PARENT, {"limits": Limits(wall_s=601)}, "wall (seconds): 601", "leave it out"),
        (
            left(tokens=123_456),
            {"limits": Limits(tokens=9_999_999)},
            "tokens: 9999999 is more than what is left of this task's: 123456",
            "Ask for less",
        ),
        (left(wall_s=289.56789), {"limits": Limits(wall_s=math.inf)}, "inf is more", "Ask"),
        (left(wall_s=289.56789), {"limits": Limits(wall_s=300)}, "'s: 289.5678", "Ask"),
        (left(cost_usd=0.0), {}, "nothing is left of this task's cost_usd", "what you have"),
    ],
)
def test_who_asks_for_more_is_told_why_not_and_what_instead(parent, asked, text, hint):
    found = refused(parent, **asked)
    assert text in found.text
    assert hint in found.hint


def test_the_same_prompt_for_another_agent_is_no_circle():
    assert child(prompt=TASK.prompt, agent="qwen").agent == "qwen"


@pytest.mark.parametrize(
    "parent", [of(check="make"), of(access="full"), replace(PARENT, confined=False)]
)
def test_a_check_that_gives_the_agent_nothing_new_is_run(parent):
    assert child(parent, check="make").check == "make"


def test_a_folder_inside_is_the_sub_tasks_own():
    assert child(workspace="src/../lib").workspace == Path("/repo/lib")
    assert child(workspace="/repo/src").workspace == Path("/repo/src")
