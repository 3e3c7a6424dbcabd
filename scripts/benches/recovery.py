"""scripts/bench recovery: kill -9 of a real supervisor of several agents, of its reaper or of its
guard at random moments, then recovery: 0 events lost, 0 twice, in order.

What is on record is compared with what the agents wrote: their raw output, and a tally that each
keeps for itself. Agents end by themselves, too, and the next ones begin, so that a kill meets every
part of a run. In every fifth kill they work in work trees of their own, which must be listed and
saved. Exits with 1 if anything is missing, double or out of order, if anything lives on, or if a
run or job is not over.
"""

import argparse
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path

import anyio
import orjson

from adapters.jsonl import adapter
from orchestrator.adapter import Agent
from orchestrator.config import Config
from orchestrator.events import Event, Message, Outcome, Output, RunFinished
from orchestrator.journal import (
    JOB,
    STDERR,
    STDOUT,
    list_runs,
    read_events,
    read_outcome,
    read_record,
    running,
    runs_by_job,
)
from orchestrator.process import open_reaper
from orchestrator.run.recovery import recover
from orchestrator.supervisor import Supervisor
from orchestrator.supervisor.recovery import recover_job
from orchestrator.task import Limits, Task
from orchestrator.workspace.remains import Desk, look_into, prune
from scripts.benches.faults import (
    NOBODY,
    children,
    interpreter_of,
    living,
    new_mark,
    told,
    until_none,
)

ROOT = Path(__file__).parent.parent.parent
# Lines in one piece and in two, some to stderr; the tally is written after the line.
AGENT = (
    "use Time::HiRes 'time'; my ($tallies, $lines, $pause) = @ARGV; "
    "open(my $tally, '>', qq($tallies/$ENV{ORCHESTRATE_RUN_ID})) or die; srand($$); "
    "my $last = $lines eq 'endless' ? 1e5 : 1 + int(rand($lines)); my $until = time + 300; "
    "for my $n (1..$last) { "
    '  my $line = qq({"say": "$n"}\\n); my $cut = $n % 3 ? 0 : 7; '
    "  syswrite(STDOUT, substr($line, 0, $cut)) if $cut; syswrite(STDOUT, substr($line, $cut)); "
    "  syswrite(STDERR, qq(note $n\\n)) unless $n % 10; "
    "  sysseek($tally, 0, 0); syswrite($tally, $n); "
    "  if ($n == 5) { open(my $work, '>', 'work.txt'); print $work $n } "
    "  select(undef, undef, undef, rand(2 * $pause)); last if time > $until } "
    'syswrite(STDOUT, qq({"end": 1}\\n))'
)
RULES = [
    {"emit": "message", "when": {"say": {"exists": True}}, "text": "$.say"},
    {"emit": "turn.finished", "when": {"end": 1}, "stop_reason": "end_turn"},
]


def configuration(place: Path, mark: str, lines: str, pause: float) -> Config:
    argv = ["perl", "-e", AGENT, str(place / "tallies"), lines, str(pause), mark]
    return Config(
        agents=(Agent(name="small", adapter="jsonl", options={"argv": argv, "events": RULES}),),
        adapters={"jsonl": adapter},
        state=place / "state",
        limits=Limits(wall_s=3600, stall_s=3600),
        environ={"PATH": "/usr/bin:/bin"},
    )


# --- the supervisor that is killed ---------------------------------------------------------------


async def host(config: Config, agents: int, work: Path) -> None:
    """As a program: so many agents at any time; says when it begins, when the first speaks and when
    all have started.
    """
    seen_so_far: Counter[str] = Counter()

    def seen(event: Event) -> None:
        kind = event.update.type
        seen_so_far[kind] += 1
        if kind == "process.spawned" and seen_so_far[kind] == agents:
            print(ALL_STARTED, flush=True)
        if kind == "message" and seen_so_far[kind] == 1:
            print(SPEAKS, flush=True)

    task = Task(prompt="p", workspace=work, kind="edit" if (work / ".git").exists() else "search")

    async def one_after_another(supervisor: Supervisor) -> None:
        while True:
            await supervisor.run(task, seen)

    async with Supervisor(config) as supervisor, anyio.create_task_group() as group:
        print(BEGINS, flush=True)
        for _ in range(agents):
            group.start_soon(one_after_another, supervisor)


@dataclass(frozen=True, kw_only=True)
class Blow:
    """What is killed, and when: seconds `after` what the supervisor said. After guard or reaper the
    supervisor follows, `later`.
    """

    victim: str
    after: float
    said: str
    later: float = 0.0


GONE_S = 2.0
BEGINS, SPEAKS, ALL_STARTED = "begins", "an agent speaks", "all have started"


@dataclass(frozen=True, kw_only=True)
class Host:
    """How a supervisor is started: `agents` at a time, each with a `pause` between lines; as a user
    without rights (`nobody`), with at most so many open `files`.
    """

    agents: int
    pause: float
    files: int | None = None
    nobody: bool = False


def killed(place: Path, mark: str, host: Host, blow: Blow) -> int:
    """Kill, and the supervisor in any case; how many processes of agents there were."""
    interpreter, env = interpreter_of(NOBODY if host.nobody else None)
    limit = () if host.files is None else ("prlimit", f"--nofile={host.files}:{host.files}")
    argv = [*limit, *interpreter, "-m", __spec__.name, "--host", mark, str(place)]
    argv += ["--agents", str(host.agents), "--pause", str(host.pause)]
    argv += ["--together"] if blow.said == ALL_STARTED else []
    with subprocess.Popen(argv, stdout=subprocess.PIPE, cwd=ROOT, env=env) as started:
        wanted = f"{blow.said}\n".encode()
        if started.stdout is None or wanted not in iter(started.stdout.readline, b""):
            raise RuntimeError("the supervisor did not get as far as to be killed")
        time.sleep(blow.after)
        there = len(living(mark)) - 1  # the host itself names the mark, too
        if blow.victim != "supervisor":
            (guard,) = children(started.pid)
            (reaper,) = children(guard)
            os.kill(guard if blow.victim == "guard" else reaper, signal.SIGKILL)
            time.sleep(blow.later)
        os.kill(started.pid, signal.SIGKILL)
    return there


# --- what is on record ---------------------------------------------------------------------------


def recovered(config: Config) -> None:
    """As `orchestrate runs recover --all` does."""
    runs = config.state / "runs"
    for folder in list_runs(runs):
        recover(folder, config)
    made = runs_by_job(runs)
    for record in (config.state / "jobs").glob(f"*/{JOB}"):
        recover_job(record.parent, runs, made.get(record.parent.name, ()))


def wrong(place: Path, folder: Path) -> list[str]:
    """What is not as it should be with the record of a run."""
    events = list(read_events(folder))
    found: list[str] = []
    if [event.seq for event in events] != list(range(1, len(events) + 1)):
        found.append("out of order")
    ends = [event for event in events if isinstance(event.update, RunFinished)]
    outcome = read_outcome(folder)
    if ends != events[-1:] or outcome is None or running(folder):
        found.append(f"{len(ends)} ends, {'running' if running(folder) else 'not running'}")
    elif outcome.status not in {"succeeded", "interrupted"} and not _came_to_its_end(outcome):
        found.append(f"it is {outcome.status}")
    said = [event.update.text or "" for event in events if isinstance(event.update, Message)]
    found += compared("line", said, written(folder))
    notes = [
        event.update.text
        for event in events
        if isinstance(event.update, Output) and event.update.stream == STDERR
    ]
    raw = (folder / STDERR).read_text() if (folder / STDERR).exists() else ""
    found += compared("note", notes, raw.splitlines())
    tally = place / "tallies" / folder.name
    kept = int(tally.read_text() or 0) if tally.exists() else 0
    if len(said) not in {kept, kept + 1}:
        found.append(f"the agent counted {kept} lines, {len(said)} are on record")
    return found


def _came_to_its_end(outcome: Outcome) -> bool:
    """Whether the agent was done before the blow: it only speaks, so that it changed nothing."""
    return outcome.error is not None and outcome.error.kind == "no_change"


def written(folder: Path) -> list[str]:
    """What the agent said, by its raw output: numbers from 1."""
    found: list[str] = []
    lines = (folder / STDOUT).read_bytes().split(b"\n") if (folder / STDOUT).exists() else []
    for line in lines:
        try:
            found.append(orjson.loads(line)["say"])
        except (ValueError, KeyError):  # a torn last line, or the end
            continue
    return found


def compared(what: str, ours: Sequence[str], theirs: Sequence[str]) -> list[str]:
    lost = Counter(theirs) - Counter(ours)
    double = Counter(ours) - Counter(theirs)
    if lost or double:
        return [f"{lost.total()} {what}(s) lost, {double.total()} twice"]
    return [] if list(ours) == list(theirs) else [f"{what}s out of order"]


async def of_trees(config: Config) -> list[str]:
    """What is not as it should be with work trees: each is listed, and goes when it is saved."""
    found: list[str] = []
    async with open_reaper() as reaper:
        desk = Desk(reaper=reaper, state=config.state, environ=config.environ)
        for folder in list_runs(config.state / "runs"):
            tree = read_record(folder).tree
            remain = await look_into(desk, folder)
            if tree is not None and tree.path.exists() != (remain is not None):
                found.append(f"{folder.name}: its work tree is not listed")
            elif remain is not None and "cannot be told" in remain.holds:
                found.append(f"{folder.name}: {remain.holds}")
        remains = await prune(desk)
    # One that was just being made has no record yet; it goes when it is old enough.
    kept = [one for one in remains if not (one.removed or one.holds.startswith("no run yet"))]
    return found + [f"{remain.what} stays: {remain.holds}" for remain in kept]


def made(folder: Path, *, repository: bool) -> None:
    """A folder to work in."""
    folder.mkdir()
    if repository:
        (folder / "a.txt").write_text("a\n")
        git = ("git", "-C", str(folder), "-c", "user.name=u", "-c", "user.email=u@example.com")
        for words in (("init", "-q", "-b", "main"), ("add", "-A"), ("commit", "-qm", "Begin")):
            subprocess.run([*git, *words], check=True)


def once(host: Host, blow: Blow, *, trees: bool = False) -> tuple[Counter[str], float]:
    """Kill and recover once: what there was, and how long recovery took."""
    mark = new_mark()
    with tempfile.TemporaryDirectory() as name:
        place = Path(name)
        (place / "tallies").mkdir()
        made(place / "work", repository=trees)
        for folder in (place, place / "tallies", place / "work"):
            folder.chmod(0o777)
        config = configuration(place, mark, "0", host.pause)
        seen = Counter(processes=killed(place, mark, host, blow))
        left, seen_for = until_none(mark, 30)
        seen["left"] = left
        print(f"  {blow}: {left} processes left after {seen_for:.2f} s", flush=True)
        seen["late"] = seen_for > GONE_S
        began = time.monotonic()
        recovered(config)
        seconds = time.monotonic() - began
        problems = [
            f"{folder.name}: {text}"
            for folder in list_runs(config.state / "runs")
            for text in wrong(place, folder)
        ]
        problems += [
            f"job {record.parent.name} is not over"
            for record in (config.state / "jobs").glob(f"*/{JOB}")
            if read_outcome(record.parent) is None
        ]
        problems += anyio.run(of_trees, config) if trees else []
        for text in problems:
            print(f"  {text}", flush=True)
        seen["wrong"] = len(problems)
        for folder in list_runs(config.state / "runs"):
            outcome = read_outcome(folder)
            seen["runs"] += 1
            seen["cut off"] += outcome is not None and outcome.status == "interrupted"
            seen["lines"] += len(written(folder))
    return seen, seconds


VICTIMS = ("supervisor", "reaper", "guard")


def blows(kills: int, *, span: float, seed: int, victim: str) -> list[Blow]:
    """So many, each at a random moment of `span` seconds."""
    chance = random.Random(seed)
    return [
        Blow(
            victim=VICTIMS[number % len(VICTIMS)] if victim == "any" else victim,
            after=round(chance.uniform(0, span), 4),
            said=BEGINS if number % 2 else SPEAKS,
            later=round(chance.uniform(0, span), 4),
        )
        for number in range(kills)
    ]


def killed_and_recovered(
    kills: int, host: Host, *, span: float, seed: int, victim: str = "any", at_once: int = 1
) -> bool:
    """So many supervisors, each hit at a random moment of its first `span` seconds; `at_once` side
    by side, for each spends most of its time on waiting.
    """
    print(f"seed {seed}", flush=True)
    total, slowest = Counter[str](), 0.0
    with ThreadPoolExecutor(at_once) as threads:
        done = [
            threads.submit(once, host, blow, trees=number % 5 == 4 and not host.nobody)
            for number, blow in enumerate(blows(kills, span=span, seed=seed, victim=victim))
        ]
        for each in as_completed(done):
            seen, seconds = each.result()
            total += seen
            slowest = max(slowest, seconds)
    name = f"{kills} kills ({', '.join(VICTIMS) if victim == 'any' else victim})"
    return result(f"{name}, {host.agents} agents each", total, slowest) and total["lines"] > 0


def all_together(host: Host) -> bool:
    """One supervisor, killed a second after the last of its agents has started; they
    may outlive it by `GONE_S`.
    """
    seen, seconds = once(host, Blow(victim="supervisor", after=1.0, said=ALL_STARTED))
    limited = host.nobody or host.files is not None  # then slower is fine, wrong is not
    good = seen["cut off"] >= host.agents and not (seen["late"] and not limited)
    return result(f"kill of a supervisor of {host}", seen, seconds) and good


def result(name: str, seen: Counter[str], seconds: float) -> bool:
    figures = (
        f"{seen['runs']} runs ({seen['cut off']} cut off), {seen['lines']} lines, "
        f"{seen['wrong']} things wrong (bar 0), {seen['left']} processes left (bar 0), "
        f"slowest recovery {seconds:.2f} s"
    )
    good = (seen["wrong"], seen["left"]) == (0, 0) and seen["cut off"] > 0
    return told(f"{name}: {figures}", good=good)


def main(arguments: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(prog="scripts/bench recovery", description=__doc__)
    parser.add_argument("--kills", type=int, default=100, metavar="N", help="how many (100)")
    parser.add_argument("--agents", type=int, default=6, metavar="N", help="at any time (6)")
    parser.add_argument("--span", type=float, default=1.5, metavar="S", help="of moments (1.5)")
    parser.add_argument("--seed", type=int, metavar="N", help="of the moments (by chance)")
    parser.add_argument("--victim", choices=("any", *VICTIMS), default="any", help="(any)")
    parser.add_argument("--at-once", type=int, default=4, metavar="N", help="side by side (4)")
    parser.add_argument("--pause", type=float, metavar="S", help="between lines (0.002)")
    parser.add_argument(
        "--together",
        action="store_true",
        help="kill once, when all have started: for --agents 1000",
    )
    parser.add_argument("--files", type=int, metavar="N", help="with RLIMIT_NOFILE=N")
    parser.add_argument("--nobody", action="store_true", help="as a user without rights")
    parser.add_argument("--host", nargs=2, help=argparse.SUPPRESS)
    asked = parser.parse_args(arguments)
    pause = asked.pause or (0.2 if asked.together else 0.002)
    if asked.host:
        mark, place = asked.host[0], Path(asked.host[1])
        lines = "endless" if asked.together else "400"
        anyio.run(host, configuration(place, mark, lines, pause), asked.agents, place / "work")
    of = Host(agents=asked.agents, pause=pause, files=asked.files, nobody=asked.nobody)
    if asked.together:
        return 0 if all_together(of) else 1
    seed = random.randrange(10**6) if asked.seed is None else asked.seed
    good = killed_and_recovered(
        asked.kills,
        of,
        span=asked.span,
        seed=seed,
        victim=asked.victim,
        at_once=asked.at_once,
    )
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
