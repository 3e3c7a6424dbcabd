"""The parts of the LiteLLM front that need no mini-swe-agent: shell, confinement, judgement."""

import array
import errno
import fcntl
import json
import os
import signal
import subprocess
import sys
import termios
import time
from pathlib import Path

import pytest

from adapters.programs import attributes, confinement, json_lines, model_calls
from adapters.programs.asked import SettingsError
from adapters.programs.litellm_agent.sessions import Session
from adapters.programs.shell import KEPT_BYTES, Kept, Ran, Shell
from tests.hostile import until

ROOT = Path(__file__).parents[2]


def shell_in(folder: Path, *, writable: list[str] | None = None, timeout_s: float = 10.0) -> Shell:
    env = {"PATH": os.defpath}
    return Shell(cwd=str(folder), env=env, timeout_s=timeout_s, writable=writable)


def test_a_command_has_its_output_and_exit_code(tmp_path: Path) -> None:
    shell = shell_in(tmp_path)
    assert shell.run("echo out; echo err >&2; exit 7") == Ran(output="out\nerr\n", exit_code=7)
    assert shell.run("cat").output == ""  # stdin is empty, not ours
    assert shell.run("kill -9 $$").exit_code == -9


def test_a_command_is_killed_with_its_children_when_its_time_is_over(tmp_path: Path) -> None:
    shell = shell_in(tmp_path, timeout_s=0.3)
    began = time.monotonic()
    ran = shell.run("echo begun; sleep 50 & sleep 50; echo never")
    assert time.monotonic() - began < 20
    assert (ran.output, ran.exit_code) == ("begun\n", None)
    assert ran.problem == "timed out after 0.3 s; it was killed"
    # One that has closed its output, too.
    assert shell.run("exec >&- 2>&-; sleep 50").exit_code is None


def test_a_background_process_that_holds_the_output_is_not_waited_for(tmp_path: Path) -> None:
    shell = shell_in(tmp_path)
    began = time.monotonic()
    assert shell.run("sleep 50 & echo started").output == "started\n"
    assert time.monotonic() - began < 20
    shell.stop()


def test_after_stop_nothing_is_started(tmp_path: Path) -> None:
    shell = shell_in(tmp_path)
    shell.stop()
    assert shell.run("touch made") == Ran(
        output="", exit_code=None, problem="the agent is being stopped"
    )
    assert not (tmp_path / "made").exists()


def test_of_a_long_output_the_first_and_the_last_bytes_are_kept(tmp_path: Path) -> None:
    output = shell_in(tmp_path).run("seq 1 200000").output
    assert output.startswith("1\n2\n3\n")
    assert output.endswith("199999\n200000\n")
    assert "\n[... 1223359 bytes left out ...]\n" in output
    assert len(output) < 2 * KEPT_BYTES + 100


@pytest.mark.parametrize("size", [0, 1, KEPT_BYTES, 2 * KEPT_BYTES])
def test_an_output_that_fits_is_kept_whole(size: int) -> None:
    kept = Kept()
    for _ in range(size):
        kept.add(b"x")
    assert kept.text() == "x" * size


def test_a_confined_shell_writes_only_where_it_may(tmp_path: Path) -> None:
    inside, outside = tmp_path / "inside", tmp_path / "outside"
    inside.mkdir()
    outside.mkdir()
    shell = shell_in(outside, writable=[str(inside), str(tmp_path / "not-there")])
    if shell.unenforced is not None:
        pytest.skip(shell.unenforced)
    ran = shell.run(f"echo x > {inside}/a && echo x > /dev/null && echo x > b")
    assert ran.exit_code == 1
    assert "b: Permission denied" in ran.output
    assert [path.name for path in inside.iterdir()] == ["a"]
    assert list(outside.iterdir()) == []
    (outside / "free").write_text("this process itself is not confined")
    assert shell.run(f"kill -0 {os.getpid()}").exit_code == 1
    assert "Permission denied" in shell.run(f"cat /proc/{os.getpid()}/environ").output


def test_a_shell_that_cannot_be_confined_says_why(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "platform", "darwin")
    assert shell_in(tmp_path, writable=[]).unenforced == "only Linux has Landlock"
    monkeypatch.undo()
    monkeypatch.setattr(confinement, "_TRUNCATE_ABI", 99)
    assert (shell_in(tmp_path, writable=[]).unenforced or "").endswith("is too old")
    monkeypatch.setattr(confinement, "_CREATE_RULESET", 999_999)
    assert shell_in(tmp_path, writable=[]).unenforced == "this kernel has no Landlock"
    assert confinement._probe(str(tmp_path)) == "a file could be made in spite of Landlock"
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "output",
    [
        "bash: line 1: {path}: Permission denied",
        "sed: couldn't open temporary file {folder}/sedAb12: Permission denied",
        "touch: cannot touch '{path}': Permission denied",
        "mkdir: cannot create directory \u2018{path}\u2019: Permission denied",
        "PermissionError: [Errno 13] Permission denied: '{path}'",
        "Error: {path}: Read-only file system",
        "fatal: Unable to create '{path}': Permission denied",
        "chmod: changing permissions of '{path}': Operation not permitted",
        "PermissionError: [Errno 1] Operation not permitted: '{path}'",
    ],
)
def test_a_refused_write_is_seen_in_the_words_of_many_programs(output: str, tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    said = "some\nother output\n" + output.format(path=path, folder=tmp_path) + "\n"
    found = confinement.denied_path(said, "/", "/no/such/scratch")
    assert found is not None
    assert Path(found).parent == tmp_path


def test_what_nobody_may_write_and_mere_talk_is_no_refusal(tmp_path: Path) -> None:
    for output in (
        "cat: /no/such/folder/x: Permission denied",
        "the manual says: Permission denied means EACCES",
        "a.txt: No such file or directory",
        "",
    ):
        assert confinement.denied_path(output, str(tmp_path / "gone"), "/no") is None


def test_a_mode_that_stays_as_it_is_in_the_scratch_folder_is_no_refusal(tmp_path: Path) -> None:
    said = f"chmod: changing permissions of '{tmp_path}/a': Operation not permitted\n"
    assert confinement.denied_path(said, "/", str(tmp_path)) is None


ATTRIBUTES = {
    "chmod": "os.chmod(name, 0o777)",
    "fchmod": "os.fchmod(os.open(name, os.O_RDONLY), 0o777)",
    "fchmodat": "os.chmod('a', 0o777, dir_fd=os.open('.', os.O_RDONLY))",
    "fchmodat2": "call(452, AT_FDCWD, name.encode(), 0o777, 0)",
    "chown": "os.chown(name, os.getuid(), os.getgid())",
    "lchown": "os.lchown(name, os.getuid(), os.getgid())",
    "utime": "os.utime(name, (1, 1))",
    "futime": "os.utime(os.open(name, os.O_RDONLY), (1, 1))",
    "setxattr": "os.setxattr(name, 'user.a', b'1')",
    "removexattr": "os.removexattr(name, 'user.a')",
    "setxattrat": "call(463, AT_FDCWD, name.encode(), 0, b'user.a', bytes(16), 16)",
    "file_setattr": "call(469, AT_FDCWD, name.encode(), bytes(32), 32, 0)",
    "chattr": "fcntl.ioctl(os.open(name, os.O_RDONLY), 0x40086602, bytes(8))",
    "project": "fcntl.ioctl(os.open(name, os.O_RDONLY), 0x401C5820, bytes(28))",
    "encryption": "fcntl.ioctl(os.open('.', os.O_RDONLY), 0x800C6613, bytes(12))",
    "subvolume": "fcntl.ioctl(os.open('.', os.O_RDONLY), 0x5000940E, bytes(1024))",
    "io_uring": "call(425, 1, bytes(120))",
}
"""Ways to change what is no content and no name of a file, or to get around the filter."""

ATTEMPT = """
import ctypes, fcntl, os, sys
AT_FDCWD = ctypes.c_int(-100)
libc = ctypes.CDLL(None, use_errno=True)
def call(*arguments):
    if libc.syscall(*arguments) < 0:
        raise OSError(ctypes.get_errno(), "refused")
name = "a"
try:
    {}
except OSError as error:
    sys.exit(100 + error.errno)
"""


@pytest.mark.parametrize("attempt", ATTRIBUTES.values(), ids=ATTRIBUTES)
def test_no_command_changes_an_attribute_of_a_file_where_nothing_may_change(
    tmp_path: Path, attempt: str
) -> None:
    (tmp_path / "a").touch()
    (tmp_path / "attempt.py").write_text(ATTEMPT.format(attempt))
    shell = shell_in(tmp_path, writable=[])
    if shell.unenforced is not None:
        pytest.skip(shell.unenforced)
    assert shell.run(f"{sys.executable} attempt.py").exit_code == 100 + errno.EPERM


def test_what_reads_attributes_and_copies_files_still_works_there(tmp_path: Path) -> None:
    work, scratch = tmp_path / "work", tmp_path / "scratch"
    for folder in (work, scratch):
        folder.mkdir()
    (work / "a").write_text("x")
    shell = shell_in(work, writable=[str(scratch)])
    if shell.unenforced is not None:
        pytest.skip(shell.unenforced)
    read = "import fcntl, os; fcntl.ioctl(os.open('a', os.O_RDONLY), 0x80086601, bytes(8))"
    ran = shell.run(f"cp a {scratch}/b && ls -l a && cat {scratch}/b")
    assert ran.exit_code == 0, ran.output
    # Reading flags: a file system may not know them, but it is asked.
    ran = shell.run(f'{sys.executable} -c "{read}"')
    assert "not permitted" not in ran.output


def test_a_machine_without_a_filter_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(attributes, "_MACHINES", {})
    said = shell_in(tmp_path, writable=[]).unenforced or ""
    assert said.startswith("modes and times of files are not held: there is no filter for ")
    assert attributes._probe() == "a file's mode could be changed in spite of seccomp"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("litellm.RateLimitError: RateLimitError: OpenAIException - Slow down", "Slow down"),
        ('litellm.NotFoundError: Ollama_chatException - {"error":"no x"}', "no x"),
        ('AnthropicException - b\'{"error":{"message":"no key"}}\'', "no key"),
        ("litellm.Timeout: Connection timed out", "litellm.Timeout: Connection timed out"),
        ("no SDK\nTraceback (most recent call last):\n  File", "no SDK"),
        ("[]", "[]"),
        ('{"detail": 1}', '{"detail": 1}'),
        ("A - b", "A - b"),
    ],
)
def test_a_providers_own_words_remain(text: str, words: str) -> None:
    assert model_calls.plain(text) == words


class RateLimitError(Exception):
    status_code = 429


class InternalServerError(Exception):
    status_code = 500


@pytest.mark.parametrize(
    ("error", "kind", "retryable"),
    [
        (RateLimitError("slow down"), "rate_limited", True),
        (RateLimitError("exceeded your current quota"), "rate_limited", False),
        (InternalServerError("Connection error."), "unavailable", True),
        (InternalServerError("The server had an error"), None, True),
        (ImportError("No module named 'google'"), "spawn", False),
        (InternalServerError("Unable to locate credentials"), "auth_failed", False),
        (ValueError(), None, True),
    ],
)
def test_an_exception_is_judged(error: Exception, kind: str | None, retryable: bool) -> None:
    judged = model_calls.judge(error, None)
    assert (judged.kind, judged.retryable) == (kind, retryable)
    assert str(judged)


def test_a_pause_is_the_servers_or_our_own() -> None:
    class Response:
        headers = {"retry-after": "7"}  # noqa: RUF012

    error = RateLimitError()
    assert model_calls.pause(error, 1) == 1.0
    assert model_calls.pause(error, 2) == 4.0
    error.response = Response()  # type: ignore[attr-defined]
    assert model_calls.pause(error, 1) == 7.0
    Response.headers = {"retry-after": "Wed, 21 Oct 2026 07:28:00 GMT"}
    assert model_calls.pause(error, 1) == 1.0


def test_an_address_that_nobody_serves_is_unreachable(monkeypatch: pytest.MonkeyPatch) -> None:
    why = model_calls.unreachable("http://127.0.0.1:9/v1")
    assert why == "cannot connect to http://127.0.0.1:9/v1: Connection refused"
    assert model_calls.unreachable(None) is None
    monkeypatch.setenv("HTTPS_PROXY", "http://proxy.example:3128")
    assert model_calls.unreachable("https://127.0.0.1:9/v1") is None


def test_secrets_are_blotted_out_and_every_text_can_be_written() -> None:
    reader, writer = os.pipe()
    lines = json_lines.Lines(writer)
    lines.hide(["sk-0123456789", "short", 'with"quote'])
    lines.say("message", text='sk-0123456789 short with"quote \ud800 \u2028', nothing=None)
    os.close(writer)
    with os.fdopen(reader, "rb") as pipe:
        line = pipe.read()
    assert line.count(b"\n") == 1
    text = "[redacted] short [redacted] ? \u2028"
    assert json.loads(line) == {"type": "message", "text": text}


STALLED = """
import contextlib, os, sys, threading
sys.path.append(sys.argv[1])
from adapters.programs import json_lines
json_lines.END_S = 0.2

def end(number):
    lines.seize()
    with contextlib.suppress(OSError):
        lines.say("result")
    os._exit(128 + number)

lines = json_lines.Lines(1)
json_lines.watch_signals(end)
if sys.argv[2] == "speaking":
    while True:
        lines.say("log", text="x" * 1000)
os.set_blocking(1, False)
with contextlib.suppress(BlockingIOError):
    while True:
        os.write(1, b"x" * 4096)
os.set_blocking(1, True)
threading.Event().wait()
"""


@pytest.mark.parametrize("busy", ["speaking", "silent"])
def test_a_signal_ends_a_front_whose_reader_has_stalled(busy: str) -> None:
    command = [sys.executable, "-c", STALLED, str(ROOT), busy]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        waiting = array.array("i", [0])
        pipe = process.stdout.fileno()
        until(lambda: not fcntl.ioctl(pipe, termios.FIONREAD, waiting) and waiting[0] > 40_000)
        process.terminate()
        assert process.wait(10) == 128 + signal.SIGTERM


def test_a_session_that_was_stopped_in_a_call_gets_an_answer_for_it(tmp_path: Path) -> None:
    session = Session(tmp_path / "sessions", "abc")
    call = {"id": "1", "function": {"name": "bash", "arguments": "{}"}}
    asked = {"role": "assistant", "tool_calls": [call], "extra": {"large": 1}}
    session.save([{"role": "user", "content": "x"}, asked, {"role": "exit"}], "m")
    assert session.load() == [
        {"role": "user", "content": "x"},
        {"role": "assistant", "tool_calls": [call]},
        {"role": "tool", "tool_call_id": "1", "content": "(no output)"},
    ]
    answer = {"role": "tool", "tool_call_id": "1", "content": "done"}
    session.save([asked, answer], "m")
    assert session.load() == [{"role": "assistant", "tool_calls": [call]}, answer]


@pytest.mark.parametrize("content", [None, "", "{", "[]", "{}", '{"messages": [1]}'])
def test_a_session_that_cannot_be_read_is_an_error(content: str | None, tmp_path: Path) -> None:
    if content is not None:
        (tmp_path / "abc.json").write_text(content)
    with pytest.raises(SettingsError, match="session abc cannot be read"):
        Session(tmp_path, "abc").load()
