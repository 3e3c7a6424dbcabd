"""`doctor`, `models`, `local` and `init`, as a user types them; a scripted server plays Ollama."""

import json
import os
import socket
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from dataclasses import asdict, replace
from pathlib import Path

import orjson
import pytest
from typer.testing import CliRunner, Result

from orchestrator.adapter import About
from orchestrator.cli import app
from orchestrator.config import LocalMode, load, load_config, plugins, read_local, write_local
from orchestrator.discovery import diagnosis
from orchestrator.discovery.sandbox import Sandbox, landlock_abi
from orchestrator.errors import ConfigError
from orchestrator.process import guarantees
from orchestrator.process.means import ASKED
from orchestrator.server import ModelServer
from tests.resolver import knows_nobody

SCRIPT = {
    "model": ["qwen:14b", "gpt-oss:120b-cloud"],
    "server": "ollama",
    "context": 4096,
    "turns": [{"text": "pong", "repeat": "forever"}],
}


@pytest.fixture(autouse=True)
def alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A user with nothing: no key, no file, no program of an agent, nobody at a usual port."""
    for name in os.environ:
        if name.startswith(("XDG_", "ORCHESTRATE_")) or "_API_KEY" in name or "_BASE_URL" in name:
            monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("PATH", "/usr/bin:/bin")
    monkeypatch.setattr(sys, "prefix", str(tmp_path / "prefix"))  # where our own agents are
    monkeypatch.chdir(tmp_path)
    kinds = plugins.installed_servers()
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        port = closed.getsockname()[1]

        def nobody() -> dict[str, ModelServer]:
            return {name: replace(kind, port=kind.port and port) for name, kind in kinds.items()}

        monkeypatch.setattr(load, "installed_servers", nobody)
        yield tmp_path


@pytest.fixture
def ollama(alone: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """A scripted Ollama, named by its variable."""
    (alone / "script.json").write_bytes(orjson.dumps(SCRIPT))
    command = [sys.executable, "-m", "orchestrator.testing", "serve", str(alone / "script.json")]
    with subprocess.Popen(
        [*command, "--until-stdin-closes"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        cwd=Path(__file__).parent.parent,
    ) as process:
        assert process.stdin
        assert process.stdout
        url = json.loads(process.stdout.readline())["base_url"]
        monkeypatch.setenv("OLLAMA_HOST", url.removeprefix("http://"))
        yield url
        process.stdin.close()


def call(*arguments: str, status: int = 0) -> Result:
    done = CliRunner().invoke(app, list(arguments))
    assert done.exit_code == status, done.output
    return done


# --- doctor ---------------------------------------------------------------------------------------


def test_with_nothing_at_all_the_doctor_ends_with_three_ways_to_a_first_agent():
    told = call("doctor").stdout
    assert "No problems found." not in told
    last = told.split("\n\n")[-1].splitlines()
    assert last == [
        "No agent works yet. The shortest ways to one:",
        (
            "1. at home: `orchestrate agents install litellm`, install Ollama"
            " (https://ollama.com/download), `ollama pull qwen2.5-coder:14b`"
        ),
        (
            "2. by key: `orchestrate agents install claude`, `export ANTHROPIC_API_KEY=...`,"
            " or OPENAI_API_KEY with codex, or GEMINI_API_KEY with gemini"
        ),
        (
            "3. by login: `orchestrate agents install claude`, `claude`, in it `/login`,"
            " or with codex `codex login`"
        ),
    ]


def test_an_agent_that_somebody_described_is_enough_for_the_doctor(alone):
    described = '[agents.mine]\nadapter = "jsonl"\nargv = ["sh", "-c", "true"]\n'
    rule = '[[agents.mine.events]]\nwhen = { type = "end" }\nemit = "turn.finished"\n'
    (alone / "c.toml").write_text(described + rule + 'stop_reason = "end_turn"\n')
    told = call("doctor", "--config", str(alone / "c.toml")).stdout
    assert "No agent works yet" not in told
    (alone / "c.toml").write_text(described.replace('"sh"', '"not-there"') + rule)
    assert "No agent works yet" in call("doctor", "--config", str(alone / "c.toml")).stdout


def test_the_doctor_tells_servers_models_and_for_each_problem_a_remedy(ollama, monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", "never-shown")
    told = json.loads(call("doctor", "--output", "json").stdout)
    [server] = told["servers"]
    assert (server["name"], server["base_url"], server["up"]) == ("ollama", ollama, True)
    assert {model["name"]: model["remote"] for model in server["models"]} == {
        "qwen:14b": False,
        "gpt-oss:120b-cloud": True,
    }
    assert told["keys"] == ["OPENAI_API_KEY"]
    assert {
        "what": "ollama/qwen:14b has a window of 4096 tokens: too few for an agent",
        "remedy": "`OLLAMA_CONTEXT_LENGTH=32768 ollama serve`",
    } in told["problems"]
    assert all(one["remedy"] for one in told["problems"])
    text = call("doctor").stdout
    assert "never-shown" not in text + json.dumps(told)
    assert f"ollama  ollama  {ollama}" in text
    assert "gpt-oss:120b-cloud" in text


@pytest.mark.parametrize("by_group", [False, True])
def test_the_doctor_tells_what_supervision_guarantees_and_what_to_do(monkeypatch, by_group):
    if by_group:
        monkeypatch.setenv(ASKED, "groups")
    told = json.loads(call("doctor", "--output", "json").stdout)["supervision"]
    assert told == [asdict(one) for one in guarantees()]
    assert told[0]["holds"] is not by_group
    text = call("doctor").stdout
    section = text[text.index("\nSupervision:\n") :]
    for one in guarantees():
        assert f"{'  holds' if one.holds else '  not':<9} {one.name}: {one.text}\n" in section
        assert one.remedy is None or f"{'':<12} {one.remedy}\n" in section


def test_a_key_that_goes_over_plain_http_is_a_problem(alone, monkeypatch):
    monkeypatch.setenv("DESK_KEY", "k")
    (alone / "c.toml").write_text(
        '[agents.far]\nadapter = "litellm"\nmodel = "m"\nbase_url = "http://10.255.0.1:1"\n'
        'api_key_env = "DESK_KEY"\n'
    )
    loaded = load_config(alone / "c.toml")
    [problem] = list(diagnosis._of_keys(loaded))
    assert problem.what == (
        "agent far: the key in DESK_KEY goes to http://10.255.0.1:1 over plain HTTP"
    )


def test_a_kernel_without_landlock_is_a_problem():
    nothing = Sandbox(
        bwrap=None,
        bwrap_problem="not installed",
        user_namespaces=False,
        landlock=None,
        seccomp=False,
    )
    held = [About(name=name, title=name, program=None, landlock=name != "c") for name in "bca"]
    [problem] = list(diagnosis._of_sandbox(nothing, held))
    assert problem.what == "the kernel offers no Landlock: nothing holds a, b to `access`"
    assert list(diagnosis._of_sandbox(nothing, held[1:2])) == []
    abi = landlock_abi()
    assert abi is None or abi > 0


def test_the_doctor_finds_a_broken_switch_and_goes_on(alone):
    write_local(LocalMode()).write_text("{")
    told = json.loads(call("doctor", "--output", "json").stdout)
    assert "local.json" in told["problems"][0]["what"]
    assert "orchestrate local off" in told["problems"][0]["remedy"]


# --- models ---------------------------------------------------------------------------------------


def test_models_are_listed_and_shown(ollama):
    rows = [line.split() for line in call("models", "list").stdout.splitlines()]
    assert rows[0] == ["MODEL", "WINDOW", "OF", "TOOLS", "THINKING", "LOADED", "SIZE"]
    assert ["ollama/qwen:14b", "4096", "131072", "yes", "yes", "yes", "0B"] in rows
    [listed] = json.loads(call("models", "list", "ollama", "-o", "json").stdout)
    assert listed["version"] == "0.30.0"
    shown = call("models", "show", "qwen:14b")
    assert "window    4096 tokens configured, 131072 possible" in shown.stdout
    assert "OLLAMA_CONTEXT_LENGTH=32768" in shown.stderr
    assert json.loads(call("models", "show", "ollama/qwen:14b", "-o", "json").stdout)["model"][
        "tools"
    ]


def test_a_model_or_a_server_that_is_not_there_is_wrong_input(ollama):
    assert "no server 'x' (known: ollama)" in call("models", "list", "x", status=2).stderr
    text = call("models", "show", "ollama/x", status=2).stderr
    assert "Ollama has no model 'x' (it has: gpt-oss:120b-cloud, qwen:14b)" in text
    text = call("models", "show", "x", status=2).stderr
    assert "no server is named or has it: 'x' (servers: ollama)" in text


def test_no_server_at_all_is_said():
    assert "no model server answers" in call("models", "list").stdout


def test_a_model_is_pulled_deleted_and_tried(ollama):
    pulled = call("models", "pull", "ollama/qwen:14b")
    assert pulled.stderr.splitlines()[0] == "pulling manifest"
    assert pulled.stderr.splitlines()[-1] == "ollama/qwen:14b is there"
    failed = call("models", "pull", "ollama/x", status=3).stderr
    assert "Ollama cannot get x: pull model manifest: file does not exist" in failed
    assert "ollama/qwen:14b is deleted" in call("models", "rm", "qwen:14b").stderr
    tried = call("models", "test", "ollama/qwen:14b", "--quick", status=1).stdout.splitlines()
    assert [line.split()[:2] for line in tried] == [
        ["chat", "ok"],
        ["stream", "ok"],
        ["tool", "call"],
    ]
    assert "FAILED" in tried[-1]


def test_a_server_that_is_down_is_said_with_the_remedy(monkeypatch):
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        monkeypatch.setenv("VLLM_BASE_URL", f"http://127.0.0.1:{closed.getsockname()[1]}/v1")
        text = call("models", "test", "vllm/m", status=3).stderr
    assert "Cannot reach vLLM" in text
    assert "vllm serve MODEL" in text


def test_a_usual_server_that_is_named_and_does_not_answer_is_said_with_the_remedy():
    # Here all kinds have one usual port, and the first of them is asked there.
    told = call("models", "pull", "llamacpp/m", status=3).stderr
    assert "Cannot reach llama.cpp at http://127.0.0.1:" in told
    assert "Is it running (" in told


# --- local ----------------------------------------------------------------------------------------


def test_the_switch_goes_on_and_off_again_and_again(ollama):
    assert call("local").stdout == "local mode is off\n"
    on = call("local", "on")
    assert on.stdout == f"local mode is on: the model of the server at {ollama}\n"
    assert "warning: no model is set" in on.stderr
    assert "it was on already" in call("local", "on").stderr
    assert read_local() == LocalMode(on=True, base_url=ollama, kind="ollama")
    assert "qwen:14b" in call("local", "list").stdout
    call("local", "model", "qwen:14b")
    assert json.loads(call("local", "-o", "json").stdout)["model"] == "qwen:14b"
    call("local", "off")
    assert "it was off already" in call("local", "off").stderr
    assert call("local", "on").stdout == f"local mode is on: qwen:14b at {ollama}\n"
    call("local", "model", "clear")
    assert read_local().model is None


def test_the_switch_takes_an_address_a_name_or_just_a_model(ollama):
    call("local", "on", ollama, "qwen:14b")
    assert read_local() == LocalMode(on=True, base_url=ollama, kind="ollama", model="qwen:14b")
    call("local", "on", "ollama")
    assert read_local().model == "qwen:14b"
    call("local", "on", "other:7b")
    assert read_local() == LocalMode(on=True, base_url=ollama, kind="ollama", model="other:7b")
    assert "other:7b is not there" in call("local", "on").stderr


def test_the_switch_leads_nowhere_but_home(ollama):
    text = call("local", "on", "http://10.255.0.1:1", status=2).stderr
    assert "http://10.255.0.1:1 is not on this machine" in text
    assert "local = true" in text
    for arguments in (("on", ollama, "gpt-oss:120b-cloud"), ("model", "gpt-oss:120b-cloud")):
        text = call("local", *arguments, status=2).stderr
        assert "gpt-oss:120b-cloud is served by a cloud" in text
    assert not read_local().on


def test_a_server_that_its_owner_calls_local_counts_as_home(alone, monkeypatch):
    knows_nobody(monkeypatch)
    (alone / "c.toml").write_text(
        '[servers.desk]\nkind = "ollama"\nbase_url = "http://no-host.invalid:1"\nlocal = true\n'
    )
    on = call("local", "on", "desk", "--config", str(alone / "c.toml"))
    assert read_local().base_url == "http://no-host.invalid:1"
    assert "warning: Cannot reach Ollama" in on.stderr


def test_no_server_at_home_is_said(alone):
    assert "no model server at home answers" in call("local", "on", status=2).stderr


def test_agents_that_stay_in_a_cloud_are_told(ollama, alone):
    (alone / "c.toml").write_text('[agents.mine]\nadapter = "litellm"\nmodel = "gpt-5.5"\n')
    told = call("local", "on", "--config", str(alone / "c.toml")).stderr
    assert "not moved: mine, its configuration says where its model is" in told


@pytest.mark.parametrize(
    "text", ["{", "[]", '{"on": 1}', '{"on": true, "base_url": null, "kind": null, "model": null}']
)
def test_a_switch_that_cannot_be_read_stops_everything_and_off_repairs_it(text):
    """What should stay at home must not go out because of a broken file."""
    path = write_local(LocalMode())
    assert path.stat().st_mode & 0o777 == 0o600
    path.write_text(text)
    with pytest.raises(ConfigError, match="cannot read") as caught:
        load_config().local()
    assert "orchestrate local off" in (caught.value.hint or "")
    assert "cannot read" in call("run", "-p", "x", status=2).stderr
    call("local", "off")
    assert read_local() == LocalMode()


# --- init -----------------------------------------------------------------------------------------


def test_agents_tell_where_a_model_really_is_and_leave_its_name_to_its_server(ollama, alone):
    (alone / "o.toml").write_text(
        f'[servers.desk]\nkind = "ollama"\nbase_url = "{ollama}"\n'
        '[agents.far]\nadapter = "litellm"\nmodel = "desk/gpt-oss:120b-cloud"\n'
        '[agents.open]\nadapter = "litellm"\nserver = "desk"\n'
    )
    told = json.loads(call("agents", "--config", "o.toml", "--output", "json").stdout)["agents"]
    far, open_ = (next(one for one in told if one["name"] == name) for name in ("far", "open"))
    assert (far["tier"], open_["tier"]) == ("cloud", "local")
    assert "no model" not in (open_["problem"] or "")


def test_init_writes_what_was_found_and_never_overwrites(ollama, alone, monkeypatch):
    agent = alone / "bin" / "codex"
    agent.parent.mkdir()
    agent.write_text("#!/bin/sh\necho codex-cli 0.169.0\n")
    agent.chmod(0o755)
    monkeypatch.setenv("PATH", f"{agent.parent}:/usr/bin:/bin")
    assert call("init").stdout == "orchestrate.toml\n"
    written = tomllib.loads((alone / "orchestrate.toml").read_text())
    assert written == {
        "defaults": {"agent": "codex-ollama"},
        "agents": {"codex-ollama": {"adapter": "codex", "server": "ollama", "model": "qwen:14b"}},
    }
    monkeypatch.delenv("OLLAMA_HOST")
    [one] = load_config().agents  # found, not named: it may say no more than that
    assert (one.name, one.model, one.tier) == ("codex-ollama", "qwen:14b", "local")
    (alone / "orchestrate.toml").write_text("# mine\n")
    assert "stays as it is" in call("init", status=2).stderr
    assert (alone / "orchestrate.toml").read_text() == "# mine\n"


def test_init_for_the_user_holds_addresses(ollama):
    path = Path(call("init", "--user").stdout.strip())
    written = tomllib.loads(path.read_text())
    assert written["servers"] == {"ollama": {"kind": "ollama", "base_url": ollama}}


def test_init_with_nothing_there_tells_the_ways(alone):
    call("init")
    text = (alone / "orchestrate.toml").read_text()
    assert "# at home: " in text
    assert tomllib.loads(text) == {}
