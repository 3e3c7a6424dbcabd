"""Text for a person: nothing hostile, one line where one is meant, cells as terminals count."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.console.text import (
    between,
    cells,
    clock,
    dollars,
    fit,
    one_line,
    padded,
    safe,
    short_tokens,
    table,
    wrapped,
)
from orchestrator.events import Usage
from tests.console.words import TEXT, steers

ANY = st.characters()


def test_of_all_unicode_nothing_hostile_is_left_by_safe():
    everything = "".join(map(chr, range(0x110000)))
    assert steers(everything)
    assert steers(safe(everything)) == []


@given(st.text(ANY))
def test_safe_text_can_be_written_and_keeps_its_lines(text):
    shown = safe(text)
    assert shown.encode() is not None
    assert steers(shown) == []
    assert shown.count("\n") == text.count("\n")
    assert shown.count("\t") == text.count("\t")


@given(st.lists(st.lists(TEXT, min_size=3, max_size=3), min_size=1, max_size=5))
def test_a_table_has_a_line_for_each_row(rows):
    shown = table(rows)
    assert steers(shown) == []
    assert shown.count("\n") == len(rows) - 1


@given(TEXT, st.integers(4, 120))
def test_one_line_is_one_line_and_no_longer(text, width):
    line = one_line(text, width)
    assert len(line) <= width
    assert len(line.splitlines()) <= 1
    assert steers(line) == []


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("", ""),
        ("\n\n  first \nsecond", "first"),
        ("a\tb", r"a\tb"),
        ("x" * 101, "x" * 97 + "..."),
        ("x" * 100, "x" * 100),
        ("\x1b[31mred", r"\x1b[31mred"),
    ],
)
def test_one_line_is_the_first_that_says_something(text, line):
    assert one_line(text) == line


def test_a_table_has_columns_as_wide_as_they_must_be():
    assert table([["RUN", "STATUS"], ["0", "failed"], ["long id", ""]]) == (
        "RUN      STATUS\n0        failed\nlong id"
    )


# --- cells ----------------------------------------------------------------------------------------


@given(st.text(ANY) | TEXT, st.integers(-1, 60))
def test_a_fitted_text_is_one_safe_line_of_at_most_so_many_cells(text, width):
    line = fit(text, width)
    assert cells(line) <= max(width, 0)
    assert steers(line) == []
    assert not {"\n", "\t"} & set(line)


@pytest.mark.parametrize(
    ("text", "width", "line"),
    [
        ("abc", 3, "abc"),
        ("abcd", 3, "ab…"),
        ("日本語", 6, "日本語"),
        ("日本語", 5, "日本…"),
        ("日本語", 4, "日…"),
        ("日", 1, "…"),
        ("a\tb", 9, r"a\tb"),
        ("e" + "\u0301" * 9, 3, "e\u0301\u0301"),
        ("e" + "\u0301" * 99, 3, "e\u0301\u0301…"),
        ("e\u0301x", 2, "e\u0301x"),
        ("x" * 10_000, 4, "xxx…"),
        ("x", 0, ""),
    ],
)
def test_what_does_not_fit_is_cut_by_cells_and_says_so(text, width, line):
    assert fit(text, width) == line


def test_wide_characters_take_two_cells_and_marks_none():
    assert (cells("abc"), cells("日本"), cells("e\u0301"), cells("🙂")) == (3, 4, 1, 2)
    assert padded("日", 4) == "日  "
    assert table([["A", "B"], ["日本", "x"]]) == "A     B\n日本  x"


def test_a_table_is_folded_into_a_narrow_window_and_leaves_nothing_out():
    rows = [["AGENT", "WHY"], ["home", "search is cheap: local first"], ["far", "x" * 20]]
    assert table(rows, 24).splitlines() == [
        "AGENT  WHY",
        "home   search is cheap:",
        "       local first",
        "far    xxxxxxxxxxxxxxxxx",
        "       xxx",
    ]
    assert table(rows, 200) == table(rows)


@given(
    st.lists(st.tuples(*[st.text("ab 日\u0301", max_size=40)] * 3), min_size=1, max_size=4),
    st.integers(1, 60),
)
def test_no_line_of_a_table_is_wider_than_a_window_that_has_room_for_its_columns(rows, columns):
    lines = table([["A", "B", "C"], *rows], columns).splitlines()
    assert all(cells(line) <= max(columns, 3 * 10 + 4) for line in lines)
    letters = sorted("".join(lines).replace(" ", ""))
    assert letters == sorted("ABC" + "".join(map("".join, rows)).replace(" ", ""))


@given(st.text("ab 日\u0301", max_size=60), st.integers(1, 20))
def test_wrapped_lines_hold_every_word_and_only_a_lone_word_is_longer(text, width):
    lines = wrapped(text, width)
    assert " ".join(lines).split() == text.split()
    assert all(cells(line) <= width or len(line.split()) == 1 for line in lines)


def test_wrapped_lines_are_indented_as_the_first_one():
    assert wrapped("  one two", 5) == ["  one", "  two"]
    assert wrapped("one two", None) == ["one two"]


# --- figures --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(-1, "0s"), (0.4, "0s"), (59.9, "59s"), (60, "1m00s"), (3599, "59m59s"), (7380, "2h03m")],
)
def test_a_duration_is_short(seconds, text):
    assert clock(seconds) == text


def test_a_short_duration_has_tenths_where_they_are_wanted():
    assert (clock(0.44, tenths=True), clock(12.34, tenths=True)) == ("0.4s", "12s")


@pytest.mark.parametrize(
    ("count", "text"),
    [
        (0, "0"),
        (999, "999"),
        (1_000, "1.0k"),
        (99_949, "99.9k"),
        (123_456, "123k"),
        (1_500_000, "1.5M"),
        (2_000_000_000, "2.0G"),
    ],
)
def test_many_tokens_are_told_short(count, text):
    assert short_tokens(Usage(input_tokens=count)) == text


def test_tokens_that_nobody_counted_are_unknown():
    assert short_tokens(None) == short_tokens(Usage(cost_usd=1.0)) == "unknown"


def test_many_dollars_have_two_decimals():
    assert (dollars(0.5), dollars(1234.5)) == ("$0.5000", "$1,234.50")


@pytest.mark.parametrize(
    ("start", "end"), [(None, "x"), ("x", None), ("x", "y"), ("2026-01-01", "2026-01-01T00:00:00Z")]
)
def test_a_time_that_is_none_makes_no_duration(start, end):
    assert between(start, end) is None
