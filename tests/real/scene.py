"""One real agent on a scripted model, under the real supervisor: for keys.py and access.py."""

import hashlib
import os
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

from adapters.gateway import gateway
from orchestrator.adapter import Adapter, Agent
from orchestrator.config import Config, load_config
from orchestrator.discovery import locate
from orchestrator.events import Event, Outcome, ToolCall
from orchestrator.supervisor import Ask, Supervisor
from orchestrator.task import Limits, Task
from orchestrator.testing import Request, model_server

Turns: TypeAlias = Sequence[Mapping[str, Any]]


@dataclass(frozen=True, kw_only=True)
class Played:
    """What came of a run: its outcome and events, what the model was asked, what it left unsaid."""

    outcome: Outcome
    events: list[Event]
    requests: list[Request]
    unsaid: int
    work: Path
    home: Path
    state: Path

    @property
    def output(self) -> str:
        """All that the agent's tools printed."""
        calls = (one.update for one in self.events if isinstance(one.update, ToolCall))
        return "".join(call.output or "" for call in calls)

    def recorded(self) -> bytes:
        """Every byte on record, the agent's private home included."""
        files = sorted(path for path in self.state.rglob("*") if path.is_file())
        return b"\n".join(path.read_bytes() for path in files)


def placed(tmp_path: Path) -> tuple[Path, Path]:
    """A work tree with one commit, and an empty home."""
    work, home = tmp_path / "work", tmp_path / "home"
    home.mkdir(exist_ok=True)
    if not work.exists():
        work.mkdir()
        (work / "hello.py").write_text("print('helo')\n")
        git = ["git", "-c", "user.name=T", "-c", "user.email=t@example.com"]
        for words in (["init", "-q"], ["add", "-A"], ["commit", "-qm", "Begin"]):
            subprocess.run([*git, *words], cwd=work, check=True)
    return work, home


async def play(
    adapter: Adapter,
    turns: Turns,
    tmp_path: Path,
    *,
    task: Mapping[str, Any] | None = None,
    environ: Mapping[str, str] | None = None,
    files: Mapping[str, str] | None = None,
    make: str = "any",
    ask: Ask | None = None,
    **agent: Any,
) -> Played:
    """Let the agent do a task while the model says `turns`. By default it is at a local server.

    `make` is the kind of server that the scripted one is like.
    `files` are put into the user's home. In them and in `environ`, SERVER stands for the server's
    address. `agent` are further fields of the Agent.
    """
    work, home = placed(tmp_path)
    events: list[Event] = []
    async with model_server({"model": "*", "server": make, "turns": list(turns)}) as server:
        fields: dict[str, Any] = {
            "model": "scripted",
            "base_url": server.base_url,
            "tier": "local",
            **agent,
        }
        given = {k: v.replace("SERVER", server.base_url) for k, v in (environ or {}).items()}
        for path, text in (files or {}).items():
            file = home / path
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(text.replace("SERVER", server.base_url))
        name = adapter.about.name
        config = Config(
            agents=(Agent(name="mine", adapter=name, **fields),),
            adapters={name: adapter},
            servers=load_config(environ={}, folder=home).servers,
            gateway=gateway,
            limits=Limits(wall_s=100),
            state=tmp_path / "state",
            agents_folder=tmp_path / "agents",
            environ={"PATH": os.environ["PATH"], "HOME": str(home), **given},
        )
        assert adapter.about.program is not None
        assert locate(adapter.about.program, config), f"scripts/setup {name}"
        asked: dict[str, Any] = {
            "prompt": "Do it.",
            "workspace": work,
            "isolation": "none",  # what an agent does is looked at in the folder itself
            "agent": "mine",
            **(task or {}),
        }
        async with Supervisor(config, ask=ask) as supervisor:
            outcome = await supervisor.run(Task(**asked), events.append)
        return Played(
            outcome=outcome,
            events=events,
            requests=[one for one in server.requests if not _ours(one)],
            unsaid=server.remaining(),
            work=work,
            home=home,
            state=config.state,
        )


def _ours(request: Request) -> bool:
    """Whether it is our own look at the server before the run, and not the agent's doing."""
    return request.headers.get("user-agent") == "orchestrate"


def fingerprint(folder: Path) -> dict[str, str]:
    """Of a folder and of everything below it: mode, owners, time of change, links, extended
    attributes, and the content.
    """
    return {str(path.relative_to(folder)): _facts(path) for path in (folder, *folder.rglob("*"))}


def _facts(path: Path) -> str:
    stat = path.lstat()
    names = os.listxattr(path, follow_symlinks=False)
    extended = {name: os.getxattr(path, name, follow_symlinks=False) for name in names}
    content = b""
    if path.is_symlink():
        content = os.fsencode(path.readlink())
    elif path.is_file():
        content = hashlib.sha256(path.read_bytes()).digest()
    # The supervisor's own look at the tree renews the time of a git object that it needs again.
    time = 0 if ".git/objects" in str(path) else stat.st_mtime_ns
    owners = f"{stat.st_uid}:{stat.st_gid}"
    return f"{stat.st_mode:o} {owners} {time} {stat.st_nlink} {extended} {content!r}"


def changed(folder: Path, before: Mapping[str, str]) -> dict[str, tuple[str | None, str | None]]:
    """What is not as it was: its facts then and now."""
    now = fingerprint(folder)
    names = {name for name, _ in now.items() ^ before.items()}
    return {name: (before.get(name), now.get(name)) for name in sorted(names)}
