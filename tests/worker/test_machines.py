"""Several machines: workers with names and networks of their own, and one PostgreSQL."""

import base64
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from orchestrator.events import Changes, JobOutcome
from orchestrator.task import Source, Task
from orchestrator.worker.client import Client
from orchestrator.worker.machine import repositories
from scripts.benches.cluster import Cluster
from tests.worker.scene import AGENTS, ORCHESTRATE, Scene, scene, until

pytestmark = [pytest.mark.anyio, pytest.mark.timeout(200)]

ENTER = ("unshare", "--net", "--uts")
START = """
import os, socket, sys
socket.sethostname(sys.argv[1])
os.execv(sys.argv[2], sys.argv[2:])
"""


@dataclass
class Machine:
    """A folder of its own, and a network with nothing in it but a loopback that is down."""

    name: str
    folder: Path
    url: str
    scene: Scene

    def argv(self, *words: str) -> list[str]:
        return [*ENTER, sys.executable, "-c", START, self.name, ORCHESTRATE, *words]

    @property
    def environ(self) -> dict[str, str]:
        return {
            "PATH": os.environ["PATH"],
            "HOME": str(self.folder),
            "ORCHESTRATE_STATE_DIR": str(self.folder / "state"),
            "ORCHESTRATE_CONFIG": str(self.folder / "orchestrate.toml"),
            "ORCHESTRATE_QUEUE_DATABASE": self.url,
        }

    def said(self, *words: str) -> str:
        done = subprocess.run(
            self.argv(*words),
            env=self.environ,
            cwd=self.folder,
            capture_output=True,
            text=True,
            timeout=90,
        )
        assert done.returncode == 0, done.stderr
        return f"{done.stdout}{done.stderr}".strip()

    async def worker(self, *flags: str) -> "subprocess.Popen[bytes]":
        log = self.folder / "worker.log"
        with log.open("wb") as out:
            process = subprocess.Popen(
                self.argv("worker", *flags),
                env=self.environ,
                cwd=self.folder,
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=out,
            )
        self.scene.started.append(process)
        await until(lambda: b"takes jobs" in log.read_bytes() or process.poll() is not None)
        assert process.poll() is None, log.read_text()
        return process

    def runs(self) -> int:
        return len(list((self.folder / "state/runs").glob("*")))


@pytest.fixture
def fleet(tmp_path: Path, postgres: Cluster) -> Iterator[dict[str, Machine]]:
    if not shutil.which("unshare") or subprocess.run([*ENTER, "true"]).returncode:
        pytest.skip("no right to make a network and a name of one's own (unshare as root)")
    url = postgres.url()
    with scene(tmp_path, url) as ends:
        made = {}
        for name in ("desk", "attic"):
            folder = tmp_path / name
            (folder / "work").mkdir(parents=True)
            (folder / "orchestrate.toml").write_text(AGENTS)
            made[name] = Machine(name, folder, url, ends)
        with (made["attic"].folder / "orchestrate.toml").open("a") as file:
            file.write(AGENTS.replace("agents.shell", "agents.other"))
            file.write('[queue]\nlabels = ["gpu"]\n')
        yield made


@pytest.fixture
def origin(tmp_path: Path) -> Path:
    made = tmp_path / "made"
    made.mkdir()
    (made / "file.txt").write_text("one\n")
    for words in (
        ("init", "-q", "-b", "main"),
        ("add", "."),
        ("-c", "user.name=u", "-c", "user.email=u@localhost", "commit", "-qm", "first"),
    ):
        subprocess.run(["git", *words], cwd=made, check=True)
    subprocess.run(
        ["git", "clone", "-q", "--bare", str(made), str(tmp_path / "origin.git")], check=True
    )
    return tmp_path / "origin.git"


def anywhere(origin: Path, script: str, agent: str | None = "shell", **more: object) -> Task:
    source = Source(url=f"file://{origin}")
    return Task(prompt=f"{script}\n", agent=agent, kind="edit", source=source, **more)  # type: ignore[arg-type]


async def test_a_job_goes_only_where_it_can_run_and_says_what_it_waits_for(
    fleet: dict[str, Machine], origin: Path
) -> None:
    desk, attic = fleet["desk"], fleet["attic"]
    (desk.folder / "task.yaml").write_text(
        "agent: shell\nkind: search\nworkspace: work\nprompt: pwd > ../where; true\n"
    )
    at_desk = desk.said("submit", "task.yaml")
    await attic.worker()
    async with Client(desk.url) as client:

        async def why(job: str) -> str | None:
            return (await client.why_waiting([await client.entry(job)])).get(job)

        of_other = await client.submit(anywhere(origin, "echo two > file.txt", "other"))
        of_gpu = await client.submit(anywhere(origin, "echo two > file.txt", requires=("gpu",)))
        nowhere = await client.submit(anywhere(origin, "true", requires=("gpu", "site:mars")))
        for job in (of_other, of_gpu):
            assert (await client.wait(job)).status == "succeeded"
        assert attic.runs() == 2
        assert f"repository:file://{origin}" in repositories(attic.folder / "state")
        # The attic's worker is there, and has none of these.
        assert "\nwaits      no worker has 'host:desk" in desk.said("runs", "show", at_desk)
        assert f"{nowhere} waits: no worker has 'site:mars'" in desk.said("queue", "list")
        await desk.worker("--label", "site:mars")
        assert (await client.wait(at_desk)).status == "succeeded"
        assert (desk.folder / "where").read_text().strip() == str(desk.folder / "work")
        # Asked for once more from elsewhere, it goes to where its folder is all the same.
        again = await client.retry(at_desk)
        assert (await client.wait(again)).status == "succeeded"
        assert "together" in (await why(nowhere) or "")
        assert (await client.entry(nowhere)).state == "waiting"
        assert (attic.runs(), desk.runs()) == (2, 2)


async def test_the_work_of_another_machine_comes_back_and_its_limit_holds_over_all_queues(
    fleet: dict[str, Machine], origin: Path
) -> None:
    attic = fleet["attic"]
    count = attic.folder / "count"
    # One after the other, whatever they need: each of these waits in a queue of its own.
    script = (
        f"mkdir {count} || echo two > {count}.bad; sleep 0.3; rmdir {count}; echo two > file.txt"
    )
    async with Client(attic.url) as client:
        pushed, bundled, *others = [
            await client.submit(anywhere(origin, script, agent, requires=needs, deliver=how))
            for agent, needs, how in (
                ("shell", (), "push"),
                ("other", (), "bundle"),
                ("shell", ("gpu",), None),
                ("other", ("gpu",), None),
                (None, (), None),
            )
        ]
        worker = await attic.worker("--concurrency", "1")
        found = {job: changes_of(await client.wait(job)) for job in (pushed, bundled, *others)}
        assert not count.with_suffix(".bad").exists()
        # A worker that ends is not counted on any more.
        worker.send_signal(signal.SIGTERM)
        await until(lambda: worker.poll() is not None)
        assert await client.workers() == {}
        job = await client.submit(anywhere(origin, "true"))
        assert await client.why_waiting([await client.entry(job)]) == {job: "no worker is running"}
    shown = ["git", "show", f"{found[pushed].branch}:file.txt"]
    assert subprocess.check_output(shown, cwd=origin, text=True) == "two\n"
    delivered = found[bundled].delivered
    assert delivered is not None
    bundle = origin.with_name("work.bundle")
    bundle.write_bytes(base64.b64decode(delivered.content or ""))
    made = origin.with_name("made")
    spec = f"{found[bundled].branch}:got"
    subprocess.run(["git", "fetch", "-q", str(bundle), spec], cwd=made, check=True)
    shown = ["git", "show", "got:file.txt"]
    assert subprocess.check_output(shown, cwd=made, text=True) == "two\n"


def changes_of(outcome: JobOutcome) -> Changes:
    outcome.check()
    (task,) = outcome.tasks.values()
    assert task.changes is not None
    return task.changes
