"""The scripted agent, run as benchmarks run it: `python -I -S agent.py SCRIPT`."""

import http.server
import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from orchestrator.testing import agent

AGENT = (sys.executable, "-I", "-S", agent.__file__)


def run(*steps: object, **options: Any) -> "subprocess.CompletedProcess[bytes]":
    options.setdefault("stdin", subprocess.DEVNULL)
    if "input" in options:
        del options["stdin"]
    return subprocess.run((*AGENT, json.dumps(steps)), capture_output=True, timeout=10, **options)


def is_alive(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return False
    return state != "Z"


def test_the_end_of_the_script_is_success() -> None:
    done = run()
    assert (done.returncode, done.stdout, done.stderr) == (0, b"", b"")


def test_it_prints_lines_to_either_stream() -> None:
    done = run({"print": "a"}, {"print": "b", "to": "stderr"}, {"print": "c", "end": ""})
    assert (done.stdout, done.stderr) == (b"a\nc", b"b\n")


def test_it_prints_any_byte_and_any_character() -> None:
    every_byte = bytes(range(256))
    done = run({"raw": every_byte.decode("latin-1")}, {"print": "\u2028\u0085\ud800"})
    assert done.stdout == every_byte + "\u2028\u0085\ud800\n".encode("utf-8", "surrogatepass")


def test_it_prints_a_huge_line_and_many_lines() -> None:
    huge = {"print": {"repeat": "x", "times": 3_000_000}}
    done = run(huge, {"print": "y", "times": 1000})
    assert done.stdout == b"x" * 3_000_000 + b"\n" + b"y\n" * 1000


def test_it_prints_slowly() -> None:
    before = time.monotonic()
    run({"print": "y", "times": 3, "every": 0.1}, {"sleep": 0.1})
    assert time.monotonic() - before >= 0.4


def test_it_writes_and_edits_files(tmp_path: Path) -> None:
    done = run(
        {"write": "a/b.txt", "text": "one two two"},
        {"edit": "a/b.txt", "old": "two", "new": "2"},
        {"write": "a/b.txt", "text": "!", "append": True},
        cwd=tmp_path,
    )
    assert done.returncode == 0
    assert (tmp_path / "a" / "b.txt").read_text() == "one 2 two!"


def test_an_edit_of_text_that_is_not_there_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "a").write_text("x")
    done = run({"edit": "a", "old": "y", "new": "z"}, cwd=tmp_path)
    assert (done.returncode, done.stderr) == (
        2,
        b"scripted agent: edit: a does not contain 'y'\n",
    )


def test_it_reports_what_it_was_given(tmp_path: Path) -> None:
    done = run(
        {"report": ["argv", "cwd", "env", "fds", "pid", "stdin"]},
        cwd=tmp_path,
        env={"MINE": "1"},
        input=b"prompt\xff",
    )
    report = json.loads(done.stdout)
    assert report["cwd"] == str(tmp_path)
    assert report["env"]["MINE"] == "1"
    assert "PATH" not in report["env"]
    assert report["stdin"] == "prompt\\xff"
    assert report["fds"] == [0, 1, 2]
    assert report["argv"][0] == agent.__file__
    assert report["pid"] > 1


def test_it_waits_for_stdin() -> None:
    done = run({"read": "line"}, {"report": ["stdin"]}, {"read": "all"}, input=b"a\nb\nc\n")
    assert json.loads(done.stdout) == {"stdin": "b\nc\n"}


@pytest.mark.parametrize(
    ("step", "status"),
    [({"exit": 7}, 7), ({"kill": "SIGKILL"}, -9), ({"kill": "SIGTERM"}, -15), ({"exit": 0}, 0)],
)
def test_it_ends_as_it_is_told(step: object, status: int) -> None:
    done = run({"print": "a"}, step, {"print": "b"})
    assert (done.returncode, done.stdout) == (status, b"a\n")


def test_it_ignores_signals_and_answers_to_others() -> None:
    done = run(
        {"ignore": ["SIGTERM"]},
        {"on": "SIGINT", "do": [{"print": "interrupted"}, {"exit": 0}]},
        {"kill": "SIGTERM"},
        {"print": "still here"},
        {"kill": "SIGINT"},
        {"hang": True},
    )
    assert (done.returncode, done.stdout) == (0, b"still here\ninterrupted\n")


def test_it_hangs_until_it_is_killed() -> None:
    with subprocess.Popen((*AGENT, '[{"hang": true}]')) as process:
        with pytest.raises(subprocess.TimeoutExpired):
            process.wait(0.3)
        process.terminate()
        assert process.wait(5) == -signal.SIGTERM


def test_a_child_can_outlive_it_in_a_session_of_its_own_and_hold_stdout() -> None:
    child = [{"report": ["pid"]}, {"ignore": ["SIGTERM"]}, {"print": "ready"}, {"hang": True}]
    steps = [{"spawn": child, "double_fork": True}, {"print": "parent"}, {"exit": 0}]
    with subprocess.Popen((*AGENT, json.dumps(steps)), stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        lines = [process.stdout.readline() for _ in range(3)]
        pid = next(json.loads(line)["pid"] for line in lines if line.startswith(b"{"))
        try:
            assert process.wait(5) == 0
            assert is_alive(pid)
            assert os.getsid(pid) not in {os.getsid(0), process.pid}
            os.kill(pid, signal.SIGTERM)
            time.sleep(0.1)
            assert is_alive(pid)
        finally:
            os.kill(pid, signal.SIGKILL)
        assert process.stdout.read() == b""


def test_a_quiet_child_does_not_hold_stdout(tmp_path: Path) -> None:
    child = [{"write": str(tmp_path / "begun")}, {"sleep": 1}]
    done = run({"spawn": child, "quiet": True, "setsid": True}, {"print": "parent"})
    assert done.stdout == b"parent\n"


def test_a_child_can_have_no_environment_and_be_waited_for() -> None:
    child = [{"report": ["env"]}, {"exit": 3}]
    done = run(
        {"spawn": child, "clear_env": True, "wait": True}, {"print": "after"}, env={"MINE": "1"}
    )
    first, second = done.stdout.splitlines()
    assert "MINE" not in json.loads(first)["env"]
    assert second == b"after"


def test_a_childs_mistake_is_told_and_stays_in_the_child() -> None:
    done = run({"spawn": [{"foo": 1}], "wait": True}, {"print": "parent"})
    assert (done.returncode, done.stdout) == (0, b"parent\n")
    assert b"scripted agent, child: step" in done.stderr


def test_it_can_kill_its_parent() -> None:
    child = [{"kill": "SIGKILL", "parent": True}]
    done = run({"spawn": child}, {"hang": True})
    assert done.returncode == -signal.SIGKILL


def test_it_uses_cpu_time() -> None:
    before = os.times()
    run({"burn": 0.2})
    after = os.times()
    used = after.children_user + after.children_system
    assert used - before.children_user - before.children_system >= 0.15


class _Echo(http.server.BaseHTTPRequestHandler):
    got: list[tuple[str, bytes]]

    def do_GET(self) -> None:
        self.do_POST()

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers.get("content-length", 0)))
        self.got.append((self.command, body))
        self.send_response(200)
        self.end_headers()
        self.wfile.write(b"x" * 100_000)

    def log_message(self, format: str, *args: object) -> None:
        pass


def test_it_fetches_from_a_server() -> None:
    _Echo.got = []
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), _Echo) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        url = f"http://127.0.0.1:{server.server_port}/"
        done = run({"fetch": url}, {"fetch": url, "body": '{"a": 1}'})
        server.shutdown()
    assert (done.returncode, done.stderr) == (0, b"")
    assert _Echo.got == [("GET", b""), ("POST", b'{"a": 1}')]


def test_a_script_can_be_a_file_or_stdin(tmp_path: Path) -> None:
    path = tmp_path / "agent.json"
    path.write_text('{"steps": [{"print": "from a file"}]}')
    done = subprocess.run((*AGENT, str(path)), capture_output=True, timeout=10)
    assert done.stdout == b"from a file\n"
    done = subprocess.run((*AGENT, "-"), input=path.read_bytes(), capture_output=True, timeout=10)
    assert done.stdout == b"from a file\n"


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("[{}]", "step {}: one of print, raw, "),
        ('[{"print": "a", "exit": 1}]', "one of print, raw, "),
        ('[{"print": 5}]', "print: a text or {repeat, times} is needed, found 5"),
        ('[{"sleep": "long"}]', "sleep: a number is needed, found 'long'"),
        ('[{"sleep": true}]', "sleep: a number is needed, found True"),
        ('[{"print": "a", "to": "nowhere"}]', "to: stdout or stderr, found 'nowhere'"),
        ('[{"kill": "SIGFOO"}]', "'SIGFOO' is no signal"),
        ('[{"ignore": "SIGTERM"}]', "ignore: a list of signals"),
        ('[{"report": ["weather"]}]', "report: a list of argv, cwd, "),
        ('[{"raw": "\\u2028"}]', "raw: "),
        ('[{"read": "some"}]', 'read: "line" or "all"'),
        ('[{"fetch": "file:///etc/passwd"}]', "does not start with http://"),
        ('[{"spawn": 5}]', "a script is a list of steps"),
        ("[1]", "a script is a list of steps, or an object with `steps`"),
        ("{", "scripted agent: {: "),
        ("/nowhere.json", "No such file"),
    ],
)
def test_a_wrong_script_is_a_usage_error_that_says_what_is_wrong(source: str, message: str) -> None:
    done = subprocess.run((*AGENT, source), capture_output=True, timeout=10)
    assert done.returncode == 2
    assert message in done.stderr.decode()


def test_no_script_is_a_usage_error() -> None:
    done = subprocess.run(AGENT, capture_output=True, timeout=10)
    assert (done.returncode, done.stderr[:6]) == (2, b"usage:")


def test_as_a_module_it_starts_without_the_servers_libraries() -> None:
    """It is started by the thousand in benchmarks."""
    code = (
        "import sys; from orchestrator.testing.__main__ import main; "
        "main(['agent', '[]']); "
        "print(sorted({'anyio', 'pydantic', 'yaml', 'orjson', 'h11'} & set(sys.modules)))"
    )
    done = subprocess.run((sys.executable, "-c", code), capture_output=True, timeout=10)
    assert done.stdout == b"[]\n"


def test_each_step_is_documented_by_its_own_example() -> None:
    for verb, step in agent.STEPS.items():
        assert f'{{"{verb}": ' in (step.__doc__ or ""), verb
