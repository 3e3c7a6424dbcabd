"""What every parser needs: JSON on a line, lines kept as they are, deltas, kinds of errors."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import get_args

import orjson
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.adapter import (
    TEXT_LIMIT,
    About,
    Agent,
    Command,
    Conversation,
    Exit,
    Install,
    OneShot,
    Program,
    Send,
    about_of,
    exact,
    json_line,
    read_line,
    unparsed,
    usage_since,
)
from orchestrator.events import (
    ErrorKind,
    Event,
    Notice,
    Output,
    Permission,
    ToolCall,
    Unparsed,
    Usage,
)
from orchestrator.events.wire import decode, encode
from orchestrator.model_errors import error_kind
from orchestrator.task import Task
from orchestrator.usage import add
from tests.scripted_adapter import Scripted


def nested(depth: int) -> bytes:
    """An object of that many levels."""
    return b'{"a":' * depth + b"1" + b"}" * depth


# --- a line of JSON -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "line",
    [
        b'{"a":1}',
        b'  {"a":1}\r',
        b'\0\0{"a":1}\0',
        b'\xef\xbb\xbf{"a":1}',
        b'\xef\xbb\xbf {"a": 1} ',
        b'\0\xef\xbb\xbf\0{"a":1}',
    ],
)
def test_blanks_nul_and_a_byte_order_mark_around_an_object_are_forgiven(line):
    assert json_line(line) == {"a": 1}


@pytest.mark.parametrize(
    "line",
    [
        b"",
        b"   ",
        b"\xef\xbb\xbf",
        b"plain text",
        b"[1]",
        b'"{}"',
        b"1",
        b"null",
        b'{"a":',
        b'{"a":1} trailing',
        b'{"a":1}{"b":2}',
        b'{"a":NaN}',
        b'{"a":1e400}',
        b'{"a":"\xff"}',
        b'{"a":"\\ud800"}',
        b"{'a': 1}",
        b"{a: 1}",
        nested(2000),
        nested(255),
    ],
    ids=lambda line: repr(line[:20]),
)
def test_what_is_not_one_json_object_is_none(line):
    assert json_line(line) is None


@pytest.mark.parametrize("depth", [1, 100, 199, 200, 201, 250, 252, 253, 254, 300])
def test_whatever_is_read_can_be_written_inside_an_update(depth):
    value = json_line(nested(depth))
    if value is not None:
        update = ToolCall(id="x", input={"whole": value})
        event = Event(seq=1, time="t", run_id=None, task_id=None, agent=None, source="agent",
                      update=update)  # fmt: skip
        assert decode(encode(event)).update == update
    assert (value is not None) == (depth <= 252)


def test_many_brackets_that_are_not_deep_are_read():
    line = b'{"a":"' + b"[{" * 500 + b'","b":[' + b"[]," * 400 + b"[]]}"
    assert json_line(line) == orjson.loads(line)


@given(st.binary() | st.binary().map(lambda inner: b"{" + inner + b"}"))
def test_any_bytes_are_an_object_that_can_be_written_or_none(line):
    value = json_line(line)
    assert value is None or isinstance(orjson.loads(orjson.dumps(value)), dict)


# --- a line that nobody knows ---------------------------------------------------------------------


@given(st.binary())
def test_no_line_is_dropped_and_each_can_be_written(line):
    update = unparsed(line)
    assert isinstance(update, Output | Unparsed)
    assert update.stream == "stdout"
    assert update.text == line.decode("utf-8", "backslashreplace")
    assert orjson.dumps(update)


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        (b'{"new": 1}', "no rule of the adapter matches"),
        (b'\0 {"new": 1}', "no rule of the adapter matches"),
        (b"\xef\xbb\xbf{broken", "it cannot be read as a JSON object"),
        (b'{"a": NaN}', "it cannot be read as a JSON object"),
        (b'{"a":' * 5000 + b"1" + b"}" * 5000, "it cannot be read as a JSON object"),
        (b'{"a": 99999999999999999999}', "too large a number"),
        (b'{"a":' * 300 + b"1" + b"}" * 300, "nested too deeply"),
    ],
)
def test_what_looks_like_json_is_unparsed_with_the_reason(line, reason):
    update = unparsed(line)
    assert isinstance(update, Unparsed)
    assert (update.stream, update.text) == ("stdout", line.decode())
    assert reason in update.reason
    assert unparsed(line, "cut") == Unparsed(stream="stdout", text=line.decode(), reason="cut")


@pytest.mark.parametrize("line", [b"", b"hello", b"[1]", b"WARN {x}"])
def test_plain_text_is_output(line):
    assert unparsed(line) == Output(stream="stdout", text=line.decode())


def test_bytes_that_are_no_text_are_shown_as_such():
    assert unparsed(b"a\xff\xfeb") == Output(stream="stdout", text=r"a\xff\xfeb")


def test_a_long_line_is_cut_in_the_event():
    update = unparsed(b"x" * (TEXT_LIMIT + 1))
    assert isinstance(update, Output)
    assert len(update.text) == TEXT_LIMIT


# --- deltas ---------------------------------------------------------------------------------------

COUNT = st.none() | st.integers(0, 10**9)
TOKENS = ("input_tokens", "output_tokens", "cache_read_tokens", "cache_write_tokens",
          "reasoning_tokens")  # fmt: skip
USAGES = st.builds(
    Usage, **dict.fromkeys(TOKENS, COUNT), cost_usd=st.none() | st.integers(0, 99).map(float)
)


@given(USAGES, USAGES)
def test_a_delta_is_unknown_where_the_count_is_and_never_below_zero(now, before):
    delta = usage_since(now, before)
    for name in (*TOKENS, "cost_usd"):
        stated = getattr(now, name)
        if stated is None:
            assert getattr(delta, name) is None
        else:
            assert getattr(delta, name) == max(0, stated - (getattr(before, name) or 0))


@given(USAGES, USAGES)
def test_the_deltas_add_up_to_what_was_counted(first, more):
    counted = add(first, more)
    assert counted is not None
    again = add(first, usage_since(counted, first))
    assert again is not None
    for name in TOKENS:
        assert getattr(again, name) == getattr(counted, name)


@given(USAGES)
def test_without_a_count_before_all_is_new(now):
    assert usage_since(now, None) == now


def test_a_delta_keeps_source_and_scope():
    now = Usage(input_tokens=5, cost_usd=2.0, cost_source="agent", scope="turn")
    assert usage_since(now, Usage(input_tokens=3, cost_usd=0.5)) == Usage(
        input_tokens=2, cost_usd=1.5, cost_source="agent", scope="turn"
    )


# --- kinds of errors ------------------------------------------------------------------------------

WORDINGS: Mapping[ErrorKind, list[str]] = yaml.safe_load(
    Path(__file__).with_name("wordings.yaml").read_text("utf-8")
)


@pytest.mark.parametrize(
    ("kind", "text"), [(kind, text) for kind, texts in WORDINGS.items() for text in texts]
)
def test_providers_words_tell_the_kind_of_error(kind, text):
    assert error_kind(text) == kind


@pytest.mark.parametrize("text", WORDINGS["context_overflow"] + WORDINGS["unavailable"])
def test_words_decide_before_the_status(text):
    assert error_kind(text, 400) == error_kind(text, 500) == error_kind(text)


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (400, "invalid_request"),
        (401, "auth_failed"),
        (402, "rate_limited"),
        (403, "auth_failed"),
        (404, "model_not_found"),
        (408, "timed_out"),
        (413, "context_overflow"),
        (418, "invalid_request"),
        (422, "invalid_request"),
        (429, "rate_limited"),
        (500, "server_error"),
        (503, "server_error"),
        (529, "server_error"),
    ],
)
def test_without_known_words_the_status_decides(status, kind):
    assert error_kind("it went wrong", status) == kind
    assert error_kind(f"it went wrong: status {status}") == kind
    assert error_kind(f"Error code: {status} - it went wrong") == kind


def test_a_stated_status_counts_before_one_that_the_text_names():
    assert error_kind("status 500", 404) == "model_not_found"


@given(st.text(), st.none() | st.integers(0, 999))
def test_every_text_has_a_kind(text, status):
    assert error_kind(text, status) in get_args(ErrorKind)


# --- the ready-made conversation ------------------------------------------------------------------


def test_a_one_shot_says_nothing_by_itself():
    conversation = OneShot(parse=lambda line: [unparsed(line)])
    assert list(conversation.start()) == []
    assert list(conversation.interrupt()) == []
    assert list(conversation.decide(Permission(id="p", status="requested"))) == []
    assert list(conversation.close(Exit(status=0))) == []


def test_a_one_shot_parses_its_lines_and_its_exit():
    conversation = OneShot(
        parse=lambda line: [Send(data=line), unparsed(line)],
        ended=lambda end: [Notice(text=f"{end.status} {end.stderr}")],
    )
    assert list(conversation.feed(b"x")) == [
        Send(data=b"x"),
        Output(stream="stdout", text="x"),
    ]
    assert list(conversation.close(Exit(status=3, stderr="why"))) == [Notice(text="3 why")]


class OneCli:
    about = About(name="one", title="One", program=Program(name="one"))

    def command(self, task: Task, agent: Agent) -> Command:
        return Command(argv=("one",), cwd="/")

    def conversation(self, task: Task, agent: Agent, before: Usage | None) -> Conversation:
        return OneShot(parse=lambda line: [unparsed(line)])


class AnyCli(OneCli):
    def about_for(self, agent: Agent) -> About:
        return replace(self.about, title=f"for {agent.name}")


def test_what_a_cli_is_may_depend_on_the_agent():
    agent = Agent(name="a", adapter="x")
    assert about_of(OneCli(), agent).title == "One"
    assert about_of(AnyCli(), agent).title == "for a"


def test_values_that_cross_the_waist_share_nothing_that_can_change():
    one, other = Agent(name="a", adapter="x"), Agent(name="a", adapter="x")
    assert one == other
    command = Command(argv=("x",), cwd="/")
    for mapping in (one.options, command.env, command.env_from, command.files):
        with pytest.raises(TypeError):
            mapping["new"] = "value"  # type: ignore[index]


def test_what_can_be_installed_by_us_says_so_and_the_rest_what_its_adapter_says():
    install = Install(kind="pip", lock="/lock", megabytes=1, minutes=1)
    about = About(name="x", title="X", program=None, install=install)
    assert about.install_hint == "orchestrate agents install x"
    assert About(name="x", title="X", program=None, install="get X").install_hint == "get X"


def test_which_cli_an_agent_is_may_depend_on_the_agent():
    class Several(Scripted):
        def about_for(self, agent: Agent) -> About:
            return About(name=self.about.name, title=agent.name, program=None)

    agent = Agent(name="mine", adapter="scripted")
    assert about_of(Scripted(), agent).title == "Scripted"
    assert about_of(Several(), agent).title == "mine"


@pytest.mark.parametrize("digits", ["18446744073709551616", "1" * 40])
def test_a_number_that_would_not_come_back_as_it_was_leaves_the_line_raw(digits):
    assert json_line(b'{"a": [1, {"b": ["x", %s]}]}' % digits.encode()) is None


def test_a_line_may_be_read_without_a_close_look_and_a_part_of_it_looked_at():
    line = b'\xef\xbb\xbf {"a": 18446744073709551616, "b": [1, {"c": "x"}], "d": 1e300}'
    value = read_line(line) or {}
    assert value == {"a": 2.0**64, "b": [1, {"c": "x"}], "d": 1e300}
    assert exact(value["b"], line)
    assert not exact(value["a"], line)
    assert exact(1e300, b'{"d": 1e300}')
    assert read_line(b"{1}") is None


def test_many_digits_in_a_text_are_no_number():
    digits = "1" * 40
    line = b'{"a": ["%s", 1.5, null], "b": {"c": true}}' % digits.encode()
    assert json_line(line) == {"a": [digits, 1.5, None], "b": {"c": True}}
