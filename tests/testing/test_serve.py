"""The model server as a program: `python -m orchestrator.testing serve SCRIPT`."""

import http.client
import json
import os
import signal
import stat
import subprocess
import sys
from collections.abc import Generator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest

SERVE = (sys.executable, "-m", "orchestrator.testing", "serve")
SCRIPT = "turns:\n  - text: hello\n"


@contextmanager
def serving(*arguments: str) -> Generator[tuple["subprocess.Popen[bytes]", str]]:
    """The process and its base URL; killed where the test did not end it."""
    process = subprocess.Popen(
        (*SERVE, *arguments), stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    with process:
        try:
            assert process.stdout is not None
            yield process, json.loads(process.stdout.readline())["base_url"]
        finally:
            process.kill()


def say_hi(base_url: str) -> str:
    body = {"model": "scripted", "messages": [{"role": "user", "content": "hi"}], "stream": False}
    connection = http.client.HTTPConnection(base_url.removeprefix("http://"), timeout=5)
    with closing(connection):
        headers = {"Authorization": "Bearer sk-secret"}
        connection.request("POST", "/api/chat", json.dumps(body), headers)
        return str(json.loads(connection.getresponse().read())["message"]["content"])


@pytest.fixture
def script(tmp_path: Path) -> str:
    path = tmp_path / "model.yaml"
    path.write_text(SCRIPT)
    return str(path)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_it_says_where_it_is_and_ends_on_a_signal(number: signal.Signals, script: str) -> None:
    with serving(script) as (process, base_url):
        assert say_hi(base_url) == "hello"
        process.send_signal(number)
        assert process.wait(5) == 0
        assert process.stderr is not None
        assert process.stderr.read() == b""


def test_it_can_end_with_its_stdin(script: str) -> None:
    with serving(script, "--until-stdin-closes") as (process, base_url):
        assert say_hi(base_url) == "hello"
        assert process.stdin is not None
        process.stdin.write(b"ignored\n")
        process.stdin.close()
        assert process.wait(5) == 0


def test_a_stdin_that_is_empty_ends_it_at_once(script: str) -> None:
    done = subprocess.run(
        (*SERVE, script, "--until-stdin-closes"),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        timeout=10,
    )
    assert done.returncode == 0
    assert json.loads(done.stdout)["base_url"]


def test_without_the_option_a_closed_stdin_does_not_end_it(script: str) -> None:
    with serving(script) as (process, base_url):
        assert process.stdin is not None
        process.stdin.close()
        assert say_hi(base_url) == "hello"
        assert process.poll() is None


def test_its_log_has_a_line_for_each_request_is_private_and_holds_no_key(
    script: str, tmp_path: Path
) -> None:
    log = tmp_path / "requests.jsonl"
    old = os.umask(0)
    try:
        with serving(script, "--log", str(log)) as (_, base_url):
            say_hi(base_url)
            [line] = log.read_text().splitlines()
    finally:
        os.umask(old)
    request = json.loads(line)
    assert (request["path"], request["turn"], request["status"]) == ("/api/chat", 1, 200)
    assert request["body"]["model"] == "scripted"
    assert request["key_sha256"]
    assert "sk-secret" not in line
    assert stat.S_IMODE(log.stat().st_mode) == 0o600


def test_a_script_that_is_wrong_is_a_usage_error(tmp_path: Path) -> None:
    path = tmp_path / "model.yaml"
    path.write_text("turns: [{txt: hi}]")
    done = subprocess.run((*SERVE, str(path)), capture_output=True, timeout=10)
    assert (done.returncode, done.stdout) == (2, b"")
    assert b"model.yaml: turn 1: unknown key 'txt'" in done.stderr


def test_a_script_that_is_not_there_is_a_usage_error() -> None:
    done = subprocess.run((*SERVE, "/nowhere/model.yaml"), capture_output=True, timeout=10)
    assert done.returncode == 2
    assert b"/nowhere/model.yaml" in done.stderr


def test_a_port_that_is_taken_is_named(script: str) -> None:
    with serving(script) as (_, base_url):
        port = base_url.rpartition(":")[2]
        done = subprocess.run((*SERVE, script, "--port", port), capture_output=True, timeout=10)
    assert done.returncode == 2
    assert f"port {port}: ".encode() in done.stderr


def test_an_unknown_command_is_a_usage_error() -> None:
    done = subprocess.run((*SERVE[:3], "play"), capture_output=True, timeout=10)
    assert done.returncode == 2
    assert b"serve|agent SCRIPT" in done.stderr
