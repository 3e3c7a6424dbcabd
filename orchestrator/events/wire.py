"""Events as they are written and read: one flat JSON object a line, of envelope, payload and `raw`;
and the JSON Schema of that. Pure.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import cache
from typing import TYPE_CHECKING, Annotated, get_args

import orjson

from orchestrator.errors import JournalError, first_problem
from orchestrator.events import SCHEMA_VERSION, Event, Place, Raw, Source, Update

if TYPE_CHECKING:
    from pydantic import TypeAdapter

_SAID_BY: Mapping[Source, bytes] = {
    source: b'","source":"%b",' % source.encode() for source in get_args(Source)
}


def prefix(
    *,
    job_id: str | None,
    run_id: str | None,
    task_id: str | None,
    parent_run_id: str | None,
    agent: str | None,
) -> bytes:
    """The part of the envelope that is the same for all events of a run, prepared once."""
    head = {
        "v": SCHEMA_VERSION,
        "job_id": job_id,
        "run_id": run_id,
        "task_id": task_id,
        "parent_run_id": parent_run_id,
        "agent": agent,
    }
    return orjson.dumps(head)[:-1]


def encode(event: Event, head: bytes | None = None) -> bytes:
    r"""The wire form: one flat JSON object, without `\n`. `head` is `prefix(...)` of the event's
    run.

    Raises TypeError (from orjson) if the update holds what JSON cannot: adapters keep such lines
    raw.
    """
    if head is None:
        head = prefix(
            job_id=event.job_id,
            run_id=event.run_id,
            task_id=event.task_id,
            parent_run_id=event.parent_run_id,
            agent=event.agent,
        )
    return encoded([(event.update, event.source, event.raw)], head, event.seq, event.time)[:-1]


def encoded(
    said: Iterable[tuple[Update, Source, Place | None]], head: bytes, first: int, time: str
) -> bytes:
    r"""The wire form of updates of one moment, each with its source and place, numbered from
    `first` on, and each with a `\n` at its end. Raises TypeError.
    """
    dumps, join = orjson.dumps, b"".join
    begin = head + b',"seq":'
    stamp = b',"time":"' + time.encode()
    lines: list[bytes] = []
    before: Update | None = None
    body = b""
    for seq, (update, source, place) in enumerate(said, first):
        if update is not before:  # a silence is said again and again, as the same
            before, body = update, dumps(update)[1:-1]
        # A third of the time that a format takes, and half of it is the update's own.
        lines.append(
            join(
                (
                    begin,
                    dumps(seq),
                    stamp,
                    _SAID_BY[source],
                    body,
                    b',"raw":',
                    dumps(place, tuple),
                    b"}\n",
                )
            )
        )
    return join(lines)


@cache
def _reader() -> TypeAdapter[Update]:
    # pydantic is needed only to read; building and writing events stays free of it.
    from pydantic import Discriminator, TypeAdapter

    return TypeAdapter(Annotated[Update, Discriminator("type")])


def decode(line: bytes) -> Event:
    """The event of one line of a journal or stream. Fields that we do not know are ignored.

    Raises JournalError if it is not an event of this schema version.
    """
    from pydantic import ValidationError

    try:
        match orjson.loads(line):
            case {"v": int(version)} if version > SCHEMA_VERSION:
                text = f"event has schema version {version}, this program reads {SCHEMA_VERSION}"
                raise JournalError(text, hint="Use a newer version of orchestrate.")
            case {
                "v": int(),
                "seq": int(seq),
                "time": str(time),
                "source": "agent" | "supervisor" as source,
                "type": str(),
            } as object_:
                return Event(
                    seq=seq,
                    time=time,
                    job_id=_text(object_.get("job_id")),
                    run_id=_text(object_.get("run_id")),
                    task_id=_text(object_.get("task_id")),
                    parent_run_id=_text(object_.get("parent_run_id")),
                    agent=_text(object_.get("agent")),
                    source=source,
                    update=_reader().validate_python(object_),
                    raw=_raw(object_.get("raw")),
                )
            case _:
                raise JournalError(f"not an event: {line[:80]!r}")
    except orjson.JSONDecodeError as error:
        raise JournalError(f"not an event: {line[:80]!r}: {error}") from error
    except ValidationError as error:
        raise JournalError(f"not an event: {line[:80]!r}: {first_problem(error)}") from error


def _text(value: object) -> str | None:
    return value if isinstance(value, str) else None


def _raw(value: object) -> Raw | None:
    match value:
        case [str(stream), int(offset), int(length)]:
            return Raw(stream=stream, offset=offset, length=length)
        case _:
            return None


def schema() -> dict[str, object]:
    """JSON Schema of an event on the wire: the envelope, and one of the updates beside it."""
    text_or_null = {"type": ["string", "null"]}
    envelope: dict[str, object] = {
        "v": {"const": SCHEMA_VERSION},
        "seq": {"type": "integer", "minimum": 1},
        "time": {"type": "string", "format": "date-time"},
        "job_id": text_or_null,
        "run_id": text_or_null,
        "task_id": text_or_null,
        "parent_run_id": text_or_null,
        "agent": text_or_null,
        "source": {"enum": ["agent", "supervisor"]},
        "type": {"type": "string"},
        "raw": {
            "description": "stream, offset and length of the line in the run's spool file",
            "anyOf": [
                {"type": "null"},
                {
                    "type": "array",
                    "prefixItems": [{"type": "string"}, {"type": "integer"}, {"type": "integer"}],
                    "minItems": 3,
                    "maxItems": 3,
                },
            ],
        },
    }
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "Event",
        "type": "object",
        "properties": envelope,
        "required": list(envelope),
        **_reader().json_schema(),
    }
