"""Recordings of real CLIs, as tests use them: what was asked, what came out, how it ended."""

import json
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from orchestrator.adapter import Adapter, Agent, Exit
from orchestrator.config import Adapters, tier_of
from orchestrator.events import Changes, Event, Outcome
from orchestrator.run.replay import replay
from orchestrator.task import Task

FOLDER = Path(__file__).parent / "recordings"
ADAPTERS = Adapters()


@dataclass(frozen=True)
class Recording:
    meta: Path

    @property
    def name(self) -> str:
        return str(self.meta.relative_to(FOLDER)).removesuffix(".meta.json")

    @cached_property
    def facts(self) -> dict[str, object]:
        facts = json.loads(self.meta.read_text())
        assert isinstance(facts, dict)
        return facts

    @cached_property
    def stdout(self) -> bytes:
        return self._file(".jsonl").read_bytes()

    @cached_property
    def stderr(self) -> str:
        return self._file(".stderr").read_text("utf-8", "replace")

    @cached_property
    def adapter(self) -> Adapter:
        return ADAPTERS[str(self.facts["adapter"])]

    @cached_property
    def task(self) -> Task:
        asked = self.facts["task"]
        assert isinstance(asked, dict)
        return Task(
            prompt=asked["prompt"],
            kind=asked.get("kind"),
            access=asked.get("access"),
            workspace=Path(asked["workspace"]),
            session_id=asked.get("session_id"),
        )

    @cached_property
    def agent(self) -> Agent:
        named = self.facts["agent"]
        assert isinstance(named, dict)
        fields = {key: value for key, value in named.items() if key != "config"}
        if fields.get("base_url") is not None:
            fields.setdefault("tier", tier_of(fields["base_url"]))
        return Agent(**fields, home=str(self.task.workspace.with_name("home")))

    @property
    def changes(self) -> Changes:
        changed = self.facts["changed"]
        assert isinstance(changed, list)
        return Changes(files=changed, insertions=0, deletions=0)

    @cached_property
    def exit(self) -> Exit:
        ended = self.facts["exit"]
        assert isinstance(ended, dict)
        return Exit(
            status=ended["status"],
            signal=ended["signal"],
            stderr=self.stderr,
            dismissed=ended.get("dismissed", False),
        )

    def play(
        self,
        chunks: Iterable[bytes] | None = None,
        *,
        exit_: Exit | None = None,
        task: Task | None = None,
    ) -> tuple[list[Event], Outcome]:
        """Replay it, or other bytes as if they were it."""
        events: list[Event] = []
        outcome = replay(
            self.adapter,
            task=task or self.task,
            agent=self.agent,
            stdout=[self.stdout] if chunks is None else chunks,
            exit_=exit_ or self.exit,
            publish=events.append,
            changes=self.changes,
        )
        return events, outcome

    def _file(self, ending: str) -> Path:
        return self.meta.with_name(self.meta.name.removesuffix(".meta.json") + ending)


RECORDINGS = [Recording(meta) for meta in sorted(FOLDER.glob("*/*/*.meta.json"))]
