"""Task files: what is read, and that every mistake names its file, line, column, key and remedy."""

import json
import math
import re
from dataclasses import fields, replace
from pathlib import Path

import pytest
import yaml
from hypothesis import example, given
from hypothesis import strategies as st

from orchestrator.document import SIZE_LIMIT
from orchestrator.errors import InputError, TaskFileError
from orchestrator.task import (
    DEFAULT_LIMITS,
    EDITING_KINDS,
    KINDS,
    READING_KINDS,
    Limits,
    Source,
    Task,
    TaskFile,
    TaskModel,
    check_tasks,
    parse_duration,
    parse_flags,
    parse_size,
    parse_task,
    parse_task_file,
    task_schema,
)
from tests.schema import problems as against

FOLDER = Path("/home/me/project")
PLACES = "a text, or a mapping {scratch: FOLDER} or {git: URL, ref: REF}"


def read(text: str | bytes, file: str = "task.yaml") -> Task:
    raw = text.encode() if isinstance(text, str) else text
    return parse_task(raw, file=file, folder=FOLDER)


def refused(text: str | bytes, file: str = "task.yaml") -> list[str]:
    with pytest.raises(TaskFileError) as caught:
        read(text, file)
    return list(caught.value.problems)


# --- what is read ---------------------------------------------------------------------------------


def test_a_prompt_alone_is_a_task():
    task = read("prompt: Fix the bug.")
    assert task == Task(prompt="Fix the bug.", workspace=FOLDER)
    assert task.allowed == "edit"
    assert task.limits == Limits()


def test_every_key_arrives_in_the_task():
    task = read("""
version: 1
name: retry-after
prompt: |
  Retries ignore Retry-After.
  Fix it.
kind: fix
agent: codex
model: qwen2.5-coder:32b
base_url: http://desk:11434/v1
api_key_env: DESK_KEY
workspace: ../work
files: [src/retry.py, "docs/a b.md"]
check: pytest -q
access: full
privacy: local
limits:
  {wall: 30m, first: 10m, stall: 90s, tool: 1h, turn: 20m, check: 2h, steps: 80, tokens: 900000,
   cost_usd: 1.50, output: 1GiB}
env: {MODE: test, EMPTY: ""}
env_from: [HOME, DISPLAY]
""")
    assert task == Task(
        prompt="Retries ignore Retry-After.\nFix it.\n",
        name="retry-after",
        kind="fix",
        agent="codex",
        model="qwen2.5-coder:32b",
        base_url="http://desk:11434/v1",
        api_key_env="DESK_KEY",
        workspace=FOLDER / "../work",
        files=("src/retry.py", "docs/a b.md"),
        check="pytest -q",
        access="full",
        privacy="local",
        limits=Limits(
            wall_s=1800,
            first_s=600,
            stall_s=90,
            tool_s=3600,
            turn_s=1200,
            check_s=7200,
            steps=80,
            tokens=900_000,
            cost_usd=1.5,
            output_bytes=1024**3,
        ),
        env={"MODE": "test", "EMPTY": ""},
        env_from=("HOME", "DISPLAY"),
    )


@pytest.mark.parametrize(
    ("written", "workspace", "template"),
    [
        (".", FOLDER, None),
        ("sub", FOLDER / "sub", None),
        ("/srv/x", Path("/srv/x"), None),
        ("~/x", Path.home() / "x", None),
        ("{scratch: seed}", FOLDER, FOLDER / "seed"),
        ("{scratch: ~/seed}", FOLDER, Path.home() / "seed"),
    ],
)
def test_a_workspace_is_relative_to_the_file(written, workspace, template):
    task = read(f"prompt: x\nworkspace: {written}")
    assert (task.workspace, task.template) == (workspace, template)


@pytest.mark.parametrize(
    ("written", "source"),
    [
        ("{git: https://h/a.git}", Source(url="https://h/a.git")),
        ("{git: 'git@h:a/b.git', ref: v1.2}", Source(url="git@h:a/b.git", ref="v1.2")),
        ("{git: ssh://u@h:22/a, ref: x/y}", Source(url="ssh://u@h:22/a", ref="x/y")),
        ("{git: 'file:///srv/a b.git'}", Source(url="file:///srv/a b.git")),
    ],
)
def test_a_workspace_may_be_fetched(written, source):
    task = read(f"prompt: x\nworkspace: {written}\ndeliver: push")
    assert (task.source, task.template, task.deliver) == (source, None, "push")


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        (
            "workspace: {git: 'ext::sh -c x'}",
            "2:18: workspace.git: found 'ext::sh -c x'",
        ),
        ("workspace: {git: 'https://me:pw@h/r'}", "2:18: workspace.git: "),
        (
            "workspace: {git: 'https://h/r', ref: -x}",
            "2:38: workspace.ref: found '-x'",
        ),
        ("workspace: {git: 'https://h/r', rev: x}", "2:33: workspace.rev: "),
        (
            "workspace: {git: 'https://h/r'}\ndeliver: apply",
            "3:10: deliver: a fetched",
        ),
        (
            "workspace: {git: 'https://h/r'}\nisolation: none",
            "3:12: isolation: a fetched",
        ),
        ("workspace: {git: 'https://h/r'}\ncopy: [a]", "2:12: workspace: a fetched"),
        ("deliver: push", "2:10: deliver: `push` goes to where"),
    ],
)
def test_a_workspace_that_cannot_be_fetched_is_refused_by_line(text, problem):
    (found,) = refused(f"prompt: x\n{text}")
    assert found.startswith(f"task.yaml:{problem}")


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ({"privacy": "Local"}, "privacy: 'Local' is none of any, local"),
        ({"workspace": "x"}, "workspace: not a Path"),
        ({"source": Source(url="http://h/r")}, "git: an address"),
    ],
)
def test_a_task_made_in_code_is_held_to_what_a_file_may_say(wrong, words):
    with pytest.raises(InputError, match=words):
        check_tasks(TaskFile(tasks=(replace(Task(prompt="p"), **wrong),), single=True))


def test_in_a_file_of_several_the_task_is_named_that_cannot_be_fetched():
    (found,) = refused_file("tasks:\n- id: a\n  prompt: x\n  deliver: push")
    assert found.startswith("task.yaml:4:12: tasks.0.deliver: ")


def test_a_scripted_model_is_named_relative_to_the_file():
    assert (
        read("prompt: x\nbase_url: scripted:play.yaml").base_url == f"scripted:{FOLDER}/play.yaml"
    )
    assert read("prompt: x\nbase_url: scripted:/a/b").base_url == "scripted:/a/b"


@pytest.mark.parametrize(
    "url",
    [
        "http://127.0.0.1:11434",
        "https://api.example.com/v1/",
        "desk:11434",
        "localhost",
        "http://[::1]:8080/v1",
        "https://x.example/openai?api-version=1",
    ],
)
def test_an_address_may_be_short_or_long(url):
    assert read(f"prompt: x\nbase_url: '{url}'").base_url == url


@pytest.mark.parametrize("word", ["no", "off", "yes", "on", "2026-01-01", "0x10", "1_000", "1:30"])
def test_words_that_old_yaml_took_for_something_else_stay_texts(word):
    assert read(f"prompt: {word}").prompt == word


@pytest.mark.parametrize(
    "key",
    ["kind", "agent", "model", "base_url", "api_key_env", "workspace", "files", "check", "access",
     "privacy", "limits", "env", "env_from", "name", "version"],
)  # fmt: skip
def test_an_optional_key_with_nothing_after_it_is_as_if_it_were_not_there(key):
    assert read(f"prompt: x\n{key}:") == read("prompt: x")


def test_a_limit_with_nothing_after_it_is_no_limit():
    assert read("prompt: x\nlimits: {wall: 5s, stall: }").limits == Limits(wall_s=5)


def test_a_task_file_may_be_json_with_characters_written_as_pairs():
    assert read(json.dumps({"prompt": "a 🎉 b", "files": ["é"]})).prompt == "a 🎉 b"


def test_a_byte_order_mark_is_forgiven():
    assert read(b"\xef\xbb\xbfprompt: x").prompt == "x"


@pytest.mark.parametrize("text", ["prompt: a\r\nkind: fix\r\n", "---\nprompt: a\nkind: fix\n...\n"])
def test_line_ends_and_document_marks_are_yamls_business(text):
    assert (read(text).prompt, read(text).kind) == ("a", "fix")


def test_text_for_the_agent_is_not_touched():
    prompt = "esc \x1b[1m, tab\t, quote ' \", u2028 \u2028, {{ braces }}"
    assert read(json.dumps({"prompt": prompt})).prompt == prompt


@pytest.mark.parametrize("kind", [None, *KINDS])
def test_kinds_that_only_read_default_to_reading(kind):
    assert Task(prompt="x", kind=kind).allowed == ("read" if kind in READING_KINDS else "edit")
    assert Task(prompt="x", kind=kind, access="full").allowed == "full"


def test_no_kind_both_must_change_and_only_reads():
    assert READING_KINDS.isdisjoint(EDITING_KINDS)
    assert (READING_KINDS | EDITING_KINDS).issubset(KINDS)


# --- limits ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("written", "seconds"),
    [("90s", 90), ("30m", 1800), ("2h", 7200), ("1.5h", 5400), ("0.5s", 0.5), ("45", 45),
     ("2.5", 2.5), ("' 5m '", 300)],
)  # fmt: skip
def test_durations_have_units_or_are_seconds(written, seconds):
    assert read(f"prompt: x\nlimits: {{wall: {written}}}").limits.wall_s == seconds


@pytest.mark.parametrize(
    ("written", "size"),
    [("1GiB", 1024**3), ("500 MiB", 500 * 1024**2), ("64kib", 64 * 1024), ("1000", 1000)],
)
def test_sizes_have_units_or_are_bytes(written, size):
    assert read(f"prompt: x\nlimits: {{output: {written}}}").limits.output_bytes == size


@pytest.mark.parametrize(
    ("key", "written", "allowed"),
    [
        *(
            (key, bad, "a duration above 0, such as 90s, 30m or 2h")
            for key in ("wall", "first", "stall", "tool", "turn", "check", "setup")
            for bad in ("0", "-5", "0s", "true", "1d", "soon", "[1]", "1.0e999", "9" * 400 + "h")
        ),
        *(
            ("output", bad, "a size above 0, such as 500MiB or 1GiB")
            for bad in ("0", "0KiB", "-1", "1.5", "1GB", "9999999999999999GiB", "false")
        ),
        ("steps", "0", "greater than or equal to 1"),
        ("steps", "1.5", "a whole number"),
        ("steps", "many", "a whole number"),
        ("steps", "9" * 30, "a whole number"),
        ("cost_usd", "0", "a number above 0"),
        ("cost_usd", "-1.5", "a number above 0"),
        ("cost_usd", "'5'", "a number"),
        ("cost_usd", "true", "a number"),
        ("cost_usd", "1.0e999", "a number that has an end"),
    ],
)
def test_a_bad_limit_names_what_is_allowed(key, written, allowed):
    (problem,) = refused(f"prompt: x\nlimits:\n  {key}: {written}")
    assert problem.startswith(f"task.yaml:3:{5 + len(key)}: limits.{key}: found ")
    assert problem.endswith(f"; allowed: {allowed}")


def test_whole_dollars_are_dollars():
    assert read("prompt: x\nlimits: {cost_usd: 5}").limits.cost_usd == 5.0


BOUND = st.none() | st.integers(1, 10**6)
LIMITS = st.builds(Limits, **{field.name: BOUND for field in fields(Limits)})


@given(LIMITS, LIMITS, LIMITS)
def test_limits_meet_in_any_order(one, two, three):
    assert one.meet(two) == two.meet(one)
    assert one.meet(two).meet(three) == one.meet(two.meet(three))
    assert one.meet(one) == one
    assert one.meet(Limits()) == one


@given(LIMITS, LIMITS)
def test_meeting_can_tighten_and_never_loosens(one, other):
    met = one.meet(other)
    for field in fields(Limits):
        bounds = [getattr(each, field.name) or math.inf for each in (one, other)]
        assert (getattr(met, field.name) or math.inf) == min(bounds)


@given(LIMITS)
def test_defaults_stand_only_where_nothing_was_said(limits):
    whole = limits.else_(DEFAULT_LIMITS)
    for field in fields(Limits):
        stated = getattr(limits, field.name)
        expected = getattr(DEFAULT_LIMITS, field.name) if stated is None else stated
        assert getattr(whole, field.name) == expected


# --- what is refused ------------------------------------------------------------------------------

REFUSED: dict[str, tuple[str | bytes, str]] = {
    "nothing": ("", "1:1: the file is empty; at least `prompt: TEXT` is needed"),
    "a comment": ("# later\n", "1:1: the file is empty; at least `prompt: TEXT` is needed"),
    "null": ("~", "1:1: the file is empty; at least `prompt: TEXT` is needed"),
    "a text": (
        "\nfix it",
        "2:1: found 'fix it'; a task file is a mapping such as `prompt: TEXT`",
    ),
    "a list": ("- a", "1:1: found a list; a task file is a mapping such as `prompt: TEXT`"),
    "no prompt": ("\nkind: fix", "2:1: prompt: required, but not there"),
    "an empty prompt": ("prompt: ''", "1:9: prompt: found ''; allowed: a text that is not empty"),
    "a prompt of nothing": (
        "prompt:",
        "1:8: prompt: required, but not there (or a list of `tasks`)",
    ),
    "a number for a text": (
        "prompt: 5",
        "1:9: prompt: found the number 5; allowed: a text (put it in quotes)",
    ),
    "a yes for a text": (
        "prompt: true",
        "1:9: prompt: found true; allowed: a text (put it in quotes)",
    ),
    "a list for a text": ("prompt: [a]", "1:9: prompt: found a list; allowed: a text"),
    "a mapping for a text": ("prompt: {a: b}", "1:9: prompt: found a mapping; allowed: a text"),
    "NUL in a text": (
        'prompt: "a\\0b"',
        r"1:9: prompt: found 'a\x00b'; allowed: a text without NUL",
    ),
    "NUL in a check": (
        'prompt: x\ncheck: "a\\0"',
        r"2:8: check: found 'a\x00'; allowed: a text without NUL",
    ),
    "NUL in an environment": (
        'prompt: x\nenv: {A: "\\0"}',
        r"2:10: env.A: found '\x00'; allowed: a text without NUL",
    ),
    "a NUL byte": (b"prompt: x\nkind: \0", "2:7: character U+0000 is not allowed"),
    "an escape byte": ("prompt: é\x1b[2J", "1:10: character U+001B is not allowed"),
    "not UTF-8": (b"prompt: x\nname: \xc3\xa9\xff", "2:8: not UTF-8: byte 0xff"),
    "UTF-16": ("prompt: x".encode("utf-16"), "1:1: not UTF-8: byte 0xff"),
    "half a character": (
        r'prompt: "\ud83d"',
        "1:9: half a character (a lone surrogate) is not allowed",
    ),
    "half a character in a key": (
        r'"\ud83d": x',
        "1:1: half a character (a lone surrogate) is not allowed",
    ),
    "no character": (r'prompt: "\UFFFFFFFF"', "1:1: not YAML: "),
    "too large": (
        b"prompt: " + b"x" * SIZE_LIMIT,
        f"1:1: the file has more than {SIZE_LIMIT} bytes",
    ),
    "too deep": ("prompt: " + "[" * 100_000, "1:58: nested deeper than 50 levels"),
    "too deep, by lines": (
        "".join(f"{' ' * depth}a:\n" for depth in range(60)),
        "51:51: nested deeper than 50 levels",
    ),
    "an alias": (
        "prompt: &a x\nmodel: *a",
        "2:8: alias `*a`: aliases are not allowed",
    ),
    "a bomb of aliases": (
        "a: &a [x,x]\nb: &b [*a,*a]\nc: &c [*b,*b]\n",
        "2:8: alias `*a`: aliases are not allowed",
    ),
    "a tag": ("prompt: !!int x", "1:9: tag `!!int`: tags are not allowed"),
    "a tag of Python": (
        "prompt: !!python/object/apply:os.system [ls]",
        "1:9: tag `!!python/object/apply:os.system`: tags are not allowed",
    ),
    "a tag of one's own": ("prompt: !x {a: b}", "1:9: tag `!x`: tags are not allowed"),
    "a second document": (
        "prompt: x\n---\nprompt: y\n",
        "2:1: a second document; a task file holds one",
    ),
    "a duplicate key": (
        "prompt: x\nmodel: local\nmodel: cloud\n",
        "3:1: model: duplicate key; it already stands in line 2",
    ),
    "a duplicate key inside": (
        "prompt: x\nenv:\n  A: x\n  A: y\n",
        "4:3: env.A: duplicate key; it already stands in line 3",
    ),
    "a duplicate key with nothing after the first": (
        "prompt: x\nprivacy:\nprivacy: any\n",
        "3:1: privacy: duplicate key; it already stands in line 2",
    ),
    "a key that is a list": ("? [a]\n: b", "1:3: a key must be a plain text, and not empty"),
    "a key that is empty": ("'': b", "1:1: a key must be a plain text, and not empty"),
    "a merge": ("prompt: x\n<<: {kind: fix}", "2:1: <<: unknown key; known: access, "),
    "broken YAML": (
        "prompt: [a",
        "1:11: not YAML: while parsing a flow sequence, expected ',' or ']', but got",
    ),
    "a tab": ("prompt: x\n\tkind: fix", "2:1: not YAML: while scanning for the next token, "),
    "a second colon": ("prompt: fix: it", "1:12: not YAML: mapping values are not allowed here"),
    "a misspelt key": ("prompt: x\npromt: y", "2:1: promt: unknown key; did you mean `prompt`?"),
    "an unknown key": ("prompt: x\nzzz: y", "2:1: zzz: unknown key; known: access, agent, "),
    "an unknown key like pydantic's own words": (
        "prompt: x\n'a[': 1",
        "2:1: a[: unknown key; known: ",
    ),
    "the same": ("prompt: x\nstr: 1", "2:1: str: unknown key; known: "),
    "a misspelt limit": (
        "prompt: x\nlimits: {step: 3}",
        "2:10: limits.step: unknown key; did you mean `steps`?",
    ),
    "a bad kind": (
        "prompt: x\nkind: coding",
        f"2:7: kind: found 'coding'; allowed: {', '.join(KINDS)}",
    ),
    "a bad access": (
        "prompt: x\naccess: write",
        "2:9: access: found 'write'; allowed: read, edit, full",
    ),
    "a bad privacy": (
        "prompt: x\nprivacy: no",
        "2:10: privacy: found 'no'; allowed: any, local",
    ),
    "a later version": ("version: 2\nprompt: x", "1:10: version: found the number 2; allowed: 1"),
    "a bad name": (
        "prompt: x\nname: a b",
        "2:7: name: found 'a b'; allowed: letters, digits, `.`, `_`, `-`, at most 64, the first a",
    ),
    "a number for a folder": (
        "prompt: x\nworkspace: 3",
        f"2:12: workspace: found the number 3; allowed: {PLACES}",
    ),
    "a list for a folder": (
        "prompt: x\nworkspace: [a]",
        f"2:12: workspace: found a list; allowed: {PLACES}",
    ),
    "no folder": (
        "prompt: x\nworkspace: ''",
        "2:12: workspace: found ''; allowed: a text that is not empty",
    ),
    "a home of nobody": (
        "prompt: x\nworkspace: ~nobody-of-that-name/x",
        (
            "2:12: workspace: found '~nobody-of-that-name/x'; allowed: a folder; nobody's home is "
            "known by that `~`"
        ),
    ),
    "no scratch folder": (
        "prompt: x\nworkspace: {}",
        "2:12: workspace.scratch: required, but not there",
    ),
    "a number for a scratch folder": (
        "prompt: x\nworkspace: {scratch: 3}",
        "2:22: workspace.scratch: found the number 3; allowed: a text (put it in quotes)",
    ),
    "a text for files": ("prompt: x\nfiles: a", "2:8: files: found 'a'; allowed: a list"),
    "a text for limits": ("prompt: x\nlimits: 5m", "2:9: limits: found '5m'; allowed: a mapping"),
    "a list for env": ("prompt: x\nenv: [A]", "2:6: env: found a list; allowed: a mapping"),
    "a number in env": (
        "prompt: x\nenv:\n  PORT: 80",
        "3:9: env.PORT: found the number 80; allowed: a text (put it in quotes)",
    ),
    "nothing in env": ("prompt: x\nenv: {A: }", "2:9: env.A: found nothing; allowed: a text"),
    "a bad name in env": (
        "prompt: x\nenv: {A B: x}",
        (
            "2:7: env.A B: found 'A B'; allowed: the name of a variable (letters, digits and `_`), "
            "never its value"
        ),
    ),
    "a long text": (
        f"prompt: x\nkind: {'y' * 50}",
        f"2:7: kind: found '{'y' * 37}...'; allowed: search, ",
    ),
}


@pytest.mark.parametrize(("text", "problem"), REFUSED.values(), ids=REFUSED)
def test_what_is_wrong_is_told_with_its_place_and_what_is_allowed(text, problem):
    (told,) = refused(text)
    assert told.startswith(f"task.yaml:{problem}")


@pytest.mark.parametrize("name", ["../x", "a/../../x", "/etc/passwd", "..", "a/.."])
def test_a_file_outside_the_workspace_is_refused(name):
    (problem,) = refused(f"prompt: x\nfiles: [ok.py, {name}]")
    assert problem.startswith("task.yaml:2:16: files.1: found")
    assert problem.endswith("allowed: a path inside the workspace, relative to it")


@pytest.mark.parametrize(
    "name",
    ["OPENAI_API_KEY", "api_key", "GITHUB_TOKEN", "token", "DB_PASSWORD", "AWS_SECRET_ACCESS_KEY",
     "MY_SECRET", "PRIVATE_KEY", "passwd", "CREDENTIALS"],
)  # fmt: skip
def test_a_secret_in_env_is_refused_with_the_way_to_do_it(name):
    (problem,) = refused(f"prompt: x\nenv: {{{name}: sk-12345}}")
    assert problem == (
        f"task.yaml:2:7: env.{name}: found '{name}'; allowed: no secret: name the variable under "
        "`env_from` instead"
    )


@pytest.mark.parametrize("name", ["MAX_TOKENS", "TOKENIZERS_PARALLELISM", "KEYBOARD", "MODE"])
def test_a_name_that_only_looks_like_a_secret_is_allowed(name):
    assert read(f"prompt: x\nenv: {{{name}: '1'}}").env == {name: "1"}


@pytest.mark.parametrize(
    "text",
    [
        "api_key_env: sk-proj-geheim",
        "api_key_env: 'sk proj geheim'",
        "env_from: [OPENAI_API_KEY=sk-geheim]",
        "env: {OPENAI_API_KEY: geheim}",
        "api_key: geheim",
        "env_from: [A, geheim!]",
    ],
)
def test_a_secret_written_by_mistake_is_not_repeated(text):
    assert [problem for problem in refused(f"prompt: x\n{text}") if "geheim" in problem] == []


@pytest.mark.parametrize(
    "url",
    ["", "ftp://x", "http://", "http://user:pw@x", "user@x", "a b", "http://x:port", "scripted:",
     "http://x\\@y", "x?a=b", "http://[::1", "x#y"],
)  # fmt: skip
def test_what_is_no_address_is_refused(url):
    (problem,) = refused(f"prompt: x\nbase_url: '{url}'")
    assert problem.endswith(
        "allowed: an address such as http://127.0.0.1:11434, without user or key; or scripted:FILE"
    )


def test_all_problems_are_told_in_the_order_of_the_file():
    problems = refused("""
zzz: 1
workspace: 3
limits: {wall: x, steps: 0}
kind: nothing
files: [1, ok, ../x]
prompt: 5
""")
    places = [tuple(map(int, problem.split(":")[1:3])) for problem in problems]
    assert places == sorted(places)
    assert [problem.split(":")[3].strip() for problem in problems] == [
        "zzz", "workspace", "limits.wall", "limits.steps", "kind", "files.0", "files.2", "prompt",
    ]  # fmt: skip


def test_of_very_many_problems_the_first_are_told():
    problems = refused("prompt: x\n" + "".join(f"key{number}: x\n" for number in range(5_000)))
    assert len(problems) == 21
    assert problems[0].startswith("task.yaml:2:1: key0: ")
    assert problems[-1] == "task.yaml: and 4980 more problems"


@pytest.mark.parametrize("text", ["", "prompt: 5", "\x1b", "a: *b", "prompt: x\nzz: 1", b"\xff"])
def test_a_files_name_cannot_break_a_line(text):
    for problem in refused(text, file="a\nb\x1b[2J\u202e.yaml"):
        assert problem.startswith(r"a\nb\x1b[2J\u202e.yaml:")
        assert problem.isprintable()


@pytest.mark.parametrize(
    "text",
    [
        '"k\\n\\e[2J": 1',
        'kind: "a\\nb\\e[2J\u202e"',
        '"a\\nb": 1\n"a\\nb": 2',
        "prompt: !\u202ex y",
    ],
)
def test_keys_and_values_cannot_break_a_line(text):
    for problem in refused(text):
        assert problem.isprintable()


# --- flags ----------------------------------------------------------------------------------------


def test_flags_are_checked_like_a_file():
    task = parse_flags({"prompt": "x", "kind": "fix", "limits": {"wall": "5m"}}, folder=FOLDER)
    assert task == Task(prompt="x", kind="fix", limits=Limits(wall_s=300), workspace=FOLDER)


@pytest.mark.parametrize(
    ("flags", "problem"),
    [
        ({"kind": "x"}, f"--kind: found 'x'; allowed: {', '.join(KINDS)}"),
        (
            {"limits": {"wall": "1d"}},
            "--wall: found '1d'; allowed: a duration above 0, such as 90s, 30m or 2h",
        ),
        ({"api_key_env": "sk-1"}, "--api-key-env: found another text (not shown here, "),
        ({"model": "a\n\x1bb\0"}, r"--model: found 'a\n\x1bb\x00'; allowed: a text without NUL"),
    ],
)
def test_a_bad_flag_is_named_as_a_flag(flags, problem):
    with pytest.raises(TaskFileError) as caught:
        parse_flags({"prompt": "x", **flags}, folder=FOLDER)
    (told,) = caught.value.problems
    assert told.startswith(problem)


# --- the schema -----------------------------------------------------------------------------------


def test_the_schema_knows_every_key_and_says_what_it_is_for():
    properties = task_schema()["properties"]
    assert isinstance(properties, dict)
    assert properties.keys() == {
        field.alias or name for name, field in TaskModel.model_fields.items()
    }
    assert [
        key for key, each in properties.items() if key != "limits" and not each["description"]
    ] == []
    assert task_schema()["oneOf"] == [{"required": ["prompt"]}, {"required": ["tasks"]}]


def test_the_schema_allows_what_is_read():
    document = {
        "version": 1,
        "prompt": "x",
        "kind": "fix",
        "base_url": "http://desk:11434",
        "api_key_env": "DESK_KEY",
        "workspace": {"scratch": "seed"},
        "files": ["a.py"],
        "limits": {"wall": "30m", "stall": 90, "steps": 3, "cost_usd": 1.5, "output": "1GiB"},
        "env": {"MODE": "x"},
        "env_from": ["HOME"],
    }
    assert read(json.dumps(document)).kind == "fix"
    assert against(document, task_schema()) == []


@pytest.mark.parametrize(
    "change",
    [
        {"prompt": None},
        {"prompt": ""},
        {"prompt": "\0"},
        {"promt": "x"},
        {"version": 2},
        {"kind": "coding"},
        {"base_url": "ftp://x"},
        {"api_key_env": "sk-1"},
        {"name": "a b"},
        {"workspace": 3},
        {"workspace": {"scratch": ""}},
        {"workspace": {"scratch": "x", "more": 1}},
        {"files": "a"},
        {"limits": {"steps": 0}},
        {"limits": {"cost_usd": 0}},
        {"limits": {"walls": "5m"}},
        {"env": {"A B": "x"}},
        {"env": {"A": 1}},
    ],
    ids=repr,
)
def test_what_the_schema_refuses_is_refused_by_us_too(change):
    document = {"prompt": "x", **change}
    assert against(document, task_schema())
    assert refused(json.dumps(document))


# --- anything -------------------------------------------------------------------------------------

PIECES = st.sampled_from(
    ["prompt", "kind", "limits", "env", "files", "workspace", "wall", "x", "~", "1", "fix", ": ",
     "\n", "\n  ", "- ", "[", "]", "{", "}", ", ", "'", '"', "|", ">", "&a", "*a", "!!int", "!",
     "%YAML 9" + "9" * 5000 + ".1", "---", "...", "#", "\t", "\\u", "\\ud800", "\\UFFFFFFFF", "\0",
     "\x85", "\u2028", "\ufeff", "é", "?", "@", "`", "%TAG ! tag:x,1:", "<<"]
)  # fmt: skip
YAMLISH = st.lists(PIECES, max_size=25).map("".join)


@given(st.binary(max_size=200) | YAMLISH.map(str.encode) | st.text(max_size=100).map(str.encode))
@example(b"%YAML " + b"9" * 5000 + b".1\n---\nprompt: x")
@example(b'"\\U0011FFFF"')
@example(b"workspace: ~\x85")
def test_any_bytes_are_a_task_or_a_task_file_error_with_places(raw):
    try:
        task = read(raw)
    except TaskFileError as error:
        problems = error.problems
    else:
        assert task.prompt
        return
    assert problems
    for problem in problems:
        assert re.match(r"task\.yaml:[1-9]\d*:[1-9]\d*: \S", problem)
        assert len(problem.splitlines()) == 1
        assert problem.encode()


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3)
    ),
    max_leaves=5,
)


@given(st.dictionaries(st.sampled_from([*TaskModel.model_fields, "zzz"]), VALUES, max_size=6))
def test_any_values_under_the_known_keys_are_a_task_or_problems_that_name_a_key(document):
    text = yaml.safe_dump(document, allow_unicode=True)
    try:
        task = read(text)
    except TaskFileError as error:
        problems = error.problems
    else:
        assert task.prompt == document["prompt"]
        return
    for problem in problems:
        assert re.match(r"task\.yaml:\d+:\d+: ", problem)
        assert "Input should" not in problem
        assert "instance of" not in problem


@given(
    st.text(st.characters(exclude_categories=["Cs"]), min_size=1).filter(
        lambda text: "\0" not in text
    )
)
def test_any_prompt_survives_json(prompt):
    assert read(json.dumps({"prompt": prompt})).prompt == prompt


# --- several tasks --------------------------------------------------------------------------------

GRAPH = """
name: retry-after
access: full
kind: search
concurrency: 2
privacy: any
limits: {wall: 30m, steps: 80}
env: {MODE: test, PORT: "1"}
files: [README.md]
strategy: cascade
fallback: cloud
handoff: continue
detached: keep
retries: 2
isolation: none
deliver: apply
setup: uv sync
copy: [.env.test]
tasks:
  - id: locate
    prompt: Which modules implement retries?
    expect: {type: array, items: {type: string}}
  - id: fix
    kind: fix
    needs: [locate]
    privacy: local
    limits: {wall: 2h, steps: 9}
    env: {PORT: "2"}
    files: []
    prompt: |
      Retries ignore Retry-After.
      Look at {{ tasks.locate.text }}
  - id: review
    needs: [fix]
    access: read
    prompt: "Review {{ tasks.fix.diff }}, found by {{ tasks.locate.status }}"
"""


def read_all(text: str) -> TaskFile:
    return parse_task_file(text.encode(), file="task.yaml", folder=FOLDER)


def refused_file(text: str) -> list[str]:
    with pytest.raises(TaskFileError) as caught:
        read_all(text)
    return list(caught.value.problems)


def test_what_stands_at_the_top_is_the_default_of_each_task():
    file = read_all(GRAPH)
    locate, fix, review = file.tasks
    assert (file.name, file.concurrency, file.single) == ("retry-after", 2, False)
    assert file.limits == Limits(wall_s=1800, steps=80)
    assert file.needs == {"locate": (), "fix": ("locate",), "review": ("fix",)}
    assert [task.kind for task in file.tasks] == ["search", "fix", "search"]
    assert [task.access for task in file.tasks] == ["full", "full", "read"]
    assert [task.files for task in file.tasks] == [("README.md",), (), ("README.md",)]
    for task in file.tasks:
        assert (task.strategy, task.fallback, task.handoff) == ("cascade", "cloud", "continue")
        assert (task.detached, task.retries, task.isolation) == ("keep", 2, "none")
        assert (task.deliver, task.setup, task.copy) == ("apply", "uv sync", (".env.test",))
        assert task.name == "retry-after"
    assert locate.expect == {"type": "array", "items": {"type": "string"}}
    assert fix.expect is None
    assert review.prompt == "Review {{ tasks.fix.diff }}, found by {{ tasks.locate.status }}"


def test_limits_and_privacy_of_a_task_only_tighten_and_variables_add_up():
    _, fix, _ = read_all(GRAPH).tasks
    assert fix.limits == Limits(wall_s=1800, steps=9)
    assert fix.privacy == "local"
    assert fix.env == {"MODE": "test", "PORT": "2"}
    (loose,) = read_all("privacy: local\ntasks: [{id: a, prompt: x, privacy: any}]").tasks
    assert loose.privacy == "local"


def test_a_task_at_the_top_is_one_whose_prompt_is_plain_text():
    file = read_all("prompt: Fix {{ title }}")
    assert (file.single, file.tasks) == (True, (Task(prompt="Fix {{ title }}", workspace=FOLDER),))
    assert read_all("tasks: [{id: a, prompt: x}]").single is False


def test_where_one_task_is_needed_a_list_is_refused():
    assert refused("tasks: [{id: a, prompt: x}]") == [
        "task.yaml:1:1: tasks: one task is needed here, not a list"
    ]


A, B = "{id: a, prompt: x}", "{id: b, prompt: x}"

WRONG_GRAPHS = {
    "both forms": (
        f"prompt: x\ntasks: [{A}]",
        "1:9: prompt: there are `tasks`, too: a prompt belongs into one of them",
    ),
    "no tasks": ("tasks: []", "1:8: tasks: found a list; allowed: a list that is not empty"),
    "an id twice": (
        f"tasks:\n- {A}\n- {B}\n- {A}",
        "4:8: tasks.2.id: 'a' is the id of an earlier task, too",
    ),
    "a bad id": (
        "tasks:\n- id: a.b\n  prompt: x",
        "2:7: tasks.0.id: found 'a.b'; allowed: letters, digits, `_`, `-`, at most 64, the first ",
    ),
    "no id": ("tasks:\n- prompt: x", "2:3: tasks.0.id: required, but not there"),
    "an empty prompt": ("tasks:\n- id: a\n  prompt:", "3:10: tasks.0.prompt: found nothing; "),
    "an unknown need": (
        "tasks:\n- id: locate\n  prompt: x\n- id: b\n  needs: [locat]\n  prompt: x",
        "5:11: tasks.1.needs.0: no task 'locat'; did you mean 'locate'?",
    ),
    "a need that is nowhere near": (
        f"tasks:\n- {A}\n- id: b\n  needs: [zzz]\n  prompt: x",
        "4:11: tasks.1.needs.0: no task 'zzz'; known: a, b",
    ),
    "a need twice": (
        f"tasks:\n- {A}\n- id: b\n  needs: [a, a]\n  prompt: x",
        "4:14: tasks.1.needs.1: 'a' is named twice",
    ),
    "itself": (
        "tasks:\n- id: a\n  needs: [a]\n  prompt: x",
        "3:10: tasks.0.needs: a cycle, so that none of them can start: a -> a",
    ),
    "a cycle": (
        f"tasks:\n- {A}\n- {{id: b, needs: [c], prompt: x}}\n- {{id: c, needs: [a, b], prompt: x}}",
        "3:18: tasks.1.needs: a cycle, so that none of them can start: b -> c -> b",
    ),
    "a template without a need": (
        f"tasks:\n- {A}\n- id: b\n  prompt: |\n    one\n    two {{{{ tasks.a.text }}}}",
        "6:9: tasks.1.prompt: {{ tasks.a.text }}: add 'a' to the `needs` of 'b'",
    ),
    "a template of an unknown task": (
        "tasks:\n- id: abc\n  prompt: see {{ tasks.abd.text }}",
        "3:15: tasks.0.prompt: {{ tasks.abd.text }}: no task 'abd'; did you mean 'abc'?",
    ),
    "a template of an unknown field": (
        'tasks:\n- id: a\n  prompt: "{{ tasks.a.txt }}"',
        "3:12: tasks.0.prompt: unknown field 'txt'; known: text, diff, branch, status, verified",
    ),
    "a template that a line break cuts": (
        "tasks:\n- id: a\n  prompt: >\n    {{ tasks\n    .a.text }}",
        "3:11: tasks.0.prompt: allowed: {{ tasks.ID.text",
    ),
    "a template that does not end": (
        "tasks:\n- id: a\n  prompt: a {{ b",
        "3:13: tasks.0.prompt: `{{` is not closed by `}}`",
    ),
    "no schema": (
        "prompt: x\nexpect:\n  properties:\n    a: {type: strin}",
        "4:15: expect.properties.a.type: not a JSON Schema: ",
    ),
    "no schema in a task": (
        "tasks:\n- {id: a, prompt: x, expect: {minimum: low}}",
        "2:40: tasks.0.expect.minimum: not a JSON Schema: ",
    ),
    "an unknown key of a task": (
        "tasks:\n- {id: a, prompt: x, need: [b]}",
        "2:22: tasks.0.need: unknown key; did you mean `needs`?",
    ),
    "a job's key in a task": (
        "tasks:\n- {id: a, prompt: x, concurrency: 2}",
        "2:22: tasks.0.concurrency: unknown key; ",
    ),
    "a bad limit of a task": (
        "tasks:\n- id: a\n  prompt: x\n  limits: {wall: soon}",
        "4:18: tasks.0.limits.wall: found 'soon'; allowed: a duration",
    ),
    "a bad place of a task": (
        "tasks:\n- id: a\n  prompt: x\n  workspace: {scratch: 1}",
        "4:24: tasks.0.workspace.scratch: found the number 1; allowed: a text",
    ),
    "a secret in a task": (
        "tasks:\n- id: a\n  prompt: x\n  env: {API_KEY: x}",
        "4:9: tasks.0.env.API_KEY: ",
    ),
    "a file to take along from outside": (
        "prompt: x\ncopy: [../x]",
        "2:8: copy.0: found '../x'; allowed: a path inside the workspace",
    ),
}


@pytest.mark.parametrize(("text", "problem"), WRONG_GRAPHS.values(), ids=WRONG_GRAPHS)
def test_what_is_wrong_with_several_tasks_is_told_with_its_place(text, problem):
    (told,) = refused_file(text)
    assert told.startswith(f"task.yaml:{problem}")


def test_every_problem_of_every_task_is_told_in_the_order_of_the_file():
    told = refused_file("tasks:\n- {id: a}\n- {id: b, prompt: x, kind: fixx}\nnam: x")
    assert [line.split(": ")[0] for line in told] == [
        "task.yaml:2:3",
        "task.yaml:3:28",
        "task.yaml:4:1",
    ]


def test_the_schema_knows_the_tasks():
    document = {
        "concurrency": 2,
        "tasks": [
            {"id": "a", "prompt": "x", "expect": {"type": "object"}},
            {"id": "b", "needs": ["a"], "prompt": "x", "limits": {"wall": "5m"}},
        ],
    }
    assert len(read_all(json.dumps(document)).tasks) == 2
    assert against(document, task_schema()) == []
    changes: list[dict[str, object]] = [
        {"prompt": "x"},
        {"tasks": []},
        {"tasks": [{"id": "a"}]},
        {"concurrency": 0},
    ]
    for change in changes:
        assert against({**document, **change}, task_schema()), change
        assert refused_file(json.dumps({**document, **change})), change


def test_a_graph_that_was_never_a_file_is_checked_like_one():
    tasks = (Task(id="a", prompt="{{ tasks.b.text }}", workspace=FOLDER),)
    with pytest.raises(InputError, match=r"tasks\.0\.prompt: \{\{ tasks\.b\.text \}\}: no task"):
        check_tasks(TaskFile(tasks=tasks))
    check_tasks(TaskFile(tasks=tasks, single=True))


def test_a_duration_and_a_size_of_a_flag():
    assert (parse_duration("30m"), parse_duration("30d")) == (1800.0, 30 * 86400.0)
    assert parse_size("20GiB") == 20 * 1024**3


@pytest.mark.parametrize(
    ("parse", "text", "allowed"),
    [
        (parse_duration, "d", "a duration"),
        (parse_duration, "-1d", "a duration"),
        (parse_duration, "", "a duration"),
        (parse_size, "lots\x1b", "a size"),
    ],
)
def test_a_flag_that_is_no_duration_or_size_says_what_is_one(parse, text, allowed):
    with pytest.raises(InputError, match=allowed) as refused:
        parse(text)
    assert "\x1b" not in str(refused.value)


@pytest.mark.parametrize(("said", "meant"), [("on", True), ("off", False), ("true", True)])
def test_delegation_is_on_or_off(said, meant):
    assert read(f"prompt: x\ndelegation: {said}\n").delegation is meant


def test_delegation_is_nothing_else_and_its_limits_are_numbers():
    assert read("prompt: x").delegation is None
    assert "delegation: " in refused("prompt: x\ndelegation: maybe\n")[0]
    limits = read("prompt: x\nlimits: {depth: 0, children: 3}\n").limits
    assert (limits.depth, limits.children) == (0, 3)
    assert refused("prompt: x\nlimits: {depth: -1}\n")
