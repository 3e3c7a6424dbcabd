"""`orchestrate config`, `config trust`, `schema config`: as a person uses them."""

import json
import re
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from orchestrator.cli import app
from tests.config.places import project, user

NEEDS_TRUST = '[agents.a]\nadapter = "mine"\nbase_url = "http://desk:1"\nnote = "\\u001b[2J"\n'


@pytest.fixture
def place(home: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(home / "project")
    return home


def call(*words: str, text: str | None = None) -> Result:
    return CliRunner().invoke(app, ["config", *words], input=text)


def test_every_value_is_told_with_level_and_place(place):
    path = user(place, "[limits]\nsteps = 3")
    project(place, "[limits]\nsteps = 9")
    done = call()
    assert done.exit_code == 0
    rows = {line.split()[0]: re.split(r"  +", line.strip()) for line in done.output.splitlines()}
    assert rows["KEY"] == ["KEY", "VALUE", "LEVEL", "WHERE", "OTHERS SAY"]
    there = f"9 (project {place / 'project' / 'orchestrate.toml'}:2)"
    assert rows["limits.steps"] == ["limits.steps", "3", "user", f"{path}:2", there]
    assert rows["limits.wall"] == ["limits.wall", "30m", "default", "-"]


def test_a_program_gets_the_same_as_json(place):
    path = user(place, "[limits]\nsteps = 3")
    settings = {one["key"]: one for one in json.loads(call("--output", "json").stdout)}
    assert settings["limits.steps"] == {
        "key": "limits.steps",
        "value": 3,
        "level": "user",
        "where": f"{path}:2",
        "others": [],
    }


TASKS = """strategy: cascade
limits: {wall: 10m, cost_usd: 9}
tasks:
  - id: a
    prompt: x
    agent: mine
    limits:
      wall: 2m
      steps: 5
  - {id: b, privacy: local, prompt: y, strategy: local}
"""


def test_what_holds_for_each_task_of_a_file_is_told_with_its_level_and_place(place):
    path = user(place, '[defaults]\nagent = "codex"\nfallback = "cloud"\n[limits]\nsteps = 3')
    (place / "t.yaml").write_text(TASKS)
    file = place / "t.yaml"
    told = json.loads(call("--task", str(file), "--output", "json").stdout)
    said = {
        one["key"]: (one["value"], one["level"], one["where"], [o["level"] for o in one["others"]])
        for one in told
    }
    assert said["a.strategy"] == ("cascade", "task", f"{file}:1", ["default"])
    assert said["b.strategy"] == ("local", "task", f"{file}:10", ["task", "default"])
    assert said["a.fallback"] == ("cloud", "user", f"{path}:3", [])
    assert said["a.agent"] == ("mine", "task", f"{file}:6", [])
    assert "b.agent" not in said  # a default agent goes first; it is not the only one
    assert said["a.limits.wall"] == ("2m", "task", f"{file}:8", ["task", "default"])
    assert said["b.limits.wall"][:3] == ("10m", "task", f"{file}:2")
    assert said["a.limits.steps"] == (3, "user", f"{path}:5", ["task"])
    assert said["a.limits.cost_usd"][0] == 9  # nobody's word is the default of 5
    assert said["a.privacy"] == ("any", "default", None, [])
    assert said["b.privacy"] == ("local", "task", f"{file}:10", ["default"])
    assert said["limits.steps"] == (3, "user", f"{path}:5", [])


def test_a_file_of_one_task_and_one_that_is_wrong(place):
    (place / "t.yaml").write_text("prompt: x\nkind: fix\n")
    rows = call("--task", str(place / "t.yaml")).output.splitlines()
    assert [row.split() for row in rows if row.startswith("task.kind")] == [
        ["task.kind", "fix", "task", f"{place / 't.yaml'}:2"]
    ]
    (place / "t.yaml").write_text("prompt: x\nknd: fix\n")
    wrong = call("--task", str(place / "t.yaml"))
    assert (wrong.exit_code, "t.yaml:2:1: knd" in wrong.stderr) == (2, True)
    assert call("--task", str(place / "none.yaml")).exit_code == 2


def test_a_file_that_needs_trust_is_refused_until_it_has_it(place):
    path = project(place, NEEDS_TRUST)
    refused = call()
    assert refused.exit_code == 0  # it is only looked at
    assert "agents.a" not in refused.stdout
    assert "left out here, and `run` refuses" in refused.stderr
    assert "not trusted to set agents.a.base_url, agents.a.note" in refused.stderr
    assert f"orchestrate config trust {path.parent}" in refused.stderr
    given = call("trust", "--yes")
    assert given.exit_code == 0
    assert (
        f"{path}:3: agents.a.base_url = http://desk:1\n  {path}:4: agents.a.note = \\x1b[2J\n"
        in (given.stderr)
    )
    assert call().exit_code == 0
    assert call("trust", "--list").stdout.startswith(f"{path}  sha256:")
    assert call("untrust").stdout == f"{path} is trusted no more\n"
    assert call("untrust", str(path.parent)).stdout == f"{path} was not trusted\n"
    assert call("trust", "--list").stdout == "nothing is trusted yet\n"
    assert "left out here" in call().stderr


@pytest.mark.parametrize(
    ("words", "status", "said"),
    [
        (("run", "-p", "x"), 2, "not trusted to set agents.a.base_url"),
        (("runs", "list"), 0, ""),
        (("runs", "show", "last"), 2, "no run 'last'"),
        (("runs", "diff", "last"), 2, "no run 'last'"),
        (("runs", "recover", "--all"), 0, "left out here"),
        (("runs", "gc"), 0, ""),
    ],
)
def test_only_running_is_refused_where_a_file_is_not_trusted(place, words, status, said):
    project(place, NEEDS_TRUST)
    done = CliRunner().invoke(app, words)
    assert done.exit_code == status, done.output
    assert said in done.stderr


def test_a_broken_file_keeps_nobody_from_what_is_on_record(place):
    project(place, "[agents")
    assert CliRunner().invoke(app, ["runs", "list"]).exit_code == 0
    assert call().exit_code == 2


def test_a_folder_can_be_named_also_when_its_file_is_gone(place):
    path = project(place, NEEDS_TRUST)
    assert call("trust", str(path.parent), "-y").exit_code == 0
    path.unlink()
    assert call("untrust", str(path.parent)).stdout == f"{path} is trusted no more\n"
    assert call("trust", str(path.parent), "-y").exit_code == 2


def test_nothing_is_trusted_where_nobody_can_be_asked(place):
    project(place, NEEDS_TRUST)
    done = call("trust", text="y\n")
    assert done.exit_code == 2
    assert "say --yes" in done.stderr
    assert call("trust", "--list").stdout == "nothing is trusted yet\n"


def test_an_agent_cannot_give_trust(place, monkeypatch):
    project(place, NEEDS_TRUST)
    monkeypatch.setenv("ORCHESTRATE_RUN_ID", "0198")
    done = call("trust", "--yes")
    assert done.exit_code == 2
    assert "trust is yours to give" in done.stderr


def test_where_there_is_no_file_that_is_said(place):
    assert "no orchestrate.toml here" in call("trust").stderr


def test_a_file_that_needs_no_trust_is_said_to_need_none(place):
    project(place, "[limits]\nsteps = 3")
    assert "says nothing that needs trust" in call("trust", "--yes").stderr


def test_the_schema_of_a_configuration_is_printed(place):
    schema = json.loads(CliRunner().invoke(app, ["schema", "config"]).stdout)
    tables = {"defaults", "limits", "queue", "servers", "agents", "kinds"}
    assert set(schema["properties"]) == tables
    assert schema["additionalProperties"] is False
