"""The event schema: what is written is read again, and what is not an event is refused by name."""

import dataclasses
import re
from typing import get_args

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator import events
from orchestrator.errors import JournalError, OutcomeError
from orchestrator.events import (
    SCHEMA_VERSION,
    Event,
    Failure,
    Message,
    Notice,
    Outcome,
    Raw,
    RunFinished,
    ToolCall,
    Unparsed,
    Update,
    Usage,
    wire,
)
from orchestrator.events.redaction import redacted
from orchestrator.events.wire import decode, encode, prefix, schema
from tests import strategies
from tests.schema import problems
from tests.strategies import JSON, KINDS

ENVELOPE = {
    "v", "seq", "time", "job_id", "run_id", "task_id", "parent_run_id", "agent", "source", "raw",
}  # fmt: skip
SCHEMA = schema()

EVENTS = strategies.events()


def event(update: Update, **envelope) -> Event:
    stamped = Event(
        seq=1,
        time="2026-01-02T03:04:05.000006Z",
        run_id="r",
        task_id="t",
        agent="a",
        source="agent",
        update=update,
    )
    return dataclasses.replace(stamped, **envelope)


def line(**fields) -> bytes:
    """An event's line with some fields changed; None takes a field away."""
    value = {**orjson.loads(encode(event(Notice(text="hello")))), **fields}
    return orjson.dumps({name: each for name, each in value.items() if each is not None})


# --- there and back -------------------------------------------------------------------------------


@given(EVENTS)
def test_what_is_written_is_read_again(one):
    assert decode(encode(one)) == one


@given(EVENTS)
def test_an_event_is_one_flat_object_on_one_line(one):
    wire = encode(one)
    assert b"\n" not in wire
    value = orjson.loads(wire)
    own = {field.name for field in dataclasses.fields(one.update)}
    assert value.keys() == ENVELOPE | own
    assert value["v"] == SCHEMA_VERSION
    assert (value["seq"], value["time"], value["type"]) == (one.seq, one.time, one.type)


@given(EVENTS)
def test_every_event_fits_the_published_schema(one):
    assert problems(orjson.loads(encode(one)), SCHEMA) == []


@given(EVENTS)
def test_a_prepared_prefix_changes_nothing(one):
    head = prefix(
        job_id=one.job_id,
        run_id=one.run_id,
        task_id=one.task_id,
        parent_run_id=one.parent_run_id,
        agent=one.agent,
    )
    assert encode(one, head) == encode(one)


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
def test_no_update_has_a_field_of_the_envelope(kind):
    assert ENVELOPE.isdisjoint(field.name for field in dataclasses.fields(kind))


def test_every_type_of_update_has_one_name():
    names = [kind.type for kind in KINDS]  # type: ignore[attr-defined]
    assert len(set(names)) == len(names) == len(SCHEMA["oneOf"])  # type: ignore[arg-type]
    assert all(name == name.lower() for name in names)


def test_an_input_that_json_cannot_hold_is_a_type_error():
    with pytest.raises(TypeError):
        encode(event(ToolCall(id="x", input=object())))


def test_text_of_a_model_stays_as_it_is_on_the_wire():
    text = "\x1b[31m\u2028\u0085\0\r\n \u202e\U000e0041"
    wire = encode(event(Message(text=text)))
    assert wire.count(b"\n") == 0
    assert decode(wire).update == Message(text=text)


# --- the schema -----------------------------------------------------------------------------------


def test_usage_inside_an_outcome_needs_no_envelope():
    outcome = Outcome(status="succeeded", usage=Usage(input_tokens=1))
    assert problems(orjson.loads(encode(event(RunFinished(outcome=outcome)))), SCHEMA) == []


@pytest.mark.parametrize(
    "change",
    [
        {"seq": 0},
        {"seq": "1"},
        {"v": 2},
        {"source": "model"},
        {"type": "gossip"},
        {"text": 1},
        {"text": None},
        {"time": None},
        {"raw": ["stdout", 0]},
        {"raw": ["stdout", "0", 1]},
    ],
    ids=repr,
)
def test_the_schema_refuses_what_is_not_an_event(change):
    assert problems(orjson.loads(line(**change)), SCHEMA)


# --- secrets --------------------------------------------------------------------------------------

SECRET = "sk-geheim"
FINDS = re.compile(SECRET)
LEAKY = st.sampled_from(["", "x", SECRET, f"key {SECRET}, and {SECRET}\n", "sk-", "ge\nheim"])


@given(strategies.events(LEAKY))
def test_a_secret_is_taken_out_of_every_free_text(one):
    before = encode(one)
    clean = redacted(one.update, FINDS)
    assert encode(one) == before
    assert SECRET.encode() not in orjson.dumps(clean)
    assert type(clean) is type(one.update)
    assert orjson.dumps(clean) == orjson.dumps(one.update).replace(SECRET.encode(), b"[redacted]")


@given(EVENTS)
def test_an_update_without_a_secret_is_as_it_was(one):
    assert redacted(one.update, FINDS) == one.update


def test_a_secret_is_found_in_the_input_of_a_tool_at_any_depth():
    call = ToolCall(id="a", input={SECRET: [{"x": SECRET}, 1, None, 2.5, True]})
    assert redacted(call, FINDS) == ToolCall(
        id="a", input={"[redacted]": [{"x": "[redacted]"}, 1, None, 2.5, True]}
    )


@given(EVENTS, st.sampled_from([r"[a-z_.]+", "usage", "agent", "completed", "local", "assistant"]))
def test_a_secret_that_is_a_word_of_ours_spoils_no_event(one, pattern):
    clean = dataclasses.replace(one, update=redacted(one.update, re.compile(pattern)))
    assert decode(encode(clean)) == clean
    assert clean.type == one.type


# --- reading --------------------------------------------------------------------------------------


def test_fields_of_a_later_version_are_ignored():
    assert decode(line(mood="good", raw=["stdout", 0, 5])).update == Notice(text="hello")


def test_a_newer_schema_is_refused_with_what_to_do():
    with pytest.raises(JournalError, match="version 2, this program reads 1") as caught:
        decode(line(v=SCHEMA_VERSION + 1, type="unheard.of"))
    assert caught.value.hint == "Use a newer version of orchestrate."


@pytest.mark.parametrize(
    ("wire", "why"),
    [
        (b"", "not an event: b''"),
        (b"{", "not an event"),
        (b"[]", "not an event"),
        (b'"text"', "not an event"),
        (b"\xff", "not an event"),
        (b"{}", "not an event"),
        (b'{"v": NaN}', "not an event"),
        (line(v=None), "not an event"),
        (line(seq="1"), "not an event"),
        (line(time=None), "not an event"),
        (line(source="model"), "not an event"),
        (line(type="gossip"), "gossip"),
        (line(text=None), "notice.text: Field required"),
        (line(text=["\x1b[2J"]), "notice.text: Input should be a valid string"),
    ],
)
def test_what_is_not_an_event_is_refused_on_one_line(wire, why):
    with pytest.raises(JournalError) as caught:
        decode(wire)
    text = str(caught.value)
    assert why in text
    assert "not an event" in text
    assert len(text.splitlines()) == 1
    assert text.isprintable()


@pytest.mark.parametrize("raw", [None, [], ["stdout", 0], ["stdout", "0", 1], {"a": 1}, "x"])
def test_a_place_that_cannot_be_read_is_no_place(raw):
    assert decode(line(raw=raw)).raw is None


@pytest.mark.parametrize("name", ["run_id", "task_id", "parent_run_id", "agent"])
def test_an_envelope_that_names_no_text_names_nothing(name):
    assert getattr(decode(line(**{name: 7})), name) is None


@given(st.binary() | JSON.map(orjson.dumps) | st.dictionaries(
    st.sampled_from(["v", "seq", "time", "source", "type", "text", "raw", "run_id"]),
    st.sampled_from([1, "agent", "notice", "message", None, [], "2026-01-01T00:00:00Z"]),
).map(orjson.dumps))  # fmt: skip
def test_reading_anything_gives_an_event_or_a_journal_error(wire):
    try:
        one = decode(wire)
    except JournalError:
        return
    assert decode(encode(one)) == one


# --- outcomes -------------------------------------------------------------------------------------


@pytest.mark.parametrize("verified", [True, None])
def test_a_success_that_no_check_denies_is_ok(verified):
    outcome = Outcome(status="succeeded", verified=verified)
    assert outcome.ok
    outcome.check()


@pytest.mark.parametrize(
    "status", [each for each in get_args(events.Status) if each != "succeeded"]
)
def test_every_other_status_raises_for_those_who_ask(status):
    failure = Failure(kind="unknown", text="why", hint="what next")
    with pytest.raises(OutcomeError, match=f"{status}: why") as caught:
        Outcome(status=status, error=failure).check()
    assert (caught.value.status, caught.value.hint) == (status, "what next")


def test_an_outcome_without_a_cause_still_raises():
    with pytest.raises(OutcomeError, match="stalled") as caught:
        Outcome(status="stalled").check()
    assert caught.value.hint is None


def test_a_success_whose_check_failed_is_not_ok():
    outcome = Outcome(status="succeeded", verified=False)
    assert not outcome.ok
    with pytest.raises(OutcomeError):
        outcome.check()


def test_updates_are_equal_by_kind_and_by_what_they_say():
    assert Message(text="a") == Message(text="a")
    assert Message(text="a") != Message(text="b")
    assert Message(text="a") != events.Thought(text="a")
    assert Usage(input_tokens=0) != Usage()


def test_an_update_shows_what_it_states():
    assert repr(Usage(input_tokens=0)) == "Usage(type='usage', input_tokens=0, scope='call')"


def test_two_outcomes_share_no_evidence():
    one, other = Outcome(status="failed"), Outcome(status="failed")
    one.evidence.append("seen")
    assert other.evidence == []


def test_an_unknown_cost_is_null_on_the_wire_and_zero_is_zero():
    unknown = orjson.loads(encode(event(Usage(input_tokens=0))))
    assert (unknown["cost_usd"], unknown["input_tokens"]) == (None, 0)
    assert decode(encode(event(Usage(cost_usd=0.0)))).update == Usage(cost_usd=0.0)


def test_a_line_nobody_knows_keeps_its_text():
    update = Unparsed(stream="stdout", text='{"new": 1}', reason="no rule")
    assert decode(encode(event(update, raw=Raw(stream="stdout", offset=3, length=11)))).raw == Raw(
        stream="stdout", offset=3, length=11
    )


def test_a_secret_is_taken_out_of_every_free_text_and_no_word_of_the_schema():
    secret = re.compile("completed|KEY")
    call = events.ToolCall(
        id="KEY",
        status="completed",
        input={"KEY": ["a KEY", 7, None]},
        locations=[events.Location(path="KEY/x")],
    )
    assert redacted(call, secret) == events.ToolCall(
        id="[redacted]",
        status="completed",
        input={"[redacted]": ["a [redacted]", 7, None]},
        locations=[events.Location(path="[redacted]/x")],
    )
    assert call.id == "KEY"


def test_what_is_said_again_as_the_same_stands_there_each_time_with_its_own_place():
    silence, other = events.MessageDelta("", "m:0"), events.MessageDelta("a", "m:0")
    said: list[tuple[Update, events.Source, events.Place | None]] = [
        (update, "agent", ("stdout", at, 1))
        for at, update in enumerate((silence, silence, other, silence))
    ]
    head = prefix(job_id=None, run_id="r", task_id="t", parent_run_id=None, agent="a")
    lines = wire.encoded(said, head, 1, "2026-11-28T00:00:00.000000Z").splitlines()
    told = [decode(line) for line in lines]
    assert [one.update for one in told] == [silence, silence, other, silence]
    assert [one.raw for one in told] == [Raw("stdout", at, 1) for at in range(4)]
    assert [one.seq for one in told] == [1, 2, 3, 4]
