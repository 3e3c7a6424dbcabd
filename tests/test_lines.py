r"""Bytes to lines: the same whatever the chunks, nothing dropped, memory bounded, `\n` alone."""

import tracemalloc
from collections.abc import Iterator, Sequence
from itertools import pairwise

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from orchestrator.lines import HEAD, LINE_LIMIT, Line, LineSplitter

PIECES = [b"\n", b"\r\n", b"\0", b"{}", b"\xff", "\u2028\x85".encode(), b"a" * 9]
STREAMS = st.one_of(
    st.binary(max_size=400),
    st.lists(st.sampled_from(PIECES)).map(b"".join),
)
CUTS = st.lists(st.integers(0, 400), max_size=20).map(sorted)


def chunks(stream: bytes, cuts: Sequence[int]) -> Iterator[bytes]:
    edges = [0, *(min(cut, len(stream)) for cut in cuts), len(stream)]
    for begin, end in pairwise(edges):
        yield stream[begin:end]


def split(parts: Sequence[bytes] | Iterator[bytes], limit: int = LINE_LIMIT, **where) -> list[Line]:
    splitter = LineSplitter(limit, **where)
    lines = [line for part in parts for line in splitter.feed(part)]
    return lines + splitter.close()


def expected(stream: bytes, limit: int, offset: int = 0) -> list[Line]:
    """The same by the plainest means: the whole stream at once, in memory."""
    *whole, tail = stream.split(b"\n")
    lines = []
    for data, ended in [*((each, True) for each in whole), (tail, False)]:
        if not data and not ended:
            continue
        oversize = len(data) > limit
        lines.append(
            Line(
                data=data[: min(HEAD, limit)] if oversize else data,
                offset=offset,
                length=len(data) + ended,
                oversize=oversize,
                ended=ended,
            )
        )
        offset += lines[-1].length
    return lines


@given(STREAMS, CUTS, st.integers(1, 12))
@example(b"aaaa\nbb", [4, 4], 4)
@example(b"aaaaa", [1, 2, 3], 4)
def test_any_bytes_in_any_chunks_give_the_same_lines(stream, cuts, limit):
    assert split(chunks(stream, cuts), limit) == expected(stream, limit)


@given(STREAMS, CUTS)
def test_without_oversize_lines_the_stream_can_be_put_together_again(stream, cuts):
    lines = split(chunks(stream, cuts))
    assert b"".join(line.data + b"\n" * line.ended for line in lines) == stream


@given(STREAMS, CUTS, st.integers(1, 12), st.integers(0, 2**40))
def test_offsets_and_lengths_tile_the_stream(stream, cuts, limit, offset):
    position = offset
    for line in split(chunks(stream, cuts), limit, offset=offset):
        assert line.offset == position
        begin = line.offset - offset
        piece = stream[begin : begin + line.length]
        assert piece.startswith(line.data)
        assert piece.endswith(b"\n") == line.ended
        position += line.length
    assert position == offset + len(stream)


@pytest.mark.parametrize(
    "text", ["a\u2028b", "a\u0085b", "a\x0b\x0c\x1c\x1db", "a\rb", "a\r", "\0", "\ufeff{}", "  a\t"]
)
def test_only_a_newline_ends_a_line(text):
    (line,) = split([text.encode() + b"\n"])
    assert line == Line(data=text.encode(), offset=0, length=len(text.encode()) + 1)


def test_empty_lines_are_lines():
    assert [line.data for line in split([b"\n\na\n\n"])] == [b"", b"", b"a", b""]


def test_a_tail_without_newline_is_kept_and_says_so():
    (line,) = split([b'{"type":', b'"end"}'])
    assert line == Line(data=b'{"type":"end"}', offset=0, length=14, ended=False)


@pytest.mark.parametrize("stream", [b"", b"\n", b"a\n"])
def test_no_line_is_made_up_at_the_end(stream):
    assert len(split([stream])) == stream.count(b"\n")


def test_a_splitter_can_be_fed_again_after_its_tail_was_taken():
    splitter = LineSplitter()
    assert splitter.feed(b"cut") == []
    assert splitter.close() == [Line(data=b"cut", offset=0, length=3, ended=False)]
    assert splitter.close() == []
    assert splitter.start == 3
    assert splitter.feed(b"whole\n") == [Line(data=b"whole", offset=3, length=6)]


def test_a_line_as_long_as_the_limit_is_whole_and_one_byte_more_is_not():
    whole, cut = split([b"x" * 8 + b"\n" + b"y" * 9 + b"\n"], limit=8)
    assert (whole.data, whole.oversize) == (b"x" * 8, False)
    assert (cut.data, cut.oversize, cut.length) == (b"y" * 8, True, 10)


def test_a_long_line_is_cut_only_beyond_the_limit():
    long = b"x" * HEAD * 2
    (whole,) = split([long, b"\n"], limit=len(long))
    assert (whole.data == long, whole.oversize) == (True, False)
    (cut,) = split([long, b"\n"], limit=len(long) - 1)
    assert (len(cut.data), cut.oversize) == (HEAD, True)


def test_an_oversize_line_keeps_its_head_and_the_next_line_is_whole():
    long = bytes(range(256)).replace(b"\n", b"") * 1000
    first, second = split([long, long, b"\nnext\n"], limit=HEAD * 2)
    assert (first.data, first.oversize) == (long[:HEAD], True)
    assert first.length == 2 * len(long) + 1
    assert second == Line(data=b"next", offset=first.length, length=5)


@pytest.mark.parametrize("size", [1_000, 65_536, 1_000_000])
def test_an_endless_line_takes_no_more_memory_than_the_limit(size):
    limit = 2_000_000
    chunk, count = b"x" * size, 40_000_000 // size
    splitter = LineSplitter(limit)
    tracemalloc.start()
    try:
        for _ in range(count):
            assert splitter.feed(chunk) == []
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    # What is held, a chunk, and once both the parts and what they are joined to.
    assert peak < 2 * limit + 2 * size
    (line,) = splitter.feed(b"\n")
    assert (len(line.data), line.length) == (HEAD, count * size + 1)
