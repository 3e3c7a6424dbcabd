"""examples/embedding/service.py under uvicorn, as a process of its own, asked by real requests."""

import http.client
import json
import signal
import subprocess
from collections.abc import Generator, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.embedding.hosts import (
    DONE,
    EXAMPLES,
    HANG,
    LONG_S,
    WITH_A_CHILD,
    Step,
    Tree,
    environment,
    events_of,
    host,
    prompt,
    run_folders,
    said,
    say,
    terminate,
)

pytestmark = pytest.mark.timeout(60)

WORKS_ON = prompt(WITH_A_CHILD, say("awake"), {"ignore": ["SIGTERM"]}, HANG)


@dataclass
class Service:
    process: subprocess.Popen[str]
    port: int
    folder: Path

    @contextmanager
    def sent(
        self, method: str, path: str, body: object = None, **headers: str
    ) -> Generator[http.client.HTTPResponse]:
        """Ask, and go away at the end of the block."""
        asked = http.client.HTTPConnection("127.0.0.1", self.port, timeout=LONG_S)
        sent = None if body is None else json.dumps(body)
        with closing(asked):
            asked.request(method, path, sent, {"content-type": "application/json", **headers})
            with asked.getresponse() as answer:
                yield answer

    def ask(self, method: str, path: str, body: object = None) -> tuple[int, Any]:
        with self.sent(method, path, body) as answer:
            return answer.status, json.loads(answer.read())

    def start(self, *steps: Step) -> str:
        status, answer = self.ask("POST", "/jobs", self.wanted(prompt(*steps)))
        assert status == 202, answer
        return str(answer["job"])

    def wanted(self, words: str) -> dict[str, str]:
        return {"prompt": words, "workspace": str(self.folder / "work"), "kind": "search"}


@contextmanager
def serving(folder: Path) -> Generator[Service]:
    (folder / "work").mkdir()
    (folder / "work/file.txt").write_text("one\n")
    argv = ["-m", "uvicorn", "--app-dir", str(EXAMPLES), "--port", "0", "--loop", "asyncio"]
    argv += ["--timeout-graceful-shutdown", "1", "service:app"]
    log = folder / "log"
    with host(argv, env=environment(folder), cwd=folder, log=log) as process:
        line = said(log, process, "running on http://127.0.0.1:")
        port = line.split("http://127.0.0.1:")[1].split()[0]
        yield Service(process, int(port), folder)


@pytest.fixture
def service(tmp_path: Path) -> Iterator[Service]:
    with serving(tmp_path) as running:
        yield running


def told(answer: Any) -> Iterator[tuple[int, dict[str, Any]]]:
    """The number and content of each server-sent event."""
    number = 0
    for line in answer:
        match line.rstrip(b"\n").partition(b": "):
            case b"id", _, value:
                number = int(value)
            case b"data", _, value:
                yield number, json.loads(value)
            case _:
                pass


def tree_in(lines: Iterator[dict[str, Any]]) -> Tree:
    """The agent's processes, once it has said that it is awake."""
    pid = 0
    for event in lines:
        if event["type"] == "process.spawned":
            pid = event["pid"]
        if event.get("text") == "awake":
            break
    tree = Tree(pid)
    assert len(tree.pids) == 2
    return tree


def test_jobs_are_started_followed_from_any_event_and_cancelled(service: Service) -> None:
    job = service.start(say("hello"), {"sleep": 0.2}, DONE)
    with service.sent("GET", f"/jobs/{job}/events") as answer:
        assert answer.headers["content-type"].startswith("text/event-stream")
        every = list(told(answer))
    assert [number for number, _ in every] == list(range(1, len(every) + 1))
    assert every[0][1]["type"] == "task.started"
    assert every[-1][1]["type"] == "job.finished"
    with service.sent("GET", f"/jobs/{job}/events", **{"last-event-id": "4"}) as answer:
        assert list(told(answer)) == every[4:]
    status, answer = service.ask("GET", f"/jobs/{job}")
    assert (status, answer["events"]) == (200, len(every))
    assert answer["outcome"]["tasks"]["task"]["text"] == "hello"
    assert answer["outcome"]["status"] == "succeeded"

    job = service.start(WITH_A_CHILD, say("awake"), HANG)
    with service.sent("GET", f"/jobs/{job}/events") as answer:
        events = told(answer)
        tree = tree_in(event for _, event in events)
        assert service.ask("DELETE", f"/jobs/{job}") == (202, {"job": job})
        tree.wait_gone()
        _, last = list(events)[-1]
    assert (last["type"], last["outcome"]["status"]) == ("job.finished", "cancelled")
    assert service.ask("GET", f"/jobs/{job}")[1]["outcome"]["status"] == "cancelled"


def test_what_cannot_be_meant_is_refused_and_the_service_goes_on(service: Service) -> None:
    wanted = service.wanted("p") | {"workspace": str(service.folder / "none")}
    status, answer = service.ask("POST", "/jobs", wanted)
    assert status == 422
    assert "none" in answer["detail"]
    assert service.ask("POST", "/stream", wanted)[0] == 422
    assert service.ask("GET", "/jobs/nobody")[0] == 404
    assert service.ask("POST", "/jobs", service.wanted("p") | {"kind": "dance"})[0] == 422
    assert service.ask("GET", f"/jobs/{service.start(DONE)}")[0] == 200


def test_who_goes_away_in_the_middle_takes_the_attached_agent_along(service: Service) -> None:
    other = service.start({"sleep": 1}, say("not mine"), DONE)
    with service.sent("POST", "/stream", service.wanted(WORKS_ON)) as answer:
        tree = tree_in(json.loads(line) for line in answer)
    # The agent says nothing more, so nothing more would be sent.
    tree.wait_gone()
    with service.sent("GET", f"/jobs/{other}/events") as answer:
        _, last = list(told(answer))[-1]
    assert last["outcome"]["status"] == "succeeded"


def test_sigterm_ends_service_followers_and_agents(service: Service) -> None:
    job = service.start(
        WITH_A_CHILD, {"on": "SIGINT", "do": [DONE, {"exit": 0}]}, say("awake"), HANG
    )
    with service.sent("GET", f"/jobs/{job}/events") as answer:
        tree = tree_in(event for _, event in told(answer))
        # uvicorn ends as the signal would have ended it, after all is over.
        assert terminate(service.process) in {0, -signal.SIGTERM}
    tree.wait_gone()
    (run,) = run_folders(service.folder)
    last = events_of(run)[-1]
    assert last["type"] == "run.finished"
    outcome: Any = last["outcome"]
    assert outcome["status"] == "interrupted"
    assert outcome["error"]["text"] == "the supervisor's block was left"


def test_a_service_that_is_killed_takes_its_agents_along(tmp_path: Path) -> None:
    with serving(tmp_path) as service:
        job = service.start(WITH_A_CHILD, say("awake"), HANG)
        with service.sent("GET", f"/jobs/{job}/events") as answer:
            tree = tree_in(event for _, event in told(answer))
            service.process.kill()
    tree.wait_gone()
