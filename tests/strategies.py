"""Hypothesis strategies for every update, outcome and event, built from their declared types."""

from typing import Literal, get_args, get_origin, get_type_hints

from hypothesis import strategies as st

from orchestrator.events import Event, Raw, Update

KINDS: tuple[type, ...] = get_args(Update)

# Text that JSON can hold: no lone surrogates. Whole numbers that every reader of JSON has exactly.
TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=30)
WHOLE = st.integers(-(2**53), 2**53)
REAL = st.floats(allow_nan=False, allow_infinity=False)
JSON = st.recursive(
    st.none() | st.booleans() | WHOLE | REAL | TEXT,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3),
    max_leaves=6,
)


def whole(kind: type, text: st.SearchStrategy[str] = TEXT) -> st.SearchStrategy:
    """Instances of a dataclass with a value of its declared type in every field."""
    hints = get_type_hints(kind)
    return st.builds(kind, **{name: _anything(hint, text) for name, hint in hints.items()})


def _anything(hint: object, text: st.SearchStrategy[str]) -> st.SearchStrategy:
    plain: dict[object, st.SearchStrategy] = {
        str: text,
        int: WHOLE,
        float: REAL,
        bool: st.booleans(),
        type(None): st.none(),
        object: JSON,
    }
    match hint, get_origin(hint), get_args(hint):
        case (kind, None, ()) if kind in plain:
            return plain[kind]
        case type() as kind, None, ():
            return whole(kind, text)
        case _, origin, words if origin is Literal:
            return st.sampled_from(words)
        case _, origin, (inner,) if origin is list:
            return st.lists(_anything(inner, text), max_size=3)
        case _, origin, (key, inner) if origin is dict:
            return st.dictionaries(_anything(key, text), _anything(inner, text), max_size=2)
        case _, _, members:
            return st.one_of([_anything(member, text) for member in members])


def events(text: st.SearchStrategy[str] = TEXT) -> st.SearchStrategy[Event]:
    """Any event with any update."""
    return st.builds(
        Event,
        seq=st.integers(1, 2**53),
        time=st.datetimes().map(lambda time: f"{time.isoformat(timespec='microseconds')}Z"),
        job_id=st.none() | text,
        run_id=st.none() | text,
        task_id=st.none() | text,
        parent_run_id=st.none() | text,
        agent=st.none() | text,
        source=st.sampled_from(["agent", "supervisor"]),
        update=st.one_of([whole(kind, text) for kind in KINDS]),
        raw=st.none() | st.builds(Raw, stream=text, offset=WHOLE, length=WHOLE),
    )
