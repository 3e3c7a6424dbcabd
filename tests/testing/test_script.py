"""Scripts of the model server: what is read, and what is said about one that is wrong."""

import inspect
import textwrap
from pathlib import Path

import pytest

from orchestrator.testing import ScriptError, load_script, script
from orchestrator.testing.script import Repeated, Turn, Usage, parse_script, spell


def test_the_example_in_the_documentation_is_a_script(tmp_path: Path) -> None:
    text = (inspect.getdoc(script) or "").split("\n\n")[-1]
    path = tmp_path / "model.yaml"
    path.write_text(textwrap.dedent(text))
    parsed = load_script(path)
    assert [bool(turn.tool_calls) for turn in parsed.turns] == [True, False, False]
    assert parsed.turns[1].headers == {"retry-after": "1"}


def test_json_and_yaml_give_the_same_script(tmp_path: Path) -> None:
    (tmp_path / "s.json").write_text('{"model": ["a", "b"], "turns": [{"text": "hi"}]}')
    (tmp_path / "s.yaml").write_text("model: [a, b]\nturns:\n  - text: hi\n")
    assert load_script(tmp_path / "s.json") == load_script(str(tmp_path / "s.yaml"))


def test_a_text_can_be_large_in_few_words() -> None:
    assert spell(Repeated(repeat="ab", times=3)) == "ababab"
    assert spell("ab") == "ab"


def test_usage_is_tokens_or_the_word_none() -> None:
    turns = parse_script({"turns": [{"usage": {"output_tokens": 3}}, {"usage": "none"}, {}]}).turns
    assert [turn.usage for turn in turns] == [Usage(output_tokens=3), "none", None]


@pytest.mark.parametrize(
    ("model", "asked", "served"),
    [
        ("a", "a", True),
        ("a", "b", False),
        ("a", "a:latest", True),
        ("a:latest", "a", True),
        ("a:7b", "a", False),
        (["a", "b"], "b", True),
        ("*", "whatever", True),
        (["a", "*"], "whatever", True),
        ("a*", "ab", False),
    ],
)
def test_a_model_is_served_by_its_name(model: object, asked: str, served: bool) -> None:
    assert parse_script({"model": model, "turns": []}).serves(asked) is served


def test_a_script_for_every_model_lists_one_that_can_be_asked_for_and_that_there_are_more() -> None:
    assert parse_script({"model": "*", "turns": []}).models == ("scripted", "*")


@pytest.mark.parametrize(
    ("document", "message"),
    [
        ({"turns": [{}, {"txt": "hi"}]}, "s: turn 2: unknown key 'txt' .*allowed: when, .*text"),
        ({"turn": []}, r"s: unknown key 'turn' \(allowed: model, server, context, tools, turns\)"),
        ({}, "s: turns: Field required"),
        ([], "s: Input should be a valid dictionary"),
        ({"model": [], "turns": []}, "model: Tuple should have at least 1 item"),
        ({"turns": [{"text": 5}]}, r"turn 1: text.*string \(found 5\)"),
        ({"turns": [{"text": {"repeat": "x", "times": 10**9}}]}, "turn 1: text: .*over 268435456"),
        ({"turns": [{"fault": "bang"}]}, "turn 1: fault: .*'context_overflow', .*found 'bang'"),
        ({"turns": [{"status": 200}]}, "turn 1: status: .*400"),
        ({"turns": [{"status": 500, "text": "hi"}]}, "status 500 cannot also answer"),
        ({"turns": [{"fault": "html", "text": "hi"}]}, "turn with html cannot also answer"),
        ({"turns": [{"status": 500, "fault": "cut"}]}, "a status or a fault, not both"),
        ({"turns": [{"error": {"message": "x"}}]}, "`error` needs a `status` or a `fault`"),
        ({"turns": [{"repeat": 0}]}, "turn 1: repeat.*greater than or equal to 1"),
        ({"turns": [{"repeat": "always"}]}, "turn 1: repeat.*'forever'"),
        ({"turns": [{"tool_calls": [{"nam": "x"}]}]}, "tool_calls.0: unknown key 'nam'"),
        ({"turns": [{"usage": {"reasoning_tokens": 3}}]}, "usage: reasoning_tokens are part of"),
        ({"turns": [{"headers": {"Content-Length": 5}}]}, "content-length is the server's own"),
        ({"turns": [{"headers": {"a b": "c"}}]}, "headers.a b: String should match"),
        ({"turns": [{"headers": {"a": "c\r\nd: e"}}]}, "headers.a: String should match"),
    ],
)
def test_an_error_names_the_turn_the_key_and_what_is_allowed(
    document: object, message: str
) -> None:
    with pytest.raises(ScriptError, match=message):
        parse_script(document, "s")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("turns: [", "model.yaml: "),
        ("turns: []\nturns: [{text: hi}]\n", "duplicate key 'turns'(?s:.*)line 1"),
        ("turns: &t []\nmodel: *t\n", "aliases are not allowed(?s:.*)line 2"),
        ("turns: !!python/object:os.system []\n", "could not determine a constructor"),
        ("[" * 500, "model.yaml: (?s:.*)recursion"),
        ("turns: [\x00]", "model.yaml: "),
    ],
)
def test_yaml_is_read_safely_and_an_error_names_the_file(
    tmp_path: Path, text: str, message: str
) -> None:
    path = tmp_path / "model.yaml"
    path.write_text(text)
    with pytest.raises(ScriptError, match=message):
        load_script(path)


def test_a_script_of_more_than_16_mib_is_refused_unread(tmp_path: Path) -> None:
    path = tmp_path / "model.yaml"
    path.write_bytes(b"#" * (16 * 1024 * 1024 + 1))
    with pytest.raises(ScriptError, match="at most 16777216"):
        load_script(path)


def test_broken_json_names_the_file(tmp_path: Path) -> None:
    path = tmp_path / "model.json"
    path.write_text('{"turns": [}')
    with pytest.raises(ScriptError, match=r"model\.json: unexpected character"):
        load_script(path)


def test_a_missing_file_is_an_os_error(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        load_script(tmp_path / "none.yaml")


def test_a_turn_is_frozen() -> None:
    with pytest.raises(ValueError, match="frozen"):
        setattr(Turn(), "text", "other")  # noqa: B010  (the type checkers refuse the plain form)
