"""On which line a key stands: whatever TOML may look like."""

import tomllib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.config.positions import has_long_key, line_of, lines_of

TEXT = """# [a comment
first = 1

[table] # "
plain = "x # [ ]"
'quoted.key' = 'a\\'
"k\\u0065y" = "\\"[" # not the end
many = \"\"\"
[no.table]
no = "key" \\
\"\"\"\"
raw = '''
it's ''\\
'''''
list = [ # [
  "]", '[', { inner = [1,
  2] },
]
dotted.inner = {deep = 1}
after = 2026-01-01

[ table . "sub.x" ]
[[rows]]
a = 1
[[rows]]
b = 2
  [rows.of]
"""
LINES = {
    ("first",): 2,
    ("table",): 4,
    ("table", "plain"): 5,
    ("table", "quoted.key"): 6,
    ("table", "key"): 7,
    ("table", "many"): 8,
    ("table", "raw"): 12,
    ("table", "list"): 15,
    ("table", "dotted"): 19,
    ("table", "dotted", "inner"): 19,
    ("table", "dotted", "inner", "deep"): 19,
    ("table", "after"): 20,
    ("table", "sub.x"): 22,
    ("rows",): 23,
    ("rows", "a"): 24,
    ("rows", "b"): 26,
    ("rows", "of"): 27,
}


def test_every_key_has_its_line():
    tomllib.loads(TEXT)
    assert lines_of(TEXT) == LINES


@pytest.mark.parametrize(
    ("key", "line"),
    [
        (("table", "plain"), 5),
        (("table", "missing"), 4),
        (("table", "list", "1", "inner"), 15),
        (("nowhere",), 1),
        ((), 1),
    ],
)
def test_what_does_not_stand_there_is_missing_in_its_table(key, line):
    assert line_of(key, LINES) == line


@pytest.mark.parametrize(
    ("text", "long"),
    [
        ("a" + ".b" * 60 + " = 1", True),
        ("[a" + ' . "x.y"' * 60 + "]", True),
        ("x = {a" + ".'b'" * 60 + " = 1}", True),
        ("[a" + ".b" * 40 + "]", False),
        ("x = '" + "a." * 60 + "'", False),
        ("# " + "a." * 60, False),
        ("x = [" + "1.5, " * 60 + "]", False),
        ("a" * 500_000, False),
        ("a ." * 49 + "\n" + "a." * 49, False),
        ('"' * 100_000, False),
    ],
)
def test_a_key_of_very_many_parts_is_known_before_the_text_is_read_as_toml(text, long):
    assert has_long_key(text, 50) is long


def test_an_empty_text_has_no_lines():
    assert lines_of("") == {}


NAMES = st.sampled_from(["a", "b.c", '"', "'", "#", "[x]", "=", "é", " "])
VALUES = st.sampled_from(
    ["1", '"#["', "'\"'", '"""\n[t]\n"""', "'''\n]\n'''", "[\n1,\n# ]\n]", "{x = [1]}", "true"]
)


@given(st.lists(st.tuples(NAMES, VALUES), max_size=8, unique_by=lambda one: one[0]))
def test_the_line_of_a_key_is_where_it_was_written(rows):
    text = ""
    expected: dict[tuple[str, ...], int] = {}
    for name, value in rows:
        quoted = '"' + name.replace('"', '\\"') + '"'
        expected[(name,)] = text.count("\n") + 1
        expected[name, name] = text.count("\n") + 2
        text += f"[{quoted}]\n{quoted} = {value} # [\n"
    lines = lines_of(text)
    assert {key: lines[key] for key in expected} == expected
