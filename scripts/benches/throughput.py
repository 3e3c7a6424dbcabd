"""Spool to journal on one core, against bare `orjson.loads` over the same lines.

The bar is put on typical lines: a review in a project of ordinary size, whole, as codex and claude
printed it, again and again. It was made to be like other people's sessions. Nine of codex's that
somebody published (553 lines) have 2,894 bytes a line on average, 5,919 where a command ended, 227
where one began, and three of four outputs hold a character beyond ASCII, which takes orjson longer;
here it is 2,861, 7,014, 217 and two of three. Three of claude's with its partial messages, in which
next to nothing is read, have 410 to 670 bytes a line; here it is 808.

Beside it stand thirty steps of work in a tiny project, whose files are a screen long at most, and
the recordings of everyday work in miniature (an edit, a tool that fails, a denial; not the faults
of providers), in the order of the cases' names: sessions that begin anew every few lines, with
hardly a word in them.
"""

import gc
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import TypeVar

import orjson

from orchestrator.adapter import Adapter, Agent, Send
from orchestrator.budget import Counts
from orchestrator.config import Adapters
from orchestrator.events import Event, Place, Source, Update
from orchestrator.events.wire import encoded, prefix
from orchestrator.journal import STDERR, STDOUT, TAILS, Journal, make_folder
from orchestrator.lines import Line, LineSplitter
from orchestrator.outcome import Digest
from orchestrator.run.intake import Intake
from orchestrator.run.recorder import Recorder, translate
from orchestrator.run.spool import QUANTUM, Spool, Tails
from orchestrator.task import Task

Part = TypeVar("Part")
BAR = 0.20
PAIRS = 7
SIZE = 3 * 1024 * 1024
RECORDINGS = Path(__file__).parents[2] / "tests/recordings"
TYPICAL = frozenset({"review_session"})
TINY = frozenset({"working_session"})
MINIATURE = frozenset(
    {
        "answer_only",
        "background_command",
        "denied_by_rule",
        "denied_outside",
        "denied_read_only",
        "failing_tool",
        "full_access",
        "look_around",
        "mcp_call",
        "odd_text",
        "oss_lmstudio",
        "oss_ollama",
        "plan",
        "reasoning",
        "resume",
        "several_tool_calls",
        "structured",
        "subagent",
        "subscription",
        "success_edit",
        "success_shell_edit",
    }
)
SECRET = "sk-not-in-any-line-0123456789"  # noqa: S105 (of nobody)
HEAD: Mapping[str, str | None] = {
    "run_id": "01a1fc5c-0000-7000-8000-000000000000",
    "task_id": "task",
    "parent_run_id": None,
    "agent": "agent",
}


def printed(cli: str, cases: frozenset[str]) -> bytes:
    """What a CLI printed in recordings."""
    files = sorted(RECORDINGS.glob(f"{cli}/*/*.jsonl"))
    return b"".join(file.read_bytes() for file in files if file.stem in cases)


def bench() -> bool:
    """Both CLIs; true if both keep the bar on typical lines."""
    print(f"Python {sys.version.split()[0]}")
    adapters = Adapters()
    kept: list[bool] = []
    for cli in ("codex", "claude"):
        adapter = adapters[cli]
        kept.append(_ratio(cli, adapter, "typical lines", TYPICAL) >= BAR)
        _ratio(cli, adapter, "work in a tiny project", TINY)
        _ratio(cli, adapter, "miniatures", MINIATURE)
    return all(kept)


def _ratio(cli: str, adapter: Adapter, what: str, cases: frozenset[str]) -> float:
    once = printed(cli, cases)
    stream = once * max(1, SIZE // len(once))
    lines = stream.split(b"\n")[:-1]
    pairs = [(_bare(lines), _whole(stream, cli, adapter)) for _ in range(PAIRS + 1)][1:]
    ratio = statistics.median(bare / ours for bare, ours in pairs)
    ours = statistics.median(ours for _, ours in pairs)
    bar = "no bar" if cases is not TYPICAL else f"bar {BAR:g}" + ", MISSED" * (ratio < BAR)
    print(
        f"{cli}, {what}: spool to journal / orjson.loads: ratio {ratio:.3f} ({bar}), "
        f"{len(lines) / ours / 1000:.0f} k lines/s of {len(stream) / len(lines):.0f} bytes",
        flush=True,
    )
    _breakdown(stream, lines, cli, adapter)
    return ratio


def _seconds(work: Callable[[], object]) -> float:
    gc.collect()
    began = time.process_time()
    work()
    return time.process_time() - began


def _bare(lines: list[bytes]) -> float:
    def work() -> None:
        for line in lines:
            orjson.loads(line)

    return _seconds(work)


def _whole(stream: bytes, cli: str, adapter: Adapter) -> float:
    with tempfile.TemporaryDirectory() as place, ExitStack() as stack:
        folder = make_folder(Path(place), "run")
        (folder / STDOUT).write_bytes(stream)
        (folder / STDERR).write_bytes(b"")
        journal = stack.enter_context(Journal(folder))
        recorder = Recorder(
            head=HEAD,
            write=journal.append,
            publish=lambda _: None,
            secret_values=[SECRET],
        )
        intake = Intake(
            adapter.conversation(Task(prompt="p"), Agent(name=cli, adapter=cli), None),
            recorder,
            stdout=stack.enter_context(Spool(folder / STDOUT, STDOUT)),
            stderr=stack.enter_context(Spool(folder / STDERR, STDERR)),
            tails=Tails((), {}, folder / TAILS, stack),
        )

        def work() -> None:
            while intake.pump():
                pass

        return _seconds(work)


def _breakdown(stream: bytes, lines: list[bytes], cli: str, adapter: Adapter) -> None:
    """Where the time goes, in parts of one `orjson.loads`: each step alone, by quanta as in a run,
    and nothing kept.
    """
    bare = _bare(lines)
    quanta = [stream[at : at + QUANTUM] for at in range(0, len(stream), QUANTUM)]
    splitter = LineSplitter()
    batches = [splitter.feed(quantum) for quantum in quanta]
    updates = [
        [one for said in _meant(adapter, cli, [batch]) for one in said if not isinstance(one, Send)]
        for batch in batches
    ]
    steps = {
        "split": lambda: _each(LineSplitter().feed, quanta),
        "orjson.loads": lambda: _each(orjson.loads, lines),
        "what it means, and updates built (the adapter)": lambda: _meant(adapter, cli, batches),
        "wire form (one orjson.dumps an update)": lambda: _each(_encode, updates),
        "what decides the outcome and the budgets": lambda: _each(_fold, updates),
        "events, for those who listen": lambda: _each(_stamp, updates),
    }
    parts = {
        name: statistics.median(_seconds(step) for _ in range(3)) / bare
        for name, step in steps.items()
    }
    read, meant = list(parts)[1:3]
    parts[meant] -= parts[read]
    whole = statistics.median(_whole(stream, cli, adapter) for _ in range(3)) / bare
    parts["redaction, price, journal, files, and what hands it on"] = whole - sum(parts.values())
    for name, part in (*parts.items(), ("all", whole)):
        print(f"    {name}: {part:.2f} x orjson.loads")


def _each(step: Callable[[Part], object], parts: Iterable[Part]) -> None:
    for part in parts:
        step(part)


def _meant(
    adapter: Adapter, cli: str, batches: Iterable[Sequence[Line]]
) -> list[Sequence[Update | Send]]:
    """What the lines of the last batch mean, all others having been read before them."""
    conversation = adapter.conversation(Task(prompt="p"), Agent(name=cli, adapter=cli), None)
    said: list[Sequence[Update | Send]] = []
    for batch in batches:
        said = [translate(conversation, line) for line in batch]
    return said


def _encode(updates: Sequence[Update]) -> None:
    place: Place = (STDOUT, 1_000_000, 100)
    said: list[tuple[Update, Source, Place | None]] = [
        (update, "agent", place) for update in updates
    ]
    encoded(said, prefix(job_id=None, **HEAD), 1, "2026-11-27T20:00:00.000000Z")


def _fold(updates: Sequence[Update]) -> None:
    Digest().add(*updates)
    Counts().add(*updates)


def _stamp(updates: Sequence[Update]) -> None:
    for seq, update in enumerate(updates):
        Event(seq, "now", "run", "task", "agent", "agent", update)


if __name__ == "__main__":
    sys.exit(0 if bench() else 1)
