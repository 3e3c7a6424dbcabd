"""scripts/bench queue: what the queue costs, side by side for SQLite and PostgreSQL; medians.

Enqueueing, an idle worker's CPU and memory, how soon a job begins, how late a follower is, how soon
a cancelled job's agent is gone, and how soon a killed worker's job is taken over.
"""

import argparse
import os
import resource
import signal
import statistics
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path

import anyio

from orchestrator.task import Task
from orchestrator.worker.client import Client
from scripts.bench import told
from scripts.benches.chaos import CONFIG, Plan, Workers, alive, databases

AGENT = """
read -r first
eval "$first"
echo '{"type": "said", "text": "ok"}'
echo '{"type": "done"}'
"""
TICK = os.sysconf("SC_CLK_TCK")
Measured = dict[str, float]


def _task(folder: Path, script: str, *, again: bool = False) -> Task:
    return Task(
        prompt=f"{script}\n",
        agent="chaos",
        kind="search",
        access="edit",
        workspace=folder,
        isolation="none",
        recovery="restart" if again else "none",
    )


async def _until(true: Callable[[], bool]) -> float:
    """Seconds until it is so."""
    began = time.perf_counter()
    while not true():  # noqa: ASYNC110 (of other processes, which tell nothing)
        await anyio.sleep(0.01)
    return time.perf_counter() - began


async def _enqueue_ms(client: Client, folder: Path, rounds: int) -> float:
    taken: list[float] = []
    for _ in range(max(20, rounds)):
        began = time.perf_counter()
        job = await client.submit(_task(folder, "true"), delay_s=3600)
        taken.append(time.perf_counter() - began)
        await client.cancel(job)
    return statistics.median(taken) * 1000


def _cpu_s(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / TICK


def _rss_mb(pid: int) -> float:
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * resource.getpagesize() / 2**20


async def _idle(pid: int, seconds: float) -> Measured:
    before = _cpu_s(pid)
    await anyio.sleep(seconds)
    return {"idle CPU %": 100 * (_cpu_s(pid) - before) / seconds, "idle MB": _rss_mb(pid)}


async def _begin_s(client: Client, folder: Path) -> float:
    mark = folder / f"begun-{time.monotonic_ns()}"
    await client.submit(_task(folder, f"touch {mark}"))
    return await _until(mark.exists)


async def _lag_ms(client: Client, folder: Path) -> float:
    """From an event's stamp to a follower's eyes."""
    line = '{"type": "said", "text": "x"}'
    script = f"for i in $(seq 20); do echo '{line}'; sleep 0.2; done"
    job = await client.submit(_task(folder, script))
    lags = [
        (datetime.now(UTC) - datetime.fromisoformat(one.event.time)).total_seconds()
        async for one in client.follow(job)
        if one.event.type == "message"
    ]
    return statistics.median(lags) * 1000


async def _cancel_s(client: Client, folder: Path) -> float:
    mark = f"7{time.monotonic_ns() % 10**8}.5"
    job = await client.submit(_task(folder, f"sleep {mark} & sleep {mark}"))
    await _until(lambda: alive(mark) >= 2)
    began = time.perf_counter()
    await client.cancel(job)
    await _until(lambda: not alive(mark))
    return time.perf_counter() - began


async def _takeover_s(client: Client, folder: Path, workers: Workers) -> float:
    """A second worker is there; the first, which has the job, is killed."""
    log = folder / f"ran-{time.monotonic_ns()}"
    script = f"echo x >>{log}; test $(wc -l <{log}) -gt 1 || sleep 600"
    job = await client.submit(_task(folder, script, again=True))
    await _until(log.exists)
    await _until(workers.ready)
    workers.kill((await client.entry(job)).worker or "")
    took = await _until(lambda: log.read_text().count("x") > 1)
    await client.wait(job)
    return took


async def _median(rounds: int, one: Callable[[], Awaitable[float]]) -> float:
    return statistics.median([await one() for _ in range(rounds)])


async def measured(folder: Path, url: str, rounds: int, idle_s: float) -> Measured:
    (folder / "agent.sh").write_text(AGENT)
    (folder / "orchestrate.toml").write_text(CONFIG.replace("AGENT", str(folder / "agent.sh")))
    async with Client(url) as client:
        found: Measured = {"enqueue ms": await _enqueue_ms(client, folder, rounds)}
        workers = Workers(folder, url, Plan(workers=2))
        try:
            pid = workers.start()
            await _begin_s(client, folder)
            found |= await _idle(pid, idle_s)
            found["begins s"] = await _median(rounds, lambda: _begin_s(client, folder))
            found["follow lag ms"] = await _lag_ms(client, folder)
            found["cancel s"] = await _median(rounds, lambda: _cancel_s(client, folder))
            workers.start()
            found["takeover s"] = await _median(
                rounds, lambda: _takeover_s(client, folder, workers)
            )
        finally:
            workers.end()
    return found


BARS = {
    "enqueue ms": 5.0,
    "idle CPU %": 2.0,
    "idle MB": 100.0,
    "follow lag ms": 100.0,
    "cancel s": 2.0,
    "takeover s": 2.0,
    "begins s": 2.0,
}


def main(argv: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(prog="scripts/bench queue", description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--idle", type=float, default=20.0, help="seconds of idling")
    parser.add_argument("--backend", choices=["sqlite", "postgresql"], help="default: both")
    flags = parser.parse_args(argv)
    kept = True
    for backend in [flags.backend] if flags.backend else ["sqlite", "postgresql"]:
        with tempfile.TemporaryDirectory() as scratch, databases(backend, Path(scratch)) as url:
            found = anyio.run(measured, Path(scratch), url, flags.rounds, flags.idle)
        for name, value in found.items():
            kept &= told(f"{backend}: {name} {value:.2f}", value, BARS[name])
    return 0 if kept else 1


if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.default_int_handler)
    sys.exit(main(sys.argv[1:]))
