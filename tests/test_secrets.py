"""A key that is planted everywhere is nowhere on record, on the console, in the log or exported."""

import base64
import json
import tarfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from orchestrator.adapter import Agent, Conversation, OneShot, json_line
from orchestrator.console import told
from orchestrator.console.story import Asked, story
from orchestrator.events import Event, Message, MessageDelta, ToolCall, Update
from orchestrator.events.wire import encode
from orchestrator.journal import EVENTS, STDOUT, export_run, list_runs
from orchestrator.supervisor import Supervisor
from orchestrator.task import Task, TaskFile
from tests.scripted_adapter import DONE, Scripted, Step, parse, said, say, scripted_config
from tests.workspace.scene import git, repository

KEY = "ghp_PLANTED0123456789abcdef"
ESCAPED = "".join(f"\\u{ord(char):04x}" for char in KEY)
ENCODED = base64.b64encode(f"user:{KEY}".encode()).decode()
SPELT = (KEY, "PLANTED", ESCAPED, ENCODED, ENCODED[8:-8])

pytestmark = pytest.mark.anyio


class Talks(Scripted):
    """As Scripted, but with pieces of messages and inputs of tools; it fails with what it read."""

    def conversation(self, task: Task, agent: Agent, before: object) -> Conversation:
        del task, agent, before
        return OneShot(parse=_parse)


def _parse(line: bytes) -> Iterator[Update]:
    match json_line(line):
        case {"type": "piece", "text": str(text)}:
            yield MessageDelta(id="m", text=text)
        case {"type": "whole", "text": str(text)}:
            yield Message(id="m", text=text)
        case {"type": "call", "input": dict() as given}:
            yield ToolCall(id="t", status="completed", input=given)
        case {"type": "trap", "text": str(text)}:
            raise RuntimeError(text)
        case _:
            yield from parse(line)


STEPS: tuple[Step, ...] = (
    said(type="piece", text=f"The token is {KEY[:7]}"),
    said(type="piece", text=f"{KEY[7:]}, keep it."),
    said(type="whole", text=f"The token is {KEY}, keep it."),
    said(type="call", input={KEY: [KEY, {"deep": json.dumps({"a": KEY})}]}),
    {"print": f'{{"type":"message","text":"{ESCAPED}"}}'},
    said(type="trap", text=f"cannot read {KEY}"),
    said(type="unknown", header=f"Basic {ENCODED}"),
    {"print": f"no JSON: {KEY}"},
    {"print": f"on stderr {KEY}", "to": "stderr"},
    {"write": "leak.txt", "text": KEY},
    {"write": f"{KEY}.txt", "text": KEY},
    say(f"done with {ENCODED}"),
    DONE,
)


def clean(content: str, where: object) -> None:
    for spelling in SPELT:
        assert spelling not in content, where


async def test_a_key_that_nobody_named_is_in_no_record_and_nothing_shows_it(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    work, state = tmp_path / "work", tmp_path / "state"
    repository(work, {"a.txt": "one\n"})
    environ = {"PATH": "/usr/bin:/bin", "GITHUB_TOKEN": KEY}
    config = scripted_config(state, *STEPS, adapter=Talks(), environ=environ)
    task = Task(prompt=f"Push with {KEY}", workspace=work, check=f"echo {KEY}; printf {ENCODED}")
    events: list[Event] = []
    async with Supervisor(config) as supervisor:
        outcome = await supervisor.run(TaskFile(tasks=(task,), name="t"), events.append)

    (run,) = list_runs(state / "runs")
    clean(repr(outcome), "the outcome")
    for event in events:
        clean(encode(event).decode(), event.update.type)
        clean(told(event) or "", event.update.type)
    asked = Asked(run_id="r", started="", prompt="", workspace="")
    clean("".join(span.text for line in story(asked, events) for span in line), "the story")
    clean("".join(capfd.readouterr()), "the log")
    export_run(run, tmp_path / "run.tar.gz")
    with tarfile.open(tmp_path / "run.tar.gz") as archive:
        for member in archive:
            file = archive.extractfile(member)
            assert file is not None
            clean(file.read().decode(), member.name)
    homes = state / "runs" / run.name / "home"
    for path in state.rglob("*"):
        if path.is_file() and path.name != "script.json" and homes not in path.parents:
            clean(path.read_bytes().decode("utf-8", "replace"), path)

    pieces = [one.update.text for one in events if isinstance(one.update, MessageDelta)]
    assert "".join(pieces) == "The token is [redacted], keep it."
    (call,) = [one.update for one in events if isinstance(one.update, ToolCall)]
    assert call.input == {"[redacted]": ["[redacted]", {"deep": '{"a": "[redacted]"}'}]}
    assert "[redacted]" in (run / EVENTS).read_text()
    assert "*" * len(ESCAPED) in (run / STDOUT).read_text()
    clean(git(work, "log", "--all", "--format=%B"), "our commits")
    branch = git(work, "branch", "--list", "--format=%(refname)", "orchestrate/*")
    assert git(work, "show", f"{branch}:leak.txt") == KEY, "the work itself is left alone"
