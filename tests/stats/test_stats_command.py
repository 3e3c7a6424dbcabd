"""`orchestrate stats` from outside: real records of a real run, filters, forms, wrong input."""

import json
import os
import subprocess
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest
from typer.testing import CliRunner

from orchestrator.cli import app
from orchestrator.cli.stats import moment
from orchestrator.errors import InputError
from orchestrator.events import Outcome, Usage
from orchestrator.task import Task
from tests import commands
from tests.stats import records
from tests.stats.records import CLOUD, LOCAL, START

NOW = datetime(2026, 11, 27, 12, tzinfo=UTC)
PAID = Usage(input_tokens=10, output_tokens=2, cost_usd=0.25, cost_source="agent", scope="run")
FREE = Usage(
    input_tokens=10**6, output_tokens=10**5, cost_usd=0.0, cost_source="local", scope="run"
)
WORDS = """
cat >/dev/null
echo '{"type": "text", "text": "hello"}'
echo '{"type": "end", "in": 12, "out": 3}'
"""
AGENT = f"""
[agents.scripted]
adapter = "jsonl"
model = "toy"
tier = "local"
argv = ["/bin/sh", "-c", {json.dumps(WORDS)}]
[[agents.scripted.events]]
emit = "message"
when = {{type = "text"}}
text = ".text"
[[agents.scripted.events]]
emit = "usage"
when = {{type = "end"}}
input_tokens = ".in"
output_tokens = ".out"
[[agents.scripted.events]]
emit = "turn.finished"
when = {{type = "end"}}
stop_reason = "end_turn"
"""


def orchestrate(state: Path, *arguments: str) -> "subprocess.CompletedProcess[str]":
    home = state / "home"
    env = {
        "PATH": os.environ["PATH"],
        "HOME": str(home),
        "ORCHESTRATE_STATE_DIR": str(state),
        "XDG_CONFIG_HOME": str(home),
        "COLUMNS": "200",
    }
    return commands.run(*arguments, cwd=state, env=env)


@pytest.fixture
def stats(monkeypatch):
    """The groups by their first word; in this process, as starting another takes much longer."""

    def call(state: Path, *arguments: str) -> dict[str, dict[str, object]]:
        monkeypatch.chdir(state)
        monkeypatch.setenv("ORCHESTRATE_STATE_DIR", str(state))
        monkeypatch.setenv("XDG_CONFIG_HOME", str(state / "home"))
        done = CliRunner().invoke(app, ["stats", "--output", "json", *arguments])
        assert (done.exit_code, done.stderr) == (0, "")
        groups = json.loads(done.stdout)["groups"]
        return {next(iter(group.values())): group for group in groups}

    return call


@pytest.fixture(scope="module")
def state(tmp_path_factory):
    """Two runs of one task, that was escalated; a local success; one cut off, one broken."""
    state = tmp_path_factory.mktemp("state")
    fix = Task(prompt="-", kind="fix", workspace=state)
    search = replace(fix, id="find", kind="search")
    failed, done = Outcome(status="failed"), Outcome(status="succeeded", verified=True)
    records.run(state, 0, agent=LOCAL, task=fix, job="one", outcome=replace(failed, usage=FREE))
    records.run(state, 1, agent=CLOUD, task=fix, job="one", outcome=replace(done, usage=PAID))
    records.run(state, 2, agent=LOCAL, task=search, job="two", outcome=replace(done, usage=FREE))
    records.run(state, 3, agent=CLOUD, task=search, job="three")
    broken = records.run(state, 4, agent=CLOUD, task=search, job="four")
    (broken / "outcome.json").write_bytes(b"{")
    records.job(state, 5, {"a": Outcome(status="skipped")}, "failed")
    return state


def test_agents_are_compared(state, stats):
    groups = stats(state)
    desk, cloud = groups["desk"], groups["cloud"]
    assert (desk["runs"], desk["ok"], desk["counted"], desk["escalated"]) == (2, 1, 2, 1)
    assert (cloud["runs"], cloud["cut_off"], cloud["unreadable"]) == (3, 1, 1)
    assert (cloud["cost_usd"], cloud["cost_at_least_usd"]) == (None, 0.25)
    assert (desk["cost_usd"], desk["cost_source"]) == (0.0, "local")
    assert desk["saved_usd"] == pytest.approx(10**6 * 5e-6 + 10**5 * 30e-6)


@pytest.mark.parametrize(
    ("arguments", "names"),
    [
        (["--by", "kind"], {"fix", "search"}),
        (["--by", "model", "--kind", "fix"], {"gpt-5.5", "qwen2.5-coder:14b"}),
        (["--by", "server", "--agent", "desk"], {"http://127.0.0.1:11434"}),
        (["--by", "day"], {"2026-09-21"}),
        (["--by", "tier", "--model", "gpt-5.5"], {"cloud"}),
        (["--since", "2030-01-01"], set()),
        (["--repository", "/nonexistent"], set()),
    ],
)
def test_groups_and_filters(state, stats, arguments, names):
    assert set(stats(state, *arguments)) == names


def test_a_repository_is_named_by_a_folder_in_it(state, stats):
    assert sum(int(str(one["runs"])) for one in stats(state, "--repository", ".").values()) == 5


def test_since_leaves_out_what_was_before(state, stats):
    since = datetime.fromtimestamp(START + 2, UTC).isoformat()
    assert stats(state, "--since", since)["desk"]["runs"] == 1


def test_the_table_says_what_it_leaves_out(state):
    done = orchestrate(state, "stats", "--by", "agent", "--by", "kind")
    assert (done.returncode, done.stderr) == (0, "")
    assert "not in OK: 1 cut off (by a crash), 1 unreadable" in done.stdout
    assert "tasks that came to no run: 1 skipped" in done.stdout
    assert done.stdout.splitlines()[0].split()[:3] == ["AGENT", "KIND", "RUNS"]


def test_csv_is_lines_for_a_spreadsheet(state):
    done = orchestrate(state, "stats", "-o", "csv")
    assert done.stdout.startswith("agent,runs,running,")
    assert done.stdout.count("\n") == 3


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--since", "yesterday"], "--since 'yesterday': neither an age (30m, 12h, 7d, 2w) nor"),
        (["--against", "nobody"], "--against 'nobody': no list price is known (prices of 20"),
        (["--by", "mood"], "'mood' is not one of"),
    ],
)
def test_wrong_input_is_told(state, arguments, said):
    done = orchestrate(state, "stats", *arguments)
    assert (done.returncode, done.stdout) == (2, "")
    assert said in done.stderr


def test_without_records_there_are_no_runs(tmp_path):
    done = orchestrate(tmp_path, "stats")
    assert (done.returncode, done.stdout, done.stderr) == (0, "no runs\n", "")


def test_a_real_run_is_counted_with_its_usage_and_its_times(tmp_path, stats):
    (tmp_path / "agents.toml").write_text(AGENT)
    flags = ("-p", "say hello", "--agent", "scripted", "--config", "agents.toml", "-o", "json")
    run = orchestrate(tmp_path, "run", *flags)
    assert (run.returncode, json.loads(run.stdout)["usage"]["cost_usd"]) == (0, 0.0), run.stderr
    group = stats(tmp_path)["scripted"]
    assert (group["runs"], group["ok"], group["cost_usd"], group["cost_source"]) == (
        1,
        1,
        0,
        "local",
    )
    assert (group["input_tokens"], group["output_tokens"]) == (12, 3)
    assert isinstance(group["first_token_s"], float)
    assert isinstance(group["tokens_per_s"], float)


@pytest.mark.parametrize(
    ("text", "at"),
    [
        ("30m", "2026-11-27T11:30:00+00:00"),
        ("12h", "2026-11-27T00:00:00+00:00"),
        ("7d", "2026-11-20T12:00:00+00:00"),
        ("2w", "2026-11-13T12:00:00+00:00"),
        ("2026-11-01", "2026-11-01T00:00:00+00:00"),
        ("2026-11-01T10:00+02:00", "2026-11-01T10:00:00+02:00"),
    ],
)
def test_since_is_an_age_or_a_date(text, at):
    assert moment(text, NOW).isoformat() == at


@pytest.mark.parametrize("text", ["", "7", "d", "-7d", "7y", "9999999d", "999999w", "2026-13-01"])
def test_what_is_neither_is_an_error(text):
    with pytest.raises(InputError, match="neither an age"):
        moment(text, NOW)
