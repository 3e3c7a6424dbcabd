"""The exceptions: what they carry, how text from outside is quoted, single ones out of groups."""

import errno
import unicodedata
from collections.abc import Iterator
from typing import Any

import anyio
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import TypeAdapter, ValidationError

from orchestrator import errors
from orchestrator.errors import (
    ConfigError,
    InputError,
    JournalError,
    OrchestrateError,
    OutcomeError,
    SpawnError,
    SupervisionError,
    TaskFileError,
    first_problem,
    lone_error,
    shown,
)


def tree(kind: type[BaseException], depth: int = 0) -> Iterator[str]:
    yield f"{depth} {kind.__name__}"
    for child in kind.__subclasses__():
        if child.__module__ == errors.__name__:
            yield from tree(child, depth + 1)


def test_the_tree_in_the_docstring_is_the_tree_of_classes():
    drawn = []
    for line in (errors.__doc__ or "").splitlines():
        if line.strip() == "OrchestrateError":
            drawn.append("0 OrchestrateError")
        elif "── " in line:
            before, _, name = line.partition("── ")
            drawn.append(f"{(len(before) - 1) // 4} {name.split()[0]}")
    assert drawn == list(tree(OrchestrateError))


def test_a_full_disk_is_nobodys_wrong_input():
    full = errors.unwritable("FILE", OSError(errno.ENOSPC, "No space left on device"))
    forbidden = errors.unwritable("FILE", OSError(errno.EACCES, "Permission denied"))
    assert str(full) == "cannot write FILE: No space left on device"
    assert full.hint is not None
    assert [isinstance(each, ConfigError) for each in (full, forbidden)] == [False, True]


def test_every_error_says_what_and_what_next():
    made = [
        OrchestrateError("what", hint="next"),
        InputError("what", hint="next"),
        ConfigError("what", hint="next"),
        SpawnError("what", errno=2, hint="next"),
        SupervisionError("what", hint="next"),
        JournalError("what", hint="next"),
        OutcomeError("what", status="failed", hint="next"),
    ]
    assert {str(error) for error in made} == {"what"}
    assert {error.hint for error in made} == {"next"}
    assert made[3].errno == 2  # type: ignore[attr-defined]
    assert made[6].status == "failed"  # type: ignore[attr-defined]


def test_a_hint_may_be_missing():
    assert OrchestrateError("what").hint is None
    assert SpawnError("what").errno is None


def test_a_task_file_error_has_a_line_for_each_problem():
    error = TaskFileError(("task.yaml:1:1: a: b", "task.yaml:2:1: c: d"))
    assert str(error).splitlines() == list(error.problems)
    assert error.hint is None


# --- shown ----------------------------------------------------------------------------------------

VISIBLE_FORMATS = {  # Unicode's category Cf also holds signs that are seen: number and verse marks
    *range(0x600, 0x606), 0x6DD, 0x70F, 0x890, 0x891, 0x8E2, 0x110BD, 0x110CD,
    *range(0x13430, 0x13440),
}  # fmt: skip


def steers(character: str) -> bool:
    category = unicodedata.category(character)
    return category in {"Cc", "Cs", "Zl", "Zp"} or (
        category == "Cf" and ord(character) not in VISIBLE_FORMATS
    )


def test_of_all_unicode_nothing_that_steers_a_terminal_is_shown_as_it_is():
    everything = [chr(code) for code in range(0x110000)]
    hostile = [character for character in everything if steers(character)]
    assert len(hostile) > 2_000
    assert [hex(ord(each)) for each in hostile if not shown(each).isascii()] == []
    assert [hex(ord(each)) for each in hostile if not shown(each).startswith("\\")] == []


@pytest.mark.parametrize("text", ["plain", "naïve 日本語 emoji 🎉 ❤️", "a b　c", "it's \\x1b"])
def test_what_people_write_is_shown_as_it_is(text):
    assert shown(text) == text


@pytest.mark.parametrize(
    ("text", "escaped"),
    [
        ("a\nb", r"a\nb"),
        ("a\tb\rc", r"a\tb\rc"),
        ("\x1b[2J", r"\x1b[2J"),
        ("\x9b2J\x7f", r"\x9b2J\x7f"),
        ("\u202egpj.exe", r"\u202egpj.exe"),
        ("zero\u200bwidth", r"zero\u200bwidth"),
        ("line\u2028end\u0085end", r"line\u2028end\x85end"),
        ("tag\U000e0041", r"tag\U000e0041"),
        ("\udc80", r"\udc80"),
    ],
)
def test_what_steers_a_terminal_is_shown_by_its_name(text, escaped):
    assert shown(text) == escaped


@given(st.text())
def test_what_is_shown_is_one_line_that_can_be_written(text):
    line = shown(text)
    assert len(line.splitlines()) <= 1
    assert line.encode() is not None
    assert not any(steers(character) for character in line)


# --- pydantic's errors ----------------------------------------------------------------------------


def validation_error(kind: Any, value: object) -> ValidationError:
    with pytest.raises(ValidationError) as caught:
        TypeAdapter(kind).validate_python(value)
    return caught.value


def test_a_problem_names_its_place_and_not_the_value():
    error = validation_error(dict[str, list[int]], {"a\nb": [1, "sk-secret"]})
    text = first_problem(error)
    assert text.startswith(r"a\nb.1: ")
    assert "integer" in text
    assert "sk-secret" not in text
    assert "\n" not in text


def test_a_problem_of_the_whole_value_has_no_place():
    assert first_problem(validation_error(int, None)) == "Input should be a valid integer"


# --- groups ---------------------------------------------------------------------------------------


async def test_a_single_error_leaves_a_task_group_as_itself():
    async def fail() -> None:
        raise JournalError("disk full") from OSError("cause")

    with pytest.raises(JournalError, match="disk full") as caught, lone_error():
        async with anyio.create_task_group() as outer, anyio.create_task_group():
            outer.start_soon(fail)
    assert isinstance(caught.value.__cause__, OSError)


def test_several_errors_stay_a_group():
    both = ExceptionGroup("two", [ValueError("one"), KeyError("other")])
    with pytest.raises(ExceptionGroup) as caught, lone_error():
        raise both
    assert caught.value is both


def test_an_error_without_a_group_passes():
    with pytest.raises(KeyError), lone_error():
        raise KeyError("x")


def test_nothing_raised_is_nothing_raised():
    with lone_error():
        done = True
    assert done
