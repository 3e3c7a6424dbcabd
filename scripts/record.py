"""Records what a real CLI says: scripts/record ADAPTER [CASE ...]; without a case, all of them.

Each case of tests/recordings/ADAPTER/cases.yaml runs in a fresh git repository below a neutral
folder, with fake keys and no environment of ours, on a scripted model. Kept are stdout, stderr, the
tails and a .meta.json. Exits with 1 if an outcome is not what the case expects.
"""

import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
import tomllib
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field, replace
from importlib.metadata import entry_points
from pathlib import Path
from typing import Literal

import orjson
import yaml
from anyio.from_thread import start_blocking_portal
from pydantic import BaseModel, ConfigDict, JsonValue

from orchestrator.adapter import (
    About,
    Adapter,
    Agent,
    Command,
    Conversation,
    Exit,
    Program,
    Send,
)
from orchestrator.events import Changes, SessionStarted, Status, Update, Usage
from orchestrator.outcome import Digest, Facts, decide
from orchestrator.task import Access, Kind, LimitsModel, Task
from orchestrator.testing import ModelServer, model_server
from orchestrator.usage import add

ROOT = Path(__file__).resolve().parent.parent
RECORDINGS = ROOT / "tests/recordings"
# Not below TMPDIR: codex warns about a home there, and its sandbox lets commands write there.
SCENE = Path("/var/tmp/orchestrate-record")  # noqa: S108 (the same on every machine, on purpose)
PORT = "127.0.0.1:40404"
REFUSED = "http://127.0.0.1:9"
KEY_ENV, KEY = "RECORD_KEY", "sk-recorded-not-a-key"
GIT = ("git", "-c", "user.name=Recorder", "-c", "user.email=recorder@example.com")


class Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Wanted(Part):
    """Fields of the task."""

    prompt: str = "Do it."
    kind: Kind | None = None
    access: Access | None = None
    files: tuple[str, ...] = ()
    session_id: str | None = None
    limits: LimitsModel = LimitsModel()


class Doer(Part):
    """Fields of the agent. `base_url` omitted: the scripted server; null: none.

    `config` is `FILE:AGENT`, whose options are taken; those in `options` come on top.
    """

    model: str | None = "scripted"
    server: str | None = None
    base_url: str | None = "scripted"
    api_key_env: str | None = None
    config: str | None = None
    options: dict[str, JsonValue] = {}


class Signal(Part):
    """Which signal, sent after stdout shows the text `after`, and `delay` seconds.

    `interrupt`: no signal, but the conversation's own.
    """

    name: Literal["SIGINT", "SIGTERM", "SIGKILL", "interrupt"]
    after: str
    delay: float = 0.5


class Case(Part):
    """One recording. `resumes`: a case that is played first, in the same home and workspace.

    In `env` and in the agent's options `{server}` stands for the scripted server's URL. `workspace`
    holds files by name, or is named: the files of tests/recordings/workspaces/NAME.yaml. `sources`
    are files of this project that stand there, too, as they are when it is recorded.
    """

    about: str
    expect: Status
    task: Wanted = Wanted()
    agent: Doer = Doer()
    workspace: dict[str, str] | str = {}
    sources: tuple[str, ...] = ()
    model: dict[str, JsonValue] = {"turns": []}
    signal: Signal | None = None
    resumes: str | None = None
    env: dict[str, str] = {}
    timeout: float = 100.0


@dataclass(kw_only=True)
class Scene:
    """Where a case plays."""

    folder: Path
    home: Path = field(init=False)
    workspace: Path = field(init=False)

    def __post_init__(self) -> None:
        self.home, self.workspace = self.folder / "home", self.folder / "workspace"

    def set_up(self, files: Mapping[str, str]) -> None:
        shutil.rmtree(self.folder, ignore_errors=True)
        for folder in (self.home, self.workspace, self.folder / "user"):
            folder.mkdir(parents=True)
        for name, content in {"README.md": "A place to try things.\n", **files}.items():
            path = self.workspace / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(content)
        for words in (("init", "-q", "-b", "main"), ("add", "-A"), ("commit", "-qm", "Begin")):
            subprocess.run((*GIT, *words), cwd=self.workspace, check=True)

    def changes(self) -> Changes:
        """What is not committed, with its untracked files."""
        status = subprocess.run(
            (*GIT, "status", "--porcelain", "-uall", "-z"),
            cwd=self.workspace,
            check=True,
            capture_output=True,
        )
        files = [entry[3:] for entry in status.stdout.decode().split("\0") if entry]
        return Changes(files=sorted(files), insertions=0, deletions=0)


@dataclass(kw_only=True)
class Take:
    """One run of the CLI, and what the adapter makes of it."""

    task: Task
    agent: Agent
    before: Usage | None
    stdout: bytes
    stderr: bytes
    tail: bytes
    exit: Exit
    changes: Changes
    requests: int

    def updates(self, adapter: Adapter) -> Iterator[Update]:
        conversation = adapter.conversation(self.task, self.agent, self.before)
        for line in (*_lines(self.stdout), *_lines(self.tail)):
            for said in conversation.feed(line):
                if not isinstance(said, Send):
                    yield said
        yield from conversation.close(self.exit)

    def status(self, adapter: Adapter) -> tuple[Status, str]:
        digest = Digest()
        for update in self.updates(adapter):
            digest.add(update)
        facts = Facts(
            task=self.task,
            digest=digest,
            exit=self.exit,
            changes=self.changes,
        )
        outcome = decide(facts)
        return outcome.status, outcome.error.text if outcome.error else ""


def main(arguments: list[str]) -> int:
    if not arguments:
        print(__doc__)
        return 2
    name, *wanted = arguments
    cases = load(RECORDINGS / name / "cases.yaml")
    if unknown := [case for case in wanted if case not in cases]:
        print(f"no case {', '.join(unknown)}; there are: {', '.join(cases)}")
        return 2
    adapter: Adapter = entry_points(group="orchestrator.adapters")[name].load()
    wrong = 0
    for case in wanted or cases:
        began = time.monotonic()
        take = play(name, adapter, cases, case)
        keep(name, adapter, case, cases[case], take)
        status, why = take.status(adapter)
        if status == cases[case].expect:
            # A session that stays there is read again by whoever recovers the recorded run.
            shutil.rmtree(SCENE / name / case)
        wrong += status != cases[case].expect
        verdict = "ok" if status == cases[case].expect else f"EXPECTED {cases[case].expect}"
        seconds = time.monotonic() - began
        print(f"{case:28} {status:18} {verdict}  ({seconds:.1f} s, {take.requests} requests) {why}")
    return 1 if wrong else 0


def load(file: Path) -> dict[str, Case]:
    """The cases of a file, by name."""
    given = yaml.safe_load(file.read_text())
    return {name: _configured(Case.model_validate(case)) for name, case in given.items()}


def _configured(case: Case) -> Case:
    """The case with the options of the agent that it names from a configuration file."""
    if case.agent.config is None:
        return case
    file, _, name = case.agent.config.partition(":")
    agent = tomllib.loads((ROOT / file).read_text())["agents"][name]
    common = {"adapter", "tier", "profile", *Doer.model_fields}
    options = {key: value for key, value in agent.items() if key not in common}
    options |= case.agent.options
    return case.model_copy(update={"agent": case.agent.model_copy(update={"options": options})})


def _files(case: Case) -> dict[str, str]:
    """The files of a case's workspace, by name."""
    files = {name: (ROOT / name).read_text() for name in case.sources}
    if isinstance(case.workspace, dict):
        return files | case.workspace
    named = yaml.safe_load((RECORDINGS / f"workspaces/{case.workspace}.yaml").read_text())
    return files | {name: str(content) for name, content in named.items()}


def play(name: str, adapter: Adapter, cases: Mapping[str, Case], which: str) -> Take:
    """Runs a case, and before it the one that it resumes."""
    case = cases[which]
    scene = Scene(folder=SCENE / name / which)
    scene.set_up(_files(case))
    if case.resumes is None:
        return run(name, adapter, case, scene, case.task.session_id, None)
    first = run(name, adapter, cases[case.resumes], scene, None, None)
    updates = list(first.updates(adapter))
    session = next(update for update in updates if isinstance(update, SessionStarted))
    used = [update for update in updates if isinstance(update, Usage)]
    return run(name, adapter, case, scene, session.session_id, _added(used))


def run(
    name: str,
    adapter: Adapter,
    case: Case,
    scene: Scene,
    session_id: str | None,
    before: Usage | None,
) -> Take:
    """Runs the CLI once."""
    with ExitStack() as stack:
        portal = stack.enter_context(start_blocking_portal())
        server = stack.enter_context(portal.wrap_async_context_manager(model_server(case.model)))
        url = {"scripted": server.base_url, "refused": REFUSED}
        agent = Agent(
            name=name,
            adapter=name,
            model=case.agent.model,
            server=case.agent.server,
            base_url=url.get(case.agent.base_url or "", case.agent.base_url),
            api_key_env=case.agent.api_key_env,
            tier="local" if case.agent.base_url else "cloud",
            options=orjson.loads(_filled(orjson.dumps(case.agent.options).decode(), server)),
            home=str(scene.home),
        )
        agent = _placed(agent, about(adapter, agent))
        task = Task(
            prompt=case.task.prompt,
            kind=case.task.kind,
            access=case.task.access,
            files=case.task.files,
            limits=case.task.limits.limits(),
            workspace=scene.workspace,
            session_id=session_id,
            home=scene.home if session_id else None,
        )
        command = adapter.command(task, agent)
        extra = {key: _filled(value, server) for key, value in case.env.items()}
        sizes = {path: path.stat().st_size for path in _tail_files(command)}
        conversation = adapter.conversation(task, agent, before)
        exit_ = _perform(command, conversation, case, scene, extra)
        scrub = _scrubber(scene, server.base_url)
        stderr = scrub((scene.folder / "stderr").read_bytes())
        return Take(
            task=task,
            agent=agent,
            before=before,
            stdout=scrub((scene.folder / "stdout").read_bytes()),
            stderr=stderr,
            tail=scrub(_tail(command, sizes)),
            exit=replace(exit_, stderr=stderr.decode()),
            changes=scene.changes(),
            requests=len(server.requests),
        )


def _filled(text: str, server: ModelServer) -> str:
    return text.replace("{server}", server.base_url)


def about(adapter: Adapter, agent: Agent) -> About:
    """What the CLI is; with some adapters that depends on the agent."""
    depends = getattr(adapter, "about_for", None)
    said: About = adapter.about if depends is None else depends(agent)
    return said


def _placed(agent: Agent, what: About) -> Agent:
    """The agent with its program, from the environments that scripts/setup makes."""
    if what.program is None:
        return agent
    folders = [ROOT / ".venv/bin", *(ROOT / ".venv/agents").glob("*/bin")]
    folders += (ROOT / ".venv/agents").glob("*/node_modules/.bin")
    path = os.pathsep.join([*map(str, folders), os.environ["PATH"]])
    found = shutil.which(what.program.name, path=path)
    if found is None:
        sys.exit(f"{what.program.name} is not installed: {what.install_hint}")
    return replace(agent, program=_native(Path(found).resolve().parent, what.program, found))


def _native(folder: Path, program: Program, wrapper: str) -> str:
    """The real binary behind a wrapper, as the core finds it."""
    for pattern in program.natives:
        base, rest = folder, pattern
        while rest.startswith("../"):
            base, rest = base.parent, rest.removeprefix("../")
        for path in sorted(base.glob(rest)):
            return str(path)
    return wrapper


def _perform(
    command: Command,
    conversation: Conversation,
    case: Case,
    scene: Scene,
    extra: Mapping[str, str],
) -> Exit:
    """Starts the command, sends the case's signal, waits, and ends whatever is left."""
    dismissed = False
    token = f"{scene.folder}:{os.getpid()}"
    env = {
        "PATH": "/usr/local/bin:/usr/bin:/bin",
        "HOME": str(scene.folder / "user"),
        "LANG": "C.UTF-8",
        "ORCHESTRATE_RECORDING": token,
        **extra,
        **command.env,
        **{name: KEY for name, source in command.env_from.items() if source == KEY_ENV},
    }
    for name, content in command.files.items():
        Path(name).parent.mkdir(parents=True, exist_ok=True)
        Path(name).write_bytes(content)
    spoken = command.stdin == "open"
    (scene.folder / "stdin").write_bytes(b"" if command.stdin == "open" else command.stdin or b"")
    try:
        with (
            (scene.folder / "stdin").open("rb") as stdin,
            (scene.folder / "stdout").open("wb") as stdout,
            (scene.folder / "stderr").open("wb") as stderr,
            subprocess.Popen(
                command.argv,
                cwd=command.cwd,
                env=env,
                stdin=subprocess.PIPE if spoken else stdin,
                stdout=stdout,
                stderr=stderr,
                start_new_session=True,
            ) as process,
        ):
            try:
                if spoken:
                    dismissed = _converse(process, conversation, case, scene.folder / "stdout")
                elif case.signal is not None:
                    _signal(process, case.signal, scene.folder / "stdout", case.timeout)
                status = process.wait(case.timeout)
            except (subprocess.TimeoutExpired, TimeoutError):
                process.kill()
                sys.exit(f"{scene.folder.name}: not over after {case.timeout:g} s")
    finally:
        _sweep(token)
    if status >= 0:
        return Exit(status=status, dismissed=dismissed)
    return Exit(signal=-status, dismissed=dismissed)


def _converse(
    process: subprocess.Popen[bytes], conversation: Conversation, case: Case, stdout: Path
) -> bool:
    """Answers what the CLI says, and sends the case's signal, until it ends. Whether it had to be
    ended although its work was over.
    """
    dismissed = False
    end = time.monotonic() + case.timeout
    pending = case.signal
    seen, rest = 0, b""
    _say(process, conversation.start())
    leave: float | None = None
    while process.poll() is None:
        if leave is not None and time.monotonic() > leave:
            process.terminate()  # as the supervisor does
            leave, dismissed = None, True
        if time.monotonic() > end:
            raise TimeoutError
        text = stdout.read_bytes()
        *lines, rest = (rest + text[seen:]).split(b"\n")
        seen = len(text)
        for line in lines:
            for said in conversation.feed(line):
                _say(process, (said,))
                if isinstance(said, Send) and said.leave_s is not None:
                    leave = time.monotonic() + said.leave_s
        if pending is not None and pending.after.encode() in text:
            time.sleep(pending.delay)
            if pending.name == "interrupt":
                _say(process, conversation.interrupt())
            else:
                process.send_signal(signal.Signals[pending.name])
            pending = None
        time.sleep(0.02)
    return dismissed


def _say(process: subprocess.Popen[bytes], said: Iterable[Update | Send]) -> None:
    pipe = process.stdin
    for one in said:
        if isinstance(one, Send) and pipe is not None and not pipe.closed:
            try:
                pipe.write(one.data)
                pipe.flush()
                if one.end:
                    pipe.close()
            except BrokenPipeError:
                pass  # it does not read any more


def _signal(process: subprocess.Popen[bytes], wanted: Signal, stdout: Path, limit: float) -> None:
    end = time.monotonic() + limit
    while wanted.after.encode() not in stdout.read_bytes():
        if process.poll() is not None or time.monotonic() > end:
            raise TimeoutError
        time.sleep(0.02)
    time.sleep(wanted.delay)
    process.send_signal(signal.Signals[wanted.name])


def _sweep(token: str) -> None:
    """Kills what the CLI left behind: its tools have sessions of their own, but our variable."""
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            if f"ORCHESTRATE_RECORDING={token}\0".encode() in (entry / "environ").read_bytes():
                os.kill(int(entry.name), signal.SIGKILL)
        except OSError:
            pass  # gone, or not ours


def _tail_files(command: Command) -> list[Path]:
    found = [path for tail in command.tails for path in Path(tail.folder).glob(tail.pattern)]
    return sorted(set(found))


def _tail(command: Command, sizes: Mapping[Path, int]) -> bytes:
    """What the CLI added to the files that a command follows: the lines that are asked for."""
    kept: list[bytes] = []
    for path in _tail_files(command):
        asked = [tail.containing for tail in command.tails if path.match(tail.pattern)]
        lines = path.read_bytes()[sizes.get(path, 0) :].split(b"\n")
        kept += [line + b"\n" for line in lines if any(text in line for text in asked)]
    return b"".join(kept)


def _scrubber(scene: Scene, server: str) -> Callable[[bytes], bytes]:
    """Puts one port in the place of the server's and one folder in that of the agents', and fails
    on what tells of this machine.
    """
    agents = str((ROOT / ".venv/agents").resolve()).encode()
    port = server.removeprefix("http://").encode()
    telling = [str(ROOT).encode(), str(Path.home()).encode() + b"/", socket.gethostname().encode()]

    def scrub(text: bytes) -> bytes:
        text = text.replace(port, PORT.encode()).replace(agents, b"/opt/agents")
        for word in telling:
            if re.search(rb"(?<![\w.-])" + re.escape(word), text):
                sys.exit(f"{scene.folder.name}: the output tells of this machine: {word.decode()}")
        return text

    return scrub


def keep(name: str, adapter: Adapter, which: str, case: Case, take: Take) -> None:
    """Writes the recording."""
    version = _version(take.agent, about(adapter, take.agent))
    # An adapter that speaks for several CLIs has a folder for each.
    title = about(adapter, take.agent).title
    folder = f"{title}-{version}" if title != adapter.about.title else version
    base = RECORDINGS / name / folder / which
    base.parent.mkdir(parents=True, exist_ok=True)
    base.with_name(f"{which}.jsonl").write_bytes(take.stdout)
    base.with_name(f"{which}.stderr").write_bytes(take.stderr)
    tail = base.with_name(f"{which}.tail.jsonl")
    tail.unlink(missing_ok=True)
    if take.tail:
        tail.write_bytes(take.tail)
    meta = {
        "adapter": name,
        "version": version,
        "case": which,
        "about": case.about,
        "task": {
            **case.task.model_dump(exclude_defaults=True),
            "prompt": case.task.prompt,
            "workspace": str(take.task.workspace),
            "session_id": take.task.session_id,
        },
        "agent": {
            "name": name,
            "adapter": name,
            **case.agent.model_dump(exclude_defaults=True),
            "model": case.agent.model,
            "base_url": _shown(case.agent.base_url),
        },
        "before": asdict(take.before) if take.before else None,
        "signal": case.signal.model_dump() if case.signal else None,
        "exit": {
            "status": take.exit.status,
            "signal": take.exit.signal,
            **({"dismissed": True} if take.exit.dismissed else {}),
        },
        "changed": take.changes.files,
        "expected": case.expect,
    }
    text = orjson.dumps(meta, option=orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE)
    base.with_name(f"{which}.meta.json").write_bytes(text)


def _shown(base_url: str | None) -> str | None:
    return {"scripted": f"http://{PORT}", "refused": REFUSED}.get(base_url or "", base_url)


def _version(agent: Agent, what: About) -> str:
    argv = (agent.program or what.name, *what.version_argv)
    said = subprocess.run(argv, check=True, capture_output=True, text=True).stdout
    found = re.search(r"\d+\.\d+[\w.+-]*", said)
    return found[0] if found else "unknown"


def _lines(text: bytes) -> list[bytes]:
    return [line for line in text.split(b"\n") if line]


def _added(parts: list[Usage]) -> Usage | None:
    whole: Usage | None = None
    for part in parts:
        whole = add(whole, part)
    return whole


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
