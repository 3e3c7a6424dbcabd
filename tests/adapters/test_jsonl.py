"""The jsonl adapter: the form of a description, the command that it makes, what its rules say."""

import json
import re
import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from adapters.jsonl import adapter
from adapters.jsonl.options import options_of
from orchestrator.adapter import TEXT_LIMIT, Agent, Command, Conversation, Exit
from orchestrator.config import load_config
from orchestrator.errors import ConfigError
from orchestrator.events import (
    Context,
    Error,
    Event,
    Location,
    Message,
    MessageDelta,
    Notice,
    Output,
    Permission,
    Plan,
    PlanEntry,
    RateLimit,
    Retry,
    SessionStarted,
    Subagent,
    Thought,
    ThoughtDelta,
    ToolCall,
    TurnFinished,
    TurnStarted,
    Unparsed,
    Update,
    Usage,
)
from orchestrator.run.replay import replay
from orchestrator.task import Access, Task
from orchestrator.usage import Tally, priced
from tests.examples import examples
from tests.recordings import RECORDINGS, Recording

ROOT = Path(__file__).parent.parent.parent
END = {"emit": "turn.finished", "when": {"type": "end"}, "stop_reason": "end_turn"}
ENDED = TurnFinished(stop_reason="end_turn")
FAILED = TurnFinished(stop_reason="error")

Rule = Mapping[str, object]


def agent_with(*rules: Rule, **options: object) -> Agent:
    described = {"argv": ["tool"], "events": [*rules, END], **options}
    return Agent(name="x", adapter="jsonl", options=described)


def conversation(*rules: Rule, before: Usage | None = None, **options: object) -> Conversation:
    return adapter.conversation(Task(prompt="p"), agent_with(*rules, **options), before)


def said(talk: Conversation, *values: object) -> list[object]:
    return [update for value in values for update in talk.feed(orjson.dumps(value))]


def say(value: object, *rules: Rule) -> list[object]:
    return said(conversation(*rules), value)


def refused(*rules: Rule, **options: object) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        adapter.about_for(agent_with(*rules, **options))
    return str(caught.value).splitlines()


# --- the form ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("scopes", "counts"),
    [([], None), (["call"], "call"), (["call", "turn"], "turn"), (["turn", "run"], None)],
)
def test_after_what_its_tokens_are_told_the_rules_say(scopes, counts):
    costs = {"emit": "usage", "when": {"type": "c"}, "cost_usd": "c", "scope": "run"}
    used = {"emit": "usage", "when": {"type": "u"}, "input_tokens": "n"}
    rules = [costs, *({**used, "scope": scope} for scope in scopes)]
    assert adapter.about_for(agent_with(*rules)).counts == counts


def test_the_least_that_works_is_a_program_and_how_it_ends() -> None:
    about = adapter.about_for(agent_with())
    assert about.program is not None
    assert about.program.name == "tool"
    assert about.title == "tool"
    assert about.version_argv == ("--version",)
    assert about.enforces == ()
    assert not about.resumes


def test_what_a_cli_is_depends_on_the_agent() -> None:
    about = adapter.about_for(
        agent_with(
            title="Tool",
            argv=["/opt/tool", ["--resume", "{session_id}"], "{access}"],
            access={"read": {"args": ["--ro"]}, "edit": {"enforced": False}, "full": {}},
            install="npm install tool",
            version_argv=["version"],
            dialects=["chat", "messages"],
            key_env="TOOL_KEY",
        )
    )
    assert about.program is not None
    assert about.program.name == "/opt/tool"
    assert (about.title, about.install) == ("Tool", "npm install tool")
    assert (about.version_argv, about.dialects) == (("version",), ("chat", "messages"))
    assert (about.enforces, about.resumes, about.key_env) == (("read", "full"), True, "TOOL_KEY")


def test_nothing_is_an_error_with_every_key_that_is_missing() -> None:
    with pytest.raises(ConfigError) as caught:
        options_of(Agent(name="x", adapter="jsonl"))
    assert str(caught.value).splitlines() == [
        "agent 'x': argv: required, but not there",
        "agent 'x': events: required, but not there",
    ]
    assert caught.value.hint == "docs/jsonl.md describes every key."


def test_without_an_end_success_could_not_be_told() -> None:
    rule = {"emit": "message", "text": ".text"}
    assert refused(events=[rule]) == [
        (
            "agent 'x': events: a rule with `emit = \"turn.finished\"` is required:"
            " without it success cannot be told"
        )
    ]


MESSAGE = {"emit": "message", "text": ".text"}
WRONG: tuple[tuple[Rule, str], ...] = (
    ({}, "events rule 1: `emit` is required: one of session.started, "),
    ({"emit": "mesage"}, "events rule 1 (mesage): no event 'mesage'; did you mean `message`?"),
    ({"emit": "zzz"}, "events rule 1 (zzz): no event 'zzz'; one of session.started, "),
    ({"emit": "message"}, "events rule 1 (message): text: required, but not there"),
    ({**MESSAGE, "txt": "."}, "events rule 1 (message): txt: unknown key; did you mean `text`?"),
    ({**MESSAGE, "zzz": "."}, "events rule 1 (message): zzz: unknown key; known: each, emit, id,"),
    ({"emit": "message", "text": ".a b"}, "text: no path: '.a b' is not understood from ' b' on"),
    ({"emit": "message", "text": {}}, "events rule 1 (message): text.path: required"),
    ({"emit": "message", "text": {"path": ".x", "find": "("}}, "text.find: no regular expression"),
    ({"emit": "message", "text": {"path": 1}}, "text.path: a path such as `.part.text`"),
    ({"emit": "message", "text": {"path": ".x", "pth": 1}}, "text.pth: unknown key; did you mean"),
    ({"emit": "message", "text": {"path": ".x", "other": "y"}}, "text: `other` needs `map`"),
    (
        {"emit": "message", "text": {"path": ".x", "map": {}, "plus": [".y"]}},
        "text: `map` makes a word, `plus` and `minus` a number: not both",
    ),
    ({"emit": "message", "text": []}, "events rule 1 (message): text: found []; allowed: List"),
    ({"emit": "message", "text": [None]}, "text.0: a path such as `.part.text`, a text, a number"),
    ({**MESSAGE, "each": "x"}, "events rule 1 (message): each: no path: 'x' is not understood"),
    ({**MESSAGE, "when": {"a b": 1}}, "events rule 1 (message): when.a b: no path: '.a b'"),
    ({**MESSAGE, "when": {"a": {}}}, "when.a: `exists`, `matches` or `is_not`"),
    ({**MESSAGE, "when": {"a": {"mtch": "x"}}}, "when.a.mtch: unknown key; did you mean `matches`"),
    ({**MESSAGE, "when": {"a": {"matches": "("}}}, "when.a.matches: no regular expression: "),
    ({**MESSAGE, "when": {"a": {"matches": 1}}}, "when.a.matches: a regular expression as text"),
    ({**MESSAGE, "when": {"a": []}}, "events rule 1 (message): when.a: found []; allowed: "),
    ({**MESSAGE, "when": {"a": None}}, "when.a: a text, a number, true or false"),
    (
        {"emit": "tool_call", "id": ".id", "kind": "reed"},
        (
            "kind: one of read, edit, delete, move, search, execute, think, fetch, "
            "switch_mode, other; found 'reed'"
        ),
    ),
    ({"emit": "tool_call", "id": ".id", "kind": 5}, "events rule 1 (tool_call): kind: one of read"),
    (
        {"emit": "tool_call", "id": ".id", "status": [".s", {"path": ".t", "map": {"a": "done"}}]},
        "status: one of pending, in_progress, completed, failed; found 'done'",
    ),
    (
        {"emit": "tool_call", "id": ".id", "status": {"path": ".t", "map": {}, "other": "no"}},
        "status: one of pending, in_progress, completed, failed; found 'no'",
    ),
    (
        {"emit": "turn.finished", "stop_reason": "end_turn"},
        "events rule 1 (turn.finished): a fixed `stop_reason` needs a `when`: not every line",
    ),
    (
        {"emit": "turn.finished", "stop_reason": [".why", "end_turn"]},
        "events rule 1 (turn.finished): a fixed `stop_reason` needs a `when`: not every line",
    ),
    ({"emit": "usage", "counts": "all"}, "counts: found 'all'; allowed: 'delta', 'run' or"),
)


@pytest.mark.parametrize(("rule", "problem"), WRONG, ids=lambda value: str(value)[:60])
def test_a_problem_names_agent_rule_and_key(rule: Rule, problem: str) -> None:
    (line,) = refused(rule)
    assert line.startswith("agent 'x': events rule 1")
    assert problem in line


WRONG_OPTIONS: tuple[tuple[dict[str, object], str], ...] = (
    ({"acess": {}}, "acess: unknown key; did you mean `access`?"),
    ({"argv": []}, "argv: found []; allowed: List should have at least 1 item"),
    ({"argv": "tool"}, "argv: found 'tool'; allowed: a valid list"),
    ({"argv": [["tool"]]}, "argv: the first is the program: a name or path, no placeholder"),
    ({"argv": ["{home}/tool"]}, "argv: the first is the program: a name or path, no placeholder"),
    ({"argv": ["tool", "{modle}"]}, "argv.1: no placeholder {modle}; did you mean {model}?"),
    ({"argv": ["tool", ["-x", "{zzz}"]]}, "argv.1.1: no placeholder {zzz}; known: {prompt}, "),
    ({"argv": ["tool", "--x={access}"]}, "argv.1: no placeholder {access}; known: {prompt}, "),
    ({"access": {"all": {}}}, "access.all: found 'all'; allowed: 'read', 'edit' or 'full'"),
    ({"access": {"read": {"zzz": []}}}, "access.read.zzz: unknown key; known: args, enforced, env"),
    ({"access": {"read": {"flags": []}}}, "access.read.flags: unknown key; did you mean `args`?"),
    (
        {"access": {"read": {"args": ["--ro"]}}},
        "access: `args` are given, but `{access}` stands nowhere in `argv`",
    ),
    ({"stdin": "continue"}, "stdin: the prompt goes nowhere: use {prompt} or {prompt_file}"),
    ({"stdin": 5}, "stdin: a text, or a table that becomes JSON"),
    ({"env": {"A B": "x"}}, "env.A B: found 'A B'; allowed: String should match"),
    ({"env": {"A": {"b": None}}}, "env.A: a text, a number, true, false, a list or a table"),
    ({"env": {"A": {"{b}": 1}}}, "env.A: no placeholder {b}; known: "),
    ({"exits": {"x": "unknown"}}, "exits.x: found 'x'; allowed: String should match"),
    ({"exits": {"1": "no"}}, "exits.1: found 'no'; allowed: 'denied', "),
    ({"events": []}, "events: found []; allowed: List should have at least 1 item"),
    ({"events": [5]}, "events rule 1: found 5; allowed: a valid dictionary"),
    ({"interrupt": "SIGKILL"}, "interrupt: found 'SIGKILL'; allowed: 'SIGINT', 'SIGTERM', "),
    ({"title": 5}, "title: found 5; allowed: a valid string"),
)


@pytest.mark.parametrize(("options", "problem"), WRONG_OPTIONS, ids=lambda value: str(value)[:60])
def test_a_problem_outside_the_rules_names_its_key(
    options: dict[str, object], problem: str
) -> None:
    assert any(problem in line for line in refused(**options))


def test_each_problem_is_told_once_and_all_at_once() -> None:
    lines = refused({"emit": "message"}, {"emit": "nptice", "text": "."}, acess=1)
    assert lines == [
        "agent 'x': events rule 1 (message): text: required, but not there",
        "agent 'x': events rule 2 (nptice): no event 'nptice'; did you mean `notice`?",
        "agent 'x': acess: unknown key; did you mean `access`?",
    ]


# --- the command ---------------------------------------------------------------------------------


def command(task: Task | None = None, agent: Agent | None = None, /, **options: object) -> Command:
    agent = agent or Agent(name="x", adapter="jsonl", home="/home/x", model="m")
    described = {"argv": ["tool"], "events": [END], **options}
    placed = replace(agent, options=described)
    return adapter.command(task or Task(prompt="Do it.", workspace=Path("/w")), placed)


def test_the_prompt_goes_in_on_stdin_unless_it_goes_elsewhere() -> None:
    assert command().stdin == b"Do it."
    assert command(argv=["tool", "{prompt}"]).stdin is None
    assert command(argv=["tool", "{prompt}"]).argv == ("tool", "Do it.")
    assert command(env={"P": "{prompt}"}).stdin is None
    assert command(argv=["tool", "{prompt}"], stdin="y\n").stdin == b"y\n"


def test_a_prompt_file_is_private_and_below_the_home() -> None:
    made = command(argv=["tool", "--file", "{prompt_file}"])
    assert made.argv == ("tool", "--file", "/home/x/prompt")
    assert made.files == {"/home/x/prompt": b"Do it."}
    assert made.stdin is None


def test_a_prompt_file_needs_a_private_home() -> None:
    with pytest.raises(ConfigError, match=r"'x': \{prompt_file\} needs a private home") as caught:
        command(None, Agent(name="x", adapter="jsonl"), argv=["tool", "{prompt_file}"])
    assert "profile" in (caught.value.hint or "")


def test_a_table_on_stdin_is_one_line_of_json() -> None:
    made = command(stdin={"type": "user", "content": ["{prompt}"], "n": 1})
    assert made.stdin == b'{"type":"user","content":["Do it."],"n":1}\n'


def test_stdin_with_a_placeholder_without_value_is_refused() -> None:
    with pytest.raises(ConfigError, match="'x': stdin: a placeholder has no value"):
        command(stdin="{prompt} {session_id}")


def test_a_group_is_left_out_if_a_placeholder_in_it_has_no_value() -> None:
    argv = ["tool", ["--model", "{model}"], ["--resume", "{session_id}"], ["-v"], "end"]
    assert command(argv=argv).argv == ("tool", "--model", "m", "-v", "end")
    resumed = Task(prompt="p", session_id="s1")
    assert command(resumed, argv=argv).argv == (
        "tool",
        "--model",
        "m",
        "--resume",
        "s1",
        "-v",
        "end",
    )


def test_an_argument_outside_a_group_needs_its_value() -> None:
    with pytest.raises(ConfigError, match=re.escape("'x': argv[2]: {base_url} has no value")) as e:
        command(argv=["tool", "--url", "{base_url}"])
    assert "group" in (e.value.hint or "")
    with pytest.raises(ConfigError, match=re.escape("access.edit.args: {base_url} has no value")):
        command(argv=["tool", "{access}"], access={"edit": {"args": ["{base_url}"]}})


def test_access_becomes_arguments_and_variables() -> None:
    options: dict[str, object] = {
        "argv": ["tool", "{access}", "-"],
        "env": {"A": "1", "B": "1"},
        "access": {
            "read": {"args": ["--ro", "{workspace}"], "env": {"B": {"deny": ["edit"]}}},
            "edit": {"args": ["--rw"]},
        },
    }
    reading = command(Task(prompt="p", workspace=Path("/w"), access="read"), **options)
    assert reading.argv == ("tool", "--ro", "/w", "-")
    assert reading.env == {"HOME": "/home/x", "A": "1", "B": '{"deny":["edit"]}'}
    assert command(**options).argv == ("tool", "--rw", "-")
    assert command(Task(prompt="p", access="full"), **options).argv == ("tool", "-")


def test_the_programs_place_is_known_to_the_core() -> None:
    assert command(None, Agent(name="x", adapter="jsonl", program="/opt/tool")).argv == (
        "/opt/tool",
    )


def test_a_home_of_its_own_is_home_and_the_users_own_is_passed_on() -> None:
    assert command().env == {"HOME": "/home/x"}
    assert command().env_from == {}
    assert command(env={"HOME": "{workspace}"}).env == {"HOME": "/w"}
    users = command(None, Agent(name="x", adapter="jsonl"))
    assert users.env == {}
    assert users.env_from["HOME"] == "HOME"
    assert users.env_from["XDG_CONFIG_HOME"] == "XDG_CONFIG_HOME"


def test_a_variable_whose_placeholder_has_no_value_is_not_set() -> None:
    env: dict[str, object] = {
        "URL": "{base_url}",
        "CONFIG": {"models": {"{model}": {"url": "{openai_url}"}}, "list": [1, True]},
        "KEY": {"{session_id}": 1},
        "LIST": {"list": ["{session_id}"]},
    }
    assert command(env=env).env == {"HOME": "/home/x"}
    local = Agent(name="x", adapter="jsonl", model="a/b", base_url="localhost:1", home="/h")
    assert command(None, local, env=env).env == {
        "HOME": "/h",
        "URL": "http://localhost:1",
        "CONFIG": '{"models":{"a/b":{"url":"http://localhost:1/v1"}},"list":[1,true]}',
    }


def test_json_in_a_variable_cannot_be_broken_by_what_is_filled_in() -> None:
    task = Task(prompt='"}, {"x": "', workspace=Path("/w"))
    made = command(task, stdin={"prompt": "{prompt}"})
    assert json.loads(made.stdin or b"") == {"prompt": '"}, {"x": "'} if made.stdin != "open" else 0


@pytest.mark.parametrize(
    ("url", "base", "openai"),
    [
        ("http://h:1", "http://h:1", "http://h:1/v1"),
        ("h:1/v1/", "http://h:1", "http://h:1/v1"),
        ("https://h/v1", "https://h", "https://h/v1"),
        ("https://openrouter.example/api/v1", "https://openrouter.example/api", "https://openrouter.example/api/v1"),
        ("https://g.example/v1beta/openai/", "https://g.example/v1beta/openai", "https://g.example/v1beta/openai"),
    ],
)  # fmt: skip
def test_urls_work_with_or_without_scheme_v1_and_slash(url: str, base: str, openai: str) -> None:
    agent = Agent(name="x", adapter="jsonl", base_url=url)
    assert command(None, agent, argv=["t", "{base_url}", "{openai_url}"]).argv == (
        "t",
        base,
        openai,
    )


def test_what_is_filled_in_is_not_filled_in_again() -> None:
    task = Task(prompt="say {model}", workspace=Path("/w"))
    assert command(task, argv=["t", "{prompt} {model}"]).argv == ("t", "say {model} m")


def test_the_key_reaches_the_variable_that_the_cli_reads() -> None:
    agent = Agent(name="x", adapter="jsonl", api_key_env="MY_KEY", home="/h")
    made = command(None, agent, key_env="TOOL_KEY", env_from=["LANGUAGE"])
    assert made.env_from == {"LANGUAGE": "LANGUAGE", "TOOL_KEY": "MY_KEY"}
    assert made.secrets == ("TOOL_KEY",)
    assert command(None, agent).env_from == {"MY_KEY": "MY_KEY"}


def test_the_key_takes_the_place_of_a_stand_in() -> None:
    agent = Agent(name="x", adapter="jsonl", api_key_env="MY_KEY", home="/h")
    options: dict[str, object] = {"key_env": "KEY", "env": {"KEY": "none"}}
    assert command(**options).env == {"HOME": "/home/x", "KEY": "none"}
    made = command(None, agent, **options)
    assert (made.env, made.env_from) == ({"HOME": "/h"}, {"KEY": "MY_KEY"})


def test_files_are_written_before_the_start() -> None:
    files = {"{home}/a.json": {"model": "{model}"}, "{home}/b": "text", "{home}/{session_id}": "x"}
    assert command(files=files).files == {
        "/home/x/a.json": b'{"model":"m"}',
        "/home/x/b": b"text",
    }
    with pytest.raises(ConfigError, match=r"files: 'a\.json' is not absolute"):
        command(files={"a.json": "x"})


def test_resuming_needs_a_place_for_the_session() -> None:
    with pytest.raises(ConfigError, match="'x': it cannot be resumed") as caught:
        command(Task(prompt="p", session_id="s1"))
    assert "--session" in (caught.value.hint or "")


def test_a_prompt_too_long_for_argv_is_refused_before_the_system_does() -> None:
    with pytest.raises(ConfigError, match="an argument of 131072 bytes is too long") as caught:
        command(Task(prompt="x" * 128 * 1024), argv=["tool", "{prompt}"])
    assert "stdin" in (caught.value.hint or "")


@pytest.mark.parametrize(
    ("name", "number"), [("SIGINT", 2), ("SIGTERM", 15), ("SIGHUP", 1), ("none", None)]
)
def test_the_signal_that_stops_it_cleanly(name: str, number: int | None) -> None:
    assert command(interrupt=name).interrupt == number
    assert command().interrupt == 2


# --- paths and values ----------------------------------------------------------------------------

LINE: dict[str, object] = {
    "type": "x",
    "a": {"b": "deep", "odd key": "odd", "dot.ted": "dotted", "n": None},
    "list": [{"t": "one"}, {"t": "two"}, 3, None],
    "numbers": [1, 2.5, "3", True],
    "map": {"k": {"n": 1}, "l": {"n": 2}},
    "true": True,
    "one": 1,
    "float": 1.5,
    "said": "status 401 it was",
    "empty": "",
}


@pytest.mark.parametrize(
    ("path", "found"),
    [
        (".a.b", "deep"),
        ("$.a.b", "deep"),
        (".list[0].t", "one"),
        (".list[-3].t", "two"),
        (".list.[1].t", "two"),
        ('.a."odd key"', "odd"),
        ('.a."dot.ted"', "dotted"),
        (".list[].t", "onetwo"),
        (".empty", ""),
        (".a", None),
        (".a.n", None),
        (".a.none", None),
        (".a[0]", None),
        (".a.b.c", None),
        (".list.t", None),
        (".list[9]", None),
        (".list[-9]", None),
        (".one", None),
        (".true", None),
        (".numbers[].x", None),
        (".", None),
        ("$", None),
        ("$.", None),
    ],
)
def test_a_path_finds_what_is_there_and_nothing_else(path: str, found: str | None) -> None:
    talk = say(LINE, {"emit": "message", "text": path})
    expected: Update = Message(text=found) if found is not None else kept(LINE, MATCHED)
    assert talk == [expected]


MATCHED = "rule 1 matches, but says nothing new"


def kept(line: object, reason: str) -> Unparsed:
    return Unparsed(stream="stdout", text=orjson.dumps(line).decode(), reason=reason)


def test_of_several_places_the_first_that_is_there_counts() -> None:
    rule = {"emit": "message", "text": [".none", {"path": ".a.none"}, ".a.b", "never"]}
    assert say(LINE, rule) == [Message(text="deep")]
    assert say(LINE, {"emit": "message", "text": [".none", "else"]}) == [Message(text="else")]


@pytest.mark.parametrize(
    ("value", "tokens"),
    [
        (".one", 1),
        (7, 7),
        (".numbers[]", 6),
        (".map[].n", 3),
        (".numbers", 6),
        ({"path": ".one", "plus": [".map.l.n", ".none", ".a"]}, 3),
        ({"path": ".map.l.n", "minus": [".one"]}, 1),
        ({"path": ".one", "minus": [".map.l.n"]}, 0),
        ({"path": ".said", "find": "status ([0-9]+)"}, 401),
        ({"path": ".one", "find": "^1$", "plus": [".one"]}, 2),
        ({"path": ".one", "unknown": [0, True]}, 1),
        ({"path": ".one", "unknown": [0, 1]}, None),
        ({"path": ".true", "plus": [".one"]}, None),
        (".true", None),
        (".empty", None),
        (".list", 3),
        (".list[].t", None),
        (-1, None),
        (2**53, None),
        (2.0**80, None),
        (float("nan"), None),
    ],
)
def test_numbers_are_counted_and_what_is_none_is_unknown(value: object, tokens: int | None) -> None:
    rule = {"emit": "usage", "input_tokens": value, "output_tokens": 0}
    assert say(LINE, rule) == [Usage(input_tokens=tokens, output_tokens=0)]


@pytest.mark.parametrize(
    ("value", "kind"),
    [
        ("read", "read"),
        (".a.b", None),
        ({"path": ".a.b", "map": {"deep": "edit"}}, "edit"),
        ({"path": ".a.b", "map": {"x": "edit"}}, None),
        ({"path": ".a.b", "map": {"x": "edit"}, "other": "other"}, "other"),
        ({"path": ".none", "map": {"x": "edit"}, "other": "other"}, None),
        ({"path": ".true", "map": {"true": "edit"}}, "edit"),
        ({"path": ".one", "map": {"1": "edit"}}, "edit"),
        ({"path": ".float", "map": {"1.5": "edit"}}, "edit"),
        ({"path": ".a", "map": {"": "edit"}}, "edit"),
        ({"path": ".a.b", "find": "e+", "map": {"ee": "edit"}}, "edit"),
        ({"path": ".a.b", "find": "d(x)?", "map": {"": "edit"}}, "edit"),
        ({"path": ".a.b", "find": "e+", "map": {}, "other": "fetch"}, "fetch"),
        ({"path": ".a.b", "find": "x", "map": {}, "other": "fetch"}, None),
    ],
)
def test_words_of_the_cli_become_words_of_the_event(value: object, kind: str | None) -> None:
    (call,) = say(LINE, {"emit": "tool_call", "id": "1", "kind": value})
    assert isinstance(call, ToolCall)
    assert call.kind == kind


@pytest.mark.parametrize(
    ("when", "holds"),
    [
        ({}, True),
        ({"type": "x"}, True),
        ({".type": "x"}, True),
        ({"$.type": "x"}, True),
        ({"type": "y"}, False),
        ({"type": ["y", "x"]}, True),
        ({"type": "x", "a.b": "deep"}, True),
        ({"type": "x", "a.b": "flat"}, False),
        ({"none": "x"}, False),
        ({"true": True}, True),
        ({"true": 1}, False),
        ({"one": 1}, True),
        ({"one": True}, False),
        ({"one": 1.0}, True),
        ({"numbers[]": "3"}, True),
        ({"list[].t": ["two"]}, True),
        ({'a."odd key"': "odd"}, True),
        ({"a": {"exists": True}}, True),
        ({"none": {"exists": False}}, True),
        ({"a.n": {"exists": True}}, False),
        ({"a.b": {"matches": "^de+p$"}}, True),
        ({"a.b": {"matches": "^flat"}}, False),
        ({"one": {"matches": "^1$"}}, True),
        ({"none": {"matches": "x"}}, False),
        ({"type": {"is_not": "y"}}, True),
        ({"type": {"is_not": ["x", "y"]}}, False),
        ({"none": {"is_not": "y"}}, False),
        ({"type": {"is_not": "y", "matches": "x", "exists": True}}, True),
    ],
)
def test_a_rule_speaks_where_every_condition_holds(when: dict[str, object], holds: bool) -> None:
    (update,) = say(LINE, {"emit": "notice", "text": "yes", "when": when})
    assert update == (Notice(text="yes") if holds else kept(LINE, "no rule matches"))


# --- rules ---------------------------------------------------------------------------------------


def test_every_kind_of_event_can_be_said() -> None:
    line = {
        "id": "i",
        "t": "text",
        "n": 3,
        "s": "word",
        "flag": True,
        "j": {"k": [1]},
        "tools": ["a", 5, "b"],
    }
    rules: tuple[tuple[Rule, Update], ...] = (
        (
            {"emit": "session.started", "session_id": ".id", "model": ".t", "tools": ".tools"},
            SessionStarted(session_id="i", model="text", tools=["a", "b"]),
        ),
        ({"emit": "turn.started"}, TurnStarted()),
        (
            {"emit": "message", "text": ".t", "id": ".n", "role": "user"},
            Message(text="text", id="3", role="user"),
        ),
        (
            {"emit": "message.delta", "text": ".t", "role": "user"},
            MessageDelta(text="text", role="user"),
        ),
        ({"emit": "thought", "text": ".t", "id": ".id"}, Thought(text="text", id="i")),
        ({"emit": "thought.delta", "text": ".t"}, ThoughtDelta(text="text")),
        (
            {
                "emit": "tool_call",
                "id": ".id",
                "status": "failed",
                "kind": "execute",
                "title": ".t",
                "input": ".j",
                "output": ".j",
                "exit_code": ".n",
                "diff": ".t",
                "locations": ".t",
            },
            ToolCall(
                id="i",
                status="failed",
                kind="execute",
                title="text",
                input={"k": [1]},
                output='{"k":[1]}',
                locations=[Location(path="text")],
                diff="text",
                exit_code=3,
            ),
        ),
        (
            {"emit": "permission", "id": ".id", "status": "granted", "tool": ".t", "reason": ".s"},
            Permission(id="i", status="granted", tool="text", reason="word"),
        ),
        (
            {"emit": "subagent", "id": ".id", "status": "started", "child_agent": ".t"},
            Subagent(id="i", status="started", child_agent="text"),
        ),
        (
            {
                "emit": "usage",
                "input_tokens": ".n",
                "output_tokens": ".n",
                "cache_read_tokens": ".n",
                "cache_write_tokens": ".n",
                "reasoning_tokens": ".n",
                "cost_usd": ".n",
                "scope": "turn",
            },
            Usage(
                input_tokens=3,
                output_tokens=3,
                cache_read_tokens=3,
                cache_write_tokens=3,
                reasoning_tokens=3,
                cost_usd=3.0,
                cost_source="agent",
                scope="turn",
            ),
        ),
        ({"emit": "context", "used": ".n", "size": 8}, Context(used=3, size=8)),
        (
            {"emit": "rate_limit", "status": ".s", "resets_at": ".t"},
            RateLimit(status="word", resets_at="text"),
        ),
        (
            {"emit": "retry", "reason": ".t", "attempt": ".n", "of": 5, "delay_s": 0.5},
            Retry(reason="text", attempt=3, of=5, delay_s=0.5),
        ),
        ({"emit": "notice", "text": ".j"}, Notice(text='{"k":[1]}')),
        (
            {
                "emit": "error",
                "text": ".t",
                "kind": "refused",
                "retryable": ".flag",
                "hint": ".s",
            },
            Error(kind="refused", text="text", retryable=True, hint="word"),
        ),
        ({"emit": "turn.finished", "when": {"id": "i"}, "stop_reason": "refusal"},
         TurnFinished(stop_reason="refusal")),
    )  # fmt: skip
    for rule, update in rules:
        spoken = say(line, rule)
        assert spoken[:1] == [update]
    assert {str(rule["emit"]) for rule, _ in rules} | {"plan", "ignore"} == set(all_emits())


def all_emits() -> Iterable[str]:
    from adapters.jsonl.rules import RULES

    return RULES


NEEDS: tuple[Rule, ...] = (
    {"emit": "session.started", "session_id": ".none"},
    {"emit": "message", "text": ".none"},
    {"emit": "message.delta", "text": ".j"},
    {"emit": "thought", "text": ".none"},
    {"emit": "thought.delta", "text": ".none"},
    {"emit": "tool_call", "id": ".none"},
    {"emit": "tool_call", "id": ".flag"},
    {"emit": "plan", "entries": ".j", "text": ".t"},
    {"emit": "permission", "id": ".none", "status": "denied"},
    {"emit": "permission", "id": "1", "status": ".none"},
    {"emit": "subagent", "id": ".none", "status": "started"},
    {"emit": "subagent", "id": "1", "status": ".none"},
    {"emit": "usage", "input_tokens": ".none", "cost_usd": -1},
    {"emit": "context", "used": ".none"},
    {"emit": "rate_limit", "status": ".none"},
    {"emit": "retry", "reason": ".none"},
    {"emit": "notice", "text": ".none"},
    {"emit": "turn.finished", "stop_reason": ".flag"},
)


@pytest.mark.parametrize("rule", NEEDS, ids=str)
def test_a_rule_whose_value_is_missing_says_nothing_and_the_line_is_kept(rule: Rule) -> None:
    line = {"j": {"k": [1]}, "flag": True}
    assert say(line, rule) == [kept(line, MATCHED)]


def test_a_plan_is_read_entry_by_entry() -> None:
    rule = {
        "emit": "plan",
        "entries": ".todos",
        "text": ".content",
        "status": {"path": ".state", "map": {"doing": "in_progress"}},
    }
    line = {"todos": [{"content": "a", "state": "doing"}, {"content": "b"}, "rubbish"]}
    entries = [PlanEntry(text="a", status="in_progress"), PlanEntry(text="b", status="pending")]
    assert say(line, rule) == [Plan(entries=entries)]


def test_a_rule_with_each_is_asked_for_every_item() -> None:
    line = {
        "type": "assistant",
        "id": "m1",
        "content": [
            {"type": "text", "text": "one"},
            {"type": "tool_use", "id": "c1", "name": "Bash"},
            "rubbish",
            {"type": "text", "text": "two"},
        ],
    }
    text = {
        "emit": "message",
        "each": ".content",
        "when": {"$.type": "assistant", "type": "text"},
        "text": ".text",
        "id": "$.id",
    }
    call = {
        "emit": "tool_call",
        "each": "$.content",
        "when": {"type": "tool_use"},
        "id": ".id",
        "title": ".name",
        "input": ".",
    }
    assert say(line, text, call) == [
        Message(text="one", id="m1"),
        Message(text="two", id="m1"),
        ToolCall(
            id="c1", title="Bash", input={"type": "tool_use", "id": "c1", "name": "Bash"}
        ),
    ]  # fmt: skip
    for other in ({"content": {"type": "text"}}, {"content": "text"}, {}):
        strange = {"type": "assistant", **other}
        assert say(strange, text) == [kept(strange, "no rule matches")]


def test_all_rules_that_match_speak_in_their_order() -> None:
    first = {"emit": "notice", "text": "first"}
    second = {"emit": "thought", "text": "second"}
    assert say({"type": "end"}, first, second) == [
        Notice(text="first"),
        Thought(text="second"),
        ENDED,
    ]


def test_locations_may_be_several() -> None:
    rule = {"emit": "tool_call", "id": "1", "locations": ".files[].path"}
    (call,) = say({"files": [{"path": "a"}, {"path": ""}, {"path": 5}, {"path": "b"}]}, rule)
    assert isinstance(call, ToolCall)
    assert call.locations == [Location(path="a"), Location(path="b")]


def test_a_long_output_is_cut_and_the_spool_has_it_whole() -> None:
    rule = {"emit": "tool_call", "id": "1", "output": ".out"}
    (call,) = say({"out": "x" * (TEXT_LIMIT + 5)}, rule)
    assert isinstance(call, ToolCall)
    assert call.output == "x" * TEXT_LIMIT


def test_an_error_without_its_text_is_still_an_error() -> None:
    rule = {"emit": "error", "when": {"type": "error"}, "text": ".message"}
    assert say({"type": "error"}, rule) == [Error(kind="unknown", text='{"type":"error"}'), FAILED]
    assert say({"type": "error", "message": ""}, rule)[-1] == FAILED


@pytest.mark.parametrize(
    ("line", "kind"),
    [
        ({"m": "nope", "s": 401}, "auth_failed"),
        ({"m": "nope", "s": 503}, "server_error"),
        ({"m": "maximum context length is 8192", "s": 400}, "context_overflow"),
        ({"m": "Connection refused"}, "unavailable"),
        ({"m": "nope", "s": "401"}, "auth_failed"),
        ({"m": "nope", "s": "4.1"}, "unknown"),
        ({"m": "nope", "n": "Overflow"}, "context_overflow"),
        ({"m": "Connection refused", "n": "Else"}, "unavailable"),
    ],
)
def test_the_kind_of_an_error_is_told_by_name_wording_or_status(
    line: dict[str, object], kind: str
) -> None:
    rule = {
        "emit": "error",
        "text": ".m",
        "status": ".s",
        "kind": {"path": ".n", "map": {"Overflow": "context_overflow"}},
    }
    error, end = say(line, rule)
    assert isinstance(error, Error)
    assert (error.kind, end) == (kind, FAILED)


# --- from line to line ---------------------------------------------------------------------------


def test_access_that_nothing_holds_it_to_is_said_first() -> None:
    described: dict[str, object] = {"access": {"read": {}, "edit": {"enforced": False}}}
    notes: tuple[tuple[Access, list[Notice]], ...] = (
        ("read", []),
        ("edit", [Notice(text="access: edit, not enforced by tool")]),
        ("full", []),
    )
    for access, note in notes:
        task = Task(prompt="p", access=access)
        talk = adapter.conversation(task, agent_with(**described), None)
        assert list(talk.start()) == note
    assert list(conversation().start()) == [Notice(text="access: edit, not enforced by tool")]


def test_nothing_can_be_answered() -> None:
    talk = conversation()
    assert list(talk.interrupt()) == []
    assert list(talk.decide(Permission(id="1", status="requested"))) == []


@pytest.mark.parametrize("line", [b"", b"plain text", b"[1]", b"\xff", b'"x"', b"null"])
def test_a_line_that_is_no_json_object_is_output(line: bytes) -> None:
    (update,) = conversation(MESSAGE).feed(line)
    assert isinstance(update, Output)


def test_broken_json_is_kept() -> None:
    (update,) = conversation(MESSAGE).feed(b'{"type": "end"')
    assert isinstance(update, Unparsed)


def test_a_line_that_is_ignored_is_kept_and_the_rule_named() -> None:
    rules = ({"emit": "ignore", "when": {"type": "ping"}}, MESSAGE)
    assert say({"type": "ping"}, *rules) == [kept({"type": "ping"}, "known, and ignored by rule 1")]
    assert say({"type": "ping", "text": "x"}, *rules) == [Message(text="x")]


def test_a_session_is_said_once_and_again_when_it_is_another() -> None:
    rule = {"emit": "session.started", "session_id": ".s"}
    talk = conversation(rule)
    assert said(talk, {"s": "1"}) == [SessionStarted(session_id="1")]
    assert said(talk, {"s": "1"}) == [kept({"s": "1"}, MATCHED)]
    assert said(talk, {"s": "2"}) == [SessionStarted(session_id="2")]


def test_usage_that_counts_the_run_becomes_deltas() -> None:
    rule = {"emit": "usage", "input_tokens": ".i", "output_tokens": ".o", "counts": "run"}
    talk = conversation(rule, before=Usage(input_tokens=1000))
    assert said(talk, {"i": 10, "o": 1}) == [Usage(input_tokens=10, output_tokens=1)]
    assert said(talk, {"i": 15}) == [Usage(input_tokens=5)]
    assert said(talk, {"i": 15, "o": 4}) == [Usage(input_tokens=0, output_tokens=3)]


def test_usage_that_counts_the_session_goes_on_from_the_run_before() -> None:
    rule = {"emit": "usage", "input_tokens": ".i", "counts": "session"}
    talk = conversation(rule, before=Usage(input_tokens=1000))
    assert said(talk, {"i": 1010}) == [Usage(input_tokens=10)]
    assert said(talk, {"i": 1030}) == [Usage(input_tokens=20)]
    fresh = conversation(rule)
    assert said(fresh, {"i": 1010}) == [Usage(input_tokens=1010)]


DELTA = {"emit": "message.delta", "when": {"type": "d"}, "text": ".t", "id": ".id"}
TOOL = {"emit": "tool_call", "when": {"type": "tool"}, "id": "1"}


def piece(text: str, id_: str | None = None) -> dict[str, object]:
    return {"type": "d", "t": text, "id": id_}


def test_pieces_are_put_together_where_the_whole_is_never_said() -> None:
    talk = conversation(DELTA, TOOL)
    assert said(talk, piece("a"), piece("b")) == [MessageDelta(text="a"), MessageDelta(text="b")]
    assert said(talk, {"type": "tool"}) == [Message(text="ab"), ToolCall(id="1")]
    said(talk, piece("c"))
    assert said(talk, {"type": "end"}) == [Message(text="c"), ENDED]
    assert list(talk.close(Exit(status=0))) == []


def test_pieces_of_another_message_begin_anew() -> None:
    talk = conversation(DELTA)
    said(talk, piece("a", "1"))
    assert said(talk, piece("b", "2")) == [
        Message(text="a", id="1"),
        MessageDelta(text="b", id="2"),
    ]
    assert list(talk.close(Exit(signal=2))) == [Message(text="b", id="2")]


def test_pieces_are_dropped_where_the_whole_is_said() -> None:
    whole = {"emit": "message", "when": {"type": "m"}, "text": ".t"}
    talk = conversation(DELTA, whole)
    said(talk, piece("a"))
    assert said(talk, {"type": "m", "t": "all"}, {"type": "end"}) == [Message(text="all"), ENDED]


def test_pieces_before_an_error_or_another_turn_are_not_lost() -> None:
    error = {"emit": "error", "when": {"type": "error"}, "text": "no"}
    turn = {"emit": "turn.started", "when": {"type": "turn"}}
    talk = conversation(DELTA, error, turn)
    said(talk, piece("a"))
    assert said(talk, {"type": "error"})[0] == Message(text="a")
    said(talk, piece("b"))
    assert said(talk, {"type": "turn"}) == [Message(text="b"), TurnStarted()]


def test_pieces_of_the_user_are_not_the_agents() -> None:
    talk = conversation({"emit": "message.delta", "text": ".t", "role": "user"})
    said(talk, {"t": "a"})
    assert list(talk.close(Exit(status=0))) == []


def test_what_is_put_together_is_bounded() -> None:
    talk = conversation(DELTA)
    for _ in range(5):
        said(talk, piece("x" * 2**20))
    (message,) = talk.close(Exit(status=0))
    assert isinstance(message, Message)
    assert len(message.text) == 4 * 2**20


# --- the end -------------------------------------------------------------------------------------


def ending(talk: Conversation, exit_: Exit) -> list[object]:
    return list(talk.close(exit_))


def test_words_on_stderr_alone_are_a_wrong_usage() -> None:
    stderr = "usage: tool [--x]\n\x1b[91m\x1b[1mError: \x1b[0munknown flag\n  hint: --help\n"
    for status in (0, 1, 2):
        assert ending(conversation(), Exit(status=status, stderr=stderr)) == [
            Error(kind="bad_usage", text="Error: unknown flag"),
            FAILED,
        ]


def test_a_whole_page_on_stderr_is_told_by_its_first_line() -> None:
    page = "tool run [message]\n\n" + "  --flag  what it does\n" * 9
    (error, _) = ending(conversation(), Exit(status=1, stderr=page))
    assert error == Error(kind="bad_usage", text="tool run [message]")


def test_words_on_stderr_may_tell_of_the_model() -> None:
    assert ending(conversation(), Exit(status=1, stderr="connection refused\n\n")) == [
        Error(kind="unavailable", text="connection refused"),
        FAILED,
    ]


def test_words_on_stderr_explain_a_failure_and_nothing_else() -> None:
    talk = conversation(MESSAGE)
    said(talk, {"text": "x"})
    assert ending(talk, Exit(status=0, stderr="warning: x")) == []
    assert ending(talk, Exit(status=1)) == []
    assert ending(talk, Exit(status=1, stderr="it broke")) == [
        Error(kind="unknown", text="it broke"),
        FAILED,
    ]


def test_an_end_that_was_said_needs_no_words() -> None:
    talk = conversation()
    said(talk, {"type": "end"})
    assert ending(talk, Exit(status=0, stderr="warning: x")) == []
    assert ending(talk, Exit(status=1, stderr="it broke")) == []  # for the outcome to say


def test_a_failure_that_was_said_is_not_said_again() -> None:
    talk = conversation(
        {"emit": "error", "when": {"type": "error"}, "text": "no"}, exits={"1": "denied"}
    )
    said(talk, {"type": "error"})
    assert ending(talk, Exit(status=1, stderr="it broke")) == []


def test_an_exit_status_may_have_a_meaning_of_its_own() -> None:
    exits = {"53": "max_turns"}
    assert ending(conversation(exits=exits), Exit(status=53)) == [
        Error(kind="max_turns", text="exit status 53"),
        FAILED,
    ]
    talk = conversation(exits=exits)
    said(talk, {"type": "end"})
    assert ending(talk, Exit(status=53, stderr="too many turns")) == [
        Error(kind="max_turns", text="too many turns"),
        FAILED,
    ]


def test_a_signal_speaks_for_itself() -> None:
    assert ending(conversation(), Exit(signal=15, stderr="Error: x")) == []


DENIED = {
    "emit": "permission",
    "when": {"type": "denied"},
    "id": "1",
    "status": "denied",
    "tool": ".tool",
    "reason": ".why",
}


def test_one_that_ends_when_it_is_denied_was_denied() -> None:
    for line, what in (({"tool": "edit"}, "edit"), ({"why": "rule"}, "rule"), ({}, "1")):
        talk = conversation(DENIED)
        said(talk, {"type": "denied", **line})
        assert ending(talk, Exit(status=0, stderr="! rejected")) == [
            Error(kind="denied", text=f"it ended when it was denied: {what}"),
            FAILED,
        ]


def test_a_denial_before_another_turn_is_not_how_it_ended() -> None:
    talk = conversation(DENIED, {"emit": "turn.started", "when": {"type": "turn"}})
    said(talk, {"type": "denied"}, {"type": "turn"})
    assert ending(talk, Exit(status=0)) == []


# --- anything at all -----------------------------------------------------------------------------

keys = st.sampled_from(["type", "a", "b", "list", "text", "id"])
scalars = (
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=5)
    | st.sampled_from(["x", "end", "completed", "denied", "end_turn", "2"])
)
values = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(keys, inner, max_size=4),
    max_leaves=5,
)
lines = st.dictionaries(keys, values, max_size=5)
steps = st.sampled_from([".type", ".a", ".b", ".list", ".text", ".id", "[0]", "[-1]", "[]"])
paths = st.builds(
    lambda first, start, rest: first + start + "".join(rest),
    st.sampled_from(["", "$"]),
    st.sampled_from([".type", ".a", ".list", ".text"]),
    st.lists(steps, max_size=2),
)
sources = (
    paths
    | st.just(".")
    | st.sampled_from(["x", 1, 0.5, True])
    | st.builds(lambda path, more: {"path": path, "plus": [more]}, paths, paths)
    | st.builds(lambda path, more: {"path": path, "minus": [more], "unknown": [0]}, paths, paths)
    | st.builds(lambda path, find: {"path": path, "find": find}, paths, st.sampled_from("x.2"))
    | st.lists(paths, min_size=1, max_size=2)
)


def word(*allowed: str) -> st.SearchStrategy[object]:
    words = st.sampled_from(allowed)
    mapped = st.builds(lambda path, to: {"path": path, "map": {"x": to}, "other": to}, paths, words)
    return words | mapped | paths | st.lists(mapped, min_size=1, max_size=2)


whens = st.dictionaries(
    paths,
    scalars.filter(lambda value: value is not None)
    | st.lists(st.sampled_from(["x", 1, True]), min_size=1, max_size=2)
    | st.sampled_from([{"exists": True}, {"exists": False}, {"matches": "x"}, {"is_not": "x"}]),
    max_size=2,
)


def rules_of(emit: str, **fields: st.SearchStrategy[object]) -> st.SearchStrategy[Rule]:
    required = {"emit": st.just(emit), **fields}
    return st.fixed_dictionaries(required, optional={"each": paths, "when": whens})


anything = st.one_of(
    rules_of("session.started", session_id=sources, model=sources),
    rules_of("turn.started"),
    rules_of("message", text=sources, id=sources, role=word("user", "assistant")),
    rules_of("message.delta", text=sources, id=sources),
    rules_of("thought", text=sources),
    rules_of("thought.delta", text=sources, id=sources),
    rules_of(
        "tool_call",
        id=sources,
        status=word("completed", "failed"),
        kind=word("read", "edit"),
        title=sources,
        input=sources,
        output=sources,
        exit_code=sources,
        diff=sources,
        locations=sources,
    ),
    rules_of("plan", entries=paths, text=sources, status=word("pending", "completed")),
    rules_of("permission", id=sources, status=word("denied", "granted"), tool=sources),
    rules_of("subagent", id=sources, status=word("started", "failed"), child_agent=sources),
    rules_of(
        "usage",
        input_tokens=sources,
        output_tokens=sources,
        cost_usd=sources,
        counts=st.sampled_from(["delta", "run", "session"]),
    ),
    rules_of("context", used=sources, size=sources),
    rules_of("rate_limit", status=sources, resets_at=sources),
    rules_of("retry", reason=sources, attempt=sources, of=sources, delay_s=sources),
    rules_of("notice", text=sources),
    rules_of("error", text=sources, status=sources, retryable=sources, hint=sources),
    rules_of("turn.finished", stop_reason=paths),
    rules_of("ignore"),
)


@pytest.mark.no_cover
@settings(max_examples=examples(100))
@given(
    st.lists(anything, max_size=5),
    st.lists(lines, max_size=6),
    st.builds(Exit, status=st.integers(0, 255), stderr=st.text(max_size=40)),
)
def test_no_line_is_lost_or_raises_whatever_the_rules(
    rules: list[Rule], said_lines: list[dict[str, object]], exit_: Exit
) -> None:
    talk = conversation(*rules)
    for line in said_lines:
        updates = list(talk.feed(orjson.dumps(line)))
        assert updates
        assert orjson.dumps(updates)
    assert orjson.dumps(list(talk.close(exit_)))


@given(st.binary(max_size=60))
def test_no_rubbish_is_lost_or_raises(line: bytes) -> None:
    assert list(conversation(MESSAGE).feed(line))


descriptions = st.dictionaries(
    st.sampled_from(["argv", "stdin", "env", "files", "access", "events", "exits", "title", "x"]),
    values | st.lists(lines | anything, max_size=2),
    max_size=5,
)


@pytest.mark.no_cover
@given(descriptions)
def test_whatever_is_described_is_understood_or_refused_with_a_reason(
    described: dict[str, object],
) -> None:
    try:
        adapter.about_for(Agent(name="x", adapter="jsonl", options=described))
    except ConfigError as error:
        problems = str(error)
    else:
        return
    assert problems.startswith("agent 'x': ")


# --- the examples --------------------------------------------------------------------------------

EXAMPLES = sorted((ROOT / "examples/jsonl").glob("*.toml"))


def example(name: str) -> Agent:
    text = (ROOT / f"examples/jsonl/{name}.toml").read_text()
    described = tomllib.loads(text)["agents"][name]
    known = {key: described.pop(key) for key in ("adapter", "model", "base_url", "profile")}
    return Agent(name=name, home="/home/x", options=described, **known)


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_an_example_is_a_configuration_that_can_be_loaded(path: Path) -> None:
    config = load_config(path, environ={})
    (agent,) = [agent for agent in config.agents if agent.adapter == "jsonl"]
    about = adapter.about_for(agent)
    assert agent.name == about.title == path.stem
    assert "@" in about.install_hint or "==" in about.install_hint
    assert about.resumes == (path.stem in {"opencode", "qwen"})  # the others tell no session
    assert (agent.tier, agent.profile) == ("local", "clean")


def test_opencode_is_started_as_it_is_described() -> None:
    agent = example("opencode")
    assert adapter.about_for(agent).enforces == ("read", "full")
    made = adapter.command(Task(prompt="Do it.", session_id="s1", access="read"), agent)
    assert made.argv[-2:] == ("--session", "s1")
    assert "--auto" not in made.argv
    assert json.loads(made.env["OPENCODE_PERMISSION"])["edit"] == "deny"
    config = json.loads(made.env["OPENCODE_CONFIG_CONTENT"])
    provider = config["provider"]["orchestrate"]
    assert provider["options"]["baseURL"] == "http://127.0.0.1:11434/v1"
    assert list(provider["models"]) == ["qwen2.5-coder:32b"]
    assert made.stdin == b"Do it."
    # What keeps it from asking npm's registry: its plug-ins' package, noted as installed.
    assert {path: json.loads(content) for path, content in made.files.items()} == {
        "/home/x/.config/opencode/package-lock.json": {
            "packages": {"": {"dependencies": {"@opencode-ai/plugin": "*"}}}
        },
        "/home/x/.config/opencode/node_modules/.package-lock.json": {},
    }


def test_qwen_is_started_as_it_is_described() -> None:
    made = adapter.command(Task(prompt="Do it."), replace(example("qwen"), api_key_env="MY_KEY"))
    assert made.argv[-1] == "--yolo"
    assert made.env["OPENAI_BASE_URL"] == "http://127.0.0.1:11434/v1"
    assert made.env_from == {"OPENAI_API_KEY": "MY_KEY"}
    assert "OPENAI_API_KEY" not in made.env
    assert list(made.files) == ["/home/x/.qwen/settings.json"]


@pytest.mark.parametrize(
    "recording",
    [one for one in RECORDINGS if one.facts["adapter"] == "jsonl"],
    ids=lambda recording: recording.name,
)
def test_the_examples_as_they_are_today_understand_every_recording(recording: Recording) -> None:
    # A recording keeps the options of its day; a better description must still read it.
    name = recording.meta.parent.name.rpartition("-")[0]
    events: list[Event] = []
    outcome = replay(
        adapter,
        task=recording.task,
        agent=example(name),
        stdout=[recording.stdout],
        exit_=recording.exit,
        publish=events.append,
        changes=recording.changes,
    )
    expected = recording.facts["expected"]
    assert outcome.status in {expected, "failed" if expected == "interrupted" else expected}
    assert [event.update for event in events if isinstance(event.update, Unparsed)] == []


# --- tokens here, the cost there ------------------------------------------------------------------

TOKENS: Rule = {
    "emit": "usage",
    "when": {"type": "tokens"},
    "input_tokens": ".in",
    "output_tokens": ".out",
}
COST: Rule = {"emit": "usage", "when": {"type": "cost"}, "cost_usd": ".usd"}
PAID = Agent(name="a", adapter="jsonl", model="gpt-5", api_key_env="OPENAI_API_KEY")


def tally(rules: Iterable[Rule], *lines: object) -> Usage:
    """What a run with these lines used, at the list prices of a model that has one."""
    total = Tally()
    for update in said(conversation(*rules), *lines):
        assert isinstance(update, Usage)
        total = total.plus(priced(update, PAID, "key", "openai/gpt-5"))
    assert total.usage is not None
    return total.usage


def test_tokens_whose_cost_has_a_line_of_its_own_are_not_priced_a_second_time():
    call: tuple[object, object] = (
        {"type": "tokens", "in": 1000, "out": 1000},
        {"type": "cost", "usd": 0.5},
    )
    used = tally((TOKENS, COST), *call, *call)
    assert (used.input_tokens, used.cost_usd, used.cost_source) == (2000, 1.0, "agent")
    early = tally((TOKENS, COST), *call, call[0])
    assert early.cost_usd is None  # as long as some is owed


def test_without_a_line_for_the_cost_tokens_have_their_list_price():
    used = tally((TOKENS,), {"type": "tokens", "in": 1000, "out": 1000})
    assert used.cost_source == "prices"
    both: Rule = {**TOKENS, "cost_usd": ".usd"}
    lines = ({"type": "tokens", "in": 1, "out": 1, "usd": 0.25}, {"type": "cost", "usd": 0.5})
    assert tally((both,), lines[0]).cost_usd == 0.25
    assert tally((both, COST), *lines).cost_usd == 0.75
