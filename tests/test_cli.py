"""The command line from outside: what it prints where, and its exit statuses."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tarfile
from collections.abc import Mapping
from pathlib import Path

import pytest

from orchestrator import __version__
from orchestrator.cli.flags import _task
from orchestrator.errors import InputError
from orchestrator.task import Task
from orchestrator.testing import agent as scripted_agent
from tests import commands

ORCHESTRATE = (sys.executable, "-m", "orchestrator.cli")
DONE = {"print": json.dumps({"type": "end"})}


def said(text: str) -> dict[str, object]:
    return {"print": json.dumps({"type": "text", "text": text})}


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """A folder to work in, with a git repository and nothing of the user's around it."""
    work = tmp_path / "work"
    work.mkdir()
    (work / "a.txt").write_text("one\n")
    return work


def environment(place: Path) -> dict[str, str]:
    home = place.parent / "home"
    return {
        "PATH": os.environ["PATH"],
        "HOME": str(home),
        "ORCHESTRATE_STATE_DIR": str(place.parent / "state"),
        "XDG_CONFIG_HOME": str(home / "config"),
        "PYTHONPATH": str(Path(__file__).parent.parent),
    }


def configured(place: Path, *steps: Mapping[str, object]) -> str:
    """A configuration file whose agent `scripted` does the steps."""
    script = place.parent / "steps.json"
    script.write_text(json.dumps(steps))
    argv = [sys.executable, "-I", "-S", str(scripted_agent.__file__), str(script)]
    path = place.parent / "agents.toml"
    path.write_text(
        f"""
[agents.scripted]
adapter = "jsonl"
argv = {json.dumps(argv)}
interrupt = "SIGINT"
[[agents.scripted.events]]
when = {{ type = "text" }}
emit = "message"
text = ".text"
[[agents.scripted.events]]
when = {{ type = "session" }}
emit = "session.started"
session_id = ".id"
[[agents.scripted.events]]
when = {{ type = "tool" }}
emit = "tool_call"
id = ".id"
status = "completed"
[[agents.scripted.events]]
when = {{ type = "end" }}
emit = "turn.finished"
stop_reason = "end_turn"
"""
    )
    return str(path)


def call(
    place: Path, *arguments: str, env: Mapping[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    return commands.run(*arguments, cwd=place, env={**environment(place), **(env or {})})


def run(
    place: Path, *steps: Mapping[str, object], flags: tuple[str, ...] = ()
) -> subprocess.CompletedProcess[str]:
    config = configured(place, *steps)
    return call(place, "run", "-p", "do it", "--config", config, "--agent", "scripted", *flags)


@pytest.mark.parametrize("program", [ORCHESTRATE, (commands.PROGRAM,)], ids=len)
def test_the_program_starts_by_itself_and_its_help_names_every_command(
    place: Path, program: tuple[str, ...]
) -> None:
    argv = [*program, "--help"]
    done = subprocess.run(argv, cwd=place, env=environment(place), capture_output=True, text=True)
    assert done.returncode == 0
    for command in ("run", "validate", "schema", "replay", "runs", "agents"):
        assert command in done.stdout


@pytest.mark.parametrize("command", [("runs", "gc"), ("run", "-p", "do it")])
def test_a_place_that_cannot_be_used_is_named_and_not_taken_for_the_output(
    place: Path, command: tuple[str, ...]
) -> None:
    state = f"/{'x' * 300}"
    config = ("--config", configured(place, DONE), "--agent", "scripted")
    words = (*command, *config) if command[0] == "run" else command
    done = call(place, *words, env={"ORCHESTRATE_STATE_DIR": state})
    assert done.returncode == 3
    assert f"{state}/" in done.stderr
    assert done.stderr.strip().endswith("File name too long")


def test_a_file_with_one_task_is_told_as_that_task(place: Path) -> None:
    config = configured(place, said("looking"), DONE)
    file = place.parent / "one.yaml"
    file.write_text(
        f"workspace: {place}\ntasks: [{{id: a, kind: search, agent: scripted, prompt: do it}}]\n"
    )
    told = call(place, "run", str(file), "--config", config).stdout
    assert "agent      scripted" in told
    assert "changes    none" in told
    assert f"workspace  {place}" in told


def test_a_verified_success_exits_0_and_prints_the_summary_on_stdout(place: Path) -> None:
    flags = ("--kind", "edit", "--check", "grep -q two a.txt")
    done = run(place, said("hello"), {"write": "a.txt", "text": "two"}, DONE, flags=flags)
    assert done.returncode == 0, done.stderr
    assert "succeeded, verified by the check" in done.stdout
    assert "a.txt (+1 -1)" in done.stdout
    assert "hello" in done.stderr


def test_a_failed_check_exits_1_with_cause_and_remedy(place: Path) -> None:
    done = run(place, said("done, really"), DONE, flags=("--check", "false"))
    assert done.returncode == 1
    assert "cause      the check `false` exited 1" in done.stdout
    assert "remedy" in done.stdout


def test_jsonl_on_stdout_is_the_event_stream_and_nothing_else(place: Path) -> None:
    done = run(place, said("hello"), DONE, flags=("--output", "jsonl"))
    events = [json.loads(line) for line in done.stdout.splitlines()]
    of_the_run = [event for event in events if event["run_id"]]
    assert [event["seq"] for event in of_the_run] == list(range(1, len(of_the_run) + 1))
    assert of_the_run[-1]["type"] == "run.finished"
    assert events[-1]["type"] == "job.finished"
    assert events[-1]["outcome"]["status"] == "succeeded"
    assert events[-1]["outcome"]["tasks"]["task"] == of_the_run[-1]["outcome"]
    assert done.stderr == ""


def test_json_on_stdout_is_the_outcome_alone(place: Path) -> None:
    done = run(place, said("hello"), DONE, flags=("--output", "json"))
    assert json.loads(done.stdout)["text"] == "hello"


def test_quiet_says_nothing_about_a_success(place: Path) -> None:
    done = run(place, said("hello"), DONE, flags=("--output", "quiet"))
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_what_an_agent_says_cannot_steer_the_terminal(place: Path) -> None:
    done = run(place, said("\x1b[2Jgone\x07 \u202etxt"), {"print": "\x1b]0;title\x07"}, DONE)
    assert "\x1b" not in done.stdout + done.stderr
    assert "\u202e" not in done.stdout + done.stderr
    assert "\\x1b[2Jgone" in done.stderr


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (("run",), "no task: name a TASK.yaml"),
        (("run", "gone.yaml"), "cannot read gone.yaml: No such file"),
        (("run", "."), "cannot read .: Is a directory"),
        (("run", "-p", "x", "--agent", "codx"), "no agent 'codx' (known: "),
        (("run", "-p", "x", "--kind", "fixx"), "--kind: found 'fixx'; allowed: search, "),
        (("run", "-p", "x", "--wall", "soon"), "--wall: found 'soon'; allowed: a duration"),
        (("run", "-p", "x", "--cost-usd", "0"), "--cost-usd: found the number 0.0; allowed: a"),
        (("run", "-p", "x", "--steps", "-1"), "--steps: found the number -1; allowed: "),
        (("route", "-p", "x", "--cost-usd", "nan"), "--cost-usd: found"),
        (("run", "-p", "", "--agent", "codex"), "--prompt: found ''"),
        (("run", "-p", "x", "-C", "nowhere"), "no folder"),
        (("run", "-p", "x", "--config", "gone.toml"), "cannot read gone.toml"),
        (("runs", "show", "last"), "no run 'last'"),
        (("delegate", " "), "no prompt"),
        (("delegate", "x", "--cost-usd", "nan"), "not a number of dollars"),
        (("runs", "show", "abcdef"), "no run 'abcdef'"),
        (("replay", "codx", "a.txt"), "no adapter 'codx' (known: "),
        (("replay", "codex", "gone"), "cannot read gone"),
        (("validate", "gone.yaml"), "cannot read gone.yaml"),
        (("agents", "install", "codx"), "no adapter 'codx' (known: "),
        (("agents", "install", "jsonl"), "jsonl is not installed by orchestrate"),
        (("agents", "use", "codx"), "no agent 'codx' (known: "),
    ],
)
def test_wrong_input_exits_2_and_says_what(
    place: Path, arguments: tuple[str, ...], text: str
) -> None:
    done = call(place, *arguments)
    assert done.returncode == 2, done.stderr
    assert text in done.stderr
    assert "Traceback" not in done.stderr
    assert done.stdout == ""


def test_every_problem_of_a_task_file_is_told_with_its_place(place: Path) -> None:
    (place / "task.yaml").write_text("prompt: x\nkind: fixx\nlimits: {wall: soon}\nfiels: []\n")
    done = call(place, "validate", "task.yaml")
    assert done.returncode == 2
    for text in ("task.yaml:2:7: kind:", "task.yaml:3:16: limits.wall:", "task.yaml:4:1: fiels:"):
        assert text in done.stderr


def test_a_recording_that_is_not_there_is_told_and_nothing_else(place: Path) -> None:
    told = "orchestrate: cannot read gone: No such file or directory\n"
    assert call(place, "replay", "codex", "gone").stderr == told


def test_a_workspace_that_is_not_there_is_told_with_its_line(place: Path) -> None:
    (place / "one.yaml").write_text("prompt: x\nworkspace: gone\n")
    (place / "two.yaml").write_text("tasks:\n- id: a\n  prompt: x\n  workspace: gone\n")
    gone = f"workspace: no folder {place / 'gone'}"
    for file, where in (("one.yaml", "2: "), ("two.yaml", "4: tasks.0.")):
        done = call(place, "validate", file)
        assert (done.returncode, done.stderr) == (2, f"orchestrate: {file}:{where}{gone}\n")


def test_agents_that_there_are_not_are_told_with_their_lines(place: Path) -> None:
    (place / "one.yaml").write_text("prompt: x\nagent: cladue\n")
    (place / "two.yaml").write_text(
        "agent: zzz\ntasks:\n- id: a\n  prompt: x\n- id: b\n  prompt: x\n  agent: script\n"
    )
    (place / "good.yaml").write_text("prompt: x\nagent: scripted\n")
    named = ("--config", configured(place))
    done = call(place, "validate", "one.yaml", *named)
    assert (done.returncode, done.stdout) == (2, "")
    told, hint = done.stderr.splitlines()
    assert told == "orchestrate: one.yaml:2: agent: no agent 'cladue'; did you mean `claude`?"
    assert "`orchestrate agents`" in hint
    assert call(place, "run", "one.yaml", *named).returncode == 2
    done = call(place, "validate", "two.yaml", *named)
    assert done.returncode == 2
    assert "two.yaml:1: tasks.0.agent: no agent 'zzz'; known: scripted, " in done.stderr
    assert "two.yaml:7: tasks.1.agent: no agent 'script'; did you mean `scripted`?" in done.stderr
    assert call(place, "validate", "good.yaml", *named).returncode == 0
    assert call(place, "validate", "good.yaml").returncode == 2


def test_a_task_may_come_by_a_pipe(place: Path) -> None:
    done = subprocess.run(
        [*ORCHESTRATE, "validate", "/dev/stdin"], input="prompt: x\n", capture_output=True,
        text=True, cwd=place, env=environment(place),
    )  # fmt: skip
    assert done.stdout.startswith("/dev/stdin: valid\n"), done.stderr


def test_the_list_of_runs_for_programs_holds_whole_values(place: Path) -> None:
    assert json.loads(call(place, "runs", "list", "-o", "json").stdout) == []
    assert run(place, said("hello"), DONE).returncode == 0
    [one] = json.loads(call(place, "runs", "list", "--output", "json").stdout)
    [folder] = (place.parent / "state/runs").iterdir()
    assert (one["run"], one["outcome"], one["problem"]) == (folder.name, "succeeded", None)
    (folder / "task.json").write_text("{")
    [one] = json.loads(call(place, "runs", "list", "--output", "json").stdout)
    assert (one["outcome"], one["agent"]) == ("unreadable", None)
    assert "task.json" in one["problem"]


def test_the_version_is_told_as_people_ask_for_it(place: Path) -> None:
    told = {call(place, word).stdout for word in ("version", "--version", "-V")}
    assert told == {f"{__version__}\n"}


def test_a_file_with_only_a_prompt_is_valid(place: Path) -> None:
    (place / "task.yaml").write_text("prompt: x\n")
    assert call(place, "validate", "task.yaml").stdout.startswith("task.yaml: valid\n")


@pytest.mark.parametrize("name", ["task", "events"])
def test_a_schema_is_printed_as_json(place: Path, name: str) -> None:
    assert json.loads(call(place, "schema", name).stdout)["$schema"]


def test_a_found_configuration_cannot_start_programs(place: Path) -> None:
    (place / "orchestrate.toml").write_text('[agents.x]\nadapter = "jsonl"\nargv = ["evil"]\n')
    done = call(place, "run", "-p", "x")
    assert done.returncode == 2
    assert "agents.x.argv" in done.stderr
    assert "orchestrate config trust" in done.stderr


def test_flags_win_over_the_file_but_privacy_only_tightens(place: Path) -> None:
    (place / "task.yaml").write_text("prompt: from the file\nprivacy: local\nagent: codex\n")
    config = configured(place, DONE)
    flags = ("--agent", "scripted", "--privacy", "any", "--config", config, "-o", "json")
    done = call(place, "run", "task.yaml", *flags)
    outcome = json.loads(done.stdout)
    assert outcome["status"] == "unroutable"
    assert "scripted: privacy: local" in outcome["error"]["text"]
    assert done.returncode == 1


@pytest.mark.parametrize(
    ("flags", "key"),
    [
        ({}, "FILE_KEY"),
        ({"base_url": "http://other:1"}, None),
        ({"base_url": "http://other:1", "api_key_env": "KEY"}, "KEY"),
    ],
)
def test_a_task_files_key_is_not_for_the_address_of_a_flag(
    flags: dict[str, str], key: str | None
) -> None:
    task = Task(prompt="x", base_url="http://desk:1", api_key_env="FILE_KEY")
    assert _task(task, flags).api_key_env == key
    with pytest.raises(InputError, match="--api-key-env: the address is the task file's"):
        _task(task, {"api_key_env": "KEY"})


def test_runs_are_listed_shown_tailed_and_exported(place: Path) -> None:
    run(place, said("hello"), {"write": "a.txt", "text": "two"}, DONE)
    listed = call(place, "runs", "list")
    run_id = listed.stdout.splitlines()[1].split()[0]
    assert "succeeded" in listed.stdout
    shown = call(place, "runs", "show", run_id[-8:])
    for text in ("asked      do it", "says      hello", "a.txt  +1 -1", "terminal event: end_turn"):
        assert text in shown.stdout
    tailed = call(place, "runs", "tail", "last", "-o", "jsonl")
    assert json.loads(tailed.stdout.splitlines()[-1])["type"] == "run.finished"
    nowhere = call(place, "runs", "export", run_id, "--to", "gone/a.tar.gz")
    assert (nowhere.returncode, "no folder gone" in nowhere.stderr) == (2, True)
    exported = call(place, "runs", "export", run_id)
    with tarfile.open(place / exported.stdout.strip()) as archive:
        names = {Path(name).name for name in archive.getnames()}
    assert {"stdout", "stderr", "events.jsonl", "task.json", "outcome.json"} <= names
    again = call(place, "runs", "export", run_id)
    assert again.returncode == 3
    assert "File exists" in again.stderr


def test_a_run_without_a_session_cannot_be_resumed(place: Path) -> None:
    run(place, DONE)
    config = configured(place, DONE)
    done = call(place, "runs", "resume", "last", "-p", "more", "--config", config)
    assert done.returncode == 2
    assert "resume" in done.stderr


def start(place: Path, *steps: Mapping[str, object]) -> subprocess.Popen[str]:
    """A run in the background; returns when its agent has said something."""
    config = configured(place, *steps)
    arguments = ("run", "-p", "x", "--config", config, "--agent", "scripted", "-o", "jsonl")
    process = commands.Command[str](
        arguments,
        cwd=place,
        env=environment(place),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    while '"type":"message"' not in process.stdout.readline():
        assert process.poll() is None
    return process


def children_of(pid: int) -> set[int]:
    """All descendants, at any depth."""
    listed = subprocess.run(["ps", "-e", "-o", "pid=,ppid="], capture_output=True, text=True)
    parents = [tuple(map(int, line.split())) for line in listed.stdout.splitlines()]
    found, before = {pid}, set[int]()
    while found != before:
        before = set(found)
        found |= {child for child, parent in parents if parent in found}
    return found - {pid}


def gone(pids: set[int]) -> bool:
    return not any(Path(f"/proc/{pid}").exists() for pid in pids)


@pytest.mark.parametrize("sent", [signal.SIGINT, signal.SIGTERM])
def test_one_signal_stops_the_agent_cleanly_and_writes_the_outcome(
    place: Path, sent: signal.Signals
) -> None:
    on_signal = {"on": "SIGINT", "do": [said("saving my work"), {"exit": 0}]}
    with start(place, on_signal, said("begun"), {"hang": True}) as process:
        children = children_of(process.pid)
        process.send_signal(sent)
        stdout, _ = process.communicate()
    assert process.returncode == 130
    assert "saving my work" in stdout
    assert json.loads(stdout.splitlines()[-1])["outcome"]["status"] == "interrupted"
    assert gone(children)


def test_a_second_signal_stops_at_once_and_the_outcome_is_still_written(place: Path) -> None:
    stubborn = {"ignore": ["SIGINT", "SIGTERM"]}
    spawned = {"spawn": [stubborn, {"hang": True}], "setsid": True}
    with start(place, stubborn, spawned, said("begun"), {"hang": True}) as process:
        assert process.stderr is not None
        children = children_of(process.pid)
        process.send_signal(signal.SIGINT)
        assert "once more" in process.stderr.readline()
        process.send_signal(signal.SIGINT)
        process.communicate()
    assert process.returncode == 130
    assert gone(children)
    outcome = next((place.parent / "state" / "runs").glob("*/outcome.json"))
    assert json.loads(outcome.read_text())["status"] == "interrupted"


def test_a_killed_orchestrate_leaves_nothing_and_the_run_is_shown_as_cut_off(place: Path) -> None:
    with start(place, {"ignore": ["SIGTERM"]}, said("begun"), {"hang": True}) as process:
        pidfds = [os.pidfd_open(child) for child in children_of(process.pid)]
        process.kill()
        process.communicate()
    import select

    for pidfd in pidfds:
        assert select.select([pidfd], [], [], 10)[0]
        os.close(pidfd)
    assert "cut off" in call(place, "runs", "list").stdout
    assert call(place, "runs", "tail", "last").returncode == 0


def test_a_reader_that_goes_away_ends_it_quietly(place: Path) -> None:
    run(place, *[said("hello")] * 2000, DONE)
    command = " ".join([*ORCHESTRATE, "runs", "show", "last"])
    done = subprocess.run(
        ["/bin/sh", "-c", f"{command} | head -n 1"],
        cwd=place,
        env=environment(place),
        capture_output=True,
        text=True,
    )
    assert done.stdout.startswith("run ")
    assert done.stderr == ""


def test_an_unwritable_state_folder_is_our_failure_with_a_remedy(place: Path) -> None:
    (place.parent / "file").write_text("")
    config = configured(place, DONE)
    done = call(
        place,
        *("run", "-p", "x", "--config", config, "--agent", "scripted"),
        env={"ORCHESTRATE_STATE_DIR": str(place.parent / "file" / "state")},
    )
    assert done.returncode == 3
    assert "ORCHESTRATE_STATE_DIR" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_replayed_recording_shows_no_key_of_the_user(place: Path) -> None:
    key = "ghp_PLANTED0123456789"
    (place / "out").write_text(json.dumps({"type": "error", "message": key}) + f"\n{key}\n")
    (place / "err").write_text(f"Error: {key}\n")
    for form in ("jsonl", "json", "text"):
        words = ("replay", "codex", "out", "--stderr", "err", "--exit=1", "-o", form)
        done = call(place, *words, env={"GITHUB_TOKEN": key})
        assert "[redacted]" in done.stdout + done.stderr
        assert "PLANTED" not in done.stdout + done.stderr


def test_a_recording_is_replayed_to_events_with_the_outcome_last(place: Path) -> None:
    (place / "out").write_text('{"type":"thread.started","thread_id":"t"}\nrubbish')
    (place / "err").write_text("error: unexpected argument '--bad'\n")
    done = call(place, "replay", "codex", "out", "--stderr", "err", "--exit=2", "-o", "jsonl")
    last = json.loads(done.stdout.splitlines()[-1])
    assert (done.returncode, last["type"]) == (1, "run.finished")
    assert last["outcome"]["status"] == "failed"
    killed = call(place, "replay", "codex", "out", "--exit=-9", "-o", "json")
    assert "SIGKILL" in json.loads(killed.stdout)["error"]["text"]


# --- several tasks

GRAPH = """
name: demo
tasks:
  - {id: locate, kind: search, prompt: Find it}
  - {id: fix, needs: [locate], prompt: "Fix {{ tasks.locate.text }}", check: "test -e gone"}
  - {id: review, kind: review, needs: [fix], prompt: "{{ tasks.fix.diff }}"}
  - {id: other, access: read, prompt: x}
"""


def run_graph(place: Path, *flags: str) -> subprocess.CompletedProcess[str]:
    (place / "graph.yaml").write_text(GRAPH)
    config = configured(place, said("here"), DONE)
    return call(place, "run", "graph.yaml", "--config", config, "--agent", "scripted", *flags)


def test_several_tasks_are_told_by_name_and_the_worst_decides_the_exit_status(place: Path) -> None:
    done = run_graph(place)
    assert done.returncode == 1
    for line in ("locate: started", "locate: here", "locate: succeeded", "fix: check FAILED"):
        assert line in done.stderr
    assert "review: skipped: it needs 'fix', which did not succeed (failed)" in done.stderr
    assert "2 of 4 tasks succeeded, 1 failed, 1 skipped" in done.stdout
    assert re.search(r"^review +skipped ", done.stdout, re.MULTILINE)
    assert "fix: failed\n  cause    the check `test -e gone` exited 1" in done.stdout
    listed = call(place, "runs", "list").stdout
    job = re.search(r" failed +(\S{8}) +fix ", listed)
    assert job is not None
    told = call(place, "runs", "show", job[1]).stdout
    assert re.search(r"^job +\S{36} \(demo\)$", told, re.MULTILINE)
    assert re.search(r"^outcome +failed$", told, re.MULTILINE)
    assert "task      fix: fix begins after locate" in told
    assert "task      review: ended: skipped" in told
    assert re.search(r"^review +skipped ", told, re.MULTILINE)
    assert "fix: failed\n  cause    the check `test -e gone` exited 1" in told
    assert len(re.findall(r"^run +[0-9a-f-]{36}  (?:locate|fix|\w+)$", told, re.MULTILINE)) == 3


def test_the_outcome_of_several_tasks_is_one_object_with_all_of_them(place: Path) -> None:
    done = run_graph(place, "-o", "json", "--concurrency", "1")
    outcome = json.loads(done.stdout)
    assert outcome["status"] == "failed"
    assert {id_: one["status"] for id_, one in outcome["tasks"].items()} == {
        "locate": "succeeded",
        "fix": "failed",
        "review": "skipped",
        "other": "succeeded",
    }


@pytest.mark.parametrize("flag", ["--prompt", "--check", "--kind"])
def test_what_is_one_tasks_own_cannot_be_a_flag_for_several(place: Path, flag: str) -> None:
    done = run_graph(place, flag, "fix")
    assert done.returncode == 2
    assert f"{flag}: graph.yaml has several tasks" in done.stderr


def test_a_flag_gives_no_task_of_several_more_access_than_its_file(place: Path) -> None:
    run_graph(place, "--access", "full", "--wall", "5m", "--steps", "90", "-o", "quiet")
    records = [
        json.loads(path.read_text())["task"]
        for path in (place.parent / "state" / "runs").glob("*/task.json")
    ]
    found = {task["id"]: (task["access"] or "edit", task["limits"]["wall_s"]) for task in records}
    assert found == {"locate": ("read", 300), "fix": ("edit", 300), "other": ("read", 300)}
    assert {task["limits"]["steps"] for task in records} == {90}


def test_a_budget_on_the_command_line_holds_over_all_tasks_together(place: Path) -> None:
    tool = {"print": json.dumps({"type": "tool", "id": "1"})}
    config = configured(place, tool, said("here"), DONE)
    (place / "graph.yaml").write_text(GRAPH)
    flags = ("--config", config, "--agent", "scripted", "--concurrency", "1", "-o", "json")
    done = call(place, "run", "graph.yaml", *flags, "--steps", "1")
    outcome = json.loads(done.stdout)
    # Each has one tool call: the second is one too many, and what comes after it never begins.
    assert outcome["tasks"]["locate"]["status"] == "succeeded"
    assert outcome["tasks"]["other"]["status"] == "skipped"
    assert "more than 1 step by the tasks together" in done.stdout


def test_validate_tells_the_order_and_what_each_task_would_do(place: Path) -> None:
    (place / "graph.yaml").write_text(GRAPH)
    done = call(place, "validate", "graph.yaml")
    lines = done.stdout.splitlines()
    assert lines[0] == "graph.yaml: valid"
    assert [line.split()[0] for line in lines[2:]] == ["locate", "fix", "review", "other"]
    assert re.search(r"^fix +locate +- +edit +as `route` tells +test -e gone", lines[3])


# --- agents


@pytest.fixture(scope="module")
def asked(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A state in which every program has told its version: that takes seconds of each start."""
    place = tmp_path_factory.mktemp("asked") / "work"
    place.mkdir()
    listed(place)
    return place.parent / "state"


@pytest.fixture
def known(place: Path, asked: Path) -> Path:
    """The place, with the state."""
    shutil.copytree(asked, place.parent / "state")
    return place


def listed(place: Path, *flags: str, **env: str) -> dict[str, dict[str, dict[str, object]]]:
    """What `agents` lists, by name."""
    done = call(place, "agents", *flags, "-o", "json", env=env)
    assert (done.returncode, done.stderr) == (0, "")
    found = json.loads(done.stdout)
    return {part: {one["name"]: one for one in found[part]} for part in ("adapters", "agents")}


def test_the_list_has_every_adapter_and_every_agent_with_the_default_marked(known: Path) -> None:
    config = configured(known, DONE)
    with Path(config).open("a") as file:
        file.write('[defaults]\nagent = "scripted"\n[agents.mine]\nadapter = "codex"\n')
    found = listed(known, "--config", config)
    codex = found["adapters"]["codex"]
    assert (codex["dialects"], codex["tested"]) == (["responses"], ["0.169.0"])
    assert {"codex", "jsonl", "litellm"} <= set(found["adapters"])
    agents = found["agents"]
    assert [name for name, one in agents.items() if one["default"]] == ["scripted"]
    assert (agents["scripted"]["adapter"], agents["scripted"]["configured"]) == ("jsonl", True)
    assert agents["mine"]["access"] == ["read", "edit", "full"]
    assert (agents["litellm"]["configured"], agents["litellm"]["auth"]) == (False, None)
    text = call(known, "agents", "--config", config).stdout
    assert re.search(r"^scripted +jsonl .* default$", text, re.MULTILINE)


def test_a_key_comes_before_a_login_and_a_login_is_only_looked_for(known: Path) -> None:
    login = known.parent / "home/.codex/auth.json"
    assert listed(known)["agents"]["codex"]["auth"] == "none"
    login.parent.mkdir(parents=True)
    login.touch(0o000)
    found = listed(known)
    assert found["agents"]["codex"]["auth"] == found["adapters"]["codex"]["auth"] == "login"
    found = listed(known, OPENAI_API_KEY="sk-x")
    assert found["agents"]["codex"]["auth"] == found["adapters"]["codex"]["auth"] == "key"
    config = known.parent / "agents.toml"
    config.write_text(
        """
[agents.account]
adapter = "codex"
login = true
[agents.desk]
adapter = "codex"
model = "m"
server = "ollama"
[agents.forgotten]
adapter = "codex"
profile = "clean"
api_key_env = "FORGOTTEN"
"""
    )
    agents = listed(known, "--config", str(config), OPENAI_API_KEY="sk-x")["agents"]
    assert [agents[name]["auth"] for name in ("account", "desk", "forgotten")] == [
        "login",
        "none",
        "none",
    ]
    assert agents["forgotten"]["problem"] == "its key is not there: FORGOTTEN is not set"


def test_a_server_named_by_variables_gets_their_key_in_the_cloud_and_none_at_home(
    known: Path,
) -> None:
    for url, auth in (("https://models.example.com/v1", "key"), ("http://127.0.0.1:9/v1", "none")):
        env = {"OPENAI_API_KEY": "sk-x", "OPENAI_BASE_URL": url, "OPENAI_MODEL": "m"}
        agent = listed(known, **env)["agents"]["codex-openai"]
        assert (agent["server"], agent["auth"]) == (url, auth)


def test_use_sets_the_default_in_the_users_file(known: Path) -> None:
    done = call(known, "agents", "use", "codex")
    file = known.parent / "home/config/orchestrate/orchestrate.toml"
    assert (done.returncode, done.stdout) == (0, f"codex is the default agent ({file})\n")
    assert file.read_text() == '[defaults]\nagent = "codex"\n'
    assert listed(known)["agents"]["codex"]["default"]
    (known / "orchestrate.toml").write_text('[defaults]\nagent = "litellm"\n')
    again = call(known, "agents", "use", "codex")
    assert "in this folder it is litellm" in again.stderr


def test_an_interrupted_installation_exits_130_and_leaves_nothing(place: Path) -> None:
    npm = place.parent / "bin/npm"
    npm.parent.mkdir()
    npm.write_text('#!/bin/sh\ntouch "$3/begun"; sleep 60\n')
    npm.chmod(0o755)
    versions = place.parent / "data/orchestrate/agents/.versions"
    env = {
        "PATH": f"{npm.parent}:{os.environ['PATH']}",
        "XDG_DATA_HOME": str(place.parent / "data"),
    }
    with commands.Command[str](
        ["agents", "install", "codex", "--force"],
        cwd=place,
        env={**environment(place), **env},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        while not list(versions.glob("codex-*/begun")):
            assert process.poll() is None
        children = children_of(process.pid)
        process.send_signal(signal.SIGINT)
        stdout, stderr = process.communicate()
    assert (process.returncode, stdout) == (130, "")
    assert stderr.startswith("Codex CLI 0.169.0 takes about 400 MB on disk and a minute")
    assert "Traceback" not in stderr
    assert gone(children)
    assert [path.name for path in versions.iterdir()] == ["codex.lock"]
