"""No spelling of a key is left in a record, and nothing else is taken out."""

import base64
import json
from itertools import pairwise
from urllib.parse import quote, quote_plus

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.journal import scrub
from orchestrator.redaction import (
    REDACTED,
    Pieces,
    finder,
    known,
    may_escape,
    pattern,
    raw_pattern,
    spellings,
    without,
)

KEY = "sk-planted/key+0123456789"
KEYS = st.text(st.characters(min_codepoint=33, max_codepoint=126), min_size=8, max_size=40)
AROUND = st.binary(max_size=9)


def cleaned(text: str, *values: str) -> str:
    secret = pattern(values)
    assert secret is not None
    return secret.sub(REDACTED, text)


@given(KEYS, AROUND, AROUND)
def test_base64_of_a_key_is_found_wherever_it_stands_in_a_longer_text(
    key: str, before: bytes, after: bytes
) -> None:
    for encode in (base64.b64encode, base64.urlsafe_b64encode):
        text = encode(before + key.encode() + after).decode()
        clean = cleaned(text, key)
        assert REDACTED in clean
        # What is left are characters that its neighbours have a part in.
        assert len(clean) - len(REDACTED) <= (len(before) + len(after) + 4) * 4 // 3 + 4


@pytest.mark.parametrize(
    "spelt",
    [
        KEY,
        orjson.dumps(KEY).decode(),
        json.dumps(json.dumps({"a": KEY})),
        quote(KEY, safe=""),
        base64.b64encode(b"user:" + KEY.encode()).decode(),
    ],
)
def test_a_key_is_found_as_it_is_in_json_in_urls_and_in_base64(spelt: str) -> None:
    clean = cleaned(f"before {spelt} after", KEY)
    assert REDACTED in clean
    assert "planted" not in clean
    assert clean.startswith("before ")
    assert clean.endswith(" after")


ODD = 'sk-odd/Key+42="q" (%end)\\x'


@pytest.mark.parametrize(
    "spelt",
    [
        json.dumps(ODD),
        json.dumps(json.dumps(ODD)),
        quote(ODD, safe=""),
        quote(ODD),
        quote(ODD, safe="!'()*"),  # JavaScript's encodeURIComponent
        quote_plus(ODD),
        "sk-odd%2fKey%2b42%3d%22q%22%20%28%25end%29%5cx",
    ],
)
def test_a_key_with_characters_that_are_escaped_is_noticed_in_a_record_and_taken_out(
    spelt: str,
) -> None:
    assert finder([ODD])(orjson.dumps({"type": "message", "text": f"before {spelt} after"}))
    clean = cleaned(f"before {spelt} after", ODD)
    assert REDACTED in clean
    assert "odd" not in clean
    assert "42" not in clean


def test_of_several_keys_each_is_noticed_in_a_record_in_any_spelling() -> None:
    values = [f"{KEY}-{number}" for number in range(5)]
    holds = finder(values)
    text = b'{"text":"sk-planted/key+01234, and no more of it"}\n' * 1000
    assert not holds(text)
    for value in values:
        for form in spellings(value):
            assert holds(text + form + text)
    assert not finder([])(text)


def test_the_longer_of_two_keys_goes_first() -> None:
    assert cleaned("sk-12345678-9", "sk-12345678", "sk-12345678-9") == REDACTED


def test_a_key_that_is_no_utf_8_is_looked_for_all_the_same() -> None:
    assert spellings("pass\udcff\udcfeword")[0] == b"pass\xff\xfeword"
    assert pattern(["pass\udcff\udcfeword"]) is not None


def test_without_keys_there_is_nothing_to_look_for() -> None:
    assert pattern([]) is None
    assert raw_pattern([]).search(b"anything") is None
    assert raw_pattern(["", "wörter"]).search(b"anything, w\xc3\xb6rter too") is None


def test_values_are_taken_out_of_json_at_any_depth_and_of_names_too() -> None:
    secret = pattern([KEY])
    assert secret is not None
    value = {KEY: [1, None, True, {"a": f"x{KEY}y"}], "b": 1.5}
    assert without(value, secret) == {
        REDACTED: [1, None, True, {"a": f"x{REDACTED}y"}],
        "b": 1.5,
    }


# --- which values -----------------------------------------------------------------------------


ENVIRON = {
    "MINE": "12345678",
    "SHORT": "1234567",
    "SOME_API_KEY": "sk-0123456789abcdef",
    "GITHUB_TOKEN": "ghp_0123456789abcdef",
    "DB_PASSWORD": "a-very-long-password",
    "GITLAB_PAT": "glpat-0123456789abcdef",
    "GOOGLE_APPLICATION_CREDENTIALS": "/home/user/some/file.json",
    "ROTATING_KEY": "https://keys.example.com/latest",
    "PASSWORD": "postgres",
    "SESSION_TOKEN": "several words of a text",
    "PATH": "/usr/bin:/usr/local/bin:/opt/bin",
    "TOKENIZERS_PARALLELISM": "0123456789abcdef",
}


def test_what_is_named_counts_and_what_is_called_a_key_and_looks_like_one() -> None:
    assert set(known(["MINE", "SHORT", "UNSET"], ENVIRON)) == {
        ENVIRON["MINE"],
        ENVIRON["SOME_API_KEY"],
        ENVIRON["GITHUB_TOKEN"],
        ENVIRON["DB_PASSWORD"],
        ENVIRON["GITLAB_PAT"],
    }


# --- raw output and pieces ---------------------------------------------------------------------


@given(KEYS, st.integers(0, 2**40))
def test_a_key_is_found_in_raw_output_however_its_characters_are_escaped(
    key: str, which: int
) -> None:
    spelt = "".join(
        f"\\u{ord(char):04{'xX'[at % 2]}}" if which >> at & 1 else "\\/" if char == "/" else char
        for at, char in enumerate(key)
    )
    raw = json.dumps({"text": "x"}).encode() + spelt.encode() + b"\n"
    assert raw_pattern([key]).search(raw)
    if spelt != key:
        assert may_escape(raw)


def test_an_escaped_key_is_overwritten_in_the_spool_and_offsets_stay(tmp_path) -> None:
    spelt = "".join(f"\\u{ord(char):04x}" for char in KEY)
    content = f'{{"a":"\\u001b {spelt}","b":"{KEY}"}}\n{{"c":1}}\n'.encode()
    (tmp_path / "stdout").write_bytes(content)
    scrub(tmp_path / "stdout", [KEY])
    after = (tmp_path / "stdout").read_bytes()
    assert KEY not in after.decode()
    assert KEY not in str(json.loads(after.split(b"\n")[0]))
    assert len(after) == len(content)
    assert after.endswith(b'{"c":1}\n')


LIKELY = ["sk-planted-0123456789", "sk-plain-0123456789", "ghp_sk-0123456789"]
WORDS = [*LIKELY, " ", "sk-", "ask", "ghp_sk-p"]


@given(st.lists(st.sampled_from(WORDS), max_size=6), st.sets(st.integers(0, 99), max_size=9))
def test_a_key_that_comes_in_pieces_is_not_told_and_nothing_else_is_lost(
    words: list[str], at: set[int]
) -> None:
    text = "".join(words) + "."
    cuts = sorted({0, len(text), *(place for place in at if place < len(text))})
    pieces = Pieces(LIKELY)
    told = [cleaned(pieces.cut("id", text[begin:end]), *LIKELY) for begin, end in pairwise(cuts)]
    assert "".join(told) == cleaned(text, *LIKELY)


def test_ordinary_pieces_are_told_at_once_and_held_ones_with_the_next() -> None:
    pieces = Pieces([KEY])
    assert pieces.cut("a", "hello ") == "hello "
    assert pieces.cut("a", f"the key is {KEY[:9]}") == "the key is "
    assert pieces.cut("b", "another text") == "another text"
    assert pieces.cut("a", f"{KEY[9:]}!") == f"{KEY}!"
    assert pieces.cut("a", f"sk-planted, sk-p, {KEY[:5]}") == "sk-planted, sk-p, "
    assert Pieces([""]).cut("a", "b") == "b"
    assert pieces.cut("a", "x") == f"{KEY[:5]}x"
    pieces.cut("a", KEY[:6])
    pieces.end("a")
    assert pieces.cut("a", "next") == "next"


def test_an_empty_piece_says_nothing_and_keeps_what_is_held() -> None:
    pieces = Pieces([KEY])
    assert pieces.cut("1", KEY[:4]) == ""
    assert pieces.cut("1", "") == ""
    assert pieces.cut("1", KEY[4:]) == KEY
