"""Spool to journal on one core, against bare `orjson.loads` over the same lines.

The bar is put on a working session: some thirty steps of real work in a small repository, whole, as
codex and claude printed them, again and again. Beside it stand the recordings of everyday work in
miniature (an edit, a tool that fails, a denial; not the faults of providers), in the order of the
cases' names: sessions that begin anew every few lines, with hardly a word in them.
"""

import gc
import statistics
import sys
import sysconfig
import tempfile
import time
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from pathlib import Path

import orjson

from orchestrator.adapter import Adapter, Agent, Send, json_line
from orchestrator.budget import Counts
from orchestrator.config import Adapters
from orchestrator.events import Event, Update, encoded, prefix, stamp
from orchestrator.journal import STDERR, STDOUT, TAILS, Journal, make_folder
from orchestrator.lines import Line, LineSplitter
from orchestrator.outcome import Digest
from orchestrator.run.intake import Intake
from orchestrator.run.recorder import Recorder, translate
from orchestrator.run.spool import QUANTUM, Spool, Tails
from orchestrator.task import Task

BAR = 0.20
PAIRS = 7
SIZE = 3 * 1024 * 1024
RECORDINGS = Path(__file__).parents[2] / "tests/recordings"
WORKING = frozenset({"working_session"})
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
    """Both CLIs; true if both keep the bar in a working session."""
    optimized = "--enable-optimizations" in (sysconfig.get_config_var("CONFIG_ARGS") or "")
    how = "with a profile" if optimized else "without a profile: slower by a third, as a rule"
    print(f"Python {sys.version.split()[0]}, built {how}")
    adapters = Adapters()
    kept: list[bool] = []
    for cli in ("codex", "claude"):
        adapter = adapters[cli]
        kept.append(_ratio(cli, adapter, "a working session", WORKING) >= BAR)
        _ratio(cli, adapter, "miniatures", MINIATURE)
    return all(kept)


def _ratio(cli: str, adapter: Adapter, what: str, cases: frozenset[str]) -> float:
    once = printed(cli, cases)
    stream = once * max(1, SIZE // len(once))
    lines = stream.split(b"\n")[:-1]
    pairs = [(_bare(lines), _whole(stream, cli, adapter)) for _ in range(PAIRS + 1)][1:]
    ratio = statistics.median(bare / ours for bare, ours in pairs)
    ours = statistics.median(ours for _, ours in pairs)
    bar = "no bar" if cases is not WORKING else f"bar {BAR:g}" + ", MISSED" * (ratio < BAR)
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
    """Where the time goes, in parts of one `orjson.loads`: each step alone over all lines."""
    bare = _bare(lines)

    def split() -> list[Line]:
        splitter = LineSplitter()
        begins = range(0, len(stream), QUANTUM)
        return [line for at in begins for line in splitter.feed(stream[at : at + QUANTUM])]

    def parse() -> list[Update]:
        conversation = adapter.conversation(Task(prompt="p"), Agent(name=cli, adapter=cli), None)
        said = [one for line in whole for one in translate(conversation, line)]
        return [one for one in said if not isinstance(one, Send)]

    def rebuild() -> None:
        for update in updates:
            type(update)(**vars(update))

    def dump() -> None:
        for update in updates:
            orjson.dumps(update)

    def encode() -> None:
        stamped = stamp("2026-11-27T20:00:00.000000Z", "agent")
        place = (STDOUT, 1_000_000, 100)
        encoded(((update, place, stamped) for update in updates), prefix(job_id=None, **HEAD), 1)

    def fold() -> None:
        digest, counts = Digest(), Counts()
        for update in updates:
            digest.add(update)
            counts.add(update)

    def stamp_() -> None:
        for seq, update in enumerate(updates):
            Event(seq, "now", "run", "task", "agent", "agent", update)

    whole = split()
    updates = parse()
    least = 1 + (_seconds(rebuild) + _seconds(dump)) / bare
    print(
        f"    at the least, orjson.loads and to build and dump {len(updates) / len(lines):.2f} "
        f"updates a line: {least:.2f} x orjson.loads"
    )
    read = _seconds(lambda: [json_line(line) for line in lines])
    steps = {
        "split": _seconds(split),
        "orjson.loads, and is it exact, not deep (json_line)": read,
        "what it means, and updates built (the adapter)": _seconds(parse) - read,
        "wire form (one orjson.dumps an update)": _seconds(encode),
        "what decides the outcome and the budgets": _seconds(fold),
        "events, for those who listen": _seconds(stamp_),
    }
    all_ = _whole(stream, cli, adapter)
    steps["redaction, price, journal, files, and what hands it on"] = all_ - sum(steps.values())
    for name, seconds in (*steps.items(), ("all", all_)):
        print(f"    {name}: {seconds / bare:.2f} x orjson.loads")


if __name__ == "__main__":
    sys.exit(0 if bench() else 1)
