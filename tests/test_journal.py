"""The record of a run: private, whole whatever happens to the disk or the writer, found again."""

import os
import queue
import resource
import signal
import stat
import subprocess
import sys
import tarfile
import threading
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from pathlib import Path

import orjson
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from orchestrator.adapter import Agent
from orchestrator.errors import InputError, JournalError
from orchestrator.events import Event, Message, Notice, Outcome, Usage
from orchestrator.events.wire import encode
from orchestrator.journal import (
    EVENTS,
    OUTCOME,
    STDERR,
    STDOUT,
    TASK,
    Journal,
    Record,
    export_run,
    find_run,
    follow_lines,
    list_runs,
    make_folder,
    read_events,
    read_lines,
    read_outcome,
    read_record,
    running,
    scrub,
    scrubbing,
    write_outcome,
    write_record,
)
from orchestrator.redaction import spellings
from orchestrator.task import KINDS, Limits, Task
from tests import strategies
from tests.strategies import JSON, TEXT

RECORD = Record(
    run_id="01a1fc5c-0001",
    started="2026-01-02T03:04:05Z",
    task=Task(prompt="Fix it.", workspace=Path("/work")),
    agent=Agent(name="codex", adapter="codex"),
)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return make_folder(tmp_path / "runs", "01a1fc5c-0001")


def event(number: int, text: str = "hello") -> bytes:
    return encode(
        Event(
            seq=number,
            time="2026-01-02T03:04:05.000006Z",
            run_id="r",
            task_id="t",
            agent="a",
            source="agent",
            update=Notice(text=text),
        )
    )


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


@contextmanager
def umask(value: int) -> Generator[None]:
    before = os.umask(value)
    try:
        yield
    finally:
        os.umask(before)


@contextmanager
def files_no_larger_than(size: int) -> Generator[None]:
    """No file of this process may grow beyond: what a full disk does, at an exact byte."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


# --- private --------------------------------------------------------------------------------------


@pytest.mark.parametrize("mask", [0o000, 0o022, 0o077])
def test_whatever_the_umask_nobody_else_can_read_a_record(tmp_path, mask):
    with umask(mask):
        folder = make_folder(tmp_path / "state" / "runs", "01a1fc5c")
        with Journal(folder) as written:
            written.append(event(1) + b"\n")
        write_record(folder, RECORD)
        write_outcome(folder, Outcome(status="failed"))
        export_run(folder, tmp_path / "run.tar.gz")
    assert mode(folder) == mode(folder.parent) == 0o700
    files = {path.name: oct(mode(path)) for path in [*folder.iterdir(), tmp_path / "run.tar.gz"]}
    assert files == dict.fromkeys([EVENTS, TASK, OUTCOME, "run.tar.gz"], oct(0o600))


@pytest.mark.parametrize("planted", ["file", "link", "dangling link"])
def test_a_journal_is_never_written_through_what_stands_there_already(folder, tmp_path, planted):
    target = tmp_path / "target"
    match planted:
        case "file":
            (folder / EVENTS).write_text("old")
        case "link":
            target.write_text("old")
            (folder / EVENTS).symlink_to(target)
        case _:
            (folder / EVENTS).symlink_to(target)
    with pytest.raises(JournalError, match="cannot make"):
        Journal(folder)
    assert not target.exists() or target.read_text() == "old"


def test_a_run_has_a_folder_of_its_own(tmp_path):
    make_folder(tmp_path, "one")
    with pytest.raises(JournalError, match=r"cannot make .*/one: File exists") as caught:
        make_folder(tmp_path, "one")
    assert caught.value.hint is not None
    assert "ORCHESTRATE_STATE_DIR" in caught.value.hint


def test_records_cannot_be_kept_below_a_file(tmp_path):
    (tmp_path / "runs").write_text("a file")
    with pytest.raises(JournalError, match="cannot make"):
        make_folder(tmp_path / "runs", "one")


# --- events ---------------------------------------------------------------------------------------


def test_events_are_read_as_they_were_written(folder):
    with Journal(folder) as written:
        written.append(event(1) + b"\n" + event(2) + b"\n")
        written.append(b"")
        written.append(event(3) + b"\n")
        written.sync()
    assert [one.seq for one in read_events(folder)] == [1, 2, 3]
    assert list(read_lines(folder)) == [event(1), event(2), event(3)]


def test_an_event_is_on_the_disk_before_anyone_sees_it(folder):
    with Journal(folder) as written:
        written.append(event(1) + b"\n")
        assert (folder / EVENTS).read_bytes() == event(1) + b"\n"


def test_a_line_that_a_crash_cut_is_left_out(folder):
    (folder / EVENTS).write_bytes(event(1) + b"\n" + event(2)[:20])
    assert [one.seq for one in read_events(folder)] == [1]


def test_a_line_that_is_no_event_is_named_with_its_place(folder):
    (folder / EVENTS).write_bytes(event(1) + b"\n{}\n")
    events = read_events(folder)
    assert next(events).seq == 1
    with pytest.raises(JournalError, match=r"events\.jsonl:2: not an event: b'\{\}'"):
        next(events)


def test_a_journal_of_a_later_version_says_what_to_do(folder):
    (folder / EVENTS).write_bytes(event(1).replace(b'"v":1', b'"v":2') + b"\n")
    with pytest.raises(JournalError, match="schema version 2") as caught:
        list(read_events(folder))
    assert caught.value.hint == "Use a newer version of orchestrate."


@pytest.mark.parametrize("read", [read_lines, read_events, follow_lines, read_record])
def test_a_record_that_is_not_there_is_named(tmp_path, read):
    with pytest.raises(JournalError, match=r"cannot read .*: No such file or directory"):
        list(read(tmp_path / "none"))


# --- a full disk ----------------------------------------------------------------------------------


@pytest.mark.parametrize("room", range(0, 900, 13))
def test_a_full_disk_tears_no_line_at_any_byte(folder, room):
    blocks = [[event(1)], [event(2), event(3, "x" * 100)], [event(4)]]
    kept: list[bytes] = []
    refused: list[JournalError] = []
    with Journal(folder) as written:
        with files_no_larger_than(room):
            for block in blocks:
                try:
                    written.append(b"".join(line + b"\n" for line in block))
                except JournalError as error:
                    refused.append(error)
                else:
                    kept += block
        assert (folder / EVENTS).read_bytes() == b"".join(line + b"\n" for line in kept)
        written.append(event(9) + b"\n")
    assert list(read_lines(folder)) == [*kept, event(9)]
    for refusal in refused:
        assert "cannot write" in str(refusal)
        assert "`ulimit -f`), or set ORCHESTRATE_STATE_DIR" in str(refusal.hint)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    place = tmp_path / "disk"
    place.mkdir()
    argv = ["mount", "-t", "tmpfs", "-o", "size=256k", "tmpfs", str(place)]
    done = subprocess.run(argv, capture_output=True, text=True)
    if done.returncode != 0:
        pytest.skip(f"needs the right to mount: {done.stderr.strip()}")
    try:
        yield place
    finally:
        subprocess.run(["umount", str(place)], check=True)


def test_on_a_real_disk_that_is_full_the_journal_stays_whole_and_goes_on(small_disk):
    folder = make_folder(small_disk / "runs", "one")
    filler = small_disk / "filler"
    filler.write_bytes(b"x" * 100_000)
    kept = 0
    with Journal(folder) as written:
        full = ""
        while not full:
            try:
                written.append(event(kept + 1, "x" * 500) + b"\n")
            except JournalError as error:
                full = str(error)
            else:
                kept += 1
        assert "No space left on device" in full
        assert kept > 0
        with pytest.raises(JournalError, match="No space left"):
            write_outcome(folder, Outcome(status="failed", text="x" * 20_000))
        filler.unlink()
        written.append(event(kept + 1) + b"\n")
        write_outcome(folder, Outcome(status="failed"))
    assert [one.seq for one in read_events(folder)] == list(range(1, kept + 2))
    assert read_outcome(folder) == Outcome(status="failed")


def test_an_outcome_is_written_whole_or_not_at_all(folder):
    write_outcome(folder, Outcome(status="succeeded"))
    with files_no_larger_than(100), pytest.raises(JournalError, match="File too large"):
        write_outcome(folder, Outcome(status="failed", text="x" * 1000))
    assert read_outcome(folder) == Outcome(status="succeeded")
    write_outcome(folder, Outcome(status="failed"))
    assert read_outcome(folder) == Outcome(status="failed")


# --- task.json and outcome.json -------------------------------------------------------------------

MAYBE = st.none() | TEXT
NAMES = st.dictionaries(TEXT, TEXT, max_size=3)
PATHS = TEXT.map(lambda text: Path("/" + text.replace("\0", "")))
BOUNDS = st.none() | st.floats(1, 10**6)
TASKS = st.builds(
    Task,
    prompt=TEXT,
    name=MAYBE,
    kind=st.none() | st.sampled_from(KINDS),
    workspace=PATHS,
    template=st.none() | PATHS,
    files=st.lists(TEXT, max_size=3).map(tuple),
    agent=MAYBE,
    base_url=MAYBE,
    privacy=st.sampled_from(["any", "local"]),
    check=MAYBE,
    limits=st.builds(Limits, wall_s=BOUNDS, steps=st.none() | st.integers(1, 99), cost_usd=BOUNDS),
    env=NAMES,
    env_from=st.lists(TEXT, max_size=3).map(tuple),
    session_id=MAYBE,
    home=st.none() | PATHS,
)
AGENTS = st.builds(
    Agent,
    name=TEXT,
    adapter=TEXT,
    model=MAYBE,
    tier=st.sampled_from(["local", "cloud"]),
    profile=st.sampled_from(["user", "clean"]),
    options=st.dictionaries(TEXT, JSON, max_size=3),
)
RECORDS = st.builds(
    Record,
    run_id=TEXT,
    started=TEXT,
    task=TASKS,
    agent=AGENTS,
    before=st.none() | strategies.whole(Usage),
    resumed=MAYBE,
)
SHARED = settings(suppress_health_check=[HealthCheck.function_scoped_fixture])


@SHARED
@given(RECORDS)
def test_a_record_is_read_as_it_was_written(folder, record):
    write_record(folder, record)
    assert read_record(folder) == record


@SHARED
@given(strategies.whole(Outcome))
def test_an_outcome_is_read_as_it_was_written(folder, outcome):
    write_outcome(folder, outcome)
    assert read_outcome(folder) == outcome


def test_a_run_that_is_not_over_has_no_outcome(folder):
    assert read_outcome(folder) is None


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (b"", "not a record of a run: Invalid JSON"),
        (b"[]", "not a record of a run: "),
        (b'{"run_id": "\\u001b[2J", "started": 5}', "not a record of a run: started: "),
    ],
)
def test_a_spoilt_record_is_named_on_one_line(folder, content, why):
    (folder / TASK).write_bytes(content)
    with pytest.raises(JournalError, match=why) as caught:
        read_record(folder)
    assert str(folder / TASK) in str(caught.value)
    assert str(caught.value).isprintable()


def test_a_spoilt_outcome_is_named_on_one_line(folder):
    (folder / OUTCOME).write_bytes(b'{"status": "splendid"}')
    with pytest.raises(JournalError, match="not an outcome: status: Input should be") as caught:
        read_outcome(folder)
    assert str(caught.value).isprintable()


def test_an_outcome_that_cannot_be_read_is_named(folder):
    (folder / OUTCOME).mkdir()
    with pytest.raises(JournalError, match=r"cannot read .*: Is a directory"):
        read_outcome(folder)


@pytest.mark.parametrize("option", [{"x": object()}, {"x": "\udc80"}, {"x": 2**70}])
def test_a_record_that_json_cannot_hold_is_a_journal_error(folder, option):
    agent = Agent(name="a", adapter="x", options=option)
    record = Record(run_id="r", started="t", task=RECORD.task, agent=agent)
    with pytest.raises(JournalError, match=r"cannot write .*task\.json: "):
        write_record(folder, record)
    assert not (folder / TASK).exists()


# --- following ------------------------------------------------------------------------------------

WRITER = """
import os, sys
from pathlib import Path
from orchestrator.journal import Journal

with Journal(Path(sys.argv[1])) as journal:
    print("open", flush=True)
    for line in sys.stdin.buffer:
        if line == b"torn\\n":
            os.write(journal._fd, b"torn")
        else:
            journal.append(line)
        print("written", flush=True)
"""


@pytest.fixture
def writer(folder: Path) -> Iterator[subprocess.Popen[bytes]]:
    with subprocess.Popen(
        [sys.executable, "-c", WRITER, str(folder)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"open\n"
        yield process
        process.kill()


def write(process: subprocess.Popen[bytes], line: bytes) -> None:
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdin.write(line + b"\n")
    process.stdin.flush()
    assert process.stdout.readline() == b"written\n"


class Follower:
    """Follows a journal in a thread of its own, as a second terminal would."""

    def __init__(self, folder: Path) -> None:
        self.lines: queue.Queue[bytes | None] = queue.Queue()
        self._folder = folder
        threading.Thread(target=self._follow, daemon=True).start()

    def _follow(self) -> None:
        for line in follow_lines(self._folder):
            self.lines.put(line)
        self.lines.put(None)

    def next(self) -> bytes | None:
        return self.lines.get(timeout=10)


def test_what_is_written_is_seen_by_those_who_follow(folder, writer):
    write(writer, b"one")
    follower = Follower(folder)
    assert follower.next() == b"one"
    write(writer, b"two")
    assert follower.next() == b"two"
    assert running(folder)
    writer.stdin.close()
    assert follower.next() is None
    writer.wait()
    assert not running(folder)


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_following_ends_when_the_writer_dies(folder, writer, number):
    follower = Follower(folder)
    write(writer, b"one")
    write(writer, b"torn")
    assert follower.next() == b"one"
    writer.send_signal(number)
    assert follower.next() is None


def test_a_run_that_is_over_is_followed_to_its_end(folder):
    with Journal(folder) as written:
        written.append(event(1) + b"\n" + event(2) + b"\n")
    assert list(follow_lines(folder)) == [event(1), event(2)]


def test_a_run_is_going_on_while_its_journal_is_open(folder):
    with Journal(folder):
        assert running(folder)
    assert not running(folder)
    assert not running(folder.parent / "none")


# --- finding --------------------------------------------------------------------------------------


@pytest.fixture
def runs(tmp_path: Path) -> Path:
    for name in ("01a1aaaa-0000-1111", "01a1aaaa-0002-2222", "01a1bbbb-0001-2222"):
        write_record(make_folder(tmp_path / "runs", name), RECORD)
    make_folder(tmp_path / "runs", "01a1cccc-without-record")
    (tmp_path / "runs" / "a file").write_text("x")
    return tmp_path / "runs"


def test_runs_are_listed_oldest_first_and_only_those_with_a_record(runs):
    assert [path.name for path in list_runs(runs)] == [
        "01a1aaaa-0000-1111",
        "01a1aaaa-0002-2222",
        "01a1bbbb-0001-2222",
    ]


def test_before_the_first_run_the_list_is_empty(tmp_path):
    assert list_runs(tmp_path / "none") == []


def test_a_list_that_cannot_be_read_is_named(tmp_path):
    (tmp_path / "runs").write_text("a file")
    with pytest.raises(JournalError, match=r"cannot read .*/runs: Not a directory"):
        list_runs(tmp_path / "runs")


@pytest.mark.parametrize(
    ("name", "found"),
    [
        ("last", "01a1bbbb-0001-2222"),
        ("01a1aaaa-0000-1111", "01a1aaaa-0000-1111"),
        ("01a1b", "01a1bbbb-0001-2222"),
        ("01a1aaaa-0002", "01a1aaaa-0002-2222"),
        ("1111", "01a1aaaa-0000-1111"),
        ("0001-2222", "01a1bbbb-0001-2222"),
    ],
)
def test_a_run_is_found_by_its_id_or_a_piece_of_an_end(runs, name, found):
    assert find_run(runs, name).name == found


@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("01a1", "'01a1' could be any of 3 runs"),
        ("2222", "'2222' could be any of 2 runs"),
        ("01a", "no run '01a'"),
        ("", "no run ''"),
        ("aaaa", "no run 'aaaa'"),
        ("../runs", r"no run '\.\./runs'"),
        ("none\n\x1b[2J", r"no run 'none\\n\\x1b\[2J'"),
    ],
)
def test_a_name_that_fits_no_run_or_several_is_refused_with_the_way_on(runs, name, why):
    with pytest.raises(InputError, match=why) as caught:
        find_run(runs, name)
    assert caught.value.hint is not None
    assert "orchestrate runs list" in caught.value.hint


@pytest.mark.parametrize("name", ["last", "01a1aaaa"])
def test_before_the_first_run_none_can_be_found(tmp_path, name):
    with pytest.raises(InputError, match=f"no run '{name}': there are none yet in "):
        find_run(tmp_path, name)


# --- secrets --------------------------------------------------------------------------------------


def scrubbed(path: Path, content: bytes, *secrets: str) -> bytes:
    path.write_bytes(content)
    scrub(path, secrets)
    return path.read_bytes()


def test_a_secret_is_overwritten_and_offsets_stay(tmp_path):
    after = scrubbed(tmp_path / STDOUT, b"key sk-123456 and sk-123456.\nnext", "sk-123456")
    assert after == b"key ********* and *********.\nnext"
    assert mode(tmp_path / STDOUT) == 0o400


def test_the_longer_of_two_secrets_leaves_no_tail(tmp_path):
    assert scrubbed(tmp_path / "x", b"a sk-1234-5678 b sk-1234", "sk-1234", "sk-1234-5678") == (
        b"a ************ b *******"
    )


@pytest.mark.parametrize("nested", [1, 2])
def test_a_secret_is_found_inside_json(tmp_path, nested):
    secret = 'p"ss\\wörd\n1'
    content: object = secret
    for _ in range(nested):
        content = orjson.dumps({"text": content}).decode()
    after = scrubbed(tmp_path / "x", str(content).encode(), secret)
    assert b"rd" not in after
    assert len(after) == len(str(content).encode())


def test_a_secret_that_is_not_utf_8_is_found(tmp_path):
    secret = os.fsdecode(b"pass\xff\xfeword")
    assert spellings(secret)[0] == b"pass\xff\xfeword"
    assert scrubbed(tmp_path / "x", b"a pass\xff\xfeword b", secret) == b"a ********** b"


@pytest.mark.parametrize("secrets", [(), ("",)])
def test_without_secrets_nothing_is_touched(tmp_path, secrets):
    (tmp_path / "x").write_bytes(b"abc")
    (tmp_path / "x").chmod(0o600)
    scrub(tmp_path / "x", secrets)
    assert (tmp_path / "x").read_bytes() == b"abc"
    assert mode(tmp_path / "x") == 0o600


def test_a_file_that_is_not_there_needs_no_scrubbing(tmp_path):
    scrub(tmp_path / STDERR, ["secret"])
    assert list(tmp_path.iterdir()) == []


BLOCK = 16
SECRETS = st.lists(st.text("ab", min_size=3, max_size=9), min_size=1, max_size=3)


@SHARED
@given(SECRETS, st.lists(st.sampled_from(["a", "b", "c", "S0", "S1", "S2"]), max_size=60))
def test_no_secret_is_left_wherever_a_block_ends(tmp_path, secrets, pieces):
    named = {f"S{number}": secret for number, secret in enumerate(secrets)}
    content = "".join(named.get(piece, piece) for piece in pieces).encode()
    block, scrubbing._BLOCK = scrubbing._BLOCK, BLOCK
    try:
        after = scrubbed(tmp_path / "x", content, *secrets)
    finally:
        scrubbing._BLOCK = block
    assert len(content) < block, "or the next line proves nothing"
    assert after == scrubbed(tmp_path / "y", content, *secrets)
    assert len(after) == len(content)
    assert [secret for secret in secrets if secret.encode() in after] == []
    for before, now in zip(content, after, strict=True):
        assert now in {before, ord("*")}


# --- handing on -----------------------------------------------------------------------------------


def test_an_export_holds_the_files_of_a_run_and_nothing_of_its_home(folder, tmp_path):
    write_record(folder, RECORD)
    (folder / STDOUT).write_bytes(b"raw")
    (folder / "home").mkdir()
    (folder / "home" / "auth.json").write_text("a login")
    (tmp_path / "elsewhere").write_text("not of the run")
    (folder / "link").symlink_to(tmp_path / "elsewhere")
    target = tmp_path / "run.tar.gz"
    export_run(folder, target)
    with tarfile.open(target) as archive:
        members = archive.getmembers()
        stdout = archive.extractfile(f"{folder.name}/{STDOUT}")
        assert stdout is not None
        assert stdout.read() == b"raw"
    assert [member.name for member in members] == [
        f"{folder.name}/{STDOUT}",
        f"{folder.name}/{TASK}",
    ]
    assert {(each.uid, each.gid, each.uname, each.gname) for each in members} == {(0, 0, "", "")}


def test_an_export_overwrites_nothing(folder, tmp_path):
    (tmp_path / "mine").write_text("mine")
    with pytest.raises(JournalError, match=r"cannot make .*/mine: File exists"):
        export_run(folder, tmp_path / "mine")
    assert (tmp_path / "mine").read_text() == "mine"


def test_an_export_that_fails_leaves_nothing(folder, tmp_path):
    (folder / STDOUT).write_bytes(os.urandom(100_000))
    with files_no_larger_than(1_000), pytest.raises(JournalError, match="File too large"):
        export_run(folder, tmp_path / "run.tar.gz")
    assert not (tmp_path / "run.tar.gz").exists()


def test_messages_of_any_length_are_kept_whole(folder):
    update = Message(text="x" * 5_000_000)
    stamped = Event(
        seq=1, time="t", run_id=None, task_id=None, agent=None, source="agent", update=update
    )
    with Journal(folder) as written:
        written.append(encode(stamped) + b"\n")
    assert [one.update for one in read_events(folder)] == [update]
