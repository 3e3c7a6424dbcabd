"""The moving part: what it says, and that it fits into any window, on a real terminal's rules."""

from itertools import pairwise

import pyte
import pyte.modes
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from orchestrator.console.live import HIDE, SHOW, Live
from orchestrator.console.paint import Span, cut, length, lively, painted
from orchestrator.console.screen import ended, frame
from orchestrator.console.state import Board, Row, board, fold
from orchestrator.events import (
    Changes,
    Failure,
    Message,
    Outcome,
    RunFinished,
    RunStarted,
    TaskFinished,
    TaskStarted,
    ToolCall,
    Usage,
)
from tests import strategies
from tests.console.words import HOSTILE, at, steers
from tests.examples import examples

NOW = at(63, Message(text="x")).time
NASTY = st.text(max_size=20) | st.lists(
    st.sampled_from(["a", "\n", "\t", "[red]", "日本", "🙂", "e\u0301", "x" * 300, *HOSTILE]),
    max_size=8,
).map("".join)


def running(count: int, *, waiting: int = 0) -> Board:
    now = board([f"task-{number}" for number in range(count + waiting)])
    for number in range(count):
        task = f"task-{number}"
        for update in (
            TaskStarted(id=task),
            RunStarted(adapter="codex", model="gpt-x", tier="cloud"),
            Usage(input_tokens=12_000, output_tokens=345, cost_usd=0.0123),
            ToolCall(id="a", status="in_progress", title=f"pytest -q {number}"),
        ):
            now = fold(now, at(0, update, task))
    return now


def shown(now: Board, columns: int = 79, lines: int = 20) -> list[str]:
    return [painted(line, colour=False) for line in frame(now, NOW, columns=columns, lines=lines)]


def test_a_lone_task_has_two_lines_without_its_name():
    assert shown(running(1)) == [
        "",
        "codex gpt-x                                        1m03s  12.3k tokens  $0.0123",
        "  pytest -q 0                                                             1m03s",
    ]


def test_many_tasks_have_a_head_with_their_numbers():
    lines = shown(running(2, waiting=1))
    assert lines[1] == (
        "2 running, 1 waiting                               1m03s  24.7k tokens  $0.0246"
    )
    assert lines[2].startswith("task-0  codex gpt-x ")
    assert lines[2].endswith("1m03s  12.3k tokens  $0.0123")
    assert len(lines) == 6


def test_a_narrow_window_has_the_figures_below():
    assert shown(running(1), columns=39) == [
        "",
        "codex gpt-x                       1m03s",
        "  pytest -q 0                     1m03s",
        "  12.3k tokens  $0.0123",
    ]


def test_too_many_for_two_lines_each_have_one_and_the_rest_are_counted():
    lines = shown(running(50, waiting=3), lines=12)
    assert len(lines) == 12
    assert lines[2].startswith("task-0")
    assert "pytest -q 0" in lines[2]
    assert lines[-1] == "and 41 more running"


def test_a_cost_that_is_not_known_is_said_to_be():
    now = fold(running(1), at(1, Usage(input_tokens=1), "task-0"))
    assert "cost unknown" in shown(now)[1]


def test_before_the_first_event_of_a_lone_task_there_is_nothing():
    assert shown(board(["task"])) == []
    assert shown(board(["a", "b"]))[1].startswith("2 waiting")


def lines_of(row: Row, columns: int = 100) -> list[str]:
    return [painted(line, colour=False) for line in ended(row, columns)]


def test_a_finished_task_is_a_line_and_a_number():
    outcome = Outcome(
        status="succeeded",
        verified=True,
        agent="codex",
        model="gpt-x",
        duration_s=63.2,
        usage=Usage(input_tokens=5),
        changes=Changes(files=["a", "b"], insertions=3, deletions=1),
    )
    now = fold(running(2), at(9, TaskFinished(outcome=outcome), "task-0"))
    assert shown(now)[1].startswith("1 running, 1 succeeded")
    assert lines_of(now.rows["task-0"]) == [
        "✓ task-0: succeeded, verified  codex gpt-x  1m03s  5 tokens  cost unknown  2 files +3 -1"
    ]


@pytest.mark.parametrize(
    ("outcome", "lines"),
    [
        (
            Outcome(status="failed", error=Failure(kind="unknown", text="bad\nluck")),
            ["✗ t: failed", "    bad"],
        ),
        (Outcome(status="succeeded", verified=False), ["✗ t: succeeded, the check failed"]),
        (Outcome(status="skipped"), ["- t: skipped"]),
        (None, []),
    ],
)
def test_a_task_that_did_not_succeed_says_why(outcome, lines):
    assert lines_of(Row(id="t", outcome=outcome)) == lines


@pytest.mark.parametrize(
    ("environ", "terminal", "there_is"),
    [
        ({"TERM": "xterm"}, True, True),
        ({"TERM": "xterm"}, False, False),
        ({"TERM": "dumb"}, True, False),
        ({}, True, False),
        ({"TERM": "xterm", "NO_COLOR": "1"}, True, False),
        ({"TERM": "xterm", "NO_COLOR": ""}, True, True),
        ({"TERM": "xterm", "CI": "true"}, True, False),
    ],
)
def test_colour_and_motion_only_where_a_person_looks(environ, terminal, there_is):
    assert lively(environ, terminal=terminal) is there_is


# --- on a terminal --------------------------------------------------------------------------------


class Window:
    """A terminal's window with a prompt above, as a user has it."""

    def __init__(self, columns: int, lines: int) -> None:
        self.screen = pyte.HistoryScreen(columns, lines, history=1_000)
        self.stream = pyte.Stream(self.screen)
        self.written: list[str] = []
        self.write("$ orchestrate run\r\n")

    def write(self, text: str) -> None:
        self.written.append(text)
        self.stream.feed(text)

    def lines(self) -> list[str]:
        """What is on screen and what scrolled away above it."""
        above = [
            "".join(row[x].data for x in range(self.screen.columns))
            for row in self.screen.history.top
        ]
        return [line.rstrip() for line in (*above, *self.screen.display)]

    def resize(self, columns: int, lines: int) -> None:
        self.screen.resize(lines, columns)


def hidden(window: Window) -> bool:
    return window.screen.cursor.hidden


def draw(live: Live, now: Board, above: list[str], columns: int, lines: int) -> list[str]:
    made = [
        painted(line, colour=True)
        for line in frame(now, NOW, columns=columns - 1, lines=max(lines - 2, 0))
    ]
    live.draw(made, above, (columns, lines))
    return [
        painted(line, colour=False)
        for line in frame(now, NOW, columns=columns - 1, lines=max(lines - 2, 0))
    ]


def test_a_frame_is_drawn_over_the_one_before_and_what_stays_scrolls_above():
    window = Window(80, 10)
    live = Live(window.write)
    expected: list[str] = []
    for number in range(30):
        expected = draw(live, running(number % 3 + 1), [f"line {number}"], 80, 10)
    lines = window.lines()
    stays = [f"line {number}" for number in range(30)]
    assert [line for line in lines if line.startswith("line")] == stays
    assert lines[lines.index("line 29") + 1 :][: len(expected)] == expected
    assert not any(lines[lines.index("line 29") + 1 + len(expected) :])


def test_a_line_that_the_terminal_finds_wider_than_we_do_moves_no_other():
    window = Window(20, 10)
    live = Live(window.write)
    for _ in range(2):
        live.draw(["x" * 50, "second"], [], (20, 10))
    assert window.screen.display[1].startswith("xxx")
    assert window.screen.display[2].rstrip() == "second"
    assert window.screen.cursor.y == 1


def test_a_window_made_narrower_finds_the_whole_frame_from_where_the_cursor_rests():
    window = Window(80, 10)
    live = Live(window.write)
    live.draw(["a" * 79, "b" * 79], [], (80, 10))
    # What a terminal does that wraps anew: each line becomes two, the cursor stays where it was.
    window.screen.erase_in_display(2)
    window.resize(40, 10)
    window.stream.feed(f"\x1b[2;1H{'a' * 40}\r\n{'a' * 39}\r\n{'b' * 40}\r\n{'b' * 39}\x1b[2;1H")
    live.draw(["c", "d"], [], (40, 10))
    assert [line.rstrip() for line in window.screen.display if line.strip()] == ["c", "d"]


def test_nothing_is_written_when_nothing_is_new():
    window = Window(80, 10)
    live = Live(window.write)
    assert live.draw(["a"], [], (80, 10))
    count = len(window.written)
    assert not live.draw(["a"], [], (80, 10))
    assert len(window.written) == count


def test_closing_leaves_what_stays_and_a_cursor_that_is_seen():
    window = Window(80, 10)
    live = Live(window.write)
    draw(live, running(2), ["one"], 80, 10)
    assert hidden(window)
    live.close(["two"])
    assert not hidden(window)
    assert [line for line in window.lines() if line] == ["$ orchestrate run", "one", "two"]
    assert (window.screen.cursor.x, window.screen.cursor.y) == (0, 3)
    assert pyte.modes.DECAWM in window.screen.mode


def test_closing_what_was_never_drawn_writes_nothing():
    window = Window(80, 10)
    Live(window.write).close()
    assert len(window.written) == 1
    assert HIDE not in "".join(window.written)
    assert SHOW not in "".join(window.written)


SIZES = st.tuples(st.integers(8, 120), st.integers(2, 30))


@settings(max_examples=examples(60))
@given(st.lists(st.tuples(SIZES, st.lists(strategies.events(NASTY), max_size=4)), max_size=5))
def test_whatever_agents_say_and_however_the_window_changes_the_frame_is_whole(steps):
    window = Window(80, 24)
    live = Live(window.write)
    now = running(2)
    for (columns, lines), events in steps:
        window.resize(columns, lines)
        for event in events:
            now = fold(now, event)
        expected = draw(live, now, [], columns, lines)
        assert len(expected) <= max(lines - 2, 0)
        assert all(not steers(line) for line in expected)
        row = window.screen.cursor.y
        assert row + len(expected) <= lines
        assert window.screen.cursor.x == 0
        # Below the cursor stands the frame and nothing else. What pyte and we find wide may differ,
        # so only a plain line is compared in full; none may have pushed another.
        below = [line.rstrip() for line in window.screen.display[row:]]
        for found, line in zip(below, expected, strict=False):
            if line.isascii():
                assert found == line.rstrip()
        assert not any(below[len(expected) :])


@settings(max_examples=examples(60))
@given(st.lists(strategies.events(NASTY), max_size=6), st.integers(1, 100), st.integers(0, 40))
def test_a_frame_fits_its_window(events, columns, lines):
    now = running(3)
    for event in events:
        now = fold(now, event)
    made = frame(now, NOW, columns=columns, lines=lines)
    assert len(made) <= lines
    assert all(length(line) <= columns for line in made)
    for row in now.rows.values():
        for line in ended(row, columns):
            assert length(line) <= columns
            assert steers(painted(line, colour=False)) == []
            assert "\n" not in painted(line, colour=False)


@given(st.lists(NASTY, max_size=4), st.integers(0, 40))
def test_a_cut_line_fits(texts, width):
    line = cut([Span(text, "bold") for text in texts], width)
    assert length(line) <= width
    assert steers(painted(line, colour=False)) == []


def test_many_frames_keep_every_line_in_order():
    window = Window(40, 8)
    live = Live(window.write)
    for number in range(100):
        draw(live, running(number % 9 + 1), [f"n{number}"] * (number % 3), 40, 8)
    numbers = [int(line[1:]) for line in window.lines() if line.startswith("n")]
    assert all(a <= b for a, b in pairwise(numbers))
    assert len(numbers) == sum(number % 3 for number in range(100))


def test_a_job_that_ends_leaves_no_running_task_on_the_frame():
    now = running(1)
    now = fold(now, at(1, RunFinished(outcome=Outcome(status="failed")), "task-0"))
    now = fold(now, at(2, TaskFinished(outcome=Outcome(status="failed")), "task-0"))
    assert shown(now) == []


def test_a_task_that_used_nothing_yet_has_its_time_alone():
    now = fold(board(["fix"]), at(0, RunStarted(adapter="codex", model="gpt-x"), "fix"))
    assert shown(now)[1].rstrip().endswith("1m03s")
